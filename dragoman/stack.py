"""The one-machine stack: an embedded Redis, the workers and the API, started, watched and stopped
together."""

import dataclasses
import errno
import json
import selectors
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType

from broker import functions
from broker.errors import BrokerError
from broker.settings import BrokerSettings
from broker.tenants import KeySettings, check_exposure, read_secret
from dragoman import embedded_redis, tiers
from dragoman.settings import StackSettings
from dragoman.supervisor import StackFailed, Stage, Supervisor

TURN_S = 0.5  # at the latest; output, exits and signals end a wait at once
REPEAT_S = 1.0  # a second Ctrl-C within this time is the first one, seen twice

SAMPLE = {
    "payload": {
        "fromLang": "en",
        "records": [{"id": "123", "text": "Life is like a box of chocolates."}],
        "toLang": "ja",
    }
}


def check_address(host: str, port: int) -> None:
    """Raises StackFailed unless the API will be able to listen there."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise StackFailed(
                f"port {port} on {host} is in use. Stop what listens there, or choose another"
                " with --port."
            ) from error
        reason = error.strerror or str(error)
        raise StackFailed(f"cannot listen on {host} port {port}: {reason}") from error


def check_keys(settings: StackSettings) -> None:
    """Raises StackFailed where the API would refuse to start, before anything else is started."""
    keys = KeySettings(settings.key_secret_file, settings.insecure)
    try:
        check_exposure(settings.host, keys)
        if keys.key_secret_file:
            read_secret(keys.key_secret_file)
    except BrokerError as error:
        raise StackFailed(str(error)) from error


def free_port(host: str) -> int:
    """A port nobody listens on at the moment."""
    with socket.create_server((host, 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


def url(settings: StackSettings) -> str:
    """Where a client on this machine reaches the API."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"


@contextmanager
def assembled(
    settings: StackSettings,
    broker: BrokerSettings,
    say: Callable[[str], None],
    *,
    operated: bool = True,
) -> Iterator[Supervisor]:
    """The stack, ready to be run; its temporary files last as long as the context. Unless
    ``operated``, it does not last long enough for an operator to need its Redis.

    Raises StackFailed when something it needs is missing or taken.
    """
    check_keys(settings)
    check_address(settings.host, settings.port)
    with ExitStack() as exits:
        stages: list[Stage] = []
        if settings.redis_url:
            broker = dataclasses.replace(broker, redis_url=settings.redis_url)
            redis = {"DRAGOMAN_REDIS_URL": settings.redis_url}
            stages.append(Stage([], lambda: load_functions(broker)))
        else:
            server = embedded_redis.find_server()
            run_dir = Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="dragoman-")))
            data_dir = Path(settings.data_dir).resolve() if settings.data_dir else None
            lock = exits.enter_context(embedded_redis.locked(data_dir)) if data_dir else None
            broker = dataclasses.replace(
                broker, redis_url=embedded_redis.redis_url(run_dir), redis_password_file=""
            )
            redis = {"DRAGOMAN_REDIS_URL": broker.redis_url, "DRAGOMAN_REDIS_PASSWORD_FILE": ""}
            command = embedded_redis.command(server, run_dir, data_dir, lock)
            stages.append(Stage([command], lambda: load_functions(broker)))
            if operated:
                commands = "dragoman keys, dead-letters and memory"
                say(f"For {commands}: export DRAGOMAN_REDIS_URL={broker.redis_url}")
        tier_commands = [
            *tiers.workers(settings, redis),
            *tiers.documents(settings, redis),
            tiers.api(settings, redis),
        ]
        stages.append(Stage(tier_commands))
        names = ("api", "documents", "worker", "")  # whoever hands work in stops first
        order = [lambda name, start=start: name.startswith(start) for start in names]
        yield Supervisor(stages, order, say, verbose=settings.verbose)


def load_functions(broker: BrokerSettings) -> None:
    """Raises StackFailed when Redis cannot serve Dragoman."""
    try:
        functions.init(broker)
    except BrokerError as error:
        raise StackFailed(f"redis: {error}") from error


class Interrupts:
    """SIGINT, SIGTERM and SIGHUP while the context lasts: counted, and readable on a socket so that
    a wait ends at once."""

    def __init__(self) -> None:
        self.count = 0
        self._last = 0.0
        self.reader, self._writer = socket.socketpair()
        for end in (self.reader, self._writer):
            end.setblocking(False)

    def __enter__(self) -> "Interrupts":
        self._wakeup = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as under nohup
            numbers.append(signal.SIGHUP)
        self._previous = {number: signal.signal(number, self._note) for number in numbers}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        self.reader.close()
        self._writer.close()

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self.count or now - self._last > REPEAT_S:
            self.count += 1
        self._last = now

    def drain(self) -> None:
        with suppress(BlockingIOError):
            self.reader.recv(4096)


def run(
    supervisor: Supervisor,
    interrupts: Interrupts,
    when_ready: Callable[[], None],
    until: Callable[[], bool] = lambda: False,
) -> None:
    """Turns until everything has stopped: after a signal, when ``until`` says so, or because a
    process never became ready. Raises StackFailed then. A second signal ends everything at once.
    """
    try:
        _turn_until_stopped(supervisor, interrupts, when_ready, until)
    except BaseException:  # none that we know of, so nobody else would stop the processes
        supervisor.kill()
        raise
    if supervisor.failure is not None:
        raise supervisor.failure


def _turn_until_stopped(
    supervisor: Supervisor,
    interrupts: Interrupts,
    when_ready: Callable[[], None],
    until: Callable[[], bool],
) -> None:
    announced = False
    while not supervisor.stopped:
        supervisor.turn(time.monotonic())
        if interrupts.count > 1:
            supervisor.kill()
        elif interrupts.count == 1 or until():
            supervisor.stop()
        if supervisor.ready and not announced:
            announced = True
            when_ready()
        if not supervisor.stopped:
            wait([interrupts.reader.fileno(), *supervisor.wake_ups()])
            interrupts.drain()


def wait(descriptors: list[int]) -> None:
    """Returns when one of them is readable, or after ``TURN_S``."""
    with selectors.DefaultSelector() as selector:
        for descriptor in descriptors:
            selector.register(descriptor, selectors.EVENT_READ)
        selector.select(TURN_S)


def workers_of(settings: StackSettings) -> str:
    return f"{settings.workers} worker{'s' if settings.workers > 1 else ''}"


def beginning(settings: StackSettings) -> str:
    """What is printed at once, since a model takes a while to load."""
    redis = "" if settings.redis_url else "an embedded Redis, "
    return f"Starting {redis}{workers_of(settings)} and the API …"


def welcome(settings: StackSettings) -> str:
    """What is printed once everything is ready: one line, and a call to try."""
    body = json.dumps(SAMPLE, separators=(",", ":"))
    at, workers = url(settings), workers_of(settings)
    key = " -H 'Authorization: Bearer KEY'" if settings.key_secret_file else ""
    return (
        f"Dragoman is ready on {at} ({workers}, model {settings.model}; Ctrl-C stops it). Try:\n\n"
        f"curl -X POST {at}/translation -H 'Content-Type: application/json'{key} \\\n"
        f"  -d '{body}'\n"
    )

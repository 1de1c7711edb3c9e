"""Keeps a set of processes running: starts them stage by stage, starts again what dies, and stops
them in order. One ``turn`` is one look at all of them; the clock is an argument."""

import re
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from dragoman.process import Command, Process, Running, Tail, exit_reason

FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 30.0
STEADY_S = 60.0  # ready this long: the next death counts as the first
PATIENCE_S = 30.0  # then it is said what the start waits for, again and again

_ALARMING = re.compile(r"\b(WARNING|ERROR|CRITICAL)\b")


class StackFailed(Exception):
    """A process ended before it was ever ready; the message is what it said."""


class Service:
    """A process that is to be there, over all of its lives."""

    def __init__(self, command: Command, spawn: Callable[[Command], Running]) -> None:
        self.command = command
        self.process: Running | None = None
        self.ready = False
        self.was_ready = False
        self._spawn = spawn
        self._tail = Tail()
        self._start_at: float | None = None
        self._deaths = 0
        self._said_ready = 0
        self._ready_since = 0.0
        self._kill_at: float | None = None

    @property
    def name(self) -> str:
        return self.command.name

    def start(self) -> None:
        """Starts it. Raises StackFailed when there is nothing to start."""
        self._tail.clear()
        self._said_ready = 0
        self._start_at = None
        try:
            self.process = self._spawn(self.command)
        except OSError as error:
            raise StackFailed(f"{self.name} could not be started: {error}") from error

    def read(self, now: float) -> Iterator[str]:
        """What it printed since the last call; notices the line that says it is ready."""
        if self.process is None:
            return
        for line in self.process.lines():
            self._tail.add(line)
            self._said_ready += self.command.ready_line in line
            if not self.ready and self._said_ready >= self.command.ready_count:
                self.ready = self.was_ready = True
                self._ready_since = now
            yield line

    def bury(self) -> None:
        """Forgets a process that has ended, and ends whatever children it left behind."""
        if self.process is not None:
            self.process.send(signal.SIGKILL)
        self.process, self.ready, self._kill_at = None, False, None

    def start_later(self, now: float) -> float:
        """Plans the next start after a death and returns the delay in seconds."""
        if self._ready_since and now - self._ready_since >= STEADY_S:
            self._deaths = 0
        self._ready_since = 0.0
        delay = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0**self._deaths)
        self._deaths += 1
        self._start_at = now + delay
        return delay

    def due(self, now: float) -> bool:
        return self._start_at is not None and now >= self._start_at

    def stop(self, now: float) -> None:
        """Asks it to stop, and once its time is over, ends it."""
        self._start_at = None
        if self.process is None:
            return
        if self._kill_at is None:
            self._kill_at = now + self.command.stop_within_s
            self.process.send(signal.SIGTERM)
        elif now >= self._kill_at:
            self.process.send(signal.SIGKILL)

    def last_words(self) -> str:
        return self._tail.error()

    def last_line(self) -> str:
        return self._tail.last()


@dataclass(frozen=True)
class Stage:
    """Processes that may start together, and what has to be done once all of them are ready."""

    commands: Sequence[Command]
    afterwards: Callable[[], None] | None = None  # may raise StackFailed


class Supervisor:
    """All processes of the stack. Stages start in order and stop in the order of ``stop_order``."""

    def __init__(
        self,
        stages: Sequence[Stage],
        stop_order: Sequence[Callable[[str], bool]],
        say: Callable[[str], None],
        *,
        verbose: bool = False,
        spawn: Callable[[Command], Running] = Process,
    ) -> None:
        self._stages = [
            ([Service(command, spawn) for command in stage.commands], stage.afterwards)
            for stage in stages
        ]
        self.services = [service for services, _ in self._stages for service in services]
        self._stop_order = stop_order
        self._say = say
        self._verbose = verbose
        self._started = 0  # stages that were started
        self._settled = 0  # stages that were ready once and whose ``afterwards`` has run
        self._stopping = False
        self._say_at: float | None = None
        self.failure: StackFailed | None = None

    @property
    def ready(self) -> bool:
        """Everything was started and is ready."""
        return (
            not self._stopping
            and self._settled == len(self._stages)
            and all(service.ready for service in self.services)
        )

    @property
    def stopped(self) -> bool:
        return self._stopping and all(service.process is None for service in self.services)

    def stop(self) -> None:
        self._stopping = True

    def kill(self) -> None:
        """Ends everything at once; what is in flight is left to the leases."""
        self._stopping = True
        for service in self.services:
            if service.process is not None:
                service.process.send(signal.SIGKILL)

    def wake_ups(self) -> list[int]:
        """File descriptors that become readable when a turn has something to do."""
        running = [service.process for service in self.services if service.process is not None]
        return [process.fileno() for process in running if process.fileno() >= 0]

    def turn(self, now: float) -> None:
        """Reads what the processes print, notices the dead, and does what is next."""
        for service in self.services:
            if service.process is None:
                continue
            code = service.process.exit_code()  # before reading: what it printed last is there
            for line in service.read(now):
                self._show(service, line)
            if code is not None:
                service.bury()
                self._died(service, code, now)
        try:
            if self._stopping:
                self._stop_next(now)
            else:
                self._start_next(now)
        except StackFailed as error:
            self._fail(error)

    def _show(self, service: Service, line: str) -> None:
        if self._verbose or (service.was_ready and _ALARMING.search(line)):
            self._say(f"{service.name} | {line}")

    def _died(self, service: Service, code: int, now: float) -> None:
        if self._stopping:
            return
        if not service.was_ready:
            words = service.last_words()
            self._fail(StackFailed(f"{service.name} {exit_reason(code)}.\n{words}".rstrip()))
            return
        delay = service.start_later(now)
        self._say(f"{service.name} {exit_reason(code)}; it is started again in {delay:g} s.")

    def _fail(self, error: StackFailed) -> None:
        if self.failure is None:
            self.failure = error
        self._stopping = True

    def _start_next(self, now: float) -> None:
        for service in self.services:
            if service.due(now):
                self._start_again(service, now)
        if self._started > self._settled:
            services, afterwards = self._stages[self._settled]
            waiting = [service for service in services if not service.ready]
            if waiting:
                self._excuse(waiting, now)
                return
            if afterwards is not None:
                afterwards()
            self._settled += 1
        if self._started < len(self._stages):
            for service in self._stages[self._started][0]:
                service.start()
            self._started += 1

    def _excuse(self, waiting: Sequence[Service], now: float) -> None:
        """Says what the start waits for, so that a hang does not look like patience."""
        if self._say_at is not None and now >= self._say_at:
            for service in waiting:
                said = service.last_line()
                self._say(f"still waiting for {service.name}" + (f": {said}" if said else ""))
        if self._say_at is None or now >= self._say_at:
            self._say_at = now + PATIENCE_S

    def _start_again(self, service: Service, now: float) -> None:
        try:
            service.start()
        except StackFailed as error:  # out of processes or memory: that may pass
            self._say(f"{error}; tried again in {service.start_later(now):g} s.")

    def _stop_next(self, now: float) -> None:
        """Stops the first group of the order that still has a process running."""
        for belongs in self._stop_order:
            group = [s for s in self.services if s.process is not None and belongs(s.name)]
            if group:
                for service in group:
                    service.stop(now)
                return

"""The supervisor turn by turn, with processes that do as they are told and a clock that is ours."""

import signal
from dataclasses import dataclass, field

import pytest

from dragoman.process import Command
from dragoman.supervisor import (
    FIRST_DELAY_S,
    LONGEST_DELAY_S,
    PATIENCE_S,
    STEADY_S,
    StackFailed,
    Stage,
    Supervisor,
)


@dataclass
class FakeProcess:
    command: Command
    output: list[str] = field(default_factory=list)
    code: int | None = None
    signals: list[signal.Signals] = field(default_factory=list)
    stubborn: bool = False
    pid: int = 1

    def lines(self) -> list[str]:
        printed, self.output = self.output, []
        return printed

    def exit_code(self) -> int | None:
        return self.code

    def send(self, number: signal.Signals) -> None:
        self.signals.append(number)
        if self.code is None and (number is signal.SIGKILL or not self.stubborn):
            self.code = -number

    def fileno(self) -> int:
        return -1


class World:
    """A supervisor over fake processes, and everything they and it did."""

    def __init__(self, *stages: Stage, verbose: bool = False) -> None:
        self.started: list[FakeProcess] = []
        self.said: list[str] = []
        self.broken = ""  # the name of a command that cannot be started
        order = [lambda name, tier=tier: name.startswith(tier) for tier in ("api", "worker", "")]
        self.supervisor = Supervisor(
            stages, order, self.said.append, verbose=verbose, spawn=self._spawn
        )
        self.now = 100.0

    def _spawn(self, command: Command) -> FakeProcess:
        if command.name == self.broken:
            raise FileNotFoundError(2, "No such file or directory")
        self.started.append(FakeProcess(command))
        return self.started[-1]

    def turn(self, seconds: float = 0.0) -> None:
        self.now += seconds
        self.supervisor.turn(self.now)

    def names(self) -> list[str]:
        return [process.command.name for process in self.started]

    def last(self, name: str) -> FakeProcess:
        return [process for process in self.started if process.command.name == name][-1]

    def make_ready(self) -> None:
        """Turns until every process there is has said that it is ready."""
        for _ in range(6):
            for process in self.started:
                process.output.append("it is ready")
            self.turn()
        assert self.supervisor.ready


def command(name: str, ready_count: int = 1) -> Command:
    return Command(name, [name], "is ready", stop_within_s=5.0, ready_count=ready_count)


def full_stack() -> World:
    return World(Stage([command("redis")]), Stage([command("worker-1"), command("api")]))


def test_a_stage_starts_when_the_one_before_is_ready() -> None:
    done: list[str] = []
    world = World(
        Stage([command("redis")], lambda: done.append("functions")), Stage([command("api")])
    )
    world.turn()
    world.turn()
    assert (world.names(), done) == (["redis"], [])
    world.last("redis").output.append("12:00 redis is ready now")
    world.turn()
    world.turn()
    assert (world.names(), done) == (["redis", "api"], ["functions"])
    assert not world.supervisor.ready
    world.last("api").output.append("api is ready")
    world.turn()
    world.turn()
    assert world.supervisor.ready


def test_a_start_that_takes_long_says_what_it_waits_for() -> None:
    world = World(Stage([command("worker-1"), command("api")]))
    world.turn()
    world.last("api").output.append("api is ready")
    world.last("worker-1").output.append("loading 1.9 GB of weights")
    world.turn()
    world.turn(PATIENCE_S - 1)
    assert world.said == []
    world.turn(1)
    world.turn(1)
    assert world.said == ["still waiting for worker-1: loading 1.9 GB of weights"]
    world.turn(PATIENCE_S)
    assert len(world.said) == 2


def test_a_stage_without_processes_only_does_its_work() -> None:
    done: list[str] = []
    world = World(Stage([], lambda: done.append("functions")), Stage([command("api")]))
    world.turn()
    world.turn()
    assert (world.names(), done) == (["api"], ["functions"])


def test_a_tier_of_several_processes_is_ready_when_all_of_them_are() -> None:
    world = World(Stage([command("api", ready_count=2)]))
    world.turn()
    world.last("api").output.append("process 1 is ready")
    world.turn()
    assert not world.supervisor.ready
    world.last("api").output.append("process 2 is ready")
    world.turn()
    world.turn()
    assert world.supervisor.ready


def test_death_before_the_first_ready_stops_everything_with_its_last_words() -> None:
    world = World(Stage([command("redis")]), Stage([command("worker-1"), command("api")]))
    world.turn()
    world.last("redis").output.append("is ready")
    world.turn()
    world.last("worker-1").output.append("--model nonsense: there is no such checkpoint")
    world.last("worker-1").code = 2
    world.turn()
    assert world.last("api").signals == [signal.SIGTERM]
    for _ in range(4):
        world.turn()
    assert world.supervisor.stopped
    assert str(world.supervisor.failure) == (
        "worker-1 ended with exit code 2.\n--model nonsense: there is no such checkpoint"
    )


def test_a_traceback_is_shown_whole() -> None:
    world = World(Stage([command("api")]))
    world.turn()
    trace = ["Traceback (most recent call last)", *[f"  line {n}" for n in range(30)], "KeyError"]
    world.last("api").output += ["hello"] * 5 + trace
    world.last("api").code = 1
    world.turn()
    assert "\n".join(trace) in str(world.supervisor.failure)


def test_what_cannot_be_started_is_an_error_too() -> None:
    world = World(Stage([command("api")]))
    world.broken = "api"
    world.turn()
    assert "api could not be started" in str(world.supervisor.failure)
    assert world.supervisor.stopped


def test_work_after_a_stage_that_fails_stops_everything() -> None:
    def refuse() -> None:
        raise StackFailed("redis: maxmemory-policy is allkeys-lru")

    world = World(Stage([command("redis")], refuse), Stage([command("api")]))
    world.turn()
    world.last("redis").output.append("is ready")
    world.turn()
    world.turn()
    world.turn()
    assert world.supervisor.stopped
    assert world.names() == ["redis"]
    assert "allkeys-lru" in str(world.supervisor.failure)


def test_a_tier_that_was_ready_is_started_again() -> None:
    world = full_stack()
    world.make_ready()
    world.last("worker-1").code = -signal.SIGKILL
    world.turn()
    assert world.said == ["worker-1 was ended by SIGKILL; it is started again in 0.5 s."]
    assert not world.supervisor.ready
    assert world.names().count("worker-1") == 1
    world.turn(FIRST_DELAY_S)
    assert world.names().count("worker-1") == 2
    world.make_ready()
    assert world.supervisor.failure is None


def test_the_pause_between_deaths_grows_and_is_forgotten_after_a_steady_time() -> None:
    world = World(Stage([command("worker-1")]))
    world.make_ready()
    pauses = []
    for _ in range(8):
        world.last("worker-1").code = 1
        world.turn()
        pauses.append(float(world.said[-1].rpartition(" in ")[2].removesuffix(" s.")))
        world.turn(pauses[-1])
        world.turn()
    assert pauses == [0.5, 1, 2, 4, 8, 16, LONGEST_DELAY_S, LONGEST_DELAY_S]
    world.make_ready()
    world.now += STEADY_S
    world.last("worker-1").code = 1
    world.turn()
    assert world.said[-1].endswith("in 0.5 s.")


def test_a_restart_that_cannot_be_made_now_is_tried_later() -> None:
    world = World(Stage([command("worker-1")]))
    world.make_ready()
    world.last("worker-1").code = 1
    world.broken = "worker-1"
    world.turn()
    world.turn(FIRST_DELAY_S)
    assert "tried again in 1 s" in world.said[-1]
    world.broken = ""
    world.turn(1.0)
    assert world.names() == ["worker-1", "worker-1"]
    assert world.supervisor.failure is None


def test_children_of_a_dead_process_are_ended() -> None:
    world = World(Stage([command("api")]))
    world.make_ready()
    world.last("api").code = 1
    world.turn()
    assert world.last("api").signals == [signal.SIGKILL]


def test_api_stops_first_then_workers_then_redis() -> None:
    world = full_stack()
    world.make_ready()
    for process in world.started:
        process.stubborn = True
    world.supervisor.stop()
    stopped = []
    for _ in range(3):
        world.turn()
        (asked,) = [one for one in world.started if one.signals and one.code is None]
        stopped.append(asked.command.name)
        asked.code = 0
    world.turn()
    assert stopped == ["api", "worker-1", "redis"]
    assert world.supervisor.stopped
    assert world.supervisor.failure is None


def test_what_does_not_stop_in_time_is_killed() -> None:
    world = World(Stage([command("worker-1")]))
    world.make_ready()
    world.last("worker-1").stubborn = True
    world.supervisor.stop()
    world.turn()
    world.turn(4.9)
    assert world.last("worker-1").signals == [signal.SIGTERM]
    world.turn(0.1)
    assert signal.SIGKILL in world.last("worker-1").signals
    world.turn()
    assert world.supervisor.stopped


def test_nothing_is_started_again_while_stopping() -> None:
    world = full_stack()
    world.make_ready()
    world.last("worker-1").code = 1
    world.turn()
    world.supervisor.stop()
    for _ in range(5):
        world.turn(LONGEST_DELAY_S)
    assert world.names() == ["redis", "worker-1", "api"]
    assert world.supervisor.stopped


def test_kill_ends_everything_at_once() -> None:
    world = full_stack()
    world.make_ready()
    for process in world.started:
        process.stubborn = True
    world.supervisor.kill()
    world.turn()
    assert world.supervisor.stopped


@pytest.mark.parametrize("verbose", [False, True])
def test_warnings_are_shown_and_the_rest_on_request(verbose: bool) -> None:
    world = World(Stage([command("api")]), verbose=verbose)
    world.make_ready()
    world.said.clear()
    world.last("api").output += ["INFO served", "WARNING dragoman.api slow"]
    world.turn()
    shown = ["api | WARNING dragoman.api slow"]
    assert world.said == (["api | INFO served", *shown] if verbose else shown)

"""Each tier's Redis user is granted every command that the tier may send, itself or inside a
function. Read from the source: no test walks through every branch as that user."""

import ast
import re
from importlib.util import find_spec
from pathlib import Path

import grimp
import pytest

from broker import functions, users
from tests.deployment import tools
from tests.deployment.images import TIERS
from tests.deployment.test_imports import OURS, entries, reached
from tests.redis_server import RedisServer

BODY = re.compile(r"^local function (\w+)(\(.*?)^end$", re.MULTILINE | re.DOTALL)
CALL = re.compile(r"redis\.p?call\('(\w+)'")
ERRORS = {"READONLY"}  # commands by name, but said by servers
BODIES = dict(BODY.findall(functions.source()))


def words(modules: set[str]) -> set[str]:
    """The strings in the source of modules."""
    found: set[str] = set()
    for module in modules:
        spec = find_spec(module)
        assert spec is not None
        assert spec.origin is not None
        tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
        constants = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
        found |= {value for value in constants if isinstance(value, str)}
    return found


def inside(function: str) -> set[str]:
    """The commands inside a function of the library, and inside those that it calls."""
    seen: set[str] = set()
    ahead = {function}
    while ahead:
        name = ahead.pop()
        seen.add(name)
        ahead |= {other for other in BODIES if re.search(rf"\b{other}\(", BODIES[name])} - seen
    return {command for name in seen for command in CALL.findall(BODIES[name])}


def granted(user: str) -> set[str]:
    """The commands of a user, without their subcommands."""
    acl = users.render(dict.fromkeys(users.USERS, "")).splitlines()
    (line,) = (line for line in acl if line.startswith(f"user {user} "))
    return {command.upper() for command in re.findall(r"\+(\w+)", line)}


@pytest.mark.parametrize("folder", TIERS)
def test_a_tier_may_send_what_it_sends(folder: str, redis_server: RedisServer) -> None:
    known = {name.decode().upper() for name in redis_server.client.command_list()}
    graph = grimp.build_graph(*OURS)
    said = words(reached(graph, entries(tools.ROOT / folder / "Dockerfile", beside=False)))
    called = said & set(BODIES)
    assert called
    needed = (said & known - ERRORS).union(*map(inside, called))
    assert {"FCALL", "HSET"} <= needed
    assert needed - granted(f"dragoman-{TIERS[folder]}") == set()

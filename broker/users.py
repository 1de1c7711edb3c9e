"""The Redis users of the tiers: new passwords for them, and the ACL file that a server reads."""

import hashlib
import os
import re
import secrets
from importlib.resources import files
from pathlib import Path

from broker.errors import BrokerMisconfigured

ACL_FILE = "users.acl"
USERS = ("api", "worker", "documents", "rq", "operator")


def example() -> str:
    """The text of ``acl.example``."""
    return files("broker").joinpath("acl.example").read_text(encoding="utf-8")


def render(passwords: dict[str, str]) -> str:
    """The example as a server takes it: a line a user, no comments, and passwords as hashes alone.
    ``passwords`` are those of ``USERS``."""
    lines = [line for line in example().splitlines() if line and not line.startswith("#")]
    whole = re.sub(r"\n ", " ", "\n".join(lines))
    for name in USERS:
        hashed = hashlib.sha256(passwords[name].encode()).hexdigest()
        whole = whole.replace(f"#{{{name}}}", f"#{hashed}")
    return whole + "\n"


def write(folder: Path) -> list[Path]:
    """Writes a file with a password for each user, where there is none yet, and the ACL file that
    goes with them. Returns what was written. Raises BrokerMisconfigured."""
    written, passwords = [], {}
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in USERS:
            path = folder / f"{name}.password"
            if not path.exists():
                _write(path, secrets.token_urlsafe(32) + "\n")
                written.append(path)
            passwords[name] = path.read_text(encoding="utf-8").partition("\n")[0].strip()
            if not passwords[name]:
                raise BrokerMisconfigured(f"{path} holds no password: remove it, and try again")
        acl = folder / ACL_FILE
        acl.unlink(missing_ok=True)
        _write(acl, render(passwords))
    except OSError as error:
        raise BrokerMisconfigured(f"{folder}: {error.strerror}") from error
    return [*written, acl]


def _write(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)

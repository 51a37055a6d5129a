"""How operations, answers and problems look on the wire between a controller and an agent."""

import re
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any

import msgspec

from vferry.host.api import Operation, Session
from vferry.model.problem import Exit, Problem

OPERATION_HEADER = "Vferry-Operation"
EPOCH_HEADER = "Vferry-Epoch"
MAX_BODY = 1024 * 1024
SESSION_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")

SECRET = frozenset({"token", "pem", "certificate", "ca"})
LONG = frozenset({"xml", "persistent_xml", "live_xml", "script"})
MANY = frozenset({"connections"})
SHOWN = 120


@cache
def operations() -> dict[str, type[Operation[Any]]]:
    """Every operation of the API by its tag."""
    return {str(kind.__struct_config__.tag): kind for kind in Operation.__subclasses__()}


def tag(operation: Operation[Any]) -> str:
    return str(type(operation).__struct_config__.tag)


@cache
def reply_type(kind: type[Operation[Any]]) -> Any:
    """What an operation is answered with: the R of its ``Operation[R]``."""
    for base in kind.__dict__.get("__orig_bases__", ()):
        if typing.get_origin(base) is Operation:
            return typing.get_args(base)[0]
    raise TypeError(f"{kind.__name__} does not say what it is answered with")


def session_headers(session: Session | None) -> dict[str, str]:
    if session is None:
        return {}
    return {OPERATION_HEADER: session.operation, EPOCH_HEADER: str(session.epoch)}


def read_session(headers: Mapping[str, str]) -> Session | None:
    """The session that a request is made in. Problem ``session-invalid``."""
    operation, epoch = headers.get(OPERATION_HEADER), headers.get(EPOCH_HEADER, "1")
    if operation is None:
        return None
    if not SESSION_ID.fullmatch(operation) or not re.fullmatch(r"[1-9][0-9]{0,17}", epoch):
        raise Problem(
            "session-invalid",
            f"The session is not an operation's id and an epoch: {operation[:SHOWN]!r}, {epoch[:SHOWN]!r}",
            f"Send {OPERATION_HEADER} (letters, digits, . _ -) and {EPOCH_HEADER} (a whole number from 1)",
        )
    return Session(operation=operation, epoch=int(epoch))


def encode_problem(problem: Problem) -> bytes:
    return msgspec.json.encode(
        {
            "code": problem.code,
            "message": problem.message,
            "remedy": problem.remedy,
            "exit": int(problem.exit),
            "attributes": problem.attributes,
        },
        enc_hook=str,
    )


class _WireProblem(msgspec.Struct):
    code: str
    message: str
    remedy: str = ""
    exit: int = int(Exit.USAGE)
    attributes: dict[str, Any] = {}


def decode_problem(body: bytes) -> Problem | None:
    """None when the body is not a problem."""
    try:
        read = msgspec.json.decode(body, type=_WireProblem)
        problem = Problem(read.code, read.message, read.remedy, exit=Exit(read.exit))
    except ValueError:
        return None
    problem.attributes = read.attributes
    return problem


def describe(operation: Operation[Any]) -> str:
    """An operation for the log: no secrets, of long texts the length only, and how many of many."""
    words = []
    for field in operation.__struct_fields__:
        value = getattr(operation, field)
        if value is None or field in SECRET:
            continue
        if field in LONG:
            words.append(f"{field}=({len(value)} characters)")
        elif field in MANY:
            words.append(f"{field}=({len(value)})")
        else:
            words.append(f"{field}={_shown(value)}")
    return " ".join(words)


def _shown(value: object) -> str:
    if isinstance(value, msgspec.Struct):
        known = {k: v for k, v in msgspec.to_builtins(value).items() if v is not None and k not in SECRET}
        value = ",".join(f"{k}:{v}" for k, v in known.items())
    # A control character in a name must not make a second line in the log.
    return "".join(c if c.isprintable() else "?" for c in str(value))[:SHOWN]

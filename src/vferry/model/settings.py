"""Settings files: TOML read into frozen types, every error with its file, its line and what to write instead."""

import difflib
import re
import tomllib
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import msgspec

from vferry.model.problem import Problem

T = TypeVar("T")
Keys = tuple[str, ...]

KEY = r"""[A-Za-z0-9_-]+|"[^"]*"|'[^']*'"""
HEADER = re.compile(rf"^\s*\[\s*((?:{KEY})(?:\s*\.\s*(?:{KEY}))*)\s*\]")
ASSIGNMENT = re.compile(rf"^\s*((?:{KEY})(?:\s*\.\s*(?:{KEY}))*)\s*=")


def read_settings(path: Path, kind: type[T], example: str) -> T:
    """Reads a file that must exist as `kind`; `example` is a complete valid one, quoted in remedies.

    A `kind` may check itself in ``__post_init__`` by raising ``ValueError("key: what is wrong")``.
    Problems: ``configuration-missing``, ``configuration-invalid`` (attributes `file` and `line`).
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise Problem(
            "configuration-missing",
            f"{path} does not exist",
            f"Write it, for example:\n\n{example}\n(end of the example)",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise Problem("configuration-invalid", f"{path} cannot be read: {error}", "Write it as UTF-8 text") from error
    return _SettingsFile(path, text, example).convert(kind)


def read_layers(paths: list[Path], kind: type[T], example: str) -> T:
    """Reads those of `paths` that exist, later ones over earlier ones, key by key; none at all gives the defaults.

    Each file is checked for itself, so that an error names the right one. Problem ``configuration-invalid``.
    """
    merged: dict[str, Any] = {}
    for path in paths:
        if path.exists():
            read_settings(path, kind, example)
            merged = _overlaid(merged, tomllib.loads(path.read_text(encoding="utf-8")))
    return msgspec.convert(merged, kind)


def _overlaid(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        result[key] = _overlaid(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


class _SettingsFile:
    """One file's text, to find the line that a complaint is about."""

    def __init__(self, path: Path, text: str, example: str) -> None:
        self.path = path
        self.text = text
        self.example = example

    def convert(self, kind: type[T]) -> T:
        data = self._parse()
        try:
            return msgspec.convert(data, kind)
        except msgspec.ValidationError as error:
            message, keys = _split(str(error))
            self._refuse_value(message, _named(keys, data, kind))

    def _parse(self) -> dict[str, Any]:
        try:
            return tomllib.loads(self.text)
        except tomllib.TOMLDecodeError as error:
            found = re.search(r"^(.*) \(at (?:line (\d+), column \d+|end of document)\)", str(error), re.DOTALL)
            line = int(found[2]) if found and found[2] else self.text.count("\n") + 1
            reason = found[1] if found else str(error)
            self._refuse(line, f"not valid TOML: {reason}", "Write key = value; text stands in double quotes")

    def _refuse_value(self, message: str, keys: Keys) -> NoReturn:
        if found := re.search(r"missing required field `(.+?)`", message):
            missing = (*keys, found[1])
            self._refuse(self._line(keys), f"{_dotted(missing)} is missing", self._to_write(missing))
        if found := re.search(r"unknown field `(.+?)`", message):
            unknown = (*keys, found[1])
            self._refuse(self._line(unknown), f"there is no setting {_dotted(unknown)}", self._known(unknown))
        # A type's own check can only point at the table: it names the key in front of a colon.
        if found := re.match(r"(\w+): (.*)", message):
            keys, message = (*keys, found[1]), found[2]
        self._refuse(self._line(keys), f"{_dotted(keys)}: {message}", self._to_write(keys))

    def _refuse(self, line: int, message: str, remedy: str) -> NoReturn:
        raise Problem(
            "configuration-invalid",
            f"{self.path}, line {line}: {message}",
            remedy,
            file=str(self.path),
            line=line,
        ) from None

    def _line(self, keys: Keys) -> int:
        lines = key_lines(self.text)
        while keys and keys not in lines:
            keys = keys[:-1]
        return lines.get(keys, 1)

    def _to_write(self, keys: Keys) -> str:
        """The example's line for these keys; a table named by the operator is looked up by its place."""
        if keys and keys[-1].isdigit():
            keys = keys[:-1]
        for known, line in key_lines(self.example).items():
            if len(known) == len(keys) and known[:1] == keys[:1] and known[-1] == keys[-1]:
                table = f"[{_dotted(keys[:-1])}] " if keys[:-1] else ""
                return f"Write for example: {table}{self.example.splitlines()[line - 1].strip()}"
        return f"Write it as in this example:\n\n{self.example}\n(end of the example)"

    def _known(self, keys: Keys) -> str:
        lines = key_lines(self.example)
        known = sorted({k[-1] for k in lines if len(k) == len(keys) and k[:1] == (keys[:1] if keys[1:] else k[:1])})
        close = difflib.get_close_matches(keys[-1], known, 1)
        return f"Write {close[0]} instead" if close else f"Remove it; known here: {', '.join(known)}"


def key_lines(text: str) -> dict[Keys, int]:
    """Where each table and key of a TOML text is written first, counting from 1."""
    lines: dict[Keys, int] = {}
    table: Keys = ()
    for number, line in enumerate(text.splitlines(), 1):
        if header := HEADER.match(line):
            table = keys = _keys(header[1])
        elif assignment := ASSIGNMENT.match(line):
            keys = table + _keys(assignment[1])
        else:
            continue
        for depth in range(1, len(keys) + 1):
            lines.setdefault(keys[:depth], number)
    return lines


def _keys(written: str) -> Keys:
    return tuple(key.strip("\"'") for key in re.findall(KEY, written))


def _dotted(keys: Keys) -> str:
    return ".".join(keys)


def _split(error: str) -> tuple[str, Keys]:
    """A msgspec error as its message and the keys of its path; `...` stands for a key of the operator's."""
    message, _, path = error.partition(" - at `$")
    keys = re.findall(r"\.(\w+)|\[(\.\.\.|\d+)\]", path.rstrip("`"))
    return message, tuple(name or index for name, index in keys)


def _named(keys: Keys, data: dict[str, Any], kind: type[Any]) -> Keys:
    """Puts names for msgspec's `...`, by looking which entry alone still fails."""
    if "..." not in keys:
        return keys
    at = keys.index("...")
    table = data
    for key in keys[:at]:
        table = table[key]
    for name in list(table):
        try:
            msgspec.convert(_with(data, keys[:at], {name: table[name]}), kind)
        except msgspec.ValidationError:
            return (*keys[:at], name, *keys[at + 1 :])
    return keys[:at]


def _with(data: dict[str, Any], keys: Keys, value: Any) -> dict[str, Any]:
    if not keys:
        return dict(value)
    return {**data, keys[0]: _with(data[keys[0]], keys[1:], value)}

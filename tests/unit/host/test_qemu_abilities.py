"""What QEMU says that it can do, by QMP: read from answers, and asked of a program."""

import json
import shutil
from pathlib import Path

import pytest
from fake_libvirt import FakeDomain, FakeLibvirt
from xml_samples import domain

from vferry.host import qemu_abilities
from vferry.host.api import QemuAbilities
from vferry.host.hypervisor import Hypervisor
from vferry.host.qemu_abilities import ask_qemu, read_answers
from vferry.model.problem import Problem

MEMBERS = [{"name": "x", "type": "int"}, {"name": "multifd-compression", "type": "9"}]
SCHEMA: list[dict[str, object]] = [
    {"name": "migrate-set-parameters", "meta-type": "command", "arg-type": "7", "ret-type": "0"},
    {"name": "7", "meta-type": "object", "members": MEMBERS},
    {"name": "9", "meta-type": "enum", "values": ["none", "zstd"]},
]
ANSWERS: list[dict[str, object]] = [
    {"QMP": {"version": {}, "capabilities": []}},
    {"return": {}},
    {"return": [{"state": False, "capability": "xbzrle"}, {"state": False, "capability": "multifd"}]},
    {"event": "SHUTDOWN"},
    {"return": SCHEMA},
    {"return": {}},
]
ABLE = QemuAbilities(capabilities=("xbzrle", "multifd"), multifd_compression=("none", "zstd"))


def lines(answers: list[dict[str, object]]) -> list[bytes]:
    return [json.dumps(answer).encode() for answer in answers]


def test_answers_are_read() -> None:
    assert read_answers(lines(ANSWERS)) == ABLE


@pytest.mark.parametrize("schema", [[], SCHEMA[:1], SCHEMA[:2][::-1][:1]])
def test_what_is_not_said_cannot_be_done(schema: list[dict[str, object]]) -> None:
    assert read_answers(lines([{"return": schema}])) == QemuAbilities()


@pytest.fixture
def emulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that answers, and counts in a file how often it was started."""
    monkeypatch.setattr(qemu_abilities, "qemu_user", lambda _hypervisor: None)
    (tmp_path / "answers").write_bytes(b"\n".join(lines(ANSWERS)))
    path = tmp_path / "qemu"
    path.write_text(f"#!/bin/sh\necho >> {tmp_path}/starts\ncat {tmp_path}/answers\n")
    path.chmod(0o755)
    return path


def ask(emulator: Path | str) -> QemuAbilities:
    xml = domain().replace("/usr/bin/qemu-system-x86_64", str(emulator))
    return ask_qemu(Hypervisor(library=FakeLibvirt(FakeDomain(live=xml, persistent=xml))), xml)


def test_a_binary_is_asked_once(emulator: Path) -> None:
    assert ask(emulator) == ask(emulator) == ABLE
    assert (emulator.parent / "starts").read_text() == "\n"
    emulator.write_text(emulator.read_text().replace("cat", "true") + "# another\n")
    assert ask(emulator) == QemuAbilities()


@pytest.mark.parametrize("refusal", ["#!/bin/sh\necho broken >&2; exit 1\n", None])
def test_one_that_does_not_answer_is_a_problem(emulator: Path, refusal: str | None) -> None:
    emulator.unlink() if refusal is None else emulator.write_text(refusal)
    with pytest.raises(Problem) as caught:
        ask(emulator)
    assert caught.value.code == "qemu-silent"


def test_one_that_ends_before_it_was_asked_has_said_what_it_has_said(
    emulator: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qemu_abilities, "COMMANDS", ["x" * 200_000])  # more than a pipe holds
    assert ask(emulator) == ABLE


def test_a_real_one_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu_abilities, "qemu_user", lambda _hypervisor: None)
    path = shutil.which("qemu-system-x86_64")
    assert path
    found = ask(path)
    assert {"multifd", "xbzrle"} <= {*found.capabilities}
    assert {"none", "zlib"} <= {*found.multifd_compression}

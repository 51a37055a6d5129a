"""What a QEMU of this host can do in a migration, asked of it: started without a machine, over QMP, once a binary."""

import functools
import json
import os
import subprocess
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from vferry.host.api import QemuAbilities
from vferry.host.domain_xml import read_domain
from vferry.host.gateways import qemu_user
from vferry.host.hypervisor import Hypervisor
from vferry.model.problem import Exit, Problem

WORDS = ("-machine", "none", "-nodefaults", "-no-user-config", "-display", "none", "-S", "-qmp", "stdio")
COMMANDS = ("qmp_capabilities", "query-migrate-capabilities", "query-qmp-schema", "quit")
ANSWER_S = 60.0


def ask_qemu(hypervisor: Hypervisor, live_xml: str) -> QemuAbilities:
    """Asks the emulator that a guest's XML names. Problems ``libvirt-failed`` where it is none, ``qemu-silent``."""
    domain = read_domain(live_xml)
    with hypervisor.calling("Asking for an emulator's capabilities"):
        # libvirt runs nothing but emulators; what it does not take is not started here either.
        hypervisor.connection().getDomainCapabilities(domain.emulator, domain.arch, None, domain.type, 0)
    path = domain.emulator or ""
    try:
        status = Path(path).stat()
        user = qemu_user(hypervisor) if os.geteuid() == 0 else None
        return _ask(path, status.st_ino, status.st_mtime_ns, user)
    # The last three: it said something else than QMP, or says it in another way.
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, AttributeError) as error:
        raise Problem(
            "qemu-silent",
            f"{path} does not say what it can do: {error}",
            f"Try on this host: {path} {' '.join(WORDS)}",
            exit=Exit.REFUSED,
        ) from error


@functools.lru_cache(maxsize=8)
def _ask(path: str, _inode: int, _changed: int, user: tuple[int, int] | None) -> QemuAbilities:
    asked = "".join(json.dumps({"execute": command}) + "\n" for command in COMMANDS)
    as_user: dict[str, Any] = {} if user is None else {"user": user[0], "group": user[1], "extra_groups": []}
    with subprocess.Popen(
        [path, *WORDS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
        cwd="/",
        **as_user,
    ) as process:
        timer = threading.Timer(ANSWER_S, process.kill)
        timer.start()
        try:
            assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018 - for the type checker
            # Its input stays open: at its end QEMU drops the commands that it has not come to.
            with suppress(BrokenPipeError):  # it has ended: what it said, and how, says why
                process.stdin.write(asked.encode())
            said = process.stdout.read()
        finally:
            timer.cancel()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, path)
    return read_answers(said.splitlines())


def read_answers(lines: Iterable[bytes]) -> QemuAbilities:
    """What QEMU has answered, as QMP's objects, one a line. What is not there, it cannot do."""
    answers = [answer for line in lines if isinstance(answer := json.loads(line).get("return"), list)]
    schema = {entry["name"]: entry for answer in answers for entry in answer if "meta-type" in entry}
    return QemuAbilities(
        capabilities=tuple(entry["capability"] for answer in answers for entry in answer if "capability" in entry),
        multifd_compression=_values(schema, "migrate-set-parameters", "multifd-compression"),
    )


def _values(schema: dict[str, Any], command: str, argument: str) -> tuple[str, ...]:
    """What an argument of a command may be, by QMP's introspection, in which types are numbers."""
    arguments = schema.get(schema.get(command, {}).get("arg-type"), {})
    types = (member["type"] for member in arguments.get("members", ()) if member["name"] == argument)
    return tuple(value for kind in types for value in schema[kind]["values"])

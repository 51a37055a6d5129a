"""Running a script in a guest through its qemu-guest-agent. What the agent says is the guest's, so it is checked."""

import base64
import json
import math
import time
from typing import Any

from vferry.host.api import GuestRun
from vferry.host.hypervisor import Hypervisor
from vferry.model.problem import Exit, Problem
from vferry.model.text import MOST, clean, clean_lines

OUTPUT_LIMIT = 64 << 10
ANSWER_LIMIT = 32 << 20
"""Bytes of an answer that are read at all; the agent itself stops collecting output at 16 MiB."""
CODES = range(1 << 32)
"""What a script may end with; Windows has the greatest."""

LEAST_TIMEOUT_S = 5
FIRST_PAUSE_S = 0.01
LONGEST_PAUSE_S = 0.15
SILENCE_PAUSE_S = 0.5
SILENT = ("VIR_ERR_AGENT_UNRESPONSIVE", "VIR_ERR_AGENT_UNSYNCED")
"""libvirt's errors for an agent that did not take a command: nothing was run, so it may be asked again."""
FORBIDDEN = ("disabled", "not allowed", "has not been found", "permission denied")


def run_in_guest(
    hypervisor: Hypervisor, guest: str, script: str, timeout_s: float, *, silence_s: float = 0.0
) -> GuestRun:
    """Runs a POSIX shell script in a guest and waits for its end.

    An agent that takes no command is asked again for `silence_s`: a guest that has just resumed, or has a device
    plugged, may be too busy. libvirt waits 5 s each time.

    Problems: ``guest-off``, ``guest-agent-silent``, ``guest-exec-forbidden``, ``guest-agent-nonsense``, and
    ``guest-run-timeout`` when the script has not ended within `timeout_s`: it may still be running.
    """
    agent = GuestAgent(hypervisor, guest, timeout_s, silence_s=silence_s)
    return agent.wait(agent.start(script))


class GuestAgent:
    """A guest's agent while one script runs. Its methods' problems are those of `run_in_guest`."""

    def __init__(self, hypervisor: Hypervisor, guest: str, timeout_s: float, *, silence_s: float = 0.0) -> None:
        """`timeout_s`, from now on, is for all that is asked. Problems: ``guest-unknown``, ``guest-off``."""
        self._hypervisor = hypervisor
        self._guest = guest
        self._timeout_s = timeout_s
        self._deadline = time.monotonic() + timeout_s
        self._domain = hypervisor.running(guest)
        self._silence_s = silence_s

    def start(self, script: str) -> int:
        """Starts a POSIX shell script in the guest; answers its process id there."""
        start = {"path": "/bin/sh", "arg": ["-c", script], "capture-output": True}
        pid = self.ask("guest-exec", start).get("pid")
        if not isinstance(pid, int) or isinstance(pid, bool):
            raise _nonsense(self._guest, "guest-exec gave no process id")
        return pid

    def wait(self, pid: int) -> GuestRun:
        """Waits for the end of a script that was started."""
        pause_s = FIRST_PAUSE_S
        while True:
            status = self.ask("guest-exec-status", {"pid": pid})
            if status.get("exited") is True:
                return _ended(self._guest, status)
            if time.monotonic() + pause_s > self._deadline:
                raise _timeout(self._guest, self._timeout_s)
            time.sleep(pause_s)
            pause_s = min(pause_s * 1.4, LONGEST_PAUSE_S)

    def ask(self, command: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Gives the agent one command; its answer must be an object."""
        answer = self._answer(json.dumps({"execute": command, "arguments": arguments}))
        try:
            if len(answer) > ANSWER_LIMIT:
                raise ValueError("the answer is too long")
            value = json.loads(answer)["return"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise _nonsense(self._guest, f"{command}: {error!r}") from error
        if not isinstance(value, dict):
            raise _nonsense(self._guest, f"{command} gave no object")
        return value

    def _answer(self, request: str) -> str:
        libvirt = self._hypervisor.libvirt
        silent = {getattr(libvirt, name) for name in SILENT}
        until = min(time.monotonic() + self._silence_s, self._deadline)
        while True:
            # A command that is given up may have been carried out all the same: it gets all the time there is.
            timeout_s = max(LEAST_TIMEOUT_S, math.ceil(self._deadline - time.monotonic()))
            try:
                return self._hypervisor.agent_command(self._domain, request, timeout_s)
            except libvirt.libvirtError as error:
                if error.get_error_code() not in silent or time.monotonic() + SILENCE_PAUSE_S > until:
                    raise _failed(self._hypervisor, self._guest, error) from error
            time.sleep(SILENCE_PAUSE_S)


def _ended(guest: str, status: dict[str, Any]) -> GuestRun:
    code, signal = status.get("exitcode"), status.get("signal")
    if isinstance(signal, int):
        # As a shell says it.
        code = 128 + signal
    if not isinstance(code, int) or code not in CODES:
        raise _nonsense(guest, "guest-exec-status gave no exit code")
    return GuestRun(code=code, stdout=_text(guest, status, "out-data"), stderr=_text(guest, status, "err-data"))


def _text(guest: str, status: dict[str, Any], key: str) -> str:
    data = status.get(key, "")
    try:
        return clean_lines(base64.b64decode(data, validate=True)[:OUTPUT_LIMIT].decode(errors="replace"))
    except (ValueError, TypeError) as error:
        raise _nonsense(guest, f"{key} is not base64") from error


def _failed(hypervisor: Hypervisor, guest: str, error: Any) -> Problem:
    libvirt = hypervisor.libvirt
    said = str(error.get_error_message() or error)
    # libvirt passes on in what words the agent has failed.
    message = clean(said, MOST)
    if any(word in said.lower() for word in FORBIDDEN):
        return Problem(
            "guest-exec-forbidden",
            f"The agent of guest {guest} may not run commands: {message}",
            "Allow guest-exec and guest-exec-status in the guest's /etc/qemu/qemu-ga.conf (block-rpcs, allow-rpcs; "
            "RHEL: /etc/sysconfig/qemu-ga) and let SELinux run them (virt_qemu_ga_unconfined_exec)",
            exit=Exit.REFUSED,
            guest=guest,
        )
    silent = {getattr(libvirt, name, None) for name in ("VIR_ERR_ARGUMENT_UNSUPPORTED", "VIR_ERR_CONFIG_UNSUPPORTED")}
    if error.get_error_code() in silent:
        return Problem(
            "guest-agent-silent",
            f"Guest {guest} has no agent: {message}",
            "Add the channel org.qemu.guest_agent.0 to its definition and run qemu-guest-agent in it",
            exit=Exit.REFUSED,
            guest=guest,
        )
    problem = hypervisor.problem(error, f"Asking the agent of guest {guest}")
    problem.message = clean(problem.message, 2 * MOST)
    return problem


def _timeout(guest: str, timeout_s: float) -> Problem:
    return Problem(
        "guest-run-timeout",
        f"A script in guest {guest} has not ended within {timeout_s:g} s",
        "Look in the guest what it waits for",
        exit=Exit.REFUSED,
        guest=guest,
    )


def nonsense(guest: str, message: str, remedy: str) -> Problem:
    """What a guest's agent brought is not what was asked for: Problem ``guest-agent-nonsense``."""
    return Problem("guest-agent-nonsense", clean(message, 2 * MOST), remedy, exit=Exit.REFUSED, guest=guest)


def _nonsense(guest: str, what: str) -> Problem:
    message = f"The agent of guest {guest} gave an answer that makes no sense: {what}"
    return nonsense(guest, message, "Look at qemu-guest-agent in the guest")

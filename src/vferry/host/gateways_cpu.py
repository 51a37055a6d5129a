"""How much of a host's processors its gateways get: a slice of systemd's, in which each gateway is a scope.

It is within ``system.slice``, where the agent is, too: where the processors are short, all of that together gets as
much as all guests, in libvirt's ``machine.slice``, do. Within it all gateways get the same. A scope also outlives the
agent that started it.
"""

import logging
import os
import subprocess
from pathlib import Path

from vferry.model.host import gateway_cpus

log = logging.getLogger("vferry.agent")

SLICE = "system-vferry.slice"
STAYS = tuple(f"--property=Before={unit}.service" for unit in ("libvirtd", "virtqemud", "libvirt-guests"))
"""When the host shuts down, libvirt ends first: it lets a guest go on whose gateway ends (decision 7)."""
TIMEOUT_S = 20.0


def confine(share: float, root: Path = Path("/"), *, cpus: int | None = None) -> tuple[str, ...]:
    """Limits the slice to a `share` of the processors, at least one of them; the words that start a command in it.

    None where systemd does not run this host: then a gateway is as important as the agent. Nor where systemd refuses,
    which the journal tells: a migration is worth more than its limit.
    """
    if not (root / "run/systemd/system").is_dir():
        return ()
    quota = round(gateway_cpus(share, cpus or os.cpu_count() or 1) * 100)
    limit = ["systemctl", "set-property", "--runtime", SLICE, f"CPUQuota={quota}%"]
    try:
        subprocess.run(limit, check=True, capture_output=True, timeout=TIMEOUT_S)
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or b""
        log.error("the gateways' processors are not limited: %s", said.decode(errors="replace").strip() or error)
        return ()
    return ("systemd-run", "--scope", "--quiet", "--collect", f"--slice={SLICE}", *STAYS, "--description=gateway", "--")

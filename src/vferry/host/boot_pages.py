"""A relay's huge pages at the next boot, and the directory of its guests' sockets, before any service starts.

Open vSwitch starts before the agent, and gives DPDK up where there are none; libvirt may start guests before it. So it
is systemd-tmpfiles that makes them.
"""

from pathlib import Path

from vferry.host.durable import write_durably
from vferry.host.qemu_user import qemu_user
from vferry.host.relay_ground import pool_path
from vferry.model.relay import SOCKETS, Relay, RelayState

FILE = "etc/tmpfiles.d/vferry-relay.conf"


def set_boot_pages(root: Path, relay: Relay | None) -> str:
    """Has a relay that is made find all that at the boot, and no other; says why not, where that cannot be."""
    path = root / FILE
    made = relay is not None and relay.state is RelayState.ENABLED
    try:
        if relay is None or not made:
            path.unlink(missing_ok=True)
        elif _text(root, relay) != _read(path):
            write_durably(path, _text(root, relay).encode(), mode=0o644)
    except OSError as error:
        return f"{path} cannot be written ({error.strerror}): it says what huge pages there are at the next boot"
    return ""


def _text(root: Path, relay: Relay) -> str:
    lines = (
        f"w /{(pool_path(root, each.node, each.size_kib) / 'nr_hugepages').relative_to(root)} - - - - {each.count}\n"
        for each in relay.pages
    )
    owner = qemu_user(root)
    sockets = f"d {SOCKETS} 0755 {'-' if owner is None else owner} - - -\n"
    return "".join(("# Of vferry's relay: made anew by vferry relay enable, removed by disable.\n", sockets, *lines))


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""

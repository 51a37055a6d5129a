"""After a restart of the host: huge pages, the VFs' drivers and their settings are the kernel's memory, and gone."""

import logging
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import takewhile
from pathlib import Path

from vferry.host.api import BindVf, Done, SetHugePages, SetRelayBridge, SetRelayGateway
from vferry.host.huge_pages import set_huge_pages
from vferry.host.relay_gateway import set_gateway
from vferry.host.relay_ports import RelayPorts
from vferry.host.relay_switch import set_bridge
from vferry.host.sriov_netlink import Links
from vferry.host.sriov_settings import apply_settings, read_settings
from vferry.host.sysfs import Write, write_attribute
from vferry.host.vf_driver import bind_vf
from vferry.model.host import VfSettings, opened
from vferry.model.problem import Problem
from vferry.model.relay import Relay, RelayState, RelayVf

log = logging.getLogger("vferry.agent")
Work = tuple[str, Callable[[], Done]]
"""What it is about, for the log, and what does it."""


def restore(
    root: Path,
    read: Callable[[], Relay | None],
    ports: RelayPorts,
    links: Callable[[], Links],
    write: Write = write_attribute,
) -> None:
    """Makes again what is missing of a relay that was made; one that is half made is left to whoever made it.

    What cannot be had is logged: the rest is put back all the same. `read` says what the relay is, which a controller
    may be changing meanwhile. Problem ``relay-unreadable``.
    """
    relay = read()
    if relay is None or relay.state is not RelayState.ENABLED:
        return
    _carry_out(takewhile(lambda _: read() == relay, _works(root, relay, ports, links, write)))


def rejoin(root: Path, ports: RelayPorts, links: Callable[[], Links], write: Write = write_attribute) -> Done:
    """Carries `RejoinGuests` out. What cannot be had of one guest's keeps no other's."""
    done, failed = _carry_out(_guests_works(root, ports, links, write))
    if failed is not None:
        raise failed
    return done


def _carry_out(works: Iterable[Work]) -> tuple[Done, Problem | OSError | None]:
    """Whether any of them changed something, and what failed first; all that did is logged.

    They end where Open vSwitch is silent: it would be so of the next one, too, for as long again.
    """
    changed = False
    failed: Problem | OSError | None = None
    for what, work in works:
        try:
            done = work()
        except (Problem, OSError) as problem:
            log.warning("the relay's %s is not as it was: %s", what, problem)
            failed = failed or problem
            if isinstance(problem, Problem) and problem.code == "switch-silent":
                break
        else:
            changed |= done.changed
            if done.changed:
                log.info("the relay's %s is as it was: %s", what, done.detail)
    return Done(changed=changed), failed


def _works(root: Path, relay: Relay, ports: RelayPorts, links: Callable[[], Links], write: Write) -> Iterator[Work]:
    for pages in relay.pages:
        wanted = SetHugePages(node=pages.node, size_kib=pages.size_kib, count=pages.count)
        yield f"memory on NUMA node {pages.node}", partial(set_huge_pages, root, wanted, write)
    for vf in relay.vfs:
        bound = BindVf(address=vf.address, driver=vf.bound)
        yield f"VF {vf.address}", partial(bind_vf, root, bound, write)
        if relay.switched:
            yield f"right to other MACs on VF {vf.address}", partial(_open, links, vf)
    for bridge in relay.bridges:
        yield f"bridge {bridge.name}", partial(set_bridge, root, SetRelayBridge(bridge=bridge, present=True))
    for gateway in relay.gateways:
        wanted_there = SetRelayGateway(gateway=gateway, present=True)
        yield f"way of VLAN {gateway.vlan} to {gateway.remote}", partial(set_gateway, root, wanted_there)
    yield from _guests_works(root, ports, links, write)


def _guests_works(root: Path, ports: RelayPorts, links: Callable[[], Links], write: Write) -> Iterator[Work]:
    for joined in ports.all():
        own = joined.port.vf
        if own is None:
            continue
        apply = partial(_give_back, links, own, joined.settings)
        bind = partial(bind_vf, root, BindVf(address=own.address, driver=own.bound), write)
        yield f"setting of VF {own.address}", partial(ports.once_a_boot, joined, apply)
        yield f"VF {own.address}", partial(ports.if_joined, joined, bind)
    for joined in ports.all():  # what only Open vSwitch can do, which may be silent
        join = partial(ports.join, joined)
        yield f"port of guest {joined.port.guest}", partial(ports.if_joined, joined, join)


def _open(links: Callable[[], Links], vf: RelayVf) -> Done:
    return _apply(links, vf, opened(vf))


def _give_back(links: Callable[[], Links], vf: RelayVf, settings: VfSettings) -> Done:
    """A VF that still has the guest's MAC was booted with nothing: what was set on it since stays.

    Without a MAC in its settings, its guest is still on its way here.
    """
    with links() as netlink:
        now = read_settings(netlink, netlink.index(vf.pf), vf.pf, vf.index)
        if settings.mac in (None, now.mac):
            return Done(changed=False)
        return apply_settings(netlink, vf.pf, vf.index, settings)


def _apply(links: Callable[[], Links], vf: RelayVf, settings: VfSettings) -> Done:
    with links() as netlink:
        return apply_settings(netlink, vf.pf, vf.index, settings)

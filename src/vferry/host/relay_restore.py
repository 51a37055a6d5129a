"""After restarts: what the kernel has forgotten at the host's, and what Open vSwitch has not made again at its own."""

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import takewhile
from pathlib import Path

from vferry.host.api import BindVf, Done, SetHugePages, SetRelayBridge, SetRelayGateway
from vferry.host.huge_pages import set_huge_pages
from vferry.host.openvswitch import OpenVSwitch
from vferry.host.ovsdb import Database
from vferry.host.relay_gateway import set_gateway
from vferry.host.relay_ports import RelayPorts
from vferry.host.relay_switch import set_bridge, without_dpdk
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

AGAIN_AFTER_S = 60.0
"""How long what has failed waits for its next try; Open vSwitch looks at all of its ports each time."""

OF_ALL = ("switch-silent", "dpdk-not-started")
"""The problems of Open vSwitch that the next port would have, too, and some of them for as long again."""


class Restoring:
    """Makes again what is missing of a relay that was made; one that is half made is left to whoever made it.

    What cannot be had is logged, once for as long as it is the same, and tried again; the rest is put back.
    """

    def __init__(
        self,
        root: Path,
        read: Callable[[], Relay | None],
        ports: RelayPorts,
        links: Callable[[], Links],
        write: Write = write_attribute,
    ) -> None:
        """`read` says what the relay is, which a controller may be changing meanwhile."""
        self._root = root
        self._read = read
        self._ports = ports
        self._links = links
        self._write = write
        self._process: str | None = None
        """Open vSwitch's, of the last try."""
        self._again_at = -math.inf
        self._told: dict[str, str] = {}

    def restore(self) -> None:
        """Does it at once. Problem ``relay-unreadable``."""
        self._process, self._again_at = OpenVSwitch(self._root).process(), time.monotonic() + AGAIN_AFTER_S
        relay = self._read()
        if relay is not None and relay.state is RelayState.ENABLED:
            works = takewhile(lambda _: self._read() == relay, self._works(relay))
            _, failed = _carry_out(works, self._told)
            if failed is not None or self._read() != relay:
                return
        self._again_at = math.inf

    def follow(self) -> None:
        """Does it where Open vSwitch was started anew, and where something has failed a while ago; fails at nothing."""
        process = OpenVSwitch(self._root).process()
        if process is None or (process == self._process and time.monotonic() < self._again_at):
            return
        try:
            self.restore()
        except Problem as problem:
            _tell("record", problem, self._told)

    def rejoin(self) -> Done:
        """Carries `RejoinGuests` out. What cannot be had of one guest's keeps no other's."""
        done, failed = _carry_out((*self._guests_vfs(), *self._guests_ports()), {})
        if failed is not None:
            raise failed
        return done

    def _works(self, relay: Relay) -> Iterator[Work]:
        root, write = self._root, self._write
        for pages in relay.pages:
            wanted = SetHugePages(node=pages.node, size_kib=pages.size_kib, count=pages.count)
            yield f"memory on NUMA node {pages.node}", partial(set_huge_pages, root, wanted, write)
        for vf in relay.vfs:
            bound = BindVf(address=vf.address, driver=vf.bound)
            yield f"VF {vf.address}", partial(bind_vf, root, bound, write)
            if relay.switched:
                yield f"right to other MACs on VF {vf.address}", partial(_open, self._links, vf)
        yield from self._guests_vfs()
        yield "Open vSwitch", partial(_settle, root)
        for bridge in relay.bridges:
            yield f"bridge {bridge.name}", partial(set_bridge, root, SetRelayBridge(bridge=bridge, present=True))
        for gateway in relay.gateways:
            wanted_there = SetRelayGateway(gateway=gateway, present=True)
            yield f"way of VLAN {gateway.vlan} to {gateway.remote}", partial(set_gateway, root, wanted_there)
        yield from self._guests_ports()

    def _guests_vfs(self) -> Iterator[Work]:
        for joined in self._ports.all():
            own = joined.port.vf
            if own is None:
                continue
            apply = partial(_give_back, self._links, own, joined.settings)
            bind = partial(bind_vf, self._root, BindVf(address=own.address, driver=own.bound), self._write)
            yield f"setting of VF {own.address}", partial(self._ports.once_a_boot, joined, apply)
            yield f"VF {own.address}", partial(self._ports.if_joined, joined, bind)

    def _guests_ports(self) -> Iterator[Work]:
        """What only Open vSwitch can do, which may be silent."""
        for joined in self._ports.all():
            join = partial(self._ports.join, joined)
            yield f"port {joined.port.mac} of guest {joined.port.guest}", partial(self._ports.if_joined, joined, join)


def _carry_out(works: Iterable[Work], told: dict[str, str]) -> tuple[Done, Problem | OSError | None]:
    """Whether any of them changed something, and what failed first; all that did is logged, unless it was `told`."""
    changed = False
    failed: Problem | OSError | None = None
    for what, work in works:
        try:
            done = work()
        except (Problem, OSError) as problem:
            _tell(what, problem, told)
            failed = failed or problem
            if isinstance(problem, Problem) and problem.code in OF_ALL:
                break
        else:
            changed |= done.changed
            if told.pop(what, "") or done.changed:
                log.info("the relay's %s is as it was%s", what, f": {done.detail}" if done.detail else "")
    return Done(changed=changed), failed


def _tell(what: str, problem: Problem | OSError, told: dict[str, str]) -> None:
    if told.get(what) != str(problem):
        log.warning("the relay's %s is not as it was: %s", what, problem)
    told[what] = str(problem)


def _settle(root: Path) -> Done:
    """Has Open vSwitch go through its database: until it has, that says of ports what was so of the process before."""
    with Database(root) as database:
        database.change(lambda _: None)
        if not database.switch.dpdk_initialized:
            raise without_dpdk()
    return Done(changed=False)


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

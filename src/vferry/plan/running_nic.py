"""Moving the NIC of a guest that runs to a VF, the relay or the standby path: the way, or why there is none.

Two NICs are in the guest meanwhile, and told apart by one of them being on virtio (docs/decisions/0021): so from one
virtio NIC to another the way is by a VF.
"""

from collections.abc import Iterator

from msgspec.structs import replace

from vferry.host.api import PlugRelayed, PlugStandby
from vferry.model.definition import shares_memory
from vferry.model.guest import GuestLink, GuestState, Nic, VfRef
from vferry.model.host import Inventory, Vf, VfSettings
from vferry.model.relay import RelayPort, RelayVf
from vferry.plan import inside, nic_definition, nic_slots, relayed, standby, switch_place, switched
from vferry.plan.facts import Facts, Finding, Refusal, error, hardware_links, info, warning
from vferry.plan.guest_nic import left_behind, nic_of, refuse_definition, target_of, with_own
from vferry.plan.nic_place import NicPlace
from vferry.plan.nic_plan import NicAssessment, NicLeg, NicMove, NicPlan, NicTarget, defined_on
from vferry.plan.plan import GuestSide, NetworkMode
from vferry.plan.swap import Swap

_WHILE_OFF = "Shut the guest down, ask again, and start it"


def assess(facts: Facts, mac: str, to: NicTarget, operation: str, unplug_timeout_s: float = 15.0) -> NicAssessment:
    """What stands in the way, or the way. The host of the guest is the source of the facts, and their destination.

    `operation` is a new one's id, or that of one which was begun and left.
    """
    host, guest = with_own(facts.source, operation), facts.guest
    try:
        nic = nic_of(guest, facts.definition.persistent, mac)
        if target_of(nic) is to:
            _refuse_differing(facts, nic)
            plan = NicPlan(guest=guest.name, mac=mac, to=to, host=host.name, operation=operation)
            there = info("nic-there", f"{mac} of {guest.name} is so already: {to.value}")
            return NicAssessment(findings=(there,), plan=plan)
        _refuse(facts, host, nic, to, operation)
        found = _Running(replace(facts, source=host), nic, unplug_timeout_s)
        move = found.move(to)
    except Refusal as refusal:
        return NicAssessment(findings=(refusal.finding,))
    assessed = NicAssessment(findings=tuple(found.about(move)))
    if assessed.errors:
        return assessed
    plan = NicPlan(guest=guest.name, mac=mac, to=to, host=host.name, operation=operation, vfs=move.vfs, move=move)
    return replace(assessed, plan=plan)


def _refuse(facts: Facts, host: Inventory, nic: Nic, to: NicTarget, operation: str) -> None:
    guest, mac = facts.guest, nic.mac
    if guest.state is not GuestState.RUNNING:
        why = f" ({guest.pause_reason})" if guest.pause_reason else ""
        raise Refusal(
            "guest-paused",
            f"{guest.name} is {guest.state.value}{why}, and only a guest that runs lets go of a NIC",
            f"Let it go on (virsh resume {guest.name}), or shut it down, and ask again",
        )
    for claim in host.claims:
        if claim.guest == guest.name and claim.operation != operation:
            raise Refusal(
                "guest-claimed",
                f"{guest.name} is claimed by operation {claim.operation}",
                f"Wait for it; if its controller is gone: vferry operation recover {claim.operation}",
            )
    refuse_definition(guest, facts.definition.persistent, mac)
    _refuse_differing(facts, nic)
    if left_behind(host, guest, nic):
        raise Refusal("relay-left", f"The relay of {host.name} has a port of {mac} that was left half made", _WHILE_OFF)
    if nic.teaming or any(nic.alias == other.teamed_with for other in guest.nics):
        raise Refusal("teaming", f"{mac} is in a teaming pair, which is defined as one", _WHILE_OFF)
    if not nic.passed_through and (nic.model != "virtio" or (nic.vf and nic.interface)):
        what = f"a macvtap on VF {nic.vf.index}" if nic.vf else nic.model
        raise Refusal("nic-not-moved", f"{mac} is on {what}, from where no running guest is moved", _WHILE_OFF)
    _refuse_ovns(host, nic)
    if to is NicTarget.RELAY and not shares_memory(facts.definition.live or ""):
        raise Refusal(
            "memory-not-shared",
            f"{guest.name} runs on memory that no relay could map: it was started with none that is shared",
            f"{_WHILE_OFF}: it is then defined with <memoryBacking> of <access mode='shared'/>",
        )


def _refuse_ovns(host: Inventory, nic: Nic) -> None:
    """Where its frames go is OVN's to say, for both NICs."""
    port = host.relay.port(nic.mac) if host.relay else None
    if port and port.switch and port.switch.logical_port:
        what = f"{port.switch.logical_port} of OVN's"
        raise Refusal("nic-not-moved", f"{nic.mac} is {what}, from where no running guest is moved", _WHILE_OFF)


def _refuse_differing(facts: Facts, nic: Nic) -> None:
    defined = defined_on(facts.definition.persistent, nic.mac)
    if defined not in (None, target_of(nic)):
        raise Refusal(
            "nic-differs",
            f"{nic.mac} of {facts.guest.name} runs on {target_of(nic).described}, and is defined on another thing",
            "Start the guest anew, or see to its definition: virsh edit",
        )


class _Running(NicPlace):
    """One NIC of a guest that runs; `Refusal` where there is no way for it."""

    def __init__(self, facts: Facts, nic: Nic, unplug_timeout_s: float) -> None:
        super().__init__(facts.source, facts.guest, facts.definition.persistent, nic)
        self.facts, self.unplug_timeout_s = facts, unplug_timeout_s
        self.link = self._link()
        self.side = self._side()

    @property
    def mtu(self) -> int:
        """As its guest has set it."""
        return self.link.mtu

    @property
    def queues(self) -> int:
        """Of a NIC on a VF, only the definition for the next boot says it."""
        live = None if self.nic.passed_through else self.facts.definition.live
        return nic_definition.queues_of(live or self.xml, self.nic.mac)

    def move(self, to: NicTarget) -> NicMove:
        """All that the steps are built from."""
        legs = tuple(self._legs(to))
        return NicMove(to=to, run=self.guest.run, legs=legs, xml=self._defined(to, legs[-1]), xml_before=self.xml)

    def about(self, move: NicMove) -> Iterator[Finding]:
        """What is to say of the way; an error ends it."""
        yield from nic_slots.about(self.facts.definition.live or "", self.nic.alias, self.nic.mac)
        for leg in move.legs:
            if leg.port is None:
                found = standby.missing(self.host, self.network, leg.swap.vlan, self.mtu)
                yield from (replace(each, remedy=standby.without_detach(each.remedy)) for each in found)
            yield from self._too_small(leg)
        if move.to is NicTarget.RELAY and self.on_switch:
            yield from switch_place.about(self.nic.mac, self.settings)
        if move.to is NicTarget.RELAY and (vf := move.legs[-1].joined):
            yield from relayed.by_representor(self.host, vf, self.nic.mac)
        contested = move.legs[0].swap.contested
        yield from inside.told(self.facts, self.link, self.side, contested=contested)
        if self.side is GuestSide.ADDRESSES and not inside.managed(self.facts):
            yield from self._leased()

    def _leased(self) -> Iterator[Finding]:
        leased = [each.address for each in self.link.addresses if each.dynamic and each.family == "inet"]
        if leased:
            yield warning(
                "lease-not-renewed",
                f"{', '.join(leased)} is leased, by who looks for it on {self.link.name}, which goes",
                "Boot the guest before the lease ends, or give it a fixed address",
            )

    def _legs(self, to: NicTarget) -> Iterator[NicLeg]:
        """What it comes to is chosen before the VF that it only goes by."""
        here = self.port()
        there = self._port_to_be() if to is NicTarget.RELAY else None
        if self.nic.passed_through:
            yield self._from_vf(to, there, self._known(self.nic.vf), self.nic.alias)
            return
        taken = (there.vf.address,) if there and there.vf else ()
        vf = self._known(self.free_vf(taken))
        yield self._to_vf(here, vf)
        if to is not NicTarget.VF:
            yield self._from_vf(to, there, vf, None)

    def _port_to_be(self) -> RelayPort:
        return self.port_on_switch(None) if self.on_switch else self.port_on(self.relay_vf())

    def _from_vf(self, to: NicTarget, port: RelayPort | None, vf: Vf, alias: str | None) -> NicLeg:
        """`alias`: what libvirt calls the VF that the guest has; None where it only goes by this one."""
        joined = self._known(port.vf) if port and port.vf else None
        plugged = self._alias(to)
        swap = replace(
            self._swap(vf, port, (alias, self._alias(NicTarget.VF)), (plugged,)),
            filtered=None if port else self._filter_of_bridge(),
            # QEMU takes it once; the guest's NIC has it until it is gone.
            acpi_index=self.nic.acpi_index if alias else None,
        )
        return NicLeg(
            to=to,
            # What is to be quiet is so since the first leg.
            swap=swap if alias else replace(swap, contested=False),
            settings=replace(self.settings_on(joined or vf), mac=None),
            vf_before=vf.settings,
            vf_wiped=self.wiped(vf),
            port=port,
            relay_before=joined.settings if joined else VfSettings(),
            relay_wiped=self.wiped(joined) if joined else VfSettings(),
        )

    def _to_vf(self, port: RelayPort | None, vf: Vf) -> NicLeg:
        joined = self._known(port.vf) if port and port.vf else None
        plugged = self._alias(NicTarget.RELAY if port else NicTarget.VIRTIO)
        swap = self._swap(vf, port, (self._alias(NicTarget.VF),), (self.nic.alias, plugged))
        # One that was never told of a NIC on a bridge need not cease to pass it.
        told = self.nic.mac in self.host.forwarding(swap.uplink)
        return NicLeg(
            to=NicTarget.VF,
            swap=replace(swap, filtered=self._filter_of_bridge() if told and not port else None),
            settings=replace(self.settings_on(vf), mac=None),
            vf_before=vf.settings,
            vf_wiped=self.wiped(vf),
            port=port,
            relay_before=joined.settings if joined else VfSettings(),
            relay_wiped=self.wiped(joined) if joined else VfSettings(),
        )

    def _defined(self, to: NicTarget, last: NicLeg) -> str:
        mac, vlan = self.nic.mac, self.settings.vlan or 0
        if to is NicTarget.VF:
            return nic_definition.on_vf(self.xml, mac, last.swap.vf.address, vlan)
        if last.port:
            return nic_definition.on_relay(self.xml, mac, last.port.socket)
        return nic_definition.on_bridge(self.xml, mac, self.host.attachment(self.network), vlan)

    def _swap(
        self, vf: Vf, port: RelayPort | None, vf_aliases: tuple[str | None, ...], virtio_aliases: tuple[str, ...]
    ) -> Swap:
        joined = port.vf if port else None
        return Swap(
            host=self.host.name,
            guest=self.guest.name,
            mac=self.nic.mac,
            side=self.side,
            vf=VfRef(pf=vf.pf, index=vf.index, address=vf.address),
            vf_aliases=tuple(dict.fromkeys(filter(None, vf_aliases))),
            settings=replace(self.settings, mac=None),
            virtio=self._virtio(port, virtio_aliases[-1]),
            virtio_aliases=tuple(dict.fromkeys(virtio_aliases)),
            uplink=self._uplink(port),
            relay_vf=VfRef(pf=joined.pf, index=joined.index, address=joined.address) if joined else None,
            switch=port.switch.bridge if port and port.switch else None,
            contested=inside.contested(self.facts, NetworkMode.SWITCH, self.side),
            unplug_timeout_s=self.unplug_timeout_s,
        )

    def _uplink(self, port: RelayPort | None) -> str:
        """Behind which interface the virtio NIC's frames leave the host."""
        if port is None:
            return self.host.uplink(self.network)
        if port.vf:
            return port.vf.pf
        _, pf = switched.bridge_on(self.host, self.network, self.nic.mac)
        return pf

    def _virtio(self, port: RelayPort | None, alias: str) -> PlugStandby | PlugRelayed:
        if port:
            return PlugRelayed(guest=self.guest.name, mac=self.nic.mac, alias=alias, queues=self.queues)
        on = self.host.attachment(self.network)
        return PlugStandby(
            guest=self.guest.name,
            mac=self.nic.mac,
            on=on,
            alias=alias,
            mtu=self.mtu if on.bridged else None,
            vlan=self.settings.vlan or 0,
            queues=self.queues,
        )

    def _filter_of_bridge(self) -> str | None:
        """Whose filter passes the MAC to the bridge; a macvtap has the kernel do that itself."""
        return self.host.uplink(self.network) if self.host.attachment(self.network).bridged else None

    def _link(self) -> GuestLink:
        """The NIC inside the guest. Refuses what nobody could tell apart, or move."""
        mac = self.nic.mac
        on_hardware = hardware_links(self.facts, mac)
        on_virtio = [link for link in self.facts.links if link.mac == mac and link.driver == "virtio_net"]
        mine, others = (on_hardware, on_virtio) if self.nic.passed_through else (on_virtio, on_hardware)
        if not mine:
            why = self.facts.guest_silence or "its agent shows no NIC with this MAC"
            raise Refusal(
                "guest-not-reached",
                f"vferry cannot move {mac} inside {self.guest.name}: {why}",
                f"Run qemu-guest-agent in the guest. Or: {_WHILE_OFF[0].lower()}{_WHILE_OFF[1:]}",
            )
        if others or len(mine) > 1:
            names = ", ".join(link.name for link in (*mine, *others))
            raise Refusal("nic-not-alone", f"The guest has several NICs with {mac} already ({names})", _WHILE_OFF)
        self._refuse_stacked(mine[0])
        return mine[0]

    def _refuse_stacked(self, link: GuestLink) -> None:
        """What is on top of a NIC goes with it; a bond stays, and so does what is on top of that."""
        stacked = [each.name for each in self.facts.links if each.over == link.name]
        if stacked:
            raise Refusal(
                "nic-under",
                f"The guest has {' and '.join(stacked)} on top of {link.name}, which would be gone with it",
                f"Take it away meanwhile, or put it on a bond. Or: {_WHILE_OFF[0].lower()}{_WHILE_OFF[1:]}",
            )

    def _side(self) -> GuestSide:
        if self.link.master is None:
            return GuestSide.ADDRESSES
        if inside.in_bond(self.facts, self.link):
            return GuestSide.BOND
        raise Refusal(
            "not-in-a-bond",
            f"The guest has {self.link.name} in {self.link.master}, and vferry moves what is in a bond or by itself",
            f"Take it out of {self.link.master} meanwhile. Or: {_WHILE_OFF[0].lower()}{_WHILE_OFF[1:]}",
        )

    def _too_small(self, leg: NicLeg) -> Iterator[Finding]:
        """Of a VF that the guest gets: one that the relay joins was chosen to pass what it sends."""
        pf = self.host.pf(leg.swap.vf.pf) if leg.to is NicTarget.VF else None
        if pf and pf.mtu < self.mtu:
            yield error(
                "mtu-too-small",
                f"The guest has an MTU of {self.mtu}, and {pf.name} of {self.host.name} passes {pf.mtu}",
                f"ip link set dev {pf.name} mtu {self.mtu}; or give the guest's NIC a smaller MTU",
            )

    def _alias(self, what: NicTarget) -> str:
        name = "standby" if what is NicTarget.VIRTIO else what.value
        return f"ua-vferry-{name}-{self.nic.mac.replace(':', '')}"

    def _known(self, ref: VfRef | RelayVf | None) -> Vf:
        vf = self.host.vf(ref.address) if ref else None
        if vf is None:
            raise Refusal(
                "vf-unknown", f"{self.host.name} does not show the VF of {self.nic.mac}", "Look at vferry host show"
            )
        return vf

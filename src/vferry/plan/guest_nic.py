"""Putting a NIC of a guest that is off on a VF, on the relay, or on a bridge: what is to be done, or why it cannot be.

The definition is changed last on the way to something, and first on the way back: a guest that is started meanwhile
finds what it is defined with.
"""

from collections.abc import Iterator

from msgspec.structs import replace

from vferry.host.api import Define, JoinRelay, LeaveRelay, SetForwarding, SetVf
from vferry.model.guest import Guest, Nic
from vferry.model.host import NO_MAC, Inventory, Vf, VfSettings
from vferry.model.relay import RelayPort, RelayVf
from vferry.plan import nic_definition, nic_port, relayed, switch_place
from vferry.plan.facts import Finding, Refusal, info
from vferry.plan.host_step import HostStep
from vferry.plan.nic_place import NicPlace, refuse_other_port
from vferry.plan.nic_plan import NicAssessment, NicPlan, NicTarget
from vferry.plan.nic_port import AskedPort


def assess(
    host: Inventory,
    guest: Guest,
    persistent: str,
    mac: str,
    to: NicTarget,
    operation: str,
    asked: AskedPort | None = None,
) -> NicAssessment:
    """The way from what a NIC is on to what it is to be on. `persistent`: the guest's definition.

    `operation` is a new one's id, or that of one which a controller has begun and left: this goes on with it.
    `asked`: the port of OVN's that it is to be on the relay.
    """
    host = with_own(host, operation)
    try:
        nic = nic_of(guest, persistent, mac)
        if asked:
            refuse_other_port(host, guest, nic, asked.name)
        if target_of(nic) is to and not left_behind(host, guest, nic):
            note = info("nic-there", f"{mac} of {guest.name} is so already: {to.value}")
            name = asked.name if asked else None
            plan = NicPlan(guest=guest.name, mac=mac, to=to, host=host.name, operation=operation, logical_port=name)
            return NicAssessment(findings=(note,), plan=plan)
        refuse_definition(guest, persistent, mac)
        move = _Move(host, guest, persistent, nic, operation, asked)
        return NicAssessment(plan=move.plan(to), findings=tuple(move.notes(to)))
    except Refusal as refusal:
        return NicAssessment(findings=(refusal.finding,))


def target_of(nic: Nic) -> NicTarget:
    """What a NIC is on now."""
    if nic.passed_through:
        return NicTarget.VF
    return NicTarget.RELAY if nic.socket else NicTarget.VIRTIO


def with_own(host: Inventory, operation: str) -> Inventory:
    """The host, with what this operation holds as free as it was before."""
    pfs = (
        replace(pf, vfs=tuple(replace(vf, claim=None) if vf.claim == operation else vf for vf in pf.vfs))
        for pf in host.pfs
    )
    return replace(host, pfs=tuple(pfs))


def left_behind(host: Inventory, guest: Guest, nic: Nic) -> RelayPort | None:
    """A port of the relay that the guest's definition does not name."""
    port = host.relay.port(nic.mac) if host.relay else None
    return port if port and port.guest == guest.name and port.socket != nic.socket else None


def nic_of(guest: Guest, persistent: str, mac: str) -> Nic:
    """The NIC that is meant. Raises `Refusal` where that is not clear."""
    known = [nic.mac for nic in guest.nics]
    if mac not in known:
        raise Refusal("nic-unknown", f"{guest.name} has no NIC {mac}", f"Name one of these: {', '.join(known)}")
    if known.count(mac) > 1 or nic_definition.named(persistent, mac) != 1:
        raise Refusal(
            "nic-ambiguous",
            f"{guest.name} has {mac} several times, or as a plain <hostdev>",
            f"Leave one <interface> with it in the definition: virsh edit {guest.name}",
        )
    return next(nic for nic in guest.nics if nic.mac == mac)


def refuse_definition(guest: Guest, persistent: str, mac: str) -> None:
    """What of a guest's definition stands in the way. Raises `Refusal`."""
    if not guest.persistent:
        raise Refusal("guest-transient", f"{guest.name} has no persistent definition", "Define it: virsh define")
    if rules := nic_definition.rules_of(persistent, mac):
        raise Refusal(
            "nic-has-rules",
            f"libvirt filters or limits {mac} by <{'>, <'.join(rules)}>, which goes with a bridge's port alone",
            f"See to that elsewhere, and take it out of the definition: virsh edit {guest.name}",
        )


def _vf_of(port: RelayPort | None) -> tuple[str, ...]:
    """The PCI address of a port's own VF, on a direct relay."""
    return (port.vf.address,) if port and port.vf else ()


class _Move(NicPlace):
    """One NIC on its way; `Refusal` where there is none."""

    def __init__(
        self, host: Inventory, guest: Guest, persistent: str, nic: Nic, operation: str, asked: AskedPort | None
    ) -> None:
        super().__init__(host, guest, persistent, nic)
        self.operation, self.asked = operation, asked

    def plan(self, to: NicTarget) -> NicPlan:
        """Of what is on the relay, the VF goes along where it can."""
        port = self.port()
        if to is NicTarget.RELAY:
            return self._to_relay()
        if target_of(self.nic) is to and port:
            return self._planned(to, self._off(port, to), _vf_of(port))
        xml, steps, vfs = self._away(to, port)
        return self._planned(to, (self._define(xml, to), *steps), vfs)

    def notes(self, to: NicTarget) -> Iterator[Finding]:
        """What the NIC loses on the way, and what has to be seen to where it comes to."""
        if to is NicTarget.RELAY and self.on_switch:
            yield from switch_place.about(self.nic.mac, self.settings)
            if self.asked and self.host.chassis:
                yield from nic_port.about(self.asked, self.host.chassis)
        elif to is NicTarget.RELAY:
            yield from relayed.by_representor(self.host, self._vf_to_be(), self.nic.mac)

    def _to_relay(self) -> NicPlan:
        if self.host.relay and self.host.relay.switched:
            return self._to_switch()
        vf = self._vf_to_be()
        before = self.host.vf(vf.address)
        port = self.port_on(vf)
        settings = replace(self.settings_on(before), mac=self.nic.mac)
        xml = nic_definition.on_relay(self.xml, self.nic.mac, port.socket)
        steps = (
            self._join(port, settings),
            HostStep(
                name="configure-vf",
                summary=f"give VF {vf.index} of {vf.pf} {self.nic.mac} and its settings",
                apply=(SetVf(pf=vf.pf, index=vf.index, settings=settings),),
                undo=(SetVf(pf=vf.pf, index=vf.index, settings=before.settings if before else VfSettings()),),
            ),
            self._define(xml, NicTarget.RELAY),
            *self._left(),
            *self._unforwarded(),
        )
        return self._planned(NicTarget.RELAY, steps, (vf.address, *self._left_vfs()))

    def _vf_to_be(self) -> RelayVf:
        """The VF that a direct relay joins it to: the one that it was begun with, or a free one. Raises `Refusal`."""
        begun = left_behind(self.host, self.guest, self.nic)
        return (begun.vf if begun else None) or self.relay_vf()

    def _to_switch(self) -> NicPlan:
        """As a port of the relay's bridge, which does of the VF's settings what a port can."""
        port = self.port_on_switch(self.asked)
        xml = nic_definition.on_relay(self.xml, self.nic.mac, port.socket)
        define = self._define(xml, NicTarget.RELAY)
        steps = (self._join(port, VfSettings()), define, *self._left(), *self._unforwarded())
        return self._planned(NicTarget.RELAY, steps, self._left_vfs())

    def _away(self, to: NicTarget, port: RelayPort | None) -> tuple[str, tuple[HostStep, ...], tuple[str, ...]]:
        """The definition, what is done after it, and the VFs that are claimed for it."""
        mac, vlan = self.nic.mac, self.settings.vlan or 0
        left = self._off(port, to) if port else self._left()
        held = _vf_of(port) or self._left_vfs()
        if to is NicTarget.VIRTIO:
            return nic_definition.on_bridge(self.xml, mac, self.host.attachment(self.network), vlan), left, held
        left = (*left, *self._unforwarded())
        if held:
            return nic_definition.on_vf(self.xml, mac, held[0], vlan), left, held
        address = self.free_vf().address
        return nic_definition.on_vf(self.xml, mac, address, vlan), (*self._limited(address), *left), (address,)

    def _limited(self, address: str) -> tuple[HostStep, ...]:
        """The rate that its port on a switched relay had, for a VF; MAC and VLAN are libvirt's to give."""
        vf, rate = self.host.vf(address), self.settings.max_tx_rate
        if vf is None or not rate:
            return ()
        return (
            HostStep(
                name="configure-vf",
                summary=f"let VF {vf.index} of {vf.pf} send {rate} Mbit/s",
                apply=(SetVf(pf=vf.pf, index=vf.index, settings=VfSettings(max_tx_rate=rate)),),
                undo=(SetVf(pf=vf.pf, index=vf.index, settings=vf.settings),),
            ),
        )

    def _join(self, port: RelayPort, settings: VfSettings) -> HostStep:
        return HostStep(
            name="join-relay",
            summary=f"join {port.mac} to {port.joined_to} by the relay",
            apply=(JoinRelay(port=port, settings=settings),),
            undo=(LeaveRelay(guest=port.guest, mac=port.mac),),
        )

    def _leave(self, port: RelayPort) -> HostStep:
        return HostStep(
            name="leave-relay",
            summary=f"take {port.mac} off the relay",
            apply=(LeaveRelay(guest=port.guest, mac=port.mac),),
            undo=(JoinRelay(port=port, settings=self.settings),),
        )

    def _off(self, port: RelayPort, to: NicTarget) -> tuple[HostStep, ...]:
        """What stays the guest's VF keeps its settings but for the MAC, which libvirt gives it. The port goes last."""
        vf = self.host.vf(port.vf.address) if port.vf else None
        stays = VfSettings(mac=NO_MAC) if to is NicTarget.VF else None
        return (*((self._wipe(vf, stays),) if vf else ()), self._leave(port))

    def _left(self) -> tuple[HostStep, ...]:
        """The VF that was passed through is nobody's now, and may have the guest's MAC from a migration."""
        return (self._wipe(self.own),) if self.own and self.nic.passed_through else ()

    def _left_vfs(self) -> tuple[str, ...]:
        return (self.own.address,) if self.own and self.nic.passed_through else ()

    def _unforwarded(self) -> tuple[HostStep, ...]:
        """The PF need not pass the MAC to its bridge any more, as it was told to when the NIC came there."""
        uplink = self.host.uplink(self.network)
        if target_of(self.nic) is not NicTarget.VIRTIO or self.nic.mac not in self.host.forwarding(uplink):
            return ()
        closed = SetForwarding(pf=uplink, mac=self.nic.mac, present=False)
        return (
            HostStep(
                name="close-bridge",
                summary=f"no longer let {self.nic.mac} pass to the bridge by {uplink}",
                apply=(closed,),
                undo=(replace(closed, present=True),),
            ),
        )

    def _wipe(self, vf: Vf, settings: VfSettings | None = None) -> HostStep:
        wiped = settings or self.wiped(vf)
        return HostStep(
            name="wipe-vf",
            summary=f"wipe VF {vf.index} of {vf.pf}",
            apply=(SetVf(pf=vf.pf, index=vf.index, settings=wiped),),
            undo=(SetVf(pf=vf.pf, index=vf.index, settings=vf.settings),),
        )

    def _define(self, xml: str, to: NicTarget) -> HostStep:
        return HostStep(
            name="define",
            summary=f"define {self.guest.name} with {self.nic.mac} on {to.described}",
            apply=(Define(xml=xml),),
            undo=(Define(xml=self.xml),),
        )

    def _planned(self, to: NicTarget, steps: tuple[HostStep, ...], vfs: tuple[str, ...]) -> NicPlan:
        return NicPlan(
            guest=self.guest.name,
            mac=self.nic.mac,
            to=to,
            host=self.host.name,
            operation=self.operation,
            logical_port=self.asked.name if self.asked else None,
            vfs=vfs,
            steps=steps,
        )

"""Putting a NIC of a guest that is off on a VF, on the relay, or on a bridge: what is to be done, or why it cannot be.

The definition is changed last on the way to something, and first on the way back: a guest that is started meanwhile
finds what it is defined with.
"""

from collections.abc import Iterator
from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace

from vferry.host.api import Define, JoinRelay, LeaveRelay, SetVf
from vferry.model.guest import Guest, GuestState, Nic, VfRef
from vferry.model.host import NO_MAC, Inventory, Vf, VfSettings
from vferry.model.relay import SOCKETS, RelayPort
from vferry.plan import destination_vf, networks, nic_definition, relayed, switch_place, switched
from vferry.plan.facts import Finding, Refusal, Severity, info
from vferry.plan.host_step import HostStep
from vferry.plan.plan import NetworkMode


class NicTarget(StrEnum):
    """What a guest's NIC can be put on."""

    VF = "vf"
    RELAY = "relay"
    VIRTIO = "virtio"

    @property
    def described(self) -> str:
        """What it is, in a sentence."""
        return {"vf": "a VF", "relay": "the relay", "virtio": "the standby path, as a virtio NIC"}[self.value]


class NicPlan(Struct, frozen=True, kw_only=True):
    """What is done for one NIC, and what of the host is claimed meanwhile."""

    guest: str
    mac: str
    to: NicTarget
    host: str
    operation: str
    logical_port: str | None = None
    vfs: tuple[str, ...] = ()
    steps: tuple[HostStep, ...] = ()


class NicAssessment(Struct, frozen=True, kw_only=True):
    """What was found, and the plan if nothing stands in the way; one without steps if it is so already."""

    findings: tuple[Finding, ...] = ()
    plan: NicPlan | None = None

    @property
    def errors(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.severity is Severity.ERROR)


def prefix(mac: str) -> str:
    """How the ids of operations begin that put a NIC on something else."""
    return f"nic-{mac.replace(':', '')}-"


def assess(
    host: Inventory,
    guest: Guest,
    persistent: str,
    mac: str,
    to: NicTarget,
    operation: str,
    logical_port: str | None = None,
) -> NicAssessment:
    """The way from what a NIC is on to what it is to be on. `persistent`: the guest's definition.

    `operation` is a new one's id, or that of one which a controller has begun and left: this goes on with it.
    `logical_port`: OVN's, which it is to be on the relay.
    """
    host = _with_own(host, operation)
    try:
        nic = _nic(guest, persistent, mac)
        if target_of(nic) is to and not _left_behind(host, guest, nic):
            note = info("nic-there", f"{mac} of {guest.name} is so already: {to.value}")
            plan = NicPlan(guest=guest.name, mac=mac, to=to, host=host.name, operation=operation)
            return NicAssessment(findings=(note,), plan=plan)
        _refuse(guest, persistent, mac)
        move = _Move(host, guest, persistent, nic, operation, logical_port)
        return NicAssessment(plan=move.plan(to), findings=tuple(move.notes(to)))
    except Refusal as refusal:
        return NicAssessment(findings=(refusal.finding,))


def target_of(nic: Nic) -> NicTarget:
    """What a NIC is on now."""
    if nic.passed_through:
        return NicTarget.VF
    return NicTarget.RELAY if nic.socket else NicTarget.VIRTIO


def _with_own(host: Inventory, operation: str) -> Inventory:
    """The host, with what this operation holds as free as it was before."""
    pfs = (
        replace(pf, vfs=tuple(replace(vf, claim=None) if vf.claim == operation else vf for vf in pf.vfs))
        for pf in host.pfs
    )
    return replace(host, pfs=tuple(pfs))


def _left_behind(host: Inventory, guest: Guest, nic: Nic) -> RelayPort | None:
    """A port of the relay that the guest's definition does not name."""
    port = host.relay.port(nic.mac) if host.relay else None
    return port if port and port.guest == guest.name and port.socket != nic.socket else None


def _nic(guest: Guest, persistent: str, mac: str) -> Nic:
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


def _refuse(guest: Guest, persistent: str, mac: str) -> None:
    if guest.state is not GuestState.OFF:
        raise Refusal(
            "guest-not-off",
            f"{guest.name} is {guest.state.value}, and its NIC is changed in its definition only",
            f"Shut it down (virsh shutdown {guest.name}), and start it afterwards",
        )
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


def _over(under: VfSettings, settings: VfSettings) -> VfSettings:
    """Settings, and where they say nothing those under them."""
    return VfSettings(
        **{
            name: getattr(under, name) if getattr(settings, name) is None else getattr(settings, name)
            for name in VfSettings.__struct_fields__
        }
    )


class _Move:
    """One NIC on its way; `Refusal` where there is none."""

    def __init__(
        self, host: Inventory, guest: Guest, persistent: str, nic: Nic, operation: str, logical_port: str | None
    ) -> None:
        self.host, self.guest, self.xml, self.nic, self.operation = host, guest, persistent, nic, operation
        self.logical_port = logical_port
        self.network = self._network()
        self.own = host.vf(nic.vf.address) if nic.vf else None
        # libvirt gives a VF the VLAN of the definition only as long as the guest runs.
        port = host.relay.port(nic.mac) if host.relay and nic.relayed else None
        set_now = self.own.settings if self.own else switch_place.settings_of(port)
        self.settings = replace(set_now, vlan=nic_definition.vlan_of(persistent, nic.mac) or set_now.vlan or 0)

    def plan(self, to: NicTarget) -> NicPlan:
        """Of what is on the relay, the VF goes along where it can."""
        port = self.host.relay.port(self.nic.mac) if self.host.relay else None
        if self.nic.socket and port is None:
            raise Refusal(
                "relay-unknown",
                f"{self.nic.mac} is on {self.nic.socket}, which is not of the relay of {self.host.name}",
                "Change its definition by hand: virsh edit",
            )
        if to is NicTarget.RELAY:
            return self._to_relay()
        if target_of(self.nic) is to and port:
            return self._planned(to, self._off(port, to), _vf_of(port))
        xml, steps, vfs = self._away(to, port)
        return self._planned(to, (self._define(xml, to), *steps), vfs)

    def notes(self, to: NicTarget) -> Iterator[Finding]:
        """What the NIC loses on the way."""
        if to is NicTarget.RELAY and self.host.relay and self.host.relay.switched:
            yield from switch_place.about(self.nic.mac, self.settings)

    def _to_relay(self) -> NicPlan:
        if self.host.relay and self.host.relay.switched:
            return self._to_switch()
        if self.logical_port:
            raise Refusal(
                "relay-not-switched",
                f"{self.logical_port} is a port of OVN's, and {self.host.name} has no switched relay",
                f"Make one: vferry relay enable {self.host.name} --uplink PF --switched",
            )
        begun = _left_behind(self.host, self.guest, self.nic)
        vf = (begun.vf if begun else None) or relayed.free_vf(self.host, self.network, self.nic.mac)
        pf = self.host.pf(vf.pf)
        before = self.host.vf(vf.address)
        port = RelayPort(
            guest=self.guest.name,
            mac=self.nic.mac,
            socket=self._socket,
            vf=vf,
            mtu=pf.mtu if pf else 1500,
        )
        settings = _over(pf.wiped(before) if pf and before else VfSettings(), replace(self.settings, mac=self.nic.mac))
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
        )
        return self._planned(NicTarget.RELAY, steps, (vf.address, *self._left_vfs()))

    def _to_switch(self) -> NicPlan:
        """As a port of the relay's bridge, which does of the VF's settings what a port can."""
        mac = self.nic.mac
        bridge, _ = switched.bridge_on(self.host, self.network, mac)
        if self.logical_port:
            chassis = switched.chassis_of(self.host, self.logical_port)
            place = switch_place.bound(chassis, self.logical_port, self.settings, mac, self.network)
        else:
            place = switch_place.place(bridge, self.settings, mac)
        port = RelayPort(guest=self.guest.name, mac=mac, socket=self._socket, switch=place, mtu=bridge.mtu)
        xml = nic_definition.on_relay(self.xml, mac, port.socket)
        steps = (self._join(port, VfSettings()), self._define(xml, NicTarget.RELAY), *self._left())
        return self._planned(NicTarget.RELAY, steps, self._left_vfs())

    @property
    def _socket(self) -> str:
        return f"{SOCKETS}/{self.nic.mac.replace(':', '')}.sock"

    def _away(self, to: NicTarget, port: RelayPort | None) -> tuple[str, tuple[HostStep, ...], tuple[str, ...]]:
        """The definition, what is done after it, and the VFs that are claimed for it."""
        mac, vlan = self.nic.mac, self.settings.vlan or 0
        left = self._off(port, to) if port else self._left()
        held = _vf_of(port) or self._left_vfs()
        if to is NicTarget.VIRTIO:
            return nic_definition.on_bridge(self.xml, mac, self.host.attachment(self.network), vlan), left, held
        if held:
            return nic_definition.on_vf(self.xml, mac, held[0], vlan), left, held
        address = self._free_vf().address
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

    def _wipe(self, vf: Vf, settings: VfSettings | None = None) -> HostStep:
        pf = self.host.pf(vf.pf)
        wiped = settings or (pf.wiped(vf) if pf else VfSettings(mac=NO_MAC))
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
            logical_port=self.logical_port,
            vfs=vfs,
            steps=steps,
        )

    def _network(self) -> str:
        nic = self.nic
        found = self.host.network_of(nic.vf.pf) if nic.vf else self.host.network_of_nic(nic)
        return networks.known(self.host, found, nic.mac)

    def _free_vf(self) -> VfRef:
        vf = destination_vf.choose(self.host, self.network, NetworkMode.SWITCH, ())
        return VfRef(pf=vf.pf, index=vf.index, address=vf.address)

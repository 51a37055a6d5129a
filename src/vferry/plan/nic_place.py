"""A guest's NIC on its host, with what it could be put on there."""

from collections.abc import Collection

from msgspec.structs import replace

from vferry.model.guest import Guest, Nic, VfRef
from vferry.model.host import NO_MAC, Inventory, Vf, VfSettings
from vferry.model.relay import SOCKETS, RelayPort, RelayVf
from vferry.plan import (
    destination_vf,
    logical_port,
    networks,
    nic_definition,
    nic_port,
    relayed,
    switch_place,
    switched,
)
from vferry.plan.facts import Refusal
from vferry.plan.nic_port import AskedPort
from vferry.plan.plan import NetworkMode


class NicPlace:
    """One NIC where it is. Raises `Refusal` where its host does not say on which physical network that is."""

    def __init__(self, host: Inventory, guest: Guest, persistent: str, nic: Nic) -> None:
        self.host, self.guest, self.xml, self.nic = host, guest, persistent, nic
        self.network = self._network()
        self.own = host.vf(nic.vf.address) if nic.vf else None
        # libvirt gives a VF the VLAN of the definition only as long as the guest runs.
        set_now = self.own.settings if self.own else switch_place.settings_of(self._known_port())
        self.settings = replace(set_now, vlan=nic_definition.vlan_of(persistent, nic.mac) or set_now.vlan or 0)

    def port(self) -> RelayPort | None:
        """Its port on the host's relay. Raises `Refusal` where it is on vhost-user otherwise."""
        port = self._known_port()
        if self.nic.socket and port is None:
            raise Refusal(
                "relay-unknown",
                f"{self.nic.mac} is on {self.nic.socket}, which is not of the relay of {self.host.name}",
                "Change its definition by hand: virsh edit",
            )
        if port and port.switch and port.switch.chain:
            name = port.switch.chain.name
            raise Refusal(
                "nic-in-chain",
                f"{self.nic.mac} is in the service chain {name}",
                f"Take the chain back first: vferry relay chain {self.host.name} {name} --none",
            )
        return port

    @property
    def mtu(self) -> int:
        """What its guest may send, in bytes; 0 where that is not known."""
        return nic_definition.mtu_of(self.xml, self.nic.mac)

    @property
    def queues(self) -> int:
        """How many it has on virtio, or had."""
        return nic_definition.queues_of(self.xml, self.nic.mac)

    @property
    def on_switch(self) -> bool:
        """Whether the host's relay is a switched one."""
        return self.host.relay is not None and self.host.relay.switched

    def relay_vf(self) -> RelayVf:
        """A free VF that a direct relay could join it to, of a PF that passes what it sends. Raises `Refusal`."""
        return relayed.free_vf(self.host, self.network, self.nic.mac, mtu=self.mtu)

    def port_on(self, vf: RelayVf) -> RelayPort:
        """What would join it to a VF, on a direct relay."""
        pf = self.host.pf(vf.pf)
        return RelayPort(
            guest=self.guest.name,
            mac=self.nic.mac,
            socket=self._socket,
            vf=vf,
            mtu=pf.mtu if pf else 1500,
            queues=self.queues,
        )

    def port_on_switch(self, asked: AskedPort | None) -> RelayPort:
        """Its place on a switched relay, OVN's if it is to be one of its ports. Raises `Refusal`."""
        mac = self.nic.mac
        bridge, _ = switched.bridge_on(self.host, self.network, mac)
        if asked:
            chassis = logical_port.chassis_of(self.host, asked.name)
            if not self._is_begun_as(asked.name):
                nic_port.refuse_unfit(asked, chassis, self.host.name, mac)
            place = switch_place.bound(chassis, asked.name, self.settings, mac, self.network)
        else:
            place = switch_place.place(bridge, self.settings, mac)
            switch_place.refuse_mixed(self.host, place, mac)
        port = RelayPort(guest=self.guest.name, mac=mac, socket=self._socket, switch=place, mtu=bridge.mtu)
        if port.mtu < self.mtu:
            raise Refusal(
                "mtu-too-small",
                f"The guest has an MTU of {self.mtu}, and {port.joined_to} of {self.host.name} takes {port.mtu}",
                "Give its uplinks' PFs that MTU, and make the relay anew; or give the guest's NIC a smaller MTU",
            )
        return port

    def free_vf(self, taken: Collection[str] = ()) -> VfRef:
        """A VF that the guest could be given, not one of `taken`, PCI addresses. Raises `Refusal`.

        It is of a PF that passes what the guest sends, where such a one has any.
        """
        narrow = {vf.address for pf in self.host.pfs if pf.mtu < self.mtu for vf in pf.vfs}
        try:
            vf = destination_vf.choose(self.host, self.network, NetworkMode.SWITCH, {*taken, *narrow})
        except Refusal:
            vf = destination_vf.choose(self.host, self.network, NetworkMode.SWITCH, taken)
        return VfRef(pf=vf.pf, index=vf.index, address=vf.address)

    def settings_on(self, vf: Vf | None) -> VfSettings:
        """Its settings on another VF, with that one's own where these say nothing."""
        pf = self.host.pf(vf.pf) if vf else None
        return _over(pf.wiped(vf) if pf and vf else VfSettings(), self.settings)

    def wiped(self, vf: Vf) -> VfSettings:
        """A VF as its driver makes it."""
        pf = self.host.pf(vf.pf)
        return pf.wiped(vf) if pf else VfSettings(mac=NO_MAC)

    @property
    def _socket(self) -> str:
        return f"{SOCKETS}/{self.nic.mac.replace(':', '')}.sock"

    def _known_port(self) -> RelayPort | None:
        return self.host.relay.port(self.nic.mac) if self.host.relay else None

    def _is_begun_as(self, name: str) -> bool:
        """Whether it was begun to be this port of OVN's, and is gone on with: nothing is asked of OVN for that."""
        port = self._known_port()
        return bool(port and port.guest == self.guest.name and port.switch and port.switch.logical_port == name)

    def _network(self) -> str:
        nic = self.nic
        found = self.host.network_of(nic.vf.pf) if nic.vf else self.host.network_of_nic(nic)
        return networks.known(self.host, found, nic.mac)


def refuse_other_port(host: Inventory, guest: Guest, nic: Nic, name: str) -> None:
    """A NIC that is on the relay already does not become another port there: it is off it in between.

    Raises `Refusal`, also where the host has no relay with OVN's ports.
    """
    if host.relay is None or not host.relay.switched:
        raise Refusal(
            "relay-not-switched",
            f"{name} is a port of OVN's, and {host.name} has no switched relay",
            f"Make one: vferry relay enable {host.name} --uplink PF --switched",
        )
    port = host.relay.port(nic.mac)
    bound = port.switch.logical_port if port and port.switch else None
    if nic.socket and bound != name:
        raise Refusal(
            "port-differs",
            f"{nic.mac} of {guest.name} is on the relay already, as {bound or 'no port'} of OVN's",
            f"Take it off first (vferry guest nic {guest.name} {nic.mac} --to virtio), then ask again",
        )


def _over(under: VfSettings, settings: VfSettings) -> VfSettings:
    """Settings, and where they say nothing those under them."""
    return VfSettings(
        **{
            name: getattr(under, name) if getattr(settings, name) is None else getattr(settings, name)
            for name in VfSettings.__struct_fields__
        }
    )

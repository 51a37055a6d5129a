"""A logical port of OVN's that a guest's NIC is asked to be: whether it is one for that NIC, on its host."""

from collections.abc import Iterator

from msgspec import Struct

from vferry.model.ovn import ANY_MAC, Chassis, KnownPort
from vferry.plan import logical_port
from vferry.plan.facts import Finding, Refusal, warning


class AskedPort(Struct, frozen=True, kw_only=True):
    """A logical port that a NIC is to be, with what OVN says of it."""

    name: str
    known: KnownPort | None = None
    """None where OVN has no such port, or says nothing."""
    silence: str | None = None
    """Why it says nothing."""


def refuse_unfit(port: AskedPort, chassis: Chassis, host: str, mac: str) -> None:
    """A port that is not there, or not this NIC's, or whose networks the host is not joined to. Raises `Refusal`."""
    known = port.known
    if port.silence is not None:
        raise logical_port.unknown(port.name, port.silence)
    if known is None:
        raise Refusal(
            "logical-port-unknown",
            f"OVN has no logical port {port.name}",
            "Make it (ovn-nbctl lsp-add), or name another one; look with: ovn-nbctl show",
        )
    _refuse_kind(known)
    _refuse_others(known, mac)
    logical_port.refuse_without_mapping(known, host, chassis)


def about(port: AskedPort, chassis: Chassis) -> Iterator[Finding]:
    """What keeps a port that is the NIC's from being bound on its host."""
    wanted = port.known.binding.requested_chassis if port.known else None
    if wanted and chassis.name not in wanted.split(","):
        yield warning(
            "ovn-requested-elsewhere",
            f"OVN is to bind {port.name} at {wanted} (requested-chassis), and this host is its {chassis.name}: unless "
            "both are one, the guest has no network there",
            f"Let it be bound anywhere: ovn-nbctl remove Logical_Switch_Port {port.name} options requested-chassis",
        )


def _refuse_kind(port: KnownPort) -> None:
    name = port.binding.name
    if port.type or port.parent:
        what = f"of the type {port.type}" if port.type else f"a container's, behind {port.parent}"
        raise Refusal(
            "ovn-port-kind",
            f"{name} is {what}, and a guest's NIC is of none, and behind none",
            "Name a port that was made for the guest; look with: ovn-nbctl list Logical_Switch_Port",
        )


def _refuse_others(port: KnownPort, mac: str) -> None:
    """A port for another MAC gets nothing that is for this one, or lets nothing of it in."""
    name = port.binding.name
    if not {mac, ANY_MAC}.intersection(port.macs):
        raise Refusal(
            "ovn-port-addresses",
            f"{name} is for {' and '.join(port.macs) or 'no MAC'} (addresses), and the NIC has {mac}",
            f'Name the port of this NIC, or have it be that: ovn-nbctl lsp-set-addresses {name} "{mac} ADDRESS"',
        )
    if port.senders and mac not in port.senders:
        raise Refusal(
            "ovn-port-security",
            f"OVN lets in at {name} what {' and '.join(port.senders)} sends (port_security), and the NIC has {mac}",
            f'Name the port of this NIC, or have it be that: ovn-nbctl lsp-set-port-security {name} "{mac} ADDRESS"',
        )

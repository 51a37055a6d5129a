"""The kernel's rtnetlink, as far as SR-IOV needs it: a PF's VFs, its forwarding entries, and a bridge's."""

import os
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Self

from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg

from vferry.model.problem import Problem

RTM_NEWLINK, RTM_GETLINK, RTM_GETADDR, RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 16, 18, 22, 28, 29, 30
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_ACK, NLM_F_REPLACE, NLM_F_EXCL, NLM_F_DUMP, NLM_F_CREATE = 0x001, 0x004, 0x100, 0x200, 0x300, 0x400
RTEXT_FILTER_VF, RTEXT_FILTER_BRVLAN = 1, 2
AF_BRIDGE = 7
NTF_SELF, NTF_MASTER, NTF_STICKY = 0x02, 0x04, 0x40
NUD_REACHABLE, NUD_NOARP, NUD_PERMANENT = 0x02, 0x40, 0x80
HEADER = struct.Struct("=IHHII")
ANSWER_LIMIT = 1 << 18
"""Bytes: an interface with 256 VFs takes some 70,000."""

ANSWER_TIMEOUT_S = 10.0


class Links:
    """Asks and changes the interfaces of this host on one socket. The kernel's refusals are `OSError`, with errno.

    The messages are pyroute2's, its sockets are not: they wait for the answer to each change, and between two
    changes a MAC may be nobody's. Several messages in one packet are carried out back to back.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._socket.settimeout(ANSWER_TIMEOUT_S)
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._socket.close()

    def index(self, name: str) -> int:
        """An interface's index. Problem ``interface-unknown``."""
        try:
            return socket.if_nametoindex(name)
        except OSError as error:
            raise Problem("interface-unknown", f"This host has no interface {name}", "Look with: ip link") from error

    def get(self, index: int) -> Any:
        """An interface with the settings of its VFs (the message of ``ip link show``)."""
        answers, errors = self._ask(get_link(index))
        if errors[0] or not answers:
            raise OSError(errors[0], os.strerror(errors[0]))
        return decode(ifinfmsg, answers[0])

    def forwarding(self) -> dict[int, tuple[str, ...]]:
        """The unicast MACs that were added to the filters of interfaces, by the interface's index."""
        answers, _errors = self._ask(list_forwarding())
        return read_forwarding(decode(ndmsg, answer) for answer in answers)

    def vlans(self) -> dict[int, tuple[int, ...]]:
        """The VLANs that each port of a bridge passes, by the port's index."""
        answers, _errors = self._ask(list_vlans())
        return read_vlans(decode(ifinfmsg, answer) for answer in answers)

    def index_of(self, address: str) -> int | None:
        """The index of the interface that has an IP address; None where none has."""
        answers, _errors = self._ask(list_addresses())
        return read_addresses(decode(ifaddrmsg, answer) for answer in answers).get(ip_address(address))

    def change(self, message: Any) -> None:
        """Makes one change."""
        for error in self.change_together(message):
            if error:
                raise OSError(error, os.strerror(error))

    def change_together(self, *messages: Any) -> list[int]:
        """Makes changes back to back, in order, also when an earlier one is refused. The errno of each, or 0."""
        return self._ask(*messages)[1]

    def _ask(self, *messages: Any) -> tuple[list[bytes], list[int]]:
        """Sends messages in one packet. What came as an answer, and for each message the errno, or 0."""
        first = self._sequence + 1
        self._sequence += len(messages)
        self._socket.sendto(b"".join(encode(message, first + n) for n, message in enumerate(messages)), (0, 0))
        answers: list[bytes] = []
        ends: dict[int, int] = {}
        while len(ends) < len(messages):
            for kind, sequence, data in split(self._socket.recv(ANSWER_LIMIT)):
                if kind in (NLMSG_ERROR, NLMSG_DONE):
                    ends[sequence] = read_error(data)
                else:
                    answers.append(data)
        return answers, [ends[first + n] for n in range(len(messages))]


def get_link(index: int) -> Any:
    """The message of ``ip link show`` for one interface, VFs included."""
    message = ifinfmsg()
    message["index"] = index
    message["attrs"] = [("IFLA_EXT_MASK", RTEXT_FILTER_VF)]
    message["header"].update(type=RTM_GETLINK, flags=NLM_F_REQUEST | NLM_F_ACK)
    return message


def list_forwarding() -> Any:
    """The message of ``bridge fdb show``."""
    message = ndmsg()
    message["family"] = AF_BRIDGE
    message["header"].update(type=RTM_GETNEIGH, flags=NLM_F_REQUEST | NLM_F_DUMP)
    return message


def list_vlans() -> Any:
    """The message of ``bridge vlan show``, without ranges."""
    message = ifinfmsg()
    message["family"] = AF_BRIDGE
    message["attrs"] = [("IFLA_EXT_MASK", RTEXT_FILTER_BRVLAN)]
    message["header"].update(type=RTM_GETLINK, flags=NLM_F_REQUEST | NLM_F_DUMP)
    return message


def list_addresses() -> Any:
    """The message of ``ip address show``."""
    message = ifaddrmsg()
    message["header"].update(type=RTM_GETADDR, flags=NLM_F_REQUEST | NLM_F_DUMP)
    return message


def set_vf(index: int, vf: int, attribute: str, values: Mapping[str, Any]) -> Any:
    """The message of ``ip link set … vf …`` for one attribute, such as ``IFLA_VF_MAC`` with its fields."""
    message = ifinfmsg()
    message["index"] = index
    info = {"attrs": [(attribute, {"vf": vf, **values})]}
    message["attrs"] = [("IFLA_VFINFO_LIST", {"attrs": [("IFLA_VF_INFO", info)]})]
    message["header"].update(type=RTM_NEWLINK, flags=NLM_F_REQUEST | NLM_F_ACK)
    return message


def set_address(index: int, mac: str) -> Any:
    """The message of ``ip link set … address …``."""
    message = ifinfmsg()
    message["index"] = index
    message["attrs"] = [("IFLA_ADDRESS", mac)]
    message["header"].update(type=RTM_NEWLINK, flags=NLM_F_REQUEST | NLM_F_ACK)
    return message


def set_forwarding(index: int, mac: str, *, present: bool) -> Any:
    """The message of ``bridge fdb add`` (or ``del``) ``MAC dev … self permanent``."""
    message = ndmsg()
    message.update(
        family=AF_BRIDGE,
        ifindex=index,
        state=NUD_NOARP | NUD_PERMANENT,
        flags=NTF_SELF,
    )
    message["attrs"] = [("NDA_LLADDR", mac)]
    added = NLM_F_CREATE | NLM_F_EXCL if present else 0
    message["header"].update(type=RTM_NEWNEIGH if present else RTM_DELNEIGH, flags=NLM_F_REQUEST | NLM_F_ACK | added)
    return message


def learn(index: int, mac: str, *, hold: bool = False) -> Any:
    """The message of ``bridge fdb replace MAC dev … master dynamic``: the port's bridge has learnt it, as it were.

    With `hold` it is ``sticky`` as well (Linux 4.20): the MAC stays at its port, whoever else sends frames from it.
    """
    message = ndmsg()
    message.update(family=AF_BRIDGE, ifindex=index, state=NUD_REACHABLE, flags=NTF_MASTER | (NTF_STICKY if hold else 0))
    message["attrs"] = [("NDA_LLADDR", mac)]
    message["header"].update(type=RTM_NEWNEIGH, flags=NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE)
    return message


def encode(message: Any, sequence: int) -> bytes:
    """A message as it goes over the socket."""
    message["header"].update(sequence_number=sequence, pid=0)
    message.reset()
    message.encode()
    return bytes(message.data)


def decode(kind: Any, data: bytes) -> Any:
    """A message of pyroute2's class `kind`."""
    message = kind(data)
    message.decode()
    return message


def split(packet: bytes) -> Iterator[tuple[int, int, bytes]]:
    """The messages of a packet: type, sequence number, and the whole message with its header."""
    while len(packet) >= HEADER.size:
        length, kind, _flags, sequence, _port = HEADER.unpack_from(packet)
        if length < HEADER.size:
            return
        yield kind, sequence, packet[:length]
        packet = packet[(length + 3) & ~3 :]


def read_error(message: bytes) -> int:
    """The errno of an answer that ends a request, 0 for done."""
    body = message[HEADER.size :]
    return -int(struct.unpack_from("=i", body)[0]) if len(body) >= 4 else 0


def read_addresses(messages: Iterable[Any]) -> dict[IPv4Address | IPv6Address, int]:
    """Of a dump of addresses the index of the interface that has each."""
    return {
        # IFA_ADDRESS is the other end's of a point-to-point link; IPv6 has no IFA_LOCAL elsewhere.
        ip_address(message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")): int(message["index"])
        for message in messages
        if message["family"] in (socket.AF_INET, socket.AF_INET6)
    }


def read_vlans(messages: Iterable[Any]) -> dict[int, tuple[int, ...]]:
    """Of a dump of a bridge's links the VLANs of each port, by its index."""
    found: dict[int, tuple[int, ...]] = {}
    for message in messages:
        attributes = (message.get_attr("IFLA_AF_SPEC") or {}).get("attrs", ())
        found[message["index"]] = tuple(value["vid"] for name, value in attributes if name == "IFLA_BRIDGE_VLAN_INFO")
    return found


def read_forwarding(messages: Iterable[Any]) -> dict[int, tuple[str, ...]]:
    """Of a dump of forwarding entries those that were added to interfaces' own filters; unicast, by index."""
    entries: dict[int, tuple[str, ...]] = {}
    for message in messages:
        mac = message.get_attr("NDA_LLADDR")
        own = message["flags"] & NTF_SELF and message["state"] & NUD_PERMANENT
        if mac and own and not int(mac[:2], 16) & 1:
            entries[message["ifindex"]] = (*entries.get(message["ifindex"], ()), mac.lower())
    return entries

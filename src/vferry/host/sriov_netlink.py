"""The kernel's rtnetlink, as far as SR-IOV needs it: a PF's VFs and its forwarding entries."""

import os
import socket
import struct
from collections.abc import Iterable, Mapping
from typing import Any, Self

from pyroute2 import IPRoute
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg

from vferry.model.problem import Problem

RTM_NEWLINK, RTM_NEWNEIGH, RTM_DELNEIGH = 16, 28, 29
NLMSG_ERROR = 2
NLM_F_REQUEST, NLM_F_ACK, NLM_F_EXCL, NLM_F_CREATE = 0x001, 0x004, 0x200, 0x400
RTEXT_FILTER_VF = 1
AF_BRIDGE = 7
NTF_SELF = 0x02
NUD_NOARP, NUD_PERMANENT = 0x40, 0x80
HEADER = struct.Struct("=IHHII")
ANSWER_LIMIT = 1 << 16
ANSWER_TIMEOUT_S = 10.0


class Links:
    """Asks and changes the interfaces of this host. The kernel's refusals are `OSError`, with its errno."""

    def __init__(self) -> None:
        self._netlink = IPRoute()
        # Changes go through a socket of their own, as several messages in one packet: pyroute2 would wait for the
        # answer to each, and between two of them a MAC may be nobody's.
        self._changes = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._changes.settimeout(ANSWER_TIMEOUT_S)
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._changes.close()
        self._netlink.close()

    def index(self, name: str) -> int:
        """An interface's index. Problem ``interface-unknown``."""
        try:
            return socket.if_nametoindex(name)
        except OSError as error:
            raise Problem("interface-unknown", f"This host has no interface {name}", "Look with: ip link") from error

    def get(self, index: int) -> Any:
        """An interface with the settings of its VFs (the message of ``ip link show``)."""
        return self._netlink.link("get", index=index, ext_mask=RTEXT_FILTER_VF)[0]

    def forwarding(self) -> dict[int, tuple[str, ...]]:
        """The unicast MACs that were added to the filters of interfaces, by the interface's index."""
        return read_forwarding(self._netlink.fdb("dump"))

    def change(self, message: Any) -> None:
        """Makes one change."""
        for error in self.change_together(message):
            if error:
                raise OSError(error, os.strerror(error))

    def change_together(self, *messages: Any) -> list[int]:
        """Makes changes back to back, in order, also when an earlier one is refused. The errno of each, or 0."""
        first = self._sequence + 1
        self._sequence += len(messages)
        self._changes.sendto(b"".join(encode(message, first + n) for n, message in enumerate(messages)), (0, 0))
        found: dict[int, int] = {}
        while len(found) < len(messages):
            found.update(read_errors(self._changes.recv(ANSWER_LIMIT)))
        return [found[first + n] for n in range(len(messages))]


def set_vf(index: int, vf: int, attribute: str, values: Mapping[str, Any]) -> Any:
    """The message of ``ip link set … vf …`` for one attribute, such as ``IFLA_VF_MAC`` with its fields."""
    message = ifinfmsg()
    message["index"] = index
    info = {"attrs": [(attribute, {"vf": vf, **values})]}
    message["attrs"] = [("IFLA_VFINFO_LIST", {"attrs": [("IFLA_VF_INFO", info)]})]
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


def encode(message: Any, sequence: int) -> bytes:
    """A message as it goes over the socket."""
    message["header"].update(sequence_number=sequence, pid=0)
    message.reset()
    message.encode()
    return bytes(message.data)


def read_errors(data: bytes) -> dict[int, int]:
    """The answers in a packet: by sequence number the errno, 0 for done."""
    found: dict[int, int] = {}
    while len(data) >= HEADER.size:
        length, kind, _flags, sequence, _port = HEADER.unpack_from(data)
        if kind == NLMSG_ERROR and length >= HEADER.size + 4:
            found[sequence] = -struct.unpack_from("=i", data, HEADER.size)[0]
        data = data[max((length + 3) & ~3, HEADER.size) :]
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

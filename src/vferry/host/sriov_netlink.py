"""The kernel's rtnetlink, as far as SR-IOV needs it: a PF's VFs and its forwarding entries, on one socket."""

from typing import Any, Self

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from vferry.model.problem import Problem

RTEXT_FILTER_VF = 1
NTF_SELF = 0x02
NUD_PERMANENT = 0x80

__all__ = ["Links", "NetlinkError"]


class Links:
    """One rtnetlink socket. The kernel's refusals pass as `NetlinkError`, whose `code` is an errno."""

    def __init__(self) -> None:
        self._netlink = IPRoute()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._netlink.close()

    def index(self, name: str) -> int:
        """An interface's index. Problem ``interface-unknown``."""
        found = self._netlink.link_lookup(ifname=name)
        if not found:
            raise Problem("interface-unknown", f"This host has no interface {name}", "Look with: ip link")
        index: int = found[0]
        return index

    def get(self, index: int) -> Any:
        """An interface with the settings of its VFs (the message of ``ip link show``)."""
        return self._netlink.link("get", index=index, ext_mask=RTEXT_FILTER_VF)[0]

    def set_vf(self, index: int, vf: dict[str, Any]) -> None:
        """Sets one attribute group of one VF; `vf` is left as it is, which pyroute2 would take apart."""
        copy = {key: dict(value) if isinstance(value, dict) else value for key, value in vf.items()}
        self._netlink.link("set", index=index, vf=copy)

    def forwarding(self) -> dict[int, tuple[str, ...]]:
        """The unicast MACs that were added to the filters of interfaces, by the interface's index."""
        entries: dict[int, tuple[str, ...]] = {}
        for message in self._netlink.fdb("dump"):
            mac = message.get_attr("NDA_LLADDR")
            own = message["flags"] & NTF_SELF and message["state"] & NUD_PERMANENT
            if mac and own and not int(mac[:2], 16) & 1:
                entries[message["ifindex"]] = (*entries.get(message["ifindex"], ()), mac.lower())
        return entries

    def add_forwarding(self, index: int, mac: str) -> None:
        """``bridge fdb add MAC dev … self permanent``."""
        self._netlink.fdb("add", ifindex=index, lladdr=mac, flags=NTF_SELF, state=NUD_PERMANENT)

    def delete_forwarding(self, index: int, mac: str) -> None:
        """``bridge fdb del MAC dev … self permanent``."""
        self._netlink.fdb("del", ifindex=index, lladdr=mac, flags=NTF_SELF, state=NUD_PERMANENT)

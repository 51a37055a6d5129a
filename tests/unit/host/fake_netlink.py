"""A NIC with VFs and a filter of limited size, behind the messages that vferry sends to the kernel."""

import errno
from typing import Any, Self

from vferry.host.sriov_netlink import NTF_SELF, RTM_NEWNEIGH
from vferry.model.host import NO_MAC
from vferry.model.problem import Problem

PF_INDEX, BOND_INDEX, VF_INDEX = 2, 3, 4
VF_INTERFACE = "pf0v1"


class Attributes:
    """A netlink message as pyroute2 gives it: fields by name, attributes by `get_attr`."""

    def __init__(self, fields: dict[str, Any], attributes: list[tuple[str, Any]]) -> None:
        self.fields, self.attributes = fields, attributes

    def __getitem__(self, key: str) -> Any:
        return self.fields[key]

    def get_attr(self, name: str) -> Any:
        return next((value for key, value in self.attributes if key == name), None)

    def get_attrs(self, name: str) -> list[Any]:
        return [value for key, value in self.attributes if key == name]


class FakeNic:
    """One PF, ``pf0``, whose filter is also that of the bond over it, ``bond0``, and the interface of its VF 1.

    `lacks` are attributes its driver does not implement; `hides` those it does not tell. `overridden`:
    the VF may not change its MAC (`refused`), or the PF does not hear of it (`unheard`).
    """

    def __init__(self, vfs: int = 2, filters: int = 24) -> None:
        self.vfs: list[dict[str, dict[str, Any]]] = [
            {
                "IFLA_VF_MAC": {"mac": NO_MAC},
                "IFLA_VF_VLAN": {"vlan": 0, "qos": 0},
                "IFLA_VF_RATE": {"min_tx_rate": 0, "max_tx_rate": 0},
                "IFLA_VF_SPOOFCHK": {"spoofchk": 1},
                "IFLA_VF_LINK_STATE": {"link_state": 0},
                "IFLA_VF_TRUST": {"trust": 0},
            }
            for _ in range(vfs)
        ]
        self.filters = filters
        self.added: list[str] = []
        self.lacks: set[str] = set()
        self.ignores: set[str] = set()
        self.hides: set[str] = set()
        self.address = "52:54:00:00:01:02"
        """That of the VF's interface."""
        self.overridden: str = ""
        self.asked: list[int] = []
        """Of which interface each change of a filter was asked."""
        self.packets: list[list[str]] = []
        """What each packet changed, in order."""

    def mac(self, vf: int) -> str:
        mac: str = self.vfs[vf]["IFLA_VF_MAC"]["mac"]
        return mac

    def set_address(self, mac: str) -> int:
        """What the VF's driver makes of a MAC for its interface."""
        if self.overridden == "refused":
            return errno.EADDRNOTAVAIL
        self.address = mac
        if self.overridden != "unheard":
            self.vfs[1]["IFLA_VF_MAC"] = {"mac": mac}
        return 0


class FakeLinks:
    """`Links` on a `FakeNic`."""

    def __init__(self, nic: FakeNic) -> None:
        self.nic = nic

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        pass

    def index(self, name: str) -> int:
        known = {"pf0": PF_INDEX, "bond0": BOND_INDEX, VF_INTERFACE: VF_INDEX}
        if name not in known:
            raise Problem("interface-unknown", f"This host has no interface {name}")
        return known[name]

    def get(self, index: int) -> Attributes:
        if index == VF_INDEX:
            return Attributes({"index": index, "flags": 0x1003}, [("IFLA_ADDRESS", self.nic.address)])
        infos = [
            ("IFLA_VF_INFO", Attributes({}, [(k, {"vf": n, **v}) for k, v in vf.items() if k not in self.nic.hides]))
            for n, vf in enumerate(self.nic.vfs)
        ]
        attributes = [("IFLA_VFINFO_LIST", Attributes({}, infos)), ("IFLA_ADDRESS", "52:54:00:00:01:01")]
        return Attributes({"index": index, "flags": 0x1003}, [*attributes, ("IFLA_MTU", 9000)])

    def index_of(self, address: str) -> int | None:
        return PF_INDEX if address == "127.0.0.1" else None

    def vlans(self) -> dict[int, tuple[int, ...]]:
        return {PF_INDEX: (1, 7)}

    def forwarding(self) -> dict[int, tuple[str, ...]]:
        return dict.fromkeys((PF_INDEX, BOND_INDEX), tuple(self.nic.added)) if self.nic.added else {}

    def change(self, message: Any) -> None:
        for error in self.change_together(message):
            if error:
                raise OSError(error, "refused")

    def change_together(self, *messages: Any) -> list[int]:
        self.nic.packets.append([])
        return [self._change(message) for message in messages]

    def _change(self, message: Any) -> int:
        if "ifindex" in message:
            return self._forward(message)
        if message["index"] == VF_INDEX:
            error = self.nic.set_address(message["attrs"][0][1])
            self.nic.packets[-1].append("refused address" if error else "address")
            return error
        info = message["attrs"][0][1]["attrs"][0][1]["attrs"]
        (attribute, values) = info[0]
        if attribute in self.nic.lacks:
            return errno.EOPNOTSUPP
        if values["vf"] >= len(self.nic.vfs):
            return errno.EINVAL
        self.nic.packets[-1].append(attribute)
        if attribute not in self.nic.ignores:
            self.nic.vfs[values["vf"]][attribute] = {k: v for k, v in values.items() if k != "vf"}
        return 0

    def _forward(self, message: Any) -> int:
        assert message["ifindex"] in (PF_INDEX, BOND_INDEX)
        assert message["flags"] == NTF_SELF
        self.nic.asked.append(message["ifindex"])
        mac = message["attrs"][0][1]
        present = message["header"]["type"] == RTM_NEWNEIGH
        if present == (mac in self.nic.added):
            return errno.EEXIST if present else errno.ENOENT
        # A bond takes what its NIC does not.
        if present and message["ifindex"] == PF_INDEX and len(self.nic.added) >= self.nic.filters:
            return errno.ENOMEM
        self.nic.packets[-1].append("add" if present else "delete")
        (self.nic.added.append if present else self.nic.added.remove)(mac)
        return 0

from pathlib import Path
from typing import cast

import pytest
from fake_netlink import BOND_INDEX, FakeLinks, FakeNic
from msgspec.structs import replace

from vferry.host.api import Done, MoveFilter
from vferry.host.forwarding import move_filter, parked, set_forwarding, unpark
from vferry.host.sriov_netlink import Links
from vferry.model.guest import VfRef
from vferry.model.host import NO_MAC
from vferry.model.problem import Problem

MAC = "52:54:00:aa:00:0b"
OTHER = "52:54:00:aa:00:0c"


@pytest.fixture
def nic() -> FakeNic:
    nic = FakeNic()
    nic.vfs[1]["IFLA_VF_MAC"] = {"mac": MAC}
    return nic


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "sys/class/net/pf0/device").mkdir(parents=True)
    (tmp_path / "drivers/igb").mkdir(parents=True)
    (tmp_path / "sys/class/net/pf0/device/driver").symlink_to(tmp_path / "drivers/igb")
    return tmp_path


def links(nic: FakeNic) -> Links:
    return cast("Links", FakeLinks(nic))


def moving(*, to_vf: bool, uplink: str | None = "pf0") -> MoveFilter:
    return MoveFilter(pf="pf0", index=1, mac=MAC, to_vf=to_vf, uplink=uplink)


def test_an_entry_is_added_and_removed_once(nic: FakeNic, root: Path) -> None:
    assert set_forwarding(links(nic), root, "pf0", MAC.upper(), present=True).changed
    assert nic.added == [MAC]
    assert not set_forwarding(links(nic), root, "pf0", MAC, present=True).changed
    assert set_forwarding(links(nic), root, "pf0", MAC, present=False).changed
    assert not set_forwarding(links(nic), root, "pf0", MAC, present=False).changed
    assert nic.added == []


def test_a_full_filter_is_said_so(nic: FakeNic, root: Path) -> None:
    nic.filters = 0
    with pytest.raises(Problem, match="its filter is full") as caught:
        set_forwarding(links(nic), root, "pf0", MAC, present=True)
    assert caught.value.code == "forwarding-refused"


def test_the_filter_moves_in_one_packet_and_whoever_has_it_lets_go_first(nic: FakeNic, root: Path) -> None:
    done = move_filter(links(nic), root, moving(to_vf=False))
    assert done.changed
    assert "2 of 2 changes" in done.detail
    assert "not measured" not in done.detail
    assert (nic.mac(1), nic.added) == (parked(MAC), [MAC])
    assert nic.packets == [["IFLA_VF_MAC", "add"]]

    move_filter(links(nic), root, moving(to_vf=True))
    assert (nic.mac(1), nic.added) == (MAC, [])
    assert nic.packets[1] == ["delete", "IFLA_VF_MAC"]


def test_it_moves_to_another_vf_and_back_in_one_packet_each(nic: FakeNic, root: Path) -> None:
    there = replace(moving(to_vf=False, uplink=None), other=VfRef(pf="pf0", index=0, address="0000:01:10.0"))
    assert "2 of 2 changes" in move_filter(links(nic), root, there).detail
    assert (nic.mac(1), nic.mac(0), nic.added) == (parked(MAC), MAC, [])
    assert not move_filter(links(nic), root, there).changed
    move_filter(links(nic), root, replace(there, to_vf=True))
    assert (nic.mac(1), nic.mac(0)) == (MAC, parked(MAC, relay=True)), "no two VFs have one MAC, not this one either"
    assert nic.packets == [["IFLA_VF_MAC", "IFLA_VF_MAC"]] * 2


@pytest.mark.parametrize("to_vf", [False, True])
def test_moving_again_changes_nothing(nic: FakeNic, root: Path, *, to_vf: bool) -> None:
    move_filter(links(nic), root, moving(to_vf=to_vf))
    packets = len(nic.packets)
    assert not move_filter(links(nic), root, moving(to_vf=to_vf)).changed
    assert len(nic.packets) == packets


def test_half_a_move_is_completed(nic: FakeNic, root: Path) -> None:
    nic.vfs[1]["IFLA_VF_MAC"] = {"mac": parked(MAC)}
    assert "1 of 2" in move_filter(links(nic), root, moving(to_vf=False)).detail
    assert nic.added == [MAC]


def test_a_vf_that_was_left_with_the_placeholder_is_cleared_and_no_other(nic: FakeNic, root: Path) -> None:
    assert unpark(links(nic), "pf0", 1, MAC) == Done(changed=False)
    assert nic.mac(1) == MAC
    move_filter(links(nic), root, moving(to_vf=False))
    assert unpark(links(nic), "pf0", 1, MAC) == Done()
    assert nic.mac(1) == NO_MAC
    assert parked("02:00:00:00:00:01") == "06:00:00:00:00:01"
    assert parked("0a:00:00:00:00:01", relay=True) == "0e:00:00:00:00:01"


def test_a_refused_half_takes_the_other_back(nic: FakeNic, root: Path) -> None:
    nic.filters = 0
    with pytest.raises(Problem, match="its filter is full"):
        move_filter(links(nic), root, moving(to_vf=False))
    assert (nic.mac(1), nic.added) == (MAC, [])

    nic.filters, nic.lacks = 24, {"IFLA_VF_MAC"}
    nic.vfs[1]["IFLA_VF_MAC"] = {"mac": NO_MAC}
    nic.added = [MAC]
    with pytest.raises(Problem, match="not supported"):
        move_filter(links(nic), root, moving(to_vf=True))
    assert (nic.mac(1), nic.added) == (NO_MAC, [MAC])


def test_what_cannot_be_taken_back_is_said(nic: FakeNic, root: Path) -> None:
    class Stubborn(FakeLinks):
        def change_together(self, *messages: object) -> list[int]:
            return [0, 12] if len(messages) == 2 else [16]

    with pytest.raises(Problem, match="taking back the other change failed too"):
        move_filter(cast("Links", Stubborn(nic)), root, moving(to_vf=False))


def test_other_macs_stay(nic: FakeNic, root: Path) -> None:
    nic.added = [OTHER]
    move_filter(links(nic), root, moving(to_vf=False))
    move_filter(links(nic), root, moving(to_vf=True))
    assert nic.added == [OTHER]


def test_an_order_that_was_not_measured_is_said(nic: FakeNic, tmp_path: Path) -> None:
    (tmp_path / "sys/class/net/pf0/device").mkdir(parents=True)
    assert "not measured on this driver" in move_filter(links(nic), tmp_path, moving(to_vf=False)).detail


@pytest.fixture
def bond(root: Path) -> Path:
    """The PF in a bond; it is a 82576 without VFs, whose filter takes 23 addresses beside its own."""
    (root / "sys/class/net/bond0/bonding").mkdir(parents=True)
    (root / "sys/class/net/bond0/bonding/slaves").write_text("pf0\n")
    for name, number in (("vendor", "0x8086"), ("device", "0x10c9")):
        (root / "sys/class/net/pf0/device" / name).write_text(number)
    return root


def test_a_bond_is_asked_in_place_of_its_pf(nic: FakeNic, bond: Path) -> None:
    assert "2 of 2" in move_filter(links(nic), bond, moving(to_vf=False, uplink="bond0")).detail
    assert "2 of 2" in move_filter(links(nic), bond, moving(to_vf=True, uplink="bond0")).detail
    assert (nic.asked, nic.added) == ([BOND_INDEX, BOND_INDEX], [])


def test_a_bond_whose_pf_is_full_is_refused_though_it_would_take_more(nic: FakeNic, bond: Path) -> None:
    nic.added = [f"52:54:00:00:00:{at:02x}" for at in range(23)]
    with pytest.raises(Problem, match=r"pf0 did not take the change .* its filter is full"):
        set_forwarding(links(nic), bond, "bond0", MAC, present=True)
    with pytest.raises(Problem, match="its filter is full"):
        move_filter(links(nic), bond, moving(to_vf=False, uplink="bond0"))
    assert (nic.mac(1), nic.asked) == (MAC, [])
    nic.added.pop()
    assert set_forwarding(links(nic), bond, "bond0", MAC, present=True).changed


def test_where_a_macvtap_has_the_mac_only_the_vf_changes(nic: FakeNic, root: Path) -> None:
    nic.added = [MAC]
    assert "1 of 1" in move_filter(links(nic), root, moving(to_vf=False, uplink=None)).detail
    assert (nic.mac(1), nic.added) == (parked(MAC), [MAC])
    assert "1 of 1" in move_filter(links(nic), root, moving(to_vf=True, uplink=None)).detail
    assert (nic.mac(1), nic.added, nic.asked) == (MAC, [MAC], [])
    assert not move_filter(links(nic), root, moving(to_vf=True, uplink=None)).changed

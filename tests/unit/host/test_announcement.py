"""The frames of announcements, against what the RFCs say, byte by byte."""

import struct
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vferry.host.announcement import gratuitous_arp, neighbour_advertisement, of_address, rarp

MAC = "52:54:00:aa:00:0b"
MACS = st.binary(min_size=6, max_size=6).map(lambda octets: octets.hex(":"))
VLANS = st.integers(0, 4094)


def test_a_rarp_frame_is_qemu_s() -> None:
    """As QEMU's `announce_self_create` makes it, with the padding of the shortest frame."""
    expected = """
        ffffffffffff 525400aa000b 8035  0001 0800 06 04 0003
        525400aa000b 00000000  525400aa000b 00000000
    """
    assert rarp(MAC) == bytes.fromhex(expected) + bytes(18)


def test_a_gratuitous_arp_asks_for_the_address_of_its_sender() -> None:
    expected = """
        ffffffffffff 525400aa000b 0806  0001 0800 06 04 0001
        525400aa000b 0a09000b  000000000000 0a09000b
    """
    assert gratuitous_arp(MAC, "10.9.0.11") == bytes.fromhex(expected) + bytes(18)


def test_a_neighbour_advertisement_goes_to_all_nodes_and_overrides() -> None:
    """Linux takes it, and counts one with another checksum as an error."""
    expected = """
        333300000001 525400aa000b 86dd  60000000 0020 3a ff
        fd000009000000000000000000000011 ff020000000000000000000000000001
        88 00 0961 20000000 fd000009000000000000000000000011  02 01 525400aa000b
    """
    assert neighbour_advertisement(MAC, "fd00:9::11") == bytes.fromhex(expected)


@given(mac=MACS, address=st.ip_addresses(v=6), router=st.booleans(), vlan=VLANS)
def test_the_checksum_is_right_and_the_flag_is_the_router_s(
    *, mac: str, address: IPv6Address, router: bool, vlan: int
) -> None:
    frame = neighbour_advertisement(mac, str(address), vlan, router=router)
    packet = frame[18 if vlan else 14 :]
    source, destination, message = packet[8:24], packet[24:40], packet[40:]
    total = sum(struct.unpack("!36H", source + destination + struct.pack("!I3xB", len(message), 58) + message))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    assert total == 0xFFFF
    assert (message[4] == 0xA0) is router
    assert packet[7] == 255


@given(mac=MACS, address=st.ip_addresses(), vlan=VLANS)
def test_every_frame_comes_from_the_mac_in_its_vlan_and_is_long_enough(
    mac: str, address: IPv4Address | IPv6Address, vlan: int
) -> None:
    for frame in (rarp(mac, vlan), of_address(mac, str(address), vlan)):
        assert frame[6:12].hex(":") == mac
        assert len(frame) >= 60
        assert (frame[12:16] == struct.pack("!HH", 0x8100, vlan)) == bool(vlan)
        untagged = frame[:12] + frame[16:] if vlan else frame
        assert untagged.rstrip(b"\0") in rarp(mac) + of_address(mac, str(address))


@pytest.mark.parametrize("bad", ["", "52:54:00:aa:00", "52:54:00:aa:00:0b:0c", "no"])
def test_what_is_no_mac_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        rarp(bad)


@pytest.mark.parametrize("bad", ["", "10.9.0", "fd00:::1", "host1"])
def test_what_is_no_address_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        of_address(MAC, bad)


def test_the_family_decides() -> None:
    for text in ("10.9.0.11", "fd00:9::11"):
        kind = of_address(MAC, text)[12:14].hex()
        assert kind == {4: "0806", 6: "86dd"}[ip_address(text).version]

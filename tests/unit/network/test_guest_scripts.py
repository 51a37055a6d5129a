"""The scripts that are run in guests: their syntax, and what those for addresses do to real links.

The scripts for bonds are tried in the lab alone: a kernel without the bonding driver, such as the one that these
tests must run on, cannot make a bond, and their sysfs files do something only on a real one.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import vferry.network
from fakes.guest_box import MAC, STANDBY, VF, GuestBox, guest_box
from vferry.network import guest_script

SCRIPTS = [
    guest_script.addresses_to_standby,
    guest_script.addresses_to_vf,
    guest_script.bond_to_standby,
    guest_script.bond_to_vf,
    guest_script.make_bond,
    guest_script.dissolve_bond,
    guest_script.failover_to_vf,
    guest_script.pair_to_standby,
    guest_script.settle_pair,
    guest_script.quiet,
    guest_script.settle,
    guest_script.quiet_on_standby,
    guest_script.settle_on_standby,
    guest_script.settle_bond,
    guest_script.save_addresses,
    guest_script.restore_addresses,
]
OTHER = "ens2"
"""Where another virtio NIC is plugged than `STANDBY`."""
FAR, FAR6 = "198.51.100.1", "2001:db8:ffff::1"

ADDRESSES = f"""set -eu
ip link set {VF} addrgenmode none up mtu 1400
ip address add 192.0.2.7/24 broadcast 192.0.2.255 dev {VF}
ip address add 192.0.2.8/24 dev {VF}
ip -6 address add 2001:db8::7/64 dev {VF} nodad
ip route add default via 192.0.2.1 dev {VF} metric 50
ip route add 203.0.113.0/24 via 192.0.2.9 dev {VF}
ip -6 route add default via 2001:db8::1 dev {VF}
"""

in_a_namespace = pytest.mark.skipif(
    os.geteuid() != 0 or not all(map(shutil.which, ("ip", "unshare", "nsenter"))),
    reason="making network namespaces needs root, ip, unshare and nsenter",
)


@pytest.fixture
def box(tmp_path: Path) -> Iterator[GuestBox]:
    with guest_box(tmp_path / "box") as made:
        made.run(ADDRESSES)
        yield made


def plug_standby(box: GuestBox) -> None:
    box.add(STANDBY, "virtio_net", MAC)


def to_standby(box: GuestBox) -> None:
    plug_standby(box)
    box.run(guest_script.addresses_to_standby(MAC), watched=True)


def plug_new_vf(box: GuestBox, mac: str = "02:00:00:00:00:99") -> None:
    """The destination's VF: its PF has given it no MAC, so it has made one up."""
    box.remove(VF)
    box.add(VF, "igbvf", mac)


@pytest.mark.parametrize("shell", ["sh", "dash", "bash"])
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_shells_take_them(script: guest_script.Script, shell: str) -> None:
    if shell != "sh" and shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    done = subprocess.run([shell, "-n"], input=script(MAC), text=True, capture_output=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="no shellcheck here")
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_shellcheck_has_no_complaint(script: guest_script.Script) -> None:
    # Word splitting is what the routes are for; a script uses a part of what find.sh finds; `A && B || C` is meant;
    # what is between single quotes is for another shell; `sed -i` makes a new file, and who reads the old one has it.
    arguments = ["shellcheck", "-s", "sh", "-e", "SC2086,SC2034,SC2015,SC2317,SC2016,SC2094", "-"]
    done = subprocess.run(arguments, input=script(MAC), text=True, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
@pytest.mark.parametrize(
    "bad", ["", "52:54:00:12:34", "52:54:00:12:34:5G", f"{MAC}\n", f"{MAC} x", "$(id)", "AA" + MAC[2:]]
)
def test_what_is_no_mac_is_refused(script: guest_script.Script, bad: str) -> None:
    with pytest.raises(ValueError, match="not a MAC"):
        script(bad)


@given(st.text(max_size=20))
def test_nothing_but_a_mac_gets_into_a_script(text: str) -> None:
    try:
        script = guest_script.save_addresses(text)
    except ValueError:
        return
    assert set(text) <= set("0123456789abcdef:")
    assert f"mac={text} key=vferry-" in script


@in_a_namespace
def test_addresses_and_routes_move_to_the_standby_nic(box: GuestBox) -> None:
    before = box.routes(VF)
    to_standby(box)
    assert box.addresses(STANDBY) == ["192.0.2.7/24", "192.0.2.8/24", "2001:db8::7/64"]
    assert box.routes(STANDBY) == before
    assert [box.leaves_by(to) for to in (FAR, FAR6, "192.0.2.1", "2001:db8::1", "203.0.113.9")] == [STANDBY] * 5
    assert box.read(f"/sys/class/net/{STANDBY}/mtu") == "1400"
    assert box.gaps() == []


@in_a_namespace
def test_a_route_by_a_nexthop_of_its_own_moves_too(box: GuestBox) -> None:
    """So systemd-networkd makes those that a router advertises."""
    box.run(f"ip -6 route del default; ip nexthop add id 7 via 2001:db8::1 dev {VF}; ip -6 route add default nhid 7")
    to_standby(box)
    assert box.leaves_by(FAR6) == STANDBY


@in_a_namespace
def test_a_vf_that_has_a_master_is_in_use(box: GuestBox) -> None:
    box.run(f"ip link add name fo0 type bridge; ip link set {VF} master fo0")
    assert box.run(guest_script.failover_to_vf(MAC)).stdout == f"{VF} is the one that net_failover uses\n"


TC = """#!/bin/sh
echo "$*" >> {place}/tc
case "$*" in
  "qdisc show"*) {shows} ;;
  *"{refuses}"*) exit 2 ;;
esac
"""
RECEIVES = f"filter add dev {STANDBY} ingress pref 49000 matchall action mirred ingress redirect dev fo0"
SENDS = f"filter add dev fo0 egress pref 49000 matchall action mirred egress redirect dev {STANDBY}"
RECEIVES_NO_MORE = f"filter del dev {STANDBY} ingress pref 49000"
SENDS_NO_MORE = "filter del dev fo0 egress pref 49000"


def in_a_pair(box: GuestBox, *, shows: str = ":", refuses: str = "nothing") -> None:
    """The VF and a standby NIC under one master; the guest's tc says what it is asked, shows and refuses something."""
    plug_standby(box)
    box.run(f"ip link add name fo0 type bridge; ip link set {VF} master fo0; ip link set {STANDBY} master fo0")
    box.run(f"mkdir {box.place}/net/fo0; touch {box.place}/net/fo0/lower_{VF} {box.place}/net/fo0/lower_{STANDBY}")
    tc = TC.format(place=box.place, shows=shows, refuses=refuses)
    box.run(f"cat > {box.place}/bin/tc <<'END'\n{tc}END\nchmod +x {box.place}/bin/tc")


def tc_of(box: GuestBox) -> list[str]:
    """What the guest's tc was asked to change."""
    return [line for line in box.read(f"{box.place}/tc").splitlines() if "show" not in line]


@in_a_namespace
@pytest.mark.parametrize("own", [False, True])
def test_a_pair_uses_its_virtio_nic_and_ceases_to(box: GuestBox, *, own: bool) -> None:
    in_a_pair(box, shows="echo qdisc clsact ffff:" if own else ":")
    for _ in range(2):
        box.run(guest_script.pair_to_standby(MAC), watched=True)
    box.remove(VF)
    for _ in range(2):
        box.run(guest_script.settle_pair(MAC), watched=True)

    def clsact(verb: str, nic: str) -> list[str]:
        return [] if own else [f"qdisc {verb} dev {nic} clsact"]

    # What is sent while a clsact is taken away is dropped: the pair's stays.
    assert tc_of(box) == [
        *clsact("add", STANDBY),
        RECEIVES,
        *clsact("add", "fo0"),
        SENDS,
        SENDS_NO_MORE,
        RECEIVES_NO_MORE,
        *clsact("del", STANDBY),
    ]


@in_a_namespace
def test_a_pair_uses_a_vf_that_can_send(box: GuestBox) -> None:
    """What it receives there is taken first, and what it sends goes there once the kernel says that the VF is up."""
    in_a_pair(box)
    box.run(guest_script.pair_to_standby(MAC), watched=True)
    added = len(tc_of(box))
    plug_new_vf(box, MAC)
    state = f"{box.place}/net/{VF}/operstate"
    box.run(f"ip link set {VF} up master fo0; rm {state}; echo down > {state}")
    box.run(f"{{ sleep 1; echo up >> {box.place}/tc; echo up > {state}; }} > /dev/null 2>&1 &")
    done = box.run(guest_script.failover_to_vf(MAC), watched=True)
    assert done.stdout == f"{VF} is the one that net_failover uses\n"
    # The virtio NIC's is taken away when nothing is sent by it.
    assert tc_of(box)[added:] == [RECEIVES_NO_MORE, "up", SENDS_NO_MORE, f"qdisc del dev {STANDBY} clsact"]
    assert box.run(guest_script.failover_to_vf(MAC), watched=True).returncode == 0
    assert len(tc_of(box)) == added + 4


@in_a_namespace
def test_a_guest_that_cannot_redirect_is_left_as_it_was(box: GuestBox) -> None:
    in_a_pair(box, refuses="mirred")
    assert "is lost until" in box.run(guest_script.pair_to_standby(MAC), watched=True).stdout
    assert tc_of(box) == [f"qdisc add dev {STANDBY} clsact", RECEIVES, f"qdisc del dev {STANDBY} clsact"]
    box.run(guest_script.settle_pair(MAC), watched=True)
    assert len(tc_of(box)) == 3


@in_a_namespace
def test_a_guest_that_can_redirect_only_what_it_receives_has_that(box: GuestBox) -> None:
    in_a_pair(box, refuses="mirred egress", shows="echo qdisc clsact ffff:")
    assert "can send no more" in box.run(guest_script.pair_to_standby(MAC), watched=True).stdout
    box.run(guest_script.settle_pair(MAC), watched=True)
    assert tc_of(box) == [RECEIVES, SENDS, RECEIVES_NO_MORE]


@in_a_namespace
def test_a_vf_without_a_pair_is_an_error(box: GuestBox) -> None:
    done = box.run(guest_script.pair_to_standby(MAC), watched=True, check=False)
    assert done.returncode == 9
    assert f"{VF} of {MAC} is in no pair" in done.stderr


@in_a_namespace
def test_the_vf_goes_on_receiving_until_it_is_unplugged(box: GuestBox) -> None:
    before = box.addresses(VF)
    to_standby(box)
    assert box.addresses(VF) == before
    box.remove(VF)
    assert [box.leaves_by(to) for to in (FAR, FAR6)] == [STANDBY] * 2


@in_a_namespace
def test_there_and_back_and_at_no_moment_without_a_route(box: GuestBox) -> None:
    addresses, routes = box.addresses(VF), box.routes(VF)
    to_standby(box)
    plug_new_vf(box)
    box.run(guest_script.addresses_to_vf(MAC), watched=True)
    assert (box.addresses(VF), box.routes(VF)) == (addresses, routes)
    assert box.read(f"/sys/class/net/{VF}/address") == MAC
    assert box.read(f"/sys/class/net/{VF}/mtu") == "1400"
    assert [box.leaves_by(to) for to in (FAR, FAR6)] == [VF] * 2
    assert box.gaps() == []
    box.remove(STANDBY)
    assert [box.leaves_by(to) for to in (FAR, FAR6)] == [VF] * 2


@in_a_namespace
@pytest.mark.parametrize("direction", ["to-standby", "to-vf"])
def test_a_script_that_is_repeated_changes_nothing(box: GuestBox, direction: str) -> None:
    to_standby(box)
    script = guest_script.addresses_to_standby(MAC)
    if direction == "to-vf":
        plug_new_vf(box)
        script = guest_script.addresses_to_vf(MAC)
        box.run(script)
    before = [(box.addresses(name), box.routes(name)) for name in (STANDBY, VF)]
    box.run(script, watched=True)
    assert [(box.addresses(name), box.routes(name)) for name in (STANDBY, VF)] == before
    assert box.gaps() == []


@in_a_namespace
def test_undoing_a_move_that_was_not_made_changes_nothing(box: GuestBox) -> None:
    """The undo of `guest-to-standby`, after the standby NIC was plugged and nothing else; or after all was undone."""
    plug_standby(box)
    before = (box.addresses(VF), box.routes(VF))
    box.run(guest_script.addresses_to_vf(MAC), watched=True)
    assert (box.addresses(VF), box.routes(VF)) == before
    box.remove(STANDBY)
    box.run(guest_script.addresses_to_vf(MAC), watched=True)
    assert (box.addresses(VF), box.routes(VF)) == before
    assert box.gaps() == []


@in_a_namespace
def test_a_move_to_the_vf_that_ended_half_way_is_gone_on_with(box: GuestBox) -> None:
    """It has the addresses, and not the MAC yet."""
    to_standby(box)
    plug_new_vf(box)
    half = guest_script.addresses_to_vf(MAC).split('[ "$(cat "/sys/class/net/$vf/address")" = "$mac" ] || ip link')[0]
    box.run(half)
    assert box.addresses(VF)
    assert box.read(f"/sys/class/net/{VF}/address") != MAC
    box.run(guest_script.addresses_to_vf(MAC), watched=True)
    assert box.read(f"/sys/class/net/{VF}/address") == MAC
    assert box.leaves_by(FAR) == VF


@in_a_namespace
def test_another_nic_of_the_guest_is_left_alone(box: GuestBox) -> None:
    box.add("ens9", "e1000e", "52:54:00:00:00:77")
    box.run("ip link set ens9 up; ip address add 198.18.0.5/24 dev ens9")
    before = (box.addresses("ens9"), box.routes("ens9"))
    to_standby(box)
    plug_new_vf(box)
    box.run(guest_script.addresses_to_vf(MAC))
    assert (box.addresses("ens9"), box.routes("ens9")) == before
    assert box.read("/sys/class/net/ens9/address") == "52:54:00:00:00:77"


def rp_filters(box: GuestBox, *nics: str) -> list[str]:
    return [box.read(f"/proc/sys/net/ipv4/conf/{nic}/rp_filter") for nic in nics]


@in_a_namespace
def test_strict_reverse_path_filtering_is_loosened_and_put_back(box: GuestBox) -> None:
    box.run(f"for nic in {VF} default; do echo 1 > /proc/sys/net/ipv4/conf/$nic/rp_filter; done")
    box.run(guest_script.quiet(MAC))
    to_standby(box)
    assert rp_filters(box, VF, STANDBY) == ["2", "2"]
    plug_new_vf(box)
    box.run(guest_script.addresses_to_vf(MAC))
    box.run(guest_script.settle(MAC))
    assert rp_filters(box, VF, STANDBY) == ["2", "2"], "both NICs are still there"
    box.remove(STANDBY)
    box.run(guest_script.settle(MAC))
    assert rp_filters(box, VF) == ["1"]
    box.run(guest_script.settle(MAC))


@in_a_namespace
def test_a_guest_that_keeps_the_standby_nic_gets_its_filtering_back_on_that(box: GuestBox) -> None:
    box.run(f"echo 1 > /proc/sys/net/ipv4/conf/{VF}/rp_filter")
    box.run(guest_script.quiet(MAC))
    to_standby(box)
    box.run(guest_script.settle_on_standby(MAC))
    assert rp_filters(box, VF, STANDBY) == ["2", "2"], "both NICs are still there"
    box.remove(VF)
    for _ in range(2):
        box.run(guest_script.settle_on_standby(MAC))
        assert rp_filters(box, STANDBY) == ["1"]


@in_a_namespace
def test_a_guest_that_goes_from_its_own_virtio_nic_to_a_vf_gets_its_filtering_back_there(box: GuestBox) -> None:
    """A spare NIC of the guest is not taken for its VF."""
    to_standby(box)
    box.remove(VF)
    box.add("spare0", "igbvf", "52:54:00:00:00:99")
    box.run(f"echo 1 > /proc/sys/net/ipv4/conf/{STANDBY}/rp_filter")
    box.run(guest_script.quiet_on_standby(MAC))
    box.run(guest_script.settle_on_standby(MAC))
    assert rp_filters(box, STANDBY) == ["1"]
    box.run(guest_script.quiet_on_standby(MAC))
    box.remove("spare0")
    box.add(VF, "igbvf", "02:00:00:00:00:99")
    before = box.routes(STANDBY)
    box.run(guest_script.addresses_to_vf(MAC), watched=True)
    assert rp_filters(box, VF, STANDBY) == ["2", "2"]
    box.remove(STANDBY)
    box.run(guest_script.settle(MAC))
    assert (rp_filters(box, VF), box.routes(VF), box.gaps()) == (["1"], before, [])


@in_a_namespace
def test_from_one_virtio_nic_to_another_by_a_vf_it_is_kept_quiet_about_once(box: GuestBox) -> None:
    """The second virtio NIC comes as the first is gone, and the guest's own filtering is there again at the end."""
    to_standby(box)
    box.remove(VF)
    addresses, routes = box.addresses(STANDBY), box.routes(STANDBY)
    box.run(f"echo 1 > /proc/sys/net/ipv4/conf/{STANDBY}/rp_filter")
    box.run(guest_script.quiet_on_standby(MAC), watched=True)
    box.add(VF, "igbvf", "02:00:00:00:00:99")
    for _ in range(2):
        box.run(guest_script.addresses_to_vf(MAC), watched=True)
    assert box.leaves_by(FAR) == VF
    box.remove(STANDBY)
    box.add(OTHER, "virtio_net", MAC)
    for _ in range(2):
        box.run(guest_script.addresses_to_standby(MAC), watched=True)
    assert (box.addresses(OTHER), box.routes(OTHER)) == (addresses, routes)
    box.remove(VF)
    box.run(guest_script.settle_on_standby(MAC), watched=True)
    assert rp_filters(box, OTHER) == ["1"]
    assert box.leaves_by(FAR) == box.leaves_by(FAR6) == OTHER
    assert box.gaps() == []


@in_a_namespace
def test_a_guest_that_need_not_be_quiet_keeps_its_reverse_path_filter(box: GuestBox) -> None:
    before = rp_filters(box, VF)
    to_standby(box)
    assert rp_filters(box, VF) == before


NETWORKCTL = """#!/bin/sh
[ "$1" != --version ] || echo "systemd {release} ({release}.4-1)"
echo "$*" >> {place}/told
"""


def with_networkd(box: GuestBox, release: int) -> None:
    """systemd-networkd, by what the scripts see of it."""
    box.run(f"""set -eu
mkdir -p /run/systemd/netif; touch /run/systemd/netif/state
printf '%s' '{NETWORKCTL.format(release=release, place=box.place)}' > {box.place}/bin/networkctl
printf '#!/bin/sh\n' > {box.place}/bin/udevadm
chmod +x {box.place}/bin/networkctl {box.place}/bin/udevadm""")


@in_a_namespace
@pytest.mark.parametrize(
    ("release", "match"),
    [(257, "Property=VFERRY_PLUGGED=1"), (243, "Property=VFERRY_PLUGGED=1"), (241, f"MACAddress={MAC}")],
)
def test_networkd_is_kept_from_what_is_plugged_and_told_when_it_is_over(
    box: GuestBox, release: int, match: str
) -> None:
    with_networkd(box, release)
    box.run(guest_script.quiet(MAC), watched=True)
    (name,) = box.run("ls /run/systemd/network").stdout.split()
    written = box.read(f"/run/systemd/network/{name}")
    assert written.startswith(f"[Match]\n{match}\n"), written
    assert written.endswith("[Link]\nUnmanaged=yes"), written
    assert box.run("ls /run/udev/rules.d").stdout != ""
    box.run(guest_script.settle(MAC), watched=True)
    assert box.run("ls /run/systemd/network /run/udev/rules.d -A | grep vferry || :").stdout == ""
    assert [line for line in box.read(f"{box.place}/told").splitlines() if line == "reload"] == ["reload", "reload"]


@in_a_namespace
def test_networkd_leaves_a_new_vf_alone_after_it_too(box: GuestBox) -> None:
    with_networkd(box, 257)
    box.run(guest_script.quiet(MAC), watched=True)
    box.run(f"printf '#!/bin/sh\\n[ \"$1\" != info ] || echo VFERRY_PLUGGED=1\\n' > {box.place}/bin/udevadm")
    box.run(guest_script.settle(MAC), watched=True)
    assert "Property=VFERRY_PLUGGED=1" in box.read(f"/run/systemd/network/00-vferry-{MAC.replace(':', '')}.network")


NETWORK = """[Match]
PermanentMACAddress=52:54:00:12:34:56
Name=enp7s0

[Network]
DHCP=ipv4
[Match]
Type=ether
[Route]
Gateway=192.0.2.1
"""
DROPIN = "[Match]\nDriver=igbvf\n[DHCPv4]\nUseMTU=yes\n"
MORE_SAID = "[Network]\nKeepConfiguration=yes\n"


def configured_by_networkd(box: GuestBox, *, client: str = "ff5f6daaa80002") -> None:
    """A guest whose VF networkd has configured, by a file and a drop-in, and that marks what is plugged."""
    with_networkd(box, 257)
    for name, text in (("10-lab.network", NETWORK), ("more.conf", DROPIN)):
        box.run(f"cat > {box.place}/{name} <<'END'\n{text}END")
    index = box.read(f"/sys/class/net/{VF}/ifindex")
    said = f'NETWORK_FILE={box.place}/10-lab.network\\nNETWORK_FILE_DROPINS="{box.place}/more.conf"'
    box.run(f"""set -eu
mkdir -p /run/systemd/netif/links /run/systemd/netif/leases
printf '{said}\n' > /run/systemd/netif/links/{index}
echo CLIENTID={client} > /run/systemd/netif/leases/{index}
cat > {box.place}/bin/udevadm <<'END'
#!/bin/sh
[ "$1" != info ] || echo VFERRY_PLUGGED=1
echo "udev $*" >> {box.place}/told
END
""")


def to_new_vf(box: GuestBox) -> None:
    to_standby(box)
    plug_new_vf(box)
    box.run(guest_script.addresses_to_vf(MAC), watched=True)
    box.remove(STANDBY)


KEY = f"vferry-{MAC.replace(':', '')}"
HANDED = f"/run/systemd/network/01-{KEY}.network"


@in_a_namespace
def test_networkd_gets_a_new_vf_with_its_configuration_and_what_is_there(box: GuestBox) -> None:
    configured_by_networkd(box)
    box.run(guest_script.quiet(MAC), watched=True)
    to_new_vf(box)
    before = (box.addresses(VF), box.routes(VF))
    for _ in range(2):
        box.run(guest_script.settle(MAC), watched=True)
    handed = box.read(HANDED)
    assert handed.startswith(f"[Match]\nName={VF}\n[Network]\nDHCP=ipv4\n[Route]"), handed
    assert handed.endswith(f"[DHCPv4]\nUseMTU=yes\n\n{MORE_SAID}[DHCPv4]\nIAID={0x5F6DAAA8}"), handed
    assert handed.count("[Match]") == 1
    assert box.run("ls /run/systemd/network /run/udev/rules.d -A").stdout.split("\n")[1] == Path(HANDED).name
    assert (box.addresses(VF), box.routes(VF), box.gaps()) == (before[0], before[1], [])
    told = box.read(f"{box.place}/told").splitlines()
    # It looks again as soon as the mark is gone, and has to find its file by then.
    (unmarked,) = (number for number, line in enumerate(told) if line.startswith("udev trigger"))
    assert unmarked > max(number for number, line in enumerate(told) if line == "reload")


@in_a_namespace
def test_networkd_gets_the_next_vf_by_what_it_was_given_for_the_first(box: GuestBox) -> None:
    configured_by_networkd(box, client="01525400123456")
    box.run(guest_script.quiet(MAC), watched=True)
    to_new_vf(box)
    box.run(guest_script.settle(MAC), watched=True)
    handed = box.read(HANDED)
    assert "IAID" not in handed, "it is asked for by its MAC"
    index = box.read(f"/sys/class/net/{VF}/ifindex")
    box.run(f"echo NETWORK_FILE={HANDED} > /run/systemd/netif/links/{index}")
    box.run(guest_script.quiet(MAC), watched=True)
    to_new_vf(box)
    box.run(guest_script.settle(MAC), watched=True)
    assert box.read(HANDED) == f"{handed}\n\n{MORE_SAID}".strip()


NEW_NAME = "enp9s0"


def plug_vf_called(box: GuestBox, name: str, mac: str = "02:00:00:00:00:99") -> None:
    """The destination's VF, which is behind another port than the source's, and so has another name."""
    box.remove(VF)
    box.add(name, "igbvf", mac)


@in_a_namespace
def test_a_new_vf_takes_the_name_of_the_one_before(box: GuestBox) -> None:
    to_standby(box)
    plug_vf_called(box, NEW_NAME)
    for _ in range(2):
        assert f"{STANDBY} -> {VF}" in box.run(guest_script.addresses_to_vf(MAC), watched=True).stdout
    assert box.addresses(VF) == ["192.0.2.7/24", "192.0.2.8/24", "2001:db8::7/64"]
    assert box.leaves_by(FAR) == VF
    assert box.gaps() == []


@in_a_namespace
def test_a_vf_that_is_plugged_again_still_takes_the_first_name(box: GuestBox) -> None:
    """The first attempt at the destination ends before the VF is the guest's, and another VF comes."""
    to_standby(box)
    plug_vf_called(box, NEW_NAME)
    box.run(f"ip link set p-{NEW_NAME} down")
    assert box.run(guest_script.addresses_to_vf(MAC), watched=True, check=False).returncode == 4
    box.run(guest_script.addresses_to_standby(MAC), watched=True)
    plug_vf_called(box, "enp10s0")
    box.run(guest_script.addresses_to_vf(MAC), watched=True)
    assert box.leaves_by(FAR) == VF


@in_a_namespace
def test_a_vf_keeps_its_own_name_where_the_other_is_taken(box: GuestBox) -> None:
    to_standby(box)
    plug_vf_called(box, NEW_NAME)
    box.add(VF, "e1000e", "02:00:00:00:00:77")
    box.run(f"ip link set {VF} up; ip address add 192.0.2.77/32 dev {VF}")
    box.run(guest_script.addresses_to_vf(MAC), watched=True)
    assert box.leaves_by(FAR) == NEW_NAME


@in_a_namespace
def test_a_vf_that_the_guest_uses_already_is_not_renamed(box: GuestBox) -> None:
    box.run(guest_script.save_addresses(MAC), watched=True)
    plug_vf_called(box, NEW_NAME, MAC)
    box.run(f"ip link set {NEW_NAME} up; ip address add 192.0.2.7/24 dev {NEW_NAME}")
    assert NEW_NAME in box.run(guest_script.restore_addresses(MAC), watched=True).stdout


@in_a_namespace
def test_a_vf_that_comes_back_after_the_copy_takes_the_name_of_the_one_before(box: GuestBox) -> None:
    before = box.routes(VF)
    box.run(guest_script.save_addresses(MAC), watched=True)
    plug_vf_called(box, NEW_NAME)
    assert VF in box.run(guest_script.restore_addresses(MAC), watched=True).stdout
    assert box.routes(VF) == before


@in_a_namespace
def test_a_networkd_that_is_not_started_is_not_told(box: GuestBox) -> None:
    box.run("mkdir -p /run/systemd/netif/links")
    box.run(f"printf '#!/bin/sh\\nexit 1\\n' > {box.place}/bin/networkctl; chmod +x {box.place}/bin/networkctl")
    box.run(guest_script.quiet(MAC), watched=True)
    box.run(guest_script.settle(MAC), watched=True)
    assert not box.run("ls /run/systemd/network 2>/dev/null || :").stdout


RESOLV = """# Generated by NetworkManager
search example.net lab.example.net
nameserver 192.0.2.1
nameserver 2001:db8::1
options edns0 trust-ad
"""
NAMES = """[global-dns]
searches=example.net,lab.example.net
options=edns0,trust-ad
[global-dns-domain-*]
servers=192.0.2.1,2001:db8::1
"""


@dataclass(frozen=True)
class Managed:
    """A guest with NetworkManager: a process of that name that notes when it is told to reload, and udev's tool."""

    box: GuestBox

    def reloads(self, times: int) -> bool:
        """Whether it has been told so often; it may take a moment to note it."""
        until = time.monotonic() + 5
        while self.box.read(f"{self.box.place}/reloads").count("reload") != times and time.monotonic() < until:
            time.sleep(0.02)
        return self.box.read(f"{self.box.place}/reloads").count("reload") == times

    def written(self) -> dict[str, str]:
        """What the scripts have written for udev and NetworkManager, by the folder it is in."""
        files = self.box.run("ls -d /run/udev/rules.d/* /run/NetworkManager/conf.d/* 2>/dev/null", check=False)
        return {file: self.box.read(file) for file in files.stdout.split()}

    def plugged(self, *, anew: bool) -> None:
        """Whether udev knows the VF as one that was plugged during the migration."""
        self.box.run(f"echo VFERRY_PLUGGED={int(anew)} > {self.box.place}/properties")


@pytest.fixture
def managed(box: GuestBox) -> Iterator[Managed]:
    place = box.place
    box.run(f"""set -eu
mkdir -p /run/NetworkManager; touch {place}/reloads
printf '%s' '{RESOLV}' > {place}/resolv; mount --bind {place}/resolv /etc/resolv.conf
printf '#!/bin/sh\\n[ "$1" != info ] || cat {place}/properties\\n' > {place}/bin/udevadm
chmod +x {place}/bin/udevadm""")
    manager = Managed(box)
    manager.plugged(anew=False)
    with network_manager(place, "reloads", box.inside):
        yield manager


@contextmanager
def network_manager(place: Path, note: str, inside: Sequence[str] = ()) -> Iterator[Path]:
    """A process of this name, which notes in a file what it is told."""
    told = place / note
    program = place / note.upper() / "NetworkManager"
    words = f"set -e; mkdir {program.parent}; cat > {program}; chmod +x {program}"
    script = f'#!/bin/sh\ntrap "echo reload >> {told}" HUP; echo up > {told}\nwhile :; do sleep 0.05; done\n'
    subprocess.run([*inside, "sh", "-c", words], input=script, text=True, check=True)
    process = subprocess.Popen([*inside, program], stderr=subprocess.DEVNULL)
    try:
        while "up" not in subprocess.run([*inside, "cat", told], capture_output=True, text=True).stdout:
            time.sleep(0.02)
        yield told
    finally:
        process.kill()
        process.wait()


@in_a_namespace
def test_the_network_manager_of_this_machine_is_told_nothing(managed: Managed, tmp_path: Path) -> None:
    with network_manager(tmp_path, "others") as told:
        managed.box.run(guest_script.quiet(MAC), watched=True)
        assert managed.reloads(1)
        assert told.read_text() == "up\n"


@in_a_namespace
def test_network_manager_is_kept_from_what_is_plugged_and_keeps_its_name_servers(managed: Managed) -> None:
    managed.box.run(guest_script.quiet(MAC), watched=True)
    marks, keeps, names = sorted(managed.written().items(), key=lambda each: ("udev" not in each[0], each[0]))
    assert 'ACTION=="add", SUBSYSTEMS=="pci", ENV{VFERRY_PLUGGED}="1"' in marks[1]
    assert 'ENV{VFERRY_PLUGGED}=="1", ENV{NM_UNMANAGED}="1"' in keeps[1]
    assert marks[0] < keeps[0], "marked before it is looked at"
    assert names[1] == NAMES.strip()
    assert managed.reloads(1)


@in_a_namespace
def test_whom_its_own_cache_asks_is_kept_and_not_the_cache(managed: Managed) -> None:
    box = managed.box
    box.run(f"printf '%s' '{RESOLV}' > /run/NetworkManager/no-stub-resolv.conf")
    box.run(f"printf '# Generated by NetworkManager\\nnameserver 127.0.0.1\\n' > {box.place}/resolv")
    box.run(guest_script.quiet(MAC), watched=True)
    assert NAMES.strip() in managed.written().values()


@in_a_namespace
def test_a_new_vf_stays_out_of_network_manager_s_hands_and_no_other_nic(managed: Managed) -> None:
    managed.box.run(guest_script.quiet(MAC), watched=True)
    managed.plugged(anew=True)
    for _ in range(2):
        managed.box.run(guest_script.settle(MAC), watched=True)
        assert [Path(file).name[:2] for file in managed.written()] == ["00", "99"]
    assert managed.reloads(1)


@in_a_namespace
def test_a_standby_nic_that_the_guest_keeps_stays_out_of_network_manager_s_hands(managed: Managed) -> None:
    managed.box.run(guest_script.quiet(MAC), watched=True)
    plug_standby(managed.box)
    managed.box.remove(VF)
    managed.plugged(anew=True)
    managed.box.run(guest_script.settle_on_standby(MAC), watched=True)
    assert [Path(file).name[:2] for file in managed.written()] == ["00", "99"]


@in_a_namespace
def test_nothing_is_left_for_network_manager_where_the_vf_was_not_plugged_anew(managed: Managed) -> None:
    managed.box.run(guest_script.quiet(MAC), watched=True)
    assert managed.reloads(1)
    for _ in range(2):
        managed.box.run(guest_script.settle(MAC), watched=True)
        assert managed.written() == {}
    assert managed.reloads(2)


@in_a_namespace
@pytest.mark.parametrize(
    "resolv", [RESOLV.split("\n", 1)[1], RESOLV.replace("nameserver", "#"), RESOLV.replace("192.0.2.1", "127.0.0.1")]
)
def test_name_servers_that_are_not_network_manager_s_are_left_alone(managed: Managed, resolv: str) -> None:
    managed.box.run(f"printf '%s' '{resolv}' > {managed.box.place}/resolv")
    managed.box.run(guest_script.quiet(MAC), watched=True)
    assert [Path(file).name[:2] for file in managed.written()] == ["98", "99"]
    managed.box.run(guest_script.settle(MAC), watched=True)
    assert managed.reloads(0)


NMCLI = """#!/bin/sh
case "$*" in
  "-g version general") echo {release} ;;
  "-g GENERAL.STATE device"*) echo "{state}" ;;
  "-g GENERAL.CON-UUID device"*) cat {place}/uuid ;;
  "-g GENERAL.CONNECTION device"*) echo {named} ;;
  "-g GENERAL.DBUS-PATH device"*) echo /o/device ;;
  "-g DHCP4 device"*) echo "{lease}" ;;
  *" -f NAME,DBUS-PATH connection show") printf 'lab:/o/1\nvferry-525400123456:/o/copy\n' ;;
  *"connection show own") cat {place}/profile ;;
  "connection clone"*) echo copied >> {place}/asked; echo "cloned as it was" ;;
  *) for word in "$@"; do printf '%s|' "$word"; done >> {place}/asked; echo >> {place}/asked ;;
esac
"""
BUSCTL = """#!/bin/sh
case "$*" in
  *GetSettings) echo 'a{{sa{{sv}}}} 1 "ipv6" 1 "gateway" s "fd77::1 $(halt)"' ;;
  *) for word in "$@"; do printf '%s|' "$word"; done >> {place}/asked; echo >> {place}/asked
     ip link set dev {nic} addrgenmode none
     echo 1 > /proc/sys/net/ipv6/conf/{nic}/disable_ipv6; echo 0 > /proc/sys/net/ipv6/conf/{nic}/disable_ipv6
     {answers} ;;
esac
"""
PROFILE = """connection.zone:
ipv4.method:{method}
ipv4.dns-search:a b;$(halt)
ipv4.dhcp-send-hostname-deprecated:yes
ipv6.addresses:2001:db8::7/64
"""
MANAGER, ANY_NIC = "org.freedesktop.NetworkManager", "connection.autoconnect|yes|802-3-ethernet.mac-address||"
AS_BEFORE = "connection.zone||ipv4.method|auto|ipv4.dns-search|a b;$(halt)|ipv6.addresses|2001:db8::7/64|"


def configured_by_network_manager(
    managed: Managed,
    *,
    release: str = "1.52.1",
    state: str = "100 (connected)",
    answers: str = ":",
    method: str = "auto",
    lease: str = "x",
    named: str = "",
) -> None:
    """Its VF is NetworkManager's, by a profile; stand-ins for its tools, one of which takes IPv6 down as 1.52 does."""
    box = managed.box
    said = {"release": release, "state": state, "place": box.place, "lease": lease, "nic": VF, "answers": answers}
    said["named"] = named
    for name, text in (
        ("bin/nmcli", NMCLI.format(**said)),
        ("bin/busctl", BUSCTL.format(**said)),
        ("profile", PROFILE.format(method=method)),
        ("uuid", "own\n"),
        ("asked", ""),
    ):
        box.run(f"cat > {box.place}/{name} <<'END'\n{text}END\nchmod +x {box.place}/{name}")


def to_anew_vf(managed: Managed) -> None:
    """The guest goes to a new VF, which NetworkManager will have made a profile for once it is told to manage it."""
    managed.box.run(guest_script.quiet(MAC), watched=True)
    to_new_vf(managed.box)
    managed.plugged(anew=True)
    managed.box.run(f"echo made > {managed.box.place}/uuid")


@in_a_namespace
def test_network_manager_gets_a_new_vf_with_its_settings_and_what_is_there(managed: Managed) -> None:
    box = managed.box
    configured_by_network_manager(managed)
    to_anew_vf(managed)
    before = (box.addresses(VF), box.routes(VF))
    box.run(guest_script.settle(MAC), watched=True)
    assert box.read(f"{box.place}/asked").splitlines() == [
        f"connection|delete|{KEY}|",
        f"device|set|{VF}|managed|yes|",
        "copied",
        f"connection|modify|--temporary|{KEY}|{AS_BEFORE}",
        f"--|call|{MANAGER}|/o/device|{MANAGER}.Device|Reapply|a{{sa{{sv}}}}tu|1|ipv6|1|gateway|s|fd77::1 $(halt)|0|1|",
        f"connection|delete|{KEY}|",
        f"connection|modify|--temporary|made|connection.id|{KEY}|{ANY_NIC}{AS_BEFORE}",
    ]
    # What IPv6 was taken away has been put back.
    assert (box.addresses(VF), box.routes(VF)) == before
    assert box.read(f"/proc/sys/net/ipv6/conf/{VF}/accept_dad") == "1"
    assert managed.written() == {}
    assert managed.reloads(2)
    assert box.run("ls /run | grep vferry || :").stdout == ""


@in_a_namespace
def test_what_network_manager_has_taken_up_already_is_left_alone(managed: Managed) -> None:
    """The script was ended after it had all but put things in order; the profile is the one that the VF has."""
    configured_by_network_manager(managed, named=KEY)
    to_anew_vf(managed)
    managed.box.run(guest_script.settle(MAC), watched=True)
    assert managed.box.read(f"{managed.box.place}/asked") == ""
    assert managed.written() == {}


@in_a_namespace
@pytest.mark.parametrize(
    "differs",
    [
        {"release": "1.42.4"},
        {"state": "100 (connected (externally))"},
        {"state": "10 (unmanaged)"},
        {"answers": "exit 1"},
    ],
)
def test_a_new_vf_that_cannot_be_given_back_stays_out_of_network_manager_s_hands(
    managed: Managed, differs: dict[str, str]
) -> None:
    configured_by_network_manager(managed, **differs)
    to_anew_vf(managed)
    addresses = managed.box.addresses(VF)
    done = managed.box.run(guest_script.settle(MAC), watched=True)
    assert "until the guest boots" in done.stdout
    assert managed.box.addresses(VF) == addresses
    assert [Path(file).name[:2] for file in managed.written()] == ["00", "99"]
    assert managed.reloads(1)


@in_a_namespace
@pytest.mark.parametrize(("method", "kept"), [("auto", ["00"]), ("manual", [])])
def test_name_servers_are_kept_until_a_lease_has_brought_others(managed: Managed, method: str, kept: list[str]) -> None:
    configured_by_network_manager(managed, method=method, lease="")
    to_anew_vf(managed)
    impatient = guest_script.settle(MAC).replace("sleep 0.2", ":")
    managed.box.run(impatient, watched=True)
    assert [Path(file).name[:2] for file in managed.written()] == kept


DHCLIENT = """#!/bin/sh
trap 'echo ended >> {place}/asked; exit' TERM
echo "$$ $METRIC $*" >> {place}/asked
while :; do sleep 0.05; done
"""


def switched(box: GuestBox) -> None:
    box.run(guest_script.quiet(MAC), watched=True)
    to_new_vf(box)
    for _ in range(2):
        box.run(guest_script.settle(MAC), watched=True)


def detached(box: GuestBox) -> None:
    box.run(guest_script.save_addresses(MAC))
    plug_new_vf(box)
    for _ in range(2):
        box.run(guest_script.restore_addresses(MAC))


@in_a_namespace
@pytest.mark.parametrize("goes", [switched, detached])
@pytest.mark.parametrize(("nic", "times"), [(VF, 2), ("ens9", 1)])
def test_dhclient_is_started_anew_for_a_new_vf(
    box: GuestBox, goes: Callable[[GuestBox], None], nic: str, times: int
) -> None:
    """With its arguments and environment, and only the one that goes by the VF's name."""
    asked = f"{box.place}/asked"
    box.run(f"cat > {box.place}/dhclient <<'END'\n{DHCLIENT.format(place=box.place)}END\nchmod +x {box.place}/dhclient")
    box.run(f"METRIC=7 {box.place}/dhclient -4 -pf 'a b' {nic} > /dev/null 2>&1 &")
    try:
        goes(box)
        until = time.monotonic() + 5
        while len(box.read(asked).splitlines()) < times and time.monotonic() < until:
            time.sleep(0.02)
        said = [line.split(" ", 1) for line in box.read(asked).splitlines()]
        assert [words[1] for words in said] == [f"7 -4 -pf a b {nic}"] * times
        living = [box.run(f"[ -e /proc/{words[0]}/cwd ]", check=False).returncode == 0 for words in said]
        assert living == [False, True][-times:]
    finally:
        box.run(f"while read -r pid _; do kill -9 $pid; done < {asked}", check=False)


RESOLVED = """#!/bin/sh
file={place}/resolved/$2.$1; what=$1; shift
[ $# = 1 ] || {{ shift; echo "$*" > $file; exit; }}
[ -e /sys/class/net/$1 ] || exit 1
echo "Link 3 ($1):$(sed 's/^/ /' $file 2>/dev/null)"
"""


@pytest.fixture
def resolved(box: GuestBox) -> GuestBox:
    """A guest with systemd-resolved, whose tool keeps what it is told of links in files."""
    box.run(
        f"mkdir -p /run/systemd/resolve {box.place}/resolved; cat > {box.place}/bin/resolvectl <<'END'\n"
        f"{RESOLVED.format(place=box.place)}END\nchmod +x {box.place}/bin/resolvectl"
    )
    return box


@in_a_namespace
@pytest.mark.parametrize("domains", ["example.net ~.", ""])
def test_the_name_servers_of_a_link_go_along_there_and_back(resolved: GuestBox, domains: str) -> None:
    box = resolved
    box.run(f"echo 192.0.2.1 2001:db8::1 > {box.place}/resolved/{VF}.dns")
    if domains:
        box.run(f"echo {domains} > {box.place}/resolved/{VF}.domain")
    to_standby(box)
    box.run(f"rm {box.place}/resolved/{VF}.*")
    plug_new_vf(box)
    box.run(guest_script.addresses_to_vf(MAC), watched=True)
    for nic in (STANDBY, VF):
        assert box.read(f"{box.place}/resolved/{nic}.dns") == "192.0.2.1 2001:db8::1"
        assert box.run(f"cat {box.place}/resolved/{nic}.domain 2>/dev/null", check=False).stdout.strip() == domains


@in_a_namespace
def test_a_link_without_name_servers_gives_none_away(resolved: GuestBox) -> None:
    to_standby(resolved)
    assert resolved.run(f"ls {resolved.place}/resolved").stdout == ""


@in_a_namespace
def test_what_was_saved_is_given_back_to_a_new_vf(box: GuestBox) -> None:
    addresses, routes = box.addresses(VF), box.routes(VF)
    box.run(guest_script.save_addresses(MAC))
    plug_new_vf(box)
    done = box.run(guest_script.restore_addresses(MAC))
    assert done.stdout == f"{VF} has its addresses back\n"
    assert (box.addresses(VF), box.routes(VF)) == (addresses, routes)
    assert box.read(f"/sys/class/net/{VF}/address") == MAC
    assert box.read(f"/sys/class/net/{VF}/mtu") == "1400"


@in_a_namespace
def test_restoring_again_or_without_a_save_is_fine(box: GuestBox) -> None:
    before = (box.addresses(VF), box.routes(VF))
    box.run(guest_script.restore_addresses(MAC))
    for _ in range(2):
        box.run(guest_script.save_addresses(MAC))
    for _ in range(2):
        box.run(guest_script.restore_addresses(MAC))
    assert (box.addresses(VF), box.routes(VF)) == before


@in_a_namespace
def test_saving_again_without_the_vf_keeps_what_was_saved(box: GuestBox) -> None:
    """The step is repeated after the VF is gone, and the guest has a NIC that nobody has configured."""
    addresses = box.addresses(VF)
    box.add("ens9", "e1000e", "52:54:00:00:00:77")
    box.run(guest_script.save_addresses(MAC))
    box.remove(VF)
    box.run(guest_script.save_addresses(MAC))
    box.add(VF, "igbvf", "02:00:00:00:00:99")
    box.run(guest_script.restore_addresses(MAC))
    assert (box.addresses(VF), box.addresses("ens9")) == (addresses, [])


@in_a_namespace
@pytest.mark.parametrize(
    ("script", "code"),
    [(guest_script.addresses_to_standby, 3), (guest_script.addresses_to_vf, 3)],
    ids=["standby", "vf"],
)
def test_a_nic_that_does_not_come_is_said(box: GuestBox, script: guest_script.Script, code: int) -> None:
    box.remove(VF)
    if script is guest_script.addresses_to_vf:
        plug_standby(box)
    patient = script(MAC).replace("sleep 0.1", ":")
    done = box.run(patient, check=False)
    assert (done.returncode, "has appeared in the guest" in done.stderr) == (code, True)


@pytest.mark.parametrize("ready_after_s", [0.0, 0.4])
def test_a_bond_that_has_not_seen_the_link_yet_is_told_again(tmp_path: Path, ready_after_s: float) -> None:
    """Its driver refuses a slave whose link its monitor has not seen; here the file is not one until then."""
    file, parts = tmp_path / "active_slave", Path(vferry.network.__path__[0]) / "guest"
    file.mkdir()
    script = f"""set -eu
sys={tmp_path} bond=bond0 vf=eth1
. {parts}/find.sh
. {parts}/bond.sh
(sleep {ready_after_s}; rmdir {file}) &
activate eth1
wait
"""
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert file.read_text() == "eth1\n"


@pytest.mark.parametrize(("miimon", "updelay", "meanwhile"), [(100, 0, 500), (30, 60, 510), (1000, 0, 1000), (0, 0, 0)])
def test_a_bond_waits_for_a_new_slave_and_is_then_as_before(
    tmp_path: Path, miimon: int, updelay: int, meanwhile: int
) -> None:
    """The driver takes multiples of miimon only, and none where miimon is off."""
    (tmp_path / "miimon").write_text(f"{miimon}\n")
    (tmp_path / "updelay").write_text(f"{updelay}\n")
    parts = Path(vferry.network.__path__[0]) / "guest"
    script = f"""set -eu
sys={tmp_path} key=vferry-test-{tmp_path.name}
. {parts}/find.sh
. {parts}/bond.sh
be_patient; be_patient; cat {tmp_path}/updelay
be_as_before; be_as_before; cat {tmp_path}/updelay
ls /run/$key.updelay 2>/dev/null || :
"""
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.split() == [str(meanwhile), str(updelay)]

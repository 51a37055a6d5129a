"""How a host is emulated."""

import errno

import pytest

from vferry.lab import net, qemu
from vferry.lab.topology import GUESTS, HOSTS, NETWORKS, STANDBYS, USUAL, Setup, preferred, standby_named


def command(flags: set[str], *, restore: bool = False, setup: Setup = USUAL) -> list[str]:
    return qemu.command(HOSTS[0], qemu.Taps(7, 8), GUESTS, "KEY", flags, restore=restore, setup=setup)


def option(argv: list[str], name: str) -> str:
    return argv[argv.index(name) + 1]


def test_a_cpu_without_virtualization_is_emulated_with_one() -> None:
    argv = command({"sse2"})
    assert argv[argv.index("-accel") + 1] == "tcg,thread=multi"
    assert "+svm,+npt" in argv[argv.index("-cpu") + 1]


def test_kvm_is_used_where_the_cpu_says_so() -> None:
    for flag in ("svm", "vmx"):
        argv = command({flag})
        assert argv[argv.index("-accel") + 1] == "kvm"


def test_the_hosts_differ_in_what_libvirt_compares() -> None:
    assert len({host.uuid for host in HOSTS}) == len({host.machine_id for host in HOSTS}) == len(HOSTS)
    assert len({host.mac(network) for host in HOSTS for network in (1, 2)}) == 2 * len(HOSTS)


def test_every_guest_has_a_disk_with_its_name_on_every_host() -> None:
    text = " ".join(command(set()))
    for guest in GUESTS:
        assert f"serial={guest.name}," in text
    assert text.count("share-rw=on") == len(GUESTS)  # root and product are the host's own


def test_the_igb_sits_behind_a_root_port_on_an_inherited_tap() -> None:
    argv = command(set())
    assert "tap,id=data,fd=7,vhost=off" in argv
    assert "tap,id=mgmt,fd=8,vhost=off" in argv
    assert "igb,mac=52:54:00:00:01:01,netdev=data,id=nic-data,bus=port1" in argv


def test_the_kernel_is_told_who_the_host_is() -> None:
    argv = command(set())
    words = argv[argv.index("-append") + 1].split()
    assert {"vferry.host=host1", "vferry.mgmt=10.8.0.1/24", "vferry.key=KEY"} <= set(words)


def test_a_bond_has_a_second_pf_on_a_tap_of_its_own() -> None:
    usual, bond = command(set()), standby_named("bond")
    argv = qemu.command(HOSTS[1], qemu.Taps(7, 8, 9), GUESTS, "KEY", set(), setup=Setup(bond))
    assert "tap,id=data2,fd=9,vhost=off" in argv
    assert "igb,mac=52:54:00:00:03:02,netdev=data2,id=nic-data2,bus=port3" in argv
    assert "vferry.standby=bond" in argv[argv.index("-append") + 1].split()
    assert "vferry.standby=bridge" in usual[usual.index("-append") + 1].split()
    assert sum("igb,mac" in word for word in usual) == 1
    data, mgmt = NETWORKS
    assert data.taps("host2", bond) == ("data-host2", "data-host2-2")
    assert mgmt.taps("host2", bond) == ("mgmt-host2",)
    assert all(len(tap) <= 15 for network in NETWORKS for tap in network.taps("host2", bond))


def test_only_a_host_that_may_have_a_relay_has_a_second_cpu_and_keeps_guests_off_it() -> None:
    usual, relayed = command(set()), command(set(), setup=Setup(relay=True))
    assert (option(usual, "-smp"), option(relayed, "-smp")) == ("1", "2")
    assert int(option(usual, "-m")) < int(option(relayed, "-m")) <= 5 << 10
    more = set(option(relayed, "-append").split()) - set(option(usual, "-append").split())
    assert more == {"isolcpus=1", "vferry.relay=1"}


def test_a_restored_host_waits_for_its_state() -> None:
    assert command(set(), restore=True) == [*command(set()), "-incoming", "defer"]


def test_only_the_data_network_knows_the_guests() -> None:
    data, mgmt = (net.setup(network, STANDBYS[0]) for network in NETWORKS)
    assert "address add fd00:9::1/64 dev data0 nodad\n" in data
    assert data.count("nud permanent") == sum(len(guest.links) for guest in GUESTS)
    assert "neigh" not in mgmt


def test_the_peer_is_in_each_guest_s_vlan() -> None:
    data, mgmt = (net.setup(network, STANDBYS[0]) for network in NETWORKS)
    assert "link set data0-tag7 master data0 up\n" in data
    assert "tuntap add dev data0.7 mode tap\n" in data
    assert "address add 10.9.7.1/24 dev data0.7\n" in data
    assert "address add fd00:9:7::1/64 dev data0.7 nodad\n" in data
    assert "neigh replace fd00:9:7::17 lladdr 52:54:00:aa:00:11 dev data0.7 nud permanent\n" in data
    assert "tuntap" not in mgmt


class Tap:
    """A device that refuses to be opened with this error, so often."""

    def __init__(self, error: int, times: int) -> None:
        self.error, self.left = error, times

    def open(self) -> int:
        self.left -= 1
        if self.left >= 0:
            raise OSError(self.error, "no")
        return 7


def test_a_tap_that_a_killed_emulator_still_has_is_waited_for() -> None:
    assert net.patiently(Tap(errno.EBUSY, 2).open) == 7


@pytest.mark.parametrize(("error", "wait_s"), [(errno.EBUSY, -1.0), (errno.EPERM, 30.0)])
def test_a_tap_that_stays_busy_or_is_refused_is_an_error(error: int, wait_s: float) -> None:
    tap = Tap(error, 1000)
    with pytest.raises(OSError, match="no"):
        net.patiently(tap.open, wait_s)
    assert tap.left == 999


def test_without_lacp_each_tap_is_a_port_of_the_network() -> None:
    data, mgmt = NETWORKS
    bond = standby_named("bond")
    assert net.plugging(data, HOSTS[1], bond).splitlines() == [
        "link set data-host2 master data0",
        "link set data-host2-2 master data0",
        "link set data-host2 up",
        "link set data-host2-2 up",
    ]
    assert "lag" not in net.setup(data, bond)
    assert net.plugging(mgmt, HOSTS[0], bond) == net.plugging(mgmt, HOSTS[0], standby_named("lacp"))


def test_with_lacp_the_taps_of_a_host_are_one_port() -> None:
    data, lacp = NETWORKS[0], standby_named("lacp")
    lines = net.setup(data, lacp)
    for host in HOSTS:
        assert f"link set data0-{host.name} master data0\n" in lines
        assert f"link set lag-{host.name}-up master lag-{host.name}\n" in lines
        plugging = net.plugging(data, host, lacp)
        for tap in data.taps(host.name, lacp):
            assert f"link set {tap} master lag-{host.name}\n" in plugging
            assert f"link set {tap} type bridge_slave isolated on learning off " in plugging
            assert plugging.index(f"link set {tap} up") > plugging.index(f"link set {tap} type")
    names = [f"data0-{host.name}" for host in HOSTS] + [f"{data.lag(host.name)}-up" for host in HOSTS]
    assert all(len(name) <= 15 for name in names)


def test_with_lacp_a_host_receives_by_the_pf_whose_vfs_it_takes_first() -> None:
    data, lacp = NETWORKS[0], standby_named("lacp")
    for host, pf, tap in zip(HOSTS, lacp.pfs, ("data-host1", "data-host2-2"), strict=True):
        assert preferred(host, lacp)[0] == pf
        plugging = net.plugging(data, host, lacp)
        assert net.preference(data, host, lacp, pf) in plugging
        (flooded,) = [line for line in plugging.splitlines() if " flood on " in line]
        assert flooded.endswith("flood on mcast_flood on bcast_flood on")
        assert flooded.startswith(f"link set {tap} type ")

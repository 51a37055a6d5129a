"""The cache, the outer machine's mirror, archives, and whose lab it is."""

import lzma
import os
import re
import struct
from contextlib import nullcontext
from pathlib import Path

import pytest

from vferry.host.configuration import read_configuration
from vferry.lab import archive, base, boot, booted, cache, outer, owner, places, processes, product, reach
from vferry.lab.lab import refuse_other, refuse_other_standby, refuse_without_relay
from vferry.lab.layers import HostLayers, Layers
from vferry.lab.release import DEBIAN12, DEBIAN13, RELEASES
from vferry.lab.topology import HOSTS, STANDBYS, USUAL, Setup, standby_named
from vferry.model.host import Network
from vferry.model.problem import Problem


def test_keys_do_not_run_together() -> None:
    assert cache.digest("ab", "c") != cache.digest("a", "bc")
    assert cache.digest("ab", "c") == cache.digest("ab", b"c")


def test_a_layer_is_built_once(tmp_path: Path) -> None:
    built: list[Path] = []

    def build(folder: Path) -> None:
        built.append(folder)
        (folder / "file").write_text("x")

    first = cache.layer("base", cache.digest("1"), build, tmp_path)
    assert cache.layer("base", cache.digest("1"), build, tmp_path) == first
    assert len(built) == 1
    assert (first / "file").read_text() == "x"


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def build(folder: Path) -> None:
        raise Problem("broken", "It broke")

    with pytest.raises(Problem):
        cache.layer("base", cache.digest("1"), build, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["lock"]


def test_two_of_a_layer_stay(tmp_path: Path) -> None:
    for number in range(4):
        folder = cache.layer("base", cache.digest(str(number)), lambda _: None, tmp_path)
        os.utime(folder, (number, number))
    cache.layer("boot", cache.digest("other"), lambda _: None, tmp_path)
    kept = sorted(file.name for file in tmp_path.glob("base-*"))
    assert kept == sorted(f"base-{cache.digest(str(number))}" for number in (2, 3))


def test_the_mirror_is_the_machine_s_own() -> None:
    targets = "http://one.test/debian-security/\nhttp://two.test/debian/\nhttp://three.test/x\n"
    assert outer.mirror(targets) == "http://two.test/debian/"
    with pytest.raises(Problem) as caught:
        outer.mirror("http://one.test/ubuntu\n")
    assert caught.value.code == "lab-no-mirror"


def test_another_mirror_is_another_base() -> None:
    assert base.key(DEBIAN13, "http://a.test/debian") != base.key(DEBIAN13, "http://b.test/debian")


def test_a_release_has_layers_of_its_own() -> None:
    assert base.key(DEBIAN12, "http://a.test/debian") != base.key(DEBIAN13, "http://a.test/debian")
    names = {release.layer("base") for release in RELEASES}
    assert "base" in names
    assert len(names) == len(RELEASES)


def test_only_what_is_backported_is_taken_from_backports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    called: list[list[str]] = []
    monkeypatch.setattr(outer, "call", lambda argv, **_: called.append([str(word) for word in argv]))
    for release in RELEASES:
        base.bootstrap(tmp_path, release, "http://a.test/debian")
    twelve, thirteen = called
    assert twelve[-2:] == [str(tmp_path), "deb http://a.test/debian bookworm main"]
    assert thirteen[-1] == "deb http://a.test/debian trixie-backports main"
    assert "backports" not in " ".join(twelve)
    assert any("Package: qemu* seabios" in word and "Pin: release n=trixie-backports" in word for word in thirteen)
    assert "libqatzip3" not in " ".join(twelve)  # Debian 12 has none
    assert "libqatzip3" in " ".join(thirteen)


def test_modules_come_once_and_in_order() -> None:
    shown = "insmod /a/dep.ko.xz \ninsmod /a/one.ko.xz opt=1\nbuiltin two\ninsmod /a/dep.ko.xz \n"
    assert archive.load_order(shown) == ["/a/dep.ko.xz", "/a/one.ko.xz"]


def test_libraries_include_the_loader() -> None:
    shown = "\tlinux-vdso.so.1 (0x7f)\n\tlibc.so.6 => /lib/libc.so.6 (0x7f)\n\t/lib64/ld.so.2 (0x7f)\n"
    assert archive.libraries(shown) == ["/lib/libc.so.6", "/lib64/ld.so.2"]


def test_the_kernel_inside_a_bzimage_is_found() -> None:
    packed = boot.XZ + b"kernel"
    image = bytearray(2 * 512 + 16)
    image[0x1F1] = 1
    struct.pack_into("<II", image, 0x248, 16, len(packed) + 4)
    assert boot.payload(bytes(image) + packed + b"\0\0\1\0") == packed


def test_a_kernel_is_unpacked_as_its_release_packs_it() -> None:
    filters = [{"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2}]
    assert boot.unpacked(lzma.compress(b"kernel" * 99, check=lzma.CHECK_CRC32, filters=filters)) == b"kernel" * 99
    with pytest.raises(Problem):
        boot.unpacked(b"\x1f\x8b")


def test_masked_names_are_read_and_exist_once() -> None:
    for listed in ("units-off", "rules-off"):
        names = product.masked((places.FILES / listed).read_text())
        assert names
        assert len(set(names)) == len(names)
        assert not any(" " in name for name in names)


def test_net_id_stays_since_it_names_the_nics() -> None:
    assert "75-net-description.rules" not in product.masked((places.FILES / "rules-off").read_text())


def test_hosts_get_what_their_gateways_compress_with() -> None:
    names = {re.split(r"[<>=;]", line)[0].replace(".", "-") for line in product.dependencies()}
    assert {"msgspec", "numpy", "lz4", "isal", "backports-zstd"} <= names
    assert not {"dbos", "pytest"} & names


def test_the_agent_is_told_its_host() -> None:
    text = product.agent_settings(HOSTS[1], STANDBYS[0])
    assert 'name = "host2"' in text
    assert 'listen = "10.8.0.2:7443"' in text


BONDED = [
    Network(pf="enp1s0", more_pfs=("enp3s0",), bridge="br0"),
    Network(pf="enp3s0", more_pfs=("enp1s0",), bridge="br0"),
]


@pytest.mark.parametrize(
    ("standby", "networks"),
    [
        ("bridge", [Network(pf="enp1s0", bridge="br0")] * 2),
        ("ovs", [Network(pf="enp1s0", bridge="br0")] * 2),
        ("bond", BONDED),
        ("lacp", BONDED),
        ("macvtap", [Network(pf="enp1s0")] * 2),
    ],
)
def test_the_agent_is_told_its_standby_path(tmp_path: Path, standby: str, networks: list[Network]) -> None:
    for host, network in zip(HOSTS, networks, strict=True):
        (tmp_path / "agent.toml").write_text(product.agent_settings(host, standby_named(standby)))
        assert read_configuration(tmp_path / "agent.toml").networks == {"physnet1": network}


def layers(*numbers: int, standby: str = "bridge", relay: bool = False) -> Layers:
    made = (HostLayers(number, f"/base{number}", f"/product{number}") for number in numbers)
    return Layers("/ground", {host.name: own for host, own in zip(HOSTS, made, strict=True)}, standby, relay)


def test_only_hosts_with_open_vswitch_have_more_packages_in_layers_of_their_own() -> None:
    for standby in STANDBYS:
        release = layers(12, 13, standby=standby.name).release(HOSTS[1])
        has = "openvswitch-switch" in release.packages
        assert has == (standby.name == "ovs")
        assert release.layer("base") == ("baseovs" if has else "base")
        assert (release == DEBIAN13) != has
    assert layers(12, 13, standby="ovs").release(HOSTS[0]).layer("base") == "base12ovs"


def test_hosts_for_a_relay_have_dpdk_with_its_driver_and_ovn_in_layers_of_their_own() -> None:
    twelve, thirteen = (layers(12, 13, relay=True).release(host) for host in HOSTS)
    assert twelve.layer("base") == "base12relay"
    assert thirteen.layer("base") == "baserelay"
    for release, driver in ((twelve, "librte-net-e1000-23"), (thirteen, "librte-net-e1000-25")):
        ovn = {"ovn-central", "ovn-host"}
        assert {"openvswitch-switch-dpdk", "python3-openvswitch", driver} | ovn < set(release.packages)
    assert set(DEBIAN13.packages) < set(thirteen.packages)
    both = layers(13, 13, standby="ovs", relay=True).release(HOSTS[0])
    assert both.layer("base") == "baseovsrelay"
    assert {"openvswitch-switch", "openvswitch-switch-dpdk"} < set(both.packages)


def test_a_setup_has_layers_of_its_own_but_for_the_usual_one() -> None:
    setups = [Setup(standby, relay) for standby in STANDBYS for relay in (False, True)]
    assert len({setup.variant for setup in setups}) == len(setups)
    assert [setup for setup in setups if not setup.variant] == [USUAL]


def test_a_lab_that_is_up_gets_no_relay_afterwards() -> None:
    refuse_without_relay(layers(13, 13, relay=True).setup)
    with pytest.raises(Problem, match="not made for a relay"):
        refuse_without_relay(USUAL)


def test_a_lab_that_is_up_does_not_change_its_standby_path() -> None:
    refuse_other_standby("ovs", "ovs")
    with pytest.raises(Problem, match="with the standby path ovs"):
        refuse_other_standby("bridge", "ovs")


def test_the_lock_remembers_what_each_host_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(places, "LOCK", tmp_path / "lock")
    who = owner.Owner("/a", "now", layers(12, 13, relay=True))
    owner.write(who)
    assert owner.current() == who
    assert who.layers.of(HOSTS[0]).product == "/product12"


@pytest.mark.parametrize("text", ["", '{"clone": "/a"', '{"clone": "/a", "since": "now", "base": "b", "product": "p"}'])
def test_a_broken_lock_names_nobody(text: str) -> None:
    assert owner.read(text) is None


def test_hosts_of_other_releases_are_kept_apart() -> None:
    assert booted.name(layers(13, 13)) == "booted"
    assert booted.name(layers(12, 13)) == booted.name(layers(13, 12)) != "booted"
    assert booted.name(layers(13, 13, standby="bond")) != "booted"
    assert booted.name(layers(13, 13, relay=True)) != "booted"


def test_kept_hosts_have_products_of_their_own(tmp_path: Path) -> None:
    kept = booted.as_kept(layers(12, 13), tmp_path)
    assert [kept.of(host).product for host in HOSTS] == [f"{tmp_path}/{name}.product" for name in ("host1", "host2")]
    assert [kept.of(host).base for host in HOSTS] == ["/base12", "/base13"]


def test_kept_hosts_have_the_current_vferry_only_if_each_has(tmp_path: Path) -> None:
    for name, product_name in (("host1", "product12"), ("host2", "product13")):
        (tmp_path / f"{name}.product-name").write_text(product_name)
    assert booted.is_current(layers(12, 13), tmp_path)
    assert not booted.is_current(layers(13, 13), tmp_path)
    assert not booted.is_current(layers(12, 12), tmp_path)


@pytest.mark.parametrize(("asked", "refused"), [({"host1"}, False), ({"host2"}, True), ({"host1", "host2"}, True)])
def test_a_lab_that_is_up_does_not_change_its_releases(asked: set[str], refused: bool) -> None:  # noqa: FBT001
    running = {"host1": DEBIAN12, "host2": DEBIAN13}
    with pytest.raises(Problem, match="host1 with Debian 12") if refused else nullcontext():
        refuse_other(asked, running)


def test_a_second_change_is_refused_and_a_lock_of_nobody_removed(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with owner.changing(lock), pytest.raises(Problem) as caught, owner.changing(lock):
        pass
    assert caught.value.code == "lab-busy"
    assert not lock.exists()


def test_only_the_lab_s_programs_are_ended() -> None:
    argv = ["qemu-system-x86_64", "-name", "vferry-lab-host1"]
    assert processes.belongs(argv, "qemu-system-x86_64", ["vferry-lab-host1"])
    assert not processes.belongs(["less", "/run/vferry-lab/x"], "less", ["/run/vferry-lab/"])
    assert not processes.belongs(argv, "qemu-system-x86_64", ["vferry-lab-host2"])


def test_words_for_a_host_arrive_as_they_are(tmp_path: Path) -> None:
    argv = reach.command(HOSTS[0], tmp_path, ["printf", "%s", "a b", "$x"])
    assert argv[-2:] == ["host1", "printf %s 'a b' '$x'"]
    assert reach.command(HOSTS[0], tmp_path, [])[-1] == "host1"


def test_sockets_fit_into_their_address() -> None:
    for host in HOSTS:
        assert len(str(reach.control(host)) + ".0123456789abcdef") < 107  # ssh adds while it makes it

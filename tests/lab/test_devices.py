"""Devices that migrate themselves, and those that do not: what QEMU says of them, in the lab."""

import pytest

from lab.operator import Scene, asked, migrate, other, vferry
from vferry.lab import guests

pytestmark = pytest.mark.lab

CARD = "/sys/bus/pci/devices/0000:00:14.0"
SCRATCH = 7
"""The register of a serial port that keeps what is written, and does nothing."""
AUTO = "name='enable-migration' type='string' value='auto'"


@pytest.mark.matrix
@pytest.mark.guest("mtty1")
def test_a_device_that_migrates_itself_keeps_its_registers_there_and_back(scene: Scene) -> None:
    scene.await_agent()
    home, uuid = scene.host, guests.named("mtty1").device
    shown = asked("guest", "show", "mtty1")
    assert [(each["name"], each["type"]) for each in shown["devices"]] == [(uuid, "mtty-2")]
    state = shown["device_state"]
    assert state["bytes"] > 0, shown
    expected = asked("check", "mtty1", other(home), "--bandwidth", "50M")["estimate"]
    assert expected["device_state"] == state, expected
    assert 0 < expected["device_ms"] < 1, expected
    bases = scene.tell(f"cut -d' ' -f1 {CARD}/resource | head -n 2").split()
    registers = [int(base, 16) + SCRATCH for base in bases]
    for host, letters, options in ((other(home), "VF", ()), (home, "io", ("--codec", "zstd"))):
        for register, letter in zip(registers, letters, strict=True):
            scene.tell(f"printf {letter} | dd of=/dev/port bs=1 seek={register} conv=notrunc")
        report = migrate(scene, "--no-probe", *options)
        assert report["network_mode"] == "switch"
        # multifd's packets of it are counted, too.
        sent, known = report["transfer"]["device_bytes"], report["transfer"]["device_bytes_estimated"]
        assert known == state["bytes"], report["transfer"]
        assert sent > known if options else sent == known, report["transfer"]
        scene.assert_whole(host)
        scene.assert_nothing_left()
        assert [mdev["uuid"] for mdev in asked("host", "show", host)["mdevs"]] == [uuid]
        read = [scene.tell(f"dd if=/dev/port bs=1 count=1 skip={register}") for register in registers]
        assert "".join(read) == letters
    scene.assert_boots_anew()


@pytest.mark.matrix
@pytest.mark.guest("mtty1")
def test_a_device_that_qemu_would_not_migrate_is_refused_in_its_words(scene: Scene) -> None:
    here, uuid = scene.host, guests.named("mtty1").device
    with scene.defined_as(lambda xml: xml.replace("name='enable-migration' type='string' value='on'", AUTO)):
        refused = vferry("migrate", scene.guest, other(here))
        assert refused.returncode == 3
        assert f"{uuid}: VFIO device doesn't support device and IOMMU dirty tracking" in refused.stderr
        assert not asked("host", "show", other(here))["mdevs"]
        scene.assert_whole(here)


def test_a_vf_that_does_not_migrate_itself_is_refused_in_qemu_s_words(scene: Scene) -> None:
    here = scene.host
    (address,) = [nic["vf"]["address"] for nic in asked("guest", "show", scene.guest)["nics"]]
    refused = vferry("migrate", scene.guest, other(here), "--network", "vfio")
    assert refused.returncode == 3
    assert f"QEMU does not migrate the VF: {address}: VFIO migration" in refused.stderr
    assert "not supported in kernel" in refused.stderr
    scene.assert_whole(here)

"""Devices that migrate themselves: what QEMU says of them, and what is planned for them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from fakes import facts as f
from fakes.samples import MAC, definition
from vferry.host.api import Definition, SetVf, StartMigration, Unplug
from vferry.model.guest import Guest, GuestState, HostDevice, StateSize
from vferry.model.host import Mdev, MdevType
from vferry.network.modes import stages
from vferry.plan import vfio
from vferry.plan.facts import Facts
from vferry.plan.plan import DeviceMove, GuestSide, NetworkMode

UUID, OTHER = "5d3b6a51-7d1c-4e6c-8a47-000000000001", "5d3b6a51-7d1c-4e6c-8a47-000000000002"
OF_VF = f"{f.VF}: VFIO migration init failed: migration is not supported in kernel"
OF_DEVICE = f"{UUID}: VFIO device doesn't support device and IOMMU dirty tracking"
OF_NOBODY = "VFIO device doesn't support migration"
PORTS = "".join(f"<controller type='pci' index='{at}' model='pcie-root-port'/>" for at in (1, 2))
MDEV = f"<hostdev type='mdev'><source><address uuid='{UUID.upper()}'/></source><alias name='ua-0'/></hostdev>"


def live(facts: Facts) -> Facts:
    """The guest runs with a mediated device and its VF, on machine q35."""
    xml = definition(f.VF, standby=False).replace(
        "<devices>", f"<os><type machine='pc-q35-10.0'/></os><devices>{PORTS}{MDEV}"
    )
    xml = xml.replace("</interface>", "<address type='pci' bus='0x01'/></interface>")
    return structs.replace(facts, definition=Definition(live=xml, persistent=facts.definition.persistent))


def test_a_mediated_device_goes_along_while_the_vf_is_switched() -> None:
    plan = f.planned(f.both(live, f.mediated(UUID)))
    assert plan.network_mode == "switch"
    assert plan.devices == (
        DeviceMove(uuid=UUID, type="sample-1", source_parent="parent0", destination_parent="parent1"),
    )


STATE = StateSize(bytes=96, precopy=True)


@pytest.mark.parametrize(
    ("change", "mode", "goes"),
    [
        (f.both(live, f.mediated(UUID)), None, UUID),
        (f.both(live, f.mediated(UUID), f.migratable), None, f"{UUID}, {f.VF}"),
        (f.migratable, None, f.VF),
        (f.migratable, NetworkMode.SWITCH, None),
    ],
)
def test_how_much_state_goes_is_planned_with_where_any_does(
    change: f.Change, mode: NetworkMode | None, goes: str | None
) -> None:
    found = f.found(f.both(change, f.guest(device_state=STATE)), mode=mode)
    assert found.plan is not None
    assert found.plan.device_state == (STATE if goes else None)
    said = [finding.message for finding in found.findings if finding.code == "device-state"]
    longer = "at most 96 bytes, which makes the guest's pause longer"
    assert said == ([f"QEMU sends the state of {goes}, {longer}"] if goes else [])


def test_two_of_a_type_are_spread_over_what_is_left() -> None:
    offers = tuple(MdevType(name="sample-1", parent=f"parent{at}", available=at % 2) for at in range(4))
    plan = f.planned(f.both(f.mediated(UUID, OTHER), f.host("destination", mdev_types=offers)))
    assert [move.destination_parent for move in plan.devices] == ["parent1", "parent3"]


def test_one_that_is_there_already_is_taken_and_left() -> None:
    there = Mdev(uuid=UUID, type="sample-1", parent="parent7")
    plan = f.planned(f.both(f.mediated(UUID), f.host("destination", mdevs=(there,), mdev_types=())))
    assert plan.devices == (
        DeviceMove(uuid=UUID, type="sample-1", source_parent="parent0", destination_parent="parent7", exists=True),
    )
    assert [step.name for step in stages(plan).all if "device" in step.name] == ["remove-device"]


def test_one_that_another_guest_has_there_is_not() -> None:
    there = Mdev(uuid=UUID, type="sample-1", parent="parent7")
    other = Guest(
        name="other", uuid="u", host="host2", state=GuestState.OFF, devices=(HostDevice(kind="mdev", name=UUID),)
    )
    found = f.found(f.both(f.mediated(UUID), f.host("destination", mdevs=(there,), guests=(other,))))
    assert [(finding.code, "of guest other" in finding.message) for finding in found.errors] == [("mdev-taken", True)]


@pytest.mark.parametrize(
    ("blockers", "refused"),
    [
        ((), []),
        ((OF_VF,), []),
        ((OF_NOBODY,), []),
        ((OF_VF, OF_DEVICE), [OF_DEVICE]),
        (("dump in progress",), ["dump in progress"]),
    ],
)
def test_what_qemu_says_of_a_vf_does_not_matter_where_it_is_unplugged(
    blockers: tuple[str, ...], refused: list[str]
) -> None:
    found = f.found(f.both(live, f.mediated(UUID), f.guest(blockers=blockers)))
    said = [finding.message.partition(": ")[2] for finding in found.errors if finding.code == "qemu-refuses"]
    assert said == refused
    assert (found.plan is None) == bool(refused)


@pytest.mark.parametrize("reason", [OF_DEVICE, OF_NOBODY])
def test_a_guest_without_a_vf_is_refused_what_qemu_refuses(reason: str) -> None:
    def without(facts: Facts) -> Facts:
        xml = facts.definition.persistent.replace("interface", "x")
        facts = structs.replace(facts, definition=Definition(live=xml, persistent=xml))
        return f.guest(nics=facts.guest.nics[1:])(facts)

    change = f.both(without, f.mediated(UUID))
    assert f.found(change).errors == ()
    (error,) = f.found(f.both(change, f.guest(blockers=(reason,)))).errors
    assert reason in error.message


def test_a_vf_that_qemu_migrates_stays_plugged() -> None:
    plan = f.planned(f.both(live, f.mediated(UUID), f.migratable))
    (move,) = plan.moves
    assert (move.mode, move.guest_side, move.mtu) == (NetworkMode.VFIO, GuestSide.NOBODY, 9000)
    assert (plan.network_mode, plan.reason) == ("vfio", "QEMU migrates the VF itself")
    assert plan.migrated_vfs == {f.VF: move.destination.address}
    assert move.destination.index == 2
    assert (move.stands_by, move.dark) == (False, False)
    steps = stages(plan)
    asked = [operation for step in steps.before for operation in step.apply]
    assert not any(isinstance(operation, Unplug | StartMigration) for operation in asked)
    assert [each.settings.mac for each in asked if isinstance(each, SetVf)] == [MAC]
    assert steps.arrival == ()


def test_a_vf_that_qemu_migrates_needs_no_standby_path() -> None:
    assert f.found(f.both(f.migratable, f.host("source", bridges=()), f.host("destination", bridges=()))).errors == ()


@pytest.mark.parametrize(
    "change",
    [
        f.guest(blockers=None),
        f.guest(blockers=(OF_VF,)),
        f.guest(blockers=(OF_NOBODY,)),
        f.vf("destination", 2, driver="vfio-pci"),
        f.vf("destination", 2, claim="op-9"),
        f.vf("destination", 2, guest="other"),
        f.vf("source", 1, driver=None),
    ],
)
def test_auto_switches_what_cannot_be_left_to_its_driver(change: f.Change) -> None:
    assert f.planned(f.both(f.migratable, change)).network_mode == "switch"


def test_another_mode_may_be_asked_for_all_the_same() -> None:
    assert f.planned(f.migratable, mode=NetworkMode.SWITCH).network_mode == "switch"


def test_the_announcement_is_for_the_pf_at_once() -> None:
    assert [each.uplink for each in f.planned(f.migratable).announced] == ["pf0"]
    assert [each.uplink for each in f.planned().announced] == [None]


@given(st.text(), st.sampled_from([f.VF, UUID]))
def test_a_reason_that_names_a_device_concerns_no_other(text: str, name: str) -> None:
    guest = structs.replace(f.sample().guest, blockers=(f"{name}: {text}",))
    assert vfio.blocked(guest, name) == [f"{name}: {text}"]
    assert vfio.blocked(guest, "0000:09:00.0") == []
    assert vfio.blocked(guest, OTHER) == []

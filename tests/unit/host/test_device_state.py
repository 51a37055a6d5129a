import pytest
from fake_libvirt import FakeAgents, FakeDomain, FakeLibvirt
from xml_samples import domain

from vferry.host import device_state
from vferry.host.device_state import read_blockers
from vferry.host.hypervisor import Hypervisor
from vferry.model.guest import StateSize
from vferry.model.problem import Problem

REASON = "0000:01:10.2: VFIO migration is not supported in kernel"


@pytest.mark.parametrize("reasons", [(), (REASON,)])
def test_qemu_says_what_it_would_not_migrate(reasons: tuple[str, ...]) -> None:
    guest = FakeDomain(live=domain())
    guest.query_migrate = {"blocked-reasons": list(reasons)} if reasons else {}
    found = read_blockers(Hypervisor(library=FakeLibvirt(guest), agent_library=FakeAgents()), "guest1")
    assert found.reasons == reasons


@pytest.mark.parametrize(
    ("status", "asked"),
    [
        (None, True),
        ("none", True),
        ("completed", True),
        ("cancelled", True),
        ("failed", True),
        ("setup", False),
        ("active", False),
        ("device", False),
        ("cancelling", False),
    ],
)
def test_devices_are_asked_for_their_state_while_the_guest_does_not_migrate(
    status: str | None,
    asked: bool,  # noqa: FBT001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    guest, state = FakeDomain(live=domain()), StateSize(bytes=96, precopy=True)
    guest.query_migrate = {"status": status} if status else {}
    monkeypatch.setattr(device_state, "read_state", lambda _root, _guest: state)
    found = read_blockers(Hypervisor(library=FakeLibvirt(guest), agent_library=FakeAgents()), "guest1")
    assert found.state == (state if asked else None)


def test_a_guest_that_is_off_cannot_be_asked() -> None:
    guest = FakeDomain(persistent=domain())
    with pytest.raises(Problem) as caught:
        read_blockers(Hypervisor(library=FakeLibvirt(guest), agent_library=FakeAgents()), "guest1")
    assert caught.value.code == "guest-off"

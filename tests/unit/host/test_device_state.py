import pytest
from fake_libvirt import FakeAgents, FakeDomain, FakeLibvirt
from xml_samples import domain

from vferry.host.device_state import read_blockers
from vferry.host.hypervisor import Hypervisor
from vferry.model.problem import Problem

REASON = "0000:01:10.2: VFIO migration is not supported in kernel"


@pytest.mark.parametrize("reasons", [(), (REASON,)])
def test_qemu_says_what_it_would_not_migrate(reasons: tuple[str, ...]) -> None:
    guest = FakeDomain(live=domain())
    guest.query_migrate = {"blocked-reasons": list(reasons)} if reasons else {}
    found = read_blockers(Hypervisor(library=FakeLibvirt(guest), agent_library=FakeAgents()), "guest1")
    assert found.reasons == reasons


def test_a_guest_that_is_off_cannot_be_asked() -> None:
    guest = FakeDomain(persistent=domain())
    with pytest.raises(Problem) as caught:
        read_blockers(Hypervisor(library=FakeLibvirt(guest), agent_library=FakeAgents()), "guest1")
    assert caught.value.code == "guest-off"

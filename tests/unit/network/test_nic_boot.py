"""A host that is booted while a NIC is moved: a VF of its relay has the MAC then if the guest is defined on that."""

from typing import Any

import pytest

from fakes.nic_moves import CASES, NicCase, make_fleet, make_plan
from fakes.samples import MAC
from vferry.host.api import Define, JoinRelay, LeaveRelay, Operation, SetVf
from vferry.model.host import NO_MAC
from vferry.network.nic import stages
from vferry.plan.nic_plan import NicMove, NicTarget, defined_on


class Kept:
    """What a host has after its next boot: its guest's definition, and what its agent has of the relay's VFs."""

    def __init__(self, case: NicCase, move: NicMove) -> None:
        self.xml = move.xml_before
        self.relayed: dict[tuple[str, int], str | None] = {}
        """The MACs by the VFs that the relay joins."""
        first = move.legs[0]
        if case.of is NicTarget.RELAY and first.joined:
            self.relayed[first.joined.pf, first.joined.index] = MAC

    def ask(self, operation: Operation[Any]) -> None:
        match operation:
            case Define(xml=xml):
                self.xml = xml
            case JoinRelay(port=port, settings=settings) if port.vf:
                self.relayed[port.vf.pf, port.vf.index] = settings.mac
            case LeaveRelay():
                self.relayed = {}
            case SetVf(pf=pf, index=index, settings=settings) if settings.mac and (pf, index) in self.relayed:
                self.relayed[pf, index] = None if settings.mac == NO_MAC else settings.mac

    def wrong(self) -> str:
        """Whose MAC the guest's is, of those that it is not to be, and the other way round."""
        on_relay = [vf for vf, mac in self.relayed.items() if mac == MAC]
        return "" if bool(on_relay) == (defined_on(self.xml, MAC) is NicTarget.RELAY) else f"the relay's {on_relay}"


DIRECT = [case for case in CASES if not case.switched and NicTarget.RELAY in (case.of, case.to)]


@pytest.mark.parametrize("case", DIRECT, ids=str)
def test_after_each_step_there_and_back_the_guest_is_reached_where_it_is_defined(case: NicCase) -> None:
    move = make_plan(make_fleet(case), case).move
    assert move is not None
    host, steps = Kept(case, move), stages(move)
    assert not host.wrong()
    for done, step in enumerate(steps.before, start=1):
        for operation in step.apply:
            host.ask(operation)
        assert not host.wrong(), step.name
        back = Kept(case, move)
        for each in (operation for before in steps.before[:done] for operation in before.apply):
            back.ask(each)
        for undone in reversed(steps.before[:done]):
            for operation in undone.undo:
                back.ask(operation)
            assert not back.wrong(), f"{undone.name} undone after {step.name}"
    for step in steps.after:
        for operation in step.apply:
            host.ask(operation)
        assert not host.wrong(), step.name
    assert defined_on(host.xml, MAC) is case.to

"""What a plan is made of: steps, each a change on one host with the change that takes it back."""

from typing import Any

from msgspec import Struct

from vferry.host.api import Operation
from vferry.model.report import Phase


class Step(Struct, frozen=True, kw_only=True):
    """One line of ``--dry-run``, one row of the report.

    `apply` is asked of `host` in order; `undo` likewise, to take it back. Both are safe to repeat, since every
    operation of an agent observes before it acts: a step that was interrupted is simply asked for again.
    """

    phase: Phase
    name: str
    host: str
    summary: str
    apply: tuple[Operation[Any], ...] = ()
    undo: tuple[Operation[Any], ...] = ()
    requires: str | None = None
    """The step without which this one is left out, where failures do not end the stage."""


class OpenGateways(Step, frozen=True, kw_only=True):
    """Starts the receiving gateway at `destination`, then the sending one at `host`, which is told where it is."""

    destination: str


class CloseGateways(Step, frozen=True, kw_only=True):
    """Ends both gateways and takes what they counted."""

    destination: str


class Copy(Step, frozen=True, kw_only=True):
    """Copies the memory until the guest runs at the destination: the point of no return lies at its end."""


class TakeConnections(Step, frozen=True, kw_only=True):
    """Tells `host` of the guest's connections as `source` knew them last. That it cannot is noted, and no failure."""

    source: str


class TakePortConnections(Step, frozen=True, kw_only=True):
    """Has the switch of `host` track those connections of ports of OVN's that `source`'s did. Failing is noted, too."""

    source: str


class Stages(Struct, frozen=True, kw_only=True):
    """A migration's steps, by what the failure of one means.

    `before` ends with the copy: a failure undoes all of it, and the guest goes on at the source. `landing` and
    `after` only go forward: what fails there is reported. `arrival` is the way back to a VF: a failure undoes
    that alone, and the guest stays at the destination on its standby NIC.
    """

    before: tuple[Step, ...]
    landing: tuple[Step, ...] = ()
    arrival: tuple[Step, ...] = ()
    after: tuple[Step, ...] = ()

    @property
    def all(self) -> tuple[Step, ...]:
        return self.before + self.landing + self.arrival + self.after

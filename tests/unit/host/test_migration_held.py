"""A migration whose wire is lost: what the agent says of it, and what it may then be asked for."""

import json
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_libvirt import PAUSED, RUNNING, SHUTOFF, FakeDomain, FakeError
from msgspec import structs
from test_gateways import GATEWAY
from test_migration_libvirt import OPERATION, Source
from xml_samples import domain

from vferry.host import gateways_process, migration_held
from vferry.host.api import Migration, StartSending
from vferry.host.gateways import Gateways, places
from vferry.host.hypervisor_domains import resume
from vferry.host.migration import Migrations
from vferry.host.migration_held import Held
from vferry.model.host import MigrationEndpoint
from vferry.model.problem import Problem

SEND = StartSending(peer="host2", address="127.0.0.1", port=1, token="secret")
ENDPOINT = MigrationEndpoint(address="127.0.0.1", ports=(49200, 49200))


class Torn:
    """A source with its sending gateway: as libvirt does, it lets the guest go on when the gateway ends."""

    def __init__(self, runtime: Path) -> None:
        self.runtime = runtime
        self.source = Source(runtime)
        self.restart_agent()
        self.gateways.send(OPERATION, SEND)
        self.source.start()
        threading.Thread(target=self._libvirt, daemon=True, name="migration-libvirt").start()

    def restart_agent(self) -> None:
        self.migrations: Migrations = self.source.agent()
        self.source.migrations = self.migrations
        self.gateways = Gateways(ENDPOINT, self.source.hypervisor, self.runtime / "pki", self.runtime)
        self.held = Held(self.source.hypervisor, self.migrations, self.gateways, self.runtime)

    @property
    def guest(self) -> FakeDomain:
        return self.source.guest

    @property
    def gateway_runs(self) -> bool:
        record = gateways_process.load(places(self.runtime, OPERATION).directory)
        return record is not None and gateways_process.alive(record)

    def lose_wire(self) -> None:
        with (places(self.runtime, OPERATION).directory / "gateway.out").open("a") as out:
            out.write('{"event": "lost", "service": "control"}\n')

    def tell(self, seconds: float, sent_bytes: int, **more: object) -> None:
        stats = {"event": "stats", "seconds": seconds, "sent_bytes": sent_bytes, **more}
        with (places(self.runtime, OPERATION).directory / "gateway.out").open("a") as out:
            out.write(json.dumps(stats) + "\n")

    def read(self) -> Migration:
        return self.held.read(OPERATION, "guest1")

    def ended(self) -> Migration:
        until = time.monotonic() + 5
        while (found := self.read()).state == "active":
            assert time.monotonic() < until
            time.sleep(0.01)
        return found

    def _libvirt(self) -> None:
        while self.gateway_runs:
            time.sleep(0.01)
        self.guest.job = None
        if self.guest.live_xml is not None:
            self.guest.state_ = (RUNNING, 6)
        self.source.finish(FakeError(38, "End of file while reading data"))


@pytest.fixture
def torn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Torn]:
    monkeypatch.setattr(gateways_process, "COMMAND", (sys.executable, "-S", "-c", GATEWAY))
    monkeypatch.setattr(migration_held, "MOMENT_S", 0.2)
    monkeypatch.setattr(migration_held, "POLL_S", 0.01)
    torn = Torn(tmp_path)
    yield torn
    torn.gateways.release(OPERATION)
    for thread in threading.enumerate():
        if thread.name.startswith("migration-"):
            thread.join(5)


def test_with_its_wire_a_pause_is_no_loss(torn: Torn) -> None:
    torn.source.switch_over()
    assert torn.read().state == "active"
    assert torn.gateway_runs


def test_a_loss_in_the_pause_is_uncertain_and_the_guest_stays_paused(torn: Torn) -> None:
    torn.source.switch_over()
    torn.lose_wire()
    found = torn.read()
    assert (found.state, found.error) == ("uncertain", migration_held.LOST)
    assert found.paused_age_s is not None
    assert torn.guest.state_[0] == PAUSED
    assert torn.gateway_runs
    torn.restart_agent()
    assert torn.read().state == "uncertain", "another agent says the same"


def test_a_loss_while_the_guest_runs_here_is_a_failure(torn: Torn) -> None:
    torn.lose_wire()
    assert torn.ended().state == "failed"
    assert torn.guest.state_[0] == RUNNING
    assert not torn.gateway_runs


def test_qemu_has_a_moment_to_fail_by_itself(torn: Torn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migration_held, "MOMENT_S", 30.0)
    torn.source.switch_over()
    torn.lose_wire()
    threading.Timer(0.1, lambda: setattr(torn.guest, "state_", (RUNNING, 5))).start()
    assert torn.ended().state == "failed"


def test_what_is_on_the_wire_is_what_the_gateway_tells(torn: Torn) -> None:
    assert torn.read().wire_rate is None
    torn.tell(1.0, 300)
    assert torn.read().wire_rate == 300
    torn.tell(3.0, 500)
    assert (torn.read().wire_rate, torn.read().ratio) == (100, None)
    torn.tell(4.0, 900, compression={"stream_bytes": 2160, "wire_bytes": 900, "ratio": 2.4})
    assert (torn.read().wire_rate, torn.read().ratio) == (400, 2.4)


@pytest.mark.parametrize("lost", [False, True])
def test_nobody_ends_the_gateway_under_a_guest_in_its_pause(torn: Torn, *, lost: bool) -> None:
    torn.source.switch_over()
    if lost:
        torn.lose_wire()
    for ask in (
        lambda: torn.held.stop(OPERATION, resume=False),
        lambda: torn.held.refuse(OPERATION),
        lambda: torn.held.send(OPERATION, structs.replace(SEND, port=2)),
    ):
        with pytest.raises(Problem) as caught:
            ask()
        assert caught.value.code == "guest-held"
    assert torn.gateway_runs
    assert torn.guest.state_[0] == PAUSED


def test_it_is_ended_on_demand_and_the_guest_goes_on(torn: Torn) -> None:
    torn.source.switch_over()
    torn.lose_wire()
    torn.held.stop(OPERATION, resume=True)
    assert torn.ended().state == "failed"
    assert torn.guest.state_[0] == RUNNING


def test_conceding_ends_the_guest_and_the_migration_is_completed(torn: Torn) -> None:
    torn.source.switch_over()
    torn.lose_wire()
    assert torn.held.concede(OPERATION, "guest1").changed
    assert torn.guest.state_[0] == SHUTOFF
    assert not torn.gateway_runs
    assert torn.ended().state == "completed"
    assert not torn.held.concede(OPERATION, "guest1").changed
    torn.held.stop(OPERATION, resume=False)


def test_a_guest_that_runs_is_not_conceded(torn: Torn) -> None:
    with pytest.raises(Problem) as caught:
        torn.held.concede(OPERATION, "guest1")
    assert caught.value.code == "guest-running"
    assert torn.guest.live_xml is not None


def test_a_guest_that_has_not_left_is_not_conceded(torn: Torn) -> None:
    torn.source.switch_over()
    with pytest.raises(Problem) as caught:
        torn.held.concede("op-2", "guest1")
    assert caught.value.code == "guest-not-leaving"
    assert torn.guest.live_xml is not None
    assert not torn.held.concede("op-2", "no-such-guest").changed


def test_a_guest_that_is_off_has_been_conceded(torn: Torn) -> None:
    torn.source.library.domains["other"] = FakeDomain(persistent=domain(name="other"))
    assert not torn.held.concede(OPERATION, "other").changed


def test_the_sending_gateway_holds_libvirts_connection(torn: Torn) -> None:
    (ready, *_) = gateways_process.events(places(torn.runtime, OPERATION).directory)
    given = ready["arguments"]
    assert given[given.index("--hold") + 1] == "control"
    assert given.count("--hold") == 1


def test_resuming_a_guest_that_libvirt_lets_go_on_meanwhile_changes_nothing(
    torn: Torn, monkeypatch: pytest.MonkeyPatch
) -> None:
    torn.source.switch_over()

    def too_late() -> None:
        torn.guest.state_ = (RUNNING, 6)
        raise FakeError(55, "domain is already running")

    monkeypatch.setattr(torn.guest, "resume", too_late)
    assert not resume(torn.source.hypervisor, "guest1").changed

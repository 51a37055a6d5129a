"""A disk that is full where an agent or a gateway writes: what is not begun is refused, what runs goes on."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_libvirt import FakeError
from test_lent import ALIAS
from test_lent import Host as Lender
from test_migration_libvirt import OPERATION, WANTED, Source
from xml_samples import VF

from fakes.small_disk import SmallDisk, needs_a_small_disk, small_disk
from vferry.host import gateways_process
from vferry.host.api import ClaimResources, Session
from vferry.host.client import connect
from vferry.host.durable import write_durably
from vferry.host.gateways_process import GatewayRecord, alive
from vferry.host.service_fake import empty_inventory, fake_agent
from vferry.model.problem import Exit, Problem
from vferry.transfer import process
from vferry.transfer.process import Events

pytestmark = needs_a_small_disk


@pytest.fixture
def disk() -> Iterator[SmallDisk]:
    with small_disk() as disk:
        yield disk


@pytest.fixture
def source(disk: SmallDisk) -> Iterator[Source]:
    source = Source(disk.root)
    yield source
    source.finish(FakeError(1, "the test is over"))


def test_what_was_written_stays_and_the_error_names_the_file(disk: SmallDisk) -> None:
    path = disk.root / "kept"
    write_durably(path, b"before")
    disk.fill()
    with pytest.raises(OSError, match="No space left") as caught:
        write_durably(path, b"after")
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b"before"
    assert sorted(each.name for each in disk.root.iterdir()) == ["ballast", "kept"]


async def test_a_claim_is_refused_with_the_host_and_what_to_do(disk: SmallDisk) -> None:
    async with fake_agent(disk.root, empty_inventory("host1")) as agent, connect("host1", agent.uri) as host:
        mine = host.with_session(Session(operation="op-1"))
        disk.fill()
        with pytest.raises(Problem, match=r"No space left on the file system of .*op-1\.json on host1") as caught:
            await mine.call(ClaimResources(guest="guest1"))
        assert (caught.value.code, caught.value.exit) == ("no-space", Exit.REFUSED)
        assert "Free some" in caught.value.remedy
        assert agent.claims.all() == ()
        disk.empty()
        assert (await mine.call(ClaimResources(guest="guest1"))).guest == "guest1"


def test_a_migration_is_not_started_that_could_not_be_found_again(disk: SmallDisk, source: Source) -> None:
    disk.fill()
    with pytest.raises(OSError, match="No space left"):
        source.migrations.start(OPERATION, WANTED)
    assert (source.asked, source.read().state) == ([], "none")


@pytest.mark.parametrize(("leaves", "state"), [(True, "completed"), (False, "failed")])
def test_how_a_migration_has_ended_is_known_without_room_to_save_it(
    disk: SmallDisk, source: Source, *, leaves: bool, state: str
) -> None:
    source.start()
    disk.fill()
    if leaves:
        source.leave()
        source.finish()
    else:
        source.guest.job = None
        source.finish(FakeError(1, "QEMU gave up"))
    assert source.ended().state == state
    assert source.ended().state == state, "it is asked again and again"


def test_a_guest_gets_its_vf_although_that_cannot_be_noted(disk: SmallDisk, tmp_path: Path) -> None:
    host = Lender(tmp_path)
    host.root = disk.root
    lent = host.lent = host.agent()
    disk.fill()
    assert lent.lend(VF, "guest1", ALIAS)
    assert not lent.lend(VF, "guest1", ALIAS), "it is remembered"
    disk.empty()
    lent.returned("guest1", "ua-other")
    assert json.loads((disk.root / "lent.json").read_bytes()) == {VF: {"guest": "guest1", "alias": ALIAS}}


def test_a_gateway_that_nobody_would_find_again_is_ended(disk: SmallDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[GatewayRecord] = []

    def save(directory: Path, record: GatewayRecord) -> None:
        started.append(record)
        write_durably(directory / "gateway.json", b"{}")

    monkeypatch.setattr(gateways_process, "save", save)
    disk.fill()
    record = GatewayRecord(role="send", peer="host2", address="127.0.0.1", port=1, token="t")
    with pytest.raises(OSError, match="No space left"):
        gateways_process._launch(disk.root, record, ["sleep", "60"])
    assert [alive(each) for each in started] == [False]


def test_a_gateway_s_lost_wire_is_said_once_there_is_room(disk: SmallDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    path = disk.root / "gateway.out"
    with path.open("xb") as output:
        monkeypatch.setattr(sys, "stdout", output)
        assert Events().write("ready", {})
        # The next line is torn where the last page ends.
        disk.fill()
        assert not Events().write("stats", {"seconds": "1" * 5000})
        process.lost("control")
        assert path.stat().st_size == 4096, "as much as there was room for"
        assert process._untold == {"control"}
        disk.empty()
        process.lost("control")
    assert [event["event"] for event in gateways_process.events(disk.root)] == ["ready", "lost"]
    assert process._untold == set()

"""The lab, for the tests that need it: up before them, and as they found it after each."""

import shutil
from collections.abc import Generator, Iterator

import pytest

from lab.operator import EmulatorLostGuestError, Scene, vferry
from lab.ovn import Ovn
from lab.relayed import Relayed
from vferry.controller.state import State, find_state
from vferry.lab import guests, owner
from vferry.lab.lab import Lab


@pytest.fixture(scope="session")
def lab() -> Lab:
    """This clone's lab, up. `make test` brings it up and takes it down around all tests."""
    found = Lab()
    assert found.alive(), "the lab is down; bring it up with: vferry lab up"
    return found


@pytest.fixture(scope="session", autouse=True)
def controller(lab: Lab) -> Iterator[State]:
    """A controller of the tests' own, with the hosts and the CA of the one that brought the lab up.

    50 probes a second: 1,000, and on some machines 200, leave an emulated guest too little for vferry's scripts.
    A longer pause where the copy stalls: there a guest may change its memory faster than 1 MB/s, which it goes by.
    """
    theirs, own = find_state(), State(root=lab.folder / "tests")
    forget_older_lab(own)
    shutil.copytree(theirs.pki, own.pki, dirs_exist_ok=True)
    shutil.copy(theirs.hosts, own.hosts)
    own.configuration.write_text("[probe]\nrate_hz = 50\n[migration]\nmax_pause_s = 3\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VFERRY_STATE", str(own.root))
        vferry("operation", "recover")
        yield own


def forget_older_lab(state: State) -> None:
    """What a run that was killed has left is to be recovered as long as its lab is up, and of no use after."""
    who, marked = owner.current(), state.root / "lab"
    since = who.since if who else ""
    if not marked.exists() or marked.read_text() != since:
        shutil.rmtree(state.root, ignore_errors=True)
        state.root.mkdir(mode=0o700, parents=True)
        marked.write_text(since)


@pytest.fixture
def scene(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Scene]:
    """The guest that a test's marker `guest` names, else guest1: running alone, whole, and so again at the end."""
    marker = request.node.get_closest_marker("guest")
    guest = guests.named(marker.args[0] if marker else "guest1")
    guests.stop_others(lab, [guest])  # an emulated CPU has none to spare
    lab.guest(guest.name)
    scene = Scene(lab, guest.name)
    try:
        yield scene
        scene.end_migrations()
        if not scene.lost:
            scene.assert_nothing_left()
    finally:
        if scene.lost:
            scene.start_anew()
        vferry("operation", "recover")  # for the next test's sake, where this one has failed


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Tells a guest that the emulator has lost from one that vferry has: the test is then run again."""
    try:
        return (yield)
    except Exception as error:
        scene = pyfuncitem.funcargs.get("scene")
        if isinstance(scene, Scene) and (where := scene.lost or scene.find_lost()):
            raise EmulatorLostGuestError(f"{scene.guest} spins on {where}, with interrupts off") from error
        raise


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds to a failure what its relay, or OVN, says, and says it at once: a matrix takes hours, and may be cut."""
    report = yield
    for name, ground in getattr(item, "funcargs", {}).items():
        if report.when == "call" and report.failed and isinstance(ground, Relayed | Ovn):
            report.sections.append((f"evidence of {name}", ground.evidence()))
    if report.failed:
        item.config.get_terminal_writer().line(f"\n{report.longreprtext}")
    return report


PHASES = ("prepare", "to-standby", "copy", "to-vf", "restore")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How the guest came through each fault: a line a fault and guest, a column a phase."""
    table: dict[tuple[str, str], dict[str, str]] = {}
    for kind in ("passed", "failed"):
        for test in terminalreporter.getreports(kind):
            said = {name: str(value) for name, value in test.user_properties}
            if "fault" in said:
                ended = said.get("ended", "-")
                cell = ended if kind == "passed" else f"FAILED ({ended})"
                table.setdefault((said["fault"], said["guest"]), {})[said["phase"]] = cell
    if not table:
        return
    terminalreporter.section("what became of the guest")
    rows: list[tuple[str, ...]] = [("fault", "guest", *PHASES)]
    rows += [(*names, *(cells.get(phase, "") for phase in PHASES)) for names, cells in sorted(table.items())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        terminalreporter.line("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())

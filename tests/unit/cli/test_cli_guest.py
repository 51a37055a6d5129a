"""What is shown of a guest."""

import pytest

from vferry.cli import guest, output
from vferry.model.guest import Guest, GuestState, StateSize

RUNNING = GuestState.RUNNING


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (None, None),
        (StateSize(bytes=4252), "4.2 KiB, sent in its pause"),
        (StateSize(bytes=96, precopy=True), "at most 96 B, sent in its pause"),
        (StateSize(bytes=96, silent=2), "96 B, sent in its pause; 2 more do not say"),
    ],
)
def test_how_much_state_its_devices_have(
    state: StateSize | None, said: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = Guest(name="guest1", uuid="u-1", host="host1", state=RUNNING, device_state=state)
    output.tables(guest._summary(shown))
    lines = [line for line in capsys.readouterr().out.splitlines() if "Device state" in line]
    assert [line.removeprefix("Device state").strip() for line in lines] == ([said] if said else [])

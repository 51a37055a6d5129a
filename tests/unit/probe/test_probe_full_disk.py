"""A record of probes for which there is no room is a problem of the measurement, and of nothing else."""

import pytest

from fakes.small_disk import needs_a_small_disk, small_disk
from vferry.model.problem import Problem
from vferry.probe.session import ProbeSession

pytestmark = needs_a_small_disk


async def test_one_that_cannot_be_begun() -> None:
    with small_disk() as disk:
        disk.fill()
        with pytest.raises(Problem, match="No space left") as caught:
            await ProbeSession.start("127.0.0.1", disk.root / "probes", rate=10)
    assert caught.value.code == "probe-record"


async def test_one_that_cannot_be_gone_on_with() -> None:
    with small_disk() as disk:
        async with await ProbeSession.start("127.0.0.1", disk.root / "probes", rate=1000) as session:
            disk.fill()
            await session.wait()
            with pytest.raises(Problem, match="No space left") as caught:
                await session.stop()
    assert caught.value.code == "probe-record"

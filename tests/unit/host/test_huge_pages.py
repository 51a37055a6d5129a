import errno
from pathlib import Path

import pytest

from vferry.host.api import Done, SetHugePages
from vferry.host.huge_pages import set_huge_pages
from vferry.model.problem import Problem

POOL = "sys/devices/system/node/node0/hugepages/hugepages-2048kB"


class Kernel:
    """A node's pages of 2 MiB: `memory` is how many there can be, `used` how many somebody has."""

    def __init__(self, root: Path, now: int = 100, memory: int = 1000, used: int = 0) -> None:
        self.path = root / POOL / "nr_hugepages"
        self.path.parent.mkdir(parents=True)
        self.path.write_text(f"{now}\n")
        self.memory, self.used = memory, used
        self.written: list[int] = []

    @property
    def now(self) -> int:
        return int(self.path.read_text())

    def __call__(self, path: Path, text: str) -> None:
        assert path == self.path
        self.written.append(int(text))
        path.write_text(f"{max(self.used, min(self.memory, int(text)))}\n")
        path.with_name("surplus_hugepages").write_text(f"{max(self.used - int(text), 0)}\n")


def more(count: int) -> SetHugePages:
    return SetHugePages(node=0, size_kib=2048, count=count)


def fewer(count: int, instead_of: int) -> SetHugePages:
    return SetHugePages(node=0, size_kib=2048, count=count, instead_of=instead_of)


def test_there_and_back(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path)
    assert set_huge_pages(tmp_path, more(612), kernel).changed
    assert kernel.now == 612
    assert not set_huge_pages(tmp_path, more(612), kernel).changed
    assert set_huge_pages(tmp_path, fewer(100, 612), kernel).changed
    assert kernel.now == 100
    assert not set_huge_pages(tmp_path, fewer(100, 612), kernel).changed
    assert kernel.written == [612, 100]


def test_more_than_wanted_are_left(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path, now=700)
    assert set_huge_pages(tmp_path, more(612), kernel) == Done(changed=False)
    assert set_huge_pages(tmp_path, fewer(100, 612), kernel).detail.startswith("there are 700")
    assert kernel.written == []


def test_too_few_are_given_back(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path, memory=300)
    with pytest.raises(Problem, match="there is memory for 300 only") as caught:
        set_huge_pages(tmp_path, more(612), kernel)
    assert caught.value.code == "huge-pages-refused"
    assert kernel.now == 100


def test_those_in_use_stay(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path, now=612, used=400)
    assert "300 are in use" in set_huge_pages(tmp_path, fewer(100, 612), kernel).detail
    assert not set_huge_pages(tmp_path, fewer(100, 612), kernel).changed


def test_those_that_only_stay_until_they_are_given_back_are_taken_again(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path, now=612, used=400)
    set_huge_pages(tmp_path, fewer(100, 612), kernel)
    assert kernel.now == 400
    assert set_huge_pages(tmp_path, more(350), kernel).changed
    assert set_huge_pages(tmp_path, fewer(100, 350), kernel).changed
    assert kernel.written == [100, 350, 100]


def test_the_kernel_may_refuse(tmp_path: Path) -> None:
    Kernel(tmp_path)

    def refuse(_path: Path, _text: str) -> None:
        raise OSError(errno.EACCES, "Permission denied")

    with pytest.raises(Problem, match="Permission denied"):
        set_huge_pages(tmp_path, more(612), refuse)


def test_a_size_that_the_kernel_has_not(tmp_path: Path) -> None:
    with pytest.raises(Problem, match="none of this size"):
        set_huge_pages(tmp_path, more(1))

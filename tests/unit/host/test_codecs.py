"""What a gateway could compress with, as the agent sees it without loading anything."""

import subprocess
import sys
from pathlib import Path

import pytest

from vferry.host import codecs
from vferry.host.codecs import installed_codecs
from vferry.model.compression import Traits
from vferry.transfer.codecs import available


def test_what_is_found_is_what_the_gateway_has() -> None:
    assert {*installed_codecs(), "none"} == available()


def test_finding_loads_nothing() -> None:
    look = "import sys; from vferry.host.codecs import installed_codecs; installed_codecs(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert not {"numpy", "lz4", "isal", "backports.zstd"} & set(done.stdout.split())


@pytest.mark.parametrize(
    ("absent", "found"),
    [
        ((), ("lz4", "zstd", "deflate")),
        (("lz4",), ("zstd", "deflate")),
        (("backports.zstd", "compression.zstd"), ("lz4", "deflate")),
        (("numpy",), ()),
    ],
)
def test_a_library_that_is_missing(
    absent: tuple[str, ...], found: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_spec(name: str) -> object:
        return None if name in absent else object()

    monkeypatch.setattr(codecs, "find_spec", find_spec)
    assert installed_codecs(tmp_path) == found


def test_a_package_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codecs, "TRAITS", {"zstd": Traits(2, module="no_such_package.zstd")})
    assert installed_codecs(tmp_path) == ()


@pytest.mark.parametrize(("cache", "there"), [(b"...libqatzip.so.3\0/usr/lib...", True), (b"libqatzip.so.30\0", False)])
def test_quickassist_is_where_the_loader_finds_it(cache: bytes, tmp_path: Path, *, there: bool) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/ld.so.cache").write_bytes(cache)
    assert ("qatzip" in installed_codecs(tmp_path)) is there

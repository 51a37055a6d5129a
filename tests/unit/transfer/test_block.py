"""Blocks and codecs: what comes back, and what is refused."""

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vferry.transfer.block import PASSED_LIMIT, STREAM_LIMIT, BlockHeader, Need, pack_block_header, unpack_block
from vferry.transfer.codecs import CodecError, available, make_codec, qatzip
from vferry.transfer.codecs.none import NoneCodec
from vferry.transfer.differences import DIFFERENCE_LIMIT
from vferry.transfer.multifd import PAGE_BYTES
from vferry.transfer.wire import WireError

words = st.integers(0, 2**32 - 1)
needs = st.lists(st.builds(Need, st.integers(0, 2**16 - 1), words), max_size=5).map(tuple)
headers = st.integers(1, STREAM_LIMIT // PAGE_BYTES).flatmap(
    lambda pages: st.builds(
        BlockHeader,
        st.integers(0, 255),
        words,
        st.integers(pages * PAGE_BYTES, STREAM_LIMIT),
        st.integers(0, 16384),
        words,
        needs,
        st.integers(0, PASSED_LIMIT),
        st.just(pages) | st.just(0),
        st.integers(0, pages * DIFFERENCE_LIMIT),
    ).map(lambda header: header if header.left_out else header._replace(difference_bytes=0))
)
contents = st.one_of(
    st.binary(min_size=1, max_size=300),
    st.builds(lambda part, count: part * count, st.binary(min_size=1, max_size=8), st.integers(1, 20000)),
)
levels = {"none": [0], "lz4": [1, 3], "zstd": [-3, 1, 3], "deflate": [0, 1, 3], "qatzip": [1, 4]}
here = sorted(available())  # qatzip only where libqatzip is
CODECS = {name: make_codec(name) for name in here}
choices = [(name, level) for name in here for level in levels[name]]


@given(headers, st.binary(max_size=50))
def test_a_block_comes_back(header: BlockHeader, content: bytes) -> None:
    found, rest = unpack_block(memoryview(pack_block_header(header) + content))
    assert found == header
    assert rest == content


@given(headers, st.integers(min_value=0), st.integers(1, 255))
def test_a_damaged_header_is_an_error(header: BlockHeader, place: int, change: int) -> None:
    packed = bytearray(pack_block_header(header))
    packed[place % len(packed)] ^= change
    with pytest.raises(WireError):
        unpack_block(memoryview(packed))


@given(headers, st.integers(min_value=1))
def test_a_truncated_header_is_an_error(header: BlockHeader, cut: int) -> None:
    packed = pack_block_header(header)
    with pytest.raises(WireError):
        unpack_block(memoryview(packed)[: -1 - cut % len(packed)])


@given(st.binary(max_size=200))
def test_garbage_is_no_block(data: bytes) -> None:
    with pytest.raises(WireError):
        unpack_block(memoryview(data))


@pytest.mark.parametrize("size", [0, STREAM_LIMIT + 1])
def test_a_block_out_of_bounds_is_an_error(size: int) -> None:
    with pytest.raises(WireError, match="bounds"):
        unpack_block(memoryview(pack_block_header(BlockHeader(0, 0, size, 0, 0))))


def test_no_more_than_a_packet_may_pass_unseen() -> None:
    with pytest.raises(WireError, match="bounds"):
        unpack_block(memoryview(pack_block_header(BlockHeader(0, 0, 1, 0, 0, (), PASSED_LIMIT + 1))))


@pytest.mark.parametrize(("left_out", "size"), [(0, 1), (2, 0), (1, DIFFERENCE_LIMIT + 1)])
def test_differences_out_of_bounds_are_an_error(left_out: int, size: int) -> None:
    with pytest.raises(WireError, match="bounds"):
        unpack_block(memoryview(pack_block_header(BlockHeader(0, 0, 4096, 0, 0, (), 0, left_out, size))))


def test_all_codecs_are_installed_where_this_is_developed() -> None:
    assert available() >= {"none", "lz4", "zstd", "deflate"}


@pytest.mark.parametrize(("name", "level"), choices)
@given(content=contents)
def test_what_is_encoded_comes_back(name: str, level: int, content: bytes) -> None:
    codec = CODECS[name]
    encoded = bytes(codec.encode(memoryview(content), level))
    assert codec.decode(memoryview(encoded), len(content)) == content


@pytest.mark.parametrize(("name", "level"), choices)
@given(content=contents, difference=st.sampled_from([-1, 1]))
def test_another_size_is_an_error(name: str, level: int, content: bytes, difference: int) -> None:
    codec = CODECS[name]
    encoded = bytes(codec.encode(memoryview(content), level))
    with pytest.raises(CodecError):
        codec.decode(memoryview(encoded), len(content) + difference)


@pytest.mark.parametrize("name", here)
@given(data=st.binary(max_size=100), size=st.integers(1, 1000))
def test_garbage_is_an_error_or_of_the_size_announced(name: str, data: bytes, size: int) -> None:
    with suppress(CodecError):
        assert len(CODECS[name].decode(memoryview(data), size)) == size


@pytest.mark.parametrize(("name", "level"), choices)
@given(content=contents, cut=st.integers(min_value=1))
def test_what_is_cut_off_is_an_error_or_was_not_needed(name: str, level: int, content: bytes, cut: int) -> None:
    codec = CODECS[name]
    encoded = bytes(codec.encode(memoryview(content), level))
    with suppress(CodecError):
        assert codec.decode(memoryview(encoded)[: -1 - cut % len(encoded)], len(content)) == content
        assert name == "qatzip"  # whose software does without the trailer


@pytest.mark.parametrize(("vendor", "kind"), [("0x8086", "0x020000"), ("0x1af4", "0x0b4000"), ("", "")])
def test_no_device_is_looked_for_where_there_can_be_none(tmp_path: Path, vendor: str, kind: str) -> None:
    device = tmp_path / "sys/bus/pci/devices/0000:01:00.0"
    device.mkdir(parents=True)
    (device / "vendor").write_text(f"{vendor}\n")
    (device / "class").write_text(f"{kind}\n")
    assert not qatzip.in_hardware(tmp_path)


def test_a_library_that_works_by_software_is_no_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = tmp_path / "sys/bus/pci/devices/0000:01:00.0"
    device.mkdir(parents=True)
    (device / "vendor").write_text("0x8086\n")
    (device / "class").write_text("0x0b4000\n")

    class Fake(NoneCodec):
        in_software = True

    monkeypatch.setattr(qatzip, "make", Fake)
    assert not qatzip.in_hardware(tmp_path)
    Fake.in_software = False
    assert qatzip.in_hardware(tmp_path)

"""Not compressed at all."""

from vferry.transfer.codecs import CodecError


class NoneCodec:
    """Passes blocks on as they are."""

    in_software = False

    def encode(self, data: memoryview, level: int) -> memoryview:
        return data

    def decode(self, data: memoryview, size: int) -> memoryview:
        if len(data) != size:
            raise CodecError(f"{len(data)} bytes instead of {size}")
        return data


def make() -> NoneCodec:
    """Make one for a thread."""
    return NoneCodec()

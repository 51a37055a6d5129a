"""The table of codecs, and their files: read and not imported, since what they need may not be here."""

import ast
import inspect
from pathlib import Path

import pytest

from vferry.model.compression import AUTOMATIC, FOR_HARDWARE, TRAITS, Codec
from vferry.transfer import codecs
from vferry.transfer.tuning import LADDER, Choice

FOLDER = Path(codecs.__file__).parent


def test_every_codec_has_its_file_and_every_file_its_entry() -> None:
    assert {path.stem for path in FOLDER.glob("*.py")} == {*TRAITS, "__init__"}


@pytest.mark.parametrize("name", TRAITS)
def test_a_file_has_what_is_asked_of_a_codec(name: str) -> None:
    text = (FOLDER / f"{name}.py").read_text()
    body = ast.parse(text).body
    functions = {node.name: node for node in body if isinstance(node, ast.FunctionDef)}
    made = functions["make"].returns
    assert isinstance(made, ast.Name)
    (codec,) = (node for node in body if isinstance(node, ast.ClassDef) and node.name == made.id)
    methods = {
        node.name: [arg.arg for arg in node.args.args] for node in codec.body if isinstance(node, ast.FunctionDef)
    }
    for method in (codecs.Codec.encode, codecs.Codec.decode):
        assert methods[method.__name__] == list(inspect.signature(method).parameters)
    assert "in_software" in ast.unparse(codec)
    assert ("in_hardware" in functions) == TRAITS[name].for_hardware
    assert (TRAITS[name].library or "") in text


def test_numbers_keep_their_meaning() -> None:
    assert {"none": 0, "lz4": 1, "zstd": 2, "deflate": 3, "qatzip": 4}.items() <= codecs.NUMBERS.items()
    assert len(codecs.CODECS) == len(codecs.NUMBERS)


def test_what_automatic_chooses_among() -> None:
    assert AUTOMATIC | FOR_HARDWARE | {"none"} == {rung.choice.codec for rung in LADDER}
    assert set(Codec) == {*TRAITS, "auto"}
    assert [rung.choice for rung in LADDER] == [
        Choice("none", 0),
        Choice("lz4", 1),
        Choice("qatzip", 1),
        Choice("zstd", 1),
        Choice("zstd", 3),
    ]

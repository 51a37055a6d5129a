"""The commands that run on hosts, where none of the controller's libraries need be."""

import subprocess
import sys

import pytest

CONTROLLERS = ("dbos", "matplotlib", "rich")


def run(words: str, given: bytes = b"") -> bytes:
    """What a command prints where none of these can be imported."""
    blocked = "; ".join(f"sys.modules[{name!r}] = None" for name in CONTROLLERS)
    script = f"import sys; {blocked}; sys.argv = ['vferry', *{words.split()!r}]; from vferry.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", script], input=given, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout


@pytest.mark.parametrize("words", ["agent run --help", "gateway send --help", "gateway receive --help"])
def test_a_host_s_command_needs_no_library_of_the_controller(words: str) -> None:
    run(words)


def test_a_sample_of_memory_is_tried_there() -> None:
    assert b'"zero_pages":2' in run("gateway sample", bytes(8192))

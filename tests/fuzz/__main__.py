"""`PYTHONPATH=tests:tests/unit python -m fuzz`: feeds what reads the bytes of other processes with what may break it.

Coverage leads it, for `--seconds`. An input that raises, hangs or takes too much memory ends it, and is printed and
kept; `--input FILE` tries it again.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["vferry"], enable_loader_override=False):
    from fuzz import targets
    from fuzz.seeds import seeds

HANG_S, MEMORY_MIB, LENGTH = 10, 2048, 1 << 15


def fuzz(seconds: int) -> int:
    """Runs the fuzzer, which never returns, in a process of its own; its exit status."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        corpus = Path(folder, "corpus")
        corpus.mkdir()
        names = [target.__name__ for target in targets.TARGETS]
        for number, (name, data) in enumerate(seeds()):
            (corpus / str(number)).write_bytes(bytes([names.index(name)]) + data)
        limits = [f"-max_total_time={seconds}", f"-timeout={HANG_S}", f"-rss_limit_mb={MEMORY_MIB}"]
        more = [f"-max_len={LENGTH}", f"-artifact_prefix={Path.cwd()}/fuzz-", "-verbosity=0", "-print_final_stats=1"]
        return subprocess.call([sys.executable, "-m", "fuzz", "--child", *limits, *more, str(corpus)])


def main() -> None:
    if "--child" in sys.argv:
        words = [word for word in sys.argv if word != "--child"]
        atheris.Setup(words, targets.run)
        atheris.Fuzz()
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--input", type=Path)
    options = parser.parse_args()
    if options.input:
        targets.run(options.input.read_bytes())
    else:
        sys.exit(fuzz(options.seconds))


main()

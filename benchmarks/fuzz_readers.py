"""Broken files for the readers of files from anywhere, more and more of them, until one does what no file may.

    python benchmarks/fuzz_readers.py TARGET [--seconds 60] [--seed 0] [--corpus FOLDER] [--plain]
    python benchmarks/fuzz_readers.py all --seconds 30

The readers, the files to begin with and what is to hold are those of `tests/fuzz_targets.py`. With atheris installed
(`pip install atheris`; Linux) changes are led by what code they reach, in a process of its own for each reader; without
it, or with `--plain`, they are drawn by chance. A file that broke a reader is kept as `crash-TARGET`, in the present
folder or in --corpus, and the exit code is not 0.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
import traceback
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

LATE = ("posezoo.models.darknet", "posezoo.zoo.weights.read", "posezoo.formats.guess")  # else imported when called
MEMORY_MB = 3000  # of which PyTorch and pyarrow take some 350


def plain(name: str, seconds: float, seed: int, keep: Path) -> int:
    """Changes by chance; those that were read, or failed in a new way, are changed further."""
    from fuzz_changes import mutate
    from fuzz_targets import Found, check, get_target

    target, rng = get_target(name), random.Random(seed)
    pool = list(target.seeds())
    tried = read = 0
    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        while time.monotonic() < end:
            data = mutate(rng.choice(pool), pool, target.text, rng)[: 1 << 16]
            tried += 1
            try:
                if check(target, data, Path(folder)):
                    read += 1
                    if len(pool) < 1000:
                        pool.append(data)
            except Found as found:
                report(keep / f"crash-{name}", data, found)
                return 1
    print(f"{name}: {tried} files, {read} of them read, nothing found")
    return 0


def guided(name: str, seconds: float, seed: int, keep: Path) -> int:
    """Changes that reach new code are changed further (libFuzzer); our modules must not have been imported before."""
    import atheris

    with atheris.instrument_imports(include=["posezoo", "json", "csv", "zipfile", "pickletools"]):
        for module in LATE:
            if find_spec("torch") is not None:
                import_module(module)
        import fuzz_targets
    from fuzz_changes import mutate

    target = fuzz_targets.get_target(name)
    seeds = target.seeds()
    folder = Path(tempfile.mkdtemp(prefix=f"fuzz-{name}-"))
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, data in enumerate(seeds):
        (corpus / str(number)).write_bytes(data)

    def one(data: bytes) -> None:
        try:
            fuzz_targets.check(target, data, folder)
        except fuzz_targets.Found as found:
            report(keep / f"crash-{name}", data, found)
            raise

    def change(data: bytes, most: int, number: int) -> bytes:
        rng = random.Random(number)
        made = atheris.Mutate(data, most) if rng.random() < 0.3 else mutate(data, seeds, target.text, rng)
        return made[:most]

    options = [
        f"-max_total_time={int(seconds)}",
        f"-seed={seed + 1}",
        "-timeout=20",
        f"-rss_limit_mb={MEMORY_MB}",
        f"-malloc_limit_mb={MEMORY_MB}",
        f"-max_len={1 << 16}",
        f"-artifact_prefix={folder}/",
        "-print_final_stats=1",
        "-verbosity=0",
    ]
    atheris.Setup([sys.argv[0], *options, str(corpus)], one, custom_mutator=change)
    atheris.Fuzz()
    return 0


def report(path: Path, data: bytes, found: Exception) -> None:
    """Keep the file, and say what it did."""
    path.write_bytes(data)
    cause = found.__cause__ or found
    print(f"{path.name}: {found}\n{''.join(traceback.format_exception(cause)[-4:])}", file=sys.stderr)


def main() -> int:
    """The exit code: not 0 where something was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", help='the name of a reader, or "all"')
    parser.add_argument("--seconds", type=float, default=60, help="for each reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--corpus", type=Path, default=Path("."), help="where a file that broke a reader is kept")
    parser.add_argument("--plain", action="store_true", help="changes by chance, even where atheris is installed")
    options = parser.parse_args()
    if options.target == "all":
        from fuzz_targets import TARGETS

        shared = ["--seconds", str(options.seconds), "--seed", str(options.seed), "--corpus", str(options.corpus)]
        shared += ["--plain"] * options.plain
        return int(any([subprocess.run([sys.executable, __file__, name, *shared]).returncode for name in TARGETS]))
    way = plain if options.plain or find_spec("atheris") is None else guided
    return way(options.target, options.seconds, options.seed, options.corpus)


if __name__ == "__main__":
    sys.exit(main())

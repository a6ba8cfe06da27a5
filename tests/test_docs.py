"""Every code block of the documentation and the README runs, or at least fits the commands that there are.

How the pages say what is what, behind the backticks:

    python           runs; the blocks of a page share one namespace; `print(...)  # this` has to print this
    console          lines after `$ ` run; what stands below one has to come out, `...` standing for anything
    toml, json       is read; a recipe has to be one
    text, sh         output, and commands of other projects: neither is run
    (nothing)        in the README: its commands have to fit

    no-run: WHY      the commands have to fit, Python has to compile
    needs: MODULES   the same where one of these cannot be imported
    slow             runs with the slow tests
    theirs           code of another project: nothing is asked of it
"""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from docs_world import lay_out
from posezoo import cli, toml

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md"]
_FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=indent)```$", re.M | re.S)
_LANGUAGES = {"python", "py", "console", "toml", "json", "text", "sh", ""}
_FLAGS = re.compile(r"(no-run: .+|needs: [\w, ]+|slow|theirs)?")


@dataclass(frozen=True)
class Block:
    """A fenced block: where it stands, its language, what is said behind that, and its text."""

    where: str
    language: str
    flags: str
    text: str

    @property
    def runs(self) -> bool:
        if self.flags.startswith("no-run") or self.flags == "theirs":
            return False
        modules = self.flags.removeprefix("needs:").split(",") if self.flags.startswith("needs:") else []
        return all(importlib.util.find_spec(module.strip()) for module in modules)

    @property
    def commands(self) -> list[tuple[str, str]]:
        """Each command line with the output that is promised."""
        text = self.text.replace("\\\n", " ")
        if self.language == "console":
            parts = re.split(r"^\$ ", text, flags=re.M)
            assert not parts[0].strip(), f"{self.where}: a console block begins with a command, '$ ...'"
            return [(line.strip(), output) for line, _, output in (part.partition("\n") for part in parts[1:])]
        return [(line.strip(), "") for line in text.splitlines() if line.startswith("posezoo ")]


def blocks(page: Path) -> list[Block]:
    text, found = page.read_text(encoding="utf-8"), []
    for fence in _FENCE.finditer(text):
        language, _, flags = fence["info"].strip().partition(" ")
        where = f"{page.relative_to(ROOT)}:{text[: fence.start()].count(chr(10)) + 1}"
        body = re.sub(f"^{fence['indent']}", "", fence["body"], flags=re.M)
        found.append(Block(where, language, flags.strip(), body))
    return found


BLOCKS = {page.relative_to(ROOT).as_posix(): blocks(page) for page in PAGES}
EVERY = [block for found in BLOCKS.values() for block in found]


def of_pages(slow: bool) -> Iterator[Any]:
    """The pages with something to run; those with slow blocks a second time, marked so."""
    for name, found in BLOCKS.items():
        kinds = [block.flags == "slow" for block in found if block.language in ("python", "console") and block.runs]
        if slow in kinds:
            yield pytest.param(name, marks=[pytest.mark.slow, pytest.mark.timeout(900)] if slow else [])


def test_there_is_documentation() -> None:
    assert len(PAGES) > 15 and sum(len(block.commands) for block in EVERY) > 60


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_are_of_known_kinds(name: str, tmp_path: Path) -> None:
    for block in BLOCKS[name]:
        known = block.language in _LANGUAGES and _FLAGS.fullmatch(block.flags)
        assert known, f"{block.where}: ```{block.language} {block.flags}"
        check_text(block, tmp_path)


def check_text(block: Block, tmp_path: Path) -> None:
    """Read what is data, compile what is Python."""
    if block.language == "toml":
        (tmp_path / "a.toml").write_text(block.text, encoding="utf-8")
        table = toml.load(tmp_path / "a.toml")
        assert table
        if "model" in table:
            from posezoo.train.recipe import parse

            assert parse(table, block.where).name == table["name"]
    if block.language == "json":
        assert json.loads(block.text)
    if block.language in ("python", "py") and block.flags != "theirs":
        compile(block.text, block.where, "exec")


@pytest.mark.parametrize("name", BLOCKS)
def test_commands_fit(name: str) -> None:
    for block in BLOCKS[name]:
        for line, _ in block.commands if block.language in ("console", "") else ():
            if line.startswith("posezoo "):
                fit(line, block.where)


def fit(line: str, where: str = "") -> None:
    """Have the command line's own parser take it, options, values and number of arguments, without running it."""
    command = cli.app
    _, *words = shlex.split(line, comments=True)
    while hasattr(command, "commands"):
        assert words and words[0] in command.commands, f"{where}: no such command: {line}"
        command = command.commands[words.pop(0)]
    if words not in (["--help"], ["-h"]):
        try:
            command.make_context("posezoo", words)
        except Exception as err:  # of typer's own, or of click's, by its version
            raise AssertionError(f"{where}: {line}: {err or type(err).__name__}") from None


@pytest.mark.parametrize("line", ["predcit a", "predict a --colour", "predict a --every few", "export", "data x"])
def test_commands_that_do_not_fit_are_noticed(line: str) -> None:
    with pytest.raises(AssertionError):
        fit(f"posezoo {line}")


@pytest.mark.parametrize("name", [*of_pages(slow=False), *of_pages(slow=True)])
def test_page_runs(
    name: str, request: pytest.FixtureRequest, tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The blocks of a page, one after the other, in a folder of their own."""
    is_slow = request.node.get_closest_marker("slow") is not None
    lay_out(tmp_path, (ROOT / name).read_text(encoding="utf-8"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys, "argv", ["posezoo"])
    monkeypatch.setenv("POSEZOO_HOME", str(tmp_path / "home"))
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in BLOCKS[name]:
        if not block.runs or (block.flags == "slow" and not is_slow):
            continue
        if block.language == "python":
            exec(compile(block.text, block.where, "exec"), namespace)
            promised = re.findall(r"^ *print\(.*\)  # ([^:\n]+)", block.text, re.M)
            compare("\n".join(promised), capfd.readouterr().out, block.where)
        elif block.language == "console":
            for line, output in block.commands:
                code = run(line)
                printed = "\n".join(capfd.readouterr())
                expected = 2 if re.search(r"^error: ", output, re.M) else 0
                if code != expected and (extra := re.search(r"pip install 'posezoo\[\w+\]'", printed)):
                    pytest.skip(f"{line}: not everything is installed: {extra[0]}")
                assert code == expected, f"{block.where}: {line}\n{printed}"
                compare(output, printed, f"{block.where}: {line}")


def run(line: str) -> int:
    """Run a command line, ours within this process."""
    words = shlex.split(line, comments=True)
    if words[0] != "posezoo":
        return subprocess.run(line, shell=True, check=False).returncode
    try:
        cli.main([each for word in words[1:] for each in expanded(word)])
    except SystemExit as ended:
        return int(ended.code or 0)
    finally:
        sys.stdout.flush()
    return 0


def expanded(word: str) -> list[str]:
    """A pattern as a shell has it."""
    found = sorted(map(str, Path().glob(word))) if "*" in word else []
    return found or [word]


def compare(promised: str, printed: str, where: str) -> None:
    """Every line that is promised is printed, in that order; spaces do not count."""
    left = [" ".join(line.split()) for line in printed.splitlines()]
    for line in filter(None, (" ".join(line.split()) for line in promised.splitlines())):
        pattern = re.escape(line).replace(re.escape("..."), ".*")
        matches = [n for n, each in enumerate(left) if re.fullmatch(pattern, each)]
        assert matches, f"{where}: did not print\n  {line}\nbut\n{printed}"
        left = left[matches[0] + 1 :]


def test_what_is_not_printed_is_noticed() -> None:
    compare("a ...\nc", "a  b\nx\nc\n", "here")
    for promised in ("c\na b", "a", "a ...\na ..."):
        with pytest.raises(AssertionError):
            compare(promised, "a b\nc", "here")

"""The site made of docs/: its generated tables are whole, and nothing of it is read from elsewhere."""

from __future__ import annotations

import html
import importlib.util
import re
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import posezoo
from posezoo import track
from posezoo.data.catalog import list_datasets

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))


@pytest.fixture(scope="module")
def hook() -> ModuleType:
    spec: Any = importlib.util.spec_from_file_location("docs_hook", ROOT / "scripts" / "docs_hook.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["docs_hook"] = module
    spec.loader.exec_module(module)
    return module


def rows_of(table: str) -> list[list[str]]:
    rows = re.findall(r"<tr>(<td.*?)</tr>", table)
    return [[re.sub("<[^>]+>", "", cell) for cell in re.findall(r"<td.*?</td>", row)] for row in rows]


def test_every_page_is_in_the_navigation() -> None:
    listed = re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.M)
    assert sorted(listed) == sorted(page.relative_to(ROOT / "docs").as_posix() for page in PAGES)


def test_every_table_is_made(hook: ModuleType) -> None:
    used = set()
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        used |= {name for name, _ in re.findall(r"<!-- table: (\w+)(.*?) -->", text)}
        assert "<!-- table" not in hook.on_page_markdown(text), page.name
    assert used == set(hook.TABLES)


def test_a_page_read_as_a_file_says_where_its_tables_are(hook: ModuleType) -> None:
    marks = 0
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        places = re.findall(r"^<!-- (?:table: (.*?)|unbuilt) -->\n((?:.+\n)*)", text, re.M)
        built = hook.on_page_markdown(text)
        assert len(places) == text.count("<!-- table: ") + text.count("<!-- unbuilt -->"), page.name
        for name, said in places:
            marks += 1
            assert "`make docs` puts" in " ".join(said.split()), f"{page.name}: nothing is visible at {name}"
            assert said.strip() not in built
            links = re.findall(r"\]\(([^)]+)\)", said)
            assert [link for link in links if not (page.parent / link).exists()] == []
            command = name.removeprefix("options ")
            assert command == name or said.startswith(f"`posezoo {command} --help` prints them")
        assert "make docs" not in built and "unbuilt" not in built, page.name
        if "\n::: " in text:  # what mkdocstrings fills
            assert "<!-- unbuilt -->" in text, page.name
    assert marks > len(hook.TABLES)


def test_only_the_paragraph_at_a_mark_is_left_out(hook: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(hook.TABLES, "datasets", lambda: "TABLE")
    mark = "<!-- table: datasets -->"
    page = f"a\n\n{mark}\nread it\nthere\n\nb\n\n{mark}\n\nc\n<!-- unbuilt -->\nd\n\ne\n"
    assert hook.on_page_markdown(page) == "a\n\nTABLE\n\nb\n\nTABLE\n\nc\ne\n"


def test_every_command_is_in_the_reference() -> None:
    from posezoo import cli

    text = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    for name, command in cli.app.commands.items():
        for path in [f"{name} {sub}" for sub in getattr(command, "commands", {})] or [name]:
            assert f"## posezoo {path}\n\n<!-- table: options {path} -->" in text


def test_reference_of_a_command_has_all_that_its_help_has(hook: ModuleType) -> None:
    from posezoo import cli

    for name, command in cli.app.commands.items():
        for path in [[name, sub] for sub in getattr(command, "commands", {})] or [[name]]:
            found: Any = cli.app
            for part in path:
                found = found.commands[part]
            context = found.context_class(found, info_name=f"posezoo {' '.join(path)}", terminal_width=10**4)
            shown = html.unescape(re.sub("<[^>]+>", " ", hook.options(*path)))
            missing = words(found.get_help(context)) - words(shown)
            # those of --help itself, and the words that the columns stand for
            assert missing <= {*"Usage default -h --help Show this message and exit".split()}, path


def words(text: str) -> set[str]:
    return set(re.findall(r"[\w./:=<>~-]*\w", text))


def test_an_option_whose_default_is_0_says_so(hook: ModuleType) -> None:
    rows = {row[0].split()[0]: row for row in rows_of(hook.options("demo"))}
    assert rows["--min_box_area,"][2] == "0"
    assert rows["--flip"][2] == ""
    ranges = {row[0].split()[0]: row for row in rows_of(hook.options("data", "preview"))}["--people"]
    assert html.unescape(ranges[1]).endswith("[x>=1]") and ranges[2] == "12"


def test_names_of_the_reference_can_be_imported() -> None:
    text = (ROOT / "docs" / "reference" / "api.md").read_text(encoding="utf-8")
    entries = re.findall(r"^::: (\S+)\n    options:\n      heading: (\S+)$", text, re.M)
    assert len(entries) == text.count("\n::: ") > 30
    for documented, heading in entries:
        module, _, name = heading.rpartition(".")
        home, _, _ = documented.rpartition(".")
        assert getattr(import_module(module), name) is getattr(import_module(home), name), heading
    shown = {heading.removeprefix("posezoo.") for _, heading in entries}
    assert {name for name in posezoo.__all__ if not name.startswith("_")} <= shown


def test_a_default_that_is_a_constant_is_shown_by_its_value() -> None:
    griffe = pytest.importorskip("griffe", reason="needs the extra docs")
    extensions = griffe.load_extensions(str(ROOT / "scripts" / "griffe_hook.py"))
    package = griffe.load("posezoo", search_paths=[str(ROOT / "src")], extensions=extensions)
    parameters = package["track.Tracker"].parameters
    assert [str(parameters[name].default) for name in ("sure", "hits")] == [f"{track.SURE}", f"{track.HITS}"]
    assert str(package["evaluate.protocol.Protocol"].parameters["boxes"].default).strip("\"'") == "gt"


def test_zoo_page_has_every_model_and_keeps_claims_apart(hook: ModuleType) -> None:
    every = [*posezoo.list_models(), *posezoo.zoo.list_models(task="detection")]
    assert [row[0] for row in rows_of(hook.zoo_models())] == every
    claims = [score for name in posezoo.list_models() for score in posezoo.get_entry(name).claimed]
    speeds = sum(len(score.metrics) for score in claims if score.unit not in ("percent", "fraction"))
    accuracies = sum(score.unit in ("percent", "fraction") for score in claims)
    assert len(rows_of(hook.zoo_claimed())) == speeds + accuracies > 100
    measured = [score for name in every for score in posezoo.get_entry(name).measured]
    assert len(rows_of(hook.zoo_measured())) == len(measured) > 0
    for score in measured:
        assert score.protocol not in hook.zoo_claimed()


def test_claims_sort_by_value_and_show_what_was_printed(hook: ModuleType) -> None:
    cells = re.findall(r'data-value="([\d.]+)">([\d.]+)</td>', hook.zoo_claimed())
    assert {round(float(value) / float(shown), 6) for value, shown in cells if float(shown) > 0} == {1, 100}


@pytest.mark.parametrize("name", ["datasets", "protocols", "layouts"])
def test_reference_has_every_dataset(hook: ModuleType, name: str) -> None:
    made: Callable[[], str] = hook.TABLES[name]
    assert [dataset for dataset in list_datasets() if dataset not in made()] == []


def test_results_are_all_there(hook: ModuleType) -> None:
    text = hook.results()
    for file in (ROOT / "results").glob("*.csv"):
        assert f"{{ #{file.stem} }}" in text and f"`results/{file.name}`" in text


def test_cost_of_a_batch_grows_in_proportion(hook: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = "way,worker seconds a picture,bytes read a picture,bytes written a picture"
    (tmp_path / "batch_throughput.csv").write_text(f"{columns}\nbatch,0.36,100000,500\n", encoding="utf-8")
    monkeypatch.setattr(hook, "RESULTS", tmp_path)
    million, billion = rows_of(hook.batch_cost())
    assert million == ["batch", "10^6", "100", "0.1", "100", "0.5"]
    assert billion == ["batch", "10^9", "100,000", "65.1", "100,000", "500.0"]


def test_what_is_for_the_tests_is_not_shown(hook: ModuleType) -> None:
    shown = hook.on_page_markdown("```console no-run: needs a camera\n$ a\n```\n\n   ```python\n   b\n   ```\n")
    assert shown == "```console\n$ a\n```\n\n   ```python\n   b\n   ```\n"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_site_is_built_and_needs_no_other(tmp_path: Path) -> None:
    for module in ("mkdocs", "material", "mkdocstrings"):
        pytest.importorskip(module, reason="needs the extra docs")
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path / "site"), strict=True)
    config.plugins.on_startup(command="build", dirty=False)
    build(config)
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > len(PAGES)  # and the page for what is not found
    for page in pages:
        text = re.sub(r"(<script\b[^>]*>).*?</script>", r"\1", page.read_text(encoding="utf-8"), flags=re.S)
        loaded = re.findall(r"<(?:script|img|iframe|link)\b[^>]*?\b(?:src|href)=\"?([^\"\s>]+)", text)
        assert loaded or page.name == "throughput.html"  # the chart is one file
        assert not [address for address in loaded if re.match(r"(https?:)?//", address)], page.name
        for address in loaded:
            if not address.startswith(("#", "data:", "/")):
                assert (page.parent / address.partition("?")[0]).resolve().exists(), f"{page.name}: {address}"

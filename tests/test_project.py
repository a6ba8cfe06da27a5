"""The rules of the house that no other test would notice being broken."""

from __future__ import annotations

import ast
import csv
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import posezoo
from posezoo import toml

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "posezoo"
MODULES = sorted(PACKAGE.rglob("*.py"))
HEAVY = ("torch", "cv2", "onnxruntime")
DOCUMENTS = ("README.md", "CONTRIBUTING.md")
PROJECT = toml.load(ROOT / "pyproject.toml")["project"]


def run_python(code: str, cwd: Path) -> str:
    """Standard output of `code` in a fresh interpreter that imports posezoo from this tree."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def code_blocks(markdown: str, language: str = "") -> list[str]:
    """The fenced blocks of that language (none: those without one)."""
    return [body for tag, body in re.findall(r"^```(\w*)\n(.*?)^```$", markdown, re.M | re.S) if tag == language]


HELP = """
import sys
from posezoo.cli import main
sys.argv = ["posezoo", "--help"]
try:
    main()
except SystemExit:
    pass
"""


@pytest.mark.parametrize("code", ["import posezoo", HELP], ids=["import posezoo", "posezoo --help"])
def test_start_is_light(code: str, tmp_path: Path) -> None:
    report = f"\nimport sys; print('loaded:', *[m for m in {HEAVY} if m in sys.modules])"
    assert run_python(code + report, tmp_path).splitlines()[-1].split() == ["loaded:"]


def test_modules_stay_short() -> None:
    lengths = {path.relative_to(PACKAGE).as_posix(): path.read_bytes().count(b"\n") for path in MODULES}
    assert len(lengths) > 20
    assert {name: lines for name, lines in lengths.items() if lines > 450} == {}, "the aim is 400: split them"


def undocumented(tree: ast.Module) -> Iterator[str]:
    """Public functions, classes and methods without a docstring (`__init__` belongs to its class)."""
    if ast.get_docstring(tree) is None:
        yield "the module"
    scopes: list[tuple[str, ast.AST]] = [("", tree)]
    while scopes:
        prefix, scope = scopes.pop()
        for node in ast.iter_child_nodes(scope):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or node.name.startswith("_"):
                continue
            marks = {ast.unparse(d).rpartition(".")[2] for d in node.decorator_list}
            if ast.get_docstring(node) is None and not marks & {"overload", "setter", "override"}:
                yield prefix + node.name
            if isinstance(node, ast.ClassDef):
                scopes.append((f"{prefix}{node.name}.", node))


def test_undocumented_is_noticed() -> None:
    source = '"""M."""\nclass A:\n    """A."""\n    def bare(self): ...\n    def _own(self): ...\ndef f(): ...\n'
    assert set(undocumented(ast.parse(source))) == {"A.bare", "f"}


def test_public_names_are_documented() -> None:
    trees = {path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in MODULES}
    assert [f"{name}: {what}" for name, tree in trees.items() for what in undocumented(tree)] == []


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel built from this tree, without the network."""
    pytest.importorskip("hatchling", reason="needs hatchling, which the extra dev brings")
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def test_wheel_holds_code_and_data(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    files = [p for p in PACKAGE.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    data = {p.relative_to(PACKAGE.parent).as_posix() for p in files if p.suffix != ".py" and p.name[0] != "."}
    code = {p.relative_to(PACKAGE.parent).as_posix() for p in MODULES}
    assert "posezoo/skeletons/coco17.toml" in data
    assert (data | code) - inside == set()
    assert {name.split("/")[0] for name in inside} == {"posezoo", f"posezoo-{PROJECT['version']}.dist-info"}
    assert any(name.endswith("licenses/LICENSE") for name in inside)


def test_wheel_is_small(wheel: Path) -> None:
    assert wheel.stat().st_size < 35e6, "the embedded weights have 30 MB to share"


def test_core_asks_for_no_torch() -> None:
    names = {re.split(r"[\s<>=!~;\[]", line)[0] for line in PROJECT["dependencies"]}
    assert names == {
        *(
            "numpy",
            "opencv-python-headless",
            "onnxruntime",
            "typer",
            "rich",
            "pydantic",
            "requests",
            "filelock",
            "hotcoco",
            "packaging",
            "tomli",
        )
    }


def test_every_dependency_is_pinned() -> None:
    pins = {line.split("==")[0] for line in text_of("constraints.txt").splitlines() if "==" in line}
    extras = PROJECT["optional-dependencies"].values()
    wanted = {re.split(r"[\s<>=!~;\[]", line)[0] for lines in (PROJECT["dependencies"], *extras) for line in lines}
    assert wanted - pins == {"posezoo"}


@pytest.mark.parametrize("document", [*DOCUMENTS, "Makefile"])
def test_installs_are_pinned(document: str) -> None:
    installs = re.findall(r"\bpip install (?!`).*", text_of(document))
    assert installs
    assert [line for line in installs if not re.search(r"(^| )-c constraints\.txt ", line)] == []


@pytest.mark.parametrize("document", [*DOCUMENTS, ".ci/run"])
def test_make_targets_exist(document: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", text_of("Makefile"), re.M))
    text = text_of(document)
    if document.endswith(".md"):
        text = "\n".join([*code_blocks(text), *re.findall(r"`(make [^`]+)`", text)])
    used = set(re.findall(r"^make (?:--\S+ )*([a-z-]+)", text, re.M))
    assert used
    assert used - targets == set()


@pytest.mark.parametrize("document", [*DOCUMENTS, "examples/README.md"])
def test_files_named_in_documents_exist(document: str) -> None:
    here = (ROOT / document).parent
    links = [n for n in re.findall(r"\]\(([^)#]+)\)", text_of(document)) if "://" not in n]
    modules = re.findall(r"`([a-z_]+(?:/[a-z_0-9]+)*(?:/|\.py|\.toml))`", text_of(document))
    missing = [n for n in links if not (here / n).exists()]
    missing += [n for n in modules if not any((base / n).exists() for base in (here, PACKAGE))]
    assert missing == []


def test_examples_are_credited() -> None:
    pictures = {p.name for p in (ROOT / "examples").iterdir() if p.suffix != ".md"}
    rows = re.findall(r"^\| (\w+\.\w+[^|]*) \|", text_of("examples/README.md"), re.M)
    credited = {name for row in rows for name in row.split(", ")}
    assert pictures
    assert pictures == credited


def test_version_is_the_same_everywhere() -> None:
    versions = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - \d{4}-\d\d-\d\d$", text_of("CHANGELOG.md"), re.M)
    assert versions[0] == PROJECT["version"] == posezoo.__version__


def table_of(name: str) -> list[dict[str, str]]:
    with (ROOT / "results" / name).open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_readme_says_what_was_measured() -> None:
    text = text_of("README.md")
    rows = [row for row in table_of("deploy_speed.csv") if (row["precision"], row["batch_size"]) == ("int8", "1")]
    ranges = []
    for vnni in (True, False):
        times = [float(row["times"]) for row in rows if ("VNNI" in row["processor"]) == vnni]
        ranges.append(f"{min(times):.1f} to {max(times):.1f}")
    assert f"INT8 is {ranges[0]} times as fast as torch eager on a processor with VNNI, {ranges[1]} without" in text
    plain = {row["what"]: row for row in reversed(table_of("embedded_quality.csv"))}
    given, own = ([f"{float(plain[what][key]):.2f}" for key in ("AP", "AP50")] for what in ("pose", "end to end"))
    assert f"OKS AP {given[0]}, AP50 {given[1]} in given boxes; AP {own[0]}, AP50 {own[1]} with its own" in text

"""`posezoo doctor`: an installation that works, and what is said of one that does not."""

from __future__ import annotations

import errno
import importlib.metadata
import importlib.util
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from posezoo import cli, doctor

SMALL = {"core": [Requirement("numpy>=1.26"), Requirement("rich")]}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An installation of two packages and no runtime; the folder of weights that it has."""
    monkeypatch.setattr(doctor, "requirements", lambda: dict(SMALL))
    monkeypatch.setattr(doctor, "RUNTIMES", {})
    monkeypatch.setenv("POSEZOO_HOME", str(tmp_path / "weights"))
    return tmp_path / "weights"


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["doctor", *arguments])
    return int(stopped.value.code or 0), capsys.readouterr().out


def problems() -> dict[str, str]:
    return {finding.name: finding.problem for finding in doctor.examine() if finding.problem}


def test_a_sound_installation(small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(doctor, "RUNTIMES", {"onnx": "core"})
    small.mkdir()
    (small / "a.pth").write_bytes(bytes(3_000_000))
    code, out = run(capsys)
    assert code == 0 and out.endswith("No problem found.\n") and "PROBLEM" not in out
    assert "\ncore       numpy " in out and "\npose       onnx on cpu, fp32, " in out
    assert f"\nweights    {small}: 1 file, 3 MB, " in out and f"POSEZOO_HOME={small}" in out
    code, out = run(capsys, "--json")
    names = [row["name"] for row in json.loads(out)]
    assert code == 0 and names == ["posezoo", "python", "core", "devices", "pose", "detector", "weights", "settings"]


def test_each_line_is_out_before_the_next_thing_is_looked_at(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    seen = []

    def examine() -> Iterator[doctor.Finding]:
        for name in ("first", "second"):
            yield doctor.Finding(name, "there", "broken" if name == "first" else None)
            seen.append(capfd.readouterr().out)

    monkeypatch.setattr(doctor, "examine", examine)
    with pytest.raises(SystemExit):
        cli.main(["doctor"])
    assert seen == ["first      there\n           PROBLEM: broken\n", "second     there\n"]
    assert capfd.readouterr().out == "1 problem\n"
    seen.clear()
    with pytest.raises(SystemExit):
        cli.main(["doctor", "--json"])
    assert seen == ["", ""] and len(json.loads(capfd.readouterr().out)) == 2


@pytest.mark.slow
def test_this_installation(capsys: pytest.CaptureFixture[str]) -> None:
    code, out = run(capsys)
    assert code == 0 and "openvino on cpu" in out and "torch on cpu" in out


def test_every_package_is_imported_by_its_name() -> None:
    needs = doctor.requirements()
    assert {"core", "torch", "train", "deploy", "serve"} <= set(needs) and not {"dev", "docs", "all"} & set(needs)
    installed = 0
    for need in {each.name: each for extra in needs.values() for each in extra}.values():
        try:
            importlib.metadata.version(need.name)
        except importlib.metadata.PackageNotFoundError:
            continue
        assert doctor.module_of(need), need.name
        assert importlib.util.find_spec(doctor.module_of(need)) is not None, need.name
        installed += 1
    assert installed >= 12


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise ImportError('no libGL.so.1')", "ImportError: no libGL.so.1"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "signal 4"),
        ("import os; os._exit(3)", "exit code 3"),
        ("import time; time.sleep(60)", "took more than 1 s"),
    ],
)
def test_packages_that_cannot_be_imported(
    small: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str, said: str
) -> None:
    (tmp_path / "brokenpackage.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    if "sleep" in code:
        monkeypatch.setattr(doctor, "PATIENCE_S", 1)
    monkeypatch.setitem(doctor.MODULES, "rich", "brokenpackage")
    found = problems()
    assert set(found) == {"core"} and "brokenpackage" in found["core"] and said in found["core"]


def test_packages_that_lack_or_are_old(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    extra = {"video": [Requirement("no-such-package>=2")], "chart": [Requirement("rich>=999")]}
    monkeypatch.setattr(doctor, "requirements", lambda: {**SMALL, **extra})
    found = {finding.name: finding for finding in doctor.examine()}
    assert found["video"].found == "not installed: no-such-package; pip install 'posezoo[video]'"
    assert found["video"].missing and found["video"].problem is None and not found["core"].missing
    assert ">=999 is needed; pip install 'posezoo[chart]' --upgrade" in (found["chart"].problem or "")
    monkeypatch.setattr(doctor, "requirements", lambda: {"core": extra["video"]})
    found = {finding.name: finding for finding in doctor.examine()}
    assert found["core"].problem == "not installed: no-such-package; pip install posezoo"
    assert "devices" not in found and "weights" in found


def test_what_is_not_installed_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_: str) -> Any:
        raise importlib.metadata.PackageNotFoundError

    monkeypatch.setattr(importlib.metadata, "metadata", none)
    assert "pip install -e ." in problems()["packages"]


def test_packages_that_overwrite_each_other(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "CLASHES", (("both", ("numpy", "rich", "no-such-package")),))
    assert problems()["both"].startswith("they overwrite each other's files; pip uninstall numpy rich, ")


def test_networks_that_differ_or_do_not_run(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "RUNTIMES", {"onnx": "core"})
    monkeypatch.setattr(doctor, "AGREE", -1.0)
    assert problems()["pose"].startswith("onnx differs from onnx by 0 of the range")
    monkeypatch.setattr(doctor, "AGREE", 1.0)
    monkeypatch.setattr(doctor, "RUNTIMES", {"abacus": "core"})
    assert "unknown runtime 'abacus'" in problems()["detector"]
    monkeypatch.setattr("posezoo.deploy.runtimes.open_runtime", lambda *_: 1 / 0)
    assert problems()["pose"] == "abacus: division by zero"


def test_a_folder_that_cannot_take_weights(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LEAST_FREE", 1e18)
    assert "set POSEZOO_HOME to a folder with more" in problems()["weights"]
    (small.parent / "file").write_text("")
    monkeypatch.setenv("POSEZOO_HOME", str(small.parent / "file"))
    assert problems()["weights"].startswith(f"cannot write to {small.parent / 'file'}: ")


def test_a_folder_that_may_not_be_looked_into(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small.mkdir()

    def refuse(usual: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *args: Any, **kwargs: Any) -> Any:
            if isinstance(path, str | Path) and Path(path).is_relative_to(small):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return usual(path, *args, **kwargs)

        return call

    for name in ("stat", "listdir", "scandir"):
        monkeypatch.setattr(os, name, refuse(getattr(os, name)))
    assert problems()["weights"] == f"cannot look into {small}: Permission denied; set POSEZOO_HOME"


@pytest.mark.parametrize("looks", [0, 1])
def test_files_that_go_while_they_are_counted(looks: int, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small.mkdir()
    (small / "a.pth").write_bytes(bytes(3_000_000))
    (small / "gone.pth").write_bytes(bytes(1))
    seen, usual = [], os.stat

    def stat(path: Any, *args: Any, **kwargs: Any) -> os.stat_result:
        if isinstance(path, str | Path) and Path(path).name == "gone.pth":
            seen.append(path)
            if len(seen) > looks:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        return usual(path, *args, **kwargs)

    monkeypatch.setattr(os, "stat", stat)
    (found,) = [finding for finding in doctor.examine() if finding.name == "weights"]
    assert found.problem is None and f": {looks + 1} file" in found.found


def test_exit_code(small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(doctor, "LEAST_FREE", 1e18)
    code, out = run(capsys)
    assert code == 2 and "\n           PROBLEM: less than " in out and out.endswith("\n1 problem\n")
    assert run(capsys, "--json")[0] == 2

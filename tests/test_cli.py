"""The command line as a whole: its help, what it loads, how it passes words on, and what our own mistakes look like."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from posezoo.predict import MIN_SCORE


def test_our_own_mistakes_say_so(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("something\nodd")

    monkeypatch.setattr("posezoo.zoo.list_models", broken)
    monkeypatch.delenv("POSEZOO_DEBUG", raising=False)
    ran = run("list")
    assert ran.code == 1 and ran.out == "" and len(ran.err.splitlines()) == 1
    assert ran.err.startswith("internal error: RuntimeError: something odd (please report it")
    monkeypatch.setenv("POSEZOO_DEBUG", "1")
    assert "Traceback" in run("list").err


def test_list_and_show(run: Any) -> None:
    text = run("list")
    assert text.code == 0 and "simple_pose_resnet18_v1b.gluoncv_coco_256x192" in text.out
    rows = json.loads(run("list", "--family", "mobile_pose", "--json").out)
    assert rows and all(row["family"] == "mobile_pose" for row in rows)
    one = run("show", "simple_pose_resnet18_v1b")
    assert "coco17" in one.out and "192 wide, 256 high" in one.out and "66.3" in one.out
    assert json.loads(run("show", "simple_pose_resnet18_v1b", "--json").out)["input_size_wh"] == [192, 256]
    wrong = run("show", "simple_pose_resnet18_v1bb")
    assert wrong.code == 2 and "did you mean simple_pose_resnet18_v1b" in wrong.err
    assert run("list", "--family", "mobile_pos").err.startswith("error: unknown family 'mobile_pos'; did you mean")


def test_train_passes_everything_on(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr("posezoo.train.run", lambda *a, **k: seen.append((a, k)))
    assert run("train", "r.toml", "schedule.epochs=3", "run.seed=1", "--resume").code == 0
    assert seen == [(("r.toml", ("schedule.epochs=3", "run.seed=1")), {"resume": True})]


def test_help_and_import_load_nothing_heavy() -> None:
    code = (
        "import sys, posezoo\n"
        "from posezoo import cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'cv2', 'onnxruntime', 'numpy', 'pydantic', 'hotcoco'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "predict" in done.stdout and "train" in done.stdout


@pytest.mark.parametrize("command", ["list", "show", "fetch", "convert", "predict", "demo", "train"])
def test_every_command_has_an_example(run: Any, command: str) -> None:
    ran = run(command, "--help")
    assert ran.code == 0 and f"Example:  posezoo {command}" in ran.out


def test_the_public_names() -> None:
    import posezoo

    for name in posezoo.__all__:
        assert getattr(posezoo, name) is not None
        assert name in dir(posezoo)
    with pytest.raises(AttributeError, match="no attribute 'estimator_'"):
        posezoo.estimator_  # noqa: B018
    assert run_version() == f"posezoo {posezoo.__version__}"


def test_the_public_names_need_no_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None; from posezoo import *; import posezoo, inspect\n"
        "inspect.getmembers(posezoo)\n"
        "try: load_weights(None, {})\nexcept PosezooError as err: print(err)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("loading weights needs torch: pip install")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["predict", "--foo"], "error: No such option: --foo"),
        (["nope"], "error: No such command 'nope'; see posezoo --help"),
        (["serve", "--port", "99999"], "error: Invalid value for '--port'"),
        (["data", "nope"], "error: No such command 'nope'; see posezoo data --help"),
        (["predict"], "error: Missing argument 'SOURCE"),
    ],
)
def test_a_mistake_in_the_command_is_one_line(run: Any, words: list[str], line: str) -> None:
    ran = run(*words)
    assert ran.code == 2 and ran.out == "" and ran.err.startswith(line) and ran.err.count("\n") == 1


def run_version() -> str:
    done = subprocess.run([sys.executable, "-m", "posezoo", "--version"], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_help_is_in_parts(run: Any) -> None:
    text = run("predict", "--help").out
    for heading in ("Arguments:", "Options:", "Who is looked for:", "What is written:", "Videos and sequences:"):
        assert f"\n{heading}\n" in text
    for command in ("predict", "batch"):
        assert f"default {MIN_SCORE}, 0" in " ".join(run(command, "--help").out.split())

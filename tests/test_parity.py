"""`benchmarks/parity.py`: says how many fixtures agree, names those that do not, and would notice one."""

from __future__ import annotations

import gzip
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import parity as tool

from command_line import Ran
from posezoo.models import build

NETWORKS = (
    "gluoncv/mobile_pose_mobilenetv3_small.json.gz",
    "gluoncv/mobile_pose_mobilenetv2_1.0.json.gz",
    "mmpose/mobilenetv2_coco_256x192.json.gz",
)
OPS = ("ops/mmpose_nms.json", "ops/hrnet_xywh2cs.json")
# networks that no row of any table has, and operations that nothing here does
ABSENT = {
    ("alphapose", "coco_hardnet_256x192_hard68_lr1e-3_1x"),
    ("alphapose", "coco_hardnet_256x192_hard85_lr1e-3_1x"),
    ("alphapose", "dense_coco_256x192_adam_lr1e-3-duc-dcn_1x_crop"),
    ("mmpose", "vipnas_res50_coco_256x192"),
    ("ops", "gluoncv_alpha_pose_cropper"),
}


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    def runner(*arguments: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["parity.py", *map(str, arguments)])
        code = tool.main()
        return Ran(code, *capsys.readouterr())

    return runner


@pytest.fixture
def folder(parity: Path, tmp_path: Path) -> Path:
    """A few small fixtures."""
    for name in ("fill.py", *NETWORKS, *OPS):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(parity / name, tmp_path / name)
    return tmp_path


def rewrite(path: Path, change: Any) -> None:
    """Write a fixture anew after `change` has been at it."""
    packed = path.suffix == ".gz"
    fixture = json.loads(gzip.decompress(path.read_bytes()) if packed else path.read_bytes())
    change(fixture)
    text = json.dumps(fixture).encode()
    path.write_bytes(gzip.compress(text) if packed else text)


def other_output(fixture: Any) -> None:
    fixture["outputs"][0]["values"][0] += 0.01 * fixture["outputs"][0]["std"]


def other_scale(fixture: Any) -> None:
    fixture["scale"][0]["data"][0] += 0.01


def other_names(fixture: Any) -> None:
    fixture["state_dict"] = [[f"odd.{key}", *rest] for key, *rest in fixture["state_dict"]]


def test_all_that_agree(folder: Path, run: Any, tmp_path: Path) -> None:
    ran = run("--fixtures", folder, "-o", tmp_path / "table" / "parity.csv")
    lines = ran.out.splitlines()
    assert (ran.code, ran.err) == (0, "")
    assert lines[-1] == f"{len(lines) - 1} of {len(lines) - 1} agree"
    assert len(lines) - 1 >= len(NETWORKS) + len(OPS)
    assert "<--" not in ran.out
    used = {tuple(line.split()[:3]) for line in lines}
    name = "simple_pose_mobilenetv2.mmpose_coco_256x192"
    assert ("mmpose", "mobilenetv2_coco_256x192", name) in used
    table = (tmp_path / "table" / "parity.csv").read_text().splitlines()
    assert table[0] == "zoo,model,used,error,tolerance,agrees"
    assert len(table) == len(lines) and all(row.endswith(",yes") for row in table[1:])


def test_json(folder: Path, run: Any) -> None:
    ran = run("--fixtures", folder, "--json", "--only", "ops/", "v3_small")
    rows = json.loads(ran.out)
    assert ran.code == 0
    assert ran.err == f"{len(rows)} of {len(rows)} agree\n"
    assert {row["zoo"] for row in rows} == {"gluoncv", "ops"}
    assert all(row["agrees"] and row["error"] <= row["tolerance"] for row in rows)


@pytest.mark.parametrize(("name", "change"), [(NETWORKS[0], other_output), (OPS[1], other_scale)])
def test_another_number_is_noticed_and_named(
    name: str, change: Any, folder: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tool, "identify", lambda arrays: [])  # which looks, slowly, for another network that would do
    rewrite(folder / name, change)
    ran = run("--fixtures", folder, "--only", "v3_small", "ops/")
    *lines, last = ran.out.splitlines()
    (wrong,) = [line for line in lines if line.endswith("<--")]
    assert ran.code == 1
    assert Path(name).name.partition(".json")[0] in wrong
    assert last == f"{len(lines) - 1} of {len(lines)} agree"


def test_a_network_of_nobody_does_not_agree(folder: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    small = "mobile_pose_mobilenetv3_small"
    monkeypatch.setattr(build, "ARCHS", {small: build.ARCHS[small]})  # to compare it with all takes seconds
    rewrite(folder / NETWORKS[0], other_names)
    ran = run("--fixtures", folder, "--only", "v3_small")
    assert ran.code == 1
    assert tool.NONE in ran.out
    assert ran.out.endswith("0 of 1 agree\n")


@pytest.mark.parametrize(
    ("spoil", "arguments", "message"),
    [
        (lambda folder: (folder / "fill.py").unlink(), (), "has no fill.py: give --fixtures the folder that holds it"),
        (lambda folder: shutil.rmtree(folder), (), "has no fill.py"),
        (lambda folder: None, ("--only", "nothing", "none"), "has no fixture whose path contains nothing or none"),
        (lambda folder: (folder / NETWORKS[0]).write_bytes(b"\x1f\x8b cut"), (), "is no whole fixture"),
        (lambda folder: (folder / OPS[0]).write_text("{"), ("--only", "ops"), "mmpose_nms.json is no whole fixture"),
    ],
)
def test_what_it_cannot_check_is_one_line(
    spoil: Any, arguments: tuple[str, ...], message: str, folder: Path, run: Any
) -> None:
    spoil(folder)
    ran = run("--fixtures", folder, *arguments)
    assert ran.code == 2
    assert message in ran.err
    assert ran.err.startswith("error: ") and ran.err.count("\n") == 1


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_fixture_agrees_but_those_without_a_counterpart(parity: Path, run: Any) -> None:
    ran = run("--fixtures", parity, "--json")
    rows = json.loads(ran.out)
    assert {(row["zoo"], row["model"]) for row in rows if row["used"] == tool.NONE} == ABSENT
    assert [row for row in rows if not row["agrees"] and row["used"] != tool.NONE] == []
    paths = [path for pattern in ("*/*.json.gz", "*/*.same.json", "ops/*.json") for path in parity.glob(pattern)]
    names = {path.name.partition(".json")[0].removesuffix(".same") for path in paths}
    assert names <= {row["model"].partition(":")[0] for row in rows}

"""Recipes whose networks start from others."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402

from posezoo.errors import PosezooError  # noqa: E402
from posezoo.models.build import build, outline  # noqa: E402
from posezoo.skeletons import get_skeleton  # noqa: E402
from posezoo.train import network, plan, rows  # noqa: E402
from posezoo.train.network import make_model  # noqa: E402
from posezoo.train.recipe import Recipe, load_recipe  # noqa: E402
from posezoo.train.rows import list_rows, resolve  # noqa: E402
from posezoo.zoo import get_entry  # noqa: E402
from start_fixtures import filled, torchvision_resnet  # noqa: E402

# ---- recipes


def recipe_of(folder: Path, **model: Any) -> Recipe:
    source = {"annotations": "people.json", "images": "."}
    table = {"name": "tiny", "model": model, "data": {"root": folder, "train": source}}
    return Recipe.model_validate(table)


def test_a_recipe_begins_with_a_backbone_from_its_data_or_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    theirs = filled(torchvision_resnet(18))
    for place in ("data/resnet18.pth", "resnet18.pth"):
        torch.save(theirs, tmp_path / place)
        notes: list[str] = []
        recipe = recipe_of(tmp_path / "data", arch="simple_pose_resnet18_v1b", backbone="resnet18.pth")
        model = make_model(recipe, 17, tell=notes.append)
        assert torch.equal(model.backbone.layer4[1].conv2.weight, theirs["layer4.1.conv2.weight"])
        assert (
            notes == [f"begins with the backbone of {tmp_path / place} (PyTorch names, 100 arrays)"]
            or place == "resnet18.pth"
        )
        assert notes[0].startswith("begins with the backbone of ")
        (tmp_path / place).unlink()
    with pytest.raises(PosezooError, match=r"model.backbone: no file .*data.resnet18.pth or resnet18.pth"):
        make_model(recipe, 17)
    assert make_model(recipe, 17, fill=False) is not None


def test_what_a_plain_resnet_lacks_is_told(tmp_path: Path) -> None:
    torch.save(filled(torchvision_resnet(50)), tmp_path / "resnet50.pth")
    notes: list[str] = []
    make_model(recipe_of(tmp_path, arch="fastpose_resnet50_dcn", backbone="resnet50.pth"), 17, tell=notes.append)
    assert re.fullmatch(
        r"begins with the backbone of .*resnet50.pth \(PyTorch names, 265 arrays\); "
        r"fresh, for a plain ResNet has none: "
        r"backbone.layer\*.\*.se.reduce, backbone.layer\*.\*.se.expand, backbone.layer\*.\*.conv\*.offset",
        notes[0],
    )


def test_a_folded_backbone_comes_from_an_npz_or_another_file(tmp_path: Path) -> None:
    from posezoo.models.mobile_fpn import _keras_names

    source = build("mobile_pose_fpn_1.0", 17).backbone
    arrays = {
        f"{name}.{part}": t.detach() for name, conv in _keras_names(source) for part, t in conv.named_parameters()
    }
    np.savez(tmp_path / "a.npz", **{key: value.numpy() for key, value in arrays.items()})
    save_file(arrays, tmp_path / "a.safetensors")
    (tmp_path / "bad.npz").write_bytes(b"PK nothing")
    for name in ("a.npz", "a.safetensors"):
        model = make_model(recipe_of(tmp_path, arch="mobile_pose_fpn_1.0", backbone=name, freeze=2), 17, tell=len)
        assert all(torch.equal(a, b) for a, b in zip(model.backbone.parameters(), source.parameters(), strict=True))
        assert not model.backbone.stem.conv.weight.requires_grad
    with pytest.raises(PosezooError, match=r"cannot read backbone weights .*bad.npz"):
        make_model(recipe_of(tmp_path, arch="mobile_pose_fpn_1.0", backbone="bad.npz"), 17)
    with pytest.raises(PosezooError, match=r"model.freeze is for networks on a folded MobileNetV2"):
        make_model(recipe_of(tmp_path, arch="simple_pose_resnet18_v1b", freeze=2), 17)


def test_weights_are_a_model_of_the_zoo_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packaged = make_model(recipe_of(tmp_path, arch="mobile_pose_fpn_1.75", weights="embedded"), 17, tell=len)
    file = tmp_path / "own.safetensors"
    save_file(packaged.state_dict(), file)
    notes: list[str] = []
    own = make_model(recipe_of(tmp_path, arch="mobile_pose_fpn_1.75", weights=str(file)), 17, tell=notes.append)
    assert all(torch.equal(value, packaged.state_dict()[key]) for key, value in own.state_dict().items())
    assert notes == [f"begins from {file}"]
    # of the zoo, under a name of its own zoo, in the folder of weights; nothing is requested
    monkeypatch.setenv("POSEZOO_HOME", str(tmp_path))
    entry = get_entry("simple_pose_resnet18_v1b.gluoncv_coco_256x192")
    recipe = recipe_of(tmp_path, arch=entry.arch, weights="simple_pose_resnet18_v1b")
    with pytest.raises(
        PosezooError, match=r"offline, and simple_pose_resnet18_v1b-f63d42ac.params .* is not on this machine"
    ):
        make_model(recipe, 17)
    (tmp_path / entry.weights[0].file).write_bytes(b"<html>no weights</html>")
    with pytest.raises(PosezooError, match=r"is damaged or another file: it is a web page"):
        make_model(recipe, 17)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.weights=simple_pose_resnet50_v1b.mmpose_mpii_256x25"], "model.weights is no file here, and unknown "),
        (["model.weights=simple_pose_resnet50_v1b.mmpose_mpii_256x256"],
         "mmpose_mpii_256x256 predicts 16 joints, the network 17 .coco17.: model.transfer=true takes all but"),
        (["model.transfer=true"], "model: transfer is for weights: say whose"),
    ],
)  # fmt: skip
def test_a_start_that_cannot_be_is_refused_before_anything_is_read(overrides: list[str], message: str) -> None:
    with pytest.raises(PosezooError, match=message):
        load_recipe("res50_coco_256x192", overrides)


@pytest.mark.slow
def test_a_row_that_goes_on_from_another_takes_what_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = build("simple_pose_resnet50_v1b", 16)
    save_file(source.state_dict(), tmp_path / "mpii.safetensors")
    asked: list[str] = []

    def find(entry: Any, choices: Any) -> Path:
        asked.append(entry.name)
        return tmp_path / "mpii.safetensors"

    monkeypatch.setattr(network, "find_weights", find)
    recipe = load_recipe("mmpose_res50_2deconv_jhmdb_sub1_256x256")
    notes: list[str] = []
    model = make_model(recipe, 15, tell=notes.append)
    assert asked == ["simple_pose_resnet50_v1b.mmpose_mpii_256x256"]
    theirs = source.state_dict()
    for key, value in model.state_dict().items():
        assert key.startswith("head.final") or torch.equal(value, theirs[key]), key
    assert notes[0].startswith("begins with 275 of 277 arrays from simple_pose_resnet50_v1b.mmpose_mpii_256x256 (")
    assert notes[0].endswith("; fresh: head.final")
    assert len(notes) == 1
    # other inputs than it was used to, and other joints in its last layer
    other = recipe.model_copy(update={"input": recipe.input.model_copy(update={"channels": "bgr"})})
    make_model(other, 15, tell=notes.append)
    assert notes[-1] == "it was trained on other inputs: channels rgb, not bgr"


def test_rows_begin_as_published_where_the_zoo_has_it() -> None:
    for number in (1, 2, 3):
        for name in (f"mmpose_res50_jhmdb_sub{number}_256x256", f"mmpose_res50_2deconv_jhmdb_sub{number}_256x256"):
            given = load_recipe(name).model
            assert (given.weights, given.transfer) == ("simple_pose_resnet50_v1b.mmpose_mpii_256x256", True)
    given = load_recipe("mmpose_res50_posetrack18_256x192").model
    assert (given.weights, given.transfer) == ("simple_pose_resnet50_v1b.mmpose_coco_256x192", False)
    fresh = load_recipe("mmpose_res50_jhmdb_sub1_256x256", ["model.weights=", "model.transfer=false"]).model
    assert fresh.weights is None


def test_the_plan_says_what_a_run_begins_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSEZOO_HOME", str(tmp_path))

    def begins(name: str, *overrides: str) -> str:
        return plan.make_plan(resolve(name, overrides)).begins

    assert begins("res50_coco_256x192") == "fresh weights"
    assert begins("res50_coco_256x192", "model.backbone=r50.pth") == "the backbone of r50.pth (not there)"
    (tmp_path / "r50.pth").write_bytes(b"")
    rooted = ("model.backbone=r50.pth", f"data.root={tmp_path}")
    assert begins("res50_coco_256x192", *rooted) == f"the backbone of {tmp_path / 'r50.pth'}"
    mpii = "simple_pose_resnet50_v1b.mmpose_mpii_256x256"
    file = get_entry(mpii).weights[0].file
    assert begins("mmpose_res50_jhmdb_sub1_256x256") == (
        f"{mpii} (fetched first: {file}), all that fits but its last layer"
    )
    (tmp_path / file).write_bytes(b"")
    assert begins("mmpose_res50_jhmdb_sub1_256x256") == f"{mpii}, all that fits but its last layer"


@pytest.mark.slow
def test_every_row_builds_a_network_that_predicts_its_joints() -> None:
    for name in list_rows():
        recipe = load_recipe(name)
        if recipe.task != "pose":
            continue
        joints = len(get_skeleton(recipe.data.skeleton))
        sizes = {value.shape[0] for value in outline(recipe.model.arch, joints).state_dict().values() if value.ndim}
        assert joints in sizes, name


# ---- the multi-domain rows with teachers


def example() -> list[str]:
    """The overrides that recipes/alphapose.toml gives as an example."""
    text = (rows.folder() / "alphapose.toml").read_text()
    lines = [line.removeprefix("# ").strip() for line in text.splitlines() if line.startswith("#   ")]
    start = next(n for n, line in enumerate(lines) if line.startswith("distill."))
    found: list[str] = []
    for line in lines[start:]:
        if line.startswith("distill."):
            found.append(line)
        else:
            found[-1] += "\n" + line
    return found


@pytest.mark.parametrize("row", [name for name in list_rows() if "multi" in name or "halpe_coco_wholebody" in name])
def test_the_example_of_teachers_resolves(row: str) -> None:
    resolved = resolve(row, example())
    taught = resolved.recipe.distill
    assert taught.coordinate == 1
    assert [teacher.domains for teacher in taught.teachers] == [("halpe",), ("wholebody",)]
    shown = dict(reversed([tuple(field) for field in plan.fields(resolved) if field[0] == "taught by"]))
    assert shown["taught by"].endswith("(halpe.safetensors), in domain halpe")


def test_a_row_learns_from_a_teacher_of_each_domain(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    from posezoo.train import run
    from train_fixtures import write_people

    for domain in ("halpe", "wholebody"):
        (tmp_path / domain).mkdir()
        write_people(tmp_path / domain, get_skeleton("halpe136"), pictures=1)
        save_file(build("mobile_pose_mobilenetv3_small", 17).state_dict(), tmp_path / f"{domain}.safetensors")
    sources = [f'{{ annotations = "{d}/people.json", images = "{d}", domain = "{d}" }}' for d in ("halpe", "wholebody")]
    teachers = [
        f'{{ model = "mobile_pose_mobilenetv3_small.gluoncv_coco_256x192", domains = ["{d}"], '
        f'weights = "{(tmp_path / d).as_posix()}.safetensors" }}'
        for d in ("halpe", "wholebody")
    ]
    overrides = [
        f"data.train=[{', '.join(sources)}]",
        'data.validate={ annotations = "halpe/people.json", images = "halpe" }',
        f"distill.teachers=[{', '.join(teachers)}]",
        "distill.coordinate=1",
        f"data.root={tmp_path.as_posix()}",
        f"run.folder={(tmp_path / 'run').as_posix()}",
        "model.arch=mobile_pose_mobilenetv3_small",
        "input.size_wh=[64, 64]",
        "schedule.epochs=1",
        "optimiser.batch_size=4",
        "run.workers=0",
        "run.log_every=1",
        "run.device=cpu",
    ]
    run("alphapose_halpe_136_256x192_res50_lr1e-3_2x-dcn-combined_multidomain", overrides)
    log = [line.split(",") for line in (tmp_path / "run" / "log.csv").read_text().splitlines()]
    told = {name: float(value) for _, phase, name, value in log[1:] if phase == "train"}
    assert told["distill_coordinate"] > 0
    assert np.isfinite(told["loss"])

"""Recipes: every row of the zoo has one that says only what training adds; what they are called, and come to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import posezoo
from posezoo import toml
from posezoo.codecs import CODECS
from posezoo.data.catalog import get_dataset
from posezoo.errors import PosezooError
from posezoo.train import plan, rows
from posezoo.train.recipe import Source, load_recipe
from posezoo.train.rows import find_row, list_rows, merge, read_rows, resolve
from posezoo.zoo import Entry, get_entry, list_models

ZOO = [entry for entry in map(get_entry, list_models()) if entry.source != "posezoo"]
FAMILIES = {name: path for name, path in rows.files().items() if "rows" in toml.load(path)}
REPEATS = {"name", "task", "model.arch", "data.skeleton", "data.train.dataset", "target.codec", "target.refine"}
# a small family, for what does not depend on the zoo's
FAMILY = """
[data]
root = "photos"
[optimiser]
lr = 1e-3
lr_batch_size = 128
batch_size = 128
ema = 0
[kinds.short]
schedule = { epochs = 2, warmup_steps = 0 }
[kinds.flat]
schedule = { kind = "step", milestones = ["1/4", 0.5] }
[rows]
first = { entry = "res50_coco_256x192", like = "short" }
second = { entry = "res50_mpii_256x256", like = ["short", "flat"], optimiser.lr = 2e-3 }
"""


@pytest.fixture
def family(tmp_path: Path) -> Path:
    path = tmp_path / "family.toml"
    path.write_text(FAMILY)
    return path


def write_people(folder: Path, count: int) -> None:
    """A COCO-style file of people with all their joints, and their pictures' names."""
    shared = {"category_id": 1, "iscrowd": 0, "bbox": [5, 5, 40, 60], "area": 2400, "keypoints": [10.0, 20.0, 2.0] * 17}
    people = [{"id": n, "image_id": n, **shared} for n in range(count)]
    images = [{"id": n, "file_name": f"{n}.jpg"} for n in range(count)]
    for image in images:
        (folder / image["file_name"]).write_bytes(b"")
    content = {"images": images, "annotations": people, "categories": [{"id": 1, "name": "person"}]}
    (folder / "people.json").write_text(json.dumps(content))


@pytest.mark.parametrize("entry", ZOO, ids=lambda entry: entry.name)
def test_every_row_of_the_zoo_has_a_recipe_that_takes_from_it_what_it_says(entry: Entry) -> None:
    resolved = resolve(entry.name)
    recipe = resolved.recipe
    assert resolved.row.name == recipe.name == entry.recipe
    assert (recipe.entry, recipe.task, recipe.model.arch) == (entry.name, "pose", entry.arch)
    given = recipe.input
    taken = (given.size_wh, given.channels, given.mean, given.std, given.box_scale)
    assert taken == (entry.input_size_wh, entry.channels, entry.mean, entry.std, entry.box_scale)
    assert recipe.data.skeleton == entry.skeleton
    target = recipe.target
    assert entry.codec in CODECS
    assert entry.codec == (f"heatmap-{target.refine}" if target.codec == "heatmap" else target.codec)
    # learns from what it is said to be trained on, and is judged on the split that figures are published of
    assert recipe.data.train[0].dataset == entry.dataset
    assert recipe.data.validate_on is not None
    assert recipe.data.validate_on.dataset == entry.dataset
    if entry.dataset != "jhmdb":
        assert recipe.data.validate_on.split == get_dataset(entry.dataset).split
    # as published: a rate for a batch, steps after epochs of a schedule, nothing averaged
    assert recipe.optimiser.rate == recipe.optimiser.lr
    assert recipe.optimiser.lr_batch_size is not None
    assert (recipe.optimiser.ema, recipe.optimiser.weight_decay, recipe.schedule.kind) == (0, 0, "step")
    assert recipe.expect.start


def test_every_recipe_is_of_its_name_and_of_a_network_that_can_be_built() -> None:
    pytest.importorskip("torch")
    from posezoo.models.build import ARCHS

    assert {"embedded_pose", "embedded_pose_tune", "embedded_pose_large", "embedded_detector"} < set(list_rows())
    for name in list_rows():
        recipe = load_recipe(name)
        assert (recipe.name, recipe.run.folder) == (name, Path("runs") / name)
        assert recipe.model.arch in ARCHS


def test_rows_say_nothing_that_their_entry_says() -> None:
    assert len(FAMILIES) >= 6
    for name, path in FAMILIES.items():
        content = toml.load(path)
        shared = {key: value for key, value in content.items() if key not in ("rows", "kinds")}
        for table in (shared, *content.get("kinds", {}).values(), *content["rows"].values()):
            said = {".".join(leaf) for leaf in rows._leaves(table, ())}
            assert not said & REPEATS, name
            assert "input" not in table, name
        unused = set(content.get("kinds", {})) - {k for row in content["rows"].values() for k in _kinds(row)}
        assert not unused, name


def _kinds(row: dict[str, Any]) -> list[str]:
    like = row.get("like", [])
    return [like] if isinstance(like, str) else like


def test_every_row_makes_an_entry_and_families_are_shorter_than_their_rows() -> None:
    for name, path in FAMILIES.items():
        made = read_rows(path)
        assert all(row.entry is not None for row in made.values()), name
        lines = path.read_text().count("\n")
        assert lines < 15 * len(made) + 60, name
        assert path.read_text().startswith("# "), "says where its settings are from"
    names = {row.entry.recipe for path in FAMILIES.values() for row in read_rows(path).values() if row.entry}
    assert names == {entry.recipe for entry in ZOO}


@pytest.mark.parametrize(
    ("name", "batch", "lr", "epochs", "falls", "sigma"),
    [
        # each zoo's own file
        ("hrnet_coco_pose_hrnet_w32_256x192", 128, 1e-3, 210, (170, 200), 2),
        ("hrnet_coco_pose_hrnet_w48_384x288", 96, 1e-3, 210, (170, 200), 3),
        ("hrnet_coco_pose_resnet_50_384x288", 128, 1e-3, 140, (90, 120), 3),
        ("simplebaselines_mpii_resnet50_256x256_d256x3_adam_lr1e-3", 128, 1e-3, 140, (90, 120), 2),
        ("mmpose_res50_coco_256x192", 512, 5e-4, 210, (170, 200), 2),
        ("mmpose_res152_coco_384x288", 256, 5e-4, 210, (170, 200), 3),
        ("mmpose_res50_posetrack18_256x192", 512, 5e-4, 20, (10, 15), 2),
        ("mmpose_res50_2deconv_jhmdb_sub2_256x256", 512, 5e-4, 40, (20, 30), 2),
        ("gluoncv_simple_pose_resnet18_v1b_small_coco", 256, 1e-3, 140, (90, 120), 1),
        ("pytorch_pose_hg_s8_b1_mpii", 6, 2.5e-4, 100, (60, 90), 1),
        ("princeton_hg_s2_mpii", 16, 1e-3, 144, (72,), 1),
    ],
)
def test_published_settings(
    name: str, batch: int, lr: float, epochs: int, falls: tuple[int, ...], sigma: float
) -> None:
    recipe = load_recipe(name)
    assert (recipe.optimiser.batch_size, recipe.optimiser.lr, recipe.target.sigma) == (batch, lr, sigma)
    assert recipe.schedule.epochs == epochs
    assert [share * epochs for share in recipe.schedule.milestones] == pytest.approx(falls)


def test_the_differences_of_rows() -> None:
    assert load_recipe("mmpose_res50_crowdpose_256x192").data.train[0].split == "trainval"
    assert load_recipe("mmpose_res50_crowdpose_256x192").augment.half_body_joints == 6
    jhmdb = load_recipe("mmpose_res50_jhmdb_sub3_256x256").data
    assert (jhmdb.train[0].split, jhmdb.validate_on and jhmdb.validate_on.split) == ("sub3_train", "sub3_test")
    assert load_recipe("mmpose_res50_mpii_256x256").augment.half_body == 0
    assert load_recipe("pytorch_pose_hg_s2_b1_mpii").optimiser.name == "rmsprop"
    hands = load_recipe("alphapose_halpe_136_256x192_res50_lr1e-3_2x-dcn-combined_10handweight").target
    assert (hands.codec, hands.part_weights) == ("combined-26", {"left_hand": 10, "right_hand": 10})
    plain = load_recipe("alphapose_halpe_136_256x192_res50_lr1e-3_2x-dcn-combined").target
    assert plain.part_weights == {}
    mixed = load_recipe("alphapose_halpe_68_noface_256x192_res50_lr1e-3_2x-dcn-combined").data
    assert [source.dataset for source in mixed.train] == ["halpe68", "wholebody133", "hand21"]
    assert mixed.skeleton == "halpe68"
    second = load_recipe("gluoncv_alpha_pose_resnet101_v1b_coco_dpg")
    assert second.entry == load_recipe("gluoncv_alpha_pose_resnet101_v1b_coco").entry
    assert second.augment.proposals == 1


def test_boxes_move_as_mmposes_datasets_move_them() -> None:
    for name in list_rows():
        augment = load_recipe(name).augment
        if not name.startswith("mmpose_"):
            assert (augment.shift_probability, augment.shift_of) == (1, "view"), name
        elif "_mpii_" in name:  # MPII-TRB too
            assert augment.shift == 0, name
        else:
            assert (augment.shift, augment.shift_probability, augment.shift_of) == (0.2, 0.3, "box"), name


def test_no_zoo_weighs_joints_by_their_skeleton() -> None:
    weighted = {name for name in list_rows() if load_recipe(name).target.joint_weights}
    assert weighted == {f"embedded_pose{each}" for each in ("", "_gpu", "_large", "_last", "_tune")}
    told = dict(plan.fields(resolve("embedded_pose")))
    assert told["joints count"].startswith("left_wrist, right_wrist, left_ankle, right_ankle 1.5; left_elbow")
    assert dict(plan.fields(resolve("mmpose_res50_crowdpose_256x192")))["joints count"] == "all alike"
    assert "joints count" not in dict(plan.fields(resolve("embedded_detector")))


def test_one_and_two_times_the_schedule() -> None:
    once = load_recipe("alphapose_halpe_26_256x192_res50_lr1e-3_1x").schedule
    twice = load_recipe("alphapose_halpe_26_256x192_res50_lr1e-3_2x-regression").schedule
    assert (once.epochs, twice.epochs) == (140, 270)


@pytest.mark.parametrize(
    "name",
    [
        "mmpose_res50_coco_256x192",  # the row
        "simple_pose_resnet50_v1b.mmpose_coco_256x192",  # the entry
        "res50_coco_256x192",  # what its zoo calls it
        "configs/body/2d_kpt_sview_rgb_img/topdown_heatmap/coco/res50_coco_256x192.py",
        str(rows.folder() / "mmpose.toml") + ":mmpose_res50_coco_256x192",
    ],
)
def test_a_row_goes_by_many_names(name: str) -> None:
    assert find_row(name).name == "mmpose_res50_coco_256x192"


def test_a_file_of_one_recipe_goes_by_its_path_and_its_stem() -> None:
    path = rows.folder() / "embedded_pose.toml"
    assert find_row("embedded_pose") == find_row(path) == find_row(str(path))
    assert load_recipe("embedded_pose") == load_recipe(path)
    assert "embedded_pose" in list_rows()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mmpose_res50_coco_256x19", "unknown recipe .*did you mean mmpose_res50_coco_256x192.*train --list"),
        ("hrnet", "holds 16 recipes: name one of them, such as hrnet_coco_pose_hrnet_w32_256x192"),
        ("embedded", "has no recipe of its own; these train the same network: embedded_pose, embedded_pose_gpu"),
        ("pose_resnet_50", "'pose_resnet_50' could be "),
        ("nowhere.toml", "no such file: nowhere.toml"),
        (f"{rows.folder() / 'hrnet.toml'}:w32", "unknown row of .*hrnet.toml 'w32'"),
    ],
)
def test_a_name_of_no_recipe_is_an_error_that_helps(name: str, message: str) -> None:
    with pytest.raises(PosezooError, match=message):
        find_row(name)


def test_layers_of_a_family(family: Path) -> None:
    first, second = resolve(f"{family}:first"), resolve(f"{family}:second", ["optimiser.batch_size=32", "run.seed=7"])
    assert first.recipe.model.arch == "simple_pose_resnet50_v1b"
    assert (first.recipe.schedule.epochs, first.recipe.schedule.kind) == (2, "cosine")
    assert second.recipe.schedule.milestones == (0.25, 0.5)
    assert second.recipe.data.skeleton == "mpii16"
    assert second.recipe.run.folder == Path("runs/second")
    assert second.recipe.optimiser.rate == pytest.approx(2e-3 * 32 / 128)
    origins = {".".join(path): whose for path, whose in second.origins.items()}
    assert {path: whose for path, whose in origins.items() if path.startswith(("optimiser", "schedule"))} == {
        "optimiser.lr": "family.toml, row",
        "optimiser.lr_batch_size": "family.toml",
        "optimiser.batch_size": "override optimiser.batch_size=32",
        "optimiser.ema": "family.toml",
        "schedule.epochs": "family.toml, kind short",
        "schedule.warmup_steps": "family.toml, kind short",
        "schedule.kind": "family.toml, kind flat",
        "schedule.milestones": "family.toml, kind flat",
    }
    assert ("run", "workers") not in second.origins


def test_merge_replaces_lists_and_joins_tables() -> None:
    layers = [("a", {"t": {"x": 1, "y": {"z": 2}}, "s": {"d": 1}}), ("b", {"t": {"y": {"w": 3}}, "s": [1, 2]})]
    merged, origins = merge(layers)
    assert merged == {"t": {"x": 1, "y": {"z": 2, "w": 3}}, "s": [1, 2]}
    assert origins == {("t", "x"): "a", ("t", "y", "z"): "a", ("t", "y", "w"): "b", ("s",): "b"}
    assert layers[0][1]["t"]["y"] == {"z": 2}, "what was merged is as it was"
    merged, origins = merge([*layers, ("c", {"s": {"e": 1}})])
    assert (merged["s"], origins["s", "e"]) == ({"e": 1}, "c")
    assert ("s",) not in origins


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[rows]\nx = { like = "shrt" }\n[kinds.short]', "row x: unknown kind 'shrt'; did you mean short"),
        ('[rows]\nx = { entry = "res50_coco_256x19" }', "row x: unknown model 'res50_coco_256x19'; did you mean res50"),
        ('[rows]\nx = { entry = "res50_coco_256x192", epochs = 3 }', "row x: unknown key 'epochs'"),
        ("[rows]\nx = { optimiser.lr = 1e-3 }", "row.toml: model: Field required"),
    ],
)  # fmt: skip
def test_a_wrong_row_says_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "row.toml"
    path.write_text(text)
    with pytest.raises(PosezooError, match=message):
        resolve(path)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.train.dataset=mpii"], r"coco17, 17 joints \(nose.*mpii labels 16 joints \(right_ankle.*labels nose"),
        (["data.validate.dataset=mpii"], r"judges mpii by 16 joints.*coco17, 17 joints.*without pelvis, thorax"),
        (["data.skeleton=coco71"], "unknown skeleton 'coco71'; did you mean coco17"),
        (["data.train.dataset=cooc"], "unknown dataset 'cooc'; did you mean coco"),
        (["data.train.split=trian"], "unknown split of coco 'trian'; did you mean train"),
        (["data.train="], "data.train: nothing to learn from: name a dataset and its split"),
        (["data.train=[]"], "data.train: nothing to learn from"),
        (["data.train=[{}]"], "data.train.0: a source needs a dataset"),
        (["data.train=[{dataset='coco'}]"], "source coco: say which split .*train"),
        (["target.codec=heatmap-dark"], "say target.codec=heatmap, .*target.refine .*: none, quarter, dark or da"),
        (["target.codec=combined-26", "target.refine=dark-udp"], 'refine = "dark-udp" is for codec = "heatmap"'),
        (["target.codec=integral"], "unknown codec 'integral'"),
        (["target.codec=combined-26"], "sets with more than 26 joints; coco17 has 17"),
        (["target.part_weights.left_hand=10"], "unknown part of coco17 in target.part_weights 'left_hand'"),
        (["distill.teachers=[{model='embeded'}]", "distill.heatmap=1"], "unknown model 'embeded'"),
        (["distill.teachers=[{model='embedded', domains=['mpii']}]", "distill.heatmap=1"],
         "domain of teacher embedded 'mpii'; valid: coco"),
        (["distill.teachers=[{model='person_detector_1.0.embedded_320'}]", "distill.heatmap=1"], "is a detector"),
        (["distill.teachers=[{model='embedded'}]"],
         r"distill: teachers without a weight .* set distill\.heatmap .* or distill\.coordinate"),
        (["distill.heatmap=4"], r"distill: heatmap is 4, .* no teachers .* name them in distill\.teachers"),
        (["distill.coordinate=0.5"], r"distill: coordinate is 0\.5, .* no teachers"),
        (["distill.label=0"], r"distill: label is 0, .* no teachers"),
        (["schedule.milestones=['1:2']"], "schedule.milestones.0: '1:2' is neither a number nor a share such as"),
        (["schedule.milestones=['3/2']"], "schedule.milestones.0: Input should be less than or equal to 1"),
        (["data.train.0.dataset=coco"], r"unknown key of \[data.train.0\] '0'"),
        (["optimiser.lr.x=1"], "override optimiser.lr.x=1: 'optimiser.lr' is a value, not a table"),
        (["optimiser.lr"], "expected key=value"),
    ],
)  # fmt: skip
def test_parts_that_do_not_fit_are_errors_that_teach(overrides: list[str], message: str) -> None:
    with pytest.raises(PosezooError, match=message) as error:
        load_recipe("res50_coco_256x192", overrides)
    assert "\n" not in str(error.value)


def test_a_set_is_trained_from_several_datasets_or_with_a_teacher() -> None:
    both = "data.train=[{dataset='coco', split='train'}, {dataset='mpii', split='train', share=2}]"
    assert len(load_recipe("res50_coco_256x192", [both]).data.train) == 2
    taught = ["data.train.dataset=mpii", "distill.teachers=[{model='embedded', domains=['mpii']}]"]
    taught.append("distill.heatmap=1")
    assert load_recipe("res50_coco_256x192", taught).distill.teachers[0].domains == ("mpii",)
    own = ["data.train={annotations='a.json', images='a'}"]
    assert load_recipe("res50_coco_256x192", own).data.train == (Source(annotations=Path("a.json"), images=Path("a")),)


@pytest.mark.parametrize(
    ("overrides", "rate"),
    [
        ([], "lr 5e-4 for 512; rises over 500 steps; times 0.1 after epoch 170 and 200"),
        (["schedule.epochs=21", "schedule.warmup_steps=0"], "lr 5e-4 for 512; times 0.1 after epoch 17 and 20"),
        (["optimiser.batch_size=64", "schedule.kind=cosine", "schedule.warmup_steps=0"],
         "lr 5e-4 for 512, here 64: 6.25e-5; falls as a cosine to 6.25e-7"),
    ],
)  # fmt: skip
def test_the_rate_in_words(overrides: list[str], rate: str) -> None:
    resolved = resolve("res50_coco_256x192", overrides)
    planned = plan.make_plan(resolved)
    assert planned.rate == rate
    assert planned.learning_rate == pytest.approx(5e-4 * resolved.recipe.optimiser.batch_size / 512)


def test_steps_score_and_cost_of_a_published_run() -> None:
    planned = plan.make_plan(resolve("hrnet_coco_pose_hrnet_w48_256x192"))
    assert (planned.people, planned.steps_per_epoch, planned.steps) == (149_813, 1170, 1170 * 210)
    assert len(planned.claimed) == len(get_entry("pose_hrnet_w48.hrnet_coco_256x192").claimed)
    assert "AP 0.751" in planned.claimed[0]
    assert "COCO val2017" in planned.claimed[0]
    assert "estimated" in planned.cost
    assert planned.gpu_hours is not None


def test_a_stated_cost_is_not_taken_for_another_run() -> None:
    stated = plan.make_plan(resolve("gluoncv_simple_pose_resnet50_v1b_coco", ["run.seed=3"]))
    assert stated.gpu_hours == 55
    assert stated.cost.startswith("55 GPU hours: GluonCV's log, on 8 GPUs")
    shorter = plan.make_plan(resolve("gluoncv_simple_pose_resnet50_v1b_coco", ["schedule.epochs=14"]))
    assert "estimated" in shorter.cost
    assert shorter.gpu_hours is not None
    assert shorter.gpu_hours < 10


def test_estimates_agree_with_the_logs_they_rest_on() -> None:
    ratios = []
    for name in read_rows(FAMILIES["gluoncv"]):
        hours = load_recipe(name).expect.gpu_hours
        # an override that changes nothing, but that makes it another run
        estimate = plan.make_plan(resolve(name, ["schedule.epochs=140"])).gpu_hours
        if hours is not None and estimate is not None:
            ratios.append(estimate / hours)
    assert len(ratios) == 15
    assert 0.6 < min(ratios) < 1 < max(ratios) < 1.5


def test_people_are_counted_where_the_data_are(tmp_path: Path) -> None:
    write_people(tmp_path, 6)
    own = ["data.train={annotations='people.json', images='.'}", f"data.root={tmp_path}", "optimiser.batch_size=4"]
    planned = plan.make_plan(resolve("res50_coco_256x192", own))
    assert (planned.people, planned.steps_per_epoch) == (6, 1)
    assert planned.data == (f"people.json: {tmp_path / 'people.json'}",)
    unknown = plan.make_plan(resolve("mmpose_res50_aic_256x192", [f"data.root={tmp_path}"]))
    assert (unknown.people, unknown.steps, unknown.gpu_hours) == (None, None, None)
    assert "unknown until the data are read" in unknown.cost
    assert unknown.data == (f"aic train: not found under data.root={tmp_path}",)


def test_recipes_are_found_in_an_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if Path(posezoo.__file__).parents[1].name == "src":  # not that of a wheel
        assert rows.folder() == Path(posezoo.__file__).parents[2] / "recipes"
    package = tmp_path / "site-packages" / "posezoo"
    (package / "recipes").mkdir(parents=True)
    monkeypatch.setattr(posezoo, "__file__", str(package / "__init__.py"))
    assert rows.folder() == package / "recipes"


def test_recipes_are_in_the_wheel() -> None:
    builder = pytest.importorskip("hatchling.builders.wheel", reason="needs hatchling, which the extra dev brings")
    root = Path(__file__).resolve().parents[1]
    inside = {file.distribution_path for file in builder.WheelBuilder(str(root)).recurse_included_files()}
    assert {f"posezoo/recipes/{path.name}" for path in rows.files().values()} <= inside

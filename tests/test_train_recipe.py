"""What the values of a recipe come to: sources that are replaced, rates of small data, names and paths as given."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from posezoo.data.mixed import read_sources  # noqa: E402
from posezoo.errors import PosezooError  # noqa: E402
from posezoo.train import plan  # noqa: E402
from posezoo.train.optimise import learning_rate, rate_lines  # noqa: E402
from posezoo.train.recipe import Recipe, Source, load_recipe  # noqa: E402
from posezoo.train.rows import resolve  # noqa: E402
from tiny_runs import write_people, write_recipe  # noqa: E402

ROW = "res50_coco_256x192"
TEACHER = "distill.teachers=[{model='embedded'}]"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of six people, without a word on the warm-up."""
    folder = tmp_path_factory.mktemp("recipe")
    path = write_recipe(folder, write_people(folder))
    path.write_text(path.read_text().replace("warmup_steps = 1", ""))
    return path


# ---- sources of a row


def test_a_rows_judge_is_taken_back_or_replaced() -> None:
    assert load_recipe(ROW).data.validate_on == Source(dataset="coco", split="val")
    assert load_recipe(ROW, ["data.validate="]).data.validate_on is None
    file = Source(annotations=Path("v.json"), images=Path("v"))
    parts = ["data.validate.annotations=v.json", "data.validate.images=v"]
    for overrides in (
        ["data.validate={annotations='v.json', images='v'}"],
        ["data={validate={annotations='v.json', images='v'}}"],
        ["data.validate=", *parts],
        ["data.validate.dataset=", "data.validate.split=", *parts],
    ):
        assert load_recipe(ROW, overrides).data.validate_on == file, overrides
        assert load_recipe(ROW, overrides).data.train == load_recipe(ROW).data.train
    assert load_recipe(ROW, parts).data.validate_on == Source(
        dataset="coco", split="val", annotations=Path("v.json"), images=Path("v")
    )
    with pytest.raises(PosezooError, match=r"data\.validate: a source needs a dataset, or annotations and images"):
        load_recipe(ROW, ["data.validate.dataset="])


def test_a_source_given_whole_replaces_and_a_dotted_key_is_laid_over() -> None:
    given = resolve(ROW, ["data.train={dataset='coco', split='val'}", "data.train.share=2"])
    assert given.recipe.data.train == (Source(dataset="coco", split="val", share=2),)
    assert given.origins["data", "train", "share"] == "override data.train.share=2"
    assert given.origins["data", "train", "split"].startswith("override data.train={")
    assert ("data", "train") not in given.origins
    own = resolve(ROW, ["data.train={annotations='a.json', images='a'}"])
    assert own.recipe.data.train == (Source(annotations=Path("a.json"), images=Path("a")),)
    assert ("data", "train", "dataset") not in own.origins


# ---- rates


def test_fewer_people_than_a_step_learn_at_their_own_rate(recipe: Path) -> None:
    given = resolve(recipe, ["optimiser.batch_size=24", "optimiser.lr_batch_size=12", "schedule.warmup_steps=0"])
    assert given.recipe.optimiser.rate == pytest.approx(6e-3)
    planned = plan.make_plan(given)
    assert (planned.people, planned.batch, planned.steps_per_epoch, planned.steps) == (6, 6, 1, 2)
    assert planned.learning_rate == pytest.approx(1.5e-3)
    assert planned.rate == "lr 3e-3 for 12, here 6: 1.5e-3; falls as a cosine to 1.5e-5"
    assert ["steps", "1 an epoch, 2 in all: 2 epochs, 6 a step, all there are, not 24"] in plan.fields(given)
    drawn = plan.make_plan(resolve(recipe, ["optimiser.batch_size=24", "schedule.samples_per_epoch=24"]))
    assert (drawn.people, drawn.batch, drawn.steps_per_epoch) == (24, 6, 4)
    assert drawn.rate.startswith("lr 3e-3 for 24, here 6: 7.5e-4")


@pytest.mark.parametrize(("total", "rise"), [(5000, 200), (2000, 200), (40, 4), (9, 0)])
def test_an_unstated_warm_up_is_a_tenth_of_the_run_at_most(recipe: Path, total: int, rise: int) -> None:
    given = load_recipe(recipe)
    assert given.schedule.warmup(total) == rise
    rates = np.array([learning_rate(given, step, total) for step in range(total)])
    assert rates.argmax() == max(rise - 1, 0) and rates.max() == pytest.approx(1)
    assert not list(rate_lines(given, 3, total))


def test_a_stated_warm_up_is_kept_and_one_without_end_is_told(recipe: Path) -> None:
    given = resolve(recipe, ["schedule.warmup_steps=200"])
    assert learning_rate(given.recipe, 3, 4) == 4 / 200
    (line,) = rate_lines(given.recipe, 3, 4)
    assert line.startswith("learning rate rises over 200 steps, and the run has 4: it comes to 6e-05, never to 0.003; ")
    assert plan.make_plan(given).rate == (
        "lr 3e-3 for 3; rises over 200 steps, more than the run's 4: it comes to no more than 6e-5"
    )
    assert "rises" not in plan.make_plan(resolve(recipe)).rate  # a tenth of four steps
    longer = plan.make_plan(resolve(recipe, ["schedule.epochs=20"]))
    assert longer.rate == "lr 3e-3 for 3; rises over 4 steps; falls as a cosine to 3e-5"
    elsewhere = plan.make_plan(resolve(recipe, ["data.root=elsewhere"]))
    assert "; rises over 200 steps, or a tenth of the run if that is less; falls" in elsewhere.rate


# ---- what is learnt without labels


def test_people_without_labels_are_there_to_be_taught(recipe: Path, tmp_path: Path) -> None:
    def count(*overrides: str) -> int:
        data = load_recipe(recipe, ["data.train.annotations=bare.json", *overrides]).data
        return len(read_sources(data, data.train).people)

    content = json.loads((recipe.parent / "people.json").read_text())
    for person in content["annotations"][:4]:
        person["keypoints"], person["num_keypoints"] = [0] * 51, 0
    (recipe.parent / "bare.json").write_text(json.dumps(content))
    taught = [TEACHER, "distill.heatmap=4"]
    assert count(*taught) == 2
    assert count(*taught, "distill.label=0") == 6
    assert count(*taught, "distill.label=0", "data.least_joints=1") == 2
    whole = load_recipe(recipe, [*taught, "distill.label=0"])
    assert whole.data.least_joints == 0
    assert Recipe.model_validate_json(whole.model_dump_json(by_alias=True)) == whole


# ---- names and paths


def test_paths_begin_at_home_and_numbers_are_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    given = load_recipe(
        ROW, ["data.root=~/x", "run.folder='~/runs/1'", "model.backbone=~/b.pth", "data.train.images=~/i"]
    )
    assert given.data.root == tmp_path / "x" and given.run.folder == tmp_path / "runs" / "1"
    assert given.model.backbone == tmp_path / "b.pth" and given.data.train[0].images == tmp_path / "i"
    assert load_recipe(ROW, ["model.weights=~/w.safetensors"]).model.weights == str(tmp_path / "w.safetensors")
    augment = load_recipe(ROW, ["augment.proposals_from=~/boxes.json"]).augment
    assert augment.proposals_from == tmp_path / "boxes.json"
    taken_back = load_recipe(ROW, ["augment.proposals_from=x.json", "augment.proposals_from="]).augment
    assert taken_back.proposals_from is None
    assert load_recipe(ROW, ["run.folder=~nobody-of-this-name/x"]).run.folder == Path("~nobody-of-this-name/x")
    path = write_recipe(tmp_path, tmp_path)
    text = path.read_text().replace(f'root = "{tmp_path.as_posix()}"', 'root = "~/data"')
    text = text.replace('name = "tiny"', "name = 5").replace(f'folder = "{tmp_path.as_posix()}/run"', "folder = 2024")
    path.write_text(text)
    filed = load_recipe(path)
    assert (filed.name, filed.run.folder, filed.data.root) == ("5", Path("2024"), tmp_path / "data")


@pytest.mark.parametrize("text", ["5", "2024", "5.10", "1e3", "2024-11-05", "2024_11", "true"])
def test_what_is_given_for_a_text_is_taken_as_it_stands(text: str) -> None:
    given = load_recipe(ROW, [f"name={text}", f"run.folder={text}", f"data.train.domain={text}"])
    assert (given.name, given.run.folder, given.data.train[0].domain) == (text, Path(text), text)

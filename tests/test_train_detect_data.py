"""What a detector learns from and is judged by: people alone, in pictures that are there, seen to before a step."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

from posezoo.data.categories import find_people  # noqa: E402
from posezoo.errors import PosezooError  # noqa: E402
from posezoo.train import run  # noqa: E402
from posezoo.train.detect import DetectTask  # noqa: E402
from posezoo.train.recipe import load_recipe  # noqa: E402
from tiny_runs import write_people, write_recipe  # noqa: E402

Content = dict[str, Any]
PERSON, DOG, CHAIR = {"id": 1, "name": "person"}, {"id": 18, "name": "dog"}, {"id": 62, "name": "chair"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six pictures of one person each, and a recipe for a detector of them."""
    write_people(tmp_path)
    write_recipe(tmp_path, tmp_path, "detect")
    return tmp_path


def changed(folder: Path, change: Callable[[Content], None]) -> Path:
    """A copy of the annotations with a change to them."""
    content = json.loads((folder / "people.json").read_text())
    change(content)
    (folder / "other.json").write_text(json.dumps(content))
    return folder / "other.json"


def task_of(folder: Path, *overrides: str) -> DetectTask:
    return DetectTask(load_recipe(folder / "recipe.toml", overrides))


def perfect(task: DetectTask, monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """The figures of a detector that finds the people of `people.json`, of whom picture n has the nth."""
    assert task._judge is not None
    truth = json.loads((task.recipe.data.root / "people.json").read_text())["annotations"]
    boxes = np.array([one["bbox"] for one in truth], np.float32)
    boxes[:, 2:] += boxes[:, :2]
    order = iter(task._judge.people.image_ids[task._judge.pictures].tolist())

    def found(*_: Any) -> Any:
        row = next(order)
        return SimpleNamespace(xyxy=boxes[row : row + 1], scores=np.ones(len(boxes[row : row + 1])))

    monkeypatch.setattr("posezoo.train.detect.select", found)
    return task.validate(lambda x: (torch.zeros(1, 1), torch.zeros(1, 1, 4)), torch.device("cpu"))  # type: ignore[arg-type]


def with_dogs(content: Content) -> None:
    """A dog in every picture, and a seventh picture with nothing but a dog in it."""
    content["categories"] += [DOG, CHAIR]
    content["images"].append({**content["images"][0], "id": 6})
    for n in range(7):
        dog = {"id": 100 + n, "image_id": n, "category_id": 18, "bbox": [0, 0, 30, 20], "area": 600, "iscrowd": 0}
        content["annotations"].append(dog)


def person_is(number: int) -> Callable[[Content], None]:
    def change(content: Content) -> None:
        content["categories"] = [{"id": number, "name": "Person"}]
        for annotation in content["annotations"]:
            annotation["category_id"] = number

    return change


def with_dogs_as_first(content: Content) -> None:
    with_dogs(content)
    content["categories"] = [{"id": 1, "name": "dog"}, {"id": 18, "name": "person"}]
    for annotation in content["annotations"]:
        annotation["category_id"] = 19 - annotation["category_id"]


def from_0(content: Content) -> None:
    """The file's annotations count from 0, its list of categories from 1."""
    for annotation in content["annotations"]:
        annotation["category_id"] = 0


def unstated(content: Content) -> None:
    del content["categories"]
    for annotation in content["annotations"]:
        del annotation["category_id"]


@pytest.mark.parametrize("change", [with_dogs, person_is(7), with_dogs_as_first, from_0, unstated])
def test_people_are_one_category_whatever_its_number(
    folder: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Content], None]
) -> None:
    changed(folder, change)
    task = task_of(folder, "data.train.annotations=other.json", "data.validate.annotations=other.json")
    people = task.dataset.people
    assert people.ids.tolist() == [1, 2, 3, 4, 5, 6]
    assert len(task.dataset) == len(people.images)  # a picture of nobody is background
    assert [len(rows) for rows in task.dataset.rows][:6] == [1] * 6
    assert perfect(task, monkeypatch)["AP50"] == pytest.approx(1)


def test_what_is_left_out_is_told(folder: Path) -> None:
    path = changed(folder, with_dogs)
    notes = task_of(folder, "data.train.annotations=other.json").notes
    assert f"{path}: 6 people in 7 pictures, 1 of them without anybody" in notes
    assert f"{path}: people are category 1; left out: 7 of others (7 of 18 dog)" in notes
    changed(folder, from_0)
    notes = task_of(folder, "data.train.annotations=other.json").notes
    assert f"{path}: every annotation is of category 0, which is not listed: taken as people" in notes


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], r"^x is a JSON list, not a COCO-style file: it has to be an object with the lists images, annotations"),
        ({"images": [], "labels": []}, r"^x is an object with images, labels, not a COCO-style file"),
        ({"images": [], "annotations": [3]}, r"^x is not a COCO-style file: AttributeError"),
        ({"images": [], "annotations": [], "categories": [{"name": "person"}]}, r"not a COCO-style file: KeyError"),
        ({"images": [], "annotations": [], "categories": [{"id": "1"}]}, r"category '1' has to be a whole number"),
        ({"images": [], "annotations": [], "categories": [DOG, CHAIR]}, r"2 categories \(18 dog, 62 chair\): none is"),
        ({"images": [], "annotations": [], "categories": [PERSON, {"id": 2, "name": "PERSON"}]}, "2 are called person"),
        ({"images": [], "annotations": [{"category_id": 4}, {"category_id": 3}]}, r"2 categories \(3, 4\): none is"),
        (
            {"images": [], "annotations": [{"id": 9}], "categories": [PERSON, DOG]},
            r"annotation 9 has no category_id; the file has 2 categories \(1 person, 18 dog\)",
        ),
    ],
)
def test_a_file_that_does_not_say_who_people_are(content: Any, message: str) -> None:
    with pytest.raises(PosezooError, match=message):
        find_people(content, "x")


def dogs_alone(content: Content) -> None:
    with_dogs(content)
    content["annotations"] = content["annotations"][6:]


def crowds_alone(content: Content) -> None:
    for annotation in content["annotations"]:
        annotation["iscrowd"] = 1


def partly_boxed(content: Content) -> None:
    for picture in content["images"]:
        picture["complete_person_boxes"] = False


def as_list(content: Content) -> None:
    content["images"] = {}


def one_gone(content: Content) -> None:
    content["images"][2]["file_name"] = "gone.png"


def one_of_another_size(content: Content) -> None:
    content["images"][2]["width"] = 220


def boxless(content: Content) -> None:
    del content["annotations"][0]["bbox"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dogs_alone, r"nobody has a box .* in 7 pictures: 0 annotations are of category 1, .*, 7 of others \(7 of 18"),
        (crowds_alone, "nobody has a box of their own in 6 pictures: 6 annotations are of category 1"),
        (partly_boxed, "in the 0 of 6 whose people all are boxed"),
        (as_list, "an object with images, annotations, categories, not a COCO-style file"),
        (one_gone, r"1 of 6 pictures are missing \(.*gone.png\); data.max_missing allows 1.0%"),
        (one_of_another_size, r"1 of 6 pictures are of another size .*2.png"),
        (boxless, "bbox"),
    ],
)
def test_validation_is_checked_before_the_first_step(
    folder: Path, change: Callable[[Content], None], message: str
) -> None:
    path = changed(folder, change)
    with pytest.raises(PosezooError, match=message) as caught:
        run(folder / "recipe.toml", ["data.validate.annotations=other.json"])
    assert str(caught.value).startswith(f"data.validate: {path}") and not (folder / "run").exists()


def test_a_validation_file_that_is_not_there(folder: Path) -> None:
    with pytest.raises(PosezooError, match=r"cannot read .*nope.json"):
        run(folder / "recipe.toml", ["data.validate.annotations=nope.json"])
    assert not (folder / "run").exists()


@pytest.mark.parametrize("dry_run", [True, False])
@pytest.mark.parametrize(
    ("key", "source", "message"),
    [
        ("validate", '{dataset="coco", split="val"}', r'data.validate has dataset = "coco"; a detector is judged by'),
        ("train", '{dataset="coco", split="val"}', r'data.train has dataset = "coco"; a detector learns from one COCO'),
        ("train", 2, r"data.train has 2 sources; a detector learns from one COCO-style file"),
    ],
)
def test_data_that_a_detector_cannot_read_are_refused_even_in_a_dry_run(
    folder: Path, key: str, source: str | int, message: str, dry_run: bool
) -> None:
    recipe, given = folder / "recipe.toml", '{ annotations = "people.json", images = "." }'
    replaced = f"[{given}, {given}]" if source == 2 else source
    recipe.write_text(recipe.read_text().replace(f"{key} = {given}", f"{key} = {replaced}"))
    with pytest.raises(PosezooError, match=message):
        run(recipe, dry_run=dry_run)


def test_pictures_that_are_not_there_are_left_out_of_training(folder: Path) -> None:
    def change(content: Content) -> None:
        with_dogs(content)
        content["images"][6]["file_name"] = "nobody.png"  # it would have shown a dog alone
        one_gone(content)

    path = changed(folder, change)
    with pytest.raises(
        PosezooError, match=r"2 of 7 pictures are missing \(.*gone.png, .*nobody.png\); .* allows 20.0%"
    ):
        task_of(folder, "data.train.annotations=other.json", "data.max_missing=0.2")
    task = task_of(folder, "data.train.annotations=other.json", "data.max_missing=0.3")
    assert task.dataset.pictures.tolist() == [0, 1, 3, 4, 5]
    assert task.dataset.people.ids.tolist() == [1, 2, 4, 5, 6]
    for row in range(5):  # and none of them is drawn, first or beside another
        task.dataset[0, row]
    gone = f"{folder / 'gone.png'}, {folder / 'nobody.png'}"
    assert f"{path}: 2 of 7 pictures are missing ({gone}); 1 people are left out" in task.notes


def test_training_without_any_picture(folder: Path) -> None:
    with pytest.raises(PosezooError, match=r"6 of 6 pictures are missing .*: nobody is left"):
        task_of(folder, "data.train.images=nowhere", "data.max_missing=1")
    with pytest.raises(
        PosezooError, match=r"data.validate: .* 6 of 6 pictures are missing .*: nobody is left to judge"
    ):
        task_of(folder, "data.validate.images=nowhere", "data.max_missing=1")


def test_nobody_is_found_in_a_validation_picture_that_is_not_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = changed(folder, one_gone)
    task = task_of(folder, "data.validate.annotations=other.json", "data.max_missing=0.2")
    told = f"data.validate: {path}: 1 of 6 pictures are missing ({folder / 'gone.png'}), and nobody is found in them"
    assert told in task.notes
    # every step of recall up to 5/6 is exact: 84 of the 101 points of the curve
    assert perfect(task, monkeypatch)["AP50"] == pytest.approx(84 / 101, abs=0.01)


def test_who_is_in_a_crowd_or_a_partly_boxed_picture_is_not_judged(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(content: Content) -> None:
        content["annotations"][0]["iscrowd"] = 1
        content["images"][5]["complete_person_boxes"] = False

    changed(folder, change)
    task = task_of(folder, "data.validate.annotations=other.json")
    assert task._judge is not None and task._judge.pictures.tolist() == [0, 1, 2, 3, 4]
    assert [one["iscrowd"] for one in task._judge.truth["annotations"]] == [1, 0, 0, 0, 0]
    assert perfect(task, monkeypatch)["AP50"] == pytest.approx(1)


def test_a_file_may_have_any_joints(folder: Path) -> None:
    def change(content: Content) -> None:
        for annotation in content["annotations"]:
            annotation["keypoints"] = [1, 2, 2] * 5

    changed(folder, change)
    assert (
        len(task_of(folder, "data.train.annotations=other.json", "data.validate.annotations=other.json").dataset) == 6
    )

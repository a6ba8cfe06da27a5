"""Which picture a box of a file is of, where pictures of several folders have the same file name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from posezoo.detect.boxes_file import BoxesFile
from posezoo.errors import PosezooError
from posezoo.types import Boxes


def file_of(*names: str) -> BoxesFile:
    """Each has one box, as wide as the name's number, from 1."""
    return BoxesFile(Path("b.json"), {name: Boxes([[0, 0, number, 9]]) for number, name in enumerate(names, 1)})


def found(boxes: BoxesFile, run: Sequence[str]) -> list[int]:
    """The numbers of the names that a run's pictures get the boxes of, and 0 for none."""
    boxes.check_has_any(run)
    each = boxes([np.zeros((9, 9, 3), np.uint8)] * len(run), names=run)
    assert each == [] or max(map(len, each)) <= 1
    return [int(one.xyxy[0, 2]) if len(one) else 0 for one in each]


SEQUENCES = ("seqA/0.png", "seqA/1.png", "seqB/0.png", "seqB/1.png")


def test_a_picture_of_another_folder_has_no_box_of_its_namesake() -> None:
    assert found(file_of("seqA/1.png", "seqB/0.png"), SEQUENCES) == [0, 1, 2, 0]


@pytest.mark.parametrize("above", ["photos/", "/data/photos/", "../photos/", "./", "photos/../"])
def test_folders_above_do_not_matter(above: str) -> None:
    """Neither those that the file lacks, nor those that the run does; the same from wherever it is started."""
    longer = [above + name for name in SEQUENCES]
    assert found(file_of("seqA/0.png", "seqB/0.png"), longer) == [1, 0, 2, 0]
    assert found(file_of(above + "seqA/0.png", above + "seqB/0.png"), SEQUENCES) == [1, 0, 2, 0]
    assert found(file_of(*longer), SEQUENCES) == [1, 2, 3, 4]


def test_the_longest_name_in_common() -> None:
    boxes = file_of("0.png", "seqA/0.png", "x/seqA/0.png")
    assert found(boxes, ["0.png", "x/seqA/0.png", "y/seqA/0.png", "seqA/0.png", "seqB/0.png"]) == [1, 3, 2, 2, 1]


def test_pictures_that_were_moved() -> None:
    assert found(file_of("one/a.jpg", "two/b.jpg"), ["/elsewhere/a.jpg", "/elsewhere/b.jpg"]) == [1, 2]
    moved = [f"/new/{name}" for name in SEQUENCES]
    assert found(file_of(*(f"/old/{name}" for name in SEQUENCES)), moved) == [1, 2, 3, 4]
    assert found(file_of("/old/seqA/0.png", "/old/seqB/1.png"), moved) == [1, 0, 0, 2]


def test_a_moved_picture_that_two_could_be() -> None:
    boxes = file_of("seqA/1.png", "seqA/2.png")
    assert found(boxes, ["seqC/1.png", "seqD/1.png", "seqD/2.png"]) == [0, 0, 2]
    assert found(file_of("seqA/1.png"), ["1.png", "seqD/1.png"]) == [1, 0]
    assert found(file_of("seqA/1.png"), ["new/1.png", "new/1.png", "./new/1.png"]) == [1, 1, 1]  # one picture


def test_a_folder_of_its_own_in_the_file_or_in_the_run() -> None:
    """The picture's folder is one of the file, which has no box for it there; or the entry's is one of the run."""
    assert found(file_of("seqA/1.png", "seqB/0.png"), ["seqB/0.png", "seqB/1.png"]) == [2, 0]
    assert found(file_of("seqA/0.png", "seqA/1.png"), ["seqA/0.png", "seqB/1.png"]) == [1, 0]
    inner = file_of("seqA/img/1.png", "seqB/img/0.png")  # "img" alone tells nothing
    assert found(inner, ["in/seqB/img/0.png", "in/seqB/img/1.png"]) == [2, 0]
    assert found(file_of("seqA/img/1.png", "seqB/img/0.png"), ["new/img/0.png", "new/img/1.png"]) == [2, 1]


def test_names_without_folders_are_of_every_picture_of_that_name() -> None:
    assert found(file_of("0.png", "1"), SEQUENCES) == [1, 2, 1, 2]
    assert found(file_of("v.mp4#3", "4"), ["in/v.mp4#3", "in/v.mp4#4", "to/v.mp4#3"]) == [1, 2, 1]


def test_videos_of_the_same_name() -> None:
    """They come one after another."""
    boxes = file_of("seqA/v.mp4#0", "seqA/v.mp4#1")
    assert found(boxes, ["in/seqA/v.mp4#0", "in/seqA/v.mp4#1"]) == [1, 2]
    with pytest.raises(PosezooError, match="has none of the pictures"):
        boxes.check_has_any(["in/seqB/v.mp4#0", "in/seqB/v.mp4#1"])


def test_a_name_of_thousands_of_folders() -> None:
    deep = "a/" * 100_000 + "0.png"
    assert found(file_of(deep, "b/0.png"), [deep, "x/a/0.png"]) == [1, 0]

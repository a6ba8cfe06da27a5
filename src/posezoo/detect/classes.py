"""What detectors tell apart: the classes of COCO (arXiv 1405.0312), as files number them and as networks do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from posezoo.errors import PosezooError

_NAMES = """
person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, , stop sign,
parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, , backpack, umbrella, , ,
handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard,
surfboard, tennis racket, bottle, , wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange,
broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, , dining table, , , toilet, , tv,
laptop, mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, , book, clock, vase,
scissors, teddy bear, hair drier, toothbrush
"""

COCO_IDS = ("", *(name.strip() for name in _NAMES.replace("\n", " ").split(",")))
"""By the `category_id` of COCO's files, 1 to 90; "" for those that no image has, and for 0."""
COCO = tuple(name for name in COCO_IDS if name)
"""The 80 by their order, from 0, as most networks number them."""
LISTS = {"coco80": COCO, "coco91": COCO_IDS, "person": ("person",)}


def names_of(count: int, given: Sequence[str] | None, who: str, way_out: str) -> tuple[str, ...]:
    """The names of a network's classes.

    Args:
        count: how many it tells apart.
        given: what its file, or a file beside it, says.
        who: the network, for messages.
        way_out: how the names can be given, for messages.

    Raises:
        PosezooError: they are not said and cannot be known, or are of another number.
    """
    if given is not None:
        if len(given) != count:
            raise PosezooError(f"{who} tells {count} classes apart, but {len(given)} names are given for them")
        return tuple(given)
    known = {len(COCO): COCO, len(COCO_IDS): COCO_IDS, 1: ("person",)}
    if count not in known:
        raise PosezooError(f"{who} tells {count} classes apart and does not say which of them is a person: {way_out}")
    return known[count]


def read_names(path: Path) -> tuple[str, ...] | None:
    """Names from a text file, one a line, as darknet's `.names`; None where there is no such file.

    Raises:
        PosezooError: it cannot be read.
    """
    if not path.is_file():
        return None
    try:
        return tuple(path.read_text(encoding="utf-8-sig").rstrip().splitlines())
    except (OSError, UnicodeDecodeError) as err:
        raise PosezooError(f"cannot read {path}: {getattr(err, 'strerror', None) or err}") from None

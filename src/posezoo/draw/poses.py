"""Skeletons over a picture: colours by side or by person, lines by the person's size, doubtful joints faded.

Each person is drawn on a small transparent layer of its own, enlarged where the person is small, so that lines have
fractions of a pixel in width and place; the layers are laid over the picture from the far people to the near ones.
Trails lie below everybody, words above.
"""

from __future__ import annotations

import numpy as np

from posezoo.draw.labels import Places, keep_joints_free, write_id, write_names
from posezoo.draw.layer import Image
from posezoo.draw.paint import paints
from posezoo.draw.person import Figure, areas, draw_box, draw_figure, figure
from posezoo.draw.themes import Theme, get_theme
from posezoo.draw.trails import Trails
from posezoo.errors import PosezooError
from posezoo.types import Floats, Poses


def draw_poses(
    image_rgb: Image,
    poses: Poses,
    *,
    boxes: bool = False,
    ids: bool = True,
    names: bool = False,
    trails: Trails | None = None,
    color_by: str = "auto",
    theme: str | Theme = "default",
    joint_score: float = 0.2,
    out: Image | None = None,
) -> Image:
    """Draw the people of one image.

    Args:
        image_rgb: (H, W, 3) uint8; it is not changed, unless it is `out` too.
        poses: the people; small boxes are taken to be far away and are drawn first.
        boxes: draw the boxes too.
        ids: write the ids of those who have one, which is 0 or more.
        names: write the names of the joints, as far as there is room.
        trails: the way that people with an id came, drawn below everybody.
        color_by: "side": left is cool and right is warm; "person": everybody has a colour, the same for the same id;
            "auto": by person where there are ids.
        theme: colours and widths, by name (see `THEMES`) or your own.
        joint_score: leave out joints below this score, and the limbs that end in them.
        out: where to draw; `image_rgb` itself to draw on it in place; None: a new picture.

    Returns:
        (H, W, 3) uint8: `out`, or a new picture.

    Raises:
        PosezooError: the picture, or `out`, has another shape or type, or `out` cannot be drawn on.
        UnknownNameError: there is no such theme, or no such way to colour.
    """
    _check("draw on", image_rgb)
    theme = get_theme(theme)
    paint = paints(poses, theme, color_by)
    canvas = _canvas(image_rgb, out)
    if canvas.size == 0:
        return canvas
    if trails is not None:
        trails.draw(canvas, theme)
    sizes = areas(poses.boxes_xyxy)
    far_to_near = np.argsort(sizes, kind="stable").tolist()
    seen: dict[int, Figure] = {}
    for row in far_to_near:
        if boxes:
            draw_box(canvas, poses.boxes_xyxy[row], float(poses.box_scores[row]), theme, paint[row].person)
        seen[row] = figure(canvas, poses, row, float(sizes[row]), joint_score, theme, paint[row])
        draw_figure(canvas, seen[row], poses.skeleton, poses.scores[row], joint_score, theme, paint[row])
    near_to_far = [(row, seen[row], paint[row]) for row in reversed(far_to_near)]
    free = Places(canvas)
    if names or (ids and poses.track_ids is not None):
        for _, person, look in near_to_far:
            keep_joints_free(person, look, free)
    if ids and poses.track_ids is not None:
        for row, person, look in near_to_far:
            box = _label_box(person, poses.boxes_xyxy[row], float(sizes[row]), boxes)
            if box is not None and poses.track_ids[row] >= 0:
                write_id(canvas, int(poses.track_ids[row]), box, look, theme, free)
    if names:
        for _, person, look in near_to_far:
            write_names(canvas, person, poses.skeleton, theme, look, free)
    return canvas


def _label_box(person: Figure, box_xyxy: Floats, area: float, is_drawn: bool) -> list[float] | None:
    """Where somebody's label belongs: at the box, or around the joints; None where neither is to be seen."""
    shown = bool(person.shown.any())
    if area > 0 and (shown or is_drawn):
        box: list[float] = box_xyxy.tolist()
        return box
    return person.box_xyxy if shown else None


def _check(what: str, image: object) -> None:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.shape[2:] != (3,):
        given = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise PosezooError(f"can only {what} an (H, W, 3) uint8 RGB array, but got {given}")


def _canvas(image_rgb: Image, out: Image | None) -> Image:
    """What to draw on, with the picture on it."""
    if out is None:
        return np.array(image_rgb, order="C")
    _check("draw into", out)
    if out.shape != image_rgb.shape:
        raise PosezooError(f"cannot draw a picture of shape {image_rgb.shape} into one of shape {out.shape}")
    # OpenCV draws on rows that lie apart, as in a part of a larger picture, but not on a mirrored one
    if not out.flags.writeable or (out.size and (out.strides[1:] != (3, 1) or out.strides[0] < 0)):
        raise PosezooError("cannot draw into this array: it is read-only, or its pixels do not lie side by side")
    if out is not image_rgb:
        out[:] = image_rgb
    return out

"""What a skeleton and a theme say of each joint and limb: colours by side or by person, widths by part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from posezoo.draw.themes import Theme
from posezoo.errors import unknown_name
from posezoo.skeletons import Color, Skeleton
from posezoo.types import Poses

COLOR_BY = ("auto", "side", "person")
_FINE_PARTS = {"face": 0.16, "left_hand": 0.3, "right_hand": 0.3, "contour": 0.5, "feet": 0.75}
_FINE_JOINTS = {"nose": 0.62, "left_eye": 0.62, "right_eye": 0.62, "left_ear": 0.62, "right_ear": 0.62}


@dataclass(frozen=True)
class Paint:
    """Colours as RGB, widths relative to a limb's.

    Attributes:
        person: of what belongs to the whole person, such as the label; None: whatever the theme has for it.
        joint_colors, edge_colors: one a joint and one a limb.
        joint_widths, edge_widths: (K,) and (E,).
    """

    person: Color | None
    joint_colors: tuple[Color, ...]
    edge_colors: tuple[Color, ...]
    joint_widths: NDArray[np.float64]
    edge_widths: NDArray[np.float64]


def paints(poses: Poses, theme: Theme, color_by: str) -> list[Paint]:
    """One a person.

    Args:
        poses: the people.
        theme: the colours.
        color_by: "side"; "person": by id, or in turn where nobody has one; "auto": by person where there are ids.

    Raises:
        UnknownNameError: another way to colour.
    """
    if color_by not in COLOR_BY:
        raise unknown_name("way to colour", str(color_by), COLOR_BY)
    skeleton, ids = poses.skeleton, poses.track_ids
    if color_by == "side" or (color_by == "auto" and ids is None):
        return [_by_side(skeleton, theme)] * len(poses)
    numbers = range(1, len(poses) + 1) if ids is None else ids.tolist()
    return [_paint(skeleton, *_by_person(person_color(theme, number))) for number in numbers]


def person_color(theme: Theme, number: int) -> Color:
    """The colour of somebody's id; nobody, who has a negative one, is as grey as the middle of the body."""
    if number < 0 or not theme.people:
        return theme.colors.get("center", (173, 181, 189))
    return theme.people[(number - 1) % len(theme.people)]


def _by_side(skeleton: Skeleton, theme: Theme) -> Paint:
    known = {key: color for key, color in theme.colors.items() if key in ("left", "right", "center", *skeleton.parts)}
    return _paint(skeleton, None, _items({**skeleton.colors, **known}))


def _by_person(color: Color) -> tuple[Color, tuple[tuple[str, Color], ...]]:
    """One colour, lighter on the left and darker on the right, so that sides can still be told."""
    shades = {"left": _mixed(color, 255, 0.38), "right": _mixed(color, 0, 0.2), "center": color}
    return color, _items(shades)


def _mixed(color: Color, other: int, share: float) -> Color:
    red, green, blue = (round((1 - share) * value + share * other) for value in color)
    return red, green, blue


def _items(colors: Mapping[str, Color]) -> tuple[tuple[str, Color], ...]:
    return tuple(sorted(colors.items()))


@lru_cache(maxsize=256)
def _paint(skeleton: Skeleton, person: Color | None, colors: tuple[tuple[str, Color], ...]) -> Paint:
    skeleton = replace(skeleton, colors=dict(colors))
    widths = np.ones(len(skeleton.joints))
    for row, joint in enumerate(skeleton.joints):
        parts = [width for part, width in _FINE_PARTS.items() if joint in skeleton.parts.get(part, ())]
        if joint in _FINE_JOINTS:
            # five points are all there is of most faces; beside sixty-eight they had better be small
            parts.append(_FINE_JOINTS[joint] * (0.6 if "face" in skeleton.parts else 1.0))
        widths[row] = min([1.0, *parts])
    return Paint(
        person=person,
        joint_colors=tuple(skeleton.color(joint) for joint in skeleton.joints),
        edge_colors=tuple(_edge_color(skeleton, a, b) for a, b in skeleton.edges),
        joint_widths=widths,
        edge_widths=widths[skeleton.edge_index].min(axis=1),
    )


def _edge_color(skeleton: Skeleton, a: str, b: str) -> Color:
    """A limb has the colour of its ends; between left and right it is neutral, towards the middle it keeps its side."""
    first, second = skeleton.color(a), skeleton.color(b)
    center = skeleton.side_color("center")
    if first == second:
        return first
    if {skeleton.side(a), skeleton.side(b)} == {"left", "right"}:
        return center
    return first if second == center else second

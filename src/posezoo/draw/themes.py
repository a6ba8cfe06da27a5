"""How skeletons look: themes by name, from `themes.toml`, or your own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from posezoo import toml
from posezoo.errors import unknown_name
from posezoo.skeletons import Color

_PEOPLE: tuple[Color, ...] = (
    (38, 166, 255), (255, 122, 48), (80, 214, 112), (242, 96, 190), (255, 214, 61), (160, 124, 255), (41, 211, 200),
    (255, 92, 92), (176, 218, 52), (112, 144, 255), (255, 160, 150), (214, 164, 96),
)  # fmt: skip


@dataclass(frozen=True)
class Theme:
    """How skeletons look. Lengths are shares of the person's size, the root of the box area.

    Attributes:
        colors: RGB by side ("left", "right", "center") or part, in place of the skeleton's own.
        line: the width of a limb.
        thinnest: the least width of a limb, in pixels, as long as the person is not tiny.
        outline: RGB around lines and joints, so that they are legible on any ground.
        outline_alpha: how opaque the outline is, in [0, 1].
        rim: RGB of the ring around a joint.
        opaque_score: the score from which on a joint is not faded.
        faintest: how opaque the most doubtful joint is, in [0, 1].
        people: RGB of the persons, by their ids and in turn.
        blended: False: all is drawn straight on the picture, in whole pixels and without outline, rim or fading.
    """

    colors: Mapping[str, Color] = field(default_factory=dict)
    line: float = 0.02
    thinnest: float = 1.25
    outline: Color = (14, 17, 22)
    outline_alpha: float = 0.6
    rim: Color = (255, 255, 255)
    opaque_score: float = 0.6
    faintest: float = 0.3
    people: tuple[Color, ...] = _PEOPLE
    blended: bool = True


def _read() -> dict[str, Theme]:
    tables = toml.load(resources.files(__package__).joinpath("themes.toml"))
    return {name: Theme(**{key: _value(value) for key, value in table.items()}) for name, table in tables.items()}


def _value(value: Any) -> Any:
    """Colours as numbers, wherever they stand; anything else as it is."""
    if isinstance(value, dict):
        return {key: _value(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return tuple(_value(inner) for inner in value)
    if isinstance(value, str):
        return tuple(bytes.fromhex(value.removeprefix("#")))
    return value


THEMES: Mapping[str, Theme] = _read()
"""The themes by name."""

DEFAULT = THEMES["default"]


def get_theme(theme: str | Theme) -> Theme:
    """The theme called so; one that is a theme already comes back as it is.

    Raises:
        UnknownNameError: there is no such theme; the message has the nearest names.
    """
    if isinstance(theme, Theme):
        return theme
    if theme not in THEMES:
        raise unknown_name("theme", str(theme), THEMES)
    return THEMES[theme]

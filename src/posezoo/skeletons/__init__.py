"""Keypoint sets as data: the names, order, mirror pairs, edges and sigmas of a person's joints.

One TOML file is one set. Everything in it is said by joint name, so that nothing depends on how many joints there are
or where they stand in an array. `aliases.toml` knows the few points that two sets call by different names.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from posezoo import toml
from posezoo.errors import PosezooError, unknown_name

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

Side = Literal["left", "right", "center"]
Color = tuple[int, int, int]

COLORS = {"left": (38, 166, 255), "right": (255, 122, 48), "center": (233, 236, 239)}
"""RGB of each side of the body where a set says nothing else: left is cool, right is warm."""

_KEYS = ("name", "paper", "joints", "mirror", "edges", "oks_sigmas", "joint_weights", "parts", "colors")
_ALIASES = "aliases.toml"


@dataclass(frozen=True, eq=False)
class Skeleton:
    """A keypoint set of K joints. Two are equal if they have the same name and joints.

    Attributes:
        name: such as "coco17".
        joints: the K names, in the order of every array of keypoints.
        mirror: pairs (the person's left, the person's right) that change places when a picture is flipped.
        edges: the limbs to draw, as pairs of names.
        oks_sigmas: (K,) float64, the spread of human annotators as a share of the person's size; OKS uses (2 sigma)^2.
        joint_weights: (K,) float64, how much each joint counts in training with `target.joint_weights`.
        parts: groups of joints by name, such as "feet" or "upper_body"; they may overlap.
        colors: RGB by side ("left", "right", "center") or by part; a part's colour wins over a side's.
        paper: where the set was defined.

    Raises:
        PosezooError: the parts of the definition contradict each other; the message has the wrong value.
    """

    name: str
    joints: tuple[str, ...]
    mirror: tuple[tuple[str, str], ...] = ()
    edges: tuple[tuple[str, str], ...] = ()
    oks_sigmas: NDArray[np.float64] = field(default=None, repr=False)  # type: ignore[arg-type]
    joint_weights: NDArray[np.float64] = field(default=None, repr=False)  # type: ignore[arg-type]
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False)
    colors: Mapping[str, Color] = field(default_factory=dict, repr=False)
    paper: str = ""

    def __post_init__(self) -> None:
        where = f"skeleton '{self.name}'"
        _check_names(where, self.joints)
        _check_mirror(where, self.joints, self.mirror)
        _check_edges(where, self.joints, self.edges)
        for part, names in self.parts.items():
            for joint in names:
                _check_known(f"{where}, part '{part}'", joint, self.joints)
            _check_unique(f"{where}, part '{part}'", names)
        for key, color in self.colors.items():
            if key not in (*COLORS, *self.parts):
                raise PosezooError(f"{where}: {unknown_name('side or part in colors', key, (*COLORS, *self.parts))}")
            if len(color) != 3 or any(not isinstance(c, int) or not 0 <= c <= 255 for c in color):
                raise PosezooError(f"{where}: color of '{key}' is {color!r}, expected three whole numbers in 0..255")
        sigmas = _per_joint(where, "oks_sigmas", self.oks_sigmas, self.joints, positive=True)
        weights = np.ones(len(self.joints)) if self.joint_weights is None else self.joint_weights
        object.__setattr__(self, "oks_sigmas", sigmas)
        object.__setattr__(self, "joint_weights", _per_joint(where, "joint_weights", weights, self.joints))

    def __len__(self) -> int:
        return len(self.joints)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Skeleton) and (self.name, self.joints) == (other.name, other.joints)

    def __hash__(self) -> int:
        return hash((self.name, self.joints))

    @classmethod
    def from_toml(cls, path: str | Path | Traversable) -> Skeleton:
        """The set that a TOML file defines: one of posezoo's, or your own (see `skeletons/coco17.toml` for the form).

        Raises:
            PosezooError: the file cannot be read, has an unknown or missing key, or contradicts itself; the message
                names the file and the wrong value.
        """
        path = Path(path) if isinstance(path, str) else path
        table = toml.load(path)
        for key in table:
            if key not in _KEYS:
                raise PosezooError(f"{path}: {unknown_name('key', key, _KEYS)}")
        for key in ("name", "joints", "oks_sigmas"):
            if key not in table:
                raise PosezooError(f"{path}: '{key}' is missing")
        try:
            return cls(
                name=_text("name", table["name"]),
                joints=_texts("joints", table["joints"]),
                mirror=_pairs("mirror", table.get("mirror", [])),
                edges=_pairs("edges", table.get("edges", [])),
                oks_sigmas=_numbers("oks_sigmas", table["oks_sigmas"]),
                joint_weights=_numbers("joint_weights", table.get("joint_weights")),
                parts={k: _texts(f"parts.{k}", v) for k, v in _table("parts", table.get("parts", {})).items()},
                colors={k: _color(f"colors.{k}", v) for k, v in _table("colors", table.get("colors", {})).items()},
                paper=_text("paper", table.get("paper", "")),
            )
        except PosezooError as err:
            raise PosezooError(f"{path}: {err}") from None

    @cached_property
    def _row(self) -> dict[str, int]:
        return {joint: row for row, joint in enumerate(self.joints)}

    def index(self, joint: str) -> int:
        """Where `joint` stands in the arrays.

        Raises:
            UnknownNameError: the set has no such joint.
        """
        if joint not in self._row:
            raise unknown_name(f"joint of {self.name}", joint, self.joints)
        return self._row[joint]

    @cached_property
    def mirror_index(self) -> NDArray[np.int64]:
        """(K,) the row that each joint takes when the picture is flipped: `flipped[mirror_index]` is unflipped."""
        rows = np.arange(len(self.joints))
        for left, right in self.mirror:
            rows[self._row[left]], rows[self._row[right]] = self._row[right], self._row[left]
        rows.flags.writeable = False
        return rows

    @cached_property
    def edge_index(self) -> NDArray[np.int64]:
        """(E, 2) the rows of the two ends of each edge."""
        rows = np.array([[self._row[a], self._row[b]] for a, b in self.edges], np.int64).reshape(-1, 2)
        rows.flags.writeable = False
        return rows

    @cached_property
    def _sides(self) -> dict[str, Side]:
        sides: dict[str, Side] = {}
        for left, right in self.mirror:
            sides[left], sides[right] = "left", "right"
        return sides

    def side(self, joint: str) -> Side:
        """The side of the body that `joint` is on, as the person sees it; "center" if it has no mirror twin."""
        self.index(joint)
        return self._sides.get(joint, "center")

    def color(self, joint: str) -> Color:
        """RGB of `joint`: of the smallest part that has a colour, else of its side."""
        self.index(joint)
        own = [part for part in self.colors if part in self.parts and joint in self.parts[part]]
        if own:
            return self.colors[min(own, key=lambda part: len(self.parts[part]))]
        return self.side_color(self.side(joint))

    def side_color(self, side: Side) -> Color:
        """RGB of a side of the body."""
        return self.colors.get(side, COLORS[side])


def _check_known(where: str, joint: str, joints: tuple[str, ...]) -> None:
    if joint not in joints:
        raise PosezooError(f"{where}: {unknown_name('joint', joint, joints)}")


def _check_unique(where: str, names: tuple[str, ...]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise PosezooError(f"{where}: joint '{twice[0]}' is listed twice")


def _check_names(where: str, joints: tuple[str, ...]) -> None:
    if not joints:
        raise PosezooError(f"{where}: no joints")
    for joint in joints:
        if not joint or joint != joint.strip():
            raise PosezooError(f"{where}: joint name {joint!r} is empty or has spaces around it")
    _check_unique(where, joints)


def _check_mirror(where: str, joints: tuple[str, ...], mirror: tuple[tuple[str, str], ...]) -> None:
    """Pairs that are disjoint make the swap an involution: done twice, everything is where it was."""
    pair_of: dict[str, tuple[str, str]] = {}
    for pair in mirror:
        if pair[0] == pair[1]:
            raise PosezooError(f"{where}: mirror pair {list(pair)} is a joint with itself; leave out the middle")
        for joint in pair:
            _check_known(f"{where}, mirror pair {list(pair)}", joint, joints)
            if joint in pair_of:
                raise PosezooError(f"{where}: '{joint}' is in the mirror pairs {list(pair_of[joint])} and {list(pair)}")
            pair_of[joint] = pair
        # sides are read off the order within a pair, so a swapped pair would colour and track the wrong side
        if re.search(r"(^|_)right(_|$)", pair[0]) or re.search(r"(^|_)left(_|$)", pair[1]):
            raise PosezooError(f"{where}: mirror pair {list(pair)} must name the left joint first")


def _check_edges(where: str, joints: tuple[str, ...], edges: tuple[tuple[str, str], ...]) -> None:
    seen: set[frozenset[str]] = set()
    for edge in edges:
        for joint in edge:
            _check_known(f"{where}, edge {list(edge)}", joint, joints)
        if edge[0] == edge[1]:
            raise PosezooError(f"{where}: edge {list(edge)} joins a joint to itself")
        if frozenset(edge) in seen:
            raise PosezooError(f"{where}: edge {list(edge)} is listed twice")
        seen.add(frozenset(edge))


def _per_joint(
    where: str, key: str, value: Any, joints: tuple[str, ...], positive: bool = False
) -> NDArray[np.float64]:
    """A read-only (K,) array, or an error that names the joint."""
    given = np.array([] if value is None else value, np.float64)
    if given.shape != (len(joints),):
        raise PosezooError(f"{where}: {key} has {given.size} values for {len(joints)} joints")
    for joint, number in zip(joints, given.tolist(), strict=True):
        if not math.isfinite(number) or number < 0 or (positive and number == 0):
            least = "above 0" if positive else "0 or more"
            raise PosezooError(f"{where}: {key} of '{joint}' is {number}, expected {least}")
    given.flags.writeable = False
    return given


def _text(key: str, value: object) -> str:
    if not isinstance(value, str):
        raise PosezooError(f"'{key}' is {value!r}, expected a text")
    return value


def _texts(key: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise PosezooError(f"'{key}' must be a list of joint names")
    return tuple(value)


def _pairs(key: str, value: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, list):
        raise PosezooError(f"'{key}' must be a list of pairs of joint names")
    for pair in value:
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(v, str) for v in pair):
            raise PosezooError(f"'{key}' has {pair!r}, expected a pair of joint names")
    return tuple((a, b) for a, b in value)


def _numbers(key: str, value: object) -> Any:
    if value is None:
        return None
    if not isinstance(value, list):
        raise PosezooError(f"'{key}' must be a list of numbers, one a joint")
    for number in value:
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise PosezooError(f"'{key}' has {number!r}, expected a number")
    return value


def _table(key: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise PosezooError(f"'{key}' must be a table")
    return value


def _color(key: str, value: object) -> Color:
    match = re.fullmatch(r"#([0-9a-fA-F]{2})([0-9a-fA-F]{2})([0-9a-fA-F]{2})", value if isinstance(value, str) else "")
    if match is None:
        raise PosezooError(f"'{key}' is {value!r}, expected a colour such as '#26a6ff'")
    red, green, blue = (int(part, 16) for part in match.groups())
    return red, green, blue


@cache
def list_skeletons() -> list[str]:
    """The names of posezoo's own keypoint sets."""
    files = (entry.name for entry in resources.files(__package__).iterdir())
    return sorted(name.removesuffix(".toml") for name in files if name.endswith(".toml") and name != _ALIASES)


@cache
def get_skeleton(name: str) -> Skeleton:
    """The keypoint set called `name`; always the same object.

    Raises:
        UnknownNameError: there is no such set; the message has the nearest names.
    """
    if name not in list_skeletons():
        raise unknown_name("skeleton", name, list_skeletons())
    return Skeleton.from_toml(resources.files(__package__).joinpath(f"{name}.toml"))


@cache
def _points() -> dict[str, dict[str, str]]:
    """{set: {its joint: the point of the body}} from `aliases.toml`."""
    file = resources.files(__package__).joinpath(_ALIASES)
    points: dict[str, dict[str, str]] = {}
    for point, joints in toml.load(file).items():
        for name, joint in joints.items():
            row = points.setdefault(name, {})
            get_skeleton(name).index(joint)
            if joint in row:
                raise PosezooError(f"{file}: '{joint}' of {name} is both {row[joint]} and {point}")
            row[joint] = point
    return points


def map_joints(source: Skeleton, target: Skeleton) -> NDArray[np.int64]:
    """Where each joint of `target` is found in `source`: `source_xy[:, map_joints(source, target)]`, but mind the -1.

    Joints are the same if they have the same name, save where `aliases.toml` knows better: two of posezoo's own sets
    may name one point differently, or two points alike. Nothing is computed: a middle of the shoulders that `source`
    lacks stays missing.

    Returns:
        (K_target,) int64, rows of `source`; -1 where it has no such joint.
    """
    ours = all(s.name in list_skeletons() and get_skeleton(s.name) == s for s in (source, target))
    from_source, from_target = (_points().get(s.name, {}) if ours else {} for s in (source, target))
    row = {from_source.get(joint, joint): index for index, joint in enumerate(source.joints)}
    return np.array([row.get(from_target.get(joint, joint), -1) for joint in target.joints], np.int64)

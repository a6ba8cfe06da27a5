"""How a zoo names its arrays: tables of (their path, our path) that are read in either direction.

A path may hold numbers: "deconv_layers.{3i+1}" beside "head.up.{i}.bn" says that their layers count in threes. A rule
speaks for every key that continues its path, so one rule serves a layer's weight, bias and statistics.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import nn

_NUMBER = re.compile(r"\{(\d*)([a-z])(?:\+(\d+))?\}")  # {i}, {3i}, {3i+1}

Rule = tuple[str, str]


class Layout(Protocol):
    """One way of naming the arrays of a network."""

    @property
    def name(self) -> str:
        """For messages."""
        ...

    def recognise(self, keys: Sequence[str]) -> bool:
        """Whether these keys, of a whole file, are named in this way."""
        ...

    def rename(self, keys: Sequence[str], model: nn.Module) -> dict[str, str]:
        """The keys of a whole file, in its order, to their names in `model`; what fits nothing maps to itself."""
        ...


@dataclass(frozen=True)
class KeyMap:
    """A `Layout` by table.

    Attributes:
        name: for messages, such as "MMPose 1.x".
        signature: keys of theirs that a file of this layout has, all of them; the first layout whose signature a file
            has is taken, so what is more special stands first.
        rules: (their path, our path); the first that fits a key counts.
    """

    name: str
    signature: tuple[str, ...]
    rules: tuple[Rule, ...]

    def recognise(self, keys: Sequence[str]) -> bool:
        """Whether `keys` has the whole signature."""
        return set(self.signature) <= set(keys)

    def rename(self, keys: Sequence[str], model: nn.Module) -> dict[str, str]:
        """Their keys to ours."""
        return {key: self.to_ours(key) for key in keys}

    def to_ours(self, key: str) -> str:
        """One key of theirs to ours; itself where no rule fits."""
        return _translate(key, self.rules) or key

    def to_theirs(self, key: str) -> str:
        """One key of ours to theirs; itself where no rule fits."""
        return _translate(key, tuple((ours, theirs) for theirs, ours in self.rules)) or key

    def speaks_of(self, ours: Sequence[str]) -> bool:
        """Whether a network with our keys `ours` can be written in this layout: every array of it has a name here.

        And those of the signature are among them, so that what is written is recognised again.
        """
        reverse = tuple((ours, theirs) for theirs, ours in self.rules)
        return {self.to_ours(key) for key in self.signature} <= set(ours) and all(_translate(k, reverse) for k in ours)


def under(theirs: str, ours: str, rules: Sequence[Rule]) -> tuple[Rule, ...]:
    """`rules` with a prefix before each side's paths; "" adds nothing."""
    return tuple((theirs + their_path, ours + our_path) for their_path, our_path in rules)


def _translate(key: str, rules: tuple[Rule, ...]) -> str | None:
    for source, target in rules:
        match = _pattern(source).fullmatch(key)
        numbers = match and _numbers(source, match.groups())
        if match and numbers is not None:
            return _fill_in(target, numbers) + match["rest"]
    return None


def _fill_in(path: str, numbers: Mapping[str, int]) -> str:
    """`path` with its numbers in place of its letters."""
    return _NUMBER.sub(lambda m: str(int(m[1] or 1) * numbers[m[2]] + int(m[3] or 0)), path)


@cache
def _pattern(path: str) -> re.Pattern[str]:
    """Matches a key that is `path` or continues it."""
    literals = _NUMBER.split(path)[::4]
    return re.compile(r"(\d{1,6})".join(map(re.escape, literals)) + r"(?P<rest>\..*|)")


def _numbers(path: str, found: Sequence[str | None]) -> dict[str, int] | None:
    """What each letter of `path` stands for, or None where the numbers found are none of its."""
    values: dict[str, int] = {}
    for (factor, letter, plus), text in zip(_NUMBER.findall(path), found, strict=False):
        value, remainder = divmod(int(text or 0) - int(plus or 0), int(factor or 1))
        if remainder or value < 0 or values.setdefault(letter, value) != value:
            return None
    return values

"""Words for numbers, as lines for people have them."""

from __future__ import annotations


def counted(number: int, one: str, many: str = "") -> str:
    """Such as "1 step", "3 steps" or, where `many` says so, "3 people"."""
    return f"{number} {one if number == 1 else many or one + 's'}"

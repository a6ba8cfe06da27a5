"""Which category of a COCO-style file people are: files of instances have dogs and chairs beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posezoo.errors import PosezooError

_LISTED = 24  # categories that a message names


@dataclass(frozen=True, eq=False)
class Personhood:
    """Which annotations of a file are people.

    Attributes:
        category_id: the category that people are, as the file numbers it.
        is_person: (A,) which of the file's annotations are of it.
        others: what the other annotations are, the most frequent first, each with how many there are.
        is_listed: whether the file lists the category, if it lists any.
    """

    category_id: int
    is_person: NDArray[np.bool_]
    others: Mapping[str, int]
    is_listed: bool = True


def find_people(content: Any, where: str) -> Personhood:
    """Which annotations of a COCO-style file are people: those of the category "person", or of the only one there is.

    A file without categories has those that its annotations name. Where nothing but one kind is listed and nothing but
    one kind is annotated they are the same, though the numbers differ: many files count from 0 in one place and from 1
    in the other. An annotation that names no category is a person where one alone is listed.

    Args:
        content: the file, parsed.
        where: what to call it in errors.

    Raises:
        PosezooError: it is no COCO-style file, or does not say which of its categories people are; they are listed.
    """
    if not isinstance(content, dict) or not all(isinstance(content.get(k), list) for k in ("images", "annotations")):
        raise PosezooError(
            f"{where} is {_outline(content)}, not a COCO-style file: it has to be an object with the lists images, "
            "annotations and categories"
        )
    try:
        stated = [annotation.get("category_id") for annotation in content["annotations"]]
        listed = {one["id"]: str(one.get("name", "")) for one in content.get("categories") or ()}
        used = {each for each in stated if each is not None}
    except (AttributeError, KeyError, TypeError) as err:
        raise PosezooError(f"{where} is not a COCO-style file: {type(err).__name__} {err}") from None
    for each in (*listed, *used):
        if not isinstance(each, int):
            raise PosezooError(f"{where}: the category {each!r} has to be a whole number, as in all COCO-style files")
    names = listed or dict.fromkeys(sorted(used), "") or {1: ""}
    person, is_listed = _person(names, where), True
    if len(listed) == len(used) == 1 and person not in used:
        (person,), is_listed = used, False
    if len(names) > 1 and None in stated:
        which = content["annotations"][stated.index(None)].get("id")
        raise PosezooError(f"{where}: annotation {which} has no category_id; the file has {_listed(names)}")
    is_person = np.array([each is None or each == person for each in stated], bool)
    others = Counter(_called(each, names) for each in stated if each not in (None, person))
    return Personhood(person, is_person, dict(others.most_common()), is_listed)


def _person(names: Mapping[int, str], where: str) -> int:
    people = [key for key, name in names.items() if name.strip().lower() == "person"]
    if len(people) == 1:
        return people[0]
    if len(names) == 1:
        return next(iter(names))
    told = f"{len(people)} are called person" if people else "none is called person"
    raise PosezooError(
        f"{where} has {_listed(names)}: {told}, so that nobody knows which ones people are. Call one of them "
        "person in the file's categories, or leave the others out"
    )


def _outline(content: Any) -> str:
    """Such as "a JSON list", or "an object with categories"."""
    if isinstance(content, dict):
        return f"an object with {', '.join(map(str, list(content)[:_LISTED])) or 'nothing'}"
    return "a JSON list" if isinstance(content, list) else "a single JSON value"


def _listed(names: Mapping[int, str]) -> str:
    every = [_called(key, names) for key in names]
    more = ", ..." if len(every) > _LISTED else ""
    return f"{len(every)} categories ({', '.join(every[:_LISTED])}{more})"


def _called(key: Any, names: Mapping[int, str]) -> str:
    return f"{key} {names[key]}" if names.get(key) else f"{key}"

"""Files told apart by what is in them, runs by their settings."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from posezoo.errors import PosezooError
from posezoo.identity import check_same_run, digest_of, hash_of


def test_a_digest_changes_with_names_and_contents_and_with_nothing_else(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder / "deep").mkdir(parents=True)
        (tmp_path / folder / "1.json").write_text("one")
        (tmp_path / folder / "deep" / "2.json").write_text("two")
    first, second = tmp_path / "a", tmp_path / "b"
    assert digest_of(first) == digest_of(second)
    (second / "deep" / "2.json").write_text("two!")
    assert digest_of(first) != digest_of(second) and digest_of(first, "*.json") == digest_of(second, "*.json")
    (second / "1.json").rename(second / "3.json")
    assert digest_of(first, "*.json") != digest_of(second, "*.json")
    assert digest_of(first / "1.json") == hash_of(first / "1.json") == hashlib.sha256(b"one").hexdigest()
    with pytest.raises(PosezooError, match=r"cannot read .*gone"):
        digest_of(tmp_path / "gone")


def test_what_differs_between_two_runs_is_named() -> None:
    check_same_run({"a": 1, "gone": 2}, {"a": 1}, Path("out"), "Mend it")
    with pytest.raises(PosezooError) as caught:
        check_same_run({"a": False, "b": ["x", "y"]}, {"a": True, "b": ["x"], "c": 3}, Path("out"), "Mend it")
    told = "a was off, now on; b was x y, now x; c was not given, now 3"
    assert str(caught.value) == f"out is of another run: {told}. Mend it"

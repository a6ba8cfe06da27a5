"""Whether the parts of a recipe fit each other: what the network predicts, what the data label, how it is judged."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from posezoo.codecs import get_codec
from posezoo.codecs.combined import CombinedCodec
from posezoo.data.catalog import Dataset, get_dataset
from posezoo.data.mixed import domain_of
from posezoo.errors import PosezooError, UnknownNameError, unknown_name
from posezoo.skeletons import Skeleton, get_skeleton, map_joints
from posezoo.train.recipe import DataPart, Recipe

if TYPE_CHECKING:
    from posezoo.zoo import Entry

_LISTED = 24  # joints of a list that a message names
_WEIGHTS_FILES = (".safetensors", ".pth", ".pt", ".tar", ".params", ".weights")


def check_fit(recipe: Recipe) -> None:
    """Refuse a recipe that cannot come to anything; nothing is read from disk.

    Raises:
        PosezooError: joints that no source labels or that the judge asks for in vain (both lists are shown), another
            unknown name, a codec for other joints, or a detector whose data are no COCO-style files.
    """
    for source in (*recipe.data.train, recipe.data.validate_on):
        if source is not None and source.dataset is not None:
            _check_split(get_dataset(source.dataset), source.split, source.annotations is None)
    if recipe.task == "detect":
        for key in ("train", "validate") if recipe.data.validate_on is not None else ("train",):
            box_file(recipe.data, key)
        return
    skeleton = get_skeleton(recipe.data.skeleton)
    _check_start(recipe, skeleton)
    _check_target(recipe, skeleton)
    _check_sources(recipe, skeleton)
    _check_judge(recipe, skeleton)
    _check_teachers(recipe, skeleton)


def _check_split(dataset: Dataset, split: str | None, is_needed: bool) -> None:
    known = sorted({name for layout in dataset.layouts for name in layout.splits})
    if split is None and is_needed:
        raise PosezooError(f"source {dataset.name}: say which split ({', '.join(known)})")
    if split is not None and split not in known:
        raise unknown_name(f"split of {dataset.name}", split, known)


def box_file(data: DataPart, key: str) -> tuple[Path, Path]:
    """The annotation file that a detector learns from or is judged by, and the folder of its pictures.

    Args:
        data: where the sources are.
        key: "train" or "validate", which has to be there.

    Raises:
        PosezooError: it is not one COCO-style file with a folder.
    """
    sources = data.train if key == "train" else (data.validate_on,)
    does = "learns from" if key == "train" else "is judged by"
    wanted = f"a detector {does} one COCO-style file: give its annotations and images"
    if len(sources) != 1:
        raise PosezooError(f"data.{key} has {len(sources)} sources; {wanted}")
    (source,) = sources
    assert source is not None
    if source.annotations is None or source.images is None:
        # a dataset's split may lie in several folders, or in a format of its own
        given = f'dataset = "{source.dataset}"' + ("" if source.annotations is None else " and annotations, no images")
        raise PosezooError(f"data.{key} has {given}; {wanted}")
    return data.root / source.annotations, data.root / source.images


def start_entry(weights: str) -> Entry | None:
    """The zoo's entry that `model.weights` names; None where it is a file.

    Raises:
        PosezooError: it is neither a file nor the name of an entry.
    """
    from posezoo.zoo import get_entry

    path = Path(weights)
    # what is said to be a file in some folder is not looked for elsewhere under its name
    if path.is_file() or (path.suffix in _WEIGHTS_FILES and len(path.parts) > 1):
        return None
    try:
        return get_entry(weights)
    except UnknownNameError as err:
        if path.suffix in _WEIGHTS_FILES:
            return None
        raise PosezooError(f"model.weights is no file here, and {err}") from None


def find_backbone(recipe: Recipe) -> Path | None:
    """Where the file of `model.backbone` is: under the data's root, or where it says; None where it is not."""
    given = recipe.model.backbone
    places = () if given is None else (recipe.data.root / given, given)
    return next((place for place in places if place.is_file()), None)


def _check_start(recipe: Recipe, skeleton: Skeleton) -> None:
    model = recipe.model
    entry = start_entry(model.weights) if model.weights is not None else None
    if entry is None or model.transfer:
        return
    theirs = len(get_skeleton(entry.skeleton)) if entry.skeleton else 0
    if theirs != len(skeleton):
        raise PosezooError(
            f"model.weights: {entry.name} predicts {theirs} joints, the network {len(skeleton)} ({skeleton.name}): "
            "model.transfer=true takes all but the layer that predicts them"
        )


def _check_target(recipe: Recipe, skeleton: Skeleton) -> None:
    target = recipe.target
    if target.codec != "heatmap":
        if target.codec.startswith("heatmap-"):
            raise PosezooError(
                f"target.codec {target.codec}: say target.codec=heatmap, and in target.refine how its peaks are read: "
                "none, quarter, dark or dark-udp"
            )
        codec = get_codec(target.codec)
        if isinstance(codec, CombinedCodec) and codec.heatmap_joints >= len(skeleton):
            raise PosezooError(
                f"target.codec {target.codec} is for sets with more than {codec.heatmap_joints} joints; "
                f"{skeleton.name} has {len(skeleton)}"
            )
    for part in target.part_weights:
        if part not in skeleton.parts:
            raise unknown_name(f"part of {skeleton.name} in target.part_weights", part, skeleton.parts)


def _check_sources(recipe: Recipe, skeleton: Skeleton) -> None:
    """Every joint of the network is one that some source labels, or that a teacher may know."""
    datasets = [get_dataset(source.dataset) for source in recipe.data.train if source.dataset is not None]
    if len(datasets) < len(recipe.data.train) or recipe.distill.teachers:
        return  # any other file may have any joints
    known = {joint for dataset in datasets for joint in _labelled(dataset, skeleton)}
    missing = [joint for joint in skeleton.joints if joint not in known]
    if missing:
        theirs = "; ".join(f"{dataset.name} labels {_listed(dataset.joints.joints)}" for dataset in datasets)
        own = " or ".join(sorted({dataset.skeleton for dataset in datasets}))
        raise PosezooError(
            f"the network predicts {skeleton.name}, {_listed(skeleton.joints)}; {theirs}: nobody labels "
            f"{', '.join(missing[:_LISTED])}. Take a recipe for that data (posezoo train --list {datasets[0].name}), "
            f"set data.skeleton={own}, or add a source that labels them"
        )


def _labelled(dataset: Dataset, skeleton: Skeleton) -> set[str]:
    """The joints of the skeleton that the dataset labels, as `posezoo.data.mixed` brings them together."""
    if dataset.skeleton == "hand21" and skeleton.name != "hand21":
        wrists = {"left_wrist", "right_wrist"} & set(skeleton.joints)
        parts = [set(skeleton.parts[part]) for part in ("left_hand", "right_hand") if part in skeleton.parts]
        return set().union(*parts) if parts else wrists
    columns = map_joints(dataset.joints, skeleton)
    return {joint for joint, column in zip(skeleton.joints, columns, strict=True) if column >= 0}


def _check_judge(recipe: Recipe, skeleton: Skeleton) -> None:
    source = recipe.data.validate_on
    if source is None or source.dataset is None:
        return
    judge = get_dataset(source.dataset).joints
    missing = [joint for joint, row in zip(judge.joints, map_joints(skeleton, judge), strict=True) if row < 0]
    if missing:
        raise PosezooError(
            f"data.validate judges {source.dataset} by {_listed(judge.joints)}; the network predicts {skeleton.name}, "
            f"{_listed(skeleton.joints)}, without {', '.join(missing[:_LISTED])}: validate on another dataset"
        )


def _check_teachers(recipe: Recipe, skeleton: Skeleton) -> None:
    from posezoo.zoo import get_entry

    domains = [domain_of(source) for source in recipe.data.train]
    for teacher in recipe.distill.teachers:
        for domain in teacher.domains:
            if domain not in domains:
                raise unknown_name(f"domain of teacher {teacher.model}", domain, domains)
        entry = get_entry(teacher.model)
        if entry.skeleton is None:
            raise PosezooError(f"teacher {entry.name} is a detector: it knows no joints")
        theirs = get_skeleton(entry.skeleton)
        if (map_joints(theirs, skeleton) < 0).all():
            raise PosezooError(
                f"teacher {entry.name} knows {_listed(theirs.joints)}; the network predicts {skeleton.name}, "
                f"{_listed(skeleton.joints)}: none of them is the same"
            )


def _listed(joints: Iterable[str]) -> str:
    every = list(joints)
    more = ", ..." if len(every) > _LISTED else ""
    return f"{len(every)} joints ({', '.join(every[:_LISTED])}{more})"

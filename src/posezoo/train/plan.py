"""What a recipe comes to, before anything is trained: rates, steps, expected score and cost; as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from posezoo.data.catalog import find, get_dataset
from posezoo.data.mixed import read_sources
from posezoo.skeletons import get_skeleton
from posezoo.train.fit import find_backbone, start_entry
from posezoo.train.recipe import DataPart, Recipe, Source, Teacher
from posezoo.train.rows import Origins, Resolved, Row, list_rows, resolve
from posezoo.train.target import loss_in_words, weights_in_words
from posezoo.zoo.costs import get_cost
from posezoo.zoo.entry import Entry
from posezoo.zoo.store import location
from posezoo.zoo.table import Table, score_line, summary_table

# people with a box and a labelled joint: HRNet's reader of COCO, whose people COCO-WholeBody's are; GluonCV's logs have
# as many in 585 steps of 256
PEOPLE: Mapping[tuple[str, str | None], int] = {("coco", "train"): 149_813, ("wholebody133", "train"): 149_813}

# The yardstick of estimates: what GluonCV's logs show of each of their eight GPUs, in float32. Their large networks
# were held up by arithmetic (forward and backward are three times forward), the small ones by reading pictures.
FLOPS_PER_S = 4.5e12
MOST_PER_S = 150.0
_PASSES = 3

# of the printed recipe: where comments begin, and the longest line that has one
_COMMENTS, _WIDTH = 36, 80

# shown even where all of it is default
_OF_TASK = {"input": "pose", "target": "pose", "augment": "pose", "mosaic": "detect"}


@dataclass(frozen=True)
class Plan:
    """What a recipe comes to.

    Attributes:
        begins: what the network starts from.
        learning_rate: at its peak, scaled with the batch, or with all people where they are fewer.
        rate: the same in words.
        people: samples drawn an epoch; None where that is unknown until the data are read.
        batch: samples a step: all people where they are fewer than the recipe says.
        steps_per_epoch, steps: None where `people` is.
        data: of each source, where it was found.
        claimed: the scores that the source of the model states, each with its protocol.
        gpu_hours: None where neither stated nor known from `people`.
        cost: the same in words: who says so, or what the estimate rests on.
    """

    begins: str
    learning_rate: float
    rate: str
    people: int | None
    batch: int
    steps_per_epoch: int | None
    steps: int | None
    data: tuple[str, ...]
    claimed: tuple[str, ...]
    gpu_hours: float | None
    cost: str


def make_plan(resolved: Resolved) -> Plan:
    """What a recipe comes to; reads annotations only where they are there and nobody states how many people they have.

    Raises:
        PosezooError: annotations that cannot be used.
    """
    recipe, entry = resolved.recipe, resolved.row.entry
    rows, people = _people(recipe)
    batch = recipe.optimiser.batch_size if rows is None else min(recipe.optimiser.batch_size, rows)
    per_epoch = None if people is None else max(1, people // batch)
    steps = None if per_epoch is None else per_epoch * recipe.schedule.epochs
    hours, cost = _cost(resolved, people)
    accuracies = [score for score in entry.claimed if score.unit in ("percent", "fraction")] if entry else []
    return Plan(
        begins=_begins(recipe),
        learning_rate=recipe.optimiser.rate_for(batch),
        rate=_rate(recipe, batch, steps),
        people=people,
        batch=batch,
        steps_per_epoch=per_epoch,
        steps=steps,
        data=tuple(_place(recipe.data, source) for source in recipe.data.train),
        claimed=tuple(score_line(score) for score in accuracies),
        gpu_hours=hours,
        cost=cost,
    )


def _begins(recipe: Recipe) -> str:
    """Such as "the backbone of resnet50.pth (not there)"."""
    given = recipe.model
    parts = []
    if given.backbone is not None and (given.weights is None or given.transfer):
        found = find_backbone(recipe)
        parts.append(f"the backbone of {found or f'{given.backbone} (not there)'}")
    if given.weights is not None:
        parts.append(_weights(given.weights) + (", all that fits but its last layer" if given.transfer else ""))
    return " and ".join(parts) or "fresh weights"


def _weights(given: str) -> str:
    """What `model.weights` means, and whether it is on this machine."""
    entry = start_entry(given)
    if entry is None:
        return given if Path(given).is_file() else f"{given} (not there)"
    if any(location(weights).is_file() for weights in entry.weights):
        return entry.name
    return f"{entry.name} ({f'fetched first: {entry.weights[0].file}' if entry.weights else 'without weights'})"


def _published(recipe: Recipe) -> str:
    """How the run that was published began, and how to begin there."""
    given = recipe.model
    hint = "" if given.weights or given.backbone else "; model.backbone=FILE begins there"
    return recipe.expect.start + hint


def _rate(recipe: Recipe, batch: int, steps: int | None) -> str:
    """Such as "lr 5e-4 for 512, here 64: 6.25e-5"."""
    given, schedule = recipe.optimiser, recipe.schedule
    rate, rise = given.rate_for(batch), schedule.warmup(steps)
    stated_for = given.lr_batch_size or given.batch_size
    scaled = f"lr {_number(given.lr)} for {stated_for}"
    if batch != stated_for:
        scaled += f", here {batch}: {_number(rate)}"
    if steps is not None and rise > steps:
        most = _number(rate * steps / rise)
        return f"{scaled}; rises over {rise} steps, more than the run's {steps}: it comes to no more than {most}"
    if rise:
        scaled += f"; rises over {rise} steps"
        if steps is None and schedule.warmup_steps is None:
            scaled += ", or a tenth of the run if that is less"
    if schedule.kind == "cosine":
        return f"{scaled}; falls as a cosine to {_number(rate * schedule.factor**2)}"
    epochs = [f"{share * schedule.epochs:.4g}" for share in schedule.milestones]
    return f"{scaled}; times {schedule.factor:g} after epoch {' and '.join(epochs)}"


def _number(value: float) -> str:
    """Short, such as 5e-4, 0.25 or 128."""
    if value == 0 or abs(value) >= 0.01:
        return f"{value:.6g}"
    digits, _, power = f"{value:.3e}".partition("e")
    return f"{float(digits):g}e{int(power)}"


def _people(recipe: Recipe) -> tuple[int | None, int | None]:
    """How many there are, and samples an epoch."""
    drawn = recipe.schedule.samples_per_epoch
    if recipe.task != "pose":
        return None, drawn
    sources = recipe.data.train
    counts = [_count(recipe.data, source) for source in sources]
    known = [count for count in counts if count is not None]
    if len(known) < len(counts):
        return None, drawn
    if drawn is None and not recipe.data.repeat:
        drawn = round(sum(count * source.share for count, source in zip(known, sources, strict=True)))
    return sum(known), drawn


def _count(data: DataPart, source: Source) -> int | None:
    if source.dataset is not None and source.annotations is None:
        key = (source.dataset, source.split)
        stated = PEOPLE.get(key) or get_dataset(source.dataset).people.get(source.split or "")
        if stated is not None:
            return stated
    return len(read_sources(data, (source,)).people) if _annotations(data, source) else None


def _annotations(data: DataPart, source: Source) -> Path | None:
    """The annotations of a source, if they are there."""
    if source.annotations is not None:
        path = data.root / source.annotations
        return path if path.exists() else None
    if source.dataset is None or not data.root.is_dir():
        return None
    there = {found.split: found.annotations for found in find(get_dataset(source.dataset), data.root)}
    return there.get(source.split or "")


def _place(data: DataPart, source: Source) -> str:
    name = f"{source.dataset} {source.split}" if source.annotations is None else str(source.annotations)
    path, share = _annotations(data, source), "" if source.share == 1 else f", each {source.share:g} times"
    return f"{name}{share}: {path or f'not found under data.root={data.root}'}"


def _cost(resolved: Resolved, people: int | None) -> tuple[float | None, str]:
    """GPU hours, and where they come from."""
    recipe, expect = resolved.recipe, resolved.recipe.expect
    touched = {path[0] for path, whose in resolved.origins.items() if whose.startswith("override")}
    if expect.gpu_hours is not None and not touched & {"model", "input", "schedule", "data", "distill"}:
        return expect.gpu_hours, f"{expect.gpu_hours:g} GPU hours: {expect.by}"
    cost = get_cost(resolved.row.entry) if resolved.row.entry else None
    if cost is None:
        return None, "unknown: no entry of the zoo says what the network costs"
    per_s = min(MOST_PER_S, FLOPS_PER_S / (2 * _PASSES * cost.macs))
    of = f"{per_s:.0f} people a second on each GPU (estimated: what GluonCV's logs of eight GPUs in float32 come to)"
    if people is None:
        return None, f"unknown until the data are read; {of}"
    hours = people * recipe.schedule.epochs / per_s / 3600
    return round(hours, 1), f"about {hours:.3g} GPU hours: {people} people x {recipe.schedule.epochs} epochs at {of}"


def as_json(resolved: Resolved) -> dict[str, Any]:
    """The recipe, whose each value is, and its plan."""
    values = json.loads(resolved.recipe.model_dump_json(by_alias=True))
    whose = {".".join(path): origin for path, origin in resolved.origins.items()}
    return {"recipe": values, "from": whose, "plan": asdict(make_plan(resolved))}


def fields(resolved: Resolved) -> list[list[str]]:
    """The plan as names and values."""
    recipe, plan = resolved.recipe, make_plan(resolved)
    steps = "as the data will tell" if plan.steps is None else f"{plan.steps_per_epoch} an epoch, {plan.steps} in all"
    return [
        ["recipe", f"{recipe.name}, of {resolved.row.file}"],
        ["makes", resolved.row.entry.name if resolved.row.entry else recipe.model.arch],
        ["begins from", plan.begins],
        *([["published", f"from {_published(recipe)}"]] if recipe.expect.start not in ("", plan.begins) else []),
        *(["learns from", place] for place in plan.data),
        *(["taught by", _teacher(teacher)] for teacher in recipe.distill.teachers),
        *(_target(recipe) if recipe.task == "pose" else []),
        ["people", "unknown until the data are read" if plan.people is None else f"{plan.people} an epoch"],
        ["steps", f"{steps}: {recipe.schedule.epochs} epochs, {_batch(recipe, plan)}"],
        ["rate", plan.rate],
        *(["claimed", score] for score in plan.claimed or ("nothing, by the model's source",)),
        ["cost", plan.cost],
    ]


def _target(recipe: Recipe) -> list[list[str]]:
    skeleton = get_skeleton(recipe.data.skeleton)
    return [
        ["loss", loss_in_words(skeleton, recipe.target)],
        ["joints count", weights_in_words(skeleton, recipe.target)],
    ]


def _teacher(teacher: Teacher) -> str:
    whose = f" ({teacher.weights})" if teacher.weights is not None else ""
    return f"{teacher.model}{whose}" + (f", in domain {' and '.join(teacher.domains)}" if teacher.domains else "")


def _batch(recipe: Recipe, plan: Plan) -> str:
    given = recipe.optimiser
    text = f"{given.batch_size} a step"
    if plan.batch < given.batch_size:
        text = f"{plan.batch} a step, all there are, not {given.batch_size}"
    if given.accumulate > 1:
        text += f" in {given.accumulate} passes"
    if given.device_batch_size:
        devices = -(-given.batch_size // given.device_batch_size)
        text += f", as published {given.device_batch_size} on each of {devices} devices" if devices > 1 else ""
    return text


def as_toml(resolved: Resolved) -> str:
    """The recipe; with each value that is no default stands whose it is."""
    recipe, origins = resolved.recipe, resolved.origins
    values: dict[str, Any] = json.loads(recipe.model_dump_json(by_alias=True, exclude_none=True))
    # of a source or a teacher, only what it says
    said = json.loads(recipe.model_dump_json(by_alias=True, exclude_none=True, exclude_defaults=True))
    for table, key in (("data", "train"), ("data", "validate"), ("distill", "teachers")):
        if key in said.get(table, {}):
            values[table][key] = said[table][key]
    values["schedule"]["milestones"] = [
        _share_of(share, recipe.schedule.epochs) for share in recipe.schedule.milestones
    ]
    lines = list(_toml_lines({k: v for k, v in values.items() if not isinstance(v, dict)}, origins, ()))
    for name, table in values.items():
        is_given = any(path[0] == name for path in origins)
        if isinstance(table, dict) and (is_given or _OF_TASK.get(name) == recipe.task):
            lines += ["", f"[{name}]", *_toml_lines(table, origins, (name,))]
    return "\n".join(lines)


def _share_of(share: float, epochs: int) -> float | str:
    """A share of the run, as epochs of it where it is after whole ones: "170/210"."""
    after = round(share * epochs)
    return f"{after}/{epochs}" if after / epochs == share else share


def _toml_lines(table: Mapping[str, Any], origins: Origins, above: tuple[str, ...]) -> Iterator[str]:
    for key, value in table.items():
        if value in ("", {}, []):
            continue
        path = (*above, key)
        whose = dict.fromkeys(whose for known, whose in origins.items() if known[: len(path)] == path)
        first, *others = f"{key} = {_toml(value)}".split("\n")
        if whose:
            # of an override its value stands there already
            note = "# " + "; ".join(one.partition("=")[0] for one in whose)
            together = f"{first:<{_COMMENTS}}  {note}"
            if len(together) > _WIDTH:
                yield note
            else:
                first = together
        yield from (first, *others)


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(v)}" for key, v in value.items()) + " }"
    if isinstance(value, list) and len(value) > 1 and isinstance(value[0], dict):
        return "[\n" + "".join(f"  {_toml(v)},\n" for v in value) + "]"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    # all digits: the text is a recipe, too
    return repr(value) if isinstance(value, float) else json.dumps(value)


def row_table(rows: Sequence[Row]) -> Table:
    """One line a recipe."""
    columns = ["recipe", "makes", "dataset", "epochs", "batch", "claimed"]
    return columns, [[str(value) for value in row_dict(row).values()] for row in rows]


def row_dict(row: Row) -> dict[str, Any]:
    """What `row_table` says of a recipe."""
    recipe = resolve(row.name).recipe
    sources = [source.dataset or str(source.annotations) for source in recipe.data.train]
    return {
        "recipe": row.name,
        "makes": row.entry.name if row.entry else recipe.model.arch,
        "dataset": "+".join(sources),
        "epochs": recipe.schedule.epochs,
        "batch": recipe.optimiser.batch_size,
        "claimed": _claimed(row.entry) if row.entry else "",
    }


def _claimed(entry: Entry) -> str:
    columns, rows = summary_table([entry])
    return rows[0][columns.index("claimed")]


def select_rows(text: str | None) -> list[Row]:
    """The recipes whose name, file, entry or dataset has this text in it; all without one."""
    rows = list(list_rows().values())
    if text is None:
        return rows
    wanted = text.lower()
    return [row for row in rows if any(wanted in word.lower() for word in _words(row))]


def _words(row: Row) -> list[str]:
    own = [row.name, row.file.stem]
    return own if row.entry is None else [*own, row.entry.name, row.entry.dataset, row.entry.source]

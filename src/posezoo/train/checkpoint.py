"""What a run leaves on disk: `last.pt`, all that it needs to go on, and the weights of its best epochs."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from posezoo import __version__
from posezoo.codecs import codec_name
from posezoo.errors import PosezooError
from posezoo.files import atomic_path, write_atomic
from posezoo.skeletons import get_skeleton
from posezoo.train.recipe import InputPart, Recipe
from posezoo.train.rows import entry_table
from posezoo.zoo import get_entry
from posezoo.zoo.entry import Entry

FILE, BEST, RECIPE, CARD = "last.pt", "best.safetensors", "recipe.json", "card.md"
# what may differ between a run and its resumption, since nothing that is learnt depends on it
FREE = (
    "name", "entry", "expect", "data.root", "run.folder", "run.device", "run.workers", "run.threads",
    "run.channels_last", "run.compile", "run.keep_best", "run.log_every", "run.save_every",
)  # fmt: skip
_JUDGE = "data.validate"  # free as long as nothing has been judged
_FORMAT = 1
_SHOWN = 4  # files that a message names
_UNFINISHED = re.compile(r"\.\S+\.[0-9a-f]{8}\.\w+")  # what `atomic_path` calls them


def check_start(folder: Path, resume: bool) -> bool:
    """Whether a run goes on from `last.pt`; False: it begins.

    A run writes `last.pt` before the first weights. Where these are without it somebody has removed it, as one may, and
    a run that began there would take what the other one has come to.

    Raises:
        PosezooError: it is to begin where another run has left something, or to go on from nothing.
    """
    last = folder / FILE
    if last.exists():
        if not resume:
            raise PosezooError(f"{folder} already holds a run: add --resume, or choose another run.folder")
        return True
    if there := results(folder):
        what = ", ".join(file.name for file in there[:_SHOWN]) + (", ..." if len(there) > _SHOWN else "")
        best = folder / BEST
        start = f"; model.weights={best} begins with what it learnt" if best.exists() else ""
        raise PosezooError(
            f"{folder} holds what a run has come to ({what}), and no {FILE} to go on from: choose another run.folder, "
            f"or remove these files{start}"
        )
    if resume and not (folder / RECIPE).exists():
        raise PosezooError(f"nothing to resume: {last} does not exist; a run begins without --resume")
    return False


def results(folder: Path) -> list[Path]:
    """What a run in this folder has come to: weights, and its card."""
    one_by_one = [file for file in (folder / BEST, folder / CARD) if file.exists()]
    return one_by_one + sorted(folder.glob(weights_file(folder, "*").name))


def write_state(folder: Path, recipe: Recipe, state: Mapping[str, Any]) -> None:
    """Write `last.pt`, whole or not at all: on a full disk the one before it stays.

    Args:
        folder: of the run.
        recipe: what the run does.
        state: plain values and tensors.
    """
    path = folder / FILE
    whole = {"format": _FORMAT, "version": __version__, "recipe": recipe.model_dump_json(by_alias=True), **state}
    try:
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            torch.save(whole, file)
    except PosezooError as err:
        raise PosezooError(f"{err}{_kept(path)}") from None
    except RuntimeError as err:  # how torch may tell of a full disk: what the system said is behind it
        reason = err.__context__.strerror if isinstance(err.__context__, OSError) else first_line(err)
        raise PosezooError(f"cannot write {path}: {reason}{_kept(path)}") from None


def _kept(path: Path) -> str:
    return "; the checkpoint before it is still there: make room, then go on with --resume" if path.exists() else ""


def sweep(folder: Path) -> None:
    """Remove the unfinished files of a process that was killed while it wrote them."""
    for file in folder.glob(".*"):
        if _UNFINISHED.fullmatch(file.name):
            file.unlink(missing_ok=True)


def read_state(folder: Path, recipe: Recipe, samples: int) -> dict[str, Any]:
    """Read `last.pt`.

    Args:
        folder: of the run.
        recipe: what is to be gone on with.
        samples: how many there are to learn from.

    Raises:
        PosezooError: there is none, it cannot be read, or it is of another network, recipe or number of samples: the
            message says what differs. Who judges may be another as long as nobody has.
    """
    path = folder / FILE
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if state["format"] != _FORMAT:
            raise PosezooError(f"cannot resume from {path}: another version of posezoo ({state['version']}) wrote it")
        other = json.loads(state["recipe"])
    except FileNotFoundError:
        raise PosezooError(f"nothing to resume: {path} does not exist") from None
    except (KeyError, TypeError):
        raise PosezooError(f"cannot resume from {path}: it is not a checkpoint of a posezoo run") from None
    except PosezooError:
        raise
    except Exception as err:
        raise PosezooError(f"cannot resume from {path}: {first_line(err)}") from None
    arch = other.get("model", {}).get("arch")
    if arch != recipe.model.arch:
        raise PosezooError(f"{path} holds {arch}, the recipe asks for {recipe.model.arch}")
    now = json.loads(recipe.model_dump_json(by_alias=True))
    differing = differences(_of_effect(_as_it_was(other)), _of_effect(now))
    if not state.get("validated"):
        differing = [one for one in differing if not one.startswith(_JUDGE)]
    if differing:
        shown = "; ".join(differing[:5]) + (f"; and {len(differing) - 5} more" if len(differing) > 5 else "")
        best = folder / BEST
        start = f" (model.weights={best} starts from what was learnt)" if best.exists() else ""
        raise PosezooError(
            f"{path} is of another recipe: {shown}. Give the old values, or choose another run.folder{start}"
        )
    if state["samples"] != samples:
        raise PosezooError(f"{path} was learning from {state['samples']} samples, the data now has {samples}")
    return state


def _as_it_was(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe of a checkpoint, with what its run did where there was no key for it yet."""
    before: dict[str, dict[str, Any]] = {
        "target": {"joint_weights": recipe.get("task") != "detect"},
        "augment": {"shift_probability": 1.0, "shift_of": "view"},
    }
    return {**recipe, **{name: {**keys, **recipe.get(name, {})} for name, keys in before.items()}}


def _of_effect(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe without the keys that do nothing in it: how boxes move where none does, and weights that all are 1."""
    target, augment = ({**recipe.get(part, {})} for part in ("target", "augment"))
    with suppress(PosezooError, KeyError):  # a skeleton that is known no more
        if (get_skeleton(recipe["data"]["skeleton"]).joint_weights == 1).all():
            target.pop("joint_weights", None)
    if not augment.get("shift"):
        augment = {key: value for key, value in augment.items() if not key.startswith("shift_")}
    return {**recipe, "target": target, "augment": augment}


def random_state() -> dict[str, Tensor]:
    """Torch's generators, on the CPU and on this process's GPU."""
    state = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict[str, Tensor]) -> None:
    """Go on drawing where `random_state` was taken."""
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def first_line(err: Exception) -> str:
    """What an error says, in one line; its name where it says nothing."""
    return next(iter(str(err).strip().splitlines()), type(err).__name__)


def out_of_memory(err: BaseException | None) -> bool:
    """Whether an error is torch's of no memory, on a GPU or the CPU, or was raised in the place of one."""
    while err is not None:
        if isinstance(err, torch.OutOfMemoryError) or "can't allocate memory" in str(err):
            return True
        err = err.__cause__ or err.__context__
    return False


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What has changed between two recipes, of all that the result depends on: "optimiser.lr 0.1 -> 0.2"."""
    before, after = dict(_leaves(old)), dict(_leaves(new))
    keys = [key for key in {**before, **after} if not key.startswith(FREE) and before.get(key) != after.get(key)]
    return [f"{key} {_text(before.get(key))} -> {_text(after.get(key))}" for key in keys]


def _leaves(table: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every value under its dotted key; lists of tables by number."""
    if isinstance(table, Mapping) and table:
        for name, value in table.items():
            yield from _leaves(value, f"{key}.{name}" if key else str(name))
    elif isinstance(table, list) and any(isinstance(value, Mapping) for value in table):
        for number, value in enumerate(table):
            yield from _leaves(value, f"{key}.{number}")
    else:
        yield key, table


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


class Best:
    """The weights of the best epochs: `epoch-12.safetensors` and so on, and `best.safetensors`, the first of them.

    What is no longer among the best stays until `prune`, so that a checkpoint never speaks of files that are gone.

    Attributes:
        ranking: (score, epoch from 1) of each, the best first.
        written: the epochs whose files are this run's and may be there; no other is ever removed.
    """

    def __init__(self, folder: Path, most: int, larger_is_better: bool = True):
        self.folder, self.most, self.sign = folder, most, 1.0 if larger_is_better else -1.0
        self.ranking: list[tuple[float, int]] = []
        self.written: set[int] = set()

    def offer(self, model: nn.Module, score: float, epoch: int, facts: Mapping[str, str]) -> bool:
        """Keep the weights of `epoch` if they are among the best; whether they are the best of all.

        Of equals the newest leads: it has learnt most. A score that is no number is the worst.
        """
        score = score if math.isfinite(score) else -self.sign * math.inf
        place = sum(self.sign * other > self.sign * score for other, _ in self.ranking)
        if place >= self.most:
            return False
        self.written.add(epoch)
        save_weights(model, weights_file(self.folder, epoch), {**facts, "epoch": str(epoch)})
        self.ranking.insert(place, (score, epoch))
        del self.ranking[self.most :]
        if place == 0:
            self._link()
        return place == 0

    def restore(self, ranking: Sequence[tuple[float, int]], written: Iterable[int] = ()) -> None:
        """Go on with the ranking of a checkpoint, whatever has been offered since."""
        self.ranking = list(ranking)
        self.written = {*written, *(epoch for _, epoch in ranking)}
        if self.ranking and weights_file(self.folder, self.ranking[0][1]).exists():
            self._link()

    def _link(self) -> None:
        with atomic_path(self.folder / BEST) as temporary:
            _same_file(weights_file(self.folder, self.ranking[0][1]), temporary)

    def prune(self) -> None:
        """Remove the weights that this run wrote of all other epochs."""
        ranked = {epoch for _, epoch in self.ranking}
        for epoch in self.written - ranked:
            weights_file(self.folder, epoch).unlink(missing_ok=True)
        self.written &= ranked


def weights_file(folder: Path, epoch: int | str) -> Path:
    """Where a run keeps the weights of an epoch (from 1)."""
    return folder / f"epoch-{epoch}.safetensors"


def _same_file(source: Path, target: Path) -> None:
    """Another name for a file where the disk can have one, else a copy."""
    target.unlink()
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def save_weights(model: nn.Module, path: Path, facts: Mapping[str, str]) -> None:
    """The model's state as safetensors, whole or not at all, with what belongs to it; equal ones are equal files."""
    plain = save({key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()})
    size = int.from_bytes(plain[:8], "little")
    # the library writes facts in another order each time
    header = json.dumps({"__metadata__": dict(facts), **json.loads(plain[8 : 8 + size])}, separators=(",", ":"))
    padded = header.encode() + b" " * (-len(header.encode()) % 8)
    write_atomic(path, len(padded).to_bytes(8, "little") + padded + plain[8 + size :])


def facts_of(recipe: Recipe) -> dict[str, str]:
    """What belongs to the weights of a run, as text, under the names that `posezoo convert` writes.

    `name`, an entry of the zoo, stands there if the run was of that entry's network, input and codec.
    """
    given = recipe.input
    facts = {
        "recipe": recipe.name,
        "task": recipe.task,
        "arch": recipe.model.arch,
        "input_size_wh": f"{given.size_wh[0]} {given.size_wh[1]}",
        "channels": given.channels,
        "mean": " ".join(map(str, given.mean)),
        "std": " ".join(map(str, given.std)),
        "posezoo_version": __version__,
    }
    entry = None if recipe.entry is None else get_entry(recipe.entry)
    if entry is not None and _is_of(recipe, entry):
        facts["name"] = entry.name
    if recipe.task == "detect":
        return facts
    from posezoo.train.target import make_codec

    codec = make_codec(recipe.target, get_skeleton(recipe.data.skeleton))
    # on the legacy grid heatmap pixel h is crop pixel 4 h, and a mirrored heatmap lies 3/4 of a pixel to the left
    shift = codec.grid == "legacy" and (entry is None or entry.flip_shift)
    box_scale, flip_shift = str(given.box_scale), str(shift).lower()
    return facts | {
        "skeleton": recipe.data.skeleton,
        "codec": codec_name(codec) or recipe.target.codec_name,
        "box_scale": box_scale,
        "flip_shift": flip_shift,
    }


def _is_of(recipe: Recipe, entry: Entry) -> bool:
    """Whether the network of a run can be used in the place of an entry's."""
    table = entry_table(entry)
    return (
        (recipe.model.arch, recipe.data.skeleton) == (entry.arch, entry.skeleton)
        and recipe.input == InputPart(**table["input"])
        and all(getattr(recipe.target, key) == value for key, value in table["target"].items())
    )

"""Every network and operation against what its own zoo's code computed.

    python benchmarks/parity.py --fixtures DIR [--json] [-o results/parity.csv] [--only PART ...]

DIR is laid out as `fill.py` (fills parameters from their names, makes inputs), `<zoo>/<model>.json.gz` (the names and
shapes of a checkpoint, and samples of what the peer's network gave) and `ops/<name>.json`. A fixture's arrays are
handed to `load_weights` under the peer's own names, as a user's checkpoint would be. Errors are the largest difference
over the samples, in units of the standard deviation of the peer's output.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import importlib.util
import io
import json
import re
import sys
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import parity_ops
import torch

from posezoo.errors import PosezooError
from posezoo.files import write_atomic
from posezoo.models.build import build
from posezoo.models.darknet import Darknet, Section
from posezoo.skeletons import get_skeleton
from posezoo.zoo import Entry, get_entry
from posezoo.zoo.weights.darknet import split
from posezoo.zoo.weights.load import identify, load_weights

TOLERANCE = 1e-4
# boxes are exponentials of the maps times up to 600 pixels; the peer differs from itself by up to 3.3e-4 there
DETECTIONS_TOLERANCE = 4e-4
NONE = "no counterpart"


@dataclass(frozen=True)
class Row:
    """One comparison; `error` is None where there is nothing here to compare."""

    zoo: str
    model: str
    used: str
    error: float | None
    tolerance: float

    @property
    def agrees(self) -> bool:
        return self.error is not None and self.error <= self.tolerance


def read_json(path: Path) -> Any:
    try:
        data = path.read_bytes()
        return json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)
    except (OSError, EOFError, ValueError, zlib.error) as err:
        raise PosezooError(f"{path} is no whole fixture: {err}") from None


def load_fill(folder: Path) -> ModuleType:
    """The folder's own fill rule."""
    spec = importlib.util.spec_from_file_location("fixture_fill", folder / "fill.py")
    if spec is None or spec.loader is None or not (folder / "fill.py").is_file():
        raise PosezooError(f"{folder} has no fill.py: give --fixtures the folder that holds it")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def find_entry(fixture: dict[str, Any]) -> Entry | None:
    """The zoo's entry for a fixture: by its config's path, else by its name; None where no single one goes by it."""
    config = next((word for word in fixture["source"].split() if word.endswith((".py", ".yaml"))), None)
    for name in (config, fixture["model"], f"{fixture['zoo']}_{fixture['model']}"):
        try:
            if name is not None and fixture["zoo"] in ((entry := get_entry(name)).source, entry.family):
                return entry
        except PosezooError:
            continue
    return None


def candidates(fixture: dict[str, Any], arrays: dict[str, torch.Tensor]) -> Iterator[tuple[str, str, int]]:
    """What may be the fixture's network, as (name to print, architecture, joints): its entry, then what else fits.

    Where a stride sits does not show in a checkpoint, so that two architectures may fit.
    """
    entry = find_entry(fixture)
    if entry is not None and entry.skeleton:
        joints = len(get_skeleton(entry.skeleton).joints)
        if joints == fixture["num_joints"]:
            yield entry.name, entry.arch, joints
    for arch, joints in identify(arrays):
        if entry is None or arch != entry.arch:
            yield f"{arch}, {joints} joints", arch, joints


def outputs_of(model: torch.nn.Module, x: torch.Tensor, fixture: dict[str, Any]) -> list[torch.Tensor]:
    """What the network gives, in the order of the fixture's outputs."""
    if isinstance(model, Darknet):
        raw = model.raw(x)
        return [model.decode(raw), *raw]
    wanted = fixture["outputs"]
    if len(wanted) == 1 and len(wanted[0]["shape"]) == 4:
        return [model(x)]
    stacks: list[torch.Tensor] = model.stacks(x)  # type: ignore[operator]
    return [torch.stack(stacks, 1)] if len(wanted) == 1 else stacks


def compare(model: torch.nn.Module, fixture: dict[str, Any], fill: ModuleType) -> list[float]:
    """The error of each output."""
    count, _, height, width = fixture["input_shape"]
    with torch.no_grad():
        outputs = outputs_of(model.eval(), torch.from_numpy(fill.make_input(height, width, count)), fixture)
    errors = []
    for ours, theirs in zip(outputs, fixture["outputs"], strict=True):
        if list(ours.shape) != theirs["shape"]:
            return [float("inf")]
        values = ours.double().numpy().reshape(-1)
        sampled = values[fill.sample_index(values.size, len(theirs["values"]))]
        errors.append(float(np.abs(sampled - np.array(theirs["values"])).max() / theirs["std"]))
    return errors


def filled(fixture: dict[str, Any], fill: ModuleType) -> dict[str, torch.Tensor]:
    """The fixture's checkpoint, under the peer's names."""
    scale = fixture["log2_scale"]
    return {
        key: torch.from_numpy(np.asarray(fill.fill(key, shape, scale.get(key, 0))))
        for key, shape, _ in fixture["state_dict"]
    }


def check_network(fixture: dict[str, Any], fill: ModuleType) -> Row:
    """The first candidate that agrees, or the one that comes nearest."""
    arrays = filled(fixture, fill)
    row = Row(fixture["zoo"], fixture["model"], NONE, None, TOLERANCE)
    for used, arch, joints in candidates(fixture, arrays):
        model = build(arch, joints, filled=False)
        try:
            load_weights(model, arrays)
        except PosezooError:  # a variant of the config that goes by the entry's name
            continue
        error = max(compare(model, fixture, fill))
        if row.error is None or error < row.error:
            row = Row(row.zoo, row.model, used, error, TOLERANCE)
        if row.agrees:
            break
    return row


def check_darknet(fixture: dict[str, Any], fill: ModuleType) -> list[Row]:
    """A detector, built from the layers that the fixture lists: its maps, and the boxes they become."""
    # the peer had split a route's layers into a list before it was written down
    listed = [[re.sub(r"[\[\]' ]", "", option) for option in layer] for layer in fixture["layers"]]
    model = Darknet([Section(kind, dict(option.split("=", 1) for option in options)) for kind, *options in listed])
    arrays = filled(fixture, fill)
    numbers = torch.cat([arrays[key].reshape(-1) for key in fixture["darknet_weight_order"]])
    load_weights(model, split(numbers, model))
    boxes, *maps = compare(model, fixture, fill)
    return [
        Row(fixture["zoo"], fixture["model"], "Darknet.raw", max(maps), TOLERANCE),
        Row(fixture["zoo"], f"{fixture['model']} boxes", "Darknet.forward", boxes, DETECTIONS_TOLERANCE),
    ]


def check_folder(folder: Path, only: list[str]) -> Iterator[Row]:
    """Every fixture of a folder, the networks first; `only` keeps those whose path contains one of its parts."""
    fill = load_fill(folder)
    done: dict[tuple[str, str], Row] = {}
    twins = []
    paths = [p for p in sorted(folder.glob("*/*.json*")) if not only or any(part in str(p) for part in only)]
    if not paths:
        raise PosezooError(f"{folder} has no fixture" + (f" whose path contains {' or '.join(only)}" if only else ""))
    for path in paths:
        zoo, name = path.parent.name, path.name.partition(".json")[0]
        fixture = read_json(path)
        if name.endswith(".same"):
            twins.append((zoo, name.removesuffix(".same"), fixture))
        elif "layers" in fixture:
            yield from check_darknet(fixture, fill)
        elif "state_dict" in fixture:
            done[zoo, name] = check_network(fixture, fill)
            yield done[zoo, name]
    for zoo, name, twin in twins:  # a config that builds the very network of another
        same = done.get((zoo, twin["same_as"]))
        if same is not None:
            yield Row(zoo, name, same.used, same.error, same.tolerance)
    for path in paths:
        name = path.name.partition(".json")[0]
        results = parity_ops.CHECKS[name](read_json(path), fill) if name in parity_ops.CHECKS else []
        for result in results:
            yield Row(path.parent.name, f"{name}: {result.what}", result.ours, result.error, result.tolerance)
        if path.parent.name == "ops" and not results:
            yield Row("ops", name, NONE, None, TOLERANCE)


def to_csv(rows: list[Row]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*(field.name for field in fields(Row)), "agrees"])
    for row in rows:
        error = "" if row.error is None else f"{row.error:.2e}"
        writer.writerow([row.zoo, row.model, row.used, error, f"{row.tolerance:g}", "yes" if row.agrees else "no"])
    return text.getvalue()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fixtures", type=Path, required=True, help="the folder of fixtures")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.add_argument("-o", "--output", type=Path, help="write a table here too, as CSV")
    parser.add_argument("--only", nargs="*", default=[], help="only fixtures whose path contains one of these")
    args = parser.parse_args()
    rows = []
    try:
        for row in check_folder(args.fixtures, args.only):
            rows.append(row)
            if not args.json:
                error = "-" if row.error is None else f"{row.error:.1e}"
                mark = "" if row.agrees else "  <--"
                print(f"{row.zoo:<16} {row.model:<58} {row.used:<58} {error:>8}{mark}", flush=True)
    except PosezooError as err:
        print(f"error: {err}", file=sys.stderr)
        return 2
    if args.output:
        write_atomic(args.output, to_csv(rows))
    if args.json:
        print(json.dumps([{**asdict(row), "agrees": row.agrees} for row in rows], indent=2))
    agreeing = sum(row.agrees for row in rows)
    print(f"{agreeing} of {len(rows)} agree", file=sys.stderr if args.json else sys.stdout)
    return 0 if agreeing == len(rows) else 1


if __name__ == "__main__":
    sys.exit(main())

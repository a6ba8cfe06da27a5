"""What the documentation has from the code and from results/: a hook of mkdocs, see mkdocs.yml.

A line `<!-- table: NAME ARGUMENTS -->` of a page becomes what the function `NAME` of `TABLES` makes of it, so that no
figure, option or layout is typed in twice. The paragraph that follows it without a blank line, or `<!-- unbuilt -->`,
is for those who read the page as a file: it says where the same is to be had, and the site does not show it. What
stands behind the language of a code block is for the tests.
"""

from __future__ import annotations

import csv
import html
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"
_MARK = re.compile(r"^<!-- table: (\w+)(.*?) -->$(?:\n.+)*", re.M)
_UNBUILT = re.compile(r"^<!-- unbuilt -->$(?:\n.+)*\n*", re.M)
_FENCE = re.compile(r"^( *```\w+)[ \t].*$", re.M)
_CHART, _PICTURE = "throughput.html", "images/throughput.png"
_EACH = ("worker seconds", "bytes read", "bytes written")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill in a page; called by mkdocs."""
    filled = _MARK.sub(lambda found: TABLES[found[1]](*found[2].split()), _UNBUILT.sub("", markdown))
    return _FENCE.sub(r"\1", filled)


def on_post_build(config: Any, **_: Any) -> None:
    """Lay the chart beside the pages; called by mkdocs."""
    chart = RESULTS / _CHART
    if chart.is_file():
        (Path(config["site_dir"]) / _CHART).write_bytes(chart.read_bytes())


class Cell(NamedTuple):
    """A number as it is printed, and the value that it sorts by."""

    text: str
    value: float


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, sort: bool = False, code: int = 0) -> str:
    """An HTML table.

    Args:
        columns: its head.
        rows: its cells, as text or `Cell`s.
        sort: whether a click on the head sorts it, and a field above it filters it.
        code: so many columns, from the first, are set as code.
    """
    body = []
    for row in rows:
        cells = []
        for column, value in enumerate(row):
            shown = value.text if isinstance(value, Cell) else str(value)
            text = html.escape(shown)
            text = f"<code>{text}</code>" if column < code and text else text
            kind = ' class="number"' if re.fullmatch(r"[-+]?[\d.,]+(e[-+]?\d+)?[%MG]?", shown) else ""
            kind += f' data-value="{value.value}"' if isinstance(value, Cell) else ""
            cells.append(f"<td{kind}>{text}</td>")
        body.append(f"<tr>{''.join(cells)}</tr>")
    head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
    whole = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"
    return f'<div class="sortable">{whole}</div>' if sort else whole


def zoo_models() -> str:
    """All models, without any figure of accuracy."""
    from posezoo.zoo import get_entry, list_models
    from posezoo.zoo.costs import get_cost

    rows = []
    for entry in map(get_entry, [*list_models(), *list_models(task="detection")]):
        cost = get_cost(entry)
        sizes = [f"{cost.params / 1e6:.1f}", f"{cost.summary_gflops:.1f}"] if cost else ["", ""]
        rows.append([entry.name, entry.source, _size(entry), entry.skeleton or "people", *sizes, _weights(entry)])
    columns = ["model", "zoo", "input, HxW", "keypoints", "parameters, M", "GFLOPs", "weights"]
    return table(columns, rows, sort=True, code=1)


def _weights(entry: Any) -> str:
    if any(weights.packaged for weights in entry.weights):
        return "inside the package"
    if any(weights.urls and not weights.dead for weights in entry.weights):
        return "fetched"
    return "dead link" if entry.weights else "none published"


def zoo_claimed() -> str:
    """For each dataset the accuracies that the zoos' pages state, then the speeds, each with its protocol."""
    from posezoo.data.catalog import get_dataset, list_datasets
    from posezoo.zoo import get_entry, list_models

    found: dict[str, list[tuple[Any, Any]]] = {name: [] for name in list_datasets()}
    speeds: list[tuple[Any, Any]] = []
    for entry in map(get_entry, list_models()):
        for score in entry.claimed:
            known = score.unit in ("percent", "fraction")
            (found.setdefault(score.dataset, []) if known else speeds).append((entry, score))
    found = {name: lines for name, lines in found.items() if lines}
    titles = {name: get_dataset(name).title if name in list_datasets() else name for name in found}
    parts = [" · ".join([*(f"[{title}](#on-{name})" for name, title in titles.items()), "[speeds](#claimed-speeds)"])]
    for name, lines in found.items():
        parts.append(f"### {titles[name]} {{ #on-{name} }}\n\n{_claims(lines)}")
    rows = [
        [entry.name, f"{value:g} {score.unit}", metric, score.dataset, score.protocol]
        for entry, score in speeds
        for metric, value in score.metrics.items()
    ]
    columns = ["model", "claimed", "what", "on", "protocol"]
    return "\n\n".join([*parts, "### Claimed speeds", table(columns, rows, sort=True, code=1)])


def _claims(lines: Sequence[tuple[Any, Any]]) -> str:
    """One table of accuracies as printed, the best first; percent and fractions sort together."""
    metrics = list(dict.fromkeys(metric for _, score in lines for metric in score.metrics))
    protocols = list(dict.fromkeys(score.protocol for _, score in lines))
    lines = sorted(lines, key=lambda line: -max(line[1].percent(metric) or 0 for metric in metrics[:1]))
    rows: list[list[object]] = []
    for entry, score in lines:
        digits = 1 if score.unit == "percent" else 3
        values = [
            Cell(f"{score.metrics[metric]:.{digits}f}", score.percent(metric)) if metric in score.metrics else ""
            for metric in metrics
        ]
        flip = {True: "yes", False: "no", None: ""}[score.flip]
        rows.append([entry.name, entry.source, _size(entry), *values, flip, f"[{protocols.index(score.protocol) + 1}]"])
    columns = ["model", "zoo", "HxW", *metrics, "flip", "protocol"]
    numbered = "".join(f"<li>[{n}] {html.escape(text)}</li>" for n, text in enumerate(protocols, 1))
    return f'{table(columns, rows, sort=True, code=1)}\n\n<ul class="protocols">{numbered}</ul>'


def _size(entry: Any) -> str:
    width, height = entry.input_size_wh
    return f"{height}x{width}"


def zoo_measured() -> str:
    """What was run here."""
    from posezoo.zoo import get_entry, list_models

    rows = []
    for entry in map(get_entry, [*list_models(), *list_models(task="detection")]):
        for score in entry.measured:
            values = ", ".join(f"{name} {value:g}" for name, value in score.metrics.items())
            flip = {True: "yes", False: "no", None: ""}[score.flip]
            rows.append([entry.name, score.dataset, f"{values} {score.unit}", flip, score.protocol])
    return table(["model", "measured on", "figures", "flip", "protocol"], rows, sort=True, code=1)


def zoo_chart() -> str:
    """The chart of throughput and AP, where one was drawn."""
    drawn = (ROOT / "docs" / _PICTURE).is_file()
    if (RESULTS / _CHART).is_file():
        frame = f'<iframe class="chart" src="{_CHART}" title="Throughput against accuracy"></iframe>'
        return f"{frame}\n\n[The chart as a picture]({_PICTURE}), for narrow windows." if drawn else frame
    if drawn:
        return f"![Throughput against the accuracy that the models' pages claim]({_PICTURE})"
    return "The command above draws the chart for your machine."


def datasets() -> str:
    """Every dataset with its metric and what published figures on it are of."""
    from posezoo.data.catalog import get_dataset, list_datasets

    rows = []
    for each in map(get_dataset, list_datasets()):
        area = "" if each.metric not in ("oks", "wholebody") else "0.53 x box" if each.area == "box" else "as annotated"
        files = {file.file: file.what.partition(";")[0] for file in each.box_files}
        boxes = "ground truth" if each.boxes == "gt" else files.get(each.boxes, each.boxes)
        rows.append([each.name, each.title, each.skeleton, each.metric, area, each.split, boxes])
    columns = ["name", "dataset", "keypoints", "metric", "area", "split", "boxes of published figures"]
    return table(columns, rows, code=1)


def presets() -> str:
    """The protocols by name, value by value."""
    from posezoo.evaluate.protocol import PRESETS, Protocol

    names = [field.name for field in fields(Protocol) if field.name != "name"]
    rows = [[name, *(_value(getattr(preset, name)) for preset in PRESETS.values())] for name in names]
    return table(["setting", *PRESETS], rows, code=1)


def _value(value: object) -> str:
    known = {True: "yes", False: "no", None: "as the model"}
    return known[value] if value is None or isinstance(value, bool) else str(value)


def protocols() -> str:
    """What each preset comes to on each dataset, in the words that are stored with a result."""
    from posezoo.data.catalog import list_datasets
    from posezoo.evaluate.protocol import PRESETS, get_protocol

    parts = []
    for dataset in list_datasets():
        same: dict[str, list[str]] = {}
        for name in PRESETS:
            text = get_protocol(name, dataset).describe(dataset).partition(": ")[2]
            same.setdefault(text, []).append(name)
        rows = [[", ".join(names), text] for text, names in same.items()]
        parts.append(f"### {dataset}\n\n{table(['preset', 'what it does'], rows, code=1)}")
    return "\n\n".join(parts)


def layouts() -> str:
    """How the files of each dataset lie, who may use it, and where it is had."""
    from posezoo.data.catalog import get_dataset, list_datasets

    parts = []
    for each in map(get_dataset, list_datasets()):
        rows = [
            [layout.of, split, file, " or ".join(places)]
            for layout in each.layouts
            for split, (file, *places) in layout.splits.items()
        ]
        facts = [f"Paper: {each.paper}.", f"Page: <{each.home}>.", f"Licence: {each.licence}."]
        facts += ["One has to register to get it."] if each.registration else []
        files = table(["layout", "split", "annotations", "pictures"], rows)
        parts.append(f"### {each.title} {{ #files-{each.name} }}\n\n{' '.join(facts)}\n\n{files}")
        boxes = [[file.split, file.file, file.what] for file in each.box_files]
        parts += [table(["split", "file of boxes", "whose"], boxes)] if boxes else []
    return "\n\n".join(parts)


def formats() -> str:
    """What each format of results has a place for."""
    from posezoo.formats import FORMATS, KEPT

    about = table(["format", "what"], [[name, each.about] for name, each in FORMATS.items()], code=1)
    rows = [[what, *("yes" if what in each.keeps else "-" for each in FORMATS.values())] for what in KEPT]
    return f"{about}\n\n{table(['keeps', *FORMATS], rows)}"


def unplaced() -> str:
    """Which joints of which keypoint sets some formats have no place for, and what they make of two joints."""
    from posezoo.formats import FORMATS
    from posezoo.skeletons import get_skeleton, list_skeletons

    rows = []
    for skeleton in map(get_skeleton, list_skeletons()):
        for name, each in FORMATS.items():
            if each.layout is not None:
                left = each.unplaced(skeleton)
                shown = ", ".join(left[:6]) + (f" and {len(left) - 6} more" if len(left) > 6 else "")
                rows.append([skeleton.name, name, shown or "none", ", ".join(each.made(skeleton)) or "none"])
    return table(["keypoints", "format", "joints without a place", "points made of two joints"], rows, sort=True)


def skeletons() -> str:
    """The keypoint sets."""
    from posezoo.skeletons import get_skeleton, list_skeletons

    parts = []
    for each in map(get_skeleton, list_skeletons()):
        rows = [
            [row, joint, each.joints[other] if (other := int(each.mirror_index[row])) != row else "", f"{sigma:.4g}"]
            for row, (joint, sigma) in enumerate(zip(each.joints, each.oks_sigmas, strict=True))
        ]
        joints = table(["index", "joint", "mirror", "OKS sigma"], rows)
        groups = ", ".join(f"{part} ({len(names)})" for part, names in each.parts.items())
        facts = f"{len(each)} joints, {len(each.edges)} edges. {each.paper}. " + (f"Parts: {groups}." if groups else "")
        parts.append(f"### {each.name}\n\n{facts}\n\n<details><summary>joints</summary>{joints}</details>")
    return "\n\n".join(parts)


def options(*command: str) -> str:
    """What `--help` of a command prints: all of its text, and its options, a table for each heading."""
    from posezoo.cli import app

    found: Any = app
    for name in command:
        found = found.commands[name]
    context = found.context_class(found, info_name=" ".join(["posezoo", *command]))
    text, _, example = found.help.partition("Example:")
    parts = [f"```text\n{context.command_path} {' '.join(found.collect_usage_pieces(context))}\n```", text.strip()]
    parts += [f"Example:\n\n```console\n$ {' '.join(example.split())}\n```"] if example else []
    panels: dict[str, list[list[str]]] = {"Arguments": [], "Options": []}
    for param in found.params:
        if param.name == "help" or (record := param.get_help_record(context)) is None:
            continue
        name, said = record
        extra = said.removeprefix(param.help or "").strip().removeprefix("[").removesuffix("]").split("; ")
        default = [each.removeprefix("default: ") for each in extra if each.startswith(("default: ", "required"))]
        others = [f" [{each}]" for each in extra if each and not each.startswith(("default: ", "required"))]
        kind = "Arguments" if param.param_type_name == "argument" else "Options"
        row = [name, f"{param.help or ''}{''.join(others)}", "".join(default)]
        panels.setdefault(getattr(param, "rich_help_panel", None) or kind, []).append(row)
    parts += [table([name, "what it does", "default"], rows, code=1) for name, rows in panels.items() if rows]
    return "\n\n".join(parts)


def batch_cost() -> str:
    """What many pictures cost by the measured cost of one, where it was measured."""
    path = RESULTS / "batch_throughput.csv"
    if not path.is_file():
        return "`benchmarks/batch_throughput.py` measures it for a small network on three photographs."
    with path.open(encoding="utf-8", newline="") as file:
        lines = [line for line in csv.DictReader(file) if line.get("worker seconds a picture")]
    rows = []
    for line in lines:
        seconds, read, written = (float(line[f"{what} a picture"]) for what in _EACH)
        for count, name in ((1e6, "10^6"), (1e9, "10^9")):
            cost = [f"{seconds * count / 3600:,.0f}", f"{seconds * count / 3600 / 24 / 64:,.1f}"]
            rows.append([line["way"], name, *cost, f"{read * count / 1e9:,.0f}", f"{written * count / 1e9:,.1f}"])
    columns = ["way", "pictures", "worker hours", "days on 64 cores", "GB read", "GB written"]
    note = "From `results/batch_throughput.csv`, in proportion; its pictures, network and machine are told there."
    return f"{table(columns, rows)}\n\n{note}"


def refusals() -> str:
    """Why the service refuses a request."""
    from posezoo.serve.refusals import STATUS

    return table(["status", "code"], [[status, code] for code, status in sorted(STATUS.items(), key=lambda i: i[1])])


def results() -> str:
    """Every table of results/, with the command that made it."""
    listed = re.findall(r"^\| (\S+\.csv) \| (.*?) \| (.*) \|$", (RESULTS / "README.md").read_text("utf-8"), re.M)
    about = {name: (what, command) for name, what, command in listed}
    parts = []
    for path in sorted(RESULTS.glob("*.csv")):
        what, command = about.get(path.name, ("", ""))
        text = f"{what[:1].upper()}{what[1:]}." if what else ""
        parts += [f"## {path.stem.replace('_', ' ').capitalize()} {{ #{path.stem} }}", text, _csv(path)]
        parts.append(f"File: `results/{path.name}`." + (f" Command: {command}." if command else "") + "\n{: .command }")
    return "\n\n".join(part for part in parts if part)


def _csv(path: Path) -> str:
    """A file as a table; commands, and columns that say the same in every row, stand below it; a long one is folded."""
    with path.open(encoding="utf-8", newline="") as file:
        columns, *rows = csv.reader(file)
    notes = [row[0] for row in rows if row[0] and not any(row[1:])]
    rows = [row for row in rows if any(row[1:])]
    values = [list(dict.fromkeys(row[n] for row in rows if row[n])) for n in range(len(columns))]
    alike = [len(rows) > 1 and len({row[n] for row in rows}) == 1 for n in range(len(columns))]
    same = [n for n, name in enumerate(columns) if name == "command" or alike[n]]
    differ = [n for n in range(len(columns)) if n not in same]
    whole = table([columns[n] for n in differ], [[row[n] for n in differ] for row in rows], sort=True)
    if len(rows) > 40:
        whole = f"<details><summary>{len(rows)} rows</summary>{whole}</details>"
    notes += [f"{columns[n]}: {value}" for n in same for value in values[n]]
    below = "".join(f"<li>{html.escape(note)}</li>" for note in notes)
    return whole + (f'\n\n<ul class="protocols">{below}</ul>' if notes else "")


_MAKERS: tuple[Callable[..., str], ...] = (
    *(zoo_models, zoo_claimed, zoo_measured, zoo_chart, datasets, presets, protocols, layouts),
    *(formats, unplaced, skeletons, options, refusals, batch_cost, results),
)
TABLES = {each.__name__: each for each in _MAKERS}

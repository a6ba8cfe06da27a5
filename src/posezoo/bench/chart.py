"""Throughput against accuracy as a page that works offline, or as a picture: drawn by Altair (Vega-Lite)."""

from __future__ import annotations

import html
import json
import math
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from posezoo.bench.points import CLAIMED, MEASURED
from posezoo.data.catalog import get_dataset, list_datasets
from posezoo.errors import PosezooError, require
from posezoo.files import atomic_path

PICTURES = (".png", ".svg")
_SIZE_WH = (760, 440)
# Okabe and Ito's colours, which most colour-blind people tell apart, and a grey
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555")
_INK, _SOFT, _GRID = "#222222", "#666666", "#E9E9E9"
_PADDING_WH = (40, 20)
_LEAST = (2.0, 2.0)  # what the axes span if all points are close: a factor of speed, points of AP
_LABEL_PIXELS = 38  # kept for the widest label of AP: a filter that makes them wider would push their title out
# 1, 2, 5, 10, ... where speeds differ enough for that, else steps of equal size; what is shown decides, not all points
_TICKS = (
    "ends[1] >= 10 * ends[0] ? [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, "
    "1e4, 2e4, 5e4, 1e5, 2e5, 5e5] : sequence(ceil(ends[0] / step) * step, ends[1], step)"
)
_STEP = "(ends[1] - ends[0] > 5 * decade ? 1 : ends[1] - ends[0] > 2 * decade ? 0.5 : 0.2) * decade"
_NAME_PIXELS, _NAME_APART = 10.5, (7, -9)  # of a name from its point, in pixels
_LETTER_PIXELS = 0.58 * _NAME_PIXELS
_CLAIM = "claimed by its zoo"
_SHAPES = {CLAIMED: "circle", MEASURED: "diamond"}
_FONT = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"
# the menus above the chart: the column, what the menu is called, and whether it begins with the commonest choice;
# APs of several tasks are never on one axis, so the first has no "all"
_MENUS = (
    ("task", "AP on", True),
    ("setting", "Speed with", True),
    ("flipped", "Flip", False),
    ("input", "Input", False),
    ("zoo", "Zoo", False),
)
_TABLE = (
    ("model", "model", ""),
    ("input", "input", ""),
    ("AP", "AP", ".1f"),
    ("told", "AP is", ""),
    ("dataset", "on", ""),
    ("images_per_second", "images/s", ".2f"),
    ("latency_ms", "ms", ".2f"),
    ("flip", "flip", ""),
    ("setting", "speed with", ""),
    ("weights", "weights timed", ""),
)


def check(path: str | os.PathLike[str]) -> None:
    """See that a chart can be drawn into such a file.

    Raises:
        PosezooError: it is no .html page or picture, or the extra is missing.
    """
    if Path(path).suffix.lower() not in (".html", *PICTURES):
        raise PosezooError(f"a chart is an .html page or a picture ({', '.join(PICTURES)}), not {os.fspath(path)}")
    for module in ("altair", "vl_convert"):
        require(module, "chart", "drawing the chart")


def draw(path: str | os.PathLike[str], points: Sequence[Mapping[str, Any]]) -> None:
    """Write the chart.

    Args:
        path: an .html page with everything in it, or a picture, .png or .svg.
        points: see `posezoo.bench.points.points_of`.

    Raises:
        PosezooError: there are no points, the extra is missing, or the file is of another kind or cannot be written.
    """
    check(path)
    if not points:
        raise PosezooError("there is nothing to draw: none of the results has an accuracy that belongs to it")
    import altair
    import vl_convert

    bundle: Any = vl_convert.javascript_bundle
    kind = Path(path).suffix.lower()
    version = ".".join(altair.SCHEMA_VERSION.lstrip("v").split(".")[:2])
    with atomic_path(path) as temporary:
        if kind == ".html":
            temporary.write_text(page(points, bundle(vl_version=version)), encoding="utf-8")
        elif kind == ".svg":
            temporary.write_text(vl_convert.vegalite_to_svg(spec(points), vl_version=version), encoding="utf-8")
        else:
            temporary.write_bytes(vl_convert.vegalite_to_png(spec(points), vl_version=version, scale=2))


def page(points: Sequence[Mapping[str, Any]], script: str) -> str:
    """The page: the chart, where its figures are from, and the script that draws it; nothing is fetched from anywhere.

    Args:
        points: see `posezoo.bench.points.points_of`.
        script: Vega, Vega-Lite and Vega-Embed as one.
    """
    text = (files("posezoo.bench") / "page.html").read_text(encoding="utf-8")
    parts = {
        "sources": _sources(points),
        "table": _table(points),
        "spec": json.dumps(spec(points, interactive=True), ensure_ascii=False).replace("</", "<\\/"),
        # addresses of its project, in its messages and in a menu that is not shown
        "script": re.sub(r"https://[\w./-]+", "", script).replace("</script", "<\\/script"),
    }
    return re.sub(r"<!--(\w+)-->", lambda found: parts[found[1]], text)


def spec(points: Sequence[Mapping[str, Any]], interactive: bool = False) -> dict[str, Any]:
    """The chart as Vega-Lite, with all points in it.

    Args:
        points: see `posezoo.bench.points.points_of`.
        interactive: for a page: menus, zoom, hovering, and a legend that picks out what is clicked. A picture shows
            what the page begins with.
    """
    import altair as alt

    rows = [{**point, "task": task_of(point), "told": told(point)} for point in points]
    for row, (before, after) in zip(rows, names_beside(rows, _SIZE_WH), strict=True):
        row.update(before=before, after=after, flipped=_flip(row), tips=tips(row))
    begins = {column: _commonest(rows, column) if common else None for column, _, common in _MENUS}
    shown = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X(
            "images_per_second:Q",
            title="images per second",
            # of a phone's width it would be too much
            scale=alt.Scale(type="log", nice=False, padding=alt.expr(f"width < 400 ? 16 : {_PADDING_WH[0]}")),
            axis=alt.Axis(format="~g", values=alt.expr(_TICKS)),
        ),
        y=alt.Y(
            "AP:Q",
            title="average precision (AP), %",
            # a format alone would drop digits of a lone tick
            axis=alt.Axis(labelExpr="format(datum.value, '.4~g')", minExtent=_LABEL_PIXELS if interactive else 0),
            scale=alt.Scale(zero=False, padding=_PADDING_WH[1]),
        ),
    )
    wanted = " && ".join(f"(only_{column} === null || datum.{column} === only_{column})" for column in begins)
    room = _room(shown, wanted, alt)
    shown = shown.transform_filter(wanted)
    layers = [_front(shown, alt), *_dots(shown, rows, interactive, alt), *_names(shown, alt), *room]
    if interactive:
        layers[1] = layers[1].add_params(alt.selection_interval(name="zoom", bind="scales"))
    chart = alt.layer(*layers).add_params(
        *(_menu(rows, column, title, begins[column], alt) for column, title, _ in _MENUS),
        alt.param(name="ends", expr="domain('x')"),
        alt.param(name="decade", expr="pow(10, floor(log(ends[1] - ends[0]) / LN10))"),
        alt.param(name="step", expr=_STEP),
    )
    chart = chart.properties(width="container" if interactive else _SIZE_WH[0], height=_SIZE_WH[1])
    chart = chart.properties(description="Networks as points: average precision against images per second")
    if not interactive:
        title = f"Accuracy against speed: {begins['task']}"
        chart = chart.properties(title=alt.TitleParams(title, subtitle=f"Speed with {begins['setting']}"))
    drawn = _style(chart).to_dict()
    drawn.pop("$schema")  # an address, and the only one
    fill = {"expr": f"datum.value === '{_CLAIM}' ? 'transparent' : '#888'"}
    symbols = {"fill": {"value": fill}, "stroke": {"value": "#888"}}
    for layer in drawn["layer"]:
        if "shape" in layer.get("encoding", {}):  # Vega-Lite reads this of a legend, but Altair does not know it
            layer["encoding"]["shape"]["legend"] = {"encoding": {"symbols": symbols}}
    return drawn


def _room(rows: Any, wanted: str, alt: Any) -> list[Any]:
    """Two corners, not drawn, that widen what the axes span, and a line of text where there are no points.

    The axes of a single point span more than it. Those of no point span all rows: an axis of nothing has no scale.
    """
    x, y = "images_per_second", "AP"
    counted = (
        rows.transform_calculate(seen=wanted)
        .transform_joinaggregate(any="sum(seen)")
        .transform_filter("datum.seen || !datum.any")
        .transform_aggregate(any="max(any)", low=f"min({x})", high=f"max({x})", worst=f"min({y})", best=f"max({y})")
    )
    factor, points = math.sqrt(_LEAST[0]), _LEAST[1] / 2
    across, up = "sqrt(datum.low * datum.high)", "(datum.worst + datum.best) / 2"
    corners = counted.transform_calculate(
        images_per_second=f"[min(datum.low, {across} / {factor}), max(datum.high, {across} * {factor})]",
        AP=f"[min(datum.worst, {up} - {points}), max(datum.best, {up} + {points})]",
    ).transform_flatten([x, y])
    corners = corners.mark_point(opacity=0, size=0, tooltip=None, aria=False)
    none = counted.transform_filter("!datum.any").mark_text(fontSize=14, color=_INK, text="no network has all of these")
    middle = {"x": alt.XValue(alt.expr("width / 2")), "y": alt.YValue(alt.expr("height / 2"))}
    return [corners, none.encode(**middle)]


def _dots(shown: Any, rows: Sequence[Mapping[str, Any]], interactive: bool, alt: Any) -> list[Any]:
    """The points: those that are claimed hollow, those that are measured full."""
    families = [family for family, _ in Counter(row["family"] for row in rows).most_common()]
    marks = dict(sorted((row["told"], _SHAPES[row["kind"]]) for row in rows))
    picked = alt.selection_point(name="picked", fields=["family"], bind="legend")
    dots = shown.encode(
        color=alt.Color("family:N", title="family", scale=alt.Scale(domain=families, range=list(_COLOURS))),
        shape=alt.Shape("told:N", title="AP", scale=alt.Scale(domain=list(marks), range=list(marks.values()))),
        size=alt.Size(
            "params_m:Q",
            title="parameters, 10⁶",
            scale=alt.Scale(type="sqrt", domain=[0, 90], range=[20, 440]),
            legend=alt.Legend(values=[5, 20, 40, 80]),
        ),
        tooltip=[alt.Tooltip(f"tips.{title}:N", title=title) for title in tips(rows[0])],
        opacity=alt.condition(picked, alt.value(1), alt.value(0.1)) if interactive else alt.value(1),
    )
    claimed = dots.transform_filter(alt.datum.kind == CLAIMED).mark_point(strokeWidth=1.8)
    measured = dots.transform_filter(alt.datum.kind == MEASURED).mark_point(filled=True)
    return [claimed.add_params(picked) if interactive else claimed, measured]


def _front(shown: Any, alt: Any) -> Any:
    """A line through the networks of each kind than which none is both faster and better."""
    front = shown.transform_window(
        window=[alt.WindowFieldDef(op="max", field="AP", **{"as": "best"})],
        sort=[alt.SortField("images_per_second", order="descending"), alt.SortField("AP", order="descending")],
        groupby=["task", "told"],
        frame=[None, 0],
    ).transform_filter("datum.AP >= datum.best")
    line = front.mark_line(color="#BBBBBB", strokeWidth=1.2, interpolate="step-after", strokeDash=[4, 3])
    return line.encode(detail=["task:N", "told:N"])


def _names(shown: Any, alt: Any) -> list[Any]:
    """The names of some of the points, beside and above them."""
    across, up = _NAME_APART
    layers = []
    for column, align, sign in (("before", "right", -1), ("after", "left", 1)):
        end = f"scale('x', datum.images_per_second) + {sign} * ({across} + {_LETTER_PIXELS} * length(datum.{column}))"
        fits = alt.condition(f"inrange({end}, [0, width])", alt.value(1), alt.value(0))  # a phone has less room
        text = shown.mark_text(align=align, dx=sign * across, dy=up, fontSize=_NAME_PIXELS, color=_SOFT)
        layers.append(text.encode(text=f"{column}:N", opacity=fits))
    return layers


def _commonest(rows: Sequence[Mapping[str, Any]], column: str) -> str:
    return str(Counter(row[column] for row in rows).most_common(1)[0][0])


def _menu(rows: Sequence[Mapping[str, Any]], column: str, title: str, begins: str | None, alt: Any) -> Any:
    """What a menu chooses among; no menu where there is no choice."""
    choices = sorted({row[column] for row in rows})
    if len(choices) < 2:
        return alt.param(name=f"only_{column}", value=None)
    every = [] if column == "task" else [None]
    bound = alt.binding_select(options=[*every, *choices], labels=["all" for _ in every] + choices, name=title)
    return alt.param(name=f"only_{column}", value=begins, bind=bound)


def names_beside(rows: Sequence[Mapping[str, Any]], size_wh: tuple[int, int]) -> list[tuple[str, str]]:
    """What to write before and after each point: a name for those of the front that have room for it, else "".

    Args:
        rows: points, with their task and what they are told as.
        size_wh: of the chart in pixels.
    """
    found = [("", "")] * len(rows)
    groups: dict[tuple[str, str], list[int]] = {}
    for number, row in enumerate(rows):
        groups.setdefault((row["task"], row["setting"]), []).append(number)
    for numbers in groups.values():
        mine = [rows[number] for number in numbers]
        places = _places(mine, size_wh)
        dots = [(x - 9, y - 9, x + 9, y + 9) for x, y in places]
        taken: list[tuple[float, ...]] = []
        named: set[str] = set()
        for place in sorted(range(len(mine)), key=lambda n: places[n][1]):
            number, (x, y), name = numbers[place], places[place], mine[place]["short"]
            if name in named or not _is_on_front(mine[place], mine):
                continue
            across, up = _NAME_APART
            wide = _LETTER_PIXELS * len(name)
            after = (x + across, y + up - 7, x + across + wide, y + up + 6)
            before = (x - across - wide, y + up - 7, x - across, y + up + 6)
            others = [*taken, *dots[:place], *dots[place + 1 :]]
            free = [box[0] > 0 and box[2] < size_wh[0] and not _overlaps(box, others) for box in (before, after)]
            if any(free):
                found[number] = ("", name) if free[1] else (name, "")
                taken.append(after if free[1] else before)
                named.add(name)
    return found


def _is_on_front(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether none of its kind is better and at least as fast."""
    kind = (other for other in rows if other["told"] == row["told"] and other["AP"] > row["AP"])
    return all(other["images_per_second"] < row["images_per_second"] for other in kind)


def _places(rows: Sequence[Mapping[str, Any]], size_wh: tuple[int, int]) -> list[tuple[float, float]]:
    """Where points are drawn, in pixels from the top left corner, if nothing is zoomed."""
    scaled = []
    across, down = [math.log(row["images_per_second"]) for row in rows], [-row["AP"] for row in rows]
    least = (math.log(_LEAST[0]), _LEAST[1])
    for values, pixels, padding, room in zip((across, down), size_wh, _PADDING_WH, least, strict=True):
        span = max(max(values) - min(values), room)
        low = (max(values) + min(values) - span) / 2
        scaled.append([padding + (pixels - 2 * padding) * (value - low) / span for value in values])
    return list(zip(*scaled, strict=True))


def _overlaps(box: Sequence[float], others: Sequence[Sequence[float]]) -> bool:
    return any(box[0] < o[2] and o[0] < box[2] and box[1] < o[3] and o[1] < box[3] for o in others)


def _style(chart: Any) -> Any:
    """Light, quiet, and fit for print."""
    text = {"labelFont": _FONT, "titleFont": _FONT, "labelFontSize": 12, "titleFontSize": 12.5}
    text |= {"labelColor": _INK, "titleColor": _INK, "titleFontWeight": 600}
    return (
        chart.configure(font=_FONT, background="white")
        .configure_view(stroke=None)
        .configure_axis(**text, gridColor=_GRID, domainColor="#999999", tickColor="#999999", titlePadding=10)
        .configure_legend(**text, labelLimit=240, symbolFillColor="transparent", rowPadding=4, padding=12)
        .configure_title(font=_FONT, fontSize=15, subtitleFont=_FONT, subtitleFontSize=12, anchor="start", offset=14)
    )


def task_of(point: Mapping[str, Any]) -> str:
    """What an accuracy is about: the title of its dataset, and for "coco_dev", a few pictures of it, COCO's."""
    name = str(point["dataset"])
    known = [each for each in list_datasets() if name.startswith(each)]
    return get_dataset(max(known, key=len)).title if known else name


def told(point: Mapping[str, Any]) -> str:
    """Whose figure an accuracy is, as the legend says it."""
    if point["kind"] == CLAIMED:
        return _CLAIM
    return "measured here" + ("" if point["dataset"] in list_datasets() else f", on {point['dataset']}")


def _flip(point: Mapping[str, Any]) -> str:
    return "with flip" if point["flip"] else "without flip"


def tips(point: Mapping[str, Any]) -> dict[str, str]:
    """All that is known of a point, in the few lines that hovering over it shows."""
    batch = "an image" if point["data"] == "images" else f"a batch of {point['batch_size']}"
    size = f", {point['params_m']} M parameters, {point['gmacs']} G multiply-adds" if point["params_m"] else ""
    spread = "" if point["spread"] is None else f" (spread {point['spread']:.0%})"
    memory = "" if point["memory_mb"] is None else f", {point['memory_mb']:.0f} MB"
    return {
        "model": point["model"] + (f" as {point['file']}" if point["file"] else ""),
        "AP": f"{point['AP']:.1f} %, {told(point)}, {_flip(point)}",
        "of": f"{point['dataset']}: {point['protocol']}",
        "speed": f"{point['images_per_second']:.4g} images/s, {point['latency_ms']:.4g} ms {batch}"
        f"{spread}, CPU {point['cpu_ms']:.4g} ms{memory}",
        "timed": f"{point['runtime']} {point['precision']} on {point['device']}, {point['threads']} CPU "
        f"{'thread' if point['threads'] == 1 else 'threads'}, {point['data']} data, {point['weights']} weights",
        "network": f"{point['family']} of {point['zoo']}, {point['input']}{size}",
        "machine": f"{point['processor']}, {point['machine']}, {point['date']}",
        "versions": str(point["versions"]),
    }


def _sources(points: Sequence[Mapping[str, Any]]) -> str:
    """Where the speeds are from: a list item for every machine and command."""
    runs = dict.fromkeys((p["processor"], p["machine"], p["versions"], p["date"], p["command"]) for p in points)
    return "\n".join(
        f"<li>{html.escape(f'{processor}, {machine}; {versions}; {date}')}: <code>{html.escape(command)}</code></li>"
        for processor, machine, versions, date, command in runs
    )


def _table(points: Sequence[Mapping[str, Any]]) -> str:
    """All points as a table, for print and for those who do not hover."""
    head = "".join(f"<th>{title}</th>" for _, title, _ in _TABLE)
    body = []
    for point in points:
        values = {**point, "told": told(point), "flip": "yes" if point["flip"] else "no"}
        cells = (
            f"<td{' class=n' if how else ''}>{html.escape(format(values[name], how))}</td>" for name, _, how in _TABLE
        )
        body.append(f"<tr>{''.join(cells)}</tr>")
    return f"<table><thead><tr>{head}</tr></thead><tbody>\n" + "\n".join(body) + "\n</tbody></table>"

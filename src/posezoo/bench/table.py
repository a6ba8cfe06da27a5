"""The rows for the terminal: what they share is said once, what differs is a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from posezoo.bench.rows import IMAGES, Row

Table = tuple[list[str], list[list[str]]]

# what may be the same in all rows: its column, its cell, and how the line above the table says it
_SHARED: tuple[tuple[str, Callable[[Row], str], Callable[[Row], str]], ...] = (
    ("model", lambda r: r.model, lambda r: r.model),
    ("HxW", lambda r: r.input, lambda r: r.input),
    ("weights", lambda r: r.weights, lambda r: "its own weights" if r.weights == "own" else f"{r.weights} weights"),
    ("runtime", lambda r: r.runtime, lambda r: r.runtime),
    ("precision", lambda r: r.precision, lambda r: r.precision),
    ("device", lambda r: r.device, lambda r: f"on {r.device}"),
    ("threads", lambda r: str(r.threads), lambda r: f"{r.threads} {'thread' if r.threads == 1 else 'threads'}"),
    ("batch", lambda r: str(r.batch_size), lambda r: f"batches of {r.batch_size}"),
)


def summary(rows: Sequence[Row]) -> tuple[str, Table, str]:
    """A line of what all rows share, the table of the rest, and two lines that explain its columns."""
    differ = [facet for facet in _SHARED if len({facet[1](row) for row in rows}) > 1] or [_SHARED[-1]]
    shared = [say(rows[0]) for name, cell, say in _SHARED if (name, cell, say) not in differ]
    if rows[0].flip:
        shared.append("with flip")
    columns = [*(name for name, _, _ in differ), *_columns(rows[0])]
    lines = [[*(cell(row) for _, cell, _ in differ), *_figures(row)] for row in rows]
    firsts: dict[tuple[str, int], Row] = {}  # of each model and batch size: what the others are compared with
    for row in rows:
        firsts.setdefault((row.model, row.batch_size), row)
    compared = len(firsts) < len(rows)
    if compared:
        columns.append("times")
        for row, line in zip(rows, lines, strict=True):
            line.append(f"{row.images_per_second / firsts[row.model, row.batch_size].images_per_second:.2f}")
    return ", ".join(shared), (columns, lines), _legend(rows[0], compared)


def stage_table(row: Row) -> Table:
    """What each step of the pipeline takes; the shares are of the CPU time."""
    stages = row.stages or {}
    people = max(row.people or 0, 1) / (row.images or 1)
    network = stages["network"].cpu_ms or 1.0
    whole = sum(stage.cpu_ms for stage in stages.values()) or 1.0
    lines = [
        [
            name,
            f"{stage.ms:.2f}",
            f"{stage.cpu_ms:.2f}",
            f"{stage.cpu_ms / people:.2f}",
            f"{100 * stage.cpu_ms / whole:.1f}",
            f"{stage.cpu_ms / network:.3f}",
        ]
        for name, stage in stages.items()
    ]
    return ["step", "ms", "CPU ms", "CPU ms a person", "% of CPU", "of the network"], lines


def _columns(row: Row) -> list[str]:
    if row.data == IMAGES:
        return ["ms an image", "spread %", "images/s", "people/s", "CPU ms", "MB"]
    return ["ms a batch", "spread %", "images/s", "CPU ms", "MB"]


def _figures(row: Row) -> list[str]:
    """The numbers of a row, as `_columns` names them."""
    rates = [f"{row.images_per_second:.1f}"]
    if row.data == IMAGES:
        rates.append(f"{row.images_per_second * (row.people or 0) / (row.images or 1):.1f}")
    memory = "" if row.memory_mb is None else f"{row.memory_mb:.0f}"
    spread = "" if row.spread is None else f"{100 * row.spread:.0f}"
    return [f"{row.latency_ms:.2f}", spread, *rates, f"{row.cpu_ms:.2f}", memory]


def _legend(row: Row, compared: bool) -> str:
    """What the columns mean."""
    what = "The network alone, on dummy data"
    if row.data == IMAGES:
        what = "The whole pipeline, step after step (predict does some of them side by side)"
    times = "; times: as fast as its model's first row" if compared else ""
    return (
        f"{what}: medians.\nSpread: of the middle half of the calls, in % of the median; CPU ms: of all threads;\n"
        f"MB: the memory it took at the worst moment{times}."
    )

"""Every row of every table that the zoos publish is in the catalogue, with its own figures, input and download.

The tables are read here from the pages themselves; no figure stands in this file.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from posezoo.errors import PosezooError
from posezoo.skeletons import get_skeleton
from posezoo.zoo import Entry, Score, get_entry, list_models

PAGES = ("alphapose_model_zoo.md", "gluoncv_int8_readme.md", "hrnet_pose_estimation_readme.md")
MMPOSE = "mmpose_simple_baselines_zoo.md"
TABLES, ROWS = 22, 95
# what a table's title says of its dataset; the first that fits
DATASETS = {
    "OCHuman": "ochuman",
    "AIC": "aic",
    "MHP": "mhp",
    "MPII-TRB": "mpii_trb",
    "MPII": "mpii",
    "CrowdPose": "crowdpose",
    "PoseTrack2018": "posetrack18",
    "Normalized by": "jhmdb",
    "WholeBody": "wholebody133",
    "COCO": "coco",
    "(26 keypoints)": "halpe26",
    "(136 keypoints)": "halpe136",
    "Multi Domain": "halpe136",
}
# columns with figures, other than those that are called the same here
METRICS = {
    "AP<sup>50</sup>": "AP50",
    "AP<sup>75</sup>": "AP75",
    "AR<sup>50</sup>": "AR50",
    "Ap .5": "AP50",
    "AP .75": "AP75",
    "AR .5": "AR50",
    "AR .75": "AR75",
    "AP (M)": "APM",
    "AP (L)": "APL",
    "AR (M)": "ARM",
    "AR (L)": "ARL",
}
CROWDS = {"AP (E)": "APE", "AP (M)": "APMedium", "AP (H)": "APH"}
ACCURACIES = {"Skeleton Acc": "Skeleton_acc", "Contour Acc": "Contour_acc", "Mean Acc": "Mean_acc"}
NOT_METRICS = ("Arch", "Input Size", "Input size", "#Params", "GFLOPs", "ckpt", "log", "Split")


@dataclass(frozen=True)
class Row:
    """A row of a page: what each column says, and the title over its table."""

    page: str
    title: str
    cells: dict[str, str]

    def link(self, column: str, which: int = 0) -> str | None:
        """Where a link in a cell leads, exactly as it stands there."""
        found = re.findall(r"\[[^\]]*\]\(([^)]*)\)|<([^>]*)>", self.cells.get(column) or "")
        return "".join(found[which]) if len(found) > which else None

    def text(self, column: str) -> str:
        """A cell without its link."""
        return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", self.cells[column])

    @property
    def dataset(self) -> str:
        return next(name for words, name in DATASETS.items() if words in self.title)


def markdown_tables(path: Path) -> Iterator[list[Row]]:
    """The tables of a page; a line without leading bar belongs to the table above it."""
    title, columns, rows = "", None, []
    for line in [*path.read_text().splitlines(), ""]:
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) == 1:
            if rows:  # not a line of code with a pipe in it
                yield rows
            columns, rows = None, []
            title = line if line.startswith("#") else title
        elif columns is None:
            columns = cells
        elif set("".join(cells)) - set(":- "):
            rows.append(Row(path.name, title, dict(zip(columns, cells, strict=True))))


def read_tables(seeds: Path) -> list[list[Row]]:
    found = [table for page in (*PAGES, MMPOSE) for table in markdown_tables(seeds / page)]
    for path in sorted((seeds / "csv_tables").rglob("*.csv")):
        with path.open() as file:
            found.append([Row(path.name, path.name, cells) for cells in csv.DictReader(file)])
    return found


@pytest.fixture(scope="module")
def tables(shared: Path) -> list[list[Row]]:
    return read_tables(shared / "seeds")


def rows_of(tables: list[list[Row]], page: str) -> list[Row]:
    found = [row for table in tables for row in table if page in row.page]
    assert found
    return found


def the_score(entry: Entry, numbers: dict[str, str], dataset: str, unit: str, **rest: object) -> Score:
    """The one claim of an entry with these numbers, on this dataset and in this unit."""
    wanted = {name: float(text) for name, text in numbers.items()}
    found = [
        score
        for score in entry.claimed
        if (score.metrics, score.dataset, score.unit) == (wanted, dataset, unit)
        and all(getattr(score, name) == value for name, value in rest.items())
    ]
    assert len(found) == 1, f"{entry.name} has {len(found)} claims of {wanted} ({unit}) on {dataset} {rest}"
    return found[0]


def unit_of(numbers: dict[str, str]) -> str:
    return "fraction" if all(float(text) <= 1 for text in numbers.values()) else "percent"


def size_of(text: str) -> tuple[int, int]:
    """A page's "256x192", height first, as width and height."""
    height, width = re.fullmatch(r"(\d+)x(\d+)", text).groups()  # type: ignore[union-attr]
    return int(width), int(height)


def assert_leads_to(pasted: str, entry: Entry) -> None:
    """What is pasted means this entry, or is an error that has it among the candidates."""
    try:
        assert get_entry(pasted) is entry, pasted
    except PosezooError as err:
        arch, _, tag = entry.name.rpartition(".")
        assert "could be" in str(err), err
        assert re.search(rf"{re.escape(arch)}\.(\{{[^}}]*)?\b{re.escape(tag)}\b", str(err)), err


def test_all_tables_are_read(tables: list[list[Row]]) -> None:
    assert len(tables) == TABLES
    assert sum(map(len, tables)) == ROWS


def test_mmpose_rows(tables: list[list[Row]]) -> None:
    first_split: dict[str, Entry] = {}
    for row in rows_of(tables, MMPOSE):
        config, checkpoint = row.link("Arch"), row.link("ckpt")
        if config is None:  # a mean over three networks stands with the first of them
            entry = first_split[row.text("Arch")]
        else:
            entry = get_entry(config)
            assert get_entry(checkpoint) is entry
            assert get_entry(checkpoint.rpartition("/")[2]) is entry
            assert checkpoint in entry.weights[0].urls
            assert entry.weights[0].hash_tag == re.search(r"-(\w{8})_", checkpoint)[1]
            assert entry.links["log"] == row.link("log")
            if row.cells.get("Split") == "Sub1":
                first_split[row.text("Arch")] = entry
        assert_leads_to(row.text("Arch"), entry if config else first_split[row.text("Arch")])
        assert entry.source == "mmpose"
        assert entry.input_size_wh == size_of(row.cells["Input Size"])
        names = {**METRICS, **ACCURACIES, **(CROWDS if row.dataset == "crowdpose" else {})}
        prefix = "" if row.dataset != "jhmdb" else "tPCK/" if "Torso" in row.title else "PCK/"
        numbers = {prefix + names.get(key, key): text for key, text in row.cells.items() if key not in NOT_METRICS}
        score = the_score(entry, numbers, row.dataset, unit_of(numbers))
        for words in ("ground-truth", "human AP of 56.4", "YOLOv3", "Cascade R-CNN"):
            assert (words in row.title) <= (words.replace(" of", "") in score.protocol), (words, score.protocol)
        if row.dataset == "jhmdb":
            kind = re.search(r"by (\w+) Size", row.title)[1].lower()
            assert f"{kind} size" in score.protocol
            assert ("mean over" in score.protocol) == (config is None)


def test_hrnet_rows(tables: list[list[Row]]) -> None:
    for row in rows_of(tables, "hrnet_pose"):
        called = [get_entry(name) for name in list_models(source="hrnet")]
        size = size_of(row.cells.get("Input size", "256x256"))
        found = [
            entry
            for entry in called
            if row.cells["Arch"] in entry.aliases and (entry.dataset, entry.input_size_wh) == (row.dataset, size)
        ]
        assert len(found) == 1, row
        entry = found[0]
        assert_leads_to(row.cells["Arch"], entry)
        numbers = {METRICS.get(key, key): text for key, text in row.cells.items() if key not in NOT_METRICS}
        the_score(entry, numbers, row.dataset, unit_of(numbers))
        if "#Params" in row.cells:
            cost = {"params": float(row.cells["#Params"].rstrip("M")), "gflops": float(row.cells["GFLOPs"])}
            assert entry.claimed_cost == cost


def test_gluoncv_rows(tables: list[list[Row]]) -> None:
    rows = rows_of(tables, "MSCOCO_")
    for row in rows:
        name, tag = row.cells["Model"].split()[0], row.cells["Hashtag"]
        entry = get_entry(tag)
        assert entry.arch == name.removesuffix("_coco")
        assert (entry.weights[0].hash_tag, entry.weights[0].hash_tag_of) == (tag, "sha1")
        assert entry.weights[0].urls[0].endswith(f"/{name}-{tag}.zip")
        size = re.search(r"\((\d+x\d+)\)", row.cells["Model"])
        default = "320x256" if "Alpha" in row.page else "256x192"
        assert entry.input_size_wh == size_of(size[1] if size else default)
        if not size:  # the page's default for this name
            assert get_entry(name) is entry
        for flip, column in ((False, "OKS AP"), (True, "OKS AP (with flip)")):
            numbers = dict(zip(("AP", "AP50", "AP75"), row.cells[column].split("/"), strict=True))
            the_score(entry, numbers, "coco", "percent", flip=flip)
        assert entry.links.get("script") == row.link("Training Command")
        assert entry.links.get("log") == row.link("Training log")
    assert len(list_models(source="gluoncv")) == len(rows)


def test_int8_rows(tables: list[list[Row]]) -> None:
    for row in rows_of(tables, "int8"):
        entry = get_entry(row.cells["model"])
        assert entry.source == "gluoncv"
        for printed, kind in (("fp32", "float32"), ("s8", "INT8")):
            speed = {"latency": row.cells[f"{printed} latency(ms)"]}
            accuracy = {"AP": row.cells[f"{printed} OKS AP"]}
            for numbers, unit in ((speed, "ms"), (accuracy, "percent")):
                score = the_score(entry, numbers, "coco", unit)
                assert score.protocol.replace("the INT8 page", "").replace("INT8 page", "").count(kind) == 1
                assert ("C5.12xlarge" in score.protocol) == (unit == "ms")


def test_alphapose_rows(tables: list[list[Row]]) -> None:
    codecs = {"Heatmap": "heatmap-quarter", "Symmetric Integral": "integral-sigmoid", "Combined": "combined-"}
    for row in rows_of(tables, "alphapose"):
        download = row.link("Download")
        dead = "://" not in download
        entry = get_entry(download)
        (weights,) = entry.weights
        assert weights.dead == dead
        assert (weights.file == download and not weights.urls) if dead else weights.urls == (download,)
        assert_leads_to(row.link("Model"), entry)
        assert_leads_to(f"`{row.link('Model').removeprefix('../')}`", entry)
        assert entry.links["config"] == row.link("Model").removeprefix("../")
        if "Training Log" in row.cells:
            assert entry.links["log"] == row.link("Training Log")
            assert Path(weights.file).stem == Path(entry.links["log"]).stem
        if not dead and row.link("Download", 1):
            assert entry.links["baidu"] == row.link("Download", 1)
        assert entry.source == "alphapose"
        assert entry.input_size_wh == size_of(row.cells["Input Size"])
        printed = row.cells.get("#keypoints", row.title.rpartition("(")[2] if "keypoints" in row.title else "17")
        assert len(get_skeleton(entry.skeleton).joints) == int(re.match(r"\d+", printed)[0])
        backbone = row.cells["Backbone"].lower()
        assert ("hrnet" in entry.arch) == ("hrnet" in backbone)
        for words in ("resnet50", "resnet152", "dcn", "unshuffle"):
            assert (words in entry.arch) == (words in backbone)
        kind = row.cells.get("Loss Type", "Heatmap").partition(" (")[0]
        assert entry.codec.startswith(codecs[kind])
        accuracy, speed = row.cells["AP"], row.cells["Speed"].split()
        if accuracy != "-":
            score = the_score(entry, {"AP": accuracy}, row.dataset, "percent", flip=True)
            assert row.cells["Detector"] in score.protocol
        score = the_score(entry, {"speed": speed[0]}, "coco", speed[1])
        assert ("TITAN XP" if row.dataset == "coco" else "RTX 3090") in score.protocol

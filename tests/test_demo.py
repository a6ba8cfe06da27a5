"""`posezoo demo`: AlphaPose's flags do what they do there, and the commands that its zoo prints run as pasted."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from command_line import Ran
from posezoo.commands.demo import _model
from posezoo.errors import PosezooError
from posezoo.media import read_image, write_image
from posezoo.media.sources import open_source
from posezoo.media.writer import VideoWriter
from posezoo.zoo import get_entry
from tiny_networks import picture, pose_network

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
CELLS = [(2, 2), (6, 3)]
BOXES = {"p1.png": [[64, 64, 256, 256], [320, 128, 512, 320]], "p0.png": [], "p2.png": [[64, 64, 84, 84]]}


@pytest.fixture
def run(run: Callable[..., Ran]) -> Callable[..., Ran]:
    return partial(run, "demo")


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    """Three pictures in a folder, boxes of theirs in AlphaPose's way, and the flags that name a tiny network."""
    for n in range(3):
        write_image(tmp_path / "in" / f"p{n}.png", picture(640, 480, CELLS[:n]))
    found = [
        {"image_id": name, "category_id": 1, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": 0.9}
        for name, boxes in BOXES.items()
        for x1, y1, x2, y2 in boxes
    ]
    (tmp_path / "boxes.json").write_text(json.dumps(found))
    pose_network(tmp_path / "pose.onnx")
    return ["--checkpoint", "pose.onnx", "--gpus", "-1"]


def results(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "alphapose-results.json").read_text())


def pasted(shared: Path) -> list[list[str]]:
    """The arguments of every command that AlphaPose's zoo prints."""
    text = (shared / "seeds" / "alphapose_model_zoo.md").read_text()
    return [shlex.split(line)[2:] for line in re.findall(r"^python scripts/demo_inference\.py .*$", text, re.MULTILINE)]


def checkpoint(arguments: list[str]) -> Path:
    return Path(arguments[arguments.index("--checkpoint") + 1])


def test_the_commands_of_the_zoo_run_as_pasted(
    run: Any, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the networks replaced by a tiny one; that they are the right ones is seen."""
    from posezoo import estimator

    opened, original = [], estimator.open_network
    pose_network(tmp_path / "pose.onnx")

    def tiny(name: Any, weights: Any = None, *where: Any) -> Any:
        opened.append((name, weights))
        return original(str(tmp_path / "pose.onnx"), None, *where)

    monkeypatch.setattr(estimator, "open_network", tiny)
    commands = pasted(shared)
    assert len(commands) >= 4
    shutil.copytree(EXAMPLES, tmp_path / "examples" / "demo", ignore=lambda _, names: set(names) - {"astronaut.png"})
    for arguments in commands:
        file = checkpoint(arguments)
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"weights")
        ran = run(*arguments)
        assert ran.code == 0 and ran.err == "", (arguments, ran)
        name, weights = opened[-1]
        assert weights == str(file) and get_entry(file.name).name == name
        assert isinstance(results(tmp_path / "examples" / "res"), list)
        assert read_image(tmp_path / "examples" / "res" / "vis" / "astronaut.jpg").shape == (512, 512, 3)
        shutil.rmtree(tmp_path / "examples" / "res")


@pytest.mark.slow
def test_the_commands_of_the_zoo_run_with_their_networks(run: Any, shared: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from posezoo.zoo import get_model

    shutil.copytree(EXAMPLES, tmp_path / "examples" / "demo", ignore=lambda _, names: set(names) - {"astronaut.png"})
    for arguments in pasted(shared):
        file = checkpoint(arguments)
        entry = get_entry(file.name)
        file.parent.mkdir(exist_ok=True)
        torch.manual_seed(0)
        torch.save(get_model(entry.name).state_dict(), file)
        ran = run(*arguments, "--json")
        assert ran.code == 0, ran
        assert json.loads(ran.out)["model"] == entry.name
        assert (tmp_path / "examples" / "res" / "alphapose-results.json").exists()
        file.unlink()


def test_a_folder(run: Any, pictures: list[str], tmp_path: Path) -> None:
    ran = run(*pictures, "--indir", "in", "--detfile", "boxes.json", "--outdir", "out", "--save_img", "--showbox")
    assert ran.code == 0 and ran.err == "" and "3 pictures, 3 people" in ran.out
    people = results(tmp_path / "out")
    assert [person["image_id"] for person in people] == ["p1.png", "p1.png", "p2.png"]
    assert all(len(person["keypoints"]) == 51 and person["category_id"] == 1 for person in people)
    assert people[0]["box"] == [64, 64, 192, 192] and "idx" not in people[0]
    names = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.*"))
    assert names == ["alphapose-results.json", "vis/p0.jpg", "vis/p1.jpg", "vis/p2.jpg"]
    plain = run(*pictures, "--indir", "in", "--detfile", "boxes.json", "--outdir", "few", "--min_box_area", "500")
    assert plain.code == 0 and len(results(tmp_path / "few")) == 2 and not (tmp_path / "few" / "vis").exists()


@pytest.mark.parametrize(("format", "names"), [("cmu", "bodies"), ("open", "people")])
def test_a_file_each(run: Any, pictures: list[str], tmp_path: Path, format: str, names: str) -> None:
    ran = run(*pictures, "--indir", "in", "--detfile", "boxes.json", "--outdir", "out", "--format", format)
    assert ran.code == 0
    files = sorted((tmp_path / "out" / "sep-json").iterdir())
    assert [file.name for file in files] == ["p0.json", "p1.json", "p2.json"]
    assert [len(json.loads(file.read_text())[names]) for file in files] == [0, 2, 1]


def test_a_list_of_pictures(run: Any, pictures: list[str], tmp_path: Path) -> None:
    (tmp_path / "some.lst").write_text("p2.png\n\nin/p1.png\ngone.png\n")
    ran = run(*pictures, "--indir", "in", "--list", "some.lst", "--detfile", "boxes.json", "--outdir", "out", "--eval")
    assert ran.code == 2 and ran.err == "error: no such file: in/gone.png\n"
    assert [person["image_id"] for person in results(tmp_path / "out")] == ["p2.png", "p1.png", "p1.png"]
    (tmp_path / "in" / "p2.png").rename(tmp_path / "in" / "000785.png")
    (tmp_path / "b.json").write_text('{"000785.png": [[64, 64, 256, 256]]}')
    assert run(*pictures, "--image", "in/000785.png", "--detfile", "b.json", "--outdir", "one", "--eval").code == 0
    assert [person["image_id"] for person in results(tmp_path / "one")] == [785]


def test_a_video(run: Any, pictures: list[str], tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "clip.avi", (640, 480), 10) as video:
        for _ in range(4):
            video.add(picture(640, 480, CELLS))
    found = {f"clip.avi#{n}": BOXES["p1.png"] for n in range(4)}
    (tmp_path / "video.json").write_text(json.dumps(found))
    flags = ["--video", "clip.avi", "--detfile", "video.json", "--outdir", "out", "--save_video", "--save_img"]
    ran = run(*pictures, *flags, "--pose_track", "--vis_fast", "--profile", "--detbatch", "2", "--posebatch", "4")
    assert ran.code == 0 and ran.err == ""
    people = results(tmp_path / "out")
    assert [person["image_id"] for person in people] == [f"{n}.jpg" for n in range(4) for _ in range(2)]
    assert {person["idx"] for person in people} <= {1, 2, -1} and len({person["idx"] for person in people}) >= 1
    with open_source(tmp_path / "out" / "AlphaPose_clip.mp4") as frames:
        assert sum(1 for _ in frames) == 4
    assert sorted(p.name for p in (tmp_path / "out" / "vis").iterdir()) == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
    for stage in ("read", "wait for reading", "network", "suppress", "track", "draw", "write results", "all together"):
        assert stage in ran.out
    flow = run(*pictures, *flags[:4], "--outdir", "flow", "--pose_flow", "--format", "open")
    assert flow.code == 0 and len(list((tmp_path / "flow" / "sep-json").iterdir())) == 4


def test_the_video_of_a_camera_is_named_after_it(
    run: Any, pictures: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with VideoWriter(tmp_path / "clip.avi", (640, 480), 10) as video:
        video.add(picture(640, 480, CELLS))
    camera = open_source(tmp_path / "clip.avi")
    camera.name = "webcam:0"
    monkeypatch.setattr("posezoo.predict.run.open_source", lambda *_, **__: camera)
    ran = run(*pictures, "--webcam", "0", "--detector", "whole", "--outdir", "out", "--save_video")
    assert ran.code == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["AlphaPose_webcam0.mp4", "alphapose-results.json"]


def test_flags_that_make_no_sense_say_so_once(run: Any, pictures: list[str], tmp_path: Path) -> None:
    flags = ["--sp", "--qsize", "1024", "--debug", "--vis", "--save_video", "--outdir", "out"]
    ran = run("--checkpoint", "pose.onnx", "--gpus", "0,1,2,3", "--indir", "in", "--detfile", "boxes.json", *flags)
    notes = ran.err.splitlines()
    assert ran.code == 0 and len(results(tmp_path / "out")) == 3
    assert len(notes) == 6 and all(note.startswith("note: --") and "has no effect: " in note for note in notes)
    assert {note.split()[1] for note in notes} == {"--sp", "--qsize", "--debug", "--vis", "--save_video", "--gpus"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give one of --indir, --list, --image, --video and --webcam; none was given"),
        (["--image", "a.png", "--video", "b.mp4"], "not both --image and --video"),
        (["--indir", "in", "--format", "openn"], "unknown format 'openn'; did you mean open"),
        (["--indir", "in", "--cfg", "configs/coco/resnet/256x192_res51_lr1e-3_1x.yaml"], "unknown model"),
        (["--indir", "in", "--checkpoint", "gone.pth"], "unknown model 'gone.pth'"),
        (["--indir", "in", "--checkpoint", "mine.pth"], "is no checkpoint of AlphaPose's zoo by its name"),
        (["--indir", "in", "--detector", "tracker"], "give --pose_track"),
        (["--indir", "in", "--detector", "yolox-x"], "--detector yolox-x.onnx"),
        (["--indir", "in", "--detfile", "gone.json"], "no such boxes file: gone.json"),
        (["--list", "gone.txt"], "cannot read gone.txt: No such file"),
        (["--video", "gone.mp4"], "no such file: gone.mp4"),
    ],
)
def test_mistakes(run: Any, pictures: list[str], tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "mine.pth").write_bytes(b"")
    ran = run(*arguments)
    assert ran.code == 2 and ran.out == ""
    assert ran.err.startswith("error: ") and len(ran.err.splitlines()) == 1 and message in ran.err


def test_the_checkpoint_tells_models_of_one_config_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = "configs/halpe_136/resnet/256x192_res50_lr1e-3_2x-dcn-combined.yaml"
    with pytest.raises(PosezooError, match="could be fastpose_resnet50_dcn_wide"):
        _model(config, None)
    name = "fastpose_resnet50_dcn_wide.alphapose_halpe136_256x192_multidomain_combined"
    file = Path("pretrained_models/multi_domain_fast50_dcn_combined_256x192.pth")
    assert _model(config, str(file)) == (name, None)  # the zoo's own weights
    file.parent.mkdir()
    file.write_bytes(b"")
    assert _model(config, str(file)) == (name, str(file))
    mine = Path("mine.pth")
    mine.write_bytes(b"")
    single = "configs/coco/resnet/256x192_res50_lr1e-3_1x.yaml"
    assert _model(single, "mine.pth") == (get_entry(single).name, "mine.pth")
    assert _model(None, None) == ("embedded", None)


def test_a_checkpoint_that_lies_here_is_known_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = "fast_res50_256x192.pth"
    (tmp_path / file).write_bytes(b"")
    assert _model(None, file) == ("fastpose_resnet50.alphapose_coco_256x192", file)


def test_drawing_boxes_shows(run: Any, pictures: list[str], tmp_path: Path) -> None:
    for flags, folder in ((["--showbox"], "a"), ([], "b")):
        run(*pictures, "--image", "in/p1.png", "--detfile", "boxes.json", "--outdir", folder, "--save_img", *flags)
    a, b = (read_image(tmp_path / folder / "vis" / "p1.jpg").astype(int) for folder in "ab")
    assert np.abs(a - b)[60:70, 60:70].max() > 40

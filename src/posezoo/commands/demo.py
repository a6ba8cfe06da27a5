"""`posezoo demo`: the flags of AlphaPose's demo, with the meaning that they have there, on the loop of `predict`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from posezoo.errors import PosezooError, UnknownNameError
from posezoo.terminal import guard

if TYPE_CHECKING:
    from posezoo.detect import Detector
    from posezoo.estimator import Estimator

RESULTS = "alphapose-results.json"
VIS = "vis"
EACH = "sep-json"
_FORMATS = {None: ("alphapose", RESULTS), "coco": ("alphapose", RESULTS), "cmu": ("cmu", EACH)}
_FORMATS |= {"open": ("openpose", EACH), "openpose": ("openpose", EACH)}
_YOLO_SCORE, _YOLO_NMS = 0.05, 0.6  # AlphaPose's for YOLOv3

_IN, _OUT, _HOW, _OLD = "What is looked at", "What is written", "How", "Without effect here"


@guard
def demo_command(
    cfg: Annotated[str | None, typer.Option(help="AlphaPose's config path: names the model.")] = None,
    checkpoint: Annotated[
        str | None, typer.Option(help="Its weights; a file name of AlphaPose's zoo names the model too.")
    ] = None,
    indir: Annotated[str, typer.Option(help="A folder of pictures.", rich_help_panel=_IN)] = "",
    list_file: Annotated[
        str, typer.Option("--list", help="A text file of pictures (of --indir).", rich_help_panel=_IN)
    ] = "",
    image: Annotated[str, typer.Option(help="One picture.", rich_help_panel=_IN)] = "",
    video: Annotated[str, typer.Option(help="A video.", rich_help_panel=_IN)] = "",
    webcam: Annotated[int, typer.Option(help="A camera's number; -1: none.", rich_help_panel=_IN)] = -1,
    detector: Annotated[
        str,
        typer.Option(help="embedded, yolo (YOLOv3-SPP), or as of `posezoo predict`.", rich_help_panel=_HOW),
    ] = "embedded",
    detfile: Annotated[str, typer.Option(help="Detections as JSON, instead.", rich_help_panel=_HOW)] = "",
    flip: Annotated[bool, typer.Option("--flip", help="Average with the mirrored picture.", rich_help_panel=_HOW)] = (
        False
    ),
    min_box_area: Annotated[
        float,
        typer.Option("--min_box_area", "--min-box-area", help="Leave out smaller boxes.", rich_help_panel=_HOW),
    ] = 0,
    detbatch: Annotated[int | None, typer.Option(help="Pictures a detector call.", rich_help_panel=_HOW)] = None,
    posebatch: Annotated[int | None, typer.Option(help="People a network call.", rich_help_panel=_HOW)] = None,
    gpus: Annotated[str, typer.Option(help="-1: the CPU; else the GPU, where there is one.", rich_help_panel=_HOW)] = (
        "0"
    ),
    pose_track: Annotated[
        bool, typer.Option("--pose_track", "--pose-track", help="Give people ids.", rich_help_panel=_HOW)
    ] = False,
    pose_flow: Annotated[
        bool,
        typer.Option("--pose_flow", "--pose-flow", help="Give them by optical flow.", rich_help_panel=_HOW),
    ] = False,
    outdir: Annotated[Path, typer.Option(help="The folder to write to.", rich_help_panel=_OUT)] = Path("examples/res"),
    format: Annotated[
        str | None,
        typer.Option(help=f"cmu or open: a file an image in {EACH}; default: {RESULTS}.", rich_help_panel=_OUT),
    ] = None,
    for_eval: Annotated[
        bool, typer.Option("--eval", help="Number pictures as COCO's evaluation does.", rich_help_panel=_OUT)
    ] = False,
    save_img: Annotated[
        bool, typer.Option("--save_img", "--save-img", help=f"Annotated pictures in {VIS}.", rich_help_panel=_OUT)
    ] = False,
    save_video: Annotated[
        bool, typer.Option("--save_video", "--save-video", help="The annotated video.", rich_help_panel=_OUT)
    ] = False,
    showbox: Annotated[bool, typer.Option("--showbox", help="Draw boxes.", rich_help_panel=_OUT)] = False,
    vis_fast: Annotated[
        bool, typer.Option("--vis_fast", "--vis-fast", help="Draw more simply.", rich_help_panel=_OUT)
    ] = False,
    profile: Annotated[bool, typer.Option("--profile", help="Print what each stage takes.")] = False,
    vis: Annotated[bool, typer.Option("--vis", help="There is no window.", rich_help_panel=_OLD)] = False,
    sp: Annotated[bool, typer.Option("--sp", help="It always is one process.", rich_help_panel=_OLD)] = False,
    qsize: Annotated[int | None, typer.Option(help="Queues are bounded.", rich_help_panel=_OLD)] = None,
    debug: Annotated[bool, typer.Option("--debug", help="See POSEZOO_DEBUG=1.", rich_help_panel=_OLD)] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Run as AlphaPose's demo does: its flags, its output.

    Without --cfg and --checkpoint the model that comes with posezoo is used. `posezoo predict` does the same and more.

    Example:  posezoo demo --indir examples --save_img
    """
    from posezoo.commands.run_predict import quiet_opencv, run_request

    quiet_opencv()
    from posezoo.predict import Look, Request

    several = gpus.replace(" ", "").count(",") > 0
    notes = {
        "--vis": vis and "there is no window; --save_img and --save_video write what it would show",
        "--sp": sp and "it always is one process",
        "--qsize": qsize is not None and "queues are bounded by themselves",
        "--debug": debug and "errors are told in full with POSEZOO_DEBUG=1",
        "--gpus": several and "one GPU is used; `posezoo batch` uses all",
        "--save_video": save_video and not video and webcam < 0 and "pictures make no video; --save_img writes them",
    }
    for flag, why in notes.items():
        if why:
            typer.echo(f"note: {flag} has no effect: {why}", err=True)
    kind, results = _format(format, for_eval)
    request = Request(
        _sources(indir, list_file, image, video, webcam),
        outdir,
        kind,
        save_img,
        min_box_area=min_box_area,
        results=results,
        ending=".json",
        track="flow" if pose_flow else "boxes" if pose_track else None,
        look=Look(boxes=showbox, theme="fast" if vis_fast else "default"),
        videos=save_video,
        frame_pictures=save_img,
        pictures_folder=VIS,
        video_name="AlphaPose_{}" if webcam < 0 else f"AlphaPose_webcam{webcam}",
        merge_given=True,  # its pose NMS is a step of its own, whoever found the boxes
        profile=profile,
    )

    def open_estimator() -> Estimator:
        from posezoo.estimator import Estimator

        name, weights = _model(cfg, checkpoint)
        device = "cpu" if gpus.strip().startswith("-") else "auto"
        finder = _detector(detector, detfile, device, detbatch)
        return Estimator(name, weights, finder, "auto", device, flip, batch_size=posebatch)

    run_request(request, open_estimator, as_json)


def _format(name: str | None, for_eval: bool) -> tuple[str, str]:
    """Our format, and what its file or folder is called."""
    from posezoo.errors import unknown_name

    if name not in _FORMATS:
        raise unknown_name("format", str(name), ["cmu", "open", "coco"])
    kind, results = _FORMATS[name]
    return ("coco" if for_eval and kind == "alphapose" else kind), results


def _sources(indir: str, list_file: str, image: str, video: str, webcam: int) -> list[str]:
    """What is looked at; pictures of a list, and one picture, may lie in the folder.

    Raises:
        PosezooError: nothing, or more than one thing.
    """
    pictures = [("--list", list_file), ("--image", image)]
    given = [flag for flag, value in [*pictures, ("--video", video)] if value] + ["--webcam"] * (webcam >= 0)
    if not given and indir:
        return [indir]
    if len(given) != 1:
        what = f"not both {' and '.join(given)}" if given else "none was given"
        raise PosezooError(f"give one of --indir, --list, --image, --video and --webcam; {what}")
    if list_file:
        return _listed(Path(list_file), indir)
    if image and indir and not Path(image).exists():
        return [str(Path(indir, image))]
    return [image or video or f"webcam:{webcam}"]


def _listed(path: Path, indir: str) -> list[str]:
    """The pictures of a list: as they are named, or in the folder given, or in that of the list."""
    from posezoo.media.sources import list_entries

    places = [Path(), Path(indir) if indir else path.parent]
    entries = list_entries(path)
    found = (next((place / entry for place in places if (place / entry).exists()), None) for entry in entries)
    return [str(each or places[-1] / entry) for each, entry in zip(found, entries, strict=True)]


def _model(cfg: str | None, checkpoint: str | None) -> tuple[str, str | None]:
    """The zoo's name of a model, and the file of its weights where there is one.

    The name of a checkpoint tells more than that of a config, which several checkpoints may share.

    Raises:
        PosezooError: neither is known.
    """
    from posezoo.deploy.runtimes import is_network_file
    from posezoo.zoo import find_entry, get_entry

    if cfg is None and checkpoint is None:
        return "embedded", None
    weights = checkpoint if checkpoint and Path(checkpoint).is_file() else None
    if weights is not None and cfg is None and is_network_file(weights):
        return weights, None
    for name in (Path(checkpoint).name if checkpoint else None, cfg):
        try:
            if name is not None:
                return (find_entry(name) or get_entry(name)).name, weights  # the file is known, wherever it lies
        except UnknownNameError as err:
            problem = err
    if cfg is None and weights is not None:
        raise PosezooError(f"{checkpoint} is no checkpoint of AlphaPose's zoo by its name: give its config as --cfg")
    raise problem


def _detector(name: str, detfile: str, device: str, batch_size: int | None) -> Detector:
    """AlphaPose's detector of this name.

    Raises:
        PosezooError: it has none here.
    """
    from posezoo.detect import get_detector

    asked: dict[str, Any] = {"device": device, "batch_size": batch_size}
    if detfile:
        return get_detector(detfile, **asked)
    if name == "yolo":
        return get_detector("yolov3-spp", score=_YOLO_SCORE, nms=_YOLO_NMS, **asked)
    if name == "tracker":
        raise PosezooError("the detector tracker is not here: give --pose_track, which follows whomever is detected")
    if name.startswith("yolox") and not Path(name).suffix:
        raise PosezooError(f"posezoo has no weights of {name}: export it to ONNX, and give --detector {name}.onnx")
    return get_detector(name, **asked)

"""`posezoo predict`: pictures and videos in, joints out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from posezoo.errors import PosezooError
from posezoo.terminal import AsBatchSize, AsDevice, AsPrecision, AsRuntime, AsThreads, guard

if TYPE_CHECKING:
    from posezoo.estimator import Estimator

_WHO, _OUT, _VIDEO, _LOOK = "Who is looked for", "What is written", "Videos and sequences", "How people are drawn"


@guard
def predict_command(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE",
            help="Pictures, folders, globs, lists (.txt), videos, cameras (webcam:0), stream addresses, or - (stdin).",
        ),
    ],
    model: Annotated[
        str, typer.Option("-m", "--model", help="A model of the zoo, or a file: .onnx, .xml, .pt2, .safetensors.")
    ] = "embedded",
    weights: Annotated[Path | None, typer.Option(help="A checkpoint to use instead of the model's own.")] = None,
    flip: Annotated[bool, typer.Option("--flip", help="Average with the mirrored picture: slower, better.")] = False,
    runtime: AsRuntime = "auto",
    precision: AsPrecision = "auto",
    device: AsDevice = "auto",
    threads: AsThreads = None,
    batch_size: AsBatchSize = None,
    detector: Annotated[
        str,
        typer.Option(
            help="embedded, yolov3-spp, whole (each image is one person), follow (one person), or a file: .onnx, "
            ".weights, or boxes as .json, .jsonl or .csv.",
            rich_help_panel=_WHO,
        ),
    ] = "embedded",
    boxes: Annotated[
        Path | None, typer.Option(help="A file of person boxes, instead of a detector.", rich_help_panel=_WHO)
    ] = None,
    score: Annotated[
        float | None, typer.Option(help="Leave out boxes below this; default: the detector's.", rich_help_panel=_WHO)
    ] = None,
    nms: Annotated[
        float | None,
        typer.Option(help="Of two boxes that overlap more, keep one; default: the detector's.", rich_help_panel=_WHO),
    ] = None,
    classes: Annotated[
        str, typer.Option(help="What to look for, as COCO calls it, by commas.", rich_help_panel=_WHO)
    ] = "person",
    detector_batch_size: Annotated[
        int | None, typer.Option(help="Images a detector call; default: by device.", rich_help_panel=_WHO)
    ] = None,
    min_score: Annotated[
        float | None,
        typer.Option(
            help="Leave out people whose score is below this; default 0.16, 0 for given boxes.", rich_help_panel=_WHO
        ),
    ] = None,
    max_megapixels: Annotated[
        float | None,
        typer.Option(
            help="Refuse larger pictures; default 100.", envvar="POSEZOO_MAX_MEGAPIXELS", rich_help_panel=_WHO
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The folder to write to.", rich_help_panel=_OUT)
    ] = Path("posezoo-out"),
    format: Annotated[
        str,
        typer.Option(
            help="posezoo (JSON; JSON lines for a video), jsonl, coco, alphapose, openpose, openpose25, cmu, csv or "
            "parquet.",
            rich_help_panel=_OUT,
        ),
    ] = "posezoo",
    per_frame: Annotated[
        bool,
        typer.Option("--per-frame", help="A file an image, where coco and alphapose have one.", rich_help_panel=_OUT),
    ] = False,
    images: Annotated[
        bool,
        typer.Option("--images/--no-images", help="Write annotated pictures and videos too.", rich_help_panel=_OUT),
    ] = True,
    video_format: Annotated[
        str, typer.Option(help="Of annotated videos: mp4, avi or gif.", rich_help_panel=_OUT)
    ] = "mp4",
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with the JSON lines of a video where an earlier run stopped.",
            rich_help_panel=_OUT,
        ),
    ] = False,
    track: Annotated[
        bool,
        typer.Option("--track", help="Give people ids.", rich_help_panel=_VIDEO),
    ] = False,
    flow: Annotated[
        bool, typer.Option("--flow", help="Give them by optical flow; implies --track.", rich_help_panel=_VIDEO)
    ] = False,
    smooth: Annotated[
        bool, typer.Option("--smooth", help="Joints that do not jitter; implies --track.", rich_help_panel=_VIDEO)
    ] = False,
    start: Annotated[
        str | None,
        typer.Option(help="Begin at a time (12.5, 1:02:03) or a frame (120f).", rich_help_panel=_VIDEO),
    ] = None,
    end: Annotated[str | None, typer.Option(help="End before a time or a frame.", rich_help_panel=_VIDEO)] = None,
    every: Annotated[int, typer.Option(help="Take one frame of so many.", rich_help_panel=_VIDEO)] = 1,
    fps: Annotated[
        float | None,
        typer.Option(help="Frames a second, where the source does not say; default 25.", rich_help_panel=_VIDEO),
    ] = None,
    draw_boxes: Annotated[
        bool, typer.Option("--draw-boxes", help="Draw people's boxes.", rich_help_panel=_LOOK)
    ] = False,
    ids: Annotated[
        bool, typer.Option("--ids/--no-ids", help="Draw track ids, where there are any.", rich_help_panel=_LOOK)
    ] = True,
    names: Annotated[bool, typer.Option("--names", help="Name the joints.", rich_help_panel=_LOOK)] = False,
    trails: Annotated[
        bool, typer.Option("--trails", help="Draw where people came from; implies --track.", rich_help_panel=_LOOK)
    ] = False,
    side_by_side: Annotated[
        bool, typer.Option("--side-by-side", help="Show the image as it was beside it.", rich_help_panel=_LOOK)
    ] = False,
    theme: Annotated[
        str, typer.Option(help="default, light, mono, colorblind or fast.", rich_help_panel=_LOOK)
    ] = "default",
    profile: Annotated[
        bool, typer.Option("--profile", help="Print what each stage takes, and the waits between them.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Find people and their joints in pictures and videos.

    Writes a JSON file and an annotated picture for each picture; for each video JSON lines, which grow as its frames
    come, and an annotated video. Ctrl-C ends a camera, and keeps what is done. What cannot be read is listed at the
    end, and the exit code is then 2; the rest is done all the same.

    Example:  posezoo predict photos/ party.jpg clip.mp4 --track -o results
    """
    from posezoo.commands.run_predict import quiet_opencv, run_request

    quiet_opencv()
    from posezoo.predict import Look, Request

    tracker = "flow" if flow else "boxes" if track or smooth or trails else None
    request = Request(
        sources,
        output,
        format,
        images,
        min_score,
        max_megapixels,
        per_frame=per_frame,
        resume=resume,
        start=start,
        end=end,
        every=every,
        track=tracker,
        smooth=smooth,
        fps=fps,
        look=Look(draw_boxes, ids, names, trails, side_by_side, theme),
        video_format=video_format,
        profile=profile,
        asked={
            "--model": model,
            "--weights": None if weights is None else str(weights),
            "--detector": detector if boxes is None else None,
            "--boxes": None if boxes is None else str(boxes),
            "--score": score,
            "--nms": nms,
            "--classes": classes,
            "--flip": flip,
            "--precision": precision,
        },
    )

    def open_estimator() -> Estimator:
        from posezoo.detect import get_detector
        from posezoo.estimator import Estimator

        if boxes is not None and detector != "embedded":
            raise PosezooError("--boxes and --detector exclude each other")
        asked: dict[str, Any] = {"score": score, "nms": nms, "classes": [name.strip() for name in classes.split(",")]}
        where = (runtime, device, threads)
        settings: dict[str, Any] = {"threads": threads, "batch_size": batch_size, "precision": precision}
        estimator = Estimator(model, weights, None, runtime, device, flip, **settings)
        if boxes is not None:
            from posezoo.detect.boxes_file import BoxesFile

            estimator.detector = BoxesFile.read(boxes, **asked)
        else:
            estimator.detector = get_detector(detector, *where, **asked, batch_size=detector_batch_size)
        return estimator

    run_request(request, open_estimator, as_json)

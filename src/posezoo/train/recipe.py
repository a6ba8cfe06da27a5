"""Recipes: short TOML files over these defaults. An unknown key is an error that names the nearest valid one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from posezoo import toml
from posezoo.data.augment import Augment
from posezoo.errors import PosezooError, unknown_name


class Part(BaseModel):
    """A table of a recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelPart(Part):
    """Which network, and what it starts from."""

    arch: str
    weights: Path | None = None  # a file of the same network
    backbone: Path | None = None  # BatchNorm-folded MobileNetV2 arrays (.npz, Keras layer names)
    freeze: int = -1  # leave the backbone's stem and blocks up to this one as they are; -1: train all
    keep_norm: bool = False  # leave the statistics of BatchNorm as they are


class Source(Part):
    """One annotated set of photographs."""

    annotations: Path
    images: Path


class DataPart(Part):
    """What to learn from."""

    root: Path = Path(".")  # where the paths below start
    train: Source
    validate_on: Source | None = Field(None, alias="validate")
    skeleton: str = "coco17"
    second_opinion: bool = False  # reconcile the labels with the file's teacher_keypoints
    repeat: dict[str, Annotated[int, Field(ge=1)]] = {}  # times that people of a `source` (a field of images) count
    least_joints: int = Field(1, ge=0)  # leave out people with fewer labelled joints
    least_side: float = Field(8.0, ge=0)  # ... and boxes with a shorter side, pixels


class InputPart(Part):
    """What the network sees."""

    size_wh: tuple[int, int] = (192, 256)
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    channels: Literal["rgb", "bgr"] = "rgb"
    box_scale: float = Field(1.25, gt=0)


class TargetPart(Part):
    """What the network is asked for."""

    sigma: float = Field(2.0, gt=0)  # of the Gaussians, heatmap pixels
    refine: Literal["none", "quarter", "dark"] = "quarter"  # "dark": exact centres in targets, DARK decoding


class MosaicPart(Part):
    """Detector only: photographs laid out on one canvas."""

    canvas: int = Field(320, multiple_of=32)
    rows: tuple[float, ...] = (0.35, 0.35, 0.2, 0.1)  # probability of 1x1, 2x2, 3x3, 4x4 photographs
    scale: tuple[float, float] = (0.6, 2.4)  # of each photograph against its cell


class OptimiserPart(Part):
    """How the weights move."""

    name: Literal["adamw", "adam"] = "adamw"
    lr: float = Field(1e-3, gt=0)  # for one step of `batch_size` samples
    backbone_lr: float = Field(1.0, gt=0)  # the backbone's share of it
    weight_decay: float = Field(0.01, ge=0)
    clip: float = Field(0.0, ge=0)  # largest norm of the gradient; 0: any
    ema: float = Field(0.999, ge=0, lt=1)  # decay of the averaged weights; 0: none
    batch_size: int = Field(32, ge=1)  # over all devices


class SchedulePart(Part):
    """How long, and how fast when."""

    epochs: int = Field(10, ge=1)
    samples_per_epoch: int | None = Field(None, ge=1)  # draw this many a time; default: all, once
    warmup_steps: int = Field(200, ge=0)
    kind: Literal["cosine", "step"] = "cosine"
    milestones: tuple[float, ...] = (0.7, 0.9)  # "step": shares of the run after which the rate falls
    factor: float = Field(0.1, gt=0, lt=1)  # "step": to this share of it; "cosine": ends at factor^2


class RunPart(Part):
    """Where and with what."""

    folder: Path = Path("runs/unnamed")
    seed: int = 0
    device: Literal["auto", "cpu"] = "auto"
    precision: Literal["no", "bf16", "fp16"] = "no"
    workers: int = Field(1, ge=0)
    threads: int | None = Field(None, ge=1)
    channels_last: bool = True
    log_every: int = Field(20, ge=1)  # steps
    save_every: int = Field(200, ge=1)  # steps


class Recipe(Part):
    """A training run."""

    name: str
    task: Literal["pose", "detect"] = "pose"
    model: ModelPart
    data: DataPart
    input: InputPart = InputPart()
    target: TargetPart = TargetPart()
    mosaic: MosaicPart = MosaicPart()
    augment: Augment = Augment()
    optimiser: OptimiserPart = OptimiserPart()
    schedule: SchedulePart = SchedulePart()
    run: RunPart = RunPart()

    @model_validator(mode="after")
    def _sizes(self) -> Recipe:
        if any(side % 32 or side <= 0 for side in self.input.size_wh):
            raise ValueError(f"input.size_wh must be multiples of 32, not {list(self.input.size_wh)}")
        return self


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe, with `key=value` overrides applied.

    Raises:
        PosezooError: not TOML, an unknown key (the message has the nearest valid one), or a wrong value.
    """
    table = toml.load(path)
    for text in overrides:
        _override(table, text)
    try:
        return Recipe.model_validate(table)
    except ValidationError as err:
        raise PosezooError(f"{path}: {_first_mistake(err)}") from None


def _override(table: dict[str, Any], text: str) -> None:
    """Set one dotted key of `table` from `key=value`."""
    key, sign, value = text.partition("=")
    if not sign or not key.strip():
        raise PosezooError(f"'{text}' is not an override: expected key=value, such as schedule.epochs=3")
    *parents, last = key.strip().split(".")
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise PosezooError(f"override '{text}': '{parent}' is a value, not a table")
    table[last] = toml.value(value.strip())


def _first_mistake(err: ValidationError) -> str:
    mistake = err.errors()[0]
    *parents, last = [str(part) for part in mistake["loc"]] or [""]
    if mistake["type"] != "extra_forbidden":
        return f"{'.'.join([*parents, last])}: {mistake['msg'].removeprefix('Value error, ')}"
    model: Any = Recipe
    for parent in parents:
        model = _table_type(model.model_fields[_field_of(model, parent)].annotation)
    names = [field.alias or name for name, field in model.model_fields.items()]
    where = f" of [{'.'.join(parents)}]" if parents else ""
    return str(unknown_name(f"key{where}", last, names))


def _field_of(model: type[BaseModel], key: str) -> str:
    return next(name for name, field in model.model_fields.items() if key in (name, field.alias))


def _table_type(annotation: Any) -> Any:
    """The model behind `X` or `X | None`."""
    options = getattr(annotation, "__args__", (annotation,))
    return next(o for o in options if isinstance(o, type) and issubclass(o, BaseModel))

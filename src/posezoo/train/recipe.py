"""Recipes: short TOML files over these defaults. An unknown key is an error that names the nearest valid one.

Where they are found, and how a row of a family's file becomes a whole recipe: `posezoo.train.rows`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from posezoo.data.augment import Augment
from posezoo.data.fields import File, NoFile, NoText, at_home, empty_is_none
from posezoo.errors import PosezooError, unknown_name


def _share(value: Any) -> Any:
    """A number, or a text such as "170/210"."""
    if not isinstance(value, str):
        return value
    part, slash, whole = value.partition("/")
    try:
        return float(part) / float(whole) if slash else float(part)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"'{value}' is neither a number nor a share such as \"170/210\"") from None


class Part(BaseModel):
    """A table of a recipe."""

    # a run may be called 5
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, coerce_numbers_to_str=True)


WARMUP = 200  # steps, in runs that are long enough
Positive = Annotated[float, Field(gt=0)]


class ModelPart(Part):
    """Which network, and what it starts from."""

    arch: str
    # a file, or a model of the zoo, whose weights are fetched
    weights: Annotated[str | None, BeforeValidator(at_home), BeforeValidator(empty_is_none)] = None
    transfer: bool = False  # take of `weights` all that fits, but the layer that predicts joints; False: they are whole
    backbone: NoFile = None  # a file under data.root, or where it says: a network that classifies ImageNet
    freeze: int = -1  # leave the backbone's stem and blocks up to this one as they are; -1: train all
    keep_norm: bool = False  # leave the statistics of BatchNorm as they are

    @model_validator(mode="after")
    def _transfers_something(self) -> ModelPart:
        if self.transfer and self.weights is None:
            raise ValueError("transfer is for weights: say whose, or transfer=false")
        return self


class Source(Part):
    """One annotated set of photographs: a split of a known dataset, or any file of COCO's form."""

    dataset: NoText = None  # a name that `posezoo data list` has; None: a COCO-style file of data.skeleton
    split: NoText = None  # of the dataset, found under data.root; not needed where annotations are given
    annotations: NoFile = None
    images: NoFile = None
    share: float = Field(1.0, gt=0)  # times that each of its people is drawn an epoch, against the other sources
    domain: str = ""  # what `distill.teachers` call it

    @model_validator(mode="after")
    def _is_somewhere(self) -> Source:
        if self.dataset is None and (self.annotations is None or self.images is None):
            raise ValueError("a source needs a dataset, or annotations and images")
        return self


class DataPart(Part):
    """What to learn from."""

    root: File = Path(".")  # where the paths below start
    train: tuple[Source, ...]  # one table, or several whose joints are brought together by name
    validate_on: Annotated[Source | None, BeforeValidator(empty_is_none)] = Field(None, alias="validate")
    skeleton: str = "coco17"  # what the network predicts
    max_missing: float = Field(0.01, ge=0, le=1)  # share of a source's pictures that may be absent
    second_opinion: bool = False  # reconcile the labels with the file's teacher_keypoints
    repeat: dict[str, Annotated[int, Field(ge=1)]] = {}  # times that people of a `source` (a field of images) count
    # leave out people with fewer labelled joints; 0 where nothing is learnt from labels and the recipe does not say
    least_joints: int = Field(1, ge=0)
    least_side: float = Field(8.0, ge=0)  # ... and boxes with a shorter side, pixels

    @field_validator("train", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        if not value:
            raise ValueError("nothing to learn from: name a dataset and its split, or annotations and images")
        return (value,) if isinstance(value, dict) else value


class InputPart(Part):
    """What the network sees."""

    size_wh: tuple[int, int] = (192, 256)
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[Positive, Positive, Positive] = (0.229, 0.224, 0.225)
    channels: Literal["rgb", "bgr"] = "rgb"
    box_scale: float = Field(1.25, gt=0)


class TargetPart(Part):
    """What the network is asked for, and what a miss costs."""

    codec: str = "heatmap"  # "heatmap", "integral-softmax", "integral-sigmoid", "combined-26" or "combined-23"
    sigma: float = Field(2.0, gt=0)  # of the Gaussians, heatmap pixels
    # "dark": exact centres in targets, DARK decoding; "dark-udp": that on UDP's grid, crops too
    refine: Literal["none", "quarter", "dark", "dark-udp"] = "quarter"
    loss: Literal["mse", "ohkm"] = "mse"  # of heatmaps; "ohkm": only the worst joints of each person (CPN)
    hardest: int = Field(8, ge=1)  # "ohkm": how many
    integral_weight: float = Field(1.0, gt=0)  # of the integral half of a combined codec
    joint_weights: bool = False  # some joints count more, as the skeleton has it; no zoo trained so
    part_weights: dict[str, Annotated[float, Field(ge=0)]] = {}  # by part of the skeleton, such as left_hand = 10

    @model_validator(mode="after")
    def _udp_is_for_heatmaps(self) -> TargetPart:
        if self.refine == "dark-udp" and self.codec != "heatmap":
            raise ValueError('refine = "dark-udp" is for codec = "heatmap"')
        return self

    @property
    def codec_name(self) -> str:
        """The codec and its refinement in one, a name of `posezoo.codecs`."""
        return self.codec if self.codec != "heatmap" or self.refine == "none" else f"heatmap-{self.refine}"


class Teacher(Part):
    """A trained network that a smaller one learns from."""

    model: str  # a name of the zoo
    weights: NoFile = None  # instead of the model's own
    domains: tuple[str, ...] = ()  # the sources it teaches; none: all
    share: float = Field(1.0, gt=0)  # among the teachers of a domain


class DistillPart(Part):
    """Learning from teachers beside the labels."""

    teachers: tuple[Teacher, ...] = ()
    heatmap: float = Field(0.0, ge=0)  # weight of the distance to the teacher's heatmaps
    coordinate: float = Field(0.0, ge=0)  # weight of the distance to the teacher's joints
    label: float = Field(1.0, ge=0)  # weight of the labels' own loss

    @model_validator(mode="after")
    def _is_whole(self) -> DistillPart:
        if self.teachers and not (self.heatmap or self.coordinate):
            raise ValueError(
                "teachers without a weight teach nothing: set distill.heatmap (such as 4, for their heatmaps) or "
                "distill.coordinate (such as 1, for their joints), or take them out with distill.teachers=[]"
            )
        weights = {"heatmap": (self.heatmap, 0), "coordinate": (self.coordinate, 0), "label": (self.label, 1)}
        for name, (value, usual) in weights.items():
            if value != usual and not self.teachers:
                raise ValueError(
                    f"{name} is {value:g}, and there are no teachers for it: name them in distill.teachers, such as "
                    f'[{{ model = "embedded" }}], or leave distill.{name} at {usual}'
                )
        return self


class MosaicPart(Part):
    """Detector only: photographs laid out on one canvas."""

    canvas: int = Field(320, multiple_of=32, gt=0)
    # probability of 1x1, 2x2, 3x3, 4x4 photographs
    rows: tuple[Annotated[float, Field(ge=0)], ...] = Field((0.35, 0.35, 0.2, 0.1), min_length=1)
    scale: tuple[Positive, Annotated[float, Field(le=10)]] = (0.6, 2.4)  # of each photograph against its cell

    @model_validator(mode="after")
    def _can_be_drawn(self) -> MosaicPart:
        if not sum(self.rows):
            raise ValueError(f"rows: one of them must be above 0, not {list(self.rows)}")
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"scale: the smaller comes first, not {list(self.scale)}")
        return self


class OptimiserPart(Part):
    """How the weights move."""

    name: Literal["adamw", "adam", "sgd", "rmsprop"] = "adamw"
    momentum: float = Field(0.9, ge=0, lt=1)  # sgd and rmsprop
    lr: float = Field(1e-3, gt=0)  # for one step of `lr_batch_size` samples; scaled with the batch in proportion
    lr_batch_size: int | None = Field(None, ge=1)  # default: `batch_size`, so that its steps have `lr`
    backbone_lr: float = Field(1.0, gt=0)  # the backbone's share of it
    weight_decay: float = Field(0.01, ge=0)
    clip: float = Field(0.0, ge=0)  # largest norm of the gradient; 0: any
    ema: float = Field(0.999, ge=0, lt=1)  # decay of the averaged weights; 0: none
    batch_size: int = Field(32, ge=1)  # samples a step, over all devices and passes
    device_batch_size: int | None = Field(None, ge=1)  # of them on each device, as published; a hint for `accumulate`
    accumulate: int = Field(1, ge=1)  # forward passes a step, each over its share of the batch

    @property
    def rate(self) -> float:
        """The learning rate for steps of `batch_size` samples: `lr`, scaled with the batch in proportion."""
        return self.rate_for(self.batch_size)

    def rate_for(self, samples: int) -> float:
        """The learning rate for steps of so many samples, which are fewer than `batch_size` where the data are."""
        return self.lr * samples / (self.lr_batch_size or self.batch_size)


class SchedulePart(Part):
    """How long, and how fast when."""

    epochs: int = Field(10, ge=1)
    samples_per_epoch: int | None = Field(None, ge=1)  # draw this many a time; default: all, once
    warmup_steps: int | None = Field(None, ge=0)  # default: 200, but no more than a tenth of the run
    kind: Literal["cosine", "step"] = "cosine"
    # "step": after which shares of the run the rate falls; "170/210": after epoch 170 of 210
    milestones: tuple[Annotated[float, BeforeValidator(_share), Field(gt=0, le=1)], ...] = (0.7, 0.9)
    factor: float = Field(0.1, gt=0, lt=1)  # "step": to this share of it; "cosine": ends at factor^2

    def warmup(self, total: int | None) -> int:
        """Steps that the rate rises for in a run of `total`; None: of one that is long enough."""
        if self.warmup_steps is not None:
            return self.warmup_steps
        return WARMUP if total is None else min(WARMUP, total // 10)


class ExpectPart(Part):
    """What the source of a recipe says of its own run; nothing here changes a run."""

    start: str = ""  # what its network began from
    gpu_hours: float | None = Field(None, gt=0)
    by: str = ""  # who says so, and of which GPUs


class RunPart(Part):
    """Where and with what."""

    folder: File = Path("runs/unnamed")
    seed: int = Field(0, ge=0)
    device: Literal["auto", "cpu"] = "auto"
    precision: Literal["no", "bf16", "fp16"] = "no"
    workers: int = Field(1, ge=0)
    threads: int | None = Field(None, ge=1)
    channels_last: bool = True
    sync_batchnorm: bool = False  # BatchNorm's statistics from all devices of a step
    compile: bool = False  # torch.compile
    keep_best: int = Field(1, ge=1)  # weights of so many best epochs
    log_every: int = Field(20, ge=1)  # steps
    save_every: int = Field(200, ge=1)  # steps


class Recipe(Part):
    """A training run."""

    name: str
    entry: str | None = None  # the model of the zoo that it makes
    task: Literal["pose", "detect"] = "pose"
    model: ModelPart
    data: DataPart
    input: InputPart = InputPart()
    target: TargetPart = TargetPart()
    distill: DistillPart = DistillPart()
    mosaic: MosaicPart = MosaicPart()
    augment: Augment = Augment()
    optimiser: OptimiserPart = OptimiserPart()
    schedule: SchedulePart = SchedulePart()
    run: RunPart = RunPart()
    expect: ExpectPart = ExpectPart()

    @model_validator(mode="after")
    def _sizes(self) -> Recipe:
        if any(side % 32 or side <= 0 for side in self.input.size_wh):
            raise ValueError(f"input.size_wh must be multiples of 32, not {list(self.input.size_wh)}")
        return self

    @model_validator(mode="after")
    def _labels_are_needed_to_learn_from_them(self) -> Recipe:
        if not self.distill.label and "least_joints" not in self.data.model_fields_set:
            # whoever has no label would be left out, and there is nobody else to learn from
            object.__setattr__(self, "data", self.data.model_copy(update={"least_joints": 0}))
        return self


def load_recipe(name: str | PathLike[str], overrides: Sequence[str] = ()) -> Recipe:
    """A recipe by any name that `posezoo train` takes, with `key=value` overrides applied.

    Raises:
        PosezooError: there is none of this name; or it is not TOML, has an unknown key (the message has the nearest
            valid one), a wrong value, or parts that do not fit each other.
    """
    from posezoo.train.rows import resolve

    return resolve(name, overrides).recipe


def parse(table: Mapping[str, Any], where: str) -> Recipe:
    """A recipe from its table; `where` it comes from stands in errors.

    Raises:
        PosezooError: an unknown key (the message has the nearest valid one), or a wrong value.
    """
    try:
        return Recipe.model_validate(table)
    except ValidationError as err:
        raise PosezooError(f"{where}: {_first_mistake(err)}") from None


def _first_mistake(err: ValidationError) -> str:
    mistake = err.errors()[0]
    *parents, last = [str(part) for part in mistake["loc"]] or [""]
    if mistake["type"] != "extra_forbidden":
        path = ".".join(part for part in (*parents, last) if part)
        return f"{path}: {mistake['msg'].removeprefix('Value error, ')}".removeprefix(": ")
    model: Any = Recipe
    for parent in parents:
        if not parent.isdigit():  # which of several sources
            model = _table_type(model.model_fields[_field_of(model, parent)].annotation)
    names = [field.alias or name for name, field in model.model_fields.items()]
    where = f" of [{'.'.join(parents)}]" if parents else ""
    return str(unknown_name(f"key{where}", last, names))


def takes_text(key: Sequence[str]) -> bool:
    """Whether the value at this path of a recipe is a text or a file's name: 2024-01-05 and 5.10 are what they say."""
    model: Any = Recipe
    for number, part in enumerate(key, 1):
        field = next((f for name, f in model.model_fields.items() if part in (name, f.alias)), None)
        if field is None:
            return False
        if number == len(key):
            return bool({str, Path}.intersection(_types(field.annotation)))
        model = _table_type(field.annotation)
        if model is None:
            return False
    return False


def _types(annotation: Any) -> tuple[Any, ...]:
    """The types of `X`, `X | None`, `tuple[X, ...]` or any of them annotated; a dictionary and its like are one."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _types(inner[0])
    if origin in (Union, UnionType, tuple):
        return tuple(found for one in inner for found in _types(one))
    return (annotation,)


def _field_of(model: type[BaseModel], key: str) -> str:
    return next(name for name, field in model.model_fields.items() if key in (name, field.alias))


def _table_type(annotation: Any) -> Any:
    """The model behind `X`, `X | None` or `tuple[X, ...]`."""
    return next((one for one in _types(annotation) if isinstance(one, type) and issubclass(one, BaseModel)), None)

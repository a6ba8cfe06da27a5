"""Darknet networks, laid out by the sections of a `.cfg` text, and the YOLOv3 detectors (arXiv 1804.02767)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from posezoo.errors import PosezooError, unknown_name
from posezoo.models.layers import ConvNorm, initialise

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "leaky": lambda: nn.LeakyReLU(0.1, inplace=True),
    "relu": lambda: nn.ReLU(inplace=True),
    "linear": nn.Identity,
}
_GREATEST = 2**31 - 1  # darknet's own int
_LARGEST = 1 << 25  # weights of a layer, far above any published one: a wrong number is to cost an error, not memory


@dataclass(frozen=True)
class Section:
    """One layer of a cfg text: its kind and its options, still as text.

    Attributes:
        kind: such as "convolutional".
        options: such as {"filters": "32"}.
    """

    kind: str
    options: Mapping[str, str] = field(default_factory=dict)

    def integers(self, option: str, default: str | None = None) -> list[int]:
        """An option's numbers, which commas divide.

        Raises:
            PosezooError: the option is missing and has no default, or is no list of whole numbers.
        """
        text = self.options.get(option, default)
        if text is None:
            raise PosezooError(f"darknet [{self.kind}] needs '{option}'")
        try:
            numbers = [int(number) for number in text.split(",")]
        except ValueError:
            numbers = []
        if not numbers or not all(abs(number) <= _GREATEST for number in numbers):
            raise PosezooError(f"darknet [{self.kind}]: {option} must be whole numbers, not '{text[:60]}'")
        return numbers

    def integer(self, option: str, default: str | None = None) -> int:
        """An option that is one whole number."""
        first, *more = self.integers(option, default)
        if more:
            raise PosezooError(f"darknet [{self.kind}]: {option} must be one number, not '{self.options[option]}'")
        return first


def parse_cfg(text: str) -> list[Section]:
    """The sections of a darknet cfg text, "[net]" included where it has one.

    Args:
        text: lines "[kind]" and "option=value"; what follows "#" or ";" is a remark.

    Raises:
        PosezooError: a line is neither, or an option stands before the first section.
    """
    sections: list[tuple[str, dict[str, str]]] = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.partition("#")[0].partition(";")[0].strip()
        option, equals, value = line.partition("=")
        if line.startswith("[") and line.endswith("]"):
            sections.append((line[1:-1].strip(), {}))
        elif equals and sections:
            sections[-1][1][option.strip()] = value.strip()
        elif line:
            raise PosezooError(f"darknet cfg, line {number}: expected [section] or option=value, not '{line[:60]}'")
    return [Section(kind, options) for kind, options in sections]


class Route(nn.Module):
    """The outputs of earlier layers, one after the other in channels.

    Args:
        sources: their indices.
    """

    def __init__(self, sources: Sequence[int]) -> None:
        super().__init__()
        self.sources = tuple(sources)

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """[(B, C1, H, W), ...] to (B, C1 + ..., H, W)."""
        return torch.cat(inputs, 1) if len(inputs) > 1 else inputs[0]


class Shortcut(Route):
    """The sum of two earlier layers' outputs."""

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """[(B, C, H, W), (B, C, H, W)] to (B, C, H, W)."""
        return inputs[0] + inputs[1]


class SamePool(nn.Module):
    """Maximum over a square window at every place.

    The border is filled with zeros, as AlphaPose's detector does: where all that a window sees is negative, it gives 0.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        before = (self.size - 1) // 2
        after = self.size - 1 - before
        return functional.max_pool2d(functional.pad(x, (before, after, before, after)), self.size, 1)


class Yolo(nn.Module):
    """A map of box predictions to boxes (arXiv 1804.02767, section 2.1).

    Args:
        anchors: the widths and heights, in pixels, that this map's boxes start from.
        classes: how many kinds of things it tells apart.
        stride: pixels of the input for each cell of the map.
    """

    anchors: Tensor

    def __init__(self, anchors: Sequence[Sequence[int]], classes: int, stride: int) -> None:
        super().__init__()
        self.register_buffer("anchors", torch.tensor(anchors, dtype=torch.float32), persistent=False)
        self.classes = classes
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """(B, A (5 + classes), h, w) to (B, h w A, 5 + classes): centre x, y, width, height, objectness, classes."""
        batch, _, height, width = x.shape
        x = x.view(batch, len(self.anchors), 5 + self.classes, height, width).permute(0, 3, 4, 1, 2)
        columns = torch.arange(width, device=x.device, dtype=x.dtype).view(1, 1, width, 1)
        rows = torch.arange(height, device=x.device, dtype=x.dtype).view(1, height, 1, 1)
        scores = x.sigmoid()
        centre_x = (scores[..., 0] + columns) * self.stride
        centre_y = (scores[..., 1] + rows) * self.stride
        size = x[..., 2:4].exp() * self.anchors
        boxes = torch.cat([torch.stack([centre_x, centre_y], -1), size, scores[..., 4:]], -1)
        return boxes.reshape(batch, height * width * len(self.anchors), 5 + self.classes)


@dataclass(frozen=True)
class _Made:
    """What the sections before have made, for each: channels, and pixels of the input for each cell."""

    channels: list[int]
    strides: list[int]

    def index(self, section: Section, offset: int) -> int:
        """An absolute index, from one that counts back from here where it is negative."""
        here = len(self.channels)
        index = offset + here if offset < 0 else offset
        if not 0 <= index < here:
            raise PosezooError(f"darknet [{section.kind}], layer {here}: no layer {offset} before it")
        return index


_Layer = tuple[nn.Module, int, int]  # with its channels and its stride in pixels of the input


def _convolutional(section: Section, made: _Made, inputs: int, stride: int) -> _Layer:
    filters, size, step = section.integer("filters"), section.integer("size"), section.integer("stride", "1")
    name = section.options.get("activation", "logistic")
    if name not in ACTIVATIONS:
        raise unknown_name("darknet activation", name, ACTIVATIONS)
    if min(filters, size, step) < 1 or size % 2 == 0 or (size > 1 and section.integer("pad", "0") != 1):
        raise PosezooError("darknet [convolutional]: filters, size and stride are positive, size is odd, pad=1")
    if inputs * filters * size**2 > _LARGEST:
        raise PosezooError(
            f"darknet [convolutional]: {filters} filters of {size}x{size} over {inputs} channels is too large"
        )
    if section.integer("batch_normalize", "0"):
        return ConvNorm(inputs, filters, size, step, act=ACTIVATIONS[name]()), filters, stride * step
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["conv"] = nn.Conv2d(inputs, filters, size, step, size // 2)
    layers["act"] = ACTIVATIONS[name]()
    return nn.Sequential(layers), filters, stride * step


def _route(section: Section, made: _Made, inputs: int, stride: int) -> _Layer:
    sources = [made.index(section, offset) for offset in section.integers("layers")]
    return Route(sources), sum(made.channels[i] for i in sources), made.strides[sources[0]]


def _shortcut(section: Section, made: _Made, inputs: int, stride: int) -> _Layer:
    if section.options.get("activation", "linear") != "linear":
        raise PosezooError("darknet [shortcut]: only activation=linear is known")
    source = made.index(section, section.integer("from"))
    if made.channels[source] != inputs:
        raise PosezooError(f"darknet [shortcut] adds {made.channels[source]} channels to {inputs}")
    return Shortcut([len(made.channels) - 1, source]), inputs, stride


def _maxpool(section: Section, made: _Made, inputs: int, stride: int) -> _Layer:
    step = section.integer("stride", "1")
    size = section.integer("size", str(step))
    if step == 1 and size > 0:
        return SamePool(size), inputs, stride
    if step != size or step < 1:
        raise PosezooError(f"darknet [maxpool]: stride is 1 or the size, not {step} with size {size}")
    return nn.MaxPool2d(size, step), inputs, stride * step


def _upsample(section: Section, made: _Made, inputs: int, stride: int) -> _Layer:
    factor = section.integer("stride", "2")
    if factor < 1 or stride % factor:
        raise PosezooError(f"darknet [upsample]: stride {factor} cannot enlarge a map of stride {stride}")
    return nn.Upsample(scale_factor=factor, mode="nearest"), inputs, stride // factor


def _yolo(section: Section, made: _Made, inputs: int, stride: int) -> _Layer:
    numbers, classes = section.integers("anchors"), section.integer("classes")
    anchors = list(zip(numbers[::2], numbers[1::2], strict=False))
    mask = section.integers("mask", ",".join(map(str, range(len(anchors)))))
    if not all(0 <= i < len(anchors) for i in mask):
        raise PosezooError(f"darknet [yolo]: mask {mask} chooses from {len(anchors)} anchors")
    if inputs != len(mask) * (5 + classes):
        raise PosezooError(
            f"darknet [yolo] of {classes} classes needs {len(mask) * (5 + classes)} filters, not {inputs}"
        )
    return Yolo([anchors[i] for i in mask], classes, stride), inputs, stride


_KINDS: dict[str, Callable[[Section, _Made, int, int], _Layer]] = {
    "convolutional": _convolutional,
    "route": _route,
    "shortcut": _shortcut,
    "maxpool": _maxpool,
    "upsample": _upsample,
    "yolo": _yolo,
}


# the options that are read above, and those that change nothing of what a trained network computes
_READ: dict[str, str] = {
    "convolutional": "filters size stride pad activation batch_normalize",
    "route": "layers",
    "shortcut": "from activation",
    "maxpool": "stride size",
    "upsample": "stride",
    "yolo": "anchors classes mask",
}
_HARMLESS: dict[str, str] = {
    "yolo": "num jitter ignore_thresh truth_thresh random resize max map iou_thresh iou_thresh_kind iou_loss "
    "iou_normalizer cls_normalizer obj_normalizer uc_normalizer delta_normalizer max_delta counters_per_class "
    "label_smooth_eps focal_loss objectness_smooth show_details nms_kind beta_nms",
}
_ALWAYS_HARMLESS = "stopbackward learning_rate burnin_update train_only_bn onlyforward"
# the values of other options that change nothing; of those that are not here, 0
_NEUTRAL = {"groups": "1", "dilation": "1", "scale_x_y": "1", "scale": "1", "alpha": "1", "beta": "1"}
_NEUTRAL |= {"out_channels": "1", "weights_type": "none", "weights_normalization": "none"}


def _check_options(section: Section) -> None:
    """See that a section asks for nothing that would be left out of its layer.

    Raises:
        PosezooError: it does; the message names the option.
    """
    plain = f"{_READ[section.kind]} {_HARMLESS.get(section.kind, '')} {_ALWAYS_HARMLESS}".split()
    step = section.options.get("stride", "1")
    neutral = {**_NEUTRAL, "stride_x": step, "stride_y": step}
    if section.kind == "maxpool":
        neutral["padding"] = str(section.integer("size", step) - 1)
    elif section.options.get("pad") == "1":
        plain.append("padding")  # darknet sets it by the size then
    for option, value in section.options.items():
        wanted = neutral.get(option, "0")
        if option not in plain and not _are_same(value, wanted):
            raise PosezooError(f"darknet [{section.kind}]: only {option}={wanted} is known, not '{value[:60]}'")


def _are_same(one: str, other: str) -> bool:
    """Whether two options are one number or one text."""
    try:
        return float(one) == float(other)
    except ValueError:
        return one == other


class Darknet(nn.Module):
    """A network of darknet sections; those of index i have their weights under "layers.i".

    Args:
        sections: as `parse_cfg` gives them; of a "[net]" at their head only "channels" counts.

    Raises:
        PosezooError: a kind of section is unknown, an option is missing, wrong or unknown, or there is no "[yolo]".
    """

    def __init__(self, sections: Sequence[Section]) -> None:
        super().__init__()
        channels, stride, sections = 3, 1, list(sections)
        if sections and sections[0].kind in ("net", "network"):
            channels = sections.pop(0).integer("channels", "3")
        if channels < 1:
            raise PosezooError(f"darknet [net]: channels must be positive, not {channels}")
        made = _Made([], [])
        layers: list[nn.Module] = []
        for section in sections:
            if section.kind not in _KINDS:
                raise unknown_name("darknet section", section.kind, _KINDS)
            _check_options(section)
            layer, channels, stride = _KINDS[section.kind](section, made, channels, stride)
            layers.append(layer)
            made.channels.append(channels)
            made.strides.append(stride)
        self.layers = nn.ModuleList(layers)
        self.yolos = [layer for layer in layers if isinstance(layer, Yolo)]
        if not self.yolos:
            raise PosezooError("a darknet network without [yolo] finds nothing")
        # when a layer's output is last wanted: after that its memory is free
        self._last_use = {i: n for n, layer in enumerate(layers) if isinstance(layer, Route) for i in layer.sources}
        initialise(self)

    def raw(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W), RGB in [0, 1], to each yolo layer's input (B, A (5 + classes), h, w), in their order."""
        maps: list[Tensor] = []
        kept: dict[int, Tensor] = {}
        for index, layer in enumerate(self.layers):
            if isinstance(layer, Yolo):
                maps.append(x)
            else:
                x = layer([kept[i] for i in layer.sources] if isinstance(layer, Route) else x)
            if index in self._last_use:
                kept[index] = x
            for done in [i for i in kept if self._last_use[i] == index]:
                del kept[done]
        return maps

    def decode(self, maps: Sequence[Tensor]) -> Tensor:
        """What `raw` gives to (B, boxes, 5 + classes), in pixels of the input; the maps one after the other."""
        return torch.cat([yolo(each) for yolo, each in zip(self.yolos, maps, strict=True)], 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, boxes, 5 + classes).

        Args:
            x: RGB in [0, 1]; H and W are multiples of 32.

        Returns:
            Of each box: centre x, centre y, width and height in pixels of the input; then, in [0, 1], whether there is
            anything, and for each class whether it is of that class.
        """
        return self.decode(self.raw(x))


_COCO_ANCHORS = "10,13, 16,30, 33,23, 30,61, 62,45, 59,119, 116,90, 156,198, 373,326"


def _conv(filters: int, size: int, stride: int = 1) -> Section:
    options = {"batch_normalize": 1, "filters": filters, "size": size, "stride": stride, "pad": 1}
    return Section("convolutional", {**{k: str(v) for k, v in options.items()}, "activation": "leaky"})


def _darknet53() -> list[Section]:
    """The backbone (section 2.4, table 1): five stages of residual blocks, each of which halves the map."""
    sections = [_conv(32, 3)]
    for width, blocks in ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4)):
        block = [_conv(width // 2, 1), _conv(width, 3), Section("shortcut", {"from": "-3", "activation": "linear"})]
        sections += [_conv(width, 3, 2), *block * blocks]
    return sections


def _pyramid_pool() -> list[Section]:
    """Spatial pyramid pooling (arXiv 1406.4729): one map and its maxima over three sizes of window."""
    pools = [Section("maxpool", {"size": size, "stride": "1"}) for size in ("5", "9", "13")]
    back_2, back_4 = Section("route", {"layers": "-2"}), Section("route", {"layers": "-4"})
    return [pools[0], back_2, pools[1], back_4, pools[2], Section("route", {"layers": "-1,-3,-5,-6"}), _conv(512, 1)]


def yolov3_sections(pyramid_pool: bool, classes: int = 80) -> list[Section]:
    """The layers of YOLOv3: Darknet-53 and three maps of boxes, from coarse to fine (section 2.3).

    Args:
        pyramid_pool: whether spatial pyramid pooling stands before the first map ("yolov3-spp").
        classes: how many kinds of things it tells apart.
    """
    sections = _darknet53()
    for width, mask, earlier in ((512, "6,7,8", None), (256, "3,4,5", 61), (128, "0,1,2", 36)):
        if earlier is not None:  # the features before the last map's own, enlarged, and the backbone's of that size
            back, both = Section("route", {"layers": "-4"}), Section("route", {"layers": f"-1,{earlier}"})
            sections += [back, _conv(width, 1), Section("upsample", {"stride": "2"}), both]
        own = [_conv(width, 1), _conv(2 * width, 3)] * 3
        if pyramid_pool and earlier is None:
            own[3:3] = _pyramid_pool()
        sections += own
        outputs = {"size": "1", "stride": "1", "pad": "1", "filters": str(3 * (5 + classes)), "activation": "linear"}
        anchors = {"mask": mask, "anchors": _COCO_ANCHORS, "classes": str(classes), "num": "9"}
        sections += [Section("convolutional", outputs), Section("yolo", anchors)]
    return sections


ARCHS: dict[str, Callable[[int], nn.Module]] = {
    "yolov3": lambda joints: Darknet(yolov3_sections(pyramid_pool=False)),
    "yolov3_spp": lambda joints: Darknet(yolov3_sections(pyramid_pool=True)),
}

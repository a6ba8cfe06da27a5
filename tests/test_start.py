"""What networks start from: backbones trained on ImageNet under each zoo's names, whole networks, and parts of them."""

from __future__ import annotations

import gzip
import json
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from posezoo.errors import PosezooError  # noqa: E402
from posezoo.models.build import build  # noqa: E402
from posezoo.zoo.weights.partial import load_backbone, load_fitting  # noqa: E402
from start_fixtures import Shapes, conv_norm, filled, resnet_stages, torchvision_resnet  # noqa: E402

# ---- how peers name their networks


def openmmlab(body: Shapes, features: int) -> Shapes:
    head = {"head.fc.weight": (1000, features), "head.fc.bias": (1000,)}
    return {**{f"backbone.{key}": shape for key, shape in body.items()}, **head}


def mobilenet_blocks() -> Iterator[tuple[int, int, int, int, int]]:
    """Stage, number in it, channels in, between and out, of each block of MobileNetV2."""
    inputs = 32
    table = ((1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1))
    for stage, (expansion, outputs, count) in enumerate(table, 1):
        for number in range(count):
            yield stage, number, inputs, inputs * expansion, outputs
            inputs = outputs


def torchvision_mobilenet_v2() -> Shapes:
    found = conv_norm("features.0.0", "features.0.1", 32, 3, 3)
    for index, (_, _, inputs, wide, outputs) in enumerate(mobilenet_blocks(), 1):
        name, at = f"features.{index}.conv", 0
        if wide != inputs:
            found.update(conv_norm(f"{name}.0.0", f"{name}.0.1", wide, inputs))
            at = 1
        found.update(conv_norm(f"{name}.{at}.0", f"{name}.{at}.1", wide, 1, 3))
        found.update(conv_norm(f"{name}.{at + 1}", f"{name}.{at + 2}", outputs, wide))
    found.update(conv_norm("features.18.0", "features.18.1", 1280, 320))
    return {**found, "classifier.1.weight": (1000, 1280), "classifier.1.bias": (1000,)}


def openmmlab_mobilenet_v2() -> Shapes:
    found = conv_norm("conv1.conv", "conv1.bn", 32, 3, 3)
    for stage, number, inputs, wide, outputs in mobilenet_blocks():
        layers = [(wide, 1, 3), (outputs, wide, 1)]
        if wide != inputs:
            layers.insert(0, (wide, inputs, 1))
        for at, layer in enumerate(layers):
            name = f"layer{stage}.{number}.conv.{at}"
            found.update(conv_norm(f"{name}.conv", f"{name}.bn", *layer))
    return openmmlab({**found, **conv_norm("conv2.conv", "conv2.bn", 1280, 320)}, 1280)


def openmmlab_resnet_d(depth: int) -> Shapes:
    stem = [(32, 3), (32, 32), (64, 32)]
    deep = [conv_norm(f"stem.{n}.conv", f"stem.{n}.bn", *layer, 3) for n, layer in enumerate(stem)]
    return openmmlab({**deep[0], **deep[1], **deep[2], **resnet_stages(depth, pooled=True)}, 2048)


def openmmlab_seresnet(depth: int) -> Shapes:
    return openmmlab({**conv_norm("conv1", "bn1", 64, 3, 7), **resnet_stages(depth, gated=True)}, 2048)


def hrnet(width: int) -> Shapes:
    """HRNet that classifies: the whole of the pose network's body, with a last exchange to all four sizes."""
    found = {**conv_norm("conv1", "bn1", 64, 3, 3), **conv_norm("conv2", "bn2", 64, 64, 3)}
    for block in range(4):
        for number, layer in enumerate([(64, 64 if block == 0 else 256, 1), (64, 64, 3), (256, 64, 1)], 1):
            found.update(conv_norm(f"layer1.{block}.conv{number}", f"layer1.{block}.bn{number}", *layer))
    found.update(conv_norm("layer1.0.downsample.0", "layer1.0.downsample.1", 256, 64))
    widths = [width * 2**n for n in range(4)]
    found.update(conv_norm("transition1.0.0", "transition1.0.1", width, 256, 3))
    found.update(conv_norm("transition1.1.0.0", "transition1.1.0.1", 2 * width, 256, 3))
    found.update(conv_norm("transition2.2.0.0", "transition2.2.0.1", 4 * width, 2 * width, 3))
    found.update(conv_norm("transition3.3.0.0", "transition3.3.0.1", 8 * width, 4 * width, 3))
    for stage, modules in ((2, 1), (3, 4), (4, 3)):
        for module in range(modules):
            name = f"stage{stage}.{module}"
            for branch in range(stage):
                channels = widths[branch]
                for layer in (f"{block}.{number}" for block in range(4) for number in (1, 2)):
                    block, _, number = layer.partition(".")
                    place = f"{name}.branches.{branch}.{block}"
                    found.update(conv_norm(f"{place}.conv{number}", f"{place}.bn{number}", channels, channels, 3))
            for target in range(stage):
                for source in range(stage):
                    place = f"{name}.fuse_layers.{target}.{source}"
                    if source > target:
                        found.update(conv_norm(f"{place}.0", f"{place}.1", widths[target], widths[source]))
                    for step in range(target - source):
                        last = step == target - source - 1
                        outputs = widths[target] if last else widths[source]
                        found.update(conv_norm(f"{place}.{step}.0", f"{place}.{step}.1", outputs, widths[source], 3))
    found.update(conv_norm("incre_modules.0.0.conv1", "incre_modules.0.0.bn1", 32, width))
    found.update(conv_norm("downsamp_modules.0.0", "downsamp_modules.0.1", 256, 128, 3))
    found.update(conv_norm("final_layer.0", "final_layer.1", 2048, 1024))
    return {**found, "classifier.weight": (1000, 2048), "classifier.bias": (1000,)}


def body_of(model: nn.Module) -> dict[str, Tensor]:
    return {key: value for key, value in model.backbone.state_dict().items() if not key.endswith("num_batches_tracked")}


# ---- backbones


PLAIN = {
    "conv1.weight": "stem.0.conv.weight",
    "bn1.running_var": "stem.0.bn.running_var",
    "layer2.0.conv2.weight": "layer2.0.conv2.weight",
    "layer3.0.downsample.0.weight": "layer3.0.downsample.conv.weight",
    "layer3.0.downsample.1.bias": "layer3.0.downsample.bn.bias",
    "layer4.1.bn2.running_mean": "layer4.1.bn2.running_mean",
}
CASES: dict[str, tuple[str, Callable[[], Shapes], Mapping[str, str]]] = {
    "torchvision 18": ("simple_pose_resnet18_v1b", lambda: torchvision_resnet(18), PLAIN),
    "torchvision 50": ("simple_pose_resnet50_v1b_2deconv", lambda: torchvision_resnet(50), PLAIN),
    "torchvision 101": ("simple_pose_resnet101_caffe", lambda: torchvision_resnet(101), PLAIN),
    "torchvision 152": ("simple_pose_resnet152_v1b", lambda: torchvision_resnet(152), PLAIN),
    "torchvision mobilenet": (
        "simple_pose_mobilenetv2",
        torchvision_mobilenet_v2,
        {
            "features.0.0.weight": "stem.conv.weight",
            "features.1.conv.0.0.weight": "blocks.0.depthwise.conv.weight",
            "features.1.conv.1.weight": "blocks.0.project.conv.weight",
            "features.1.conv.2.bias": "blocks.0.project.bn.bias",
            "features.2.conv.0.0.weight": "blocks.1.expand.conv.weight",
            "features.11.conv.0.1.weight": "blocks.10.expand.bn.weight",
            "features.11.conv.1.0.weight": "blocks.10.depthwise.conv.weight",
            "features.11.conv.1.1.running_mean": "blocks.10.depthwise.bn.running_mean",
            "features.11.conv.3.running_var": "blocks.10.project.bn.running_var",
            "features.18.0.weight": "last.conv.weight",
        },
    ),
    "openmmlab mobilenet": (
        "mobile_pose_mobilenetv2_1.0",
        openmmlab_mobilenet_v2,
        {
            "backbone.conv1.bn.weight": "stem.bn.weight",
            "backbone.layer1.0.conv.1.conv.weight": "blocks.0.project.conv.weight",
            "backbone.layer3.1.conv.0.conv.weight": "blocks.4.expand.conv.weight",
            "backbone.layer7.0.conv.1.bn.bias": "blocks.16.depthwise.bn.bias",
            "backbone.conv2.conv.weight": "last.conv.weight",
        },
    ),
    "openmmlab v1d": (
        "simple_pose_resnet50_v1d",
        lambda: openmmlab_resnet_d(50),
        {
            "backbone.stem.2.bn.bias": "stem.2.bn.bias",
            "backbone.layer1.0.downsample.0.weight": "layer1.0.downsample.conv.weight",
            "backbone.layer2.0.downsample.1.weight": "layer2.0.downsample.conv.weight",
            "backbone.layer2.0.downsample.2.weight": "layer2.0.downsample.bn.weight",
        },
    ),
    "openmmlab se": (
        "simple_pose_seresnet50",
        lambda: openmmlab_seresnet(50),
        {
            "backbone.layer1.2.se_layer.conv1.conv.bias": "layer1.2.se.reduce.bias",
            "backbone.layer4.0.se_layer.conv2.conv.weight": "layer4.0.se.expand.weight",
        },
    ),
    "hrnet": (
        "pose_hrnet_w32",
        lambda: hrnet(32),
        {
            "conv2.weight": "stem.1.conv.weight",
            "layer1.0.downsample.1.weight": "layer1.0.downsample.bn.weight",
            "stage3.2.fuse_layers.2.0.0.0.weight": "stage3.2.fuse_layers.2.0.0.0.weight",
            "stage4.2.fuse_layers.0.3.1.bias": "stage4.2.fuse_layers.0.3.1.bias",
        },
    ),
}  # fmt: skip


LARGE = ("torchvision 50", "torchvision 101", "torchvision 152")


def fresh_network(arch: str) -> nn.Module:
    """A network whose every array is of a number of its own, below zero: quicker than drawing them."""
    model = build(arch, 17, filled=False)
    for number, value in enumerate(model.state_dict().values()):
        value.fill_(-1 - number)
    return model


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in LARGE else ()) for n in CASES])
def test_a_backbone_is_taken_from_a_classifier_whole(name: str) -> None:
    arch, shapes, pairs = CASES[name]
    model, theirs = fresh_network(arch), filled(shapes())
    head = {key: value.clone() for key, value in model.head.state_dict().items()}
    taken = load_backbone(model, theirs, arch)
    body = body_of(model)
    assert (taken.taken, taken.fresh, taken.unused) == (len(body), (), ())
    for their_key, our_key in pairs.items():
        assert torch.equal(body[our_key], theirs[their_key]), our_key
    # each of theirs went to one place, and none was drawn here
    places = [value.flatten()[0].item() for value in body.values()]
    assert len(set(places)) == len(places)
    assert set(places) <= {value.flatten()[0].item() for value in theirs.values()}
    assert all(value.min() == value.max() for value in body.values())
    assert all(torch.equal(model.head.state_dict()[key], value) for key, value in head.items())


def classify_18(sd: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """The body of torchvision's ResNet-18, from its state dict alone."""

    def bn(name: str, x: Tensor) -> Tensor:
        names = (f"{name}.{part}" for part in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *(sd[key] for key in names))

    x = F.max_pool2d(F.relu(bn("bn1", F.conv2d(x, sd["conv1.weight"], None, 2, 3))), 3, 2, 1)
    for stage in range(1, 5):
        for block in range(2):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = F.relu(bn(f"{name}.bn1", F.conv2d(x, sd[f"{name}.conv1.weight"], None, stride, 1)))
            y = bn(f"{name}.bn2", F.conv2d(y, sd[f"{name}.conv2.weight"], None, 1, 1))
            if stride == 2:
                down = F.conv2d(x, sd[f"{name}.downsample.0.weight"], None, 2)
                x = bn(f"{name}.downsample.1", down)
            x = F.relu(x + y)
    return x


@pytest.mark.parametrize("kind", ["pth", "state_dict", "module", "safetensors"])
def test_a_file_of_any_kind_computes_what_it_did(tmp_path: Path, kind: str) -> None:
    torch.manual_seed(0)
    theirs = {key: torch.rand(shape) * 0.1 + 0.01 for key, shape in torchvision_resnet(18).items()}
    theirs.update({key: torch.zeros((), dtype=torch.int64) for key in theirs if key.endswith("tracked")})
    path = tmp_path / ("resnet18.safetensors" if kind == "safetensors" else "resnet18-5c106cde.pth")
    if kind == "safetensors":
        save_file(theirs, path)
    elif kind == "pth":
        torch.save(theirs, path)
    else:
        prefix = "module." if kind == "module" else ""
        torch.save({"epoch": 90, "state_dict": {prefix + key: value for key, value in theirs.items()}}, path)
    model = build("simple_pose_resnet18_v1b", 17).eval()
    load_backbone(model, path)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model.backbone(x), classify_18(theirs, x))


def test_no_code_in_a_file_is_run(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "ran",)

    arrays = filled(torchvision_resnet(18))
    torch.save({"state_dict": arrays, "args": Bomb()}, tmp_path / "resnet18.pth")
    load_backbone(fresh_network("simple_pose_resnet18_v1b"), tmp_path / "resnet18.pth")
    assert not (tmp_path / "ran").exists()


def write_params(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """A file as MXNet's `save_parameters` writes it."""
    parts = [struct.pack("<QQQ", 0x112, 0, len(arrays))]
    for array in arrays.values():
        parts.append(struct.pack(f"<Iii{array.ndim}qiii", 0xF993FAC9, 0, array.ndim, *array.shape, 1, 0, 0))
        parts.append(np.ascontiguousarray(array, np.float32).tobytes())
    names = [name.encode() for name in arrays]
    parts += [struct.pack("<Q", len(names)), *(struct.pack("<Q", len(name)) + name for name in names)]
    path.write_bytes(b"".join(parts))


def gluon_classifier(parity: Path, pose: str) -> Shapes:
    """The classifier that a GluonCV pose network is made of: its children under their own names."""
    children = {"0": "conv1", "1": "bn1", **{str(n + 3): f"layer{n}" for n in range(1, 5)}}
    with gzip.open(parity / "gluoncv" / f"{pose}.json.gz") as file:
        arrays = {key: tuple(shape) for key, shape, _ in json.load(file)["state_dict"]}
    found = Shapes()
    for key, shape in arrays.items():
        parent, _, path = key.partition(".")
        first, _, rest = path.partition(".")
        if parent == "resnet" or (parent == "features" and "mobilenet" not in pose):
            found[f"{children[first]}.{rest}"] = shape
        elif parent == "features":
            found[f"features.{rest}"] = shape  # of the first child, which is the classifier's
    return found


V3_SMALL_BEHIND_POOL = {"features.18.weight": (1280, 576, 1, 1), "output.0.weight": (1000, 1280, 1, 1)}


@pytest.mark.parametrize(
    ("pose", "arch", "classifier"),
    [
        ("mobile_pose_resnet18_v1b", "simple_pose_resnet18_v1b", {"fc.weight": (1000, 512), "fc.bias": (1000,)}),
        ("simple_pose_resnet50_v1d", "simple_pose_resnet50_v1d", {"fc.weight": (1000, 2048), "fc.bias": (1000,)}),
        ("mobile_pose_mobilenet1.0", "mobile_pose_mobilenet1.0", {"output.weight": (10, 1024), "output.bias": (10,)}),
        ("mobile_pose_mobilenetv2_1.0", "simple_pose_mobilenetv2", {"output.0.weight": (1000, 1280, 1, 1)}),
        ("mobile_pose_mobilenetv3_small", "mobile_pose_mobilenetv3_small", V3_SMALL_BEHIND_POOL),
    ],
)  # fmt: skip
def test_gluoncv_classifiers(parity: Path, tmp_path: Path, pose: str, arch: str, classifier: Shapes) -> None:
    shapes = {**gluon_classifier(parity, pose), **classifier}
    theirs = {key: value.numpy() for key, value in filled(shapes).items()}
    write_params(tmp_path / "base.params", theirs)
    model = fresh_network(arch)
    taken = load_backbone(model, tmp_path / "base.params", arch)
    body = body_of(model)
    assert (taken.layout, taken.taken, taken.fresh, taken.unused) == ("GluonCV", len(body), (), ())
    places = [value.flatten()[0].item() for value in body.values()]
    assert len(set(places)) == len(places) == len(theirs) - len(classifier)
    if "resnet" in arch:
        assert torch.equal(body["layer2.0.bn1.running_var"], torch.from_numpy(theirs["layer2.0.bn1.running_var"]))
        shortcut = "layer3.0.downsample.1.weight" if arch.endswith("v1d") else "layer3.0.downsample.0.weight"
        assert torch.equal(body["layer3.0.downsample.conv.weight"], torch.from_numpy(theirs[shortcut]))
        assert torch.equal(body[f"stem.{2 * arch.endswith('v1d')}.bn.weight"], torch.from_numpy(theirs["bn1.gamma"]))


def test_a_body_may_come_from_a_pose_network(tmp_path: Path, parity: Path) -> None:
    source = build("simple_pose_resnet18_v1b", 17)
    save_file(source.state_dict(), tmp_path / "pose.safetensors")
    model = build("mobile_pose_resnet18_v1b", 21)
    load_backbone(model, tmp_path / "pose.safetensors")
    assert all(torch.equal(value, source.state_dict()[f"backbone.{key}"]) for key, value in body_of(model).items())
    with gzip.open(parity / "mmpose" / "seresnet50_coco_256x192.json.gz") as file:
        shapes = {key: tuple(shape) for key, shape, _ in json.load(file)["state_dict"]}
    assert load_backbone(fresh_network("simple_pose_seresnet50"), filled(shapes)).unused == ()


@pytest.mark.parametrize(
    ("arch", "fresh", "unused"),
    [
        ("fastpose_resnet50_dcn", {"se", "conv2.offset"}, 0),
        ("fastpose_duc_resnet50_unshuffle", {"se", "conv2.1"}, 3),
        pytest.param("fastpose_resnet50", {"se"}, 0, marks=pytest.mark.slow),
        pytest.param("fastpose_resnet50_dcn_g2", {"se", "conv2.offset"}, 0, marks=pytest.mark.slow),
        pytest.param("simple_pose_seresnet50", {"se"}, 0, marks=pytest.mark.slow),
    ],
)
def test_what_is_added_to_a_plain_resnet_stays_as_it_was(arch: str, fresh: set[str], unused: int) -> None:
    model, theirs = fresh_network(arch), filled(torchvision_resnet(50))
    before = {key: value.clone() for key, value in body_of(model).items()}
    taken = load_backbone(model, theirs, arch)
    added = {key.removeprefix("backbone.") for key in taken.fresh}
    assert {re.sub(r"layer\d\.\d\.(se|conv2\.\w+)\..*", r"\1", key) for key in added} == fresh
    assert len(taken.unused) == unused
    body = body_of(model)
    assert taken.taken == len(body) - len(added)
    assert all(torch.equal(body[key], before[key]) for key in added)
    assert all(not torch.equal(body[key], before[key]) for key in set(body) - added)


@pytest.mark.parametrize(
    ("arch", "shapes", "message"),
    [
        pytest.param("simple_pose_resnet101_v1b", torchvision_resnet(50),
                     r"\(PyTorch names\) does not fit the backbone of simple_pose_resnet101_v1b: 255 missing \(layer3"
                     r".6.conv1.weight, .*It fits the backbone of simple_pose_resnet50_v1b, ", marks=pytest.mark.slow),
        ("hourglass_s2", torchvision_resnet(18), "hourglass_s2 has no backbone that could be loaded: model.weights"),
        pytest.param("simple_pose_resnet18_v1b", {"a.weight": (3,)}, r"100 missing .*1 unexpected \(a.weight\)$",
                     marks=pytest.mark.slow),
        pytest.param("fastpose_resnet50", torchvision_resnet(101),
                     r"unexpected \(layer3.6.conv1.weight, .*simple_pose_resnet101_v1b", marks=pytest.mark.slow),
        pytest.param("simple_pose_resnet50_v1b", openmmlab_resnet_d(50),
                     r"OpenMMLab names.* fits the backbone of simple_pose_resnet50_v1d", marks=pytest.mark.slow),
        pytest.param("simple_pose_resnet50_v1b", openmmlab_seresnet(50),
                     r"unexpected \(backbone.layer1.0.se_layer.*simple_pose_seresnet50", marks=pytest.mark.slow),
        pytest.param("pose_hrnet_w48", hrnet(32),
                     r"of another shape .*fits the backbone of pose_hrnet_w32$", marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_a_backbone_that_does_not_fit_says_what_it_would(arch: str, shapes: Shapes, message: str) -> None:
    model = fresh_network(arch)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(PosezooError, match=message) as error:
        load_backbone(model, filled(shapes), arch)
    assert "\n" not in str(error.value)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


# ---- parts of pose networks


def test_all_that_fits_is_taken_but_for_what_predicts_joints() -> None:
    source, model = build("simple_pose_resnet18_v1b", 16), build("mobile_pose_resnet18_v1b", 16)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    taken = load_fitting(model, source.state_dict(), "mobile_pose_resnet18_v1b", 16)
    assert taken.taken == len(body_of(model))
    assert {key.split(".")[0] for key in taken.fresh} == {"head"}
    assert all(torch.equal(value, before[key]) for key, value in model.head.state_dict(prefix="head.").items())
    assert all(torch.equal(value, source.backbone.state_dict()[key]) for key, value in body_of(model).items())
    # as many joints, maybe others: they start anew all the same
    again = load_fitting(build("simple_pose_resnet18_v1b", 16), source.state_dict(), "simple_pose_resnet18_v1b", 16)
    assert again.fresh == ("head.final.weight", "head.final.bias")
    stacked = build("hourglass_s1", 16)
    assert load_fitting(build("hourglass_s1", 15), stacked.state_dict(), "hourglass_s1", 15).fresh == (
        "stages.0.heatmaps.weight", "stages.0.heatmaps.bias"
    )  # fmt: skip
    with pytest.raises(PosezooError, match=r"nothing of the given arrays .* fits hourglass_s1"):
        load_fitting(stacked, {"a.weight": torch.ones(3)}, "hourglass_s1", 16)

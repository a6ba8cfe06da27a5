"""Single layers of the networks against those of the zoos' own."""

from __future__ import annotations

import re
from types import ModuleType

import numpy as np
import torch
from parity_ops_read import Fixture, Result, array, map_result, worst

from posezoo.models.darknet import SamePool, Yolo
from posezoo.models.deform import deform_conv2d
from posezoo.models.heads import ShuffleHead, Upsample
from posezoo.models.resnet import D, ResNet


def floats(entry: dict) -> torch.Tensor:
    return torch.from_numpy(array(entry).astype(np.float32))


def counted(text: str) -> torch.Tensor:
    """The array that a text such as "arange(96).reshape(2,8,3,2)" means."""
    count, shape = re.findall(r"\(([\d, ]+)\)", text)
    return torch.arange(int(count), dtype=torch.float32).reshape([int(n) for n in shape.split(",")])


def gluoncv_layers(fixture: Fixture, fill: ModuleType) -> list[Result]:
    with torch.device("meta"):  # only layers without weights are used of it
        body = ResNet(18, D)
    shuffle = ShuffleHead(8, 1).shuffle
    results = []
    for key, wanted in fixture.items():
        if re.search(r"PixelShuffle\w*\(2\)$", key):
            got = shuffle(counted(fixture["input"]))
            results.append(map_result(key, "ShuffleHead.shuffle", got, wanted, fill))
    pools, up = fixture["avg_down"], fixture["deconv"]
    for name, layer in (("AvgPool", body.get_submodule("layer2.0.downsample.pool")), ("MaxPool", body.pool)):
        key = next(key for key in pools if key.startswith(name))
        got = layer(floats(pools["input"]))
        results.append(map_result(key, f"ResNet, {type(layer).__name__}", got, pools[key], fill))
    weight = torch.from_numpy(fill.fill(up["key"], up["weight_shape"]))
    deconvolution = Upsample(*weight.shape[:2]).conv
    with torch.no_grad():
        deconvolution.weight.copy_(weight)
        got = deconvolution(floats(up["input"]))
    return [*results, map_result("deconvolution", "heads.Upsample.conv", got, up["output"], fill)]


def alphapose_deform_conv(fixture: Fixture, fill: ModuleType) -> list[Result]:
    found: dict[str, list[Result]] = {}
    for case in fixture["cases"]:
        x, offset, weight = (floats(case[key]) for key in ("input", "offset", "weight"))
        mask = None if case["mask"] is None else floats(case["mask"])
        stride, padding, dilation = ((case[key], case[key]) for key in ("stride", "padding", "dilation"))
        got = deform_conv2d(x, offset, weight, None, stride, padding, dilation, mask)
        what = "deformable convolution" if mask is None else "deformable convolution, modulated"
        result = map_result(what, "deform.deform_conv2d", got, case["output"], fill)
        found.setdefault(what, []).append(result)
    return [worst(results) for results in found.values()]


def yolo_maxpool_stride1(fixture: Fixture, fill: ModuleType) -> list[Result]:
    results = []
    for key, wanted in fixture.items():
        if (match := re.fullmatch(r"k(\d+)", key)) and wanted is not None:
            got = SamePool(int(match[1]))(floats(fixture["input"]))
            results.append(map_result(f"window of {match[1]}", "darknet.SamePool", got, wanted, fill))
    return results


def yolo_predict_transform(fixture: Fixture, fill: ModuleType) -> list[Result]:
    x, wanted = floats(fixture["input"]), array(fixture["output"])
    side, classes = (int(re.findall(rf"{name}=(\d+)", fixture["function"])[0]) for name in ("inp_dim", "num_classes"))
    got = Yolo(fixture["anchors"], classes, side // x.shape[-1])(x).numpy()
    results = []
    for what, columns in (("boxes", slice(0, 4)), ("scores", slice(4, None))):  # pixels, and numbers up to 1
        part = wanted[..., columns]
        entry = {"shape": part.shape, "data": part.ravel()}
        results.append(map_result(what, "darknet.Yolo", got[..., columns], entry, fill))
    return results


CHECKS = {
    "alphapose_deform_conv": alphapose_deform_conv,
    "gluoncv_layers": gluoncv_layers,
    "yolo_maxpool_stride1": yolo_maxpool_stride1,
    "yolo_predict_transform": yolo_predict_transform,
}

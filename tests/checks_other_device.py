"""What runs on a GPU, on a device that refuses tensors of another; `test_other_device` runs this in a process apart."""

# ruff: noqa: F401 -- fixtures are imported, and asked for by their names

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from elsewhere import DEVICE
from loop_fixtures import _tiny_networks, folder_is
from posezoo.codecs import get_codec
from posezoo.crop import box_to_affine
from posezoo.deploy.on_device import OnDevice
from posezoo.deploy.runtimes import TorchRuntime
from posezoo.models.build import build
from posezoo.skeletons import get_skeleton
from posezoo.train import run
from posezoo.train.log import read_log
from posezoo.train.optimise import Learner
from pretend import Pretend, Pretended
from test_on_device import Colours, scene, spec_of
from tiny_runs import write_people, write_recipe
from train_fixtures import _one_thread


@pytest.fixture(autouse=True)
def _pretend() -> Iterator[None]:
    with Pretend():
        yield


# ---- the device itself


def test_what_mixes_devices_fails_and_what_does_not_is_computed() -> None:
    here, there = torch.arange(6.0).reshape(2, 3), torch.arange(6.0, device=DEVICE).reshape(2, 3)
    assert isinstance(there, Pretended) and there.device == DEVICE
    assert torch.equal((there * 2 + torch.tensor(1.0)).cpu(), here * 2 + 1)
    assert torch.equal(there[torch.tensor([1])].cpu(), here[1:])
    assert torch.equal(here.clone().copy_(there), here) and torch.equal(there.clone().copy_(here).cpu(), here)
    for mixed in (
        lambda: there + here,
        lambda: here.add_(there[0, 0]),
        lambda: here[there.long()[0, :1]],
        lambda: there.index_put_((torch.tensor([0]),), here[:1]),
        lambda: torch.nn.functional.conv2d(there[None, None], here[None, None]),
        there.numpy,
    ):
        with pytest.raises((RuntimeError, TypeError), match=r"same device|convert elsewhere:0"):
            mixed()


def test_gradients_are_those_of_the_cpu() -> None:
    gradients = []
    for device in (torch.device("cpu"), DEVICE):
        torch.manual_seed(0)
        layer = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU()).to(device)
        image = torch.randn(2, 3, 8, 8).to(device)
        layer(image).square().mean().backward()
        gradients.append(layer[0].weight.grad.cpu())
    assert torch.equal(*gradients) and gradients[0].any()


# ---- prediction


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("codec", ["heatmap-quarter", "heatmap-dark-udp", "integral-sigmoid", "combined-26"])
def test_crops_network_and_decode_are_on_the_device(codec: str, flip: bool) -> None:
    skeleton = get_skeleton("halpe136" if codec == "combined-26" else "coco17")
    spec = spec_of(codec=get_codec(codec), skeleton=skeleton)
    images, image_of, boxes = scene()
    to_crop = box_to_affine(boxes, spec.input_size_wh, spec.box_scale, grid=spec.codec.grid)
    found = []
    for device in ("cpu", str(DEVICE)):
        runtime = TorchRuntime(Colours(len(skeleton)).to(device).eval(), device)
        found.append(OnDevice(spec, runtime, flip, 4)(images, image_of, to_crop))
    for here, there in zip(*found, strict=True):
        np.testing.assert_array_equal(there, here)


# one of each kind of layer: attention, deformed convolutions, branches of many sizes, stacks, shuffles, boxes, yolos
FAMILIES = [
    "fastpose_resnet50", "fastpose_resnet50_dcn_g2", "pose_hrnet_w32", "hourglass_s2", "mobile_pose_fpn_1.0",
    "mobile_pose_mobilenetv3_small", "simple_pose_resnet18_v1b", "person_detector_1.0", "yolov3",
]  # fmt: skip


@pytest.mark.parametrize("arch", FAMILIES)
def test_every_family_computes_the_same_there(arch: str) -> None:
    torch.manual_seed(0)
    network, images = build(arch, 17).eval(), np.random.default_rng(0).normal(size=(1, 3, 64, 64)).astype(np.float32)
    here = TorchRuntime(network, "cpu")(images)
    there = TorchRuntime(network.to(DEVICE), str(DEVICE))(images)
    assert len(here) == len(there) and all(map(np.array_equal, here, there))


# ---- training


@pytest.fixture
def train_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    """Trains a recipe on a device; all lines of its log but those of time."""

    def train_on(device: torch.device, recipe: Path, *overrides: str, **more: bool) -> list[Any]:
        monkeypatch.setattr(Accelerator, "device", device)
        folder = run(recipe, [folder_is(tmp_path / device.type), *overrides], **more)
        return [row for row in read_log(folder) if not row[2].endswith("_s") and row[2] != "data_wait"]

    return train_on


TEACHERS = "distill.teachers=[{model='embedded'}]"


@pytest.mark.parametrize(
    ("task", "overrides"),
    [
        ("pose", ["target.refine='dark'", "optimiser.accumulate=3", "optimiser.clip=1", "model.arch='tiny_dropout'"]),
        ("pose", ["target.loss='ohkm'", "optimiser.name='adamw'", "run.channels_last=false"]),
        ("pose", ["target.codec='integral-softmax'", "optimiser.name='sgd'"]),
        ("pose", [TEACHERS, "distill.heatmap=1", "distill.coordinate=1", "input.channels='bgr'"]),
        ("detect", ["optimiser.name='rmsprop'"]),
    ],
)
def test_a_run_is_that_of_the_cpu_and_can_be_resumed(
    tmp_path: Path, train_on: Callable[..., list[Any]], task: str, overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_recipe(tmp_path, write_people(tmp_path), task, "tiny" if task == "pose" else None)
    here = train_on(torch.device("cpu"), recipe, *overrides)
    step, stopped = Learner.step, RuntimeError("the machine goes down")

    def until_the_third(self: Learner, parts: Any, number: int, *more: Any) -> Any:
        if number == 2:
            raise stopped
        return step(self, parts, number, *more)

    monkeypatch.setattr(Learner, "step", until_the_third)
    with pytest.raises(RuntimeError, match=str(stopped)):
        train_on(DEVICE, recipe, *overrides, "run.save_every=1")
    monkeypatch.setattr(Learner, "step", step)
    there = train_on(DEVICE, recipe, *overrides, "run.save_every=1", resume=True)
    assert there == here and len(here) > 4

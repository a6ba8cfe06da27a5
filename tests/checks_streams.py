"""The pipeline as it is on CUDA, on a pretended card: uploads beside the work, graphs, joints that arrive later."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from elsewhere import DEVICE
from posezoo.codecs import get_codec
from posezoo.constant_torch import _kept
from posezoo.crop import box_to_affine
from posezoo.deploy.on_device import OnDevice
from posezoo.deploy.runtimes import TorchRuntime
from posezoo.skeletons import get_skeleton
from pretend import Pretended
from pretend_cuda import Cuda
from test_on_device import Colours, scene, spec_of


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cuda]:
    device = Cuda()
    device.patch(monkeypatch)
    _kept.cache_clear()
    with device:
        yield device
    _kept.cache_clear()


def pipeline_on(device: str, spec: Any, flip: bool = False, network: Any = Colours) -> OnDevice:
    module = network(len(spec.skeleton.joints)).to(device).eval()
    made = OnDevice(spec, TorchRuntime(module, device), flip, batch_size=2)
    if device != "cpu":  # what it does where the device is called cuda
        made._cuda, made.graphs = True, True
        made._uploads, made._computes = torch.cuda.Stream(), torch.cuda.Stream()
    return made


def calls(spec: Any) -> list[tuple[list[np.ndarray], np.ndarray, np.ndarray]]:
    """Several calls' pictures and people, no two alike, of whole batches and of parts of one."""
    images, image_of, boxes = scene()
    to_crop = box_to_affine(boxes, spec.input_size_wh, spec.box_scale, grid=spec.codec.grid)
    orders = [np.arange(5), np.array([4, 0, 3]), np.array([1]), np.array([2, 2])]
    return [(images, image_of[order], to_crop[order]) for order in orders]


def found(pipeline: OnDevice, spec: Any) -> list[np.ndarray]:
    """The joints of all calls, which are all under way before the first is waited for."""
    pending = [pipeline.submit(*call) for call in calls(spec)]
    return [joints for one in pending for joints in one.result()]


@pytest.mark.parametrize(
    ("codec", "flip"),
    [
        ("heatmap-quarter", False),
        ("heatmap-dark-udp", True),
        ("heatmap-megvii", False),
        ("integral-sigmoid", True),
        ("combined-26", True),
    ],
)
def test_work_on_streams_and_in_graphs_is_that_of_the_cpu(cuda: Cuda, codec: str, flip: bool) -> None:
    skeleton = get_skeleton("halpe136" if codec == "combined-26" else "coco17")
    spec = spec_of(codec=get_codec(codec), skeleton=skeleton)
    pipeline = pipeline_on(str(DEVICE), spec, flip)
    here, there = found(pipeline_on("cpu", spec, flip), spec), found(pipeline, spec)
    assert all(map(np.array_equal, here, there)) and np.ptp(here[0]) > 10
    assert pipeline.graphs and cuda.replays == 3 + 2 + 1 + 1  # one for each batch
    del pipeline
    cuda.finish()
    assert cuda.races == []


class Asks(Colours):
    """Waits for a number of the device, which no capture survives."""

    def forward(self, x: Any) -> Any:
        return super().forward(x) if x.amax().item() < 1e6 else None


def test_a_network_that_asks_for_a_number_runs_without_graphs(cuda: Cuda) -> None:
    spec, before = spec_of(), cuda.stream
    pipeline = pipeline_on(str(DEVICE), spec, network=Asks)
    assert all(map(np.array_equal, found(pipeline_on("cpu", spec), spec), found(pipeline, spec)))
    assert not pipeline.graphs and cuda.replays == 0 and cuda.races == []
    assert cuda.stream is before  # and not the one of the capture that failed


@pytest.mark.parametrize("network", [Colours, Asks])
def test_calls_from_several_streams_do_not_touch_each_others_batches(cuda: Cuda, network: Any) -> None:
    spec, asked = spec_of(), calls(spec_of())
    wanted, pipeline = found(pipeline_on("cpu", spec), spec), pipeline_on(str(DEVICE), spec, network=network)
    pending = []
    for number, call in enumerate(asked):  # the first on the default stream, as most threads' are
        with cuda.on(torch.cuda.Stream() if number else None):
            pending.append(pipeline.submit(*call))
    assert all(map(np.array_equal, wanted, [joints for one in pending for joints in one.result()]))
    assert cuda.races == []


def test_what_the_caller_does_next_waits_for_the_joints(cuda: Cuda) -> None:
    spec = spec_of()
    pipeline = pipeline_on(str(DEVICE), spec)
    pending = pipeline.submit(*calls(spec)[0])
    with torch.no_grad():
        for weights in pipeline._module.parameters():  # such as a step of its training
            weights.mul_(0.5)
    pending.result()
    assert cuda.races == []


@pytest.mark.parametrize("left_out", ["wait_stream", "record_stream", "synchronize"])
def test_the_pretended_card_sees_what_is_not_waited_for(
    cuda: Cuda, left_out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of()
    wanted, pipeline = found(pipeline_on("cpu", spec), spec), pipeline_on(str(DEVICE), spec)
    of = {"wait_stream": type(cuda.stream), "record_stream": Pretended, "synchronize": torch.cuda.Event}[left_out]
    monkeypatch.setattr(of, left_out, lambda *_: None)
    got = found(pipeline, spec)
    del pipeline
    cuda.finish()
    right = all(map(np.array_equal, wanted, got))
    assert bool(cuda.races) == (left_out != "synchronize") and right == (left_out != "synchronize")

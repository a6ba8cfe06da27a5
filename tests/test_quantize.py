"""8 bits: how near the numbers stay, what the file says, whom it is calibrated on, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

from torch import nn  # noqa: E402

import command_line  # noqa: E402
from posezoo.cpu import cpu_name  # noqa: E402
from posezoo.deploy import calibrate, compare, equalise, graph, qdq, quantize, ranges, rounding, runtimes  # noqa: E402
from posezoo.deploy.quantize import Network, bits_for  # noqa: E402
from posezoo.deploy.runtimes import base  # noqa: E402
from posezoo.deploy.runtimes import onnx as onnx_runtime  # noqa: E402
from posezoo.deploy.runtimes import openvino as openvino_runtime  # noqa: E402
from posezoo.deploy.runtimes import torch as torch_runtime  # noqa: E402
from posezoo.deploy.search import enough, heatmap_error, open_file  # noqa: E402
from posezoo.errors import PosezooError  # noqa: E402
from posezoo.estimator import NetworkSpec, open_network  # noqa: E402

EXAMPLES = Path(__file__).parents[1] / "examples"
RUNTIMES = ("onnx", "openvino")


@pytest.fixture(scope="module")
def network() -> Network:
    """Heatmaps of 17 joints at a quarter of 32 x 32 crops."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 4, 4), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU6(), nn.Conv2d(16, 17, 1)]
    module = nn.Sequential(*layers).eval()
    with torch.no_grad():
        module[2].weight[3] *= 40  # one channel far larger than the rest
    spec = NetworkSpec.of(
        {"name": "tiny", "skeleton": "coco17", "codec": "heatmap-quarter", "input_size_wh": (32, 32), "channels": "rgb",
         "mean": (0.5,) * 3, "std": (0.25,) * 3, "box_scale": 1.25, "flip_shift": False, "input": "planes",
         "output": "maps"}
    )  # fmt: skip
    proto = qdq.simplified(graph.to_onnx(graph.trace(module, torch.zeros(2, 3, 32, 32)), ["heatmaps"]))
    return Network("tiny", spec, None, module, proto, "tiny", None)


@pytest.fixture(scope="module")
def crops() -> np.ndarray:
    rng = np.random.default_rng(0)
    smooth = rng.integers(0, 256, (24, 4, 4, 3)).repeat(8, axis=1).repeat(8, axis=2)
    return (smooth + rng.integers(-9, 10, smooth.shape)).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("mode", ["naive", "entropy", "percentile"])
def test_the_file_alone_computes_nearly_the_same(
    network: Network, crops: np.ndarray, tmp_path: Path, runtime: str, mode: str
) -> None:
    pytest.importorskip("onnxruntime" if runtime == "onnx" else "openvino")
    path = tmp_path / f"t{quantize.SUFFIXES[runtime]}"
    done = quantize.quantize(network, [crops[:8], crops[8:16]], path, runtime=runtime, mode=mode, check=crops[16:])
    assert done.calibrated_on == 16 and done.checked_on == 8 and done.held_back and 0 < done.error < 5
    assert len(done.left_out) < done.convolutions == 3
    _, opened = open_network(path)
    assert (opened.name, opened.precision) == (runtime, "int8")
    planes = network.planes(crops[16:])
    with torch.no_grad():
        wanted = network.module(torch.from_numpy(planes)).numpy()
    assert heatmap_error(wanted, opened(planes)[0]) == pytest.approx(done.error, rel=0.2)
    told = opened.metadata()["calibration"]
    assert told["mode"] == mode and told["crops"] == 16 and told["weight_bits"] in (7, 8)


@pytest.mark.parametrize(("bits", "most"), [("7bit", 64), ("8bit", 127)])
def test_weights_have_the_bits_that_were_asked_for(
    network: Network, crops: np.ndarray, tmp_path: Path, bits: str, most: int
) -> None:
    path = tmp_path / "t.onnx"
    done = quantize.quantize(network, [crops], path, runtime="onnx", weight_bits=bits, max_error=None)
    tensors = (onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer)
    weights = [array for array in tensors if array.dtype == np.int8 and array.ndim == 4]
    assert len(weights) == done.convolutions - len(done.left_out) >= 1
    for array in weights:  # by the channel: each uses its whole range
        assert (np.abs(array.astype(int)).reshape(len(array), -1).max(axis=1) == most).all()


def test_the_same_crops_give_the_same_file(network: Network, crops: np.ndarray, tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a.onnx", "b.onnx")]
    for file in files:
        quantize.quantize(network, [crops], file, runtime="onnx")
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_bound_leaves_the_worst_in_floating_point(network: Network, crops: np.ndarray, tmp_path: Path) -> None:
    free = quantize.quantize(network, [crops], tmp_path / "free.onnx", runtime="onnx", max_error=None)
    bound = quantize.quantize(network, [crops], tmp_path / "bound.onnx", runtime="onnx", max_error=free.error / 2)
    assert bound.error <= free.error / 2 and set(free.left_out) < set(bound.left_out)

    def judge(file: Path) -> float:
        return -heatmap_error(wanted, open_file(file)(network.planes(crops))[0])

    with torch.no_grad():
        wanted = network.module(torch.from_numpy(network.planes(crops))).numpy()
    path, most = tmp_path / "judged.onnx", free.error / 2
    judged = quantize.quantize(network, [crops], path, runtime="onnx", max_error=None, max_drop=most, judge=judge)
    assert judged.drop is not None and judged.drop <= most and set(free.left_out) < set(judged.left_out)


class Branches(nn.Module):
    """Channels may be scaled through the sum and the ReLU up to the depthwise convolution; not behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.depthwise, self.last = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        return self.last(self.depthwise(torch.relu(x + self.second(x))).clamp(0, 6))


def test_channels_of_one_range_change_nothing() -> None:
    torch.manual_seed(0)
    module = Branches().eval()
    with torch.no_grad():
        module.first.weight[3] *= 50
        module.first.bias[3] *= 50
    planes = torch.randn(6, 3, 16, 16)
    proto = qdq.simplified(graph.to_onnx(graph.trace(module, planes[:2]), ["heatmaps"]))
    nodes = qdq.convolutions(proto)
    (stream,) = equalise.streams(proto, nodes)
    assert (stream.makers, stream.takers) == ({"first", "second"}, {"second", "depthwise"})
    changed, equal = equalise.equalised(proto, module, nodes, planes.numpy())
    with torch.no_grad():
        torch.testing.assert_close(equal(planes), module(planes), rtol=1e-4, atol=1e-5)
        widest = [each.first(planes).abs().amax((0, 2, 3)) for each in (module, equal)]
    assert widest[1].max() / widest[1].min() < widest[0].max() / widest[0].min() / 2
    values = dict(ranges.tensors(changed)(planes.numpy()))
    np.testing.assert_allclose(values["heatmaps"], equal(planes).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_onnx_runtime_leaves_alone_what_was_left_out(network: Network, crops: np.ndarray, tmp_path: Path) -> None:
    import onnxruntime as ort

    path, proto, planes = tmp_path / "t.onnx", network.proto, network.planes(crops)
    names = list(qdq.convolutions(proto))
    rounded = rounding.round_weights(network.module, torch.from_numpy(planes), names, 7)
    found = qdq.quantised(
        proto, ranges.tensor_ranges(proto, [planes]), rounded, 7, [names[1], *qdq.last_convolutions(proto)]
    )
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(path)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    ort.InferenceSession(found.SerializeToString(), options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(path).graph.node if "Conv" in node.op_type]
    assert kinds == ["QLinearConv", "Conv", "Conv"] or kinds == ["QLinearConv", "FusedConv", "Conv"]


def test_how_many_of_the_worst() -> None:
    assert enough([3.0, 2.0, 1.0], 1.0001) == 1 and enough([3.0, 2.0, 1.0], 100) == 3
    assert enough([4.0, 3.0], 5 / 3) == 1  # what is left is 3 of 5


@pytest.mark.parametrize(
    ("flags", "machine", "bits"),
    [("sse4_2 avx2", "x86_64", 7), ("avx2 avx_vnni", "x86_64", 8), ("avx512_vnni", "x86_64", 8), ("", "aarch64", 8)],
)
def test_weights_of_seven_bits_where_eight_would_saturate(
    monkeypatch: pytest.MonkeyPatch, flags: str, machine: str, bits: int
) -> None:
    monkeypatch.setattr("posezoo.cpu.platform.machine", lambda: machine)
    monkeypatch.setattr(Path, "read_text", lambda self: f"processor\t: 0\nflags\t\t: {flags}\n")
    assert bits_for("auto") == bits and bits_for("7bit") == 7


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"runtime": "onix"}, "unknown runtime to quantise for 'onix'; did you mean onnx"),
        ({"mode": "naiv"}, "unknown calibration mode 'naiv'; did you mean naive"),
        ({"weight_bits": "6bit"}, "unknown width of weights '6bit'"),
        (
            {"path": "t.xml"},
            r"t\.xml does not fit the runtime onnx: .* in \.xml \(openvino\) or \.onnx",
        ),
        ({"crops": []}, "there is no crop to calibrate with"),
        ({"crops": [np.zeros((2, 32, 16, 3), np.uint8)]}, r"crops must be \(n, 32, 32, 3\) uint8 arrays"),
        ({"max_drop": 0.3}, "a largest drop needs a labelled set"),
        ({"max_drop": 0.3, "random": True}, "--max-drop and --random exclude each other"),
        ({"threads": 0}, "threads must be 1 or more, but is 0"),
    ],
)
def test_what_cannot_be_quantised(
    network: Network, crops: np.ndarray, tmp_path: Path, given: Any, message: str
) -> None:
    options = {"crops": [crops], "path": "t.onnx", "runtime": "onnx", **given}
    with pytest.raises(PosezooError, match=message):
        quantize.quantize(network, options.pop("crops"), tmp_path / options.pop("path"), **options)
    assert not list(tmp_path.iterdir())


# ---- the people


def test_too_few_people_say_how_many_there_are(crops: np.ndarray) -> None:
    some = calibrate.Crops(crops, "photos")
    whole, held_back = some.split(2, 10)
    assert [len(batch) for batch in whole] == [10, 10] and len(held_back) == 4
    with pytest.raises(PosezooError, match="24 people in photos, too few for 3 batches of 10: give --batches 2"):
        some.split(3, 10)
    with pytest.raises(PosezooError, match="give --batches 1 --batch-size 24"):
        some.split(1, 32)


def test_people_of_a_folder_are_found_in_the_same_order(network: Network, tmp_path: Path) -> None:
    for name in ("astronaut.png", "basketball.png"):
        shutil.copy(EXAMPLES / name, tmp_path)
    (tmp_path / "broken.jpg").write_text("no picture")
    first, again = (calibrate.crops_of_pictures(network.spec, tmp_path, 3) for _ in range(2))
    assert 2 <= len(first) <= 3 and first.pixels.shape[1:] == (32, 32, 3) and first.pixels.std() > 20
    assert list(first.unreadable) in ([], [str(tmp_path / "broken.jpg")])
    np.testing.assert_array_equal(first.pixels, again.pixels)


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: Network) -> Callable[..., tuple[int, str]]:
    monkeypatch.setattr(quantize, "prepare", lambda *arguments: network)
    monkeypatch.setattr("posezoo.deploy.compare.ROUNDS", 3)

    def run(*arguments: str) -> tuple[int, str]:
        code, out, err = command_line.run("quantize", "embedded", "-o", tmp_path / "t.onnx", *arguments)
        return code, out + err

    return run


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--calibration", "{}/none"], "no such file or folder"),
        (["--calibration", "{}/empty"], "no pictures in the folder"),
        (["--calibration", "{}/text"], "no picture of"),
        (
            ["--calibration", "{}/bare.json", "--images", "{}/text"],
            "has a labelled joint: it cannot be calibrated",
        ),
        (["--calibration", "{}/bare.json"], "give their folder with --images DIR"),
        (["--calibration", "{}/text", "--max-drop", "0.3"], "--max-drop needs labelled people"),
        (["--calibration", "{}/text", "--dataset", "mpii"], "has no annotations of mpii where that dataset keeps them"),
        (["--calibration", "{}/text", "--images", "{}/text"], "--images is the folder of annotated people"),
        (["--calibration", "{}/text", "--annotations", "{}/gone.json"], "gone.json"),
        (["--calibration", "{}/text", "--threads", "-1"], "threads must be 1 or more, but is -1"),
        (["--calibration", "{}/text", "-o", "{}/text/a.jpg/t.onnx"], "a.jpg is a file"),
        (["--calibration", "{}/text", "--mode", "max"], "unknown calibration mode 'max'"),
        (
            ["--calibration", "{}/bare.json", "--images", "{}/text", "--random", "--max-drop", "1"],
            "--max-drop and --random exclude each other",
        ),
    ],
)
def test_mistakes_are_one_line_and_code_2(
    command: Callable[..., tuple[int, str]], tmp_path: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.jpg").write_text("no picture")
    person = {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "bbox": [0, 0, 9, 9], "area": 81,
              "keypoints": [0] * 51, "num_keypoints": 0}  # fmt: skip
    content = {"images": [{"id": 1, "file_name": "a.jpg", "width": 9, "height": 9}], "annotations": [person]}
    (tmp_path / "bare.json").write_text(json.dumps({**content, "categories": [{"id": 1, "name": "person"}]}))
    code, output = command(*(argument.format(tmp_path) for argument in arguments))
    assert code == 2 and message in output and len(output.splitlines()) == 1
    assert not (tmp_path / "t.onnx").exists()


def test_the_command_tells_what_it_did(command: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    shutil.copy(EXAMPLES / "astronaut.png", tmp_path / "in")
    arguments = ("--calibration", str(tmp_path / "in"), "--batches", "1", "--batch-size", "1", "--threads", "1")
    code, output = command(*arguments)
    assert code == 0, output
    assert "s8 latency (ms)" in output and "Heatmaps differ by" in output and "posezoo predict photo.jpg -m" in output
    code, output = command(*arguments, "--json")
    found = json.loads(output)
    assert found["calibrated_on"] == 1 and found["latency"]["fp32_ms"] > 0 and found["path"].endswith("t.onnx")
    assert found["latency"]["processor"] == cpu_name()


def test_all_of_it_takes_the_threads_that_were_asked_for(
    network: Network, crops: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime as ort

    from posezoo.deploy.compare import latency

    sessions: list[int] = []
    torch_has: list[int] = []
    real = ort.InferenceSession

    def session(graph: Any, options: Any, **others: Any) -> Any:
        sessions.append(options.intra_op_num_threads)
        torch_has.append(torch.get_num_threads())
        return real(graph, options, **others)

    monkeypatch.setattr(ort, "InferenceSession", session)
    monkeypatch.setattr("posezoo.deploy.compare.ROUNDS", 1)
    before, path = torch.get_num_threads(), tmp_path / "t.onnx"
    quantize.quantize(network, [crops[:2]], path, runtime="onnx", threads=3)
    assert sessions and set(sessions) == set(torch_has) == {3} and torch.get_num_threads() == before
    qdq.simplified(network.proto)
    assert sessions.pop() == 1  # of constants alone
    with pytest.raises(PosezooError):  # put back after an error too
        quantize.quantize(network, [crops[:2]], path, runtime="onnx", threads=3, max_error=1e-9)
    assert torch.get_num_threads() == before
    latency(network, path, 3)
    assert set(sessions) == {3}


def test_the_command_hands_its_threads_to_all_who_compute(
    command: Callable[..., tuple[int, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    shutil.copy(EXAMPLES / "astronaut.png", tmp_path / "in")
    asked: list[int | None] = []
    settle = base.settle_threads

    def settled(threads: int | None) -> int:
        asked.append(threads)
        return settle(threads)

    for module in (base, runtimes, onnx_runtime, openvino_runtime, torch_runtime):
        monkeypatch.setattr(module, "settle_threads", settled)
    arguments = ("--calibration", str(tmp_path / "in"), "--batches", "1", "--batch-size", "1")
    code, output = command(*arguments, "--threads", "3")
    assert code == 0, output
    assert len(asked) > 5 and set(asked) == {3}


def test_a_judge_computes_with_the_threads_that_were_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def evaluate(*_: Any, **options: Any) -> Any:
        raise PosezooError(f"{options['threads']} threads")

    monkeypatch.setattr("posezoo.evaluate.run.run_evaluation", evaluate)
    judge = compare.Judged(calibrate.Labelled("coco", tmp_path / "a.json", (tmp_path,)), threads=3)
    with pytest.raises(PosezooError, match="3 threads"):
        judge(tmp_path / "t.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_embedded_network_keeps_its_accuracy(shared: Path, tmp_path: Path, runtime: str) -> None:
    data = shared / "data" / "coco_dev"
    labels = ["--calibration", str(data / "annotations.json"), "--images", str(data / "images")]
    file = str(tmp_path / f"e{quantize.SUFFIXES[runtime]}")
    found = json.loads(command_line.run("quantize", "embedded", *labels, "--batches", "4", "-o", file, "--json").out)
    assert found["error"] < 5 and found["accuracy"]["drop"] < 0.5 and found["latency"]["ratio"] > 1

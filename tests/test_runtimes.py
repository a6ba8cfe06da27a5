"""Runtimes: whatever computes a network, the result is the same; what cannot be computed is refused in one line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from posezoo import Estimator, Poses, get_entry
from posezoo.deploy import runtimes
from posezoo.deploy.metadata import metadata_of, weights_metadata
from posezoo.deploy.runtimes import default_batch_size, default_threads, describe, open_runtime
from posezoo.errors import PosezooError
from posezoo.estimator import NetworkSpec, open_network
from posezoo.media.images import read_image
from posezoo.zoo import packaged_file
from tiny_networks import METADATA, pose_network

EXAMPLE = Path(__file__).parents[1] / "examples" / "basketball.png"
NEEDS = {"openvino": "openvino", "torch": "torch", "torch-compile": "torch"}
DETECTED = np.array([[20, 40, 220, 460], [300, 60, 520, 470]])


def poses_by(runtime: str, **settings: object) -> Poses:
    pytest.importorskip(NEEDS.get(runtime, "onnxruntime"))
    estimator = Estimator("embedded", detector=None, runtime=runtime, device="cpu", threads=1, **settings)
    assert (estimator.runtime.name, estimator.runtime.device, estimator.runtime.threads) == (runtime, "cpu", 1)
    return estimator(read_image(EXAMPLE), DETECTED)


@pytest.fixture(scope="module")
def wanted() -> Poses:
    return poses_by("onnx")


def assert_same(found: Poses, wanted: Poses, pixels: float = 0.05) -> None:
    assert np.abs(found.keypoints_xy - wanted.keypoints_xy).max() < pixels
    assert np.abs(found.scores - wanted.scores).max() < pixels / 10


@pytest.mark.parametrize("runtime", ["openvino", "torch"])
def test_every_runtime_finds_the_same_joints(runtime: str, wanted: Poses) -> None:
    assert_same(poses_by(runtime), wanted)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_compiled_it_finds_the_same_joints(wanted: Poses) -> None:
    assert_same(poses_by("torch-compile"), wanted)


@pytest.mark.parametrize("runtime", ["openvino", "torch"])
def test_both_networks_of_the_pair_run_by_every_runtime(runtime: str) -> None:
    pytest.importorskip(NEEDS[runtime])
    image = read_image(EXAMPLE)
    found, again = (Estimator(runtime=name, device="cpu", threads=1)(image) for name in (runtime, "onnx"))
    assert len(found) == len(again) >= 1
    assert np.abs(found.boxes_xyxy - again.boxes_xyxy).max() < 0.1


@pytest.mark.slow
def test_in_half_precision_the_joints_are_nearly_the_same(wanted: Poses) -> None:
    pytest.importorskip("torch")
    found = Estimator("embedded", detector=None, device="cpu", threads=1, precision="bf16")
    assert (found.runtime.name, found.runtime.precision) == ("torch", "bf16")  # ONNX Runtime computes what is stored
    sure = wanted.scores > 0.5
    differences = np.abs(found(read_image(EXAMPLE), DETECTED).keypoints_xy - wanted.keypoints_xy)[sure]
    assert 1e-4 < differences.max() < 6 and np.median(differences) < 1


@pytest.mark.slow
def test_compiling_does_not_spoil_norms_behind_transposed_convolutions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inductor's `freezing` folds such a norm along the wrong axis, which shows where there are as many channels."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    norm = torch.nn.BatchNorm2d(8)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.ConvTranspose2d(8, 8, 4, 2, 1, bias=False), norm, torch.nn.ReLU()
    )
    for array in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
        array.uniform_(0.3, 3)
    module.eval()
    monkeypatch.setattr(runtimes.torch, "torch_module", lambda model, weights: (module, {}))
    batch = np.random.default_rng(0).normal(size=(2, 3, 16, 12)).astype(np.float32)
    opened = runtimes.open_torch(get_entry("embedded"), "cpu", 1, compiled=True)
    with torch.inference_mode():
        plain = module(torch.from_numpy(batch)).numpy()
    np.testing.assert_allclose(opened(batch)[0], plain, atol=1e-4)
    np.testing.assert_allclose(opened(batch[:1])[0], plain[:1], atol=1e-4)
    assert describe(opened) == "torch-compile on cpu, fp32, 1 thread"


@pytest.mark.parametrize("runtime", ["onnx", "openvino", "torch"])
def test_batches_of_any_size_and_of_none(runtime: str) -> None:
    pytest.importorskip(NEEDS.get(runtime, "onnxruntime"))
    opened = open_runtime(get_entry("embedded"), runtime, "cpu", 1)
    crops = np.random.default_rng(0).uniform(-1, 1, (3, 3, 256, 192)).astype(np.float32)
    together = opened(crops)[0]
    assert together.shape == (3, 17, 64, 48) and together.dtype == np.float32
    for size in (1, 2):
        np.testing.assert_allclose(opened(crops[:size])[0], together[:size], atol=2e-5)
    assert opened(crops[:0])[0].shape == (0, 17, 64, 48)
    assert np.abs(together - opened(crops * 1.0)[0]).max() == 0  # and nothing was overwritten
    for wrong in (crops[:, :2], crops[0]):
        with pytest.raises(PosezooError, match="refused an input of shape"):
            opened(wrong)


def test_openvino_refuses_what_it_would_silently_not_compute() -> None:
    pytest.importorskip("openvino")
    opened = open_runtime(get_entry("embedded"), "openvino", "cpu", 1)
    for wrong in (np.zeros((1, 3, 100, 192), np.float32), np.zeros((1, 3, 256, 192), np.uint8)):
        with pytest.raises(PosezooError, match=r"refused an input of shape .*: it wants"):
            opened(wrong)


def test_threads_are_those_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = get_entry("embedded")
    for threads in (1, 2):
        opened = open_runtime(entry, "onnx", "cpu", threads)
        assert opened.threads == opened.session.get_session_options().intra_op_num_threads == threads
        assert describe(opened) == f"onnx on cpu, fp32, {threads} thread{'s' * (threads > 1)}"
    monkeypatch.setenv("OMP_NUM_THREADS", "3,2")
    assert default_threads() == open_runtime(entry, "onnx", "cpu").threads == 3
    for useless in ("", "0", "many"):
        monkeypatch.setenv("OMP_NUM_THREADS", useless)
        assert default_threads() >= 1
    assert default_batch_size("cuda") > default_batch_size("cpu") == Estimator(detector=None).batch_size
    assert Estimator(detector=None, batch_size=5).batch_size == 5


@pytest.mark.slow
def test_threads_of_openvino_and_torch() -> None:
    pytest.importorskip("openvino")
    torch = pytest.importorskip("torch")
    one, two = (open_runtime(get_entry("embedded-detector"), "torch", "cpu", threads) for threads in (1, 2))
    image = np.zeros((1, 3, 32, 32), np.float32)
    for opened, threads in ((one, 1), (two, 2), (one, 1)):  # torch has one number, each runtime its own
        opened(image)
        assert torch.get_num_threads() == opened.threads == threads
        openvino = open_runtime(get_entry("embedded-detector"), "openvino", "cpu", threads)
        assert openvino.threads == openvino.compiled.get_property("INFERENCE_NUM_THREADS") == threads


OPENED_AND_GONE = """
import os, signal
from posezoo.deploy.runtimes import open_runtime
from posezoo.zoo import get_entry
opened = [open_runtime(get_entry("embedded-detector"), "openvino", "cpu", 1) for _ in range(2)]
while opened:
    del opened[0]
signal.signal(signal.SIGTERM, lambda *_: print("asked to stop"))
os.kill(os.getpid(), signal.SIGTERM)
"""


def test_signals_are_heard_after_openvino() -> None:
    pytest.importorskip("openvino")
    done = subprocess.run([sys.executable, "-c", OPENED_AND_GONE], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "asked to stop\n"), done.stderr


# ---- files that can be run alone


def as_onnx(folder: Path, metadata: dict) -> Path:
    return pose_network(folder / "network.onnx", metadata=metadata)


def as_openvino(folder: Path, metadata: dict) -> Path:
    ov = pytest.importorskip("openvino")
    model = ov.Core().read_model(pose_network(folder / "plain.onnx", metadata=None))
    model.set_rt_info(json.dumps(metadata), "posezoo")
    ov.save_model(model, folder / "network.xml", compress_to_fp16=False)
    return folder / "network.xml"


def as_program(folder: Path, metadata: dict) -> Path:
    torch = pytest.importorskip("torch")
    module = torch.nn.Conv2d(3, 17, 4, 4).eval()
    batch = torch.export.Dim.DYNAMIC
    program = torch.export.export(module, (torch.zeros(2, 3, 256, 192),), dynamic_shapes=({0: batch},))
    torch.export.save(program, folder / "network.pt2", extra_files={"posezoo.json": json.dumps(metadata)})
    return folder / "network.pt2"


FILES = {as_onnx: "onnx", as_openvino: "openvino", as_program: "torch"}


@pytest.mark.parametrize("save", FILES, ids=lambda save: save.__name__)
def test_what_is_written_into_a_file_is_read_from_it(save: Callable[[Path, dict], Path], tmp_path: Path) -> None:
    entry = get_entry("simple_pose_resnet50_v1b.gluoncv_coco_256x192")
    spec = replace(NetworkSpec.of({"name": entry.name, **METADATA}), flip_shift=True, mean=(0.1, 0.2, 0.3))
    written = metadata_of(spec, entry, note="a word more", nothing=None)
    assert written["format"] == 1 and written["codec"] == "heatmap-dark" and written["note"] == "a word more"
    assert written["entry"] == entry.name and written["licence"] == entry.licence and "nothing" not in written
    read, opened = open_network(save(tmp_path, written), device="cpu", threads=1)
    assert read == spec and opened.metadata() == json.loads(json.dumps(written))
    assert (opened.name, opened.precision) == (FILES[save], "fp32")
    assert opened(np.zeros((3, 3, 256, 192), np.float32))[0].shape == (3, 17, 64, 48)


def test_openvino_reads_what_an_onnx_file_says(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    file = pose_network(tmp_path / "a.onnx")
    (by_onnx, _), (by_openvino, opened) = (open_network(file, runtime=name) for name in ("onnx", "openvino"))
    assert by_onnx == by_openvino and opened.name == "openvino"


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"format": 2, "made_by": "posezoo 9.1"}, "was made by posezoo 9.1: .* does not know its format 2"),
        ({"format": 1, "output": "meshes"}, "made by another version of posezoo: .* its output 'meshes'"),
    ],
)
def test_a_file_of_another_version(metadata: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(PosezooError, match=message):
        open_network(pose_network(tmp_path / "a.onnx", metadata={**METADATA, **metadata}))


def test_weights_that_say_what_they_are_need_no_name(tmp_path: Path, wanted: Poses) -> None:
    pytest.importorskip("torch")
    from posezoo.zoo.weights.convert import convert

    packed = packaged_file(get_entry("embedded"), ".safetensors")
    assert packed is not None
    convert(packed, tmp_path / "mine.safetensors", "embedded")
    (spec, opened), (ours, _) = open_network(tmp_path / "mine.safetensors", device="cpu"), open_network("embedded")
    assert spec == ours and opened.name == "torch"
    for file in (packed, tmp_path / "mine.safetensors"):
        assert weights_metadata(file)["entry"] == ours.name
        found = Estimator(file, detector=None, device="cpu", threads=1)(read_image(EXAMPLE), DETECTED)
        assert_same(found, wanted)


def test_weights_that_do_not(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    file = tmp_path / "weights.safetensors"
    safetensors.save_file({"a": np.zeros(3)}, file, {"recipe": "mine"})
    with pytest.raises(PosezooError, match=r"does not say which model .*-m NAME --weights .*weights\.safetensors"):
        open_network(file)
    file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(PosezooError, match="not a whole safetensors file"):
        open_network(file)


# ---- a graph that takes crops as they are, and gives joints


def joints_network(path: Path, **more: object) -> Path:
    """Every joint where the brightest red (x) and green (y) of the crop say, its score the brightest blue / 255."""
    nodes = [
        helper.make_node("Cast", ["crops"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["floats"], ["brightest"], axes=[1, 2], keepdims=0),
        helper.make_node("Mul", ["brightest", "scale"], ["scaled"]),
        helper.make_node("Unsqueeze", ["scaled", "one"], ["row"]),
        helper.make_node("Tile", ["row", "repeats"], ["joints"]),
    ]
    constants = {
        "scale": np.array([1, 1, 1 / 255], np.float32),
        "one": np.array([1]),
        "repeats": np.array([1, 17, 1]),
    }
    graph = helper.make_graph(
        nodes,
        "joints",
        [helper.make_tensor_value_info("crops", TensorProto.UINT8, ["N", 256, 192, 3])],
        [helper.make_tensor_value_info("joints", TensorProto.FLOAT, ["N", 17, 3])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    text = json.dumps({**METADATA, "format": 1, "input": "crops", "output": "joints", **more})
    helper.set_model_props(model, {"posezoo": text})
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_a_graph_that_takes_crops_and_gives_joints(runtime: str, tmp_path: Path) -> None:
    pytest.importorskip(NEEDS.get(runtime, "onnxruntime"))
    estimator = Estimator(joints_network(tmp_path / "a.onnx"), detector=None, runtime=runtime, device="cpu", threads=1)
    image = np.full((400, 400, 3), (96, 128, 204), np.uint8)
    poses = estimator(image, [[10, 20, 70, 100], [100, 100, 200, 300], [0, 0, 400, 400]] * 4)
    # crop pixel (96, 128) is the middle of the crop, and so of the box
    assert np.abs(poses.keypoints_xy[:3, 5] - [[40, 60], [150, 200], [200, 200]]).max() < 1.5
    assert np.allclose(poses.scores, 0.8) and len(poses) == 12
    assert len(estimator(image, np.zeros((0, 4)))) == 0


def test_joints_cannot_be_averaged_with_the_mirrored(tmp_path: Path) -> None:
    file = joints_network(tmp_path / "a.onnx")
    with pytest.raises(PosezooError, match="decodes inside its graph, and a flip test averages maps"):
        Estimator(file, detector=None, flip=True)
    estimator = Estimator(file, detector=None)
    with pytest.raises(PosezooError, match="without flip"):
        estimator.flip = True


def test_crops_of_maps_can(tmp_path: Path) -> None:
    """The mirrored crop is mirrored in its width, wherever that axis is."""
    seen = []

    def network(batch: np.ndarray) -> list[np.ndarray]:
        seen.append(batch.copy())
        return [np.zeros((len(batch), 17, 64, 48), np.float32)]

    estimator = Estimator(pose_network(tmp_path / "a.onnx"), detector=None, flip=True)
    image = np.random.default_rng(0).integers(0, 255, (256, 192, 3), np.uint8)
    for kind, axis in (("planes", 3), ("crops", 2)):
        seen.clear()
        estimator.spec, estimator.runtime = replace(estimator.spec, input=kind), network
        estimator(image, [[0, 0, 192, 256]])
        assert seen[0].shape[1:] == ((3, 256, 192) if kind == "planes" else (256, 192, 3))
        assert (seen[1] == np.flip(seen[0], axis)).all() and np.ptp(seen[0]) > 0.5


def test_on_cuda_torch_has_all_of_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """From crop to decode; what that is made of is made anew only where a setting has changed."""
    torch = pytest.importorskip("torch")
    from posezoo.deploy import on_device

    made = []

    class Fake:
        def __init__(self, *settings: object) -> None:
            made.append(settings)

        def __call__(self, images: list, image_of: np.ndarray, to_crop: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return np.full((len(to_crop), 17, 2), 80, np.float32), np.ones((len(to_crop), 17), np.float32)

    monkeypatch.setattr(on_device, "OnDevice", Fake)
    estimator = Estimator("embedded", detector=None)
    runtime = estimator.runtime = runtimes.TorchRuntime(None, "cuda:0", fixed=True)
    boxes, image = [[0, 0, 160, 192]], np.zeros((192, 160, 3), np.uint8)
    for _ in range(2):
        poses = estimator(image, boxes)
    assert np.ptp(poses.keypoints_xy, axis=1).max() == 0 and (poses.scores == 1).all()
    assert made == [(estimator.spec, runtime, False, 8)]
    estimator.flip = True
    estimator(image, boxes)
    assert len(made) == 2 and made[1][2] is True
    estimator.runtime = runtimes.TorchRuntime(lambda x: torch.zeros(len(x), 17, 48, 40), "cpu")
    estimator(image, boxes)
    assert len(made) == 2

"""`posezoo export`: each format, with normalisation and decode inside or not, checked, whole or not at all."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("openvino")

from safetensors.torch import save_file  # noqa: E402
from torch import nn  # noqa: E402

import command_line  # noqa: E402
from posezoo.codecs import CODECS, get_codec  # noqa: E402
from posezoo.crop import normalise  # noqa: E402
from posezoo.deploy import agree, graph  # noqa: E402
from posezoo.deploy.export import FORMATS, export, fold_batchnorm  # noqa: E402
from posezoo.deploy.runtimes import open_runtime  # noqa: E402
from posezoo.deploy.write import pair_path, write_graph  # noqa: E402
from posezoo.errors import PosezooError  # noqa: E402
from posezoo.estimator import Estimator, NetworkSpec, open_network  # noqa: E402
from posezoo.models.build import ARCHS, build  # noqa: E402
from posezoo.models.deform import DeformConv2d  # noqa: E402
from posezoo.models.heads import Upsample  # noqa: E402
from posezoo.models.layers import ConvNorm  # noqa: E402
from posezoo.skeletons import get_skeleton  # noqa: E402

SPEC = {
    "arch": "tiny",
    "skeleton": "coco17",
    "codec": "heatmap-dark",
    "input_size_wh": "48 64",
    "channels": "bgr",
    "mean": "0.4 0.5 0.6",
    "std": "0.2 0.25 0.3",
    "box_scale": "1.25",
    "flip_shift": "true",
}
FILES = {"onnx": "tiny.onnx", "openvino": "tiny.xml", "torch-export": "tiny.pt2"}


def tiny(joints: int) -> nn.Module:
    """A little of each: a gate, a transposed convolution with as many channels out as in, norms, smooth heatmaps."""
    relu = nn.ReLU(inplace=True)
    down = [ConvNorm(3, 8, 3, 2, act=relu), ConvNorm(8, 8, 3, 2, act=relu), ConvNorm(8, 8, 3, 2, act=relu)]
    return nn.Sequential(*down, Upsample(8, 8), nn.Conv2d(8, joints, 1), nn.AvgPool2d(5, 1, 2))


def fill(module: nn.Module) -> nn.Module:
    """Weights as far from each other as trained ones are, and norms that fit them: rounding stays rounding."""
    torch.manual_seed(0)
    for each in module.modules():
        if isinstance(each, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.kaiming_normal_(each.weight, nonlinearity="relu")
        if isinstance(each, nn.BatchNorm2d):
            each.momentum = 1.0  # its statistics are those of the pictures below
            nn.init.uniform_(each.weight, 0.3, 0.6)
            nn.init.normal_(each.bias, std=0.1)
        if isinstance(each, DeformConv2d):
            nn.init.normal_(each.offset.weight, std=3e-4)
            nn.init.normal_(each.offset.bias)
    with torch.no_grad():
        module.train()(torch.randn(4, 3, 64, 64))
    return module.eval()


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Makes a .safetensors file of the tiny network, as `posezoo train` writes one."""
    monkeypatch.setitem(ARCHS, "tiny", tiny)
    monkeypatch.chdir(tmp_path)

    def make(**changed: str) -> Path:
        facts = {**SPEC, **changed}
        module = fill(tiny(len(get_skeleton(facts["skeleton"]).joints)))
        state = {key: value.contiguous() for key, value in module.state_dict().items()}
        (tmp_path / "in").mkdir(exist_ok=True)
        save_file(state, tmp_path / "in" / "tiny.safetensors", facts)
        return tmp_path / "in" / "tiny.safetensors"

    return make


def run(*words: object) -> command_line.Ran:
    return command_line.run("export", *words)


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"in"}


DEFAULT = [("onnx", True), ("openvino", False)]
LONGER = [("onnx", False), ("openvino", True), ("torch-export", False), ("torch-export", True)]


@pytest.mark.parametrize(
    ("to", "inside"), [*DEFAULT, *(pytest.param(*each, marks=pytest.mark.slow) for each in LONGER)]
)
def test_the_file_alone_computes_what_torch_does(to: str, inside: bool, weights: Any, tmp_path: Path) -> None:
    source = weights()
    spec, torch_runtime = open_network(source)
    crops = agree.random_crops(5, spec.input_size_wh)
    planes = normalise(crops, spec.mean, spec.std, spec.channels)
    maps = torch_runtime(planes)[0]
    done = export(source, FILES[to], to, uint8=inside, decode=inside)
    assert left(tmp_path) == ({"tiny.xml", "tiny.bin"} if to == "openvino" else {FILES[to]})
    assert done.task == "pose" and done.bytes == sum((tmp_path / name).stat().st_size for name in left(tmp_path))
    found, runtime = open_network(FILES[to])
    assert runtime.name == ("torch" if to == "torch-export" else to)
    if not inside:
        assert done.error < 2e-4 and done.unit == "standard deviations"
        assert found == replace(spec, name="tiny")
        for count in (1, 2, 5):
            np.testing.assert_allclose(runtime(planes[:count])[0], maps[:count], atol=2e-4 * maps.std())
        return
    assert done.error < 1e-3 and done.unit == "px" and done.joints == 4 * 17
    assert found == replace(spec, name="tiny", input="crops", output="joints")
    crop_xy, scores = spec.codec.decode(maps, spec.input_size_wh)
    joints = runtime(crops)[0]
    assert joints.shape == (5, 17, 3) and joints.dtype == np.float32
    np.testing.assert_allclose(joints[..., 2], scores, atol=1e-4)
    assert np.median(np.abs(joints[..., :2] - crop_xy)) < 1e-3
    np.testing.assert_allclose(runtime(crops[:1])[0], joints[:1], atol=1e-3)


def slow_but(quick: Any, every: Any) -> list[Any]:
    return [each if each == quick else pytest.param(each, marks=pytest.mark.slow) for each in every]


@pytest.mark.parametrize("to", slow_but("onnx", FORMATS))
@pytest.mark.parametrize("name", slow_but("combined-26", CODECS))
def test_every_codec_decodes_inside_the_graph(name: str, to: str, tmp_path: Path) -> None:
    """As the numpy codec does, blank maps too, and those of which one number is none."""
    codec = get_codec(name)
    spec = NetworkSpec("x", get_skeleton("halpe136"), codec, (48, 64), "rgb", (0, 0, 0), (1, 1, 1), 1.25, False)
    network = graph.Deployed(nn.Identity(), replace(spec, output="joints"))
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:16, :12]
    centre = rng.uniform(0, 1, (3, 136, 2, 1, 1)) * np.array([11, 15])[:, None, None]
    maps = np.exp(-((x - centre[:, :, 0]) ** 2 + (y - centre[:, :, 1]) ** 2) / 8).astype(np.float32)
    maps[0, 0], maps[0, 30] = 0, -1
    maps[1, [1, 31], 3, 3] = np.nan
    crop_xy, scores = codec.decode(maps, spec.input_size_wh)
    program = graph.trace(network, torch.from_numpy(maps))
    write_graph(program, ["joints"], tmp_path / FILES[to], to, {}, False, lambda runtime: agree.Agreement(0.0))
    joints = open_runtime(tmp_path / FILES[to])(maps)[0]
    np.testing.assert_allclose(joints[..., :2], crop_xy, atol=1e-3)
    np.testing.assert_allclose(joints[..., 2], scores, atol=1e-5)
    assert not joints[1, [1, 31]].any()


@pytest.mark.parametrize("to", slow_but("openvino", ("onnx", "openvino")))
def test_half_the_file(to: str, weights: Any, tmp_path: Path) -> None:
    source = weights(skeleton="halpe136")
    done = export(source, FILES[to], to, half=True)
    assert 2e-5 < done.error < 5e-2
    bulk = tmp_path / {"onnx": "tiny.onnx", "openvino": "tiny.bin"}[to]
    with bulk.open("rb") as file:
        content = file.read()
    parameters = fold_batchnorm(fill(tiny(136))).state_dict()
    kernel = parameters["4.weight"].half().numpy().tobytes()
    assert kernel in content


class Mirrored(nn.Module):
    """Gives something else when it is traced."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flip(3) if torch.compiler.is_compiling() else x


@pytest.mark.parametrize("decode", [False, True])
def test_what_differs_is_refused(decode: bool, weights: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = weights()
    monkeypatch.setitem(ARCHS, "tiny", lambda joints: nn.Sequential(*tiny(joints), Mirrored()))
    (tmp_path / "tiny.pt2").write_text("earlier")
    with pytest.raises(PosezooError, match=r"tiny.pt2 was not written.*differ"):
        export(source, "tiny.pt2", "torch-export", decode=decode)
    assert (tmp_path / "tiny.pt2").read_text() == "earlier" and left(tmp_path) == {"tiny.pt2"}


@pytest.mark.parametrize("wrong", ["value", "joint", "nan", "shape"])
def test_the_check_sees(wrong: str) -> None:
    numbers = {"input_size_wh": (48, 64), "mean": (0, 0, 0), "std": (1, 1, 1), "codec": "heatmap"}
    numbers |= {"box_scale": 1.25, "flip_shift": True}
    spec = NetworkSpec.of({**SPEC, "name": "x", **numbers})
    module = fill(tiny(17))

    class Runtime:
        def __init__(self, network: graph.Deployed) -> None:
            self.network = network

        def __call__(self, batch: np.ndarray) -> list[np.ndarray]:
            with torch.no_grad():
                found = self.network(torch.from_numpy(batch)).numpy().copy()
            if wrong == "shape":
                return [found[:, 1:]]
            found[-1, 3, 0] += np.nan if wrong == "nan" else 0.3 if wrong == "joint" else 0.01 * found.std()
            return [found]

    network = graph.Deployed(module, replace(spec, output="joints" if wrong == "joint" else "maps"))
    with pytest.raises(PosezooError, match=r"differ|gives"):
        agree.check_network(network, Runtime(network))  # type: ignore[arg-type]


@pytest.mark.parametrize("to", slow_but("torch-export", FORMATS))
def test_a_full_disk(to: str, weights: Any, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    source = weights(skeleton="halpe136")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))
    try:
        with pytest.raises(PosezooError, match=rf"cannot write {FILES[to]}: \w"):
            export(source, FILES[to], to)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not left(tmp_path)


def test_both_files_or_neither(tmp_path: Path) -> None:
    path, beside = tmp_path / "a.xml", tmp_path / "a.bin"
    beside.write_text("old")
    with pytest.raises(PosezooError, match="cannot write"), pair_path(path) as temporary:
        temporary.write_text("new")
        temporary.with_suffix(".bin").write_text("new")
        path.mkdir()  # takes its name
    assert beside.read_text() == "old" and left(tmp_path) == {"a.xml", "a.bin"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tiny.safetensors", "--to", "tflite"], "unknown format"),
        (["in/tiny.safetensors", "--to", "onnx", "-o", "a.xml"], "a.xml must end in .onnx"),
        (["in/tiny.safetensors", "-o", "in/folder.onnx"], "is a folder"),
        (["in/tiny.safetensors", "-o", "in/tiny.safetensors/a.onnx"], "is a file"),
        (["in/tiny.safetensors", "-o", "a.pt2", "--half"], "--half is for onnx and openvino"),
        (["in/tiny.safetensors", "--random"], "has its weights inside"),
        (["embedded", "--random", "--weights", "x.pth"], "one of --random and --weights"),
        (["embedded", "--weights", "x.onnx"], "x.onnx is a graph already"),
        (["a.onnx"], "a.onnx is a graph already"),
        (["nothing.safetensors"], "no such file: nothing.safetensors"),
        (["embeded"], "did you mean embedded"),
        (["embedded-detector", "--decode"], "is a detector"),
        (["res50_coco_256x192"], "posezoo.*--weights FILE.*--random"),
    ],
)
def test_one_line_for_a_mistake(arguments: list[str], message: str, weights: Any, tmp_path: Path) -> None:
    weights()
    (tmp_path / "in" / "folder.onnx").mkdir()
    result = run(*arguments)
    assert result.code == 2
    assert re.search(message, result.err) and result.err.count("\n") == 1
    assert not left(tmp_path)


@pytest.mark.parametrize(("module", "to"), [("onnxscript", "onnx"), ("openvino", "openvino")])
def test_names_the_missing_extra(
    module: str, to: str, weights: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = weights()
    monkeypatch.setitem(sys.modules, module, None)
    result = run(source, "--to", to)
    assert result.code == 2 and "posezoo[deploy]" in result.err and not left(tmp_path)


def test_says_what_it_wrote_and_how_to_run_it(weights: Any, tmp_path: Path) -> None:
    result = run(weights(), "--to", "openvino", "--uint8")
    lines = result.out.splitlines()
    assert result.code == 0 and len(lines) == 3
    assert "tiny.xml and tiny.bin" in lines[0] and "MB" in lines[0]
    assert "Checked" in lines[1] and lines[2].endswith("posezoo predict photo.jpg -m tiny.xml")
    done = json.loads(run(weights(), "-o", "my pose.pt2", "--json").out)  # the format is the suffix's
    assert done["to"] == "torch-export" and done["path"] == "my pose.pt2" and done["error"] < 2e-4
    stored = open_runtime(tmp_path / "my pose.pt2").metadata()
    assert stored["arch"] == "tiny" and stored["weights"] == "tiny.safetensors" and stored["channels"] == "bgr"


@pytest.mark.slow
def test_a_zoo_entry_with_random_weights_and_a_detector(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("mobile_pose_mobilenetv3_small.gluoncv_coco_256x192", "--random", "-o", "r.onnx")
    assert result.code == 0 and "RANDOM" in result.out
    assert open_runtime(tmp_path / "r.onnx").metadata()["weights"] == "random"
    result = run("embedded-detector", "-o", "d.onnx")
    assert result.code == 0 and "--detector d.onnx" in result.out
    found = Estimator(detector=tmp_path / "d.onnx")(Path(__file__).parents[1] / "examples" / "basketball.png")
    assert len(found)


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHS)
def test_every_architecture_exports_to_every_format(arch: str, tmp_path: Path) -> None:
    module = fill(build(arch, 17))
    program = graph.trace(fold_batchnorm(module), torch.randn(2, 3, 64, 64))
    outputs = [f"output{index}" for index in range(len(program.graph_signature.user_outputs))]
    for to in sorted(FORMATS, key=list(FORMATS).index, reverse=True):  # ONNX's translation changes the graph
        found = write_graph(
            program,
            outputs,
            tmp_path / FILES[to],
            to,
            {},
            False,
            lambda runtime: agree.check_outputs(module, runtime, [(64, 64)], 2e-4),
        )
        assert found.error < 2e-4 or found.rounding < 0.01  # the order of sums shows, then

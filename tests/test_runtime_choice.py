"""Which runtime computes, what cannot be, and what the commands say of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from posezoo import Estimator, get_entry, get_skeleton
from posezoo.codecs import get_codec
from posezoo.deploy import runtimes
from posezoo.deploy.metadata import metadata_of
from posezoo.deploy.runtimes import describe, open_runtime
from posezoo.errors import PosezooError
from posezoo.estimator import NetworkSpec, open_network
from posezoo.files import write_atomic
from posezoo.zoo import Entry
from posezoo.zoo.owner import entry_of, facts_with
from tiny_networks import METADATA, pose_network

EXAMPLE = Path(__file__).parents[1] / "examples" / "basketball.png"
NEEDS = {"openvino": "openvino", "torch": "torch", "torch-compile": "torch"}

# ---- which runtime, and what cannot be


@pytest.fixture
def opened_by(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, object]]:
    """What is opened by whom, in place of doing it."""
    seen: list[tuple[str, object]] = []

    def opener(name: str) -> Callable[..., SimpleNamespace]:
        def note(model: object, *rest: object, compiled: bool = False) -> SimpleNamespace:
            seen.append(
                (name + "-compile" * compiled, model.name if isinstance(model, Entry) else Path(str(model)).name)
            )
            return SimpleNamespace()

        return note

    for name in ("onnx", "openvino", "torch"):
        monkeypatch.setattr(runtimes, f"open_{name}", opener(name))
    return seen


def test_auto_chooses(opened_by: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zoo, embedded = get_entry("simple_pose_resnet18_v1b.gluoncv_coco_256x192"), get_entry("embedded")
    files = {suffix: tmp_path / f"a{suffix}" for suffix in runtimes.NETWORK_FILES}
    for file in files.values():
        file.touch()
    for model, settings, wanted in [
        (embedded, {}, ("onnx", "pose.onnx")),
        (embedded, {"runtime": "openvino"}, ("openvino", "pose.onnx")),
        (embedded, {"runtime": "torch"}, ("torch", embedded.name)),
        (embedded, {"precision": "bf16"}, ("torch", embedded.name)),
        (embedded, {"device": "cuda"}, ("torch", embedded.name)),
        (embedded, {"weights": files[".safetensors"]}, ("torch", embedded.name)),
        (embedded, {"weights": files[".xml"]}, ("openvino", "a.xml")),
        (zoo, {}, ("torch", zoo.name)),
        (zoo, {"runtime": "torch-compile"}, ("torch-compile", zoo.name)),
        (files[".onnx"], {}, ("onnx", "a.onnx")),
        (files[".onnx"], {"runtime": "openvino"}, ("openvino", "a.onnx")),
        (files[".xml"], {}, ("openvino", "a.xml")),
        (files[".pt2"], {}, ("torch", "a.pt2")),
        (files[".pt2"], {"runtime": "torch-compile"}, ("torch-compile", "a.pt2")),
        (files[".safetensors"], {}, ("torch", "a.safetensors")),
    ]:
        monkeypatch.setattr(runtimes, "onnx_has_cuda", lambda: False)
        open_runtime(model, **settings)
        assert opened_by.pop() == wanted, (model, settings)
    monkeypatch.setattr(runtimes, "onnx_has_cuda", lambda: True)
    open_runtime(embedded, device="cuda")
    assert opened_by == [("onnx", "pose.onnx")]


@pytest.mark.parametrize(
    ("model", "settings", "message"),
    [
        ("embedded", {"precision": "half"}, "unknown precision 'half'"),
        ("embedded", {"precision": "int8"}, "network in fp32: make one in int8 of it with posezoo quantize"),
        ("embedded", {"precision": "bf16", "runtime": "onnx"}, "ONNX Runtime does not compute in bf16"),
        ("embedded", {"runtime": "openvino", "device": "cuda"}, "OpenVINO computes on the CPU here"),
        ("embedded", {"runtime": "torch", "device": "cuda"}, "torch found no CUDA device: choose --device cpu"),
        ("none.xml", {}, "no such file: none.xml"),
        ("folder.onnx", {}, "folder.onnx is a folder"),
        ("text.onnx", {}, "text.onnx is not an ONNX file"),
        ("empty.onnx", {}, "empty.onnx is not an ONNX file: it is empty"),
        ("short.onnx", {}, "ONNX Runtime cannot load short.onnx"),
        ("short.onnx", {"runtime": "openvino"}, "OpenVINO cannot load short.onnx: Model can't be parsed"),
        ("text.xml", {}, "text.xml is not an OpenVINO file"),
        ("alone.xml", {}, "alone.xml is one file of two: alone.bin must lie beside it"),
        ("torn.xml", {}, "OpenVINO cannot load torn.xml"),
        ("text.pt2", {}, "text.pt2 is not a .pt2 file"),
        ("short.pt2", {}, "short.pt2 is not a whole .pt2 file"),
        ("other.pt2", {}, "other.pt2 is no program that torch .* can load"),
        ("alone.xml", {"runtime": "torch"}, "the torch runtime cannot run it; .xml files are for openvino"),
        ("short.pt2", {"runtime": "onnx"}, "the onnx runtime cannot run it; .pt2 files are for torch or torch-compile"),
    ],
)
def test_what_cannot_be_opened(
    model: str,
    settings: dict,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture,
) -> None:
    for module in ("openvino", "torch"):
        pytest.importorskip(module)
    import zipfile

    import torch

    if settings.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    monkeypatch.chdir(tmp_path)
    Path("folder.onnx").mkdir()
    for suffix in (".onnx", ".xml", ".pt2"):
        Path(f"text{suffix}").write_text("hello")
    Path("empty.onnx").touch()
    whole = pose_network(tmp_path / "whole.onnx").read_bytes()
    Path("short.onnx").write_bytes(whole[: len(whole) // 2])
    for name in ("alone", "torn"):
        Path(f"{name}.xml").write_text("<?xml version='1.0'?><net name='a'><layers>")
    Path("torn.bin").write_bytes(b"123")
    Path("short.pt2").write_bytes(b"PK\3\4 and so on")
    with zipfile.ZipFile("other.pt2", "w") as archive:
        archive.writestr("a.txt", "hello")
    with pytest.raises(PosezooError, match=message) as error:
        open_network(model, device=settings.pop("device", "auto"), **settings)
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")  # the libraries have no word beside ours


@pytest.mark.parametrize(
    ("runtime", "module", "extra"), [("openvino", "openvino", "deploy"), ("torch", "torch", "torch")]
)
def test_a_runtime_that_is_not_installed_names_its_extra(
    runtime: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:

    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(PosezooError, match=rf"pip install 'posezoo\[{extra}\]'"):
        Estimator("embedded", detector=None, runtime=runtime)


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_a_quantised_file_is_told_and_only_computed_so(runtime: str, tmp_path: Path) -> None:
    pytest.importorskip(NEEDS.get(runtime, "onnxruntime"))
    file = tmp_path / "int8.onnx"
    nodes = [
        helper.make_node("QuantizeLinear", ["image", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["back"]),
    ]
    constants = {"scale": np.array(0.1, np.float32), "zero": np.array(0, np.int8)}
    graph = helper.make_graph(
        nodes,
        "quantised",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("back", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    file.write_bytes(model.SerializeToString())
    for precision in ("auto", "int8"):
        assert open_runtime(file, runtime, "cpu", 1, precision=precision).precision == "int8"
    with pytest.raises(PosezooError, match="is a network in int8: for fp32 give what it was quantised from"):
        open_runtime(file, runtime, "cpu", 1, precision="fp32")


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_a_model_without_a_file_is_exported_for_a_runtime(runtime: str, tmp_path: Path) -> None:
    for module in ("torch", "onnxscript", NEEDS.get(runtime, "onnxruntime")):
        pytest.importorskip(module)
    from safetensors.torch import save_file

    from posezoo import get_model

    name = "mobile_pose_mobilenetv3_small.gluoncv_coco_256x192"
    save_file(get_model(name).state_dict(), tmp_path / "random.safetensors")
    crops = np.random.default_rng(0).normal(size=(3, 3, 256, 192)).astype(np.float32)
    spec, opened = open_network(name, tmp_path / "random.safetensors", runtime, "cpu", 1)
    wanted = open_network(name, tmp_path / "random.safetensors", "torch", "cpu", 1)[1](crops)[0]
    assert (opened.name, opened.precision, spec.name) == (runtime, "fp32", name)
    assert np.abs(opened(crops)[0] - wanted).max() < 1e-3 * wanted.std()
    with pytest.raises(PosezooError, match="make one in int8 of it with posezoo quantize"):
        open_network(name, tmp_path / "random.safetensors", runtime, "cpu", 1, "int8")


# ---- what the commands say of it


def test_what_really_ran_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from posezoo import cli

    network = str(pose_network(tmp_path / "a.onnx"))
    command = [
        "predict",
        str(EXAMPLE),
        "-m",
        network,
        "--detector",
        "whole",
        "--no-images",
        "-o",
        str(tmp_path / "out"),
    ]
    for more in ([], ["--json"]):
        with pytest.raises(SystemExit) as ended:
            cli.main([*command, "--threads", "2", "--device", "cpu", *more])
        assert not ended.value.code
        told = capsys.readouterr().out
        if more:
            expected = {"runtime": "onnx", "device": "cpu", "precision": "fp32", "threads": 2, "batch_size": 8}
            assert expected.items() <= json.loads(told).items()
        else:
            assert f"({network}; onnx on cpu, fp32, 2 threads)" in told
    with pytest.raises(SystemExit) as ended:
        cli.main([*command, "--precision", "int8"])
    assert ended.value.code == 2 and "a.onnx is a network in fp32" in capsys.readouterr().err


def test_a_file_where_a_folder_should_be_is_named(tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.write_text("x")
    for target in (taken / "a.json", taken / "deeper" / "a.json"):
        with pytest.raises(PosezooError, match=r"cannot write to the folder .*taken is a file"):
            write_atomic(target, "new")
    write_atomic(tmp_path / "new" / "folder" / "a.json", "new")
    assert (tmp_path / "new" / "folder" / "a.json").read_text() == "new" and taken.read_text() == "x"


# ---- whose weights these are


def test_an_alias_stands_for_the_entry_whose_weights_are_given(tmp_path: Path) -> None:
    small, large = (f"simple_pose_resnet152_v1d.gluoncv_coco_{size}" for size in ("256x192", "384x288"))
    tag = get_entry(large).weights[0].hash_tag
    named = tmp_path / f"something-{tag}.params"
    named.write_bytes(b"x")
    assert entry_of("simple_pose_resnet152_v1d").name == small
    assert entry_of("simple_pose_resnet152_v1d", named).name == large
    assert entry_of(small, named).name == small  # its own name is no guess
    other = tmp_path / "mine.params"
    other.write_bytes(b"x")
    assert entry_of("simple_pose_resnet152_v1d", other).name == small


def test_or_whose_weights_say_so(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    large = "simple_pose_resnet152_v1d.gluoncv_coco_384x288"
    safetensors.save_file({"a": np.zeros(3)}, tmp_path / "a.safetensors", {"name": large, "arch": "x"})
    assert entry_of("simple_pose_resnet152_v1d", tmp_path / "a.safetensors").name == large


def test_or_whose_weights_have_its_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib

    from posezoo.zoo import owner

    file = tmp_path / "renamed.params"
    file.write_bytes(b"weights")
    small, large = (get_entry(f"simple_pose_resnet152_v1d.gluoncv_coco_{size}") for size in ("256x192", "384x288"))
    theirs = replace(large.weights[0], hash_tag=hashlib.sha1(b"weights").hexdigest()[:8], sha256=None)
    entries = {small.name: small, large.name: replace(large, weights=(theirs,))}
    monkeypatch.setattr(owner, "list_models", lambda task: list(entries))
    monkeypatch.setattr(owner, "get_entry", lambda name: entries.get(name, small))
    assert owner.entry_of("simple_pose_resnet152_v1d", file).name == large.name


def test_skeletons_of_every_metadata_are_found_by_name() -> None:
    spec, _ = open_network("embedded")
    assert NetworkSpec.of(metadata_of(spec)) == spec and get_skeleton(metadata_of(spec)["skeleton"]) is spec.skeleton


# ---- what a file says of itself holds


def test_a_graph_given_as_weights_brings_all_that_belongs_to_it(tmp_path: Path) -> None:
    file = pose_network(tmp_path / "a.onnx")
    spec, _ = open_network("res50_coco_256x192", file, threads=1)
    assert (spec.mean, spec.std) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)) and spec.codec == get_codec("heatmap-dark")
    bare = pose_network(tmp_path / "bare.onnx", metadata=None)
    entry = get_entry("res50_coco_256x192")
    assert open_network("res50_coco_256x192", bare, threads=1)[0].mean == tuple(entry.mean)


def test_a_graph_of_another_model_is_refused(tmp_path: Path) -> None:
    small, large = (f"simple_pose_resnet152_v1d.gluoncv_coco_{size}" for size in ("256x192", "384x288"))
    file = pose_network(tmp_path / "a.onnx", metadata={**METADATA, "entry": large})
    for name in (small, "embedded"):
        with pytest.raises(PosezooError, match=f"is an export of {large}, not of"):
            open_network(name, file, threads=1)
    assert open_network("simple_pose_resnet152_v1d", file, threads=1)[0].mean == (0.0, 0.0, 0.0)  # one of several


def test_weights_of_a_training_bring_what_they_were_trained_with(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    entry = get_entry("simple_pose_resnet18_v1b")
    said = {"arch": entry.arch, "skeleton": "coco17", "codec": "heatmap-dark-blur17", "input_size_wh": "96 128",
            "channels": "bgr", "mean": "0 0 0", "std": "1 1 1", "box_scale": "1.5", "flip_shift": "false"}  # fmt: skip
    safetensors.save_file({"a": np.zeros(3)}, tmp_path / "a.safetensors", said)
    facts = facts_with(entry, tmp_path / "a.safetensors")
    spec = NetworkSpec.of(facts)
    assert (spec.name, spec.input_size_wh, spec.channels, spec.box_scale) == (entry.name, (96, 128), "bgr", 1.5)
    assert spec.codec == get_codec("heatmap-dark-blur17") and not spec.flip_shift
    safetensors.save_file({"a": np.zeros(3)}, tmp_path / "b.safetensors", {**said, "arch": "another"})
    for other in (tmp_path / "b.safetensors", tmp_path / "gone.safetensors", None):
        assert NetworkSpec.of(facts_with(entry, other)).input_size_wh == entry.input_size_wh


@pytest.mark.parametrize(("flags", "told"), [("avx2", True), ("avx2 avx512_vnni", False)])
def test_weights_of_8_bits_are_told_where_they_saturate(
    flags: str, told: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("posezoo.cpu._cpuinfo", lambda: f"flags : {flags}\n")
    monkeypatch.setattr("posezoo.cpu.platform.machine", lambda: "x86_64")
    for bits, wanted in ((8, told), (7, False)):
        file = pose_network(tmp_path / f"{bits}.onnx", metadata={**METADATA, "calibration": {"weight_bits": bits}})
        assert ("saturate" in describe(open_runtime(file, threads=1))) == wanted

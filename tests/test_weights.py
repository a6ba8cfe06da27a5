"""Weights files: every variant is read, a damaged or hostile one is an error, and what does not fit is named."""

from __future__ import annotations

import io
import os
import pickle
import struct
import tracemalloc
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors")
pytest.importorskip("safetensors.torch")

from posezoo.errors import PosezooError  # noqa: E402
from posezoo.models.build import build  # noqa: E402
from posezoo.zoo.kinds import is_cut_off  # noqa: E402
from posezoo.zoo.weights import identify, load_weights, read_weights  # noqa: E402
from posezoo.zoo.weights.convert import convert  # noqa: E402
from posezoo.zoo.weights.partial import load_fitting  # noqa: E402
from weights_fixtures import SMALL, filled  # noqa: E402


def state_of(arch: str = SMALL, joints: int = 17, seed: int = 0) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return build(arch, joints).state_dict()


# ---- PyTorch's and safetensors' files


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"epoch": 3, "model": "pose_resnet", "state_dict": {f"module.{k}": v for k, v in s.items()}},
        # Princeton's: a trainer around a data-parallel network
        lambda s: {"state_dict": {f"model.module.{k}": v for k, v in s.items()}, "optimizer": {}, "epoch": 3},
        lambda s: {
            "model": {k: torch.zeros_like(v) for k, v in s.items()},
            "ema": {"n_averaged": torch.tensor(5), **{f"module.{k}": v for k, v in s.items()}},
        },
    ],
)
def test_torch_checkpoints(wrap: Any, legacy: bool, tmp_path: Path) -> None:
    state = state_of()
    torch.save(wrap(state), tmp_path / "a.pth.tar", _use_new_zipfile_serialization=not legacy)
    loaded = load_weights(build(SMALL, 17), tmp_path / "a.pth.tar").state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in state.items())


def test_safetensors_in_half_precision(tmp_path: Path) -> None:
    state = {key: value.half() if value.is_floating_point() else value for key, value in state_of().items()}
    safetensors.torch.save_file(state, tmp_path / "a.safetensors")
    loaded = load_weights(build(SMALL, 17), tmp_path / "a.safetensors").state_dict()
    assert all(torch.equal(loaded[key], value.to(loaded[key].dtype)) for key, value in state.items())


class _Runs:
    """Unpickling this makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


class HistoryBuffer:
    """Stands for what OpenMMLab's logger keeps; nothing of it may run when a checkpoint is read."""

    ran = 0

    def __init__(self) -> None:
        self.history = np.arange(3.0)

    def __getstate__(self) -> dict[str, Any]:
        return dict(self.__dict__)

    def __setstate__(self, state: dict[str, Any]) -> None:
        type(self).ran += 1


class Registry(dict[str, Any]):
    """A subclass of dict, which a pickle fills item by item."""

    def __setitem__(self, key: str, value: Any) -> None:
        HistoryBuffer.ran += 1


def others(state: Mapping[str, torch.Tensor], folder: Path) -> dict[str, dict[str, Any]]:
    """A checkpoint as each zoo's training writes it, `state` being what is to be found in it."""
    old = {key: torch.zeros_like(value) for key, value in state.items()}
    last_step = {f"ema_{key.replace('.', '_')}": old[key] for key in state if state[key].is_floating_point()}
    optimizer = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(4)}}, "param_groups": [{"lr": 1e-3}]}
    return {
        "hrnet": {
            "epoch": 210,
            "model": "pose_hrnet",
            "state_dict": {f"module.{key}": value for key, value in state.items()},
            "best_state_dict": old,
            "perf": np.float64(0.7),
            "optimizer": optimizer,
        },
        "mmpose0": {
            "meta": {"time": "now", "seed": np.int64(3)},
            "state_dict": {**state, **last_step},
            "optimizer": {},
        },
        "mmpose1": {
            "meta": {"cfg": "model = dict()", "dataset_meta": {"sigmas": np.ones(17), "joints": {1, 2}}},
            "state_dict": {**state, "data_preprocessor.mean": torch.zeros(3), "data_preprocessor.std": torch.ones(3)},
            "message_hub": {"log_scalars": OrderedDict(loss=HistoryBuffer()), "registry": Registry(a=1)},
            "ema_state_dict": {"steps": torch.tensor(7), **{f"module.{key}": value for key, value in old.items()}},
            "param_schedulers": [{"last_step": 3, "method": HistoryBuffer}],
        },
        "hostile": {"state_dict": dict(state), "extra": _Runs(folder / "ran")},
    }


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("kind", ["hrnet", "mmpose0", "mmpose1", "hostile"])
def test_training_checkpoints_are_read_and_nothing_in_them_runs(kind: str, legacy: bool, tmp_path: Path) -> None:
    state = state_of()
    torch.save(others(state, tmp_path)[kind], tmp_path / "a.pth", _use_new_zipfile_serialization=not legacy)
    HistoryBuffer.ran = 0
    loaded = load_weights(build(SMALL, 17), tmp_path / "a.pth").state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in state.items())
    assert not (tmp_path / "ran").exists()
    assert HistoryBuffer.ran == 0


@pytest.mark.parametrize("spelling", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_numbers_of_either_numpy(spelling: bytes, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"state_dict": {"a": torch.arange(3)}, "perf": np.float64(0.5)}, buffer)
    written = zipfile.ZipFile(buffer)
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        for name in written.namelist():
            content = written.read(name)
            assert not name.endswith("data.pkl") or b"numpy._core.multiarray" in content
            archive.writestr(name, content.replace(b"numpy._core.multiarray", spelling))
    assert read_weights(tmp_path / "a.pth")["a"].tolist() == [0, 1, 2]


def test_hostile_object_in_place_of_an_array(tmp_path: Path) -> None:
    torch.save({**state_of(), "head.final.weight": _Runs(tmp_path / "ran")}, tmp_path / "a.pth")
    with pytest.raises(PosezooError, match=r"1 missing \(head.final.weight\)"):
        load_weights(build(SMALL, 17), tmp_path / "a.pth")
    assert not (tmp_path / "ran").exists()


def test_whole_network_in_a_checkpoint(tmp_path: Path) -> None:
    torch.save(build(SMALL, 17), tmp_path / "a.pth")
    with pytest.raises(PosezooError, match=r"save a network's state_dict\(\), not the network"):
        read_weights(tmp_path / "a.pth")


def test_views_parameters_and_types_beside_other_objects(tmp_path: Path) -> None:
    base = torch.arange(24.0)
    state = {
        "view": base.view(4, 6)[1:3, ::2].t(),
        "shared": base[3:5],
        "parameter": torch.nn.Parameter(torch.ones(2, 2)),
        "scalar": torch.tensor(5),
        "empty": torch.zeros(0, 3),
        **{str(kind): torch.ones(3, dtype=kind) for kind in (torch.float16, torch.bfloat16, torch.float64, torch.bool)},
    }
    for legacy in (False, True):
        path = tmp_path / f"{legacy}.pth"
        torch.save({"state_dict": state, "other": HistoryBuffer()}, path, _use_new_zipfile_serialization=not legacy)
        read = read_weights(path)
        assert list(read) == list(state)
        assert all(torch.equal(read[key], value) and read[key].dtype == value.dtype for key, value in state.items())


class Python2(pickle._Pickler):  # type: ignore[misc]
    """Writes text and bytes alike as Python 2 did: as bytes of which nothing says what they mean."""

    dispatch: ClassVar[dict[Any, Any]] = dict(pickle._Pickler.dispatch)

    def save_bytes(self, given: Any) -> None:
        data = given.encode() if isinstance(given, str) else given
        self.write(b"T" + struct.pack("<i", len(data)) + data)
        self.memoize(given)

    dispatch[bytes] = dispatch[str] = save_bytes


def test_a_checkpoint_of_python_2(tmp_path: Path) -> None:
    path, state = tmp_path / "a.pth.tar", {"conv.weight": torch.ones(3, 2)}
    module = SimpleNamespace(
        Pickler=Python2, dump=lambda given, file, protocol: Python2(file, protocol).dump(given), __name__="p"
    )
    content = {"state_dict": state, "best_acc": np.float64(0.8912345)}  # whose bytes are no text
    torch.save(content, path, module, pickle_protocol=2, _use_new_zipfile_serialization=False)
    assert not is_cut_off(path, "torch")
    assert torch.equal(read_weights(path)["conv.weight"], state["conv.weight"])


_ZIPPED_STATE = b"\x80\x02}q\x00X\x01\x00\x00\x00acos\nsystem\nX\x04\x00\x00\x00true\x85R"


@pytest.mark.parametrize(
    "pickled",
    [
        _ZIPPED_STATE + b"s.",  # os.system("true") where an array should be
        _ZIPPED_STATE + b"r\xff\xff\xff\x7fs.",  # a memo of two thousand million places
        b"\x80\x02}X\x01\x00\x00\x00acos\nsystem\n\x8e\xff\xff\xff\xff\xff\xff\xff\x7fa.",  # bytes beyond the file
        b"\x80\x02cos\nsystem\n}X\x01\x00\x00\x00aK\x01sb.",  # sets an attribute of the function
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nN}X\x0c\x00\x00\x00__defaults__)s\x86bcos\nsystem\n0.",
        b"\x80\x02\x82\x01cos\nsystem\n.",  # copyreg's registry
        b"\x80\x02}(X\x05\x00\x00\x00modelcos\nsystem\nu.",
    ],
)
def test_hostile_pickles_cost_an_error_and_no_memory(pickled: bytes, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        archive.writestr("a/data.pkl", pickled)
        archive.writestr("a/version", "3\n")
    before = dict(vars(torch._utils._rebuild_tensor_v2)), torch._utils._rebuild_tensor_v2.__defaults__
    tracemalloc.start()
    try:
        with pytest.raises(PosezooError) as caught:
            read_weights(tmp_path / "a.pth")
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)
    assert before == (dict(vars(torch._utils._rebuild_tensor_v2)), torch._utils._rebuild_tensor_v2.__defaults__)


def test_checkpoint_that_holds_itself(tmp_path: Path) -> None:
    content: dict[str, Any] = {}
    content["model"] = content
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(PosezooError, match="holds no named arrays"):
        read_weights(tmp_path / "a.pth")


@pytest.mark.parametrize("other", [None, HistoryBuffer()])
@pytest.mark.parametrize("legacy", [False, True])
def test_torch_checkpoint_cut_short(legacy: bool, other: Any, tmp_path: Path) -> None:
    content = {"model": {"a": torch.arange(1000.0)}, "other": other}
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=not legacy)
    whole = (tmp_path / "a.pth").read_bytes()
    for size in (4, 16, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "a.pth").write_bytes(whole[:size])
        with pytest.raises(PosezooError):
            read_weights(tmp_path / "a.pth")


def test_compressed_archive_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(10_000_000))
    with pytest.raises(PosezooError, match="would unpack to 10000000 bytes"):
        read_weights(tmp_path / "a.pth")


def test_huge_view_of_one_number_is_never_copied() -> None:
    state = dict(state_of())
    state["head.final.weight"] = torch.zeros(1).expand(1 << 20, 1 << 20)
    with pytest.raises(PosezooError, match=r"head.final.weight \(1048576, 1048576\) instead of"):
        load_weights(build(SMALL, 17), state)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.pth", b"hello, I am a text file\n", "is no weights file: expected .params"),
        ("a.pth", b"\n<!doctype html><html>Quota exceeded", "is a web page: expected"),
        ("a.weights", b"<html>", "is a web page: expected"),
        ("a.params", b"", "is empty: expected"),
        ("a.safetensors", struct.pack("<Q", 2**60) + b"{}" + bytes(20), "is not a whole safetensors file"),
        ("a.safetensors", struct.pack("<Q", 9999) + b'{"a"', "is not a whole safetensors file"),
        ("a.pt", b"\x80\x02}q\x00.", "is not a whole PyTorch checkpoint"),
        ("a.pth", b"PK\x03\x04" + bytes(40), "is not a whole PyTorch checkpoint: .* finding central directory$"),
    ],
)
def test_no_weights_file(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PosezooError, match=rf"{name} {message}") as caught:
        read_weights(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(PosezooError, match="No such file"):
        read_weights(tmp_path / "absent.pth")
    with pytest.raises(PosezooError, match="directory"):
        read_weights(tmp_path)


# ---- what does not fit


def test_names_of_no_zoo() -> None:
    with pytest.raises(PosezooError, match=r"names \(blocks.0.w, blocks.1.w\) are neither posezoo's nor of GluonCV"):
        load_weights(build(SMALL, 17), {"blocks.0.w": torch.zeros(3), "blocks.1.w": torch.zeros(3)})


def test_what_a_checkpoint_is_shows_in_it(tmp_path: Path) -> None:
    state = {f"module.{key}": value for key, value in state_of(joints=21).items()}
    assert identify(state) == [(SMALL, 21)]
    torch.save({"state_dict": state}, tmp_path / "a.pth")
    assert identify(tmp_path / "a.pth") == [(SMALL, 21)]
    assert identify({"a": torch.zeros(3)}) == []
    assert identify({}) == []


def test_problems_are_listed_and_the_model_is_unchanged() -> None:
    torch.manual_seed(1)
    model = build(SMALL, 17)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = dict(state_of())
    state["head.what.weight"] = torch.zeros(3)
    del state["backbone.stem.conv.weight"]
    state["head.reduce.weight"] = torch.zeros(1, 2)
    state["backbone.last.conv.weight"] = torch.zeros_like(state["backbone.last.conv.weight"], dtype=torch.int32)
    with pytest.raises(PosezooError) as caught:
        load_weights(model, state)
    message = str(caught.value)
    assert "1 missing (backbone.stem.conv.weight)" in message
    assert "1 unexpected (head.what.weight)" in message
    assert "1 of another shape (head.reduce.weight (1, 2) instead of (256, 576, 1, 1))" in message
    assert "1 of another type (backbone.last.conv.weight torch.int32)" in message
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf, -torch.inf, 1e39])
def test_weights_that_are_not_finite(wrong: float, tmp_path: Path) -> None:
    """As a training that diverged leaves them, or in double precision beyond what single has."""
    model, state = build(SMALL, 17), state_of()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for key in ("backbone.last.conv.weight", "backbone.stem.bn.running_mean"):
        state[key] = state[key].double()
        state[key].view(-1)[-1] = wrong
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(PosezooError, match=r"a.pth: 2 arrays are not finite \(.*running_mean.*\): it was saved after"):
        load_weights(model, tmp_path / "a.pth")
    with pytest.raises(PosezooError, match="2 arrays are not finite"):
        load_fitting(model, tmp_path / "a.pth", SMALL, 17)
    with pytest.raises(PosezooError, match="2 arrays are not finite"):
        convert(tmp_path / "a.pth", tmp_path / "a.safetensors")
    assert not (tmp_path / "a.safetensors").exists()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_great_weights_are_finite() -> None:
    """Though their sum is not, in single precision or in half."""
    state = state_of()
    state["backbone.last.conv.weight"] = torch.full_like(state["backbone.last.conv.weight"], 3e38)
    state["head.reduce.weight"] = torch.full_like(state["head.reduce.weight"], 60000.0, dtype=torch.float16)
    loaded = load_weights(build(SMALL, 17), state).state_dict()
    assert loaded["backbone.last.conv.weight"].min() == torch.tensor(3e38)


def test_long_lists_are_shortened() -> None:
    with pytest.raises(PosezooError, match=r"\d{3} missing \(([\w.]+, ){2}[\w.]+ and \d{3} more\)") as caught:
        load_weights(build(SMALL, 17), {})
    assert len(str(caught.value)) < 300


def test_counters_of_batchnorm_are_optional() -> None:
    state = state_of()
    without = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    assert len(without) < len(state)
    loaded = load_weights(build(SMALL, 17), without).state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in without.items())


@pytest.mark.parametrize(
    ("arch", "joints"), [("mobile_pose_mobilenetv3_large", 17), (SMALL, 14), ("simple_pose_resnet18_v1b", 16)]
)
def test_the_network_that_would_fit_is_named(arch: str, joints: int) -> None:
    with pytest.raises(PosezooError, match=rf"does not fit this network \(it fits {arch} with {joints} joints[:)]"):
        load_weights(build(SMALL, 17), state_of(arch, joints))


def test_the_network_that_old_names_fit_is_named(parity: Path) -> None:
    fixture, arrays = filled(SMALL, parity)
    old = {fixture["global_names"][key]: array for key, array in arrays.items()}
    with pytest.raises(PosezooError, match=rf"does not fit this network \(it fits {SMALL} with 17 joints: {SMALL}\."):
        load_weights(build("mobile_pose_mobilenetv2_1.0", 17), old)


def test_source_that_maps_to_no_arrays() -> None:
    with pytest.raises(PosezooError, match="'a' is list"):
        load_weights(build(SMALL, 17), {"a": [1.0, 2.0]})


def test_joints_are_counted_where_heatmaps_are_read_again() -> None:
    """The next stack of an hourglass reads the heatmaps, so their number is a size of inputs too."""
    assert identify(build("hourglass_s2", 14).state_dict()) == [("hourglass_s2", 14)]

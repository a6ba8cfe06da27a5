"""Conversion: nothing of the weights changes but the names, the facts go with them, and the way back is open."""

from __future__ import annotations

import gzip
import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from safetensors import safe_open  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

import posezoo  # noqa: E402
from posezoo.errors import PosezooError  # noqa: E402
from posezoo.models.build import build  # noqa: E402
from posezoo.zoo import get_entry  # noqa: E402
from posezoo.zoo.weights import load_weights  # noqa: E402
from posezoo.zoo.weights.convert import convert  # noqa: E402

SMALL = "mobile_pose_mobilenetv3_small"


def peer_state(parity: Path, fixture: str, dtype: torch.dtype = torch.float16) -> dict[str, torch.Tensor]:
    """A peer's checkpoint by a fixture's names and shapes, each array its own number; half precision is smaller."""
    content = json.loads(gzip.decompress((parity / f"{fixture}.json.gz").read_bytes()))
    return {
        key: torch.full(shape, number, dtype=torch.int64 if kind == "int64" else dtype)
        for number, (key, shape, kind) in enumerate(content["state_dict"])
    }


def small_file(folder: Path, joints: int = 17) -> Path:
    path = folder / "small.pth"
    torch.save(build(SMALL, joints).state_dict(), path)
    return path


def facts_of(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return dict(file.metadata())


def test_weights_that_do_not_say_which_joints(tmp_path: Path) -> None:
    torch.save(build("simple_pose_resnet18_v1b", 17).state_dict(), tmp_path / "a.pth")
    convert(
        tmp_path / "a.pth", tmp_path / "a.safetensors"
    )  # which of the entries of this network it is of is not known
    with pytest.raises(PosezooError, match=r"a\.safetensors does not say which joints .*\(-m NAME --weights"):
        posezoo.Estimator(tmp_path / "a.safetensors")


def assert_same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert set(found) == set(wanted)
    assert all(torch.equal(found[key], value) and found[key].dtype == value.dtype for key, value in wanted.items())


def test_converted_weights_compute_the_same_to_the_bit(parity: Path, tmp_path: Path) -> None:
    source, out = parity / "gluoncv" / f"{SMALL}.params", tmp_path / "new" / "a.safetensors"
    done = convert(source, out, f"{SMALL}.gluoncv_coco_256x192")
    x = torch.rand(2, 3, 64, 64)
    models = [load_weights(build(SMALL, 17), path).eval() for path in (source, out)]
    with torch.no_grad():
        assert torch.equal(models[0](x), models[1](x))
    assert (done.layout, done.written, done.archs, done.joints) == ("GluonCV", "posezoo", (SMALL,), 17)
    assert (done.model, done.candidates, done.out) == (f"{SMALL}.gluoncv_coco_256x192", (), out)
    assert done.bytes == out.stat().st_size
    assert done.arrays == len(load_file(out))
    assert [path.name for path in out.parent.iterdir()] == [out.name]  # no temporary file is left


def test_facts_of_the_entry_travel_with_the_weights(parity: Path, tmp_path: Path) -> None:
    source, out = parity / "gluoncv" / f"{SMALL}.params", tmp_path / "a.safetensors"
    entry = get_entry(f"{SMALL}.gluoncv_coco_256x192")
    convert(source, out, entry.name)
    facts = facts_of(out)
    assert facts["name"] == entry.name and facts["arch"] == SMALL
    assert (facts["skeleton"], facts["codec"], facts["channels"]) == (entry.skeleton, entry.codec, entry.channels)
    assert tuple(map(int, facts["input_size_wh"].split())) == entry.input_size_wh
    assert tuple(map(float, facts["mean"].split())) == entry.mean
    assert tuple(map(float, facts["std"].split())) == entry.std
    assert float(facts["box_scale"]) == entry.box_scale
    assert facts["flip_shift"] == str(entry.flip_shift).lower()
    assert {part: facts[f"licence_{part}"] for part in entry.licence} == dict(entry.licence)
    assert facts["source_file"] == source.name
    assert facts["source_sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    assert facts["posezoo_version"] == posezoo.__version__


def test_a_converted_file_says_itself_what_it_is(tmp_path: Path) -> None:
    name = "simple_pose_resnet18_v1b.gluoncv_coco_256x192"
    torch.save(build("simple_pose_resnet18_v1b", 17).half().state_dict(), tmp_path / "a.pth")
    convert(tmp_path / "a.pth", tmp_path / "b.safetensors", name)
    assert convert(tmp_path / "b.safetensors", tmp_path / "c.safetensors").model == name


def test_without_an_entry_the_architecture_is_told(tmp_path: Path) -> None:
    done = convert(small_file(tmp_path, joints=21), tmp_path / "a.safetensors")
    assert (done.model, done.candidates, done.archs, done.joints) == (None, (), (SMALL,), 21)
    facts = facts_of(tmp_path / "a.safetensors")
    assert facts["arch"] == SMALL and "name" not in facts


def test_several_networks_that_fit_are_all_told(parity: Path, tmp_path: Path) -> None:
    # a stride has no weights: which of the two it is does not show
    torch.save(peer_state(parity, "simplebaselines/mpii_resnet50_256x256_d256x3_adam_lr1e-3"), tmp_path / "a.pth.tar")
    done = convert(tmp_path / "a.pth.tar", tmp_path / "a.safetensors")
    assert (done.model, done.joints) == (None, 16)
    assert {"simple_pose_resnet50_v1b", "simple_pose_resnet50_caffe"} <= set(done.archs)
    assert len(done.candidates) > 1
    facts = facts_of(tmp_path / "a.safetensors")
    assert facts["fits"].split() == list(done.archs) and "arch" not in facts


@pytest.mark.parametrize("target", ["mmpose", "mmpose0"])
def test_to_mmpose_and_back(target: str, parity: Path, tmp_path: Path) -> None:
    wanted = peer_state(parity, "mmpose/mobilenetv2_coco_256x192")
    torch.save({"meta": {}, "state_dict": wanted}, tmp_path / "a.pth")
    convert(tmp_path / "a.pth", tmp_path / "b.safetensors")
    done = convert(tmp_path / "b.safetensors", tmp_path / "c.pth", to=target)
    written = torch.load(tmp_path / "c.pth", weights_only=True)
    head = {"mmpose": "head.", "mmpose0": "keypoint_head."}[target]
    assert_same(written["state_dict"], {key.replace("keypoint_head.", head): v for key, v in wanted.items()})
    assert written["meta"]["source_file"] == "b.safetensors"
    assert done.written == {"mmpose": "MMPose 1.x", "mmpose0": "MMPose 0.x"}[target]
    convert(tmp_path / "c.pth", tmp_path / "d.safetensors")
    assert_same(load_file(tmp_path / "d.safetensors"), load_file(tmp_path / "b.safetensors"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("theirs", "mmpose", "mmpose1"),
    [
        (
            "hrnet/coco_pose_hrnet_w32_256x192",
            "mmpose/hrnet_w32_coco_256x192",
            "mmpose/v1_td-hm_hrnet-w32_8xb64-210e_coco-256x192",
        ),
        (
            "simplebaselines/coco_resnet50_256x192_d256x3_adam_lr1e-3",
            "mmpose/res50_coco_256x192",
            "mmpose/v1_td-hm_res50_8xb64-210e_coco-256x192",
        ),
    ],
)
def test_hrnet_to_mmpose_and_back(theirs: str, mmpose: str, mmpose1: str, parity: Path, tmp_path: Path) -> None:
    wanted = peer_state(parity, theirs)
    torch.save(wanted, tmp_path / "a.pth")
    for target, fixture in (("mmpose0", mmpose), ("mmpose", mmpose1)):
        convert(tmp_path / "a.pth", tmp_path / "b.pth", to=target)
        written = torch.load(tmp_path / "b.pth", weights_only=True)["state_dict"]
        shapes = {key: value.shape for key, value in peer_state(parity, fixture).items()}
        assert {key: value.shape for key, value in written.items()} == shapes
        done = convert(tmp_path / "b.pth", tmp_path / "c.pth", to="hrnet")
        assert done.layout.startswith({"mmpose0": "MMPose 0.x", "mmpose": "MMPose 1.x"}[target])
        assert_same(torch.load(tmp_path / "c.pth", weights_only=True), wanted)


def test_darknets_numbers_get_names(parity: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from posezoo.models import build as build_module
    from posezoo.models import darknet

    def mini(joints: int) -> darknet.Darknet:
        return darknet.Darknet(darknet.parse_cfg((parity / "yolo" / "mini.cfg").read_text()))

    for archs in (build_module.ARCHS, darknet.ARCHS):
        monkeypatch.setitem(archs, "yolo_mini", mini)
    done = convert(parity / "yolo" / "mini.weights", tmp_path / "a.safetensors")
    assert (done.layout, done.archs, done.joints, done.model) == ("darknet", ("yolo_mini",), 0, None)
    models = [load_weights(mini(0), path) for path in (parity / "yolo" / "mini.weights", tmp_path / "a.safetensors")]
    assert_same(dict(models[1].state_dict()), dict(models[0].state_dict()))


# what is refused


def test_peer_without_such_a_network(parity: Path, tmp_path: Path) -> None:
    torch.save(peer_state(parity, "mmpose/mobilenetv2_coco_256x192"), tmp_path / "a.pth")
    with pytest.raises(PosezooError, match=r"hrnet has no such network as .*mobilenetv2: .* mmpose or mmpose0, or as"):
        convert(tmp_path / "a.pth", tmp_path / "b.pth", to="hrnet")
    with pytest.raises(PosezooError, match=rf"mmpose has no such network as {SMALL}: it can only be written as .safet"):
        convert(small_file(tmp_path), tmp_path / "b.pth", to="mmpose")
    assert not (tmp_path / "b.pth").exists()


def test_a_deep_stem_has_no_names_in_simple_baselines(tmp_path: Path) -> None:
    torch.save(build("simple_pose_resnet18_v1d", 17).half().state_dict(), tmp_path / "a.pth")
    with pytest.raises(PosezooError, match="hrnet has no such network as simple_pose_resnet18_v1d"):
        convert(tmp_path / "a.pth", tmp_path / "b.pth", to="hrnet")


@pytest.mark.parametrize(
    ("out", "options", "message"),
    [
        ("b.pth", {}, r"b.pth must end in .safetensors$"),
        ("b.safetensors", {"to": "mmpose"}, "must end in .pth or .pth.tar or .pt, as mmpose files do"),
        ("b.pth", {"to": "mmpos"}, "unknown zoo to convert to 'mmpos'; did you mean mmpose"),
        ("small.pth", {"to": "hrnet"}, "is the source itself"),
        ("folder.safetensors", {}, "is a folder"),
        ("b.safetensors", {"model_name": "nothing"}, "unknown model 'nothing'"),
        ("b.safetensors", {"model_name": ""}, "unknown model ''"),
        ("b.safetensors", {"model_name": "mobile_pose_resnet18_v1b.gluoncv_coco_256x192"}, rf"\(it fits {SMALL} with"),
    ],
)
def test_refusals(out: str, options: dict[str, Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "folder.safetensors").mkdir()
    source = small_file(tmp_path)
    before = sorted(tmp_path.iterdir()), source.read_bytes()
    with pytest.raises(PosezooError, match=message):
        convert(source, tmp_path / out, **options)
    assert before == (sorted(tmp_path.iterdir()), source.read_bytes())


def test_source_through_a_link_is_the_source(tmp_path: Path) -> None:
    source = small_file(tmp_path)
    (tmp_path / "b.pth").symlink_to(source)
    with pytest.raises(PosezooError, match="is the source itself"):
        convert(source, tmp_path / "b.pth", to="hrnet")


def test_what_fits_nothing_is_not_converted(tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(3, 3)}, tmp_path / "a.pth")
    with pytest.raises(PosezooError, match="holds no network known here"):
        convert(tmp_path / "a.pth", tmp_path / "b.safetensors")
    with pytest.raises(PosezooError, match="No such file"):
        convert(tmp_path / "absent.pth", tmp_path / "b.safetensors")


@pytest.mark.parametrize(
    ("fixture", "change", "message"),
    [
        (
            "mmpose/res50_crowdpose_256x192",
            lambda state: state.pop("backbone.layer1.2.bn1.bias"),
            r"MMPose 0.x names\) does not fit any network; nearest is simple_pose_resnet50_v1b with 14 joints: "
            r"1 missing \(backbone.layer1.2.bn1.bias\)$",
        ),
        (
            "hourglass/pytorch_pose_hg_s2_b1",
            lambda state: state.update({"extra.weight": torch.zeros(3)}),
            r"nearest is hourglass_s2 with 16 joints: 1 unexpected \(extra.weight\)$",
        ),
    ],
    ids=["one too few", "one too many"],
)
def test_what_all_but_fits_is_told_what_it_lacks(
    fixture: str, change: Any, message: str, parity: Path, tmp_path: Path
) -> None:
    state = peer_state(parity, fixture)
    change(state)
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(PosezooError, match=message):
        convert(tmp_path / "a.pth", tmp_path / "b.safetensors")


def test_darknets_numbers_that_are_too_few(tmp_path: Path) -> None:
    (tmp_path / "a.weights").write_bytes(struct.pack("<3iq", 0, 2, 0, 0) + bytes(4_000))
    with pytest.raises(PosezooError, match=r"nearest is yolov3: it has 1000 numbers where the network takes 62001757"):
        convert(tmp_path / "a.weights", tmp_path / "b.safetensors")


def test_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors import SafetensorError

    def full(arrays: Any, path: Path, facts: Any) -> None:
        path.write_bytes(b"half of it")
        raise SafetensorError("No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    source = small_file(tmp_path)
    with pytest.raises(PosezooError, match=r"cannot write .*b.safetensors: No space left"):
        convert(source, tmp_path / "b.safetensors")
    assert list(tmp_path.iterdir()) == [source]


def test_full_disk_under_pytorch_is_one_line_too(parity: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs a device that is always full")
    source = tmp_path / "a.pth"
    torch.save(peer_state(parity, "mmpose/mobilenetv2_coco_256x192"), source)
    usual = Path.open

    def opened(self: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        return usual(Path("/dev/full") if mode == "wb" else self, mode, *args, **kwargs)

    monkeypatch.setattr(Path, "open", opened)
    with pytest.raises(PosezooError, match=r"cannot write .*b.pth: No space left on device$"):
        convert(source, tmp_path / "b.pth", to="mmpose")
    assert list(tmp_path.iterdir()) == [source]


def test_a_published_file_name_tells_which_of_several_models_it_is(tmp_path: Path) -> None:
    entry = get_entry("simple_pose_resnet18_v1b.gluoncv_coco_128x96")
    path = tmp_path / entry.weights[0].file
    torch.save(build(entry.arch, 17).half().state_dict(), path)
    assert convert(path, tmp_path / "a.safetensors").model == entry.name
    assert convert(path.rename(tmp_path / "mine.pth"), tmp_path / "b.safetensors").model is None


def test_openmmlabs_names_tell_the_config(parity: Path, tmp_path: Path) -> None:
    """MMPose 1.x publishes its own checkpoints of the same configs."""
    state = peer_state(parity, "mmpose/v1_td-hm_res50_8xb64-210e_coco-256x192")
    path = tmp_path / "td-hm_res50_8xb64-210e_coco-256x192-04af38ce_20220923.pth"
    torch.save({"meta": {}, "state_dict": state}, path)
    assert convert(path, tmp_path / "a.safetensors").model == "simple_pose_resnet50_v1b.mmpose_coco_256x192"
    path = path.rename(tmp_path / "td-hm_res50_8xb64-210e_coco-256x192.pth")  # anyone's training of it
    assert convert(path, tmp_path / "b.safetensors").model is None

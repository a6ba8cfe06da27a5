"""The zoo's rows: every one is whole and names things that exist; names, aliases and tags lead to the right one."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from posezoo import zoo
from posezoo.codecs import get_codec
from posezoo.errors import PosezooError
from posezoo.skeletons import get_skeleton
from posezoo.zoo import Entry, Score, Weights, get_entry, get_model, list_models, load_entries, packaged_file, store

SMALL = "mobile_pose_mobilenetv3_small.gluoncv_coco_256x192"
ROW = {
    "name": "net.tag",
    "source": "here",
    "family": "net",
    "dataset": "coco",
    "arch": "net",
    "skeleton": "coco17",
    "codec": "heatmap",
    "input_size_wh": [192, 256],
    "channels": "rgb",
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "licence": {"code": "a", "weights": "b", "data": "c"},
}


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch):
    """Replaces the zoo's rows by the given ones."""

    def use(*entries: Entry) -> None:
        monkeypatch.setattr(zoo, "_entries", lambda: {entry.name: entry for entry in entries})
        monkeypatch.setattr(zoo, "_aliases", zoo._aliases.__wrapped__)

    return use


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("POSEZOO_HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("name", [*list_models(), *list_models(task="detection")])
def test_every_row_names_things_that_exist(name: str) -> None:
    entry = get_entry(name)
    if entry.skeleton:
        get_skeleton(entry.skeleton)
    if entry.codec:
        get_codec(entry.codec)
    build = pytest.importorskip("posezoo.models.build", exc_type=ImportError)
    assert entry.arch in build.ARCHS
    for file in [w.file for w in entry.weights if w.packaged] + ([entry.onnx] if entry.onnx else []):
        assert (store.HERE / file).is_file()


def test_list_models_filters() -> None:
    mobile = list_models(family="mobile_pose")
    assert SMALL in mobile
    assert SMALL in list_models(dataset="coco", source="gluoncv")
    assert not set(mobile) & set(list_models(family="simple_pose"))
    # trained on, not only measured on
    assert {get_entry(name).dataset for name in list_models(dataset="posetrack18")} == {"posetrack18"}
    assert list_models(dataset="ochuman") == []
    with pytest.raises(PosezooError, match="unknown dataset 'ochumans'"):
        list_models(dataset="ochumans")
    with pytest.raises(PosezooError, match=r"unknown family 'mobilepose'; did you mean mobile_pose"):
        list_models(family="mobilepose")


@pytest.mark.parametrize("source", ["gluoncv", "mmpose", "alphapose", "hrnet", "simplebaselines", "posezoo"])
def test_every_zoo_has_rows(source: str) -> None:
    for name in list_models(source=source):
        entry = get_entry(name)
        assert f".{source}_" in name or source == "posezoo"
        # a downloaded file is found by its name, so no other row may go by it
        for weights in entry.weights:
            assert get_entry(weights.file) is entry
            assert weights.dead <= (not weights.urls)


@pytest.mark.parametrize(
    ("pasted", "name"),
    [
        ("/configs/top_down/resnet/coco/res50_coco_256x192.py", "simple_pose_resnet50_v1b.mmpose_coco_256x192"),
        ("coco/res50_coco_256x192.py", "simple_pose_resnet50_v1b.mmpose_coco_256x192"),
        (" `res50_coco_256x192` ", "simple_pose_resnet50_v1b.mmpose_coco_256x192"),
        (
            "https://github.com/open-mmlab/mmpose/blob/v0.29.0/configs/body/2d_kpt_sview_rgb_img/topdown_heatmap/"
            "mpii_trb/res101_mpii_trb_256x256.py",
            "simple_pose_resnet101_v1b.mmpose_mpii_trb_256x256",
        ),
        ("work_dirs\\res50_coco_256x192-ec54d7f3_20200709.pth", "simple_pose_resnet50_v1b.mmpose_coco_256x192"),
        ("td-hm_res50_8xb64-210e_coco-256x192", "simple_pose_resnet50_v1b.mmpose_coco_256x192"),
        (
            "td-hm_res50_8xb64-210e_coco-256x192-04af38ce_20220923.pth",  # on no page of the seeds
            "simple_pose_resnet50_v1b.mmpose_coco_256x192",
        ),
        ("ec54d7f3", "simple_pose_resnet50_v1b.mmpose_coco_256x192"),
        ("../configs/coco/resnet/256x192_res50_lr1e-3_1x.yaml", "fastpose_resnet50.alphapose_coco_256x192"),
        ("configs/halpe_26/resnet/256x192_res50_lr1e-3_1x.yaml", "fastpose_resnet50.alphapose_halpe26_256x192"),
        ("pretrained_models/halpe26_fast_res50_256x192.pth", "fastpose_resnet50.alphapose_halpe26_256x192"),
        (
            "https://drive.google.com/open?id=1kQhnMRURFiy7NsdS8EFL-8vtqEXOgECn",
            "fastpose_resnet50.alphapose_coco_256x192",
        ),
        ("experiments/coco/hrnet/w32_256x192_adam_lr1e-3.yaml", "pose_hrnet_w32.hrnet_coco_256x192"),
        ("pose_resnet_50_256x192.pth", "simple_pose_resnet50_v1b.hrnet_coco_256x192"),
        ("pose_resnet_50_256x192.pth.tar", "simple_pose_resnet50_v1b.simplebaselines_coco_256x192"),
        ("simple_pose_resnet152_v1d-2f544338.zip", "simple_pose_resnet152_v1d.gluoncv_coco_384x288"),
        ("simple_pose_resnet50_v1b", "simple_pose_resnet50_v1b.gluoncv_coco_256x192"),
    ],
)
def test_names_as_pasted(pasted: str, name: str) -> None:
    assert get_entry(pasted).name == name


def test_a_shared_name_lists_its_candidates() -> None:
    with pytest.raises(PosezooError, match="could be") as caught:
        get_entry("pose_resnet_152")
    candidates = [name for name in list_models() if "pose_resnet_152" in get_entry(name).aliases]
    assert len(candidates) > 3
    assert all(name.rpartition(".")[2] in str(caught.value) for name in candidates)
    assert len(str(caught.value)) < 60 * len(candidates)
    # three rows of AlphaPose's page have one config
    with pytest.raises(PosezooError, match=r"_combined or .*_combined_10handweight or .*_multidomain_combined:"):
        get_entry("configs/halpe_136/resnet/256x192_res50_lr1e-3_2x-dcn-combined.yaml")


def test_another_hash_is_another_file() -> None:
    with pytest.raises(PosezooError, match="did you mean simple_pose_resnet152_v1d-2f544338"):
        get_entry("simple_pose_resnet152_v1d-2f544339.zip")


def test_a_checkpoint_is_no_name(tmp_path: Path) -> None:
    (tmp_path / "mine.pth").write_bytes(b"")
    with pytest.raises(PosezooError, match=r"mine.pth' is a file: name the model .* pretrained=FILE"):
        get_entry(str(tmp_path / "mine.pth"))


def test_a_file_is_not_the_zoos_of_its_name(home: Path, monkeypatch: pytest.MonkeyPatch, only) -> None:
    file, name = "res50_coco_256x192-ec54d7f3_20200709.pth", "simple_pose_resnet50_v1b.mmpose_coco_256x192"
    (home / "mine").mkdir()
    (home / "mine" / file).write_bytes(b"")
    monkeypatch.chdir(home)
    assert get_entry(file).name == get_entry(f"work_dirs/{file}").name == name  # neither is there
    refused = rf"is a file: name the model .* \(by its name, of {name}\), .* \(-m {name} --weights FILE, evaluate"
    for given in (f"mine/{file}", f"./mine/{file}", str(home / "mine" / file)):
        for use in (get_entry, get_model):
            with pytest.raises(PosezooError, match=refused):
                use(given)
    # MMPose 1.x's name of a file that no page lists leads to the entry of 0.x's
    later = "td-hm_res50_8xb64-210e_coco-256x192-04af38ce_20220923.pth"
    (home / later).write_bytes(b"")
    with pytest.raises(PosezooError, match=refused):
        get_entry(later)
    # a config names its model wherever it lies, and an entry's own name means the entry
    config = home / "configs" / "top_down" / "resnet" / "coco" / "res50_coco_256x192.py"
    config.parent.mkdir(parents=True)
    for path in (config, home / "embedded", home / name):
        path.write_text("")
    assert get_entry("configs/top_down/resnet/coco/res50_coco_256x192.py").name == get_entry(name).name == name
    assert get_entry("embedded").name == list_models(source="posezoo")[0]


def test_a_file_whose_name_several_models_share(home: Path) -> None:
    (home / "pose_resnet_152.pth").write_bytes(b"")
    with pytest.raises(PosezooError, match=r"is a file: .*of .*pose_resnet.*\(-m NAME --weights FILE"):
        get_entry(str(home / "pose_resnet_152.pth"))


def test_a_path_with_another_folder_is_another_config() -> None:
    with pytest.raises(PosezooError, match=r"did you mean configs/halpe_26/resnet/256x192_res50_lr1e-3_"):
        get_entry("configs/halpe_26/resnet/256x192_res50_lr1e-3_2x.yaml")


def test_unknown_and_ambiguous_names(only) -> None:
    with pytest.raises(
        PosezooError, match=r"unknown model 'simple_pose_resnet50_v1c'; did you mean simple_pose_resnet50"
    ):
        get_entry("simple_pose_resnet50_v1c")
    first = Entry.from_table({**ROW, "aliases": ["net", "one"]})
    second = Entry.from_table({**ROW, "name": "net.other", "aliases": ["net"]})
    only(first, second)
    assert get_entry("one") is first
    with pytest.raises(PosezooError, match=r"'net' could be net.tag or net.other"):
        get_entry("net")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "other.tag"}, "name must be 'net.'"),
        ({"task": "poses"}, "task must be one of"),
        ({"input_size_wh": [192]}, "input_size_wh"),
        ({"input_size_wh": [192, -256]}, "input_size_wh"),
        ({"channels": "rbg"}, "channels must be one of rgb, bgr"),
        ({"mean": [0.5, 0.5]}, "mean must be three"),
        ({"std": [0.5, 0.0, 0.5]}, "std must be three positive"),
        ({"box_scale": 0.0}, "box_scale"),
        ({"licence": {"code": "a"}}, "licence must tell of"),
        ({"skeleton": None}, "needs a skeleton"),
        ({"task": "detection"}, "detector has no skeleton"),
        ({"onnx": "../pose.onnx"}, "onnx must be"),
        ({"colour": "rgb"}, "unknown entry field 'colour'"),
        ({"weights": [{"file": "../a.params"}]}, "not a plain file name"),
        ({"weights": [{"file": "a.params", "hash_tag": "xyz"}]}, "hash_tag must be 8"),
        ({"weights": [{"file": "a.params", "sha256": "12"}]}, "sha256 must be 64"),
        ({"weights": [{"url": "https://example.org"}]}, "did you mean urls"),
        ({"weights": [{"file": "a.params", "hash_tag_of": "md5"}]}, "unknown hash 'md5'"),
        ({"claimed": [{"dataset": "coco", "protocol": "p", "metrics": {"AP": 120}}]}, "AP 120 on coco is no percent"),
        (
            {"claimed": [{"dataset": "coco", "protocol": "p", "unit": "fraction", "metrics": {"AP": 71.0}}]},
            "AP 71.0 on coco is no fraction",
        ),
        ({"claimed": [{"dataset": "coco", "protocol": "p", "metrics": {}}]}, "without a number"),
        ({"claimed": [{"dataset": "coco", "protocol": "p"}]}, "missing 1 required"),
        ({"claimed": [{"dataset": "coco", "protocol": "p", "metric": {"AP": 1}}]}, "did you mean metrics"),
    ],
)
def test_a_wrong_row_is_an_error_that_names_it(change: dict, message: str) -> None:
    with pytest.raises(PosezooError, match=message) as caught:
        Entry.from_table({**ROW, **change})
    assert f"zoo entry '{change.get('name', 'net.tag')}'" in str(caught.value)


SHARED = """
[defaults]
source = "here"
family = "net"
channels = "bgr"
input_size_wh = [192, 256]
mean = [0, 0, 0]
std = [1, 1, 1]
codec = "heatmap"
licence = { code = "a", weights = "b" }
[defaults.file]
urls = ["https://example.org/{file}", "https://example.net/{stem}.zip"]
hash_tag_of = "sha256"
[defaults.score]
protocol = "printed"
[row.coco]
dataset = "coco"
skeleton = "coco17"
licence.data = "c"
score.dataset = "coco"
[score.speed]
unit = "iter/s"
protocol = "timed"
"""


def test_rows_share_what_their_file_says(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(
        SHARED
        + """
        [[entry]]
        name = "net1.0.a"
        like = "coco"
        claimed = [{ flip = true, metrics = { AP = 70.0 } }, { like = "speed", metrics = { speed = 300.5 } }]
        weights = [{ file = "net-0123abcd_2020.pth" }, { file = "b.pth", urls = [] }]
        [[entry]]
        name = "net2.b"
        like = "coco"
        arch = "net2"
        channels = "rgb"
        licence.code = "d"
        """
    )
    first, second = load_entries(tmp_path / "a.toml")
    assert (first.arch, first.channels, second.arch, second.channels) == ("net1.0", "bgr", "net2", "rgb")
    assert first.licence == {"code": "a", "weights": "b", "data": "c"}
    assert second.licence == {"code": "d", "weights": "b", "data": "c"}
    assert first.claimed == (
        Score("coco", {"AP": 70.0}, "printed", flip=True),
        Score("coco", {"speed": 300.5}, "timed", unit="iter/s"),
    )
    assert first.weights == (
        Weights(
            "net-0123abcd_2020.pth",
            ("https://example.org/net-0123abcd_2020.pth", "https://example.net/net-0123abcd_2020.zip"),
            hash_tag="0123abcd",
            hash_tag_of="sha256",
        ),
        Weights("b.pth", hash_tag_of="sha256"),
    )
    assert (second.claimed, second.weights) == ((), ())


@pytest.mark.parametrize(
    "row", ['name = "net.a"\nlike = "cocoa"', 'name = "net.a"\nlike = "coco"\nclaimed = [{ like = "sped" }]']
)
def test_an_unknown_kind_of_row_is_an_error(row: str, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(f"{SHARED}\n[[entry]]\n{row}")
    with pytest.raises(PosezooError, match=r"a.toml, zoo entry 'net.a': unknown kind .* did you mean (coco|speed)"):
        load_entries(tmp_path / "a.toml")


def test_scores_in_percent() -> None:
    assert Score("coco", {"AP": 0.718}, "p", unit="fraction").percent("AP") == pytest.approx(71.8)
    assert Score("coco", {"AP": 71.8}, "p").percent("AP") == 71.8
    assert Score("coco", {"AP": 71.8}, "p").percent("AR") is None
    assert Score("coco", {"speed": 3.5}, "p", unit="iter/s").percent("speed") is None


def test_import_is_light() -> None:
    heavy = ("torch", "cv2", "onnxruntime", "pydantic")
    code = f"import sys, posezoo.zoo as z; z.list_models(); print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# networks and weights


def test_get_model_is_ready_to_run() -> None:
    torch = pytest.importorskip("torch")
    model = get_model(SMALL)
    assert not model.training
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 256, 192)).shape == (1, 17, 64, 48)


def test_get_model_from_a_path(parity: Path) -> None:
    torch = pytest.importorskip("torch")
    path = parity / "gluoncv" / "mobile_pose_mobilenetv3_small.params"
    first, second = get_model(SMALL, pretrained=path), get_model("b1b148a9", pretrained=str(path))
    fresh = get_model(SMALL)
    x = torch.ones(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(first(x), second(x))
        assert not torch.equal(first(x), fresh(x))


def test_weights_not_on_this_machine(home: Path) -> None:
    pytest.importorskip("torch")
    file = "mobile_pose_mobilenetv3_small-b1b148a9"
    with pytest.raises(PosezooError) as caught:
        get_model(SMALL, pretrained=True)
    assert str(home / f"{file}.params") in str(caught.value)
    assert f"https://apache-mxnet.s3-accelerate.dualstack.amazonaws.com/gluon/models/{file}.zip" in str(caught.value)


def test_weights_in_the_home_folder(home: Path, parity: Path, only) -> None:
    torch = pytest.importorskip("torch")
    content = (parity / "gluoncv" / "mobile_pose_mobilenetv3_small.params").read_bytes()
    entry = get_entry(SMALL)
    tag = hashlib.sha1(content).hexdigest()[:8]
    good = Weights(f"small-{tag}.params", hash_tag=tag, bytes=len(content))
    sibling = replace(entry, name=f"{entry.arch}.sibling", weights=(good,), aliases=())
    only(entry, sibling)
    (home / good.file).write_bytes(content)
    expected = get_model(SMALL, pretrained=home / good.file).state_dict()
    # by the row's own weights, and by tag from another row of the same architecture
    for model in (get_model(sibling.name, pretrained=True), get_model(SMALL, pretrained=tag)):
        assert all(torch.equal(value, expected[key]) for key, value in model.state_dict().items())
    (home / good.file).write_bytes(content[:-1] + b"x")
    with pytest.raises(PosezooError, match=rf"its sha1 begins \w{{8}}, expected {tag}"):
        get_model(sibling.name, pretrained=True)
    (home / good.file).write_bytes(content[:-1])
    with pytest.raises(PosezooError, match=rf"bytes, expected {len(content)}"):
        get_model(sibling.name, pretrained=True)


def test_unknown_hash_tag() -> None:
    pytest.importorskip("torch")
    with pytest.raises(
        PosezooError, match=r"unknown hash tag of simple_pose_resnet152_v1d '2f544339'; did you mean 2f544338"
    ):
        get_model("simple_pose_resnet152_v1d", pretrained="2f544339")


def test_packaged_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, only) -> None:
    torch = pytest.importorskip("torch")
    safetensors = pytest.importorskip("safetensors.torch")
    monkeypatch.setattr(store, "HERE", tmp_path)
    (tmp_path / "embedded").mkdir()
    fresh = get_model(SMALL).state_dict()
    half = {key: value.half() if value.is_floating_point() else value for key, value in fresh.items()}
    safetensors.save_file(half, tmp_path / "embedded" / "pose.safetensors")
    digest = hashlib.sha256((tmp_path / "embedded" / "pose.safetensors").read_bytes()).hexdigest()
    packaged = Weights("embedded/pose.safetensors", sha256=digest)
    entry = replace(get_entry(SMALL), weights=(packaged,), onnx="embedded/pose.onnx", aliases=("embedded",))
    only(entry)
    state = get_model("embedded", pretrained=True).state_dict()
    assert all(np.array_equal(state[key].numpy(), value.to(state[key].dtype).numpy()) for key, value in half.items())
    assert {value.dtype for value in state.values()} <= {torch.float32, torch.int64}
    assert packaged_file(entry, ".onnx") == tmp_path / "embedded" / "pose.onnx"
    assert packaged_file(entry, ".safetensors") == tmp_path / "embedded" / "pose.safetensors"
    assert packaged_file(replace(entry, onnx=None), ".onnx") is None

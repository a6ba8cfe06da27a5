"""ResNets, Simple Baselines and FastPose of five zoos: what their own code computed, under their own names."""

from __future__ import annotations

import gzip
import json
from collections import OrderedDict
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from posezoo.errors import PosezooError  # noqa: E402
from posezoo.models import fastpose, resnet  # noqa: E402
from posezoo.models.build import GATED, build, outline  # noqa: E402
from posezoo.models.deform import DeformConv2d  # noqa: E402
from posezoo.models.heads import TopDownNet  # noqa: E402
from posezoo.zoo.weights import alphapose, gluoncv, load_weights  # noqa: E402
from posezoo.zoo.weights.layout import KeyMap  # noqa: E402
from posezoo.zoo.weights.load import LAYOUTS, layout_of  # noqa: E402

# every fixture of these networks, under the network that it is of
FIXTURES = {
    "simple_pose_resnet50_v1b": (
        "simplebaselines/coco_resnet50_256x192_d256x3_adam_lr1e-3",
        "hrnet/coco_pose_resnet50_256x192",
        "hrnet/coco_pose_resnet50_384x288",
        "hrnet/mpii_pose_resnet50_256x256",
        "mmpose/res50_aic_256x192",
        "mmpose/res50_coco_256x192",
        "mmpose/res50_coco_384x288",
        "mmpose/res50_crowdpose_256x192",
        "mmpose/res50_crowdpose_384x288",
        "mmpose/res50_jhmdb_sub1_256x256",
        "mmpose/res50_mhp_256x192",
        "mmpose/res50_mpii_256x256",
        "mmpose/res50_mpii_trb_256x256",
        "mmpose/res50_ochuman_256x192",
        "mmpose/res50_posetrack18_256x192",
        "mmpose/v1_td-hm_res50_8xb64-20e_posetrack18-256x192",
        "mmpose/v1_td-hm_res50_8xb64-210e_coco-256x192",
        "mmpose/v1_td-hm_res50_8xb64-210e_mpii-256x256",
        "alphapose/coco_256x192_res50_lr1e-3_1x-simple",
    ),
    "simple_pose_resnet101_v1b": (
        "simplebaselines/coco_resnet101_256x192_d256x3_adam_lr1e-3",
        "hrnet/coco_pose_resnet101_256x192",
        "hrnet/mpii_pose_resnet101_256x256",
        "mmpose/res101_aic_256x192",
        "mmpose/res101_coco_256x192",
        "mmpose/res101_coco_384x288",
        "mmpose/res101_crowdpose_256x192",
        "mmpose/res101_crowdpose_320x256",
        "mmpose/res101_mpii_256x256",
        "mmpose/res101_mpii_trb_256x256",
        "mmpose/v1_td-hm_res101_8xb64-210e_aic-256x192",
        "mmpose/v1_td-hm_res101_8xb64-210e_coco-256x192",
    ),
    "simple_pose_resnet152_v1b": (
        "hrnet/coco_pose_resnet152_256x192",
        "hrnet/mpii_pose_resnet152_256x256",
        "mmpose/res152_aic_256x192",
        "mmpose/res152_coco_256x192",
        "mmpose/res152_coco_384x288",
        "mmpose/res152_crowdpose_256x192",
        "mmpose/res152_mpii_256x256",
        "mmpose/res152_mpii_trb_256x256",
        "mmpose/v1_td-hm_res152_8xb32-210e_coco-256x192",
    ),
    # some of these do not say caffe: Simple Baselines' settings are global, their configs leave the style out, and one
    # that was read before them in the same process had set it
    "simple_pose_resnet50_caffe": (
        "simplebaselines/coco_resnet50_256x192_d256x3_adam_lr1e-3_caffe",
        "simplebaselines/mpii_resnet50_256x256_d256x3_adam_lr1e-3",
    ),
    "simple_pose_resnet101_caffe": (
        "simplebaselines/coco_resnet101_256x192_d256x3_adam_lr1e-3_caffe",
        "simplebaselines/coco_resnet101_384x288_d256x3_adam_lr1e-3",
        "simplebaselines/mpii_resnet101_256x256_d256x3_adam_lr1e-3",
    ),
    "simple_pose_resnet152_caffe": (
        "simplebaselines/coco_resnet152_256x192_d256x3_adam_lr1e-3_caffe",
        "simplebaselines/coco_resnet152_256x192_d256x3_adam_lr1e-3",
        "simplebaselines/coco_resnet152_384x288_d256x3_adam_lr1e-3",
        "simplebaselines/mpii_resnet152_256x256_d256x3_adam_lr1e-3",
    ),
    "simple_pose_resnet50_v1d": ("mmpose/resnetv1d50_coco_256x192",),
    "simple_pose_seresnet50": ("mmpose/seresnet50_coco_256x192",),
    "simple_pose_mobilenetv2": ("mmpose/mobilenetv2_coco_256x192",),
    "simple_pose_resnet50_v1b_2deconv": (
        "mmpose/res50_2deconv_jhmdb_sub1_256x256",
        "mmpose/v1_td-hm_res50-2deconv_8xb64-40e_jhmdb-sub1-256x256",
    ),
    "fastpose_resnet50": (
        "alphapose/coco_256x192_res50_lr1e-3_1x",
        "alphapose/coco_256x192_res50_lr1e-3_1x-concat",
        "alphapose/coco_wholebody_256x192_res50_lr1e-3_2x-regression",
        "alphapose/halpe_26_256x192_res50_lr1e-3_1x",
        "alphapose/halpe_coco_wholebody_136_256x192_res50_lr1e-3_2x-regression",
    ),
    "fastpose_resnet50_wide": (
        "alphapose/coco_wholebody_256x192_res50_lr1e-3_2x-combined",
        "alphapose/halpe_136_256x192_res50_lr1e-3_2x-regression",
        "alphapose/halpe_26_256x192_res50_lr1e-3_2x-regression",
    ),
    "fastpose_resnet101": ("alphapose/fastpose_res101_coco",),
    "alpha_pose_resnet101_v1b": ("gluoncv/alpha_pose_resnet101_v1b_coco",),
    "fastpose_resnet152": ("alphapose/fastpose_res152_coco",),
    "fastpose_resnet152_wide": (
        "alphapose/coco_wholebody_256x192_res152_lr1e-3_1x-duc",
        "alphapose/halpe_136_256x192_res152_lr1e-3_1x-duc",
    ),
    "fastpose_resnet50_dcn": ("alphapose/coco_256x192_res50_lr1e-3_2x-dcn",),
    "fastpose_resnet50_dcn_wide": (
        "alphapose/coco_wholebody_256x192_res50_lr1e-3_2x-dcn-combined",
        "alphapose/halpe_136_256x192_res50_lr1e-3_2x-dcn-combined",
        "alphapose/halpe_26_256x192_res50_lr1e-3_2x-dcn-regression",
        "alphapose/halpe_68_noface_256x192_res50_lr1e-3_2x-dcn-combined",
        "alphapose/single_hand_256x192_res50_lr1e-3_2x-dcn-regression",
    ),
    "fastpose_resnet50_dcnv2": ("alphapose/fastpose_res50_dcnv2_coco",),
    "fastpose_resnet50_dcn_g2": ("alphapose/fastpose_res50_dcnv1_dg2_coco",),
    "fastpose_duc_resnet50_unshuffle": ("alphapose/coco_256x192_res50_lr1e-3_1x-duc",),
    "fastpose_duc_resnet152": ("alphapose/coco_256x192_res152_lr1e-3_1x-duc",),
}
PAIRS = [(arch, fixture) for arch, fixtures in FIXTURES.items() for fixture in fixtures]
# of each network one fixture of each zoo: the others differ in joints and size alone
ONE_OF_EACH = {(arch, fixture.split("/")[0], "/v1_" in fixture): fixture for arch, fixture in reversed(PAIRS)}.values()
QUICK = {
    "simplebaselines/coco_resnet50_256x192_d256x3_adam_lr1e-3_caffe",
    "mmpose/seresnet50_coco_256x192",
    "mmpose/mobilenetv2_coco_256x192",
    "alphapose/fastpose_res50_dcnv2_coco",
}


def read(parity: Path, fixture: str) -> dict[str, Any]:
    return json.loads(gzip.decompress((parity / f"{fixture}.json.gz").read_bytes()))


def state_of(model: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(array.shape) for key, array in model.state_dict().items() if "num_batches" not in key}


def test_no_fixture_is_left_out(parity: Path) -> None:
    others = ("hrnet_", "hrnet-", "hourglass", "vipnas", "hardnet", "dense_")
    folders = ("simplebaselines", "hrnet", "mmpose", "alphapose")
    found = {f"{path.parent.name}/{path.name[:-8]}" for f in folders for path in (parity / f).glob("*.json.gz")}
    wanted = {name for name in found if not any(part in name.split("/")[1] for part in others)}
    assert wanted == {name for _, name in PAIRS if not name.startswith("gluoncv")}
    assert wanted >= QUICK


def slow_but(quick: Collection[str]) -> list[Any]:
    return [pytest.param(*pair, marks=() if pair[1] in quick else pytest.mark.slow) for pair in PAIRS]


@pytest.mark.parametrize(("arch", "fixture"), slow_but(ONE_OF_EACH))
def test_names_and_shapes(arch: str, fixture: str, parity: Path) -> None:
    """The layout shows in the keys, gives every array of ours just once, and turns back."""
    content = read(parity, fixture)
    theirs = {key: tuple(shape) for key, shape, _ in content["state_dict"] if "num_batches" not in key}
    model = outline(arch, content["num_joints"])
    layout = layout_of(list(theirs))
    renamed = layout.rename(list(theirs), model)
    assert {renamed[key]: shape for key, shape in theirs.items()} == state_of(model)
    assert len(set(renamed.values())) == len(theirs)
    if isinstance(layout, KeyMap):
        assert {layout.to_theirs(key) for key in state_of(model)} == set(theirs)
        assert layout.speaks_of(list(state_of(model)))
    trainable = sum(parameter.numel() for parameter in model.parameters())
    assert trainable == content.get("n_trainable", content["n_params"])


@pytest.mark.parametrize(("arch", "fixture"), slow_but(QUICK))
def test_computes_what_its_zoo_computed(arch: str, fixture: str, parity: Path) -> None:
    from fill import fill, make_input, sample_index

    content = read(parity, fixture)
    scale = content["log2_scale"]
    weights = {key: fill(key, shape, scale.get(key, 0)) for key, shape, _ in content["state_dict"]}
    model = load_weights(build(arch, content["num_joints"], filled=False), weights).eval()
    batch, _, height, width = content["input_shape"]
    with torch.no_grad():
        out = model(torch.from_numpy(make_input(height, width, batch))).numpy()
    wanted = content["outputs"][0]
    assert list(out.shape) == wanted["shape"]
    error = np.abs(out.ravel()[sample_index(out.size)] - wanted["values"]).max() / wanted["std"]
    assert error < 1e-4


def test_gluoncvs_counted_names(parity: Path) -> None:
    """An old file of alpha_pose, whose names say only in which order its layers were built."""
    content = read(parity, "gluoncv/alpha_pose_resnet101_v1b_coco")
    counted = content["global_names"]
    model = outline("alpha_pose_resnet101_v1b", 17)
    structural = gluoncv.rename(counted)
    assert layout_of(list(counted.values())) is gluoncv.PREFIX_NAMES
    by_order = gluoncv.rename_by_order(counted.values(), model)
    assert {key: by_order[name] for key, name in counted.items()} == structural


@pytest.mark.parametrize(
    ("arch", "peers"),
    [
        ("simple_pose_resnet50_v1b", {"MMPose 0.x", "MMPose 1.x", "AlphaPose SimplePose", "Simple Baselines"}),
        ("simple_pose_resnet50_v1d", {"MMPose 0.x", "MMPose 1.x"}),
        ("simple_pose_seresnet50", {"MMPose 0.x", "MMPose 1.x"}),
        ("simple_pose_mobilenetv2", {"MMPose 0.x", "MMPose 1.x"}),
        ("fastpose_resnet50_dcn", {"AlphaPose FastPose"}),
        ("fastpose_duc_resnet50_unshuffle", {"AlphaPose FastPose_DUC"}),
        ("mobile_pose_resnet50_v1b", set()),
        ("mobile_pose_mobilenetv2_1.0", set()),
    ],
)
def test_who_has_names_for_it(arch: str, peers: set[str]) -> None:
    """And what is written under those names is read again."""
    ours = list(state_of(outline(arch, 17)))
    speakers = [one for one in LAYOUTS if isinstance(one, KeyMap) and one.speaks_of(ours)]
    assert {one.name for one in speakers} == peers
    for layout in speakers:
        theirs = [layout.to_theirs(key) for key in ours]
        assert layout_of(theirs) is layout
        assert [layout.to_ours(key) for key in theirs] == ours


def test_weights_of_another_network_name_the_one_they_fit() -> None:
    torch.manual_seed(0)
    model = build("fastpose_resnet50_dcn_wide", 26)
    weights = {alphapose.FASTPOSE.to_theirs(key): array for key, array in model.state_dict().items()}
    with pytest.raises(PosezooError, match=r"AlphaPose FastPose names.*it fits fastpose_resnet50_dcn_wide with 26 j"):
        load_weights(build("simple_pose_resnet18_v1b", 26), weights)


@pytest.mark.parametrize("arch", ["fastpose_resnet50_wide", "fastpose_duc_resnet50_unshuffle"])
def test_fastpose_gives_a_quarter_of_the_input(arch: str) -> None:
    with torch.no_grad():
        out = outline(arch, 17).eval()(torch.zeros(2, 3, 64, 96, device="meta"))
    assert out.shape == (2, 17, 16, 24)


def test_two_deconvolutions_give_an_eighth() -> None:
    with torch.no_grad():
        out = outline("simple_pose_resnet50_v1b_2deconv", 15).eval()(torch.zeros(2, 3, 256, 192, device="meta"))
    assert out.shape == (2, 15, 32, 24)


@pytest.mark.parametrize("style", [resnet.D, fastpose.DCN_V2, fastpose.UNSHUFFLE, GATED])
def test_every_parameter_of_every_style_learns(style: resnet.Style) -> None:
    """Also in basic blocks, which no zoo has with gates or deformable convolutions."""
    torch.manual_seed(0)
    backbone = resnet.ResNet(18, style)
    model = TopDownNet(backbone, fastpose.DucHead(backbone.out_channels, 3, ((64,), (), (16, 8))))
    model(torch.randn(2, 3, 64, 64)).square().mean().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_fresh_deformable_layers_do_not_move() -> None:
    model = TopDownNet(
        resnet.ResNet(18, fastpose.DCN), torch.nn.Sequential(OrderedDict(final=torch.nn.Conv2d(8, 3, 1)))
    )
    layers = [module for module in model.modules() if isinstance(module, DeformConv2d)]
    assert len(layers) == 3 * 2 * 2
    assert not any(layer.offset.weight.any() or layer.offset.bias.any() for layer in layers)


@pytest.mark.slow
@pytest.mark.parametrize("arch", [arch for arch in FIXTURES if arch.startswith("fastpose_")])
def test_export(arch: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    from posezoo.deploy.export import export_onnx

    torch.manual_seed(0)
    model = build(arch, 17)
    for module in model.modules():
        if isinstance(module, DeformConv2d):
            torch.nn.init.normal_(module.offset.weight, std=0.01)
    model(torch.randn(8, 3, 64, 64))  # statistics for the norms
    export_onnx(model, tmp_path / "x.onnx", (64, 64), ["heatmaps"], {})  # compares with torch itself

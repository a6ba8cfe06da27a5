"""Losses and the pose task: what the zoos' own code computes, every family, and each dataset by its own metric."""

# ruff: noqa: F401, F811 -- fixtures are imported, and asked for by their names

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from posezoo.codecs import CombinedCodec, HeatmapCodec, IntegralCodec, combined_torch  # noqa: E402
from posezoo.crop import normalise  # noqa: E402
from posezoo.errors import PosezooError  # noqa: E402
from posezoo.models.build import build  # noqa: E402
from posezoo.skeletons import get_skeleton  # noqa: E402
from posezoo.train.losses import MAP_SCALE, heatmap_mse, heatmap_ohkm, integral_l1, label_loss  # noqa: E402
from posezoo.train.pose import PoseTask, every_stack  # noqa: E402
from posezoo.train.recipe import TargetPart  # noqa: E402
from posezoo.train.target import joint_weights, loss_in_words, make_codec, weights_in_words  # noqa: E402
from train_fixtures import CPU, Given, _one_thread, batch_of, fit, people, recipe_of  # noqa: E402

COMBINED = CombinedCodec(HeatmapCodec(), IntegralCodec("sigmoid"), heatmap_joints=3)


# ---- losses


def read(parity: Path, name: str) -> Any:
    return json.loads((parity / "ops" / f"{name}.json").read_text())


@pytest.fixture
def hrnet(parity: Path) -> tuple[dict[str, Any], Tensor, Tensor, Tensor]:
    """HRNet's losses, its output (2, 17, 64, 48), the joints in crop pixels and their visibility."""
    import fill

    truth = read(parity, "hrnet_generate_target")
    joints, visible = (np.reshape(truth[key]["data"], truth[key]["shape"]) for key in ("joints", "vis"))
    pair = [np.stack([part, part[::-1]]) for part in (joints[:, :2], visible[:, 0])]
    maps = torch.from_numpy(fill.make_heatmaps(2, 17, 64, 48))
    return read(parity, "hrnet_loss_accuracy"), maps, torch.tensor(pair[0]).float(), torch.tensor(pair[1]).float()


def test_heatmap_losses_are_hrnets(hrnet: tuple[dict[str, Any], Tensor, Tensor, Tensor]) -> None:
    wanted, maps, crop_xy, visible = hrnet
    targets, weights = combined_torch.encode(HeatmapCodec(), crop_xy, visible, (192, 256))
    assert 0 < weights.mean() < 1
    assert heatmap_mse(maps, targets, weights).item() == pytest.approx(wanted["mse_weighted"], rel=1e-6)
    assert heatmap_mse(maps, targets, torch.ones_like(weights)).item() == pytest.approx(wanted["mse"], rel=1e-6)
    assert heatmap_ohkm(maps, targets, weights, 8).item() == pytest.approx(wanted["ohkm_weighted"], rel=1e-6)
    assert heatmap_ohkm(maps, targets, weights, 99).item() == pytest.approx(wanted["mse_weighted"], rel=1e-6)


@pytest.mark.parametrize(("loss", "key"), [("mse", "mse_weighted"), ("ohkm", "ohkm_weighted")])
def test_the_task_trains_with_hrnets_loss(
    hrnet: tuple[dict[str, Any], Tensor, Tensor, Tensor], people: Callable[[str], Path], loss: str, key: str
) -> None:
    wanted, maps, crop_xy, visible = hrnet
    task = PoseTask(recipe_of(people("coco17"), target={"loss": loss}, input={"size_wh": (192, 256)}))
    batch = {"crop": torch.zeros(2, 3, 256, 192, dtype=torch.uint8), "crop_xy": crop_xy, "weights": visible}
    value, figures = task.loss(Given(maps), batch)
    assert value.item() == pytest.approx(MAP_SCALE * wanted[key], rel=1e-6)
    assert 0 <= figures["oks"] < 0.5


@pytest.mark.parametrize("codec", [HeatmapCodec(), IntegralCodec("softmax"), COMBINED], ids=lambda c: type(c).__name__)
@pytest.mark.parametrize("hardest", [None, 2])
def test_a_batch_counts_as_its_parts(codec: Any, hardest: int | None) -> None:
    """So that devices that each have a part, and forward passes that share a step, give the gradient of the whole."""
    rng = np.random.default_rng(1)
    maps = torch.tensor(rng.normal(0, 1, (6, 5, 16, 12)), dtype=torch.float32)
    crop_xy = torch.tensor(rng.uniform(0, 48, (6, 5, 2)))
    seen = torch.tensor(rng.choice([0, 0.5, 1], (6, 5)))

    def loss(rows: slice) -> float:
        targets, weights = combined_torch.encode(codec, crop_xy[rows], seen[rows], (48, 64))
        return label_loss(codec, maps[rows], targets, weights, hardest, 3.0).item()

    assert loss(slice(0, 6)) == pytest.approx(np.mean([loss(slice(n, n + 2)) for n in (0, 2, 4)]), rel=1e-5)


def test_a_combined_loss_is_the_sum_of_its_halves() -> None:
    rng = np.random.default_rng(2)
    maps = torch.tensor(rng.normal(0, 1, (4, 5, 16, 12)), dtype=torch.float32)
    crop_xy, seen = torch.tensor(rng.uniform(0, 48, (4, 5, 2))), torch.ones(4, 5)
    (heat, places), weights = combined_torch.encode(COMBINED, crop_xy, seen, (48, 64))
    of_maps = MAP_SCALE * heatmap_mse(maps[:, :3], heat, weights[:, :3])
    of_places = integral_l1(COMBINED.integral, maps[:, 3:], places, weights[:, 3:])
    assert of_maps > 0 and of_places > 0
    for share in (1.0, 10.0):
        loss = label_loss(COMBINED, maps, (heat, places), weights, integral_weight=share)
        assert loss.item() == pytest.approx((of_maps + share * of_places).item())


def test_only_the_hardest_joints_learn() -> None:
    maps = torch.zeros(2, 4, 8, 8, requires_grad=True)
    targets = torch.ones(2, 4, 8, 8) * torch.tensor([1.0, 2, 3, 4]).view(4, 1, 1)
    weights = torch.tensor([[1.0, 1, 1, 1], [1, 1, 1, 0]])  # without a label, nothing is hard
    heatmap_ohkm(maps, targets, weights, 2).backward()
    assert maps.grad is not None
    learns = maps.grad.abs().sum((2, 3)) > 0
    assert learns.tolist() == [[False, False, True, True], [False, True, True, False]]


@pytest.mark.parametrize("codec", [HeatmapCodec(), IntegralCodec("sigmoid"), COMBINED], ids=lambda c: type(c).__name__)
@pytest.mark.parametrize("count", [0, 2])
def test_no_label_is_no_loss(codec: Any, count: int) -> None:
    maps = torch.zeros(count, 5, 16, 12, requires_grad=True)
    targets, weights = combined_torch.encode(codec, torch.zeros(count, 5, 2), torch.zeros(count, 5), (48, 64))
    loss = label_loss(codec, maps, targets, weights)
    loss.backward()
    assert loss.item() == 0 and maps.grad is not None and not maps.grad.any()


# ---- targets


@pytest.fixture
def encoding(parity: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """What compares targets, on arrays and on tensors, with a fixture's."""
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "benchmarks"))
    import parity_ops_encode

    return parity_ops_encode


def test_the_recipes_targets_are_the_zoos(parity: Path, encoding: ModuleType) -> None:
    import fill

    checked = []

    def check(target: dict[str, Any], fixture: dict[str, Any], case: dict[str, Any]) -> None:
        codec = make_codec(TargetPart.model_validate(target), get_skeleton("coco17"))
        results = encoding.target_results(str(target), codec, *encoding.labels(fixture), case, fill)
        assert results and [r for r in results if not r.agrees] == []
        checked.append(target)

    hrnet = read(parity, "hrnet_generate_target")
    for key, case in hrnet.items():
        if "_s" in key:
            check({"sigma": float(key.rpartition("_s")[2])}, hrnet, case)
    alphapose, mmpose = read(parity, "alphapose_targets"), read(parity, "mmpose_targets")
    check({"sigma": float(alphapose["sigma"])}, alphapose, alphapose)
    for case in mmpose["cases"]:
        codec = encoding.encoding_codec(case["args"])
        if codec is None or codec.refine == "megvii":
            continue
        target = {"sigma": codec.sigma, "refine": codec.refine}
        check(target if codec.grid == "legacy" else {**target, "refine": "dark-udp"}, mmpose, case)
    refined = [target.get("refine", "quarter") for target in checked]
    assert len(checked) >= 5 and {"quarter", "dark", "dark-udp"} <= set(refined)


def test_the_recipes_coordinates_are_alphaposes(parity: Path) -> None:
    wanted = read(parity, "alphapose_targets")
    joints, visible = (np.reshape(wanted[key]["data"], wanted[key]["shape"]) for key in ("joints", "vis"))
    codec = make_codec(TargetPart(codec="integral-softmax"), get_skeleton("coco17"))
    tensors = torch.tensor(joints[None, :, :2]), torch.tensor(visible[None, :, 0])
    _, height, width = wanted["target"]["shape"]
    places, weights = combined_torch.encode(codec, *tensors, (4 * width, 4 * height))
    np.testing.assert_allclose(places.reshape(-1).numpy(), wanted["integral_target"]["data"], atol=1e-6)
    np.testing.assert_array_equal(weights.repeat_interleave(2).numpy(), np.ravel(wanted["integral_weight"]["data"]))


@pytest.mark.parametrize("target", [{}, {"sigma": 1.5, "refine": "dark"}, {"refine": "dark-udp", "sigma": 3.0}])
def test_the_task_wants_exactly_these_maps(people: Callable[[str], Path], target: dict[str, Any]) -> None:
    task = PoseTask(recipe_of(people("coco17"), target=target, input={"size_wh": (64, 96)}))
    batch = batch_of(task)
    maps, weights = task.codec.encode(batch["crop_xy"].numpy(), batch["weights"].numpy(), (64, 96))
    perfect, moved = torch.from_numpy(maps), torch.from_numpy(np.roll(maps, 1, axis=3))
    assert task.loss(Given(perfect), batch)[0].item() == pytest.approx(0, abs=1e-9)
    per_joint = (torch.from_numpy(maps) - moved).square().mean((2, 3)).numpy() * weights
    assert task.loss(Given(moved), batch)[0].item() == pytest.approx(0.5 * MAP_SCALE * per_joint.mean(), rel=1e-4)
    assert task.loss(Given(perfect), batch)[1]["oks"] > 0.9
    weighted = {**target, "joint_weights": True}
    task = PoseTask(recipe_of(people("coco17"), target=weighted, input={"size_wh": (64, 96)}))
    wanted = 0.5 * MAP_SCALE * (per_joint * get_skeleton("coco17").joint_weights).mean()
    assert task.loss(Given(moved), batch)[0].item() == pytest.approx(wanted, rel=1e-4)


def test_maps_of_any_stride(people: Callable[[str], Path]) -> None:
    task = PoseTask(recipe_of(people("coco17")))
    batch = batch_of(task)
    eighth, _ = HeatmapCodec(stride=8).encode(batch["crop_xy"].numpy(), batch["weights"].numpy(), (64, 64))
    assert task.loss(Given(torch.from_numpy(eighth)), batch)[0].item() == pytest.approx(0, abs=1e-9)
    assert task.codec == HeatmapCodec(stride=8)
    with pytest.raises(PosezooError, match="maps of 15x16 are no whole fraction of 64x64"):
        task.loss(Given(torch.zeros(6, 17, 16, 15)), batch)


def test_dark_blurs_as_wide_as_its_targets() -> None:
    kernels = {}
    for sigma in (1.5, 2.0, 3.0):
        codec = make_codec(TargetPart(sigma=sigma, refine="dark"), get_skeleton("coco17"))
        assert isinstance(codec, HeatmapCodec) and codec.sigma == sigma
        kernels[sigma] = codec.blur_kernel
    assert kernels == {1.5: 11, 2.0: 11, 3.0: 17}


# ---- weights of joints, and targets that do not fit


def test_parts_weigh_as_the_recipe_says(people: Callable[[str], Path]) -> None:
    halpe = get_skeleton("halpe136")
    given = TargetPart(part_weights={"left_hand": 10, "right_hand": 10, "face": 0})
    weights = joint_weights(halpe, given)
    assert weights[halpe.index("left_thumb3")] == weights[halpe.index("right_pinky_finger4")] == 10
    assert weights[halpe.index("face-30")] == 0
    body = get_skeleton("coco17")
    assert joint_weights(body, TargetPart(part_weights={"body": 2})).tolist() == [2] * 17
    both = joint_weights(body, TargetPart(part_weights={"body": 2}, joint_weights=True))
    np.testing.assert_allclose(both, 2 * body.joint_weights)
    with pytest.raises(PosezooError, match=r"unknown part of halpe136 'left_hands'; did you mean left_hand"):
        joint_weights(halpe, TargetPart(part_weights={"left_hands": 10}))
    assert weights_in_words(body, TargetPart()) == "all alike"
    assert weights_in_words(body, TargetPart(joint_weights=True)) == (
        "left_wrist, right_wrist, left_ankle, right_ankle 1.5; left_elbow, right_elbow, left_knee, right_knee 1.2; "
        "the other 9 1"
    )
    told = weights_in_words(halpe, given)
    assert told.startswith("left_hand_root, left_thumb1, left_thumb2, left_thumb3 and 38 more 10; face-0, face-1, ")
    assert told.endswith(" and 64 more 0; the other 26 1")
    hands = {"left_hand": 10, "right_hand": 10}
    losses = []
    for parts in ({}, hands):
        target = {"codec": "combined-26", "part_weights": parts}
        task = PoseTask(recipe_of(people("halpe136"), skeleton="halpe136", target=target))
        batch = batch_of(task)
        batch["weights"][:, : halpe.index("left_hand_root")] = 0
        losses.append(task.loss(Given(torch.zeros(6, 136, 16, 16)), batch)[0].item())
    assert losses[1] == pytest.approx(10 * losses[0]) and losses[0] > 0


@pytest.mark.parametrize(
    ("skeleton", "target", "message"),
    [
        ("coco17", {"codec": "combined-26"}, r'coco17 has 17 of 17: use "heatmap" or "integral-sigmoid"'),
        ("wholebody133", {"codec": "combined-26"}, "wholebody133 has 23 of 133: use combined-23"),
        ("halpe136", {"codec": "combined-23"}, "halpe136 has 26 of 136: use combined-26"),
        ("coco17", {"codec": "integral-softmax", "loss": "ohkm"}, 'target.loss = "ohkm" is for heatmaps'),
        ("coco17", {"codec": "heatmaps"}, "unknown codec 'heatmaps'; did you mean heatmap"),
    ],
)
def test_targets_that_do_not_fit(skeleton: str, target: dict[str, Any], message: str) -> None:
    with pytest.raises(PosezooError, match=message):
        make_codec(TargetPart.model_validate(target), get_skeleton(skeleton))


@pytest.mark.parametrize(
    ("skeleton", "target", "words"),
    [
        ("coco17", {}, "mse of heatmaps"),
        ("coco17", {"loss": "ohkm", "hardest": 6}, "mse of the 6 worst heatmaps of each person"),
        ("halpe136", {"codec": "integral-sigmoid"}, "L1 of places, with symmetric gradients"),
        (
            "halpe136",
            {"codec": "combined-26", "integral_weight": 0.5},
            "mse of heatmaps, of 26 joints; 0.5 times L1 of the places of the other 110, with symmetric gradients",
        ),
    ],
)
def test_the_loss_in_words(skeleton: str, target: dict[str, Any], words: str) -> None:
    assert loss_in_words(get_skeleton(skeleton), TargetPart.model_validate(target)) == words


# ---- the network's side


@pytest.mark.parametrize("channels", ["rgb", "bgr"])
def test_the_network_sees_what_it_sees_when_it_predicts(people: Callable[[str], Path], channels: Any) -> None:
    mean, std = (0.1, 0.2, 0.3), (0.5, 1.0, 2.0)  # in the order of the channels
    task = PoseTask(recipe_of(people("coco17"), input={"mean": mean, "std": std, "channels": channels}))
    batch, network = batch_of(task), Given(torch.zeros(6, 17, 16, 16))
    task.loss(network, batch)
    crops = batch["crop"].permute(0, 2, 3, 1).contiguous().numpy()
    np.testing.assert_allclose(network.images.numpy(), normalise(crops, mean, std, channels), atol=1e-5)


def test_every_stack_learns_through_the_models_own_call(people: Callable[[str], Path]) -> None:
    class Wrapped(nn.Module):
        """As a model is, that is shared among devices."""

        def __init__(self, module: nn.Module):
            super().__init__()
            self.module, self.calls = module, 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return self.module(x)

    task = PoseTask(recipe_of(people("coco17")))
    batch, model = batch_of(task, 2), build("hourglass_s2", 17)
    wrapped = Wrapped(model.eval())  # BatchNorm as it is, so that two calls give the same
    images = task._images(batch["crop"])
    found = every_stack(wrapped, images)
    assert wrapped.calls == 1 and len(found) == 2
    for one, other in zip(found, model.stacks(images), strict=True):
        torch.testing.assert_close(one, other)
    loss, _ = task.loss(wrapped, batch)
    each = [task.loss(Given(one.detach()), batch)[0].item() for one in found]
    assert loss.item() == pytest.approx(np.mean(each), rel=1e-5)
    loss.backward()
    assert all(stage.heatmaps.weight.grad.abs().sum() > 0 for stage in model.stages)
    assert not any(stage._forward_hooks for stage in model.stages)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_every_stack_of_a_compiled_network() -> None:
    model = build("hourglass_s2", 3).eval()
    compiled = torch.compile(model, backend="eager")
    with torch.no_grad():
        for seed in range(10):  # more often than a function is compiled anew
            images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(seed))
            for one, other in zip(every_stack(compiled, images), model.stacks(images), strict=True):
                torch.testing.assert_close(one, other)


FAMILIES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "simple_pose": ("simple_pose_resnet18_v1b", "coco17", {}),
    "mobile_pose": ("mobile_pose_mobilenetv3_small", "mpii16", {"refine": "dark"}),
    "hourglass": ("hourglass_s2", "mpii16", {"sigma": 1.0}),
    "ohkm": ("mobile_pose_mobilenetv3_small", "coco17", {"loss": "ohkm", "hardest": 8}),
    "integral-softmax": ("mobile_pose_mobilenetv3_small", "hand21", {"codec": "integral-softmax"}),
    "combined-136": ("mobile_pose_mobilenetv3_small", "halpe136", {"codec": "combined-26", "integral_weight": 2.0}),
    "combined-133": ("mobile_pose_mobilenetv3_small", "wholebody133", {"codec": "combined-23", "loss": "ohkm"}),
}
MORE_FAMILIES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "hrnet": ("pose_hrnet_w32", "coco17", {"sigma": 1.0}),
    "fastpose-dcn": ("fastpose_resnet50_dcn", "halpe26", {}),
    "combined-68": ("mobile_pose_mobilenetv3_small", "halpe68", {"codec": "combined-26"}),
    "two deconvolutions": ("simple_pose_resnet50_v1b_2deconv", "jhmdb15", {"sigma": 1.0}),
    "resnet-d": ("simple_pose_resnet18_v1d", "coco17", {}),
    "caffe": ("simple_pose_resnet50_caffe", "coco17", {}),
    "se": ("simple_pose_seresnet50", "posetrack17", {}),
    "mobilenetv2": ("simple_pose_mobilenetv2", "aic14", {}),
    "mobile_pose-resnet": ("mobile_pose_resnet18_v1b", "coco17", {}),
    "mobile_pose-fpn": ("mobile_pose_fpn_1.0", "crowdpose14", {"sigma": 1.5, "refine": "dark"}),
    "hrnet-w48-udp": ("pose_hrnet_w48", "wholebody133", {"refine": "dark-udp"}),
    "hourglass52": ("hourglass52_s2", "coco17", {"sigma": 1.0}),
    "princeton": ("hourglass_princeton_s2", "mpii16", {"sigma": 1.0}),
    "fastpose": ("fastpose_resnet50", "coco17", {"codec": "integral-sigmoid"}),
    "fastpose-136": ("fastpose_resnet50_dcn_wide", "halpe136", {"codec": "combined-26"}),
    "fastpose-133": ("fastpose_resnet50_dcn_g2", "wholebody133", {"codec": "combined-23"}),
    "fastpose-duc": ("fastpose_duc_resnet50_unshuffle", "halpe26", {}),
    "fastpose-dcnv2": ("fastpose_resnet50_dcnv2", "coco17", {"codec": "integral-sigmoid"}),
}


@pytest.mark.parametrize("family", [*FAMILIES, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE_FAMILIES)])
def test_every_family_learns(people: Callable[[str], Path], family: str) -> None:
    arch, skeleton, target = (FAMILIES | MORE_FAMILIES)[family]
    task = PoseTask(recipe_of(people(skeleton), arch, skeleton=skeleton, target=target))
    model, batch = build(arch, task.joints), batch_of(task, 2)
    optimiser, losses = torch.optim.Adam(model.parameters(), 1e-4), []
    for _ in range(3):
        loss, figures = task.loss(model, batch)
        assert all(math.isfinite(value) for value in figures.values())
        losses.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
        assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in learning)
        optimiser.step()
    assert losses[2] < losses[1] < losses[0], losses


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arch", "skeleton", "target"),
    [
        ("mobile_pose_mobilenetv3_small", "coco17", {"sigma": 1.5, "refine": "dark"}),
        ("mobile_pose_mobilenetv3_small", "hand21", {"codec": "integral-sigmoid"}),
    ],
)
def test_one_batch_can_be_learnt_by_heart(
    people: Callable[[str], Path], arch: str, skeleton: str, target: dict[str, Any]
) -> None:
    task = PoseTask(recipe_of(people(skeleton), arch, skeleton=skeleton, target=target))
    _, losses = fit(task, arch, 40, 6e-3)
    assert losses[-1] < 0.25 * losses[0]


# ---- teachers


class Teachers:
    """As `posezoo.train.distill.Distiller`, for what the task hands over."""

    made: list[Any] = []  # noqa: RUF012

    def __init__(self, *arguments: Any):
        self.made.append(arguments)

    def loss(self, images: Tensor, outputs: Tensor, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        assert images.shape == (6, 3, 64, 64) and outputs.shape == (6, 17, 16, 16) and batch["source"].shape == (6,)
        return outputs.sum() * 0 + 5, {"taught": 5.0}


def test_teachers_add_to_the_labels(people: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from posezoo.train import distill

    monkeypatch.setattr(distill, "Distiller", Teachers)
    monkeypatch.setattr(Teachers, "made", [])
    plain, taught = (
        PoseTask(recipe_of(people("coco17"), distill=part))
        for part in ({}, {"teachers": [{"model": "embedded"}], "heatmap": 1, "label": 0.25})
    )
    batch, network = batch_of(plain), Given(torch.zeros(6, 17, 16, 16))
    alone, figures = plain.loss(network, batch)
    assert Teachers.made == [] and set(figures) == {"oks"}
    for _ in range(2):
        both, figures = taught.loss(network, batch)
        assert both.item() == pytest.approx(0.25 * alone.item() + 5) and figures["taught"] == 5
    assert Teachers.made == [(taught.recipe, taught.skeleton, taught.codec, CPU)]

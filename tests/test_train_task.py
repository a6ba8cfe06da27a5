"""Losses and the pose task: what the zoos' own code computes, every family, and each dataset by its own metric."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from posezoo.codecs import CombinedCodec, HeatmapCodec, IntegralCodec, combined_torch  # noqa: E402
from posezoo.crop import normalise  # noqa: E402
from posezoo.data.catalog import get_dataset  # noqa: E402
from posezoo.errors import PosezooError  # noqa: E402
from posezoo.evaluate.protocol import get_protocol  # noqa: E402
from posezoo.evaluate.run import run_evaluation  # noqa: E402
from posezoo.models.build import build  # noqa: E402
from posezoo.skeletons import Skeleton, get_skeleton  # noqa: E402
from posezoo.train.losses import MAP_SCALE, heatmap_mse, heatmap_ohkm, integral_l1, label_loss  # noqa: E402
from posezoo.train.pose import PoseTask, every_stack, joint_weights, make_codec  # noqa: E402
from posezoo.train.recipe import Recipe, TargetPart  # noqa: E402

CPU = torch.device("cpu")
RED, BLUE = (255, 0, 0), (0, 0, 255)
AS_IT_IS = {"flip": 0, "scale": 0, "rotation": 0, "half_body": 0}  # of augmentation: none
COMBINED = CombinedCodec(HeatmapCodec(), IntegralCodec("sigmoid"), heatmap_joints=3)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


# ---- data made here


def write_people(folder: Path, skeleton: Skeleton, pictures: int = 3, each: int = 2) -> Path:
    """Grey pictures of people whose even joints are where red is, and whose odd joints are where blue is."""
    rng, images, entries = np.random.default_rng(0), [], []
    for number in range(pictures):
        picture = np.full((200, 100 * each, 3), 90 + 20 * number, np.uint8)
        for person in range(each):
            box = [100 * person + 10.0, 10.0, 80.0, 180.0]
            places = np.array([box[0] + rng.uniform(15, 65, 2), rng.uniform(30, 150, 2)]).T
            for colour, place in zip((RED, BLUE), places, strict=True):
                cv2.circle(picture, tuple(int(v) for v in place.round()), 9, colour, -1)
            joints = places.round()[np.arange(len(skeleton)) % 2]
            keypoints = np.column_stack([joints, np.full(len(skeleton), 2)]).reshape(-1).tolist()
            entries.append(
                {"id": len(entries) + 1, "image_id": number, "category_id": 1, "iscrowd": 0, "bbox": box,
                 "area": 80 * 180.0, "keypoints": keypoints, "num_keypoints": len(skeleton)}
            )  # fmt: skip
        images.append({"id": number, "file_name": f"{number}.png", "width": picture.shape[1], "height": 200})
        cv2.imwrite(str(folder / f"{number}.png"), picture[..., ::-1])
    path = folder / "people.json"
    path.write_text(json.dumps({"images": images, "annotations": entries, "categories": [{"id": 1, "name": "person"}]}))
    return path


def recipe_of(folder: Path, arch: str = "none", **parts: Any) -> Recipe:
    """A recipe of `write_people`'s, whose samples are crops of 64 x 64 as they are."""
    skeleton = parts.pop("skeleton", "coco17")
    source = parts.pop("train", {"annotations": "people.json", "images": "."})
    data = {"root": folder, "train": source, "skeleton": skeleton, **parts.pop("data", {})}
    small = {"input": {"size_wh": (64, 64), **parts.pop("input", {})}, "augment": {**AS_IT_IS}}
    return Recipe.model_validate({"name": "tiny", "model": {"arch": arch}, "data": data, **small, **parts})


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of `write_people` for a skeleton."""
    folders: dict[str, Path] = {}

    def folder_of(skeleton: str) -> Path:
        if skeleton not in folders:
            folders[skeleton] = tmp_path_factory.mktemp(skeleton)
            write_people(folders[skeleton], get_skeleton(skeleton))
        return folders[skeleton]

    return folder_of


def batch_of(task: PoseTask, rows: int | None = None) -> dict[str, Tensor]:
    samples = [task.dataset[0, row] for row in range(rows or len(task.dataset))]
    return {key: torch.stack([sample[key] for sample in samples]) for key in samples[0]}


class Given(nn.Module):
    """A network that gives these maps, whatever it sees."""

    def __init__(self, maps: Tensor):
        super().__init__()
        self.maps = nn.Parameter(maps)

    def forward(self, images: Tensor) -> Tensor:
        self.images = images
        return self.maps


class Colours(nn.Module):
    """A network whose even joints are where its input is red, whose odd joints are where it is blue."""

    def __init__(self, joints: int, stride: int = 4):
        super().__init__()
        self.joints, self.stride = joints, stride

    def forward(self, images: Tensor) -> Tensor:
        light = images - images[:, 1:2]
        maps = nn.functional.avg_pool2d(light.clamp(min=0)[:, [0, 2]], self.stride)
        near = torch.exp(-(torch.arange(-3.0, 4) ** 2) / 2)
        spread = (near[:, None] * near)[None, None]
        maps = nn.functional.conv2d(maps.flatten(0, 1)[:, None], spread, padding=3).view_as(maps)
        maps = maps / maps.amax(dim=(2, 3), keepdim=True).clamp(min=1e-6)
        return maps[:, torch.arange(self.joints) % 2]


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
    task.joint_weights = torch.ones(17)  # HRNet's are all alike
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
        check(target if codec.grid == "legacy" else {**target, "codec": "heatmap-dark-udp"}, mmpose, case)
    refined = [target.get("refine", "quarter") for target in checked]
    assert len(checked) >= 5 and {"quarter", "dark"} <= set(refined)
    assert any("codec" in target for target in checked)


def test_the_recipes_coordinates_are_alphaposes(parity: Path) -> None:
    wanted = read(parity, "alphapose_targets")
    joints, visible = (np.reshape(wanted[key]["data"], wanted[key]["shape"]) for key in ("joints", "vis"))
    codec = make_codec(TargetPart(codec="integral-softmax"), get_skeleton("coco17"))
    tensors = torch.tensor(joints[None, :, :2]), torch.tensor(visible[None, :, 0])
    _, height, width = wanted["target"]["shape"]
    places, weights = combined_torch.encode(codec, *tensors, (4 * width, 4 * height))
    np.testing.assert_allclose(places.reshape(-1).numpy(), wanted["integral_target"]["data"], atol=1e-6)
    np.testing.assert_array_equal(weights.repeat_interleave(2).numpy(), np.ravel(wanted["integral_weight"]["data"]))


@pytest.mark.parametrize("target", [{}, {"sigma": 1.5, "refine": "dark"}, {"codec": "heatmap-dark-udp", "sigma": 3.0}])
def test_the_task_wants_exactly_these_maps(people: Callable[[str], Path], target: dict[str, Any]) -> None:
    task = PoseTask(recipe_of(people("coco17"), target=target, input={"size_wh": (64, 96)}))
    batch = batch_of(task)
    maps, weights = task.codec.encode(batch["crop_xy"].numpy(), batch["weights"].numpy(), (64, 96))
    perfect, moved = torch.from_numpy(maps), torch.from_numpy(np.roll(maps, 1, axis=3))
    assert task.loss(Given(perfect), batch)[0].item() == pytest.approx(0, abs=1e-9)
    per_joint = (torch.from_numpy(maps) - moved).square().mean((2, 3)).numpy() * weights
    wanted = 0.5 * MAP_SCALE * (per_joint * get_skeleton("coco17").joint_weights).mean()
    assert task.loss(Given(moved), batch)[0].item() == pytest.approx(wanted, rel=1e-4)
    assert task.loss(Given(perfect), batch)[1]["oks"] > 0.9


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
    weights = joint_weights(halpe, {"left_hand": 10, "right_hand": 10, "face": 0})
    assert weights[halpe.index("left_thumb3")] == weights[halpe.index("right_pinky_finger4")] == 10
    assert weights[halpe.index("face-30")] == 0
    body = joint_weights(get_skeleton("coco17"), {"body": 2})
    np.testing.assert_allclose(body, 2 * get_skeleton("coco17").joint_weights)
    with pytest.raises(PosezooError, match=r"unknown part of halpe136 'left_hands'; did you mean left_hand"):
        joint_weights(halpe, {"left_hands": 10})
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
    "hrnet-w48-udp": ("pose_hrnet_w48", "wholebody133", {"codec": "heatmap-dark-udp"}),
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


def fit(task: PoseTask, arch: str, steps: int, rate: float) -> tuple[nn.Module, list[float]]:
    """The network after so many steps on the whole dataset at once, in eval mode; and the loss of each."""
    model, batch, losses = build(arch, task.joints).train(), batch_of(task), []
    optimiser = torch.optim.Adam(model.parameters(), rate)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = rate * min(1, (step + 1) / 5) * 0.5 * (1 + math.cos(math.pi * step / steps))
        optimiser.zero_grad()
        loss, _ = task.loss(model, batch)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return model.eval(), losses


@pytest.mark.parametrize(
    ("arch", "skeleton", "target"),
    [
        ("mobile_pose_mobilenetv3_small", "coco17", {"sigma": 1.5, "refine": "dark"}),
        pytest.param("mobile_pose_mobilenetv3_small", "hand21", {"codec": "integral-sigmoid"}, marks=pytest.mark.slow),
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


# ---- samples


def test_samples_follow_from_seed_epoch_and_row(people: Callable[[str], Path]) -> None:
    folder = people("coco17")
    source = {"annotations": "people.json", "images": "."}
    recipe = recipe_of(folder, train=[source, {**source, "share": 2.5}], data={"validate": source})
    recipe = recipe.model_copy(update={"augment": type(recipe.augment)(colour=1, occlusion=1)})
    task = PoseTask(recipe)
    assert len(task.dataset) == 12 and task.notes
    np.testing.assert_allclose(task.order_weights, [1] * 6 + [2.5] * 6)
    batch = batch_of(task)
    assert batch["source"].dtype == torch.int64 and batch["source"].tolist() == [0] * 6 + [1] * 6
    assert batch["crop"].dtype == torch.uint8 and batch["crop"].shape == (12, 3, 64, 64)
    again = batch_of(PoseTask(recipe))
    assert all(torch.equal(again[key], value) for key, value in batch.items())
    assert not torch.equal(task.dataset[1, 3]["crop"], batch["crop"][3])
    assert not torch.equal(batch["crop"][9], batch["crop"][3])  # the same person, another row


def test_crops_are_cut_on_the_grid_of_the_codec(people: Callable[[str], Path]) -> None:
    legacy, unbiased = (
        batch_of(PoseTask(recipe_of(people("coco17"), target={"codec": name})))
        for name in ("heatmap", "heatmap-dark-udp")
    )
    factor = 63 / 64
    moved = (legacy["crop_xy"] - 32) * factor + 31.5
    torch.testing.assert_close(unbiased["crop_xy"], moved, atol=1e-3, rtol=0)


# ---- validation


def of_dataset(folder: Path, dataset: str = "coco", **more: Any) -> dict[str, Any]:
    return {"dataset": dataset, "annotations": str(folder / "people.json"), "images": str(folder), **more}


def test_validation_is_the_evaluation_of_posezoo(
    people: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from posezoo import stream

    folder, reads, plain = people("coco17"), [], stream.open_image
    monkeypatch.setattr(stream, "open_image", lambda path, **how: reads.append(path) or plain(path, **how))
    pixels = {"mean": (0, 0, 0), "std": (1, 1, 1), "size_wh": (192, 256)}
    figures = {}
    for name, source in (("coco", of_dataset(folder)), (None, {"annotations": "people.json", "images": "."})):
        task = PoseTask(recipe_of(folder, data={"validate": source}, input=pixels, target={"refine": "dark"}))
        assert task.metric == "AP"
        reads.clear()
        figures[name] = task.validate(Colours(17).eval(), CPU)
        assert len(reads) == 3  # pictures, of six people
    assert figures["coco"]["AP"] > 0.7
    assert figures["coco"] == figures[None]
    report = run_evaluation(
        task._judge.trainee, "coco", folder, folder / "people.json", get_protocol("plain", "coco"), tmp_path  # type: ignore[union-attr]
    )  # fmt: skip
    assert report is not None and report.metrics == figures["coco"]


def test_a_network_of_more_joints_is_judged_by_name(people: Callable[[str], Path]) -> None:
    pixels = {"mean": (0, 0, 0), "std": (1, 1, 1), "size_wh": (192, 256)}
    halpe, coco = people("halpe26"), people("coco17")
    task = PoseTask(recipe_of(halpe, skeleton="halpe26", data={"validate": of_dataset(coco)}, input=pixels))
    assert task.joints == 26
    assert task.validate(Colours(26).eval(), CPU)["AP"] > 0.8  # the first 17 are COCO's


def test_without_a_validation_source_there_are_no_figures(people: Callable[[str], Path]) -> None:
    task = PoseTask(recipe_of(people("coco17")))
    assert task.metric == "AP" and task.validate(Colours(17), CPU) == {}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"dataset": "mpii", "split": "vall"}, "unknown split of mpii 'vall'; did you mean val"),
        ({"dataset": "coco", "annotations": "people.json"}, "give the images' folder too"),
        ({"dataset": "coco", "annotations": "none.json", "images": "."}, "none.json"),
        ({"dataset": "mpii", "annotations": "people.json", "images": "."}, "people.json"),
        ({"dataset": "coco", "annotations": "people.json", "images": "nowhere"}, "3 of 3 pictures are missing"),
    ],
)
def test_what_is_wrong_with_validation_is_said_before_the_run(
    people: Callable[[str], Path], source: dict[str, Any], message: str
) -> None:
    with pytest.raises(PosezooError, match=message) as caught:
        PoseTask(recipe_of(people("coco17"), data={"validate": source}))
    assert len(str(caught.value).splitlines()) == 1


def test_a_network_without_the_datasets_joints(people: Callable[[str], Path]) -> None:
    with pytest.raises(PosezooError, match=r"gives coco17, which has no .*head.*this dataset wants halpe26"):
        PoseTask(recipe_of(people("coco17"), data={"validate": of_dataset(people("halpe26"), "halpe26")}))


# ---- every dataset of the zoos, by its samples

# annotations and folder of pictures
SAMPLES: dict[str, tuple[str, str]] = {
    "coco": ("coco/test_coco.json", "coco"),
    "ochuman": ("ochuman/test_ochuman.json", "ochuman"),
    "crowdpose": ("crowdpose/test_crowdpose.json", "crowdpose"),
    "aic": ("aic/test_aic.json", "aic"),
    "mhp": ("mhp/test_mhp.json", "mhp"),
    "mpii": ("mpii/test_mpii.json", "mpii"),
    "mpii_trb": ("mpii/test_mpii_trb.json", "mpii"),
    "posetrack18": ("posetrack18/annotations/test_posetrack18_val.json", "posetrack18"),
    "jhmdb": ("jhmdb/test_jhmdb_sub1.json", "jhmdb"),
    "halpe26": ("halpe/test_halpe.json", "coco"),
    "halpe68": ("halpe/test_halpe.json", "coco"),
    "halpe136": ("halpe/test_halpe.json", "coco"),
    "wholebody133": ("coco/test_coco_wholebody.json", "coco"),
    "hand21": ("onehand10k/test_onehand10k.json", "onehand10k"),
}
PERCENT = ("mpii", "posetrack18")
SURE = {"sigma": 2.0, "refine": "dark"}
SMALL = "mobile_pose_mobilenetv3_small"
FINE, FINER = (64, 96), (96, 128)  # crops

# what learns the samples by heart, on crops of which size, in how many steps at which rate, and how well at least
COURSES: dict[str, tuple[str, dict[str, Any], tuple[int, int], int, float, float]] = {
    "coco": (SMALL, SURE, FINE, 150, 6e-3, 0.9),
    "ochuman": ("pose_hrnet_w32", SURE, FINE, 50, 1e-3, 0.95),
    "crowdpose": (SMALL, SURE, FINE, 150, 6e-3, 0.9),
    "aic": (SMALL, SURE, FINE, 180, 6e-3, 0.85),
    "mhp": ("fastpose_resnet50", {**SURE, "loss": "ohkm"}, FINE, 50, 1e-3, 0.95),
    "mpii": ("hourglass_s2", SURE, FINE, 80, 1e-3, 95),
    "mpii_trb": (SMALL, SURE, FINER, 120, 6e-3, 0.95),
    "posetrack18": (SMALL, SURE, FINE, 150, 6e-3, 90),
    "jhmdb": ("simple_pose_resnet18_v1b", SURE, FINE, 80, 1e-3, 0.95),
    "halpe26": (SMALL, SURE, FINE, 150, 6e-3, 0.9),
    "halpe68": (SMALL, {**SURE, "codec": "combined-26"}, FINER, 300, 8e-3, 0.9),
    "halpe136": (SMALL, {**SURE, "codec": "combined-26"}, FINER, 300, 8e-3, 0.9),
    "wholebody133": (SMALL, {**SURE, "codec": "combined-23"}, FINER, 300, 8e-3, 0.9),
    "hand21": ("fastpose_resnet50_dcn", {"codec": "integral-sigmoid"}, FINE, 50, 1e-3, 0.95),
}


@pytest.fixture
def sample_task(shared: Path, tmp_path: Path) -> Callable[..., PoseTask]:
    """The task of a dataset's samples, to learn from and to be judged by."""

    def make(name: str, target: dict[str, Any], size_wh: tuple[int, int] = FINE) -> PoseTask:
        file, folder = (shared / "samples" / part for part in SAMPLES[name])
        if name in ("mpii", "mpii_trb"):
            file = with_heads(file, tmp_path / "heads.json")
        source = {"dataset": name, "annotations": str(file), "images": str(folder)}
        skeleton, size = get_dataset(name).skeleton, {"size_wh": size_wh}
        return PoseTask(
            recipe_of(tmp_path, train=source, skeleton=skeleton, data={"validate": source}, target=target, input=size)
        )

    return make


def with_heads(file: Path, target: Path) -> Path:
    """The samples of MPII and MPII-TRB have no head boxes, the unit of their metrics."""
    content = json.loads(file.read_text())
    for entry in content if isinstance(content, list) else content["annotations"]:
        entry["headbox"] = [0, 0, 60, 80]
    target.write_text(json.dumps(content))
    return target


@pytest.mark.parametrize("name", SAMPLES)
def test_every_dataset_is_judged_by_its_own_metric(sample_task: Callable[..., PoseTask], name: str) -> None:
    task = sample_task(name, {})
    batch = batch_of(task, 2)
    assert batch["crop"].float().std() > 10 and (batch["weights"] > 0).any()
    loss, _ = task.loss(Given(torch.zeros(2, task.joints, 24, 16)), batch)
    assert loss.item() > 0.1
    figures = task.validate(Colours(task.joints).eval(), CPU)
    full = 100 if name in PERCENT else 1
    assert 0 <= figures[task.metric] < 0.5 * full


@pytest.mark.slow
@pytest.mark.parametrize("name", COURSES)
def test_the_samples_are_learnt_by_heart(sample_task: Callable[..., PoseTask], name: str) -> None:
    arch, target, size_wh, steps, rate, least = COURSES[name]
    task = sample_task(name, target, size_wh)
    model, losses = fit(task, arch, steps, rate)
    assert losses[-1] < 0.2 * losses[0]
    assert task.validate(model, CPU)[task.metric] >= least

"""Teachers: what they see, whom and what they teach, and that training leaves them alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from posezoo.codecs import get_codec  # noqa: E402
from posezoo.crop import box_to_affine, invert_affine, transform_points  # noqa: E402
from posezoo.errors import PosezooError  # noqa: E402
from posezoo.models.build import build  # noqa: E402
from posezoo.skeletons import get_skeleton  # noqa: E402
from posezoo.train import distill  # noqa: E402
from posezoo.train.distill import Distiller, crop_change, soft_places  # noqa: E402
from posezoo.train.recipe import Recipe  # noqa: E402
from posezoo.zoo import Entry, get_entry  # noqa: E402

CPU = torch.device("cpu")
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "channels": "rgb"}


class Sees(nn.Module):
    """Heatmaps at a quarter of the crop: every joint where a colour is, spread over a Gaussian of 2 pixels."""

    def __init__(self, joints: int, colour: int = 0, gain: float = 1.0, udp: bool = False):
        super().__init__()
        self.colour, self.joints, self.udp = colour, joints, udp
        self.gain = nn.Parameter(torch.tensor(gain))
        near = torch.exp(-(torch.arange(-8, 9) ** 2) / 8)
        self.spread = near[:, None] * near
        self.batches = 0

    def forward(self, x: Tensor) -> Tensor:
        self.batches += 1
        self.shape = tuple(x.shape)
        light = nn.functional.avg_pool2d(x[:, self.colour, None].float(), 3, stride=1, padding=1)
        size = (x.shape[2] // 4, x.shape[3] // 4)
        corners = nn.functional.interpolate(light, size, mode="bilinear", align_corners=True)
        light = corners if self.udp else light[..., ::4, ::4]
        maps = nn.functional.conv2d(light, self.spread[None, None], padding=8)
        return (maps / maps.amax(dim=(2, 3), keepdim=True).clamp(min=1e-6) * self.gain).repeat(1, self.joints, 1, 1)


def entry_of(size_wh: tuple[int, int], skeleton: str = "coco17", codec: str = "heatmap", **more: Any) -> Entry:
    return replace(get_entry("embedded"), input_size_wh=size_wh, skeleton=skeleton, codec=codec, **{**PLAIN, **more})


@pytest.fixture
def hire(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts networks with entries where teachers come from, by name."""

    def set_up(**teachers: tuple[nn.Module, Entry]) -> None:
        monkeypatch.setattr(distill, "get_entry", lambda name: replace(teachers[name][1], notes=name))
        monkeypatch.setattr(distill, "get_model", lambda name, pretrained: next(n for n, _ in teachers.values()))
        by_notes = {name: network for name, (network, _) in teachers.items()}
        names = iter(teachers)
        monkeypatch.setattr(distill, "get_model", lambda name, pretrained: by_notes[next(names)])

    return set_up


def make_recipe(teachers: list[dict[str, Any]], size_wh: tuple[int, int] = (64, 64), **more: Any) -> Recipe:
    table = {
        "name": "x",
        "model": {"arch": "simple_pose_resnet18_v1b"},
        "data": {"train": [{"annotations": "a", "images": "i", "domain": d} for d in ("body", "street")]},
        "input": {"size_wh": size_wh, **PLAIN},
        "distill": {"teachers": teachers, "heatmap": 1, **more},
    }
    return Recipe.model_validate(table)


def spots(people: int, size_wh: tuple[int, int], seed: int = 0) -> tuple[Tensor, np.ndarray]:
    """Crops with one round red spot each, and where its middle is."""
    rng = np.random.default_rng(seed)
    width, height = size_wh
    xy = rng.uniform(0.3, 0.7, (people, 2)) * size_wh
    y, x = np.mgrid[:height, :width]
    away = (x - xy[:, 0, None, None]) ** 2 + (y - xy[:, 1, None, None]) ** 2
    crops = np.zeros((people, 3, height, width), np.uint8)
    crops[:, 0] = 255 * np.exp(-away / 18)
    return torch.from_numpy(crops), xy


def batch_of(crops: Tensor, sources: list[int] | None = None) -> dict[str, Tensor]:
    return {"crop": crops, "source": torch.tensor(sources or [0] * len(crops))}


def make(recipe: Recipe, skeleton: str = "coco17", codec: str = "heatmap") -> Distiller:
    return Distiller(recipe, get_skeleton(skeleton), get_codec(codec), CPU)


def small(seed: int = 0) -> nn.Sequential:
    """A network that can learn something."""
    torch.manual_seed(seed)
    first = (nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
    return nn.Sequential(*first, nn.Conv2d(8, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 17, 3, 1, 1))


@pytest.mark.parametrize(
    "codec", ["heatmap", "heatmap-dark-udp", "integral-softmax", "integral-sigmoid", "combined-23"]
)
def test_a_teacher_like_the_student_has_nothing_to_teach(hire: Callable[..., None], codec: str) -> None:
    student = small().eval()
    hire(t=(student, entry_of((64, 64), codec=codec)))
    weights = {"heatmap": 0 if "integral" in codec else 1, "coordinate": 1}
    distiller = make(make_recipe([{"model": "t"}], **weights), codec=codec)
    crops = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    loss, figures = distiller.loss(crops / 255, student(crops / 255), batch_of(crops))
    assert figures.keys() == {f"distill_{name}" for name, weight in weights.items() if weight}
    assert float(loss.detach()) < 1e-6  # convolutions round by the layout of their input
    worse, figures = distiller.loss(crops / 255, student(crops.flip(3) / 255), batch_of(crops))
    assert min(figures.values()) > 1e-3
    assert float(worse.detach()) == pytest.approx(sum(map(float, figures.values())))


def test_a_teacher_may_come_from_a_file(tmp_path: Path) -> None:
    row = get_entry("simple_pose_resnet18_v1b.gluoncv_coco_256x192")
    saved = build(row.arch, 17).state_dict()
    save_file(saved, tmp_path / "t.safetensors")
    distiller = make(make_recipe([{"model": row.name, "weights": tmp_path / "t.safetensors"}]))
    (hired,) = distiller.teachers
    assert hired.entry is row
    assert all(torch.equal(tensor, saved[key]) for key, tensor in hired.network.state_dict().items())


@pytest.mark.parametrize("size_wh", [(64, 64), (128, 128), (96, 128), (192, 96)])
@pytest.mark.parametrize("grid", ["", "-udp"])
def test_a_teacher_of_another_size_says_the_same_place(
    hire: Callable[..., None], size_wh: tuple[int, int], grid: str
) -> None:
    codec = "heatmap-dark" + grid
    network = Sees(17, udp=bool(grid))
    hire(big=(network, entry_of(size_wh, codec=codec)))
    distiller = make(make_recipe([{"model": "big"}], coordinate=1), codec=codec)
    crops, xy = spots(4, (64, 64))
    lesson = distiller._lesson(crops / 255, torch.zeros(4, 17, 16, 16), batch_of(crops))
    assert network.shape == (4, 3, size_wh[1], size_wh[0])
    assert lesson.maps.shape == (4, 17, 16, 16)
    factor = 63 / 15 if grid else 4
    pixels = (lesson.places.numpy() + 0.5) * 16 * factor
    wanted = np.repeat(xy[:, None], 17, axis=1)
    np.testing.assert_allclose(pixels, wanted, atol=0.7)
    peaks = lesson.maps.flatten(2).argmax(2)
    np.testing.assert_allclose(torch.stack([peaks % 16, peaks // 16], -1) * factor, wanted, atol=factor)


def test_a_crop_change_is_what_cutting_the_picture_again_would_do() -> None:
    box = np.array([[20.0, 30.0, 90.0, 150.0]])
    points = np.random.default_rng(0).uniform(0, 200, (1, 9, 2))
    for size, grid, other, other_grid in (
        ((96, 128), "legacy", (160, 192), "legacy"),
        ((96, 128), "unbiased", (192, 256), "unbiased"),
        ((160, 192), "legacy", (96, 128), "unbiased"),
    ):
        to_crop = box_to_affine(box, size, grid=grid)
        # the part of the picture that the first crop shows, which the second is to hold
        size = np.array(size)
        span, first = (size - 1, 0) if grid == "unbiased" else (size, 0)
        corners = transform_points(invert_affine(to_crop), np.array([[[first, first], span]], float))[0]
        to_other = box_to_affine(corners.reshape(1, 4), other, box_scale=1.0, grid=other_grid)
        change = crop_change(size, grid, other, other_grid)
        np.testing.assert_allclose(
            transform_points(to_crop, points) * change.factor + change.offset, transform_points(to_other, points)
        )
        back = change.then(change.inverse)
        assert back.is_none and not change.is_none


def test_a_teacher_gets_its_own_colours(hire: Callable[..., None]) -> None:
    class Keeps(Sees):
        def forward(self, x: Tensor) -> Tensor:
            self.seen = x.clone()
            return super().forward(x)

    network = Keeps(17)
    hire(t=(network, entry_of((64, 64), mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2.0), channels="bgr")))
    crops = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    make(make_recipe([{"model": "t"}])).loss(crops / 255, torch.zeros(2, 17, 16, 16), batch_of(crops))
    red = ((crops[:, 0] / 255) - 0.3) / 2.0
    torch.testing.assert_close(network.seen[:, 2], red)
    torch.testing.assert_close(network.seen[:, 0], (crops[:, 2] / 255 - 0.1) / 0.5)


@pytest.mark.parametrize("weights", [{"heatmap": 1}, {"heatmap": 0, "coordinate": 1}])
def test_joints_that_the_teacher_does_not_know_are_left_alone(
    hire: Callable[..., None], weights: dict[str, float]
) -> None:
    hire(t=(Sees(17), entry_of((64, 64))))
    recipe = make_recipe([{"model": "t"}], **weights)
    skeleton = get_skeleton("mpii16")
    distiller = make(recipe, "mpii16")
    crops, _ = spots(3, (64, 64))
    outputs = torch.randn(3, 16, 16, 16, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss, _ = distiller.loss(crops / 255, outputs, batch_of(crops))
    loss.backward()
    assert outputs.grad is not None
    moved = {joint for joint, some in zip(skeleton.joints, outputs.grad.abs().sum((0, 2, 3)), strict=True) if some}
    assert moved == set(skeleton.joints) & set(get_skeleton("coco17").joints) and len(moved) == 12


def test_joints_are_matched_by_name(hire: Callable[..., None]) -> None:
    class Numbers(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.arange(17.0).view(1, 17, 1, 1).expand(len(x), 17, 16, 16)

    hire(t=(Numbers(), entry_of((64, 64))))
    skeleton = get_skeleton("halpe26")
    distiller = make(make_recipe([{"model": "t"}]), "halpe26")
    crops, _ = spots(2, (64, 64))
    lesson = distiller._lesson(crops / 255, torch.zeros(2, 26, 16, 16), batch_of(crops))
    coco = get_skeleton("coco17").joints
    for row, joint in enumerate(skeleton.joints):
        weight = float(lesson.map_weights[0, row])
        assert weight == (joint in coco)
        assert float(lesson.maps[0, row, 3, 4]) == (coco.index(joint) if weight else 0)


def test_a_domain_is_taught_by_its_own_teachers(hire: Callable[..., None]) -> None:
    body, street = Sees(17, gain=0.25), Sees(17, gain=0.75)
    hire(body=(body, entry_of((64, 64))), street=(street, entry_of((64, 64))))
    teachers = [{"model": "body", "domains": ["body"]}, {"model": "street", "domains": ["street"]}]
    distiller = make(make_recipe(teachers, coordinate=1))
    crops, _ = spots(4, (64, 64))
    outputs = torch.zeros(4, 17, 16, 16)
    lesson = distiller._lesson(crops / 255, outputs, batch_of(crops, [0, 1, 0, 1]))
    torch.testing.assert_close(lesson.maps.amax((2, 3)), torch.tensor([0.25, 0.75, 0.25, 0.75])[:, None].expand(4, 17))
    torch.testing.assert_close(lesson.place_weights[:, 0], torch.tensor([0.25, 0.75, 0.25, 0.75]))
    assert body.shape[0] == street.shape[0] == 2
    before = street.batches
    distiller.loss(crops / 255, outputs, batch_of(crops))
    assert street.batches == before, "nobody of its domain: it need not look"


def test_people_of_no_teachers_domain_are_left_alone(hire: Callable[..., None]) -> None:
    hire(t=(Sees(17), entry_of((64, 64))))
    distiller = make(make_recipe([{"model": "t", "domains": ["street"]}], coordinate=1))
    crops, _ = spots(3, (64, 64))
    outputs = torch.randn(3, 17, 16, 16).requires_grad_()
    loss, _ = distiller.loss(crops / 255, outputs, batch_of(crops, [0, 1, 0]))
    loss.backward()
    assert outputs.grad is not None
    assert (outputs.grad.abs().sum((1, 2, 3)) > 0).tolist() == [False, True, False]
    nobody, figures = distiller.loss(crops / 255, outputs, batch_of(crops))
    assert float(nobody.detach()) == 0 and set(map(float, figures.values())) == {0.0}


def test_teachers_of_one_domain_are_averaged_by_share(hire: Callable[..., None]) -> None:
    """Places also by how sure each is: 0.2 * 3 and 0.8 * 1 of the say."""
    left, right = Sees(17, 0, gain=0.2), Sees(17, 1, gain=0.8)
    hire(left=(left, entry_of((64, 64))), right=(right, entry_of((64, 64))))
    distiller = make(make_recipe([{"model": "left", "share": 3}, {"model": "right", "share": 1}], coordinate=1))
    crops = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    crops[0, 0, 19:22, 15:18] = 255
    crops[0, 1, 39:42, 43:46] = 255
    lesson = distiller._lesson(crops / 255, torch.zeros(1, 17, 16, 16), batch_of(crops))
    assert float(lesson.maps[0, 0, 5, 4]) == pytest.approx(0.75 * 0.2, abs=0.01)
    assert float(lesson.maps[0, 0, 10, 11]) == pytest.approx(0.25 * 0.8, abs=0.01)
    pixels = (lesson.places[0, 0] + 0.5) * 16
    wanted = (0.6 * np.array([4, 5]) + 0.8 * np.array([11, 10])) / 1.4
    np.testing.assert_allclose(pixels, wanted, atol=0.1)
    assert float(lesson.place_weights[0, 0]) == pytest.approx(0.75 * 0.2 + 0.25 * 0.8)


def test_training_leaves_the_teacher_as_it_was(hire: Callable[..., None]) -> None:
    teacher, student = small(1).train(), small(2).train()
    before = {key: tensor.clone() for key, tensor in teacher.state_dict().items()}
    hire(t=(teacher, entry_of((64, 64))))
    distiller = make(make_recipe([{"model": "t"}], coordinate=1))
    optimiser = torch.optim.Adam(student.parameters(), lr=1e-2)
    crops = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8)
    losses = []
    for _ in range(20):
        loss, _ = distiller.loss(crops / 255, student(crops / 255), batch_of(crops))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert not any(module.training for module in teacher.modules())
    assert all(torch.equal(tensor, before[key]) for key, tensor in teacher.state_dict().items())


def test_soft_places_of_a_heatmap_are_its_peak_however_faint_and_wherever() -> None:
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(24.0), indexing="ij")
    noise = 0.01 * torch.randn(32, 24, generator=torch.Generator().manual_seed(0))
    for peak in (0.2, 1.0):
        for column, row in ((12.0, 16.0), (5.4, 20.7), (18.5, 8.0)):
            maps = peak * torch.exp(-((x - column) ** 2 + (y - row) ** 2) / 8) + noise
            place = (soft_places(get_codec("heatmap"), maps[None, None])[0, 0] + 0.5) * torch.tensor([24, 32])
            np.testing.assert_allclose(place, [column, row], atol=0.35)


def test_coordinates_of_heatmaps_teach_an_integral_student(hire: Callable[..., None]) -> None:
    hire(t=(Sees(17), entry_of((64, 64))))
    distiller = make(make_recipe([{"model": "t"}], heatmap=0, coordinate=1), codec="integral-softmax")
    crops, xy = spots(2, (64, 64))
    maps = torch.zeros(2, 17, 16, 16, requires_grad=True)
    optimiser = torch.optim.Adam([maps], lr=0.3)
    for _ in range(60):
        loss, _ = distiller.loss(crops / 255, maps, batch_of(crops))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    pixels = (soft_places(get_codec("integral-softmax"), maps.detach())[:, 3].numpy() + 0.5) * 64
    np.testing.assert_allclose(pixels, xy, atol=3)


def test_what_cannot_be_taught_says_why(hire: Callable[..., None]) -> None:
    teacher = {"model": "t"}
    hire(t=(Sees(17), entry_of((64, 64))))
    with pytest.raises(PosezooError, match=r"unknown domain in distill\.teachers 'steet'; did you mean street"):
        make(make_recipe([{**teacher, "domains": ["steet"]}]))
    with pytest.raises(PosezooError, match=r"knows nose, .*\(coco17\), and none of wrist, .*\(hand21\)"):
        make(make_recipe([teacher]), "hand21")
    hire(t=(Sees(17), entry_of((64, 64), codec="integral-softmax")))
    with pytest.raises(PosezooError, match=r"no joint is a heatmap .*use distill\.coordinate"):
        make(make_recipe([teacher]))
    hire(t=(Sees(17), get_entry("embedded-detector")))
    with pytest.raises(PosezooError, match="finds people, not joints"):
        make(make_recipe([teacher]))

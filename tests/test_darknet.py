"""Darknet networks: the cfg text, the layers, and the detectors against the fixtures."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from posezoo.errors import PosezooError  # noqa: E402
from posezoo.models.build import build  # noqa: E402
from posezoo.models.darknet import Darknet, SamePool, Section, Yolo, parse_cfg, yolov3_sections  # noqa: E402
from posezoo.zoo.weights import load_weights  # noqa: E402

TOLERANCE = 1e-4
BOXES_TOLERANCE = 4e-4  # widths are exponentials: the peer's own two runs differ by 3.3e-4
TINY = "[convolutional]\nfilters=18\nsize=1\nactivation=linear\n[yolo]\nanchors=1,2, 3,4, 5,6\nclasses=1\n"


def read_fixture(parity: Path, name: str) -> dict[str, Any]:
    return json.loads(gzip.decompress((parity / "yolo" / f"{name}.json.gz").read_bytes()))


def filled(fixture: dict[str, Any]) -> dict[str, np.ndarray]:
    from fill import fill

    scale = fixture["log2_scale"]
    return {key: np.asarray(fill(key, shape, scale.get(key, 0))) for key, shape, _ in fixture["state_dict"]}


def assert_equals_fixture(model: Darknet, fixture: dict[str, Any]) -> None:
    from fill import make_input, sample_index

    count, _, height, width = fixture["input_shape"]
    with torch.no_grad():
        maps = model.eval().raw(torch.from_numpy(make_input(height, width, count)))
        outputs = [model.decode(maps), *maps]
    for output, wanted in zip(outputs, fixture["outputs"], strict=True):
        assert list(output.shape) == wanted["shape"]
        samples = output.numpy().ravel()[sample_index(output.numel())]
        limit = BOXES_TOLERANCE if wanted["name"].startswith("detections") else TOLERANCE
        assert np.abs(samples - wanted["values"]).max() / wanted["std"] < limit, wanted["name"]


def mini(parity: Path) -> Darknet:
    return Darknet(parse_cfg((parity / "yolo" / "mini.cfg").read_text()))


def test_mini_network_from_its_cfg(parity: Path) -> None:
    fixture = read_fixture(parity, "mini")
    assert_equals_fixture(load_weights(mini(parity), filled(fixture)), fixture)


def test_mini_network_from_darknets_own_file(parity: Path) -> None:
    model = load_weights(mini(parity), parity / "yolo" / "mini.weights")
    assert_equals_fixture(model, read_fixture(parity, "mini"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arch", "name"),
    [("yolov3", "yolov3_416"), ("yolov3_spp", "yolov3-spp_416"), ("yolov3_spp", "yolov3-spp_608")],
)
def test_detectors_compute_what_the_peer_did(arch: str, name: str, parity: Path) -> None:
    fixture = read_fixture(parity, name)
    assert_equals_fixture(load_weights(build(arch, 0), filled(fixture)), fixture)


@pytest.mark.parametrize(("pyramid_pool", "name"), [(False, "yolov3_416"), (True, "yolov3-spp_416")])
def test_detectors_have_the_peers_layers(pyramid_pool: bool, name: str, parity: Path) -> None:
    def normal(kind: str, options: dict[str, str]) -> tuple[Any, ...]:
        training = ("jitter", "ignore_thresh", "truth_thresh", "random")
        return kind, {k: re.sub(r"[\s'\[\]]", "", v) for k, v in options.items() if k not in training}

    theirs = [(kind, dict(o.split("=", 1) for o in options)) for kind, *options in read_fixture(parity, name)["layers"]]
    ours = [normal(section.kind, dict(section.options)) for section in yolov3_sections(pyramid_pool)]
    assert ours == [normal(kind, options) for kind, options in theirs]


def test_pool_pads_with_zero(parity: Path) -> None:
    content = json.loads((parity / "ops" / "yolo_maxpool_stride1.json").read_text())
    arrays = {
        name: torch.tensor(content[name]["data"]).reshape(content[name]["shape"])
        for name in ("input", "k5", "minus_inf_padding_k5")
    }
    pooled = SamePool(5)(arrays["input"])
    assert torch.equal(pooled, arrays["k5"])
    negative = SamePool(3)(torch.full((1, 1, 4, 4), -1.0))
    assert negative[0, 0, 0, 0] == 0 and negative[0, 0, 1, 1] == -1


def test_boxes_by_hand() -> None:
    x = torch.zeros(1, 2 * 6, 2, 3)
    x[0, 6 + 2, 1, 2] = 1.0  # the second anchor's width, in the last cell
    boxes = Yolo([(10, 20), (30, 40)], 1, 8)(x)
    assert boxes.shape == (1, 2 * 3 * 2, 6)
    assert boxes[0, 0].tolist() == pytest.approx([4, 4, 10, 20, 0.5, 0.5])
    assert boxes[0, -1].tolist() == pytest.approx([20, 12, 30 * np.e, 40, 0.5, 0.5])


def test_any_size_and_an_empty_batch(parity: Path) -> None:
    model = mini(parity).eval()
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 64, 32)).shape == (1, 3 * (16 * 8 + 32 * 16), 7)
        assert model(torch.zeros(0, 3, 64, 64)).shape == (0, 3840, 7)


def test_cfg_text() -> None:
    sections = parse_cfg("# a remark\n[net]\nwidth = 8 # another\n\n[route]\nlayers = -1, 4\n")
    assert sections == [Section("net", {"width": "8"}), Section("route", {"layers": "-1, 4"})]
    assert sections[1].integers("layers") == [-1, 4]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("width=3", "line 1: expected"),
        ("[net]\nhello", "line 2: expected"),
        (TINY + "[dropout]", "unknown darknet section 'dropout'"),
        (TINY + "[route]\nlayers=-9", "no layer -9 before it"),
        (TINY + "[route]\nlayers=a", "layers must be whole numbers, not 'a'"),
        (TINY + "[route]", r"\[route\] needs 'layers'"),
        (TINY + "[shortcut]\nfrom=-1,-2", "from must be one number"),
        (TINY + "[shortcut]\nfrom=-1\nactivation=leaky", "only activation=linear"),
        (TINY + "[maxpool]\nsize=2\nstride=3", "stride is 1 or the size"),
        (TINY + "[upsample]\nstride=2", "cannot enlarge"),
        (TINY.replace("linear", "mish"), "unknown darknet activation 'mish'"),
        (TINY.replace("size=1", "size=3"), "pad=1"),
        (TINY.replace("classes=1", "classes=2"), "of 2 classes needs 21 filters, not 18"),
        (TINY + "[yolo]\nanchors=1,2\nclasses=1\nmask=1", "chooses from 1 anchors"),
        (TINY + "scale_x_y=1.05", r"\[yolo\]: only scale_x_y=1 is known, not '1.05'"),
        (TINY + "new_coords=1", "only new_coords=0 is known"),
        (TINY.replace("size=1", "size=3\npad=1\ndilation=2"), "only dilation=1 is known"),
        (TINY.replace("size=1", "size=1\nstride=2\nstride_x=1"), "only stride_x=2 is known"),
        (TINY.replace("size=1", "size=1\npadding=1"), "only padding=0 is known"),
        (TINY.replace("size=1", "size=1\ngroups=3"), "only groups=1 is known"),
        (TINY + "[route]\nlayers=-1\ngroups=2\ngroup_id=1", "only groups=1 is known"),
        (TINY + "[shortcut]\nfrom=-2\nweights_type=per_channel", "only weights_type=none is known"),
        (TINY + "[maxpool]\nsize=3\nstride=1\npadding=0", "only padding=2 is known"),
        (TINY + "[upsample]\nstride=1\nscale=2", "only scale=1 is known"),
        (TINY + "[maxpool]\nsize=1\nwhatever=yes", "only whatever=0 is known, not 'yes'"),
        ("[convolutional]\nfilters=8\nsize=1\nactivation=linear", "finds nothing"),
        ("", "finds nothing"),
    ],
)
def test_wrong_cfg(text: str, message: str) -> None:
    with pytest.raises(PosezooError, match=message):
        Darknet(parse_cfg(text))


def test_options_that_change_nothing() -> None:
    conv = "size=3\npad=1\npadding=7\nstride=1\nstride_x=1\ndilation=1\ngroups=1\nstopbackward=1\nbinary=0"
    yolo = "scale_x_y = 1.0\nnew_coords=0\nnum=3\njitter=.3\nignore_thresh = .7\niou_loss=ciou\nnms_kind=greedynms"
    pool = "[maxpool]\nsize=3\nstride=1\npadding=2"
    model = Darknet(parse_cfg(f"{TINY.replace('size=1', conv)}{yolo}\n{pool}"))
    assert [type(layer).__name__ for layer in model.layers] == ["Sequential", "Yolo", "SamePool"]


def test_shortcut_between_other_channels() -> None:
    conv = "[convolutional]\nfilters={}\nsize=1\nactivation=linear\n"
    with pytest.raises(PosezooError, match="adds 4 channels to 8"):
        Darknet(parse_cfg(conv.format(4) + conv.format(8) + "[shortcut]\nfrom=-2"))

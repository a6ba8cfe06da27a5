"""The torch twin of the heatmap codec: the same numbers on tensors, and in an exported graph."""

from __future__ import annotations

import numpy as np
import pytest

from posezoo.codecs import get_codec
from posezoo.codecs.heatmap import HeatmapCodec
from test_codecs import HEATMAPS, SIZE, blobs


@pytest.fixture(scope="module")
def twin():
    pytest.importorskip("torch")
    from posezoo.codecs import heatmap_torch

    return heatmap_torch


VARIANTS = {
    **{name: get_codec(name) for name in HEATMAPS},
    "heatmap-dark-17": HeatmapCodec(refine="dark", blur_kernel=17),
    "stride-2": HeatmapCodec(stride=2),
}


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_the_twin_decodes_the_same(twin, name):
    import torch

    codec = VARIANTS[name]
    for seed in range(3):
        made = blobs(seed, people=4, joints=9, height=64, width=48)
        crop_xy, scores = codec.decode(made)
        other_xy, other_scores = twin.decode(codec, torch.from_numpy(made))
        np.testing.assert_allclose(other_xy.numpy(), crop_xy, atol=1e-4, rtol=1e-4)
        np.testing.assert_allclose(other_scores.numpy(), scores, atol=1e-6)


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_the_twin_encodes_the_same(twin, name):
    import torch

    rng = np.random.default_rng(0)
    joints = rng.uniform(-60, 320, (5, 9, 2)).astype(np.float32)
    joints[0, 0], joints[1, 1] = np.nan, np.inf
    visible = rng.choice([0, 0.5, 1], (5, 9)).astype(np.float32)
    codec = VARIANTS[name]
    targets, weights = codec.encode(joints, visible, SIZE)
    other_targets, other_weights = twin.encode(codec, torch.from_numpy(joints), torch.from_numpy(visible), SIZE)
    np.testing.assert_allclose(other_targets.numpy(), targets, atol=2e-6, rtol=1e-5)
    np.testing.assert_array_equal(other_weights.numpy(), weights)


@pytest.mark.parametrize("name", HEATMAPS)
def test_the_twin_takes_nobody_and_half_precision(twin, name):
    import torch

    codec = get_codec(name)
    crop_xy, scores = twin.decode(codec, torch.zeros(0, 17, 64, 48))
    assert crop_xy.shape == (0, 17, 2) and scores.shape == (0, 17)
    made = torch.from_numpy(blobs(1)).half()
    half_xy, half_scores = twin.decode(codec, made)
    assert half_xy.dtype == half_scores.dtype == torch.float32
    np.testing.assert_allclose(half_xy.numpy(), codec.decode(made.numpy())[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "exporter"),
    [
        *((name, "trace") for name in HEATMAPS),
        pytest.param("heatmap-dark", "dynamo", marks=pytest.mark.slow),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore:Converting a tensor", "ignore:torch.tensor results")
def test_the_twin_runs_in_an_exported_graph(twin, name, exporter, tmp_path):
    import torch

    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    codec = get_codec(name)

    class Decode(torch.nn.Module):
        def forward(self, heatmaps):
            return twin.decode(codec, heatmaps)

    path = tmp_path / "decode.onnx"
    example = torch.from_numpy(blobs(0))
    if exporter == "dynamo":
        pytest.importorskip("onnxscript")
        people = {"heatmaps": {0: torch.export.Dim("people")}}
        torch.onnx.export(Decode().eval(), (example,), str(path), dynamic_shapes=people, dynamo=True, verbose=False)
    else:
        axes = {"heatmaps": {0: "people"}}
        torch.onnx.export(
            Decode().eval(), (example,), str(path), input_names=["heatmaps"], dynamic_axes=axes, dynamo=False
        )
    made = blobs(5, people=7)
    crop_xy, scores = onnxruntime.InferenceSession(str(path)).run(None, {"heatmaps": made})
    wanted_xy, wanted_scores = codec.decode(made)
    np.testing.assert_allclose(crop_xy, wanted_xy, atol=1e-4, rtol=1e-4)
    np.testing.assert_allclose(scores, wanted_scores, atol=1e-6)

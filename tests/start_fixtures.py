"""Networks of peers, made small, with names as in their checkpoints."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402

BLOCKS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


Shapes = dict[str, tuple[int, ...]]


def norm(name: str, channels: int) -> Shapes:
    return {
        **{f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")},
        f"{name}.num_batches_tracked": (),
    }


def conv_norm(conv: str, bn: str, outputs: int, inputs: int, size: int = 1) -> Shapes:
    return {f"{conv}.weight": (outputs, inputs, size, size), **norm(bn, outputs)}


def resnet_stages(depth: int, pooled: bool = False, gated: bool = False) -> Shapes:
    """Layers 1 to 4 as torchvision names them; OpenMMLab's variants with a pool in shortcuts, and with gates."""
    inputs, found, widen = 64, Shapes(), 1 if depth < 50 else 4
    for stage, blocks in enumerate(BLOCKS[depth], 1):
        width = 32 * 2**stage
        for block in range(blocks):
            name, outputs = f"layer{stage}.{block}", width * widen
            layers = [(width, inputs, 3), (width, width, 3)]
            if widen == 4:
                layers = [(width, inputs, 1), (width, width, 3), (outputs, width, 1)]
            for number, layer in enumerate(layers, 1):
                found.update(conv_norm(f"{name}.conv{number}", f"{name}.bn{number}", *layer))
            if block == 0 and inputs != outputs:
                first = int(pooled and stage > 1)  # an average pool has no arrays
                place = f"{name}.downsample"
                found.update(conv_norm(f"{place}.{first}", f"{place}.{first + 1}", outputs, inputs))
            if gated:
                for number, (a, b) in enumerate([(outputs // 16, outputs), (outputs, outputs // 16)], 1):
                    gate = f"{name}.se_layer.conv{number}.conv"
                    found.update({f"{gate}.weight": (a, b, 1, 1), f"{gate}.bias": (a,)})
            inputs = outputs
    return found


def torchvision_resnet(depth: int) -> Shapes:
    features = 512 if depth < 50 else 2048
    return {
        **conv_norm("conv1", "bn1", 64, 3, 7),
        **resnet_stages(depth),
        "fc.weight": (1000, features),
        "fc.bias": (1000,),
    }


def filled(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Arrays of these shapes, each of a number of its own."""
    counter = "num_batches_tracked"
    return {
        key: torch.zeros((), dtype=torch.int64) if key.endswith(counter) else torch.full(shape, 1.0 + number)
        for number, (key, shape) in enumerate(shapes.items())
    }

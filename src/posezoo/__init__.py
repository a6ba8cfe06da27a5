"""posezoo: every classic top-down human pose model, one pip install.

    import posezoo

    estimate = posezoo.Estimator()          # the networks that ship inside the package
    poses = estimate("photo.jpg")           # or an (H, W, 3) uint8 RGB array, or a list of either
    poses.keypoints_xy, poses.scores        # (people, joints, 2) pixels, (people, joints) in [0, 1]

The names below are loaded when they are first used: `import posezoo` itself is quick, and needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from posezoo.draw import draw_poses as draw_poses
    from posezoo.errors import PosezooError as PosezooError
    from posezoo.estimator import Estimator as Estimator
    from posezoo.evaluate import evaluate_predictions as evaluate_predictions
    from posezoo.skeletons import Skeleton as Skeleton
    from posezoo.skeletons import get_skeleton as get_skeleton
    from posezoo.types import Boxes as Boxes
    from posezoo.types import Poses as Poses
    from posezoo.zoo import get_entry as get_entry
    from posezoo.zoo import get_model as get_model
    from posezoo.zoo import list_models as list_models
    from posezoo.zoo import load_weights as load_weights

_HOMES = {
    "Boxes": "posezoo.types",
    "Estimator": "posezoo.estimator",
    "Poses": "posezoo.types",
    "PosezooError": "posezoo.errors",
    "Skeleton": "posezoo.skeletons",
    "draw_poses": "posezoo.draw",
    "evaluate_predictions": "posezoo.evaluate",
    "get_entry": "posezoo.zoo",
    "get_model": "posezoo.zoo",
    "get_skeleton": "posezoo.skeletons",
    "list_models": "posezoo.zoo",
    "load_weights": "posezoo.zoo",
}

__all__ = [
    "Boxes",
    "Estimator",
    "Poses",
    "PosezooError",
    "Skeleton",
    "__version__",
    "draw_poses",
    "evaluate_predictions",
    "get_entry",
    "get_model",
    "get_skeleton",
    "list_models",
    "load_weights",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'posezoo' has no attribute '{name}'")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

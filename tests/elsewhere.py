"""A device for `pretend`'s tensors, with autograd: torch knows of it from now on, and calls it an accelerator.

Registered for the whole process and for good: to be imported by a process of its own.
"""

from __future__ import annotations

import torch
from torch.utils import backend_registration


class Module(backend_registration._DummyBackendModule):
    """What torch asks a device's module for."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


backend_registration._setup_privateuseone_for_python_backend("elsewhere", Module())
DEVICE = torch.device("elsewhere", 0)

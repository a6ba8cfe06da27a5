"""What every network here is made of: convolution, BatchNorm, activation; and how fresh weights are drawn."""

from __future__ import annotations

from torch import Tensor, nn


class ConvNorm(nn.Module):
    """Convolution without bias, padded to keep the size at stride 1, then BatchNorm, then an activation.

    Args:
        inputs: channels in.
        outputs: channels out.
        kernel: odd kernel size.
        stride: 1 or 2.
        groups: `inputs` for a depthwise convolution.
        act: the activation, or None for a linear layer.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        act: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        self.act = act or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        return self.act(self.bn(self.conv(x)))


def initialise(model: nn.Module) -> None:
    """Draw fresh weights: He's normal (arXiv 1502.01852) for convolutions, identity for BatchNorm."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.ConvTranspose2d):
            nn.init.normal_(module.weight, std=0.001)

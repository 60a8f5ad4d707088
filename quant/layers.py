"""Quantised layers for PyTorch: one-bit weights and activations, trained through latent floats.

The scheme is that of Hubara, Courbariaux, Soudry, El-Yaniv and Bengio, "Binarized Neural
Networks" (2016), section 1: in the forward pass weights and activations are -1 and +1; in the
backward pass the sign is taken for a hard tanh (the straight-through estimator), and the optimiser
moves latent float weights, which are kept within -1 and +1.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["BipolarLinear", "BipolarMLP", "Teacher", "sign"]

INK = 128  #: Smallest pixel that is +1: the top bit of the byte, so that binarising is free.
ABOVE_ONE = 1 + 2**-23  #: The float32 after 1.


class _Sign(torch.autograd.Function):
    """Sign with the straight-through estimator of equation 4: the gradient of a hard tanh."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.copysign(torch.ones((), dtype=x.dtype), x + 0.0)  # -0.0 + 0.0 is 0.0

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        # One pass over memory; its bounds are exclusive, so they are the floats next to 1.
        return torch.ops.aten.hardtanh_backward(grad_outputs[0], x, -ABOVE_ONE, ABOVE_ONE)


def sign(x: Tensor) -> Tensor:
    """-1 where ``x < 0``, else +1 (zero too); the gradient passes where ``|x| <= 1``. float32."""
    result = _Sign.apply(x)
    assert isinstance(result, Tensor)
    return result


class BipolarLinear(nn.Module):
    """Matrix-vector product with weights of -1 and +1 and no bias; ``(n, inputs)`` to outputs.

    In training the products are computed in ``precision``; in evaluation in float32, in which a
    sum of up to 2**24 values of -1 and +1 is exact.
    """

    def __init__(self, inputs: int, outputs: int, precision: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.precision = precision
        self.weight = nn.Parameter(torch.empty(outputs, inputs).uniform_(-1, 1))

    def forward(self, x: Tensor) -> Tensor:
        weight = sign(self.weight)
        if not self.training:
            return functional.linear(x, weight)
        return functional.linear(x.to(self.precision), weight.to(self.precision)).float()

    @torch.no_grad()
    def clip(self) -> None:
        """Keep the latent weights where a gradient reaches them."""
        self.weight.clamp_(-1, 1)


class BipolarMLP(nn.Module):
    """Dense layers of one-bit weights, with batch-norm and sign between them.

    The last layer has one positive scale and nothing for a single class, so that the largest of
    its integer sums is the largest logit. Pixels are binarised first, here: ``INK`` and above is
    +1.

    Parameters
    ----------
    widths
        Elements of the input, of each hidden layer, and of the output.
    """

    def __init__(self, widths: Sequence[int], precision: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.widths = tuple(widths)
        self.dense = nn.ModuleList(BipolarLinear(i, o, precision) for i, o in pairwise(widths))
        self.norm = nn.ModuleList(nn.BatchNorm1d(n) for n in widths[1:-1])
        self.log_scale = nn.Parameter(torch.tensor(-0.5 * math.log(widths[-2])))

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits, float ``(n, classes)``, of pixels, uint8 ``(n, elements)``."""
        return self.logits(self.binarise(pixels))

    def binarise(self, pixels: Tensor) -> Tensor:
        """+1 where a pixel is :data:`INK` or above, else -1."""
        return torch.where(pixels >= INK, 1.0, -1.0)

    def logits(self, x: Tensor) -> Tensor:
        """Logits, float ``(n, classes)``, of binarised pixels, -1 and +1."""
        return self.sums(x)[-1] * self.log_scale.exp()

    def sums(self, x: Tensor) -> list[Tensor]:
        """Integer sums of each dense layer, as floats, of binarised pixels, -1 and +1."""
        sums = [self.dense[0](x)]
        for norm, dense in zip(self.norm, list(self.dense)[1:], strict=True):
            sums.append(dense(sign(norm(sums[-1]))))
        return sums

    def clip(self) -> None:
        """Keep every latent weight within -1 and +1; call it after each step of the optimiser."""
        for dense in self.dense:
            if isinstance(dense, BipolarLinear):
                dense.clip()


class Teacher(nn.Sequential):
    """Small float CNN whose logits the bipolar networks learn to match (Hinton et al. 2015).

    Takes grey images as float ``(n, 1, 28, 28)``, 0 to 1.
    """

    def __init__(self, channels: Sequence[int] = (16, 32, 64), hidden: int = 128) -> None:
        layers: list[nn.Module] = []
        for i, o in zip((1, *channels[:-1]), channels, strict=True):
            layers += [nn.Conv2d(i, o, 3, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU()]
            layers += [nn.MaxPool2d(2)]
        layers += [nn.Flatten(), nn.Linear(9 * channels[-1], hidden), nn.ReLU(), nn.Dropout(0.3)]
        super().__init__(*layers, nn.Linear(hidden, 10))

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.contiguous(memory_format=torch.channels_last))  # faster

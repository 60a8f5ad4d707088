"""Quantised layers for PyTorch, trained through latent floats.

Convolutional networks are built of :class:`QuantConv2d`, :class:`QuantLinear` and
:class:`QuantActivation`, whose codes come from a :class:`~brambling.quant.quantiser.Quantiser`.

:class:`BipolarMLP` is the dense network of one bit, after Hubara, Courbariaux, Soudry, El-Yaniv and
Bengio, "Binarized Neural Networks" (2016), section 1: in the forward pass weights and activations
are -1 and +1; in the backward pass the sign is taken for a hard tanh (the straight-through
estimator), and the optimiser moves latent float weights, which are kept within -1 and +1.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from brambling.quant.quantiser import Quantiser, round_half_up, sign

__all__ = [
    "BipolarLinear",
    "BipolarMLP",
    "PixelInput",
    "QuantActivation",
    "QuantConv2d",
    "QuantLinear",
    "Teacher",
    "sign",
]

INK = 128  #: Smallest pixel that is +1: the top bit of the byte, so that binarising is free.


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


class PixelInput(nn.Module):
    """``(pixel - offset) * scale`` of pixels, uint8 or float, as float32 of the same shape.

    With ``scale`` a power of two it is exact, and a convolution's padding with 0 behind it is one
    with pixels of ``offset``.
    """

    def __init__(self, offset: int, scale: float) -> None:
        super().__init__()
        self.offset, self.scale = offset, scale

    def forward(self, pixels: Tensor) -> Tensor:
        return (pixels.float() - self.offset) * self.scale

    def extra_repr(self) -> str:
        return f"offset={self.offset}, scale={self.scale}"


class _Product(nn.Module):
    """What :class:`QuantConv2d` and :class:`QuantLinear` have in common."""

    weight: Tensor
    bias: Tensor | None
    quantiser: Quantiser
    bias_step: Tensor

    def _prepare(self, quantiser: Quantiser) -> None:
        self.quantiser = quantiser
        self.register_buffer("bias_step", torch.zeros(()))
        if quantiser.method == "sign":
            # Evenly over the range that latent weights may have, as Hubara et al. do.
            nn.init.uniform_(self.weight, -1, 1)

    def rounded_bias(self) -> Tensor | None:
        """``bias_codes * bias_step``, halves upwards; the bias as it is where the step is 0."""
        if self.bias is None or not self.bias_step:
            return self.bias
        return round_half_up(self.bias / self.bias_step) * self.bias_step

    @torch.no_grad()
    def bias_codes(self) -> Tensor | None:
        """Bias in multiples of ``bias_step``, int64 ``(outputs,)``."""
        if self.bias is None:
            return None
        return round_half_up(self.bias / self.bias_step).long()

    @torch.no_grad()
    def clip(self) -> None:
        """Keep latent weights of one bit where a gradient reaches them: within -1 and +1."""
        if self.quantiser.method == "sign":
            self.weight.clamp_(-1, 1)


class QuantConv2d(_Product, nn.Conv2d):
    """Convolution whose weights go through a :class:`~brambling.quant.quantiser.Quantiser`.

    The arguments are those of ``torch.nn.Conv2d``; padding is with zeros.

    Members
    -------
    quantiser
        Of the weights, ``(outputs, inputs, rows, columns)``; its channels are the outputs.
    bias_step
        Real value of the bias's code 1, a buffer: the scale of the weights times that of the
        input, which the model sets; 0 while the bias is not rounded.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        quantiser: Quantiser,
        stride: int = 1,
        padding: int = 0,
        bias: bool = False,
    ) -> None:
        nn.Conv2d.__init__(self, in_channels, out_channels, kernel_size, stride, padding, bias=bias)
        self._prepare(quantiser)

    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, self.quantiser(self.weight), self.rounded_bias())


class QuantLinear(_Product, nn.Linear):
    """Matrix-vector product whose weights go through a quantiser; see :class:`QuantConv2d`."""

    def __init__(
        self, in_features: int, out_features: int, *, quantiser: Quantiser, bias: bool = False
    ) -> None:
        nn.Linear.__init__(self, in_features, out_features, bias=bias)
        self._prepare(quantiser)

    def forward(self, input: Tensor) -> Tensor:
        return functional.linear(input, self.quantiser(self.weight), self.rounded_bias())


class QuantActivation(nn.Module):
    """Quantised activations, behind a ReLU where ``relu``; any shape.

    An unsigned quantiser is its own ReLU: it clips at 0 and stops the gradient there.
    """

    def __init__(self, quantiser: Quantiser, relu: bool = False) -> None:
        super().__init__()
        self.quantiser, self.relu = quantiser, relu

    def forward(self, x: Tensor) -> Tensor:
        if self.relu and self.quantiser.signed:
            x = functional.relu(x)
        return self.quantiser(x)

    def extra_repr(self) -> str:
        return f"relu={self.relu}"


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

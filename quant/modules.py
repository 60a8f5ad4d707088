"""Modules of PyTorch, and those of :mod:`brambling.quant.layers`, as layers of integers.

Each kind of module has a function, registered at :func:`lower`, that reads its parameters and gives
its result a meaning; see :mod:`brambling.quant.lowering`.
"""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from functools import singledispatch
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from brambling.errors import ConfigError
from brambling.network import Table
from brambling.quant import joining
from brambling.quant.export import norms_of
from brambling.quant.formats import Bipolar
from brambling.quant.forms import TABLE_BITS
from brambling.quant.layers import PixelInput, QuantActivation, QuantConv2d, QuantLinear
from brambling.quant.lowering import Builder, Grid, Weights, unsupported
from brambling.quant.models import Scale
from brambling.quant.norms import Bend, Norm, Reach, clip, leak, linear, ramp
from brambling.quant.quantiser import Quantiser
from brambling.quant.values import Value

__all__ = ["lower", "pair"]

CURVES = (
    *(nn.Sigmoid, nn.Tanh, nn.SiLU, nn.GELU, nn.ELU, nn.Softplus),
    *(nn.Hardswish, nn.Hardsigmoid, nn.Softsign, nn.LogSigmoid),
)
#: What comes nearest to what cannot be exported; for classes under these names and their heirs.
NEAREST = (
    ((nn.Conv2d,), "use QuantConv2d"),
    ((nn.Linear,), "use QuantLinear"),
    ((nn.Conv1d,), "use QuantConv2d on images of height 1"),
    ((nn.ConvTranspose2d,), "use Upsample and QuantConv2d"),
    ((nn.LayerNorm, nn.GroupNorm, nn.InstanceNorm2d), "use BatchNorm2d"),
    ((nn.Softmax, nn.LogSoftmax), "leave it out, the largest logit is the class"),
    ((nn.AdaptiveMaxPool2d,), "use MaxPool2d"),
)


# Parameters ---------------------------------------------------------------------------------------


def exact(numbers: torch.Tensor, what: str) -> list[Fraction]:
    """Floats as the rationals that they are; refuse what is not finite."""
    require_finite(numbers, what)
    return [Fraction(value) for value in numbers.detach().double().reshape(-1).tolist()]


def require_finite(numbers: torch.Tensor, what: str) -> None:
    """Refuse NaN and infinity, and name the first."""
    values = numbers.detach().reshape(-1)
    wrong = (~values.isfinite()).nonzero()
    if len(wrong):
        index = int(wrong[0])
        raise ConfigError(
            f"{what}: element {index} must be finite, not {values[index].item()}; "
            "train with a lower rate"
        )


def weights_of(
    module: QuantConv2d | QuantLinear, what: str, order: NDArray[np.int64] | None = None
) -> Weights:
    """Weights of a product; columns in ``order``, that of a flattened image."""
    require_finite(module.weight, f"{what}: weight")
    fmt = module.quantiser.fmt
    codes = module.quantiser.codes(module.weight.detach()).numpy().astype(fmt.dtype)
    codes = codes.transpose(0, 2, 3, 1) if codes.ndim == 4 else codes
    codes = codes if order is None else codes[:, order]
    scales = exact(module.quantiser.scale, f"{what}: scale")
    rounded = module.rounded_bias()
    bias = [Fraction(0)] if rounded is None else exact(rounded, f"{what}: bias")
    return Weights(codes, fmt, scales, bias)


def ordered(parameters: Sequence[Norm], x: Value) -> list[Norm]:
    """Parameters of PyTorch's channels in the order of ours."""
    if x.order is None:
        return list(parameters)
    return [parameters[index] for index in x.order.tolist()]


def pair(numbers: int | tuple[int, ...]) -> tuple[int, int]:
    """One number for both directions, or one for each."""
    return (numbers, numbers) if isinstance(numbers, int) else (numbers[0], numbers[-1])


def grid_of(quantiser: Quantiser, scale: Fraction, relu: bool) -> Grid:
    """Codes of a quantiser, halves upwards, and where it steps."""
    fmt, low, high = quantiser.fmt, quantiser.low, quantiser.high
    if fmt == Bipolar():
        sign = [[Reach(Fraction(0))]]
        return Grid(
            least=-1, most=1, fmt=fmt, norms=[linear(scale)], slopes=[1 / scale], places=sign
        )
    return Grid(
        least=max(low, 0) if relu else low,
        most=high,
        fmt=fmt,
        norms=[linear(scale)],
        slopes=[1 / scale],
        rounding="half_up",
    )


def table(name: str, module: QuantActivation, x: Value) -> Table:
    """Compute the result for every code, in double precision."""
    fmt, norm = x.tensor.fmt, x.norms[0]
    codes = np.arange(fmt.min, fmt.max + 1)
    reals = [float(norm.gain * (code - norm.mean) + norm.bias) for code in codes.tolist()]
    values = torch.tensor(reals, dtype=torch.float64)
    with torch.no_grad():
        for curve in x.curve:
            values = curve(values)
    if module.relu:
        values = values.relu()
    entries = module.quantiser.codes(values).numpy()
    return Table(name=name, inputs=(x.edge,), entries=entries, fmt=module.quantiser.fmt)


def bent(builder: Builder, x: Value, bend: Bend, module: nn.Module) -> Value:
    """Rising function behind a value, or behind its curves."""
    return replace(x, curve=(*x.curve, module)) if x.curve else builder.bent(x, bend)


# Modules ------------------------------------------------------------------------------------------


@singledispatch
def lower(module: nn.Module, builder: Builder, x: Value, what: str) -> Value:
    """Add what ``module`` computes of ``x`` to the network; ``what`` names it in errors."""
    for kinds, remedy in NEAREST:
        if isinstance(module, kinds):
            raise unsupported(what, "kind", type(module).__name__, remedy)
    known = ", ".join(sorted(kind.__name__ for kind in lower.registry if kind is not nn.Module))
    raise unsupported(what, "kind", type(module).__name__, f"use one of {known}")


@lower.register(nn.Identity)
@lower.register(nn.Dropout)
@lower.register(nn.Dropout2d)
def _(module: nn.Module, builder: Builder, x: Value, what: str) -> Value:
    return x


@lower.register
def _(module: PixelInput, builder: Builder, x: Value, what: str) -> Value:
    factor = Fraction(float(np.float32(module.scale)))
    return builder.moved(x, [factor], [-module.offset * factor], what)


@lower.register
def _(module: Scale, builder: Builder, x: Value, what: str) -> Value:
    (factor,) = exact(module.log_scale.exp(), f"{what}: scale")
    return builder.moved(x, [factor], [Fraction(0)], what)


@lower.register
def _(module: QuantConv2d, builder: Builder, x: Value, what: str) -> Value:
    if isinstance(module.padding, str) or module.padding_mode != "zeros":
        attribute, value = (
            ("padding", module.padding)
            if isinstance(module.padding, str)
            else ("padding_mode", module.padding_mode)
        )
        raise unsupported(what, attribute, repr(value), "use numbers and mode 'zeros'")
    down, across = module.padding
    return builder.conv(
        x,
        weights_of(module, what),
        what,
        stride=pair(module.stride),
        padding=(down, down, across, across),
        dilation=pair(module.dilation),
        groups=module.groups,
    )


@lower.register
def _(module: QuantLinear, builder: Builder, x: Value, what: str) -> Value:
    if len(x.tensor.shape) != 1:
        raise unsupported(what, "input", x.tensor, "put a Flatten before it")
    return builder.dense(x, weights_of(module, what, x.order), what)


@lower.register(nn.BatchNorm1d)
@lower.register(nn.BatchNorm2d)
def _(module: nn.BatchNorm2d, builder: Builder, x: Value, what: str) -> Value:
    if module.running_mean is None or module.running_var is None:
        raise unsupported(what, "track_running_stats", False, "use True")
    full = module
    if not module.affine:
        full = type(module)(module.num_features, module.eps)
        full.running_mean, full.running_var = module.running_mean, module.running_var
    return builder.norm(ordered(norms_of(full, what), x), x, what)


@lower.register
def _(module: QuantActivation, builder: Builder, x: Value, what: str) -> Value:
    quantiser = module.quantiser
    signed_dorefa = quantiser.method == "dorefa" and quantiser.signed
    if quantiser.method == "ternary" or signed_dorefa:
        raise unsupported(what, "method", quantiser.method, "use lsq or radix")
    if quantiser.channels is not None:
        raise unsupported(what, "channels", quantiser.channels, "use one scale")
    (scale,) = exact(quantiser.scale, f"{what}: scale")
    grid = grid_of(quantiser, scale, module.relu)
    if x.curve:
        return builder.coded(x, grid, table(builder.name("act"), module, x))
    if module.relu:
        x = builder.bent(x, ramp)
    return builder.quantised(x, grid, what)


@lower.register
def _(module: nn.ReLU, builder: Builder, x: Value, what: str) -> Value:
    return bent(builder, x, ramp, module)


@lower.register(nn.Hardtanh)
@lower.register(nn.ReLU6)
def _(module: nn.Hardtanh, builder: Builder, x: Value, what: str) -> Value:
    low, high = (Fraction(float(np.float32(n))) for n in (module.min_val, module.max_val))
    return bent(builder, x, clip(low, high), module)


@lower.register
def _(module: nn.LeakyReLU, builder: Builder, x: Value, what: str) -> Value:
    slope = Fraction(float(np.float32(module.negative_slope)))
    if slope <= 0:
        raise unsupported(what, "negative_slope", module.negative_slope, "use one above 0")
    return bent(builder, x, leak(slope), module)


def curve(module: nn.Module, builder: Builder, x: Value, what: str) -> Value:
    fmt = x.tensor.fmt
    single = x.plain and len(x.norms) == 1 and fmt.width <= TABLE_BITS
    if not x.curve and not single:
        remedy = f"put a QuantActivation of at most {TABLE_BITS} bits before it"
        raise unsupported(what, "input", fmt, remedy)
    return replace(x, curve=(*x.curve, module))


for kind in CURVES:
    lower.register(kind)(curve)


@lower.register
def _(module: nn.MaxPool2d, builder: Builder, x: Value, what: str) -> Value:
    for attribute, plain in (("dilation", 1), ("ceil_mode", False), ("return_indices", False)):
        value = getattr(module, attribute)
        if pair(value) != pair(plain):
            raise unsupported(what, attribute, value, f"use {plain}")
    down, across = pair(module.padding)
    kernel, stride = pair(module.kernel_size), pair(module.stride)
    return joining.maximum(builder, x, kernel, stride, (down, down, across, across), what)


@lower.register
def _(module: nn.AvgPool2d, builder: Builder, x: Value, what: str) -> Value:
    if pair(module.padding) != (0, 0):
        raise unsupported(what, "padding", module.padding, "use 0")
    for attribute, plain in (("ceil_mode", False), ("divisor_override", None)):
        if getattr(module, attribute) != plain:
            raise unsupported(what, attribute, getattr(module, attribute), f"use {plain}")
    return joining.average(builder, x, pair(module.kernel_size), pair(module.stride), what)


@lower.register
def _(module: nn.AdaptiveAvgPool2d, builder: Builder, x: Value, what: str) -> Value:
    if module.output_size not in {1, (1, 1)}:
        raise unsupported(what, "output_size", module.output_size, "use 1, or AvgPool2d")
    return joining.average(builder, x, None, None, what)


@lower.register(nn.Upsample)
@lower.register(nn.UpsamplingNearest2d)
def _(module: nn.Upsample, builder: Builder, x: Value, what: str) -> Value:
    if module.mode != "nearest":
        raise unsupported(what, "mode", repr(module.mode), "use 'nearest'")
    scale = module.scale_factor
    factors: tuple[Any, ...] = scale if isinstance(scale, tuple) else (scale, scale)
    if any(factor is None or factor != int(factor) for factor in factors):
        raise unsupported(what, "scale_factor", module.scale_factor, "use whole numbers")
    return joining.repeat(builder, x, (int(factors[0]), int(factors[1])))


@lower.register
def _(module: nn.Flatten, builder: Builder, x: Value, what: str) -> Value:
    if module.start_dim != 1 or module.end_dim not in {-1, 3}:
        raise unsupported(
            what, "dimensions", (module.start_dim, module.end_dim), "flatten from 1 to -1"
        )
    return joining.flatten(builder, x)

"""Steps of a float model that pool, join, cut or end: see :mod:`brambling.quant.lowering`."""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from math import lcm, prod

import numpy as np
from numpy.typing import NDArray

from brambling.layers.structure import Join
from brambling.network import (
    Add,
    ArgMax,
    Concat,
    Flatten,
    Pool,
    Requantise,
    Slice,
    Tensor,
    Upsample,
)
from brambling.quant.formats import Bipolar, Fixed
from brambling.quant.lowering import Builder, Grid, alike, unit_of, unsupported
from brambling.quant.norms import Affine, Leak, Norm, linear, ramp
from brambling.quant.values import Value

__all__ = [
    "add",
    "average",
    "concat",
    "cut",
    "end",
    "flatten",
    "is_folded",
    "maximum",
    "repeat",
    "unfolded",
]

WIDE = Fixed(62)  #: Sums before the arg-max must be of this format.


# Images -------------------------------------------------------------------------------------------


def maximum(
    builder: Builder,
    x: Value,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    what: str,
) -> Value:
    """Largest integer of a window: that of the largest value, once no channel is falling."""
    if x.curve or is_folded(x):
        raise unsupported(what, "input", "unquantised", builder.remedy)
    x = builder.turned(x)
    falling = x.falling()
    if falling.any():
        turned = x.negated(falling)
        integers = builder.requantised(x, np.where(falling, -1, 1).tolist())
        x = replace(integers, norms=turned.norms)
    layer = Pool(
        name=builder.name("pool"),
        inputs=(x.edge,),
        kind="max",
        kernel=kernel,
        stride=stride,
        padding=padding,
    )
    return replace(x, edge=layer.name, tensor=builder.add(layer), alone=False)


def average(
    builder: Builder,
    x: Value,
    kernel: tuple[int, int] | None,
    stride: tuple[int, int] | None,
    what: str,
    padding: tuple[int, int, int, int] = (0, 0, 0, 0),
) -> Value:
    """Average of a window, ``None`` for the whole image: a sum; division is only its meaning.

    Padding counts as zeros.
    """
    x = builder.settled(x, what)
    if any(padding) and any(norm.mean * norm.gain != norm.bias for norm in x.norms):
        raise unsupported(what, "padding", "with zeros, which are not 0", "use padding 0")
    taps = prod(kernel or x.tensor.shape[:2])
    kind = "sum" if taps & (taps - 1) or any(padding) else "average"
    layer = Pool(
        name=builder.name("pool"),
        inputs=(x.edge,),
        kind=kind,
        kernel=kernel,
        stride=stride,
        padding=padding,
    )
    norms = tuple(replace(n, gain=n.gain / taps, mean=n.mean * taps) for n in x.norms)
    low, high = x.low * taps, x.high * taps
    if any(padding):
        low, high = np.minimum(low, 0), np.maximum(high, 0)
    return replace(
        x,
        edge=layer.name,
        tensor=builder.add(layer),
        norms=norms,
        low=low,
        high=high,
        stride=1,
        alone=False,
    )


def repeat(builder: Builder, x: Value, factor: tuple[int, int]) -> Value:
    """Every pixel repeated."""
    layer = Upsample(name=builder.name("up"), inputs=(x.edge,), factor=factor)
    return replace(x, edge=layer.name, tensor=builder.add(layer), alone=False)


def flatten(builder: Builder, x: Value) -> Value:
    """Image as a vector; PyTorch's order is remembered, for it has channels outermost."""
    if len(x.tensor.shape) == 1:
        return x
    height, width, channels = x.tensor.shape
    layer = Flatten(name=builder.name("flatten"), inputs=(x.edge,))
    tensor = builder.add(layer)
    order = np.arange(tensor.size).reshape(channels, height, width).transpose(1, 2, 0).reshape(-1)
    return replace(
        x,
        edge=layer.name,
        tensor=tensor,
        norms=every(x.norms, height * width),
        low=np.tile(x.low, height * width) if len(x.low) > 1 else x.low,
        high=np.tile(x.high, height * width) if len(x.high) > 1 else x.high,
        order=None if height * width == 1 else order,
        alone=False,
    )


def every(norms: tuple[Norm, ...], pixels: int) -> tuple[Norm, ...]:
    return norms if len(norms) == 1 else norms * pixels


# Functions that turn back -------------------------------------------------------------------------


def is_folded(x: Value) -> bool:
    """Whether a leaky ReLU turns back: some of its slopes are negative."""
    return any(isinstance(bend, Leak) and min(bend.slopes) < 0 for bend in x.bends)


def unfolded(builder: Builder, x: Value, grid: Grid, what: str) -> Value:
    """Round a value that turns back once, at 0.

    Right of 0 one function rises, left of it another, and each is 0 where the other is not: the
    sum of both, rounded, less what 0 is rounded to, is the function rounded.
    """
    places = [n for n, bend in enumerate(x.bends) if is_folded(replace(x, bends=(bend,)))]
    if len(places) > 1:
        raise unsupported(what, "input", "folded twice", builder.remedy)
    (at,) = places
    fold, behind = x.bends[at], x.bends[at + 1 :]
    assert isinstance(fold, Leak)
    zero = (Fraction(0),)
    right = Leak(tuple(max(slope, zero[0]) for slope in fold.slopes))
    left = Affine(tuple(min(slope, zero[0]) for slope in fold.slopes), zero)
    parts = [
        builder.quantised(
            replace(x, bends=(*x.bends[:at], *bends, *behind), alone=False), grid, what
        )
        for bends in ((right,), (left, ramp))
    ]
    layer = Add(name=builder.name("add"), inputs=tuple(part.edge for part in parts))
    tensor = builder.add(layer)
    asked = grid.asked()
    first = grid.least
    rest = []
    for channel in range(x.channels):
        wanted = replace(x, bends=behind).asked(asked[channel % len(asked)], channel)
        steps = sum(reach.holds(zero[0]) for reach in wanted)
        rest.append(first + (2 * steps if grid.fmt == Bipolar() else steps))
    count = x.channels if len(set(rest)) > 1 or len(grid.norms) > 1 else 1
    norms = list(grid.norms) * (count // len(grid.norms))
    moved = [replace(n, mean=n.mean + c) for n, c in zip(norms, rest[:count], strict=True)]
    extra = np.array(rest[:count])
    return Value(layer.name, tensor, alike(moved), grid.least + extra, grid.most + extra)


# Joins --------------------------------------------------------------------------------------------


def shifted(x: Value, shift: int) -> Value:
    """Return the same real values, of integers that a join moves to the left."""
    norms = tuple(
        replace(n, gain=n.gain / (1 << shift), mean=n.mean * (1 << shift)) for n in x.norms
    )
    return replace(x, norms=norms, low=x.low << shift, high=x.high << shift)


def aligned(values: Sequence[Value]) -> list[Value]:
    """Plain values as a join sees them."""
    shifts = Join.shifts(*(x.tensor for x in values))
    return [shifted(x, shift) for x, shift in zip(values, shifts, strict=True)]


def add(builder: Builder, values: Sequence[Value], what: str) -> Value:
    """Sum; where a step of 1 is not worth the same everywhere, after multiplying by whole numbers.

    Each scale is a whole number of units, of which the sum then counts: exactly, if in many bits.
    """
    settled = [builder.settled(x, what) for x in values]
    parts = aligned(settled)
    count = max(len(x.norms) for x in parts)
    if any(norm.gain != row[0].gain for row in rows_of(parts, count) for norm in row):
        units = [unit_of([norm.gain for norm in row], what) for row in rows_of(settled, count)]
        parts = [counted(builder, x, units, what) for x in settled]
    layer = Add(name=builder.name("add"), inputs=tuple(x.edge for x in parts))
    tensor = builder.add(layer)
    total = [
        linear(
            row[0].gain,
            sum((norm.mean for norm in row), Fraction(0)),
            sum((norm.bias for norm in row), Fraction(0)),
        )
        for row in rows_of(parts, count)
    ]
    low, high = sum_of([x.low for x in parts]), sum_of([x.high for x in parts])
    return Value(layer.name, tensor, alike(total), low, high, order=values[0].order)


def rows_of(values: Sequence[Value], count: int) -> list[tuple[Norm, ...]]:
    """Return for each channel what all values are there."""
    return list(zip(*(x.norms * (count // len(x.norms)) for x in values), strict=True))


def counted(builder: Builder, x: Value, units: Sequence[Fraction], what: str) -> Value:
    """Value that counts in ``units``, without a radix point."""
    norms = x.norms * (len(units) // len(x.norms))
    many = [int(norm.gain / unit) for norm, unit in zip(norms, units, strict=True)]
    if set(many) == {1} and not x.tensor.fmt.frac:
        return replace(x, norms=norms)
    if max(map(abs, many)) * max(1, abs(int(x.low.min())), abs(int(x.high.max()))) > WIDE.max:
        scales = " and ".join(sorted({f"{float(norm.gain):g}" for norm in norms}))
        raise unsupported(what, "scales of the inputs", f"{scales} beside others", builder.remedy)
    whole = builder.requantised(x, many, frac=0)
    # An integer of 0 stays one, also where the multiplier is 0.
    moved = [
        linear(unit, bias=norm.bias - norm.gain * norm.mean)
        for norm, unit in zip(norms, units, strict=True)
    ]
    return replace(whole, norms=tuple(moved))


def sum_of(rows: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.sum(np.broadcast_arrays(*rows), axis=0)


def concat(builder: Builder, values: Sequence[Value], what: str) -> Value:
    """Channels of one value after those of another."""
    if len(values) == 1:
        return values[0]
    if any(x.order is not None for x in values):
        raise unsupported(what, "input", "a flattened image", "join the images, then flatten")
    parts = aligned([builder.settled(x, what) for x in values])
    layer = Concat(name=builder.name("cat"), inputs=tuple(x.edge for x in parts))
    tensor = builder.add(layer)
    norms = [norm for x in parts for norm in x.each()]
    low, high = (
        np.concatenate([np.broadcast_to(getattr(x, key), x.channels) for x in parts])
        for key in ("low", "high")
    )
    stride = min(x.stride for x in parts)
    return Value(layer.name, tensor, alike(norms), low, high, stride)


def cut(builder: Builder, x: Value, start: int, stop: int, what: str) -> Value:
    """Channels ``start`` to ``stop - 1``."""
    if x.order is not None:
        raise unsupported(what, "input", "a flattened image", "cut the image, then flatten")
    layer = Slice(name=builder.name("slice"), inputs=(x.edge,), start=start, stop=stop)
    norms = x.norms if len(x.norms) == 1 else x.norms[start:stop]
    low, high = (row if len(row) == 1 else row[start:stop] for row in (x.low, x.high))
    tensor = builder.add(layer)
    return replace(x, edge=layer.name, tensor=tensor, norms=norms, low=low, high=high, alone=False)


# The end ------------------------------------------------------------------------------------------


def end(builder: Builder, x: Value, argmax: bool, what: str = "output") -> Value:
    """Make integers in the order of the logits; then, where ``argmax``, the index of the largest.

    Where one scale is common to all classes, its sums are in that order but for the biases.
    """
    x = builder.settled(x, what)
    if argmax:
        x = flatten(builder, x)
        if x.order is not None:
            raise unsupported(what, "value", "a flattened image", "put a QuantLinear before it")
    if not any(norm.gain for norm in x.norms):
        raise unsupported(what, "value", "a constant", "drop the layers before it")
    if len(x.norms) > 1 or x.norms[0].gain < 0:
        x = comparable(builder, replace(x, norms=x.each()), argmax, what)
    if argmax:
        builder.add(ArgMax(name="argmax", inputs=(x.edge,)))
    return x


def comparable(builder: Builder, x: Value, argmax: bool, what: str) -> Value:
    """Integers of one scale: ``sum * multiplier + bias``.

    With a common unit a logit is a whole number of units plus a fraction below 1. Only the order
    of the fractions matters to the order of the logits, so a few bits to the right hold it.
    """
    norms: Sequence[Norm] = x.norms
    common = lcm(*(norm.gain.denominator for norm in norms))
    whole = [int(norm.gain * common) for norm in norms]
    unit = Fraction(int(np.gcd.reduce(np.array(whole, dtype=object))), common)
    offsets = [(norm.bias - norm.mean * norm.gain) / unit for norm in norms]
    fractions = sorted({offset % 1 for offset in offsets})
    more = (len(fractions) - 1).bit_length()
    if more and not argmax:
        raise unsupported(what, "bias", "between the steps of the sums", "set bias_step")
    multiplier = [int(norm.gain / unit) << more for norm in norms]
    bias = [(int(o // 1) << more) + fractions.index(o % 1) for o in offsets]
    bounds = [
        m * int(edge) + b
        for rows in (x.low, x.high)
        for m, b, edge in zip(multiplier, bias, np.broadcast_to(rows, len(bias)), strict=True)
    ]
    if max(map(abs, (*bounds, *multiplier, *bias))) + 1 > WIDE.max:
        raise unsupported(what, "scales", "so different", "use one scale for the last layer")
    single = multiplier[:1] if len(set(multiplier)) == 1 else multiplier
    frac = x.tensor.fmt.frac + more if single == [1 << more] else 0
    layer = Requantise(
        name="bias",
        inputs=(x.edge,),
        multiplier=np.array(single),
        bias=np.array(bias),
        fmt=Fixed.spanning(min(bounds), max(bounds), frac),
    )
    tensor: Tensor = builder.add(layer)
    low, high = np.array([min(bounds)]), np.array([max(bounds)])
    # Where fractions were ranked only the order is exact.
    return Value(layer.name, tensor, (linear(unit / (1 << more)),), low, high)

"""Layers as nodes: what maps elements, joins, cuts or rearranges; and products of vectors."""

from functools import singledispatch
from math import prod

import numpy as np
from numpy.typing import NDArray

from brambling.errors import UnsupportedLayer
from brambling.layers import (
    Add,
    ArgMax,
    Concat,
    Dense,
    Flatten,
    Layer,
    Requantise,
    Slice,
    Table,
    Tensor,
    Thresholds,
)
from brambling.layers.elementwise import magnitude
from brambling.layers.product import Product
from brambling.quant.formats import Bipolar, Fixed
from brambling.quant.interchange.exporter_graph import (
    Builder,
    Kind,
    Value,
    datatype,
    holding,
    reach,
    wider,
)

__all__ = ["emit", "exact", "flattened", "weights"]

#: Names of a rounding in QONNX. Halves up is a half more, then floor.
ROUNDINGS = {"half_up": "FLOOR", "half_even": "ROUND", "half_away": "HALF_UP", "floor": "FLOOR"}

WIDEST = 16  #: Bits of a quantiser that only saturates; beyond, what is meant is a limit.


@singledispatch
def emit(layer: Layer, builder: Builder, tensors: tuple[Tensor, ...], *values: Value) -> Value:
    """Add the nodes of ``layer``, which reads ``values``; ``tensors`` describe them.

    Values are of the kind that :func:`holding` names for their format. The result has been made by
    the last node, and every integer on the way to it is exact.
    """
    known = ", ".join(t.__name__ for t in emit.registry if t is not object)
    raise UnsupportedLayer(
        f"{layer.name}: {type(layer).__name__} cannot be exported to ONNX; {known} can"
    )


def per_channel(row: NDArray, value: Value) -> NDArray:
    """Shape ``(channels,)`` or ``(1,)`` for arithmetic with ``value``, channels in second place."""
    return row.reshape(1, -1, *[1] * (len(value.shape) - 2)) if len(value.shape) > 1 else row


def flattened(builder: Builder, value: Value) -> Value:
    """Return ``value`` as vectors, channels innermost."""
    match value.shape:
        case (batch,):
            return builder.reshaped(value, 1)
        case (batch, channels, *pixels):
            count = prod(pixels)
            if count > 1 and channels > 1:
                order = [0, *range(2, len(value.shape)), 1]
                shape = (batch, *pixels, channels)
                value = builder.node("Transpose", value, shape=shape, perm=order)
            return builder.node("Flatten", value, shape=(batch, channels * count), axis=1)
    raise AssertionError(value)


# Products ------------------------------------------------------------------------------------


def exact(layer: Product, x: Tensor) -> Kind:
    """Return a kind that holds every partial sum, in whatever order they are added."""
    w = np.abs(layer.matrix.astype(np.int64))
    largest = int(w.sum(axis=1).max()) * reach(x.fmt)
    return wider(holding(largest), holding(reach(x.fmt)))


def weights(builder: Builder, layer: Product, array: NDArray, kind: Kind) -> Value:
    """Add weights, laid out as ``array``, behind their quantiser where that is exact."""
    quantised = holding(reach(layer.fmt)) is Kind.FLOAT
    name = builder.constant("weights", array, Kind.FLOAT if quantised else kind)
    if not quantised:
        builder.annotate(name, layer.fmt)
        return Value(name, kind, array.shape)
    raw = Value(name, Kind.FLOAT, array.shape)
    return builder.cast(builder.quantised(raw, "weights", layer.fmt), kind)


@emit.register
def _(layer: Dense, builder: Builder, tensors: tuple[Tensor, ...], value: Value) -> Value:
    kind = exact(layer, tensors[0])
    matrix = weights(builder, layer, layer.weights.T, kind)
    x = builder.cast(flattened(builder, value) if len(value.shape) != 2 else value, kind)
    return builder.node("MatMul", x, matrix.name, shape=(x.shape[0], len(layer.weights)))


# Layers that map each element by itself -------------------------------------------------------


@emit.register
def _(layer: Thresholds, builder: Builder, tensors: tuple[Tensor, ...], value: Value) -> Value:
    scalar = len(value.shape) == 1
    x = builder.reshaped(value, 1) if scalar else value
    # What lies beyond every code is reached by all of them or by none, wherever it lies.
    levels = np.clip(layer.levels, -x.kind.limit, x.kind.limit)
    if layer.falling.any():  # x <= T is -x >= -T.
        signs = np.where(layer.falling, -1, 1)
        x = builder.scaled(x, per_channel(signs, x), "signs")
        levels = np.where(layer.falling[:, None], -levels[:, ::-1], levels)
    y = (_compared if x.kind is Kind.INT else _counted)(layer, builder, levels, x)
    return builder.reshaped(y) if scalar else y


def _counted(layer: Thresholds, builder: Builder, levels: NDArray, x: Value) -> Value:
    """Count by QONNX's own operator."""
    kind = holding(reach(layer.fmt))
    scale, bias = (2, -1) if layer.fmt == Bipolar() else (1, layer.fmt.min)
    whole = kind is Kind.FLOAT  # Else the sum with the bias would not be exact.
    y = builder.node(
        "MultiThreshold",
        x,
        builder.constant("levels", levels, x.kind),
        out_dtype=datatype(layer.fmt if whole else Fixed.spanning(0, levels.shape[1])),
        out_scale=float(scale),
        out_bias=float(bias if whole else 0),
        data_layout="NC" + "TDHW"[max(0, 6 - len(x.shape)) :],
    )
    y = builder.cast(y, kind)
    return y if whole else builder.offset(y, bias)


def _compared(layer: Thresholds, builder: Builder, levels: NDArray, x: Value) -> Value:
    """Count in int64, where no floating point holds the codes."""
    rank, count = len(x.shape), levels.shape[1]
    shape = (*x.shape, count)
    rows = levels.reshape(1, len(levels), *[1] * (rank - 2), count)
    axis = builder.constant("axis", [rank])
    y = builder.node("Unsqueeze", x, axis, shape=(*x.shape, 1))
    y = builder.node(
        "GreaterOrEqual", y, builder.constant("levels", rows), kind=Kind.BOOL, shape=shape
    )
    y = builder.cast(y, Kind.INT)
    y = builder.node("ReduceSum", y, axis, shape=x.shape, keepdims=0)
    bipolar = layer.fmt == Bipolar()
    y = builder.offset(builder.scaled(y, 2 if bipolar else 1), -1 if bipolar else layer.fmt.min)
    return builder.cast(y, holding(reach(layer.fmt)))


@emit.register
def _(layer: Requantise, builder: Builder, tensors: tuple[Tensor, ...], value: Value) -> Value:
    over, under = layer.slope
    result = holding(reach(layer.fmt))
    steepest = max(1, abs(over), abs(under), abs(over - under))
    largest = reach(tensors[0].fmt) * magnitude(layer.multiplier) + magnitude(layer.bias)
    kind = wider(wider(value.kind, result), holding(largest * steepest + (1 << layer.shift)))
    if result is not Kind.FLOAT and layer.shift:  # QONNX's quantisers return float32.
        kind = Kind.INT
    x = builder.cast(value, kind)
    x = builder.scaled(x, per_channel(layer.multiplier, x), "multiplier")
    x = builder.offset(x, per_channel(layer.bias, x), "bias")
    if kind is Kind.INT:
        return builder.cast(_shifted(layer, builder, _steep(layer, builder, x)), result)
    x = _sloped(layer, builder, x)
    x = builder.scaled(x, 2.0**-layer.shift, "step")
    if layer.shift and layer.rounding == "half_up":
        x = builder.offset(x, 0.5, "half")
    low, high = layer.limits
    if not layer.shift and layer.fmt.width > WIDEST:
        return builder.cast(builder.clipped(x, low, high), result)
    if (low, high) != (layer.fmt.min, layer.fmt.max):
        x = builder.clipped(x, low, high)
    return builder.quantised(x, "output", layer.fmt, ROUNDINGS[layer.rounding])


def _sloped(layer: Requantise, builder: Builder, x: Value) -> Value:
    """Multiply by one slope or the other, in floating point."""
    over, under = layer.slope
    if over == under:
        return builder.scaled(x, over, "slope")
    if over > 0 and under == 0:
        return builder.node("Relu", builder.scaled(x, over, "slope"))
    # A power of two divides without rounding.
    if x.kind is Kind.FLOAT and over > 0 and over & (over - 1) == 0:
        return builder.node("LeakyRelu", builder.scaled(x, over, "slope"), alpha=under / over)
    more = builder.scaled(builder.node("Relu", x), over - under, "slope")
    return builder.node("Add", builder.scaled(x, under, "slope"), more.name)


def _steep(layer: Requantise, builder: Builder, x: Value) -> Value:
    """Multiply by one slope or the other, in int64."""
    over, under = layer.slope
    if over == under:
        return builder.scaled(x, over, "slope")
    slopes = [builder.constant("slope", under), builder.constant("slope", over)]
    negative = builder.node("Less", x, builder.constant("zero", 0), kind=Kind.BOOL)
    slope = builder.node("Where", negative, *slopes, kind=Kind.INT)
    return builder.node("Mul", x, slope.name)


def _shifted(layer: Requantise, builder: Builder, x: Value) -> Value:
    """Divide by ``2**shift``, round and saturate, in int64."""
    half = 1 << layer.shift - 1 if layer.shift else 0
    if half:
        match layer.rounding:
            case "half_up":
                x = builder.offset(x, half, "half")
            case "half_even":  # A half goes up where what is below it is odd.
                odd = builder.node("Mod", _floored(layer, builder, x), builder.constant("two", 2))
                x = builder.offset(builder.node("Add", x, odd.name), half - 1, "half")
            case "half_away":
                zero = builder.constant("zero", 0)
                negative = builder.node("Less", x, zero, kind=Kind.BOOL)
                x = builder.node("Sub", x, builder.cast(negative, Kind.INT).name)
                x = builder.offset(x, half, "half")
        x = _floored(layer, builder, x)
    return builder.clipped(x, *layer.limits)


def _floored(layer: Requantise, builder: Builder, x: Value) -> Value:
    """Floor of ``x / 2**shift``: ``Div`` alone would round towards 0."""
    step = builder.constant("step", 1 << layer.shift)
    rest = builder.node("Mod", x, step)
    return builder.node("Div", builder.node("Sub", x, rest.name), step)


@emit.register
def _(layer: Table, builder: Builder, tensors: tuple[Tensor, ...], value: Value) -> Value:
    fmt = tensors[0].fmt
    place = builder.offset(value, -fmt.min)
    place = builder.cast(builder.scaled(place, 0.5 if fmt == Bipolar() else 1), Kind.INT)
    kind = holding(reach(layer.fmt))
    entries = Value(builder.constant("entries", layer.entries, kind), kind, layer.entries.shape)
    return builder.node("Gather", entries, place.name, shape=value.shape, axis=0)


# Layers that join, cut or rearrange ------------------------------------------------------------


def aligned(
    layer: Add | Concat, builder: Builder, tensors: tuple[Tensor, ...], values: tuple[Value, ...]
) -> list[Value]:
    """Return values with one radix point, of the kind of the result."""
    kind = holding(reach(layer.output(*tensors).fmt))
    shifts = layer.shifts(*tensors)
    return [
        builder.scaled(builder.cast(value, kind), 1 << shift, "alignment")
        for value, shift in zip(values, shifts, strict=True)
    ]


@emit.register
def _(layer: Add, builder: Builder, tensors: tuple[Tensor, ...], *values: Value) -> Value:
    total, *others = aligned(layer, builder, tensors, values)
    for value in others:
        total = builder.node("Add", total, value.name)
    return total


@emit.register
def _(layer: Concat, builder: Builder, tensors: tuple[Tensor, ...], *values: Value) -> Value:
    first, *others = parts = aligned(layer, builder, tensors, values)
    shape = (first.shape[0], sum(part.shape[1] for part in parts), *first.shape[2:])
    return builder.node("Concat", first, *(part.name for part in others), shape=shape, axis=1)


@emit.register
def _(layer: Slice, builder: Builder, tensors: tuple[Tensor, ...], value: Value) -> Value:
    ends = {"starts": [layer.start], "ends": [layer.stop], "axes": [1]}
    shape = (value.shape[0], layer.stop - layer.start, *value.shape[2:])
    operands = [builder.constant(what, end) for what, end in ends.items()]
    return builder.node("Slice", value, *operands, shape=shape)


@emit.register
def _(layer: Flatten, builder: Builder, tensors: tuple[Tensor, ...], value: Value) -> Value:
    return flattened(builder, value)


@emit.register
def _(layer: ArgMax, builder: Builder, tensors: tuple[Tensor, ...], value: Value) -> Value:
    return builder.node("ArgMax", value, kind=Kind.INT, shape=value.shape[:1], axis=1, keepdims=0)

"""Layers that slide a window over an image, repeat its pixels or take them apart, as nodes."""

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brambling.layers import Conv, DepthToSpace, Pool, Tensor, Upsample, Window
from brambling.quant.formats import Fixed
from brambling.quant.interchange.exporter_graph import Builder, Kind, Value, holding, reach
from brambling.quant.interchange.exporter_layers import emit, exact, weights

__all__ = ["sliding"]


def sliding(window: Window) -> dict[str, Any]:
    """Return ONNX's attributes of a window."""
    top, bottom, left, right = window.padding
    return {
        "kernel_shape": list(window.kernel),
        "strides": list(window.stride),
        "pads": [top, left, bottom, right],
    }


def padded(builder: Builder, value: Value, window: Window, fill: int) -> Value:
    """Put pixels of ``fill`` around the image."""
    top, bottom, left, right = window.padding
    if not any(window.padding):
        return value
    batch, channels, height, width = value.shape
    pads = builder.constant("pads", [0, 0, top, left, 0, 0, bottom, right])
    shape = (batch, channels, height + top + bottom, width + left + right)
    around = builder.constant("around", fill, value.kind)
    return builder.node("Pad", value, pads, around, shape=shape, mode="constant")


def taps(builder: Builder, value: Value, window: Window, fill: int) -> list[Value]:
    """Return the pixels that each tap of the window sees, an image for each."""
    height, width = value.shape[2:]
    rows, columns = window.extent(height, width)
    image = padded(builder, value, window, fill)
    batch, channels = value.shape[:2]
    shape = (batch, channels, rows, columns)
    axes, steps = builder.constant("axes", [2, 3]), builder.constant("steps", window.stride)
    views = []
    for tap in np.ndindex(*window.kernel):
        start = [n * step for n, step in zip(tap, window.dilation, strict=True)]
        stop = [
            first + (count - 1) * step + 1
            for first, count, step in zip(start, (rows, columns), window.stride, strict=True)
        ]
        ends = builder.constant("starts", start), builder.constant("ends", stop)
        views.append(builder.node("Slice", image, *ends, axes, steps, shape=shape))
    return views


@emit.register
def _(layer: Conv, builder: Builder, tensors: tuple[Tensor, ...], value: Value) -> Value:
    kind = exact(layer, tensors[0])
    rows, columns, outputs = layer.output(*tensors).shape
    if kind is not Kind.FLOAT:
        return _multiplied(layer, builder, value, kind)
    window = sliding(layer.window)
    if layer.pad_value:
        value = padded(builder, value, layer.window, layer.pad_value)
        window |= {"pads": [0, 0, 0, 0]}
    w = weights(builder, layer, layer.weights.transpose(0, 3, 1, 2), kind)
    return builder.node(
        "Conv",
        value,
        w.name,
        shape=(value.shape[0], outputs, rows, columns),
        dilations=list(layer.dilation),
        group=layer.groups,
        **window,
    )


def by_group(layer: Conv) -> NDArray:
    """Weights ``(groups, taps * channels of a group, outputs of a group)``."""
    groups = layer.groups
    return layer.matrix.reshape(groups, len(layer.weights) // groups, -1).transpose(0, 2, 1)


def _multiplied(layer: Conv, builder: Builder, value: Value, kind: Kind) -> Value:
    """Convolve by a matrix product, since ``Conv`` has no type that holds the sums."""
    w = weights(builder, layer, by_group(layer), kind)
    groups, elements, outputs = w.shape
    first, *others = taps(builder, builder.cast(value, kind), layer.window, layer.pad_value)
    batch, channels, rows, columns = first.shape
    count = 1 + len(others)
    shape = (batch, count * channels, rows, columns)
    x = builder.node("Concat", first, *(tap.name for tap in others), shape=shape, axis=1)
    x = builder.reshaped(x, count, groups, channels // groups, rows * columns)
    order = (0, 2, 4, 1, 3)
    x = builder.node("Transpose", x, shape=(x.shape[n] for n in order), perm=list(order))
    x = builder.reshaped(x, groups, rows * columns, elements)
    shape = (batch, groups, rows * columns, outputs)
    y = builder.node("MatMul", x, w.name, shape=shape)
    shape = (batch, groups, outputs, rows * columns)
    y = builder.node("Transpose", y, shape=shape, perm=[0, 1, 3, 2])
    return builder.reshaped(y, groups * outputs, rows, columns)


@emit.register
def _(layer: Pool, builder: Builder, tensors: tuple[Tensor, ...], value: Value) -> Value:
    x, window = tensors[0], layer.window(tensors[0])
    rows, columns, channels = layer.output(x).shape
    shape = (value.shape[0], channels, rows, columns)
    if layer.kind == "max":
        if value.kind is Kind.INT:
            return _reduced(builder, "Max", value, window, x.fmt.min)
        return builder.node("MaxPool", value, shape=shape, **sliding(window))
    count = prod(window.kernel)
    kind = holding(count * reach(x.fmt))
    if kind is not Kind.FLOAT:
        return _reduced(builder, "Add", builder.cast(value, kind), window, 0)
    if count & (count - 1):
        return _summed(builder, value, window, shape)
    # A power of two divides without rounding.
    if window.kernel == value.shape[2:] and not any(window.padding):
        y = builder.node("GlobalAveragePool", value, shape=shape)
    else:
        counted: dict[str, Any] = {"count_include_pad": 1} if any(window.padding) else {}
        y = builder.node("AveragePool", value, shape=shape, **sliding(window), **counted)
    return builder.scaled(y, count, "pixels")


def _summed(builder: Builder, value: Value, window: Window, shape: tuple[int, ...]) -> Value:
    """Sum by a convolution of each channel with ones."""
    builder.check_room(shape[1] * prod(window.kernel))
    bit = Fixed(1, 0, signed=False)
    ones = builder.constant("ones", np.ones((shape[1], 1, *window.kernel), np.float32), Kind.FLOAT)
    builder.annotate(ones, bit)
    return builder.node("Conv", value, ones, shape=shape, group=shape[1], **sliding(window))


def _reduced(builder: Builder, op: str, value: Value, window: Window, fill: int) -> Value:
    """Combine the taps of a window one by one, in a type that no pooling operator has.

    ``ReduceSum`` would have one operator do it, but ONNX Runtime adds int64 as float64.
    """
    total, *others = taps(builder, value, window, fill)
    for tap in others:
        total = builder.node(op, total, tap.name)
    return total


@emit.register
def _(layer: Upsample, builder: Builder, tensors: tuple[Tensor, ...], value: Value) -> Value:
    batch, channels, height, width = value.shape
    down, across = layer.factor
    shape = (batch, channels, height * down, width * across)
    if value.kind is Kind.FLOAT:
        scales = builder.constant("scales", [1, 1, down, across], Kind.FLOAT)
        nothing = builder.constant("region", [], Kind.FLOAT)
        modes: dict[str, Any] = {"mode": "nearest", "nearest_mode": "floor"}
        modes["coordinate_transformation_mode"] = "asymmetric"
        return builder.node("Resize", value, nothing, scales, shape=shape, **modes)
    for axis, factor in ((2, down), (3, across)):
        builder.check_room(shape[axis])
        places = builder.constant("places", np.arange(value.shape[axis]).repeat(factor))
        longer = (*value.shape[:axis], shape[axis], *value.shape[axis + 1 :])
        value = builder.node("Gather", value, places, shape=longer, axis=axis)
    return value


@emit.register
def _(layer: DepthToSpace, builder: Builder, tensors: tuple[Tensor, ...], value: Value) -> Value:
    batch, depth, height, width = value.shape
    down, across = layer.block
    channels = depth // (down * across)
    shape = (batch, channels, height * down, width * across)
    if down == across and value.kind is not Kind.INT:
        return builder.node("DepthToSpace", value, shape=shape, blocksize=down, mode="DCR")
    y = builder.reshaped(value, down, across, channels, height, width)
    order = (0, 3, 4, 1, 5, 2)
    y = builder.node("Transpose", y, shape=(y.shape[n] for n in order), perm=list(order))
    return builder.reshaped(y, *shape[1:])

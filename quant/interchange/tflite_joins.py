"""Operators of TensorFlow Lite that join, cut or move: sums, concatenation, slices, shapes."""

from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from brambling.errors import FileProblem
from brambling.network import Add, ArgMax, Concat, Slice, Table, Upsample
from brambling.quant.formats import Fixed
from brambling.quant.interchange.tflite_arithmetic import LEFT_SHIFT, Multiplier, single
from brambling.quant.interchange.tflite_lowering import (
    Affine,
    Function,
    Lowering,
    Padding,
    Value,
    bare,
    frame_shape,
    unsupported,
)
from brambling.quant.interchange.tflite_ops import flat, unscaled
from brambling.quant.interchange.tflite_reader import MOST_CHANNELS, Operator

__all__ = ["MOVE", "RESHAPES"]

RESHAPES = ("RESHAPE", "SQUEEZE", "EXPAND_DIMS")


# Sums ---------------------------------------------------------------------------------------------


def terms(net: Lowering, op: Operator, pair: tuple[Affine, Affine]) -> tuple[list[Function], float]:
    """Terms of a sum with 20 fractional bits, and the factor that makes their sum codes."""
    result = net.result(op)
    twice = 2 * max(pair[0].scale, pair[1].scale)
    factors = [Multiplier.of([part.scale / twice]) for part in pair]
    signs = (1, -1 if op.kind == "SUB" else 1)

    def term(part: Affine, factor: Multiplier, sign: int) -> Function:
        return lambda codes: sign * factor.apply(codes - part.zero_point << LEFT_SHIFT)

    made = [term(*row) for row in zip(pair, factors, signs, strict=True)]
    return made, twice / ((1 << LEFT_SHIFT) * result.scale)


def alike(op: Operator, *parts: Affine) -> None:
    """Refuse operands of different types, which the kernels refuse too."""
    if len({part.dtype for part in parts}) > 1:
        raise unsupported(op, "types", " and ".join(p.dtype for p in parts), "use int8 throughout")


def total(net: Lowering, op: Operator) -> None:
    """ADD and SUB: each term by a table, then their sum, then its codes."""
    if any(net.info(op, place).constant for place in (0, 1)):
        return offset(net, op)
    values = net.value(op, 0), net.value(op, 1)
    result = net.result(op)
    alike(op, values[0].affine, values[1].affine, result)
    functions, ratio = terms(net, op, (values[0].affine, values[1].affine))
    edges = [term_of(net, x, function) for x, function in zip(values, functions, strict=True)]
    edge = net.add(Add(name=net.name("add"), inputs=(edges[0], edges[1])))
    factor = Multiplier.of([ratio])
    tables = [net.layers[name] for name in edges]
    parts = [layer.entries for layer in tables if isinstance(layer, Table)]
    low, high = sum(int(part.min()) for part in parts), sum(int(part.max()) for part in parts)
    bounds = np.array([low]), np.array([high])
    net.in_sums(op, factor, *bounds)
    activation = op.options["fused_activation_function"]
    net.finish(op, net.activated(
        op, edge, bounds, lambda sums: factor.apply(sums) + result.zero_point, factor.reals,
        activation,
    ))  # fmt: skip
    return None


def term_of(net: Lowering, x: Value, function: Function) -> str:
    """Add a table of the terms for all codes."""
    fmt = x.affine.fmt
    entries = function(np.arange(fmt.min, fmt.max + 1)[np.newaxis])[0]
    width = Fixed.spanning(int(entries.min()), int(entries.max()))
    return net.add(Table(name=net.name("scale"), inputs=(x.edge,), entries=entries, fmt=width))


def operand(net: Lowering, op: Operator) -> tuple[Value, Affine, NDArray[np.int64], int]:
    """Return what is computed, the constant's meaning and codes in a row each, and its place."""
    place = 0 if net.info(op, 0).constant else 1
    info = net.info(op, place)
    x, affine = net.value(op, 1 - place), Affine.of(info)
    alike(op, x.affine, affine, net.result(op))
    codes = net.constant(op, place).astype(np.int64)
    channels = (1, *x.tensor.shape)[-1]
    if codes.size not in {1, channels} or (codes.size > 1 and codes.shape[-1] != codes.size):
        raise unsupported(op, f"input {place}", f"of shape {codes.shape}", "use one for a channel")
    if codes.size > MOST_CHANNELS:
        raise unsupported(op, "channels", f"{codes.size:,}", f"use at most {MOST_CHANNELS:,}")
    return x, affine, codes.reshape(-1, 1), place


def offset(net: Lowering, op: Operator) -> None:
    """Add or subtract a constant: a function of one code."""
    x, affine, codes, place = operand(net, op)
    result = net.result(op)
    pair = (affine, x.affine) if place == 0 else (x.affine, affine)
    functions, ratio = terms(net, op, pair)
    factor, constant = Multiplier.of([ratio]), functions[place](codes)
    computed = functions[1 - place]

    def function(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        return factor.apply(computed(numbers) + constant) + result.zero_point

    sums = computed(np.array([[x.affine.fmt.min, x.affine.fmt.max]])) + constant
    net.in_sums(op, factor, sums.min(axis=1), sums.max(axis=1))
    slopes = np.full(len(codes), x.affine.scale / result.scale)
    edge = net.coded(op, x, function, slopes, op.options["fused_activation_function"])
    net.finish(op, edge)


def scaled(net: Lowering, op: Operator) -> None:
    """MUL by a constant: a function of one code."""
    if not any(net.info(op, place).constant for place in (0, 1)):
        raise unsupported(op, "inputs", "both computed", "multiply by a constant")
    x, affine, codes, place = operand(net, op)
    result = net.result(op)
    first, second = (affine, x.affine) if place == 0 else (x.affine, affine)
    real = single(first.scale, second.scale, by=result.scale)
    factor, numbers = Multiplier.of([real]), codes - affine.zero_point

    def function(given: NDArray[np.int64]) -> NDArray[np.int64]:
        return factor.apply((given - x.affine.zero_point) * numbers) + result.zero_point

    ends = np.array([[x.affine.fmt.min, x.affine.fmt.max]]) - x.affine.zero_point
    net.in_sums(op, factor, (ends * numbers).min(axis=1), (ends * numbers).max(axis=1))
    slopes = np.abs(numbers[:, 0]) * real
    edge = net.coded(op, x, function, slopes, op.options["fused_activation_function"])
    net.finish(op, edge)


# Parts --------------------------------------------------------------------------------------------


def concatenation(net: Lowering, op: Operator) -> None:
    """CONCATENATION of channels; the kernel copies codes."""
    values = [net.value(op, place) for place in range(len(op.inputs))]
    rank = len(net.output(op).shape)
    if not values or op.options["axis"] % max(rank, 1) != rank - 1:
        raise unsupported(op, "axis", op.options["axis"], "join channels, the last axis")
    if op.options["fused_activation_function"]:
        raise unsupported(op, "activation", "fused", "put it behind")
    for x in values:
        unscaled(net, op, x.affine)
    edges = tuple(x.edge for x in values)
    joined = len(edges) > 1
    edge = net.add(Concat(name=net.name("cat"), inputs=edges)) if joined else values[0].edge
    net.finish(op, edge)


def cut(net: Lowering, op: Operator, place: int, start: int, stop: int, x: Value) -> None:
    """Give a result the channels ``start`` to ``stop - 1``."""
    unscaled(net, op, x.affine)
    edge = x.edge
    if (start, stop) != (0, x.tensor.shape[-1]):
        layer = Slice(name=net.name("slice"), inputs=(edge,), start=start, stop=stop)
        edge = net.add(layer)
    net.finish(op, edge, place)


def channels_of(op: Operator, spans: list[tuple[int, int]], shape: tuple[int, ...]) -> list[int]:
    """Return start and stop of the channels; refuse to cut anything else."""
    if len(spans) != len(shape) or any(
        span != (0, n) for span, n in zip(spans[:-1], shape[:-1], strict=True)
    ):
        raise unsupported(op, "region", spans, "cut channels only, the last axis")
    return list(spans[-1])


def piece(net: Lowering, op: Operator) -> None:
    """SLICE by begin and size."""
    x, shape = net.value(op), net.info(op, 0).shape
    begins, sizes = net.integers(op, 1), net.integers(op, 2)
    spans = [
        (begin, n if size == -1 else begin + size)
        for begin, size, n in zip(begins, sizes, shape, strict=False)
    ]
    start, stop = channels_of(op, spans, shape)
    cut(net, op, 0, start, stop, x)


def strided(net: Lowering, op: Operator) -> None:
    """STRIDED_SLICE, of single steps."""
    x, shape = net.value(op), net.info(op, 0).shape
    for mask in ("ellipsis_mask", "new_axis_mask", "shrink_axis_mask"):
        if op.options[mask]:
            raise unsupported(op, mask, op.options[mask], "cut channels only")
    begins, ends, steps = (net.integers(op, place) for place in (1, 2, 3))
    if any(step != 1 for step in steps):
        raise unsupported(op, "strides", steps, "use 1")
    spans = []
    for n, (begin, end, size) in enumerate(zip(begins, ends, shape, strict=False)):
        first = 0 if op.options["begin_mask"] >> n & 1 else begin
        last = size if op.options["end_mask"] >> n & 1 else end
        spans.append(slice(first, last).indices(size)[:2])
    start, stop = channels_of(op, spans, shape)
    cut(net, op, 0, start, stop, x)


def split(net: Lowering, op: Operator) -> None:
    """SPLIT into equal parts and SPLIT_V into parts of given sizes, of channels."""
    data, sizes_at, axis_at = (1, None, 0) if op.kind == "SPLIT" else (0, 1, 2)
    x, shape = net.value(op, data), net.info(op, data).shape
    axis, parts = net.integers(op, axis_at), len(op.outputs)
    if len(axis) != 1 or not shape or axis[0] % len(shape) != len(shape) - 1 or not parts:
        raise unsupported(op, "axis", axis, "split channels, the last axis")
    sizes = [shape[-1] // parts] * parts if sizes_at is None else net.integers(op, sizes_at)
    if -1 in sizes:
        rest = shape[-1] - sum(size for size in sizes if size != -1)
        sizes[sizes.index(-1)] = rest
    if len(sizes) != parts or sum(sizes) != shape[-1]:
        raise FileProblem(f"{net.model.path}: {op}: parts of {shape[-1]} channels cannot be "
                          f"{sizes}")  # fmt: skip
    for place, (size, stop) in enumerate(zip(sizes, accumulate(sizes), strict=True)):
        cut(net, op, place, stop - size, stop, x)


# Shapes -------------------------------------------------------------------------------------------


def reshaped(net: Lowering, op: Operator) -> None:
    """RESHAPE, SQUEEZE and EXPAND_DIMS: an image as a vector, or nothing."""
    x, info = net.value(op), net.output(op)
    unscaled(net, op, x.affine)
    shape, wanted = x.tensor.shape, frame_shape(info.shape)
    if info.shape[:1] != net.info(op, 0).shape[:1]:
        raise unsupported(op, "batch", info.shape, "keep the first dimension")
    edge = x.edge
    if len(wanted) == 1 and len(shape) > 1:
        edge = flat(net, edge)
    elif bare(wanted) != bare(shape):
        raise unsupported(op, "shape", info.shape, "flatten an image, or drop dimensions of 1")
    net.finish(op, edge)


def pad(net: Lowering, op: Operator) -> None:
    """PAD and PADV2: left to the convolution or pooling that reads it."""
    x, sides = net.value(op), net.constant(op, 1)
    unscaled(net, op, x.affine)
    value = x.affine.zero_point
    if op.kind == "PADV2":
        unscaled(net, op, Affine.of(net.info(op, 2)))
        value = (*net.integers(op, 2), value)[0]
    rows = [[int(n) for n in row] for row in sides.reshape(-1, 2)] if sides.size == 8 else []
    if not rows or any(rows[0] + rows[3]) or len(x.tensor.shape) != 3:
        raise unsupported(op, "paddings", sides.tolist(), "pad height and width of an image")
    if min(rows[1] + rows[2]) < 0:
        raise FileProblem(f"{net.model.path}: {op}: paddings must be from 0, not {rows}")
    net.finish(op, x.edge, padding=Padding((*rows[1], *rows[2]), value))  # type: ignore[arg-type]


def resized(net: Lowering, op: Operator) -> None:
    """RESIZE_NEAREST_NEIGHBOR by whole factors."""
    x, wanted = net.value(op), net.integers(op, 1)
    unscaled(net, op, x.affine)
    if len(x.tensor.shape) != 3 or len(wanted) != 2 or op.options["align_corners"]:
        raise unsupported(op, "align_corners", "used", "resize images without it")
    factor = []
    for size, new in zip(x.tensor.shape, wanted, strict=False):
        if new < size or new % size or new > MOST_CHANNELS:
            raise unsupported(op, "size", wanted, "repeat pixels by whole numbers")
        places = np.arange(new, dtype=np.float32) + np.float32(op.options["half_pixel_centers"] / 2)
        chosen = np.floor(places * (np.float32(size) / np.float32(new)))
        if (np.minimum(chosen, size - 1) != np.arange(new) // (new // size)).any():
            raise unsupported(op, "size", wanted, "use a factor that single precision divides by")
        factor.append(new // size)
    edge = x.edge
    if factor != [1, 1]:
        edge = net.add(Upsample(name=net.name("up"), inputs=(edge,), factor=(factor[0], factor[1])))
    net.finish(op, edge)


def largest(net: Lowering, op: Operator) -> None:
    """ARG_MAX of a vector, which must be the model's result: the first of the largest."""
    x = net.value(op)
    rank, axis = len(net.info(op, 0).shape), net.integers(op, 1)
    if len(bare(x.tensor.shape)) != 1 or len(axis) != 1 or axis[0] % max(rank, 1) != rank - 1:
        raise unsupported(op, "axis", axis, "take the largest of a vector of classes")
    info = net.output(op)
    if info.index not in net.model.outputs:
        raise unsupported(op, "result", "read by another operator", "make it the model's output")
    edge = net.add(ArgMax(name="argmax", inputs=(flat(net, x.edge),)))
    net.values[info.index] = replace(x, edge=edge, tensor=net.tensors[edge])


MOVE: dict[str, Callable[[Lowering, Operator], None]] = {
    "ADD": total,
    "SUB": total,
    "MUL": scaled,
    "CONCATENATION": concatenation,
    "SLICE": piece,
    "STRIDED_SLICE": strided,
    "SPLIT": split,
    "SPLIT_V": split,
    **dict.fromkeys(RESHAPES, reshaped),
    "PAD": pad,
    "PADV2": pad,
    "RESIZE_NEAREST_NEIGHBOR": resized,
    "ARG_MAX": largest,
}

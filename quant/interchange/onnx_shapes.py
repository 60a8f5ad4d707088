"""Operators that move elements: reshapes, transposes, cuts, joins, padding, the end."""

from collections.abc import Sequence
from dataclasses import replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from brambling.errors import ConfigError, UnsupportedLayer
from brambling.network import Conv, DepthToSpace, Slice
from brambling.quant import joining
from brambling.quant.formats import Fixed
from brambling.quant.interchange.graph import Node
from brambling.quant.interchange.onnx_attributes import (
    axis_of,
    flag,
    integer,
    integers,
    real,
    refuse,
    text,
)
from brambling.quant.interchange.onnx_lowering import Lowering, Relayout, operator
from brambling.quant.interchange.onnx_products import unit_of
from brambling.quant.interchange.onnx_quantisers import WIDEST
from brambling.quant.interchange.placed import Codes, Pad, Placed, fractions
from brambling.quant.norms import linear
from brambling.quant.values import Value
from brambling.steps import LARGEST_KERNEL

# One order ----------------------------------------------------------------------------------------


@operator("Identity", "Dropout", "Cast", text="nothing happens to the values")
def _(self: Lowering, node: Node) -> Sequence[Placed | Codes]:
    found = self.tensors[node.inputs[0]]
    if node.op == "Cast" and isinstance(found, Placed):
        whole = found.value.plain and all(
            (norm.gain.denominator, (norm.bias - norm.gain * norm.mean).denominator) == (1, 1)
            for norm in found.value.norms
        )
        if integer(node, "to") not in {1, 10, 11} and not whole:  # float, half, double
            raise UnsupportedLayer(f"{node}: rounds to integers: use a quantiser")
    return [found]


@operator("Reshape", "Flatten", "Squeeze", "Unsqueeze", text="where the batch stays first")
def _(self: Lowering, node: Node) -> Sequence[Placed | Codes]:
    found = self.tensors[node.inputs[0]]
    if isinstance(found, Codes):
        return [found.reshaped(self.graph.shapes[node.outputs[0]])]
    x = self.placed(node)
    return [x.moved(x.index.reshape(self.shape_of(node)))]


@operator("Transpose", text="where the batch stays first")
def _(self: Lowering, node: Node) -> Sequence[Placed | Codes]:
    found = self.tensors[node.inputs[0]]
    if isinstance(found, Codes):
        return [found.transposed(order_of(node, found.codes.ndim))]
    x = self.placed(node, padded=True)
    axes = order_of(node, x.index.ndim + 1)
    if axes == (1, 0):
        return [replace(x, across=True)]
    if axes[0] != 0:
        raise UnsupportedLayer(f"{node}: must keep the batch as its first dimension")
    return [x.moved(x.index.transpose([axis - 1 for axis in axes[1:]]))]


def in_rank(node: Node, axis: int, rank: int) -> int:
    """Return the place of a dimension of so many, counted from the first."""
    if not -rank <= axis < rank:
        refuse(node, "axes", f"of {-rank} to {rank - 1}", axis)
    return axis % rank


def order_of(node: Node, rank: int) -> tuple[int, ...]:
    """Return a node's order of so many dimensions."""
    order = integers(node, "perm", tuple(reversed(range(rank))), rank)
    if sorted(order) != list(range(rank)):
        refuse(node, "perm", f"an order of 0 to {rank - 1}", order)
    return order


# Parts --------------------------------------------------------------------------------------------


def part(self: Lowering, node: Node, x: Placed, chosen: NDArray[np.int64]) -> Placed:
    """Cut out the elements whose places on the edge are ``chosen``."""
    if chosen.size == 0:
        raise UnsupportedLayer(f"{node}: leaves nothing: cut out less")
    channels, size = x.value.channels, x.index.size
    kept, pixels = np.unique(chosen % channels), np.unique(chosen // channels)
    if chosen.size != len(kept) * len(pixels):
        if len(x.value.tensor.shape) == 3:
            return part(self, node, self.vector(x), chosen)
        raise UnsupportedLayer(f"{node}: cuts out elements twice: cut them out once")
    if len(pixels) < size // channels:
        x, chosen = cropped(self, node, x, chosen, pixels)
    if len(kept) == channels:
        return x.moved(chosen)
    value, start = x.value, int(kept[0])
    if np.array_equal(kept, np.arange(start, start + len(kept))):
        value = self.builder.settled(value, str(node)) if value.bends else value
        layer = Slice(
            name=self.builder.name("slice"),
            inputs=(value.edge,),
            start=start,
            stop=start + len(kept),
        )
        value = self.chosen(value, layer, kept)
    else:
        value = self.picked(value, kept, node)
    place = np.searchsorted(kept, chosen % channels)
    return Placed(value, chosen // channels * len(kept) + place)


def cropped(
    self: Lowering, node: Node, x: Placed, chosen: NDArray[np.int64], pixels: NDArray[np.int64]
) -> tuple[Placed, NDArray[np.int64]]:
    """Cut out a rectangle of pixels: by a convolution of each channel whose window has one tap."""
    value = self.builder.settled(x.value, str(node))
    height, width, channels = value.tensor.shape
    rows, columns = np.unique(pixels // width), np.unique(pixels % width)
    steps = [int(n[1] - n[0]) if len(n) > 1 else 1 for n in (rows, columns)]
    before = int(rows[0]), int(columns[0])
    after = height - 1 - int(rows[-1]), width - 1 - int(columns[-1])
    straight = all(
        np.array_equal(n, np.arange(n[0], n[-1] + 1, step))
        for n, step in zip((rows, columns), steps, strict=True)
    )
    kernel = [a + b + 1 for a, b in zip(before, after, strict=True)]
    if len(pixels) != len(rows) * len(columns) or not straight or max(kernel) > LARGEST_KERNEL:
        raise UnsupportedLayer(
            f"{node}: cuts out pixels: cut at most {LARGEST_KERNEL - 1} rows or columns off"
        )
    weights = np.zeros((channels, *kernel, 1), np.int64)
    weights[:, before[0], before[1]] = 1
    layer = Conv(
        name=self.builder.name("crop"),
        inputs=(value.edge,),
        weights=weights,
        fmt=Fixed(1, 0, signed=False),
        stride=(steps[0], steps[1]),
        groups=channels,
    )
    made = self.chosen(value, layer, np.arange(channels))
    place = np.full(height * width, -1)
    place[pixels] = np.arange(len(pixels))
    index = place[chosen // channels] * channels + chosen % channels
    return Placed(made, index), index


@operator("Split", text="of channels")
def _(self: Lowering, node: Node) -> Sequence[Placed | Codes]:
    x = self.placed(node)
    axis = axis_of(node, 0, x.index.ndim + 1) - 1
    if axis < 0:
        raise UnsupportedLayer(f"{node}: splits the batch: split channels")
    sizes = [self.graph.shapes[name][axis + 1] for name in node.outputs]
    stops = np.cumsum(sizes)[:-1].tolist()
    parts = np.split(x.index, stops, axis)
    return [part(self, node, x, chosen) for chosen in parts]


@operator("Slice", text="of channels")
def _(self: Lowering, node: Node) -> Sequence[Placed | Codes]:
    x = self.placed(node)
    rank = x.index.ndim + 1
    if node.version < 10:
        starts, ends = (integers(node, key) for key in ("starts", "ends"))
        axes, steps = integers(node, "axes", range(len(starts))), [1] * len(starts)
    else:
        starts, ends = (
            self.integers(node, place, what) for place, what in ((1, "starts"), (2, "ends"))
        )
        axes, steps = (
            self.integers(node, place, what) if self.given(node, place) else default
            for place, what, default in (
                (3, "axes", list(range(len(starts)))),
                (4, "steps", [1] * len(starts)),
            )
        )
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        raise ConfigError(f"{node}: needs a start, an end and a step for each axis: export it anew")
    places = [slice(None)] * rank
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        places[in_rank(node, axis, rank)] = slice(start, None if end < -(1 << 31) else end, step)
    whole = x.index[np.newaxis][tuple(places)]
    if whole.shape[:1] != (1,):
        raise UnsupportedLayer(f"{node}: cuts the batch: cut channels")
    return [part(self, node, x, whole[0])]


@operator("Concat", text="of channels")
def _(self: Lowering, node: Node) -> Sequence[Placed | Codes]:
    parts = [self.placed(node, place) for place in range(len(node.inputs))]
    axis = axis_of(node, None, parts[0].index.ndim + 1) - 1
    pixels = {part.value.tensor.shape[:-1] for part in parts}
    if axis < 0:
        raise UnsupportedLayer(f"{node}: joins batches: join channels")
    if len(pixels) > 1:
        raise UnsupportedLayer(f"{node}: joins pixels: join channels of images of one size")
    total = sum(part.value.channels for part in parts)
    indices, before = [], 0
    for found in parts:
        channels = found.value.channels
        indices.append(found.index // channels * total + found.index % channels + before)
        before += channels
    try:
        index = np.concatenate(indices, axis)
    except ValueError:
        raise UnsupportedLayer(f"{node}: joins pixels: join channels") from None
    value = joining.concat(self.builder, [found.value for found in parts], str(node))
    return [Placed(value, index)]


# Pixels -------------------------------------------------------------------------------------------


@operator("Pad", text="with a constant, before a convolution or average pooling")
def _(self: Lowering, node: Node) -> Sequence[Placed | Codes]:
    x = self.placed(node)
    mode = text(node, "mode", "constant")
    if mode != "constant":
        raise UnsupportedLayer(f"{node}: mode must be constant, not {mode}: train it so")
    rank = x.index.ndim + 1
    key = next((key for key in ("pads", "paddings") if key in node.attributes), None)
    pads = integers(node, key, count=2 * rank) if key else self.integers(node, 1, "pads")
    if self.given(node, 2):
        (value,) = fractions(self.single(node, 2, "value"), f"{node}: value")
    else:
        value = real(node, "value", 0)
    if self.given(node, 3):
        full = [0] * (2 * rank)
        axes = self.integers(node, 3, "axes")
        if len(pads) != 2 * len(axes):
            raise ConfigError(f"{node}: needs two pads for each axis: export it anew")
        for n, axis in enumerate(axes):
            place = in_rank(node, axis, rank)
            full[place], full[place + rank] = pads[n], pads[n + len(axes)]
        pads = full
    if len(pads) != 2 * rank:
        raise ConfigError(f"{node}: needs {2 * rank} pads, not {len(pads)}: export it anew")
    before, after = pads[:rank], pads[rank:]
    if not any(pads):
        return [x]
    last = bool(before[1] or after[1]) and rank == 4
    if any((before[0], after[0])) or min(pads) < 0 or rank not in {3, 4}:
        raise UnsupportedLayer(f"{node}: pads other than rows and columns: pad those only")
    self.oriented(x, node, last=last)  # It must be an image.
    if any((before[3], after[3]) if last else (before[1], after[1])):
        raise UnsupportedLayer(f"{node}: pads channels: pad rows and columns only")
    places = slice(1, 3) if last else slice(2, None)
    top, left = (0, *before[places])[-2:]
    bottom, right = (0, *after[places])[-2:]
    return [replace(x, pad=Pad((top, bottom, left, right), value))]


@operator("Resize", "Upsample", text="nearest neighbour, by whole factors")
def _(self: Lowering, node: Node) -> Sequence[Placed | Codes]:
    x, turned = self.oriented(self.placed(node), node)
    mode = text(node, "mode", "nearest")
    shape = self.shape_of(node)
    old, new = (x.shape[:0:-1] if turned else x.shape[1:]), shape[1:]
    factors = [m // n for n, m in zip(old, new, strict=True)]
    whole = [n * f for n, f in zip(old, factors, strict=True)] == list(new)
    if mode != "nearest" or shape[0] != x.shape[0] or not whole:
        raise UnsupportedLayer(
            f"{node}: {mode} from {old} to {new} must be nearest by whole factors: change it"
        )
    for n, factor in zip(old, factors, strict=True):
        if not np.array_equal(nearest(node, n, factor), np.arange(n).repeat(factor)):
            raise UnsupportedLayer(
                f"{node}: must repeat pixels: use coordinate_transformation_mode asymmetric and "
                "nearest_mode floor"
            )
    rows, columns = (1, *factors)[-2:]
    factor = (columns, rows) if turned else (rows, columns)
    value = joining.repeat(self.builder, x.value, factor)
    return [self.fresh(value, x, turned=turned)]


def nearest(node: Node, size: int, factor: int) -> NDArray[np.int64]:
    """Pixel of ``size`` that each pixel of the result takes, as ONNX defines it."""
    places = np.arange(size * factor, dtype=np.float64)
    kind = text(node, "coordinate_transformation_mode", "half_pixel")
    if node.op == "Upsample" or node.version < 11:
        kind = "asymmetric"
    match kind:
        case "asymmetric":
            found = places / factor
        case "align_corners":
            found = places * (size - 1) / max(1, size * factor - 1)
        case _:
            found = (places + 0.5) / factor - 0.5
    default = "floor" if node.op == "Upsample" or node.version < 11 else "round_prefer_floor"
    match text(node, "nearest_mode", default):
        case "round_prefer_floor":
            found = np.ceil(found - 0.5)
        case "round_prefer_ceil":
            found = np.floor(found + 0.5)
        case "ceil":
            found = np.ceil(found)
        case _:
            found = np.floor(found)
    return np.clip(found, 0, size - 1).astype(np.int64)


def leveled(self: Lowering, value: Value) -> Value:
    """Give channels of several scales one, that of their largest unit, if it takes few bits."""
    norms = value.each()
    unit = unit_of([norm.gain for norm in norms])
    offsets = [norm.bias - norm.gain * norm.mean for norm in norms]
    many = [norm.gain / unit for norm in norms]
    bias = [(offset - offsets[0]) / unit for offset in offsets]
    if any(n.denominator != 1 or abs(n) >= 1 << WIDEST for n in (*many, *bias)):
        return value
    made = self.builder.requantised(value, [int(n) for n in many], [int(n) for n in bias])
    return replace(made, norms=(linear(unit, bias=offsets[0]),))


@operator("DepthToSpace", text="both modes")
def _(self: Lowering, node: Node) -> Sequence[Placed | Codes]:
    x, turned = self.oriented(self.placed(node), node)
    block = integer(node, "blocksize", None, 1)
    value = x.value
    # Rows, columns and channels of a block, as the layer has them.
    channels = np.arange(value.channels).reshape(block, block, -1)
    if text(node, "mode", "DCR", ("DCR", "CRD")) == "CRD":
        channels = np.arange(value.channels).reshape(-1, block, block).transpose(1, 2, 0)
    order = (channels.swapaxes(0, 1) if turned else channels).reshape(-1)
    if not np.array_equal(order, np.arange(order.size)):
        value = self.picked(value, order, node)
    value = self.builder.settled(value, str(node)) if value.bends else value
    value = leveled(self, value) if len(value.norms) > 1 else value
    groups = value.channels // block**2
    if any(len(row) > groups and (row.reshape(-1, groups) != row[:groups]).any()
           for row in (value.low, value.high)):  # fmt: skip
        value = replace(value, low=value.low.min(keepdims=True), high=value.high.max(keepdims=True))
    norms = value.norms[:groups] if len(value.norms) > 1 else value.norms
    if value.norms != norms * (len(value.norms) // len(norms)):
        raise UnsupportedLayer(
            f"{node}: its channels have several scales: put a quantiser of one scale before it"
        )
    layer = DepthToSpace(
        name=self.builder.name("shuffle"), inputs=(value.edge,), block=(block, block)
    )
    tensor = self.builder.add(layer)
    low, high = (row[:groups] if len(row) > 1 else row for row in (value.low, value.high))
    made = replace(
        value, edge=layer.name, tensor=tensor, norms=norms, low=low, high=high, alone=False
    )
    return [self.fresh(made, x, turned=turned)]


# The end ------------------------------------------------------------------------------------------


@operator("Softmax", "LogSoftmax", text="as the last operator; left out of the hardware")
def _(self: Lowering, node: Node) -> Sequence[Placed | Codes]:
    x = self.placed(node)
    axis = axis_of(node, 1 if node.version < 13 else -1, x.index.ndim + 1)
    if node.outputs[0] != self.graph.output:
        raise UnsupportedLayer(f"{node}: it may only be the last operator: remove it")
    if not axis or prod(x.shape) != x.shape[axis - 1]:
        raise UnsupportedLayer(
            f"{node}: must be over all elements, not over axis {axis} of {(1, *x.shape)}: remove it"
        )
    self.last = node.op.lower()
    self.notes.append(f"{node} is left out of the network: it keeps the order of the classes")
    return [x]


@operator("ArgMax", "TopK", text="as the last operator; of the largest element only")
def _(self: Lowering, node: Node) -> Sequence[Placed | Codes | None]:
    x = self.placed(node)
    place = 0 if node.op == "ArgMax" else 1
    axis = axis_of(node, 0 if node.op == "ArgMax" else -1, x.index.ndim + 1)
    if len(node.outputs) <= place or node.outputs[place] != self.graph.output:
        raise UnsupportedLayer(
            f"{node}: its indices must be the model's output: cut the model there"
        )
    count = 1
    if node.op == "TopK":
        given = self.given(node, 1)
        count = int(self.single(node, 1, "k")) if given else integer(node, "k")
    plain = not flag(node, "select_last_index") and flag(node, "largest", True)
    if count != 1 or not plain or not axis or prod(x.shape) != x.shape[axis - 1]:
        which = f"{count} largest" if plain else "last or least"
        raise UnsupportedLayer(
            f"{node}: must find the first largest of all elements, not the {which} of axis {axis} "
            f"of {(1, *x.shape)}: use ArgMax over the classes"
        )
    value = largest(self, x, str(node))
    self.last = "argmax"
    shape = list(self.graph.shapes[node.outputs[place]][1:])
    found = Placed(value, np.zeros(shape, np.int64))
    return [found] if place == 0 else [None, found]


def largest(self: Lowering, x: Placed, what: str) -> Value:
    """Add the arg-max of all elements in the tensor's order."""
    x = self.vector(x)
    order = x.index.reshape(-1)
    if not np.array_equal(order, np.arange(order.size)):
        if self.source.value.edge == x.value.edge:
            raise Relayout((order.size,), order)
        raise UnsupportedLayer(f"{what}: its elements were moved: find the largest before that")
    end = joining.end(self.builder, x.value, argmax=True, what=what)
    layer = list(self.builder.layers)[-1]
    return replace(end, edge=layer, tensor=self.builder.tensors[layer], bends=())

"""Operators that multiply by weights, or slide a window: convolutions, matrices, poolings."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import gcd, lcm

import numpy as np

from brambling.errors import UnsupportedLayer
from brambling.network import Conv
from brambling.quant import joining
from brambling.quant.formats import Bipolar, Fixed
from brambling.quant.interchange.graph import CHANNELS_LAST, QONNX, Node
from brambling.quant.interchange.onnx_attributes import flag, integer, integers, real, text
from brambling.quant.interchange.onnx_lowering import Lowering, operator, pair_of
from brambling.quant.interchange.onnx_quantisers import NUMBER_BITS, rounding_grid
from brambling.quant.interchange.placed import Codes, Pad, Placed, finite, fractions
from brambling.quant.lowering import WEIGHT_BITS, Weights, format_of, stretched
from brambling.quant.values import Value

ZERO = Fraction(0)
Sides = tuple[int, int, int, int]


# Weights ------------------------------------------------------------------------------------------


def weights_at(self: Lowering, node: Node, place: int) -> Codes:
    """Return weights as integers: those of a quantiser, or of a grid on which all numbers lie."""
    found = self.tensors.get(node.inputs[place])
    if isinstance(found, Codes):
        return found
    array = self.constant(node, place, "weights")
    what = f"{node}: weights"
    if array.dtype.kind in "iu":
        return Codes(array.astype(np.int64), np.full([1] * array.ndim, Fraction(1), object))
    finite(array, what)
    numbers, places = np.unique(array, return_inverse=True)
    numbers = fractions(numbers, what)
    unit = unit_of(numbers)
    # Signs of a float scale, as QONNX's own passes leave them, are a grid; floats as such are not.
    if max(abs(number / unit) for number in numbers) >= 1 << WEIGHT_BITS - 1:
        raise UnsupportedLayer(
            f"{what} are floats on no grid of {WEIGHT_BITS} bits: put a quantiser (IntQuant) on "
            "them, or make the model with 'brambling quantise'"
        )
    codes = np.array([int(number / unit) for number in numbers])[places].reshape(array.shape)
    return Codes(codes, np.full([1] * array.ndim, unit, object))


def unit_of(numbers: Sequence[Fraction]) -> Fraction:
    """Return the largest number of which all are multiples; 1 where all are 0."""
    bottom = lcm(*{number.denominator for number in numbers})
    top = gcd(*{number.numerator * (bottom // number.denominator) for number in numbers})
    return Fraction(top, bottom) if top else Fraction(1)


def rows_of(found: Codes, bias: Sequence[Fraction], what: str) -> Weights:
    """Weights of a layer, a row for each output: with one scale for each, or for all.

    Where scales differ within a row, all its weights become multiples of their largest unit.
    """
    codes, scale = found.codes, found.scale
    if scale.size > 1 and scale.size != scale.shape[0]:
        full = np.broadcast_to(scale, codes.shape).reshape(len(codes), -1)
        rows, units = [], []
        for row, factors in zip(codes.reshape(len(codes), -1).tolist(), full, strict=True):
            unit = unit_of(list(set(factors.tolist())))
            many = [int(factor / unit) for factor in factors.tolist()]
            rows.append([code * m for code, m in zip(row, many, strict=True)])
            units.append(unit)
        if max(abs(code) for row in rows for code in row) >= 1 << WEIGHT_BITS - 1:
            raise UnsupportedLayer(
                f"{what}: weights have scales for each input that are too different: use one for "
                "each output"
            )
        codes, scales = np.array(rows).reshape(codes.shape), units
    else:
        scales = scale.reshape(-1).tolist()
    fmt = format_of(codes)
    if fmt.width > WEIGHT_BITS:
        raise UnsupportedLayer(f"{what}: weights of {fmt.width} bits: use at most {WEIGHT_BITS}")
    return Weights(codes, fmt, scales, bias)


def bias_of(self: Lowering, node: Node, place: int) -> list[Fraction]:
    return self.numbers(node, place, "bias") if self.given(node, place) else [ZERO]


# Convolutions -------------------------------------------------------------------------------------


def sides(node: Node, shape: Sequence[int], kernel: Sequence[int], pad: Pad | None) -> Sides:
    """Return the padding: top, bottom, left, right; a Pad in front adds to it."""
    rank = len(kernel)
    strides, dilations = (integers(node, key, [1] * rank, rank) for key in ("strides", "dilations"))
    kind = text(node, "auto_pad", "NOTSET", ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"))
    pads = list(integers(node, "pads", [0] * 2 * rank, 2 * rank))
    if kind in {"SAME_UPPER", "SAME_LOWER"}:
        before, after = [], []
        for n, k, s, d in zip(shape, kernel, strides, dilations, strict=True):
            total = max(0, (-(-n // s) - 1) * s + (k - 1) * d + 1 - n)
            less, more = total // 2, total - total // 2
            before.append(less if kind == "SAME_UPPER" else more)
            after.append(more if kind == "SAME_UPPER" else less)
        pads = before + after
    elif kind == "VALID":
        pads = [0] * 2 * rank
    top, left = (0, *pads[:rank])[-2:]
    bottom, right = (0, *pads[rank:])[-2:]
    more = pad.amounts if pad else (0, 0, 0, 0)
    return top + more[0], bottom + more[1], left + more[2], right + more[3]


def check_pad(node: Node, own: Sequence[int], pad: Pad | None) -> Fraction:
    """Return what is around the image."""
    if pad is None:
        return ZERO
    if any(own) and pad.value:
        raise UnsupportedLayer(
            f"{node}: is padded with 0 and with {float(pad.value):g}: pad with one of them"
        )
    return pad.value


def kernel_of(self: Lowering, node: Node, last: bool) -> Weights:
    """Weights of a convolution, as the layer has them; of a sequence, of height 1."""
    found = weights_at(self, node, 1)
    rank = found.codes.ndim - 2
    if rank not in {1, 2}:
        raise UnsupportedLayer(f"{node}: has {rank} dimensions: convolutions have 1 or 2")
    if rank == 1:
        first, *rest = found.codes.shape
        found = found.reshaped((first, 1, *rest) if last else (first, rest[0], 1, rest[1]))
    if not last:
        found = found.transposed((0, 2, 3, 1))
    return rows_of(found, bias_of(self, node, 2), str(node))


def convolution(self: Lowering, node: Node, last: bool) -> list[Placed]:
    found = self.placed(node, padded=True)
    rows = kernel_of(self, node, last)
    point = single_pixel(self, node, found, rows, last)
    if point is not None:
        return [point]
    x, turned = self.oriented(found, node, last=last)
    kernel = rows.codes.shape[1:3]
    size = x.value.tensor.shape[:2]
    size = size[::-1] if turned else size
    rank = len(x.shape) - 1
    padding = sides(node, size[-rank:], kernel[-rank:], found.pad)
    stride, dilation = (pair_of(node, key, rank) for key in ("strides", "dilations"))
    if turned:
        rows = replace(rows, codes=rows.codes.swapaxes(1, 2))
        padding = padding[2], padding[3], padding[0], padding[1]
        stride, dilation = (stride[1], stride[0]), (dilation[1], dilation[0])
    groups = integer(node, "group", 1, 1)
    taps, around = stretched(rows, stride, padding, dilation)
    value = self.builder.conv(
        with_zero(self, x.value, taps, groups) if any(around) else x.value,
        rows,
        str(node),
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        pad=check_pad(node, integers(node, "pads", ()), found.pad),
    )
    return [self.fresh(value, x, last=last, turned=turned)]


def with_zero(self: Lowering, value: Value, weights: Weights, groups: int) -> Value:
    """Give bipolar codes a format that has a 0, unless there is an engine that pads them so."""
    plain = weights.fmt == Bipolar() and groups == 1 and len(value.norms) == 1
    if value.tensor.fmt != Bipolar() or plain:
        return value
    return self.builder.requantised(value, [1])


def single_pixel(self: Lowering, node: Node, x: Placed, rows: Weights, last: bool) -> Placed | None:
    """Product of one pixel with the tap that it meets: a dense layer does not mind the layout."""
    index = x.image(last)
    shape = self.graph.shapes.get(node.outputs[0], ())
    outputs = len(rows.codes)
    if index is None or index.size != rows.codes.shape[3] or int(np.prod(shape)) != outputs:
        return None
    if integer(node, "group", 1, 1) != 1 or x.value.tensor.shape[:-1] == (1, 1):
        return None
    kernel = rows.codes.shape[1:3][-len(shape) + 2 :]
    top, _, left, _ = sides(node, [1] * len(kernel), kernel, x.pad)
    if x.pad is not None and x.pad.value:
        return None
    dilation = pair_of(node, "dilations", len(kernel))
    if top % dilation[0] or left % dilation[1]:
        return None
    tap = rows.codes[:, top // dilation[0], left // dilation[1]]
    flat = x.moved(index.reshape(-1))
    made = matrix(self, node, replace(flat, pad=None), replace(rows, codes=tap))
    return made.moved(made.index.reshape(shape[1:]))


@operator("Conv", text="1-D and 2-D, groups, dilation, any padding")
def _(self: Lowering, node: Node) -> Sequence[Placed | Codes]:
    return convolution(self, node, last=False)


@operator("Conv", domain=CHANNELS_LAST, text="the same")
def _(self: Lowering, node: Node) -> Sequence[Placed | Codes]:
    return convolution(self, node, last=True)


# Matrices -----------------------------------------------------------------------------------------


def matrix(self: Lowering, node: Node, x: Placed, rows: Weights) -> Placed:
    """Product of each vector along the last dimension."""
    if x.index.ndim == 1:
        x = self.vector(x)
        columns = np.empty_like(rows.codes)
        columns[:, x.index] = rows.codes
        value = self.builder.dense(x.value, replace(rows, codes=columns), str(node))
        return Placed(value, np.arange(len(rows.codes)))
    # Of several pixels: a convolution of one.
    image = self.image(x, node, last=True)
    point = replace(rows, codes=rows.codes[:, np.newaxis, np.newaxis])
    value = self.builder.conv(image.value, point, str(node), stride=(1, 1), padding=(0, 0, 0, 0))
    return self.fresh(value, image, last=True)


@operator("MatMul", text="by constant matrices")
def _(self: Lowering, node: Node) -> Sequence[Placed | Codes]:
    if self.is_constant(node.inputs[0]):
        raise UnsupportedLayer(f"{node}: its weights must be its second input: transpose both")
    x = self.placed(node)
    weights = weights_at(self, node, 1)
    if weights.codes.ndim != 2:
        raise UnsupportedLayer(f"{node}: weights must be a matrix, not {weights.codes.shape}")
    return [matrix(self, node, x, rows_of(weights.transposed((1, 0)), [ZERO], str(node)))]


@operator("Gemm", text="by constant matrices, with alpha and beta")
def _(self: Lowering, node: Node) -> Sequence[Placed | Codes]:
    x = self.placed(node)
    if flag(node, "transA") != x.across or len(x.shape) != 1:
        raise UnsupportedLayer(f"{node}: its input must be vectors, the batch first")
    x = replace(x, across=False)
    weights = weights_at(self, node, 1)
    alpha, beta = (real(node, key, 1) for key in ("alpha", "beta"))
    if not flag(node, "transB"):
        weights = weights.transposed((1, 0))
    if not alpha:
        raise UnsupportedLayer(f"{node}: alpha must not be 0: remove the node")
    bias = [beta * number for number in bias_of(self, node, 2)]
    rows = rows_of(replace(weights, scale=weights.scale * alpha), bias, str(node))
    return [matrix(self, node, x, rows)]


# Poolings -----------------------------------------------------------------------------------------


def ceiled(
    node: Node, size: Sequence[int], kernel: Sequence[int], stride: Sequence[int], pad: Sides
) -> Sides:
    """Pad more, so that windows that begin within the image are whole: ceil_mode."""
    top, bottom, left, right = pad
    if not flag(node, "ceil_mode"):
        return pad
    more = []
    for n, k, s, (a, b) in zip(size, kernel, stride, ((top, bottom), (left, right)), strict=True):
        count = -(-(n + a + b - k) // s) + 1
        if (count - 1) * s >= n + a:  # It would begin behind the image.
            count -= 1
        more.append(max(0, (count - 1) * s + k - n - a - b))
    return top, bottom + more[0], left, right + more[1]


@dataclass(frozen=True, slots=True)
class Slide:
    """How a pooling slides: its own padding, and all of it with a Pad's in front and ceil_mode."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    own: Sides
    padding: Sides
    whole: bool

    @property
    def near(self) -> tuple[int, int]:
        """Stride, but 1 where it would skip pixels."""
        rows, columns = (s if s <= k else 1 for k, s in zip(self.kernel, self.stride, strict=True))
        return rows, columns


def slide_of(node: Node, x: Placed, pad: Pad | None, turned: bool) -> Slide:
    """Read a pooling's attributes; rows for columns where the image is turned."""
    rank = len(x.shape) - 1
    given = integers(node, "kernel_shape", count=rank)
    kernel, stride = (pair_of(node, key, rank) for key in ("kernel_shape", "strides"))
    if pair_of(node, "dilations", rank) != (1, 1):
        raise UnsupportedLayer(f"{node}: dilations must be 1: pool without gaps")
    size = x.value.tensor.shape[:2]
    size = size[::-1] if turned else size
    padding = sides(node, size[-len(given) :], given, pad)
    more = ceiled(node, size, kernel, stride, padding)
    own = sides(node, size[-len(given) :], given, None)
    whole = more == padding
    if turned:
        more = more[2], more[3], more[0], more[1]
        kernel, stride = (kernel[1], kernel[0]), (stride[1], stride[0])
    return Slide(kernel, stride, own, more, whole)


def thinned(self: Lowering, value: Value, slide: Slide) -> Value:
    """Drop the windows that a stride larger than the kernel skips: by weights that pick pixels."""
    stride = slide.stride[0] // slide.near[0], slide.stride[1] // slide.near[1]
    if stride == (1, 1):
        return value
    layer = Conv(
        name=self.builder.name("thin"),
        inputs=(value.edge,),
        weights=np.ones((value.channels, 1, 1, 1), np.int64),
        fmt=Fixed(1, 0, signed=False),
        stride=stride,
        groups=value.channels,
    )
    return self.chosen(value, layer, np.arange(value.channels))


def largest_of(self: Lowering, node: Node, last: bool) -> list[Placed]:
    found = self.placed(node, padded=True)
    x, turned = self.oriented(found, node, last=last)
    slide = slide_of(node, x, found.pad, turned)
    if found.pad is not None:
        raise UnsupportedLayer(f"{node}: is padded by a Pad: use its own pads")
    if len(node.outputs) > 1 and node.outputs[1]:
        raise UnsupportedLayer(f"{node}: its indices cannot be used")
    value = joining.maximum(
        self.builder, x.value, slide.kernel, slide.near, slide.padding, str(node)
    )
    return [self.fresh(thinned(self, value, slide), x, last=last, turned=turned)]


@operator("MaxPool", text="")
def _(self: Lowering, node: Node) -> Sequence[Placed | Codes]:
    return largest_of(self, node, last=False)


@operator("MaxPool", domain=CHANNELS_LAST, text="")
@operator("MaxPoolNHWC", domain=QONNX, text="")
def _(self: Lowering, node: Node) -> Sequence[Placed | Codes]:
    return largest_of(self, node, last=True)


@operator("AveragePool", text="padding counted, or none")
def _(self: Lowering, node: Node) -> Sequence[Placed | Codes]:
    found = self.placed(node, padded=True)
    x, turned = self.oriented(found, node)
    slide = slide_of(node, x, found.pad, turned)
    uncounted = any(slide.own) and not flag(node, "count_include_pad")
    if uncounted or not slide.whole or check_pad(node, slide.own, found.pad):
        raise UnsupportedLayer(
            f"{node}: divides by fewer pixels at the border, or pads with other than 0: use "
            "count_include_pad 1, or no padding and no ceil_mode"
        )
    value = joining.average(
        self.builder, x.value, slide.kernel, slide.near, str(node), slide.padding
    )
    return [self.fresh(thinned(self, value, slide), x, turned=turned)]


@operator("GlobalAveragePool", text="")
def _(self: Lowering, node: Node) -> Sequence[Placed | Codes]:
    x, _ = self.oriented(self.placed(node), node)
    value = joining.average(self.builder, x.value, None, None, str(node))
    return [self.fresh(value, x)]


@operator("GlobalMaxPool", text="")
def _(self: Lowering, node: Node) -> Sequence[Placed | Codes]:
    x, _ = self.oriented(self.placed(node), node)
    kernel = x.value.tensor.shape[0], x.value.tensor.shape[1]
    value = joining.maximum(self.builder, x.value, kernel, kernel, (0, 0, 0, 0), str(node))
    return [self.fresh(value, x)]


@operator("ReduceMean", text="over rows and columns")
def _(self: Lowering, node: Node) -> Sequence[Placed | Codes]:
    x, _ = self.oriented(self.placed(node), node)
    if "axes" in node.attributes:
        axes = integers(node, "axes")
    else:
        axes = self.integers(node, 1, "axes") if self.given(node, 1) else ()
    rank = x.index.ndim + 1
    if sorted(axis + rank if axis < 0 else axis for axis in axes) != list(range(2, rank)):
        raise UnsupportedLayer(
            f"{node}: must be over rows and columns, not axes {tuple(axes)}: use GlobalAveragePool"
        )
    value = joining.average(self.builder, x.value, None, None, str(node))
    found = self.fresh(value, x)
    return [found.moved(found.index.reshape(self.shape_of(node)))]


@operator("QuantAvgPool2d", domain=QONNX, text="of integers")
def _(self: Lowering, node: Node) -> Sequence[Placed | Codes]:
    last = text(node, "data_layout", "NCHW", ("NCHW", "NHWC")) == "NHWC"
    x = self.image(self.placed(node), node, last=last)
    k, s = integer(node, "kernel"), integer(node, "stride")
    bits = ((2 ** integer(node, "ibits", 1, 1, NUMBER_BITS) - 1) * k * k).bit_length()
    shift = max(0, bits - integer(node, "obits", 1, 1, NUMBER_BITS))
    slide = Slide((k, k), (s, s), (0, 0, 0, 0), (0, 0, 0, 0), whole=True)
    value = joining.average(self.builder, x.value, slide.kernel, slide.near, str(node))
    value = thinned(self, value, slide).moved([Fraction(k * k)], [ZERO])
    if any(norm.gain != 1 or norm.bias != norm.mean for norm in value.norms):
        raise UnsupportedLayer(f"{node}: its input must be integers: remove the scale before it")
    return [self.fresh(floored(self, node, value, shift), x, last=last)]


def floored(self: Lowering, node: Node, value: Value, shift: int) -> Value:
    """Drop the lowest bits."""
    low, high = int(value.low.min()) >> shift, int(value.high.max()) >> shift
    grid = rounding_grid(
        low, high, scales=[Fraction(1 << shift)], zeros=[ZERO], rounding="floor", unit=True
    )
    return self.builder.quantised(value, grid, str(node))

"""Operators of TensorFlow Lite that compute: products, sums, poolings, and functions of a code."""

from collections.abc import Callable
from dataclasses import replace
from math import isfinite, prod

import numpy as np
from numpy.typing import NDArray

from brambling.errors import FileProblem
from brambling.layers.product import Product
from brambling.network import Conv, Dense, Flatten, Pool
from brambling.quant.formats import Fixed
from brambling.quant.interchange.tflite_arithmetic import (
    Multiplier,
    Ratio,
    averaged,
    mean_multiplier,
    rounded_away,
    single,
)
from brambling.quant.interchange.tflite_lowering import (
    FORMATS,
    Affine,
    Function,
    Lowering,
    Padding,
    Value,
    unsupported,
)
from brambling.quant.interchange.tflite_reader import MOST_CHANNELS, MOST_ROWS, Operator

__all__ = ["COMPUTE", "flat", "unscaled"]

SAME, VALID = 0, 1
NONE = 0  #: No fused activation.
SHUFFLED = 1  #: Weights of a dense layer in the order of a certain processor.


# Products -----------------------------------------------------------------------------------------


def same_padding(
    size: tuple[int, int], span: tuple[int, int], stride: tuple[int, int]
) -> tuple[int, int, int, int]:
    """Rows above and below, columns left and right, that make as many windows as strides."""
    sides = []
    for n, reach, step in zip(size, span, stride, strict=True):
        total = max((-(-n // step) - 1) * step + reach - n, 0)
        sides += [total // 2, total - total // 2]
    top, bottom, left, right = sides
    return top, bottom, left, right


def padding_of(
    op: Operator, x: Value, span: tuple[int, int], stride: tuple[int, int], value: int | None
) -> Padding:
    """All padding in front of a window: that of the operator, and what a PAD left to it.

    ``value`` is the code that the operator itself pads with, ``None`` where its padding takes no
    part.
    """
    before = x.padding or Padding((0, 0, 0, 0), 0 if value is None else value)
    if len(x.tensor.shape) != 3:
        raise unsupported(op, "input", x.tensor, "use images (batch, height, width, channels)")
    height, width, _ = x.tensor.shape
    top, bottom, left, right = before.sides
    own = (0, 0, 0, 0)
    if op.options["padding"] not in {SAME, VALID}:
        raise unsupported(op, "padding", op.options["padding"], "use SAME or VALID")
    if op.options["padding"] == SAME:
        own = same_padding((height + top + bottom, width + left + right), span, stride)
    if any(own) and before and before.value != value:
        raise unsupported(
            op, "padding", f"SAME around pixels of {before.value}", "use VALID behind a PAD"
        )
    if any(own) and not before:
        before = Padding(before.sides, 0 if value is None else value)
    sides = top + own[0], bottom + own[1], left + own[2], right + own[3]
    return Padding(sides, before.value)


def window(op: Operator) -> tuple[tuple[int, int], tuple[int, int]]:
    """Stride and dilation; refuse what is not positive."""
    pairs = []
    for keys in (("stride_h", "stride_w"), ("dilation_h_factor", "dilation_w_factor")):
        pair = tuple(op.options.get(key, 1) for key in keys)
        if min(pair) < 1:
            raise unsupported(op, keys[0].split("_")[0], pair, "use numbers from 1")
        pairs.append(pair)
    return pairs[0], pairs[1]


def weights_of(net: Lowering, op: Operator, dimensions: int) -> tuple[NDArray[np.int64], Fixed]:
    """Weights without their zero point, and the narrowest format of them."""
    info = net.info(op, 1)
    weights, found = net.constant(op, 1), info.quantisation
    if info.dtype not in FORMATS or found is None:
        raise unsupported(op, "weights", info.dtype.lower(), "quantise them to int8 with a scale")
    if weights.ndim != dimensions or not weights.size:
        raise FileProblem(
            f"{net.model.path}: {op}: weights must have {dimensions} dimensions that are not "
            f"empty, not {weights.shape}"
        )
    zeros = found.zero_points
    if zeros.any() and (info.dtype == "INT8" or len(zeros) > 1):
        raise unsupported(op, "weights' zero point", int(zeros[zeros != 0][0]), "use 0")
    if not FORMATS[info.dtype].holds(zeros):
        raise FileProblem(f"{net.model.path}: {info}: zero point must be a code, not {zeros[0]}")
    codes = weights.astype(np.int64) - int(zeros[0])
    return codes, Fixed.spanning(min(int(codes.min()), -1), int(codes.max()))


def factors(net: Lowering, op: Operator, x: Value, outputs: int) -> Multiplier | Ratio:
    """Real factors of a product's sums, as its kernel holds them.

    Scales are multiplied in double precision, but in single precision for convolutions of unsigned
    codes, whose kernels are older.
    """
    info, affine = net.info(op, 1), net.result(op)
    assert info.quantisation is not None
    scales = info.quantisation.scales
    if len(scales) not in {1, outputs}:
        raise unsupported(op, "scales of the weights", len(scales), f"use 1 or {outputs}")
    if affine.dtype != x.affine.dtype or info.dtype != x.affine.dtype.upper():
        kinds = f"{info.dtype.lower()} for {x.affine.dtype} to {affine.dtype}"
        raise unsupported(op, "weights", kinds, "use int8 throughout")
    products = x.affine.scale * scales.astype(np.float64)
    if op.kind == "FULLY_CONNECTED":
        return Ratio(products / affine.scale)
    if x.affine.dtype == "uint8":
        products = np.array([single(x.affine.scale, scale, by=1) for scale in scales])
    return Multiplier.of((products / affine.scale).tolist())


def bias_of(net: Lowering, op: Operator, outputs: int) -> NDArray[np.int64]:
    """Return the bias, zeros where there is none."""
    if len(op.inputs) < 3 or op.inputs[2] < 0:
        return np.zeros(outputs, np.int64)
    bias = net.constant(op, 2)
    if net.info(op, 2).dtype != "INT32":
        raise unsupported(op, "bias", net.info(op, 2).dtype.lower(), "use int32")
    if bias.size != outputs:
        raise FileProblem(f"{net.model.path}: {op}: bias must have {outputs} elements, "
                          f"not {bias.size}")  # fmt: skip
    return bias.reshape(-1).astype(np.int64)


def product(net: Lowering, op: Operator, layer: Product, x: Value) -> str:
    """Add a product and its activation; the offset of the input is a constant of each output."""
    outputs = len(layer.weights)
    net.rows += outputs
    if outputs > MOST_CHANNELS or net.rows > MOST_ROWS:
        remedy = f"use at most {MOST_CHANNELS:,} in a layer and {MOST_ROWS:,} in all"
        raise unsupported(op, "outputs", f"{outputs:,} of {net.rows:,} so far", remedy)
    factor, affine = factors(net, op, x, outputs), net.result(op)
    offset = bias_of(net, op, outputs) - x.affine.zero_point * layer.matrix.sum(
        axis=1, dtype=np.int64
    )
    edge = net.add(layer)
    low, high = layer.bounds(x.tensor)
    net.in_sums(op, factor, low + offset, high + offset)
    offset = offset[:, np.newaxis]

    def function(sums: NDArray[np.int64]) -> NDArray[np.int64]:
        return factor.apply(sums + offset) + affine.zero_point

    activation = op.options["fused_activation_function"]
    slopes = np.broadcast_to(factor.reals, outputs)
    return net.activated(op, edge, (low, high), function, slopes, activation)


def convolution(net: Lowering, op: Operator) -> None:
    """CONV_2D and DEPTHWISE_CONV_2D; the second is one of as many groups as channels."""
    x = net.value(op, padded=True)
    weights, fmt = weights_of(net, op, 4)
    if len(x.tensor.shape) != 3:
        raise unsupported(op, "input", x.tensor, "use images (batch, height, width, channels)")
    channels, groups = x.tensor.shape[2], 1
    if op.kind == "DEPTHWISE_CONV_2D":
        if weights.shape[0] != 1 or weights.shape[3] % channels:
            raise FileProblem(
                f"{net.model.path}: {op}: weights of {channels} channels cannot be {weights.shape}"
            )
        weights, groups = weights.transpose(3, 1, 2, 0), channels
    elif channels % weights.shape[3] == 0:
        groups = channels // weights.shape[3]
    stride, dilation = window(op)
    span = tuple((n - 1) * d + 1 for n, d in zip(weights.shape[1:3], dilation, strict=True))
    padding = padding_of(op, x, (span[0], span[1]), stride, x.affine.zero_point)
    layer = Conv(
        name=net.name("conv"),
        inputs=(x.edge,),
        weights=weights,
        fmt=fmt,
        stride=stride,
        padding=padding.sides,
        pad_value=padding.value if padding else 0,
        dilation=dilation,
        groups=groups,
    )
    net.finish(op, product(net, op, layer, x))


def dense(net: Lowering, op: Operator) -> None:
    """FULLY_CONNECTED of a vector, or of each pixel where dimensions are kept."""
    x = net.value(op)
    weights, fmt = weights_of(net, op, 2)
    if op.options["weights_format"] == SHUFFLED:
        raise unsupported(op, "weights_format", "SHUFFLED4x16INT8", "use the default")
    pixels = len(x.tensor.shape) == 3 and prod(x.tensor.shape[:2]) > 1
    if pixels and op.options["keep_num_dims"]:
        point = weights[:, np.newaxis, np.newaxis, :]
        layer: Product = Conv(name=net.name("conv"), inputs=(x.edge,), weights=point, fmt=fmt)
    else:
        edge = flat(net, x.edge)
        layer = Dense(name=net.name("fc"), inputs=(edge,), weights=weights, fmt=fmt)
        x = replace(x, edge=edge, tensor=net.tensors[edge])
    net.finish(op, product(net, op, layer, x))


def flat(net: Lowering, edge: str) -> str:
    """Make an image a vector; a vector stays what it is."""
    if len(net.tensors[edge].shape) == 1:
        return edge
    return net.add(Flatten(name=net.name("flatten"), inputs=(edge,)))


# Pooling ------------------------------------------------------------------------------------------


def unscaled(net: Lowering, op: Operator, x: Affine) -> None:
    """Refuse a result of another scale than its input, where the kernel does not rescale."""
    result = net.result(op)
    if (result.scale, result.zero_point) != (x.scale, x.zero_point):
        raise unsupported(
            op,
            "scale",
            f"{result.scale:g} and {result.zero_point} for an input of {x.scale:g} and "
            f"{x.zero_point}",
            "quantise both alike",
        )


def kernel_of(op: Operator) -> tuple[int, int]:
    kernel = op.options["filter_height"], op.options["filter_width"]
    if min(kernel) < 1:
        raise unsupported(op, "filter", kernel, "use numbers from 1")
    return kernel


def maximum(net: Lowering, op: Operator) -> None:
    """MAX_POOL_2D; pixels around the image must not be larger than a code can be."""
    x = net.value(op, padded=True)
    unscaled(net, op, x.affine)
    stride, _ = window(op)
    padding = padding_of(op, x, kernel_of(op), stride, None)
    if x.padding and x.padding.value != x.affine.fmt.min:
        raise unsupported(
            op, "input", f"padded with {x.padding.value}", f"pad with {x.affine.fmt.min}, or SAME"
        )
    name = net.name("pool")
    layer = Pool(
        name=name,
        inputs=(x.edge,),
        kind="max",
        kernel=kernel_of(op),
        stride=stride,
        padding=padding.sides,
    )
    pooled = replace(x, edge=net.add(layer), tensor=net.tensors[name], padding=None)
    clamped = net.coded(
        op, pooled, lambda codes: codes, np.ones(1), op.options["fused_activation_function"]
    )
    net.finish(op, clamped)


def average(net: Lowering, op: Operator) -> None:
    """AVERAGE_POOL_2D: codes are summed and divided, whatever they stand for."""
    x = net.value(op, padded=True)
    unscaled(net, op, x.affine)
    stride, _ = window(op)
    kernel = kernel_of(op)
    if any(padding_of(op, replace(x, padding=None), kernel, stride, None).sides) or x.padding:
        raise unsupported(
            op, "padding", "around the image", "use VALID, whose windows have as many pixels"
        )
    taps = prod(kernel)
    layer = Pool(name=net.name("pool"), inputs=(x.edge,), kind="sum", kernel=kernel, stride=stride)
    activation = op.options["fused_activation_function"]
    edge = summed(net, op, x, layer, taps, lambda sums: averaged(sums, taps), 1 / taps, activation)
    net.finish(op, edge)


def mean(net: Lowering, op: Operator) -> None:
    """MEAN over all pixels."""
    x = net.value(op)
    rank = len(net.info(op, 0).shape)
    axes = {axis % rank for axis in net.integers(op, 1)} if rank else set()
    if len(x.tensor.shape) != 3 or axes != set(range(1, rank - 1)):
        raise unsupported(op, "axes", sorted(axes), "average over height and width")
    result, taps = net.result(op), prod(x.tensor.shape[:2])
    factor = mean_multiplier(x.affine.scale / result.scale, taps)
    least = taps * (x.affine.fmt.min - x.affine.zero_point)
    most = taps * (x.affine.fmt.max - x.affine.zero_point)
    net.in_sums(op, factor, np.array([least]), np.array([most]))
    layer = Pool(name=net.name("pool"), inputs=(x.edge,), kind="sum")
    edge = summed(
        net, op, x, layer, taps,
        lambda sums: factor.apply(sums - taps * x.affine.zero_point) + result.zero_point,
        float(factor.reals[0]),
    )  # fmt: skip
    net.finish(op, edge if op.options["keep_dims"] else flat(net, edge))


def summed(
    net: Lowering,
    op: Operator,
    x: Value,
    layer: Pool,
    taps: int,
    function: Function,
    slope: float,
    activation: int = NONE,
) -> str:
    """Add a sum over windows and what divides it."""
    edge = net.add(layer)
    bounds = (np.array([taps * x.affine.fmt.min]), np.array([taps * x.affine.fmt.max]))
    net.in_sums(op, Multiplier.of([slope]), *bounds)
    return net.activated(op, edge, bounds, function, np.array([slope]), activation)


# Functions of a code ------------------------------------------------------------------------------


def rescaling(x: Affine, result: Affine, factor: Multiplier) -> Function:
    """Codes of one scale as codes of another."""

    def function(codes: NDArray[np.int64]) -> NDArray[np.int64]:
        return factor.apply(codes - x.zero_point) + result.zero_point

    return function


def ends(x: Affine) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Smallest and largest code, without the zero point."""
    return np.array([x.fmt.min - x.zero_point]), np.array([x.fmt.max - x.zero_point])


def rescale(net: Lowering, op: Operator, x: Value, ratio: float, activation: int = NONE) -> None:
    """Add a change of scale."""
    factor = Multiplier.of([ratio])
    net.in_sums(op, factor, *ends(x.affine))
    function = rescaling(x.affine, net.result(op), factor)
    net.finish(op, net.coded(op, x, function, factor.reals, activation))


def quantise(net: Lowering, op: Operator) -> None:
    """QUANTIZE of codes: to another scale."""
    x = net.value(op)
    rescale(net, op, x, x.affine.scale / net.result(op).scale)


def rectify(net: Lowering, op: Operator) -> None:
    """RELU, RELU6 and RELU_N1_TO_1."""
    x = net.value(op)
    activation = {"RELU": 1, "RELU_N1_TO_1": 2, "RELU6": 3}[op.kind]
    rescale(net, op, x, single(x.affine.scale, by=net.result(op).scale), activation)


def leak(net: Lowering, op: Operator) -> None:
    """LEAKY_RELU: two factors, by the sign."""
    x, result = net.value(op), net.result(op)
    alpha = op.options["alpha"]
    if not isfinite(alpha) or alpha < 0:
        raise unsupported(op, "alpha", alpha, "use a number from 0")
    positive = Multiplier.of([single(x.affine.scale, by=result.scale)])
    negative = Multiplier.of([single(x.affine.scale, alpha, by=result.scale)])
    for factor in (positive, negative):
        net.in_sums(op, factor, *ends(x.affine))

    def function(codes: NDArray[np.int64]) -> NDArray[np.int64]:
        number = codes - x.affine.zero_point
        bent = np.where(number >= 0, positive.apply(number), negative.apply(number))
        return bent + result.zero_point

    net.finish(op, net.coded(op, x, function, positive.reals))


def curve(net: Lowering, op: Operator) -> None:
    """LOGISTIC and TANH: the table that the kernel makes in single precision."""
    x, result = net.value(op), net.result(op)
    real: Callable[[NDArray[np.float32]], NDArray[np.float32]] = {
        "TANH": np.tanh,
        "LOGISTIC": lambda v: np.float32(1) / (np.float32(1) + np.exp(-v)),
    }[op.kind]
    inverse = single(1, by=result.scale)
    if not isfinite(inverse):
        raise unsupported(op, "scale", f"{result.scale:g}", "use a larger one")

    def function(codes: NDArray[np.int64]) -> NDArray[np.int64]:
        numbers = (codes - x.affine.zero_point).astype(np.float32)
        with np.errstate(all="ignore"):
            wanted = (real(np.float32(x.affine.scale) * numbers) * np.float32(inverse)).tolist()
        limit = 2.0**31
        rounded = [[rounded_away(max(-limit, min(n, limit))) for n in row] for row in wanted]
        return np.array(rounded) + result.zero_point

    net.finish(op, net.coded(op, x, function))


COMPUTE: dict[str, Callable[[Lowering, Operator], None]] = {
    "CONV_2D": convolution,
    "DEPTHWISE_CONV_2D": convolution,
    "FULLY_CONNECTED": dense,
    "MAX_POOL_2D": maximum,
    "AVERAGE_POOL_2D": average,
    "MEAN": mean,
    "QUANTIZE": quantise,
    "RELU": rectify,
    "RELU_N1_TO_1": rectify,
    "RELU6": rectify,
    "LEAKY_RELU": leak,
    "LOGISTIC": curve,
    "TANH": curve,
}

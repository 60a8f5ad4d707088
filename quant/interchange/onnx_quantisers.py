"""Operators that round: QONNX's quantisers, its thresholds, and ONNX's QuantizeLinear."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import inf

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from brambling.errors import ConfigError, UnsupportedLayer
from brambling.origin import rounded
from brambling.quant import joining
from brambling.quant.formats import Bipolar, Fixed
from brambling.quant.interchange.graph import QONNX, Node
from brambling.quant.interchange.onnx_attributes import (
    axis_of,
    flag,
    integer,
    real,
    refuse,
    text,
)
from brambling.quant.interchange.onnx_elements import each
from brambling.quant.interchange.onnx_lowering import Lowering, operator
from brambling.quant.interchange.placed import Codes, Placed, finite, fractions
from brambling.quant.lowering import Grid
from brambling.quant.norms import Norm, Reach, linear
from brambling.quant.rounding import QONNX as ROUNDINGS
from brambling.quant.rounding import reach_of
from brambling.quant.values import Value

ZERO, HALF = Fraction(0), Fraction(1, 2)
WIDEST = 16  #: Bits of activations that have an engine.
NUMBER_BITS = 32  #: Bits of constants: those of a bias.
#: Bits of the types that QuantizeLinear makes, and whether they are signed.
TYPES: dict[int, tuple[int, bool]] = {
    TensorProto.UINT8: (8, False),
    TensorProto.INT8: (8, True),
    TensorProto.UINT16: (16, False),
    TensorProto.INT16: (16, True),
    TensorProto.UINT4: (4, False),
    TensorProto.INT4: (4, True),
}


def quantised(self: Lowering, x: Placed, grid: Grid, node: Node) -> list[Placed]:
    """Round a tensor, and remember how, for what narrows the codes further."""
    if joining.is_folded(x.value):
        return [replace(x, value=joining.unfolded(self.builder, x.value, grid, str(node)))]
    value = self.builder.turned(x.value)
    made = self.builder.quantised(value, grid, str(node))
    self.rounded[made.edge] = value, grid
    return [replace(x, value=made)]


def rounding_grid(
    low: int,
    high: int,
    *,
    scales: Sequence[Fraction],
    zeros: Sequence[Fraction],
    rounding: str,
    unit: bool = False,
) -> Grid:
    """Codes ``round(value / scale + zero)``, clipped, that stand for ``(code - zero) * scale``.

    Parameters
    ----------
    unit
        Whether a code stands for itself instead.
    """
    count = max(len(scales), len(zeros))
    scales = list(scales) * (count // len(scales))
    zeros = list(zeros) * (count // len(zeros))
    norms = (
        [linear(Fraction(1))]
        if unit
        else [linear(scale, zero) for scale, zero in zip(scales, zeros, strict=True)]
    )
    fmt = Fixed.spanning(low, high)
    slopes = [1 / scale for scale in scales]
    if len(set(zeros)) == 1:
        return Grid(
            least=low, most=high, fmt=fmt, norms=norms, slopes=slopes, offset=zeros[0],
            rounding=rounding,
        )  # fmt: skip
    places = [
        [
            reach._replace(value=(reach.value - zero) * scale)
            for reach in (reach_of(code, rounding) for code in range(low + 1, high + 1))
        ]
        for scale, zero in zip(scales, zeros, strict=True)
    ]
    return Grid(least=low, most=high, fmt=fmt, norms=norms, slopes=slopes, places=places)


def sign_grid(
    scales: Sequence[Fraction], zeros: Sequence[Fraction], at: Sequence[Fraction]
) -> Grid:
    """+1 where the value is at least ``at``, else -1; they stand for ``(±1 - zero) * scale``."""
    count = max(len(scales), len(zeros))
    pairs = zip(
        list(scales) * (count // len(scales)), list(zeros) * (count // len(zeros)), strict=True
    )
    return Grid(
        least=-1,
        most=1,
        fmt=Bipolar(),
        norms=[linear(scale, zero) for scale, zero in pairs],
        slopes=[Fraction(1)],
        places=[[Reach(place)] for place in at],
    )


# Parameters ---------------------------------------------------------------------------------------


def positive(scales: Sequence[Fraction], node: Node) -> Sequence[Fraction]:
    """Refuse scales that are 0 or negative."""
    for scale in scales:
        if scale <= 0:
            raise ConfigError(f"{node}: scale must be above 0, not {float(scale):g}: train anew")
    return scales


def widths_of(self: Lowering, node: Node, place: int, most: int = WIDEST) -> NDArray[np.int64]:
    """Bit widths: whole numbers, of activations up to those that have an engine."""
    array = np.asarray(self.constant(node, place, "bit width"))
    for number in fractions(array, f"{node}: bit width"):
        if number.denominator != 1 or not 1 <= number <= most:
            raise ConfigError(
                f"{node}: bit width must be a whole number of 1 to {most}, not {float(number):g}: "
                "quantise with such a width"
            )
    return array.astype(np.int64)


def check_signs(widths: Sequence[int], signed: bool, node: Node) -> None:
    """Refuse one signed bit, which is executed as a sign, beside several."""
    if signed and 1 in widths and set(widths) != {1}:
        raise UnsupportedLayer(f"{node}: has 1 signed bit in some channels only: use 2")


def limits_of(bits: int, signed: bool, narrow: bool) -> tuple[int, int]:
    """Smallest and largest code, as QONNX has them."""
    if signed:
        return -(1 << bits - 1) + narrow, (1 << bits - 1) - 1
    return 0, (1 << bits) - 1 - narrow


def rounding_of(node: Node, default: str) -> str:
    mode = text(node, "rounding_mode", default).upper()
    if mode not in ROUNDINGS:
        refuse(node, "rounding_mode", f"one of {', '.join(ROUNDINGS)}", mode)
    return ROUNDINGS[mode]


# QONNX's quantisers -------------------------------------------------------------------------------


@operator("IntQuant", domain=QONNX, text="all roundings, narrow, signed, zero-point, per channel")
def _(self: Lowering, node: Node) -> Sequence[Placed | Codes]:
    constant = self.is_constant(node.inputs[0])
    # Biases are numbers only; what weights may have is known where they are used.
    bits = widths_of(self, node, 3, NUMBER_BITS if constant else WIDEST)
    signed, narrow = flag(node, "signed", True), flag(node, "narrow")
    rounding = rounding_of(node, "ROUND")
    if constant:
        return [int_weights(self, node, bits, signed, narrow, rounding)]
    x = self.element(node)
    scales = positive(each(self, node, 1, x, "scale"), node)
    zeros = each(self, node, 2, x, "zero-point")
    width = self.channels(bits, x, f"{node}: bit width").tolist()
    if signed and set(width) == {1}:
        # One bit is executed as a sign: x / scale + zero >= 0.
        count = max(len(scales), len(zeros))
        at = [-zeros[n % len(zeros)] * scales[n % len(scales)] for n in range(count)]
        return quantised(self, x, sign_grid(scales, zeros, at), node)
    ends = [limits_of(n, signed, narrow) for n in width]
    check_signs(width, signed, node)
    if len(set(ends)) == 1:
        low, high = ends[0]
        grid = rounding_grid(low, high, scales=scales, zeros=zeros, rounding=rounding)
    else:
        grid = ragged(ends, scales, zeros, rounding)
    return quantised(self, x, grid, node)


def ragged(
    ends: Sequence[tuple[int, int]],
    scales: Sequence[Fraction],
    zeros: Sequence[Fraction],
    rounding: str,
) -> Grid:
    """Codes whose limits differ from channel to channel."""
    low, high = min(end[0] for end in ends), max(end[1] for end in ends)
    count = len(ends)
    scales, zeros = (list(row) * (count // len(row)) for row in (scales, zeros))
    whole = rounding_grid(low, high, scales=scales, zeros=zeros, rounding=rounding)
    asked = whole.asked()
    places = []
    for channel, (least, most) in enumerate(ends):
        row = asked[channel % len(asked)]
        places.append([
            reach.always if code <= least else reach.never if code > most else reach
            for code, reach in zip(range(low + 1, high + 1), row, strict=True)
        ])
    return replace(whole, places=places, rounding=None)


def int_weights(
    self: Lowering, node: Node, bits: NDArray[np.int64], signed: bool, narrow: bool, rounding: str
) -> Codes:
    """Codes of constants, in float32 as QONNX computes them."""
    x = self.constant(node, 0, "input").astype(np.float32)
    scale, zero = (
        self.constant(node, place, what).astype(np.float32)
        for place, what in ((1, "scale"), (2, "zero-point"))
    )
    finite(x, f"{node}: weights")
    positive(fractions(scale, f"{node}: scale"), node)
    fractions(zero, f"{node}: zero-point")
    check_signs(bits.reshape(-1).tolist(), signed, node)
    with np.errstate(over="ignore"):  # What is infinite is clipped.
        y = x / scale + zero
    if signed and bits.size == 1 and bits.reshape(-1)[0] == 1:
        codes = np.where(y >= 0, np.float32(1), np.float32(-1))
    else:
        ends = np.array([limits_of(n, signed, narrow) for n in bits.reshape(-1).tolist()])
        low, high = (ends[:, n].reshape(bits.shape).astype(np.float32) for n in (0, 1))
        codes = rounded(np.minimum(np.maximum(y, low), high), rounding)
    return shifted_codes(node, codes, zero, scale)


def shifted_codes(node: Node, codes: NDArray, zero: NDArray, scale: NDArray) -> Codes:
    """Codes less a zero-point, which must be whole."""
    moved = codes.astype(np.float64) - zero
    if (moved != np.rint(moved)).any():
        raise UnsupportedLayer(f"{node}: zero-point of weights must be a whole number: use 0")
    if (np.abs(moved) > 1 << NUMBER_BITS).any():
        raise UnsupportedLayer(f"{node}: zero-point of weights must be one of their codes: use 0")
    shape = [1] * (codes.ndim - np.ndim(scale)) + list(np.shape(scale))
    array = np.empty(np.size(scale), dtype=object)
    array[:] = fractions(scale, f"{node}: scale")
    return Codes(moved.astype(np.int64), array.reshape(shape))


@operator("BipolarQuant", domain=QONNX, text="0 becomes +1")
def _(self: Lowering, node: Node) -> Sequence[Placed | Codes]:
    if self.is_constant(node.inputs[0]):
        x = self.constant(node, 0, "input")
        finite(x, f"{node}: weights")
        scale = self.constant(node, 1, "scale")
        return [shifted_codes(node, np.where(x >= 0, 1, -1), np.zeros(()), scale)]
    x = self.element(node)
    scales = each(self, node, 1, x, "scale")
    if not all(scales):
        raise ConfigError(f"{node}: scale must not be 0: train anew")
    return quantised(self, x, sign_grid(scales, [ZERO], [ZERO]), node)


@operator("Trunc", domain=QONNX, text="versions 1 and 2")
def _(self: Lowering, node: Node) -> Sequence[Placed | Codes]:
    x = self.element(node)
    second = node.version >= 2
    scales = positive(each(self, node, 1, x, "scale"), node)
    zeros = each(self, node, 2, x, "zero-point")
    rounding = rounding_of(node, "FLOOR")
    given, wanted = (
        int(widths_of(self, node, place).reshape(-1)[0]) for place in ((3, 5) if second else (3, 4))
    )
    results = positive(each(self, node, 4, x, "output scale"), node) if second else scales
    if max(map(len, (scales, zeros, results))) > 1:
        raise UnsupportedLayer(
            f"{node}: scales and zero-point must be one for all channels: use IntQuant"
        )
    (scale,), (zero,), (result,) = scales, zeros, results
    if second:
        power = round(float(np.log2(float(result) / float(scale))))
        low, high = limits_of(wanted, flag(node, "signed", True), flag(node, "narrow"))
    else:
        power = given - wanted
        low, high = reached(x.value, scale, zero, power, node)
        if high - low > 1 << WIDEST + 1:
            raise UnsupportedLayer(
                f"{node}: results from {low:.3g} to {high:.3g} times its scale: give it that of "
                "its input"
            )
    factor = Fraction(2) ** power
    places = [truncated(code, rounding, factor) for code in range(low + 1, high + 1)]
    places = [reach._replace(value=(reach.value - zero) * scale) for reach in places]
    norm = linear(result, zero / factor if second else zero)
    grid = Grid(
        least=low,
        most=high,
        fmt=Fixed.spanning(low, high),
        norms=[norm],
        slopes=[1 / (scale * factor)],
        places=[places],
    )
    return quantised(self, x, grid, node)


def truncated(code: int, rounding: str, factor: Fraction) -> Reach:
    """Return what must be reached so that round(x), divided and rounded again, gives a code."""
    outer = reach_of(code, rounding)
    assert isinstance(outer.value, Fraction)
    place = outer.value * factor
    whole = place.numerator // place.denominator + (
        1 if outer.strict or place.denominator > 1 else 0
    )
    return reach_of(whole, "half_even")


def reached(x: Value, scale: Fraction, zero: Fraction, power: int, node: Node) -> tuple[int, int]:
    """Bounds of the codes that can occur."""
    if x.bends or any(norm.variance != 1 for norm in x.norms):
        raise UnsupportedLayer(f"{node}: its input must be quantised: put a quantiser before it")
    ends = []
    for row in (x.low, x.high):
        each_low = np.broadcast_to(row, max(len(row), len(x.norms))).tolist()
        for n, low in enumerate(each_low):
            norm = x.norms[n % len(x.norms)]
            real = norm.gain * (low - norm.mean) + norm.bias
            ends.append((real / scale + zero) / Fraction(2) ** power)
    low, high = int(min(ends) // 1) - 1, int(max(ends) // 1) + 2
    return low, max(high, low + 1)


@dataclass(frozen=True, slots=True)
class Steps:
    """Thresholds: rows in rising order for each channel or all, and what their counts stand for."""

    rows: tuple[tuple[float, ...], ...]
    norm: Norm
    bipolar: bool


def steps_of(self: Lowering, node: Node, x: Placed) -> Steps:
    """Read the thresholds of a node."""
    table = np.asarray(self.constant(node, 1, "thresholds"))
    layout = text(node, "data_layout", "") or {1: "NC", 2: "NWC"}.get(x.index.ndim, "NCHW")
    gain, bias = (real(node, key, default) for key, default in (("out_scale", 1), ("out_bias", 0)))
    if table.ndim != 2 or not table.size:
        raise ConfigError(
            f"{node}: thresholds must be of shape (channels, n), not {table.shape}: export it anew"
        )
    if np.isnan(table).any():  # Infinite ones are never, or always, reached.
        raise ConfigError(
            f"{node}: thresholds must be numbers, not nan: export a model whose training converged"
        )
    shape = [1] * (x.index.ndim + 1)
    shape[layout.index("C") if "C" in layout else 1] = -1
    columns = [
        self.channels(column.reshape(shape), x, f"{node}: thresholds").tolist()
        for column in np.sort(table, axis=1).T
    ]
    count = max(map(len, columns))
    rows = tuple(
        tuple(float(column[channel % len(column)]) for column in columns)
        for channel in range(count)
    )
    bipolar = len(columns) == 1 and 2 * bias == -gain and gain != 0
    return Steps(rows, linear(gain / 2) if bipolar else linear(gain, bias=bias), bipolar)


@operator("MultiThreshold", domain=QONNX, text="any scale and bias")
def _(self: Lowering, node: Node) -> Sequence[Placed | Codes]:
    x = self.element(node)
    steps = steps_of(self, node, x)
    places = [[reach_at(level) for level in row] for row in steps.rows]
    count = len(steps.rows[0])
    grid = Grid(
        least=-1 if steps.bipolar else 0,
        most=1 if steps.bipolar else count,
        fmt=Bipolar() if steps.bipolar else Fixed.spanning(0, count),
        norms=[steps.norm],
        slopes=[slope_of(places[0])],
        places=places,
    )
    return quantised(self, x, grid, node)


def reach_at(value: float) -> Reach:
    return Reach(value if value in {inf, -inf} else Fraction(value))


def slope_of(row: Sequence[Reach]) -> Fraction:
    """About how many thresholds there are for each 1 of the value; a hint."""
    finite = [reach.value for reach in row if isinstance(reach.value, Fraction)]
    if len(finite) < 2 or finite[0] == finite[-1]:
        return Fraction(1)
    return (len(finite) - 1) / (finite[-1] - finite[0])


# QuantizeLinear and DequantizeLinear --------------------------------------------------------------


def axis_shape(node: Node, rank: int, size: int) -> list[int]:
    """Shape of parameters along the axis that a node names."""
    if integer(node, "block_size", 0):
        raise UnsupportedLayer(f"{node}: has a scale for each block: use one for each channel")
    if size == 1:
        return [1] * rank
    shape = [1] * rank
    shape[axis_of(node, 1, rank)] = size
    return shape


def integers_of(self: Lowering, node: Node) -> tuple[int, int]:
    """Smallest and largest code of the type of the zero-point, or of the attribute."""
    if self.given(node, 2):
        kind = helper.np_dtype_to_tensor_dtype(self.constant(node, 2, "zero-point").dtype)
    else:
        kind = integer(node, "output_dtype", 2) or TensorProto.UINT8
    if kind not in TYPES:
        raise UnsupportedLayer(f"{node}: rounds to floats: use int8 or uint8")
    bits, signed = TYPES[kind]
    return limits_of(bits, signed, narrow=False)


@operator("QuantizeLinear", text="int8, uint8, int16, uint16; per tensor or axis")
def _(self: Lowering, node: Node) -> Sequence[Placed | Codes]:
    low, high = integers_of(self, node)
    scale = np.asarray(self.constant(node, 1, "scale"))
    zero = (
        np.asarray(self.constant(node, 2, "zero-point"))
        if self.given(node, 2)
        else np.zeros(scale.shape, np.int64)
    )
    positive(fractions(scale, f"{node}: scale"), node)
    if self.is_constant(node.inputs[0]):
        x = self.constant(node, 0, "input")
        finite(x, f"{node}: weights")
        shape = axis_shape(node, x.ndim, scale.size)
        with np.errstate(over="ignore"):  # What is infinite is clipped.
            y = np.rint(x / scale.reshape(shape)) + zero.astype(np.int64).reshape(shape)
        codes = np.clip(y, low, high).astype(np.int64)
        return [Codes(codes, np.full([1] * x.ndim, Fraction(1), object))]
    x = self.element(node)
    shape = axis_shape(node, x.index.ndim + 1, scale.size)
    scales = fractions(self.channels(scale.reshape(shape), x, f"{node}: scale"), f"{node}: scale")
    zeros = self.channels(
        zero.astype(np.int64).reshape(axis_shape(node, x.index.ndim + 1, zero.size)),
        x,
        f"{node}: zero-point",
    ).tolist()
    # The zero-point is added behind the rounding, which goes to even before.
    count = max(len(scales), len(zeros))
    even = all(zero % 2 == 0 for zero in zeros) and len(set(zeros)) == 1
    places = [] if even else [
        [
            reach._replace(value=reach.value * scales[n % len(scales)])
            for reach in (
                reach_of(code - zeros[n % len(zeros)], "half_even")
                for code in range(low + 1, high + 1)
            )
        ]
        for n in range(count)
    ]  # fmt: skip
    grid = Grid(
        least=low,
        most=high,
        fmt=Fixed.spanning(low, high),
        norms=[linear(Fraction(1))],
        slopes=[1 / scale for scale in scales],
        offset=Fraction(zeros[0]) if even else ZERO,
        rounding="half_even" if even else None,
        places=places,
    )
    return quantised(self, x, grid, node)


@operator("DequantizeLinear", text="per tensor or axis; of int32 too")
def _(self: Lowering, node: Node) -> Sequence[Placed | Codes]:
    name = node.inputs[0]
    scale = np.asarray(self.constant(node, 1, "scale"))
    zero = (
        np.asarray(self.constant(node, 2, "zero-point"))
        if self.given(node, 2)
        else np.zeros(scale.shape, np.int64)
    )
    positive(fractions(scale, f"{node}: scale"), node)
    if self.is_constant(name):
        found = self.tensors.get(name)
        codes = (
            found.codes if isinstance(found, Codes) else np.asarray(self.constant(node, 0, "input"))
        )
        shape = axis_shape(node, codes.ndim, scale.size)
        moved = codes.astype(np.int64) - zero.astype(np.int64).reshape(
            axis_shape(node, codes.ndim, zero.size)
        )
        array = np.empty(scale.size, dtype=object)
        array[:] = fractions(scale, f"{node}: scale")
        return [Codes(moved, array.reshape(shape))]
    x = self.element(node)
    shape = axis_shape(node, x.index.ndim + 1, scale.size)
    gains = fractions(self.channels(scale.reshape(shape), x, f"{node}: scale"), f"{node}: scale")
    zeros = fractions(
        self.channels(
            zero.astype(np.int64).reshape(axis_shape(node, x.index.ndim + 1, zero.size)),
            x,
            f"{node}: zero-point",
        ),
        f"{node}: zero-point",
    )
    count = max(len(gains), len(zeros))
    offsets = [-zeros[n % len(zeros)] * gains[n % len(gains)] for n in range(count)]
    return [replace(x, value=self.builder.moved(x.value, gains, offsets, str(node)))]

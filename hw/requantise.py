"""Requantisation: scale, round and saturate."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import zip_longest
from math import gcd

import numpy as np
from amaranth.hdl import Const, Module, Mux, Shape, Value
from numpy.typing import NDArray

from brambling.errors import ConfigError
from brambling.hw.beat import Beats
from brambling.hw.elementwise import Code, Elementwise, ElementwiseSpec, number, spanning
from brambling.hw.pipe import Pipe
from brambling.layers import Requantise, Tensor
from brambling.quant.formats import Format

__all__ = ["RequantiseSpec", "RequantiseUnit", "signed_digits"]

STYLES = ("dsp", "lut")
Range = tuple[int, int]  #: Smallest and largest value, both included.


def signed_digits(value: int) -> tuple[tuple[int, int], ...]:
    """Return the fewest ``(shift, sign)`` whose ``sign << shift`` add up to ``value``.

    The non-adjacent form (Reitwiesner, 1960).

    >>> from brambling.hw.requantise import signed_digits
    >>> signed_digits(7)
    ((0, -1), (3, 1))
    """
    digits = []
    shift = 0
    while value:
        if value & 1:
            sign = 2 - (value & 3)
            digits.append((shift, sign))
            value -= sign
        value >>= 1
        shift += 1
    return tuple(digits)


@dataclass(frozen=True, eq=False, kw_only=True)
class RequantiseSpec(ElementwiseSpec):
    """``clip(round(slope * (x * multiplier + bias) / 2**shift))``, with one rounding, exactly.

    Same meaning as :class:`brambling.layers.Requantise`, which also says what is allowed.

    Parameters
    ----------
    target
        Format of the result.
    multiplier, bias
        ``(channels,)``, or ``(1,)`` for all channels.
    shift, low, high, slope, rounding
        As in the layer.
    style
        Of the product with the multiplier: ``"dsp"``, or ``"lut"`` for shifts and additions. A
        multiplier of one power of two costs nothing, and slopes are always shifts and additions.
    """

    target: Format
    multiplier: NDArray[np.int64]
    bias: NDArray[np.int64]
    shift: int = 0
    low: int | None = None
    high: int | None = None
    slope: tuple[int, int] = (1, 1)
    rounding: str = "half_up"
    style: str = "dsp"

    def __post_init__(self) -> None:
        self._check_channels("multiplier", len(self.multiplier))
        self._check_channels("bias", len(self.bias))
        if self.style not in STYLES:
            raise ConfigError(f"style must be one of {', '.join(STYLES)}, not {self.style!r}")
        self.layer.output(Tensor((self.i.elements,), self.i.fmt))

    @cached_property
    def layer(self) -> Requantise:
        """The layer that this computes."""
        return Requantise(
            name="requantise",
            inputs=("input",),
            fmt=self.target,
            multiplier=self.multiplier,
            bias=self.bias,
            shift=self.shift,
            low=self.low,
            high=self.high,
            slope=self.slope,
            rounding=self.rounding,
        )

    @property
    def o(self) -> Beats:
        return replace(self.i, fmt=self.target)

    def reference(self, x: NDArray) -> NDArray[np.int64]:
        values = self.pixels_of(x) * self.multiplier.astype(np.int64) + self.bias.astype(np.int64)
        scaled = np.where(values < 0, self.slope[1], self.slope[0]) * values
        # Whole part and what is left of the quotient, as a fraction of 2**shift.
        whole, rest = scaled >> self.shift, scaled & ((1 << self.shift) - 1)
        half = (1 << self.shift) - 2 * rest  # 0: half way; less: above.
        up = {
            "floor": np.zeros(rest.shape, bool),
            "half_up": half <= 0,
            "half_even": (half < 0) | ((half == 0) & (whole % 2 == 1)),
            "half_away": (half < 0) | ((half == 0) & (whole >= 0)),
        }[self.rounding]
        return np.clip(whole + up, *self.layer.limits).reshape(len(x), -1)

    @cached_property
    def arithmetic(self) -> "Arithmetic":
        """What is left to compute."""
        return Arithmetic.of(self)

    @property
    def latency(self) -> int:
        rest = self.arithmetic
        edges = (
            1,  # The code, and the parameters of its channel.
            rest.product_edges(self.style),
            rest.has_bias,
            rest.slope_edges,
            rest.rounds,
            1,  # Saturated.
        )
        return sum(edges)

    def build(self) -> "RequantiseUnit":
        return RequantiseUnit(self)


@dataclass(frozen=True, eq=False, kw_only=True)
class Arithmetic:
    """A requantisation with everything constant drawn together.

    ``clip((slope * (x * multiplier + bias) + nudge) >> shift)``. Powers of two that all constants
    have in common are taken out, a slope for both signs is part of the multiplier, and what rounds
    half up is, where there is one slope, part of the bias.

    Parameters
    ----------
    x, limits
        Smallest and largest input, and result.
    nudges
        What is added before the shift, and what else where the ``rounding`` says so.
    rounding
        ``"half_even"``: the second nudge where the quotient is odd; ``"half_away"``: where the
        value is negative; ``""``: there is one nudge.
    """

    x: Range
    multiplier: NDArray[np.int64]
    bias: NDArray[np.int64]
    slope: tuple[int, int]
    shift: int
    nudges: tuple[int, int]
    rounding: str
    limits: Range

    @classmethod
    def of(cls, spec: RequantiseSpec) -> "Arithmetic":
        multiplier, bias = spec.multiplier.astype(np.int64), spec.bias.astype(np.int64)
        slope, shift = spec.slope, spec.shift
        if slope[0] == slope[1]:
            multiplier, bias, slope = multiplier * slope[0], bias * slope[0], (1, 1)
        common = gcd(*multiplier.tolist(), *bias.tolist())
        shared = min(shift, (common & -common).bit_length() - 1 if common else shift)
        multiplier, bias, shift = multiplier >> shared, bias >> shared, shift - shared
        common = gcd(*slope)
        shared = min(shift, (common & -common).bit_length() - 1 if common else shift)
        slope, shift = (slope[0] >> shared, slope[1] >> shared), shift - shared

        half = 1 << shift >> 1
        rounding = spec.rounding if half else "floor"
        nudges = {
            "floor": (0, 0),
            "half_up": (half, half),
            "half_even": (half - 1, half),
            "half_away": (half, half - 1),
        }[rounding]
        if nudges[0] == nudges[1]:
            rounding = ""
            if slope == (1, 1):
                bias, nudges = bias + nudges[0], (0, 0)
        return cls(
            x=(spec.i.fmt.min, spec.i.fmt.max),
            multiplier=alike(multiplier),
            bias=alike(bias),
            slope=slope,
            shift=shift,
            nudges=nudges,
            rounding=rounding,
            limits=spec.layer.limits,
        )

    # Ranges of what is computed on the way, over all channels ---------------------------------

    @cached_property
    def product(self) -> Range:
        ends = np.stack([self.multiplier * end for end in self.x])
        return int(ends.min()), int(ends.max())

    @cached_property
    def sum(self) -> Range:
        ends = np.stack([self.multiplier * end + self.bias for end in self.x])
        return int(ends.min()), int(ends.max())

    @cached_property
    def scaled(self) -> Range:
        low, high = self.sum
        ends = [self.slope[0] * n for n in {max(low, 0), high} if n >= 0]
        ends += [self.slope[1] * n for n in {low, min(high, -1)} if n < 0]
        return min(ends), max(ends)

    @cached_property
    def rounded(self) -> Range:
        low, high = self.scaled
        return (low + min(self.nudges)) >> self.shift, (high + max(self.nudges)) >> self.shift

    # Edges -------------------------------------------------------------------------------------

    @property
    def digits(self) -> tuple[tuple[int, int], ...] | None:
        """The multiplier of all channels as shifts and signs; ``None`` where they differ."""
        return signed_digits(int(self.multiplier[0])) if len(self.multiplier) == 1 else None

    @property
    def slope_digits(self) -> tuple[tuple[tuple[int, int], ...], ...]:
        """Slopes as shifts and signs: for what is not negative, and for what is."""
        return tuple(map(signed_digits, self.slope))

    @property
    def factor(self) -> Shape:
        """Shape of the multipliers."""
        return spanning(int(self.multiplier.min()), int(self.multiplier.max()))

    def product_edges(self, style: str) -> int:
        if self.digits is not None and len(self.digits) < 2:
            return 0
        if style == "dsp":
            return 1
        return levels(self.factor.width if self.digits is None else len(self.digits))

    @property
    def has_bias(self) -> bool:
        return bool(self.bias.any())

    @property
    def slope_edges(self) -> int:
        return levels(max(map(len, self.slope_digits)))

    @property
    def rounds(self) -> bool:
        """Whether anything is still to be added before the shift."""
        return any(self.nudges)


def alike(array: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return one element where all are equal."""
    return array[:1] if (array == array[0]).all() else array


def levels(terms: int) -> int:
    """Return the levels of a tree that adds ``terms`` in pairs."""
    return max(terms - 1, 0).bit_length()


class RequantiseUnit(Elementwise[RequantiseSpec]):
    """Streaming form of :class:`RequantiseSpec`: one beat a cycle.

    Members
    -------
    i : ``In(spec.i.signature)``
    o : ``Out(spec.o.signature)``
    """

    def parameters(self, lane: int) -> tuple[list[int], int]:
        """Multiplier, and above it the bias, of those that differ between channels."""
        words, width = np.zeros(1, object), 0
        for array, shape in self._fields():
            bits = self.spec.of_lane(array, lane) & ((1 << shape.width) - 1)
            words, width = words + (bits.astype(object) << width), width + shape.width
        return words.tolist(), max(1, width)

    def _fields(self) -> list[tuple[NDArray[np.int64], Shape]]:
        rest = self.spec.arithmetic
        arrays = [array for array in (rest.multiplier, rest.bias) if len(array) > 1]
        return [(array, spanning(int(array.min()), int(array.max()))) for array in arrays]

    def compute(self, m: Module, pipe: Pipe, code: Code) -> Value:
        rest = self.spec.arithmetic
        fields = []
        start = 0
        for _, shape in self._fields():
            bits = code.parameters[start : start + shape.width]
            fields.append(bits.as_signed() if shape.signed else bits)
            start += shape.width
        factor = fields.pop(0) if len(rest.multiplier) > 1 else None

        (x,) = pipe.stage(x=number(self.spec.i.fmt, code.bits))
        value, fields = self._product(pipe, x, factor, fields)
        if rest.has_bias:
            bias = fields[0] if fields else int(rest.bias[0])
            (value,) = pipe.stage(sum=fitted(value + bias, rest.sum))
        if rest.slope != (1, 1):
            positive, negative = (scaled(value, digits) for digits in rest.slope_digits)
            below = value < 0
            terms = [
                Mux(below, b, a) for a, b in zip_longest(positive, negative, fillvalue=Const(0))
            ]
            value, _ = added(pipe, terms, rest.scaled)
        if rest.rounds:
            nudge = Const(rest.nudges[0])
            if rest.rounding:
                odd = above(value, rest.shift)[0]
                other = odd if rest.rounding == "half_even" else value < 0
                nudge = Mux(other, rest.nudges[1], rest.nudges[0])
            (value,) = pipe.stage(nudged=value + nudge)
        quotient = fitted(above(value, rest.shift), rest.rounded)
        result = saturated(quotient, rest.rounded, rest.limits)
        return pipe.stage(code=cut(result, self.spec.target.width))[0]

    def _product(
        self, pipe: Pipe, x: Value, factor: Value | None, carried: Sequence[Value]
    ) -> tuple[Value, Sequence[Value]]:
        """Return ``x`` times the multiplier; and, as late as that, what is ``carried`` along."""
        rest = self.spec.arithmetic
        if self.spec.style == "dsp" and rest.product_edges("dsp"):
            product = x * (int(rest.multiplier[0]) if factor is None else factor)
            product, *carried = pipe.stage(product=fitted(product, rest.product), **named(carried))
            return product, carried
        if factor is None:
            return added(pipe, scaled(x, rest.digits or ()), rest.product, carried)
        terms: list[Value] = [Mux(bit, x.shift_left(n), 0) for n, bit in enumerate(factor)]
        if rest.factor.signed:  # Its highest bit counts negative.
            terms[-1] = -terms[-1]
        return added(pipe, terms, rest.product, carried)


def scaled(value: Value, digits: tuple[tuple[int, int], ...]) -> list[Value]:
    """Terms that add up to a multiple of ``value``."""
    shifted = [(value.shift_left(shift), sign) for shift, sign in digits]
    return [term if sign > 0 else -term for term, sign in shifted]


def added(
    pipe: Pipe, terms: Sequence[Value], within: Range, carried: Sequence[Value] = ()
) -> tuple[Value, Sequence[Value]]:
    """Return the sum of ``terms``, one edge a level; and, as late as that, what is ``carried``.

    Sums on the way may wrap: no more bits than the last one has matter.
    """
    width = spanning(*within).width
    while len(terms) > 1:
        pairs = [terms[n : n + 2] for n in range(0, len(terms), 2)]
        sums = {f"sum{n}": cut(sum(pair[1:], pair[0]), width) for n, pair in enumerate(pairs)}
        stage = pipe.stage(**sums, **named(carried))
        terms, carried = stage[: len(sums)], stage[len(sums) :]
    return fitted(terms[0] if terms else Const(0, 1), within), carried


def named(values: Sequence[Value]) -> dict[str, Value]:
    return {f"carried{n}": value for n, value in enumerate(values)}


def cut(value: Value, width: int) -> Value:
    """Return the lowest ``width`` bits, as a signed number where it was one."""
    if len(value) <= width:
        return value
    bits = value[:width]
    return bits.as_signed() if value.shape().signed else bits


def fitted(value: Value, within: Range) -> Value:
    """``value``, known to lie in a range, in no more bits than the range needs."""
    shape = spanning(*within)
    if len(value) < shape.width:
        return value
    bits = value[: shape.width]
    return bits.as_signed() if shape.signed else bits


def above(value: Value, shift: int) -> Value:
    """Whole part of ``value / 2**shift``; at least one bit."""
    if shift < len(value):
        return value.shift_right(shift)
    return value[-1:].as_signed() if value.shape().signed else Const(0, 1)


def saturated(value: Value, within: Range, limits: Range) -> Value:
    """``value``, which lies in a range, or the limit that it is beyond."""
    low, high = limits
    result = value
    if within[1] > high:
        result = Mux(exceeds(value, high), high, result)
    if within[0] < low:
        # -1 - x is ~x, but not without a sign.
        below = exceeds(~value, -1 - low) if low < 0 else value < low
        result = Mux(below, low, result)
    return result


def exceeds(value: Value, high: int) -> Value:
    """Whether ``value > high``; cheap where ``high`` is 2**n - 1: a higher bit is set."""
    if high < 0 or high & high + 1:
        return value > high
    if not value.shape().signed:
        return value[high.bit_length() :].any()
    return value[high.bit_length() : -1].any() & ~value[-1]

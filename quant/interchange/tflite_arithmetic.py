"""The integer arithmetic of TensorFlow Lite's reference kernels, element for element.

A kernel computes with 32-bit sums; a real factor is a 31-bit multiplier and a power of two, and is
applied in two steps that each round (:meth:`Multiplier.apply`); only that of a dense layer is a
number in double precision and rounds once (:class:`Ratio`). Every kernel here is a function of
one integer for each channel that never falls where the integer rises, or never rises, so it is
given by the integers at which its result steps: :func:`steps_of` finds them by bisection, exactly.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import frexp, isfinite

import numpy as np
from numpy.typing import NDArray

from brambling.errors import ConfigError
from brambling.network import Tensor
from brambling.quant.formats import Format
from brambling.quant.forms import Steps

__all__ = [
    "LEFT_SHIFT",
    "Multiplier",
    "Ratio",
    "activation_range",
    "averaged",
    "mean_multiplier",
    "rounded_away",
    "single",
    "steps_of",
]

LEFT_SHIFT = 20  #: Fractional bits of the terms of a sum.
MOST = 1 << 31  #: Ratios of scales are below.
HALF = np.int64(1) << 30
#: Smallest and largest real value that a fused activation lets through.
CLAMPS = {1: (0.0, None), 2: (-1.0, 1.0), 3: (0.0, 6.0)}
Function = Callable[[NDArray[np.int64]], NDArray[np.int64]]


def rounded_away(number: float) -> int:
    """Round to the nearest integer, halves away from zero."""
    whole = int(number)
    return whole + (0 if abs(number - whole) < 0.5 else 1 if number > 0 else -1)


def single(*factors: float, by: float) -> float:
    """Multiply and divide in single precision, as most kernels combine scales."""
    with np.errstate(all="ignore"):
        product = np.float32(factors[0])
        for factor in factors[1:]:
            product *= np.float32(factor)
        return float(product / np.float32(by))


def fixed(real: float) -> tuple[int, int]:
    """Round to a 31-bit multiplier and an exponent: ``multiplier * 2**(exponent - 31)``."""
    if not isfinite(real) or real >= MOST:
        raise ConfigError(f"a ratio of scales must be below 2**31, not {real:g}: scale alike")
    fraction, exponent = frexp(real)
    multiplier = rounded_away(fraction * (1 << 31))
    if multiplier == 1 << 31:
        multiplier, exponent = multiplier >> 1, exponent + 1
    return (0, 0) if exponent < -31 else (multiplier, exponent)


@dataclass(frozen=True, eq=False, slots=True)
class Multiplier:
    """Real factors as the kernels hold them, one for each channel or one for all alike.

    Parameters
    ----------
    numbers
        Multipliers of at most 31 bits, int64 ``(channels,)`` or ``(1,)``.
    exponents
        Powers of two, from -31.
    """

    numbers: NDArray[np.int64]
    exponents: NDArray[np.int64]

    @classmethod
    def of(cls, reals: Sequence[float]) -> "Multiplier":
        """Round real factors."""
        numbers, exponents = zip(*map(fixed, reals), strict=True)
        return cls(np.array(numbers, np.int64), np.array(exponents, np.int64))

    @property
    def reals(self) -> NDArray[np.float64]:
        """About the factors."""
        return self.numbers * 2.0 ** (self.exponents - 31)

    @property
    def left(self) -> NDArray[np.int64]:
        """Bits by which an integer moves to the left before it is multiplied."""
        return np.maximum(self.exponents, 0)

    def fits(self, low: NDArray[np.int64], high: NDArray[np.int64]) -> bool:
        """Whether the kernels' 32-bit integers hold these and what is made of them."""
        most = MOST - 1 >> self.left
        return bool((high <= most).all() and (low >= ~most).all())

    def apply(self, x: NDArray[np.int64]) -> NDArray[np.int64]:
        """Multiply ``(channels, n)``: nearest, halves up; then nearest, halves away from zero.

        These are ``SaturatingRoundingDoublingHighMul`` and ``RoundingDivideByPOT`` of gemmlowp.
        """
        numbers, left = self.numbers[:, np.newaxis], self.left[:, np.newaxis]
        right = np.maximum(-self.exponents, 0)[:, np.newaxis]
        high = ((x << left) * numbers + HALF) >> 31
        half = (np.int64(1) << right) >> 1
        return (high + half - ((high < 0) & (right > 0))) >> right


@dataclass(frozen=True, eq=False, slots=True)
class Ratio:
    """Real factors of dense layers, in double precision, ``(channels,)`` or ``(1,)``."""

    reals: NDArray[np.float64]

    def fits(self, low: NDArray[np.int64], high: NDArray[np.int64]) -> bool:
        """Whether the kernels' 32-bit integers hold these and what is made of them."""
        largest = np.maximum(np.abs(low), np.abs(high))
        return bool((largest * np.maximum(self.reals, 1) < MOST - 1).all())

    def apply(self, x: NDArray[np.int64]) -> NDArray[np.int64]:
        """Multiply ``(channels, n)``: nearest, halves away from zero."""
        products = x * self.reals[:, np.newaxis]
        whole = np.trunc(products)
        away = np.where(np.abs(products - whole) < 0.5, 0, np.sign(products))
        return (whole + away).astype(np.int64)


def activation_range(
    activation: int, scale: float, zero_point: int, fmt: Format
) -> tuple[int, int]:
    """Smallest and largest code of an output with a fused activation."""
    low, high = CLAMPS.get(activation, (None, None))

    def code(real: float) -> int:
        ratio = single(real, by=scale)
        if abs(ratio) >= MOST:
            raise ConfigError(f"a scale must leave codes for {real:g}, not {scale:g}: enlarge it")
        return zero_point + rounded_away(ratio)

    return (
        fmt.min if low is None else max(fmt.min, code(low)),
        fmt.max if high is None else min(fmt.max, code(high)),
    )


def averaged(x: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Divide sums by ``count``: nearest, halves away from zero."""
    rounded = (np.abs(x) + count // 2) // count
    return np.where(x > 0, rounded, -rounded)


def mean_multiplier(real: float, count: int) -> Multiplier:
    """Factor of a sum of ``count`` elements that makes it a mean: its 31 bits divided, cut off."""
    number, exponent = fixed(real)
    shift = min(count.bit_length() - 1, 32, 31 + exponent)
    return Multiplier(
        np.array([(number << shift) // count], np.int64),
        np.array([exponent - shift], np.int64),
    )


def steps_of(
    x: Tensor,
    bounds: tuple[NDArray[np.int64], NDArray[np.int64]],
    function: Function,
    codes: tuple[int, int],
    fmt: Format,
    slopes: NDArray[np.float64],
    falling: NDArray[np.bool_] | None = None,
) -> Steps:
    """Find where a function of one integer reaches each of its codes.

    Parameters
    ----------
    x
        The input.
    bounds
        Smallest and largest integer of each channel, ``(channels,)``.
    function
        Of integers ``(channels, n)``; before it is clamped to ``codes``.
    codes
        Smallest and largest result.
    slopes
        About how far the result moves for each 1 of the input, ``(channels,)``.
    falling
        Channels in which the result never rises; ``None`` for none.
    """
    least, most = codes
    channels = len(bounds[0])
    falling = np.zeros(channels, np.bool_) if falling is None else falling
    sign = np.where(falling, -1, 1)[:, np.newaxis]
    low = np.where(falling, -bounds[1], bounds[0])[:, np.newaxis]
    high = np.where(falling, -bounds[0], bounds[1])[:, np.newaxis]
    wanted = np.arange(least + 1, most + 1)[np.newaxis]
    first, last = (np.broadcast_to(edge, (channels, most - least)) for edge in (low, high + 1))
    while (unknown := first < last).any():
        middle = (first + last) >> 1
        reached = function(sign * middle) >= wanted
        first = np.where(unknown & ~reached, middle + 1, first)
        last = np.where(unknown & reached, middle, last)
    levels = sign * first
    if least == most:  # A constant; one level that decides nothing keeps the layers' rules.
        below = most == fmt.max
        least -= below
        levels = sign * (low if below else high + 1)
    return Steps(x, *bounds, levels, falling, slopes, least, fmt)

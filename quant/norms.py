"""Rising and falling functions of an integer, exactly: batch-norm, what comes behind, and levels.

A channel's real value is a :class:`Norm` of its integer, followed by *bends*: ReLU, clipping, and
whatever else never turns back. Asked from which integer on a channel reaches a real value, they
answer without rounding: each bend turns the question about its result into one about its argument.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import inf, isqrt
from typing import NamedTuple

__all__ = [
    "ROUNDINGS",
    "Affine",
    "Bend",
    "Clip",
    "Leak",
    "Level",
    "Norm",
    "Reach",
    "clip",
    "leak",
    "linear",
    "ramp",
    "root",
    "row_of",
    "snapped",
    "step_of",
]

ULP = Fraction(1, 1 << 24)  #: Largest relative error of one operation in float32.
ROUNDINGS = 8  #: No term of float32 batch-norm goes through more.
#: Bits of a root that is no fraction. Where float32 numbers meet it, what it is compared with is
#: further away: the difference of their squares is a fraction of fewer bits.
ROOT_BITS = 1024

Level = Fraction | float  #: A real number; floats are only the two infinities.


class Reach(NamedTuple):
    """Asks whether ``y >= value``; ``y > value`` if strict; ``<=`` and ``<`` if not above."""

    value: Level
    strict: bool = False
    above: bool = True

    def holds(self, y: Level) -> bool:
        if self.value == y:
            return not self.strict
        return (y > self.value) == self.above

    @property
    def always(self) -> "Reach":
        """The same kind of question, whose answer is yes."""
        return Reach(-inf if self.above else inf, False, self.above)

    @property
    def never(self) -> "Reach":
        """The same kind of question, whose answer is no."""
        return Reach(inf if self.above else -inf, True, self.above)


@dataclass(frozen=True)
class Norm:
    """Batch-norm of one channel in evaluation, exactly. ``variance`` has epsilon added."""

    gain: Fraction
    bias: Fraction
    mean: Fraction
    variance: Fraction

    def fires(self, x: int) -> bool:
        """Whether ``gain * (x - mean) / sqrt(variance) + bias >= 0``.

        That is ``gain * (x - mean) >= -bias * sqrt(variance)``, and ``a -> a * |a|`` keeps order.
        """
        slope = self.gain * (x - self.mean)
        return slope * abs(slope) + self.bias * abs(self.bias) * self.variance >= 0

    def level(self, reachable: range) -> tuple[int, bool]:
        """Level over the sums that can occur, in rising order, and whether it is falling.

        Rising: the smallest sum that fires, or one more than the largest. Falling: the largest
        sum that fires, or one less than the smallest. A channel without gain is constant.
        """
        if self.gain < 0:
            count = bisect_left(reachable, True, key=lambda x: not self.fires(x))
            return (reachable[count - 1] if count else reachable[0] - 1), True
        count = bisect_left(reachable, True, key=self.fires)
        return (reachable[count] if count < len(reachable) else reachable[-1] + 1), False

    def is_tie(self, x: int) -> bool:
        """Whether the value at ``x`` is so close to zero that float32 may get its sign wrong.

        With ``a = gain / sqrt(variance)``, PyTorch computes ``x*a + (bias - mean*a)``. Each of the
        three terms goes through at most :data:`ROUNDINGS` roundings (4 in ``a``, then products and
        sums), so the error is at most ``ROUNDINGS * ULP`` times the sum of their magnitudes. Both
        sides are multiplied by the root here; it is taken to 64 bits, far below the bound.
        """
        top, bottom = self.variance.as_integer_ratio()
        root = Fraction(isqrt(top * bottom << 128), bottom << 64)
        value = self.gain * (x - self.mean) + self.bias * root
        terms = abs(self.gain) * (abs(x) + abs(self.mean)) + abs(self.bias) * root
        return abs(value) <= ROUNDINGS * ULP * terms


def linear(scale: Fraction, mean: Fraction = Fraction(0), bias: Fraction = Fraction(0)) -> Norm:
    """``scale * (x - mean) + bias``."""
    return Norm(scale, bias, mean, Fraction(1))


def root(value: Fraction) -> Fraction:
    """Square root: exact where it is a fraction, else to :data:`ROOT_BITS` bits."""
    top, bottom = value.as_integer_ratio()
    exact = Fraction(isqrt(top), isqrt(bottom))
    if exact * exact == value:
        return exact
    bits = ROOT_BITS + bottom.bit_length()
    return Fraction(isqrt(top * bottom << 2 * bits), bottom << bits)


# Bends --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Clip:
    """Clipping to ``low`` to ``high``; ReLU is 0 to infinity."""

    low: Level
    high: Level

    def __call__(self, reach: Reach, channel: int) -> Reach:
        if reach.holds(self.low) and reach.holds(self.high):
            return reach.always
        if not reach.holds(self.low) and not reach.holds(self.high):
            return reach.never
        return reach

    def moved(self, gain: Fraction, offset: Fraction) -> "Clip":
        """Return the clipping that does behind ``gain * y + offset`` what this one does before."""
        low, high = (
            end * gain + offset if isinstance(end, Fraction) else -end if gain < 0 else end
            for end in (self.low, self.high)
        )
        if not gain:
            return Clip(offset, offset)
        return Clip(min(low, high), max(low, high))


ramp = Clip(Fraction(0), inf)  #: Bend of a ReLU.


def clip(low: Level, high: Level) -> Clip:
    """Bend of a clipping to ``low`` to ``high``."""
    return Clip(low, high)


@dataclass(frozen=True)
class Leak:
    """Leaky ReLU: a slope for each channel, or one for all, where the value is negative.

    With a slope below 0 it turns back, and no question about it has one answer: see
    :func:`brambling.quant.joining.unfolded`.
    """

    slopes: tuple[Fraction, ...]

    def __call__(self, reach: Reach, channel: int) -> Reach:
        slope = self.slopes[channel % len(self.slopes)]
        if not slope:
            return ramp(reach, channel)
        return reach if reach.value >= 0 else reach._replace(value=reach.value / slope)


def leak(*slopes: Fraction) -> Leak:
    """Bend of a leaky ReLU."""
    return Leak(slopes)


@dataclass(frozen=True)
class Affine:
    """``gain * y + offset``, for each channel, or one for all; a gain of 0 is constant."""

    gains: tuple[Fraction, ...]
    offsets: tuple[Fraction, ...]

    def __call__(self, reach: Reach, channel: int) -> Reach:
        gain, offset = self.gain(channel), self.offsets[channel % len(self.offsets)]
        if not gain:
            return reach.always if reach.holds(offset) else reach.never
        value = reach.value
        if isinstance(value, Fraction):
            value = (value - offset) / gain
        elif gain < 0:
            value = -value
        return Reach(value, reach.strict, reach.above == (gain > 0))

    def gain(self, channel: int) -> Fraction:
        """Return the gain of a channel."""
        return self.gains[channel % len(self.gains)]


#: Each turns a question about its result, in a channel, into one about its argument.
Bend = Clip | Leak | Affine

# Levels -------------------------------------------------------------------------------------------


def step_of(norm: Norm, value: Level, strict: bool = False) -> int | float:
    """Smallest integer at which a channel whose gain is above 0 reaches ``value``; or infinity.

    ``gain * (x - mean) / sqrt(variance) + bias >= value`` is ``d * x >= p + sqrt(n)`` or
    ``d * x >= p - sqrt(n)`` in integers, which an integer square root decides.

    Parameters
    ----------
    strict
        Whether it must pass the value.
    """
    if isinstance(value, float):
        return value
    slope = (value - norm.bias) / norm.gain
    square = slope * slope * norm.variance
    (p, q), (n, d) = norm.mean.as_integer_ratio(), square.as_integer_ratio()
    # mean + sqrt(n / d) = (p * d + sqrt(q * q * n * d)) / (q * d)
    radicand = q * q * n * d
    down = isqrt(radicand)
    whole = down * down == radicand
    distance = -down if slope < 0 else down + (not whole)
    place, rest = divmod(p * d + distance, q * d)
    if rest:
        return place + 1
    # The quotient is whole; it was rounded up on the way unless the root is.
    return place + (strict and whole)


def row_of(norm: Norm, span: range, wanted: Sequence[Reach]) -> list[int]:
    """Integers of ``span`` from which on a channel answers each question of ``wanted`` with yes.

    Where its answers turn to yes as the integer rises, the smallest such integer, or one more than
    the largest of ``span``; else the largest, or one less than the smallest.
    """
    if norm.gain < 0:
        turned = range(-span[-1], 1 - span[0], span.step)
        mirror = Norm(-norm.gain, norm.bias, -norm.mean, norm.variance)
        return [-level for level in row_of(mirror, turned, wanted)]
    return [level_of(norm, span, reach) for reach in wanted]


def level_of(norm: Norm, span: range, reach: Reach) -> int:
    """Level of one question; see :func:`row_of`. The channel's gain is not negative."""
    if not norm.gain:
        yes = reach.holds(norm.bias)
        if reach.above:
            return span[0] if yes else span[-1] + 1
        return span[-1] if yes else span[0] - 1
    if reach.above:
        return snapped(step_of(norm, reach.value, reach.strict), span)
    # The last one before the first that answers no.
    after = snapped(step_of(norm, reach.value, not reach.strict), span)
    if after > span[-1]:
        return span[-1]
    return after - span.step if after > span[0] else span[0] - 1


def snapped(x: Fraction | int | float, span: range) -> int:
    """Smallest number of ``span`` that is not below ``x``, or one more than its largest."""
    if x <= span[0]:
        return span[0]
    if x > span[-1]:
        return span[-1] + 1
    return span[0] - (span[0] - int(x)) // span.step * span.step

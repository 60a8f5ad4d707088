"""The smallest exact form of a quantised activation.

Behind a product, an activation maps each integer sum to one of ``n + 1`` codes, and never falls
where the sum rises, or never rises. Such a function is given by the ``n`` places at which it steps,
its levels. Three layers can compute it; two of them must have exactly these levels to be chosen.

==========  ===================  ====================================
form        memory, bits         logic of a lane, 6-input LUTs
==========  ===================  ====================================
Thresholds  rows · n · (w + 1)   (w + 1) · ceil(log2(n + 1))
Requantise  rows · (m + b)       w · m / 2 where m > 1, + b + 2 r
Table       2**w · r             counted with its memory
==========  ===================  ====================================

``w`` are the bits of the input, ``r`` of the result, ``m`` of the widest multiplier (none for a
single power of two), ``b`` of the widest bias; ``rows`` are channels, or 1 for all alike: a single
row is no memory. The cost is LUTs, with 64 bits of memory for one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil, floor, log2

import numpy as np
from numpy.typing import NDArray

from brambling.errors import ConfigError
from brambling.layers.elementwise import TABLE_BITS
from brambling.network import Layer, Requantise, Table, Tensor, Thresholds
from brambling.quant.formats import Bipolar, Format
from brambling.quant.norms import snapped
from brambling.quant.rounding import rounded as nearest

__all__ = ["Steps", "cost", "requantise_levels", "shifted", "smallest"]

MEMORY = 64  #: Bits in a LUT.
SHIFTS = range(41)  #: Tried, smallest first.
LARGEST = 1 << SHIFTS[-1]  #: Power of two by which a shift divides.
NEAR = (0, 1, -1, 2, -2, 3)  #: Multipliers tried, around the slope.
FEW = 8  #: Channels that are looked at first; then twice as many each time.


@dataclass(frozen=True, eq=False)
class Steps:
    """An activation by its levels.

    Parameters
    ----------
    x
        The input: integers.
    low, high
        Bounds of what can occur in each channel, ``(channels,)``.
    levels
        ``(channels, n)``: where channel ``c`` reaches code ``least + 1 + k``. Rising: the smallest
        integer, or ``high + 1`` for never; falling: the largest, or ``low - 1``.
    falling
        ``(channels,)``.
    stride
        Distance of integers that can occur, from ``low`` on.
    slopes
        About how many codes the result moves by for each 1 of the input, ``(channels,)``; a hint.
    least
        Code below the first level; for ``Bipolar`` -1, with one level.
    fmt
        Format of the result.
    """

    x: Tensor
    low: NDArray[np.int64]
    high: NDArray[np.int64]
    levels: NDArray[np.int64]
    falling: NDArray[np.bool_]
    slopes: NDArray[np.float64]
    least: int
    fmt: Format
    stride: int = 1

    @property
    def most(self) -> int:
        """Code of the last level."""
        return self.least + self.levels.shape[1]

    def rising(self) -> "Steps":
        """Return the same function of the negated integers, in falling channels."""
        turn = self.falling
        return Steps(
            self.x,
            np.where(turn, -self.high, self.low),
            np.where(turn, -self.low, self.high),
            np.where(turn[:, np.newaxis], -self.levels, self.levels),
            np.zeros_like(turn),
            np.abs(self.slopes),
            self.least,
            self.fmt,
            self.stride,
        )

    def only(self, rows: NDArray[np.int64] | slice) -> "Steps":
        """Return some of the channels; ``x`` stays."""
        return replace(
            self,
            low=self.low[rows],
            high=self.high[rows],
            levels=self.levels[rows],
            falling=self.falling[rows],
            slopes=self.slopes[rows],
        )


def cost(layer: Layer, x: Tensor) -> int:
    """LUTs of a lane and its parameters' memory; see the module's table."""
    width, result = x.fmt.width, layer.output(x).fmt.width
    if isinstance(layer, Table):
        return ceil(len(layer.entries) * result / MEMORY)
    if isinstance(layer, Thresholds):
        rows, n = layer.levels.shape
        memory = 0 if rows == 1 else rows * n * (width + 1)
        return (width + 1) * ceil(log2(n + 1)) + ceil(memory / MEMORY)
    assert isinstance(layer, Requantise)
    largest = int(np.abs(layer.multiplier).max())
    bias = int(np.abs(layer.bias).max()).bit_length() + 1
    single = len(layer.multiplier) == 1
    multiplier = 0 if single and not largest & (largest - 1) else largest.bit_length()
    memory = sum(
        rows * bits
        for rows, bits in ((len(layer.multiplier), multiplier), (len(layer.bias), bias))
        if rows > 1
    )
    return width * multiplier // 2 + bias + 2 * result + ceil(memory / MEMORY)


def smallest(name: str, source: str, steps: Steps) -> Layer | None:
    """Cheapest layer that is exactly ``steps``, from the edge ``source``, if there is one."""
    forms = exact_forms(name, source, steps)
    return min(forms, key=lambda layer: cost(layer, steps.x), default=None)


def exact_forms(name: str, source: str, steps: Steps) -> Iterator[Layer]:
    if steps.fmt == Bipolar() or steps.levels.shape[1] <= 1 << TABLE_BITS:
        yield thresholds(name, source, steps)
    if steps.fmt != Bipolar():
        found = requantise(name, source, steps)
        if found is not None:
            yield found
        found = table(name, source, steps)
        if found is not None:
            yield found


# Thresholds ---------------------------------------------------------------------------------------


def thresholds(name: str, source: str, steps: Steps) -> Thresholds:
    """Levels as they are; one row where all channels are alike."""
    levels, falling = steps.levels, steps.falling
    missing = 0 if steps.fmt == Bipolar() else steps.least - steps.fmt.min
    if missing:  # Codes below the least one are always passed.
        always = np.where(falling, steps.high, steps.low)
        before = np.repeat(always[:, np.newaxis], missing, axis=1)
        levels = np.concatenate([before, levels], axis=1)
    levels = np.where(falling[:, np.newaxis], levels[:, ::-1], levels)
    levels, falling = alike(levels, falling)
    return Thresholds(name=name, inputs=(source,), levels=levels, falling=falling, fmt=steps.fmt)


def alike(*arrays: NDArray) -> Sequence[NDArray]:
    """One row of each array where, in each, all rows are the same."""
    if all((array == array[:1]).all() for array in arrays):
        return [array[:1] for array in arrays]
    return arrays


# Requantise ---------------------------------------------------------------------------------------


def requantise(name: str, source: str, steps: Steps) -> Requantise | None:
    """Multiplier and bias of each channel with the fewest bits that have exactly these levels.

    ``floor((x * m + c) / 2**s)`` reaches code ``k`` at the level ``L`` where
    ``L * m + c >= k * 2**s > (L - 1) * m + c``. For a given ``m`` and ``s`` that bounds ``c`` from
    both sides, so a solution is found or excluded at once. ``None`` where there is none.
    """
    up = steps.rising()
    likely = np.arange(0)
    for shift in SHIFTS:
        if overflows(up, shift):
            break
        likely, found = solution(up, shift, likely)
        if found is not None:
            lower, upper, multiplier = found
            sign = np.where(steps.falling, -1, 1)
            return checked(
                steps, rounded(name, source, steps, sign * multiplier, lower, upper, shift)
            )
    return None


def overflows(up: Steps, shift: int) -> bool:
    """Whether numbers might leave 62 bits."""
    largest = max(int(np.abs(up.low).max()), int(np.abs(up.high).max())) + 1
    slope = float(up.slopes.max()) * 2.0**shift + max(NEAR) + 1
    codes = max(abs(up.least), abs(up.most)) + 1
    return largest * slope + codes * 2.0**shift >= 2.0**61


Bounds = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


def solution(
    up: Steps, shift: int, likely: NDArray[np.int64]
) -> tuple[NDArray[np.int64], Bounds | None]:
    """Return what :func:`solve` says of all channels; ``None``, and why, where one has no solution.

    ``likely`` are channels that had none with other shifts: most have none with this one either,
    and a single one is enough. So where there is none at all few channels are looked at, but often.
    """
    lower, upper, _ = solve(up.only(likely), shift)
    without = likely[lower > upper]
    parts, start, size = [], 0, FEW
    while not len(without) and start < len(up.low):
        parts.append(solve(up.only(slice(start, start + size)), shift))
        without = start + np.flatnonzero(parts[-1][0] > parts[-1][1])
        start, size = start + size, 2 * size
    if len(without):
        return without[:FEW], None
    lower, upper, multiplier = (np.concatenate(part) for part in zip(*parts, strict=True))
    return likely, (lower, upper, multiplier)


def solve(up: Steps, shift: int) -> Bounds:
    """Bounds of the added constant and a multiplier for each channel; lower > upper where none."""
    base = np.floor(up.slopes * 2.0**shift).astype(np.int64)
    lower = np.ones_like(base)
    upper, multiplier = np.zeros_like(base), np.zeros_like(base)
    for near in NEAR:
        left = np.flatnonzero(lower > upper)
        if not len(left):
            break
        m = np.maximum(base[left] + near, 0)
        found, bound = constants(up.only(left), m, shift)
        kept = found <= bound
        rows = left[kept]
        lower[rows], upper[rows], multiplier[rows] = found[kept], bound[kept], m[kept]
    return lower, upper, multiplier


def constants(
    up: Steps, multiplier: NDArray[np.int64], shift: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Least and largest constant that, added to the products, reach each code at its level."""
    goal = np.arange(up.least + 1, up.most + 1) << shift
    low, high, m = up.low[:, np.newaxis], up.high[:, np.newaxis], multiplier[:, np.newaxis]
    always, never = up.levels <= low, up.levels > high
    huge = np.int64(1) << 61
    reach = np.where(never, -huge, goal - up.levels * m)
    avoid = np.where(never, high, up.levels - up.stride)
    below = np.where(always, huge, goal - 1 - avoid * m)
    return reach.max(axis=1), below.min(axis=1)


def rounded(
    name: str,
    source: str,
    steps: Steps,
    multiplier: NDArray[np.int64],
    lower: NDArray[np.int64],
    upper: NDArray[np.int64],
    shift: int,
) -> Requantise:
    """Layer with a constant between the bounds: of them all the same, or each near zero."""
    half = 1 << shift - 1 if shift else 0
    lower, upper = lower - half, upper - half
    if lower.max() <= upper.min():
        lower, upper = lower.max(keepdims=True), upper.min(keepdims=True)
    bias = np.clip(0, lower, upper)
    (multiplier,) = alike(multiplier)
    low = None if steps.least == steps.fmt.min else steps.least
    high = None if steps.most == steps.fmt.max else steps.most
    return Requantise(
        name=name,
        inputs=(source,),
        fmt=steps.fmt,
        multiplier=multiplier,
        bias=bias,
        shift=shift,
        low=low,
        high=high,
    )


def checked(steps: Steps, layer: Requantise) -> Requantise | None:
    """Return the layer after comparing its levels with the wanted ones; ``None`` if too wide."""
    try:
        layer.output(steps.x)
    except ConfigError:
        return None
    assert np.array_equal(requantise_levels(layer, steps), steps.levels)
    return layer


def requantise_levels(layer: Requantise, steps: Steps) -> NDArray[np.int64]:
    """Levels of a layer that rounds halves up, by their definition: ``(channels, n)`` as in Steps.

    Computed in Python's integers, apart from how :func:`requantise` found the layer.
    """
    half = 1 << layer.shift - 1 if layer.shift else 0
    channels = len(steps.low)
    parts = (
        np.broadcast_to(part, channels).tolist()
        for part in (layer.multiplier, layer.bias, steps.low, steps.high, steps.falling)
    )
    rows = []
    for m, b, low, high, falling in zip(*parts, strict=True):
        # x * m >= gap, for a falling channel with -x for x.
        gaps = [(code << layer.shift) - half - b for code in range(steps.least + 1, steps.most + 1)]
        m, low, high = (-m, -high, -low) if falling else (m, low, high)
        span = range(low, high + 1, steps.stride)
        if m:
            row = [snapped(-(-gap // m), span) for gap in gaps]
        else:
            row = [low if gap <= 0 else high + 1 for gap in gaps]
        rows.append([-x for x in row] if falling else row)
    return np.array(rows, dtype=np.int64)


def shifted(
    name: str,
    source: str,
    lines: Sequence[tuple[Fraction, Fraction]],
    codes: tuple[int, int],
    fmt: Format,
    rounding: str = "half_up",
    *,
    single: bool = True,
) -> Requantise | None:
    """Layer that rounds ``slope * x + offset`` of each channel, without levels.

    Only where every slope is a whole number over a power of two. Then the sum before the shift is
    exact but for the fraction of an offset, and that matters to halves and whole numbers only.
    ``None`` where there is no such layer.

    Parameters
    ----------
    lines
        Slope and offset of each channel.
    codes
        Smallest and largest result.
    rounding
        One of :data:`brambling.quant.rounding.ROUNDINGS`.
    single
        Only where all slopes are the same power of two: there is no multiplier then.
    """
    slopes = [slope for slope, _ in lines]
    bottom = max(slope.denominator for slope in slopes)
    if any(d & (d - 1) for d in {slope.denominator for slope in slopes}) or bottom > LARGEST:
        return None
    top = [int(slope * bottom) for slope in slopes]
    power = top[0] > 0 and not top[0] & (top[0] - 1)
    if single and not (power and all(slope == slopes[0] for slope in slopes)):
        return None
    found = biases([offset * bottom for _, offset in lines], bottom, rounding)
    if found is None:
        return None
    numbers, kind = found
    (multiplier,), (bias,) = alike(np.array(top)), alike(np.array(numbers))
    low, high = codes
    return Requantise(
        name=name,
        inputs=(source,),
        fmt=fmt,
        multiplier=multiplier,
        bias=bias,
        shift=bottom.bit_length() - 1,
        low=None if low == fmt.min else low,
        high=None if high == fmt.max else high,
        rounding=kind,
    )


def biases(offsets: Sequence[Fraction], bottom: int, rounding: str) -> tuple[list[int], str] | None:
    """Integers that stand for the offsets in a sum that is divided by ``bottom``, and its rounding.

    ``None`` where a fraction would decide, or the layer has no such rounding.
    """
    whole = [offset.denominator == 1 for offset in offsets]
    if bottom == 1:
        if not all(whole):
            halves = any(offset.denominator == 2 for offset in offsets)
            symmetric = rounding in {"away", "zero"}
            if symmetric or (halves and rounding not in {"half_up", "floor", "ceil"}):
                return None
        return [nearest(offset, rounding) for offset in offsets], "half_up"
    match rounding:
        case "half_up" | "floor":
            return [floor(offset) for offset in offsets], rounding
        case "ceil":
            return [ceil(offset) + bottom - 1 for offset in offsets], "floor"
        case "half_even" | "half_away" | "half_zero" if not any(whole):
            return [floor(offset) for offset in offsets], "half_up"
        case "half_even" | "half_away" if all(whole):
            return [int(offset) for offset in offsets], rounding
    return None


# Table --------------------------------------------------------------------------------------------


def table(name: str, source: str, steps: Steps) -> Table | None:
    """Every code's result, where all channels are alike and the codes are few."""
    levels, falling, *_ = alike(steps.levels, steps.falling, steps.low, steps.high)
    if len(levels) > 1 or steps.x.fmt.width > TABLE_BITS or steps.x.fmt == Bipolar():
        return None
    codes = np.arange(steps.x.fmt.min, steps.x.fmt.max + 1)
    reached = codes[:, np.newaxis] <= levels if falling[0] else codes[:, np.newaxis] >= levels
    entries = steps.least + reached.sum(axis=1)
    return Table(name=name, inputs=(source,), entries=entries, fmt=steps.fmt)

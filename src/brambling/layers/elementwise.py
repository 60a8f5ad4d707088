"""Layers that map each element by itself."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from brambling.errors import ConfigError
from brambling.layers.base import LIMIT, Layer, Tensor, frozen, integers
from brambling.quant.formats import Bipolar, Format

__all__ = ["Requantise", "Table", "Thresholds"]

ROUNDINGS = ("half_up", "half_even", "half_away", "floor")
TABLE_BITS = 10  #: Widest codes that a table takes.


def magnitude(array: NDArray[np.int64]) -> int:
    """Largest magnitude, also of -2**63, for which ``np.abs`` is negative."""
    return max(-int(array.min()), int(array.max()))


def codes_of(fmt: Format) -> int:
    """Return how many codes the format has."""
    return 2 if fmt == Bipolar() else fmt.max - fmt.min + 1


@dataclass(frozen=True, eq=False, kw_only=True)
class Thresholds(Layer):
    """Activation by counting the levels of its channel that ``x`` reaches.

    Counts the levels ``T`` with ``T <= x``, or, where ``falling``, with ``x <= T``. The result is
    the ``count``-th code of ``fmt``: for ``Bipolar`` -1 and +1, else ``fmt.min + count``. This one
    form absorbs batch-norm, scale, bias and quantiser exactly (Umuroglu et al., "FINN", 2017,
    section 4.2.2, for one level).

    Parameters
    ----------
    levels
        Integers, ``(channels, n)``, or ``(1, n)`` for all channels alike; rows in rising order.
    falling
        Booleans, ``(channels,)`` or ``(1,)``.
    fmt
        Format of the output; has at least ``n + 1`` codes.
    """

    levels: NDArray[np.int64]
    falling: NDArray[np.bool_]
    fmt: Format

    def __post_init__(self) -> None:
        what = f"{self.name}.levels"
        object.__setattr__(self, "levels", frozen(self.levels, np.int64, what))
        falling = np.array(self.falling, dtype=bool)
        falling.setflags(write=False)
        object.__setattr__(self, "falling", falling)
        if self.levels.ndim != 2 or 0 in self.levels.shape:
            raise ConfigError(f"{what}: shape must be (channels, n), not {self.levels.shape}")
        if self.falling.shape != self.levels.shape[:1]:
            raise ConfigError(
                f"{self.name}.falling: shape must be {self.levels.shape[:1]}, "
                f"not {self.falling.shape}"
            )
        if (self.levels[:, 1:] < self.levels[:, :-1]).any():
            raise ConfigError(f"{what}: each row must be in rising order")
        codes = codes_of(self.fmt)
        if self.levels.shape[1] >= codes:
            raise ConfigError(
                f"{what}: {self.fmt} has {codes} codes, enough for {codes - 1} levels, "
                f"not {self.levels.shape[1]}"
            )

    def output(self, *inputs: Tensor) -> Tensor:
        x = self._one(inputs)
        if x.fmt.width > 63:
            raise ConfigError(
                f"{self.name}: thresholds take codes of at most 63 bits, but "
                f"{self.inputs[0]!r} is {x}: requantise it first"
            )
        if len(self.levels) not in {1, x.shape[-1] if x.shape else 1}:
            raise ConfigError(
                f"{self.name}.levels: has {len(self.levels)} channels, "
                f"but {self.inputs[0]!r} is {x}"
            )
        return Tensor(x.shape, self.fmt)

    def arrays(self) -> dict[str, NDArray]:
        return {"levels": self.levels, "falling": self.falling}

    def attributes(self) -> dict[str, Any]:
        return {"fmt": str(self.fmt)}

    @classmethod
    def read(cls, attributes: dict[str, Any], arrays: dict[str, NDArray], **names: Any) -> Self:
        falling = arrays.get("falling")
        if falling is not None and falling.dtype != np.bool_:
            raise ConfigError(f"{names['name']}.falling: values must be bool, not {falling.dtype}")
        return super().read(attributes, arrays, **names)


@dataclass(frozen=True, eq=False, kw_only=True)
class Requantise(Layer):
    """Scale, round and saturate: ``clip(round(slope * (x * multiplier + bias) / 2**shift))``.

    A change of radix point is a multiplier of 1; ReLU is ``low`` 0; leaky ReLU has two slopes.
    There is one rounding, at the end.

    Parameters
    ----------
    multiplier, bias
        Integers, ``(channels,)``, or ``(1,)`` for all channels alike.
    shift
        Bits, 0 to 62.
    fmt
        Format of the output.
    low, high
        Smallest and largest result; ``None``: those of ``fmt``.
    slope
        Factor where ``x * multiplier + bias`` is at least 0, and where it is negative.
    rounding
        ``"half_up"``: nearest, halves towards +infinity; ``"half_even"``; ``"half_away"``: halves
        away from 0; ``"floor"``.
    """

    fmt: Format
    multiplier: NDArray[np.int64]
    bias: NDArray[np.int64]
    shift: int = 0
    low: int | None = None
    high: int | None = None
    slope: tuple[int, int] = (1, 1)
    rounding: str = "half_up"

    def __post_init__(self) -> None:
        for key in ("multiplier", "bias"):
            what = f"{self.name}.{key}"
            array = frozen(getattr(self, key), np.int64, what)
            object.__setattr__(self, key, array)
            if array.ndim != 1 or not array.size:
                raise ConfigError(f"{what}: shape must be (channels,), not {array.shape}")
        if self.fmt == Bipolar():
            raise ConfigError(f"{self.name}: fmt must not be bipolar: use Thresholds")
        if type(self.shift) is not int or not 0 <= self.shift <= 62:
            raise ConfigError(f"{self.name}: shift must be 0 to 62, not {self.shift!r}")
        if self.rounding not in ROUNDINGS:
            raise ConfigError(
                f"{self.name}: rounding must be one of {', '.join(ROUNDINGS)}, "
                f"not {self.rounding!r}"
            )
        if not integers(self.slope, 2):
            raise ConfigError(f"{self.name}: slope must be 2 integers, not {self.slope}")
        low, high = self.limits
        if not integers((low, high), 2):
            raise ConfigError(
                f"{self.name}: low and high must be integers or None, not {low!r} and {high!r}"
            )
        if not self.fmt.min <= low <= high <= self.fmt.max:
            raise ConfigError(
                f"{self.name}: low and high must lie in {self.fmt.min} to {self.fmt.max} in that "
                f"order, not {low} and {high}"
            )

    @property
    def limits(self) -> tuple[int, int]:
        """Smallest and largest result."""
        low = self.fmt.min if self.low is None else self.low
        return low, self.fmt.max if self.high is None else self.high

    def output(self, *inputs: Tensor) -> Tensor:
        x = self._one(inputs)
        channels = x.shape[-1] if x.shape else 1
        for key in ("multiplier", "bias"):
            if len(getattr(self, key)) not in {1, channels}:
                raise ConfigError(
                    f"{self.name}.{key}: has {len(getattr(self, key))} channels, "
                    f"but {self.inputs[0]!r} is {x}"
                )
        if self.largest(x) >= LIMIT:
            raise ConfigError(
                f"{self.name}: {x.fmt} times the multiplier plus the bias could overflow 63 bits"
            )
        return Tensor(x.shape, self.fmt)

    def largest(self, x: Tensor) -> int:
        """Bound of the magnitude of everything on the way to a result."""
        product = max(-x.fmt.min, x.fmt.max) * magnitude(self.multiplier)
        return (product + magnitude(self.bias)) * max(1, *map(abs, self.slope)) + (1 << self.shift)

    def arrays(self) -> dict[str, NDArray]:
        return {"multiplier": self.multiplier, "bias": self.bias}

    def attributes(self) -> dict[str, Any]:
        return {
            "fmt": str(self.fmt),
            "shift": self.shift,
            "low": self.low,
            "high": self.high,
            "slope": list(self.slope),
            "rounding": self.rounding,
        }


@dataclass(frozen=True, eq=False, kw_only=True)
class Table(Layer):
    """Any function of one code, by lookup: sigmoid, tanh, SiLU.

    Parameters
    ----------
    entries
        Result for each code of the input, from the smallest, integers ``(codes,)``.
    fmt
        Format of the output.
    """

    entries: NDArray[np.int64]
    fmt: Format

    def __post_init__(self) -> None:
        what = f"{self.name}.entries"
        object.__setattr__(self, "entries", frozen(self.entries, np.int64, what))
        if self.entries.ndim != 1 or not self.entries.size:
            raise ConfigError(f"{what}: shape must be (codes,), not {self.entries.shape}")
        if not self.fmt.holds(self.entries):
            raise ConfigError(f"{what}: every value must be a code of {self.fmt}")

    def output(self, *inputs: Tensor) -> Tensor:
        x = self._one(inputs)
        if x.fmt.width > TABLE_BITS:
            raise ConfigError(
                f"{self.name}: a table takes codes of at most {TABLE_BITS} bits, but "
                f"{self.inputs[0]!r} is {x}: requantise it first"
            )
        codes = codes_of(x.fmt)
        if len(self.entries) != codes:
            raise ConfigError(
                f"{self.name}.entries: must have {codes} entries for {x.fmt}, "
                f"not {len(self.entries)}"
            )
        return Tensor(x.shape, self.fmt)

    def arrays(self) -> dict[str, NDArray]:
        return {"entries": self.entries}

    def attributes(self) -> dict[str, Any]:
        return {"fmt": str(self.fmt)}

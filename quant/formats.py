"""Number formats: what the integer codes of a tensor stand for, and their bits in hardware."""

import re
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from brambling.errors import ConfigError

__all__ = ["Bipolar", "Fixed", "Format", "Ternary", "parse_format"]


class Format:
    """A set of integer codes and their width in bits.

    Code ``n`` stands for the real value ``n * 2**-frac``. In hardware a code is ``width`` bits,
    two's complement where ``signed``.
    """

    __slots__ = ()
    width: int
    frac: int
    signed: bool

    @property
    def min(self) -> int:
        """Smallest code."""
        return -(1 << self.width - 1) if self.signed else 0

    @property
    def max(self) -> int:
        """Largest code."""
        return (1 << self.width - 1) - 1 if self.signed else (1 << self.width) - 1

    @property
    def dtype(self) -> np.dtype:
        """Smallest NumPy integer type that holds every code."""
        least = np.min_scalar_type(-self.max - 1 if self.signed else self.max)
        return np.result_type(least, np.min_scalar_type(self.min))

    def holds(self, codes: NDArray) -> bool:
        """Whether every element is a code of this format."""
        return codes.size == 0 or (int(codes.min()) >= self.min and int(codes.max()) <= self.max)

    def to_bits(self, codes: ArrayLike) -> NDArray[np.uint64]:
        """Codes to the unsigned integers that their bits in hardware spell."""
        mask = (1 << self.width) - 1
        return np.asarray(codes).astype(np.int64).view(np.uint64) & np.uint64(mask)

    def from_bits(self, bits: ArrayLike) -> NDArray[np.int64]:
        """Inverse of :meth:`to_bits`."""
        codes = np.asarray(bits).astype(np.uint64).view(np.int64)
        return codes - ((codes > self.max).astype(np.int64) << self.width) if self.signed else codes


@dataclass(frozen=True, order=True, slots=True)
class Fixed(Format):
    """A fixed-point format: ``width`` bits, of which ``frac`` lie right of the binary point.

    The integer code ``n`` stands for the real value ``n * 2**-frac``; ``frac`` may be negative or
    exceed ``width``. Written ``s8.5`` (signed, 8 bits, 5 of them fractional) or ``u4.0``.

    >>> parse_format("s8.5").max
    127
    >>> Fixed.spanning(-3, 4)
    Fixed('s4.0')
    """

    width: int
    frac: int = 0
    signed: bool = True

    def __post_init__(self) -> None:
        if not 1 + self.signed <= self.width <= 64 - (not self.signed):
            raise ConfigError(
                f"{'a signed' if self.signed else 'an unsigned'} fixed-point format has "
                f"{1 + self.signed} to {64 - (not self.signed)} bits, not {self.width}"
            )

    @classmethod
    def spanning(cls, low: int, high: int, frac: int = 0) -> Self:
        """Narrowest format whose codes include ``low`` and ``high``."""
        if low >= 0:
            return cls(max(1, high.bit_length()), frac, signed=False)
        return cls(1 + max(1, (~low).bit_length(), high.bit_length()), frac)

    def __str__(self) -> str:
        return f"{'s' if self.signed else 'u'}{self.width}.{self.frac}"

    def __repr__(self) -> str:
        return f"Fixed({str(self)!r})"

    def encode(self, values: ArrayLike) -> NDArray[np.int64]:
        """Real values to codes: nearest, halves away from zero, clipped to the range.

        >>> Fixed(4, 1).encode([0.25, -0.25, 100])
        array([ 1, -1,  7])
        """
        scaled = np.asarray(values, dtype=np.float64) * 2.0**self.frac
        rounded = np.sign(scaled) * np.floor(np.abs(scaled) + 0.5)
        return np.clip(rounded, self.min, self.max).astype(np.int64)

    def decode(self, codes: ArrayLike) -> NDArray[np.float64]:
        """Codes to the real values that they stand for."""
        return np.asarray(codes, dtype=np.float64) * 2.0**-self.frac


@dataclass(frozen=True, slots=True)
class Bipolar(Format):
    """The two values +1 and -1, held in one bit: 1 is +1 and 0 is -1. Codes are -1 and +1."""

    width = 1
    frac = 0
    signed = True
    min = -1
    max = 1

    def __str__(self) -> str:
        return "bipolar"

    def holds(self, codes: NDArray) -> bool:
        return bool(np.all((codes == 1) | (codes == -1)))

    def to_bits(self, codes: ArrayLike) -> NDArray[np.uint64]:
        return (np.asarray(codes) > 0).astype(np.uint64)

    def from_bits(self, bits: ArrayLike) -> NDArray[np.int64]:
        return 2 * np.asarray(bits).astype(np.int64) - 1


@dataclass(frozen=True, slots=True)
class Ternary(Format):
    """The three values -1, 0 and +1, in two bits of two's complement."""

    width = 2
    frac = 0
    signed = True
    min = -1
    max = 1

    def __str__(self) -> str:
        return "ternary"


def parse_format(text: str) -> Format:
    """Inverse of ``str(format)``.

    >>> parse_format("bipolar"), parse_format("u8.0")
    (Bipolar(), Fixed('u8.0'))
    """
    if text == "bipolar":
        return Bipolar()
    if text == "ternary":
        return Ternary()
    match = re.fullmatch(r"([su])(\d+)\.(-?\d+)", text)
    if match is None:
        raise ConfigError(
            f"a format is written 'bipolar', 'ternary', or like 's8.5' or 'u4.0', not {text!r}"
        )
    sign, width, frac = match.groups()
    return Fixed(int(width), int(frac), sign == "s")

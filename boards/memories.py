"""What memories need of a part."""

from dataclasses import dataclass
from math import ceil
from typing import Self

from brambling.boards.parts import Part

__all__ = ["Needs", "lut_rom", "ram", "rom"]

PER_WORD_OF_LUT = 1.15  #: LUTs of a bit of a memory in LUTs, by those that hold its contents.


@dataclass(frozen=True, slots=True)
class Needs:
    """Block RAMs (exact), LUTs (estimated) and multipliers."""

    blocks: int = 0
    luts: int = 0
    dsps: int = 0

    def __add__(self, other: Self) -> Self:
        return type(self)(
            self.blocks + other.blocks, self.luts + other.luts, self.dsps + other.dsps
        )

    def __mul__(self, times: int) -> Self:
        return type(self)(self.blocks * times, self.luts * times, self.dsps * times)


def rom(part: Part, store: str, words: int, bits: int) -> Needs:
    """Estimate a read-only memory, in ``"block"`` RAM or in LUTs."""
    if words == 1:
        return Needs()
    if store == "block":
        return Needs(part.blocks_for(words, bits))
    return Needs(0, lut_rom(part, words, bits))


def lut_rom(part: Part, words: int, bits: int) -> int:
    """LUTs of a read-only memory in LUTs."""
    if words == 1:
        return 0
    return ceil(bits * ceil(words / 2**part.lut_inputs) * PER_WORD_OF_LUT)


def ram(part: Part, words: int, bits: int, store: str = "lut") -> Needs:
    """Estimate a memory that is written: in LUT RAM where it may and can be, or block RAM."""
    if words < 2 or (not part.lut_ram and words * bits <= 128):  # Flip-flops.
        return Needs(0, words * bits)
    if store == "lut" and part.lut_ram:  # A LUT a bit for 16 words (64), and one behind it.
        return Needs(0, (ceil(words / 2**part.lut_inputs) + 1) * bits)
    return Needs(part.blocks_for(words, bits), 20 + (bits if store == "lut" else 0))

"""What memories need of a part."""

from dataclasses import dataclass
from math import ceil
from typing import Self

from brambling.boards.parts import Part

__all__ = ["Needs", "fifo", "lut_rom", "ram", "rom"]

#: By inputs of a LUT: words and bits of a LUT RAM, its cost, that of a block RAM, and that of a bit
#: of what stands around a block RAM.
LUT_RAM = {4: (16, 4, 4, 64, 1), 6: (64, 3, 8, 129, 0)}
SMALLEST = 128  #: Bits of a memory that is worth a block RAM, where LUTs cannot be one.
PER_WORD_OF_LUT = 1.15  #: LUTs of a bit of a memory in LUTs, by those that hold its contents.
PER_POINTER_BIT = 9  #: LUTs of a FIFO's control, by bits of its depth.
PER_CHOICE = 1.0  #: LUTs of a bit that choose between two of those.


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
    luts = ceil(words / 2**part.lut_inputs)
    return ceil(bits * (luts * PER_WORD_OF_LUT + (luts - 1) * PER_CHOICE))


def ram(part: Part, words: int, bits: int, store: str | None = None) -> Needs:
    """Estimate a memory that is written, in ``"lut"`` RAM or ``"block"`` RAM.

    ``None`` is what Yosys chooses: that of FIFOs, queues and buffers, which say nothing of it.
    """
    if words < 2 or (not part.lut_ram and words * bits < SMALLEST):  # Flip-flops.
        return Needs(0, words * bits)
    chosen = store or ("lut" if in_luts(part, words, bits) else "block")
    if chosen == "lut" and part.lut_ram:  # A LUT a bit for 16 words (64), and one behind it.
        return Needs(0, (ceil(words / 2**part.lut_inputs) + 1) * bits)
    return Needs(part.blocks_for(words, bits), 20 + (0 if store == "block" else bits))


def fifo(part: Part, depth: int, bits: int) -> Needs:
    """Estimate a FIFO: one beat is in a register; two pointers and a level."""
    return ram(part, depth - 1, bits) + Needs(0, PER_POINTER_BIT * depth.bit_length())


def in_luts(part: Part, words: int, bits: int) -> bool:
    """Whether Yosys puts a memory that says nothing of it into LUT RAM.

    The costs of its ``memory_libmap``, fitted to FIFOs of 24 sizes on ECP5 and 9 on 7 series.
    """
    deep, wide, cost, block, around = LUT_RAM[part.lut_inputs]
    luts = cost * ceil(words / deep) * ceil(bits / wide)
    return part.lut_ram and luts <= block * part.blocks_for(words, bits) + around * bits

"""What memories need of a part."""

from dataclasses import dataclass
from math import ceil, exp
from typing import Self

from brambling.boards.parts import SPRAM, Part
from brambling.plan import LEAST_FIFO

__all__ = ["Needs", "blocks", "fifo", "lut_rom", "queue", "ram", "rom"]

#: By inputs of a LUT: words and bits of a LUT RAM, its cost, that of a block RAM, and that of a bit
#: of what stands around a block RAM.
LUT_RAM = {4: (16, 4, 4, 64, 1), 6: (64, 3, 8, 129, 0)}
#: What a block costs to Yosys, by family and else, and a bit that chooses between two of them.
BLOCK_COSTS, BLOCK_COST, PER_BLOCK_CHOICE = {"gowin": 128, "xc7": 129}, 64, 0.5
SPARSE = "ice40"  #: Family in which a flip-flop without a LUT takes that of one.
SMALLEST = 128  #: Bits of a memory that is worth a block RAM, where LUTs cannot be one.
PER_WORD_OF_LUT = 1.15  #: LUTs of a bit of a memory in LUTs, by those that hold its contents.
PER_CHOICE = 1.0  #: LUTs of a bit that choose between two of those.
FEW_WORDS = 12  #: Of so few words many columns are alike, where they are many.
PER_RAM_CHOICE = 0.8  #: LUTs of a bit that choose between two rows of LUT RAM.
PER_RAM_ROW = 1.2  #: LUTs that decode the address of a row that is written.
#: LUTs of a bit of a RAM of flip-flops, by bits of its address.
PER_FLIP_FLOP, PER_FLIP_FLOP_LEVEL = 0.45, 0.2


@dataclass(frozen=True, slots=True)
class Needs:
    """Block RAMs (exact), LUTs (estimated), multipliers, and blocks of single-port RAM (exact)."""

    blocks: int = 0
    luts: int = 0
    dsps: int = 0
    sprams: int = 0

    def __add__(self, other: Self) -> Self:
        return type(self)(
            self.blocks + other.blocks,
            self.luts + other.luts,
            self.dsps + other.dsps,
            self.sprams + other.sprams,
        )

    def __mul__(self, times: int) -> Self:
        return type(self)(
            self.blocks * times, self.luts * times, self.dsps * times, self.sprams * times
        )


def rom(part: Part, store: str, words: int, bits: int) -> Needs:
    """Estimate a read-only memory, in ``"block"`` RAM, in ``"spram"`` or in LUTs."""
    if words == 1:
        return Needs()
    if store == "spram":
        return Needs(sprams=ceil(words / SPRAM[0]) * ceil(bits / SPRAM[1]))
    if store == "block":
        return Needs(blocks(part, words, bits))
    return Needs(0, lut_rom(part, words, bits))


def blocks(part: Part, words: int, bits: int, *, written: bool = False) -> int:
    """Block RAMs of ``words`` words of ``bits`` bits, all of the geometry that Yosys takes.

    Its ``memory_libmap`` also counts what chooses between blocks that lie one behind the other. In
    memories that are only read it puts such pieces side by side, and so fills every bit of a block;
    where one is ``written`` each piece has blocks of its own.
    """
    costs = []
    for deep, wide in part.geometries:
        pieces = -(-words // deep)
        count = pieces * -(-bits // wide) if written else -(-pieces * bits // wide)
        cost = BLOCK_COSTS.get(part.family, BLOCK_COST) * count
        costs.append((cost + PER_BLOCK_CHOICE * (pieces - 1) * bits, count))
    return min(costs)[1]


def lut_rom(part: Part, words: int, bits: int) -> int:
    """LUTs of a read-only memory in LUTs."""
    if words == 1:
        return 0
    if words <= FEW_WORDS:  # Columns that differ, of contents drawn at random.
        bits = ceil(2**words * (1 - exp(-bits / 2**words)))
    luts = ceil(words / 2**part.lut_inputs)
    return ceil(bits * (luts * PER_WORD_OF_LUT + (luts - 1) * PER_CHOICE))


def ram(part: Part, words: int, bits: int, store: str | None = None) -> Needs:
    """Estimate a memory that is written, in ``"lut"`` RAM or ``"block"`` RAM.

    ``None`` is what Yosys chooses: that of FIFOs, queues and buffers, which say nothing of it.
    """
    if words < 2 or (not part.lut_ram and words * bits < SMALLEST):
        return flip_flops(part, words, bits)
    chosen = store or ("lut" if in_luts(part, words, bits) else "block")
    if chosen == "lut" and part.lut_ram:
        return Needs(0, lut_ram(part, words, bits))
    return Needs(blocks(part, words, bits, written=True), 0 if store == "block" else bits)


def flip_flops(part: Part, words: int, bits: int) -> Needs:
    """Estimate a memory that is written, of flip-flops: their multiplexers, and what they take."""
    around = PER_FLIP_FLOP + PER_FLIP_FLOP_LEVEL * (words - 1).bit_length()
    return Needs(0, ceil(words * bits * (around + (part.family == SPARSE))))


def lut_ram(part: Part, words: int, bits: int) -> int:
    """LUTs of a RAM in LUTs: its rows, the choice between them, and their addresses."""
    deep, wide, cost, *_ = LUT_RAM[part.lut_inputs]
    rows = ceil(words / deep)
    each = cost if part.lut_inputs == 4 else wide + 1
    luts = each * rows * ceil(bits / wide)
    if rows > 1:
        luts += PER_RAM_CHOICE * (rows - 1) * bits + PER_RAM_ROW * rows
    return ceil(luts)


def fifo(part: Part, depth: int, bits: int) -> Needs:
    """Estimate a FIFO: one beat is in a register; two pointers and a level.

    Pointers of more than 4 bits are carry chains; those that do not wrap by themselves are
    compared.
    """
    level, words = depth.bit_length(), depth - 1
    if words <= 16:
        control = 5 * level + 1
    elif words & (words - 1):
        control = 6 * level + 30
    else:
        control = 8 * level - 6
    return ram(part, words, bits) + Needs(0, control)


def queue(part: Part, places: int, bits: int) -> Needs:
    """Estimate the queue behind an engine: a FIFO, and a counter of free places."""
    free = 2 * places.bit_length() - 1
    return fifo(part, max(places + 1, LEAST_FIFO), bits) + Needs(0, free)


def in_luts(part: Part, words: int, bits: int) -> bool:
    """Whether Yosys puts a memory that says nothing of it into LUT RAM.

    The costs of its ``memory_libmap``, fitted to FIFOs of 24 sizes on ECP5 and 9 on 7 series.
    """
    deep, wide, cost, block, around = LUT_RAM[part.lut_inputs]
    luts = cost * ceil(words / deep) * ceil(bits / wide)
    return part.lut_ram and luts <= block * blocks(part, words, bits, written=True) + around * bits

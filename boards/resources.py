"""What an engine needs of a part, estimated from its folding alone."""

from dataclasses import dataclass
from math import ceil
from typing import Self

from brambling.boards.parts import Part
from brambling.network import Thresholds
from brambling.plan import Stage, Step

__all__ = ["Needs", "needs"]

# LUTs per synapse and clock, of the popcount by itself: bench/results/popcount.md.
PER_SYNAPSE = {4: 2.4, 6: 1.7}


@dataclass(frozen=True, slots=True)
class Needs:
    """Block RAMs (exact) and LUTs (estimated)."""

    blocks: int = 0
    luts: int = 0

    def __add__(self, other: Self) -> Self:
        return type(self)(self.blocks + other.blocks, self.luts + other.luts)


def folds(step: Step, stage: Stage) -> tuple[int, int]:
    """Input beats of a vector, and output beats."""
    return -(-step.inputs // stage.simd), -(-step.outputs // stage.pe)


def interval(step: Step, stage: Stage) -> int:
    """Cycles from one frame to the next when nothing else limits."""
    beats, outs = folds(step, stage)
    return beats * outs if step.engine == "xnor" else max(beats, outs)


def needs(step: Step, stage: Stage, part: Part) -> Needs:
    """Estimate what the engine of ``step`` takes, its FIFO and queue included."""
    beats, outs = folds(step, stage)
    bits_in = stage.simd * (1 if step.engine == "xnor" else 8)
    queues = part_ram(part, stage.fifo, bits_in) + part_ram(part, stage.queue, stage.pe)
    if step.engine != "xnor":
        return queues + Needs(0, 30 + 12 * max(stage.pe, stage.simd))
    width = step.inputs.bit_length() + 1
    weights = memory(part, stage.weights, beats * outs, stage.pe * stage.simd)
    levels = any(isinstance(layer, Thresholds) for layer in step.layers)
    offsets = memory(part, stage.levels, outs, stage.pe * width) if levels and outs > 1 else Needs()
    buffer = part_ram(part, beats, stage.simd) if beats > 1 and outs > 1 else Needs()
    logic = ceil(stage.pe * stage.simd * PER_SYNAPSE[part.lut_inputs] + stage.pe * width * 2 + 60)
    return weights + offsets + buffer + queues + Needs(0, logic)


def memory(part: Part, store: str, words: int, bits: int) -> Needs:
    """Estimate a read-only memory."""
    if words == 1:
        return Needs()
    if store == "block":
        return Needs(part.blocks_for(words, bits), 0)
    return Needs(0, ceil(bits * ceil(words / 2**part.lut_inputs) * 1.15))


def part_ram(part: Part, words: int, bits: int) -> Needs:
    """Estimate a small memory that is written: LUT RAM, or else a block RAM."""
    if words < 2 or (not part.lut_ram and words * bits <= 128):  # Flip-flops.
        return Needs(0, words * bits)
    if part.lut_ram:  # Distributed RAM: 16 words of 2 bits (LUT4), 64 of 1 (LUT6), and its output.
        return Needs(0, ceil(words / 2**part.lut_inputs) * bits * 2 + 20)
    return Needs(part.blocks_for(words, bits), 20 + bits)

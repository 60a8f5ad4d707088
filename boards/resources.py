"""What an engine needs of a part, estimated from its folding alone."""

from dataclasses import dataclass
from math import ceil
from typing import Self

from brambling.boards.parts import Part
from brambling.network import Thresholds
from brambling.plan import Stage, Step

__all__ = ["Needs", "needs"]

# Fitted to synthesis of single engines for ECP5 (bench/results/resources.json), where they are
# within 11 %; of the other families only the match counters were measured.
PER_SYNAPSE = {4: 1.65, 6: 1.4}  #: LUTs by inputs of a LUT, per synapse and clock.
PER_ACCUMULATOR_BIT = 1.75  #: Adder, multiplexer, and up to 16 offsets to start from.
PER_LANE = 1.0  #: Input register, and the count that all PEs share.
PER_ENGINE = 60  #: Sequencer, queue control.


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
    offsets = Needs()
    if levels and (outs > 16 or stage.levels == "block"):
        offsets = memory(part, stage.levels, outs, stage.pe * width)
    buffer = part_ram(part, beats, stage.simd) if beats > 1 and outs > 1 else Needs()
    logic = (
        stage.pe * stage.simd * PER_SYNAPSE[part.lut_inputs]
        + stage.pe * width * PER_ACCUMULATOR_BIT
        + stage.simd * PER_LANE
        + PER_ENGINE
    )
    return weights + offsets + buffer + queues + Needs(0, ceil(logic))


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
    if part.lut_ram:  # A LUT a bit for 16 words (LUT4) or 64 (LUT6), and one behind it.
        return Needs(0, (ceil(words / 2**part.lut_inputs) + 1) * bits)
    return Needs(part.blocks_for(words, bits), 20 + bits)

"""What an engine needs of a part, estimated from its folding alone."""

from dataclasses import dataclass
from functools import cached_property
from math import ceil

from brambling.boards.lines import LineBuffer
from brambling.boards.memories import Needs, fifo, lut_rom, ram, rom
from brambling.boards.parts import Part
from brambling.layers import Conv, Requantise, Table, Thresholds
from brambling.layers.image import Window
from brambling.layers.product import Product
from brambling.plan import Stage, Step
from brambling.quant.formats import Bipolar, Fixed, Format, Ternary
from brambling.steps import Runs, bordered

__all__ = ["Engine", "Needs", "interval", "needs"]

# Fitted to synthesis of single engines for ECP5, which bench/results/resources.md has beside the
# estimates; of the other families only the match counters were measured.
PER_SYNAPSE = {4: 1.65, 6: 1.4}  #: LUTs by inputs of a LUT, per synapse and clock.
PER_ACCUMULATOR_BIT = 1.75  #: Adder, multiplexer, and up to 16 offsets to start from.
PER_GATED_BIT = 1.85  #: AND and adder, per bit of a product of numbers of several bits.
PER_ADDED_BIT = 1.0  #: Adders and comparators, per bit of the result.
PER_LANE = 1.0  #: Input register, and the count that all PEs share.
PER_ENGINE = 60  #: Sequencer, queue control.
PER_PORT = 30  #: Control of an engine that takes a beat in every cycle.
PARALLEL = 3  #: Levels up to which all are compared at a time.
FACTOR = 18  #: Bits of a factor in the narrowest multiplier of the supported parts, signed.


def interval(step: Step, stage: Stage) -> int:
    """Cycles from one frame to the next when nothing else limits.

    A line buffer takes however many pixels the engine before brings: at least one a beat.
    """
    pixels = 1 if step.window else stage.pixels
    slots = step.runs(stage.pe, stage.simd, stage.pixels).cycles
    return max(slots, step.arrival(stage.simd, pixels))


def needs(step: Step, stage: Stage, part: Part, pixels: int | None = None) -> Needs:
    """Estimate what the engine of ``step`` takes, its FIFOs and queue included.

    ``pixels`` is what its first input brings at a time; ``None``: 1 to a line buffer, else as many
    as the engine has itself.
    """
    return Engine(step, part).needs(stage, pixels)


@dataclass(frozen=True)
class Engine:
    """A step on a part, whose foldings are to be estimated."""

    step: Step
    part: Part

    @cached_property
    def window(self) -> Window | None:
        """The window that slides over the input."""
        return self.step.window

    @cached_property
    def width(self) -> int:
        """Bits of an accumulator; without one, of the result."""
        if self.fused:
            return self.product.matrix.shape[1].bit_length() + 1
        return self.step.result.fmt.width

    @cached_property
    def fused(self) -> bool:
        """Whether thresholds follow in the same engine."""
        return len(self.step.layers) > 1

    @cached_property
    def product(self) -> Product:
        """The layer with the weights."""
        layer = self.step.layers[0]
        assert isinstance(layer, Product)
        return layer

    @cached_property
    def term(self) -> Fixed:
        """Format of one product."""
        x, w = self.step.x.fmt, self.product.fmt
        factors = [a * b for a in (x.min, x.max) for b in (w.min, w.max)]
        return Fixed.spanning(min(factors), max(factors))

    @cached_property
    def corrections(self) -> int:
        """Different corrections of an output for zeros around a bipolar image; 0: no such zeros."""
        layer = self.step.layers[0]
        if not bordered(layer, self.step.x):
            return 0
        assert isinstance(layer, Conv)
        rows, columns, _ = self.step.result.shape
        return min(rows, 1 + sum(layer.padding[:2])) * min(columns, 1 + sum(layer.padding[2:]))

    def needs(self, stage: Stage, pixels: int | None = None, runs: Runs | None = None) -> Needs:
        """Estimate a folding; ``pixels`` as in :func:`needs`, ``runs`` where they are known."""
        step, part = self.step, self.part
        if pixels is None or not self.window:
            pixels = 1 if self.window else stage.pixels
        runs = runs or step.runs(stage.pe, stage.simd, stage.pixels)
        codes, width = stage.pe * stage.pixels, step.result.fmt.width
        total = self._queues(stage, pixels)
        if self.window:
            lines = LineBuffer.of(step, self.window, stage, pixels)
            total += lines.needs(part, stage.lines)
        match step.engine:
            case "xnor" | "product":
                return total + self._matrix(stage, runs)
            case "depthwise":
                words = runs.chunks * runs.beats
                total += rom(part, stage.weights, words, stage.pe * self.product.fmt.width)
                total += self._products(stage.style, 1, 1) * codes
                return total + logic(codes * width * PER_ACCUMULATOR_BIT + PER_ENGINE)
            case "thresholds":
                return total + self._thresholds(stage)
            case "requantise":
                return total + self._requantise(stage)
            case "table":
                layer = step.layers[0]
                assert isinstance(layer, Table)
                words = rom(part, stage.levels, len(layer.entries), width)
                return total + words * codes + logic(PER_PORT)
            case "pool":
                return total + logic(PER_PORT + codes * 2 * width * PER_ADDED_BIT)
            case "add":
                added = (len(step.sources) - 1) * codes * (width + 1)
                return total + logic(PER_PORT + added * PER_ADDED_BIT)
            case "concat":
                return total + logic(PER_PORT + len(step.sources) * codes * width / 2)
            case "argmax":  # Index and value of the best, and of each candidate.
                bits = 2 * (step.x.fmt.width + step.inputs.bit_length())
                return total + logic(PER_PORT + stage.simd * bits * PER_ADDED_BIT)
        return total + logic(PER_PORT)

    def _queues(self, stage: Stage, pixels: int) -> Needs:
        """Estimate FIFOs in front, and the queue behind."""
        total = Needs()
        if self.step.engine != "slice":
            bits = stage.pe * stage.pixels * self.step.result.fmt.width
            total = ram(self.part, stage.queue, bits)
        for depth, tensor in zip(stage.fifo, self.step.tensors, strict=False):
            if depth:
                total += fifo(self.part, depth, stage.simd * pixels * tensor.fmt.width)
        return total

    def _matrix(self, stage: Stage, runs: Runs) -> Needs:
        """Estimate a matrix-vector unit, without its line buffer."""
        part, pe, simd = self.part, stage.pe, stage.simd
        codes, lanes = pe * stage.pixels, simd * stage.pixels * self.step.x.fmt.width
        rows = runs.chunks * runs.folds
        total = rom(part, stage.weights, rows * runs.beats, pe * simd * self.product.fmt.width)
        if self.fused and (rows > 16 or stage.levels == "block"):
            total += rom(part, stage.levels, rows, pe * self.width)
        if not self.window and runs.beats > 1 and runs.folds > 1:  # To replay the vector.
            total += ram(part, runs.beats, lanes)
        luts = codes * self.width * PER_ACCUMULATOR_BIT + lanes * PER_LANE + PER_ENGINE
        if self.corrections:
            luts += 2 * codes * self.width * PER_ADDED_BIT + PER_PORT
            luts += lut_rom(part, self.corrections * rows, pe * self.width)
        if self.step.engine == "xnor":
            luts += codes * simd * PER_SYNAPSE[part.lut_inputs]
        else:
            total += self._products(stage.style, pe, simd) * stage.pixels
        return total + logic(luts)

    def _products(self, style: str, pe: int, simd: int) -> Needs:
        """Estimate sums of ``simd`` products for each of ``pe`` rows of weights."""
        x, w, width, count = self.step.x.fmt, self.product.fmt, self.term.width, pe * simd
        tree = pe * (simd - 1) * (width + 1) * PER_ADDED_BIT
        if style == "dsp":  # Products of several rows side by side, and what one takes of another.
            factor = max(2, w.width) + (not w.signed)
            shared = max(1, min(pe, (FACTOR - factor) // width + 1))
            correct = count * width * PER_ADDED_BIT if shared > 1 else 0
            return Needs(0, ceil(tree + correct), -(-pe // shared) * simd)
        if style == "planes":
            planes = x.width * w.width
            sums = pe * planes * (simd.bit_length() + 1) * PER_ADDED_BIT
            return logic(count * planes * PER_SYNAPSE[self.part.lut_inputs] + sums)
        return logic(tree + count * gates(x, w, width) * PER_ADDED_BIT)

    def _thresholds(self, stage: Stage) -> Needs:
        """Estimate comparators with all levels at a time, or a search, one for each bit."""
        layer = self.step.layers[0]
        assert isinstance(layer, Thresholds)
        rows, count = layer.levels.shape
        codes = stage.pe * stage.pixels
        words = -(-self.step.inputs // stage.simd) if rows > 1 else 1
        width = self.step.x.fmt.width + bool(layer.falling.any())
        total = logic(PER_PORT)
        if count <= PARALLEL:
            levels = lut_rom(self.part, words, count * width) * stage.simd
            return total + logic(codes * count * (width + 1) * PER_ADDED_BIT + levels)
        for bit in range(count.bit_length()):
            bounds = rom(self.part, stage.levels, words << bit, width)
            total += (bounds + logic((width + 1) * PER_ADDED_BIT)) * codes
        return total

    def _requantise(self, stage: Stage) -> Needs:
        """Estimate multiplier, adder, and saturation."""
        layer = self.step.layers[0]
        assert isinstance(layer, Requantise)
        codes, x, result = stage.pe * stage.pixels, self.step.x.fmt, self.step.result.fmt
        factor = Fixed.spanning(int(layer.multiplier.min()), int(layer.multiplier.max()))
        bias = Fixed.spanning(int(layer.bias.min()), int(layer.bias.max()))
        width = max(x.width + factor.width, bias.width)
        each, dsps = width + 2 * result.width, 0
        if layer.slope != (1, 1):
            each += 2 * width
        if self.multiplies and stage.style == "dsp":
            small, large = sorted((x.width, factor.width))
            wide, narrow = self.part.multiplier
            dsps = -(-large // wide) * -(-small // narrow)
        elif self.multiplies:
            each += (factor.width - 1) * (x.width + 1) * PER_GATED_BIT
        bits = bias.width * (len(layer.bias) > 1) + factor.width * (len(layer.multiplier) > 1)
        words = lut_rom(self.part, -(-self.step.inputs // stage.simd), bits) * stage.simd
        return logic(PER_PORT + codes * each * PER_ADDED_BIT + words) + Needs(0, 0, dsps * codes)

    @cached_property
    def multiplies(self) -> bool:
        """Whether it requantises by what is no power of two, or not the same in all channels."""
        layer = self.step.layers[0]
        if not isinstance(layer, Requantise):
            return False
        factors = set(layer.multiplier.tolist())
        return len(factors) > 1 or abs(factors.pop()).bit_count() > 1


def logic(luts: float) -> Needs:
    """LUTs only."""
    return Needs(0, ceil(luts))


def gates(x: Format, w: Format, width: int) -> int:
    """Bits that are added, or negated, to multiply in LUTs."""
    if w in {Bipolar(), Ternary()} or x == Bipolar():
        return width
    least, most = sorted((x.width, w.width))
    return ceil(((least - 1) * (most + 1) + least) * PER_GATED_BIT)

"""What an engine needs of a part, estimated from its folding alone."""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import ceil

from brambling.boards.lines import LineBuffer
from brambling.boards.memories import Needs, fifo, lut_rom, queue, ram, rom
from brambling.boards.parts import Part
from brambling.hw.popcount import MatchBankSpec
from brambling.layers import Conv, Pool, Requantise, Table, Thresholds
from brambling.layers.image import Window
from brambling.layers.product import Product
from brambling.plan import Stage, Step
from brambling.quant.formats import Bipolar, Fixed, Format, Ternary
from brambling.steps import Runs, bordered

__all__ = ["Engine", "Needs", "interval", "needs", "seen_bits"]

# Fitted to synthesis of whole designs of the sample, part by part: bench/designs.py.
PER_MATCH = {4: 0.95, 6: 0.81}  #: By inputs of a LUT: of what match counters take of 4 inputs.
PER_ACCUMULATOR_BIT = 1.9  #: Adder and multiplexer.
PER_GATED_BIT = 1.85  #: AND and adder, per bit of a product of numbers of several bits.
PER_SCALED_BIT = 2.1  #: The same where both numbers come anew with each code.
PER_ADDED_BIT = 1.0  #: Adders and comparators, per bit of the result.
PER_COUNTER_BIT = 3.7  #: Counters of beats and of words, by bits of each.
PER_ROW_BIT = 2.5  #: A counter of rows of parameters, by its bits.
PER_LEVELS = 22  #: Control of an engine whose levels are compared.
PER_PORT = 4  #: Control of an engine that takes a beat in every cycle.
PER_RESULT = 4  #: Control of accumulators.
# On iCE40 a flip-flop that no LUT is in front of takes a logic cell.
LONE = "ice40"  #: The family.
PER_LONE = 45  #: Such flip-flops of an engine beside those of its operands.
PER_PARAMETER = 1.3  #: Of what the parameters of channels would take by themselves.
STARTED = (Bipolar(), Ternary())  #: Weights whose products have a part that depends on them alone.
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
        if not self.fused:
            return self.step.result.fmt.width
        layer = self.step.layers[1]
        assert isinstance(layer, Thresholds)
        # Matches that are counted, less those that make a +1: as the hardware has it.
        elements = self.product.matrix.shape[1]
        wanted = layer.levels[:, 0].clip(-elements - 2, elements + 2) + layer.falling
        needed = (-(-(wanted + elements) // 2)).clip(0, elements + 1)
        lowest = min(-1, -int(needed.max()))
        return Fixed.spanning(lowest, elements - int(needed.min())).width

    @cached_property
    def starts(self) -> bool:
        """Whether accumulators start where the row of weights says, and not all at 0."""
        return self.fused or self.step.engine == "xnor" or self.product.fmt in STARTED

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
                weights = stage.pe * self.product.fmt.width
                total += rom(part, stage.weights, runs.chunks * runs.beats, weights)
                total += self._products(stage.style, 1, 1) * codes
                total += self._sums(stage, codes, runs.chunks)
                return total + self._lone(weights + codes * step.x.fmt.width)
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
                layer = step.layers[0]
                each = 1.6 if isinstance(layer, Pool) and layer.kind == "max" else 2
                return total + logic(PER_PORT + codes * each * width)
            case "add":
                added = (len(step.sources) - 1) * codes * (width + 1)
                return total + logic(PER_PORT + added * PER_ADDED_BIT)
            case "concat":
                return total + logic(PER_PORT + len(step.sources) * codes * width / 2)
            case "argmax":  # Best so far; of each further lane value and index.
                x = step.x.fmt.width
                lanes = (stage.simd - 1) * (2 * x + 6)
                return total + logic(12 + 2.2 * x + lanes)
        return total + logic(PER_PORT)

    def _queues(self, stage: Stage, pixels: int) -> Needs:
        """Estimate FIFOs in front, and the queue behind; a beat has a bit more than its codes."""
        total = self._lone(0)
        if self.step.engine != "slice":
            bits = stage.pe * stage.pixels * self.step.result.fmt.width
            total += queue(self.part, stage.queue, bits + 1)
        for depth, tensor in zip(stage.fifo, self.step.tensors, strict=False):
            if depth:
                total += fifo(self.part, depth, stage.simd * pixels * tensor.fmt.width + 1)
        return total

    def _lone(self, bits: int) -> Needs:
        """Estimate registers that no logic is in front of: of operands, and of control."""
        if self.part.family != LONE:
            return Needs()
        return logic(bits or PER_LONE)

    def _matrix(self, stage: Stage, runs: Runs) -> Needs:
        """Estimate a matrix-vector unit, without its line buffer."""
        part, pe, simd = self.part, stage.pe, stage.simd
        codes, lanes = pe * stage.pixels, simd * stage.pixels * self.step.x.fmt.width
        rows, weights = runs.chunks * runs.folds, pe * simd * self.product.fmt.width
        total = rom(part, stage.weights, rows * runs.beats, weights) + self._lone(weights + lanes)
        if not self.window:
            total += self._stream(stage, runs, lanes)
        total += self._sums(stage, codes, rows)
        if self.corrections:
            luts = 2 * codes * self.width * PER_ADDED_BIT + PER_RESULT
            total += logic(luts + lut_rom(part, self.corrections * rows, pe * self.width))
        if self.step.engine == "xnor":
            return total + logic(matches(simd, pe) * stage.pixels * PER_MATCH[part.lut_inputs])
        return total + self._products(stage.style, pe, simd) * stage.pixels

    def _stream(self, stage: Stage, runs: Runs, lanes: int) -> Needs:
        """Estimate counters, idle lanes, and what replays a vector to several folds."""
        counters = (runs.beats - 1).bit_length() + (runs.beats * runs.folds - 1).bit_length()
        idle = (-self.step.inputs % stage.simd) * lanes // stage.simd
        total = logic(counters * PER_COUNTER_BIT + idle)
        if runs.beats > 1 and runs.folds > 1:
            total += ram(self.part, runs.beats, lanes) + logic(lanes)
        return total

    def _sums(self, stage: Stage, codes: int, rows: int) -> Needs:
        """Estimate accumulators, and where they start."""
        total = logic(codes * self.width * PER_ACCUMULATOR_BIT + PER_RESULT)
        if not self.starts or rows == 1:
            return total
        bits = stage.pe * (self.width + self.fused)
        total += rom(self.part, stage.levels, rows, bits)
        return total + logic(PER_ROW_BIT * (rows - 1).bit_length())

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
            each = matches(simd, pe) * PER_MATCH[self.part.lut_inputs]
            return logic(each * planes + sums)
        return logic(tree + count * gates(x, w, width) * PER_ADDED_BIT)

    def _thresholds(self, stage: Stage) -> Needs:
        """Estimate comparators with all levels at a time, or a search, one for each bit."""
        layer = self.step.layers[0]
        assert isinstance(layer, Thresholds)
        rows, count = layer.levels.shape
        codes = stage.pe * stage.pixels
        words = -(-self.step.inputs // stage.simd) if rows > 1 else 1
        width = self.step.x.fmt.width + bool(layer.falling.any())
        total = logic(PER_LEVELS)
        if rows == 1 and count <= PARALLEL:
            return total + logic(codes * count * (seen_bits(self.step) - 1))
        if count <= PARALLEL:
            levels = lut_rom(self.part, words, count * width * stage.simd)
            return total + logic(codes * count * (self.step.x.fmt.width + 2) + levels)
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
        if not self.multiplies:
            width = x.width
        each, dsps = width + 2 * result.width, 0
        if layer.slope != (1, 1):
            each += 2 * width
        if self.multiplies and stage.style == "dsp":
            small, large = sorted((x.width, factor.width))
            wide, narrow = self.part.multiplier
            dsps = -(-large // wide) * -(-small // narrow)
            each += 8
        elif self.multiplies:
            each += (factor.width - 1) * (x.width + 1) * PER_SCALED_BIT
        bits = bias.width * (len(layer.bias) > 1) + factor.width * (len(layer.multiplier) > 1)
        rows = -(-self.step.inputs // stage.simd) if bits else 1
        words = lut_rom(self.part, rows, bits * stage.simd) * PER_PARAMETER
        control = PER_ROW_BIT * (rows - 1).bit_length()
        return logic(control + codes * each + words) + Needs(0, 0, dsps * codes)

    @cached_property
    def multiplies(self) -> bool:
        """Whether it requantises by what is no power of two, or not the same in all channels."""
        layer = self.step.layers[0]
        if not isinstance(layer, Requantise):
            return False
        factors = set(layer.multiplier.tolist())
        return len(factors) > 1 or abs(factors.pop()).bit_count() > 1


@lru_cache(maxsize=1 << 14)
def matches(lanes: int, pe: int) -> int:
    """LUTs of 4 inputs that count the matches of a word with ``pe`` words."""
    bank = MatchBankSpec(lanes, pe)
    luts = (bank.pe + 1) * bank.pairs
    for adders in bank.reduction:
        luts += 2 * (pe + 1) * sum(map(sum, adders))
    for adders in bank.merge:
        luts += 2 * pe * sum(map(sum, adders))
    return luts + pe * bank.width + bank.pairs.bit_length()


def seen_bits(step: Step) -> int:
    """Bits of a code at the input that an engine looks at.

    Compared with the same level in all channels: those from the lowest one of the level upwards.
    """
    layer, width = step.layers[0], step.x.fmt.width
    if not isinstance(layer, Thresholds) or len(layer.levels) > 1:
        return width
    levels = layer.levels[0] + layer.falling[0]  # x <= T is not x >= T + 1.
    return max(width + 1 - (int(level) & -int(level)).bit_length() for level in levels)


def logic(luts: float) -> Needs:
    """LUTs only."""
    return Needs(0, ceil(luts))


def gates(x: Format, w: Format, width: int) -> int:
    """Bits that are added, or negated, to multiply in LUTs."""
    if w in {Bipolar(), Ternary()} or x == Bipolar():
        return width
    least, most = sorted((x.width, w.width))
    return ceil(((least - 1) * (most + 1) + least) * PER_GATED_BIT)

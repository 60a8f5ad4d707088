"""Matrix-vector unit: binary weights from block RAM, XNOR, popcount, accumulate, threshold."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from numpy.typing import NDArray

from brambling.errors import ConfigError
from brambling.hw.beat import Beats
from brambling.hw.counter import below
from brambling.hw.popcount import MatchBankSpec
from brambling.hw.queue import Queue
from brambling.hw.rom import rom
from brambling.quant.formats import Bipolar, Fixed
from brambling.timing import Timing

__all__ = ["XnorMvu", "XnorMvuSpec"]


@dataclass(frozen=True, eq=False, kw_only=True)
class XnorMvuSpec:
    """Product of a bipolar matrix with bipolar vectors; then, if ``levels``, one threshold each.

    ``pe`` outputs by ``simd`` inputs a cycle (the names of Umuroglu et al., "FINN", 2017, section
    4.2); neither need divide its size, the rest of the last group is idle. Fold ``f`` makes the
    outputs from ``f * pe``, and in it beat ``s`` takes the inputs from ``s * simd``.

    Parameters
    ----------
    weights
        Codes -1 and +1, ``(outputs, inputs)``.
    pe, simd
        Outputs and inputs a cycle.
    levels, falling
        ``(outputs,)``: +1 where the product reaches the level, or, where ``falling``, does not
        exceed it; else -1. ``None``: the products themselves are the result.
    weight_store, level_store
        Memory of the weights, and of the levels: ``"block"`` or ``"lut"``.
    queue
        Places in the output queue; ``None`` is the fewest that keep the full rate.
    """

    weights: NDArray[np.int8]
    pe: int
    simd: int
    levels: NDArray[np.int64] | None = None
    falling: NDArray[np.bool_] | None = None
    weight_store: str = "block"
    level_store: str = "lut"
    queue: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.pe <= self.outputs:
            raise ConfigError(f"pe must be 1 to {self.outputs}, not {self.pe}")
        if not 1 <= self.simd <= self.inputs:
            raise ConfigError(f"simd must be 1 to {self.inputs}, not {self.simd}")

    @property
    def outputs(self) -> int:
        return self.weights.shape[0]

    @property
    def inputs(self) -> int:
        return self.weights.shape[1]

    @property
    def i(self) -> Beats:
        return Beats(Bipolar(), self.inputs, self.simd)

    @property
    def o(self) -> Beats:
        if self.levels is None:
            return Beats(Fixed.spanning(-self.inputs, self.inputs), self.outputs, self.pe)
        return Beats(Bipolar(), self.outputs, self.pe)

    @property
    def accumulators(self) -> Beats:
        """The final accumulators as beats; they do not leave the unit but to be observed."""
        return Beats(Fixed(self.inputs.bit_length() + 1), self.outputs, self.pe)

    @property
    def bank(self) -> MatchBankSpec:
        """The match counters of all PEs."""
        return MatchBankSpec(self.simd, self.pe)

    @property
    def timing(self) -> Timing:
        # Memory, register behind it, popcount, accumulator.
        return Timing(self.i.count, self.o.count, latency=3 + self.bank.latency)

    @property
    def depth(self) -> int:
        """Places in the output queue."""
        return self.timing.queue if self.queue is None else self.queue

    def reference(self, x: NDArray) -> NDArray[np.int64]:
        """Golden result: codes ``(n, inputs)`` to codes ``(n, outputs)``."""
        products = x.astype(np.int64) @ self.weights.T.astype(np.int64)
        if self.levels is None:
            return products
        rising = products >= self.levels
        falls = np.zeros(self.outputs, bool) if self.falling is None else self.falling
        return np.where(np.where(falls, products <= self.levels, rising), 1, -1)

    # Contents of the memories ------------------------------------------------------------------

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """Minus the matches at which the accumulator of each output is to be 0, ``(outputs,)``.

        ``m`` matches are a product of ``2 m - inputs``. The accumulator ends at the matches minus
        those that a level needs, so that its sign is the comparison; without levels minus half the
        inputs, so that it is half the product.
        """
        if self.levels is None:
            return np.full(self.outputs, -self.inputs // 2, np.int64)
        falls = np.zeros(self.outputs, bool) if self.falling is None else self.falling
        # x <= T is not x >= T + 1.
        levels = np.clip(self.levels, -self.inputs - 2, self.inputs + 2)
        needed = -((-(levels + falls) - self.inputs) // 2)
        return -np.clip(needed, 0, self.inputs + 1)

    def products_of(self, accumulators: NDArray[np.int64]) -> NDArray[np.int64]:
        """Products that final accumulators ``(n, outputs)`` stand for."""
        return 2 * (accumulators - self.offsets) - self.inputs

    @cached_property
    def _slots(self) -> NDArray[np.bool_]:
        """Weights by slot, ``(folds, beats, pe, simd)``; +1 is 1, idle is 1."""
        folds, beats = self.o.count, self.i.count
        bits = np.ones((folds * self.pe, beats * self.simd), bool)
        bits[: self.outputs, : self.inputs] = self.weights > 0
        return bits.reshape(folds, self.pe, beats, self.simd).swapaxes(1, 2)

    def weight_words(self) -> list[int]:
        """Memory contents: word ``f * beats + s``, coded as :class:`MatchBankSpec` says."""
        coded = self.bank.encode(self._slots)
        packed = np.packbits(coded.reshape(-1, coded.shape[-1]), axis=1, bitorder="little")
        return [int.from_bytes(row.tobytes(), "little") for row in packed]

    def offset_words(self) -> list[int]:
        """Memory contents: word ``f``; PE 0 lowest, each its start and, above, its inversion.

        The match counters count too much by what depends on the weights alone: start lower.
        """
        width = self.accumulators.fmt.width
        starts = -self.bank.excess(self._slots).sum(axis=1).reshape(-1)
        starts[: self.outputs] += self.offsets
        words = starts & ((1 << width) - 1)
        if self.falling is not None:
            words[: self.outputs] |= self.falling.astype(np.int64) << width
        stride = width + (self.falling is not None)
        return [
            sum(int(word) << n * stride for n, word in enumerate(row))
            for row in words.reshape(-1, self.pe)
        ]

    def build(self) -> "XnorMvu":
        return XnorMvu(self)


class Sequencer(wiring.Component):
    """Which beat of which fold is issued, and whether one is issued at all.

    In fold 0 a slot needs an input beat; the slot that completes a fold needs room in the queue. An
    input beat marked ``first`` starts a frame whatever came before.

    Members
    -------
    go : ``Out(1)``
        A slot is issued in this cycle.
    fresh, start, last : ``Out(1)``
        It takes an input beat; it is the first, the last of its fold.
    beat : ``Out(below(beats))``, word : ``Out(below(beats * folds))``
        Its place in the vector, and in the weight memory.
    """

    def __init__(self, timing: Timing) -> None:
        self.timing = timing
        super().__init__({
            "i_valid": In(1),
            "i_first": In(1),
            "room": In(1),
            "go": Out(1),
            "fresh": Out(1),
            "start": Out(1),
            "last": Out(1),
            "beat": Out(below(timing.beats)),
            "word": Out(below(timing.interval)),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        beats, words = self.timing.beats, self.timing.interval

        next_beat = Signal.like(self.beat)
        next_word = Signal.like(self.word)
        fresh = Signal(init=1)
        restart = fresh & self.i_first
        m.d.comb += [
            self.fresh.eq(fresh),
            self.beat.eq(Mux(restart, 0, next_beat)),
            self.word.eq(Mux(restart, 0, next_word)),
            self.start.eq(self.beat == 0),
            self.last.eq(self.beat == beats - 1),
            self.go.eq((self.i_valid | ~fresh) & (self.room | ~self.last)),
        ]
        with m.If(self.go):
            end = self.word == words - 1
            m.d.sync += [
                next_beat.eq(Mux(self.last, 0, self.beat + 1)),
                next_word.eq(Mux(end, 0, self.word + 1)),
            ]
            with m.If(self.last):
                m.d.sync += fresh.eq(end)
        return m


class XnorMvu(wiring.Component):
    """Streaming form of :class:`XnorMvuSpec`.

    One slot (``pe`` by ``simd``) a cycle; see :attr:`XnorMvuSpec.timing`. The vector is taken
    during fold 0 and replayed from a buffer for the others.

    Members
    -------
    i : ``In(spec.i.signature)``
    o : ``Out(spec.o.signature)``
    products : ``Out(spec.accumulators.tap)``
        The final accumulators as they are made, for observation; :meth:`XnorMvuSpec.products_of`.
    """

    i: stream.Interface
    o: stream.Interface
    products: Any

    def __init__(self, spec: XnorMvuSpec) -> None:
        self.spec = spec
        super().__init__({
            "i": In(spec.i.signature),
            "o": Out(spec.o.signature),
            "products": Out(spec.accumulators.tap),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        spec = self.spec
        m.submodules.sequencer = slot = Sequencer(spec.timing)
        m.submodules.queue = queue = Queue(spec.o.layout, spec.depth)
        connect(m, queue.o, flipped(self.o))
        m.d.comb += [
            slot.i_valid.eq(self.i.valid),
            slot.i_first.eq(self.i.payload.first),
            slot.room.eq(queue.room),
            # Ready says what `go` says but for the beat itself: valid may not wait for ready, the
            # other way round is allowed.
            self.i.ready.eq(slot.fresh & (queue.room | ~slot.last)),
            queue.reserve.eq(slot.go & slot.last),
        ]

        # Cycle 1: both memories answer. Cycle 2: registers behind them.
        words = spec.weight_words()
        width = spec.pe * spec.simd
        m.submodules.popcount = bank = spec.bank.build()
        weights = rom(m, "weights", words, width, slot.word, spec.weight_store)
        x = Signal(spec.simd)
        w = Signal(width)
        m.d.sync += [x.eq(self._vector(m, slot)), w.eq(weights)]
        m.d.comb += [bank.x.eq(x), bank.w.eq(w)]

        # Cycle 2 + popcount: every PE adds its matches to what it has. Sums may wrap on the way:
        # the last one is in range.
        lag = 2 + spec.bank.latency
        valid = delay(m, "valid", slot.go, lag)
        start = delay(m, "start", slot.start, lag)
        last_early = delay(m, "last", slot.go & slot.last, lag - 1)
        last = delay(m, "result", last_early, 1)
        offsets = self._offsets(m, last_early)
        for n in range(spec.pe):
            accumulator = spec.accumulators.lane(self.products.payload.data, n)
            base = Mux(start, offsets[n][: len(accumulator)].as_signed(), accumulator)
            with m.If(valid):
                m.d.sync += accumulator.eq(base + bank.o[n])

        # One more: the result is complete.
        write = delay(m, "write", last, 1)
        m.d.comb += [self.products.valid.eq(write), queue.write.eq(write)]
        self._result(m, queue, offsets, write)
        assert lag + 1 == spec.timing.latency
        return m

    def _vector(self, m: Module, slot: Sequencer) -> Value:
        """Input beat one cycle after its slot: taken from the stream, or from the buffer."""
        spec = self.spec
        beat = Signal(spec.simd)
        m.d.comb += beat.eq(self.i.payload.data)
        if spec.i.tail < spec.simd:  # Idle inputs are 0; idle weights are 1: they never match.
            with m.If(slot.last):
                m.d.comb += beat.eq(self.i.payload.data[: spec.i.tail])
        taken = Signal(spec.simd)
        with m.If(slot.fresh):
            m.d.sync += taken.eq(beat)
        if spec.i.count == 1 or spec.o.count == 1:
            return taken

        m.submodules.buffer = cells = memory.Memory(shape=spec.simd, depth=spec.i.count, init=[])
        write, read = cells.write_port(), cells.read_port()
        fresh = Signal()
        m.d.sync += fresh.eq(slot.fresh)
        m.d.comb += [
            write.addr.eq(slot.beat),
            write.data.eq(beat),
            write.en.eq(slot.go & slot.fresh),
            read.addr.eq(slot.beat),
            read.en.eq(~slot.fresh),
        ]
        return Mux(fresh, taken, read.data)

    def _offsets(self, m: Module, last_early: Value) -> list[Value]:
        """Offset (and inversion) of each PE in the cycle in which it accumulates."""
        spec = self.spec
        words = spec.offset_words()
        row = Signal(below(len(words)))
        with m.If(last_early):
            m.d.sync += row.eq(Mux(row == len(words) - 1, 0, row + 1))
        stride = spec.accumulators.fmt.width + (spec.falling is not None)
        word = rom(m, "levels", words, stride * spec.pe, row, spec.level_store)
        return [word[n * stride : (n + 1) * stride] for n in range(spec.pe)]

    def _result(self, m: Module, queue: Queue, offsets: list[Value], write: Value) -> None:
        spec = self.spec
        done = Signal(below(spec.o.count))
        with m.If(write):
            m.d.sync += done.eq(Mux(done == spec.o.count - 1, 0, done + 1))
        m.d.comb += [
            self.products.payload.first.eq(done == 0),
            queue.result.first.eq(done == 0),
        ]
        for n in range(spec.pe):
            accumulator = spec.accumulators.lane(self.products.payload.data, n)
            result = spec.o.lane(queue.result.data, n)
            if spec.levels is None:
                odd = Const(spec.inputs & 1, 1)
                m.d.comb += result.eq(Cat(odd, accumulator).as_signed())
            else:
                bit = ~accumulator[-1]
                if spec.falling is not None:
                    invert = Signal(name=f"invert{n}")
                    m.d.sync += invert.eq(offsets[n][-1])
                    bit ^= invert
                m.d.comb += result.eq(bit)


def delay(m: Module, name: str, value: Value, edges: int) -> Value:
    """Add ``edges`` registers behind ``value``."""
    for n in range(edges):
        register = Signal.like(value, name=f"{name}_{n + 1}")
        m.d.sync += register.eq(value)
        value = register
    return value

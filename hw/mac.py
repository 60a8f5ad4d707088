"""Multiply and accumulate: weights from memory, products, sums; then a threshold, or none."""

from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any, Protocol

import numpy as np
from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from numpy.typing import NDArray

from brambling.errors import ConfigError
from brambling.hw.beat import Beats
from brambling.hw.counter import below
from brambling.hw.feed import Feed, FeedSpec
from brambling.hw.products import STYLES
from brambling.hw.queue import Queue
from brambling.hw.rom import filled, filling, rom
from brambling.quant.formats import Bipolar, Fixed, Format
from brambling.timing import Timing

__all__ = ["XNOR", "BankSpec", "Mac", "MacSpec"]

XNOR = "xnor"  #: Style of bipolar inputs and weights: planes of one bit each.


class BankSpec(Protocol):
    """What an engine needs to know of its multipliers; see :class:`ProductBankSpec`."""

    @property
    def gain(self) -> int:
        """Twice what 1 in a result stands for."""
        ...

    @property
    def width(self) -> int:
        """Bits of a word of weights."""
        ...

    @property
    def latency(self) -> int:
        """Clock edges from operands to results."""
        ...

    def excess(self, w: NDArray) -> NDArray[np.int64]:
        """By how much ``gain`` times a result exceeds twice the sum; codes ``(..., simd)``."""
        ...

    def encode(self, w: NDArray) -> NDArray[np.bool_]:
        """Weights of slots to words, bool ``(..., width)``."""
        ...

    def build(self) -> Any:
        """Make the hardware: inputs ``x`` and ``w``, outputs ``o``."""
        ...


@dataclass(frozen=True, eq=False, kw_only=True)
class MacSpec:
    """What matrix-vector and depthwise units share: runs of slots, each run a beat of sums.

    With ``levels``, results are +1 where the sum reaches the level, or, where ``falling``, does not
    exceed it, else -1; the comparison is the sign of the accumulator. Without, they are the sums.

    Accumulators start where the excess of the bank, the products of idle lanes and the level leave
    them at 0 or above exactly for a +1; in between they may wrap.

    Parameters
    ----------
    feed
        Where the operands come from.
    weights
        Codes; see the subclass.
    fmt
        Format of the weights.
    style
        One of the bank's, or ``"xnor"`` where inputs and weights are bipolar.
    levels, falling
        ``(channels,)`` of the result.
    weight_store, level_store
        Memory of the weights, and of the levels: ``"block"`` or ``"lut"``; of the weights also
        ``"spram"``, see :meth:`build`.
    queue
        Places in the output queue; ``None`` is the fewest that keep the full rate.
    """

    feed: FeedSpec
    weights: NDArray[np.int8 | np.int16]
    fmt: Format
    style: str
    levels: NDArray[np.int64] | None = None
    falling: NDArray[np.bool_] | None = None
    weight_store: str = "block"
    level_store: str = "lut"
    queue: int | None = None

    def __post_init__(self) -> None:
        if self.style not in (*STYLES, XNOR):
            known = ", ".join((*STYLES, XNOR))
            raise ConfigError(f"style must be one of {known}, not {self.style!r}")
        if self.style == XNOR and not self.feed.i.fmt == self.fmt == Bipolar():
            raise ConfigError(
                f"style 'xnor' needs bipolar inputs and weights, not {self.feed.i.fmt} and "
                f"{self.fmt}: use {', '.join(STYLES)}"
            )

    # What a subclass knows -----------------------------------------------------------------------

    @property
    def lanes(self) -> int:
        """Sums of a run, at each of the feed's places."""
        raise NotImplementedError

    @property
    def channels(self) -> int:
        """Sums of a position."""
        raise NotImplementedError

    @property
    def elements(self) -> int:
        """Products in a sum."""
        raise NotImplementedError

    @property
    def bank(self) -> BankSpec:
        """The multipliers of one place."""
        raise NotImplementedError

    def _placed(self, values: NDArray, idle: int) -> NDArray:
        """Weights ``(chunks, folds, beats, lanes, simd of a lane)``; ``idle`` where none are."""
        raise NotImplementedError

    def _sums(self, x: NDArray) -> NDArray[np.int64]:
        """Return the sums, ``(n, groups of positions, chunks, folds, lanes, pixels)``."""
        raise NotImplementedError

    # Streams and time ----------------------------------------------------------------------------

    @property
    def i(self) -> Beats:
        return self.feed.i

    @property
    def o(self) -> Beats:
        low, high = self.bounds
        frac = self.feed.i.fmt.frac + self.fmt.frac
        sums = Fixed.spanning(int(low.min()), int(high.max()), frac)
        return self._beats(sums if self.levels is None else Bipolar())

    def _beats(self, fmt: Format) -> Beats:
        feed = self.feed
        return Beats(fmt, self.channels, self.lanes, feed.rows, feed.columns, feed.pixels)

    @cached_property
    def accumulators(self) -> Beats:
        """The final accumulators as beats; they do not leave the unit but to be observed."""
        low, high = self._units(np.stack(self.bounds)) - self.needed
        lowest = int(low.min()) if self.levels is None else min(-1, int(low.min()))
        return self._beats(Fixed.spanning(lowest, int(high.max())))

    @property
    def timing(self) -> Timing:
        # Feed, register behind it, multipliers, accumulator.
        feed = self.feed
        return Timing(feed.beats, feed.folds, latency=feed.lag + self.bank.latency + 2)

    @property
    def depth(self) -> int:
        """Places in the output queue."""
        return self.timing.queue if self.queue is None else self.queue

    # Values --------------------------------------------------------------------------------------

    def reference(self, x: NDArray) -> NDArray[np.int64]:
        """Golden result: codes ``(n, i.size)`` to codes ``(n, o.size)``."""
        o = self.o
        sums = self._sums(x)
        count = len(sums)
        sums = sums.reshape(count, o.rows, o.steps, o.groups * o.lanes, o.pixels)
        sums = sums.swapaxes(3, 4).reshape(count, o.rows, o.steps * o.pixels, -1)
        sums = sums[:, :, : o.columns, : o.elements]
        if self.levels is not None:
            reached = np.where(self._falls, sums <= self.levels, sums >= self.levels)
            sums = np.where(reached, 1, -1)
        return sums.reshape(count, o.size)

    @cached_property
    def bounds(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Smallest and largest sum of each channel over every possible input, ``(channels,)``."""
        w = self._placed(self.weights.astype(np.int64), 0)
        x = self.feed.i.fmt
        positive = self._channels(np.maximum(w, 0).sum(axis=(2, 4)))
        negative = self._channels(np.minimum(w, 0).sum(axis=(2, 4)))
        return positive * x.min + negative * x.max, positive * x.max + negative * x.min

    def products_of(self, accumulators: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the sums that final accumulators ``(n, o.size)`` stand for."""
        rows = accumulators.reshape(-1, self.channels) + self.needed
        return ((self.bank.gain * rows + self._rest) // 2).reshape(accumulators.shape)

    def accumulators_of(self, sums: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the inverse of :meth:`products_of`."""
        rows = self._units(sums.reshape(-1, self.channels)) - self.needed
        return rows.reshape(sums.shape)

    def _units(self, sums: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return what an accumulator without a level would hold."""
        return (2 * sums - self._rest) // self.bank.gain

    @property
    def _rest(self) -> int:
        """Twice the sum, modulo the gain: sums of an odd number of ±1 are odd."""
        return 2 * (self.elements % 2) if self.bank.gain == 4 else 0

    @property
    def _falls(self) -> NDArray[np.bool_]:
        return np.zeros(self.channels, bool) if self.falling is None else self.falling

    @cached_property
    def needed(self) -> NDArray[np.int64]:
        """What an accumulator without a level holds, at least, for a +1, ``(channels,)``."""
        if self.levels is None:
            return np.zeros(self.channels, np.int64)
        low, high = self.bounds
        # x <= T is not x >= T + 1.
        levels = np.clip(self.levels, low - 2, high + 2) + self._falls
        needed = -((self._rest - 2 * levels) // self.bank.gain)
        return np.clip(needed, self._units(low), self._units(high) + 1)

    # Contents of the memories --------------------------------------------------------------------

    def _channels(self, lanes: NDArray) -> NDArray:
        """Values of lanes ``(chunks, folds, lanes)`` by channel: only the last lanes are idle."""
        return lanes.reshape(-1)[: self.channels]

    def _lanes(self, channels: NDArray) -> NDArray:
        """Inverse of :meth:`_channels`; 0 in idle lanes."""
        shape = self.feed.chunks, self.feed.folds, self.lanes
        return np.pad(channels, (0, prod(shape) - self.channels)).reshape(shape)

    @cached_property
    def _slots(self) -> NDArray:
        """Weights of all slots, as :meth:`_placed`; idle ones are +1 if they must be ±1."""
        return self._placed(self.weights, int(self.fmt == Bipolar()))

    @property
    def weight_depth(self) -> int:
        """Words of weights: slots of a frame's positions, all of which read the same ones."""
        return self.feed.chunks * self.feed.folds * self.feed.beats

    @property
    def loads(self) -> bool:
        """Whether the weights are in a memory that has no contents until it is filled."""
        return self.weight_store == "spram" and self.weight_depth > 1

    def weight_words(self) -> list[int]:
        """Memory contents: the word of each slot, coded as the bank says."""
        coded = self.bank.encode(self._slots).reshape(-1, self.bank.width)
        packed = np.packbits(coded, axis=1, bitorder="little")
        return [int.from_bytes(row.tobytes(), "little") for row in packed]

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """Where accumulators start, ``(chunks, folds, lanes)``."""
        slots, real = self._slots, self._placed(self.weights, 0)
        excess = self.bank.excess(slots).sum(axis=2)
        idle = slots.sum(axis=(2, 4), dtype=np.int64) - real.sum(axis=(2, 4), dtype=np.int64)
        excess += 2 * int(self.feed.i.fmt.from_bits(0)) * idle + self._rest
        return -excess // self.bank.gain - self._lanes(self.needed)

    def start_words(self) -> list[int]:
        """Memory contents: word of each run, lane 0 lowest: its start and, above, its inversion."""
        width = self.accumulators.fmt.width
        words = self.starts & ((1 << width) - 1)
        if self.falling is not None:
            words |= self._lanes(self.falling).astype(np.int64) << width
        return [
            sum(int(word) << n * self.start_stride for n, word in enumerate(row))
            for row in words.reshape(-1, self.lanes)
        ]

    @property
    def start_stride(self) -> int:
        """Bits of a start and its inversion."""
        return self.accumulators.fmt.width + (self.falling is not None)

    def build(self, *, load: bool = False) -> "Mac":
        """Make the hardware; ``load``: weights in SPRAM are not there before they are filled in.

        Once they are, both are the same in every cycle.
        """
        return Mac(self, load=load)


class Mac(wiring.Component):
    """Streaming form of :class:`MacSpec`: one slot a cycle; see :attr:`MacSpec.timing`.

    Members
    -------
    i : ``In(spec.i.signature)``
    o : ``Out(spec.o.signature)``
    products : ``Out(spec.accumulators.tap)``
        The final accumulators as they are made, for observation; :meth:`MacSpec.products_of`.
    load : ``In(filling(spec.weight_depth, spec.bank.width))``
        Only with ``load``, of a spec that :attr:`MacSpec.loads`. Meanwhile nothing may be fed.
    """

    i: stream.Interface
    o: stream.Interface
    products: Any
    load: Any

    def __init__(self, spec: MacSpec, *, load: bool = False) -> None:
        self.spec = spec
        self.fills = load and spec.loads
        members = {
            "i": In(spec.i.signature),
            "o": Out(spec.o.signature),
            "products": Out(spec.accumulators.tap),
        }
        if self.fills:
            members["load"] = In(filling(spec.weight_depth, spec.bank.width))
        super().__init__(members)

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        spec = self.spec
        m.submodules.feed = feed = spec.feed.build()
        m.submodules.queue = queue = Queue(spec.o.layout, spec.depth)
        connect(m, flipped(self.i), feed.i)
        connect(m, queue.o, flipped(self.o))
        m.d.comb += [feed.room.eq(queue.room), queue.reserve.eq(feed.go & feed.last)]
        sums = self._multiply(m, feed)

        # Every lane adds what its multipliers give to what it has. The last sum is in range.
        lag = spec.feed.lag + 1 + spec.bank.latency
        valid = delay(m, "valid", feed.go, lag)
        start = delay(m, "start", feed.start, lag) if spec.feed.beats > 1 else Const(1, 1)
        last_early = delay(m, "last", feed.go & feed.last, lag - 1)
        last = delay(m, "result", last_early, 1)
        frame = delay(m, "frame", feed.go & feed.start & feed.frame, lag - 2)
        starts = self._starts(m, last_early, frame)
        for n in range(spec.lanes):
            for place in range(spec.feed.pixels):
                accumulator = spec.accumulators.lane(self.products.payload.data, n, place)
                base = Mux(start, starts[n][: len(accumulator)], accumulator.as_unsigned())
                with m.If(valid):
                    m.d.sync += accumulator.eq(base + sums[place][n])

        # One more: the result is complete.
        write = delay(m, "write", last, 1)
        first = delay(m, "first", feed.frame, lag + 1)
        m.d.comb += [
            self.products.valid.eq(write),
            self.products.payload.first.eq(first),
            queue.write.eq(write),
            queue.result.first.eq(first),
        ]
        self._result(m, queue, starts)
        assert lag + 1 == spec.timing.latency
        return m

    def _multiply(self, m: Module, feed: Feed) -> list[Any]:
        """Results of the multipliers of each place."""
        spec = self.spec
        # The memory answers with the feed; registers behind both.
        bits = spec.bank.width
        address = delay(m, "word", feed.word, spec.feed.lag - 1)
        if self.fills:
            weights = filled(m, "weights", spec.weight_depth, bits, address, self.load)
        else:
            weights = rom(m, "weights", spec.weight_words(), bits, address, spec.weight_store)
        w = Signal(bits)
        x = Signal(len(feed.x))
        m.d.sync += [w.eq(weights), x.eq(feed.x)]

        pixels, width = spec.feed.pixels, spec.feed.i.fmt.width
        results = []
        for place in range(pixels):
            m.submodules[f"bank{place}"] = bank = spec.bank.build()
            codes = [x[(n * pixels + place) * width :][:width] for n in range(spec.feed.simd)]
            m.d.comb += [bank.x.eq(Cat(*codes)), bank.w.eq(w)]
            results.append(bank.o)
        return results

    def _starts(self, m: Module, last_early: Value, frame: Value) -> list[Value]:
        """Start (and inversion) of each lane in the cycle in which it accumulates.

        ``last_early`` is one cycle ahead, ``frame``, the first slot of a frame, two: what is left
        of an unfinished frame before it does not count.
        """
        spec = self.spec
        words, stride = spec.start_words(), spec.start_stride
        row = Signal(below(len(words)))
        with m.If(last_early):
            m.d.sync += row.eq(Mux(row == len(words) - 1, 0, row + 1))
        with m.If(frame):
            m.d.sync += row.eq(0)
        word = rom(m, "levels", words, stride * spec.lanes, row, spec.level_store)
        return [word[n * stride : (n + 1) * stride] for n in range(spec.lanes)]

    def _result(self, m: Module, queue: Queue, starts: list[Value]) -> None:
        spec = self.spec
        for n in range(spec.lanes):
            invert = Signal(name=f"invert{n}")
            if spec.falling is not None:
                m.d.sync += invert.eq(starts[n][-1])
            for place in range(spec.feed.pixels):
                accumulator = spec.accumulators.lane(self.products.payload.data, n, place)
                result = spec.o.lane(queue.result.data, n, place)
                if spec.levels is not None:
                    m.d.comb += result.eq(~accumulator[-1] ^ invert)
                elif spec.bank.gain == 4:
                    odd = Const(spec.elements & 1, 1)
                    m.d.comb += result.eq(Cat(odd, accumulator).as_signed())
                else:
                    m.d.comb += result.eq(accumulator.shift_right(2 - spec.bank.gain))


def delay(m: Module, name: str, value: Value, edges: int) -> Value:
    """Add ``edges`` registers behind ``value``."""
    for n in range(edges):
        register = Signal.like(value, name=f"{name}_{n + 1}")
        m.d.sync += register.eq(value)
        value = register
    return value

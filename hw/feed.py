"""Feeds: where an engine's operands come from, and in which cycle it works on them.

A *slot* is one cycle's work: ``simd`` channels of ``pixels`` neighbours. The work of a frame is,
for each group of positions (row by row, ``pixels`` neighbours in a row), for each *chunk* of the
channels, for each *fold* (one beat of results), ``beats`` slots, which are a *run*. A chunk is what
one result depends on: all channels, or those of one group of a grouped convolution, or one group of
lanes.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out
from numpy.typing import NDArray

from brambling.errors import ConfigError
from brambling.hw.beat import Beats
from brambling.hw.counter import below

__all__ = ["Feed", "FeedSpec", "StreamFeed", "StreamFeedSpec", "check_chunks"]


class FeedSpec(Protocol):
    """What an engine needs to know of its feed."""

    @property
    def i(self) -> Beats:
        """Input beats."""
        ...

    @property
    def elements(self) -> int:
        """Channels that a position sees."""
        ...

    @property
    def pixels(self) -> int:
        """Neighbouring positions of a slot."""
        ...

    @property
    def simd(self) -> int:
        """Channels of a slot."""
        ...

    @property
    def rows(self) -> int:
        """Rows of positions in a frame."""
        ...

    @property
    def columns(self) -> int:
        """Positions in a row."""
        ...

    @property
    def chunks(self) -> int:
        """Parts of the channels that are worked on one after the other."""
        ...

    @property
    def folds(self) -> int:
        """Runs of a chunk."""
        ...

    @property
    def beats(self) -> int:
        """Slots of a run."""
        ...

    @property
    def lag(self) -> int:
        """Clock edges from a slot's ``go`` to its operands."""
        ...

    def operands(self, x: NDArray) -> NDArray[np.int64]:
        """Codes of the slots of frames ``x`` ``(n, i.size)``.

        ``(n, groups of positions, chunks, beats, simd, pixels)``; each fold of a chunk has the
        same. Idle lanes have the code whose bits are all 0; idle places carry no meaning.
        """
        ...

    def build(self) -> "Feed":
        """Make the hardware."""
        ...


def check_chunks(i: Beats, chunks: int, folds: int) -> None:
    """Refuse chunks that do not begin with an input beat, and no folds."""
    if folds < 1:
        raise ConfigError(f"folds must be at least 1, not {folds}")
    each, rest = divmod(i.elements, max(chunks, 1))
    if chunks < 1 or (chunks != i.groups and (rest or (chunks > 1 and each % i.lanes))):
        raise ConfigError(
            f"chunks of {i.elements} channels must begin with a beat of {i.lanes} lanes, "
            f"{chunks} chunks do not: use lanes that divide a chunk"
        )


class Feed(wiring.Component):
    """A source of operands.

    A slot is issued when its operands are there and, if it completes a run, the engine's queue has
    room for the result: ``go & last`` takes the place.

    Members
    -------
    i : ``In(spec.i.signature)``
    room : ``In(1)``
        The output queue has room.
    go : ``Out(1)``
        A slot is issued in this cycle.
    start, last : ``Out(1)``
        It is the first, the last of its run.
    frame : ``Out(1)``
        Its run is the first of a frame.
    word : ``Out(below(chunks * folds * beats))``
        Its number among those of its group of positions: the address of its weights.
    x : ``Out(simd * pixels * width)``
        Its operands, ``spec.lag`` edges later, with the layout of :class:`Beats`.
    """

    i: stream.Interface
    room: Signal
    go: Signal
    start: Signal
    last: Signal
    frame: Signal
    word: Signal
    x: Signal

    def __init__(self, spec: FeedSpec) -> None:
        super().__init__({
            "i": In(spec.i.signature),
            "room": In(1),
            "go": Out(1),
            "start": Out(1),
            "last": Out(1),
            "frame": Out(1),
            "word": Out(below(spec.chunks * spec.folds * spec.beats)),
            "x": Out(spec.simd * spec.pixels * spec.i.fmt.width),
        })

    def elaborate(self, platform: Any) -> Module:
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class StreamFeedSpec:
    """Operands straight from the stream: each input beat is a slot of fold 0.

    For vectors, and for convolutions that see one pixel at a time: every group of positions is a
    vector of its own. In fold 0 each beat is used as it comes, for the other folds it is replayed
    from a buffer.

    Parameters
    ----------
    i
        Input beats; ``simd`` and ``pixels`` are theirs.
    folds
        Runs of each chunk.
    chunks
        Parts of the channels; each begins with a beat.
    """

    i: Beats
    folds: int
    chunks: int = 1

    lag = 1

    def __post_init__(self) -> None:
        check_chunks(self.i, self.chunks, self.folds)

    @property
    def elements(self) -> int:
        return self.i.elements

    @property
    def pixels(self) -> int:
        return self.i.pixels

    @property
    def simd(self) -> int:
        return self.i.lanes

    @property
    def rows(self) -> int:
        return self.i.rows

    @property
    def columns(self) -> int:
        return self.i.columns

    @property
    def beats(self) -> int:
        """Slots of a run."""
        return self.i.groups // self.chunks

    def operands(self, x: NDArray) -> NDArray[np.int64]:
        """See :meth:`FeedSpec.operands`."""
        i = self.i
        codes = np.asarray(x, np.int64).reshape(-1, i.rows, i.columns, i.elements)
        spare = i.steps * i.pixels - i.columns, i.groups * i.lanes - i.elements
        idle = int(i.fmt.from_bits(0))
        codes = np.pad(codes, ((0, 0), (0, 0), (0, spare[0]), (0, spare[1])), constant_values=idle)
        codes = codes.reshape(-1, i.rows * i.steps, i.pixels, self.chunks, self.beats, i.lanes)
        return codes.transpose(0, 1, 3, 4, 5, 2)

    def build(self) -> "StreamFeed":
        return StreamFeed(self)


class StreamFeed(Feed):
    """Streaming form of :class:`StreamFeedSpec`: operands one edge after the slot.

    In fold 0 a slot needs an input beat. An input beat marked ``first`` starts a frame whatever
    came before.
    """

    def __init__(self, spec: StreamFeedSpec) -> None:
        self.spec = spec
        super().__init__(spec)

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        spec = self.spec
        words = spec.chunks * spec.folds * spec.beats
        fresh = Signal(init=1)  # This is fold 0.
        beat, next_beat = Signal(below(spec.beats)), Signal(below(spec.beats))
        next_word = Signal.like(self.word)
        began = Signal()  # A beat marked `first` was in this run.
        restart = fresh & self.i.payload.first
        allowed = self.room | ~self.last
        m.d.comb += [
            beat.eq(Mux(restart, 0, next_beat)),
            self.word.eq(Mux(restart, 0, next_word)),
            self.start.eq(beat == 0),
            self.last.eq(beat == spec.beats - 1),
            self.frame.eq(restart | began),
            self.go.eq((self.i.valid | ~fresh) & allowed),
            # Ready says what `go` says but for the beat itself: valid may not wait for ready, the
            # other way round is allowed.
            self.i.ready.eq(fresh & allowed),
        ]
        with m.If(self.go):
            m.d.sync += [
                next_beat.eq(Mux(self.last, 0, beat + 1)),
                next_word.eq(Mux(self.word == words - 1, 0, self.word + 1)),
                began.eq(self.frame & ~self.last),
            ]
            with m.If(self.last):
                m.d.sync += fresh.eq(self._ends(m))
        m.d.comb += self.x.eq(self._vector(m, fresh, beat))
        return m

    def _ends(self, m: Module) -> Value:
        """Whether the run of this slot, its last, is the last one of its chunk."""
        spec = self.spec
        if spec.chunks == 1:
            return self.word == spec.folds * spec.beats - 1
        if spec.folds == 1:
            return Value.cast(1)
        # An unfinished frame can only be restarted in fold 0: the folds need no restart.
        fold = Signal(below(spec.folds))
        ends = fold == spec.folds - 1
        with m.If(self.go & self.last):
            m.d.sync += fold.eq(Mux(ends, 0, fold + 1))
        return ends

    def _vector(self, m: Module, fresh: Value, beat: Value) -> Value:
        """Operands one cycle after their slot: taken from the stream, or from the buffer."""
        spec = self.spec
        data = self.i.payload.data
        codes = Signal(len(self.x))
        m.d.comb += codes.eq(data)
        if spec.i.tail < spec.simd:  # Idle lanes are 0, whatever the beat has there.
            used = spec.i.tail * spec.pixels * spec.i.fmt.width
            final = (spec.chunks - 1) * spec.folds * spec.beats + spec.beats - 1
            with m.If(self.last if spec.chunks == 1 else self.word == final):
                m.d.comb += codes.eq(data[:used])
        taken = Signal.like(codes)
        with m.If(fresh):
            m.d.sync += taken.eq(codes)
        if spec.beats == 1 or spec.folds == 1:
            return taken

        cells = memory.Memory(shape=len(codes), depth=spec.beats, init=[])
        m.submodules.buffer = cells
        write, read = cells.write_port(), cells.read_port()
        was_fresh = Signal()
        m.d.sync += was_fresh.eq(fresh)
        m.d.comb += [
            write.addr.eq(beat),
            write.data.eq(codes),
            write.en.eq(self.go & fresh),
            read.addr.eq(beat),
            read.en.eq(~fresh),
        ]
        return Mux(was_fresh, taken, read.data)

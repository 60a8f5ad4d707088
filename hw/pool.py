"""Pooling: the largest or the sum of each channel over a window."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from numpy.typing import NDArray

from brambling.errors import ConfigError
from brambling.hw.beat import Beats
from brambling.hw.elementwise import number
from brambling.hw.feed import FeedSpec
from brambling.hw.pipe import Pipe
from brambling.hw.queue import Queue
from brambling.hw.window import WindowFeedSpec
from brambling.quant.formats import Bipolar, Format
from brambling.timing import Timing

__all__ = ["Pool", "PoolSpec"]

KINDS = ("max", "sum")


@dataclass(frozen=True, eq=False, kw_only=True)
class PoolSpec:
    """Largest or sum of the slots of each run, lane by lane and place by place.

    The feed's chunks are the groups of lanes, and the slots of a run the pixels of a window.
    Padding must not matter: the feed's pad value is the smallest code for ``"max"`` and 0 for
    ``"sum"``; a bipolar sum is never padded. An average over ``2**n`` pixels is a sum whose target
    has ``n`` fractional bits more.

    Parameters
    ----------
    feed
        One fold; as many chunks as groups of lanes.
    kind
        ``"max"`` or ``"sum"``.
    target
        Format of the result: the feed's for ``"max"``; holds every sum for ``"sum"``.
    queue
        Places in the output queue; ``None`` is the fewest that keep the full rate.
    """

    feed: FeedSpec
    kind: str
    target: Format
    queue: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"kind must be one of {', '.join(KINDS)}, not {self.kind!r}")
        feed, source, target = self.feed, self.feed.i.fmt, self.target
        groups = -(-feed.elements // feed.simd)
        if feed.folds != 1 or feed.chunks != groups:
            raise ConfigError(
                f"the feed of a pool of {groups} groups of lanes must have 1 fold and {groups} "
                f"chunks, not {feed.folds} and {feed.chunks}"
            )
        if self.kind == "max" and target != source:
            raise ConfigError(f"target of a max must be {source}, as its source, not {target}")
        low, high = feed.beats * source.min, feed.beats * source.max
        if self.kind == "sum" and not target.min <= low <= high <= target.max:
            raise ConfigError(f"target must hold {low} to {high}, {target} does not")
        if isinstance(feed, WindowFeedSpec) and any(feed.window.padding):
            self._check_padding(feed.pad_value)

    def _check_padding(self, pad: int) -> None:
        source = self.feed.i.fmt
        if self.kind == "sum" and source == Bipolar():
            raise ConfigError("a bipolar sum must not be padded, no bipolar code is 0")
        neutral = source.min if self.kind == "max" else 0
        if pad != neutral:
            raise ConfigError(
                f"pad value of a {self.kind} of {source} must be {neutral}, not {pad}"
            )

    @property
    def i(self) -> Beats:
        return self.feed.i

    @property
    def operands(self) -> Beats:
        """The operands of a slot, as beats."""
        feed = self.feed
        return Beats(feed.i.fmt, feed.elements, feed.simd, feed.rows, feed.columns, feed.pixels)

    @property
    def o(self) -> Beats:
        feed = self.feed
        return Beats(self.target, feed.elements, feed.simd, feed.rows, feed.columns, feed.pixels)

    @property
    def timing(self) -> Timing:
        # The feed, accumulator.
        return Timing(self.feed.beats, 1, latency=self.feed.lag + 1)

    @property
    def depth(self) -> int:
        """Places in the output queue."""
        return self.timing.queue if self.queue is None else self.queue

    def reference(self, x: NDArray) -> NDArray[np.int64]:
        """Golden result: codes ``(n, i.size)`` to codes ``(n, o.size)``."""
        slots = self.feed.operands(x)
        results = slots.max(axis=3) if self.kind == "max" else slots.sum(axis=3)
        o = self.o
        results = results.reshape(-1, o.rows, o.steps, o.groups, o.lanes, o.pixels)
        results = results.transpose(0, 1, 2, 5, 3, 4)
        results = results.reshape(-1, o.rows, o.steps * o.pixels, o.groups * o.lanes)
        return results[:, :, : o.columns, : o.elements].reshape(-1, o.size)

    def build(self) -> "Pool":
        return Pool(self)


class Pool(wiring.Component):
    """Streaming form of :class:`PoolSpec`: one slot a cycle; see :attr:`PoolSpec.timing`.

    Members
    -------
    i : ``In(spec.i.signature)``
    o : ``Out(spec.o.signature)``
    """

    i: stream.Interface
    o: stream.Interface

    def __init__(self, spec: PoolSpec) -> None:
        self.spec = spec
        super().__init__({"i": In(spec.i.signature), "o": Out(spec.o.signature)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        spec = self.spec
        m.submodules.feed = feed = spec.feed.build()
        m.submodules.queue = queue = Queue(spec.o.layout, spec.depth)
        connect(m, flipped(self.i), feed.i)
        connect(m, queue.o, flipped(self.o))
        m.d.comb += [feed.room.eq(queue.room), queue.reserve.eq(feed.go & feed.last)]

        # Cycle `lag`: the operands.
        pipe = Pipe(m)
        valid, start, last, frame = feed.go, feed.start, feed.go & feed.last, feed.frame
        for _ in range(spec.feed.lag):
            valid, start, last, frame = pipe.stage(valid=valid, start=start, last=last, frame=frame)

        # One more: the result so far, which is the result behind the last slot.
        best = Signal(spec.o.width - 1)
        for n in range(spec.o.lanes):
            for place in range(spec.o.pixels):
                so_far = spec.o.lane(best, n, place)
                with m.If(valid):
                    m.d.sync += so_far.eq(self._next(feed.x, start, so_far, n, place))
        write, first = pipe.stage(write=last, first=frame)
        m.d.comb += [
            queue.write.eq(write),
            queue.result.data.eq(best),
            queue.result.first.eq(first),
        ]
        assert pipe.depth == spec.timing.latency
        return m

    def _next(self, x: Value, start: Value, so_far: Value, n: int, place: int) -> Value:
        """Return the result so far with the operand of this slot."""
        spec = self.spec
        code = spec.operands.lane(x, n, place)
        if spec.kind == "sum":
            return Mux(start, 0, so_far) + number(spec.feed.i.fmt, code)
        # Of bipolar codes too: the bit of +1 is the larger one.
        return Mux(start | (code > so_far), code, so_far)

"""The cycle model a frame at a time: the processes of :mod:`brambling.sim.cycles`, on arrays.

Each time is a maximum over earlier times plus constants, so the times of a frame are the only
solution of a system of equations, if they have one (Baccelli et al., "Synchronization and
Linearity", 1992, section 2.5). It is solved by iteration: every component computes all its times of
the frame from what its neighbours said last, and what changes is passed on, until nothing does.
Frames before are settled by then, since no beat waits for one of a later frame.

A frame takes a sweep or two for each engine that holds up those in front of it, so this is much
faster than beat by beat for large frames; but where beats of two components wait for each other in
turn, each of them takes a sweep, and where they wait for each other for good there is no end.
"""

from collections.abc import Callable, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np

from brambling.hw.accelerator import Node
from brambling.hw.fork import ForkSpec
from brambling.hw.join import AddSpec, ConcatSpec
from brambling.hw.queue import FifoSpec
from brambling.hw.slice import SliceSpec
from brambling.hw.width import WidthAdapterSpec, dependences
from brambling.hw.window import WindowFeedSpec
from brambling.sim.tracks import (
    NEVER,
    FramePart,
    Queue,
    Queued,
    Record,
    Times,
    Track,
    after,
    chain,
    shifted,
)
from brambling.sim.wiring import Wiring
from brambling.timing import Timing

__all__ = ["FrameModel", "Unsettled"]

SWEEPS = 32  #: After which beat by beat is faster, or the beats wait for each other for good.
LONG_AGO = -(1 << 60)  #: Holds up nothing.


class Unsettled(Exception):
    """A frame takes more sweeps than it may."""


class Source(FramePart):
    """Offers beats, beginning to offer one only in allowed cycles; ``None``: in all."""

    def __init__(self, o: Track, allowed: Callable[[int], int] | None = None) -> None:
        self.o, self.allowed = o, allowed
        self.moved = Record(o.count)
        self.records = (self.moved,)

    def solve(self, frame: int) -> bool:
        before, wanted = self.moved.last(frame), self.o.readies
        if self.allowed is None:
            moved = chain(wanted, np.arange(1, len(wanted) + 1), before)
            self.o.offer(frame, shifted(moved, before) + 1)
        else:
            offers, times = [], []
            for ready in wanted.tolist():
                offers.append(self.allowed(before + 1))
                before = max(offers[-1], ready)
                times.append(before)
            moved = np.array(times, np.int64)
            self.o.offer(frame, np.array(offers, np.int64))
        self.moved.put(frame, moved)
        return False


class Sink(FramePart):
    """Takes every beat that comes."""

    def __init__(self, i: Track) -> None:
        self.i = i

    def solve(self, frame: int) -> bool:
        self.i.want(frame, self.i.offers)
        return False


class Fifo(FramePart):
    """A buffered FIFO; see :class:`brambling.sim.processes.FifoProcess`."""

    def __init__(self, i: Track, o: Track, capacity: int) -> None:
        self.i, self.capacity = i, capacity
        self.queue = Queue(o, capacity)
        self.records = (self.queue,)
        self.steps = np.arange(1, i.count + 1)

    @property
    def writes(self) -> Times:
        return self.queue.written.times

    @property
    def reads(self) -> Times:
        return self.queue.read.times

    def solve(self, frame: int) -> bool:
        read, before = self.queue.read, self.queue.written.last(frame)
        room = after(read.times, read.span(frame), self.capacity)
        taken = chain(np.maximum(self.i.offers, room), self.steps, before)
        self.i.want(frame, np.maximum(shifted(taken, before) + 1, room))
        return self.queue.write(frame, taken)


class Engine(Queued):
    """Anything that keeps a :class:`Timing` and ends in a queue."""

    def __init__(self, i: Track, o: Track, timing: Timing, depth: int) -> None:
        self.i, self.timing = i, timing
        self.queue = Queue(o, depth)
        self.vectors = i.count // timing.beats
        steps = np.ones((self.vectors, timing.beats + timing.folds - 1), np.int64)
        steps[:, timing.beats :] = timing.beats  # What is repeated takes as long as its input.
        self.steps = steps.cumsum()
        self.slots = Record(steps.size)
        self.records = (self.queue, self.slots)

    def solve(self, frame: int) -> bool:
        beats, folds, vectors = self.timing.beats, self.timing.folds, self.vectors
        room = self.queue.room(frame).reshape(vectors, folds)
        bounds = np.empty((vectors, beats + folds - 1), np.int64)
        bounds[:, :beats] = self.i.offers.reshape(vectors, beats)
        np.maximum(bounds[:, beats - 1], room[:, 0], out=bounds[:, beats - 1])
        bounds[:, beats:] = room[:, 1:]
        before = self.slots.last(frame)
        slots = chain(bounds.reshape(-1), self.steps, before)
        self.slots.put(frame, slots)
        wanted = shifted(slots, before).reshape(bounds.shape)[:, :beats] + 1
        np.maximum(wanted[:, -1], room[:, 0], out=wanted[:, -1])
        self.i.want(frame, wanted.reshape(-1))
        written = slots.reshape(bounds.shape)[:, beats - 1 :].reshape(-1) + self.timing.latency
        return self.queue.write(frame, written)


class Window(Queued):
    """An engine behind a line buffer; see :class:`brambling.sim.window.WindowProcess`."""

    def __init__(self, i: Track, o: Track, feed: WindowFeedSpec, latency: int, depth: int) -> None:
        self.i, self.feed, self.latency = i, feed, latency
        self.queue = Queue(o, depth)
        self.needs = np.asarray(feed.need)
        self.runs = feed.chunks * feed.folds
        self.steps = feed.beats * np.arange(1, o.count + 1)
        self.slots = Record(o.count)
        self.ends = Record(feed.bands)
        self.records = (self.queue, self.slots, self.ends)
        self.beats = np.arange(1, i.count + 1)
        # Bands, counted from those of this frame, that free each row of the image.
        back, line = np.divmod(np.arange(feed.i.rows) - feed.lines, feed.i.rows)
        self.freed = back * feed.bands + np.asarray(feed.down.finished)[line] - 1

    def solve(self, frame: int) -> bool:
        feed, rows = self.feed, self.feed.i.rows
        freed = frame * feed.bands + self.freed
        free = np.where(freed < 0, 0, self.ends.times[np.maximum(freed, 0)] + feed.RELEASE)
        wanted = np.zeros((rows, self.i.count // rows), np.int64)
        wanted[:, 0] = free
        self.i.want(frame, wanted.reshape(-1))
        # A source offers no beat before the one ahead of it has moved.
        written = chain(self.i.moved.of(frame), self.beats, NEVER)
        bounds = self.queue.room(frame).reshape(len(self.needs), self.runs)
        first = bounds[:, 0]
        np.maximum(first, written[self.needs] + feed.beats, out=first)
        slots = chain(bounds.reshape(-1), self.steps, self.slots.last(frame))
        self.slots.put(frame, slots)
        inside = freed.max() >= frame * feed.bands
        again = self.ends.put(frame, slots.reshape(feed.bands, -1)[:, -1]) and bool(inside)
        return self.queue.write(frame, slots + self.latency) or again


class Adapter(FramePart):
    """A width adapter; see :class:`brambling.sim.processes.AdapterProcess`.

    Of the pixel before, only its last output beat is waited for. So all pixels are computed side by
    side as if there were none before, and the time that passes from one to the next is added.
    """

    def __init__(self, i: Track, o: Track, spec: WidthAdapterSpec) -> None:
        self.i, self.o = i, o
        self.inputs, self.outputs = spec.i.groups, spec.o.groups
        self.needed_outputs, self.needed_input = map(np.array, dependences(spec))
        self.runs = self._runs()
        self.pixels = i.count // self.inputs
        self.last = Record(self.pixels)
        self.records = (self.last,)
        # Cycles to each beat from the end of the pixel before, where nothing else holds it up.
        free = np.full((max(self.inputs, self.outputs), 1), LONG_AGO)
        self.distance = self.move(free, free, np.zeros((1, 1), np.int64))
        self.steps = int(self.distance[1][-1, 0]) * np.arange(1, self.pixels + 1)

    def _runs(self) -> list[tuple[bool, slice]]:
        """Beats of a pixel, each behind what it waits for: whether outputs, and which."""
        order = []
        taken = 0
        for beat, needed in enumerate(self.needed_input):
            order += [(False, n) for n in range(taken, needed + 1)] + [(True, beat)]
            taken = max(taken, needed + 1)
        order += [(False, n) for n in range(taken, self.inputs)]
        runs = [(output, [n for _, n in run]) for output, run in groupby(order, itemgetter(0))]
        return [(output, slice(run[0], run[-1] + 1)) for output, run in runs]

    def solve(self, frame: int) -> bool:
        offers = np.ascontiguousarray(self.i.offers.reshape(self.pixels, self.inputs).T)
        wanted = np.ascontiguousarray(self.o.readies.reshape(self.pixels, self.outputs).T)
        before = self.last.last(frame)
        taken, given = self.move(offers, wanted, np.full((1, self.pixels), LONG_AGO))
        last = chain(given[-1], self.steps, before)
        self.last.put(frame, last)
        ended = shifted(last, before)[None]
        taken = np.maximum(taken, ended + self.distance[0])
        given = np.maximum(given, ended + self.distance[1])
        places = np.concatenate([ended, given])
        readies = places[self.needed_outputs]
        np.maximum(readies[1:], taken[:-1] + 1, out=readies[1:])
        offered = np.maximum(taken[self.needed_input], places[:-1]) + 1
        self.i.want(frame, np.maximum(readies, 0).T.reshape(-1))
        self.o.offer(frame, offered.T.reshape(-1))
        return False

    def move(self, offers: Times, wanted: Times, before: Times) -> tuple[Times, Times]:
        """Return when the beats of each pixel move, ``(beats, pixels)``: inputs, and outputs."""
        pixels = before.shape[1]
        places = np.empty((1 + self.outputs, pixels), np.int64)
        taken = np.empty((1 + self.inputs, pixels), np.int64)  # Each behind that ahead of it.
        places[0], taken[0] = before, LONG_AGO
        for output, run in self.runs:
            if output:
                moved, bounds = places, taken[1:][self.needed_input[run]] + 1
                np.maximum(bounds, wanted[run], out=bounds)
            else:
                moved, bounds = taken, places[self.needed_outputs[run]]
                np.maximum(bounds, offers[run], out=bounds)
            if len(bounds) == 1:  # So are most where one is wide; a chain would take twice as long.
                np.maximum(bounds[0], moved[run.start] + 1, out=moved[run.stop])
                continue
            steps = np.arange(1, len(bounds) + 1)[:, None]
            moved[run.start + 1 : run.stop + 1] = chain(bounds, steps, moved[run.start])
        return taken[1:], places[1:]


class Fork(FramePart):
    """A fork; see :class:`brambling.hw.fork.Fork`."""

    def __init__(self, i: Track, outs: Sequence[Track]) -> None:
        self.i, self.outs = i, outs

    def solve(self, frame: int) -> bool:
        offers, readies = self.i.offers, [o.readies for o in self.outs]
        for n, o in enumerate(self.outs):
            o.offer(frame, np.maximum.reduce([offers, *readies[:n], *readies[n + 1 :]]))
        self.i.want(frame, np.maximum.reduce(readies))
        return False


class Add(Queued):
    """A sum; see :class:`brambling.hw.join.Adder`."""

    def __init__(self, sources: Sequence[Track], o: Track, latency: int, depth: int) -> None:
        self.sources, self.latency = sources, latency
        self.queue = Queue(o, depth)
        self.records = (self.queue,)

    def solve(self, frame: int) -> bool:
        room = self.queue.room(frame)
        offers = [source.offers for source in self.sources]
        for n, source in enumerate(self.sources):
            source.want(frame, np.maximum.reduce([room, *offers[:n], *offers[n + 1 :]]))
        return self.queue.write(frame, np.maximum.reduce([room, *offers]) + self.latency)


class Concat(Queued):
    """A concatenation; see :class:`brambling.hw.join.Concatenation`."""

    def __init__(self, sources: Sequence[Track], o: Track, spec: ConcatSpec) -> None:
        self.sources, self.latency = sources, spec.timing.latency
        self.queue = Queue(o, spec.depth)
        self.cuts = np.cumsum([i.groups for i in spec.sources])
        self.steps = np.arange(1, o.count + 1)
        self.slots = Record(o.count)
        self.records = (self.queue, self.slots)

    def solve(self, frame: int) -> bool:
        room, before = self.queue.room(frame), self.slots.last(frame)
        pixels = len(room) // int(self.cuts[-1])
        parts = [source.offers.reshape(pixels, -1) for source in self.sources]
        offers = np.concatenate(parts, axis=1).reshape(-1)
        slots = chain(np.maximum(offers, room), self.steps, before)
        self.slots.put(frame, slots)
        readies = np.maximum(shifted(slots, before) + 1, room).reshape(pixels, -1)
        for source, ready in zip(
            self.sources, np.split(readies, self.cuts[:-1], axis=1), strict=True
        ):
            source.want(frame, ready.reshape(-1))
        return self.queue.write(frame, slots + self.latency)


class Slice(FramePart):
    """A slice; see :class:`brambling.hw.slice.Slice`."""

    def __init__(self, i: Track, o: Track, spec: SliceSpec) -> None:
        self.i, self.o = i, o
        self.groups, self.passed = spec.i.groups, slice(spec.passed.start, spec.passed.stop)

    def solve(self, frame: int) -> bool:
        offers = self.i.offers.reshape(-1, self.groups)
        self.o.offer(frame, offers[:, self.passed].reshape(-1))
        readies = np.zeros_like(offers)
        wanted = self.o.readies
        readies[:, self.passed] = wanted.reshape(len(offers), -1)
        self.i.want(frame, readies.reshape(-1))
        return False


def part_of(spec: Any, inputs: list[Track], outputs: list[Track]) -> FramePart:
    """Return the component of a spec."""
    i, o = inputs[0], outputs[0]
    match spec:
        case WidthAdapterSpec():
            return Adapter(i, o, spec)
        case FifoSpec():
            return Fifo(i, o, spec.depth - 1)
        case ForkSpec():
            return Fork(i, outputs)
        case AddSpec():
            return Add(inputs, o, spec.timing.latency, spec.depth)
        case ConcatSpec():
            return Concat(inputs, o, spec)
        case SliceSpec():
            return Slice(i, o, spec)
    feed = getattr(spec, "feed", None)
    if isinstance(feed, WindowFeedSpec):
        return Window(i, o, feed, spec.timing.latency, spec.depth)
    return Engine(i, o, spec.timing, spec.depth)


class FrameModel(Wiring[Track, FramePart]):
    """The components of an accelerator whose output is always taken, wired up.

    Parameters
    ----------
    nodes
        The components, from :func:`brambling.hw.accelerator.pipeline`.
    allowed
        From a cycle to the first one, not before it, in which a beat may come; ``None``: itself.
    sweeps
        How many a frame may take.
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        allowed: Callable[[int], int] | None = None,
        sweeps: int = SWEEPS,
    ) -> None:
        super().__init__(nodes, Track, part_of)
        self.sweeps = sweeps
        self.tracks = [self.source, *dict.fromkeys(self.wires.values())]
        self.parts: list[FramePart] = [
            Source(self.source, allowed),
            *self.engines.values(),
            Sink(self.output),
        ]
        self.frames = 0
        #: What each component listens to: tracks, and whether to their offers or their readies.
        self.heard: list[list[tuple[Track, int]]] = [[(self.source, 1)]]
        for inputs, outputs in self.ends:
            self.heard.append([(track, 0) for track in inputs] + [(track, 1) for track in outputs])
        self.heard.append([(self.output, 0)])

    def advance(self, frames: int) -> None:
        """Go on until so many frames have left; :class:`Unsettled` where one takes too long."""
        for grown in (*self.tracks, *self.parts):
            grown.grow(frames)
        while self.frames < frames:
            self._solve()
            self.frames += 1

    def _solve(self) -> None:
        """Iterate the next frame until nothing changes, forth and back along the stream."""
        for track in self.tracks:
            track.begin()
        again = [True] * len(self.parts)
        order = list(range(len(self.parts)))
        for _ in range(self.sweeps):
            for number in order:
                heard = self.heard[number]
                if again[number] or any(track.changed[side] for track, side in heard):
                    for track, side in heard:
                        track.changed[side] = False
                    again[number] = self.parts[number].solve(self.frames)
            order.reverse()
            if not any(again) and not any(any(track.changed) for track in self.tracks):
                return
        raise Unsettled

"""Joins: streams of several branches added, or their channels put side by side."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import numpy as np
from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from numpy.typing import NDArray

from brambling.errors import ConfigError
from brambling.hw.beat import Beats
from brambling.hw.counter import below
from brambling.hw.elementwise import number
from brambling.hw.pipe import Pipe
from brambling.hw.queue import Queue
from brambling.quant.formats import Bipolar, Format
from brambling.timing import Timing

__all__ = ["AddSpec", "Adder", "ConcatSpec", "Concatenation", "JoinSpec"]


@dataclass(frozen=True, kw_only=True)
class JoinSpec:
    """What joins have in common: several sources, one result, radix points aligned.

    Each source is shifted to the left until it has the fractional bits of ``target``.

    Parameters
    ----------
    sources
        Input beats, of the same rows, columns, pixels and lanes.
    target
        Format of the result.
    queue
        Places in the output queue; ``None`` is the fewest that keep the full rate.
    """

    sources: tuple[Beats, ...]
    target: Format
    queue: int | None = None

    def __post_init__(self) -> None:
        if len(self.sources) < 2:
            raise ConfigError(f"a join needs 2 sources or more, not {len(self.sources)}")
        for n, source in enumerate(self.sources):
            for key in ("rows", "columns", "pixels", "lanes"):
                have, wanted = getattr(source, key), getattr(self.sources[0], key)
                if have != wanted:
                    raise ConfigError(
                        f"sources of a join must have the same {key}, "
                        f"{wanted} like source 0, not {have} like source {n}"
                    )
            if source.fmt.frac > self.target.frac:
                raise ConfigError(
                    f"target must have {source.fmt.frac} fractional bits or more, like source {n}, "
                    f"not {self.target.frac}"
                )

    @property
    def shifts(self) -> tuple[int, ...]:
        """Bits by which each source is shifted to the left."""
        return tuple(self.target.frac - source.fmt.frac for source in self.sources)

    @property
    def timing(self) -> Timing:
        """One beat a cycle."""
        raise NotImplementedError

    @property
    def depth(self) -> int:
        """Places in the output queue."""
        return self.timing.queue if self.queue is None else self.queue

    def _check_range(self, low: int, high: int) -> None:
        if not self.target.min <= low <= high <= self.target.max:
            raise ConfigError(f"target must hold {low} to {high}, {self.target} does not")

    def _aligned(self, frames: Sequence[NDArray]) -> list[NDArray[np.int64]]:
        """Frames ``(n, source.size)`` of each source as ``(n, positions, channels)``, shifted."""
        return [
            np.asarray(x, np.int64).reshape(len(x), -1, source.elements) << shift
            for x, source, shift in zip(frames, self.sources, self.shifts, strict=True)
        ]


class Join(wiring.Component):
    """What the hardware of joins has in common: its ports.

    Members
    -------
    i0, i1, … : ``In(spec.sources[n].signature)``
    o : ``Out(spec.o.signature)``
    """

    o: stream.Interface

    def __init__(self, sources: tuple[Beats, ...], o: Beats) -> None:
        super().__init__({
            **{f"i{n}": In(source.signature) for n, source in enumerate(sources)},
            "o": Out(o.signature),
        })
        self.inputs: list[Any] = [getattr(self, f"i{n}") for n in range(len(sources))]


@dataclass(frozen=True, kw_only=True)
class AddSpec(JoinSpec):
    """Exact sum of tensors of one shape, element by element."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for n, source in enumerate(self.sources):
            if source.elements != self.sources[0].elements:
                raise ConfigError(
                    f"sources of a sum must have the same channels, {self.sources[0].elements} "
                    f"like source 0, not {source.elements} like source {n}"
                )
        pairs = [*zip(self.sources, self.shifts, strict=True)]
        self._check_range(
            sum(source.fmt.min << shift for source, shift in pairs),
            sum(source.fmt.max << shift for source, shift in pairs),
        )

    @property
    def o(self) -> Beats:
        return replace(self.sources[0], fmt=self.target)

    @property
    def levels(self) -> int:
        """Levels of the tree of adders."""
        return (len(self.sources) - 1).bit_length()

    @property
    def timing(self) -> Timing:
        # Input register, one edge a level of the tree.
        return Timing(beats=1, folds=1, latency=1 + self.levels)

    def reference(self, *frames: NDArray) -> NDArray[np.int64]:
        """Golden result: codes ``(n, size)`` of each source to codes ``(n, o.size)``."""
        return np.sum(self._aligned(frames), axis=0).reshape(-1, self.o.size)

    def build(self) -> "Adder":
        return Adder(self)


class Adder(Join):
    """Streaming form of :class:`AddSpec`: takes a beat of every source in the same cycle.

    One sum a cycle. A source is ready when there is room and all *others* have a beat: two outputs
    of one :class:`brambling.hw.fork.Fork` need a FIFO or an engine between it and a sum.
    """

    def __init__(self, spec: AddSpec) -> None:
        self.spec = spec
        super().__init__(spec.sources, spec.o)

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        spec = self.spec
        m.submodules.queue = queue = Queue(spec.o.layout, spec.depth)
        connect(m, queue.o, flipped(self.o))
        take = Signal()
        m.d.comb += [
            take.eq(Cat(queue.room, *(i.valid for i in self.inputs)).all()),
            queue.reserve.eq(take),
        ]
        for i in self.inputs:
            others = [other.valid for other in self.inputs if other is not i]
            m.d.comb += i.ready.eq(Cat(queue.room, *others).all())

        # Cycle 1: the beats.
        pipe = Pipe(m)
        payloads = {f"payload{n}": i.payload.data for n, i in enumerate(self.inputs)}
        write, first, *data = pipe.stage(write=take, first=self.inputs[0].payload.first, **payloads)

        # Cycle 1 + levels: the sums, lane by lane.
        places = [(n, place) for n in range(spec.o.lanes) for place in range(spec.o.pixels)]
        rows = [
            [
                number(source.fmt, source.lane(bits, n, place)).shift_left(shift)
                for source, bits, shift in zip(spec.sources, data, spec.shifts, strict=True)
            ]
            for n, place in places
        ]
        for _ in range(spec.levels):
            sums = [
                [row[k] + row[k + 1] if k + 1 < len(row) else row[k] for k in range(0, len(row), 2)]
                for row in rows
            ]
            names = {
                f"sum{n}_{place}_{k}": value
                for (n, place), row in zip(places, sums, strict=True)
                for k, value in enumerate(row)
            }
            write, first, *terms = pipe.stage(write=write, first=first, **names)
            each = len(sums[0])
            rows = [terms[k : k + each] for k in range(0, len(terms), each)]
        m.d.comb += [queue.write.eq(write), queue.result.first.eq(first)]
        for (n, place), (total,) in zip(places, rows, strict=True):
            m.d.comb += spec.o.lane(queue.result.data, n, place).eq(total)
        assert pipe.depth == spec.timing.latency
        return m


@dataclass(frozen=True, kw_only=True)
class ConcatSpec(JoinSpec):
    """Channels of the first source, then of the next, and so on, for each pixel.

    ``lanes`` divides the channels of every source, so that no beat has channels of two.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        for n, source in enumerate(self.sources):
            if source.elements % source.lanes:
                raise ConfigError(
                    f"lanes must divide the {source.elements} channels of source {n}, "
                    f"not {source.lanes}: use a width adapter before the join"
                )
        if self.target == Bipolar():
            odd = [source.fmt for source in self.sources if source.fmt != Bipolar()]
            if odd:
                raise ConfigError(f"target must hold the codes of {odd[0]}, bipolar does not")
        pairs = [*zip(self.sources, self.shifts, strict=True)]
        self._check_range(
            min(source.fmt.min << shift for source, shift in pairs),
            max(source.fmt.max << shift for source, shift in pairs),
        )

    @property
    def o(self) -> Beats:
        channels = sum(source.elements for source in self.sources)
        return replace(self.sources[0], fmt=self.target, elements=channels)

    @property
    def ends(self) -> tuple[int, ...]:
        """For each source the beats of a pixel that have come when its last one has."""
        return tuple(accumulate(source.groups for source in self.sources))

    @property
    def timing(self) -> Timing:
        return Timing(beats=1, folds=1, latency=1)

    def reference(self, *frames: NDArray) -> NDArray[np.int64]:
        """Golden result: codes ``(n, size)`` of each source to codes ``(n, o.size)``."""
        return np.concatenate(self._aligned(frames), axis=2).reshape(-1, self.o.size)

    def build(self) -> "Concatenation":
        return Concatenation(self)


class Concatenation(Join):
    """Streaming form of :class:`ConcatSpec`: for each group of pixels, source after source.

    One beat a cycle, written after one edge. Frames come whole: only the first source's ``first``
    is looked at.
    """

    def __init__(self, spec: ConcatSpec) -> None:
        self.spec = spec
        super().__init__(spec.sources, spec.o)

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        spec = self.spec
        m.submodules.queue = queue = Queue(spec.o.layout, spec.depth)
        connect(m, queue.o, flipped(self.o))

        beat = Signal(below(spec.o.groups))
        take = Signal()
        here, coming = Signal(spec.o.layout), Signal()
        for n, (i, end) in enumerate(zip(self.inputs, spec.ends, strict=True)):
            with m.If(beat < end) if n == 0 else m.Elif(beat < end):
                m.d.comb += [i.ready.eq(queue.room), coming.eq(i.valid)]
                self._align(m, n, here.data)
        m.d.comb += [
            here.first.eq(self.inputs[0].payload.first & (beat < spec.ends[0])),
            take.eq(coming & queue.room),
            queue.reserve.eq(take),
        ]
        with m.If(take):
            m.d.sync += beat.eq(Mux(beat == spec.o.groups - 1, 0, beat + 1))

        # Cycle 1: the beat, aligned.
        result, write = Signal(spec.o.layout), Signal()
        m.d.sync += [result.eq(here), write.eq(take)]
        m.d.comb += [queue.result.eq(result), queue.write.eq(write)]
        return m

    def _align(self, m: Module, n: int, beat: Value) -> None:
        """Make a beat of source ``n`` one of the result."""
        spec, source = self.spec, self.spec.sources[n]
        data = self.inputs[n].payload.data
        if spec.target == source.fmt:
            m.d.comb += beat.eq(data)
            return
        for lane in range(source.lanes):
            for place in range(source.pixels):
                code = number(source.fmt, source.lane(data, lane, place))
                shifted = code.shift_left(spec.shifts[n])
                m.d.comb += spec.o.lane(beat, lane, place).eq(shifted)

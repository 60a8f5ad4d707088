"""Elementwise engines: every code becomes one code, by itself, a beat a cycle."""

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from amaranth.hdl import Cat, Const, Module, Mux, Shape, Signal, Value, ValueLike
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from numpy.typing import NDArray

from brambling.errors import ConfigError
from brambling.hw.beat import Beats, shape_of
from brambling.hw.counter import below
from brambling.hw.pipe import Pipe
from brambling.hw.queue import Queue
from brambling.hw.rom import rom
from brambling.quant.formats import Bipolar, Fixed, Format
from brambling.timing import Timing

__all__ = ["Code", "Elementwise", "ElementwiseSpec", "count", "number", "spanning"]


def spanning(low: int, high: int) -> Shape:
    """Return the narrowest shape of the integers ``low`` to ``high``; at least one bit."""
    return shape_of(Fixed.spanning(low, high))


def number(fmt: Format, code: Value) -> Value:
    """Return the integer that a code stands for; only a bipolar one is not its own bits."""
    return Cat(Const(1, 1), ~code).as_signed() if fmt == Bipolar() else code


def count(m: Module, step: Value, first: Value, *sizes: int) -> tuple[ValueLike, ...]:
    """Count steps: the leftmost number fastest, each below its size; all are 0 at a ``first``."""
    numbers: list[ValueLike] = []
    through = Const(1)  # All faster numbers are at their last.
    for n, size in enumerate(sizes):
        if size == 1:
            numbers.append(Const(0, 1))
            continue
        following = Signal(below(size), name=f"next{n}")
        now = Signal(below(size), name=f"number{n}")
        last = now == size - 1
        m.d.comb += now.eq(Mux(first, 0, following))
        with m.If(step):
            m.d.sync += following.eq(Mux(through, Mux(last, 0, now + 1), now))
        numbers.append(now)
        through = through & last
    return tuple(numbers)


@dataclass(frozen=True, eq=False, kw_only=True)
class ElementwiseSpec:
    """What is common to the engines that map every code by itself.

    Parameters
    ----------
    i
        The input: images or vectors. The result has the same geometry, in another format.
    queue
        Places in the output queue; ``None`` is the fewest that keep the full rate.
    """

    i: Beats
    queue: int | None = None

    @property
    def o(self) -> Beats:
        raise NotImplementedError

    @property
    def latency(self) -> int:
        """Clock edges from the transfer of a beat to the write of its result."""
        raise NotImplementedError

    @property
    def timing(self) -> Timing:
        return Timing(beats=1, folds=1, latency=self.latency)

    @property
    def depth(self) -> int:
        """Places in the output queue."""
        return self.timing.queue if self.queue is None else self.queue

    def reference(self, x: NDArray) -> NDArray[np.int64]:
        """Golden result: codes ``(n, i.size)`` to codes ``(n, o.size)``."""
        raise NotImplementedError

    def pixels_of(self, x: NDArray) -> NDArray[np.int64]:
        """Codes ``(n, i.size)`` as ``(n, rows, columns, channels)``."""
        shape = (len(x), self.i.rows, self.i.columns, self.i.elements)
        return np.asarray(x).astype(np.int64).reshape(shape)

    def of_lane(self, parameters: NDArray[np.int64], n: int) -> NDArray[np.int64]:
        """Parameters ``(channels, ...)`` that lane ``n`` needs, a row for each lane group.

        One row for all channels stays one. Channels past the last one get zeros.
        """
        if len(parameters) == 1:
            return parameters
        spare = self.i.groups * self.i.lanes - self.i.elements
        idle = np.zeros((spare, *parameters.shape[1:]), parameters.dtype)
        return np.concatenate([parameters, idle])[n :: self.i.lanes]

    def _check_channels(self, what: str, channels: int) -> None:
        if channels not in {1, self.i.elements}:
            raise ConfigError(
                f"{what} must be for 1 or all {self.i.elements} channels, not for {channels}"
            )


S = TypeVar("S", bound=ElementwiseSpec)


@dataclass(frozen=True, slots=True)
class Code:
    """One code of a beat.

    Parameters
    ----------
    lane, place
        Where it is in the beat.
    bits
        Its bits, in the cycle in which the beat is taken.
    position
        Lane group of the beat (then whatever else the engine counts), in the same cycle.
    parameters
        Of its channel, one cycle later.
    """

    lane: int
    place: int
    bits: Value
    position: tuple[ValueLike, ...]
    parameters: Value


class Elementwise(wiring.Component, Generic[S]):
    """Streaming form of an :class:`ElementwiseSpec`: one beat a cycle.

    An engine says what it makes of one code (:meth:`compute`); it is made for every lane and place
    of a beat. The pipeline never stalls: a beat is taken only when the queue has room for it.

    Members
    -------
    i : ``In(spec.i.signature)``
    o : ``Out(spec.o.signature)``
    """

    i: stream.Interface
    o: stream.Interface

    def __init__(self, spec: S) -> None:
        self.spec = spec
        super().__init__({"i": In(spec.i.signature), "o": Out(spec.o.signature)})

    @property
    def counts(self) -> tuple[int, ...]:
        """Sizes of the numbers that make a beat's position, the fastest first."""
        return (self.spec.i.groups,)

    def parameters(self, lane: int) -> tuple[list[int], int]:
        """Words with the parameters of a lane, one for each lane group or one for all; and bits."""
        return [0], 1

    def compute(self, m: Module, pipe: Pipe, code: Code) -> Value:
        """Add to ``m`` what maps ``code``, in ``spec.latency`` stages; return the result."""
        raise NotImplementedError

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        spec = self.spec
        m.submodules.queue = queue = Queue(spec.o.layout, spec.depth)
        connect(m, queue.o, flipped(self.o))
        take = Signal()
        m.d.comb += [
            self.i.ready.eq(queue.room),
            take.eq(queue.room & self.i.valid),
            queue.reserve.eq(take),
        ]

        position = count(m, take, self.i.payload.first, *self.counts)
        for lane in range(spec.i.lanes):
            words, width = self.parameters(lane)
            name = f"parameters{lane}"
            parameters = rom(m, name, words, width, Value.cast(position[0]), "lut")
            for place in range(spec.i.pixels):
                bits = spec.i.lane(self.i.payload.data, lane, place)
                m.submodules[f"lane{lane}_{place}"] = part = Module()
                pipe = Pipe(part)
                result = self.compute(part, pipe, Code(lane, place, bits, position, parameters))
                assert pipe.depth == spec.latency
                m.d.comb += spec.o.lane(queue.result.data, lane, place).eq(result)

        flags = take, self.i.payload.first
        pipe = Pipe(m)
        for _ in range(spec.latency):
            flags = pipe.stage(taken=flags[0], first=flags[1])
        m.d.comb += [queue.write.eq(flags[0]), queue.result.first.eq(flags[1])]
        return m

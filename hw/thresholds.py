"""Thresholds on their own: a quantiser in front of, or between, engines that do not include one."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from numpy.typing import NDArray

from brambling.errors import ConfigError
from brambling.hw.beat import Beats
from brambling.hw.counter import below
from brambling.hw.queue import Queue
from brambling.hw.rom import rom
from brambling.quant.formats import Format
from brambling.timing import Timing

__all__ = ["ThresholdUnit", "ThresholdsSpec"]


@dataclass(frozen=True, eq=False, kw_only=True)
class ThresholdsSpec:
    """Count of the levels that each element reaches, as a code of ``target``.

    Same meaning as :class:`brambling.network.Thresholds`, on ``pe`` elements a cycle.

    Parameters
    ----------
    source, target
        Formats of the elements and of the result.
    elements
        Elements of a frame.
    levels, falling
        ``(elements, n)`` and ``(elements,)``, or one row for all elements.
    """

    source: Format
    target: Format
    elements: int
    pe: int
    levels: NDArray[np.int64]
    falling: NDArray[np.bool_]
    queue: int | None = None

    def __post_init__(self) -> None:
        Beats(self.source, self.elements, self.pe)
        channels = len(self.levels)
        if channels not in {1, self.elements}:
            raise ConfigError(
                f"levels must be for 1 or all {self.elements} elements, not for {channels}"
            )

    @property
    def i(self) -> Beats:
        return Beats(self.source, self.elements, self.pe)

    @property
    def o(self) -> Beats:
        return Beats(self.target, self.elements, self.pe)

    timing = Timing(beats=1, folds=1, latency=2)

    @property
    def depth(self) -> int:
        """Places in the output queue."""
        return self.timing.queue if self.queue is None else self.queue

    def build(self) -> "ThresholdUnit":
        return ThresholdUnit(self)


class ThresholdUnit(wiring.Component):
    """Streaming form of :class:`ThresholdsSpec`: one beat a cycle, written after two edges.

    Members
    -------
    i : ``In(spec.i.signature)``
    o : ``Out(spec.o.signature)``
    """

    i: stream.Interface
    o: stream.Interface

    def __init__(self, spec: ThresholdsSpec) -> None:
        self.spec = spec
        super().__init__({"i": In(spec.i.signature), "o": Out(spec.o.signature)})

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

        # Cycle 1: the beat, and the levels of its channels.
        taken, write = Signal(), Signal()
        x = Signal(spec.i.layout)
        m.d.sync += [taken.eq(take), x.eq(self.i.payload), write.eq(taken)]
        lanes = self._levels(m, take)

        # Cycle 2: the result.
        result = Signal(spec.o.layout)
        m.d.comb += [queue.result.eq(result), queue.write.eq(write)]
        m.d.sync += result.first.eq(x.first)
        for n, lane in enumerate(lanes):
            code = self._code(spec.i.lane(x.data, n), lane)
            m.d.sync += spec.o.lane(result.data, n).eq(code)
        return m

    def _levels(self, m: Module, take: Value) -> list[list[tuple[Value, Value]]]:
        """For each lane, each level and whether it is to be reached or not exceeded."""
        spec = self.spec
        # x <= T is not x >= T + 1: a level beyond the codes needs one bit more.
        width = spec.source.width + 2
        levels = np.clip(spec.levels, spec.source.min - 1, spec.source.max + 1)
        levels = np.clip(levels + spec.falling[:, None], spec.source.min, spec.source.max + 1)
        rows = len(levels) if len(levels) == 1 else spec.i.count * spec.pe
        words = np.zeros((rows, levels.shape[1]), np.int64)
        words[: len(levels)] = (levels & ((1 << width) - 1)) | (
            spec.falling.astype(np.int64)[:, None] << width
        )
        per_word = words.reshape(1 if rows == 1 else spec.i.count, -1)
        stride = width + 1
        packed = [sum(int(w) << n * stride for n, w in enumerate(row)) for row in per_word]

        beat = Signal(below(len(packed)))
        address = Mux(self.i.payload.first, 0, beat)
        with m.If(take):
            m.d.sync += beat.eq(Mux(address == len(packed) - 1, 0, address + 1))
        word = rom(m, "levels", packed, stride * per_word.shape[1], address, "lut")
        count = levels.shape[1]
        lanes = []
        for n in range(spec.pe):
            base = 0 if rows == 1 else n * count
            slices = [word[(base + k) * stride :][:stride] for k in range(count)]
            lanes.append([(s[:width].as_signed(), s[width]) for s in slices])
        return lanes

    def _code(self, x: Value, levels: list[tuple[Value, Value]]) -> Value:
        reached = [(Value.cast(x) >= level) ^ falls for level, falls in levels]
        if self.spec.target.width == 1:
            return reached[0]
        total = reached[0]
        for bit in reached[1:]:
            total += bit
        return (total + self.spec.target.min)[: self.spec.target.width]

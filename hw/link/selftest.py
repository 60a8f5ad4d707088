"""Self-test: frames and their results in a ROM, run without a host."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from numpy.typing import NDArray

from brambling.errors import ConfigError
from brambling.hw.beat import Beats
from brambling.hw.counter import below
from brambling.hw.rom import rom

__all__ = ["SelfTest", "Vectors"]

SHALLOW = 64  #: Words that LUTs hold at no more than one for 16 bits.


@dataclass(frozen=True, eq=False)
class Vectors:
    """Frames with the results that they must have.

    Parameters
    ----------
    frames
        Codes ``(n, ...)`` of the input.
    results
        Codes ``(n, ...)`` of the output.
    """

    frames: NDArray[np.int64]
    results: NDArray[np.int64]

    def __post_init__(self) -> None:
        if not len(self.frames) or len(self.frames) != len(self.results):
            raise ConfigError(
                f"a self-test has as many results as frames, and at least one, "
                f"not {len(self.results)} of {len(self.frames)}"
            )


class SelfTest(wiring.Component):
    """Runs frames through an accelerator, and compares its results.

    Parameters
    ----------
    i, o
        Beats of a frame, and of a result.
    vectors
        Frames and results.

    Members
    -------
    start : ``In(1)``
        Run all; only while not ``busy``.
    busy : ``Out(1)``
        It runs.
    passed : ``Out(1)``
        The last run went through, and all results were right.
    frames : ``Out(i.signature)``
        To the accelerator.
    results : ``In(o.signature)``
        From it.
    """

    start: Signal
    busy: Signal
    passed: Signal
    frames: stream.Interface
    results: stream.Interface

    def __init__(self, i: Beats, o: Beats, vectors: Vectors) -> None:
        self.i = i
        self.o = o
        self.vectors = vectors
        super().__init__({
            "start": In(1),
            "busy": Out(1),
            "passed": Out(1),
            "frames": Out(i.signature),
            "results": In(o.signature),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        self._offer(m)
        ended, wrong = self._compare(m)
        failed = Signal()
        with m.If(self.start):
            m.d.sync += [self.busy.eq(1), self.passed.eq(0), failed.eq(0)]
        with m.If(wrong):
            m.d.sync += failed.eq(1)
        with m.If(ended):
            m.d.sync += [self.busy.eq(0), self.passed.eq(~failed & ~wrong)]
        return m

    def _offer(self, m: Module) -> None:
        """Offer the frames' beats, one every other cycle."""
        words = _words(self.i, self.i.pack(self.vectors.frames))
        address, beat = Signal(below(len(words) + 1)), Signal(below(self.i.count))
        there = Signal()
        width = self.i.width - 1
        m.d.comb += [
            self.frames.payload.data.eq(rom(m, "frames_rom", words, width, address, _store(words))),
            self.frames.payload.first.eq(beat == 0),
            self.frames.valid.eq(there),
        ]
        m.d.sync += there.eq(self.busy & (address != len(words)))
        with m.If(there & self.frames.ready):
            m.d.sync += [
                there.eq(0),
                address.eq(address + 1),
                beat.eq(Mux(beat == self.i.count - 1, 0, beat + 1)),
            ]
        with m.If(self.start):
            m.d.sync += [address.eq(0), beat.eq(0)]

    def _compare(self, m: Module) -> tuple[Value, Value]:
        """Compare the results' beats, one every other cycle; whether it was the last, was wrong."""
        words = _words(self.o, self.o.pack(self.vectors.results))
        masks = _words(self.o, self.o.masks())
        address, beat = Signal(below(len(words))), Signal(below(self.o.count))
        width = self.o.width - 1
        wanted = rom(m, "results_rom", words, width, address, _store(words))
        mask: Any = masks[0]
        if len({*masks}) > 1:
            mask = rom(m, "masks_rom", masks, width, beat, _store(masks))
        there = Signal()
        m.d.comb += self.results.ready.eq(there)
        m.d.sync += there.eq(self.busy)
        taken = self.results.valid & there
        with m.If(taken):
            m.d.sync += [
                there.eq(0),
                address.eq(address + 1),
                beat.eq(Mux(beat == self.o.count - 1, 0, beat + 1)),
            ]
        with m.If(self.start):
            m.d.sync += [address.eq(0), beat.eq(0)]
        wrong = ((self.results.payload.data ^ wanted) & mask) != 0
        return taken & (address == len(words) - 1), taken & wrong


def _store(words: list[int]) -> str:
    """Return the memory for these: a few wide words would leave most of many block RAMs empty."""
    return "lut" if len(words) <= SHALLOW else "block"


def _words(beats: Beats, payloads: NDArray[np.uint8]) -> list[int]:
    """Payloads as numbers, without the mark of the first."""
    mask = (1 << beats.width - 1) - 1
    return [int.from_bytes(row.tobytes(), "little") & mask for row in payloads]

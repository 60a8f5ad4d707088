"""Amaranth's own simulator: slow, but needs nothing else, and runs the component itself."""

import time
from contextlib import nullcontext
from itertools import cycle
from pathlib import Path
from typing import Any, cast

from amaranth.hdl import ClockDomain, Module, Value
from amaranth.sim import Simulator

from brambling.hw.verilog import wide_integers
from brambling.sim.job import RESET_CYCLES, Design, EdgeTrace, Job, OutOfCycles, Trace, waveform
from brambling.sim.progress import Progress

__all__ = ["Pysim"]

PERIOD = 10e-9  #: Seconds, of the clock in waveforms.


class Pysim:
    """Runs jobs in Amaranth's simulator, some thousand cycles a second."""

    name = "pysim"

    def run(
        self,
        design: Design,
        job: Job,
        *,
        vcd: Path | None = None,
        progress: Progress | None = None,
    ) -> Trace:
        """See :meth:`brambling.sim.job.Runner.run`."""
        design.check(job)
        play = _Play(design, job, progress)
        with waveform(vcd) as beside, wide_integers():
            sim = Simulator(play.module)
            sim.add_clock(PERIOD, domain="sync")
            sim.add_testbench(play.bench)
            with sim.write_vcd(str(beside)) if beside else nullcontext():
                sim.run()
            if play.got < job.outputs:
                raise OutOfCycles(self.name, play.got, job.outputs, job.limit)
        return Trace({
            name: EdgeTrace.of(seen, width)
            for (name, width), seen in zip(design.edges, play.seen, strict=True)
        })


class _Play:
    """A job being played on a design."""

    def __init__(self, design: Design, job: Job, progress: Progress | None) -> None:
        self.job = job
        self.progress = progress
        self.got = 0
        self.seen: list[list[tuple[int, int]]] = [[] for _ in design.edges]

        self.top = top = cast(Any, design.make())
        self.sync: Any = ClockDomain("sync")
        self.module = Module()
        self.module.domains += self.sync
        self.module.submodules[design.name] = top
        taps = [getattr(top, f"tap_{name}") for name, _ in design.taps]
        self.fires = [
            top.i.valid & top.i.ready,
            *(tap.valid for tap in taps),
            top.o.valid & top.o.ready,
        ]
        ports = [top.i, *taps, top.o]
        self.payloads = [Value.cast(port.payload).as_unsigned() for port in ports]

    async def bench(self, ctx) -> None:
        """Drive the ports, and sample all edges just before every edge of the clock."""
        job, i, o = self.job, self.top.i, self.top.o
        ctx.set(self.sync.rst, 1)
        for _ in range(RESET_CYCLES):
            await ctx.tick()
        ctx.set(self.sync.rst, 0)

        beats = (int.from_bytes(beat.tobytes(), "little") for beat in job.beats)
        offers, accepts = cycle(job.offer.tolist()), cycle(job.accept.tolist())
        held = None
        told = time.monotonic()
        for now in range(job.limit):
            may_offer = next(offers)
            if held is None and may_offer and (held := next(beats, None)) is not None:
                ctx.set(self.payloads[0], held)
            ctx.set(i.valid, held is not None)
            ctx.set(o.ready, next(accepts))
            _, _, *values = await ctx.tick().sample(*self.fires, *self.payloads)
            fires, payloads = values[: len(self.seen)], values[len(self.seen) :]
            for seen, fire, payload in zip(self.seen, fires, payloads, strict=True):
                if fire:
                    seen.append((now, payload))
            if fires[0]:
                held = None
            self.got += fires[-1]
            if self.got >= job.outputs and now >= job.until:
                return
            if self.progress and time.monotonic() - told > 0.2:
                told = time.monotonic()
                self.progress("simulate", self.got, job.outputs)

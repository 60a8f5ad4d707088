"""Cocotb bench of the AXI accelerator: streams and registers, driven by cocotbext-axi.

Runs in the simulator's process; `vectors.npz` beside it has what to send and what must come.
"""

import itertools
from pathlib import Path
from typing import Any

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles
from cocotbext.axi import (
    AxiLiteBus,
    AxiLiteMaster,
    AxiResp,
    AxiStreamBus,
    AxiStreamFrame,
    AxiStreamSink,
    AxiStreamSource,
)

from brambling.hw.link.registers import MAGIC, RegisterMap

HERE = Path(__file__).parent
MAP = RegisterMap()


class Bench:
    """The device, the independent other side of its buses, and the vectors."""

    def __init__(self, dut):
        self.dut = dut
        self.source = AxiStreamSource(AxiStreamBus.from_prefix(dut, "s_axis"), dut.clk, dut.rst)
        self.sink = AxiStreamSink(AxiStreamBus.from_prefix(dut, "m_axis"), dut.clk, dut.rst)
        self.bus = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axil"), dut.clk, dut.rst)
        with np.load(HERE / "vectors.npz", allow_pickle=False) as vectors:
            self.frames = [row.tobytes() for row in vectors["frames"]]
            self.results = [row.tobytes() for row in vectors["results"]]
            self.filled = vectors["filled"].tobytes()
            self.digest = vectors["digest"].tobytes()
            self.beats = int(vectors["beats"])

    async def reset(self):
        cocotb.start_soon(Clock(self.dut.clk, 10, unit="ns").start())
        self.dut.rst.value = 1
        await ClockCycles(self.dut.clk, 4)
        self.dut.rst.value = 0
        await ClockCycles(self.dut.clk, 2)

    async def read(self, *names):
        return [await self.bus.read_dword(getattr(MAP, name)) for name in names]

    async def run(self, *frames):
        """Send frames; return as many results."""
        for frame in frames:
            await self.source.send(AxiStreamFrame(frame))
        return [bytes((await self.sink.recv()).tdata) for _ in frames]


async def started(dut):
    bench = Bench(dut)
    await bench.reset()
    return bench


@cocotb.test(timeout_time=10, timeout_unit="ms")
async def identifies_itself(dut):
    bench = await started(dut)
    assert await bench.read("magic", "version", "status") == [MAGIC, 1, 0]
    words = await bench.read("digest_0", "digest_1", "digest_2", "digest_3")
    assert b"".join(word.to_bytes(4, "little") for word in words) == bench.digest
    assert await bench.read("frame_beats") == [bench.beats]


@cocotb.test(timeout_time=10, timeout_unit="ms")
async def results_equal_golden(dut):
    bench = await started(dut)
    assert await bench.run(*bench.frames) == bench.results
    count = len(bench.frames)
    assert await bench.read("frames", "results", "status") == [count, count, 0]
    assert await bench.read("short_frames", "long_frames") == [0, 0]


@cocotb.test(timeout_time=10, timeout_unit="ms")
async def either_side_may_pause(dut):
    bench = await started(dut)
    rng = np.random.default_rng(7)
    bench.source.set_pause_generator(iter(rng.random(1 << 16) < 0.6))
    bench.sink.set_pause_generator(itertools.cycle(rng.random(997) < 0.5))
    assert await bench.run(*bench.frames) == bench.results


@cocotb.test(timeout_time=10, timeout_unit="ms")
async def frames_of_the_wrong_length_are_counted_and_spoil_no_other(dut):
    bench = await started(dut)
    whole, result = bench.frames[0], bench.results[0]
    beat = len(whole) // bench.beats
    short = bench.frames[1][: beat * (bench.beats // 2)]
    long = bench.frames[2] + whole[: 3 * beat]
    sent = (whole, short, whole, long, whole)
    assert await bench.run(*sent) == [result, bench.filled, result, bench.results[2], result]
    assert await bench.read("short_frames", "long_frames", "frames") == [1, 1, 5]


@cocotb.test(timeout_time=10, timeout_unit="ms")
async def reset_forgets_the_frame_under_way(dut):
    bench = await started(dut)
    beat = len(bench.frames[0]) // bench.beats
    part = AxiStreamFrame(bench.frames[1][:beat])
    bench.dut.s_axis_tlast.value = 0
    bench.source.clear()
    # A part of a frame, without its end: the source of cocotbext-axi always gives one.
    bench.dut.s_axis_tdata.value = int.from_bytes(bytes(part.tdata), "little")
    bench.dut.s_axis_tvalid.value = 1
    await ClockCycles(bench.dut.clk, 1)
    bench.dut.s_axis_tvalid.value = 0
    await ClockCycles(bench.dut.clk, 1)
    assert await bench.read("status", "frames") == [1, 1]
    await bench.bus.write_dword(MAP.control, 1)
    assert await bench.read("status", "frames") == [0, 1]
    assert await bench.run(*bench.frames) == bench.results
    assert await bench.read("short_frames", "long_frames") == [0, 0]


@cocotb.test(timeout_time=10, timeout_unit="ms")
async def counters_are_cleared(dut):
    bench = await started(dut)
    await bench.run(*bench.frames)
    (before,) = await bench.read("cycles_low")
    assert before > len(bench.frames) * bench.beats
    (latency,) = await bench.read("latency")
    assert bench.beats < latency < before
    await bench.bus.write_dword(MAP.control, 2)
    assert await bench.read("frames", "results", "cycles_high") == [0, 0, 0]
    assert (await bench.read("cycles_low"))[0] < before


@cocotb.test(timeout_time=10, timeout_unit="ms")
async def addresses_outside_the_map_are_refused(dut):
    bench = await started(dut)
    bus: Any = bench.bus
    answer = await bus.read(0x40, 4)
    assert answer.resp == AxiResp.SLVERR
    assert bytes(answer.data) == bytes(4)
    assert (await bus.write(0x48, b"\1\0\0\0")).resp == AxiResp.SLVERR
    assert (await bus.write(MAP.frames, b"\7\0\0\0")).resp == AxiResp.OKAY
    assert await bench.read("frames") == [0]

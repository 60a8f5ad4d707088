"""SPI: bytes both ways at once, with and without gaps, and cut off."""

import random

import pytest
from amaranth.sim import Simulator

from brambling.hw.link.spi import FASTEST, SpiSlave


class Master:
    """A host in mode 0 whose clock has a period of ``period`` cycles of the device."""

    def __init__(self, ctx, dut, period):
        self.ctx = ctx
        self.dut = dut
        self.half = period // 2

    async def select(self, on):
        self.ctx.set(self.dut.cs_n, not on)
        await self.ctx.tick().repeat(2 * self.half)

    async def byte(self, value, bits=8):
        ctx, dut, found = self.ctx, self.dut, 0
        for n in range(bits):
            ctx.set(dut.mosi, (value >> 7 - n) & 1)
            await ctx.tick().repeat(self.half)
            found = found << 1 | ctx.get(dut.miso)
            ctx.set(dut.sclk, 1)
            await ctx.tick().repeat(self.half)
            ctx.set(dut.sclk, 0)
        return found


def run(host, sent=(), *, period=FASTEST, delay=0):
    """Run ``host(Master)``; return the bytes that came, None for one that was cut off."""
    dut = SpiSlave()
    found, over = [], []

    async def master(ctx):
        ctx.set(dut.cs_n, 1)
        await ctx.tick().repeat(4)
        await host(Master(ctx, dut, period))
        await ctx.tick().repeat(6)
        over.append(True)

    async def hear(ctx):
        while not over:
            _, _, valid, bad, data = await ctx.tick().sample(dut.valid, dut.bad, dut.data)
            if valid or bad:
                found.append(None if bad else data)

    async def speak(ctx):
        await ctx.tick().repeat(1 + delay)
        for byte in sent:
            ctx.set(dut.i.payload, byte)
            ctx.set(dut.i.valid, 1)
            while not over:
                _, _, ready = await ctx.tick().sample(dut.i.ready)
                if ready:
                    break
            ctx.set(dut.i.valid, 0)

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    for bench in (master, hear, speak):
        sim.add_testbench(bench)
    sim.run()
    return found


@pytest.mark.parametrize("period", [FASTEST, 10, 30])
@pytest.mark.parametrize("together", [True, False], ids=["burst", "byte-by-byte"])
def test_bytes_go_both_ways(period, together):
    rng = random.Random(period)
    there, back = rng.randbytes(12), rng.randbytes(12)
    got = []

    async def host(master):
        await master.select(True)
        for byte in there:
            got.append(await master.byte(byte))
            if not together:
                await master.select(False)
                await master.select(True)
        await master.select(False)

    assert run(host, back, period=period) == list(there)
    assert bytes(got) == back


def test_zeros_are_read_while_there_is_nothing():
    got = []

    async def host(master):
        await master.select(True)
        got.extend([await master.byte(0x5A) for _ in range(6)])
        await master.select(False)

    assert run(host, b"\xff\xfe", delay=150) == [0x5A] * 6
    filled = bytes(got)
    assert filled.strip(b"\x00") == b"\xff\xfe"
    assert filled[0] == 0


def test_a_byte_that_is_cut_off_is_lost_and_the_next_is_whole():
    got = []

    async def host(master):
        await master.select(True)
        got.append(await master.byte(0x11))
        await master.byte(0xFF, bits=3)
        await master.select(False)
        await master.select(True)
        got.append(await master.byte(0x22))
        await master.select(False)

    assert run(host, b"\xa1\xa2\xa3") == [0x11, None, 0x22]
    assert got == [0xA1, 0xA3]


def test_clocks_for_others_are_ignored():
    async def host(master):
        await master.byte(0x77)
        await master.select(True)
        await master.byte(0x11)
        await master.select(False)

    assert run(host) == [0x11]

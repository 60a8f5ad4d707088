"""The UART: there and back, off its rate, through noise."""

from itertools import pairwise

import pytest
from amaranth.hdl import Module
from amaranth.sim import Simulator

from brambling.errors import ConfigError
from brambling.hw.link.uart import UartReceiver, UartSpec, UartTransmitter


def receive(divisor, wire):
    """Give levels ``(level, clocks)`` to a receiver; return the bytes, None for a bad one."""
    dut = UartReceiver(divisor)
    found = []

    async def bench(ctx):
        ctx.set(dut.rx, 1)
        await ctx.tick().repeat(4)
        for level, clocks in [*wire, (1, 3 * divisor)]:
            ctx.set(dut.rx, level)
            for _ in range(clocks):
                _, _, valid, bad, data = await ctx.tick().sample(dut.valid, dut.bad, dut.data)
                if valid or bad:
                    found.append(None if bad else data)

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
    return found


def bits(byte, clocks, stop=1):
    """Levels of a byte whose bits are ``clocks`` long: a number, or one for each edge."""
    levels = [0, *((byte >> n) & 1 for n in range(8)), stop]
    ends = [round(clocks * (n + 1)) for n in range(10)]
    starts = [0, *ends[:-1]]
    return [(v, end - start) for v, start, end in zip(levels, starts, ends, strict=True)]


@pytest.mark.parametrize(
    "divisor", [4, pytest.param(5, marks=pytest.mark.slow), pytest.param(9, marks=pytest.mark.slow)]
)
def test_every_byte_comes_back(divisor):
    m = Module()
    m.submodules.tx, m.submodules.rx = tx, rx = UartTransmitter(divisor), UartReceiver(divisor)
    m.d.comb += rx.rx.eq(tx.tx)
    found, cycles = [], []

    async def send(ctx):
        for byte in range(256):
            ctx.set(tx.i.payload, byte)
            ctx.set(tx.i.valid, 1)
            await ctx.tick().until(tx.i.ready)
        ctx.set(tx.i.valid, 0)
        await ctx.tick().repeat(11 * divisor)

    async def hear(ctx):
        cycle = 0
        while len(found) < 256:
            _, _, valid, bad, data = await ctx.tick().sample(rx.valid, rx.bad, rx.data)
            assert not bad
            cycle += 1
            if valid:
                found.append(data)
                cycles.append(cycle)

    sim = Simulator(m)
    sim.add_clock(1e-6)
    sim.add_testbench(send)
    sim.add_testbench(hear)
    sim.run()
    assert found == list(range(256))
    # Back to back: ten bits each.
    assert {b - a for a, b in pairwise(cycles)} == {10 * divisor}


@pytest.mark.parametrize("off", [-0.03, 0, 0.03])
def test_a_sender_off_by_three_parts_in_a_hundred_is_understood(off):
    data = [0x00, 0xFF, 0x55, 0xAA, 0x01, 0x80]
    wire = [level for byte in data for level in bits(byte, 100 * (1 + off))]
    assert receive(100, wire) == data


def test_a_short_pulse_is_no_start():
    assert receive(16, [(0, 5), (1, 40), *bits(0x31, 16)]) == [0x31]


def test_a_byte_without_a_stop_bit_is_bad_and_the_line_must_rise():
    assert receive(8, [*bits(0x31, 8, stop=0), (0, 200), (1, 9), *bits(0x32, 8)]) == [None, 0x32]


@pytest.mark.parametrize(
    ("clock_hz", "baud", "divisor"),
    [
        (12_000_000, 115_200, 104),
        (50_000_000, 3_000_000, 17),
        (25_000_000, 1_000_000, 25),
        (4_000_000, 1_000_000, 4),
    ],
)
def test_rates_that_can_be_made(clock_hz, baud, divisor):
    spec = UartSpec(clock_hz, baud)
    assert spec.divisor == divisor
    assert spec.rate == clock_hz / divisor


NEAREST = (
    "baud 2764800 cannot be made from a clock of 12000000 Hz within 2 %: the nearest is 3000000"
)


@pytest.mark.parametrize(
    ("clock_hz", "baud", "message"),
    [
        (0, 1, "clock_hz must be at least 1, not 0"),
        (1_000_000, 0, "baud must be 1 to 250000 with a clock of 1000000 Hz, not 0"),
        (1_000_000, 250_001, "baud must be 1 to 250000 with a clock of 1000000 Hz, not 250001"),
        (12_000_000, 2_764_800, NEAREST),
    ],
)
def test_rates_that_cannot(clock_hz, baud, message):
    with pytest.raises(ConfigError) as caught:
        UartSpec(clock_hz, baud)
    assert str(caught.value) == message

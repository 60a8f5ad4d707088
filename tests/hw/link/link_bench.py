"""Cocotb bench of a device: its pins driven by cocotbext-uart or cocotbext-spi.

Runs in the simulator's process; `vectors.npz` beside it has what to send and what must come.
"""

from pathlib import Path
from typing import Any

import cocotb
import cocotb.clock
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, with_timeout

from brambling.protocol import (
    Answer,
    Decoder,
    Ident,
    Kind,
    Packet,
    Reason,
    Register,
    register_of,
)

HERE = Path(__file__).parent
SESSION = 0xC0C0
with np.load(HERE / "vectors.npz", allow_pickle=False) as arrays:
    BAUD, SPI_HZ = int(arrays["baud"]), int(arrays["spi_hz"])
    DIGEST = arrays["digest"].tobytes()
    FRAMES = [row.tobytes() for row in arrays["frames"]]
    RESULTS = [row.tobytes() for row in arrays["results"]]


class Uart:
    """Bytes by cocotbext-uart."""

    def __init__(self, dut):
        from cocotbext.uart import UartSink, UartSource

        self.source = UartSource(dut.rx, baud=BAUD)
        self.sink = UartSink(dut.tx, baud=BAUD)

    async def send(self, data):
        await self.source.write(data)

    async def read(self):
        return bytes(await self.sink.read())


class Clock1:
    """What cocotbext-spi takes from cocotb 1, and cocotb 2 no longer has: a clock's base."""

    def __init__(self, signal):
        self.signal = signal


class Level:
    """A pin whose value is read as cocotb 1 gave it."""

    def __init__(self, pin):
        self._pin = pin

    @property
    def value(self):
        return self

    @property
    def integer(self):
        return int(self._pin.value)


class Spi:
    """Bytes by cocotbext-spi; what is read are zeros where the device says nothing."""

    def __init__(self, dut):
        clocks: Any = cocotb.clock
        clocks.BaseClock = Clock1
        from cocotbext.spi import SpiBus, SpiConfig, SpiMaster

        bus = SpiBus.from_entity(dut, cs_name="cs_n")
        config = SpiConfig(
            word_width=8,
            sclk_freq=SPI_HZ,
            cpol=False,
            cpha=False,
            cs_active_low=True,
            frame_spacing_ns=200,
        )
        self.master = SpiMaster(bus, config)
        self.master._miso = Level(dut.miso)

    async def send(self, data):
        await self.master.write(data, burst=True)

    async def read(self):
        await self.master.write(bytes(8), burst=True)
        return bytes(await self.master.read())


class Host:
    """Packets there and back."""

    def __init__(self, dut):
        self.dut = dut
        self.decoder = Decoder()
        self.packets = []

    async def start(self, link):
        cocotb.start_soon(Clock(self.dut.clk, 10, unit="ns").start())
        self.dut.rst.value = 1
        self.dut.rx.value = 1
        self.dut.cs_n.value = 1
        self.line = link(self.dut)
        await ClockCycles(self.dut.clk, 4)
        self.dut.rst.value = 0
        await ClockCycles(self.dut.clk, 4)

    async def send(self, kind, payload=b"", sequence=0, damage=0):
        packet = Packet(kind, SESSION, sequence, payload)
        data = bytearray(packet.encode())
        data[-1] ^= damage
        await self.line.send(data)
        return packet

    async def reply(self):
        while not self.packets:
            self.packets += self.decoder.feed(await with_timeout(self.line.read(), 2, "ms"))
        return self.packets.pop(0)

    async def register(self, number):
        await self.send(Kind.READ, bytes([number]))
        return register_of((await self.reply()).payload)[1]


LINKS = [Uart, Spi]


@cocotb.test()
@cocotb.parametrize(link=LINKS)
async def says_what_it_is(dut, link):
    host = Host(dut)
    await host.start(link)
    await host.send(Kind.IDENT, sequence=5)
    reply = await host.reply()
    assert (reply.kind, reply.session, reply.sequence) == (0x81, SESSION, 5)
    ident = Ident.decode(reply.payload)
    assert ident.digest == DIGEST
    assert (ident.frame_bytes, ident.result_bytes) == (len(FRAMES[0]), len(RESULTS[0]))


@cocotb.test()
@cocotb.parametrize(link=LINKS)
async def results_are_golden(dut, link):
    host = Host(dut)
    await host.start(link)
    sent = []
    for number, (frame, result) in enumerate(zip(FRAMES, RESULTS, strict=True)):
        sent.append((await host.send(Kind.FRAME, frame, number), result))
        if number and number % 2 == 0:
            continue
        while sent:
            request, wanted = sent.pop(0)
            reply = await host.reply()
            assert (reply.kind, reply.sequence) == (0x82, request.sequence)
            answer = Answer.decode(reply.payload)
            assert (answer.crc, answer.result) == (request.crc, wanted)
    assert await host.register(Register.FRAMES) == len(FRAMES)
    assert await host.register(Register.NAKS) == 0


@cocotb.test()
@cocotb.parametrize(link=LINKS)
async def damage_is_refused(dut, link):
    host = Host(dut)
    await host.start(link)
    await host.line.send(b"\xb7noise")
    await host.send(Kind.FRAME, FRAMES[0], 1, damage=1)
    assert await host.reply() == Packet(Kind.NAK, SESSION, 1, bytes([Reason.CRC]))
    request = await host.send(Kind.FRAME, FRAMES[1], 2)
    answer = Answer.decode((await host.reply()).payload)
    assert (answer.crc, answer.result) == (request.crc, RESULTS[1])
    assert await host.register(Register.SKIPPED) >= 6
    assert await host.register(Register.CRC_ERRORS) == 1

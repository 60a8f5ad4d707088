"""Hosts in Amaranth's simulator: one that has bytes, and one at the wires of a UART."""

import random

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib.wiring import connect
from amaranth.sim import Simulator

from brambling.hw.accelerator import Accelerator
from brambling.hw.link.device import DeviceSpec
from brambling.protocol import Decoder, Packet
from brambling.sim import golden

DIVISOR = 4
CLOCK_HZ = 4_000_000
SESSION = 0x1234


class Host:
    """Sends bytes and packets, and has those that came.

    Without ``pins`` a byte takes ``pace`` cycles, and the device has a place for every byte.
    """

    def __init__(self, ctx, device, *, pins, pace=1, seed=1):
        self.ctx = ctx
        self.device = device
        self.pins = pins
        self.pace = pace
        self.rng = random.Random(seed)
        self.decoder = Decoder()
        self.packets = []
        self.cycle = 0

    async def tick(self, cycles=1):
        await self.ctx.tick().repeat(cycles)

    async def send(self, data):
        ctx, device = self.ctx, self.device
        for byte in data:
            if self.pins:
                for bit in (0, *((byte >> n) & 1 for n in range(8)), 1):
                    ctx.set(device.rx, bit)
                    await self.tick(DIVISOR)
                continue
            ctx.set(device.data, byte)
            ctx.set(device.valid, 1)
            await self.tick()
            ctx.set(device.valid, 0)
            if gap := self.rng.randrange(2 * self.pace) if self.pace > 1 else 0:
                await self.tick(gap)

    async def reply(self, cycles=60_000):
        """Wait for the next packet."""
        for _ in range(cycles // 16):
            if self.packets:
                return self.packets.pop(0)
            await self.tick(16)
        raise AssertionError(f"no reply in {cycles} cycles")

    async def ask(self, kind, payload=b"", sequence=0):
        """Send a request; return its reply."""
        await self.send(Packet(kind, SESSION, sequence, payload).encode())
        return await self.reply()

    async def register(self, number):
        reply = await self.ask(3, bytes([number]))
        assert reply.payload[0] == number
        return int.from_bytes(reply.payload[1:], "little")


async def listen(host, over):
    """Collect what a device says on its wire, until the host is done."""
    ctx, device = host.ctx, host.device
    while not over:
        await ctx.tick()
        if ctx.get(device.tx):
            continue
        await ctx.tick().repeat(DIVISOR // 2)
        byte = 0
        for n in range(9):
            await ctx.tick().repeat(DIVISOR)
            byte |= ctx.get(device.tx) << n
        assert byte >> 8, "no stop bit"
        host.packets += host.decoder.feed(bytes([byte & 0xFF]))


async def take(host, over, stall):
    """Take the bytes that a link gives, with pauses."""
    ctx, o = host.ctx, host.device.o
    rng = random.Random(3)
    while not over:
        ready = rng.random() >= stall
        ctx.set(o.ready, ready)
        _, _, valid, byte = await ctx.tick().sample(o.valid, o.payload)
        if ready and valid:
            host.packets += host.decoder.feed(bytes([byte]))


def bench(top, device, host, *, pins, pace=1, stall=0.0, seed=1, also=None):
    """Run ``host(Host)`` against ``device`` in ``top``, and ``also(ctx, device, over)``."""
    sim = Simulator(top)
    sim.add_clock(1 / CLOCK_HZ)
    over = []
    hosts = []

    async def speak(ctx):
        hosts.append(Host(ctx, device, pins=pins, pace=pace, seed=seed))
        if pins:
            ctx.set(device.rx, 1)
            await ctx.tick().repeat(5)
        try:
            await host(hosts[0])
        finally:
            over.append(True)

    async def hear(ctx):
        await ctx.tick()
        ear = Host(ctx, device, pins=pins)
        ear.decoder, ear.packets = hosts[0].decoder, hosts[0].packets
        await (listen(ear, over) if pins else take(ear, over, stall))

    sim.add_testbench(speak)
    sim.add_testbench(hear)
    if also:

        async def beside(ctx):
            await also(ctx, device, over)

        sim.add_testbench(beside)
    sim.run()


@pytest.fixture
def play():
    """Run a host at the pins of a device."""

    def run(spec, host):
        device = spec.build()
        bench(device, device, host, pins=True)

    return run


@pytest.fixture
def play_bytes():
    """Run a host at the bytes of a link with its accelerator, as in a device."""

    def run(spec, host, accelerator=None, **kinds):
        m = Module()
        m.submodules.link = link = spec.link.build()
        m.submodules.accelerator = made = accelerator or Accelerator(spec.nodes)
        connect(m, link.frames, made.i)
        connect(m, made.o, link.results)
        bench(m, link, host, pins=False, **kinds)

    return run


@pytest.fixture
def tiny(small_network, hand_plan):
    """Make a device of a small network; return the network and the spec."""

    def make(rows=None, sizes=(5, 4, 3), argmax=True, **options):
        network = small_network(list(sizes), 1, argmax=argmax)
        options = {"clock_hz": CLOCK_HZ, "baud": CLOCK_HZ // DIVISOR, "timeout": 500} | options
        return network, DeviceSpec.of(network, hand_plan(network, rows), **options)

    return make


@pytest.fixture
def frames():
    """Make random frames of a network whose input is u8, and their golden results."""

    def make(network, count, seed=1):
        images = np.random.default_rng(seed).integers(0, 256, (count, network.input.size))
        results = golden.run(network, images)[network.layers[-1].name]
        return images, results.reshape(count, -1)

    return make

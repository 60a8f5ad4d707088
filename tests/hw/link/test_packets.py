"""Packets in hardware: found through every damage of a byte, and made."""

import random

import pytest
from amaranth.sim import Simulator

from brambling.errors import ConfigError
from brambling.hw.link.packets import PacketReceiverSpec, PacketSender
from brambling.protocol import DEVICE_MAGIC, Decoder, Packet

TIMEOUT = 24
PACKET = Packet(0x03, 0xBEEF, 0x0102, b"\x05\xb7").encode()
AFTER = Packet(0x01, 0x1111, 0x2222).encode()
LOST = 0x100
SEEDS = [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 6))]


class Ear:
    """What a receiver tells."""

    def __init__(self):
        self.accepted = []
        self.events = []
        self.skipped = 0
        self.bytes = bytearray()

    def hear(self, dut, ctx):
        self.skipped += ctx.get(dut.skipped)
        if ctx.get(dut.header) or ctx.get(dut.crc):
            self.bytes.append(ctx.get(dut.data))
        if ctx.get(dut.payload.valid) and ctx.get(dut.payload.ready):
            self.bytes.append(ctx.get(dut.payload.payload))
        if ctx.get(dut.check) and ctx.get(dut.refuse):
            self.events.append("refused")
            self.bytes.clear()
        if ctx.get(dut.end):
            truncated, good = ctx.get(dut.truncated), ctx.get(dut.good)
            self.events.append("truncated" if truncated else "good" if good else "bad")
            if good and not truncated:
                self.accepted.append(bytes(self.bytes))
            self.bytes.clear()


def hear(stream, *, stall=0.0, refuse=lambda length: False, pause=0.0, seed=1):
    """Give bytes, and None for a cycle without one, to a receiver; return what it tells."""
    dut = PacketReceiverSpec(TIMEOUT).build()
    rng = random.Random(seed)
    ear = Ear()

    async def bench(ctx):
        waiting = list(reversed(stream))
        while waiting:
            ctx.set(dut.pause, rng.random() < pause)
            ctx.set(dut.payload.ready, rng.random() >= stall)
            byte = waiting[-1]
            ctx.set(dut.i.valid, byte is not None)
            if byte is not None:
                ctx.set(dut.i.payload, {"data": byte & 0xFF, "lost": byte >> 8})
            ctx.set(dut.refuse, ctx.get(dut.check) and refuse(ctx.get(dut.length)))
            ear.hear(dut, ctx)
            if byte is None or ctx.get(dut.i.ready):
                waiting.pop()
            await ctx.tick()

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
    return ear


SILENCE = [None] * (TIMEOUT + 3)


def test_tells_what_a_packet_says():
    ear = hear([*PACKET, None, None, *AFTER, None, None])
    assert ear.accepted == [PACKET[2:], AFTER[2:]]
    assert ear.events == ["good", "good"]
    assert ear.skipped == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_waits_for_whoever_takes_the_payload_and_while_it_pauses(seed):
    stream = [*PACKET, *AFTER] * 4 + [None] * 40
    ear = hear(stream, stall=0.7, pause=0.6, seed=seed)
    assert ear.accepted == [PACKET[2:], AFTER[2:]] * 4
    assert ear.skipped == 0


def corrupted(values):
    """Every bit flip, every drop, every insertion of ``values``, and every end of a packet."""
    for n in range(8 * len(PACKET)):
        damaged = bytearray(PACKET)
        damaged[n // 8] ^= 1 << n % 8
        yield bytes(damaged)
    for n in range(len(PACKET)):
        yield PACKET[:n] + PACKET[n + 1 :]
        yield PACKET[:n]
    for n in range(len(PACKET) + 1):
        for value in values:
            yield PACKET[:n] + bytes([value]) + PACKET[n:]


def no_damage_makes_another_packet(values):
    cases = list(corrupted(values))
    stream = []
    for case in cases:
        stream += [*case, *SILENCE, *AFTER, None, None]
    ear = hear(stream)
    wrong = [packet for packet in ear.accepted if packet not in (PACKET[2:], AFTER[2:])]
    assert not wrong
    assert ear.accepted.count(AFTER[2:]) == len(cases)
    # A byte before the packet, or another first byte of the magic, does it no harm.
    around = 2 * len(values) + (0xB7 in values)
    again = sum(PACKET in case for case in cases)
    assert ear.accepted.count(PACKET[2:]) == again
    assert around - 1 <= again <= around + 1


def test_no_damage_makes_another_packet():
    no_damage_makes_another_packet((0x4C, 0xB7))


@pytest.mark.slow
def test_no_byte_in_between_makes_another_packet():
    no_damage_makes_another_packet(range(256))


@pytest.mark.parametrize("kept", [3, 6, 9, 10, 11, 12, 15])
def test_a_packet_that_stops_ends_after_the_silence(kept):
    for gap, events in ((TIMEOUT - 1, ["good"]), (TIMEOUT + 2, ["truncated"])):
        ear = hear([*PACKET[:kept], *[None] * gap, *PACKET[kept:], *[None] * 5])
        assert ear.events == events
        assert ear.skipped == (0 if gap < TIMEOUT else len(PACKET) - kept)


@pytest.mark.parametrize("at", range(2, len(PACKET)))
def test_a_packet_of_which_bytes_were_lost_ends_at_once(at):
    ear = hear([*PACKET[:at], LOST | AFTER[0], *AFTER[1:], *[None] * 3])
    assert ear.events == ["truncated", "good"]
    assert ear.accepted == [AFTER[2:]]
    assert ear.skipped == 0


def test_a_magic_of_which_the_middle_was_lost_is_none():
    ear = hear([PACKET[0], LOST | PACKET[1], *PACKET[2:-1], *[None] * 3])
    assert ear.events == []


def test_a_header_that_is_refused_ends_there():
    ear = hear([*PACKET, *AFTER, None, None], refuse=lambda length: length == 2)
    assert ear.events == ["refused", "good"]
    assert ear.accepted == [AFTER[2:]]
    assert ear.skipped == len(PACKET) - 10


def test_a_false_magic_costs_a_packet_and_not_the_next():
    noise = [0xB7, 0x4C, 0x02, 0x01, 0, 0, 0, 0, 3, 0]
    ear = hear([*noise, *AFTER, *AFTER, *SILENCE, *AFTER, None, None])
    assert ear.events[0] == "bad"
    assert ear.events[-1] == "good"
    assert ear.accepted == [AFTER[2:], AFTER[2:]]


@pytest.mark.parametrize("seed", SEEDS)
def test_noise_between_packets(seed):
    rng = random.Random(seed)
    stream = []
    for _ in range(10):
        stream += [rng.choice([0xB7, 0x4C, rng.randrange(256)]) for _ in range(rng.randrange(40))]
        stream += [*SILENCE, *PACKET, *SILENCE]
    ear = hear(stream, refuse=lambda length: length > 64, seed=seed)
    assert ear.accepted == [PACKET[2:]] * 10


def test_a_time_out_is_at_least_one():
    with pytest.raises(ConfigError, match=r"^timeout must be at least 1, not 0$"):
        PacketReceiverSpec(0)


def make(bodies, stall, seed=1):
    dut = PacketSender()
    rng = random.Random(seed)
    sent = bytearray()

    async def bench(ctx):
        waiting = [
            {"data": byte, "last": n == len(body) - 1}
            for body in bodies
            for n, byte in enumerate(body)
        ]
        for _ in range(4000):
            ctx.set(dut.o.ready, rng.random() >= stall)
            ctx.set(dut.i.valid, bool(waiting) and rng.random() >= stall)
            if waiting:
                ctx.set(dut.i.payload, waiting[0])
            if ctx.get(dut.o.valid) and ctx.get(dut.o.ready):
                sent.append(ctx.get(dut.o.payload))
            if ctx.get(dut.i.valid) and ctx.get(dut.i.ready):
                waiting.pop(0)
            await ctx.tick()
            if not waiting and not ctx.get(dut.o.valid):
                break
        assert not waiting

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
    return bytes(sent)


@pytest.mark.parametrize("stall", [0, 0.6])
def test_packets_are_made_as_the_codec_makes_them(stall):
    packets = [Packet(0x81, 1, 2, bytes(range(n))) for n in (0, 1, 5, 40)]
    sent = make([packet.body() for packet in packets], stall)
    assert sent == b"".join(packet.encode(DEVICE_MAGIC) for packet in packets)
    assert Decoder().feed(sent) == packets

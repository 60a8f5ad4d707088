"""Loading: words in order, once, and only those of good packets."""

import zlib
from types import SimpleNamespace

import numpy as np
import pytest

from brambling.hw.beat import Beats
from brambling.hw.link.link import LinkSpec
from brambling.hw.link.selftest import Vectors
from brambling.hw.queue import FifoSpec
from brambling.protocol import (
    LOAD_WORDS,
    Answer,
    Flag,
    Ident,
    Kind,
    Packet,
    Reason,
    Register,
)
from brambling.quant.formats import Fixed

BEATS = Beats(Fixed(8, 0, False), 3, 1)
TOTAL = 100
WORDS = np.random.default_rng(2).integers(0, 65_536, TOTAL).astype("<u2")
SESSION = 0x1234


def packet(offset, words, sequence=0):
    payload = offset.to_bytes(4, "little") + words.tobytes()
    return Packet(Kind.LOAD, SESSION, sequence, payload)


@pytest.fixture
def play_words(play_bytes):
    """Run a host against a link whose accelerator must be loaded; return the words it got."""

    def run(host, **options):
        found = []

        async def collect(ctx, link, over):
            number = 0
            while not over:
                number += 1
                ready = number % 3 != 0
                ctx.set(link.load.ready, ready)
                _, _, valid, word = await ctx.tick().sample(link.load.valid, link.load.payload)
                if ready and valid:
                    found.append(word)

        link = LinkSpec(
            i=BEATS,
            o=BEATS,
            digest=bytes(16),
            clock_hz=4_000_000,
            timeout=500,
            buffer=600,
            load_words=TOTAL,
            **options,
        )
        play_bytes(SimpleNamespace(link=link), host, FifoSpec(BEATS, 4).build(), also=collect)
        return found

    return run


def count(reply):
    assert reply.kind == 0x85
    return int.from_bytes(reply.payload, "little")


async def flags(host):
    return Ident.decode((await host.ask(Kind.IDENT)).payload).flags


def test_words_come_in_order_whatever_happens_to_packets(play_words):
    async def host(host):
        async def load(offset, words, damage=0):
            sent = bytearray(packet(offset, words).encode())
            sent[-1] ^= damage
            await host.send(sent)
            return await host.reply()

        assert await flags(host) == Flag.NEEDS_LOAD
        assert count(await load(0, WORDS[:0])) == 0  # Where are we?
        assert count(await load(0, WORDS[:40])) == 40
        assert count(await load(0, WORDS[:40])) == 40  # Again: its answer may have been lost.
        assert count(await load(41, WORDS[41:60])) == 40  # One is missing.
        assert (await load(40, WORDS[40:60], damage=1)).payload == bytes([Reason.CRC])
        frame = Packet(Kind.FRAME, SESSION, 1, b"abc")
        await host.send(frame.encode())
        assert await host.reply() == frame.nak(Reason.LOAD)
        assert count(await load(40, WORDS[40:60])) == 60
        crc = zlib.crc32(WORDS[:60].tobytes())
        assert await host.register(Register.LOAD_CRC) == crc
        more = np.concatenate([WORDS[60:], WORDS[:20]])  # Those past the last are ignored.
        assert count(await load(60, more)) == TOTAL
        assert count(await load(TOTAL, WORDS[:3])) == TOTAL
        assert await flags(host) == Flag.NEEDS_LOAD | Flag.LOADED
        assert host.ctx.get(host.device.led_pass)
        await host.send(frame.encode())
        answer = Answer.decode((await host.reply()).payload)
        assert (answer.crc, answer.result) == (frame.crc, b"abc")
        assert await host.register(Register.LOAD_CRC) == zlib.crc32(WORDS.tobytes())

    assert play_words(host) == WORDS.tolist()


def test_lengths_that_no_packet_of_words_has(play_words):
    async def host(host):
        for payload in (b"", bytes(3), bytes(5), bytes(4 + 2 * LOAD_WORDS + 2)):
            reply = await host.ask(Kind.LOAD, payload)
            assert (reply.kind, reply.payload) == (Kind.NAK, bytes([Reason.LENGTH]))
            await host.tick(200)
        most = await host.ask(Kind.LOAD, bytes(4) + WORDS[:LOAD_WORDS].tobytes())
        assert count(most) == LOAD_WORDS

    assert play_words(host) == WORDS[:LOAD_WORDS].tolist()


def test_the_selftest_waits_for_the_last_word(play_words):
    frames = np.array([[1, 2, 3], [4, 5, 6]])

    async def host(host):
        assert await flags(host) == Flag.NEEDS_LOAD | Flag.HAS_SELFTEST
        for offset in (0, 60):
            await host.send(packet(offset, WORDS[offset : offset + 60]).encode())
            await host.reply()
        found = await flags(host)
        assert found == Flag.NEEDS_LOAD | Flag.LOADED | Flag.HAS_SELFTEST | Flag.PASSED

    assert play_words(host, selftest=Vectors(frames, frames)) == WORDS.tolist()

"""The link, byte by byte: answers, refusals, and what becomes of frames that are damaged."""

import numpy as np
import pytest

from brambling.digest import digest
from brambling.errors import ConfigError
from brambling.hw.beat import Beats
from brambling.hw.link.link import LinkSpec
from brambling.protocol import (
    Answer,
    Flag,
    Ident,
    Kind,
    Packet,
    Reason,
    Register,
    bytes_of_frames,
    frame_size,
    results_of_bytes,
)
from brambling.quant.formats import Fixed
from brambling.sim.cycles import schedule

SESSION = 0x1234


def requests(spec, images):
    return [
        Packet(Kind.FRAME, SESSION, n, payload)
        for n, payload in enumerate(bytes_of_frames(spec.link.i, images))
    ]


def result_of(spec, request, reply):
    """Codes of a result, if it is that of the request."""
    assert (reply.kind, reply.session, reply.sequence) == (0x82, SESSION, request.sequence)
    answer = Answer.decode(reply.payload)
    assert answer.crc == request.crc
    return results_of_bytes(spec.link.o, [answer.result])[0].tolist()


def nak(reason, sequence=0):
    return Packet(Kind.NAK, SESSION, sequence, bytes([reason]))


def test_says_what_it_is(tiny, play_bytes):
    network, spec = tiny()

    async def host(host):
        reply = await host.ask(Kind.IDENT, sequence=7)
        assert (reply.kind, reply.session, reply.sequence) == (0x81, SESSION, 7)
        assert Ident.decode(reply.payload) == Ident(
            digest=digest(network),
            clock_hz=4_000_000,
            frame_bytes=5,
            result_bytes=1,
            credits=2,
            flags=Flag.LOADED,
        )

    play_bytes(spec, host)


SHAPES = {
    "one-by-one": {"rows": None},
    "beats-of-two": {"rows": [(2, 2), (2, 3), (3, 2), (1, 1)]},
    "whole-frame": {"rows": [(5, 5), (4, 5), (3, 4), (1, 1)]},
    "many-results": {"argmax": False, "sizes": (6, 9, 5)},
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("pace", [1, pytest.param(9, marks=pytest.mark.slow)])
def test_results_are_golden_and_in_order(tiny, play_bytes, frames, shape, pace):
    network, spec = tiny(**SHAPES[shape], buffer=200)
    images, wanted = frames(network, 5)

    async def host(host):
        sent = requests(spec, images)
        free = spec.link.credits
        waiting = []
        for request, want in zip(sent, wanted.tolist(), strict=True):
            if not free:
                before, expected = waiting.pop(0)
                assert result_of(spec, before, await host.reply()) == expected
                free += 1
            await host.send(request.encode())
            waiting.append((request, want))
            free -= 1
        for before, expected in waiting:
            assert result_of(spec, before, await host.reply()) == expected
        assert await host.register(Register.FRAMES) == len(images)
        assert await host.register(Register.RESULTS) == len(images)
        for number in (Register.CRC_ERRORS, Register.SKIPPED, Register.NAKS, Register.OVERRUNS):
            assert await host.register(number) == 0

    play_bytes(spec, host, pace=pace, stall=0.3)


def test_frames_that_are_damaged_have_a_refusal_in_the_place_of_their_result(
    tiny, play_bytes, frames
):
    network, spec = tiny(buffer=200)
    images, wanted = frames(network, 6)

    async def host(host):
        for request, want in zip(requests(spec, images), wanted.tolist(), strict=True):
            damaged = bytearray(request.encode())
            at = 10 + request.sequence % 9
            if request.sequence % 3:
                damaged[at] ^= 0x10
            await host.send(damaged)
            if request.sequence % 3 == 2:  # Two are in flight.
                assert await host.reply() == nak(Reason.CRC, request.sequence - 1)
                assert await host.reply() == nak(Reason.CRC, request.sequence)
            elif request.sequence % 3 == 0:
                assert result_of(spec, request, await host.reply()) == want
        assert await host.register(Register.FRAMES) == 2
        assert await host.register(Register.CRC_ERRORS) == 4
        assert await host.register(Register.NAKS) == 4

    play_bytes(spec, host)


KEPT = (2, 3, 9, 10, 11, 14, 15, 18)  #: Bytes of a frame of 19.


def test_a_frame_that_stops_is_refused_and_the_next_has_its_own_result(tiny, play_bytes, frames):
    network, spec = tiny(buffer=64, timeout=60)
    images, wanted = frames(network, len(KEPT))

    async def host(host):
        for kept, request in zip(KEPT, requests(spec, images), strict=True):
            await host.send(request.encode()[:kept])
            refused = await host.reply()
            assert (refused.kind, refused.payload) == (Kind.NAK, bytes([Reason.TRUNCATED]))
            await host.send(request.encode())
            reply = await host.reply()
            assert result_of(spec, request, reply) == wanted[request.sequence].tolist()
        assert await host.register(Register.TRUNCATED) == len(KEPT)

    play_bytes(spec, host)


def test_frames_beyond_the_credits_are_refused(tiny, play_bytes, frames):
    network, spec = tiny(credits=1, buffer=200)
    images, wanted = frames(network, 3)

    async def host(host):
        sent = requests(spec, images)
        await host.send(b"".join(request.encode() for request in sent))
        assert result_of(spec, sent[0], await host.reply()) == wanted[0].tolist()
        assert await host.reply() == nak(Reason.CREDIT, 1)
        last = await host.reply()
        assert last == nak(Reason.CREDIT, 2) or result_of(spec, sent[2], last)

    play_bytes(spec, host)


HEADERS = {
    "kind": (Packet(0x40, SESSION, 3), Reason.KIND),
    "no-selftest": (Packet(Kind.SELFTEST, SESSION, 3), Reason.KIND),
    "nothing-to-load": (Packet(Kind.LOAD, SESSION, 3, bytes(6)), Reason.KIND),
    "version": (Packet(Kind.IDENT, SESSION, 3, version=2), Reason.KIND),
    "short": (Packet(Kind.FRAME, SESSION, 3, bytes(4)), Reason.LENGTH),
    "long": (Packet(Kind.FRAME, SESSION, 3, bytes(6)), Reason.LENGTH),
    "ident": (Packet(Kind.IDENT, SESSION, 3, bytes(1)), Reason.LENGTH),
    "read": (Packet(Kind.READ, SESSION, 3), Reason.LENGTH),
    "great": (Packet(Kind.FRAME, SESSION, 3, bytes(65_535)), Reason.LENGTH),
}


def test_a_header_that_cannot_be_is_refused_at_once(tiny, play_bytes):
    _, spec = tiny(buffer=64)

    async def host(host):
        skipped = 0
        for packet, reason in HEADERS.values():
            sent = packet.encode()[:30]
            skipped += len(sent) - 10
            await host.send(sent)
            assert await host.reply() == nak(reason, 3)
            assert (await host.ask(Kind.IDENT)).kind == 0x81
            assert await host.register(Register.SKIPPED) == skipped

    play_bytes(spec, host)


def test_registers(tiny, play_bytes, frames):
    network, spec = tiny(buffer=64)
    images, _ = frames(network, 1)

    async def host(host):
        assert await host.register(Register.VERSION) == 1
        assert await host.register(Register.CYCLES_HIGH) == 0
        first, second = [await host.register(Register.CYCLES_LOW) for _ in range(2)]
        assert 0 < first < second
        for number in (15, 127, 128, 255):
            assert await host.register(number) == 0
        for number in (Register.FRAME_LAYOUT, Register.RESULT_LAYOUT):
            assert await host.register(number) == 0x1_0001
        (request,) = requests(spec, images)
        await host.send(b"\xb7noise" + request.encode())
        answer = Answer.decode((await host.reply()).payload)
        assert await host.register(Register.LAST_CYCLES) == answer.cycles
        assert await host.register(Register.SKIPPED) == 6
        assert (await host.ask(Kind.CLEAR, sequence=9)) == Packet(0x86, SESSION, 9)
        for number in (Register.SKIPPED, Register.FRAMES, Register.LAST_CYCLES):
            assert await host.register(number) == 0
        assert await host.register(Register.CYCLES_LOW) > second

    play_bytes(spec, host)


def test_cycles_are_those_of_the_cycle_model(tiny, play_bytes, frames):
    network, spec = tiny(rows=[(1, 1), (1, 1), (1, 1), (1, 1)], sizes=(5, 8, 3), buffer=64)
    images, _ = frames(network, 1)

    async def host(host):
        (request,) = requests(spec, images)
        await host.send(request.encode())
        answer = Answer.decode((await host.reply()).payload)
        # A byte a cycle comes, and a beat can be made of it every other cycle.
        found = schedule(spec.nodes, 1, offer=np.array([1, 0], bool))
        assert answer.cycles == found.cycles["argmax"][-1] - found.cycles["input"][0]

    play_bytes(spec, host)


def test_what_the_buffer_cannot_hold_is_lost_and_reported(tiny, play_bytes, frames):
    network, spec = tiny(sizes=(5, 40, 3), buffer=4)
    images, wanted = frames(network, 3)

    async def host(host):
        sent = requests(spec, images)
        await host.send(b"".join(request.encode() for request in sent[:2]))
        replies = [await host.reply()]
        while host.packets:
            replies.append(host.packets.pop(0))
        await host.tick(2000)
        replies += host.packets
        host.packets.clear()
        assert nak(Reason.TRUNCATED, 1).payload in [r.payload for r in replies]
        assert await host.register(Register.OVERRUNS) > 0
        host.pace = 6  # Slow enough.
        await host.send(sent[2].encode())
        assert result_of(spec, sent[2], await host.reply()) == wanted[2].tolist()

    play_bytes(spec, host)


def test_a_host_that_starts_anew_is_answered(tiny, play_bytes, frames):
    network, spec = tiny(buffer=200)
    images, wanted = frames(network, 2)

    async def host(host):
        first, second = requests(spec, images)
        await host.send(first.encode() + second.encode()[:12])
        await host.tick(spec.link.silence + 200)
        host.packets.clear()
        assert (await host.ask(Kind.IDENT)).kind == 0x81
        await host.send(second.encode())
        assert result_of(spec, second, await host.reply()) == wanted[1].tolist()

    play_bytes(spec, host)


BEATS = Beats(Fixed(8, 0, False), 6, 1)
GOOD = {"i": BEATS, "o": BEATS, "digest": bytes(16), "clock_hz": 12_000_000}
WRONG = [
    ({"link": "can"}, "link must be one of uart, spi, not 'can'"),
    ({"digest": bytes(15)}, "digest must be 16 bytes, not 15"),
    ({"timeout": 0}, "timeout must be at least 1, not 0"),
    ({"credits": 0}, "credits must be at least 1, not 0"),
    ({"credits": 256}, "credits must be at most 255, not 256"),
    ({"buffer": 1}, "buffer must be at least 2, not 1"),
    ({"load_words": -1}, "load_words must be at least 0, not -1"),
    (
        {"i": Beats(Fixed(8, 0, False), 65_536, 1)},
        "a frame on the link has at most 65535 bytes, not 65536",
    ),
    (
        {"o": Beats(Fixed(8, 0, False), 65_528, 1)},
        "a result on the link has at most 65527 bytes, not 65528",
    ),
    (
        {"baud": 5_000_000},
        "baud must be 1 to 3000000 with a clock of 12000000 Hz, not 5000000",
    ),
]


@pytest.mark.parametrize(("change", "message"), WRONG, ids=[next(iter(c)) for c, _ in WRONG])
def test_what_cannot_be_is_refused(change, message):
    with pytest.raises(ConfigError) as caught:
        LinkSpec(**GOOD | change)
    assert str(caught.value) == message


def test_a_buffer_for_all_that_may_be_in_flight():
    assert LinkSpec(**GOOD, credits=3).whole == 3 * (frame_size(BEATS) + 14) == 60
    assert LinkSpec(**GOOD).silence == 600_000

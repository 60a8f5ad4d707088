"""Requests and answers without a line: what is accepted, and what is told as lost."""

import pytest

from brambling.host.exchange import Answered, Exchange, Lost
from brambling.protocol import DEVICE_MAGIC, Answer, Kind, Packet, Reason

SESSION = 0x1234


@pytest.fixture
def exchange():
    made = Exchange(SESSION, longest=64)
    made.expect(3)
    return made


def frame(exchange, tag):
    """Ask for a frame; return the request's packet."""
    data = exchange.ask(Kind.FRAME, bytes([tag] * 5), tag)
    session, sequence = (int.from_bytes(data[n : n + 2], "little") for n in (4, 6))
    return Packet(data[2], session, sequence, data[10:-4])


def result(packet, text=b"abc", crc=None):
    answer = Answer(packet.crc if crc is None else crc, 7, text)
    return packet.reply(answer.encode()).encode(DEVICE_MAGIC)


def test_an_answer(exchange):
    packet = frame(exchange, 4)
    (event,) = exchange.receive(result(packet))
    assert isinstance(event, Answered)
    assert (event.request.tag, Answer.decode(event.payload)) == (4, Answer(packet.crc, 7, b"abc"))
    assert (exchange.waiting, exchange.asked, exchange.answered) == (0, 1, 1)
    assert str(exchange.losses) == "nothing lost"


def test_byte_by_byte_between_noise(exchange):
    packet = frame(exchange, 4)
    data = b"\0\xb7" + result(packet) + b"\xff"
    events = [event for byte in data for event in exchange.receive(bytes([byte]))]
    assert [event.request.tag for event in events] == [4]
    assert exchange.losses.skipped == 3
    assert exchange.heard == len(data)


def test_a_later_answer_tells_what_was_lost(exchange):
    frames = [frame(exchange, tag) for tag in range(4)]
    events = exchange.receive(result(frames[2]))
    assert [event.request.tag for event in events] == [0, 1, 2]
    assert [type(event) for event in events] == [Lost, Lost, Answered]
    assert (exchange.losses.overtaken, exchange.waiting) == (2, 1)
    assert exchange.receive(result(frames[1])) == []
    assert exchange.losses.stale == 1


def test_refusals(exchange):
    first, second = frame(exchange, 0), frame(exchange, 1)
    events = exchange.receive(second.nak(Reason.CRC).encode(DEVICE_MAGIC))
    assert [(e.request.tag, e.reason) for e in events if isinstance(e, Lost)] == [
        (0, None),
        (1, Reason.CRC),
    ]
    assert exchange.losses.to_json() == {
        "requests": 2,
        "silent": 0,
        "overtaken": 1,
        "nak_crc": 1,
        "damaged": 0,
        "skipped": 0,
        "stale": 0,
        "mismatched": 0,
        "repeated": 0,
    }
    assert str(exchange.losses) == "2 requests, 1 overtaken, 1 nak crc"
    assert exchange.receive(result(first)) == []


def test_silence(exchange):
    packet = frame(exchange, 8)
    assert exchange.receive(result(packet)[:-1]) == []
    (event,) = exchange.silence()
    assert event == Lost(event.request)
    assert event.request.tag == 8
    assert exchange.losses.silent == 1
    assert exchange.losses.skipped == len(result(packet)) - 1


def test_silence_finds_an_answer_behind_a_false_header(exchange):
    packet = frame(exchange, 8)
    false = DEVICE_MAGIC + b"\x82\1\0\0\0\0\x3f\0"  # It announces 63 bytes.
    assert exchange.receive(false + result(packet)) == []
    (event,) = exchange.silence()
    assert isinstance(event, Answered)
    assert exchange.losses.silent == 0


@pytest.mark.parametrize(
    ("change", "count"),
    [
        (lambda p: result(Packet(p.kind, SESSION + 1, p.sequence, p.payload), crc=p.crc), "stale"),
        (lambda p: result(Packet(p.kind, SESSION, p.sequence + 1, p.payload), crc=p.crc), "stale"),
        (lambda p: result(p, crc=p.crc ^ 1), "mismatched"),
        (lambda p: result(p, text=b"abcd"), "mismatched"),
        (lambda p: result(p, text=b""), "mismatched"),
        (lambda p: Packet(0x83, SESSION, p.sequence, bytes(11)).encode(DEVICE_MAGIC), "mismatched"),
        (lambda p: Packet(0xFF, SESSION, p.sequence, b"").encode(DEVICE_MAGIC), "mismatched"),
        (lambda p: Packet(0xFF, SESSION, p.sequence, b"\x63").encode(DEVICE_MAGIC), "mismatched"),
        (lambda p: Packet(0xFF, SESSION, p.sequence, b"\1", 2).encode(DEVICE_MAGIC), "mismatched"),
        (lambda p: result(p)[:-1] + bytes([result(p)[-1] ^ 1]), "damaged"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_not_accepted(exchange, change, count):
    packet = frame(exchange, 3)
    assert exchange.receive(change(packet)) == []
    assert exchange.waiting == 1
    assert exchange.losses.to_json()[count] == 1
    # The true answer is accepted afterwards.
    assert [e.request.tag for e in exchange.receive(result(packet))] == [3]


def test_no_bit_may_change(exchange):
    """Each bit of an answer flipped: never accepted, and the next answer is."""
    for bit in range(8 * len(result(Packet(2, 0, 0)))):
        packet = frame(exchange, 1)
        spoilt = bytearray(result(packet))
        spoilt[bit // 8] ^= 1 << bit % 8
        events = exchange.receive(bytes(spoilt)) + exchange.silence()
        assert [type(event) for event in events] == [Lost]


def test_sequence_numbers_wrap(exchange):
    for tag in range(69_999):
        frame(exchange, tag % 256)
        exchange.forget()
    packet = frame(exchange, 0)
    exchange.forget()
    assert packet.sequence == 69_999 - 65_536
    assert exchange.receive(result(packet)) == []
    assert exchange.losses.stale == 1


def test_another_version_is_noticed(exchange):
    packet = frame(exchange, 1)
    exchange.receive(Packet(0x82, SESSION, packet.sequence, b"", 9).encode(DEVICE_MAGIC))
    assert exchange.strange == 9

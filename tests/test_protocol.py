"""The protocol's packets: there and back, and through damage."""

import struct
import zlib

import numpy as np
import pytest

from brambling.errors import ConfigError
from brambling.hw.beat import Beats
from brambling.protocol import (
    DEVICE_MAGIC,
    HOST_MAGIC,
    OVERHEAD,
    Answer,
    Decoder,
    Flag,
    Ident,
    Kind,
    Packet,
    Reason,
    beat_bytes,
    bytes_of_frames,
    frame_size,
    register_of,
    results_of_bytes,
)
from brambling.quant.formats import Bipolar, Fixed

PACKET = Packet(Kind.READ, 0xBEEF, 0x0102, b"\x05")


def test_bytes_are_those_of_the_definition():
    body = bytes.fromhex("03 01 ef be 02 01 01 00 05")
    assert PACKET.encode() == b"\xb7\x4c" + body + zlib.crc32(body).to_bytes(4, "little")
    assert PACKET.encode(DEVICE_MAGIC)[:2] == b"\xb7\x4d"
    assert PACKET.crc == zlib.crc32(body)


def test_replies_have_session_and_sequence_of_their_request():
    assert PACKET.reply(b"ab") == Packet(0x83, 0xBEEF, 0x0102, b"ab")
    assert PACKET.nak(Reason.CREDIT) == Packet(0xFF, 0xBEEF, 0x0102, b"\x04")


def test_a_payload_has_at_most_65535_bytes():
    assert len(Packet(2, 0, 0, bytes(65_535)).encode()) == 65_535 + OVERHEAD
    with pytest.raises(ConfigError, match=r"^a payload has at most 65535 bytes, not 65536$"):
        Packet(2, 0, 0, bytes(65_536)).encode()


@pytest.mark.parametrize("length", [0, 1, 2, 255, 256, 257, 65_535])
@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
def test_packets_come_back_in_whatever_pieces(length, piece):
    if piece == 1 and length == 65_535:
        piece = 1000
    packets = [
        Packet(kind, kind * 257, 65_535 - kind, bytes(n % 251 for n in range(length)))
        for kind in (1, 2, 0xFF)
    ]
    sent = b"".join(packet.encode(DEVICE_MAGIC) for packet in packets)
    decoder = Decoder()
    found = [
        packet for n in range(0, len(sent), piece) for packet in decoder.feed(sent[n : n + piece])
    ]
    assert found == packets
    assert (decoder.skipped, decoder.crc_errors, decoder.pending) == (0, 0, 0)


def damages(whole):
    for n in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[n // 8] ^= 1 << n % 8
        yield bytes(damaged)
    for n in range(len(whole)):
        yield whole[:n] + whole[n + 1 :]
    for n in range(len(whole) + 1):
        for byte in (0x00, 0xB7, 0x4C, 0xFF):
            yield whole[:n] + bytes([byte]) + whole[n:]
    for n in range(len(whole)):
        yield whole[:n]


def test_no_damage_makes_another_packet_or_hides_the_next():
    whole, after = PACKET.encode(), Packet(Kind.IDENT, 1, 2)
    for damaged in damages(whole):
        decoder = Decoder(HOST_MAGIC)
        found = decoder.feed(damaged + after.encode()) + decoder.flush()
        assert found in ([after], [PACKET, after])
        assert decoder.pending == 0
        lost = len(damaged) - len(whole) * (len(found) == 2)
        assert decoder.skipped == lost


def test_a_length_beyond_the_longest_is_taken_for_noise_at_once():
    decoder = Decoder(HOST_MAGIC, longest=8)
    long = Packet(2, 0, 0, bytes(9)).encode()
    assert decoder.feed(long[:10] + PACKET.encode()) == [PACKET]
    assert decoder.skipped == 10


def test_a_false_magic_in_noise_costs_no_packet():
    decoder = Decoder(HOST_MAGIC)
    noise = b"\xb7\xb7\x4c\x02\x01" + bytes(4) + b"\x01\x00"
    assert decoder.feed(noise + PACKET.encode()) == [PACKET]
    assert (decoder.skipped, decoder.crc_errors) == (11, 1)


def test_a_false_magic_with_a_great_length_costs_a_silence():
    decoder = Decoder(HOST_MAGIC)
    noise = b"\xb7\x4c\x02\x01" + bytes(4) + b"\xff\xff"
    assert decoder.feed(noise + PACKET.encode()) == []
    assert decoder.flush() == [PACKET]
    assert (decoder.skipped, decoder.crc_errors, decoder.pending) == (10, 0, 0)


def test_an_identification_comes_back():
    ident = Ident(
        digest=bytes(range(16)),
        clock_hz=48_000_000,
        frame_bytes=784,
        result_bytes=1,
        credits=2,
        flags=Flag.HAS_SELFTEST | Flag.PASSED,
    )
    assert ident.encode() == bytes(range(16)) + struct.pack("<IIHHI", 48_000_000, 784, 1, 2, 12)
    assert Ident.decode(ident.encode()) == ident
    with pytest.raises(ConfigError, match=r"^an identification has 32 bytes, not 31$"):
        Ident.decode(ident.encode()[:31])


def test_an_answer_comes_back():
    answer = Answer(0xDEADBEEF, 1234, b"\x07\x00")
    assert Answer.decode(answer.encode()) == answer
    with pytest.raises(ConfigError, match=r"^the answer to a frame has at least 8 bytes, not 7$"):
        Answer.decode(bytes(7))


def test_a_register_comes_back():
    assert register_of(b"\x04\x01\x02\x03\x80") == (4, 0x80030201)
    with pytest.raises(ConfigError, match=r"^the answer to READ has 5 bytes, not 4$"):
        register_of(bytes(4))


@pytest.mark.parametrize(
    "beats",
    [
        Beats(Fixed(8, 0, False), 6, 1),
        Beats(Fixed(8, 0, False), 7, 3),
        Beats(Bipolar(), 17, 17),
        Beats(Bipolar(), 16, 8),
        Beats(Fixed(4, 0), 5, 2, 3, 4, 3),
        Beats(Fixed(13, 0), 1, 1),
    ],
    ids=str,
)
def test_frames_come_back(beats):
    rng = np.random.default_rng(1)
    codes = rng.integers(beats.fmt.min, beats.fmt.max + 1, (4, beats.size))
    if beats.fmt == Bipolar():
        codes = rng.choice([-1, 1], (4, beats.size))
    sent = bytes_of_frames(beats, codes)
    assert {len(frame) for frame in sent} == {frame_size(beats)}
    assert np.array_equal(results_of_bytes(beats, sent), codes)


def test_a_beat_is_padded_to_whole_bytes():
    beats = Beats(Fixed(3, 0, False), 4, 3)
    assert (beat_bytes(beats), frame_size(beats)) == (2, 4)
    (frame,) = bytes_of_frames(beats, np.array([[1, 2, 7, 5]]))
    assert frame == bytes([1 | 2 << 3 | (7 << 6) & 0xFF, 7 >> 2, 5, 0])


def test_a_result_of_another_length_is_refused():
    beats = Beats(Fixed(8, 0), 2, 1)
    with pytest.raises(ConfigError, match=r"^a result has 2 bytes, not 3$"):
        results_of_bytes(beats, [bytes(2), bytes(3)])

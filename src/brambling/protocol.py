"""The link's protocol, version 1: packets as bytes, without hardware and without a port.

A packet, both ways, all numbers little-endian:

======  =====  ====================================================================
offset  bytes  meaning
======  =====  ====================================================================
0       2      magic: ``B7 4C`` from the host, ``B7 4D`` from the device
2       1      kind
3       1      version: 1
4       2      session, which the host draws when it opens the link
6       2      sequence number of the request
8       2      bytes of the payload
10             payload
then    4      CRC-32 (IEEE 802.3, :func:`zlib.crc32`) of all bytes from the kind on
======  =====  ====================================================================

A reply has the session and sequence of its request.
"""

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from brambling.errors import ConfigError

__all__ = [
    "ANSWER",
    "DEVICE_MAGIC",
    "HEADER",
    "HOST_MAGIC",
    "LOAD_WORDS",
    "OVERHEAD",
    "VERSION",
    "Answer",
    "Decoder",
    "Flag",
    "Ident",
    "Kind",
    "Packet",
    "Reason",
    "Register",
    "beat_bytes",
    "bytes_of_frames",
    "frame_size",
    "layout_of",
    "register_of",
    "results_of_bytes",
]

VERSION = 1
HOST_MAGIC = b"\xb7\x4c"  #: Begins packets from the host.
DEVICE_MAGIC = b"\xb7\x4d"  #: Begins packets from the device.
HEADER = 10  #: Bytes before the payload, magic included.
OVERHEAD = HEADER + 4  #: Bytes of a packet without payload.
ANSWER = 0x80  #: Added to a request's kind in its answer.
LOAD_WORDS = 64  #: Most 16-bit words that a LOAD packet carries.
LONGEST = 0xFFFF  #: Bytes of the longest payload.


class Kind(IntEnum):
    """What a packet is; the answer to a request has ``ANSWER`` added."""

    IDENT = 0x01  #: Who are you? No payload; answered by :class:`Ident`.
    FRAME = 0x02  #: A frame; answered by its result, see :class:`Answer`.
    READ = 0x03  #: A register's number; answered by number and u32 value.
    SELFTEST = 0x04  #: Run the vectors inside; answered by one byte, 1 where all passed.
    LOAD = 0x05  #: u32 offset, then words of 16 bits; answered by the u32 words loaded so far.
    CLEAR = 0x06  #: Set the counters to 0, but for the cycle counter; answered without payload.
    NAK = 0xFF  #: Device to host, in place of an answer: one byte, a :class:`Reason`.


class Reason(IntEnum):
    """Why a request has no answer."""

    CRC = 1  #: The packet was damaged.
    LENGTH = 2  #: Its kind cannot have a payload of that length.
    KIND = 3  #: Its kind or version is not known to the device.
    CREDIT = 4  #: More frames in flight than the device allows; or a self-test while there are any.
    TRUNCATED = 5  #: It stopped in the middle, or bytes of it were lost.
    LOAD = 6  #: A frame came before all weights were loaded.


class Register(IntEnum):
    """Numbers of the device's registers, each of 32 bits; all others read as 0.

    Counters of errors have 16 bits and stay at their largest value.
    """

    CYCLES_LOW = 0  #: Clock cycles since power-up; reading it keeps its upper half for reading.
    CYCLES_HIGH = 1  #: Upper half, as it was when the lower one was read.
    FRAMES = 2  #: Frames that came whole.
    RESULTS = 3  #: Results sent.
    CRC_ERRORS = 4  #: Packets with a wrong CRC.
    SKIPPED = 5  #: Bytes passed over in search of a packet.
    TRUNCATED = 6  #: Packets that stopped in the middle.
    NAKS = 7  #: NAKs sent.
    FRAMING = 8  #: Bytes without a stop bit (UART).
    LAST_CYCLES = 9  #: Cycles of the last result sent.
    VERSION = 10  #: Version of the protocol.
    OVERRUNS = 11  #: Bytes lost because the device was too slow for them.
    LOAD_CRC = 12  #: CRC-32 of all words loaded, each as two bytes, low one first.
    FRAME_LAYOUT = 13  #: Beats of a frame: lanes in the lower 16 bits, pixels in the upper ones.
    RESULT_LAYOUT = 14  #: Beats of a result, alike.


class Flag(IntFlag):
    """Flags of :class:`Ident`."""

    NEEDS_LOAD = 1  #: Weights must be loaded before the first frame.
    LOADED = 2  #: They are.
    HAS_SELFTEST = 4
    PASSED = 8  #: The last self-test passed.


NO_FLAGS = Flag(0)


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet; ``kind`` is a number, as packets with unknown kinds exist."""

    kind: int
    session: int
    sequence: int
    payload: bytes = b""
    version: int = VERSION

    def body(self) -> bytes:
        """Bytes that the CRC covers."""
        if len(self.payload) > LONGEST:
            raise ConfigError(f"a payload has at most {LONGEST} bytes, not {len(self.payload)}")
        fields = self.kind, self.version, self.session, self.sequence, len(self.payload)
        return struct.pack("<BBHHH", *fields) + self.payload

    @property
    def crc(self) -> int:
        """CRC-32 of the packet, which the answer to a frame repeats."""
        return zlib.crc32(self.body())

    def encode(self, magic: bytes = HOST_MAGIC) -> bytes:
        """Return the packet as bytes."""
        body = self.body()
        return magic + body + struct.pack("<I", zlib.crc32(body))

    def reply(self, payload: bytes = b"") -> "Packet":
        """Return the device's answer to this request."""
        return Packet(self.kind | ANSWER, self.session, self.sequence, payload)

    def nak(self, reason: Reason) -> "Packet":
        """Return the device's refusal of this request."""
        return Packet(Kind.NAK, self.session, self.sequence, bytes([reason]))


class Decoder:
    """Finds packets in a stream of bytes that may be damaged.

    What follows a damaged packet's magic is searched again: a false magic, or a wrong length, hides
    no packet that has come whole. Only a packet that is still incomplete waits for more bytes;
    :meth:`flush` gives it up when the line has been silent for too long.

    Parameters
    ----------
    magic
        What packets begin with: ``DEVICE_MAGIC`` in the host.
    longest
        Bytes of the longest payload to expect: a header with more is taken for noise.

    Attributes
    ----------
    skipped
        Bytes passed over so far.
    crc_errors
        Packets with a wrong CRC so far.
    """

    def __init__(self, magic: bytes = DEVICE_MAGIC, longest: int = LONGEST) -> None:
        self.magic = magic
        self.longest = longest
        self.skipped = 0
        self.crc_errors = 0
        self._bytes = bytearray()

    @property
    def pending(self) -> int:
        """Bytes that may be the beginning of a packet."""
        return len(self._bytes)

    def feed(self, received: bytes) -> list[Packet]:
        """Take bytes; return the packets that are whole now, in order."""
        self._bytes += received
        found = []
        while (packet := self._next()) is not None:
            found.append(packet)
        return found

    def flush(self) -> list[Packet]:
        """Give up the packet that is incomplete; return those found in what came after it."""
        found = []
        while self._bytes:
            self._skip(1)
            found += self.feed(b"")
        return found

    def _skip(self, count: int) -> None:
        self.skipped += count
        del self._bytes[:count]

    def _hunt(self) -> bool:
        """Drop all before a magic; whether there is a whole one."""
        at = self._bytes.find(self.magic)
        if at < 0:
            at = len(self._bytes) - self._bytes.endswith(self.magic[:1])
        if at:
            self._skip(at)
        return len(self._bytes) >= len(self.magic)

    def _next(self) -> Packet | None:
        while self._hunt() and len(self._bytes) >= HEADER:
            fields = struct.unpack_from("<BBHHH", self._bytes, 2)
            kind, version, session, sequence, length = fields
            end = OVERHEAD + length
            if length > self.longest:
                self._skip(1)
                continue
            if len(self._bytes) < end:
                return None
            if int.from_bytes(self._bytes[end - 4 : end], "little") != zlib.crc32(
                self._bytes[2 : end - 4]
            ):
                self.crc_errors += 1
                self._skip(1)
                continue
            payload = bytes(self._bytes[HEADER : end - 4])
            del self._bytes[:end]
            return Packet(kind, session, sequence, payload, version)
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ident:
    """What a device says of itself.

    Parameters
    ----------
    digest
        16 bytes: :func:`brambling.digest.digest` of the network inside.
    clock_hz
        Its clock.
    frame_bytes, result_bytes
        Bytes of a frame's payload, and of a result behind CRC and cycles.
    credits
        Frames that may be in flight: sent, and not yet answered.
    flags
        See :class:`Flag`.
    """

    digest: bytes
    clock_hz: int
    frame_bytes: int
    result_bytes: int
    credits: int
    flags: Flag = NO_FLAGS

    FORMAT = "<16sIIHHI"

    def encode(self) -> bytes:
        """Return the payload of the answer to IDENT: 32 bytes."""
        return struct.pack(
            self.FORMAT,
            self.digest,
            self.clock_hz,
            self.frame_bytes,
            self.result_bytes,
            self.credits,
            self.flags,
        )

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Read such a payload; :class:`ConfigError` where it has another length."""
        if len(payload) != struct.calcsize(cls.FORMAT):
            raise ConfigError(
                f"an identification has {struct.calcsize(cls.FORMAT)} bytes, not {len(payload)}"
            )
        digest, clock_hz, frame_bytes, result_bytes, credits, flags = struct.unpack(
            cls.FORMAT, payload
        )
        return cls(
            digest=digest,
            clock_hz=clock_hz,
            frame_bytes=frame_bytes,
            result_bytes=result_bytes,
            credits=credits,
            flags=Flag(flags),
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a frame.

    Parameters
    ----------
    crc
        CRC-32 of the request: the result is that frame's and no other's.
    cycles
        Clock cycles from the first beat into the accelerator to the last one out.
    result
        Beats of the result, each in whole bytes.
    """

    crc: int
    cycles: int
    result: bytes

    def encode(self) -> bytes:
        """Return the payload."""
        return struct.pack("<II", self.crc, self.cycles) + self.result

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Read such a payload; :class:`ConfigError` where it is too short."""
        if len(payload) < 8:
            raise ConfigError(f"the answer to a frame has at least 8 bytes, not {len(payload)}")
        crc, cycles = struct.unpack_from("<II", payload)
        return cls(crc, cycles, payload[8:])


def register_of(payload: bytes) -> tuple[int, int]:
    """Return number and value from the answer to READ; :class:`ConfigError` for another length."""
    if len(payload) != 5:
        raise ConfigError(f"the answer to READ has 5 bytes, not {len(payload)}")
    number, value = struct.unpack("<BI", payload)
    return number, value


class BeatsLike(Protocol):
    """What is needed of :class:`brambling.hw.beat.Beats`."""

    @property
    def width(self) -> int: ...
    @property
    def count(self) -> int: ...
    @property
    def lanes(self) -> int: ...
    @property
    def pixels(self) -> int: ...
    def pack(self, codes: NDArray) -> NDArray[np.uint8]: ...
    def unpack(self, payloads: NDArray[np.uint8]) -> NDArray[np.int64]: ...


def beat_bytes(beats: BeatsLike) -> int:
    """Bytes of a beat on the link: its codes, without the mark of the first."""
    return -(-(beats.width - 1) // 8)


def frame_size(beats: BeatsLike) -> int:
    """Bytes of a frame, or of a result, on the link."""
    return beats.count * beat_bytes(beats)


def layout_of(beats: BeatsLike) -> int:
    """Return what ``FRAME_LAYOUT`` or ``RESULT_LAYOUT`` says of ``beats``."""
    return beats.lanes | beats.pixels << 16


def bytes_of_frames(beats: BeatsLike, codes: NDArray) -> list[bytes]:
    """Frames of codes ``(n, size)`` as they travel: beat by beat, lane 0 in the lowest bits.

    Bits of the last byte of a beat that carry no code are 0.
    """
    width = beats.width - 1
    payloads = beats.pack(codes)
    if spare := width % 8:
        payloads[:, width // 8] &= (1 << spare) - 1
    rows = payloads[:, : beat_bytes(beats)].reshape(len(codes), -1)
    return [row.tobytes() for row in rows]


def results_of_bytes(beats: BeatsLike, results: Sequence[bytes]) -> NDArray[np.int64]:
    """Inverse of :func:`bytes_of_frames`: codes ``(n, size)``.

    Raises
    ------
    ConfigError
        A result has another length.
    """
    whole = frame_size(beats)
    for result in results:
        if len(result) != whole:
            raise ConfigError(f"a result has {whole} bytes, not {len(result)}")
    rows = np.frombuffer(b"".join(results), np.uint8).reshape(-1, beat_bytes(beats))
    padded = np.zeros((len(rows), -(-beats.width // 8)), np.uint8)
    padded[:, : rows.shape[1]] = rows
    return beats.unpack(padded)

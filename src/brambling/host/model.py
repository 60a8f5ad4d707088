"""A device in Python: the golden model behind the protocol, for hosts without a board."""

import struct
import zlib
from collections import deque
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from brambling.digest import digest
from brambling.host.transport import BAUD, BITS
from brambling.hw.accelerator import pipeline
from brambling.hw.beat import Beats
from brambling.network import Network
from brambling.plan import Plan
from brambling.protocol import (
    DEVICE_MAGIC,
    HEADER,
    HOST_MAGIC,
    LOAD_WORDS,
    OVERHEAD,
    VERSION,
    Answer,
    Flag,
    Ident,
    Kind,
    Packet,
    Reason,
    Register,
    bytes_of_frames,
    frame_size,
    layout_of,
    results_of_bytes,
)
from brambling.sim import golden
from brambling.sim.cycles import schedule

__all__ = ["ModelDevice"]

SILENCE = 0.05  #: Seconds.
WRAP = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class Verdict:
    """A packet that has ended: whether it is good, or why not."""

    packet: Packet
    reason: Reason | None


class Parser:
    """Finds packets as the hardware does: byte after byte, without looking back.

    Attributes
    ----------
    skipped
        Bytes passed over.
    """

    def __init__(self, longest: int, lengths: dict[int, tuple[int, ...]]) -> None:
        self.skipped = 0
        self._lengths = lengths
        self._longest = longest
        self._bytes = bytearray()

    @property
    def pending(self) -> bool:
        """Whether a packet is under way: its magic has come."""
        return self._bytes.startswith(HOST_MAGIC)

    def feed(self, data: bytes) -> list[Verdict]:
        """Take bytes; return the packets that have ended."""
        self._bytes += data
        found = []
        while (verdict := self._next()) is not None:
            found.append(verdict)
        return found

    def cut(self) -> list[Verdict]:
        """End the packet that is under way: the line has been silent in its middle."""
        if not self.pending:
            return []
        packet = self._packet(bytes(self._bytes[2:HEADER]).ljust(HEADER - 2, b"\0"), b"")
        self._bytes.clear()
        return [Verdict(packet, Reason.TRUNCATED)]

    def _hunt(self) -> None:
        at = self._bytes.find(HOST_MAGIC)
        if at < 0:
            at = len(self._bytes) - self._bytes.endswith(HOST_MAGIC[:1])
        self.skipped += at
        del self._bytes[:at]

    @staticmethod
    def _packet(fields: bytes, payload: bytes) -> Packet:
        kind, version, session, sequence, _ = struct.unpack("<BBHHH", fields)
        return Packet(kind, session, sequence, payload, version)

    def _next(self) -> Verdict | None:
        self._hunt()
        if len(self._bytes) < HEADER:
            return None
        fields = bytes(self._bytes[2:HEADER])
        length = int.from_bytes(fields[-2:], "little")
        packet = self._packet(fields, b"")
        if reason := self._refusal(packet, length):
            del self._bytes[:HEADER]
            return Verdict(packet, reason)
        end = OVERHEAD + length
        if len(self._bytes) < end:
            return None
        body, crc = bytes(self._bytes[2 : end - 4]), bytes(self._bytes[end - 4 : end])
        del self._bytes[:end]
        good = zlib.crc32(body) == int.from_bytes(crc, "little")
        return Verdict(self._packet(fields, body[HEADER - 2 :]), None if good else Reason.CRC)

    def _refusal(self, packet: Packet, length: int) -> Reason | None:
        if packet.version != VERSION or packet.kind not in self._lengths:
            return Reason.KIND
        return None if length in self._lengths[packet.kind] else Reason.LENGTH


class ModelDevice:
    """A line with a device at its end that computes with the golden model.

    It answers what the hardware would, on a clock of its own that only moves while it is used.

    Parameters
    ----------
    network
        What it computes.
    frame, result
        Beats of its input and output.
    cycles
        Of a frame, as it tells them.
    clock_hz, baud, credits
        As the hardware's.
    silence
        Seconds in which the next byte of a packet must come.
    selftest
        What its self-test finds; ``None``: it has none.
    words
        Weights that must be loaded before the first frame; empty: none.
    """

    name = "model"

    def __init__(
        self,
        network: Network,
        frame: Beats,
        result: Beats,
        *,
        cycles: int = 1,
        clock_hz: int = 25_000_000,
        baud: int = BAUD,
        credits: int = 2,
        silence: float = SILENCE,
        selftest: bool | None = None,
        words: NDArray | None = None,
    ) -> None:
        self.network = network
        self.frame, self.result = frame, result
        self.byte_seconds = BITS / baud
        self.clock_hz, self.credits, self.latency = clock_hz, credits, cycles
        self.silence, self.selftest = silence, selftest
        self.words = np.zeros(0, "<u2") if words is None else np.asarray(words).astype("<u2")
        self._loaded = bytearray()
        self._now = self._heard = 0.0
        self._counts = dict.fromkeys(Register, 0)
        self._verdicts: deque[Verdict] = deque()
        self._parser = self._new_parser()

    @classmethod
    def of(cls, network: Network, plan: Plan, **options: Any) -> Self:
        """Return the device of a network as planned; it tells the cycles of the cycle model."""
        nodes = pipeline(network, plan)
        options = {"cycles": schedule(nodes, 1).latency, "clock_hz": plan.clock_hz} | options
        return cls(network, nodes[0].spec.i, nodes[-1].spec.o, **options)

    def _new_parser(self) -> Parser:
        longest = 4 + 2 * LOAD_WORDS
        lengths: dict[int, tuple[int, ...]] = {
            Kind.IDENT: (0,),
            Kind.FRAME: (frame_size(self.frame),),
            Kind.READ: (1,),
            Kind.CLEAR: (0,),
        }
        if self.selftest is not None:
            lengths[Kind.SELFTEST] = (0,)
        if len(self.words):
            lengths[Kind.LOAD] = tuple(range(6, longest + 1, 2))
        return Parser(max(longest, frame_size(self.frame)), lengths)

    # The line ---------------------------------------------------------------------------------

    def now(self) -> float:
        """See :class:`brambling.host.transport.Transport`."""
        return self._now

    def write(self, data: bytes) -> None:
        """See :class:`brambling.host.transport.Transport`."""
        if self._parser.pending and self._now - self._heard > self.silence:
            self._judge(self._parser.cut())
        self._now += len(data) * self.byte_seconds
        self._heard = self._now
        self._judge(self._parser.feed(data))

    def read(self, timeout: float) -> bytes:
        """See :class:`brambling.host.transport.Transport`."""
        if not self._verdicts:
            silent = self._heard + self.silence
            if self._parser.pending and silent <= self._now + timeout:
                self._now = max(self._now, silent)
                self._judge(self._parser.cut())
            else:
                self._now += timeout
        said = self._answers()
        self._now += len(said) * self.byte_seconds
        return said

    def close(self) -> None:
        """See :class:`brambling.host.transport.Transport`."""

    def reset(self) -> None:
        """Forget all that came: counters, weights, packets under way."""
        self._loaded.clear()
        self._verdicts.clear()
        self._counts = dict.fromkeys(Register, 0)
        self._parser = self._new_parser()

    # The device -------------------------------------------------------------------------------

    def _judge(self, verdicts: list[Verdict]) -> None:
        """Take packets that have ended, in order; count what is wrong with them."""
        counts = self._counts
        flying = sum(v.packet.kind == Kind.FRAME and v.reason is None for v in self._verdicts)
        for verdict in verdicts:
            good = verdict
            if verdict.reason is None and verdict.packet.kind == Kind.FRAME:
                if len(self._loaded) < self.words.nbytes:
                    good = Verdict(verdict.packet, Reason.LOAD)
                elif flying >= self.credits:
                    good = Verdict(verdict.packet, Reason.CREDIT)
                else:
                    flying += 1
                    counts[Register.FRAMES] += 1
            counts[Register.CRC_ERRORS] += good.reason == Reason.CRC
            counts[Register.TRUNCATED] += good.reason == Reason.TRUNCATED
            self._verdicts.append(good)
        counts[Register.SKIPPED] = self._parser.skipped

    def _answers(self) -> bytes:
        """Answer all packets that wait, in order; frames are computed together."""
        verdicts = list(self._verdicts)
        self._verdicts.clear()
        frames = [v.packet for v in verdicts if v.packet.kind == Kind.FRAME and v.reason is None]
        results = iter(self._compute(frames))
        said = b""
        for verdict in verdicts:
            packet = verdict.packet
            if verdict.reason is not None:
                self._counts[Register.NAKS] += 1
                reply = packet.nak(verdict.reason)
            elif packet.kind == Kind.FRAME:
                self._counts[Register.RESULTS] += 1
                self._counts[Register.LAST_CYCLES] = self.latency
                reply = packet.reply(Answer(packet.crc, self.latency, next(results)).encode())
            else:
                reply = packet.reply(self._obey(packet))
            said += reply.encode(DEVICE_MAGIC)
        return said

    def _compute(self, frames: list[Packet]) -> list[bytes]:
        if not frames:
            return []
        codes = results_of_bytes(self.frame, [packet.payload for packet in frames])
        last = self.network.layers[-1].name
        values = golden.run(
            self.network, codes.reshape(-1, *self.network.input.shape), edges=(last,)
        )[last]
        return bytes_of_frames(self.result, values.reshape(len(values), -1))

    def _obey(self, packet: Packet) -> bytes:
        """Do what is asked for other than a frame; return the answer's payload."""
        match packet.kind:
            case Kind.IDENT:
                return self._ident().encode()
            case Kind.READ:
                return struct.pack("<BI", packet.payload[0], self._register(packet.payload[0]))
            case Kind.SELFTEST:
                return bytes([bool(self.selftest)])
            case Kind.LOAD:
                at, words = int.from_bytes(packet.payload[:4], "little"), packet.payload[4:]
                if 2 * at == len(self._loaded):
                    self._loaded += words[: self.words.nbytes - len(self._loaded)]
                return (len(self._loaded) // 2).to_bytes(4, "little")
            case _:  # CLEAR
                self._counts = dict.fromkeys(Register, 0)
                self._parser.skipped = 0
                return b""

    def _ident(self) -> Ident:
        flags = Flag(0)
        flags |= Flag.NEEDS_LOAD if len(self.words) else Flag(0)
        flags |= Flag.LOADED if len(self._loaded) == self.words.nbytes else Flag(0)
        if self.selftest is not None:
            flags |= Flag.HAS_SELFTEST | (Flag.PASSED if self.selftest else Flag(0))
        return Ident(
            digest=digest(self.network),
            clock_hz=self.clock_hz,
            frame_bytes=frame_size(self.frame),
            result_bytes=frame_size(self.result),
            credits=self.credits,
            flags=flags,
        )

    def _register(self, number: int) -> int:
        cycles = int(self._now * self.clock_hz)
        match number:
            case Register.CYCLES_LOW:
                self._counts[Register.CYCLES_HIGH] = cycles >> 32
                return cycles & WRAP
            case Register.VERSION:
                return VERSION
            case Register.LOAD_CRC:
                return zlib.crc32(self._loaded)
            case Register.FRAME_LAYOUT:
                return layout_of(self.frame)
            case Register.RESULT_LAYOUT:
                return layout_of(self.result)
        return self._counts.get(Register(number), 0) if number in {*Register} else 0

"""Requests and answers, without a line: bytes in, bytes out, and what became of each request.

Answers come in the order of the requests. So the answer to one request tells that those before it
have been lost, if they have not been answered: nothing needs to wait for a time-out as long as
answers come.
"""

from collections import Counter
from dataclasses import dataclass, field

from brambling.protocol import ANSWER, VERSION, Answer, Decoder, Kind, Packet, Reason

__all__ = ["Answered", "Exchange", "Losses", "Lost", "Request"]

SEQUENCES = 1 << 16


@dataclass(slots=True)
class Losses:
    """What was lost on the line, or refused, since it was opened. All of it was noticed.

    Parameters
    ----------
    silent
        Requests without an answer in time.
    overtaken
        Requests that a later one's answer came before.
    naks
        Requests that the device refused, by reason.
    damaged
        Packets from the device with a wrong CRC.
    skipped
        Bytes from the device that belong to no packet.
    stale
        Answers to what was no longer asked, or to another host.
    mismatched
        Answers that do not fit their request: another kind, another frame's CRC, another length.
    repeated
        Requests sent again.
    """

    silent: int = 0
    overtaken: int = 0
    naks: Counter[Reason] = field(default_factory=Counter)
    damaged: int = 0
    skipped: int = 0
    stale: int = 0
    mismatched: int = 0
    repeated: int = 0

    @property
    def requests(self) -> int:
        """Requests that were lost; each was repeated, or given up with an error."""
        return self.silent + self.overtaken + self.naks.total()

    def to_json(self) -> dict[str, int]:
        """Return all counts by name."""
        return {
            "requests": self.requests,
            "silent": self.silent,
            "overtaken": self.overtaken,
            **{f"nak_{reason.name.lower()}": count for reason, count in sorted(self.naks.items())},
            "damaged": self.damaged,
            "skipped": self.skipped,
            "stale": self.stale,
            "mismatched": self.mismatched,
            "repeated": self.repeated,
        }

    def __str__(self) -> str:
        found = [f"{count:,} {name}" for name, count in self.to_json().items() if count]
        return ", ".join(found).replace("_", " ") or "nothing lost"


@dataclass(frozen=True, slots=True)
class Request:
    """A request that waits for its answer; ``tag`` is the caller's."""

    packet: Packet
    crc: int
    tag: int


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer that fits its request: session, sequence, kind, and of frames CRC and size."""

    request: Request
    payload: bytes


@dataclass(frozen=True, slots=True)
class Lost:
    """A request that has no answer; ``reason`` where the device said why."""

    request: Request
    reason: Reason | None = None


class Exchange:
    """One host's side of the protocol.

    Parameters
    ----------
    session
        16 bits, drawn anew for each host.
    longest
        Bytes of the longest payload that the device sends.

    Attributes
    ----------
    losses : Losses
        So far.
    asked, answered
        Requests, and valid answers, so far: the others wait, or were lost.
    heard
        Bytes received so far.
    strange
        Version of the protocol of the last packet that had another one than ours; else ``None``.
    """

    def __init__(self, session: int, longest: int) -> None:
        self.session = session
        self.result_bytes = 0
        self.losses = Losses()
        self.asked = self.answered = self.heard = 0
        self.strange: int | None = None
        self._next = 0
        self._waiting: dict[int, Request] = {}
        self._decoder = Decoder(longest=longest)

    @property
    def waiting(self) -> int:
        """Requests without an answer so far."""
        return len(self._waiting)

    def expect(self, result_bytes: int) -> None:
        """Expect results of that many bytes."""
        self.result_bytes = result_bytes
        self._decoder.longest = max(self._decoder.longest, result_bytes + 8)

    def ask(self, kind: Kind, payload: bytes = b"", tag: int = 0) -> bytes:
        """Return the bytes of a new request."""
        packet = Packet(kind, self.session, self._next, payload)
        self.asked += 1
        self._waiting[self._next] = Request(packet, packet.crc, tag)
        self._next = (self._next + 1) % SEQUENCES
        return packet.encode()

    def receive(self, data: bytes) -> list[Answered | Lost]:
        """Take bytes from the device; return what they say of the requests, in order."""
        self.heard += len(data)
        return self._take(self._decoder.feed(data))

    def silence(self) -> list[Answered | Lost]:
        """Nothing has come in time: what still waits is lost."""
        events = self._take(self._decoder.flush())
        self.losses.silent += len(self._waiting)
        events += [Lost(request) for request in self._waiting.values()]
        self._waiting.clear()
        return events

    def forget(self) -> None:
        """Ask no longer for what still waits: its answers are stale."""
        self._waiting.clear()

    def _take(self, packets: list[Packet]) -> list[Answered | Lost]:
        events = [event for packet in packets for event in self._judge(packet)]
        self.losses.damaged = self._decoder.crc_errors
        self.losses.skipped = self._decoder.skipped
        return events

    def _judge(self, packet: Packet) -> list[Answered | Lost]:
        if packet.version != VERSION:
            self.strange = packet.version
            self.losses.mismatched += 1
            return []
        request = self._waiting.get(packet.sequence)
        if packet.session != self.session or request is None:
            self.losses.stale += 1
            return []
        if packet.kind == Kind.NAK:
            return self._refused(request, packet.payload)
        if not self._fits(request, packet):
            self.losses.mismatched += 1
            return []
        self.answered += 1
        return [*self._overtake(request), Answered(request, packet.payload)]

    def _refused(self, request: Request, payload: bytes) -> list[Answered | Lost]:
        try:
            (number,) = payload
            reason = Reason(number)
        except ValueError:
            self.losses.mismatched += 1
            return []
        events = self._overtake(request)
        self.losses.naks[reason] += 1
        return [*events, Lost(request, reason)]

    def _fits(self, request: Request, packet: Packet) -> bool:
        if packet.kind != request.packet.kind | ANSWER:
            return False
        if request.packet.kind != Kind.FRAME:
            return True
        if len(packet.payload) != 8 + self.result_bytes:
            return False
        return Answer.decode(packet.payload).crc == request.crc

    def _overtake(self, request: Request) -> list[Answered | Lost]:
        """Take a request out; those before it are lost."""
        events: list[Answered | Lost] = []
        for sequence, other in list(self._waiting.items()):
            del self._waiting[sequence]
            if other is request:
                break
            self.losses.overtaken += 1
            events.append(Lost(other))
        return events

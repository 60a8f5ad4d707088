"""The link: packets as bytes to beats of an accelerator, and results back."""

from dataclasses import dataclass, replace
from typing import Any, Self

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from brambling.errors import ConfigError
from brambling.hw.beat import Beats
from brambling.hw.link.counters import Counters
from brambling.hw.link.frames import FrameFeeder, ResultStore
from brambling.hw.link.inbox import Inbox
from brambling.hw.link.loader import Loader
from brambling.hw.link.packets import PacketSender
from brambling.hw.link.replies import Replies
from brambling.hw.link.requests import Requests
from brambling.hw.link.selftest import SelfTest, Vectors
from brambling.hw.link.tickets import Tickets, slots
from brambling.hw.link.uart import UartSpec
from brambling.protocol import Flag, Ident, Register, frame_size, layout_of

__all__ = ["LINKS", "Link", "LinkSpec"]

LINKS = ("uart", "spi")
LONGEST = 0xFFFF  #: Bytes of the longest payload.
ANSWER = 8  #: Bytes before a result.
BITS_OF_A_BYTE = 10  #: On a UART, with start and stop bit.


@dataclass(frozen=True, kw_only=True)
class LinkSpec:
    """What a link to anything with streams ``i`` and ``o`` of beats is.

    Parameters
    ----------
    i, o
        Beats of a frame, and of a result.
    digest
        Of the network, 16 bytes.
    clock_hz
        Of the link and the accelerator.
    link
        ``"uart"`` or ``"spi"``.
    baud
        Rate of a UART, bits a second.
    timeout
        Clocks of silence that end a packet in its middle; ``None``: 50 ms.
    credits
        Frames that may be in flight. All of their results have a place inside.
    buffer
        Bytes that wait while the accelerator is not ready; what comes beyond is lost, and its
        packet with it. :attr:`whole` bytes lose nothing, however slow the accelerator.
    selftest
        Frames and results that are run at power-up, before the link is served.
    load_words
        Words of 16 bits that the accelerator must be loaded with.
    """

    i: Beats
    o: Beats
    digest: bytes
    clock_hz: int
    link: str = "uart"
    baud: int = 115_200
    timeout: int | None = None
    credits: int = 2
    buffer: int = 16
    selftest: Vectors | None = None
    load_words: int = 0

    def __post_init__(self) -> None:
        if self.link not in LINKS:
            raise ConfigError(f"link must be one of {', '.join(LINKS)}, not {self.link!r}")
        _ = self.uart
        if len(self.digest) != 16:
            raise ConfigError(f"digest must be 16 bytes, not {len(self.digest)}")
        for name, least, value in (
            ("timeout", 1, self.silence),
            ("credits", 1, self.credits),
            ("buffer", 2, self.buffer),
            ("load_words", 0, self.load_words),
        ):
            if value < least:
                raise ConfigError(f"{name} must be at least {least}, not {value}")
        if self.credits > 255:
            raise ConfigError(f"credits must be at most 255, not {self.credits}")
        for what, beats, most in (("frame", self.i, LONGEST), ("result", self.o, LONGEST - ANSWER)):
            if (size := frame_size(beats)) > most:
                raise ConfigError(f"a {what} on the link has at most {most} bytes, not {size}")

    @property
    def uart(self) -> UartSpec | None:
        """The UART, if it is one; :class:`ConfigError` where its rate cannot be made."""
        return UartSpec(self.clock_hz, self.baud) if self.link == "uart" else None

    @property
    def silence(self) -> int:
        """Clocks of silence that end a packet in its middle."""
        return max(1, self.clock_hz // 20) if self.timeout is None else self.timeout

    @property
    def whole(self) -> int:
        """Bytes of all packets that may be in flight: a buffer that is never too small."""
        return self.credits * (frame_size(self.i) + 14)

    def holding(self, interval: int) -> Self:
        """Return this link with a buffer for an accelerator that pauses ``interval`` clocks.

        Over SPI, whose clock is the host's to choose, for one that pauses however long.
        """
        uart = self.link == "uart"
        clocks = BITS_OF_A_BYTE * self.clock_hz // self.baud
        meanwhile = interval // clocks if uart else self.whole
        return replace(self, buffer=max(self.buffer, min(self.buffer + meanwhile, self.whole)))

    @property
    def ident(self) -> Ident:
        """What the link says of itself before anything was loaded or tested."""
        flags = Flag(0)
        if self.load_words:
            flags |= Flag.NEEDS_LOAD
        if self.selftest is not None:
            flags |= Flag.HAS_SELFTEST
        return Ident(
            digest=self.digest,
            clock_hz=self.clock_hz,
            frame_bytes=frame_size(self.i),
            result_bytes=frame_size(self.o),
            credits=self.credits,
            flags=flags,
        )

    def build(self) -> "Link":
        return Link(self)


class Link(wiring.Component):
    """Hardware of :class:`LinkSpec`.

    Members
    -------
    data : ``In(8)``, valid : ``In(1)``
        A byte came.
    bad : ``In(1)``
        One came that cannot be read.
    o : ``Out(stream.Signature(8))``
        Bytes to be sent.
    frames : ``Out(spec.i.signature)``
        To the accelerator.
    results : ``In(spec.o.signature)``
        From it.
    load : ``Out(stream.Signature(16))``
        Words to load it with; only with ``load_words``.
    led_pass : ``Out(1)``
        The last self-test passed; without one: ready for frames.
    led_busy : ``Out(1)``
        Frames are in flight, or a self-test runs.
    """

    data: Signal
    valid: Signal
    bad: Signal
    o: stream.Interface
    frames: stream.Interface
    results: stream.Interface
    led_pass: Signal
    led_busy: Signal
    load: stream.Interface

    def __init__(self, spec: LinkSpec) -> None:
        self.spec = spec
        super().__init__({
            "data": In(8),
            "valid": In(1),
            "bad": In(1),
            "o": Out(stream.Signature(8)),
            "frames": Out(spec.i.signature),
            "results": In(spec.o.signature),
            **({"load": Out(stream.Signature(16))} if spec.load_words else {}),
            "led_pass": Out(1),
            "led_busy": Out(1),
        })
        self._testing, self._loading = Signal(), Signal()

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        spec = self.spec
        m.submodules.inbox = self._inbox = Inbox(spec.buffer)
        m.submodules.requests = self._requests = Requests(
            spec.silence,
            frame_size(spec.i),
            selftest=spec.selftest is not None,
            load=bool(spec.load_words),
        )
        m.submodules.tickets = self._tickets = Tickets(slots(spec.credits))
        m.submodules.feeder = self._feeder = FrameFeeder(spec.i)
        m.submodules.store = self._store = ResultStore(spec.o, spec.credits)
        m.submodules.counters = self._counters = Counters({
            Register.FRAME_LAYOUT: layout_of(spec.i),
            Register.RESULT_LAYOUT: layout_of(spec.o),
        })
        m.submodules.replies = self._replies = Replies(spec.ident)
        m.submodules.sender = self._sender = PacketSender()
        self._bytes(m)
        self._join(m)
        loaded = self._load(m)
        tested = self._test(m, loaded)
        self._count(m)
        m.d.comb += [
            self._requests.loaded.eq(loaded),
            self._replies.flags.eq(
                Cat(bool(spec.load_words), loaded, spec.selftest is not None, tested)
            ),
            self.led_pass.eq(tested if spec.selftest is not None else loaded),
        ]
        return m

    def _bytes(self, m: Module) -> None:
        """Bytes from the port, and to it."""
        inbox = self._inbox
        connect(m, self._sender.o, flipped(self.o))
        m.d.comb += [
            inbox.data.eq(self.data),
            inbox.valid.eq(self.valid),
            inbox.bad.eq(self.bad),
            self._counters.framing.eq(self.bad),
            self._counters.overrun.eq(inbox.overrun),
        ]

    def _join(self, m: Module) -> None:
        """Join requests, tickets, frames and replies."""
        requests, tickets, replies = self._requests, self._tickets, self._replies
        connect(m, self._inbox.o, requests.i)
        connect(m, requests.bytes, self._feeder.i)
        connect(m, self._store.o, replies.bytes)
        connect(m, replies.o, self._sender.i)
        m.d.comb += [
            tickets.field.eq(requests.field),
            tickets.data.eq(requests.data),
            tickets.write.eq(requests.write),
            tickets.commit.eq(requests.commit),
            requests.full.eq(tickets.full),
            self._feeder.begin.eq(requests.begin),
            self._feeder.fill.eq(requests.fill),
            requests.busy.eq(self._feeder.busy),
            replies.waiting.eq(tickets.waiting),
            tickets.ask.eq(replies.ask),
            replies.told.eq(tickets.told),
            tickets.release.eq(replies.release),
            replies.whole.eq(self._store.whole),
            replies.cycles.eq(self._store.cycles),
            replies.last.eq(self._store.last),
            replies.done.eq(self._store.done),
            self._store.drop.eq(replies.drop),
        ]

    def _load(self, m: Module) -> Value:
        """Add what loads words; whether they are all loaded."""
        if not self.spec.load_words:
            return Const(1)
        m.submodules.loader = loader = Loader(self.spec.load_words)
        requests = self._requests
        connect(m, requests.words, loader.i)
        connect(m, loader.o, flipped(self.load))
        m.d.comb += [
            loader.start.eq(requests.words_start),
            loader.good.eq(requests.words_good),
            self._loading.eq(loader.busy),
            self._replies.loaded.eq(loader.count),
            self._counters.load_crc.eq(loader.crc),
        ]
        return loader.complete

    def _test(self, m: Module, loaded: Value) -> Value:
        """Add the self-test, between the link and the accelerator; whether it has passed."""
        feeder, store, requests = self._feeder, self._store, self._requests
        if self.spec.selftest is None:
            connect(m, feeder.o, flipped(self.frames))
            connect(m, flipped(self.results), store.i)
            m.d.comb += requests.working.eq(self._loading)
            return Const(0)
        m.submodules.selftest = test = SelfTest(self.spec.i, self.spec.o, self.spec.selftest)
        ready = Signal()  # It has run once, or begins to.
        m.d.comb += [
            test.start.eq((loaded & ~ready) | requests.test),
            requests.hold.eq((loaded & ~ready) | test.busy),
            requests.working.eq(self._loading | test.busy),
            self.frames.valid.eq(Mux(test.busy, test.frames.valid, feeder.o.valid)),
            self.frames.payload.eq(
                Mux(test.busy, test.frames.payload.as_value(), feeder.o.payload.as_value())
            ),
            test.frames.ready.eq(self.frames.ready & test.busy),
            feeder.o.ready.eq(self.frames.ready & ~test.busy),
            self.results.ready.eq(Mux(test.busy, test.results.ready, store.i.ready)),
            test.results.valid.eq(self.results.valid & test.busy),
            store.i.valid.eq(self.results.valid & ~test.busy),
            test.results.payload.eq(self.results.payload),
            store.i.payload.eq(self.results.payload),
            self._testing.eq(test.busy),
        ]
        with m.If(loaded):
            m.d.sync += ready.eq(1)
        return test.passed

    def _count(self, m: Module) -> None:
        """Count frames in flight, and all that counters count."""
        requests, replies, counters = self._requests, self._replies, self._counters
        flight = Signal(range(self.spec.credits + 1))
        begins = self._feeder.o.valid & self._feeder.o.ready & self._feeder.o.payload.first
        m.d.sync += flight.eq(flight + requests.begin - replies.frame)
        m.d.comb += [
            requests.credit.eq(flight != self.spec.credits),
            requests.idle.eq(flight == 0),
            self.led_busy.eq(~requests.idle | self._testing),
            self._store.now.eq(counters.now),
            self._store.began.eq(begins),
            counters.clear.eq(requests.clear),
            counters.frame.eq(requests.frame),
            counters.result.eq(replies.result),
            counters.crc_error.eq(requests.crc_error),
            counters.truncated.eq(requests.truncated),
            counters.skipped.eq(requests.skipped),
            counters.nak.eq(replies.nak),
            counters.cycles.eq(self._store.cycles),
            counters.timed.eq(replies.timed),
            counters.number.eq(replies.number),
            counters.read.eq(replies.read),
            replies.value.eq(counters.value),
        ]

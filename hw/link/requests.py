"""Requests: what comes over the link, checked and carried out."""

from typing import Any

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from brambling.hw.link.packets import PacketReceiverSpec, received
from brambling.hw.link.tickets import BEGUN, CRC, DETAIL, KIND
from brambling.protocol import ANSWER, LOAD_WORDS, VERSION, Kind, Reason

__all__ = ["Requests"]

OFFSET = 4  #: Bytes before the words of LOAD.


class Requests(wiring.Component):
    """Takes packets; writes a ticket for each.

    A frame's bytes are passed on as they come. What a packet asks for else is done when it has
    ended, and was good.

    Parameters
    ----------
    timeout
        Clocks of silence that end a packet in its middle.
    frame_bytes
        Bytes of a frame.
    selftest, load
        Whether there is anything to test, or to load.

    Members
    -------
    i : ``In(stream.Signature(received()))``
        Bytes.
    hold : ``In(1)``
        Take no requests.
    field : ``Out(4)``, data : ``Out(8)``, write : ``Out(1)``, commit : ``Out(1)``, full : ``In(1)``
        Tickets: see :class:`brambling.hw.link.tickets.Tickets`.
    begin : ``Out(1)``, busy : ``In(1)``, bytes : ``Out(stream.Signature(8))``, fill : ``Out(1)``
        Frames: see :class:`brambling.hw.link.frames.FrameFeeder`.
    credit : ``In(1)``
        Another frame may begin.
    idle : ``In(1)``
        No frame is in flight.
    loaded : ``In(1)``
        All that is to be loaded is.
    words : ``Out(stream.Signature(8))``
        Bytes of what is to be loaded, before it is known to be good.
    words_start : ``Out(1)``
        They begin anew.
    words_good : ``Out(1)``
        They were good: load them.
    test : ``Out(1)``
        Start the self-test.
    working : ``In(1)``
        It runs, or words are being loaded.
    clear : ``Out(1)``
        Clear the counters.
    frame, crc_error, truncated : ``Out(1)``, skipped : ``Out(2)``
        Events to be counted.
    """

    i: stream.Interface
    hold: Signal
    field: Signal
    data: Signal
    write: Signal
    commit: Signal
    full: Signal
    begin: Signal
    busy: Signal
    bytes: stream.Interface
    fill: Signal
    credit: Signal
    idle: Signal
    loaded: Signal
    words: stream.Interface
    words_start: Signal
    words_good: Signal
    test: Signal
    working: Signal
    clear: Signal
    frame: Signal
    crc_error: Signal
    truncated: Signal
    skipped: Signal

    def __init__(self, timeout: int, frame_bytes: int, *, selftest: bool, load: bool) -> None:
        self.timeout = timeout
        self.frame_bytes = frame_bytes
        self.selftest = selftest
        self.load = load
        super().__init__({
            "i": In(stream.Signature(received())),
            "hold": In(1),
            "field": Out(4),
            "data": Out(8),
            "write": Out(1),
            "commit": Out(1),
            "full": In(1),
            "begin": Out(1),
            "busy": In(1),
            "bytes": Out(stream.Signature(8)),
            "fill": Out(1),
            "credit": In(1),
            "idle": In(1),
            "loaded": In(1),
            "words": Out(stream.Signature(8)),
            "words_start": Out(1),
            "words_good": Out(1),
            "test": Out(1),
            "working": In(1),
            "clear": Out(1),
            "frame": Out(1),
            "crc_error": Out(1),
            "truncated": Out(1),
            "skipped": Out(2),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.receiver = packets = PacketReceiverSpec(self.timeout).build()
        wiring.connect(m, wiring.flipped(self.i), packets.i)
        kind, detail, reason = Signal(8), Signal(8), Signal(3)
        begun = Signal()
        fields = kind, detail, reason, begun
        m.d.comb += self.skipped.eq(packets.skipped)

        with m.FSM():
            with m.State("Listen"):
                m.d.comb += packets.pause.eq(self.full | self.hold)
                self._header(m, packets, *fields)
                self._payload(m, packets, kind, detail, begun)
                with m.If(packets.check & packets.refuse):
                    m.next = "Kind"
                with m.If(packets.end):
                    with m.If(packets.truncated):
                        m.d.sync += reason.eq(Reason.TRUNCATED)
                        m.d.comb += self.truncated.eq(1)
                    with m.Elif(~packets.good):
                        m.d.sync += reason.eq(Reason.CRC)
                        m.d.comb += self.crc_error.eq(1)
                    m.next = "Settle"
            with m.State("Settle"):
                # A frame that has begun is always completed: it has a result, as any other.
                m.d.comb += [packets.pause.eq(1), self.fill.eq(1)]
                with m.If(~self.busy):
                    m.next = "Kind"
                    with m.If(reason == 0):
                        self._act(m, kind)
            with m.State("Work"):
                m.d.comb += packets.pause.eq(1)
                with m.If(~self.working):
                    m.next = "Kind"
            with m.State("Kind"):
                m.d.comb += [
                    packets.pause.eq(1),
                    self.field.eq(KIND),
                    self.data.eq(Mux(reason != 0, Kind.NAK, kind | ANSWER)),
                    self.write.eq(1),
                ]
                m.next = "Detail"
            with m.State("Detail"):
                m.d.comb += [
                    packets.pause.eq(1),
                    self.field.eq(DETAIL),
                    self.data.eq(Mux(reason != 0, reason, detail) | begun << BEGUN),
                    self.write.eq(1),
                    self.commit.eq(1),
                ]
                # The next packet may end before its header says what it is.
                m.d.sync += [reason.eq(0), begun.eq(0)]
                m.next = "Listen"
        return m

    def _header(self, m: Module, packets: Any, *fields: Signal) -> None:
        """Take what the header says, and judge it."""
        kind, detail, reason, begun = fields
        version = Signal(8)
        with m.If(packets.header):
            with m.Switch(packets.number):
                with m.Case(0):
                    m.d.sync += kind.eq(packets.data)
                with m.Case(1):
                    m.d.sync += version.eq(packets.data)
                with m.Default():
                    # Session and sequence; those of the length are overwritten or not read.
                    m.d.comb += [self.field.eq(packets.number), self.write.eq(1)]
            m.d.comb += self.data.eq(packets.data)

        known, fits = Signal(), Signal()
        later = Signal(3)  # Reason that does not keep the packet from being taken to its end.
        with m.Switch(kind):
            for code, lengths in self._lengths(packets.length).items():
                with m.Case(code):
                    m.d.comb += [known.eq(1), fits.eq(lengths)]
        is_frame = kind == Kind.FRAME
        with m.If(is_frame & ~self.loaded):
            m.d.comb += later.eq(Reason.LOAD)
        with m.Elif((is_frame & ~self.credit) | ((kind == Kind.SELFTEST) & ~self.idle)):
            m.d.comb += later.eq(Reason.CREDIT)
        right = known & (version == VERSION)
        m.d.comb += packets.refuse.eq(~right | ~fits)
        with m.If(packets.check):
            starts = is_frame & (later == 0) & ~packets.refuse
            m.d.comb += [self.begin.eq(starts), self.words_start.eq(1)]
            m.d.sync += [
                begun.eq(starts),
                detail.eq(0),
                reason.eq(Mux(~right, Reason.KIND, Mux(~fits, Reason.LENGTH, later))),
            ]

    def _lengths(self, length: Signal) -> dict[Kind, Any]:
        """Return whether a payload has a length that its kind can have."""
        found: dict[Kind, Any] = {
            Kind.IDENT: length == 0,
            Kind.FRAME: length == self.frame_bytes,
            Kind.READ: length == 1,
            Kind.CLEAR: length == 0,
        }
        if self.selftest:
            found[Kind.SELFTEST] = length == 0
        if self.load:
            most = OFFSET + 2 * LOAD_WORDS
            found[Kind.LOAD] = ~length[0] & (length >= OFFSET) & (length <= most)
        return found

    def _payload(
        self, m: Module, packets: Any, kind: Signal, detail: Signal, begun: Signal
    ) -> None:
        """Pass on the payload, and note the CRC."""
        payload = packets.payload
        m.d.comb += [
            self.bytes.valid.eq(payload.valid & begun),
            self.bytes.payload.eq(payload.payload),
            self.words.valid.eq(payload.valid & (kind == Kind.LOAD)),
            self.words.payload.eq(payload.payload),
            payload.ready.eq(self.bytes.ready | ~begun),
        ]
        with m.If(payload.valid & (kind == Kind.READ)):
            m.d.sync += detail.eq(payload.payload)
        with m.If(packets.crc):
            m.d.comb += [
                self.field.eq(CRC + packets.number),
                self.data.eq(packets.data),
                self.write.eq(1),
            ]

    def _act(self, m: Module, kind: Signal) -> None:
        """Do what a good packet asks for."""
        with m.Switch(kind):
            with m.Case(Kind.FRAME):
                m.d.comb += self.frame.eq(1)
            with m.Case(Kind.CLEAR):
                m.d.comb += self.clear.eq(1)
            with m.Case(Kind.SELFTEST):
                m.d.comb += self.test.eq(1)
                m.next = "Work"
            with m.Case(Kind.LOAD):
                m.d.comb += self.words_good.eq(1)
                m.next = "Work"

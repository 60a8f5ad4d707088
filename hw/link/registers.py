"""Registers of an accelerator on a bus: the map, the registers, and two buses to reach them."""

from dataclasses import dataclass, fields
from typing import Any

from amaranth.hdl import Array, Cat, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from brambling.errors import ConfigError

__all__ = ["MAGIC", "AxiLite", "RegisterFile", "RegisterMap", "Wishbone"]

MAGIC = 0x424D5242  #: First register of every accelerator: "BRMB" in memory.
VERSION = 1  #: Of the map.
WORD = 4  #: Bytes of a register.
UNDER_WAY = 16  #: Bits of the number of frames that are under way at a time.
OKAY, SLVERR = 0, 2  #: Responses of AXI.
DIGEST = 16  #: Bytes.


@dataclass(frozen=True, slots=True)
class RegisterMap:
    """Byte addresses of the registers, 32 bits each; driver, header and hardware come from it.

    ``control`` is written: bit 0 resets the accelerator and forgets frames under way, bit 1 clears
    the counters; it reads as 0. All others are only read. ``cycles_high`` is that of the moment at
    which ``cycles_low`` was read. ``latency`` is in cycles, from the first beat in to the last beat
    out, of a frame sampled lately: while that one is under way, others are not measured.
    """

    magic: int = 0x00
    version: int = 0x04
    control: int = 0x08
    status: int = 0x0C  #: Bit 0: a frame is under way.
    digest_0: int = 0x10  #: The network's, the lowest address first.
    digest_1: int = 0x14
    digest_2: int = 0x18
    digest_3: int = 0x1C
    cycles_low: int = 0x20  #: Since reset, or since the counters were cleared.
    cycles_high: int = 0x24
    frames: int = 0x28  #: Frames that have begun.
    results: int = 0x2C  #: Results that have left whole.
    short_frames: int = 0x30  #: Frames that ended early; the rest was filled up with zeros.
    long_frames: int = 0x34  #: Frames that did not end in time; the rest was dropped.
    latency: int = 0x38
    frame_beats: int = 0x3C  #: Beats of a frame.

    @property
    def bits(self) -> int:
        """Width of a byte address."""
        return max(getattr(self, field.name) for field in fields(self)).bit_length()

    def c_header(self, guard: str) -> str:
        """Return the map as a header for C."""
        body = "".join(
            f"#define {guard}_{field.name.upper()} 0x{getattr(self, field.name):02x}u\n"
            for field in fields(self)
        )
        return f"#ifndef {guard}_H\n#define {guard}_H\n{body}#endif\n"


class RegisterFile(wiring.Component):
    """The registers and their counters, to be read and written by a bus.

    Parameters
    ----------
    digest
        Of the network, 16 bytes.
    beats
        Beats of a frame.

    Members
    -------
    address : ``In(RegisterMap().bits - 2)``
        Number of the register.
    value : ``Out(32)``
        What it holds, in the same cycle.
    read : ``In(1)``
        It is being read: takes hold of the upper half of the cycle counter.
    write : ``In(1)``, data : ``In(32)``
        Writes it.
    begun, ended, short, long : ``In(1)``
        High for a cycle for each frame that began, whose result left, that was too short, too long.
    reset : ``Out(1)``
        High for a cycle: the accelerator is to be reset.
    """

    address: Signal
    value: Signal
    read: Signal
    write: Signal
    data: Signal
    begun: Signal
    ended: Signal
    short: Signal
    long: Signal
    reset: Signal

    def __init__(self, digest: bytes, beats: int) -> None:
        if len(digest) != DIGEST:
            raise ConfigError(f"a digest must have {DIGEST} bytes, not {len(digest)}")
        self.digest = digest
        self.beats = beats
        self.map = RegisterMap()
        self.cycles = Signal(64)  #: The cycle counter.
        super().__init__({
            "address": In(self.map.bits - 2),
            "value": Out(32),
            "read": In(1),
            "write": In(1),
            "data": In(32),
            **{name: In(1) for name in ("begun", "ended", "short", "long")},
            "reset": Out(1),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        at = self.map
        names = ("frames", "results", "short_frames", "long_frames")
        counters = {name: Signal(32, name=name) for name in names}
        cycles, high, latency = self.cycles, Signal(32), Signal(32)
        under_way = Signal(UNDER_WAY)

        clear, control = Signal(), Signal()
        m.d.comb += [
            control.eq(self.write & (self.address == at.control // WORD)),
            self.reset.eq(control & self.data[0]),
            clear.eq(control & self.data[1]),
        ]
        m.d.sync += cycles.eq(cycles + 1)
        events = (self.begun, self.ended, self.short, self.long)
        for counter, event in zip(counters.values(), events, strict=True):
            m.d.sync += counter.eq(counter + event)
        with m.If(self.read & (self.address == at.cycles_low // WORD)):
            m.d.sync += high.eq(cycles[32:])
        m.d.sync += under_way.eq(under_way + self.begun - self.ended)
        self._measure(m, under_way, latency)
        with m.If(clear):
            m.d.sync += [counter.eq(0) for counter in (cycles, *counters.values())]
        with m.If(self.reset):
            m.d.sync += under_way.eq(0)

        words: dict[int, Value | int] = {
            at.magic: MAGIC,
            at.version: VERSION,
            at.status: under_way != 0,
            at.cycles_low: cycles[:32],
            at.cycles_high: high,
            at.latency: latency,
            at.frame_beats: self.beats,
            **{getattr(at, name): counter for name, counter in counters.items()},
            **{
                getattr(at, f"digest_{n}"): int.from_bytes(self.digest[4 * n : 4 * n + 4], "little")
                for n in range(4)
            },
        }
        row = Array(Value.cast(words.get(WORD * n, 0)) for n in range(1 << len(self.address)))
        m.d.comb += self.value.eq(row[self.address])
        return m

    def _measure(self, m: Module, under_way: Signal, latency: Signal) -> None:
        """Measure one frame at a time: behind its first beat, ``ahead`` results come before it."""
        measuring, ahead, age = Signal(), Signal.like(under_way), Signal(32)
        m.d.sync += age.eq(age + 1)
        with m.If(~measuring & self.begun):
            m.d.sync += [measuring.eq(1), ahead.eq(under_way - self.ended), age.eq(1)]
        with m.Elif(measuring & self.ended):
            m.d.sync += ahead.eq(ahead - 1)
            with m.If(ahead == 0):
                m.d.sync += [measuring.eq(0), latency.eq(age)]
        with m.If(self.reset):
            m.d.sync += measuring.eq(0)


class Slave(wiring.Component):
    """What puts a :class:`RegisterFile` of ``bits`` bits of byte address on a bus.

    Members
    -------
    address, read, write : ``Out``, data : ``Out(32)``, value : ``In(32)``
        To the registers; besides them those of the bus.
    """

    def __init__(self, bits: int) -> None:
        self.bits = bits
        super().__init__({
            **self.ports(),
            "address": Out(bits - 2),
            "read": Out(1),
            "write": Out(1),
            "data": Out(32),
            "value": In(32),
        })

    @classmethod
    def ports(cls) -> dict[str, Any]:
        """Return the bus as members of a component."""
        raise NotImplementedError


class AxiLite(Slave):
    """An AXI4-Lite slave in front of a :class:`RegisterFile`.

    A read or a write takes two cycles. Addresses outside the map are answered with ``SLVERR``.

    Members
    -------
    s_axil_aw…, w…, b…, ar…, r…
        The five channels, 32 bits of data.
    """

    ADDRESS = 12  #: Bits of a byte address: a page of 4 KiB, the least that buses map.

    @classmethod
    def ports(cls) -> dict[str, Any]:
        """Return the bus as members of a component."""
        channels = {
            "awaddr": In(cls.ADDRESS),
            "awprot": In(3),
            "awvalid": In(1),
            "awready": Out(1),
            "wdata": In(32),
            "wstrb": In(4),
            "wvalid": In(1),
            "wready": Out(1),
            "bresp": Out(2),
            "bvalid": Out(1),
            "bready": In(1),
            "araddr": In(cls.ADDRESS),
            "arprot": In(3),
            "arvalid": In(1),
            "arready": Out(1),
            "rdata": Out(32),
            "rresp": Out(2),
            "rvalid": Out(1),
            "rready": In(1),
        }
        return {f"s_axil_{name}": member for name, member in channels.items()}

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        bus: Any = self
        reading, writing = Signal(), Signal()
        place = Signal(self.ADDRESS)
        # One at a time: the registers have one address. A write needs its address and its data.
        m.d.comb += [
            writing.eq(bus.s_axil_awvalid & bus.s_axil_wvalid & ~bus.s_axil_bvalid),
            reading.eq(bus.s_axil_arvalid & ~bus.s_axil_rvalid & ~writing),
            bus.s_axil_awready.eq(writing),
            bus.s_axil_wready.eq(writing),
            bus.s_axil_arready.eq(reading),
            bus.address.eq(place[2 : self.bits]),
            bus.read.eq(reading),
            # No register has fields that are written byte by byte.
            bus.write.eq(writing & bus.s_axil_wstrb.all() & ~place[self.bits :].any()),
            bus.data.eq(bus.s_axil_wdata),
        ]
        with m.If(writing):
            m.d.comb += place.eq(bus.s_axil_awaddr)
        with m.Else():
            m.d.comb += place.eq(bus.s_axil_araddr)
        outside = place[self.bits :].any()
        response = Cat(0, outside)
        with m.If(bus.s_axil_bready):
            m.d.sync += bus.s_axil_bvalid.eq(0)
        with m.If(writing):
            m.d.sync += [bus.s_axil_bvalid.eq(1), bus.s_axil_bresp.eq(response)]
        with m.If(bus.s_axil_rready):
            m.d.sync += bus.s_axil_rvalid.eq(0)
        with m.If(reading):
            m.d.sync += [
                bus.s_axil_rvalid.eq(1),
                bus.s_axil_rresp.eq(response),
                bus.s_axil_rdata.eq(bus.value & (~outside).replicate(32)),
            ]
        return m


class Wishbone(Slave):
    """A Wishbone slave, classic cycles, in front of a :class:`RegisterFile`.

    ``wb_adr`` counts words of 32 bits, as in LiteX. A cycle takes two clocks. Addresses outside the
    map end with ``wb_err``.

    Members
    -------
    wb_adr, wb_dat_w, wb_sel, wb_cyc, wb_stb, wb_we : ``In``
    wb_dat_r, wb_ack, wb_err : ``Out``
    """

    ADDRESS = 10  #: Bits of a word address: a page of 4 KiB.

    @classmethod
    def ports(cls) -> dict[str, Any]:
        """Return the bus as members of a component."""
        signals = {
            "adr": In(cls.ADDRESS),
            "dat_w": In(32),
            "dat_r": Out(32),
            "sel": In(4),
            "cyc": In(1),
            "stb": In(1),
            "we": In(1),
            "ack": Out(1),
            "err": Out(1),
        }
        return {f"wb_{name}": member for name, member in signals.items()}

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        bus: Any = self
        asked, outside = Signal(), Signal()
        m.d.comb += [
            asked.eq(bus.wb_cyc & bus.wb_stb & ~bus.wb_ack & ~bus.wb_err),
            outside.eq(bus.wb_adr[self.bits - 2 :].any()),
            bus.address.eq(bus.wb_adr),
            bus.read.eq(asked & ~bus.wb_we & ~outside),
            bus.write.eq(asked & bus.wb_we & bus.wb_sel.all() & ~outside),
            bus.data.eq(bus.wb_dat_w),
        ]
        m.d.sync += [bus.wb_ack.eq(asked & ~outside), bus.wb_err.eq(asked & outside)]
        with m.If(bus.read):
            m.d.sync += bus.wb_dat_r.eq(bus.value)
        return m

"""An accelerator for systems on a chip: AXI4-Stream in and out, registers on a bus."""

from typing import Any

from amaranth.hdl import Module, ResetInserter, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from brambling.errors import ConfigError
from brambling.hw.accelerator import Accelerator
from brambling.hw.beat import Beats
from brambling.hw.link.registers import AxiLite, RegisterFile, Wishbone
from brambling.hw.load import loaded_nodes
from brambling.hw.node import Node

__all__ = ["BUSES", "AxiAccelerator"]

BUSES = {"axi": AxiLite, "wishbone": Wishbone}  #: What the registers can be reached by.


def octets(beats: Beats) -> int:
    """Bytes of a beat without its ``first``."""
    return -(-(beats.width - 1) // 8)


class AxiAccelerator(wiring.Component):
    """A network with AXI4-Stream ports, and registers on AXI4-Lite or Wishbone.

    A frame is the beats of the accelerator's input, each padded to whole bytes, ``tlast`` in the
    last one; the beat behind ``tlast`` starts a frame. One that ends early is filled up with zeros,
    of one that does not end in time the surplus is dropped: every ``tlast`` has a result, and both
    are counted. A result is the beats of the output, padded alike, ``tlast`` in the last one. There
    is no ``tkeep``: every byte of a beat is there.

    Parameters
    ----------
    nodes
        The components, from :func:`brambling.hw.accelerator.pipeline`.
    digest
        Of the network, 16 bytes.
    bus
        A key of :data:`BUSES`.

    Members
    -------
    s_axis_tdata, s_axis_tvalid, s_axis_tlast : ``In``, s_axis_tready : ``Out(1)``
        Frames.
    m_axis_tdata, m_axis_tvalid, m_axis_tlast : ``Out``, m_axis_tready : ``In(1)``
        Results.
    s_axil_… or wb_…
        The registers; see :class:`brambling.hw.link.registers.RegisterMap`.
    """

    def __init__(self, nodes: tuple[Node, ...], digest: bytes, bus: str = "axi") -> None:
        if bus not in BUSES:
            raise ConfigError(f"bus must be one of {', '.join(BUSES)}, not {bus!r}")
        if loaded := loaded_nodes(nodes):
            raise ConfigError(
                f"{', '.join(node.name for node in loaded)}: weights must be loaded (spram), for "
                "which this bus has no port: use block"
            )
        self.kind = BUSES[bus]
        self.accelerator = Accelerator(nodes)
        self.i, self.o = nodes[0].spec.i, nodes[-1].spec.o
        self.registers = RegisterFile(digest, self.i.count)
        self.bus = self.kind(self.registers.map.bits)
        super().__init__({
            "s_axis_tdata": In(8 * octets(self.i)),
            "s_axis_tvalid": In(1),
            "s_axis_tready": Out(1),
            "s_axis_tlast": In(1),
            "m_axis_tdata": Out(8 * octets(self.o)),
            "m_axis_tvalid": Out(1),
            "m_axis_tready": In(1),
            "m_axis_tlast": Out(1),
            **self.kind.ports(),
        })

    @property
    def ports(self) -> Any:
        """Itself: its ports are named by the bus."""
        return self

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        registers, bus = self.registers, self.bus
        m.submodules.accelerator = ResetInserter(registers.reset)(self.accelerator)
        m.submodules.registers = registers
        m.submodules.bus = bus
        for name in self.kind.ports():
            outside, inside = getattr(self, name), getattr(bus, name)
            flow = self.signature.members[name].flow
            m.d.comb += inside.eq(outside) if flow == In else outside.eq(inside)
        m.d.comb += [
            registers.address.eq(bus.address),
            registers.read.eq(bus.read),
            registers.write.eq(bus.write),
            registers.data.eq(bus.data),
            bus.value.eq(registers.value),
        ]
        self._frames(m)
        self._results(m)
        return m

    def _frames(self, m: Module) -> None:
        """Feed the accelerator whole frames."""
        outside, inside, registers = self.ports, self.accelerator.i, self.registers
        whole = self.i.count
        number = Signal(range(whole + 1))  # Beats of the frame so far; all: the surplus is dropped.
        filling, dropping, last, moved = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            last.eq(number == whole - 1),
            dropping.eq(number == whole),
            inside.valid.eq((outside.s_axis_tvalid & ~dropping) | filling),
            inside.payload.first.eq(number == 0),
            outside.s_axis_tready.eq(~filling & (inside.ready | dropping)),
            moved.eq(inside.valid & inside.ready),
            registers.begun.eq(moved & (number == 0)),
            registers.short.eq(moved & ~filling & ~last & outside.s_axis_tlast),
            registers.long.eq(moved & ~filling & last & ~outside.s_axis_tlast),
        ]
        with m.If(~filling):
            m.d.comb += inside.payload.data.eq(outside.s_axis_tdata)
        with m.If(moved):
            m.d.sync += number.eq(number + 1)
            with m.If(last & (filling | outside.s_axis_tlast)):
                m.d.sync += [number.eq(0), filling.eq(0)]
        with m.Elif(dropping & outside.s_axis_tvalid & outside.s_axis_tlast):
            m.d.sync += number.eq(0)
        with m.If(registers.short):
            m.d.sync += filling.eq(1)
        with m.If(registers.reset):
            m.d.sync += [number.eq(0), filling.eq(0)]

    def _results(self, m: Module) -> None:
        """Mark the last beat of each result."""
        outside, inside, registers = self.ports, self.accelerator.o, self.registers
        number = Signal(range(self.o.count))
        m.d.comb += [
            outside.m_axis_tvalid.eq(inside.valid),
            outside.m_axis_tdata.eq(inside.payload.data),
            outside.m_axis_tlast.eq(number == self.o.count - 1),
            inside.ready.eq(outside.m_axis_tready),
            registers.ended.eq(inside.valid & inside.ready & outside.m_axis_tlast),
        ]
        with m.If(inside.valid & inside.ready):
            m.d.sync += number.eq(number + 1)
        with m.If(registers.ended | registers.reset):
            m.d.sync += number.eq(0)

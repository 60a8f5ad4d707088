"""The top of a design: clock and reset, pins, and the device between them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from amaranth.hdl import Cat, ClockDomain, Const, Elaboratable, Module, Signal, Value
from amaranth.lib import io, wiring
from amaranth.lib.cdc import FFSynchronizer, ResetSynchronizer
from amaranth.lib.wiring import In, Out

from brambling.errors import ConfigError
from brambling.hw.pads import request
from brambling.hw.pll import PllSpec

__all__ = ["CLOCK", "BoardTop", "Harness", "Pads"]

CLOCK = "design_clk"  #: Name of the clock's net in the top module.

Name = tuple[str, int, str | None]  #: Resource, number, signal.


@dataclass(frozen=True, slots=True, kw_only=True)
class Pads:
    """Which resources of the platform a design uses.

    Parameters
    ----------
    link
        ``"uart"`` or ``"spi"``.
    reset
        A button or the like, active high after the platform's inversion.
    constants
        Outputs with their levels.
    """

    clock: Name
    link: str
    link_at: Name
    reset: Name | None = None
    led_pass: Name | None = None
    led_busy: Name | None = None
    constants: Sequence[tuple[Name, int]] = ()


def signals(link: str) -> dict[str, tuple[str, str]]:
    """Resource's signal and its direction, for each port of a device with that link."""
    if link == "uart":
        return {"rx": ("rx", "i"), "tx": ("tx", "o")}
    return {
        "sclk": ("clk", "i"),
        "cs_n": ("cs", "i"),
        "mosi": ("copi", "i"),
        "miso": ("cipo", "o"),
    }


def member(port: Any, name: Name) -> Any:
    """Return one signal of a resource's port, or all of it."""
    if name[2] is None:
        return port
    try:
        return getattr(port, name[2])
    except AttributeError:
        raise ConfigError(f"resource {name[0]}.{name[1]} has no signal {name[2]!r}") from None


class BoardTop(Elaboratable):
    """A device on a board.

    The design's clock comes from the PLL, or is the board's own; it is reset while the PLL is not
    locked, while the board's reset button is held, and on iCE40 until block RAMs can be read. The
    reset is released synchronously. The device synchronises its inputs itself.

    Parameters
    ----------
    device
        Component with ``led_pass``, ``led_busy``, and ``rx``, ``tx`` or ``sclk``, ``cs_n``,
        ``mosi``, ``miso``.
    pll
        Where the clock comes from.
    pad
        iCE40: the clock comes in at the PLL's own pin.
    settle
        Clocks of reset after the PLL is locked.
    """

    def __init__(
        self, device: Any, pads: Pads, pll: PllSpec, *, pad: bool = False, settle: int = 0
    ) -> None:
        self.device = device
        self.pads = pads
        self.pll = pll
        self.pad = pad
        self.settle = settle
        self.clock: Any = ClockDomain("sync")

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.device = self.device
        ports = self.ports(platform)
        self.clocking(m, platform, ports)
        selected = Const(1)
        for name, (signal, direction) in signals(self.pads.link).items():
            port = getattr(ports[self.pads.link_at], signal)
            buffer = m.submodules[f"{name}_pad"] = io.Buffer(io.Direction(direction), port)
            if direction == "o":
                m.d.comb += buffer.o.eq(getattr(self.device, name))
                m.d.comb += buffer.oe.eq(selected)
            elif name == "cs_n":
                # The platform has turned it to active high already.
                m.d.comb += self.device.cs_n.eq(~buffer.i)
                selected = buffer.i
            else:
                m.d.comb += getattr(self.device, name).eq(buffer.i)
        self.outputs(m, ports)
        return m

    def ports(self, platform: Any) -> dict[Name, Any]:
        """Ask the platform once for each resource; return ports by the names in use."""
        pads = self.pads
        names: list[Name] = [pads.clock, pads.link_at]
        names += [n for n in (pads.reset, pads.led_pass, pads.led_busy) if n is not None]
        names += [name for name, _ in pads.constants]
        whole = request(platform, [name[:2] for name in names])
        return {name: member(whole[name[:2]], name) for name in names}

    def clocking(self, m: Module, platform: Any, ports: dict[Name, Any]) -> None:
        """Make the domain ``sync``: its clock, its constraint and its reset."""
        clock = ports[self.pads.clock]
        source, stopped = Signal(), Signal()
        if not (self.pad and not self.pll.is_direct):
            m.submodules.clock_pad = buffer = io.Buffer(io.Direction.Input, clock)
            m.d.comb += source.eq(buffer.i)
        # A wire of the top that synthesis keeps: what constraints name must be there.
        made = Signal(name=CLOCK, attrs={"keep": "true"})
        m.domains.sync = self.clock
        m.d.comb += self.clock.clk.eq(made)
        if self.pll.is_direct:
            m.d.comb += made.eq(source)
        else:
            m.submodules.pll = pll = self.pll.build(clock.io if self.pad else None)
            m.d.comb += [pll.i.eq(source), made.eq(pll.o), stopped.eq(~pll.locked)]
        if self.pll.family != "xc7":  # Vivado derives it from the oscillator's.
            platform.add_clock_constraint(made, float(self.pll.hz))
        held: Value = stopped
        if self.pads.reset is not None:
            m.submodules.reset_pad = button = io.Buffer(io.Direction.Input, ports[self.pads.reset])
            held = stopped | button.i
        if self.settle:
            held = self.settled(m, held)
        m.submodules.reset = ResetSynchronizer(held, domain="sync")

    def settled(self, m: Module, held: Value) -> Value:
        """Hold the reset for some clocks more, counted once."""
        start: Any = ClockDomain("start", reset_less=True, local=True)
        m.domains += start
        m.d.comb += start.clk.eq(self.clock.clk)
        still = Signal(init=1)
        m.submodules.still = FFSynchronizer(held, still, o_domain="start", init=1)
        waited = Signal(range(self.settle + 1))
        with m.If(~still & (waited != self.settle)):
            m.d.start += waited.eq(waited + 1)
        waiting = Signal(init=1)
        m.d.start += waiting.eq(waited != self.settle)
        return held | waiting

    def outputs(self, m: Module, ports: dict[Name, Any]) -> None:
        """Drive lights, and outputs that have a level."""
        levels: list[tuple[str, Name | None, Any]] = [
            ("led_pass_pad", self.pads.led_pass, self.device.led_pass),
            ("led_busy_pad", self.pads.led_busy, self.device.led_busy),
        ]
        levels += [
            (f"constant{n}_pad", name, Const(value))
            for n, (name, value) in enumerate(self.pads.constants)
        ]
        for submodule, name, value in levels:
            if name is not None:
                m.submodules[submodule] = pad = io.Buffer(io.Direction.Output, ports[name])
                m.d.comb += pad.o.eq(value)


class Harness(wiring.Component):
    """Few pins around an accelerator, to place and route it without a board.

    The bits of an input beat come from a shift register and those of a result are folded into one
    bit, so that nothing inside can be optimised away, and no path from or to a pin is counted: with
    its clock on a global line, the clock that is reported is the accelerator's.

    Parameters
    ----------
    accelerator
        Component with streams ``i`` and ``o``, and ``load`` where it must be loaded.

    Members
    -------
    i : ``In(1)``
        Bits to shift in.
    o : ``Out(1)``
        The results, folded.
    """

    i: Signal
    o: Signal

    def __init__(self, accelerator: Any) -> None:
        self.accelerator = accelerator
        super().__init__({"i": In(1), "o": Out(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.accelerator = inner = self.accelerator
        payload, result = inner.i.payload.as_value(), inner.o.payload.as_value()
        loads = 17 if hasattr(inner, "load") else 0  # A word, and whether it is there.
        given = Signal(len(payload) + 2 + loads)
        m.d.sync += given.eq((given << 1) | self.i)
        if loads:
            m.d.comb += [inner.load.payload.eq(given[-16:]), inner.load.valid.eq(given[-17])]
        m.d.comb += [
            payload.eq(given[2 : 2 + len(payload)]),
            inner.i.valid.eq(given[0]),
            inner.o.ready.eq(given[1]),
        ]
        leaving = Cat(inner.o.valid, inner.i.ready, result)
        taken, folded = Signal(len(leaving)), Signal(len(leaving))
        m.d.sync += [taken.eq(leaving), folded.eq((folded << 1) ^ taken)]
        m.d.comb += self.o.eq(folded[-1])
        return m

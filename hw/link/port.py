"""Ports: bytes over pins, by UART or SPI."""

from typing import Any

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from brambling.hw.link.spi import SpiSlave
from brambling.hw.link.uart import UartReceiver, UartSpec, UartTransmitter

__all__ = ["PINS", "Port"]

#: Pins by kind of link: name, and whether the device drives it.
PINS = {
    "uart": {"rx": False, "tx": True},
    "spi": {"sclk": False, "cs_n": False, "mosi": False, "miso": True},
}


class Port(wiring.Component):
    """Bytes from pins, and to them.

    Parameters
    ----------
    link
        ``"uart"`` or ``"spi"``.
    uart
        Rate of the UART; SPI needs none.

    Members
    -------
    rx, tx or sclk, cs_n, mosi, miso
        The pins; the inputs need not be synchronous to the clock.
    data : ``Out(8)``, valid : ``Out(1)``
        A byte came.
    bad : ``Out(1)``
        One came that cannot be read.
    i : ``In(stream.Signature(8))``
        Bytes to be sent.
    """

    data: Signal
    valid: Signal
    bad: Signal
    i: stream.Interface

    def __init__(self, link: str, uart: UartSpec | None = None) -> None:
        self.link = link
        self.uart = uart
        super().__init__({
            **{name: Out(1) if driven else In(1) for name, driven in PINS[link].items()},
            "data": Out(8),
            "valid": Out(1),
            "bad": Out(1),
            "i": In(stream.Signature(8)),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        inputs: Any
        outputs: Any
        if self.uart is None:
            m.submodules.spi = inputs = outputs = SpiSlave()
        else:
            m.submodules.receiver = inputs = UartReceiver(self.uart.divisor)
            m.submodules.transmitter = outputs = UartTransmitter(self.uart.divisor)
        for name, driven in PINS[self.link].items():
            pin = getattr(self, name)
            m.d.comb += pin.eq(getattr(outputs, name)) if driven else getattr(inputs, name).eq(pin)
        connect(m, flipped(self.i), outputs.i)
        m.d.comb += [
            self.data.eq(inputs.data),
            self.valid.eq(inputs.valid),
            self.bad.eq(inputs.bad),
        ]
        return m

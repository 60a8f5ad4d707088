"""UART: bytes over one wire each way, 8 data bits, no parity, one stop bit."""

from dataclasses import dataclass
from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out

from brambling.errors import ConfigError

__all__ = ["UartReceiver", "UartSpec", "UartTransmitter"]


@dataclass(frozen=True, slots=True)
class UartSpec:
    """A UART of ``baud`` bits a second in a clock of ``clock_hz``.

    The rate is the clock divided by a whole number of at least 4, and at most 2 % off: the receiver
    samples in the middle of a bit, and the last one of a byte is 9.5 bits after its start.
    """

    clock_hz: int
    baud: int

    LEAST = 4  #: Clocks of the shortest bit.
    TOLERANCE = 0.02  #: Largest part by which the rate may be off.

    def __post_init__(self) -> None:
        if self.clock_hz < 1:
            raise ConfigError(f"clock_hz must be at least 1, not {self.clock_hz}")
        if not 1 <= self.baud <= self.clock_hz // self.LEAST:
            raise ConfigError(
                f"baud must be 1 to {self.clock_hz // self.LEAST} with a clock of "
                f"{self.clock_hz} Hz, not {self.baud}"
            )
        if abs(self.rate / self.baud - 1) > self.TOLERANCE:
            raise ConfigError(
                f"baud {self.baud} cannot be made from a clock of {self.clock_hz} Hz within 2 %: "
                f"the nearest is {round(self.rate)}"
            )

    @property
    def divisor(self) -> int:
        """Clocks of a bit."""
        return max(1, round(self.clock_hz / self.baud))

    @property
    def rate(self) -> float:
        """Bits a second that are really made."""
        return self.clock_hz / self.divisor


class UartReceiver(wiring.Component):
    """Bytes from the wire. A start bit must still be there in its middle, else it was noise.

    Parameters
    ----------
    divisor
        Clocks of a bit.

    Members
    -------
    rx : ``In(1)``
        The wire; need not be synchronous to the clock.
    data : ``Out(8)``
        The byte that came, in the cycle of ``valid``.
    valid : ``Out(1)``
        A byte came.
    bad : ``Out(1)``
        A byte came without a stop bit. The wire must then be high before another one can start.
    """

    rx: Signal
    data: Signal
    valid: Signal
    bad: Signal

    def __init__(self, divisor: int) -> None:
        self.divisor = divisor
        super().__init__({"rx": In(1), "data": Out(8), "valid": Out(1), "bad": Out(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        line = Signal(init=1)
        m.submodules.synchroniser = FFSynchronizer(self.rx, line, init=1)
        timer = Signal(range(self.divisor))
        number = Signal(range(10))  # Bit that is sampled next: 0 the start, 9 the stop.
        sample = Signal()
        m.d.comb += sample.eq(timer == 0)
        with m.FSM():
            with m.State("Idle"):
                # The first clock of the start bit has passed when it is seen.
                m.d.sync += [timer.eq(self.divisor // 2 - 1), number.eq(0)]
                with m.If(~line):
                    m.next = "Byte"
            with m.State("Byte"):
                m.d.sync += timer.eq(Mux(sample, self.divisor - 1, timer - 1))
                with m.If(sample):
                    m.d.sync += number.eq(number + 1)
                    with m.If(number == 9):
                        m.d.comb += [self.valid.eq(line), self.bad.eq(~line)]
                        with m.If(line):
                            m.next = "Idle"
                        with m.Else():
                            m.next = "Break"
                    with m.Elif((number == 0) & line):
                        m.next = "Idle"
                    with m.Else():
                        m.d.sync += self.data.eq(Cat(self.data[1:], line))
            with m.State("Break"), m.If(line):
                m.next = "Idle"
        return m


class UartTransmitter(wiring.Component):
    """Bytes to the wire, back to back while there are any.

    Parameters
    ----------
    divisor
        Clocks of a bit.

    Members
    -------
    i : ``In(stream.Signature(8))``
    tx : ``Out(1)``
        The wire; high when idle.
    """

    i: stream.Interface
    tx: Signal

    def __init__(self, divisor: int) -> None:
        self.divisor = divisor
        super().__init__({"i": In(stream.Signature(8)), "tx": Out(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        timer = Signal(range(self.divisor))
        line = Signal(init=1)
        bits = Signal(9, init=0x1FF)  # What is still to be sent, behind `line`.
        left = Signal(range(10))  # Bits after this one.
        m.d.comb += [self.tx.eq(line), self.i.ready.eq((left == 0) & (timer == 0))]
        with m.If(timer != 0):
            m.d.sync += timer.eq(timer - 1)
        with m.Elif(left != 0):
            m.d.sync += [
                line.eq(bits[0]),
                bits.eq(Cat(bits[1:], 1)),
                left.eq(left - 1),
                timer.eq(self.divisor - 1),
            ]
        with m.Elif(self.i.valid):
            m.d.sync += [
                line.eq(0),
                bits.eq(Cat(self.i.payload, 1)),
                left.eq(9),
                timer.eq(self.divisor - 1),
            ]
        return m

"""Registers that a host can read."""

from collections.abc import Mapping
from typing import Any

from amaranth.hdl import Const, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from brambling.protocol import VERSION, Register

__all__ = ["ERRORS", "Counters"]

#: Counters of errors, by what counts them.
ERRORS = {
    "crc_error": Register.CRC_ERRORS,
    "skipped": Register.SKIPPED,
    "truncated": Register.TRUNCATED,
    "nak": Register.NAKS,
    "framing": Register.FRAMING,
    "overrun": Register.OVERRUNS,
}
ERROR_BITS = 16


class Counters(wiring.Component):
    """Counts what happens on the link.

    Parameters
    ----------
    layouts
        What registers say of the beats of frames and results.

    Members
    -------
    now : ``Out(64)``
        Cycles since reset.
    clear : ``In(1)``
        Set all other counters to 0.
    frame, result : ``In(1)``
        A frame came, a result went, in this cycle.
    crc_error, truncated, nak, framing, overrun : ``In(1)``
        Errors of this cycle.
    skipped : ``In(2)``
        Bytes passed over in this cycle.
    cycles : ``In(32)``, timed : ``In(1)``
        Cycles of a result, in the cycle of ``timed``.
    load_crc : ``In(32)``
        CRC of the words loaded.
    number : ``In(8)``
        Register that is wanted.
    read : ``In(1)``
        It is read in this cycle.
    value : ``Out(32)``
        What it holds.
    """

    now: Signal
    clear: Signal
    frame: Signal
    result: Signal
    skipped: Signal
    crc_error: Signal
    truncated: Signal
    nak: Signal
    framing: Signal
    overrun: Signal
    cycles: Signal
    timed: Signal
    load_crc: Signal
    number: Signal
    read: Signal
    value: Signal

    def __init__(self, layouts: Mapping[Register, int]) -> None:
        self.layouts = layouts
        super().__init__({
            "now": Out(64),
            "clear": In(1),
            "frame": In(1),
            "result": In(1),
            **{name: In(2 if name == "skipped" else 1) for name in ERRORS},
            "cycles": In(32),
            "timed": In(1),
            "load_crc": In(32),
            "number": In(8),
            "read": In(1),
            "value": Out(32),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.d.sync += self.now.eq(self.now + 1)
        upper, last = Signal(32), Signal(32)
        with m.If(self.read & (self.number == Register.CYCLES_LOW)):
            m.d.sync += upper.eq(self.now[32:])
        with m.If(self.timed):
            m.d.sync += last.eq(self.cycles)
        values: dict[Register, Any] = {
            Register.CYCLES_LOW: self.now[:32],
            Register.CYCLES_HIGH: upper,
            Register.LAST_CYCLES: last,
            Register.VERSION: Const(VERSION),
            Register.LOAD_CRC: self.load_crc,
            **{number: Const(value, 32) for number, value in self.layouts.items()},
        }
        for number, event in ((Register.FRAMES, self.frame), (Register.RESULTS, self.result)):
            values[number] = count = Signal(32, name=number.name.lower())
            m.d.sync += count.eq(count + event)
        for name, number in ERRORS.items():
            values[number] = count = Signal(ERROR_BITS, name=number.name.lower())
            total = Signal(ERROR_BITS + 1, name=f"{name}_total")
            m.d.comb += total.eq(count + getattr(self, name))
            m.d.sync += count.eq(total | total[-1].replicate(ERROR_BITS))
        with m.If(self.clear):
            m.d.sync += [last.eq(0), *(
                values[number].eq(0)
                for number in (Register.FRAMES, Register.RESULTS, *ERRORS.values())
            )]  # fmt: skip
        with m.Switch(self.number):
            for number, value in values.items():
                with m.Case(number):
                    m.d.comb += self.value.eq(value)
        return m

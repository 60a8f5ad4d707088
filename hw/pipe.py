"""Pipeline registers."""

from amaranth.hdl import Module, Signal, Value, ValueLike

__all__ = ["Pipe"]


class Pipe:
    """Registers groups of values in lock-step, at every clock edge, and counts the stages made.

    Parameters
    ----------
    m : :class:`~amaranth.hdl.Module`
        Module that gets the registers.
    """

    def __init__(self, m: Module) -> None:
        self._m = m
        self.depth = 0

    def stage(self, **values: ValueLike) -> tuple[Signal, ...]:
        """Register ``values``; the keyword becomes part of the signal's name in waveforms."""
        self.depth += 1
        registers = []
        for name, value in values.items():
            register = Signal.like(Value.cast(value), name=f"{name}_{self.depth}")
            self._m.d.sync += register.eq(value)
            registers.append(register)
        return tuple(registers)

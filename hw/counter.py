"""Counters."""

from amaranth.hdl import Shape, unsigned

__all__ = ["below"]


def below(count: int) -> Shape:
    """Return the shape of the numbers below ``count``: at least one bit, unlike ``range(1)``.

    A signal without bits is a range of two in Verilog, ``[-1:0]``.
    """
    return unsigned(max(1, (count - 1).bit_length()))

"""Verilog and RTLIL of a component."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from amaranth.back import rtlil, verilog
from amaranth.lib import wiring

__all__ = ["module_name", "to_rtlil", "to_verilog", "wide_integers"]


def module_name(network: str) -> str:
    """Return ``network`` as an identifier: ``sfc-w1a1`` is ``sfc_w1a1``."""
    name = re.sub(r"\W", "_", network, flags=re.ASCII)
    return name if re.match(r"[A-Za-z_]", name) else f"_{name}"


@contextmanager
def wide_integers() -> Iterator[None]:
    """Lift Python's limit on the digits of integers: a memory word may have 10,000 bits."""
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        yield
    finally:
        sys.set_int_max_str_digits(limit)


def to_rtlil(component: wiring.Component, name: str) -> str:
    """Return the RTLIL of ``component`` as top module ``name``, without source locations."""
    with wide_integers():
        return rtlil.convert(component, name=name, emit_src=False)


def to_verilog(component: wiring.Component, name: str) -> str:
    """Return the Verilog of ``component`` as top module ``name``: one text, memories inside."""
    with wide_integers():
        return verilog.convert(component, name=name, emit_src=False, strip_internal_attrs=True)

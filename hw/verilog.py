"""Verilog and RTLIL of a component."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# The stubs lack both.
from amaranth.back import rtlil  # pyright: ignore[reportAttributeAccessIssue]
from amaranth.back.verilog import (
    _convert_rtlil_text,  # pyright: ignore[reportAttributeAccessIssue]
)
from amaranth.lib import wiring

__all__ = ["module_name", "to_rtlil", "to_verilog", "unfilled", "wide_integers"]

HUGE = '  attribute \\ram_style "huge"\n'  #: In RTLIL, before a memory that is to be SPRAM.


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
    """Return the RTLIL of ``component`` as top module ``name``, without source locations.

    Memories inside; those that are filled at run time have no contents, see :func:`unfilled`.
    """
    with wide_integers():
        return unfilled(rtlil.convert(component, name=name, emit_src=False))


def to_verilog(component: wiring.Component, name: str) -> str:
    """Return the Verilog of ``component`` as top module ``name``: one text, as :func:`to_rtlil`."""
    # What amaranth.back.verilog.convert does, but for memories without contents.
    return _convert_rtlil_text(to_rtlil(component, name), strip_internal_attrs=True)


def unfilled(text: str) -> str:
    """Return RTLIL without the contents of memories in SPRAM: Amaranth writes zeros there.

    No such RAM can have initial contents, so that Yosys would find none for them.
    """
    if HUGE not in text:
        return text
    return "".join(map(_unfilled_module, re.split(r"(?m)(?<=^end\n)", text)))


def _unfilled_module(text: str) -> str:
    for name in re.findall(rf"{re.escape(HUGE)}(?:  attribute .*\n)*  memory .* \\(\S+)\n", text):
        owner = rf'\S+\n    parameter \\MEMID "\\\\{re.escape(name)}"\n'
        if re.search(rf"  cell \$memwr_v2 {owner}", text):  # Not so what is only read.
            contents = rf"(?:  attribute .*\n)*  cell \$meminit_v2 {owner}(?:    .*\n)*  end\n"
            text = re.sub(contents, "", text)
    return text

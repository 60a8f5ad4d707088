"""Generated designs for systems on a chip: the accelerator with AXI streams and registers."""

from pathlib import Path

from brambling.digest import digest
from brambling.files import write_atomically
from brambling.hw.accelerator import pipeline
from brambling.hw.link.axi import AxiAccelerator
from brambling.hw.link.registers import RegisterMap
from brambling.hw.verilog import module_name, to_verilog
from brambling.network import Network
from brambling.plan import Plan

__all__ = ["generate_bus"]


def generate_bus(network: Network, plan: Plan, folder: Path, bus: str) -> tuple[Path, Path]:
    """Write the design with a bus into ``folder``; return its Verilog, and its registers for C.

    Parameters
    ----------
    bus
        ``"axi"`` or ``"wishbone"``, by which the registers are reached; frames and results are
        AXI4-Stream either way. See :class:`brambling.hw.link.axi.AxiAccelerator`.

    Raises
    ------
    ConfigError
        Another bus, or a plan whose weights must be loaded.
    """
    top = f"{module_name(network.name)}_{bus}"
    design = AxiAccelerator(pipeline(network, plan), digest(network), bus)
    verilog, header = folder / f"{top}.v", folder / f"{top}.h"
    write_atomically(header, RegisterMap().c_header(top.upper()))
    write_atomically(verilog, to_verilog(design, top))
    return verilog, header

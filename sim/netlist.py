"""Netlists: a design after synthesis, in Verilog, with the models of its cells."""

import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from brambling.errors import ConfigError, ToolProblem
from brambling.sim.cache import cached, digest
from brambling.sim.compiler import call

__all__ = ["FAMILIES", "Family", "Netlist", "synthesise"]

CELLS = Path(__file__).parent / "cells"
NAMES = ("netlist.v", "library.txt", "cells.json")  #: What a run of Yosys leaves behind.
#: Around the text that ``read_verilog -ppdump`` says.
DUMP = re.compile(r"-- Verilog code after preprocessor --\n(.*?)-- END OF DUMP --", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Family:
    """What is known of the cells of a family of parts.

    Parameters
    ----------
    library
        Yosys' own models of the cells; ``+`` is its folder of such.
    models
        Files of :data:`CELLS` with those that Yosys has only as black boxes. They go before.
    """

    library: str
    models: tuple[str, ...] = ()


FAMILIES = {
    "ecp5": Family("+/ecp5/cells_sim.v", models=("block_ram.v", "ecp5.v")),
    "ice40": Family("+/ice40/cells_sim.v"),
    "gowin": Family("+/gowin/cells_sim.v", models=("block_ram.v", "gowin.v")),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Netlist:
    """A design made of a family's cells.

    Parameters
    ----------
    top
        Name of its only module.
    verilog
        The module.
    models
        Verilog of the cells. Where a cell is there twice, the first counts.
    cells
        How many there are of each.
    """

    top: str
    family: str
    verilog: str
    models: str
    cells: Mapping[str, int]


def synthesise(
    rtlil: str,
    top: str,
    family: str,
    synthesis: str,
    yosys: Sequence[str],
) -> Netlist:
    """Synthesise a design, or take it from the user's cache folder if that was done before.

    Parameters
    ----------
    rtlil
        The design.
    synthesis
        Command of Yosys, to be followed by ``-top`` and a name; as bitstreams are made with.
    yosys
        What calls Yosys, to be followed by its arguments.

    Raises
    ------
    ToolProblem
        Yosys fails.
    """
    if family not in FAMILIES:
        raise ConfigError(f"family must be one of {', '.join(FAMILIES)}, not {family!r}")
    chosen = FAMILIES[family]
    dump = "read_verilog -ppdump -defer -DNO_INCLUDES -DNO_ICE40_DEFAULT_ASSIGNMENTS"
    script = "\n".join((
        "read_rtlil design.il",
        f"{synthesis} -top {top}",
        "delete t:$scopeinfo",
        f"tee -q -o {NAMES[2]} stat -json",
        # Nothing but cells: one that was not mapped has no model, and stops the simulator's build.
        f"write_verilog -noattr -noexpr {NAMES[0]}",
        "design -reset",
        # -defer: only the text is wanted, and some models take Yosys minutes to elaborate.
        f"tee -q -o {NAMES[1]} {dump} {chosen.library}",
    ))

    def make(folder: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="brambling-") as name:
            work = Path(name)
            (work / "design.il").write_text(rtlil, encoding="utf-8")
            (work / "script.ys").write_text(f"{script}\n", encoding="utf-8")
            call((*yosys, "-q", "-s", "script.ys"), work)
            for made in NAMES:
                (work / made).replace(folder / made)

    key = digest("netlist", rtlil, script, *yosys, call((*yosys, "-V"), CELLS))
    verilog, library, cells = ((cached(key, make) / name).read_text() for name in NAMES)
    return Netlist(
        top=top,
        family=family,
        verilog=verilog,
        models="".join([(CELLS / name).read_text() for name in chosen.models] + [text_of(library)]),
        cells=counted(cells, top),
    )


def text_of(log: str) -> str:
    """Return the Verilog in what ``read_verilog -ppdump`` says, without Yosys' own directives."""
    found = DUMP.search(log)
    if found is None:
        raise ToolProblem("yosys: no library of cells in what read_verilog -ppdump says")
    return re.sub(r"(?m)^`file_(?:push|pop).*\n", "", found[1])


def counted(text: str, top: str) -> Mapping[str, int]:
    """Return the number of each kind of cell."""
    found = json.loads(text)["modules"][f"\\{top}"]["num_cells_by_type"]
    return dict(sorted(found.items()))

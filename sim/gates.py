"""Gate-level simulation: what synthesis made of an accelerator, against both models.

The netlist of Yosys is read by Verilator, with models of the vendor's cells. Whatever is not
initialised, and whatever the vendor leaves undefined, has random values.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from brambling.errors import ToolProblem
from brambling.hw.accelerator import Accelerator, Node, edges, pipeline
from brambling.hw.verilog import module_name, to_rtlil
from brambling.network import Network
from brambling.plan import Plan
from brambling.sim import golden
from brambling.sim.compare import compare_codes
from brambling.sim.compiled import Verilator
from brambling.sim.compiler import OTHERWISE
from brambling.sim.cycles import schedule
from brambling.sim.job import Design, EdgeTrace, Job, Trace, pattern
from brambling.sim.netlist import Netlist, synthesise
from brambling.sim.progress import Progress

__all__ = ["SITUATIONS", "GateLevel", "Gates", "Situation", "check", "gates", "netlist_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What befalls a netlist besides its frames.

    Parameters
    ----------
    offer, accept
        Stalls of the source and of the sink, see :func:`brambling.sim.job.pattern`.
    reset
        Cycles with ``rst`` high before cycle 0; none: it works from its initial values.
    restart
        Fraction of the first frame's latency after which ``rst`` breaks it off; 0: never.
    """

    offer: str = "none"
    accept: str = "none"
    reset: int = 2
    restart: float = 0


SITUATIONS = {
    "power_up": Situation(reset=0),
    "both_random": Situation(offer="random", accept="random"),
    "reset_in_mid_frame": Situation(offer="burst", accept="burst", restart=0.6),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Gates:
    """The result of :func:`gates`.

    Parameters
    ----------
    cells
        How many cells of each kind the netlist has.
    beats_compared
        Beats of input and output, of all situations, each with its value and its cycle.
    """

    network: str
    family: str
    cells: Mapping[str, int]
    frames: int
    situations: tuple[str, ...]
    beats_compared: int


class GateLevel(Verilator):
    """Runs jobs on a netlist.

    Parameters
    ----------
    netlist
        Takes the place of the design's own Verilog.
    arguments
        Options of the bench.
    """

    name = "gates"
    options = (
        "-O3",
        "--x-assign",
        "unique",
        "--x-initial",
        "unique",
        "--noassert",
        "-Wno-lint",
        "-Wno-fatal",  # Yosys' models of the cells are not free of warnings.
        "--output-split-cfuncs",
        "300",  # Of statements: thousands in one function take the compiler twice as long.
    )

    def __init__(self, netlist: Netlist, arguments: Sequence[str] = ()) -> None:
        self.netlist = netlist
        self.arguments = ("+verilator+rand+reset+2", *arguments)

    def elaborate(self, design: Design) -> str:
        """Return the netlist with the models of its cells."""
        return f"{self.netlist.verilog}\n{self.netlist.models}"


def top_of(network: Network) -> str:
    return module_name(network.name).lower()


def netlist_of(
    network: Network,
    nodes: tuple[Node, ...],
    family: str,
    synthesis: str,
    yosys: Sequence[str],
) -> Netlist:
    """Synthesise an accelerator; see :func:`brambling.sim.netlist.synthesise`."""
    top = top_of(network)
    rtlil = to_rtlil(Accelerator(nodes), top)
    return synthesise(rtlil, top, family, synthesis, yosys)


def gates(
    network: Network,
    plan: Plan,
    images: NDArray,
    *,
    family: str,
    synthesis: str,
    yosys: Sequence[str],
    progress: Progress | None = None,
) -> Gates:
    """Synthesise the accelerator, and run ``images`` through the netlist in all situations.

    Parameters
    ----------
    images
        Integers ``(n, …)``, as the network takes them.
    family
        One of :data:`brambling.sim.netlist.FAMILIES`.
    synthesis
        Command of Yosys, such as ``synth_ecp5 -nowidelut``.
    yosys
        What calls Yosys, to be followed by its arguments.

    Raises
    ------
    Mismatch
        A beat of the output differs from the golden model, or its cycle from the cycle model.
    ToolProblem
        Yosys, Verilator or the compiler is missing, or fails.
    """
    images = golden.frames(network, images)
    nodes = pipeline(network, plan)
    tell: Progress = progress or (lambda what, done, total: None)
    tell("synthesise", 0, 1)
    netlist = netlist_of(network, nodes, family, synthesis, yosys)
    tell("synthesise", 1, 1)
    compared = check(network, nodes, netlist, images, progress=tell)
    return Gates(
        network=network.name,
        family=family,
        cells=netlist.cells,
        frames=len(images),
        situations=tuple(SITUATIONS),
        beats_compared=compared,
    )


def check(
    network: Network,
    nodes: tuple[Node, ...],
    netlist: Netlist,
    images: NDArray,
    *,
    situations: Mapping[str, Situation] = SITUATIONS,
    progress: Progress | None = None,
) -> int:
    """Run ``images`` through ``netlist`` in all situations; return how many beats were compared.

    :class:`Mismatch` names the situation, the edge, the beat, and both values or both cycles.
    """
    images = golden.frames(network, images).reshape(len(images), -1)
    first, last = edges(nodes)[0], edges(nodes)[-1]
    wanted = golden.run(network, images, edges=(last.name,))[last.name].reshape(len(images), -1)
    design = Design(
        name=netlist.top,
        make=lambda: Accelerator(nodes),
        edges=(("input", first.beats.width), ("output", last.beats.width)),
    )
    compared = 0
    for seed, (name, situation) in enumerate(situations.items(), start=1):
        job, expected, arguments = played(nodes, images, situation, seed)
        try:
            trace = GateLevel(netlist, arguments).run(design, job, progress=progress)
        except ToolProblem as error:
            raise ToolProblem(str(error).removesuffix(OTHERWISE)) from None
        expected.check(only_cycles(trace), f"{netlist.family}, {name}")
        codes = last.decode(last.beats.unpack(trace["output"].payloads))
        compare_codes(f"{netlist.family}, {name}, {last.name}", codes, wanted)
        compared += sum(len(edge.cycles) for edge in trace.edges.values())
    return compared


def played(
    nodes: tuple[Node, ...], images: NDArray, situation: Situation, seed: int
) -> tuple[Job, Trace, tuple[str, ...]]:
    """Return a job, the cycles that the model predicts of its beats, and options of the bench."""
    patterns = {
        "offer": pattern(situation.offer, seed),
        "accept": pattern(situation.accept, seed + 1),
    }
    first, last = edges(nodes)[0], edges(nodes)[-1]
    found = schedule(nodes, len(images), **patterns)
    job = Job(
        beats=first.beats.pack(images),
        outputs=len(images) * last.beats.count,
        limit=2 * found.end + 1000,
        until=found.end,
        **patterns,
    )
    arguments = [f"+verilator+seed+{seed}", f"+reset+{situation.reset}"]
    if situation.restart:
        latency = int(found.of_frames(last.name)[0, -1])
        arguments.append(f"+restart+{max(1, int(situation.restart * latency))}")
    rows = {"input": found.cycles[first.name], "output": found.cycles[last.name]}
    return job, cycles_of(rows), tuple(arguments)


def cycles_of(rows: Mapping[str, NDArray[np.int64]]) -> Trace:
    """Return a trace of cycles without payloads."""
    return Trace({
        name: EdgeTrace(cycles, np.zeros((len(cycles), 0), np.uint8))
        for name, cycles in rows.items()
    })


def only_cycles(trace: Trace) -> Trace:
    return cycles_of({name: edge.cycles for name, edge in trace.edges.items()})

"""Simulating a network under a plan, and comparing what is seen with both models."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brambling.boards.clock import summary
from brambling.boards.parts import find_board
from brambling.boards.resources import needs
from brambling.errors import ConfigError, Mismatch
from brambling.hw.accelerator import Accelerator, Edge, Node, edges, pipeline, root
from brambling.hw.verilog import module_name
from brambling.network import ArgMax, Network
from brambling.plan import Plan
from brambling.sim import golden
from brambling.sim.compare import compare_codes
from brambling.sim.cycles import Schedule, schedule
from brambling.sim.job import Design, Job, Trace
from brambling.sim.progress import Progress

__all__ = ["ENGINES", "Layer", "Simulation", "compare", "design_of", "job_of", "simulate"]

MODELS = ("golden", "cycles")  #: Engines without RTL.
RTL = ("pysim", "verilator", "cxxrtl", "icarus")
ENGINES = (*MODELS, *RTL)
STEADY = 32  #: Frames after which the interval is that of all later ones.


@dataclass(frozen=True, slots=True)
class Layer:
    """An engine in the result of a simulation.

    Parameters
    ----------
    interval
        Cycles a frame that it needs by itself; the largest one is the bottleneck.
    cycles, cycles_simulated
        From the first input beat of the first frame to its last output beat: predicted, and seen.
    """

    name: str
    engine: str
    pe: int
    simd: int
    pixels: int
    macs: int
    weight_bits: int
    brams: int
    interval: int
    cycles: int
    cycles_simulated: int | None


@dataclass(frozen=True, slots=True)
class Simulation:
    """The result of a simulation.

    Parameters
    ----------
    equal_to_golden, cycles_equal_to_model
        Whether every beat at every edge has the golden value, and the predicted cycle; ``None``
        where the engine does not tell.
    latency_cycles
        Clock edges from the first input beat of a frame to its last output beat.
    interval_cycles
        Cycles from one frame to the next.
    estimate
        What the plan is estimated to take of the part, with the errors of the estimates.
    accuracy, accuracy_images
        Fraction of the labelled images that are classified right, and their number.
    outputs
        The integers before the arg-max, int64 ``(frames, n)``.
    """

    network: str
    board: str
    goal: str
    engine: str
    frames: int
    equal_to_golden: bool | None
    cycles_equal_to_model: bool | None
    beats_compared: int
    latency_cycles: int
    interval_cycles: int
    clock_hz: int
    estimate: str
    accuracy: float | None
    accuracy_images: int
    layers: tuple[Layer, ...]
    outputs: NDArray[np.int64]

    @property
    def latency_s(self) -> float:
        return self.latency_cycles / self.clock_hz

    @property
    def fps(self) -> float:
        return self.clock_hz / self.interval_cycles

    @property
    def bottleneck(self) -> Layer:
        """The engine that needs most cycles a frame; of equal ones, the one that works most."""
        return max(self.layers, key=lambda layer: (layer.interval, layer.macs))

    def to_json(self) -> dict[str, Any]:
        """Return everything but the outputs."""
        table = {name: getattr(self, name) for name in self.__slots__ if name != "outputs"}
        return {
            **table,
            "latency_s": self.latency_s,
            "fps": self.fps,
            "bottleneck": self.bottleneck.name,
            "layers": [asdict(layer) for layer in self.layers],
        }


@cache
def generator_digest() -> str:
    """Hash of the sources that make the hardware: what a compiled simulator depends on."""
    from brambling import hw, layers, plan, steps, timing
    from brambling.quant import formats

    folders = [Path(part.__path__[0]) for part in (hw, layers)]
    modules = [Path(str(module.__file__)) for module in (plan, steps, timing, formats)]
    total = hashlib.sha256()
    for path in [*(path for folder in folders for path in sorted(folder.glob("*.py"))), *modules]:
        total.update(path.read_bytes())
    return total.hexdigest()


def design_of(network: Network, plan: Plan, nodes: tuple[Node, ...]) -> Design:
    """Return the accelerator with its edges observed, for a runner."""
    seen = edges(nodes)
    names = ["input", *(edge.name for edge in seen[1:-1]), "output"]
    return Design(
        name=module_name(network.name).lower(),
        make=lambda: Accelerator(nodes, taps=True),
        edges=tuple((name, edge.beats.width) for name, edge in zip(names, seen, strict=True)),
        key=f"{network.digest}\n{plan.to_toml()}\n{generator_digest()}",
    )


def job_of(
    nodes: tuple[Node, ...], found: Schedule, images: NDArray, **patterns: NDArray[np.bool_]
) -> Job:
    """Return the job that feeds ``images`` and waits for all results.

    It gives up only well after the cycle in which the model expects the last result.
    """
    seen = edges(nodes)
    return Job(
        beats=seen[0].beats.pack(images),
        outputs=len(images) * seen[-1].beats.count,
        limit=2 * found.end + 1000,
        until=found.end,
        **patterns,
    )


def codes_of(edge: Edge, trace: Trace, name: str, frames: int) -> NDArray[np.int64]:
    """Codes ``(frames, elements)`` that were seen on an edge."""
    return edge.decode(edge.beats.unpack(trace[name].payloads[: frames * edge.beats.count]))


def compare(
    nodes: tuple[Node, ...],
    values: Mapping[str, NDArray],
    found: Schedule,
    trace: Trace,
    frames: int,
) -> int:
    """Compare every beat of ``frames`` frames at every edge; return how many there were.

    Raises
    ------
    Mismatch
        Names the first edge that differs, the beat, and both values or both cycles.
    """
    compared = 0
    seen = edges(nodes)
    for number, edge in enumerate(seen):
        name = "output" if number == len(seen) - 1 else edge.name
        codes = codes_of(edge, trace, name, frames)
        wanted = values[edge.name].reshape(frames, -1)
        compare_codes(edge.name, codes, wanted)
        cycles = trace[name].cycles[: frames * edge.beats.count]
        predicted = found.cycles[edge.name]
        if not np.array_equal(cycles, predicted):
            beat = int(np.argmax(cycles != predicted))
            raise Mismatch(
                f"{edge.name}: beat {beat} in cycle {cycles[beat]}, "
                f"the model says {predicted[beat]}"
            )
        compared += len(cycles)
    return compared


def runner(engine: str) -> Any:
    """Return the runner of that name; imported late, since each needs other packages."""
    match engine:
        case "pysim":
            from brambling.sim.pysim import Pysim

            return Pysim()
        case "verilator":
            from brambling.sim.compiled import Verilator

            return Verilator()
        case "cxxrtl":
            from brambling.sim.compiled import Cxxrtl

            return Cxxrtl()
        case "icarus":
            from brambling.sim.cocotb_runner import CocotbRunner

            return CocotbRunner("icarus")
    raise ConfigError(f"engine must be one of {', '.join(ENGINES)}, not {engine!r}")


def simulate(
    network: Network,
    plan: Plan,
    images: NDArray,
    labels: NDArray | None = None,
    *,
    engine: str = "golden",
    frames: int | None = None,
    vcd: Path | None = None,
    progress: Progress | None = None,
) -> Simulation:
    """Run the first ``frames`` of ``images`` through ``engine``, and compare with both models.

    Parameters
    ----------
    images
        Integers, ``(n, …)``, as the network takes them.
    labels
        Classes of all images; where given, accuracy is that of the golden model on all of them.
    engine
        One of :data:`ENGINES`.
    vcd
        Where to write a waveform.

    Raises
    ------
    Mismatch
        The RTL differs from the golden or the cycle model.
    """
    if engine not in ENGINES:
        raise ConfigError(f"engine must be one of {', '.join(ENGINES)}, not {engine!r}")
    if vcd is not None and engine in MODELS:
        raise ConfigError(f"a waveform needs an RTL engine ({', '.join(RTL)}), not {engine!r}")
    if frames is not None and frames < 1:
        raise ConfigError(f"frames must be at least 1, not {frames}")
    if labels is not None and network.output.shape:
        raise ConfigError(f"{network.name} ends in {network.output}, not in a class: no accuracy")
    images = golden.frames(network, images)
    accuracy = None if labels is None else golden.accuracy(network, images, labels)
    images = images[:frames]
    values = golden.run(network, images)
    nodes = pipeline(network, plan)
    steady = schedule(nodes, max(len(images), STEADY))
    found = steady.first(len(images))

    trace, compared = None, 0
    if engine in RTL:
        design = design_of(network, plan, nodes)
        flat = images.reshape(len(images), -1)
        trace = runner(engine).run(design, job_of(nodes, found, flat), vcd=vcd, progress=progress)
        compared = compare(nodes, values, found, trace, len(images))
    raw = _before_argmax(network)
    outputs = values[raw].reshape(len(images), -1).astype(np.int64)
    if trace is not None:
        edge = next(edge for edge in edges(nodes) if edge.name == raw)
        name = raw if raw != network.layers[-1].name else "output"
        outputs = codes_of(edge, trace, name, len(images))
    return Simulation(
        network=network.name,
        board=plan.board,
        goal=plan.goal,
        engine=engine,
        frames=len(images),
        equal_to_golden=None if trace is None else True,
        cycles_equal_to_model=None if trace is None else True,
        beats_compared=compared,
        latency_cycles=found.latency,
        interval_cycles=steady.interval,
        clock_hz=plan.clock_hz,
        estimate=summary(network, plan, find_board(plan.board).part),
        accuracy=accuracy,
        accuracy_images=0 if labels is None else len(labels),
        layers=_layers(network, plan, found, trace),
        outputs=outputs,
    )


def _before_argmax(network: Network) -> str:
    last = network.layers[-1]
    return root(network, last.inputs[0] if isinstance(last, ArgMax) else last.name)


def _layers(
    network: Network, plan: Plan, found: Schedule, trace: Trace | None
) -> tuple[Layer, ...]:
    part = find_board(plan.board).part
    rows = []
    pairs = plan.pairs(network)
    for number, (step, stage) in enumerate(pairs):
        source = root(network, step.sources[0])
        beats = len(found.of_frames(step.output)[0])
        seen = None
        if trace is not None:
            name = "output" if number == len(pairs) - 1 else step.output
            seen = int(trace[name].cycles[beats - 1] - trace[source].cycles[0])
        rows.append(
            Layer(
                name=step.name,
                engine=step.engine,
                pe=stage.pe,
                simd=stage.simd,
                pixels=stage.pixels,
                macs=sum(map(network.macs_of, step.layers)),
                weight_bits=sum(layer.weight_bits for layer in step.layers),
                brams=needs(step, stage, part).blocks,
                interval=step.interval(stage.pe, stage.simd, stage.pixels),
                cycles=int(found.of_frames(step.output)[0, -1] - found.of_frames(source)[0, 0]),
                cycles_simulated=seen,
            )
        )
    return tuple(rows)

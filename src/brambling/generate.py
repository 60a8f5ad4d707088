"""Generated designs: a folder that someone who gets nothing else can integrate."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from brambling.boards.parts import find_board
from brambling.boards.spram import check
from brambling.errors import FileProblem
from brambling.files import write_atomically
from brambling.hw.accelerator import Accelerator, Node, edges, pipeline
from brambling.hw.beat import Beats
from brambling.hw.load import LoaderSpec, load_words, loaded_nodes
from brambling.hw.mac import MacSpec
from brambling.hw.mvu import MvuSpec
from brambling.hw.verilog import module_name, to_verilog
from brambling.network import Network, Tensor
from brambling.plan import Plan
from brambling.quant.formats import Bipolar
from brambling.sim import cocotb_runner
from brambling.sim.cocotb_runner import scenario_files
from brambling.sim.cycles import Schedule, schedule
from brambling.sim.verify import scenarios, watched

__all__ = ["Generated", "generate"]

BENCH_FRAMES = 3  #: In the testbench that goes along.

FRAMES = (
    "`first` is 1 in the first beat of a frame and 0 in the others. A beat with `first` starts a "
    "frame whatever came before: a frame that was incomplete is filled up with zeros first, and "
    "has a result like any other. Beats after a whole frame, up to the next `first`, are dropped."
)


LOAD_PORTS = (
    "| `load__payload` | in | 16 | a word to be loaded |",
    "| `load__valid` | in | 1 | a word is offered; then it stays until it is taken |",
    "| `load__ready` | out | 1 | the word is taken at the next edge, if offered |",
    "| `load_restart` | in | 1 | whatever has been loaded, the next word is the first; else 0 |",
    "| `loaded` | out | 1 | all words have been loaded: frames are taken |",
)


@dataclass(frozen=True, slots=True)
class Generated:
    """Where a design was written: ``folder``, and in it the files by role.

    ``load``: what it must be loaded with, words of 16 bits, the low byte first; ``None`` where all
    weights are inside.
    """

    folder: Path
    verilog: Path
    plan: Path
    network: Path
    ports: Path
    readme: Path
    lint: Path
    testbench: Path
    load: Path | None = None


def generate(
    network: Network, plan: Plan, folder: Path, images: NDArray | None = None
) -> Generated:
    """Write the design of ``network`` under ``plan`` into ``folder``.

    Verilog (one file, memories inside, no vendor primitive), the plan, the network, a port map in
    words, a cocotb testbench with its vectors, lint waivers and a README; where weights are in
    SPRAM, what is to be loaded there. Every file is written whole or not at all.

    Parameters
    ----------
    images
        Frames of the testbench, ``(n, …)``, at least two; random ones where ``None``.
    """
    check(plan, find_board(plan.board))
    nodes = pipeline(network, plan)
    top = module_name(network.name)
    words = load_words(nodes)
    made = Generated(
        folder,
        folder / f"{top}.v",
        folder / "plan.toml",
        folder / f"{network.name}.safetensors",
        folder / "ports.md",
        folder / "README.md",
        folder / "lint.vlt",
        folder / "testbench",
        folder / "load.bin" if words.size else None,
    )
    text = readme(network, plan, nodes, schedule(nodes, 8))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileProblem(f"{folder}: cannot be written ({error.strerror})") from None
    # First what costs nothing: a folder that cannot be written to is found out at once.
    plan.save(made.plan)
    network.save(made.network)
    write_atomically(made.ports, port_map(network, nodes))
    write_atomically(made.readme, text)
    write_atomically(made.lint, Path(__file__).with_name("hw").joinpath("lint.vlt").read_text())
    if made.load is not None:
        write_atomically(made.load, words.astype("<u2").tobytes())
    write_testbench(network, nodes, made.testbench, images)
    write_atomically(made.verilog, to_verilog(Accelerator(nodes, load=True), top))
    return made


def write_testbench(
    network: Network, nodes: tuple[Node, ...], folder: Path, images: NDArray | None
) -> None:
    """Write the cocotb bench, what it plays, and the script that runs it."""
    if images is None:
        images = random_frames(network.input)
    tests = scenarios(network, nodes, images[:BENCH_FRAMES])
    files = scenario_files(watched(nodes), tests, load=load_words(nodes))
    bench = Path(cocotb_runner.__file__)
    files["cocotb_bench.py"] = bench.with_name("cocotb_bench.py").read_bytes()
    files["run.py"] = bench.with_name("run_bench.py").read_bytes()
    for name, contents in files.items():
        write_atomically(folder / name, contents)


def random_frames(tensor: Tensor) -> NDArray:
    """Frames of random codes for the testbench, the same every time."""
    rng = np.random.default_rng(1)
    shape = (BENCH_FRAMES, tensor.size)
    if tensor.fmt == Bipolar():
        return rng.choice([-1, 1], shape)
    return rng.integers(tensor.fmt.min, tensor.fmt.max, shape, endpoint=True)


def bits(beats: Beats) -> str:
    """Describe the payload of a stream."""
    width, pixels = beats.fmt.width, beats.pixels
    code = "n" if pixels == 1 else f"({pixels}*n + p)"
    lane = f"lane `n` (0 to {beats.lanes - 1})"
    if pixels > 1:
        lane += f" of pixel `p` (0 to {pixels - 1})"
    at = f"bit `{code}`" if width == 1 else f"bits `{width}*{code} + {width - 1} : {width}*{code}`"
    sign = "two's complement" if beats.fmt.signed else "unsigned"
    kind = "1 is +1, 0 is -1" if str(beats.fmt) == "bipolar" else f"{beats.fmt}, {sign}"
    return f"{lane} is {at}, {kind}; bit `{beats.width - 1}` is `first`"


def frame(beats: Beats, tensor: Tensor) -> str:
    """Describe in which beats the elements of a frame come."""
    vector = beats.rows * beats.columns == 1
    tail = (
        f" In the last beat{'' if vector else ' of each'} lanes from {beats.tail} carry no meaning."
        if beats.tail < beats.lanes
        else ""
    )
    channel = f"beat `c / {beats.lanes}`, lane `c % {beats.lanes}`"
    if beats.elements == 1 and vector:
        return f"one value ({tensor}) in one beat, in lane 0.{tail}"
    if vector:
        many = f"{beats.count} beats" if beats.count > 1 else "one beat"
        return f"{beats.elements} elements ({tensor}) in {many}; element `c` is in {channel}.{tail}"
    group = "pixel" if beats.pixels == 1 else f"group of {beats.pixels} pixels of a row"
    return (
        f"{beats.rows} rows of {beats.columns} pixels ({tensor}), row by row, in {beats.count:,} "
        f"beats, {beats.groups} for each {group}; channel `c` is in its {channel}.{tail}"
    )


def weights(spec: MacSpec) -> str:
    """Describe the memory of an engine's weights."""
    feed, bank = spec.feed, spec.bank
    words = feed.chunks * feed.folds * feed.beats
    fold, of = "f", ""
    if feed.chunks > 1:
        fold, of = f"(c * {feed.folds} + f)", " of group `c`"
    text = (
        f"{words} words of {bank.width} bits; word `{fold} * {feed.beats} + s` is slot `s` of fold "
        f"`f`{of}"
    )
    if isinstance(spec, MvuSpec):
        text += f": the weights of outputs from `f * {spec.pe}` for {feed.simd} inputs"
        if spec.style == "xnor":
            return f"{text}; bit `k * {spec.pe} + p` is output `p`, input `k`; 1 is +1, 0 is -1"
    if spec.style == "planes":
        return f"{text}; bit by bit of the weights, the lowest first"
    return f"{text}; output by output, in each input by input, {spec.fmt}, the first lowest"


def loading(nodes: tuple[Node, ...]) -> str:
    """Describe what must be loaded, and when."""
    parts, start = [], 0
    for node in loaded_nodes(nodes):
        count = LoaderSpec.of((node,)).words
        parts.append(f"`{node.name}.weights`, words {start} to {start + count - 1}")
        start += count
    return (
        f"These memories have no contents before {start} words of 16 bits have come, in order: "
        f"{'; '.join(parts)}. Each word of a memory is cut into pieces of 16 bits, the lowest "
        "first; the last is filled up with zeros. `load.bin` has them all, the low byte of each "
        "first. Before the last word no frame is taken; a word after it begins the next load, "
        "and frames under way then have wrong results. `rst` forgets an unfinished load; a "
        "finished one it does not."
    )


def port_map(network: Network, nodes: tuple[Node, ...]) -> str:
    """Return the ports in words, as Markdown."""
    i, o = nodes[0].spec.i, nodes[-1].spec.o
    rows = [
        f"# Ports of `{module_name(network.name)}`",
        "",
        "| port | direction | bits | meaning |",
        "| --- | --- | --- | --- |",
        "| `clk` | in | 1 | everything happens at its rising edge |",
        "| `rst` | in | 1 | synchronous, active high; frames under way are forgotten |",
        f"| `i__payload` | in | {i.width} | {bits(i)} |",
        "| `i__valid` | in | 1 | a beat is offered; then it stays until it is taken |",
        "| `i__ready` | out | 1 | the beat is taken at the next edge, if offered |",
        f"| `o__payload` | out | {o.width} | {bits(o)} |",
        "| `o__valid` | out | 1 | a result is offered; it stays until it is taken |",
        "| `o__ready` | in | 1 | the result is taken at the next edge, if offered |",
        *(LOAD_PORTS if loaded_nodes(nodes) else ()),
        "",
        "## Frames",
        "",
        f"A frame is {frame(i, network.input)}",
        FRAMES,
        "",
        f"Input: {network.normalisation or network.input}",
        "",
        f"A result is {frame(o, network.output)}",
    ]
    if network.classes:
        rows += ["", "Classes: " + ", ".join(f"{n} {c}" for n, c in enumerate(network.classes))]
    if loaded_nodes(nodes):
        rows += ["", "## Loading", "", loading(nodes)]
    rows += ["", "## Memories", ""]
    rows += [f"- `{node.name}.weights`: {weights(node.spec)}" for node in nodes
             if isinstance(node.spec, MacSpec)]  # fmt: skip
    rows += ["", "## Where the network's edges are", ""]
    rows += [
        f"- `{edge.name}`: instance `{edge.node}`, `{edge.port}__payload`, {bits(edge.beats)}"
        for edge in edges(nodes)
    ]
    return "\n".join(rows) + "\n"


def readme(network: Network, plan: Plan, nodes: tuple[Node, ...], found: Schedule) -> str:
    """Return the README of a generated folder."""
    top = module_name(network.name)
    board = find_board(plan.board)
    microseconds = found.latency / plan.clock_hz * 1e6
    accuracy = network.provenance.get("accuracy")
    filled = loaded_nodes(nodes)
    synthesis = "synth_ice40 -dsp" if board.part.family == "ice40" else "synth_ecp5 -nowidelut"
    inside, load_row, first = "all weights inside", "", ""
    if filled:
        names = ", ".join(f"`{node.name}`" for node in filled)
        inside = f"all weights inside but those of {names}, which must be loaded,"
        load_row = "\n| `load.bin` | the words to load, see `ports.md` |"
        first = " First of all offer the words of `load.bin` on `load`."
    return f"""# {network.name}, generated by Brambling

`{top}.v` is one Verilog module, `{top}`, with {inside} and without vendor primitives.
Planned for {board.name} ({board.part.name}), goal {plan.goal}, {plan.clock_hz / 1e6:g} MHz.

- Latency {found.latency} cycles ({microseconds:.3g} µs), one frame every {found.interval} cycles
  ({plan.clock_hz / found.interval:,.0f} frames/s). From the cycle model, which equals the RTL at
  every beat; whether the clock is reached, only place and route can tell.
- Accuracy: {f"{accuracy:.2%} on the test set" if accuracy is not None else "not recorded"}.
- Input as on the ports: {network.normalisation or network.input}.

| file | what |
| --- | --- |
| `{top}.v` | the design |
| `ports.md` | every port, bit by bit, and where inner values can be seen |{load_row}
| `plan.toml` | how parallel each layer is; edit, and generate again with `--plan` |
| `{network.name}.safetensors` | the network that it computes |
| `testbench/` | cocotb bench with vectors: `python testbench/run.py` (needs cocotb, Icarus) |
| `lint.vlt` | waivers, with reasons, for `verilator --lint-only -Wall lint.vlt {top}.v` |

## Using it

Connect `clk`, `rst`, and the streams as `ports.md` says.{first} Offer the beats of a frame with
`first` in the first one, take results as they come; either side may pause at any time.

    brambling verify {network.name}.safetensors --plan plan.toml    # this design, beat by beat
    yosys -p "read_verilog {top}.v; {synthesis} -top {top}"

On Lattice ECP5 and Gowin parts give Yosys `-nowidelut`: without, the popcounts nearly double.
"""

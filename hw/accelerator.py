"""The accelerator: a network's engines, joined as its layers are."""

from collections import Counter
from typing import Any

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from brambling.errors import ConfigError, UnsupportedLayer
from brambling.hw.beat import Beats
from brambling.hw.engines import engine, inputs, repixel
from brambling.hw.fork import ForkSpec
from brambling.hw.gate import FrameGate, GateSpec
from brambling.hw.load import LoaderSpec, loaded_nodes
from brambling.hw.mvu import MvuSpec
from brambling.hw.node import Edge, Node, Port, Spec, stream_of
from brambling.hw.queue import FifoSpec
from brambling.hw.rom import PIECE
from brambling.hw.width import WidthAdapterSpec
from brambling.layers import Flatten
from brambling.network import INPUT, Network
from brambling.plan import Plan, Stage, Step

__all__ = ["Accelerator", "Edge", "FrameGate", "Node", "Spec", "edges", "pipeline"]

GATE = "gate"  #: Name of the component at the input.
LOADER = "loader"  #: Name of the component that fills memories.
RESERVED = (INPUT, "output")  #: Names that no component can have.


class Builder:
    """The components so far, and where each edge of the network can be had."""

    def __init__(self, network: Network, beats: Beats) -> None:
        self.network = network
        self.nodes = [Node(GATE, GateSpec(beats))]
        self.ports: dict[str, list[Port]] = {}
        self.beats: dict[str, Beats] = {}
        self.readers = readers(network)
        self.publish(INPUT, GATE, beats)

    def add(self, name: str, spec: Any, *sources: Port, step: Step | None = None) -> Port:
        self.nodes.append(Node(name, spec, sources, step))
        return Port(name)

    def publish(self, edge: str, node: str, beats: Beats) -> None:
        """Make an edge available to all layers that read it."""
        count = self.readers[edge]
        self.beats[edge] = beats
        self.ports[edge] = [Port(node)]
        if count > 1:
            fork = self.add(f"{edge}_fork", ForkSpec(beats, count), Port(node))
            self.ports[edge] = [Port(fork.node, n) for n in range(count)]

    def attach(self, step: Step, stage: Stage) -> None:
        """Add the engine of ``step`` and what its inputs need."""
        roots = [root(self.network, source) for source in step.sources]
        wanted = inputs(step, stage, self.beats[roots[0]].pixels)
        ports = []
        for number, (source, beats) in enumerate(zip(roots, wanted, strict=True)):
            suffix = str(number) if len(wanted) > 1 else ""
            port, found = self.ports[source].pop(0), self.beats[source]
            port = self.adapt(f"{step.name}_", suffix, port, found, beats)
            if stage.fifo[number]:
                spec = FifoSpec(beats, stage.fifo[number])
                port = self.add(f"{step.name}_fifo{suffix}", spec, port)
            ports.append(port)
        *before, last = engine(step, stage, wanted)
        for spec in before:
            ports = [self.add(f"{step.name}_sums", spec, *ports)]
        self.add(step.name, last, *ports, step=step)
        self.publish(step.output, step.name, last.o)

    def adapt(self, name: str, suffix: str, port: Port, found: Beats, wanted: Beats) -> Port:
        """Add what turns beats that are ``found`` into those that are ``wanted``."""
        as_vector = found.columns * found.rows > 1 and wanted.elements == found.size
        pixels = 1 if as_vector else wanted.pixels
        if found.pixels != pixels:
            spec = repixel(found, pixels)
            port, found = self.add(f"{name}pixels{suffix}", spec, port), spec.o
        if as_vector:
            # Pixels follow one another without a gap only if their last beats are full.
            lanes = next(
                n for n in range(found.lanes, found.elements + 1) if not found.elements % n
            )
            if lanes != found.lanes:
                spec = WidthAdapterSpec(i=found, target=lanes)
                port, found = self.add(f"{name}full{suffix}", spec, port), spec.o
            found = Beats(found.fmt, found.size, found.lanes)
        if found.lanes != wanted.lanes:
            spec = WidthAdapterSpec(i=found, target=wanted.lanes)
            port, found = self.add(f"{name}width{suffix}", spec, port), spec.o
        assert found == wanted, (found, wanted)
        return port


def root(network: Network, edge: str) -> str:
    """Return the edge that carries what ``edge`` does: flattening makes no new one."""
    while edge != INPUT and isinstance(layer := network.layer(edge), Flatten):
        edge = layer.inputs[0]
    return edge


def readers(network: Network) -> Counter[str]:
    """Count the readers of each edge, the outside world among them; refuse what nobody reads."""
    found: Counter[str] = Counter()
    for layer in network.layers:
        if not isinstance(layer, Flatten):
            found.update(root(network, source) for source in layer.inputs)
    last = root(network, network.layers[-1].name)
    if found[last]:
        raise UnsupportedLayer(
            f"{last}: the output of the network is read by another layer: put a Slice of all its "
            "channels behind it"
        )
    found[last] += 1
    for edge in network.tensors:
        if not found[root(network, edge)]:
            raise UnsupportedLayer(f"{edge}: is read by no layer: remove it")
    return found


def pipeline(network: Network, plan: Plan) -> tuple[Node, ...]:
    """Return the components of the accelerator; each comes after those that feed it.

    The first one is the gate at the input, the last one makes the output. Before an engine come, as
    far as needed, adapters of pixels and lanes, and a FIFO where the plan has one; behind it a fork
    where several read its result.
    """
    pairs = plan.pairs(network)
    step, stage = next(
        pair for pair in pairs if INPUT in {root(network, edge) for edge in pair[0].sources}
    )
    beats = inputs(step, stage, 1)[0]
    tensor = network.input
    if beats.rows * beats.columns == 1 and len(tensor.shape) == 3:
        beats = Beats.of(tensor, min(tensor.shape[-1], beats.lanes))
    builder = Builder(network, beats)
    for step, stage in pairs:
        builder.attach(step, stage)
    names = [*RESERVED, *(node.name for node in builder.nodes)]
    if loaded_nodes(tuple(builder.nodes)):
        names.append(LOADER)
    for name, count in Counter(names).items():
        if count > 1:
            raise ConfigError(f"two components would be named {name!r}: rename the layer")
    return tuple(builder.nodes)


def edges(nodes: tuple[Node, ...]) -> tuple[Edge, ...]:
    """Where each edge of the network can be seen, in order; the last one is the output."""
    found = [Edge(INPUT, nodes[0].name, "o", nodes[0].spec.o)]
    for node in nodes:
        if node.step is None:
            continue
        spec = node.spec
        if isinstance(spec, MvuSpec) and len(node.step.layers) > 1:
            found.append(
                Edge(node.name, node.name, "products", spec.accumulators, spec.products_of)
            )
        found.append(Edge(node.step.output, node.name, "o", spec.o))
    return tuple(found)


class Accelerator(wiring.Component):
    """A network in hardware: frames in, results out.

    Parameters
    ----------
    nodes
        The components, from :func:`pipeline`.
    taps
        Add an output ``tap_<edge>`` for every inner edge: valid in each cycle in which a beat is
        transferred there. For simulation.
    load
        Whether weights in SPRAM must be loaded, as on a part; else they are there from the start.
        Where no weights are in SPRAM both are the same.

    Members
    -------
    i : ``In(nodes[0].spec.i.signature)``
        Frames.
    o : ``Out(nodes[-1].spec.o.signature)``
        Results.
    tap_… : ``Out(edge.beats.tap)``
    load : ``In(stream.Signature(16))``
        Only with ``load``, where weights are in SPRAM: the words of
        :func:`brambling.hw.load.load_words`, in order. No frame is taken before all have come; one
        that is under way when the next load begins has a wrong result.
    load_restart : ``In(1)``
        With ``load``. Whatever has been loaded so far, the next word is the first one.
    loaded : ``Out(1)``
        With ``load``. All words have come.
    """

    i: stream.Interface
    o: stream.Interface
    load: stream.Interface
    load_restart: Signal
    loaded: Signal

    def __init__(self, nodes: tuple[Node, ...], *, taps: bool = False, load: bool = False) -> None:
        self.nodes = nodes
        self.taps = edges(nodes)[1:-1] if taps else ()
        self.fills = loaded_nodes(nodes) if load else ()
        self.parts: dict[str, Any] = {
            node.name: node.spec.build(load=True) if node in self.fills else node.spec.build()
            for node in nodes
        }
        loading = {
            "load": In(stream.Signature(PIECE)),
            "load_restart": In(1),
            "loaded": Out(1),
        }
        super().__init__({
            "i": In(nodes[0].spec.i.signature),
            "o": Out(nodes[-1].spec.o.signature),
            **{f"tap_{edge.name}": Out(edge.beats.tap) for edge in self.taps},
            **(loading if self.fills else {}),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        for node in self.nodes:
            part = m.submodules[node.name] = self.parts[node.name]
            for number, port in enumerate(node.sources):
                sink = stream_of(part, "i", number if len(node.sources) > 1 else None)
                connect(m, stream_of(self.parts[port.node], "o", port.index), sink)
        gate = self.parts[self.nodes[0].name].i
        connect(m, self.parts[self.nodes[-1].name].o, flipped(self.o))
        if self.fills:
            self._load(m, gate)
        else:
            connect(m, flipped(self.i), gate)
        for edge in self.taps:
            seen = getattr(self.parts[edge.node], edge.port)
            tap = getattr(self, f"tap_{edge.name}")
            m.d.comb += [
                tap.valid.eq(seen.valid & seen.ready if edge.port == "o" else seen.valid),
                tap.payload.as_value().eq(seen.payload.as_value()),
            ]
        return m

    def _load(self, m: Module, gate: stream.Interface) -> None:
        """Add what fills the memories, and let frames in only when it has."""
        m.submodules[LOADER] = loader = LoaderSpec.of(self.nodes).build()
        connect(m, flipped(self.load), loader.load)
        for n, node in enumerate(self.fills):
            connect(m, getattr(loader, f"fill{n}"), self.parts[node.name].load)
        m.d.comb += [
            loader.restart.eq(self.load_restart),
            self.loaded.eq(loader.loaded),
            gate.payload.eq(self.i.payload),
            gate.valid.eq(self.i.valid & loader.loaded),
            self.i.ready.eq(gate.ready & loader.loaded),
        ]

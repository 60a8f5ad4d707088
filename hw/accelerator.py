"""The accelerator: a network's engines, in a row."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from numpy.typing import NDArray

from brambling.errors import ConfigError
from brambling.hw.argmax import ArgMaxSpec
from brambling.hw.beat import Beats
from brambling.hw.chain import Chain
from brambling.hw.mvu import XnorMvuSpec
from brambling.hw.queue import FifoSpec
from brambling.hw.thresholds import ThresholdsSpec
from brambling.hw.width import WidthAdapterSpec
from brambling.network import INPUT, Dense, Network, Thresholds
from brambling.plan import Plan, Stage, Step
from brambling.quant.formats import Format

__all__ = ["Accelerator", "Edge", "FrameGate", "Node", "Spec", "edges", "pipeline"]

GATE = "gate"  #: Name of the component at the input.
RESERVED = (GATE, INPUT, "output")  #: Names that no component can have.


class Spec(Protocol):
    """What is known of a component before there is hardware for it."""

    @property
    def i(self) -> Beats: ...
    @property
    def o(self) -> Beats: ...
    def build(self) -> Any: ...


@dataclass(frozen=True, slots=True)
class Node:
    """A component in the row: an engine (with its step), a width adapter, or a FIFO."""

    name: str
    spec: Spec
    step: Step | None = None


@dataclass(frozen=True, slots=True)
class Edge:
    """An edge of the network where it can be seen in the hardware.

    Parameters
    ----------
    name
        The layer that makes it, or ``"input"``.
    node, port
        The component and its stream.
    beats
        How the stream carries it.
    decode
        From what the stream carries, ``(n, elements)``, to the codes of the edge.
    """

    name: str
    node: str
    port: str
    beats: Beats
    decode: Callable[[NDArray[np.int64]], NDArray[np.int64]] = lambda codes: codes


def _engine(network: Network, source: Format, step: Step, stage: Stage) -> Spec:
    match step.layers:
        case (Dense() as dense, *rest):
            levels = rest[0] if rest and isinstance(rest[0], Thresholds) else None
            return XnorMvuSpec(
                weights=dense.weights,
                pe=stage.pe,
                simd=stage.simd,
                levels=levels and np.broadcast_to(levels.levels[:, 0], (step.outputs,)),
                falling=(
                    np.broadcast_to(levels.falling, (step.outputs,))
                    if levels and levels.falling.any()
                    else None
                ),
                weight_store=stage.weights,
                level_store=stage.levels,
                queue=stage.queue,
            )
        case (Thresholds() as layer,):
            return ThresholdsSpec(
                source=source,
                target=layer.fmt,
                elements=step.inputs,
                pe=stage.pe,
                levels=layer.levels,
                falling=layer.falling,
                queue=stage.queue,
            )
        case _:
            return ArgMaxSpec(
                source=source, elements=step.inputs, simd=stage.simd, queue=stage.queue
            )


def pipeline(network: Network, plan: Plan) -> tuple[Node, ...]:
    """Return the components of the accelerator in stream order.

    Between two engines comes a width adapter where their lanes differ, and a FIFO where the plan
    has one.
    """
    nodes: list[Node] = []
    for step, stage in plan.pairs(network):
        before = nodes[-1].spec.o if nodes else None
        engine = _engine(network, before.fmt if before else network.input.fmt, step, stage)
        if before and before.lanes != engine.i.lanes:
            adapter = WidthAdapterSpec(i=before, target=engine.i.lanes)
            nodes.append(Node(f"{step.name}_width", adapter))
        if stage.fifo:
            nodes.append(Node(f"{step.name}_fifo", FifoSpec(engine.i, stage.fifo)))
        nodes.append(Node(step.name, engine, step))
    names = [*RESERVED, *(node.name for node in nodes)]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two components would be named {name!r}: rename the layer")
    return tuple(nodes)


def edges(nodes: tuple[Node, ...]) -> tuple[Edge, ...]:
    """Where each edge of the network can be seen, in order; the last one is the output."""
    found = [Edge(INPUT, nodes[0].name, "i", nodes[0].spec.i)]
    for node in nodes:
        if node.step is None:
            continue
        spec = node.spec
        if isinstance(spec, XnorMvuSpec) and len(node.step.layers) > 1:
            found.append(
                Edge(node.name, node.name, "products", spec.accumulators, spec.products_of)
            )
        found.append(Edge(node.step.output, node.name, "o", spec.o))
    return tuple(found)


class FrameGate(wiring.Component):
    """Lets only whole frames begin: drops beats that follow a frame without a ``first``.

    Combinational. With every engine starting anew at ``first``, frames cannot slip: one that is too
    long loses its surplus here, one that is too short is given up when the next begins.

    Members
    -------
    i : ``In(beats.signature)``
    o : ``Out(beats.signature)``
    """

    i: stream.Interface
    o: stream.Interface

    def __init__(self, beats: Beats) -> None:
        self.beats = beats
        super().__init__({"i": In(beats.signature), "o": Out(beats.signature)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        number = Signal(range(self.beats.count + 1), init=self.beats.count)
        inside = self.i.payload.first | (number != self.beats.count)
        m.d.comb += [
            self.o.payload.eq(self.i.payload),
            self.o.valid.eq(self.i.valid & inside),
            self.i.ready.eq(self.o.ready | ~inside),
        ]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += number.eq(Mux(self.i.payload.first, 1, number + 1))
        return m


class Accelerator(Chain):
    """A network in hardware: frames in, results out.

    Parameters
    ----------
    nodes
        The components, from :func:`pipeline`.
    taps
        Add an output ``tap_<edge>`` for every inner edge: valid in each cycle in which a beat is
        transferred there. For simulation.

    Members
    -------
    i : ``In(nodes[0].spec.i.signature)``
        Frames.
    o : ``Out(nodes[-1].spec.o.signature)``
        Results.
    tap_… : ``Out(edge.beats.tap)``
    """

    def __init__(self, nodes: tuple[Node, ...], *, taps: bool = False) -> None:
        self.taps = edges(nodes)[1:-1] if taps else ()
        super().__init__(
            {GATE: FrameGate(nodes[0].spec.i)} | {node.name: node.spec.build() for node in nodes},
            {f"tap_{edge.name}": Out(edge.beats.tap) for edge in self.taps},
        )

    def elaborate(self, platform: Any) -> Module:
        m = super().elaborate(platform)
        for edge in self.taps:
            seen = getattr(self.parts[edge.node], edge.port)
            tap = getattr(self, f"tap_{edge.name}")
            m.d.comb += [
                tap.valid.eq(seen.valid & seen.ready if edge.port == "o" else seen.valid),
                tap.payload.as_value().eq(seen.payload.as_value()),
            ]
        return m

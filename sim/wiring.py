"""Accelerators as components and the streams between them, for both forms of the cycle model."""

from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from brambling.hw.accelerator import Edge, Node
from brambling.hw.fork import ForkSpec
from brambling.hw.gate import GateSpec
from brambling.hw.node import Port

__all__ = ["Wiring"]


class Stream(Protocol):
    """Beats between two components."""

    @property
    def times(self) -> Any:
        """Cycle of each beat."""
        ...


S = TypeVar("S", bound=Stream)
P = TypeVar("P")


class Wiring(Generic[S, P]):
    """The components of an accelerator, wired up.

    Parameters
    ----------
    nodes
        The components, from :func:`brambling.hw.accelerator.pipeline`.
    stream
        Makes a stream of so many beats a frame.
    process
        Makes a component of its spec, its inputs and its outputs.

    Attributes
    ----------
    source, output, wires
        Streams: the first, the last, and all but the first by where they come from.
    engines
        Components by name.
    ends
        Inputs and outputs of each component, in the same order.
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        stream: Callable[[int], S],
        process: Callable[[Any, list[S], list[S]], P],
    ) -> None:
        self.source = stream(nodes[0].spec.i.count)
        self.wires: dict[Port, S] = {}
        self.engines: dict[str, P] = {}
        self.ends: list[tuple[list[S], list[S]]] = []
        for node in nodes:
            inputs = [self.wires[port] for port in node.sources] or [self.source]
            ports = [Port(node.name)]
            if isinstance(node.spec, ForkSpec):
                ports = [Port(node.name, n) for n in range(node.spec.count)]
            if isinstance(node.spec, GateSpec):  # Combinational, and every frame is whole.
                self.wires[ports[0]] = inputs[0]
                continue
            outputs = [stream(node.spec.o.count) for _ in ports]
            self.wires |= zip(ports, outputs, strict=True)
            self.engines[node.name] = process(node.spec, inputs, outputs)
            self.ends.append((inputs, outputs))
        self.output = self.wires[Port(nodes[-1].name)]

    def cycles(self, edge: Edge) -> NDArray[np.int64]:
        """Cycles of the beats that were seen on an edge."""
        if edge.port == "o":
            return np.asarray(self.wires[Port(edge.node)].times, np.int64)
        process: Any = self.engines[edge.node]  # One that ends in a queue.
        return np.asarray(process.results, np.int64)

    def periodic(self, frames: int, horizon: int) -> bool:
        """Whether the last ``horizon`` of ``frames`` repeat at one distance, on every wire."""
        distances = set()
        for wire in (self.source, *self.wires.values()):
            rows = np.asarray(wire.times, np.int64).reshape(frames, -1)[-horizon - 1 :]
            distances |= set(np.unique(np.diff(rows, axis=0)).tolist())
        return len(distances) == 1

"""What the host does: everything up to a model's first quantiser, whose codes are the frames."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from brambling.errors import ConfigError, UnsupportedLayer
from brambling.network import Tensor
from brambling.origin import Rounding
from brambling.quant.formats import Bipolar, Fixed
from brambling.quant.interchange.graph import Graph, Node
from brambling.quant.interchange.onnx_attributes import flag
from brambling.quant.interchange.onnx_elements import end_of
from brambling.quant.interchange.onnx_lowering import OPERATORS, Lowered, Lowering
from brambling.quant.interchange.onnx_quantisers import (
    check_signs,
    integers_of,
    limits_of,
    positive,
    rounding_of,
    steps_of,
    widths_of,
)
from brambling.quant.interchange.placed import Placed, fractions
from brambling.quant.lowering import Builder
from brambling.quant.norms import Norm, linear

__all__ = ["Front", "front_of"]

ARITHMETIC = {"Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div"}
MOVES = {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Identity", "Dropout", "Cast"}
ROUNDS = {"IntQuant", "BipolarQuant", "QuantizeLinear", "MultiThreshold"}


@dataclass(frozen=True)
class Made:
    """Frames: their tensor, meaning, and how they are made; see :mod:`brambling.origin`."""

    frame: Tensor
    norms: Sequence[Norm]
    quantiser: Rounding
    steps: Sequence[tuple[str, tuple[float, ...]]]


@dataclass(frozen=True)
class Front:
    """Nodes from the input to the first quantiser, one after the other."""

    graph: Graph
    nodes: tuple[Node, ...]
    clips: tuple[Node, ...] = ()

    def made(self, source: Placed) -> Made:
        """Return how frames are made where ``source`` tells where the elements lie."""
        work = Lowering(self.graph, Builder(source.value.tensor), source)
        x, steps = source, []
        for node in self.nodes[:-1]:
            if node.op in ARITHMETIC:
                steps.append(self._step(work, node, x))
            else:
                x = self._moved(work, node, x)
        return self._rounded(work, self.nodes[-1], x, steps)

    def result(self, source: Placed) -> dict[str, Lowered]:
        """Return what the quantiser's result means: the frame, with its elements moved on."""
        work = Lowering(self.graph, Builder(source.value.tensor), source)
        x = source
        for node in self.nodes[:-1]:
            x = x if node.op in ARITHMETIC else self._moved(work, node, x)
        return {self.names[-1][1]: x}

    @property
    def names(self) -> list[tuple[str, str]]:
        """Nodes, and the tensors that they make."""
        return [(node.name, node.outputs[0]) for node in (*self.nodes, *self.clips)]

    def _moved(self, work: Lowering, node: Node, x: Placed) -> Placed:
        work.tensors[node.inputs[0]] = x
        (found,) = OPERATORS[node.domain, node.op].function(work, node)
        assert isinstance(found, Placed)
        return found

    def _step(self, work: Lowering, node: Node, x: Placed) -> tuple[str, tuple[float, ...]]:
        place = 1 if node.inputs[1] in self.graph.constants else 0
        array = work.constant(node, place, "number").astype(np.float32)
        fractions(array, f"{node}: number")
        numbers = work.channels(array, x, str(node)).tolist()
        return ARITHMETIC[node.op], tuple(numbers)

    def _rounded(
        self, work: Lowering, node: Node, x: Placed, steps: Sequence[tuple[str, tuple[float, ...]]]
    ) -> Made:
        shape = x.value.tensor.shape

        def each(place: int, what: str) -> Any:
            return work.channels(np.asarray(work.constant(node, place, what)), x, f"{node}: {what}")

        if node.op == "MultiThreshold":
            return self._levels(work, node, x, steps)
        if node.op == "BipolarQuant":
            exact = fractions(each(1, "scale"), f"{node}: scale")
            if not all(exact):
                raise ConfigError(f"{node}: scale must not be 0: train anew")
            made = Rounding("sign", (1.0,), low=(-1,), high=(1,))
            return Made(Tensor(shape, Bipolar()), [linear(s) for s in exact], made, steps)
        if node.op == "QuantizeLinear":
            low, high = self._narrowed(work, *integers_of(work, node))
            scale = np.asarray(work.constant(node, 1, "scale"))
            zero = work.constant(node, 2, "zero-point") if work.given(node, 2) else np.zeros(1)
            if scale.size > 1 or zero.size > 1:
                raise UnsupportedLayer(
                    f"{node}: its scale must be one for all channels: give --input-scale"
                )
            positive(fractions(scale, f"{node}: scale"), node)
            made = Rounding(
                "round",
                tuple(map(float, scale.reshape(-1))),
                tuple(map(float, zero.reshape(-1))),
                (low,),
                (high,),
                behind=True,
            )
            return Made(
                Tensor(shape, Fixed.spanning(low, high)), [linear(Fraction(1))], made, steps
            )
        return self._integers(work, node, x, steps, each(1, "scale"), each(2, "zero-point"))

    def _levels(
        self, work: Lowering, node: Node, x: Placed, steps: Sequence[tuple[str, tuple[float, ...]]]
    ) -> Made:
        """MultiThreshold."""
        found = steps_of(work, node, x)
        count = len(found.rows[0])
        made = Rounding(
            "levels",
            (1.0,),
            low=(-1,) if found.bipolar else (0,),
            high=(1,) if found.bipolar else (count,),
            levels=found.rows,
        )
        fmt = Bipolar() if found.bipolar else Fixed.spanning(0, count)
        return Made(Tensor(x.value.tensor.shape, fmt), [found.norm], made, steps)

    def _narrowed(self, work: Lowering, low: int, high: int) -> tuple[int, int]:
        """Clip codes as the nodes behind the quantiser do."""
        for node in self.clips:
            ends = (end_of(work, node, place, key, beyond)
                    for place, key, beyond in ((1, "min", low), (2, "max", high)))  # fmt: skip
            low, high = (min(max(int(end), low), high) for end in ends)
        return low, high

    def _integers(
        self,
        work: Lowering,
        node: Node,
        x: Placed,
        steps: Sequence[tuple[str, tuple[float, ...]]],
        scale: Any,
        zero: Any,
    ) -> Made:
        """IntQuant."""
        shape = x.value.tensor.shape
        signed, narrow = flag(node, "signed", True), flag(node, "narrow")
        bits = work.channels(widths_of(work, node, 3), x, f"{node}: bit width").tolist()
        ends = [limits_of(n, signed, narrow) for n in bits]
        scales = fractions(scale, f"{node}: scale")
        zeros = fractions(zero, f"{node}: zero-point")
        positive(scales, node)
        check_signs(bits, signed, node)
        count = max(len(scales), len(zeros))
        norms = [
            linear(s, z)
            for s, z in zip(
                scales * (count // len(scales)), zeros * (count // len(zeros)), strict=True
            )
        ]
        numbers = tuple(map(float, scales)), tuple(map(float, zeros))
        if signed and set(bits) == {1}:
            made = Rounding("sign", *numbers, low=(-1,), high=(1,))
            return Made(Tensor(shape, Bipolar()), norms, made, steps)
        low, high = (tuple(end[n] for end in ends) for n in (0, 1))
        made = Rounding("round", *numbers, low, high, rounding_of(node, "ROUND"))
        fmt = Fixed.spanning(min(low), max(high))
        return Made(Tensor(shape, fmt), norms, made, steps)


def clips_behind(graph: Graph, node: Node) -> tuple[Node, ...]:
    """Return what clips a quantiser's codes before anything else reads them."""
    found: list[Node] = []
    while True:
        consumers = graph.consumers(node.outputs[0])
        whole = len(consumers) == 1 and consumers[0].op == "Clip"
        if not whole or any(
            name not in graph.constants or graph.constants[name].dtype.kind not in "iu"
            for name in consumers[0].inputs[1:]
            if name
        ):
            return tuple(found)
        (node,) = consumers
        found.append(node)


def front_of(graph: Graph) -> Front:
    """Return the nodes up to the first quantiser; refuse an input that none rounds."""
    nodes: list[Node] = []
    name = graph.input
    while True:
        consumers = graph.consumers(name)
        if len(consumers) != 1 or name == graph.output:
            break
        (node,) = consumers
        others = [other for other in node.inputs if other and other != name]
        constant = all(other in graph.constants for other in others)
        first = node.inputs[0] == name or node.op in {"Add", "Mul"}
        if not constant or not first or node.op not in {*ARITHMETIC, *MOVES, *ROUNDS}:
            break
        nodes.append(node)
        if node.op in ROUNDS:
            clips = clips_behind(graph, node) if node.op == "QuantizeLinear" else ()
            return Front(graph, tuple(nodes), clips)
        name = node.outputs[0]
    readers = ", ".join(map(str, graph.consumers(name))) or "nothing"
    raise UnsupportedLayer(
        f"{graph.name}: input {graph.input!r} is not quantised before {readers}: say what its "
        "integers stand for, with --input-scale (1/255 for pixels in 0 to 1, 1 for 0 to 255)"
    )

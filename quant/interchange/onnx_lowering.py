"""A graph as layers of integers: every tensor gets its exact meaning, from the input on.

Each operator has a function, registered by :func:`operator`, that gives its results a meaning:
:class:`~brambling.quant.interchange.placed.Placed` for what depends on the input,
:class:`~brambling.quant.interchange.placed.Codes` for weights that a quantiser made. Nothing is
moved about the graph, so nothing depends on the order of any passes. What a tensor means is pushed
forward to the quantiser that ends it, which becomes a layer (:mod:`brambling.quant.lowering`).
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import prod

import numpy as np
from numpy.typing import NDArray
from onnx import defs

from brambling.errors import ConfigError, UnsupportedLayer
from brambling.network import Conv, Dense, Flatten, Layer, Requantise, Table, Thresholds
from brambling.quant.formats import Fixed
from brambling.quant.interchange.graph import CHANNELS_LAST, QONNX, Graph, Node
from brambling.quant.interchange.onnx_attributes import integers
from brambling.quant.interchange.placed import (
    Codes,
    Placed,
    channels_of,
    fractions,
    image_index,
    layout_of,
)
from brambling.quant.lowering import Builder, Grid
from brambling.quant.values import Value

__all__ = ["OPERATORS", "Lowering", "Relayout", "operator", "refuse_unknown", "refuse_unshaped"]

Lowered = Placed | Codes
Function = Callable[["Lowering", Node], Sequence[Lowered | None]]


@dataclass(frozen=True, slots=True)
class Operator:
    """What is known of an operator: its function, and a line for the documentation."""

    function: Function
    text: str


OPERATORS: dict[tuple[str, str], Operator] = {}
#: Operators of other dialects, by a part of their domain.
DIALECTS = {
    "fpgadataflow": "is of FINN's hardware dialect: give the model from before",
}
#: Operators that cannot be computed with, and what to do.
NEAREST = {
    "FloatQuant": "minifloat is not supported: use IntQuant",
    "ConvTranspose": "use Resize (nearest) and Conv",
    "LSTM": "recurrent layers are not supported",
    "GRU": "recurrent layers are not supported",
    "LayerNormalization": "use BatchNormalization",
    "InstanceNormalization": "use BatchNormalization",
    "GroupNormalization": "use BatchNormalization",
    "Sigmoid": "use Relu, LeakyRelu or Clip",
    "Tanh": "use Clip",
    "Gelu": "use Relu",
    "Erf": "use Relu",
    "HardSigmoid": "use Clip",
    "HardSwish": "use Relu",
    "Elu": "use LeakyRelu",
    "Exp": "it has no integer form",
    "Softmax": "it may only be the last operator",
    "LogSoftmax": "it may only be the last operator",
}


class Relayout(Exception):
    """The input is wanted as an image, with its elements at other places of the frame."""

    def __init__(self, shape: tuple[int, ...], order: NDArray[np.int64]) -> None:
        super().__init__(shape)
        self.shape, self.order = shape, order


def operator(*names: str, domain: str = "", text: str = "") -> Callable[[Function], Function]:
    """Register the function of operators."""

    def register(function: Function) -> Function:
        for name in names:
            OPERATORS[domain, name] = Operator(function, text)
        return function

    return register


def refuse_unknown(graph: Graph) -> None:
    """Refuse a graph with operators that have no function, all at once."""
    rows = []
    for node in graph.nodes:
        if (node.domain, node.op) in OPERATORS:
            if not exists(node):
                rows.append(f"{node}: is not in operator set {node.version}: export it anew")
            continue
        said = NEAREST.get(node.op, "is not supported: see the table of operators in the docs")
        for part, remedy in DIALECTS.items():
            said = remedy if part in node.domain else said
        domain = f" of {node.domain}" if node.domain not in {"", QONNX, CHANNELS_LAST} else ""
        rows.append(f"{node}{domain}: {said}")
    if rows:
        raise UnsupportedLayer(f"{graph.name}: {len(rows)} unsupported: " + "; ".join(rows))


def exists(node: Node) -> bool:
    """Whether an operator is in the version of its set that the file names."""
    try:
        return bool(node.domain) or not defs.get_schema(node.op, node.version, "").deprecated
    except defs.SchemaError:
        return False


def refuse_unshaped(graph: Graph) -> None:
    """Refuse a graph with tensors whose shape is not known: it has not been tried out."""
    for node in graph.nodes:
        if not all(name in graph.shapes for name in node.outputs if name):
            raise ConfigError(
                f"{graph.name}: {node}: the shape of its result cannot be computed: export the "
                "model with fixed shapes"
            )


@dataclass
class Lowering:
    """A graph on its way to a network.

    Parameters
    ----------
    graph
        What is lowered.
    builder
        Collects the layers.
    source
        The input.

    Members
    -------
    tensors
        What each tensor so far means.
    rounded
        By edge: the value and the grid that a quantiser made it of, for what narrows it further.
    notes
        What was left out, in words.
    last
        What a last operator does behind the network: ``""``, ``"argmax"``, ``"softmax"``, ….
    """

    graph: Graph
    builder: Builder
    source: Placed
    tensors: dict[str, Lowered] = field(default_factory=dict)
    rounded: dict[str, tuple[Value, Grid]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    last: str = ""

    def run(self, given: Mapping[str, Lowered], done: Collection[str] = ()) -> Placed:
        """Lower all nodes but those of the names ``done``; return the output.

        Parameters
        ----------
        given
            What is known of tensors that those nodes make.
        """
        self.tensors.update(given)
        for node in self.graph.nodes:
            if node.name in done:
                continue
            function = OPERATORS[node.domain, node.op].function
            for name, result in zip(node.outputs, function(self, node), strict=False):
                if name and result is not None:
                    self.tensors[name] = self._alone(node, name, result)
        result = self.tensors.get(self.graph.output)
        if not isinstance(result, Placed):
            raise ConfigError(
                f"{self.graph.name}: output {self.graph.output!r} must depend on the input"
            )
        return result

    def _alone(self, node: Node, name: str, result: Lowered) -> Lowered:
        """Note whether a product has one reader only, who may then turn signs of its weights."""
        if not isinstance(result, Placed):
            return result
        before = [x for x in map(self.tensors.get, node.inputs) if isinstance(x, Placed)]
        new = result.value.edge not in {x.value.edge for x in before}
        alone = new or (bool(before) and all(x.value.alone for x in before))
        single = len(self.graph.consumers(name)) == 1 and name != self.graph.output
        return replace(result, value=replace(result.value, alone=alone and single))

    # What a node reads ----------------------------------------------------------------------------

    def given(self, node: Node, place: int) -> bool:
        """Whether an optional input is given."""
        return place < len(node.inputs) and bool(node.inputs[place])

    def constant(self, node: Node, place: int, what: str) -> NDArray:
        """Return an input that must be known beforehand."""
        name = node.inputs[place] if self.given(node, place) else ""
        if name not in self.graph.constants:
            raise UnsupportedLayer(
                f"{node}: its {what} must be a constant, not {name!r}: fold it to an initialiser"
            )
        return self.graph.constants[name]

    def single(self, node: Node, place: int, what: str) -> NDArray:
        """Return an input that must be one number, known beforehand."""
        array = self.constant(node, place, what)
        if array.size != 1:
            raise ConfigError(
                f"{node}: its {what} must be one number, not of shape {array.shape}: export it anew"
            )
        return array.reshape(())

    def integers(self, node: Node, place: int, what: str) -> list[int]:
        """Return an input that must be integers, known beforehand."""
        array = self.constant(node, place, what)
        if array.dtype.kind not in "iu":
            raise ConfigError(
                f"{node}: its {what} must be integers, not {array.dtype}: export it anew"
            )
        return array.reshape(-1).tolist()

    def numbers(self, node: Node, place: int, what: str) -> list[Fraction]:
        """Return an input as exact numbers: a constant, or one that a quantiser made."""
        found = self.tensors.get(node.inputs[place]) if self.given(node, place) else None
        if isinstance(found, Codes):
            return found.fractions()
        return fractions(self.constant(node, place, what), f"{node}: {what}")

    def placed(self, node: Node, place: int = 0, *, padded: bool = False) -> Placed:
        """Return an input that depends on the network's."""
        name = node.inputs[place] if self.given(node, place) else ""
        found = self.tensors.get(name)
        if not isinstance(found, Placed):
            raise UnsupportedLayer(
                f"{node}: input {name!r} must depend on the model's input, but is a constant: "
                "fold it, or remove the node"
            )
        if found.pad is not None and not padded:
            raise UnsupportedLayer(f"{node}: its input is padded: put the Pad before a Conv")
        if found.across and node.op != "Gemm":
            raise UnsupportedLayer(f"{node}: must keep the batch as its first dimension")
        return found

    def element(self, node: Node, place: int = 0) -> Placed:
        """Return an input of a node that maps elements: flat, where its constants are a vector."""
        x = self.placed(node, place)
        many = any(
            np.size(self.graph.constants[name]) > 1
            for name in node.inputs
            if name in self.graph.constants
        )
        return self.vector(x) if many and len(x.shape) == 1 else x

    def channels(self, array: NDArray, x: Placed, what: str) -> NDArray:
        """Return numbers for each channel of an edge; see :func:`..placed.channels_of`."""
        try:
            return channels_of(array, x, what)
        except UnsupportedLayer:
            straight = len(x.shape) != 3 or np.array_equal(x.index, image_index(x.shape, True))
            if straight or x.value.edge != self.source.value.edge:
                raise
            # An input whose channels may come last.
            raise Relayout(x.shape, x.index.reshape(-1)) from None

    def is_constant(self, name: str) -> bool:
        return name in self.graph.constants or isinstance(self.tensors.get(name), Codes)

    def shape_of(self, node: Node) -> tuple[int, ...]:
        """Shape of a node's first result, without the batch, which must stay where it is."""
        shape = self.graph.shapes.get(node.outputs[0])
        if shape is None or not shape or shape[0] != 1:
            raise UnsupportedLayer(f"{node}: must keep the batch as its first dimension")
        return shape[1:]

    # What the layers need -------------------------------------------------------------------------

    def image(self, x: Placed, node: Node, *, last: bool = False) -> Placed:
        """Return a tensor as an image whose elements are where a layer has them.

        Channels come first, or last; a sequence ``(channels, length)`` is an image of height 1.
        """
        index = x.image(last)
        if index is None:
            raise UnsupportedLayer(f"{node}: needs an image, not a tensor of {(1, *x.shape)}")
        shape = index.shape if last else (*index.shape[1:], index.shape[0])
        if x.value.tensor.shape == shape and np.array_equal(index, image_index(shape, last)):
            return x
        order = (index if last else index.transpose(1, 2, 0)).reshape(-1)
        front = self.in_front(x.value.edge)
        if front and self.can_lie(shape, order):
            raise Relayout(shape, order)
        if x.value.tensor.shape == shape:
            straight = image_index(shape, last)
            made = self.shuffled(x.moved(index), straight, node)
            if made is not None:
                return made if x.index.ndim == 3 else made.moved(straight.reshape(x.shape))
        if front:
            raise Relayout(shape, order)
        raise UnsupportedLayer(
            f"{node}: its image's elements were moved by a reshape or transpose: put those in "
            "front of the first layer, or behind the last image"
        )

    def can_lie(self, shape: tuple[int, ...], order: NDArray[np.int64]) -> bool:
        """Whether the host can lay out the input so: by one transposition."""
        elements = np.argsort(self.source.index.reshape(-1))[order]
        return layout_of(np.argsort(elements).reshape(self.source.shape), shape) is not None

    def oriented(self, x: Placed, node: Node, *, last: bool = False) -> tuple[Placed, bool]:
        """Return an image as :meth:`image` does, or with rows for columns; and whether it is so."""
        index = x.image(last)
        if index is not None and x.index.ndim == 3:
            turned = index.swapaxes(0, 1) if last else index.swapaxes(1, 2)
            shape = turned.shape if last else (*turned.shape[1:], turned.shape[0])
            fits = x.value.tensor.shape == shape and not np.array_equal(index, turned)
            if fits and np.array_equal(turned, image_index(shape, last)):
                return x.moved(turned), True
        return self.image(x, node, last=last), False

    def in_front(self, edge: str) -> bool:
        """Whether nothing but layers of elements stands between the input and an edge."""
        while edge != self.source.value.edge:
            layer = self.builder.layers[edge]
            if not isinstance(layer, Thresholds | Requantise | Table):
                return False
            (edge,) = layer.inputs
        return True

    def vector(self, x: Placed) -> Placed:
        """Tensor as an edge of one dimension; where its elements lie stays as it is."""
        value = x.value
        if len(value.tensor.shape) <= 1:
            return x
        if value.channels == 1 and self.in_front(value.edge):
            # A vector comes in as many lanes as are wanted, an image of one channel pixel by pixel.
            raise Relayout((x.index.size,), x.index.reshape(-1))
        pixels = prod(value.tensor.shape[:-1])
        layer = Flatten(name=self.builder.name("flatten"), inputs=(value.edge,))
        tensor = self.builder.add(layer)
        low, high = (
            np.tile(row, pixels) if len(row) > 1 else row for row in (value.low, value.high)
        )
        norms = value.norms if len(value.norms) == 1 else value.norms * pixels
        return replace(
            x,
            value=replace(
                value, edge=layer.name, tensor=tensor, norms=norms, low=low, high=high, alone=False
            ),
        )

    def like(self, x: Placed, index: NDArray[np.int64], node: Node) -> Placed:
        """Return a tensor whose elements lie as ``index`` says, moved there if they do not."""
        if np.array_equal(x.index, index):
            return x
        made = self.shuffled(x, index, node)
        if made is not None:
            return made
        x, order = self.vector(x), order_of(x, index)
        value = self.picked(x.value, order, node)
        self.notes.append(
            f"{node} joins elements of two layouts: a matrix moves {order.size} of them"
        )
        return Placed(value, index)

    def shuffled(self, x: Placed, index: NDArray[np.int64], node: Node) -> Placed | None:
        """Return a tensor whose elements lie as ``index`` says, if only channels must be moved."""
        pixels = order_of(x, index).reshape(-1, x.value.channels)
        first = pixels[0]
        starts = np.arange(len(pixels))[:, np.newaxis] * x.value.channels
        if (first >= x.value.channels).any() or (pixels != starts + first).any():
            return None
        return Placed(self.picked(x.value, first, node), index)

    def picked(self, value: Value, order: NDArray[np.int64], node: Node) -> Value:
        """Channels in another order, or some of them: by weights that pick one each."""
        value = self.builder.settled(value, str(node))
        weights = np.zeros((len(order), value.channels), np.int64)
        weights[np.arange(len(order)), order] = 1
        fmt = Fixed(1, 0, signed=False)
        name, inputs = self.builder.name("pick"), (value.edge,)
        layer: Layer
        if len(value.tensor.shape) == 3:
            weights = weights[:, np.newaxis, np.newaxis]
            layer = Conv(name=name, inputs=inputs, weights=weights, fmt=fmt)
        else:
            layer = Dense(name=name, inputs=inputs, weights=weights, fmt=fmt)
        return self.chosen(value, layer, order)

    def chosen(self, value: Value, layer: Layer, order: NDArray[np.int64]) -> Value:
        """Add a layer whose channels are those of ``order``."""
        norms = value.norms if len(value.norms) == 1 else tuple(value.norms[n] for n in order)
        low, high = (row if len(row) == 1 else row[order] for row in (value.low, value.high))
        return replace(
            value,
            edge=layer.name,
            tensor=self.builder.add(layer),
            norms=norms,
            low=low,
            high=high,
            alone=False,
        )

    @staticmethod
    def fresh(value: Value, like: Placed, *, last: bool = False, turned: bool = False) -> Placed:
        """Place what a layer made: an image, or a sequence where ``like`` is one."""
        index = image_index(value.tensor.shape, last)
        if turned:
            index = index.swapaxes(0, 1) if last else index.swapaxes(1, 2)
        if like.index.ndim == 2:
            index = index[0] if last else index[:, 0]
        return Placed(value, index)


def order_of(x: Placed, index: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the element that belongs at each place of an edge that lies as ``index`` says."""
    order = np.empty(index.size, np.int64)
    order[index.reshape(-1)] = x.index.reshape(-1)
    return order


def pair_of(node: Node, key: str, rank: int) -> tuple[int, int]:
    """Attribute's numbers for rows and columns, 1 if not given; of one dimension, of columns."""
    rows, columns = (1, *integers(node, key, [1] * rank, rank))[-2:]
    return rows, columns

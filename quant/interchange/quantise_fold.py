"""A float model as it is before rounding: batch-norm and the like are in the weights.

Affine operations (batch-norm; sums, differences, products and quotients with constants of one value
or one for each channel) go into the weights of the product before them, or else of the product
behind, in float64. What has neither becomes a depthwise convolution of one pixel, or, where it is
the first that happens to the model's input, stays: it is done before the input is rounded.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, ValueInfoProto, helper, numpy_helper

from brambling.errors import ConfigError
from brambling.quant.interchange.graph import QONNX, Graph, Node
from brambling.quant.interchange.quantise_check import (
    ACTIVATIONS,
    AFFINE,
    DROPPED,
    PRODUCTS,
    Affine,
    affine,
    check,
    front,
    given,
    refuse,
)

__all__ = ["DOMAIN", "fold", "unused", "with_proto"]

DOMAIN = "qonnx.custom_op.general"  #: QONNX's name of its operators' domain, in files.
OPTIONAL_BIAS = 11  #: Version of ONNX's operators from which a Gemm's bias can be left out.


def fold(graph: Graph) -> Graph:
    """Return the same function of supported operations only, with each product's own weights.

    Products are ``Conv`` and ``Gemm`` with ``transB``; their constants are float64. What moves
    elements or picks one lies behind activations. Raises :class:`UnsupportedLayer` for all that
    cannot be quantised, at once. :func:`with_proto` makes it fit to be executed.
    """
    folder = Folder(graph)
    for node in folder.good(*DROPPED):
        folder.drop(node)
    for node in folder.good(*PRODUCTS):
        folder.normalise(node)
    while folder.fold_one() or folder.stand_alone():
        pass
    while folder.pool_last():
        pass
    refuse(graph, folder.problems)
    return folder.graph


def along(values: NDArray, rank: int) -> NDArray:
    """Values of each output, in the shape that goes with weights."""
    return values.reshape(-1, *[1] * (rank - 1))


def unused(name: str, *taken: Mapping[str, Any]) -> str:
    """Return ``name``, or, if it is taken, one like it."""
    while any(name in names for names in taken):
        name += "_"
    return name


class Folder:
    """A model that is being changed."""

    def __init__(self, graph: Graph) -> None:
        self.problems = check(graph)
        self.nodes = list(graph.nodes)
        self.constants = dict(graph.constants)
        self.shapes = dict(graph.shapes)
        self.original = graph

    @property
    def graph(self) -> Graph:
        """The model as it is now; its proto is still the original's."""
        return replace(
            self.original, nodes=tuple(self.nodes), constants=self.constants, shapes=self.shapes
        )

    # The graph ------------------------------------------------------------------------------------

    def good(self, *ops: str) -> list[Node]:
        """Nodes of some operations that can be quantised."""
        return [node for node in self.nodes if node.op in ops and node.name not in self.problems]

    def producer(self, tensor: str, *ops: str) -> Node | None:
        """Node of some operations whose only result is a tensor that only one other reads."""
        if tensor == self.original.output or len(self.graph.consumers(tensor)) != 1:
            return None
        return next((node for node in self.good(*ops) if tensor in node.outputs), None)

    def reader(self, tensor: str, *ops: str) -> Node | None:
        """Node of some operations that alone reads a tensor."""
        readers = self.graph.consumers(tensor)
        if tensor == self.original.output or len(readers) != 1:
            return None
        return readers[0] if readers[0] in self.good(*ops) else None

    def put(self, old: Node, new: Node | None) -> None:
        """Put a node in the place of another, or nothing."""
        place = next(n for n, node in enumerate(self.nodes) if node.name == old.name)
        self.nodes[place : place + 1] = [] if new is None else [new]

    def rename(self, old: str, new: str) -> None:
        """Give a tensor another name wherever it is written and read."""

        def renamed(names: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(new if name == old else name for name in names)

        self.nodes = [
            replace(node, inputs=renamed(node.inputs), outputs=renamed(node.outputs))
            for node in self.nodes
        ]

    def drop(self, node: Node) -> None:
        """Leave out a node whose result is its first input."""
        self.put(node, None)
        source, result = node.inputs[0], node.outputs[0]
        if result == self.original.output:
            self.rename(source, result)
        else:
            self.rename(result, source)

    def constant(self, name: str, values: NDArray) -> str:
        """Add a constant under a name that no other tensor has."""
        name = unused(name, self.constants, self.shapes)
        self.constants[name] = values
        self.shapes[name] = values.shape
        return name

    # Products -------------------------------------------------------------------------------------

    def normalise(self, node: Node) -> None:
        """Give a product its own weights, those of a Gemm with the outputs first."""
        weights = self.constants[node.inputs[1]].astype(np.float64)
        biases = [self.constants[name].astype(np.float64) for name in given(node, 2)]
        bias = biases[0] if biases else None
        attributes = node.attributes
        if node.op != "Conv":
            weights = weights if attributes.get("transB", 0) else weights.T
            weights = weights * attributes.get("alpha", 1.0)
            if bias is not None:
                bias = np.broadcast_to(bias, (1, len(weights)))[0] * attributes.get("beta", 1.0)
            elif node.version < OPTIONAL_BIAS:
                bias = np.zeros(len(weights))
            node = replace(node, op="Gemm", attributes={"transB": 1})
        self.store(node, weights, bias)

    def store(self, node: Node, weights: NDArray, bias: NDArray | None) -> Node:
        """Give a product other weights."""
        if not np.isfinite(weights).all() or (bias is not None and not np.isfinite(bias).all()):
            raise ConfigError(f"{node}: weights must be finite, with what is folded into them")
        inputs = [node.inputs[0], self.constant(f"{node.name}.weight", weights)]
        if bias is not None:
            inputs.append(self.constant(f"{node.name}.bias", bias))
        made = replace(node, inputs=tuple(inputs))
        self.put(node, made)
        return made

    def weights(self, node: Node) -> tuple[NDArray, NDArray]:
        """Weights and bias of a product."""
        weights = self.constants[node.inputs[1]]
        bias = [self.constants[name] for name in given(node, 2)]
        return weights, bias[0] if bias else np.zeros(len(weights))

    # Affine operations ----------------------------------------------------------------------------

    def affines(self) -> list[tuple[Node, Affine]]:
        """Operations with constants, and what they do."""
        graph = self.graph
        found = ((node, affine(graph, node)) for node in self.good(*AFFINE))
        return [(node, change) for node, change in found if change is not None]

    def fold_one(self) -> bool:
        """Put one affine operation into the product before or behind it, if there is any."""
        for node, change in self.affines():
            before = self.producer(change.source, *PRODUCTS)
            behind = self.reader(node.outputs[0], *PRODUCTS)
            pool = self.producer(change.source, "MaxPool")
            if before is not None:
                weights, bias = self.weights(before)
                scaled = weights * along(change.factor, weights.ndim)
                made = self.store(before, scaled, bias * change.factor + change.offset)
                self.put(node, None)
                self.put(made, replace(made, outputs=node.outputs[:1]))
            elif behind is not None and (unpadded(behind) or not change.offset.any()):
                self.fold_behind(node, change, behind)
            elif pool is not None and (change.factor > 0).all():
                self.swap(pool, node, change.source)
            else:
                continue
            return True
        return False

    def fold_behind(self, node: Node, change: Affine, product: Node) -> None:
        """Put an affine operation into the product that reads its result."""
        weights, bias = self.weights(product)
        groups = product.attributes.get("group", 1)
        # Each output reads the channels of its group.
        rows = np.repeat(np.arange(groups), len(weights) // groups)
        shape = (*weights.shape[:2], *[1] * (weights.ndim - 2))
        factor, offset = (
            part.reshape(groups, -1)[rows].reshape(shape) for part in (change.factor, change.offset)
        )
        bias = bias + (weights * offset).reshape(len(weights), -1).sum(axis=1)
        made = self.store(product, weights * factor, bias)
        self.put(node, None)
        self.put(made, replace(made, inputs=(change.source, *made.inputs[1:])))

    def stand_alone(self) -> bool:
        """Make one affine operation a depthwise convolution, if any is left behind the front."""
        first = {node.name for node in front(self.graph)}
        for node, change in self.affines():
            if node.name in first:
                continue
            rank = len(self.shapes[change.source])
            if rank < 3:
                self.problems[node.name] = "must stand beside a Conv or Gemm"
                continue
            attributes = {"group": len(change.factor), "kernel_shape": (1,) * (rank - 2)}
            inputs = (change.source,)
            made = replace(
                node, op="Conv", inputs=inputs, outputs=node.outputs[:1], attributes=attributes
            )
            self.store(made, along(change.factor, rank), change.offset)
            return True
        return False

    # Order ----------------------------------------------------------------------------------------

    def pool_last(self) -> bool:
        """Move one activation from behind a maximum to before it, which is the same."""
        for node in self.good(*ACTIVATIONS):
            pool = self.producer(node.inputs[0], "MaxPool")
            if pool is not None:
                self.swap(pool, node, node.inputs[0])
                return True
        return False

    def swap(self, pool: Node, node: Node, between: str) -> None:
        """Put a node before the pooling whose result it reads."""
        source = pool.inputs[0]
        inputs = tuple(source if name == between else name for name in node.inputs)
        # The tensor between them has another meaning now, so another name.
        name = unused(f"{node.outputs[0]}_before", self.constants, self.shapes)
        self.shapes[name] = self.shapes[source]
        self.put(node, None)
        self.put(pool, replace(node, inputs=inputs, outputs=(name,)))
        place = next(n for n, other in enumerate(self.nodes) if other.name == node.name)
        self.nodes.insert(place + 1, replace(pool, inputs=(name,), outputs=node.outputs[:1]))


def unpadded(node: Node) -> bool:
    """Whether a product reads nothing but its input."""
    automatic = node.attributes.get("auto_pad", "NOTSET")
    return not any(node.attributes.get("pads", ())) and automatic in {"NOTSET", "VALID"}


# ONNX ---------------------------------------------------------------------------------------------


def with_proto(graph: Graph) -> Graph:
    """Return a graph that can be executed: floats as float32, and the model in ONNX beside it."""
    used = {name for node in graph.nodes for name in node.inputs}
    constants = {n: single(values) for n, values in graph.constants.items() if n in used}
    nodes = [
        helper.make_node(
            node.op,
            list(node.inputs),
            list(node.outputs),
            name=node.name,
            domain=DOMAIN if node.domain == QONNX else "",
            **{key: value for key, value in node.attributes.items() if not empty(value)},
        )
        for node in graph.nodes
    ]
    made = helper.make_graph(
        nodes,
        graph.name,
        [info(graph, graph.input)],
        [info(graph, graph.output)],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    imports = [helper.make_opsetid("", next(n.version for n in graph.nodes if not n.domain))]
    if any(node.domain == QONNX for node in graph.nodes):
        imports.append(helper.make_opsetid(DOMAIN, 1))
    model = helper.make_model(
        made, opset_imports=imports, ir_version=graph.proto.ir_version, producer_name="brambling"
    )
    return replace(graph, constants=constants, proto=model)


def empty(value: Any) -> bool:
    """Whether an attribute is a list of nothing, whose type cannot be told."""
    return isinstance(value, tuple) and not value


def single(values: NDArray) -> NDArray:
    """Floats as float32, in which the file has them."""
    return np.asarray(values, np.float32) if values.dtype.kind == "f" else values


def info(graph: Graph, tensor: str) -> ValueInfoProto:
    """Shape of an input or output for any batch."""
    shape = ["batch", *graph.shapes[tensor][1:]]
    return helper.make_tensor_value_info(tensor, TensorProto.FLOAT, shape)

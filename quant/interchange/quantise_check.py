"""What of a float model can be quantised: all that cannot is named at once, with what can."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from brambling.errors import ConfigError, UnsupportedLayer
from brambling.quant.interchange.graph import QONNX, Graph, Node

__all__ = [
    "ACTIVATIONS",
    "AFFINE",
    "AVERAGES",
    "DROPPED",
    "KEEPING",
    "PRODUCTS",
    "Affine",
    "affine",
    "attribute",
    "check",
    "front",
    "given",
    "refuse",
]

PRODUCTS = ("Conv", "Gemm", "MatMul")
ACTIVATIONS = ("Relu", "Clip", "LeakyRelu")
AVERAGES = ("AveragePool", "GlobalAveragePool", "ReduceMean")
#: What moves elements only, or picks one: its results have the codes of its input.
KEEPING = ("MaxPool", "Flatten", "Reshape", "Transpose", "Pad", "Squeeze", "Unsqueeze")
ARITHMETIC = ("Add", "Sub", "Mul", "Div")
AFFINE = ("BatchNormalization", *ARITHMETIC)
DROPPED = ("Identity", "Dropout", "Cast")
FLOATS = (1, 10, 11)  #: ONNX's numbers of float32, float16 and float64.
LAST = ("Softmax",)
SUPPORTED = sorted({
    "Concat",
    *PRODUCTS,
    *ACTIVATIONS,
    *AVERAGES,
    *KEEPING,
    *AFFINE,
    *DROPPED,
    *LAST,
})
QUANTISED = {
    "QuantizeLinear",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "QLinearConv",
    "QLinearMatMul",
    "ConvInteger",
    "MatMulInteger",
}
CURVES = ("Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Swish", "Elu", "Selu", "Celu", "Gelu",
          "Mish", "Softplus", "Softsign", "PRelu", "ThresholdedRelu")  # fmt: skip
NORMS = ("InstanceNormalization", "LayerNormalization", "GroupNormalization", "LRN",
         "LpNormalization", "RMSNormalization", "MeanVarianceNormalization")  # fmt: skip
#: Nearest supported form of what is not.
NEAREST = {
    **dict.fromkeys(CURVES, "Relu, LeakyRelu or Clip"),
    **dict.fromkeys(NORMS, "BatchNormalization"),
    **dict.fromkeys(("LSTM", "GRU", "RNN", "Attention", "Einsum"), "Conv or Gemm"),
    "ConvTranspose": "Conv",
    "GlobalMaxPool": "a MaxPool as large as the image",
    "LpPool": "AveragePool",
    "ReduceMax": "a MaxPool as large as the image",
    "ReduceSum": "ReduceMean",
    "LogSoftmax": "Softmax as the last operation",
    "Sum": "Add, two at a time",
    "Mean": "Add, two at a time",
}


# Affine operations --------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Affine:
    """``x * factor + offset``, one value of each for every channel, in float64."""

    source: str
    factor: NDArray[np.float64]
    offset: NDArray[np.float64]


def affine(graph: Graph, node: Node) -> Affine | None:
    """Return what an operation with constants does to each channel, if it is as simple as that."""
    if node.op == "BatchNormalization":
        gain, shift, mean, variance = (
            graph.constants[name].astype(np.float64) for name in node.inputs[1:5]
        )
        factor = gain / np.sqrt(variance + node.attributes.get("epsilon", 1e-5))
        return Affine(node.inputs[0], factor, shift - mean * factor)
    known = [name in graph.constants for name in node.inputs]
    if node.op not in AFFINE or sum(known) != 1:
        return None
    swapped = known[0]
    source, constant = node.inputs[::-1] if swapped else node.inputs
    values = each_channel(graph.constants[constant], graph.shapes[source])
    if values is None or graph.shapes[node.outputs[0]] != graph.shapes[source]:
        return None
    one, zero = np.ones_like(values), np.zeros_like(values)
    match node.op, swapped:
        case "Add", _:
            return Affine(source, one, values)
        case "Sub", False:
            return Affine(source, one, -values)
        case "Sub", True:
            return Affine(source, -one, values)
        case "Mul", _:
            return Affine(source, values, zero)
        case "Div", False if np.all(values):
            return Affine(source, 1 / values, zero)
    return None


def each_channel(values: NDArray, shape: tuple[int, ...]) -> NDArray[np.float64] | None:
    """Return the value for each channel of a tensor, if there is one for each."""
    if values.ndim > len(shape) or len(shape) < 2:
        return None
    try:
        whole = np.broadcast_to(values.astype(np.float64), (1, *shape[1:])).reshape(shape[1], -1)
    except ValueError:
        return None
    return whole[:, 0] if (whole == whole[:, :1]).all() else None


def front(graph: Graph) -> list[Node]:
    """Return the sums, differences, products and quotients that the input goes through first."""
    nodes: list[Node] = []
    tensor = graph.input
    while tensor != graph.output:
        readers = graph.consumers(tensor)
        if len(readers) != 1 or readers[0].op not in ARITHMETIC or not affine(graph, readers[0]):
            break
        nodes.append(readers[0])
        tensor = readers[0].outputs[0]
    return nodes


# What is refused ----------------------------------------------------------------------------------


def attribute(graph: Graph, node: Node, key: str, position: int) -> NDArray | None:
    """Parameter that is an attribute in old versions and a constant input in new ones."""
    if key in node.attributes:
        return np.asarray(node.attributes[key])
    if len(node.inputs) > position and node.inputs[position]:
        return graph.constants.get(node.inputs[position])
    return None


def given(node: Node, *positions: int) -> list[str]:
    """Return the inputs of a node at some positions, as far as they are given."""
    return [node.inputs[n] for n in positions if n < len(node.inputs) and node.inputs[n]]


def unknown(graph: Graph, node: Node, *positions: int) -> bool:
    """Whether one of the inputs at some positions is computed from the model's input."""
    return any(name not in graph.constants for name in given(node, *positions))


def product_problem(graph: Graph, node: Node) -> str | None:
    """Say what is wrong with a convolution or a matrix product."""
    if node.inputs[0] in graph.constants or unknown(graph, node, 1, 2):
        return "weights and bias must be constants, and its data not; use Conv or Gemm"
    if node.op == "Conv" and len(graph.shapes[node.inputs[0]]) not in {3, 4}:
        return f"its data must be an image or a sequence, not {graph.shapes[node.inputs[0]]}"
    if node.op != "Conv" and len(graph.shapes[node.inputs[1]]) != 2:
        return f"weights must be a matrix, not {graph.shapes[node.inputs[1]]}; use Gemm"
    if node.op == "Gemm" and any(
        graph.shapes[name][:-1] not in {(), (1,)} for name in given(node, 2)
    ):
        return f"bias must be one value for each output, not {graph.shapes[node.inputs[2]]}"
    if node.op == "Gemm" and node.attributes.get("transA", 0):
        return "transA must be 0; transpose the input before it"
    if node.op != "Conv" and len(graph.shapes[node.inputs[0]]) != 2:
        shape = graph.shapes[node.inputs[0]]
        return f"its data must be a vector for each image, not {shape}; use a Conv of one pixel"
    return None


def bounds_problem(graph: Graph, node: Node) -> str | None:
    return "bounds must be constants; use Relu" if unknown(graph, node, 1, 2) else None


def slope_problem(graph: Graph, node: Node) -> str | None:
    alpha = node.attributes.get("alpha", 0.01)
    return None if alpha >= 0 else f"alpha must not be negative, but is {alpha:g}; use Relu"


def pad_problem(graph: Graph, node: Node) -> str | None:
    if node.attributes.get("mode", "constant") != "constant":
        return f"mode must be constant, not {node.attributes['mode']}; pad with zeros"
    value = attribute(graph, node, "value", 2)
    if unknown(graph, node, 1, 2) or (value is not None and np.any(value)):
        return "must pad with zeros"
    if any(reader.op not in {"Conv", "AveragePool"} for reader in graph.consumers(node.outputs[0])):
        return "must stand before a Conv"
    return None


def average_problem(graph: Graph, node: Node) -> str | None:
    if any(node.attributes.get("pads", ())) and not node.attributes.get("count_include_pad", 0):
        return "must count what it pads: use count_include_pad 1, or no pads"
    return None


def mean_problem(graph: Graph, node: Node) -> str | None:
    rank = len(graph.shapes[node.inputs[0]])
    axes = attribute(graph, node, "axes", 1)
    found = range(rank) if axes is None else [int(axis) % rank for axis in axes.reshape(-1)]
    if rank < 3 or sorted(found) != list(range(2, rank)):
        return f"axes must be rows and columns, not {list(found)}; use GlobalAveragePool"
    return None


def axis_problem(graph: Graph, node: Node) -> str | None:
    axis = node.attributes.get("axis", 1) % len(graph.shapes[node.outputs[0]])
    if axis != 1 or any(name in graph.constants for name in node.inputs):
        return "must join channels (axis 1) of computed tensors"
    return None


def batch_problem(graph: Graph, node: Node) -> str | None:
    order = node.attributes.get("perm")
    return None if order and order[0] == 0 else f"must leave the batch first, not move it: {order}"


def dropout_problem(graph: Graph, node: Node) -> str | None:
    training = given(node, 2)
    if training and np.any(graph.constants.get(training[0], True)):
        return "training_mode must be false; export the model in evaluation"
    return None


def cast_problem(graph: Graph, node: Node) -> str | None:
    return None if node.attributes.get("to") in FLOATS else "must be to float32"


def affine_problem(graph: Graph, node: Node) -> str | None:
    """Say what is wrong with an affine operation, or with an addition of two branches."""
    if node.op == "BatchNormalization" and node.attributes.get("training_mode", 0):
        return "training_mode must be 0; export the model in evaluation"
    if node.op == "BatchNormalization" and unknown(graph, node, 1, 2, 3, 4):
        return "its parameters must be constants; export the model in evaluation"
    if node.op == "BatchNormalization":
        least = graph.constants[node.inputs[4]].min() + node.attributes.get("epsilon", 1e-5)
        return None if least > 0 else "variance and epsilon must be positive; train it again"
    shapes = [graph.shapes[name] for name in node.inputs[:2]]
    if node.op == "Add" and not any(name in graph.constants for name in node.inputs):
        same = shapes[0] == shapes[1]
        return None if same else f"inputs must have one shape, not {shapes[0]} and {shapes[1]}"
    if affine(graph, node) is None:
        return "its second input must be a constant, one value or one for each channel"
    return None


def last_problem(graph: Graph, node: Node) -> str | None:
    tensor = node.outputs[0]
    while tensor != graph.output:
        following = graph.consumers(tensor)
        if len(following) != 1 or following[0].op not in KEEPING + DROPPED:
            return "must be the last operation"
        tensor = following[0].outputs[0]
    return None


Problem = Callable[[Graph, Node], str | None]
PROBLEMS: dict[str, Problem] = {
    **dict.fromkeys(PRODUCTS, product_problem),
    **dict.fromkeys(AFFINE, affine_problem),
    **dict.fromkeys(LAST, last_problem),
    "AveragePool": average_problem,
    "Cast": cast_problem,
    "Clip": bounds_problem,
    "Concat": axis_problem,
    "Dropout": dropout_problem,
    "LeakyRelu": slope_problem,
    "Pad": pad_problem,
    "ReduceMean": mean_problem,
    "Transpose": batch_problem,
}


def problem(graph: Graph, node: Node) -> str | None:
    """Say why a node cannot be quantised, and what can; ``None`` if it can."""
    if node.domain or node.op not in SUPPORTED:
        nearest = NEAREST.get(node.op) if not node.domain else None
        return f"use {nearest}" if nearest else "is not supported"
    if any(graph.consumers(name) for name in node.outputs[1:] if name):
        return "only its first result can be used"
    return PROBLEMS[node.op](graph, node) if node.op in PROBLEMS else None


def check(graph: Graph) -> dict[str, str]:
    """Return what is wrong, by the name of the node; raise where nothing is to be done."""
    for node in graph.nodes:
        if node.domain == QONNX or node.op in QUANTISED:
            raise ConfigError(
                f"{graph.name}: is quantised already, by {node}: import it as it is, "
                "or give the float model"
            )
    if not any(node.op in PRODUCTS for node in graph.nodes):
        raise ConfigError(f"{graph.name}: has no Conv, Gemm or MatMul to round")
    for node in graph.nodes:
        for name in node.inputs:
            values = graph.constants.get(name)
            if values is not None and values.dtype.kind == "f" and np.isnan(values).any():
                raise ConfigError(f"{node}: {name} must be numbers, not NaN; train it again")
    return {node.name: text for node in graph.nodes if (text := problem(graph, node))}


def refuse(graph: Graph, problems: dict[str, str]) -> None:
    """Raise, naming all problems at once."""
    if not problems:
        return
    listed = "; ".join(f"{node}: {problems[node.name]}" for node in graph.nodes
                       if node.name in problems)  # fmt: skip
    raise UnsupportedLayer(
        f"{graph.name}: cannot be quantised: {listed} (supported: {', '.join(SUPPORTED)})"
    )

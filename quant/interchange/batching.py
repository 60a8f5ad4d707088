"""Which operations do the same to a batch of images as to each of them."""

import numpy as np

from brambling.quant.interchange.graph import CHANNELS_LAST, QONNX, Graph, Node

__all__ = ["dependent", "reshaped", "separable"]


def _operators(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: Only the first input is of the image; each image and each of its channels for itself.
_FIRST = _operators(
    "Conv ConvTranspose MaxPool AveragePool GlobalAveragePool GlobalMaxPool LpPool GlobalLpPool "
    "Relu LeakyRelu Sigmoid Tanh Elu Selu Celu HardSigmoid HardSwish Softplus Softsign Gelu Mish "
    "ThresholdedRelu Clip Cast Abs Neg Sqrt Exp Log Erf Floor Ceil Round Sign Not Reciprocal "
    "Identity Resize Upsample DepthToSpace SpaceToDepth Pad LRN InstanceNormalization"
)
#: Elementwise, of several inputs.
_BROADCAST = _operators(
    "Add Sub Mul Div Pow Min Max Sum Mean PRelu Mod Greater Less Equal GreaterOrEqual LessOrEqual "
    "And Or Xor Where"
)
#: Along an axis, which must not be that of the batch; the default where the file gives none.
_AXIS = {"Concat": 1, "Split": 0, "Softmax": -1, "LogSoftmax": -1, "Hardmax": -1, "TopK": -1}
_AXIS |= {"ArgMax": 0, "ArgMin": 0, "Gather": 0, "QuantizeLinear": 1, "DequantizeLinear": 1}
_RESHAPES = _operators("Reshape Flatten Squeeze Unsqueeze")
_QUANTISERS = _operators("IntQuant BipolarQuant Trunc FloatQuant")


def dependent(graph: Graph) -> set[str]:
    """Return the tensors that depend on the input, itself too."""
    live = {graph.input}
    for node in graph.nodes:
        if not live.isdisjoint(node.inputs):
            live |= {name for name in node.outputs if name}
    return live


def reshaped(graph: Graph, node: Node) -> tuple[int, ...] | None:
    """Return the shape of one image after a node that moves no element; ``None`` for others."""
    if node.domain or node.op not in _RESHAPES:
        return None
    if any(name not in graph.constants for name in node.inputs[1:] if name):
        return None
    return graph.shapes.get(node.outputs[0])


def separable(graph: Graph, node: Node, live: set[str]) -> bool:
    """Whether a node may be given a batch; the caller compares the shapes of the results."""
    names = [name for name in (*node.inputs, *node.outputs) if name]
    if any(name not in graph.shapes for name in names):
        return False
    images = [name for name in node.inputs if name in live]
    if any(graph.shapes[name][:1] != (1,) for name in (*images, *filter(None, node.outputs))):
        return False
    if node.domain == CHANNELS_LAST or (node.domain == QONNX and node.op not in _QUANTISERS):
        return _only_first(node, live)
    if node.domain == QONNX or node.op in _BROADCAST:
        return _broadcasts(graph, node, images)
    return node.domain == "" and _standard(graph, node, live, images)


def _only_first(node: Node, live: set[str]) -> bool:
    return node.inputs[0] in live and live.isdisjoint(node.inputs[1:])


def _broadcasts(graph: Graph, node: Node, images: list[str]) -> bool:
    """Whether the batch stays the batch: equal ranks, and constants without a first dimension."""
    rank = len(graph.shapes[node.outputs[0]])
    if any(len(graph.shapes[name]) != rank for name in images):
        return False
    others = [graph.shapes[name] for name in node.inputs if name and name not in images]
    return all(len(shape) < rank or shape[0] == 1 for shape in others)


def _standard(graph: Graph, node: Node, live: set[str], images: list[str]) -> bool:
    rank = len(graph.shapes[images[0]])
    match node.op:
        case "Concat":
            ranked = all(len(graph.shapes[name]) == rank for name in node.inputs)
            return ranked and len(images) == len(node.inputs) and _axis(node, rank, 1) != 0
        case "MatMul":
            second = graph.shapes[node.inputs[1]]
            if node.inputs[1] in live:
                return len(images) == 2 and rank == len(second) > 2
            return rank > 1 and (len(second) < 3 or (len(second) <= rank and second[0] == 1))
        case "Gemm":
            bias = [graph.shapes[name] for name in node.inputs[2:] if name]
            flat = all(len(shape) < 2 or shape[0] == 1 for shape in bias)
            return flat and _only_first(node, live) and not node.attributes.get("transA", 0)
        case "BatchNormalization":
            return _only_first(node, live) and not node.attributes.get("training_mode", 0)
        case "Transpose":
            perm = node.attributes.get("perm", tuple(range(rank))[::-1])
            return perm[0] == 0
        case "Slice":
            steps = node.inputs[4:5]
            known = all(name in graph.constants for name in steps)
            return known and all(np.all(graph.constants[name] > 0) for name in steps)
    if node.op in {"Softmax", "LogSoftmax", "Hardmax"} and node.version < 13:
        return _axis(node, rank, 1) != 0
    if node.op in _AXIS:
        return _only_first(node, live) and _axis(node, rank, _AXIS[node.op]) != 0
    return node.op in _FIRST and _only_first(node, live)


def _axis(node: Node, rank: int, default: int) -> int:
    axis = node.attributes.get("axis", default)
    return axis + rank if axis < 0 else axis

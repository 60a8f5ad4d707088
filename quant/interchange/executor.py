"""A graph in floats, node by node: ONNX's operators by its runtime, QONNX's by our own NumPy."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, defs, helper
from onnx.reference import ReferenceEvaluator

from brambling.errors import BramblingError, ConfigError
from brambling.quant.interchange import batching, qonnx_ops
from brambling.quant.interchange.graph import CHANNELS_LAST, QONNX, Graph, Node
from brambling.quant.interchange.limits import brief

try:
    import onnxruntime
    from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NoKernel
except ModuleNotFoundError:  # optional: the reference evaluator is slower, and always there
    onnxruntime, NoKernel = None, NotImplementedError

__all__ = ["compute", "execute", "supported"]

CHUNK = 2**24  #: Elements of the largest tensor that are computed at a time.
WRAPPED = 13  #: Operator set for what channels-last wrappers and QONNX's pools are made of.

Kind = tuple[str, int, tuple[int, ...]]  # name, element type and shape of an input
Runner = Any  # a session of ONNX Runtime, or a reference evaluator


def supported() -> frozenset[tuple[str, str]]:
    """Return (domain, operator) of those outside ONNX's own that can be executed."""
    general = qonnx_ops.supported() | {"QuantAvgPool2d", "MaxPoolNHWC"}
    wrapped = {"Conv", "MaxPool", "BatchNormalization"}
    return frozenset((QONNX, op) for op in general) | {(CHANNELS_LAST, op) for op in wrapped}


def execute(
    graph: Graph, x: NDArray, keep: Collection[str] | None = None, *, one_by_one: bool = False
) -> dict[str, NDArray]:
    """Execute a graph.

    Parameters
    ----------
    graph
        From :func:`brambling.quant.interchange.reader.read`.
    x
        Images, batch first, in the type and layout of the graph's input.
    keep
        Tensors to return; the output if not given.
    one_by_one
        Whether to compute each image by itself, as the file says. Runtimes may add up a batch in
        another order; where sums round, the last bit of a float may then differ.

    Returns
    -------
    dict
        Tensors by name, batch first; those that do not depend on the input as they are.
    """
    wanted = {graph.output} if keep is None else set(keep)
    x = _checked_input(graph, x, wanted)
    live = batching.dependent(graph)
    fixed = _constant_part(graph, wanted, live)
    biggest = max((prod(graph.shapes[t]) for t in live if t in graph.shapes), default=1)
    size = 1 if one_by_one else max(1, CHUNK // max(1, biggest))
    parts: dict[str, list[NDArray]] = {name: [] for name in wanted & live}
    for start in range(0, len(x), size):
        for name, part in _chunk(graph, x[start : start + size], fixed, live, wanted).items():
            parts[name].append(part)
    results = {name: np.concatenate(values) for name, values in parts.items()}
    return {name: _batch_first(v) for name, v in results.items()} | {
        name: fixed[name] for name in wanted - live
    }


def _checked_input(graph: Graph, x: NDArray, wanted: set[str]) -> NDArray:
    """Return images in the input's type, each with a batch of its own: ``(n, 1, …)``."""
    shape = graph.shapes[graph.input]
    needed = ", ".join(map(str, ("n", *shape[1:])))
    if x.ndim != len(shape) or x.shape[1:] != shape[1:] or not len(x):
        raise ConfigError(f"{graph.name}: images of shape {x.shape}: must be ({needed})")
    known = {graph.input, *graph.constants, *(t for node in graph.nodes for t in node.outputs)}
    if unknown := sorted(wanted - known):
        raise ConfigError(f"{graph.name}: no tensor {unknown[0]!r}: the output is {graph.output!r}")
    (value,) = graph.proto.graph.input
    dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    return np.ascontiguousarray(x, dtype=dtype)[:, None]


def _batch_first(values: NDArray) -> NDArray:
    """Return ``(n, 1, …)`` as ``(n, …)``; what has no batch in the file keeps its shape."""
    return values[:, 0] if values.ndim > 1 and values.shape[1] == 1 else values


def _pairs(graph: Graph) -> Iterator[tuple[Node, NodeProto]]:
    yield from zip(graph.nodes, graph.proto.graph.node, strict=True)


def _constant_part(graph: Graph, wanted: set[str], live: set[str]) -> dict[str, NDArray]:
    """Compute what does not depend on the input: quantised weights."""
    values = dict(graph.constants)
    for node, proto in _pairs(graph):
        if live.isdisjoint(node.outputs):
            given = [values[name] if name else None for name in node.inputs]
            values |= zip(node.outputs, _named(graph, node, proto, given), strict=True)
    return values


def _named(
    graph: Graph, node: Node, proto: NodeProto, inputs: Sequence[NDArray | None]
) -> list[NDArray]:
    """Compute a node; what goes wrong is said with its name."""
    try:
        return compute(proto, node.domain, node.version, node.attributes, inputs)
    except BramblingError as error:
        raise ConfigError(f"{graph.name}: {node}: {error}") from None


def _chunk(
    graph: Graph,
    x: NDArray,
    fixed: Mapping[str, NDArray],
    live: set[str],
    wanted: set[str],
) -> dict[str, NDArray]:
    """Execute a few images; every value has the images first, then the shape of one of them."""
    values = {graph.input: x}
    last = {name: i for i, node in enumerate(graph.nodes) for name in node.inputs}
    for i, (node, proto) in enumerate(_pairs(graph)):
        if live.isdisjoint(node.outputs):
            continue
        outputs = _images(graph, node, proto, values, fixed)
        values |= {n: v for n, v in zip(node.outputs, outputs, strict=True) if n}
        for name in {*node.inputs, *node.outputs} & values.keys():
            if last.get(name, -1) <= i and name not in wanted:
                del values[name]
    return {name: value for name, value in values.items() if name in wanted}


def _images(
    graph: Graph,
    node: Node,
    proto: NodeProto,
    values: Mapping[str, NDArray],
    fixed: Mapping[str, NDArray],
) -> list[NDArray]:
    """Compute a node for all images: at once where that is the same, else one after another."""
    count = len(next(values[name] for name in node.inputs if name in values))
    if count > 1 and (shape := batching.reshaped(graph, node)) is not None:
        return [values[node.inputs[0]].reshape(count, *shape)]
    if count > 1 and batching.separable(graph, node, set(values)):
        given = [values[n][:, 0] if n in values else fixed[n] if n else None for n in node.inputs]
        shapes = [(count, *graph.shapes[name][1:]) for name in node.outputs if name]
        with suppress(ConfigError):  # a size in the file may include the batch
            outputs = _named(graph, node, proto, given)
            if [v.shape for v in outputs] == shapes:
                return [v[:, None] for v in outputs]
    rows = [
        _named(
            graph,
            node,
            proto,
            [values[n][i] if n in values else fixed[n] if n else None for n in node.inputs],
        )
        for i in range(count)
    ]
    return [np.stack(column) for column in zip(*rows, strict=True)]


def compute(
    proto: NodeProto,
    domain: str,
    version: int,
    attributes: Mapping[str, Any],
    inputs: Sequence[NDArray | None],
) -> list[NDArray]:
    """Compute one operation.

    Parameters
    ----------
    proto
        The node, for the runtime.
    domain, version
        As in :class:`~brambling.quant.interchange.graph.Node`.
    attributes
        Of the node, as Python values.
    inputs
        Values; ``None`` where an optional one is not given.
    """
    if domain and (domain, proto.op_type) not in supported():
        raise ConfigError("there is no way to execute it; see the operators that are supported")
    try:
        if not domain:
            return _standard(proto, version, inputs)
        given = [value for value in inputs if value is not None]
        if domain == CHANNELS_LAST or proto.op_type in {"MaxPoolNHWC", "QuantAvgPool2d"}:
            return [_pool_or_wrapped(proto, domain, attributes, given)]
        return [qonnx_ops.run(proto.op_type, given, attributes, version)]
    except BramblingError:
        raise
    except Exception as error:  # NumPy's on shapes that do not fit, the runtime's on anything
        raise ConfigError(f"cannot be executed ({brief(error)}); export it anew") from None


def _standard(proto: NodeProto, version: int, inputs: Sequence[NDArray | None]) -> list[NDArray]:
    """Run one of ONNX's own operators."""
    node = NodeProto(op_type=proto.op_type, attribute=proto.attribute)
    node.input.extend(f"i{k}" if value is not None else "" for k, value in enumerate(inputs))
    node.output.extend(f"o{k}" if name else "" for k, name in enumerate(proto.output))
    given = {f"i{k}": value for k, value in enumerate(inputs) if value is not None}
    kinds = tuple(
        (name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in given.items()
    )
    feeds = {name: value for name, value in given.items() if value.size}
    outputs = _runner(node.SerializeToString(deterministic=True), version, kinds).run(None, feeds)
    return [np.asarray(value) for value in outputs]


@lru_cache(maxsize=1024)
def _runner(serialized: bytes, version: int, kinds: tuple[Kind, ...]) -> Runner:
    """Return a model of one node, ready to run; equal nodes share one.

    With fixed shapes, as QONNX has them: the runtime chooses other kernels where they are open, and
    then the last bit of a float may differ. Empty tensors are built in: in old files they stand for
    inputs that are not given.
    """
    node = NodeProto.FromString(serialized)
    inputs = [helper.make_tensor_value_info(*kind) for kind in kinds if prod(kind[2])]
    empty = [helper.make_tensor(*kind, []) for kind in kinds if not prod(kind[2])]
    outputs = [helper.make_empty_tensor_value_info(name) for name in node.output if name]
    graph = helper.make_graph([node], "one", inputs, outputs, empty)
    # The version in which the operator came to be what it is: as good, and any runtime knows it.
    since = max(7, defs.get_schema(node.op_type, version, "").since_version)
    opset = helper.make_opsetid("", since)
    ir = helper.find_min_ir_version_for([opset], ignore_unknown=True)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=max(4, ir))
    if onnxruntime is not None:
        try:
            return onnxruntime.InferenceSession(
                model.SerializeToString(), _options(), providers=["CPUExecutionProvider"]
            )
        except NoKernel:
            pass  # no kernel for the type: the reference has one
    return ReferenceEvaluator(model)


def _options() -> Any:
    assert onnxruntime is not None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False
    options.log_severity_level = 4  # what goes wrong is raised; nothing is to be printed
    return options


def _pool_or_wrapped(
    proto: NodeProto, domain: str, attributes: Mapping[str, Any], inputs: list[NDArray]
) -> NDArray:
    """Run an operator whose channels come last as ONNX's own, whose channels come second."""
    last = domain == CHANNELS_LAST or proto.op_type == "MaxPoolNHWC"
    last |= attributes.get("data_layout", "NCHW") == "NHWC"
    moved = list(inputs)
    for k in range(2 if proto.op_type == "Conv" else 1):
        if last:
            moved[k] = np.moveaxis(moved[k], -1, 1)
    if proto.op_type == "QuantAvgPool2d":
        result = _quant_avg_pool(attributes, moved)
    else:
        inner = NodeProto(op_type=proto.op_type.removesuffix("NHWC"), attribute=proto.attribute)
        inner.output.append("o")
        (result,) = _standard(inner, WRAPPED, moved)
    return np.moveaxis(result, 1, -1) if last else result


def _quant_avg_pool(attributes: Mapping[str, Any], inputs: list[NDArray]) -> NDArray:
    """Sum, then drop the bits that the output has no room for."""
    kernel, stride, bits, kept = (
        int(attributes.get(key, 1)) for key in ("kernel", "stride", "ibits", "obits")
    )
    pool = helper.make_node(
        "AveragePool", ["i"], ["o"], kernel_shape=[kernel] * 2, strides=[stride] * 2
    )
    (mean,) = _standard(pool, 11, inputs)
    shift = max(0, ((2**bits - 1) * kernel * kernel).bit_length() - kept)
    return np.right_shift(np.round(mean * (kernel * kernel)).astype(np.int64), shift).astype(
        np.float32
    )

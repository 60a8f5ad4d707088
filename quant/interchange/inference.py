"""Shapes and types behind a node: ONNX's own inference, and rules for QONNX's operators."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, TypeProto, defs, helper, numpy_helper, shape_inference

from brambling.errors import ConfigError
from brambling.quant.interchange import qonnx_ops
from brambling.quant.interchange.graph import CHANNELS_LAST, QONNX
from brambling.quant.interchange.limits import brief

__all__ = ["check_attributes", "known_operator", "outputs", "shape_of", "tensor_type"]

SMALL = 4096  #: Elements of a constant that may say something of a shape.
MAX_STEP = 2**16  #: Largest stride, dilation, window or padding.

_SIZES = {"strides": 1, "dilations": 1, "kernel_shape": 1, "group": 1, "pads": 0, "axis": None}
_SIZES |= {"stride": 1, "kernel": 1, "ibits": 1, "obits": 1, "blocksize": 1, "output_padding": 0}
_NUMBER, _TEXT = (int, float), (str,)
_ATTRIBUTES: Mapping[str, Mapping[str, tuple[type, ...]]] = {
    "IntQuant": {"signed": (int,), "narrow": (int,), "rounding_mode": _TEXT},
    "Trunc": {"signed": (int,), "narrow": (int,), "rounding_mode": _TEXT},
    "FloatQuant": dict.fromkeys(("has_inf", "has_nan", "has_subnormal", "saturation"), (int,))
    | {"rounding_mode": _TEXT},
    "MultiThreshold": {"out_dtype": _TEXT, "data_layout": _TEXT}
    | dict.fromkeys(("out_scale", "out_bias"), _NUMBER),
    "QuantAvgPool2d": dict.fromkeys(("stride", "kernel", "ibits", "obits", "signed"), (int,))
    | {"data_layout": _TEXT},
    "MaxPoolNHWC": {"kernel_shape": (tuple,), "pads": (tuple,), "strides": (tuple,)}
    | {"ceil_mode": (int,)},
}
_REQUIRED = {"MaxPoolNHWC": ("kernel_shape",), "QuantAvgPool2d": ("kernel", "stride")}


def tensor_type(dtype: np.dtype, shape: Sequence[int]) -> TypeProto:
    """Return the type of an array."""
    return helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(dtype), list(shape))


def shape_of(kind: TypeProto) -> tuple[int, ...] | None:
    """Return the shape of a tensor's type where all of it is known."""
    tensor = kind.tensor_type
    if not kind.HasField("tensor_type") or not tensor.HasField("shape"):
        return None
    if not all(dim.HasField("dim_value") for dim in tensor.shape.dim):
        return None
    return tuple(dim.dim_value for dim in tensor.shape.dim)


def known_operator(node: NodeProto, version: int) -> bool:
    """Whether it is one of ONNX's own, of that version."""
    return node.domain == "" and _schema(node, version) is not None


def _schema(node: NodeProto, version: int) -> "defs.OpSchema | None":
    try:
        return defs.get_schema(node.op_type, version, "")
    except defs.SchemaError:
        return None


def check_attributes(node: NodeProto, attributes: Mapping[str, Any]) -> None:
    """Refuse attributes of the wrong type, and sizes that no window or stride can have."""
    if node.domain == QONNX:
        for key, types in _ATTRIBUTES.get(node.op_type, {}).items():
            if key in attributes and not isinstance(attributes[key], types):
                raise ConfigError(f"{key} {attributes[key]!r}: must be {_expected(types)}")
        for key in _REQUIRED.get(node.op_type, ()):
            if key not in attributes:
                raise ConfigError(f"has no {key}, which it needs; export it anew")
    for key, least in _SIZES.items():
        if least is None or key not in attributes or (key == "pads" and node.op_type == "Pad"):
            continue
        given = attributes[key] if isinstance(attributes[key], tuple) else (attributes[key],)
        for size in given:
            if not isinstance(size, int) or not least <= size <= MAX_STEP:
                raise ConfigError(f"{key} {size!r}: must be from {least} to {MAX_STEP:,}")


def _expected(types: tuple[type, ...]) -> str:
    if str in types:
        return "text"
    return "a number" if float in types else "integers" if tuple in types else "an integer"


def outputs(
    node: NodeProto,
    version: int,
    attributes: Mapping[str, Any],
    types: Mapping[str, TypeProto],
    constants: Mapping[str, NDArray],
) -> dict[str, TypeProto]:
    """Return the types of a node's outputs as far as they are known.

    Raises
    ------
    ConfigError
        If the node is not valid for its inputs.
    """
    given = [name for name in node.input if name]
    if any(name not in types or shape_of(types[name]) is None for name in given):
        return {}
    try:
        if node.domain == "":
            return _standard(node, version, types, constants)
        if node.domain in {QONNX, CHANNELS_LAST}:
            return _custom(node, attributes, [types[name] for name in given])
    except ConfigError:
        raise
    except Exception as error:  # of another package: whatever it says of the node
        raise ConfigError(f"is not valid ({brief(error)}); export it anew") from None
    return {}


def _standard(
    node: NodeProto,
    version: int,
    types: Mapping[str, TypeProto],
    constants: Mapping[str, NDArray],
) -> dict[str, TypeProto]:
    schema = _schema(node, version)
    if schema is None:
        return {}
    given = {name for name in node.input if name}
    data = {
        name: numpy_helper.from_array(constants[name], name)
        for name in given
        if name in constants and constants[name].size <= SMALL
    }
    return shape_inference.infer_node_outputs(
        schema,
        node,
        {name: types[name] for name in given},
        data,
        opset_imports=[helper.make_opsetid("", version)],
    )


def _custom(
    node: NodeProto, attributes: Mapping[str, Any], given: Sequence[TypeProto]
) -> dict[str, TypeProto]:
    """Types behind QONNX's operators: floats, shaped like what goes in."""
    if not given or not node.output:
        raise ConfigError(f"{len(given)} inputs, {len(node.output)} outputs: needs some of each")
    shapes = [shape_of(kind) or () for kind in given]
    if node.domain == CHANNELS_LAST or node.op_type in {"MaxPoolNHWC", "QuantAvgPool2d"}:
        shape = _pooled(node, attributes, given)
    elif node.op_type == "MultiThreshold":
        qonnx_ops.channel_axis(str(attributes.get("data_layout", "")), len(shapes[0]))
        shape = shapes[0]
    elif node.op_type in qonnx_ops.supported():
        shape = np.broadcast_shapes(*shapes)
    else:
        return {}
    return {node.output[0]: helper.make_tensor_type_proto(TensorProto.FLOAT, list(shape))}


def _pooled(
    node: NodeProto, attributes: Mapping[str, Any], given: Sequence[TypeProto]
) -> tuple[int, ...]:
    """Return the shape behind a window, by ONNX's rule for the same with the channels second."""
    last = node.op_type != "QuantAvgPool2d" or attributes.get("data_layout", "NCHW") == "NHWC"
    inner = NodeProto(op_type=node.op_type.removesuffix("NHWC"), attribute=node.attribute)
    if node.op_type == "QuantAvgPool2d":
        k, s = attributes["kernel"], attributes["stride"]
        inner = helper.make_node("AveragePool", [], [], kernel_shape=[k, k], strides=[s, s])
    types: dict[str, TypeProto] = {}
    for index, kind in enumerate(given):
        shape = list(shape_of(kind) or ())
        if last and index < (2 if node.op_type == "Conv" else 1) and len(shape) > 2:
            shape.insert(1, shape.pop())
        types[f"i{index}"] = helper.make_tensor_type_proto(kind.tensor_type.elem_type, shape)
    inner.input.extend(types)
    inner.output.append("o")
    shape = list(shape_of(_standard(inner, 13, types, {})["o"]) or ())
    if last:
        shape.append(shape.pop(1))
    return tuple(shape)

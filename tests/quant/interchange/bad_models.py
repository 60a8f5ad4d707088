"""Models that are wrong, each in one way: for what is said of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from brambling.errors import BramblingError
from brambling.quant.interchange.models import read

from .small_models import GENERAL, Maker

FINN = "finn.custom_op.fpgadataflow"

Made: TypeAlias = Callable[[], Any]  # a model, or one and the options to read it with


def case(name: str, made: Made, message: str) -> Any:
    """Return a model and what is said of it as a parameter of a test."""
    return pytest.param(made, message, id=name)


def said(made: Made, folder: Path) -> str:
    """Return the one line that reading a model ends with; it lies in ``m.onnx``."""
    found = made()
    model, options = found if isinstance(found, tuple) else (found, {})
    path = folder / "m.onnx"
    model = model.model() if isinstance(model, Maker) else model
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    with pytest.raises(BramblingError) as caught:
        read(path, **options)
    message = str(caught.value)
    assert message.isprintable()
    return message.replace(f"{folder}/", "")


def start(
    *shape: int, bits: float = 4, scale: float = 0.25, opset: int = 13, **attributes
) -> Maker:
    """Return a model that rounds its input."""
    m = Maker((1, *shape), opset)
    given = (m.const(scale), m.const(0), m.const(bits))
    m.then("Quant", *given, domain=GENERAL, **attributes)
    return m


def dense(m: Maker, outputs: int = 3) -> Maker:
    """Add a layer with quantised weights."""
    inputs = m.shape[1]
    m.then("MatMul", m.quant(m.noise(inputs, outputs)))
    return m


def after(op: str, *constants, shape: tuple[int, ...] = (4, 4, 4), domain: str = "", **attributes):
    """Return a model of one operator behind a quantiser."""
    m = start(*shape)
    m.then(op, *(m.const(value, kind) for value, kind in constants), domain=domain, **attributes)
    return m


def quantised(scale: Any = 0.25, zero: Any = 0, bits: Any = 4, **attributes: Any) -> Maker:
    """Return a model that rounds its input, and a product by a quantiser with these numbers."""
    m = dense(start(4))
    given = (m.const(value) for value in (scale, zero, bits))
    m.then("Quant", *given, domain=GENERAL, **attributes)
    return m


def i64(*values: int):
    return list(values), np.int64


def f32(values):
    return values, np.float32


def i8(values):
    return values, np.int8


def on(m: Maker, op: str, *constants, **attributes) -> Maker:
    """Add an operator with constants."""
    m.then(op, *(m.const(value, kind) for value, kind in constants), **attributes)
    return m


def opened(*sizes: str) -> ModelProto:
    """Return a model that leaves its batch open, and these sizes of an image of three channels."""
    made = on(start(3, 8, 8), "Relu").model()
    dims = made.graph.input[0].type.tensor_type.shape.dim
    dims[0].dim_param = "batch"
    for dim, size in zip(dims[2:], sizes, strict=False):
        dim.dim_param = size
    return made


def unrounded() -> Maker:
    """Return a model whose weights are quantised, but not its input."""
    return dense(Maker((1, 4), 13))


def floats() -> Maker:
    m = Maker((1, 4), 13)
    m.then("MatMul", m.noise(4, 3))
    return m


def two_inputs() -> ModelProto:
    made = dense(start(4)).model()
    made.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, (1, 4)))
    return made


def two_outputs() -> ModelProto:
    made = on(dense(start(4)), "Relu").model()
    made.graph.output.append(helper.make_tensor_value_info("t2", TensorProto.FLOAT, (1, 3)))
    return made


def several_unsupported() -> Maker:
    m = dense(start(4))
    for op in ("Sigmoid", "Erf", "Cos", "LayerNormalization"):
        m.then(op, *([m.const([1, 1, 1])] if op == "LayerNormalization" else []))
    return m


def hardware() -> Maker:
    m = start(4)
    m.then("MVAU", m.noise(4, 3), domain=FINN, MW=4, MH=3)
    m.then("StreamingFIFO", domain=FINN, depth=2)
    return m


def minifloat() -> Maker:
    m = dense(start(4))
    m.then("FloatQuant", *(m.const(v) for v in (1, 4, 3, 7, 448)), domain=GENERAL)
    return m


def cycle() -> ModelProto:
    made = on(on(start(4), "Relu"), "Relu").model()
    made.graph.node[1].input[:] = ["t2"]
    made.graph.node[1].op_type = "Add"
    made.graph.node[1].input.append("t0")
    return made


def softmax_inside() -> Maker:
    m = on(dense(start(4)), "Softmax", axis=1)
    m.then("MatMul", m.quant(m.noise(3, 2)))
    return m


def topk(k: int, values: bool = False, **attributes) -> ModelProto:
    m = dense(start(4))
    given = m.last, m.const([k], np.int64)
    m.nodes.append(helper.make_node("TopK", given, ["values", "indices"], axis=1, **attributes))
    m.last = "values" if values else "indices"
    return m.model(TensorProto.FLOAT if values else TensorProto.INT64)


def argmax(**attributes) -> ModelProto:
    return on(dense(start(4)), "ArgMax", **attributes).model(TensorProto.INT64)


def live_scale() -> Maker:
    m = dense(start(4))
    m.then("Quant", m.add("Relu", m.last), m.const(0), m.const(4), domain=GENERAL)
    return m


def bipolar(scale: float) -> Maker:
    m = Maker((1, 4), 13)
    m.then("BipolarQuant", m.const(scale), domain=GENERAL)
    return dense(m)


def linear(scale, zero: int = 0, **attributes) -> Maker:
    m = Maker((1, 4), 13)
    m.then("QuantizeLinear", m.const(scale), m.const(zero, np.int8), **attributes)
    m.then("DequantizeLinear", m.const(0.5), m.const(zero, np.int8))
    return dense(m)


def trunc(given: float, kept: float, **attributes) -> Maker:
    m = start(4)
    m.then("Trunc", *(m.const(v) for v in (0.25, 0, given, kept)), domain=GENERAL, **attributes)
    return m


def trunc_of_leaky() -> Maker:
    m = on(start(4), "LeakyRelu")
    m.then("Trunc", *(m.const(v) for v in (0.25, 0, 4, 2)), domain=GENERAL)
    return m


def truncated(scale: float) -> Maker:
    """Return a model that drops bits of numbers by another scale than theirs."""
    m = start(4, scale=1e30)
    m.then("Trunc", *(m.const(v) for v in (scale, 0, 6, 4)), domain=GENERAL)
    return m


def thresholds(table, **attributes) -> Maker:
    m = start(2, 4, 4)
    m.then("MultiThreshold", m.const(table), domain=GENERAL, out_dtype="UINT2", **attributes)
    return m


def raw_conv() -> Maker:
    m = start(2, 4, 4)
    m.then("Conv", m.noise(3, 2, 3, 3))
    return m


def raw_dense() -> Maker:
    m = dense(start(4))
    m.then("MatMul", m.noise(3, 2))
    return m


def weights(values, bits: Any = 4, scale: float = 0.25, zero: float = 0) -> Maker:
    """Return a model with a quantiser of such weights."""
    m = start(4)
    numbers = m.const(np.broadcast_to(values, (4, 3)))
    given = (m.const(value) for value in (scale, zero, bits))
    m.then("MatMul", m.add("Quant", numbers, *given, domain=GENERAL))
    return m


def live_weights() -> Maker:
    m = start(4, 4)
    m.then("MatMul", m.add("Relu", m.last))
    return m


def weights_first() -> Maker:
    m = start(4, 4)
    m.last = m.add("MatMul", m.quant(m.noise(4, 4)), m.last)
    return m


def gemm(bias=0.5, **attributes) -> Maker:
    m = start(4)
    m.then("Gemm", m.quant(m.noise(4, 3)), m.const([bias] * 3), **attributes)
    return m


def norm(variance=1.0, **attributes) -> Maker:
    m = dense(start(4, opset=15))
    numbers = ([1, 1, 1], [0, 0, 0], [0, 0, 0], [1, variance, 1])
    m.then("BatchNormalization", *map(m.const, numbers), **attributes)
    return m


def branches(op: str) -> Maker:
    m = start(4)
    m.last = m.add(op, m.last, m.add("Relu", m.last))
    return m


def widened() -> Maker:
    m = start(4, 4)
    m.last = m.add("Add", m.last, m.add("GlobalAveragePool", m.last))
    return m


def joined(axis: int) -> Maker:
    m = start(2, 4, 4)
    m.last = m.add("Concat", m.last, m.last, axis=axis)
    return m


def split(axis: int) -> Maker:
    m = start(2, 4, 4)
    m.nodes.append(helper.make_node("Split", [m.last], ["a", "b"], axis=axis))
    m.last = "a"
    return m


def turned() -> Maker:
    """Return a model with an image that is flattened, and made an image again, between layers."""
    m = start(2, 4, 4)
    m.then("Conv", m.quant(m.noise(2, 2, 1, 1)))
    m.last = m.quant(m.last)
    m.then("Transpose", perm=[0, 2, 1, 3])
    m.then("Conv", m.quant(m.noise(2, 4, 1, 1)))
    return m


def padded(*pads: int, then: str = "Relu", **attributes) -> Maker:
    m = on(start(2, 4, 4), "Relu")
    m.last = on(m, "Pad", i64(*pads), **attributes).last
    if then:
        m.then(then)
    return m


def resized(mode: str, by: float = 2, **attributes) -> Maker:
    m = start(2, 4, 4)
    m.then("Resize", "", m.const([1, 1, by, by]), mode=mode, **attributes)
    return m


def solid() -> Maker:
    m = start(2, 4, 4, 4)
    m.then("Conv", m.quant(m.noise(3, 2, 1, 1, 1)))
    return m


def cast() -> Maker:
    return on(on(start(4), "Mul", f32(0.3)), "Cast", to=TensorProto.INT32)


def old() -> Maker:
    """Return a model with an operator that its version of ONNX does not have."""
    m = Maker((1, 4), 8)
    m.then("QuantizeLinear", m.const(0.5), m.const(0, np.int8))
    return m


def blocks() -> Maker:
    m = Maker((1, 4), 21)
    numbers = m.const([[0.5, 0.5]]), m.const([[0, 0]], np.int8)
    m.then("QuantizeLinear", *numbers, axis=1, block_size=2)
    return m

"""Small valid models of other tools, which between them have every operator that is read."""

from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from brambling.network import Conv, Dense, Flatten, Network, Requantise, Tensor
from brambling.quant.formats import Fixed
from brambling.quant.interchange.exporter import model_of

__all__ = ["GENERAL", "LAST", "Maker", "models"]

GENERAL, LAST = "qonnx.custom_op.general", "qonnx.custom_op.channels_last"


class Maker:
    """A model that grows by one node at a time."""

    def __init__(self, shape: tuple[int, ...], opset: int) -> None:
        self.rng = np.random.default_rng(len(shape) + opset)
        self.shape, self.opset = shape, opset
        self.nodes: list[NodeProto] = []
        self.tensors: list[TensorProto] = []
        self.last, self.width = "x", shape[1]  #: Tensor, and its channels.

    def const(self, value: object, dtype: type = np.float32) -> str:
        name = f"c{len(self.tensors)}"
        self.tensors.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def noise(self, *shape: int) -> str:
        return self.const(self.rng.normal(size=shape))

    def add(self, op: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        out = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [out], domain=domain, **attributes))
        return out

    def then(self, op: str, *inputs: str, domain: str = "", **attributes: Any) -> None:
        self.last = self.add(op, self.last, *inputs, domain=domain, **attributes)

    def quant(self, tensor: str, bits: int = 4, **attributes: Any) -> str:
        given = (tensor, self.const(0.25), self.const(0), self.const(bits))
        return self.add("Quant", *given, domain=GENERAL, **attributes)

    def model(self, kind: int = TensorProto.FLOAT) -> ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "small",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, self.shape)],
            [helper.make_tensor_value_info(self.last, kind, None)],
            self.tensors,
        )
        opsets = [("", self.opset), (GENERAL, 1), (LAST, 1)]
        imports = [helper.make_opsetid(*opset) for opset in opsets]
        return helper.make_model(graph, opset_imports=imports, ir_version=6)


def _dense() -> ModelProto:
    m = Maker((1, 1, 4, 4), 11)
    m.last = m.quant("x")
    size = m.add("Gather", m.add("Shape", "x"), m.const(0, np.int64), axis=0)
    m.then(
        "Reshape",
        m.add("Concat", m.add("Unsqueeze", size, axes=[0]), m.const([-1], np.int64), axis=0),
    )
    weights = m.add("Transpose", m.quant(m.noise(8, 16), signed=1, narrow=1), perm=[1, 0])
    m.then("MatMul", weights)
    ones = m.const(np.full(8, 0.5))
    m.then("BatchNormalization", m.noise(8), m.noise(8), m.noise(8), ones, epsilon=1e-5)
    m.then("BipolarQuant", m.const(1.0), domain="onnx.brevitas")
    m.then("Gemm", m.quant(m.noise(3, 8)), m.noise(3), transB=1, alpha=1.0)
    root = m.add("Pow", m.add("Add", m.const([2.0]), m.const([1e-5])), m.const(0.5))
    m.then("Div", root)
    return m.model()


def _convolutional() -> ModelProto:
    m = Maker((1, 3, 8, 8), 13)
    m.last = m.quant("x", 8)
    weights = m.quant(m.noise(4, 3, 3, 3), 3, signed=1, narrow=1, rounding_mode="ROUND")
    m.then("Conv", weights, m.noise(4), kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[1, 1])
    m.then("Relu")
    m.last = m.quant(m.last, 4, signed=0, narrow=0, rounding_mode="HALF_UP")
    m.then("MaxPool", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=0)
    left, right = (m.add("Conv", m.last, m.quant(m.noise(4, 1, 1, 1)), group=4) for _ in range(2))
    m.last = m.add("Concat", m.add("Add", left, right), left, axis=1)
    m.then("Pad", m.const([0, 0, 1, 1, 0, 0, 1, 1], np.int64), m.const(0.0))
    m.then("AveragePool", kernel_shape=[2, 2], strides=[2, 2])
    m.then("Trunc", *(m.const(v) for v in (0.25, 0, 6, 4)), domain=GENERAL, rounding_mode="FLOOR")
    m.then("Resize", "", m.const([1, 1, 2, 2]), mode="nearest")
    m.then("GlobalAveragePool")
    m.then("Flatten", axis=1)
    return m.model()


def _qcdq() -> ModelProto:
    m = Maker((1, 2, 6, 6), 13)
    scale, zero = m.const(0.125), m.const(0, np.int8)
    for _ in range(2):
        m.then("QuantizeLinear", scale, zero)
        m.then("Clip", m.const(-7, np.int8), m.const(7, np.int8))
        m.then("DequantizeLinear", scale, zero)
        codes = m.const(m.rng.integers(-7, 8, (4, m.width, 3, 3)), np.int8)
        scales = m.const([0.5, 0.25, 0.125, 1])
        weights = m.add("DequantizeLinear", codes, scales, m.const([0] * 4, np.int8), axis=0)
        m.then("Conv", weights, pads=[1, 1, 1, 1])
        m.width = 4
    m.then("QuantizeLinear", scale, zero)
    m.then("DequantizeLinear", scale, zero)
    m.then("DepthToSpace", blocksize=2)
    m.then("Slice", *(m.const(v, np.int64) for v in ([0, 0], [6, 6], [2, 3], [1, 1])))
    m.then("Flatten")
    m.then("Softmax", axis=-1)
    return m.model()


def _finn() -> ModelProto:
    m = Maker((1, 6, 6, 2), 11)
    m.last = m.quant("x")
    m.then(
        "Conv",
        m.const(m.rng.integers(-3, 4, (4, 3, 3, 2))),
        domain=LAST,
        kernel_shape=[3, 3],
        pads=[1, 1, 1, 1],
        strides=[1, 1],
        dilations=[1, 1],
        group=1,
    )
    steps = m.const(np.sort(m.rng.normal(size=(4, 3))))
    m.then(
        "MultiThreshold",
        steps,
        domain=GENERAL,
        out_dtype="UINT2",
        data_layout="NHWC",
        out_scale=1.0,
        out_bias=0.0,
    )
    m.then("MaxPoolNHWC", domain=GENERAL, kernel_shape=[2, 2], pads=[0, 0, 0, 0], strides=[2, 2])
    m.then(
        "QuantAvgPool2d",
        domain=GENERAL,
        stride=1,
        kernel=3,
        ibits=2,
        obits=2,
        signed=0,
        data_layout="NHWC",
    )
    m.then("Transpose", perm=[0, 3, 1, 2])
    m.then("Reshape", m.const([1, -1], np.int64))
    m.then("ArgMax", axis=1, keepdims=0)
    return m.model()


def _computed() -> ModelProto:
    m = Maker((1, 8), 13)
    m.last = m.quant("x")
    count = m.add("Range", *(m.const(v, np.int64) for v in (0, 8, 1)))
    ramp = m.add("Cast", count, to=TensorProto.FLOAT)
    m.then("Mul", m.add("Sqrt", m.add("Expand", ramp, m.const([1, 8], np.int64))))
    shape = m.add("Slice", m.add("Shape", "x"), m.const([1], np.int64), m.const([2], np.int64))
    value = numpy_helper.from_array(np.asarray([0.5], np.float32))
    m.then("Add", m.add("ConstantOfShape", shape, value=value))
    m.then("Dropout")
    m.then("Identity")
    branch = helper.make_graph(
        [helper.make_node("Squeeze", [m.last, m.const([0], np.int64)], ["inner"])],
        "yes",
        [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)],
    )
    other = helper.make_graph(
        [helper.make_node("Identity", [m.last], ["outer"])],
        "no",
        [],
        [helper.make_tensor_value_info("outer", TensorProto.FLOAT, None)],
    )
    test = m.add("Equal", m.const(1, np.int64), m.const(2, np.int64))
    m.last = m.add("If", test, then_branch=branch, else_branch=other)
    m.last = m.add("Concat", m.last, m.last, axis=1)
    return m.model()


def _functions() -> ModelProto:
    m = Maker((1, 8), 18)
    m.last = m.quant("x")
    m.then("Twice", domain="mine")
    m.then("Add", m.noise(8))
    model = m.model()
    own = [helper.make_opsetid("", 18), helper.make_opsetid("mine", 1)]
    halves = [helper.make_node("Half", ["a"], ["b"], domain="mine")]
    halves.append(helper.make_node("Half", ["b"], ["c"], domain="mine"))
    sums = [helper.make_node("Add", ["a", "a"], ["b"])]
    model.functions.append(helper.make_function("mine", "Twice", ["a"], ["c"], halves, own))
    model.functions.append(helper.make_function("mine", "Half", ["a"], ["b"], sums, own))
    model.opset_import.append(own[1])
    return model


def _bends() -> ModelProto:
    m = Maker((1, 8), 16)
    m.last = m.quant("x")
    m.then("Sub", m.const([0.5]))
    m.then("Neg")
    m.then("Div", m.const(np.full(8, 2)))
    m.then("BatchNormalization", *(m.noise(8) for _ in range(3)), m.const(np.full(8, 0.5)))
    m.then("LeakyRelu", alpha=0.1)
    m.last = m.quant(m.last, 5)
    m.then("PRelu", m.const([0.25]))
    m.then("Clip", m.const(-1.0), m.const(1.0))
    m.last = m.quant(m.last, 3, rounding_mode="CEIL")
    m.then("Gemm", m.quant(m.noise(8, 4)), m.noise(4), transA=0, transB=0, alpha=0.5, beta=2.0)
    m.last = m.quant(m.last, 6, rounding_mode="DOWN")
    m.then("LogSoftmax", axis=1)
    return m.model()


def _windows() -> ModelProto:
    m = Maker((1, 2, 9, 9), 13)
    m.last = m.quant("x", 3)
    weights = m.quant(m.noise(4, 1, 3, 3))
    m.then("Conv", weights, group=2, dilations=[2, 2], strides=[1, 1], pads=[1, 1, 0, 0])
    m.last = m.quant(m.last)
    m.then("MaxPool", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)
    m.then("AveragePool", kernel_shape=[2, 2], strides=[1, 1], count_include_pad=1, pads=[0] * 4)
    m.last = m.quant(m.last)
    m.then("ReduceMean", axes=[2, 3], keepdims=1)
    m.then("Squeeze", m.const([2, 3], np.int64))
    m.then("Unsqueeze", m.const([2], np.int64))
    m.then("Squeeze", m.const([-1], np.int64))
    m.last = m.quant(m.last)
    m.then("MatMul", m.const(m.rng.integers(-3, 4, (4, 3))))
    given = m.last, m.const([1], np.int64)
    m.nodes.append(helper.make_node("TopK", given, ["v", "i"], axis=-1, largest=1, sorted=1))
    m.last = "i"
    return m.model(TensorProto.INT64)


def _old() -> ModelProto:
    m = Maker((1, 4, 4, 4), 9)
    m.last = m.quant("x")
    m.then("Clip", min=-1.0, max=1.0)
    m.then("Slice", starts=[0, 0], ends=[1, 2], axes=[0, 1])
    m.then("Upsample", m.const([1, 1, 2, 2]), mode="nearest")
    m.then("Pad", pads=[0, 0, 1, 1, 0, 0, 1, 1], mode="constant", value=0.0)
    weights = m.quant(m.noise(3, 2, 3, 3))
    m.then("Conv", weights, kernel_shape=[3, 3], pads=[0, 0, 0, 0])
    m.last = m.quant(m.last)
    m.then("GlobalMaxPool")
    m.then("Squeeze", axes=[2, 3])
    m.then("Unsqueeze", axes=[2])
    m.then("Flatten")
    m.then("Softmax")
    return m.model()


def _thresholds() -> ModelProto:
    m = Maker((1, 2, 6, 6), 11)
    for last in (False, True):
        steps = m.const(np.sort(m.rng.normal(size=(1 if last else 2, 3))))
        m.then("MultiThreshold", steps, domain=GENERAL, out_dtype="UINT2")
        if not last:
            m.then("Conv", m.const(m.rng.integers(-1, 2, (2, 2, 3, 3))))
    m.then("QuantAvgPool2d", domain=GENERAL, stride=2, kernel=2, ibits=2, obits=2, signed=0)
    return m.model()


def _branches() -> ModelProto:
    m = Maker((1, 4, 4, 4), 13)
    scale, zero = m.const([0.5, 0.25, 0.125, 1]), m.const([0, 1, 2, 3], np.uint8)
    m.then("QuantizeLinear", m.const(0.5), m.const(0, np.uint8))
    m.then("DequantizeLinear", m.const(0.5), m.const(0, np.uint8))
    sizes = m.const([3, 1], np.int64)
    m.nodes.append(helper.make_node("Split", [m.last, sizes], ["left", "right"], axis=1))
    m.last = m.add("Concat", "right", "left", axis=1)
    m.then("QuantizeLinear", scale, zero, axis=1)
    m.then("DequantizeLinear", scale, zero, axis=1)
    bias = m.add(
        "DequantizeLinear", m.const([1, 2, 3, 4], np.int32), m.const(0.1), m.const(0, np.int32)
    )
    m.last = m.add("Sum", m.last, m.add("Conv", m.last, m.quant(m.noise(4, 4, 1, 1)), bias))
    given = (m.const([v]) for v in (0.1, 0, 6, 0.4, 4))
    m.then("Trunc", *given, domain=GENERAL, rounding_mode="ROUND", signed=1, narrow=0)
    m.then("Transpose", perm=[0, 2, 3, 1])
    m.then("Reshape", m.const([0, -1], np.int64))
    m.then("ArgMax", axis=-1, keepdims=1, select_last_index=0)
    return m.model(TensorProto.INT64)


def _pixels() -> ModelProto:
    m = Maker((1, 8, 3, 3), 13)
    bits = m.const(np.array([2, 3, 4, 5, 2, 3, 4, 5]).reshape(1, 8, 1, 1))
    scales = m.const(np.full((1, 8, 1, 1), 0.5))
    m.then("Quant", scales, m.const(0), bits, domain=GENERAL, signed=1, narrow=1)
    m.then("Cast", to=TensorProto.FLOAT)
    m.last = m.quant(m.last, 3, rounding_mode="UP")
    m.then("DepthToSpace", blocksize=2, mode="CRD")
    modes = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    m.then("Resize", "", "", m.const([1, 2, 12, 12], np.int64), mode="nearest", **modes)
    ends = (m.const(v, np.int64) for v in ([1, 1], [9, 9], [2, 3], [2, 2]))
    m.then("Slice", *ends)
    weights = m.add("Mul", m.quant(m.noise(2, 2, 1, 1)), m.const(np.full((2, 1, 1, 1), 0.5)))
    m.then("Conv", weights)
    m.then("BipolarQuant", m.const(np.full((1, 2, 1, 1), 0.5)), domain=GENERAL)
    return m.model()


def _last_channels() -> ModelProto:
    m = Maker((1, 4, 4, 2), 13)
    m.last = m.quant("x")
    numbers = (m.noise(2), m.noise(2), m.noise(2), m.const([0.5, 0.25]))
    m.then("BatchNormalization", *numbers, domain=LAST, epsilon=1e-5)
    m.last = m.quant(m.last, 1, signed=1)
    m.then("MaxPool", domain=LAST, kernel_shape=[2, 2], strides=[2, 2])
    m.then("MatMul", m.add("Transpose", m.quant(m.noise(3, 2)), perm=[1, 0]))
    return m.model()


def _exported() -> ModelProto:
    rng = np.random.default_rng(0)
    fmt, codes = Fixed(4, 0), Fixed(4, 0, signed=False)
    weights = rng.integers(-7, 8, (3, 3, 3, 2))
    more = rng.integers(-7, 8, (4, 3 * 4))
    layers = (
        Conv(name="conv1", inputs=("input",), weights=weights, fmt=fmt),
        Requantise(
            name="act1", inputs=("conv1",), multiplier=np.array([3]), bias=np.array([1, 2, 3]),
            shift=4, fmt=codes, low=0, high=15,
        ),
        Flatten(name="flat1", inputs=("act1",)),
        Dense(name="fc1", inputs=("flat1",), weights=more, fmt=fmt),
    )  # fmt: skip
    return model_of(Network("small", Tensor((4, 4, 2), codes), layers), 1)


def models() -> dict[str, ModelProto]:
    """Return small valid models by name; between them they have most operators."""
    makers = (_dense, _convolutional, _qcdq, _finn, _computed, _functions)
    makers += (_bends, _windows, _old, _thresholds, _branches, _pixels, _last_channels, _exported)
    return {maker.__name__[1:]: maker() for maker in makers}

"""A builder of small TensorFlow Lite models of 8-bit integers, with random weights and scales."""

from math import prod
from typing import Any

import flatbuffers
import numpy as np
import tflite
from numpy.typing import NDArray

__all__ = ["SAME", "VALID", "Maker", "autoencoder", "keywords", "resnet", "wake_words"]

SAME, VALID = 0, 1
DTYPES = {"INT8": np.int8, "UINT8": np.uint8, "INT32": np.int32, "INT16": np.int16}
DTYPES |= {"FLOAT32": np.float32, "INT64": np.int64}
SPREAD = 75.0  #: Standard deviation of uniform codes, about.
OPTIONS = {
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "ADD": "AddOptions",
    "SUB": "SubOptions",
    "MUL": "MulOptions",
    "CONCATENATION": "ConcatenationOptions",
    "MEAN": "ReducerOptions",
    "RESHAPE": "ReshapeOptions",
    "SQUEEZE": "SqueezeOptions",
    "EXPAND_DIMS": "ExpandDimsOptions",
    "LEAKY_RELU": "LeakyReluOptions",
    "RESIZE_NEAREST_NEIGHBOR": "ResizeNearestNeighborOptions",
    "STRIDED_SLICE": "StridedSliceOptions",
    "SLICE": "SliceOptions",
    "SPLIT": "SplitOptions",
    "SPLIT_V": "SplitVOptions",
    "SOFTMAX": "SoftmaxOptions",
    "QUANTIZE": "QuantizeOptions",
    "DEQUANTIZE": "DequantizeOptions",
    "PAD": "PadOptions",
    "PADV2": "PadV2Options",
    "ARG_MAX": "ArgMaxOptions",
}


class Maker:
    """A model that grows by one operator at a time; tensors are indices, buffer 0 is empty."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.tensors: list[dict[str, Any]] = []
        self.buffers: list[bytes] = [b""]
        self.ops: list[tuple[str, list[int], list[int], dict[str, Any]]] = []
        self.builder = flatbuffers.Builder(1024)

    # Tensors --------------------------------------------------------------------------------------

    def tensor(
        self,
        shape: tuple[int, ...],
        dtype: str = "INT8",
        scale: Any = None,
        zero: Any = 0,
        name: str | None = None,
        axis: int = 0,
        signature: tuple[int, ...] | None = None,
    ) -> int:
        row = {"shape": shape, "dtype": dtype, "scale": scale, "zero": zero, "buffer": 0}
        row |= {"name": f"t{len(self.tensors)}" if name is None else name, "axis": axis}
        self.tensors.append(row | {"signature": signature})
        return len(self.tensors) - 1

    def constant(self, data: Any, dtype: str, **quantisation: Any) -> int:
        array = np.asarray(data, DTYPES[dtype])
        index = self.tensor(array.shape, dtype, **quantisation)
        self.buffers.append(array.tobytes())
        self.tensors[index]["buffer"] = len(self.buffers) - 1
        return index

    def codes(self, shape: tuple[int, ...], dtype: str = "INT8", **given: Any) -> int:
        """Make activations of a random scale and zero point, where none are given."""
        limits = np.iinfo(DTYPES[dtype])
        given.setdefault("scale", float(self.rng.uniform(0.01, 0.1)))
        given.setdefault("zero", int(self.rng.integers(limits.min, limits.max + 1)))
        return self.tensor(shape, dtype, **given)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.tensors[index]

    def ints(self, *values: int) -> int:
        return self.constant(values, "INT32")

    # Operators ------------------------------------------------------------------------------------

    def op(self, kind: str, inputs: list[int], output: int | list[int], **options: Any) -> int:
        outputs = output if isinstance(output, list) else [output]
        self.ops.append((kind, inputs, outputs, options))
        return outputs[0]

    def weights(
        self, shape: tuple[int, ...], axis: int, outputs: int, dtype: str, channels: bool
    ) -> int:
        codes = self.rng.integers(-127, 128, shape)
        if dtype == "UINT8":
            zero = int(self.rng.integers(100, 156))
            return self.constant(codes + 128, dtype, scale=float(self.rng.uniform(0.002, 0.02)),
                                 zero=zero)  # fmt: skip
        scale = self.rng.uniform(0.002, 0.02, outputs if channels else 1)
        return self.constant(codes, dtype, scale=scale, zero=np.zeros(len(scale), int), axis=axis)

    def product(
        self, kind: str, x: int, weights: int, shape: tuple[int, ...], taps: int, **options: Any
    ) -> int:
        """Make a product whose results fill the codes."""
        outputs, quantised = shape[-1], self[weights]
        scales = np.atleast_1d(quantised["scale"])
        scale = float(np.mean(scales)) * self[x]["scale"]
        bias = self.rng.integers(-4000, 4000, outputs)
        given = self.constant(
            bias, "INT32", scale=scales * self[x]["scale"], zero=np.zeros(len(scales), int)
        )
        result = scale * np.sqrt(taps) * SPREAD
        relu = options.get("FusedActivationFunction", 0) in {1, 3}
        dtype = self[x]["dtype"]
        low = np.iinfo(DTYPES[dtype]).min
        zero = low if relu else low + int(self.rng.integers(90, 166))
        out = self.codes(shape, dtype, scale=result, zero=zero)
        return self.op(kind, [x, weights, given], out, **options)

    def conv(
        self,
        x: int,
        outputs: int,
        kernel: tuple[int, int] = (3, 3),
        stride: tuple[int, int] = (1, 1),
        padding: int = SAME,
        activation: int = 1,
        dilation: tuple[int, int] = (1, 1),
        groups: int = 1,
        channels: bool = True,
    ) -> int:
        batch, height, width, depth = self[x]["shape"]
        w = self.weights(
            (outputs, *kernel, depth // groups), 0, outputs, self[x]["dtype"], channels
        )
        size = extents((height, width), kernel, stride, padding, dilation)
        return self.product(
            "CONV_2D", x, w, (batch, *size, outputs), prod(kernel) * depth // groups,
            Padding=padding, StrideH=stride[0], StrideW=stride[1], DilationHFactor=dilation[0],
            DilationWFactor=dilation[1], FusedActivationFunction=activation,
        )  # fmt: skip

    def depthwise(
        self,
        x: int,
        kernel: tuple[int, int] = (3, 3),
        stride: tuple[int, int] = (1, 1),
        padding: int = SAME,
        activation: int = 1,
        multiplier: int = 1,
        channels: bool = True,
    ) -> int:
        batch, height, width, depth = self[x]["shape"]
        outputs = depth * multiplier
        w = self.weights((1, *kernel, outputs), 3, outputs, self[x]["dtype"], channels)
        size = extents((height, width), kernel, stride, padding, (1, 1))
        return self.product(
            "DEPTHWISE_CONV_2D", x, w, (batch, *size, outputs), prod(kernel),
            Padding=padding, StrideH=stride[0], StrideW=stride[1], DepthMultiplier=multiplier,
            DilationHFactor=1, DilationWFactor=1, FusedActivationFunction=activation,
        )  # fmt: skip

    def dense(self, x: int, outputs: int, activation: int = 1, channels: bool = False) -> int:
        inputs = prod(self[x]["shape"][1:])
        w = self.weights((outputs, inputs), 0, outputs, self[x]["dtype"], channels)
        shape = (self[x]["shape"][0], outputs)
        return self.product(
            "FULLY_CONNECTED", x, w, shape, inputs, FusedActivationFunction=activation
        )

    def pool(
        self,
        kind: str,
        x: int,
        kernel: tuple[int, int],
        stride: tuple[int, int],
        padding: int = VALID,
        activation: int = 0,
    ) -> int:
        batch, height, width, depth = self[x]["shape"]
        size = extents((height, width), kernel, stride, padding, (1, 1))
        out = self.alike(x, (batch, *size, depth))
        return self.op(
            kind, [x], out, Padding=padding, StrideH=stride[0], StrideW=stride[1],
            FilterHeight=kernel[0], FilterWidth=kernel[1], FusedActivationFunction=activation,
        )  # fmt: skip

    def alike(self, x: int, shape: tuple[int, ...]) -> int:
        """Make activations with the scale of others."""
        row = self[x]
        return self.tensor(shape, row["dtype"], scale=row["scale"], zero=row["zero"])

    def add(self, a: int, b: int, activation: int = 0, kind: str = "ADD") -> int:
        scale = max(self[a]["scale"], self[b]["scale"]) * float(self.rng.uniform(1.0, 1.7))
        out = self.codes(self[a]["shape"], self[a]["dtype"], scale=scale,
                         **({"zero": -128} if activation else {}))  # fmt: skip
        return self.op(kind, [a, b], out, FusedActivationFunction=activation)

    def flatten(self, x: int) -> int:
        shape = self[x]["shape"]
        out = self.alike(x, (shape[0], prod(shape[1:])))
        return self.op("RESHAPE", [x, self.ints(-1, prod(shape[1:]))], out)

    def softmax(self, x: int) -> int:
        out = self.tensor(self[x]["shape"], scale=1 / 256, zero=-128)
        return self.op("SOFTMAX", [x], out, Beta=1.0)

    # The file -------------------------------------------------------------------------------------

    def vector(self, kind: str, values: Any) -> int:
        array: NDArray = np.ascontiguousarray(values, dtype=kind)
        return self.builder.CreateNumpyVector(array)

    def tables(self, offsets: list[int]) -> int:
        self.builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self.builder.PrependUOffsetTRelative(offset)
        return self.builder.EndVector()

    def table(self, name: str, **fields: Any) -> int:
        """Write a table of the schema; fields by their names there."""
        getattr(tflite, f"{name}Start")(self.builder)
        for key, value in fields.items():
            getattr(tflite, f"{name}Add{key}")(self.builder, value)
        return getattr(tflite, f"{name}End")(self.builder)

    def written(self, row: dict[str, Any]) -> int:
        fields: dict[str, Any] = {"Name": self.builder.CreateString(row["name"])}
        fields["Shape"] = self.vector("<i4", row["shape"])
        if row["signature"] is not None:
            fields["ShapeSignature"] = self.vector("<i4", row["signature"])
        if row["scale"] is not None:
            fields["Quantization"] = self.table(
                "QuantizationParameters",
                Scale=self.vector("<f4", np.atleast_1d(row["scale"])),
                ZeroPoint=self.vector("<i8", np.atleast_1d(row["zero"])),
                QuantizedDimension=row["axis"],
            )
        kind = getattr(tflite.TensorType, row["dtype"])
        return self.table("Tensor", Type=kind, Buffer=row["buffer"], **fields)

    def operator(self, number: int, kind: str, inputs: Any, outputs: Any, options: Any) -> int:
        fields = {"Inputs": self.vector("<i4", inputs), "Outputs": self.vector("<i4", outputs)}
        if kind in OPTIONS:
            name = OPTIONS[kind]
            fields["BuiltinOptions"] = self.table(name, **options)
            fields["BuiltinOptionsType"] = getattr(tflite.BuiltinOptions, name)
        return self.table("Operator", OpcodeIndex=number, **fields)

    def bytes(self, inputs: int | list[int], outputs: int | list[int]) -> bytes:
        """Write the whole file."""
        b = self.builder = flatbuffers.Builder(1024)
        buffers = []
        for contents in self.buffers:
            fields = {}
            if contents:
                fields["Data"] = self.vector("u1", np.frombuffer(contents, np.uint8))
            buffers.append(self.table("Buffer", **fields))
        kinds = list(dict.fromkeys(kind for kind, *_ in self.ops))
        codes = []
        for kind in kinds:
            number = getattr(tflite.BuiltinOperator, kind, tflite.BuiltinOperator.CUSTOM)
            fields = {"DeprecatedBuiltinCode": min(number, 127), "BuiltinCode": number}
            if number == tflite.BuiltinOperator.CUSTOM:
                fields["CustomCode"] = b.CreateString(kind)
            codes.append(self.table("OperatorCode", Version=1, **fields))
        rows = self.tables([self.written(row) for row in self.tensors])
        ops = self.tables([self.operator(kinds.index(op[0]), *op) for op in self.ops])
        ends = [self.vector("<i4", np.atleast_1d(end)) for end in (inputs, outputs)]
        graph = self.table("SubGraph", Tensors=rows, Inputs=ends[0], Outputs=ends[1], Operators=ops)
        parts = [self.tables(offsets) for offsets in (codes, [graph], buffers)]
        model = self.table(
            "Model", Version=3, OperatorCodes=parts[0], Subgraphs=parts[1], Buffers=parts[2]
        )
        b.Finish(model, b"TFL3")
        return bytes(b.Output())


def extents(
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: int,
    dilation: tuple[int, int],
) -> list[int]:
    """Rows and columns of a window's results."""
    found = []
    for n, taps, step, apart in zip(size, kernel, stride, dilation, strict=True):
        span = (taps - 1) * apart + 1
        found.append(-(-n // step) if padding == SAME else (n - span) // step + 1)
    return found


# Models of MLPerf Tiny: their layers, with random weights -----------------------------------------


def resnet(seed: int, width: int = 16, size: int = 32) -> bytes:
    """ResNet-8 for image classification."""
    m = Maker(seed)
    first = x = m.codes((1, size, size, 3), scale=1.0, zero=-128)
    x = m.conv(x, width)
    for stage in range(3):
        outputs, stride = width << stage, 2 if stage else 1
        y = m.conv(x, outputs, stride=(stride, stride))
        y = m.conv(y, outputs, activation=0)
        if stage:
            x = m.conv(x, outputs, (1, 1), (stride, stride), activation=0)
        x = m.add(x, y, activation=1)
    x = m.pool("AVERAGE_POOL_2D", x, (size // 4, size // 4), (size // 4, size // 4))
    x = m.dense(m.flatten(x), 10, activation=0)
    return m.bytes(first, m.softmax(x))


def keywords(seed: int, width: int = 64) -> bytes:
    """DS-CNN for keyword spotting."""
    m = Maker(seed)
    first = x = m.codes((1, 49, 10, 1))
    x = m.conv(x, width, (10, 4), (2, 2))
    for _ in range(4):
        x = m.conv(m.depthwise(x), width, (1, 1))
    _, height, columns, _ = m[x]["shape"]
    x = m.pool("AVERAGE_POOL_2D", x, (height, columns), (height, columns))
    x = m.dense(m.flatten(x), 12, activation=0)
    return m.bytes(first, m.softmax(x))


def wake_words(seed: int, width: int = 8, size: int = 96) -> bytes:
    """MobileNetV1 with a quarter of the channels, for visual wake words."""
    m = Maker(seed)
    first = x = m.codes((1, size, size, 3), scale=1 / 255, zero=-128)
    x = m.conv(x, width, stride=(2, 2), activation=3)
    stages = [(2, 1), (4, 2), (4, 1), (8, 2), (8, 1), (16, 2), *[(16, 1)] * 5, (32, 2), (32, 1)]
    for factor, stride in stages:
        x = m.depthwise(x, stride=(stride, stride), activation=3)
        x = m.conv(x, width * factor, (1, 1), activation=3)
    _, height, columns, _ = m[x]["shape"]
    x = m.pool("AVERAGE_POOL_2D", x, (height, columns), (height, columns))
    x = m.dense(m.flatten(x), 2, activation=0)
    return m.bytes(first, m.softmax(x))


def autoencoder(seed: int, width: int = 128, inputs: int = 640) -> bytes:
    """AD08, the autoencoder of dense layers for anomaly detection."""
    m = Maker(seed)
    first = x = m.codes((1, inputs))
    for outputs in (*[width] * 4, 8, *[width] * 4):
        x = m.dense(x, outputs)
    return m.bytes(first, m.dense(x, inputs, activation=0))

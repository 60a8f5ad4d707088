"""Layers that are made of the operators of a TensorFlow Lite model, and what they are made of."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from brambling.errors import ConfigError, FileProblem, UnsupportedLayer
from brambling.network import INPUT, Layer, Table, Tensor
from brambling.quant.formats import Fixed
from brambling.quant.forms import Steps, smallest
from brambling.quant.interchange.tflite_arithmetic import (
    Multiplier,
    Ratio,
    activation_range,
    steps_of,
)
from brambling.quant.interchange.tflite_reader import Model, Operator, TensorInfo

__all__ = ["FORMATS", "Affine", "Lowering", "Padding", "Value", "frame_shape", "unsupported"]

FORMATS = {"INT8": Fixed(8), "UINT8": Fixed(8, 0, signed=False)}
Function = Callable[[NDArray[np.int64]], NDArray[np.int64]]


def unsupported(what: object, attribute: str, value: object, remedy: str) -> UnsupportedLayer:
    """Error for an operator that has no layer; ``remedy`` is the nearest that has."""
    return UnsupportedLayer(f"{what}: {attribute} cannot be {value}: {remedy}")


def frame_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of a frame, channels last, without the batch; a sequence is an image of one row."""
    return (1, *shape[1:]) if len(shape) == 3 else shape[1:]


def bare(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape without leading ones: an image of one pixel is a vector."""
    while len(shape) > 1 and shape[0] == 1:
        shape = shape[1:]
    return shape


@dataclass(frozen=True, slots=True)
class Affine:
    """What codes stand for: ``scale * (code - zero_point)``.

    Parameters
    ----------
    scale
        A single-precision number.
    zero_point
        Code that stands for 0.
    dtype
        ``"int8"`` or ``"uint8"``.
    shape
        In the file, with the batch.
    """

    scale: float
    zero_point: int
    dtype: str
    shape: tuple[int, ...]

    @property
    def fmt(self) -> Fixed:
        return FORMATS[self.dtype.upper()]

    @classmethod
    def of(cls, info: TensorInfo) -> "Affine":
        """Look at a tensor of activations, which must be of 8 bits with one scale."""
        if info.dtype not in FORMATS:
            raise unsupported(info, "type", info.dtype.lower(), "quantise it to int8")
        if info.quantisation is None:
            raise unsupported(info, "scale", "absent", "quantise it to int8")
        if len(info.quantisation.scales) != 1:
            count = len(info.quantisation.scales)
            raise unsupported(info, "scales", f"{count} of an activation", "use one scale")
        scale, zero = (
            float(info.quantisation.scales[0]),
            int(info.quantisation.zero_points[0]),
        )
        fmt = FORMATS[info.dtype]
        if not fmt.min <= zero <= fmt.max:
            raise FileProblem(f"{info}: zero point must be {fmt.min} to {fmt.max}, not {zero}")
        return cls(scale, zero, info.dtype.lower(), info.shape)


@dataclass(frozen=True, slots=True)
class Padding:
    """Pixels around an image that its reader is to add: rows above and below, columns; a code."""

    sides: tuple[int, int, int, int]
    value: int

    def __bool__(self) -> bool:
        return any(self.sides)


@dataclass(frozen=True, slots=True)
class Value:
    """What is known of a tensor of the model: the edge that holds its codes, and their meaning."""

    edge: str
    tensor: Tensor
    affine: Affine
    padding: Padding | None = None


class Lowering:
    """Layers so far, and the value of each tensor of the model that has one.

    Names are a kind and a number, in the order of the model: ``conv1``, ``act1``, ``pool1``, ….
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self.layers: dict[str, Layer] = {}
        self.tensors: dict[str, Tensor] = {}
        self.values: dict[int, Value] = {}
        self.counts: dict[str, int] = {}
        self.rows = 0  # Outputs of products so far; each takes the memory of its levels.

    def start(self, index: int, shape: tuple[int, ...]) -> None:
        """Make a tensor of the model the input of the network."""
        affine = Affine.of(self.model.tensors[index])
        self.tensors[INPUT] = Tensor(shape, affine.fmt)
        self.values[index] = Value(INPUT, self.tensors[INPUT], affine)

    def name(self, kind: str) -> str:
        """Return the next name of that kind."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        return f"{kind}{self.counts[kind]}"

    def add(self, layer: Layer) -> str:
        """Add a layer and infer its output; returns its edge."""
        self.tensors[layer.name] = layer.output(*(self.tensors[name] for name in layer.inputs))
        self.layers[layer.name] = layer
        return layer.name

    # Operands -------------------------------------------------------------------------------------

    def info(self, op: Operator, place: int) -> TensorInfo:
        """Tensor of an operand that must be given."""
        if place >= len(op.inputs) or op.inputs[place] < 0:
            raise FileProblem(
                f"{self.model.path}: {op}: must have {place + 1} inputs or more, "
                f"not {len(op.inputs)}"
            )
        return self.model.tensors[op.inputs[place]]

    def value(self, op: Operator, place: int = 0, *, padded: bool = False) -> Value:
        """Operand that is computed."""
        info = self.info(op, place)
        if info.constant:
            raise unsupported(op, f"input {place}", "a constant", "let the converter fold it")
        found = self.values[info.index]
        if found.padding and not padded:
            remedy = "pad in front of a convolution or a pooling only"
            raise unsupported(op, "input", "padded", remedy)
        return found

    def constant(self, op: Operator, place: int) -> NDArray:
        """Operand that is known."""
        info = self.info(op, place)
        if info.sparse:
            raise unsupported(op, f"input {place}", "sparse", "convert without sparsity")
        if info.data is None:
            value = info.dtype.lower() if info.constant else "computed"
            raise unsupported(op, f"input {place}", value, "use a constant of 8 or 32 bits")
        return info.data

    def integers(self, op: Operator, place: int) -> list[int]:
        """Operand that is a short list of known integers."""
        data = self.constant(op, place)
        if data.size > 16:
            raise FileProblem(
                f"{self.model.path}: {op}: input {place} must be at most 16 integers, "
                f"not {data.size:,}"
            )
        return [int(n) for n in data.reshape(-1)]

    def result(self, op: Operator, place: int = 0) -> Affine:
        """Return what the codes of a result stand for."""
        return Affine.of(self.output(op, place))

    def output(self, op: Operator, place: int = 0) -> TensorInfo:
        if place >= len(op.outputs):
            raise FileProblem(
                f"{self.model.path}: {op}: must have {place + 1} outputs or more, "
                f"not {len(op.outputs)}"
            )
        return self.model.tensors[op.outputs[place]]

    def finish(
        self, op: Operator, edge: str, place: int = 0, padding: Padding | None = None
    ) -> None:
        """Give a result of an operator the edge that holds it."""
        info, tensor, affine = self.output(op, place), self.tensors[edge], self.result(op, place)
        shape = tensor.shape
        if padding is not None:
            top, bottom, left, right = padding.sides
            height, width, channels = shape
            shape = (height + top + bottom, width + left + right, channels)
        if bare(frame_shape(info.shape)) != bare(shape):
            raise FileProblem(
                f"{self.model.path}: {op}: makes frames of {shape}, but {info} is {info.shape}"
            )
        if tensor.fmt != affine.fmt:
            raise FileProblem(
                f"{self.model.path}: {op}: makes codes of {tensor.fmt}, but {info} is "
                f"{affine.dtype}"
            )
        self.values[info.index] = Value(edge, tensor, affine, padding)

    # Activations ----------------------------------------------------------------------------------

    def activated(
        self,
        op: Operator,
        edge: str,
        bounds: tuple[NDArray[np.int64], NDArray[np.int64]],
        function: Function,
        slopes: NDArray[np.float64],
        activation: int = 0,
    ) -> str:
        """Add the smallest layer that is exactly a rising function of the integers of an edge."""
        affine = self.result(op)
        codes = self.range(op, affine, activation)
        x = self.tensors[edge]
        return self.step(steps_of(x, bounds, function, codes, affine.fmt, slopes), edge)

    def step(self, steps: Steps, edge: str) -> str:
        layer = smallest(self.name("act"), edge, steps)
        assert layer is not None, "codes of 8 bits always have thresholds"
        return self.add(layer)

    def range(self, op: Operator, affine: Affine, activation: int) -> tuple[int, int]:
        """Codes that a fused activation lets through."""
        if activation not in {0, 1, 2, 3}:
            raise unsupported(op, "activation", activation, "use none, RELU, RELU6, RELU_N1_TO_1")
        low, high = activation_range(activation, affine.scale, affine.zero_point, affine.fmt)
        if low > high:
            raise ConfigError(f"{op}: its activation must leave a code, not {low} to {high}")
        return low, high

    def coded(
        self,
        op: Operator,
        x: Value,
        function: Function,
        slopes: NDArray[np.float64] | None = None,
        activation: int = 0,
    ) -> str:
        """Add a function of one code, for each channel or for all alike; none where it is x.

        Parameters
        ----------
        function
            From codes ``(1 or channels, n)``; its results are clamped here.
        slopes
            About how far results move for each code; ``None`` where a table is to be made.
        """
        affine, fmt = self.result(op), x.affine.fmt
        low, high = self.range(op, affine, activation)
        codes = np.arange(fmt.min, fmt.max + 1)[np.newaxis]
        entries = np.clip(function(codes), low, high)
        if affine.fmt == fmt and (entries == codes).all():
            return x.edge
        rise = np.diff(entries, axis=1)
        rising, falling = (rise >= 0).all(axis=1), (rise <= 0).all(axis=1)
        if slopes is not None and (rising | falling).all():
            bounds = np.full(len(entries), fmt.min), np.full(len(entries), fmt.max)
            turn = np.asarray(falling & ~rising)
            return self.step(
                steps_of(x.tensor, bounds, function, (low, high), affine.fmt, slopes, turn), x.edge
            )
        if len(entries) > 1:
            raise unsupported(op, "function", "neither rising nor falling", "use one scale")
        name = self.name("act")
        return self.add(Table(name=name, inputs=(x.edge,), entries=entries[0], fmt=affine.fmt))

    def in_sums(
        self,
        op: Operator,
        factor: Multiplier | Ratio,
        low: NDArray[np.int64],
        high: NDArray[np.int64],
    ) -> None:
        """Refuse what leaves the kernels' 32-bit integers, in which they are not defined."""
        if not factor.fits(low, high):
            raise ConfigError(
                f"{op}: sums must stay within 32 bits, as the kernel's do, not {int(low.min()):,} "
                f"to {int(high.max()):,} by {float(factor.reals.max()):g}: use larger scales"
            )

"""TensorFlow Lite files as plain data: operators, tensors, and their quantisation.

The accessors that FlatBuffers generates check nothing: every offset and every length is what the
file says. So nothing is allocated by a number of the file before it was compared with the bytes
that there are, counts are bounded, and whatever an accessor trips over is one
:class:`~brambling.errors.FileProblem`.
"""

import os
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brambling.errors import FileProblem, ToolProblem

__all__ = ["Model", "Operator", "Quantisation", "TensorInfo", "read_model"]

LARGEST_FILE = 1 << 31  #: Offsets in a FlatBuffer have 31 bits.
MOST_TABLES = 1 << 12  #: Operators, tensors, or buffers.
MOST_OPERANDS = 64  #: Inputs or outputs of an operator, dimensions of a tensor.
MOST_CHANNELS = 1 << 12  #: Outputs of a layer: bounds the memory that levels take.
MOST_ROWS = 1 << 16  #: Outputs of all layers.
NAME = 256  #: Bytes of a name that are kept.
#: NumPy's types of the tensors whose contents are looked at.
DTYPES = {"INT8": np.int8, "UINT8": np.uint8, "INT32": np.int32, "INT64": np.int64}
#: What each operator's options are called, of those that matter here.
WINDOW = ("padding", "stride_h", "stride_w", "fused_activation_function")
DILATION = ("dilation_h_factor", "dilation_w_factor")
OPTIONS = {
    "CONV_2D": ("Conv2DOptions", (*WINDOW, *DILATION)),
    "DEPTHWISE_CONV_2D": ("DepthwiseConv2DOptions", (*WINDOW, *DILATION)),
    "FULLY_CONNECTED": (
        "FullyConnectedOptions",
        ("fused_activation_function", "weights_format", "keep_num_dims"),
    ),
    "AVERAGE_POOL_2D": ("Pool2DOptions", (*WINDOW, "filter_height", "filter_width")),
    "MAX_POOL_2D": ("Pool2DOptions", (*WINDOW, "filter_height", "filter_width")),
    "ADD": ("AddOptions", ("fused_activation_function",)),
    "SUB": ("SubOptions", ("fused_activation_function",)),
    "MUL": ("MulOptions", ("fused_activation_function",)),
    "CONCATENATION": ("ConcatenationOptions", ("axis", "fused_activation_function")),
    "MEAN": ("ReducerOptions", ("keep_dims",)),
    "LEAKY_RELU": ("LeakyReluOptions", ("alpha",)),
    "RESIZE_NEAREST_NEIGHBOR": (
        "ResizeNearestNeighborOptions",
        ("align_corners", "half_pixel_centers"),
    ),
    "STRIDED_SLICE": (
        "StridedSliceOptions",
        ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask"),
    ),
}
#: What the generated accessors raise on damaged data.
DAMAGE = (
    struct.error,
    ValueError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    AttributeError,
    MemoryError,
)


@dataclass(frozen=True, eq=False, slots=True)
class Quantisation:
    """Real values of codes: ``scale * (code - zero_point)``, for each channel or for all alike.

    Parameters
    ----------
    scales
        Single-precision numbers, ``(channels,)`` or ``(1,)``, finite and above 0.
    zero_points
        Codes, as many as scales, or one.
    axis
        Dimension of the channels.
    """

    scales: NDArray[np.float32]
    zero_points: NDArray[np.int64]
    axis: int


@dataclass(frozen=True, eq=False, slots=True)
class TensorInfo:
    """A tensor of the file.

    Parameters
    ----------
    index
        Place in the file's list; the interpreter's name for it.
    name
        As in the file; may be empty, or another tensor's too.
    shape, signature
        Dimensions, and the same with -1 where one is not fixed.
    dtype
        ``"INT8"``, ``"FLOAT32"``, …
    quantisation
        ``None`` where it has none.
    data
        What a constant holds; ``None`` for what is computed. Read-only, a part of the file.
    sparse
        Whether a constant is stored in a compressed form.
    """

    index: int
    name: str
    shape: tuple[int, ...]
    signature: tuple[int, ...]
    dtype: str
    quantisation: Quantisation | None
    data: NDArray | None = field(repr=False, default=None)
    sparse: bool = False
    constant: bool = False

    def __str__(self) -> str:
        return f"tensor {self.index} ({self.name!r})" if self.name else f"tensor {self.index}"


@dataclass(frozen=True, slots=True)
class Operator:
    """An operator: its kind, such as ``"CONV_2D"``, and the tensors; -1 where one is not given."""

    index: int
    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, Any]

    def __str__(self) -> str:
        return f"operator {self.index} ({self.kind})"


@dataclass(frozen=True, eq=False, slots=True)
class Model:
    """The first and only subgraph of a file; operators in an order in which they can run."""

    path: Path
    operators: tuple[Operator, ...]
    tensors: tuple[TensorInfo, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def read_model(path: str | os.PathLike[str]) -> Model:
    """Read a ``.tflite`` file; :class:`FileProblem` for anything else."""
    path = Path(path)
    contents = contents_of(path)
    try:
        import tflite
    except ImportError:
        raise ToolProblem(
            f"{path}: reading it needs the package tflite, which is not installed: "
            "pip install tflite"
        ) from None
    if len(contents) < 8 or contents[4:8] != b"TFL3":
        raise FileProblem(f"{path}: not a TensorFlow Lite file: bytes 4 to 7 must be b'TFL3', "
                          f"not {contents[4:8]!r}")  # fmt: skip
    try:
        return Reader(tflite, path, contents).model()
    except DAMAGE as error:
        raise FileProblem(
            f"{path}: not a whole TensorFlow Lite file ({type(error).__name__}: "
            f"{' '.join(str(error).split())})"
        ) from None


def contents_of(path: Path) -> bytes:
    """Return the bytes of a file that may be a FlatBuffer."""
    if not path.is_file():
        raise FileProblem(f"{path}: no such file")
    try:
        size = path.stat().st_size
        if size >= LARGEST_FILE:
            raise FileProblem(f"{path}: a TensorFlow Lite file has less than 2 GiB, not {size:,}")
        return path.read_bytes()
    except OSError as error:
        raise FileProblem(f"{path}: cannot be read ({error.strerror})") from None


class Reader:
    """Reads one file by the accessors of the schema package."""

    def __init__(self, schema: Any, path: Path, contents: bytes) -> None:
        self.schema, self.path, self.contents = schema, path, contents
        self.root = schema.Model.GetRootAs(contents, 0)
        self.types = {
            code: name for name, code in vars(schema.TensorType).items() if name.isupper()
        }

    def problem(self, text: str) -> FileProblem:
        return FileProblem(f"{self.path}: {text}")

    def counted(self, what: str, count: int, most: int) -> None:
        """Refuse a vector that claims too many elements."""
        if count > most:
            raise self.problem(f"{what}: must be at most {most:,}, not {count:,}")

    def vector(self, what: str, table: Any, field: str, most: int = MOST_OPERANDS) -> list[Any]:
        """Return a vector of numbers or of tables."""
        count, get = getattr(table, f"{field}Length")(), getattr(table, field)
        self.counted(what, count, most)
        return [get(n) for n in range(count)]

    def numbers(self, what: str, table: Any, field: str) -> NDArray:
        """Return a vector of numbers as an array, a part of the file."""
        count = getattr(table, f"{field}Length")()
        if not count:
            return np.zeros(0)
        if count > len(self.contents):
            raise self.problem(f"{what}: claims {count:,} elements in {len(self.contents):,} bytes")
        return getattr(table, f"{field}AsNumpy")()

    def model(self) -> Model:
        if self.root.Version() != 3:
            raise self.problem(f"schema version must be 3, not {self.root.Version()}")
        graphs = self.root.SubgraphsLength()
        if graphs != 1:
            raise self.problem(
                f"must hold 1 subgraph, not {graphs:,}: convert a model without control flow"
            )
        graph = self.root.Subgraphs(0)
        buffers = self.vector("buffers", self.root, "Buffers", MOST_TABLES)
        rows = self.vector("tensors", graph, "Tensors", MOST_TABLES)
        tensors = tuple(self.tensor(n, row, buffers) for n, row in enumerate(rows))
        codes = self.vector("operator codes", self.root, "OperatorCodes", MOST_TABLES)
        kinds = [self.kind(code) for code in codes]
        rows = self.vector("operators", graph, "Operators", MOST_TABLES)
        operators = tuple(self.operator(n, row, kinds, tensors) for n, row in enumerate(rows))
        ends = [
            self.places(f"the graph's {key.lower()}", graph, key, len(tensors), least=0)
            for key in ("Inputs", "Outputs")
        ]
        return Model(self.path, operators, tensors, ends[0], ends[1])

    def places(
        self, what: str, table: Any, field: str, count: int, least: int = -1
    ) -> tuple[int, ...]:
        """Read indices of tensors; refuse those that there are not."""
        found = tuple(int(n) for n in self.vector(what, table, field))
        for n in found:
            if not least <= n < count:
                raise self.problem(f"{what}: must be tensors below {count}, not {n}")
        return found

    # Tensors --------------------------------------------------------------------------------------

    def tensor(self, index: int, row: Any, buffers: list[Any]) -> TensorInfo:
        name = (row.Name() or b"")[:NAME].decode("utf-8", "replace")
        what = f"tensor {index} ({name!r})"
        shape = tuple(int(n) for n in self.vector(f"{what}: dimensions", row, "Shape"))
        signature = tuple(int(n) for n in self.vector(f"{what}: signature", row, "ShapeSignature"))
        if any(n < 0 for n in shape) or (signature and len(signature) != len(shape)):
            raise self.problem(f"{what}: shape must be of numbers from 0, not {shape}")
        if row.Type() not in self.types:
            raise self.problem(f"{what}: type must be one of the schema's, not {row.Type()}")
        dtype = self.types[row.Type()]
        if not 0 <= row.Buffer() < len(buffers):
            raise self.problem(f"{what}: buffer must be below {len(buffers)}, not {row.Buffer()}")
        buffer, sparse = buffers[row.Buffer()], row.Sparsity() is not None
        if buffer.Offset() > 1 or buffer.Size() > 1:
            raise self.problem(f"{what}: its contents must lie in the FlatBuffer, not behind it")
        stored = row.Buffer() > 0 and buffer.DataLength() > 0
        data = self.data(what, buffer, shape, dtype) if stored and not sparse else None
        return TensorInfo(
            index,
            name,
            shape,
            signature or shape,
            dtype,
            self.quantisation(what, row.Quantization()),
            data,
            sparse,
            stored,
        )

    def data(self, what: str, buffer: Any, shape: tuple[int, ...], dtype: str) -> NDArray | None:
        """Contents of a constant; ``None`` where its type is not looked at."""
        if dtype not in DTYPES:
            return None
        raw = self.numbers(what, buffer, "Data")
        kind = np.dtype(DTYPES[dtype]).newbyteorder("<")
        size = prod(shape) * kind.itemsize
        if size != len(raw):
            raise self.problem(f"{what}: {dtype.lower()} of shape {shape} takes {size:,} bytes, "
                               f"but it holds {len(raw):,}")  # fmt: skip
        return raw.view(kind).reshape(shape)

    def quantisation(self, what: str, row: Any) -> Quantisation | None:
        if row is None or not row.ScaleLength():
            return None
        self.counted(f"{what}: scales", row.ScaleLength(), MOST_CHANNELS)
        scales = self.numbers(f"{what}: scales", row, "Scale")
        wrong = scales[~(np.isfinite(scales) & (scales > 0))]
        if len(wrong):
            raise self.problem(f"{what}: scale must be a number above 0, not {wrong[0]}")
        if row.ZeroPointLength() not in {0, 1, len(scales)}:
            raise self.problem(
                f"{what}: must have a zero point for each of {len(scales)} scales, "
                f"not {row.ZeroPointLength():,}"
            )
        zeros = self.numbers(f"{what}: zero points", row, "ZeroPoint")
        zeros = zeros if len(zeros) else np.zeros(1, np.int64)
        return Quantisation(scales, zeros, int(row.QuantizedDimension()))

    # Operators ------------------------------------------------------------------------------------

    def kind(self, code: Any) -> str:
        """Name of an operator; old files have its number in another field, as a byte."""
        number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        name = self.schema.utils.BUILTIN_OPCODE2NAME.get(number)
        if name is None:
            raise self.problem(f"operator code must be one of the schema's, not {number}")
        if name == "CUSTOM":
            return f"CUSTOM {(code.CustomCode() or b'')[:NAME].decode('utf-8', 'replace')!r}"
        return name

    def operator(
        self, index: int, row: Any, kinds: list[str], tensors: tuple[TensorInfo, ...]
    ) -> Operator:
        if not 0 <= row.OpcodeIndex() < len(kinds):
            raise self.problem(
                f"operator {index}: code must be below {len(kinds)}, not {row.OpcodeIndex()}"
            )
        kind = kinds[row.OpcodeIndex()]
        what = f"operator {index} ({kind})"
        inputs = self.places(f"{what}: inputs", row, "Inputs", len(tensors))
        outputs = self.places(f"{what}: outputs", row, "Outputs", len(tensors), least=0)
        return Operator(index, kind, inputs, outputs, dict(self.options(what, kind, row)))

    def options(self, what: str, kind: str, row: Any) -> Iterator[tuple[str, Any]]:
        """Options of an operator, by the schema's names; its defaults where there are none."""
        if kind not in OPTIONS:
            return
        name, fields = OPTIONS[kind]
        table = row.BuiltinOptions()
        wanted = getattr(self.schema.BuiltinOptions, name)
        if table is None or row.BuiltinOptionsType() != wanted:
            raise self.problem(f"{what}: must have {name}, not type {row.BuiltinOptionsType()}")
        options = getattr(self.schema, name)()
        options.Init(table.Bytes, table.Pos)
        for key in fields:
            accessor: Callable[[], Any] = getattr(options, key.title().replace("_", ""))
            yield key, accessor()

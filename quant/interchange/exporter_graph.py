"""What an exported model is put together from: values, constants and nodes, layer by layer."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from onnx import GraphProto, NodeProto, TensorAnnotation, TensorProto, ValueInfoProto, helper
from onnx import numpy_helper as arrays

from brambling.errors import ConfigError
from brambling.quant.formats import Bipolar, Format, Ternary

__all__ = ["DOMAIN", "Builder", "Kind", "Value", "datatype", "holding", "reach", "wider"]

DOMAIN = "qonnx.custom_op.general"  #: Of QONNX's operators.
CUSTOM = {"Quant", "BipolarQuant", "MultiThreshold"}  #: Those of its operators that are used.


class Kind(Enum):
    """Type of a tensor's elements: integers, in the narrowest type that holds them exactly."""

    FLOAT = "float32"
    DOUBLE = "float64"
    INT = "int64"
    BOOL = "bool"

    @property
    def onnx(self) -> int:
        """Number of the type in ONNX."""
        return helper.np_dtype_to_tensor_dtype(np.dtype(self.value))

    @property
    def limit(self) -> int:
        """Every integer of at most this magnitude is exact."""
        return {Kind.FLOAT: 1 << 24, Kind.DOUBLE: 1 << 53}.get(self, (1 << 63) - 1)


def holding(largest: int) -> Kind:
    """Return the kind for integers of at most that magnitude; QONNX's own is float32."""
    return next((kind for kind in (Kind.FLOAT, Kind.DOUBLE) if largest <= kind.limit), Kind.INT)


def wider(one: Kind, other: Kind) -> Kind:
    """Return the kind of the two that holds larger integers."""
    return max(one, other, key=lambda kind: kind.limit)


def reach(fmt: Format) -> int:
    """Largest magnitude of a format's codes."""
    return max(-fmt.min, fmt.max)


def datatype(fmt: Format) -> str:
    """Return QONNX's name of the codes; it says nothing of the radix point."""
    if fmt in {Bipolar(), Ternary()}:
        return str(fmt).upper()
    if not fmt.signed:
        return f"UINT{fmt.width}" if fmt.width > 1 else "BINARY"
    return f"INT{fmt.width}"


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor; the batch is the first number of its shape, channels the second."""

    name: str
    kind: Kind
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Made:
    """A node, and what it makes."""

    op: str
    inputs: tuple[str, ...]
    value: Value
    attributes: dict[str, Any]


@dataclass
class Builder:
    """Collects nodes and constants; their names begin with the layer that they belong to.

    Parameters
    ----------
    room
        How many nodes and elements of constants there may be in all; ``None``: any number.
    """

    room: int | None = None
    layer: str = ""
    constants: dict[str, NDArray] = field(default_factory=dict)
    _nodes: list[_Made] = field(default_factory=list)
    _datatypes: dict[str, str] = field(default_factory=dict)
    _uses: dict[str, int] = field(default_factory=dict)

    def check_room(self, count: int) -> None:
        """Refuse what there is no room for, before it is made."""
        if self.room is not None and count > self.room:
            raise ConfigError(f"{self.layer}: needs more nodes or constants than there may be")

    def _spend(self, count: int) -> None:
        self.check_room(count)
        if self.room is not None:
            self.room -= count

    def constant(self, what: str, values: ArrayLike, kind: Kind = Kind.INT) -> str:
        """Add a constant of the layer; return its name."""
        array = np.asarray(values).astype(kind.value)
        self._spend(array.size)
        name = self._free(what)
        self.constants[name] = array
        return name

    def node(
        self,
        op: str,
        value: Value,
        *operands: str,
        kind: Kind | None = None,
        shape: Iterable[int] | None = None,
        **attributes: Any,
    ) -> Value:
        """Add a node that reads ``value`` and ``operands``; as ``value`` where not said else."""
        self._spend(1)
        made = Value(
            self._free(op.lower()),
            kind or value.kind,
            value.shape if shape is None else tuple(shape),
        )
        self._nodes.append(_Made(op, (value.name, *operands), made, attributes))
        return made

    def _free(self, what: str) -> str:
        name = f"{self.layer}.{what}"
        self._uses[name] = count = self._uses.get(name, 0) + 1
        return f"{name}{count}" if count > 1 else name

    def cast(self, value: Value, kind: Kind) -> Value:
        """Give ``value`` another type, where it has not got it."""
        if value.kind is kind:
            return value
        return self.node("Cast", value, kind=kind, to=kind.onnx)

    def scaled(self, value: Value, factor: float | NDArray, what: str = "factor") -> Value:
        """Multiply by a constant, unless that is 1."""
        if np.all(np.asarray(factor) == 1):
            return value
        return self.node("Mul", value, self.constant(what, factor, value.kind))

    def offset(self, value: Value, addend: float | NDArray, what: str = "addend") -> Value:
        """Add a constant, unless that is 0."""
        if not np.any(addend):
            return value
        return self.node("Add", value, self.constant(what, addend, value.kind))

    def reshaped(self, value: Value, *shape: int) -> Value:
        """Reshape, whatever the batch is."""
        wanted = self.constant("shape", [0, *shape])
        return self.node("Reshape", value, wanted, shape=(value.shape[0], *shape))

    def clipped(self, value: Value, low: int, high: int) -> Value:
        """Limit to ``low`` and ``high``."""
        ends = (self.constant("low", low, value.kind), self.constant("high", high, value.kind))
        return self.node("Clip", value, *ends)

    def quantised(self, value: Value, what: str, fmt: Format, mode: str = "ROUND") -> Value:
        """Round and saturate to the codes of ``fmt``; QONNX returns float32."""
        one = self.constant(f"{what}_scale", 1, Kind.FLOAT)
        if fmt == Bipolar():
            return self.node("BipolarQuant", value, one)
        zero = self.constant(f"{what}_zero_point", 0, Kind.FLOAT)
        bits = self.constant(f"{what}_bits", fmt.width, Kind.FLOAT)
        options: dict[str, Any] = {"signed": int(fmt.signed), "narrow": int(fmt == Ternary())}
        return self.node(
            "Quant", value, one, zero, bits, kind=Kind.FLOAT, rounding_mode=mode, **options
        )

    def constants_of(self, layer: str) -> dict[str, NDArray]:
        """Return the constants of a layer, by their names without the layer's."""
        prefix = f"{layer}."
        return {
            name.removeprefix(prefix): array
            for name, array in self.constants.items()
            if name.startswith(prefix)
        }

    def annotate(self, name: str, fmt: Format) -> None:
        """Say which codes a tensor holds."""
        self._datatypes[name] = datatype(fmt)

    def finish(self, value: Value) -> Value:
        """Give the layer's result, which the last node has made, the layer's name."""
        assert self._nodes
        assert self._nodes[-1].value == value
        named = replace(value, name=self.layer)
        self._nodes[-1] = replace(self._nodes[-1], value=named)
        return named

    def graph(self, name: str, given: Value, result: Value) -> GraphProto:
        """Return everything as ONNX has it, from ``given`` to ``result``."""
        made = [node.value for node in self._nodes if node.value != result]
        annotations = []
        for tensor, code in self._datatypes.items():
            entry = TensorAnnotation(tensor_name=tensor)
            entry.quant_parameter_tensor_names.add(key="finn_datatype", value=code)
            annotations.append(entry)
        graph = helper.make_graph(
            [_node(node) for node in self._nodes],
            name,
            [_info(given)],
            [_info(result)],
            [_initialiser(key, array) for key, array in self.constants.items()],
            value_info=[_info(value) for value in made],
        )
        graph.quantization_annotation.extend(annotations)
        return graph


def _node(made: _Made) -> NodeProto:
    domain = DOMAIN if made.op in CUSTOM else ""
    name = made.value.name
    return helper.make_node(made.op, made.inputs, [name], name, domain=domain, **made.attributes)


def _info(value: Value) -> ValueInfoProto:
    return helper.make_tensor_value_info(value.name, value.kind.onnx, value.shape)


def _initialiser(name: str, array: NDArray) -> TensorProto:
    return arrays.from_array(np.ascontiguousarray(array).reshape(array.shape), name)

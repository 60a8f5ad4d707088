"""One walk over a file's nodes: constants are computed, shapes found, empty nodes dropped."""

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import AttributeProto, NodeProto, TypeProto

from brambling.errors import BramblingError, ConfigError, FileProblem
from brambling.quant.interchange import inference
from brambling.quant.interchange.executor import compute
from brambling.quant.interchange.graph import QONNX, Node
from brambling.quant.interchange.limits import MAX_FOLDED, MAX_WORK, check_shape
from brambling.quant.interchange.structure import in_order, normalised, reads
from brambling.quant.interchange.tensors import load
from brambling.quant.interchange.trial import HEAVY

__all__ = ["Walk"]

_QUANTISERS = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"})
_RANDOM = frozenset({"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike"})
_RANDOM |= {"Multinomial", "Bernoulli"}
_VALUES = {"value_float": np.float32, "value_floats": np.float32}
_VALUES |= {"value_int": np.int64, "value_ints": np.int64}


@dataclass
class Walk:
    """What is known of a file's tensors, node after node.

    Parameters
    ----------
    name
        Of the model, for messages.
    versions
        Of the operator sets, by domain.
    folder
        That external data must be in.
    batch
        That the file says, where it says one; all is computed for a batch of one.
    constants, types
        By tensor; to begin with, of the initialisers and the input.
    """

    name: str
    versions: Mapping[str, int]
    folder: Path | None
    batch: int
    constants: dict[str, NDArray]
    types: dict[str, TypeProto]
    live: set[str]
    nodes: list[tuple[Node, NodeProto]] = field(default_factory=list)
    alias: dict[str, str] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    names: set[str] = field(default_factory=set)
    folded: int = 0

    def run(self, nodes: Sequence[NodeProto], outputs: Sequence[str]) -> None:
        """Take the nodes, which are in order."""
        used = Counter(outputs) + Counter(name for node in nodes for name in reads(node))
        self.seen |= {*self.types}
        self.names |= {node.name for node in nodes}
        pending = deque(nodes)
        while pending:
            node = pending.popleft()
            for index, name in enumerate(node.input):
                node.input[index] = self.alias.get(name, name)
            where = f"{self.name}: {node.name} ({node.op_type})"
            if (inlined := self._branch(node, where)) is not None:
                used.update(name for inner in inlined for name in reads(inner))
                pending.extendleft(reversed(inlined))
                continue
            self.seen.update(node.output)
            if self._is_empty(node, used):
                self.alias[node.output[0]] = node.input[0]
            else:
                self._take(node, where)

    def _is_empty(self, node: NodeProto, used: Mapping[str, int]) -> bool:
        """Whether a node hands its input on as it is."""
        if not node.input or not node.output:
            return False
        if node.domain == QONNX:
            return node.op_type == "DebugMarker"
        if node.domain or node.op_type not in {"Identity", "Dropout"}:
            return False
        training = node.input[2] if len(node.input) > 2 else ""
        switched = training and bool(np.any(self.constants.get(training, True)))
        return not switched and not any(used.get(name) for name in node.output[1:])

    def _take(self, node: NodeProto, where: str) -> None:
        attributes = _attributes(node, where, self.folder)
        version = max(1, self.versions.get(node.domain, 1))
        if node.domain == QONNX and node.op_type == "Trunc":
            version = 2 if len(node.input) == 6 else 1  # the domain's three names may differ in it
        try:
            inference.check_attributes(node, attributes)
            if self._shape_taken(node, attributes):
                return
            self._fit_batch(node)
            found = inference.outputs(node, version, attributes, self.types, self.constants)
            live = not self.live.isdisjoint(node.input)
            self._check_sizes(found, live=live)
            self._check_reshape(node, found)
            if self._foldable(node, version, found):
                self._fold(node, version, attributes, found)
                return
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}{self._hint(node)}") from None
        if live:
            self.live.update(filter(None, node.output))
        self.types |= {name: kind for name, kind in found.items() if name}
        kept = Node(
            op=node.op_type,
            domain=node.domain,
            name=node.name,
            inputs=tuple(node.input),
            outputs=tuple(node.output),
            attributes=attributes,
            version=version,
        )
        self.nodes.append((kept, node))

    def _check_sizes(self, found: Mapping[str, TypeProto], *, live: bool) -> None:
        for kind in found.values():
            if (shape := inference.shape_of(kind)) is not None:
                check_shape("result", shape, empty=not live)

    def _check_reshape(self, node: NodeProto, found: Mapping[str, TypeProto]) -> None:
        """Compare the elements, which inference does not."""
        if node.domain or node.op_type != "Reshape" or len(found) != 1:
            return
        old = inference.shape_of(self.types[node.input[0]]) or ()
        new = inference.shape_of(found[node.output[0]])
        if new is not None and prod(new) != prod(old):
            raise ConfigError(f"shape {new} of {old}: has another number of elements")

    def _hint(self, node: NodeProto) -> str:
        if self.batch > 1 and not self.live.isdisjoint(node.input):
            return f"; the model is fixed to batches of {self.batch}: export it with batches of 1"
        return ""

    def _shape_taken(self, node: NodeProto, attributes: Mapping[str, Any]) -> bool:
        """Make a constant of a shape, also of what is not constant itself."""
        if node.domain or node.op_type not in {"Shape", "Size"} or len(node.input) != 1:
            return False
        kind = self.types.get(node.input[0])
        shape = inference.shape_of(kind) if kind is not None else None
        if shape is None or len(node.output) != 1:
            return False
        start, end = attributes.get("start", 0), attributes.get("end", len(shape))
        value = shape[start:end] if node.op_type == "Shape" else np.prod(shape, dtype=np.int64)
        self._know(node.output[0], np.asarray(value, dtype=np.int64))
        return True

    def _fit_batch(self, node: NodeProto) -> None:
        """Make a literal batch in a new shape that of one image."""
        if self.batch < 2 or node.domain or node.op_type != "Reshape" or len(node.input) != 2:
            return
        target = self.constants.get(node.input[1])
        if node.input[0] not in self.live or target is None or target.ndim != 1 or not target.size:
            return
        if target[0] == self.batch:
            name = f"{node.input[1]}_of_one"
            while name in self.types:
                name += "_"
            self._know(name, np.concatenate([np.ones(1, target.dtype), target[1:]]))
            node.input[1] = name

    def _foldable(self, node: NodeProto, version: int, found: Mapping[str, TypeProto]) -> bool:
        if node.op_type in _QUANTISERS | _RANDOM or not inference.known_operator(node, version):
            return False
        if any(attribute.type == AttributeProto.GRAPH for attribute in node.attribute):
            return False
        if any(name not in self.constants for name in node.input if name):
            return False
        if node.op_type == "Constant":
            return True
        shapes = [inference.shape_of(found[n]) for n in node.output if n and n in found]
        if None in shapes or len(shapes) < len([*filter(None, node.output)]):
            return False
        sizes = [self.constants[name].size for name in node.input if name]
        work = max(prod(shape) for shape in shapes if shape is not None) * max(sizes, default=1)
        return node.op_type not in HEAVY or work <= MAX_WORK

    def _fold(
        self,
        node: NodeProto,
        version: int,
        attributes: Mapping[str, Any],
        found: Mapping[str, TypeProto],
    ) -> None:
        if node.op_type == "Constant":
            self._know(node.output[0], _constant(attributes))
            return
        for name in filter(None, node.output):
            self.folded += int(np.prod(inference.shape_of(found[name]) or (), dtype=np.int64))
        if self.folded > MAX_FOLDED:
            raise ConfigError(
                f"constants of more than {MAX_FOLDED:,} elements to compute: that is no network; "
                "store them as initialisers"
            )
        given = [self.constants[name] if name else None for name in node.input]
        results = compute(node, node.domain, version, attributes, given)
        for name, value in zip(filter(None, node.output), results, strict=True):
            self._know(name, value)

    def _know(self, name: str, value: NDArray) -> None:
        self.seen.add(name)
        self.constants[name] = value
        self.types[name] = inference.tensor_type(value.dtype, value.shape)

    def _branch(self, node: NodeProto, where: str) -> list[NodeProto] | None:
        """Return the nodes of the branch that an ``If`` always takes, its results renamed."""
        if node.domain or node.op_type != "If" or len(node.input) != 1:
            return None
        condition = self.constants.get(node.input[0])
        if condition is None or condition.size != 1:
            return None
        key = "then_branch" if condition.item() else "else_branch"
        branches = [a.g for a in node.attribute if a.name == key]
        if len(branches) != 1 or len(branches[0].output) != len(node.output):
            raise FileProblem(f"{where}: has no {key} that fits; export it anew")
        (graph,) = branches
        for tensor in graph.initializer:
            if tensor.name in self.seen:
                raise FileProblem(f"{where}: tensor {tensor.name!r} is there twice; export it anew")
            self._know(tensor.name, load(tensor, f"{where}: {tensor.name}", self.folder))
        inner = normalised(graph, where, self.names)
        for index, (value, name) in enumerate(zip(graph.output, node.output, strict=True)):
            out = NodeProto(op_type="Identity", name=f"{node.name}_{index}")
            out.input.append(value.name)
            out.output.append(name)
            inner.append(out)
        return in_order(inner, self.seen, where)


def _constant(attributes: Mapping[str, Any]) -> NDArray:
    if isinstance(attributes.get("value"), np.ndarray):
        return attributes["value"]
    for key, dtype in _VALUES.items():
        if key in attributes:
            return np.asarray(attributes[key], dtype=dtype)
    raise ConfigError("is a constant without numbers; export it anew")


def _attributes(node: NodeProto, where: str, folder: Path | None) -> dict[str, Any]:
    """Return a node's attributes as Python values; those that are graphs are left out."""
    values: dict[str, Any] = {}
    for attribute in node.attribute:
        if not attribute.name.isprintable() or attribute.name in values:
            raise FileProblem(
                f"{where}: attribute {attribute.name!a}: is there twice, or cannot be "
                "printed; export it anew"
            )
        try:
            values[attribute.name] = _value(attribute, where, folder)
        except BramblingError:
            raise
        except (UnicodeDecodeError, ValueError):
            raise FileProblem(
                f"{where}: attribute {attribute.name}: is no text; export it anew"
            ) from None
    return {key: value for key, value in values.items() if value is not None}


def _value(attribute: AttributeProto, where: str, folder: Path | None) -> Any:
    kinds = AttributeProto
    match attribute.type:
        case kinds.FLOAT:
            return float(attribute.f)
        case kinds.INT:
            return int(attribute.i)
        case kinds.STRING:
            return attribute.s.decode("utf-8")
        case kinds.TENSOR:
            return load(attribute.t, f"{where}: {attribute.name}", folder)
        case kinds.FLOATS:
            return tuple(float(value) for value in attribute.floats)
        case kinds.INTS:
            return tuple(int(value) for value in attribute.ints)
        case kinds.STRINGS:
            return tuple(text.decode("utf-8") for text in attribute.strings)
        case kinds.GRAPH | kinds.GRAPHS:
            return None
    raise FileProblem(
        f"{where}: attribute {attribute.name}: of a kind that is not read; export it anew"
    )

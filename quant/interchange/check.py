"""A network beside the model that it was made of, tensor by tensor, on the same inputs.

The network is exact; the model rounds in float32. So a quantiser may give another code where its
argument lies within rounding of a step: a *tie*. Of every tensor the error of float32 is bounded:
``k`` roundings, each of at most half a unit in the last place of a sum of magnitudes ``m``, which
the model itself computes once more with all its numbers made positive (Higham, "Accuracy and
Stability of Numerical Algorithms", 2002, section 3.1). Where all numbers are multiples of a power
of two, and the sum has fewer than 24 bits of them, nothing rounds. Whatever differs otherwise is a
:class:`~brambling.errors.Mismatch`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brambling.errors import Mismatch
from brambling.network import Network
from brambling.origin import origin_of
from brambling.quant.formats import Bipolar
from brambling.quant.interchange import executor
from brambling.quant.interchange.compared import Compared, Report
from brambling.quant.interchange.graph import Graph, Node
from brambling.quant.interchange.importer import Imported
from brambling.quant.interchange.placed import Placed
from brambling.quant.norms import Affine, Clip, Leak
from brambling.quant.values import Value
from brambling.sim import golden

__all__ = ["check", "differences", "reals"]

ULP = 2.0**-24  #: Largest relative error of one operation in float32.
BITS = 24  #: Of a float32's significand.
CHUNK = 64  #: Images compared at a time.
#: Operators that leave magnitudes as they are, or make them smaller.
STILL = {
    *("Relu", "Clip", "Identity", "Cast", "Neg", "LeakyRelu", "PRelu", "Dropout"),
    *("Softmax", "LogSoftmax", "ArgMax", "TopK"),
}
MOVES = {"Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Concat", "Split", "Slice"}
INDICES = {"ArgMax", "TopK"}
LAST = {"Softmax", "LogSoftmax", *INDICES}  #: What the network leaves to its end.
QUANTISERS = {
    "IntQuant",
    "BipolarQuant",
    "Trunc",
    "MultiThreshold",
    "QuantizeLinear",
    "QuantAvgPool2d",
}


def reals(value: Value, integers: NDArray, index: NDArray[np.int64]) -> NDArray[np.float64]:
    """Real values ``(n, *shape of index)`` of an edge's integers, in double precision."""
    rows = integers.reshape(len(integers), -1, value.channels).astype(np.float64)
    gain, bias, mean, variance = (
        np.array([float(getattr(norm, key)) for norm in value.norms])
        for key in ("gain", "bias", "mean", "variance")
    )
    y = gain * (rows - mean) / np.sqrt(variance) + bias
    for bend in value.bends:
        match bend:
            case Clip(low, high):
                y = np.clip(y, float(low), float(high))
            case Leak(slopes):
                y = np.where(y >= 0, y, y * np.array([float(slope) for slope in slopes]))
            case Affine(gains, offsets):
                y = y * np.array([float(n) for n in gains]) + np.array([float(n) for n in offsets])
    return y.reshape(len(integers), -1)[:, index]


# Bounds of float32's errors -----------------------------------------------------------------------


@dataclass(frozen=True)
class Bound:
    """Magnitudes, and how many roundings they went through.

    Parameters
    ----------
    m
        Sum of the magnitudes of all terms, ``(n, *shape)``; the shape has a batch of 1.
    k
        Roundings.
    p
        Every number is a multiple of ``2**-p``; ``None`` where that is not known.
    """

    m: NDArray
    k: int
    p: int | None

    @property
    def exact(self) -> bool:
        """Whether float32 holds every number and sum, so that nothing was rounded."""
        return self.p is not None and float(self.m.max(initial=0)) * 2.0**self.p < 1 << BITS

    @property
    def error(self) -> NDArray[np.float64]:
        """Largest error of each element."""
        return np.asarray(self.m, np.float64) * (0.0 if self.exact else self.k * ULP)


def places(numbers: NDArray) -> int:
    """Return the smallest p so that all numbers are multiples of ``2**-p``."""
    values = np.unique(np.abs(np.asarray(numbers, np.float64)))
    values = values[np.isfinite(values) & (values > 0)]
    if not len(values):
        return 0
    mantissa, exponent = np.frexp(values)
    whole = np.ldexp(mantissa, 53).astype(np.int64)
    lowest = np.log2(whole & -whole).astype(np.int64)
    return int((53 - exponent.astype(np.int64) - lowest).max())


@dataclass
class Shadow:
    """The model with all its numbers made positive, beside the network."""

    graph: Graph
    fixed: Mapping[str, NDArray]
    grains: Mapping[str, int | None]
    bounds: dict[str, Bound] = field(default_factory=dict)

    def step(self, node: Node, proto: Any) -> list[Bound]:
        """Bound a node's results."""
        before = [self.bounds[name] for name in node.inputs if name in self.bounds]
        k = max(bound.k for bound in before) + self._roundings(node)
        p = self._places(node, before)
        if node.op in STILL:
            slope = self._slope(node)
            p = p if slope in {0.0, 1.0} else None
            return [Bound(before[0].m * max(1.0, slope), k, p)] * len(node.outputs)
        if node.op == "DequantizeLinear":
            scale, *rest = (np.abs(self.fixed[i].astype(np.float64)) for i in node.inputs[1:] if i)
            zero = max((float(part.max()) for part in rest), default=0.0)
            return [Bound((before[0].m + zero) * float(scale.max()), k, p)]
        twin = type(proto)()
        twin.CopyFrom(proto)
        twin.op_type = {"Sub": "Add"}.get(node.op, node.op)
        for attribute in twin.attribute:
            if attribute.name in {"alpha", "beta", "value"} and attribute.HasField("f"):
                attribute.f = abs(attribute.f)
        given = [self._given(node, place) for place in range(len(node.inputs))]
        return [Bound(m, k, p) for m in self._computed(twin, node, given, len(before[0].m))]

    def _given(self, node: Node, place: int) -> Any:
        """Input as magnitudes; what is no number to compute with stays as it is."""
        name = node.inputs[place]
        if not name or name in self.bounds:
            return self.bounds[name].m if name else None
        value = self.fixed[name]
        if value.dtype.kind != "f" or node.op in {"Resize", "Upsample"}:
            return value
        if node.op == "BatchNormalization" and place == 4:
            return value
        sign = -1 if node.op == "BatchNormalization" and place == 3 else 1
        return np.asarray(sign * np.abs(value), value.dtype)

    def _computed(self, proto: Any, node: Node, given: list[Any], count: int) -> list[NDArray]:
        live = {n for n, name in enumerate(node.inputs) if name in self.bounds}
        rows = [
            executor.compute(
                proto,
                node.domain,
                node.version,
                node.attributes,
                [x[image].astype(np.float32) if n in live else x for n, x in enumerate(given)],
            )
            for image in range(count)
        ]
        return [np.stack(column) for column in zip(*rows, strict=True)]

    def _slope(self, node: Node) -> float:
        if node.op == "LeakyRelu":
            return abs(float(node.attributes.get("alpha", 0.01)))
        if node.op == "PRelu":
            return float(np.abs(self.fixed[node.inputs[1]]).max())
        return 0.0 if node.op in {"Relu", "Clip"} else 1.0

    def _roundings(self, node: Node) -> int:
        match node.op:
            case "Conv" | "Gemm" | "MatMul":
                weights = self.fixed[node.inputs[1]]
                if node.op == "Conv" and node.domain:
                    return weights.size // len(weights) + 4
                taps = prod(weights.shape[1:]) if node.op == "Conv" else max(weights.shape)
                return taps + 4
            case "BatchNormalization":
                return 8
            case "AveragePool" | "GlobalAveragePool" | "ReduceMean":
                return prod(self.graph.shapes[node.inputs[0]][1:]) + 2
            case op if op in MOVES:
                return 0
        return 2

    def _places(self, node: Node, before: list[Bound]) -> int | None:
        """Return of which power of two all results are multiples."""
        known = [bound.p for bound in before]
        others = [self.grains.get(i, 0) for i in node.inputs if i and i not in self.bounds]
        if any(p is None for p in (*known, *others)):
            return None
        first = max(p for p in known if p is not None)
        rest = [p for p in others if p is not None]
        match node.op:
            case "Conv" | "MatMul" | "Mul" | "DequantizeLinear":
                return max([first + rest[0], *rest[1:]])
            case "Gemm" if node.attributes.get("alpha", 1) == node.attributes.get("beta", 1) == 1:
                return max([first + rest[0], *rest[1:]])
            case "Add" | "Sub" | "Sum" | "Clip" | "Pad":
                own = node.attributes.get("value", 0) if node.op == "Pad" else 0
                return max([first, *rest, places(np.array(own))])
            case "Div":
                divisors = self.fixed[node.inputs[1]]
                exact = (np.frexp(np.abs(divisors))[0] == 0.5).all()
                return first + places(1 / divisors) if exact else None
            case "BatchNormalization" | "Gemm":
                return None
            case "AveragePool" | "GlobalAveragePool" | "ReduceMean":
                shape = self.graph.shapes[node.inputs[0]]
                taps = prod(node.attributes.get("kernel_shape", shape[2:]))
                return None if taps & (taps - 1) else first + taps.bit_length() - 1
        return first


#: A quantiser, and what clips its codes.
Chain = tuple[tuple[Node, Any], ...]

# Comparing ----------------------------------------------------------------------------------------


def constants_of(graph: Graph) -> tuple[dict[str, NDArray], dict[str, int | None]]:
    """Everything that does not depend on the input, and of which power of two it is a multiple.

    What a quantiser makes of weights is, before it is rounded to float32, a multiple of its scale.
    """
    live = {graph.input}
    fixed = dict(graph.constants)
    grains: dict[str, int | None] = {}
    for node, proto in zip(graph.nodes, graph.proto.graph.node, strict=True):
        if not live.isdisjoint(node.inputs):
            live |= set(node.outputs)
            continue
        inputs = [fixed[name] if name else None for name in node.inputs]
        found = executor.compute(proto, node.domain, node.version, node.attributes, inputs)
        fixed |= zip(node.outputs, found, strict=True)
        if node.op in {"IntQuant", "BipolarQuant", "DequantizeLinear"}:
            grain = places(fixed[node.inputs[1]])
        elif node.op in {"QuantizeLinear", "Clip", *MOVES}:
            grain = grains.get(node.inputs[0], 0)
        else:
            grain = None
        grains |= dict.fromkeys(node.outputs, grain)
    grains |= {name: places(x) for name, x in graph.constants.items() if x.dtype.kind == "f"}
    return fixed, grains


def differences(
    imported: Imported,
    x: NDArray,
    network: Network | None = None,
    executed: Mapping[str, NDArray] | None = None,
) -> Iterator[Compared]:
    """Compare every tensor that has a meaning, in the model's order.

    Parameters
    ----------
    x
        A batch in the model's own domain.
    network
        In place of the imported one; its edges have the same names.
    executed
        The model's tensors on the batch, where another tool executed it; what it does not have is
        computed here.

    What differs is judged on the network's own values before it.
    """
    network = network or imported.network
    origin = origin_of(imported.network)
    assert origin is not None
    graph = imported.graph
    edges = golden.run(network, origin.input.frames(x, network.input))
    x = origin.input.reals(x)
    tensors = {
        name: found
        for name, found in imported.tensors.items()
        if found.value.edge in edges and found.pad is None
    }
    model = dict(executed or {})
    wanted = [*(node.outputs[0] for node in graph.nodes), graph.output]
    wanted = [name for name in dict.fromkeys(wanted) if name not in model]
    model |= executor.execute(graph, x, wanted) if wanted else {}
    shadow = Shadow(graph, *constants_of(graph))
    # An input that stands for a multiple of a scale was rounded to float32 itself.
    grid = places(np.array(origin.input.quantiser.scale))
    shadow.bounds[graph.input] = Bound(np.abs(x.astype(np.float64))[:, None], 1, grid)
    chains: dict[str, Chain] = {}
    for node, proto in zip(graph.nodes, graph.proto.graph.node, strict=True):
        live = [name for name in node.inputs if name in shadow.bounds]
        if not live:
            continue
        name, shape = node.outputs[0], (len(x), *graph.shapes[node.outputs[0]])
        found = tensors.get(name)
        chain = (*chains.get(live[0], ()), (node, proto))
        rounds = node.op in QUANTISERS or len(chain) > 1
        if found is None and rounds:
            # Codes that are clipped behind, before the network has them.
            chains[name] = chain
            shadow.bounds[name] = Bound(
                np.abs(model[name].astype(np.float64)).reshape(shape), 2, None
            )
            continue
        if node.op in INDICES and live[0] in tensors:
            yield largest(graph, node, shadow, tensors, edges, model)
        if found is None or node.op in LAST:
            shadow.bounds |= zip(node.outputs, shadow.step(node, proto), strict=False)
            continue
        exact = reals(found.value, edges[found.value.edge], found.index)
        seen = model[name].reshape(exact.shape).astype(np.float64)
        if rounds:
            differs = np.abs(seen - exact) > 0.25 * step_of(found.value)
            doubtful = np.zeros_like(differs)
            if differs.any():
                doubtful = doubts(chain, shadow, tensors, edges, seen, found.value)
            moved = max(abs(float(norm.bias)) for norm in found.value.norms)
            shadow.bounds[name] = Bound(np.abs(exact).reshape(shape) + moved, 2, places(exact))
        else:
            shadow.bounds |= zip(node.outputs, shadow.step(node, proto), strict=False)
            bound = shadow.bounds[name]
            # The network's own meaning is computed in doubles, with roots.
            limit = (0 if bound.exact else bound.k) * ULP + 2.0**-40
            differs = np.abs(seen - exact) > np.reshape(bound.m, exact.shape) * limit
            doubtful = np.zeros_like(differs)
        yield Compared(str(node), name, found.value.edge, rounds, seen, exact, differs, doubtful)


def step_of(value: Value) -> float:
    """Least distance of two codes' real values."""
    gains = [abs(float(norm.gain)) for norm in value.norms if norm.gain]
    return min(gains, default=0.0) * (2 if value.tensor.fmt == Bipolar() else 1)


def slack_of(
    node: Node, shadow: Shadow, bound: Bound, real: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Largest error of what a quantiser rounds: that of its input, and what it does before."""
    error = np.reshape(bound.error, real.shape)
    if node.op in {"BipolarQuant", "MultiThreshold"}:  # They compare their input.
        return error
    rest = [np.abs(shadow.fixed[i].astype(np.float64)) for i in node.inputs[1:3] if i]
    scale = rest[0] if rest else np.ones(1)
    zero = rest[1] if len(rest) > 1 else np.zeros(1)
    if bound.exact and (np.frexp(scale)[0] == 0.5).all():  # Then dividing is exact too.
        assert bound.p is not None
        grain = max(bound.p + places(1 / scale), places(zero))
        most = np.abs(real).max(initial=0) / scale.min() + zero.max()
        if most * 2.0**grain < 1 << BITS:
            return error
    return error + 4 * ULP * (np.abs(real) + float(scale.max() * zero.max()))


def doubts(
    chain: Chain,
    shadow: Shadow,
    tensors: Mapping[str, Placed],
    edges: Mapping[str, NDArray],
    seen: NDArray,
    value: Value,
) -> NDArray[np.bool_]:
    """Where a quantiser's argument is within rounding of a step, and the model has a side of it."""
    node = chain[0][0]
    name = next(i for i in node.inputs if i in shadow.bounds)
    bound = shadow.bounds[name]
    before = tensors.get(name)
    if before is None:  # The host computes it as the model does.
        return np.zeros(seen.shape, bool)
    real = reals(before.value, edges[before.value.edge], before.index)
    slack = slack_of(node, shadow, bound, real)
    ends = []
    for argument in (real - slack, real + slack):
        values = list(argument.reshape(bound.m.shape).astype(np.float32))
        source = name
        for step, proto in chain:
            values = [
                executor.compute(
                    proto,
                    step.domain,
                    step.version,
                    step.attributes,
                    [value if i == source else shadow.fixed[i] if i else None for i in step.inputs],
                )[0]
                for value in values
            ]
            source = step.outputs[0]
        ends.append(np.stack(values).reshape(seen.shape))
    low, high = (join(*ends) for join in (np.minimum, np.maximum))
    reach = 0.25 * step_of(value)
    return (ends[0] != ends[1]) & (seen > low - reach) & (seen < high + reach)


def largest(
    graph: Graph,
    node: Node,
    shadow: Shadow,
    tensors: Mapping[str, Placed],
    edges: Mapping[str, NDArray],
    model: Mapping[str, NDArray],
) -> Compared:
    """Compare indices of the largest: of two within rounding of each other either may be taken."""
    before, bound = tensors[node.inputs[0]], shadow.bounds[node.inputs[0]]
    real = reals(before.value, edges[before.value.edge], before.index)
    count, edge = len(real), tensors[graph.output].value.edge
    error = np.reshape(bound.error, (count, -1)) + 2.0**-40 * np.reshape(bound.m, (count, -1))
    each, values = np.arange(count), real.reshape(count, -1)
    mine, seen = (x.reshape(count).astype(np.int64) for x in (edges[edge], model[graph.output]))
    gap = np.abs(values[each, mine] - values[each, seen])
    near = gap <= error[each, mine] + error[each, seen]
    shape = (count, *tensors[graph.output].shape)
    seen, mine, near = (x.reshape(shape) for x in (seen, mine, near))
    differs = seen != mine
    return Compared(str(node), graph.output, edge, True, seen, mine, differs, near & differs)


def check(
    imported: Imported,
    x: NDArray,
    progress: Callable[[int, int], None] = lambda done, of: None,
    executed: Mapping[str, NDArray] | None = None,
) -> Report:
    """Compare a network with its model on a batch in the model's domain.

    Parameters
    ----------
    executed
        See :func:`differences`.

    Raises
    ------
    Mismatch
        At a difference that float32's rounding does not explain.
    """
    total = Report(0, 0, {}, 0, 0)
    for start in range(0, len(x), CHUNK):
        part = slice(start, start + CHUNK)
        chunk = {name: values[part] for name, values in (executed or {}).items()}
        total += checked(imported, x[part], start, chunk)
        progress(min(start + CHUNK, len(x)), len(x))
    return total


def checked(imported: Imported, x: NDArray, start: int, executed: Mapping[str, NDArray]) -> Report:
    tied = np.zeros(len(x), bool)
    codes = carried = outputs = 0
    ties: dict[str, int] = {}
    for found in differences(imported, x, executed=executed):
        wrong = found.differs.reshape(len(x), -1)
        own = wrong & found.doubtful.reshape(len(x), -1)
        if found.rounds:
            codes += wrong.size
            ties[found.node] = int(own.sum())
            carried += int(wrong.sum() - own.sum())
        unexplained = (wrong & ~own).any(axis=1) & ~tied
        if unexplained.any():
            first = found.first(unexplained)
            raise Mismatch(f"{imported.network.name}: image {start + first.image}: {first}")
        tied |= own.any(axis=1)
        if found.tensor == imported.graph.output:
            outputs = int(wrong.any(axis=1).sum())
    return Report(len(x), codes, ties, carried, outputs)

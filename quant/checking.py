"""Proof that an exported network computes what its float model does, but for float32's rounding."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import singledispatch
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx, nn
from torch.fx.node import map_aggregate
from torch.nn import functional

from brambling.errors import ConfigError, Mismatch
from brambling.network import Network
from brambling.quant.graph import Graph
from brambling.quant.layers import PixelInput, QuantActivation, QuantConv2d, QuantLinear
from brambling.quant.models import Scale
from brambling.quant.norms import ROUNDINGS
from brambling.quant.values import Value

__all__ = ["GraphReport", "check_graph"]

ULP = 2.0**-24  #: Largest relative error of one operation in float32.
MARGIN = 1 + 2.0**-20  #: For what float64 rounds, in which errors of float32 are bounded.
LIPSCHITZ = 2  #: No curve is steeper.

Edges = Mapping[str, NDArray[Any]]  #: Values of a network, ``(n, *shape)``, by edge.


@dataclass(frozen=True)
class GraphReport:
    """What was compared, and what differed within rounding; anything else is a Mismatch.

    Parameters
    ----------
    images, codes
        Images, and activations' codes over all of them.
    ties
        By layer: codes that differ because the exact value is within float32's rounding of the
        place where the code changes.
    carried
        Codes that differ further on in the float model because of ties in earlier layers.
    predictions
        Images whose predicted classes differ; each has a tie.
    """

    images: int
    codes: int
    ties: Mapping[str, int]
    carried: int
    predictions: int

    def __add__(self, other: "GraphReport") -> "GraphReport":
        ties = {name: count + other.ties[name] for name, count in self.ties.items()}
        return GraphReport(
            self.images + other.images,
            self.codes + other.codes,
            ties,
            self.carried + other.carried,
            self.predictions + other.predictions,
        )

    def __str__(self) -> str:
        ties = ", ".join(f"{name} {count}" for name, count in self.ties.items() if count)
        return (
            f"{self.images:,} images: predictions equal but for {self.predictions} with a tie; "
            f"{self.codes:,} codes equal but for float ties ({ties or 'none'}) and "
            f"{self.carried} that follow from them"
        )


def floats(codes: NDArray[Any], module: QuantActivation, dtype: torch.dtype) -> torch.Tensor:
    """Real values of integer codes, channels second, as the float model has them."""
    channels_second = np.moveaxis(codes, -1, 1) if codes.ndim == 4 else codes
    values = torch.from_numpy(np.ascontiguousarray(channels_second)).float()
    return (values * module.quantiser.scale).to(dtype)


def codes_of(x: torch.Tensor, module: QuantActivation) -> NDArray[np.int64]:
    """Integer codes of a quantiser's result, channels last."""
    codes = torch.round(x / module.quantiser.scale).long().numpy()
    return np.moveaxis(codes, 1, -1) if codes.ndim == 4 else codes


class Run(fx.Interpreter):
    """The float model from the pixels on, beside the integer network.

    Parameters
    ----------
    edges
        The integer network's values.
    guided
        Whether each activation is given on as the integer network has it, so that each differing
        code stands by itself.

    Members
    -------
    differing
        By edge: where codes differ, booleans in the shape of the edge.
    """

    def __init__(self, graph: Graph, edges: Edges, guided: bool) -> None:
        super().__init__(fx.GraphModule(graph.model, graph.traced))
        self.steps, self.edges, self.guided = graph.steps, edges, guided
        self.differing: dict[str, NDArray[np.bool_]] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        module = activation_of(n, self.module)
        if module is None:
            return result
        value = self.steps[n]
        expected = unflattened(self.edges[value.edge], value)
        self.differing[value.edge] = codes_of(result, module) != expected
        return floats(expected, module, result.dtype) if self.guided else result


def activation_of(node: fx.Node, module: nn.Module) -> QuantActivation | None:
    """Return the quantised activation that a step calls, if it does."""
    if node.op != "call_module":
        return None
    called = module.get_submodule(str(node.target))
    return called if isinstance(called, QuantActivation) else None


def unflattened(codes: NDArray[Any], value: Value) -> NDArray[Any]:
    """Elements of a flattened image in PyTorch's order."""
    return codes if value.order is None else codes[:, np.argsort(value.order)]


# Bounds of float32's errors -----------------------------------------------------------------------


@dataclass(frozen=True)
class Bounded:
    """Exact values, but for float64's rounding, and a bound of float32's error in each."""

    exact: torch.Tensor
    error: torch.Tensor


@singledispatch
def bound(module: nn.Module, x: Bounded, value: Value) -> Bounded:
    """Bound what a module computes; here of one that moves elements, or is a curve."""
    result = module(x.exact)
    if isinstance(module, nn.MaxPool2d | nn.Flatten | nn.Upsample | nn.Identity):
        return Bounded(result, module(x.error))
    if isinstance(module, nn.AvgPool2d | nn.AdaptiveAvgPool2d):
        taps = x.exact[0, 0].numel()
        return Bounded(result, module(x.error + (taps + 1) * ULP * x.exact.abs()))
    if result.shape != x.exact.shape:
        raise ConfigError(f"{type(module).__name__}: float32's error in it has no known bound")
    rounding = ROUNDINGS * ULP * (x.exact.abs() + result.abs() + 1)
    return Bounded(result, LIPSCHITZ * x.error + rounding)


@bound.register
def _(module: PixelInput, x: Bounded, value: Value) -> Bounded:
    scale = float(np.float32(module.scale))
    result = (x.exact - module.offset) * scale
    return Bounded(result, torch.zeros_like(result) if dyadic(scale) else ULP * result.abs())


@bound.register
def _(module: Scale, x: Bounded, value: Value) -> Bounded:
    factor = float(module.log_scale.exp())
    result = x.exact * factor
    return Bounded(result, x.error * factor + ULP * result.abs())


@bound.register(QuantConv2d)
@bound.register(QuantLinear)
def _(module: QuantConv2d | QuantLinear, x: Bounded, value: Value) -> Bounded:
    scale = module.quantiser.scale.double().reshape(-1, *[1] * (module.weight.dim() - 1))
    weight = module.quantiser.codes(module.weight).double() * scale
    rounded = module.rounded_bias()
    bias = None if rounded is None else rounded.double()

    def product(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor | None) -> torch.Tensor:
        if isinstance(module, QuantLinear):
            return functional.linear(x, w, b)
        return functional.conv2d(
            x, w, b, module.stride, module.padding, module.dilation, module.groups
        )

    magnitude = product(x.exact.abs(), weight.abs(), None if bias is None else bias.abs())
    error = product(x.error, weight.abs(), None)
    if x.error.any() or not whole(value, float(magnitude.max()), bias):
        # One rounding of each factor and of the bias besides those of products and sums.
        error = error + (weight[0].numel() + 4) * ULP * magnitude
    return Bounded(product(x.exact, weight, bias), error)


def dyadic(scale: Fraction | float) -> bool:
    """Whether a scale is a power of two."""
    top, bottom = Fraction(scale).as_integer_ratio()
    return top > 0 and not top & (top - 1) and not bottom & (bottom - 1)


def whole(value: Value, largest: float, bias: torch.Tensor | None) -> bool:
    """Whether every sum is a multiple of one power of two and below 2**24 of them: no rounding."""
    gain = value.norms[0].gain
    if not dyadic(gain) or any(norm.gain != gain for norm in value.norms):
        return False
    exact = bias is None or not bool((bias / float(gain) % 1).any())
    return exact and largest / float(gain) < 1 << 24


@bound.register(nn.BatchNorm1d)
@bound.register(nn.BatchNorm2d)
def _(module: nn.BatchNorm2d, x: Bounded, value: Value) -> Bounded:
    assert module.running_mean is not None
    assert module.running_var is not None
    shape = (1, -1, *[1] * (x.exact.dim() - 2))
    mean, variance = (
        part.double().reshape(shape) for part in (module.running_mean, module.running_var)
    )
    ones = torch.ones_like(mean)
    gain = ones if module.weight is None else module.weight.double().reshape(shape)
    bias = 0 * ones if module.bias is None else module.bias.double().reshape(shape)
    slope = gain / (variance + module.eps).sqrt()
    terms = slope.abs() * (x.exact.abs() + mean.abs()) + bias.abs()
    # As Norm.is_tie: no term goes through more roundings.
    error = slope.abs() * x.error + ROUNDINGS * ULP * terms
    return Bounded(slope * (x.exact - mean) + bias, error)


class BoundedRun(fx.Interpreter):
    """The model in float64 on the integer network's activations, with bounds of float32's errors.

    Members
    -------
    before
        By edge: what each activation rounds.
    """

    def __init__(self, graph: Graph, edges: Edges) -> None:
        super().__init__(fx.GraphModule(graph.model, graph.traced))
        self.steps, self.edges = graph.steps, edges
        self.before: dict[str, Bounded] = {}

    def run_node(self, n: fx.Node) -> Any:
        if n.op == "placeholder":
            pixels = super().run_node(n).double()
            return Bounded(pixels, torch.zeros_like(pixels))
        if n.op == "call_module":
            (x,), _ = self.fetch_args_kwargs_from_env(n)
            module = activation_of(n, self.module)
            if module is None:
                return bound(self.module.get_submodule(str(n.target)), x, self.steps[n])
            value = self.steps[n]
            self.before[value.edge] = x
            codes = unflattened(self.edges[value.edge], value)
            result = floats(codes, module, torch.float64)
            rounds = not dyadic(float(module.quantiser.scale))
            return Bounded(result, ULP * result.abs() * rounds)
        if n.op == "output":
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        return self._function(n, args, kwargs)

    def _function(self, n: fx.Node, args: Any, kwargs: Any) -> Any:
        """Functions are linear with weights of 1, or averages, or curves of slope 1."""
        parts = [
            map_aggregate(args, lambda arg, key=key: getattr(arg, key, arg))
            for key in ("exact", "error")
        ]
        run = self.call_function if n.op == "call_function" else self.call_method
        exact = run(n.target, parts[0], kwargs)
        error = run(n.target, parts[1], kwargs)
        if not isinstance(exact, torch.Tensor):
            return [Bounded(*pair) for pair in zip(exact, error, strict=True)]
        rounding = ULP * exact.abs()
        if n.target in {torch.mean, "mean"}:
            taps = parts[0][0][0, 0].numel()
            rounding = run(n.target, ((taps + 1) * ULP * parts[0][0].abs(), *args[1:]), kwargs)
        return Bounded(exact, error + rounding)


# The check ----------------------------------------------------------------------------------------


@torch.no_grad()
def check_graph(
    model: nn.Module, network: Network, images: NDArray[np.uint8], edges: Edges
) -> GraphReport:
    """Compare the float model with the integer network on ``images``, ``(n, rows, columns, c)``.

    Every layer of the float model is given the integer network's codes, so that each differing
    code stands by itself and must be a provable tie. Then the float model runs by itself from the
    pixels: codes and predictions of all images without a tie must be equal. The model is left in
    evaluation.

    Parameters
    ----------
    edges
        What the integer network gives for ``images``: the golden model's result; at least the
        activations and the last layer.
    """
    model.eval()
    graph = Graph(model, network.input)
    if set(graph.builder.layers) != {layer.name for layer in network.layers}:
        raise ConfigError(f"{network.name} was not exported from this model: its layers differ")
    pixels = torch.from_numpy(np.moveaxis(images, -1, 1).copy())
    guided = Run(graph, edges, guided=True)
    last: torch.Tensor = guided.run(pixels)
    differing = guided.differing
    tied = np.zeros(len(images), bool)
    for found in differing.values():
        tied |= found.reshape(len(found), -1).any(axis=1)
    predicted = edges[network.layers[-1].name]
    doubtful = tied | (last.argmax(dim=1).numpy() != predicted)
    if doubtful.any():
        prove(graph, pixels, edges, differing, last, predicted, np.flatnonzero(doubtful))
    alone = Run(graph, edges, guided=False)
    result: torch.Tensor = alone.run(pixels)
    for name, found in alone.differing.items():
        require(name, found[~doubtful])
    wrong = result.argmax(dim=1).numpy() != predicted
    require(network.layers[-1].name, wrong[~doubtful])
    counts = {name: int(found.sum()) for name, found in differing.items()}
    total = sum(int(found.sum()) for found in alone.differing.values())
    codes = sum(found.size for found in differing.values())
    carried = max(0, total - sum(counts.values()))
    return GraphReport(len(images), codes, counts, carried, int(wrong.sum()))


def require(name: str, differing: NDArray[np.bool_]) -> None:
    """Raise :class:`Mismatch` where images without a tie differ."""
    if differing.any():
        raise Mismatch(f"{name}: {int(differing.sum())} values of images without a tie differ")


def prove(
    graph: Graph,
    pixels: torch.Tensor,
    edges: Edges,
    differing: Mapping[str, NDArray[np.bool_]],
    last: torch.Tensor,
    predicted: NDArray[Any],
    chosen: NDArray[np.int64],
) -> None:
    """Raise :class:`Mismatch` at a difference in the images ``chosen`` that is no tie."""
    run = BoundedRun(graph, {name: values[chosen] for name, values in edges.items()})
    logits: Bounded = run.run(pixels[chosen])
    nodes = {graph.steps[n].edge: n for n in graph.traced.nodes if activation_of(n, graph.model)}
    for name, found in differing.items():
        module = activation_of(nodes[name], graph.model)
        assert module is not None
        value: Value = graph.steps[nodes[name]]
        codes = unflattened(edges[name][chosen], value)
        no_tie = found[chosen] & ~ties(module, run.before[name], codes)
        if no_tie.any():
            place = np.argwhere(no_tie)[0]
            image = int(chosen[place[0]])
            raise Mismatch(
                f"{name}: image {image}, element {tuple(place[1:].tolist())} is "
                f"{codes[tuple(place)]}, not as in the float model, and it is no tie"
            )
    rows = torch.arange(len(chosen))
    mine, theirs = torch.from_numpy(predicted[chosen].astype(np.int64)), last[chosen].argmax(dim=1)
    gap = (logits.exact[rows, mine] - logits.exact[rows, theirs]).abs()
    error = (logits.error[rows, mine] + logits.error[rows, theirs]) * MARGIN
    if bool((gap > error).any()):
        image = int(chosen[int((gap > error).int().argmax())])
        raise Mismatch(
            f"{graph.logits.edge}: image {image} is of class {predicted[image]}, not "
            f"{int(last[image].argmax())} as in the float model, and it is no tie"
        )


def ties(module: QuantActivation, x: Bounded, codes: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether float32 may give the code above or below, in the shape of ``codes``."""
    exact, error = (
        np.moveaxis(part.numpy(), 1, -1) if part.dim() == 4 else part.numpy()
        for part in (x.exact, x.error * MARGIN)
    )
    if module.quantiser.method == "sign":
        return np.abs(exact) <= error
    scale = float(module.quantiser.scale)
    # Division and the half that is added round too.
    slack = error / scale + 3 * ULP * (np.abs(exact) / scale + 1)
    gap = np.minimum(np.abs(exact / scale - codes - 0.5), np.abs(exact / scale - codes + 0.5))
    return gap <= slack

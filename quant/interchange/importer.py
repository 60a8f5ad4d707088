"""A graph as a network that knows where it came from."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import prod

import numpy as np
from numpy.typing import NDArray

from brambling.errors import ConfigError, UnsupportedLayer
from brambling.network import INPUT, Network, Tensor
from brambling.origin import KEY, Decoding, Encoding, Layout, Origin, Rounding
from brambling.quant.formats import Bipolar, Fixed
from brambling.quant.interchange import (  # noqa: F401  (each registers its operators)
    onnx_elements,
    onnx_products,
    onnx_quantisers,
    onnx_shapes,
)
from brambling.quant.interchange.batching import dependent
from brambling.quant.interchange.front import Front, front_of
from brambling.quant.interchange.graph import Graph
from brambling.quant.interchange.onnx_lowering import (
    Lowering,
    Relayout,
    refuse_unknown,
    refuse_unshaped,
)
from brambling.quant.interchange.placed import Placed, layout_of
from brambling.quant.lowering import Builder
from brambling.quant.norms import Affine, Clip, Leak, linear
from brambling.quant.values import Value

__all__ = ["Imported", "Options", "import_graph"]

QUANTISERS = {"IntQuant", "BipolarQuant", "MultiThreshold", "QuantizeLinear", "DequantizeLinear"}
PIXEL = Fixed(8, 0, signed=False)
ELEMENTS = 2**26  #: In all tensors of an image; ResNet-50 has two thirds of that.
RELAYOUTS = 3  #: An input is laid out anew at most so often.


@dataclass(frozen=True, slots=True)
class Options:
    """What a file does not say.

    Parameters
    ----------
    scale, zero, fmt
        Input: integers of this format, that stand for ``scale * (n - zero)``. ``None``: the codes
        of the model's first quantiser, which is then not part of the hardware.
    shape
        Of the input without the batch, where the file leaves it open.
    argmax
        Whether the class with the largest output is to be the result.
    name
        Of the network; that of the file if not given.
    """

    scale: Fraction | None = None
    zero: int = 0
    fmt: Fixed = PIXEL
    shape: tuple[int, ...] | None = None
    argmax: bool = False
    name: str | None = None


@dataclass(frozen=True, eq=False)
class Imported:
    """A network, and what it was made of.

    Parameters
    ----------
    network
        With its :class:`~brambling.origin.Origin`.
    graph
        The model.
    tensors
        Meaning of those of its tensors that depend on the input.
    notes
        What was left out or moved, in words.
    """

    network: Network
    graph: Graph
    tensors: Mapping[str, Placed]
    notes: tuple[str, ...]


def import_graph(graph: Graph, options: Options | None = None) -> Imported:
    """Make a network of a graph.

    Every tensor's meaning is exact; where the model's own float32 would round, the network does
    not. :class:`UnsupportedLayer` and :class:`ConfigError` name the node and what to do.
    """
    options = options or Options()
    refuse_unknown(graph)
    if not any(node.op in QUANTISERS for node in graph.nodes) and has_float_weights(graph):
        raise UnsupportedLayer(
            f"{graph.name}: is a plain float model: quantise it first, with 'brambling quantise "
            "MODEL --calibrate IMAGES'"
        )
    refuse_unshaped(graph)
    refuse_large(graph)
    front = front_of(graph) if options.scale is None else None
    shape, order = first_frame(graph)
    for _ in range(RELAYOUTS):
        try:
            return lowered(graph, options, front, shape, order)
        except Relayout as wanted:
            shape, order = wanted.shape, order[wanted.order]
    raise UnsupportedLayer(f"{graph.name}: its input is used in several layouts: use one")


def refuse_large(graph: Graph) -> None:
    """Refuse a graph with so many elements that placing each takes long."""
    elements = sum(prod(graph.shapes[name]) for name in dependent(graph))
    if elements > ELEMENTS:
        raise ConfigError(
            f"{graph.name}: {elements:,} elements in all tensors of an image: must be at most "
            f"{ELEMENTS:,}: use smaller images"
        )


def has_float_weights(graph: Graph) -> bool:
    """Whether products have weights that are no whole numbers."""
    return any(
        node.op in {"Conv", "Gemm", "MatMul"}
        and any(
            name in graph.constants and (graph.constants[name] % 1 != 0).any()
            for name in node.inputs[1:2]
        )
        for node in graph.nodes
    )


def first_frame(graph: Graph) -> tuple[tuple[int, ...], NDArray[np.int64]]:
    """Shape of a frame, and the place in the model's input of each of its elements."""
    shape = graph.shapes[graph.input][1:]
    index = np.arange(int(np.prod(shape))).reshape(shape)
    if len(shape) == 3:
        index = index.transpose(1, 2, 0)
    elif len(shape) == 2:
        index = index[:, np.newaxis].transpose(1, 2, 0)
    else:
        index = index.reshape(-1)
    return index.shape, index.reshape(-1)


def lowered(
    graph: Graph,
    options: Options,
    front: Front | None,
    shape: tuple[int, ...],
    order: NDArray[np.int64],
) -> Imported:
    """Lower a graph whose frames are of a shape, with the model's elements in an order."""
    places = np.empty_like(order)
    places[order] = np.arange(len(order))
    view = graph.shapes[graph.input][1:]
    source = Placed(Value.codes(INPUT, Tensor(shape, options.fmt), [linear(Fraction(1))]),
                    places.reshape(view))  # fmt: skip
    if options.scale is not None:
        if options.scale <= 0:
            raise ConfigError(
                f"{graph.name}: input scale must be above 0, not {float(options.scale):g}: give "
                "--input-scale 1/255 for pixels in 0 to 1"
            )
        frame = Tensor(shape, options.fmt)
        norms = [linear(options.scale, Fraction(options.zero))]
        quantiser = Rounding(
            "grid", (float(options.scale),), (float(options.zero),),
            (options.fmt.min,), (options.fmt.max,),
        )  # fmt: skip
        steps: Sequence[tuple[str, tuple[float, ...]]] = ()
    else:
        assert front is not None
        made = front.made(source)
        frame, norms, quantiser, steps = made.frame, made.norms, made.quantiser, made.steps
    builder = Builder(frame)
    value = Value.codes(INPUT, frame, norms)
    if frame.fmt != Bipolar():
        value = replace(
            value, low=np.array([min(quantiser.low)]), high=np.array([max(quantiser.high)])
        )
    source = replace(source, value=value)
    work = Lowering(graph, builder, source)
    if front is None:
        result = work.run({graph.input: source})
    else:
        result = work.run(front.result(source), [name for name, _ in front.names])
    return finished(
        work, result, options, Encoding(input_layout(graph, places, shape), tuple(steps), quantiser)
    )


def input_layout(graph: Graph, places: NDArray[np.int64], shape: tuple[int, ...]) -> Layout:
    view = graph.shapes[graph.input][1:]
    found = layout_of(places.reshape(view), shape)
    if found is None:
        raise UnsupportedLayer(
            f"{graph.name}: its input is taken apart: cut the model behind that, or feed it laid "
            "out as the first layer needs it"
        )
    return found


def finished(work: Lowering, result: Placed, options: Options, encoding: Encoding) -> Imported:
    """Return the network, with its origin."""
    graph, builder, last = work.graph, work.builder, work.last
    if result.pad is not None:
        raise UnsupportedLayer(f"{graph.name}: ends in a Pad: remove it")
    if not builder.layers:
        raise UnsupportedLayer(f"{graph.name}: has no layer: give a model with some")
    result = at_the_end(work, result)
    decoding = decoding_of(graph, result, last)
    if options.argmax and last != "argmax":
        onnx_shapes.largest(work, result, f"{graph.name}: output")
    origin = Origin("qonnx", encoding, decoding, tuple(work.notes))
    network = Network(
        options.name or name_of(graph.name),
        builder.tensors[INPUT],
        tuple(builder.layers.values()),
        normalisation=described(encoding),
        provenance={KEY: origin.to_json()},
    )
    tensors = {
        name: turned(work.builder, x) for name, x in work.tensors.items() if isinstance(x, Placed)
    }
    return Imported(network, graph, tensors, origin.notes)


def turned(builder: Builder, x: Placed) -> Placed:
    """Meaning of a tensor whose product later took over the signs of some channels."""
    edge = x.value.edge
    if edge not in builder.turns:
        return x
    value = x.value.negated(builder.turns[edge])
    return replace(x, value=replace(value, tensor=builder.tensors[edge]))


def at_the_end(work: Lowering, result: Placed) -> Placed:
    """Make sure that the output's edge is the last layer's."""
    value = result.value
    names = list(work.builder.layers)
    if names[-1] == value.edge:
        return result
    if value.edge == INPUT:
        raise UnsupportedLayer(
            f"{work.graph.name}: has no layer between input and output: give a model with some"
        )
    # What comes behind in the list does not lead to the output.
    for name in names[names.index(value.edge) + 1 :]:
        del work.builder.layers[name]
    return result


def decoding_of(graph: Graph, result: Placed, last: str) -> Decoding:
    """Return what the output's integers stand for."""
    value = result.value
    if last == "argmax":
        shape = graph.shapes[graph.output][1:]
        return Decoding(value.edge, Layout(tuple(shape), (1,), (0,)), (1.0,), (0.0,), last=last)
    layout = layout_of(result.index, value.tensor.shape)
    if layout is None:
        raise UnsupportedLayer(
            f"{graph.name}: output {graph.output!r} is put together of several: return one result "
            "as it is"
        )
    pixels = result.index.size // value.channels
    gains = tuple(float(n.gain) / float(n.variance) ** 0.5 for n in value.norms)
    offsets = tuple(
        float(n.bias - n.gain * n.mean) if n.variance == 1
        else float(n.bias) - float(n.gain * n.mean) / float(n.variance) ** 0.5
        for n in value.norms
    )  # fmt: skip

    def spread(numbers: Sequence[float]) -> tuple[float, ...]:
        return tuple(numbers) if len(numbers) == 1 else tuple(numbers) * pixels

    steps: list[tuple[str, tuple[tuple[float, ...], ...]]] = []
    for bend in value.bends:
        match bend:
            case Clip(low, high):
                steps.append(("clip", ((float(low),), (float(high),))))
            case Leak(slopes):
                steps.append(("leak", (spread([float(slope) for slope in slopes]),)))
            case Affine(several, others):
                steps.append((
                    "affine",
                    (spread([float(n) for n in several]), spread([float(n) for n in others])),
                ))
    return Decoding(value.edge, layout, spread(gains), spread(offsets), tuple(steps), last)


def described(encoding: Encoding) -> str:
    """How frames are made, in words."""
    found = encoding.quantiser
    shape = "x".join(map(str, encoding.layout.shape))
    if found.kind == "grid":
        scale, zero = found.scale[0], found.zero[0]
        return f"integers n; the model's input ({shape}) is (n - {zero:g}) * {scale:g}"
    return f"codes of the model's own input quantiser ({shape}), made by the host"


def name_of(text: str) -> str:
    """Name of a network after that of a file."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", text).lstrip("_.-") or "network"

"""Import of quantised TensorFlow Lite models: bit for bit what its reference kernels compute.

Codes stay as they are in the file, int8 or uint8, with their zero points. Sums of a product begin
without the input's zero point, which is then one constant for each output; what a kernel makes of
a sum is a function of one integer, and becomes the smallest layer that is exactly this function
(:mod:`brambling.quant.forms`).

The reference kernels of LiteRT round twice where they scale a sum: to an integer, then by a power
of two. Those of dense layers multiply in double precision and round once; in older releases of
TensorFlow Lite they round twice like the others. Optimised kernels need not agree: of 192,000
random results of a convolution, XNNPACK had 241 that differed by one code, and the kernels without
it 303. Behind such a code others may differ by more. An interpreter that must agree is made with
``experimental_op_resolver_type=OpResolverType.BUILTIN_REF``.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

from brambling.errors import BramblingError, ConfigError, FileProblem, UnsupportedLayer
from brambling.network import INPUT, NAME, ArgMax, Layer, Network
from brambling.quant.interchange.tflite_joins import MOVE, RESHAPES
from brambling.quant.interchange.tflite_lowering import (
    FORMATS,
    Affine,
    Lowering,
    frame_shape,
    unsupported,
)
from brambling.quant.interchange.tflite_ops import COMPUTE
from brambling.quant.interchange.tflite_reader import Model, Operator, TensorInfo, read_model

__all__ = ["SUPPORTED", "Affine", "Imported", "import_tflite"]

LOWER = {**COMPUTE, **MOVE}
#: Operators that may stand anywhere, and those that only begin or end a model.
SUPPORTED = (*sorted(LOWER), "DEQUANTIZE", "SOFTMAX")
INTEGERS = (
    "convert it with TFLiteConverter, optimizations DEFAULT, a representative_dataset, and "
    "supported_ops TFLITE_BUILTINS_INT8"
)
#: What comes nearest to operators that have no layer.
NEAREST = {
    "SOFTMAX": "use it as the last operator only",
    "LOG_SOFTMAX": "leave it out, the largest logit is the class",
    "DEQUANTIZE": "quantise what is behind it, too",
    "TRANSPOSE_CONV": "use RESIZE_NEAREST_NEIGHBOR and CONV_2D",
    "RESIZE_BILINEAR": "use RESIZE_NEAREST_NEIGHBOR",
    "HARD_SWISH": "use RELU6",
    "PRELU": "use LEAKY_RELU",
    "ELU": "use LEAKY_RELU",
    "GELU": "use RELU",
    "L2_POOL_2D": "use AVERAGE_POOL_2D",
    "SUM": "use MEAN",
    "REDUCE_MAX": "use MAX_POOL_2D",
    "PACK": "use CONCATENATION of channels",
    "MIRROR_PAD": "use PAD",
    "BATCH_MATMUL": "use FULLY_CONNECTED with constant weights",
    "TRANSPOSE": "keep channels last",
}


@dataclass(frozen=True, eq=False)
class Imported:
    """A network that was made of a model, and what connects the two.

    Parameters
    ----------
    network
        Takes and makes the model's integers, channels last.
    edges
        Edge of the network that holds a tensor's integers, by the tensor's name; by
        ``"tensor 3"`` where it has none, or another has the same. Shapes may differ by dimensions
        of 1 and by flattening. Tensors that no edge holds are left out, such as a padded image.
    indices
        The same tensors' indices in the file, for an interpreter's ``get_tensor``.
    input, output
        What the integers stand for; ``None`` for an index of a class.
    notes
        What was left out or moved, in words.
    real
        Whether the model takes, and whether it gives, real numbers, not integers.
    """

    network: Network
    edges: Mapping[str, str]
    indices: Mapping[str, int]
    input: Affine
    output: Affine | None
    notes: tuple[str, ...]
    real: tuple[bool, bool]


def import_tflite(path: str | os.PathLike[str], name: str | None = None) -> Imported:
    """Read a ``.tflite`` model of 8-bit integers as a network.

    Parameters
    ----------
    name
        Of the network; ``None`` for the file's.
    """
    if name is None:
        name = re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(path).stem).lstrip("_.-") or "model"
    elif not NAME.fullmatch(name):
        raise ConfigError(f"a network's name must match {NAME.pattern}, not {name!r}")
    model = read_model(path)
    try:
        return imported(Outline(model), name)
    except BramblingError as error:
        if str(error).startswith(f"{model.path}: "):
            raise
        raise type(error)(f"{model.path}: {error}") from None


class Outline:
    """What of a model is to be made, from where to where.

    Members
    -------
    operators
        Those that lead to the result, in the file's order.
    first, last
        Tensors whose codes are the network's input and output.
    shape
        Of a frame of the input.
    """

    def __init__(self, model: Model) -> None:
        self.model, self.notes = model, []
        for what, ends in (("input", model.inputs), ("output", model.outputs)):
            if len(ends) != 1:
                raise UnsupportedLayer(f"must have 1 {what}, not {len(ends)}: split the model")
        self.makers = {index: op for op in model.operators for index in op.outputs}
        self.operators = self.needed(model.outputs[0])
        self.ordered()
        self.last = self.end(model.outputs[0])
        self.operators = self.needed(self.last)
        self.first, self.same = self.begin(model.inputs[0])
        self.shape = frame_shape(self.fixed(model.tensors[self.first]))

    def needed(self, result: int) -> list[Operator]:
        """Return operators that lead to a tensor, in the file's order."""
        wanted, found = [result], set()
        while wanted:
            op = self.makers.get(wanted.pop())
            if op is not None and op.index not in found:
                found.add(op.index)
                wanted += op.inputs
        return [op for op in self.model.operators if op.index in found]

    def ordered(self) -> None:
        """Refuse an operator that reads what is made behind it, or by nothing."""
        known = {*self.model.inputs, -1, *(t.index for t in self.model.tensors if t.constant)}
        for op in self.operators:
            for index in op.inputs:
                if index not in known:
                    raise FileProblem(
                        f"{op}: must read what was made before, not "
                        f"{self.model.tensors[index]}: the graph is damaged, or has a cycle"
                    )
            known |= set(op.outputs)

    def readers(self, index: int) -> list[Operator]:
        return [op for op in self.operators if index in op.inputs]

    def info(self, index: int) -> TensorInfo:
        return self.model.tensors[index]

    def fixed(self, info: TensorInfo) -> tuple[int, ...]:
        """Shape of an input whose batch may be open, nothing else."""
        if len(info.shape) < 2 or len(info.shape) > 4:
            raise unsupported(info, "shape", info.shape, "use (batch, height, width, channels)")
        if any(n < 0 for n in info.signature[1:]):
            raise unsupported(
                info, "shape", info.signature, "convert the model with a fixed height and width"
            )
        if 0 in info.shape:
            raise FileProblem(f"{info}: shape must be of numbers from 1, not {info.shape}")
        return info.shape

    # Ends -----------------------------------------------------------------------------------------

    def begin(self, index: int) -> tuple[int, list[int]]:
        """Skip what does nothing to the input's codes; return it, and the tensors that it equals.

        A QUANTIZE is left to who calls the network; so is a shape that makes an image of a vector.
        """
        same = [index]
        readers = self.readers(index)
        if self.info(index).dtype == "FLOAT32" and [op.kind for op in readers] == ["QUANTIZE"]:
            index = readers[0].outputs[0]
            same = [index]
            self.notes.append(f"{readers[0]} left out: the input is its result, {self.info(index)}")
            self.operators.remove(readers[0])
            readers = self.readers(index)
        if self.info(index).dtype not in FORMATS:
            info = self.info(index)
            raise UnsupportedLayer(f"{info}: codes must be int8 or uint8, not "
                                   f"{info.dtype.lower()}: {INTEGERS}")  # fmt: skip
        if len(readers) == 1 and readers[0].kind in RESHAPES and index != self.last:
            shape, wanted = self.info(index).shape, self.info(readers[0].outputs[0]).shape
            batch = shape[:1] == wanted[:1]
            if batch and len(shape) < 4 and len(wanted) == 4 and prod(shape) == prod(wanted):
                self.notes.append(f"{readers[0]} left out: the input has its shape {wanted}")
                self.operators.remove(readers[0])
                same.append(index := readers[0].outputs[0])
        return index, same

    def end(self, index: int) -> int:
        """Skip what changes no order of the results: softmax, and what makes them real numbers."""
        while (op := self.makers.get(index)) is not None and op.kind in {"DEQUANTIZE", "SOFTMAX"}:
            source = op.inputs[0] if op.inputs else -1
            if source < 0 or self.info(source).constant:
                break
            reason = "it keeps the order" if op.kind == "SOFTMAX" else "its scale is kept"
            self.notes.append(f"{op} left out: {reason}; the output is {self.info(source)}")
            index = source
        return index


def imported(plan: Outline, name: str) -> Imported:
    """Make the network; operators without a layer are all named at once."""
    model, net = plan.model, Lowering(plan.model)
    net.start(plan.first, plan.shape)
    problems = []
    for op in plan.operators:
        try:
            if op.kind not in LOWER:
                remedy = NEAREST.get(op.kind, f"use one of {', '.join(SUPPORTED)}")
                raise unsupported(op, "kind", op.kind, remedy)
            known = all(n in net.values or n < 0 or plan.info(n).constant for n in op.inputs)
            if known:
                LOWER[op.kind](net, op)
        except UnsupportedLayer as error:
            problems.append(str(error))
    if problems:
        raise UnsupportedLayer("; ".join(dict.fromkeys(problems)))
    if plan.last not in net.values:
        raise FileProblem(f"{plan.info(plan.last)}: the output must be made by an operator")
    result = net.values[plan.last]
    if result.padding:
        raise unsupported(plan.info(plan.last), "output", "padded", "leave the padding out")
    for index in plan.same:
        net.values.setdefault(index, net.values[plan.first])
    network = Network(name, net.tensors[INPUT], pruned(net, result.edge))
    held = {
        n: value.edge
        for n, value in sorted(net.values.items())
        if value.edge in network.tensors and not value.padding
    }
    names = titles([model.tensors[n] for n in held])
    index = isinstance(network.layers[-1], ArgMax)
    return Imported(
        network,
        dict(zip(names, held.values(), strict=True)),
        dict(zip(names, held, strict=True)),
        replace(net.values[plan.first].affine, shape=plan.info(model.inputs[0]).shape),
        None if index else result.affine,
        tuple(plan.notes),
        (
            model.tensors[model.inputs[0]].dtype == "FLOAT32",
            model.tensors[model.outputs[0]].dtype == "FLOAT32",
        ),
    )


def pruned(net: Lowering, output: str) -> tuple[Layer, ...]:
    """Layers that lead to an edge; of a split, parts that nothing reads are left out."""
    wanted, found = [output], set()
    while wanted:
        edge = wanted.pop()
        if edge not in found and edge in net.layers:
            found.add(edge)
            wanted += net.layers[edge].inputs
    return tuple(layer for layer in net.layers.values() if layer.name in found)


def titles(tensors: list[TensorInfo]) -> list[str]:
    """Names that are each a single tensor's."""
    names = [info.name for info in tensors]
    return [
        info.name if info.name and names.count(info.name) == 1 else f"tensor {info.index}"
        for info in tensors
    ]

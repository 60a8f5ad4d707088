"""A model of another tool as a graph, before anything is made of it: nodes, constants, shapes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["CHANNELS_LAST", "QONNX", "Graph", "Node"]

QONNX = "qonnx"  #: Domain of QONNX's operators, whichever of its three names the file uses.
CHANNELS_LAST = "channels_last"  #: Domain of its wrappers of operators whose channels come last.


@dataclass(frozen=True, slots=True)
class Node:
    """One operation.

    Parameters
    ----------
    op
        Operator; of old names of the same one, the current: ``IntQuant``, never ``Quant``.
    domain
        ``""`` for ONNX's own, :data:`QONNX` or :data:`CHANNELS_LAST`.
    name
        Unique; made up of the operator and a number where the file has none.
    inputs, outputs
        Tensors; ``""`` where an optional one is not given.
    attributes
        Numbers, text, tuples of numbers, or an array. Only those that the file gives.
    version
        Version of the operator set that the file names for the domain.
    """

    op: str
    domain: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    version: int

    def __str__(self) -> str:
        return f"{self.name} ({self.op})"


@dataclass(frozen=True, eq=False)
class Graph:
    """A model with one input and one output.

    Parameters
    ----------
    name
        Of the file, without its suffix; for messages.
    nodes
        In an order in which each comes after what it reads. Nodes that do not lead to the output
        are left out, and so are those whose results are known: they are constants.
    constants
        Tensors that are known before an input is: initialisers, and what is computed of them and
        of shapes. Results of quantisers stay nodes, so that a weight's quantiser can be seen.
    shapes
        Of every tensor, for a batch of one; the first dimension is the batch where it depends on
        the input.
    input, output
        Names of the tensors.
    metadata
        The file's own notes.
    proto
        The model as it can be executed, with the same names of tensors.
    """

    name: str
    nodes: tuple[Node, ...]
    constants: Mapping[str, NDArray]
    shapes: Mapping[str, tuple[int, ...]]
    input: str
    output: str
    proto: "ModelProto" = field(repr=False)
    metadata: Mapping[str, str] = field(default_factory=dict)

    def consumers(self, tensor: str) -> tuple[Node, ...]:
        """Nodes that read a tensor."""
        return tuple(node for node in self.nodes if tensor in node.inputs)

"""Where a float model is rounded to codes, and which tensors share one radix point.

Whatever enters a product, a sum of two branches, a concatenation or an average is rounded first,
behind the activation that follows the operation it comes from. What enters one sum or one
concatenation has one radix point, so that the hardware adds or joins codes as they are.
"""

from dataclasses import dataclass

import numpy as np

from brambling.quant.interchange.graph import Graph, Node
from brambling.quant.interchange.quantise_check import (
    AVERAGES,
    KEEPING,
    PRODUCTS,
    attribute,
    front,
)

__all__ = ["Points", "ends", "find_points", "first_point"]

JOINS = ("Add", "Concat")


@dataclass(frozen=True)
class Points:
    """Tensors that are rounded.

    Parameters
    ----------
    first
        The model's input, or what becomes of it by the constants that it meets first.
    group
        By tensor, in order: a name that all with the same radix point have.
    signed
        By tensor: whether it can be negative.
    source
        By tensor that is rounded, or keeps the codes of one that is: that one.
    """

    first: str
    group: dict[str, str]
    signed: dict[str, bool]
    source: dict[str, str]


class Search:
    """Goes through a model once, in order."""

    def __init__(self, graph: Graph, first: str) -> None:
        self.graph = graph
        self.producers = {name: node for node in graph.nodes for name in node.outputs}
        self.parent = {first: first}
        #: By tensor: one of those whose codes it has, all of one group.
        self.source = {first: first}

    def root(self, tensor: str) -> str:
        while self.parent[tensor] != tensor:
            tensor = self.parent[tensor]
        return tensor

    def demand(self, tensor: str) -> str:
        """Round a tensor, unless it has codes already; return whose they are."""
        passed = []
        while tensor not in self.source:
            node = self.producers[tensor]
            if node.op not in KEEPING:
                self.parent[tensor] = self.source[tensor] = tensor
                break
            passed.append(tensor)
            tensor = node.inputs[0]
        for name in passed:
            self.source[name] = self.source[tensor]
        return self.source[tensor]

    def visit(self, node: Node) -> None:
        """Demand what a node needs, and note what its result has."""
        result = node.outputs[0]
        if node.op in JOINS:
            first, *others = [self.demand(name) for name in node.inputs]
            for other in others:
                self.parent[self.root(other)] = self.root(first)
            if node.op == "Concat":
                self.source[result] = first
        elif node.op in PRODUCTS + AVERAGES:
            self.demand(node.inputs[0])
        elif node.op in {*KEEPING, "Relu"} and node.inputs[0] in self.source:
            self.source[result] = self.source[node.inputs[0]]


def first_point(graph: Graph) -> str:
    """Return what is rounded first."""
    nodes = front(graph)
    return nodes[-1].outputs[0] if nodes else graph.input


def find_points(graph: Graph, signed_input: bool) -> Points:
    """Return what is rounded of a model that :func:`~.quantise_fold.fold` made.

    ``signed_input`` tells whether :func:`first_point` can be negative.
    """
    first = first_point(graph)
    search = Search(graph, first)
    for node in graph.nodes[len(front(graph)) :]:
        search.visit(node)
    signs = signs_of(graph, first, signed_input)
    order = [graph.input, *(name for node in graph.nodes for name in node.outputs)]
    rounded = [name for name in order if name in search.parent]
    return Points(
        first,
        {name: search.root(name) for name in rounded},
        {name: signs[name] for name in rounded},
        search.source,
    )


def signs_of(graph: Graph, first: str, signed_input: bool) -> dict[str, bool]:
    """Return by tensor whether it can be negative, as far as operations tell."""
    signs = {graph.input: True}
    for node in graph.nodes:
        low = attribute(graph, node, "min", 1) if node.op == "Clip" else None
        if node.op in {"Relu", "Softmax"} or (low is not None and np.all(low >= 0)):
            sign = False
        elif node.op in PRODUCTS:
            sign = True
        else:
            sign = any(signs.get(name, False) for name in node.inputs)
        signs.update(dict.fromkeys(node.outputs, sign))
        signs[first] = signed_input
    return signs


def ends(graph: Graph) -> set[str]:
    """Names of the products that see the model's input, or that its output sees."""
    found = set()
    for start, forward in ((graph.input, True), (graph.output, False)):
        seen = {start}
        for node in graph.nodes if forward else graph.nodes[::-1]:
            here, there = (node.inputs, node.outputs)[:: 1 if forward else -1]
            if seen.isdisjoint(here):
                continue
            if node.op in PRODUCTS:
                found.add(node.name)
            else:
                seen.update(there)
    return found

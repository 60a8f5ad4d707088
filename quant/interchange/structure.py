"""The nodes of a file in order: names, domains, what reads what."""

import heapq
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, defs
from onnx.inliner import inline_local_functions

from brambling.errors import ConfigError, FileProblem
from brambling.quant.interchange.graph import CHANNELS_LAST, QONNX
from brambling.quant.interchange.limits import MAX_NODES, brief, check_text

__all__ = [
    "OLDEST",
    "in_order",
    "inlined",
    "leading_to",
    "makers",
    "normalised",
    "reads",
    "versions",
]

_Call = tuple[str, str, str]  # domain, name and overload of a function

OLDEST = 8  #: Of ONNX's operator sets, the first whose files are read.

_DOMAINS = {
    "ai.onnx": "",
    "qonnx.custom_op.general": QONNX,
    "finn.custom_op.general": QONNX,
    "onnx.brevitas": QONNX,
    "qonnx.custom_op.channels_last": CHANNELS_LAST,
}


def versions(model: ModelProto, name: str) -> dict[str, int]:
    """Return the version of each operator set, by our names of the domains."""
    found: dict[str, int] = {}
    for entry in model.opset_import:
        check_text(name, [entry.domain])
        domain = _DOMAINS.get(entry.domain, entry.domain)
        found[domain] = max(found.get(domain, 0), entry.version)
    newest = defs.onnx_opset_version()
    version = found.get("")
    if version is None:
        raise FileProblem(f"{name}: names no version of ONNX's operators; export it anew")
    if version < OLDEST:
        raise ConfigError(
            f"{name}: operator set {version}: {OLDEST} to {newest} are read; export it anew"
        )
    if version > newest:
        raise ConfigError(
            f"{name}: operator set {version}: the installed onnx knows {OLDEST} to {newest}; "
            "install a newer onnx"
        )
    return found


def inlined(model: ModelProto, name: str) -> ModelProto:
    """Return a model without functions of its own: each call is what the function does."""
    if not model.functions:
        return model
    functions = {_called(function): list(function.node) for function in model.functions}
    if len(functions) < len(model.functions):
        raise FileProblem(f"{name}: has two functions of one name; export it anew")
    sizes: dict[_Call, int] = {}
    for call in functions:
        _measure(call, functions, sizes, name)
    if _size(model.graph.node, sizes) > MAX_NODES:
        raise ConfigError(f"{name}: more than {MAX_NODES:,} nodes with its functions inlined")
    try:
        return inline_local_functions(model)
    except Exception as error:  # of another package, on functions that are not valid
        raise FileProblem(f"{name}: its functions are not valid ({brief(error)})") from None


def _called(function: NodeProto | FunctionProto) -> _Call:
    op = function.op_type if isinstance(function, NodeProto) else function.name
    return function.domain, op, function.overload


def _size(nodes: Iterable[NodeProto], sizes: Mapping[_Call, int]) -> int:
    """Count nodes, those inside branches and functions too."""
    total = 0
    for node in nodes:
        total += sizes.get(_called(node), 1)
        total += sum(_size(g.node, sizes) for a in node.attribute for g in _graphs(a))
    return total


def _measure(
    call: _Call,
    functions: Mapping[_Call, Sequence[NodeProto]],
    sizes: dict[_Call, int],
    name: str,
) -> None:
    """Find how many nodes a function comes to; refuse one that calls itself."""
    path: list[_Call] = [call]
    while path:
        inner = {c for node in functions[path[-1]] for c in _calls(node)} & functions.keys()
        if pending := inner - sizes.keys():
            if (following := min(pending)) in path:
                raise FileProblem(f"{name}: function {following[1]!r} calls itself; export it anew")
            path.append(following)
        else:
            done = path.pop()
            sizes[done] = _size(functions[done], sizes)


def _calls(node: NodeProto) -> Iterator[_Call]:
    yield _called(node)
    for attribute in node.attribute:
        for graph in _graphs(attribute):
            for inner in graph.node:
                yield from _calls(inner)


def normalised(graph: GraphProto, where: str, taken: set[str]) -> list[NodeProto]:
    """Return copies of a graph's nodes with our domains, current operators and unique names.

    ``taken`` holds the names that nodes have already; the new ones are put to it.
    """
    if len(graph.node) + len(taken) > MAX_NODES:
        raise ConfigError(f"{where}: more than {MAX_NODES:,} nodes: that is no network for this")
    own = {node.name for node in graph.node}
    nodes: list[NodeProto] = []
    for index, old in enumerate(graph.node):
        node = NodeProto(input=old.input, output=old.output, attribute=old.attribute)
        check_text(where, [old.op_type, old.domain, *old.input, *old.output])
        node.domain = _DOMAINS.get(old.domain, old.domain)
        node.op_type = "IntQuant" if (node.domain, old.op_type) == (QONNX, "Quant") else old.op_type
        node.name = old.name
        if not old.name or not old.name.isprintable() or old.name in taken:
            node.name, number = f"{node.op_type}_{index}", 1
            while node.name in taken or node.name in own:
                node.name, number = f"{node.op_type}_{index}_{number}", number + 1
        taken.add(node.name)
        nodes.append(node)
    return nodes


def reads(node: NodeProto) -> list[str]:
    """Return the tensors that a node reads, those inside its branches and loops too."""
    names = [name for name in node.input if name]
    for attribute in node.attribute:
        for graph in _graphs(attribute):
            names += _captured(graph)
    return names


def _graphs(attribute: AttributeProto) -> Iterator[GraphProto]:
    if attribute.type == AttributeProto.GRAPH:
        yield attribute.g
    elif attribute.type == AttributeProto.GRAPHS:
        yield from attribute.graphs


def _captured(graph: GraphProto) -> list[str]:
    """Return what an inner graph reads of the outer one."""
    own = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    own |= {name for node in graph.node for name in node.output}
    outer = [name for node in graph.node for name in reads(node)]
    outer += [value.name for value in graph.output]
    return [name for name in outer if name not in own]


def leading_to(nodes: Sequence[NodeProto], outputs: Iterable[str]) -> list[NodeProto]:
    """Return the nodes that some of the outputs depend on, in the order given."""
    maker = {name: i for i, node in enumerate(nodes) for name in node.output if name}
    needed: set[int] = set()
    pending = [maker[name] for name in outputs if name in maker]
    while pending:
        if (index := pending.pop()) not in needed:
            needed.add(index)
            pending += [maker[name] for name in reads(nodes[index]) if name in maker]
    return [node for i, node in enumerate(nodes) if i in needed]


def in_order(nodes: Sequence[NodeProto], known: Container[str], where: str) -> list[NodeProto]:
    """Return the nodes so that each comes after what it reads; refuse what has no such order."""
    maker = makers(nodes, known, where)
    needs = [_needs(node, known, maker, where) for node in nodes]
    return [nodes[i] for i in _sorted(nodes, needs, where)]


def makers(nodes: Sequence[NodeProto], known: Container[str], where: str) -> dict[str, int]:
    """Return the number of the node that makes a tensor, by its name; refuse two of a name."""
    maker: dict[str, int] = {}
    for index, node in enumerate(nodes):
        for name in filter(None, node.output):
            if name in known or name in maker:
                raise FileProblem(
                    f"{where}: {_said(node)}: tensor {name!r} is there twice; export it anew"
                )
            maker[name] = index
    return maker


def _said(node: NodeProto) -> str:
    return f"{node.name} ({node.op_type})"


def _needs(
    node: NodeProto, known: Container[str], maker: Mapping[str, int], where: str
) -> set[int]:
    for name in reads(node):
        if name not in known and name not in maker:
            raise FileProblem(
                f"{where}: {_said(node)}: reads {name!r}, which nothing makes; export it anew"
            )
    return {maker[name] for name in reads(node) if name in maker}


def _sorted(nodes: Sequence[NodeProto], needs: Sequence[set[int]], where: str) -> list[int]:
    users: list[list[int]] = [[] for _ in nodes]
    for index, needed in enumerate(needs):
        for other in needed:
            users[other].append(index)
    missing = [len(needed) for needed in needs]
    ready = [index for index, count in enumerate(missing) if not count]
    order: list[int] = []
    while ready:
        order.append(heapq.heappop(ready))  # the file's own order where that is one
        for user in users[order[-1]]:
            missing[user] -= 1
            if not missing[user]:
                heapq.heappush(ready, user)
    if len(order) < len(nodes):
        rest = [_said(nodes[i]) for i in range(len(nodes)) if missing[i]][:3]
        raise FileProblem(f"{where}: {', '.join(rest)}: read their own results; export it anew")
    return order

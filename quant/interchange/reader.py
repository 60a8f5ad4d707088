"""ONNX files as graphs: checked, put in order, everything computed that is known beforehand."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import (
    ModelProto,
    NodeProto,
    TensorShapeProto,
    TypeProto,
    ValueInfoProto,
    helper,
    numpy_helper,
)

from brambling.errors import ConfigError, FileProblem
from brambling.quant.interchange import inference
from brambling.quant.interchange.folding import Walk
from brambling.quant.interchange.graph import CHANNELS_LAST, QONNX, Graph
from brambling.quant.interchange.limits import (
    MAX_FILE,
    brief,
    check_shape,
    check_strings,
    check_text,
)
from brambling.quant.interchange.structure import (
    in_order,
    inlined,
    leading_to,
    makers,
    normalised,
    reads,
    versions,
)
from brambling.quant.interchange.tensors import load as array_of
from brambling.quant.interchange.trial import try_out

__all__ = ["load", "parse", "read"]

#: Domains as the ``qonnx`` package knows them, for the model that is executed.
_OUTSIDE = {QONNX: "qonnx.custom_op.general", CHANNELS_LAST: "qonnx.custom_op.channels_last"}


def read(path: Path, *, shape: tuple[int, ...] | None = None) -> Graph:
    """Read an ONNX file.

    Parameters
    ----------
    path
        Of the file; tensors may lie beside it, in its folder.
    shape
        Of the input, without the batch, where the file leaves it open.
    """
    path = Path(path)
    return parse(load(path), path.stem, shape=shape, folder=path.parent)


def load(path: Path) -> ModelProto:
    """Return what an ONNX file holds, of which nothing is checked yet."""
    try:
        if not path.is_file():
            raise FileProblem(f"{path}: no such file; name an .onnx file")
        if not 0 < (size := path.stat().st_size) <= MAX_FILE:
            raise FileProblem(
                f"{path}: {size:,} bytes: must be from 1 to {MAX_FILE:,}; copy it again"
            )
        contents = path.read_bytes()
    except (OSError, ValueError) as error:
        raise FileProblem(f"{path}: cannot be read ({brief(error)})") from None
    try:
        return ModelProto.FromString(contents)
    except (DecodeError, RecursionError):
        raise FileProblem(
            f"{path}: not an ONNX file, or damaged; export or copy it again"
        ) from None


def parse(
    model: ModelProto,
    name: str,
    *,
    shape: tuple[int, ...] | None = None,
    folder: Path | None = None,
) -> Graph:
    """Make a graph of a model in memory; ``folder`` is where its external data may be."""
    check_strings(name, model)
    if not model.HasField("graph") or not model.graph.node:
        raise FileProblem(f"{name}: there is no network in it; export it anew")
    model = inlined(model, name)
    operator_sets = versions(model, name)
    _refuse_rarities(model, name)
    source, kind, batch = _input(model, name, shape)
    sink = _output(model, name)
    every = normalised(model.graph, name, set())
    makers(every, {source, *(tensor.name for tensor in model.graph.initializer)}, name)
    nodes = leading_to(every, [sink])
    constants = _initialisers(
        model, name, {t for node in nodes for t in reads(node)} | {sink}, folder
    )
    nodes = in_order(nodes, {source, *constants}, name)
    types = {k: inference.tensor_type(v.dtype, v.shape) for k, v in constants.items()}
    walk = Walk(
        name=name,
        versions=operator_sets,
        folder=folder,
        batch=batch,
        constants=constants,
        types=types | {source: kind},
        live={source},
    )
    walk.run(nodes, [sink])
    graph = _finish(model, walk, source, sink)
    try_out(graph)
    return graph


def _refuse_rarities(model: ModelProto, name: str) -> None:
    if model.graph.sparse_initializer:
        raise FileProblem(f"{name}: has sparse initialisers; store them dense")
    values = [*model.graph.input, *model.graph.output]
    check_text(name, [value.name for value in values])
    for what in (model.graph.input, model.graph.output, model.graph.initializer):
        names = [value.name for value in what]
        if len(set(names)) < len(names):
            twice = next(text for text in names if names.count(text) > 1)
            raise FileProblem(f"{name}: tensor {twice!a} is there twice; export it anew")


def _input(
    model: ModelProto, name: str, shape: tuple[int, ...] | None
) -> tuple[str, TypeProto, int]:
    """Return the input's name, its type for a batch of one, and the batch that the file says."""
    known = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in known]
    if len(inputs) != 1:
        raise ConfigError(
            f"{name}: inputs {_listed(value.name for value in inputs)}: must be one; cut the "
            "model so that it has one"
        )
    (value,) = inputs
    tensor = value.type.tensor_type
    if not value.name or not value.type.HasField("tensor_type") or not tensor.elem_type:
        raise ConfigError(f"{name}: input {value.name!r}: is not a tensor; export it anew")
    try:
        helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    except (KeyError, ValueError, TypeError):
        raise ConfigError(
            f"{name}: input {value.name!r}: element type {tensor.elem_type}: not known; export "
            "it anew"
        ) from None
    said = [_size(dim) for dim in tensor.shape.dim]
    sizes = _agreed(f"{name}: input {value.name!r}", value, said[1:], shape)
    check_shape(f"{name}: input {value.name!r}", (1, *sizes))
    kind = helper.make_tensor_type_proto(tensor.elem_type, [1, *sizes])
    return value.name, kind, (said[0] if said else None) or 1


def _size(dim: TensorShapeProto.Dimension) -> int | None:
    """Return a dimension, ``None`` where it is left open."""
    size = int(dim.dim_value) if dim.HasField("dim_value") else 0
    return size if size > 0 else None


def _agreed(
    where: str, value: ValueInfoProto, said: Sequence[int | None], shape: tuple[int, ...] | None
) -> tuple[int, ...]:
    """Return the shape of one image, by the file and by the user."""
    dims = [dim.dim_param or str(dim.dim_value) for dim in value.type.tensor_type.shape.dim]
    text = ascii(f"({', '.join(dims)})")[1:-1]
    if shape is None:
        if not said or None in said:
            raise ConfigError(f"{where}: shape {text}: is left open; give --input-shape C,H,W")
        return tuple(size for size in said if size is not None)
    differ = len(shape) != len(said) or any(
        size not in {None, given} for size, given in zip(said, shape, strict=True)
    )
    if value.type.tensor_type.HasField("shape") and differ:
        raise ConfigError(
            f"{where}: shape {text}: does not fit --input-shape {','.join(map(str, shape))}; "
            "give one that does, without the batch"
        )
    return shape


def _listed(names: Iterable[str]) -> str:
    texts = [repr(text) for text in names]
    return ", ".join(texts[:8]) + (", …" if len(texts) > 8 else "") if texts else "none"


def _output(model: ModelProto, name: str) -> str:
    outputs = [value.name for value in model.graph.output]
    if len(outputs) != 1 or not outputs[0]:
        raise ConfigError(
            f"{name}: outputs {_listed(outputs)}: must be one; cut the model so that it has one"
        )
    return outputs[0]


def _initialisers(
    model: ModelProto, name: str, used: set[str], folder: Path | None
) -> dict[str, NDArray]:
    """Return the tensors of the file that something reads."""
    constants: dict[str, NDArray] = {}
    for tensor in model.graph.initializer:
        if tensor.name in used:
            check_text(name, [tensor.name])
            constants[tensor.name] = array_of(tensor, f"{name}: tensor {tensor.name!r}", folder)
    return constants


def _finish(model: ModelProto, walk: Walk, source: str, sink: str) -> Graph:
    """Make the graph of what is left after the walk."""
    made = walk.alias.get(sink, sink)
    if made not in walk.live:
        raise ConfigError(f"{walk.name}: output {sink!r}: does not depend on the input {source!r}")
    if made != sink and made != source:
        _rename(walk, made, sink)
        made = sink
    needed = {node.name for node in leading_to([proto for _, proto in walk.nodes], [made])}
    pairs = [(node, proto) for node, proto in walk.nodes if node.name in needed]
    used = {source, made} | {name for _, proto in pairs for name in reads(proto)}
    used |= {name for node, _ in pairs for name in node.outputs if name}
    constants = {name: value for name, value in walk.constants.items() if name in used}
    types = {name: kind for name, kind in walk.types.items() if name in used}
    shapes = {name: inference.shape_of(kind) for name, kind in types.items()}
    return Graph(
        name=walk.name,
        nodes=tuple(node for node, _ in pairs),
        constants=constants,
        shapes={name: shape for name, shape in shapes.items() if shape is not None},
        input=source,
        output=made,
        proto=_proto(model, walk, [proto for _, proto in pairs], constants, types, source, made),
        metadata={entry.key: entry.value for entry in model.metadata_props},
    )


def _rename(walk: Walk, old: str, new: str) -> None:
    """Give a tensor the name of the output, which nodes without an effect stood before."""

    def named(names: Sequence[str]) -> tuple[str, ...]:
        return tuple(new if name == old else name for name in names)

    for index, (node, proto) in enumerate(walk.nodes):
        changed = replace(node, inputs=named(node.inputs), outputs=named(node.outputs))
        proto.input[:], proto.output[:] = changed.inputs, changed.outputs
        walk.nodes[index] = (changed, proto)
    if old in walk.types:
        walk.types[new] = walk.types.pop(old)


def _proto(
    model: ModelProto,
    walk: Walk,
    nodes: Sequence[NodeProto],
    constants: Mapping[str, NDArray],
    types: Mapping[str, TypeProto],
    source: str,
    sink: str,
) -> ModelProto:
    """Return the model as it is executed: by us, and by the ``qonnx`` package."""
    used: dict[str, int] = {"": walk.versions[""]}
    copies = []
    for node in nodes:
        copy = NodeProto()
        copy.CopyFrom(node)
        copy.domain = _OUTSIDE.get(node.domain, node.domain)
        used[copy.domain] = max(1, walk.versions.get(node.domain, 1))
        copies.append(copy)
    graph = helper.make_graph(
        copies,
        walk.name,
        [ValueInfoProto(name=source, type=types[source])],
        [ValueInfoProto(name=sink, type=types.get(sink))],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
        value_info=[
            ValueInfoProto(name=name, type=kind)
            for name, kind in types.items()
            if name not in constants and name not in {source, sink}
        ],
    )
    graph.quantization_annotation.extend(
        entry for entry in model.graph.quantization_annotation if entry.tensor_name in types
    )
    return helper.make_model(
        graph,
        producer_name=model.producer_name,
        ir_version=max(4, model.ir_version),
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in used.items()],
    )

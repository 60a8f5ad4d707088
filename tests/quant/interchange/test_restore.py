"""What was exported comes back byte for byte; what was changed since then does not."""

import base64
import json
import random
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

from brambling import zoo
from brambling.network import Network

from .export_cases import CASES, random_network

onnx = pytest.importorskip("onnx")
hypothesis = pytest.importorskip("hypothesis")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from brambling.quant.interchange.exporter import ARRAYS, DESCRIPTION, DIGEST, export, to_onnx  # noqa: E402
from brambling.quant.interchange.restore import DAMAGE, described, restore, signature  # noqa: E402


def same(found: Network | None, network: Network) -> bool:
    return found is not None and found.to_bytes() == network.to_bytes()


def notes_of(model):
    return {entry.key: entry.value for entry in model.metadata_props}


def with_notes(model, **changes):
    """Copy a model with other metadata; ``None`` takes an entry away."""
    copy = type(model)()
    copy.CopyFrom(model)
    del copy.metadata_props[:]
    kept = {key: text for key, text in (notes_of(model) | changes).items() if text is not None}
    onnx.helper.set_model_props(copy, kept)
    return copy


# There and back --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", zoo.names())
def test_zoo(tmp_path, name):
    network = zoo.load(name)
    export(network, tmp_path / "model.onnx")
    found = restore(onnx.load(tmp_path / "model.onnx"))
    assert same(found, network)
    assert found == network


def test_every_kind_of_layer():
    wrong = [
        name for name, network in CASES.items() if not same(restore(to_onnx(network)), network)
    ]
    assert wrong == []


def test_small_networks(cnns, small_network):
    for network in (
        *(make(seed) for make in cnns.values() for seed in range(5)),
        *(small_network([9, 5, 4], seed, falling=True) for seed in range(5)),
    ):
        assert same(restore(to_onnx(network)), network)


@pytest.mark.parametrize("count", [100, pytest.param(3000, marks=pytest.mark.slow)])
def test_random_networks(count):
    for seed in range(count):
        network = random_network(seed)
        assert same(restore(to_onnx(network)), network), seed


def test_what_is_said_of_the_network(cnns):
    plain = cnns["residual"](0)
    network = Network(
        "said", plain.input, plain.layers, ("a", "b", "ü"), "none", {"seed": 3, "rate": [0.1, None]}
    )
    assert same(restore(to_onnx(network)), network)


@pytest.mark.parametrize("batch", [2, 100])
def test_batch_does_not_matter(batch, small_cnn):
    network = small_cnn(3)
    assert same(restore(to_onnx(network, batch)), network)


def test_order_names_of_nodes_and_notes_do_not_matter(small_cnn):
    network = small_cnn(4)
    model = to_onnx(network)
    rng = random.Random(0)
    graph = model.graph
    nodes = [node.attribute for node in graph.node]
    fields: list[Any] = [graph.initializer, graph.value_info, model.metadata_props, *nodes]
    for rows in fields:
        mixed = rng.sample(list(rows), len(rows))
        del rows[:]
        rows.extend(mixed)
    for node in model.graph.node:
        node.name = f"renamed_{node.name}"
        node.doc_string = "text"
    model.producer_name = "another"
    del model.graph.quantization_annotation[:]
    model.metadata_props.add(key="more", value="notes")
    assert same(restore(model), network)


# Changed since -----------------------------------------------------------------------------------


def without_a_node(graph):
    del graph.node[3]


def with_another_weight(graph):
    tensor = next(entry for entry in graph.initializer if entry.name.endswith(".weights"))
    array = onnx.numpy_helper.to_array(tensor).copy()
    array.flat[0] = -array.flat[0] or 1
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))


def with_a_fraction(graph):
    tensor = next(entry for entry in graph.initializer if entry.name.endswith(".weights"))
    array = onnx.numpy_helper.to_array(tensor).copy()
    array.flat[0] = 0.5
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))


def with_nan(graph):
    tensor = next(entry for entry in graph.initializer if entry.name.endswith(".weights"))
    array = np.full(tensor.dims, np.nan, np.float32)
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))


def with_another_scale(graph):
    tensor = next(entry for entry in graph.initializer if entry.name.endswith("_scale"))
    tensor.CopyFrom(onnx.numpy_helper.from_array(np.array(0.5, np.float32), tensor.name))


def with_another_type_of_constant(graph):
    tensor = next(entry for entry in graph.initializer if entry.name.endswith(".weights"))
    array = onnx.numpy_helper.to_array(tensor).astype(np.float64)
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))


def with_another_attribute(graph):
    node = next(node for node in graph.node if node.op_type == "Conv")
    entry = next(entry for entry in node.attribute if entry.name == "pads")
    entry.ints[:] = [1, 0, 0, 0]


def with_another_operator(graph):
    next(node for node in graph.node if node.op_type == "MaxPool").op_type = "AveragePool"


def with_another_source(graph):
    graph.node[-1].input[0] = "input"


def with_a_node_more(graph):
    graph.node.append(onnx.helper.make_node("Relu", ["input"], ["more"]))


def with_a_constant_more(graph):
    graph.initializer.append(onnx.numpy_helper.from_array(np.array([1.0]), "more"))


def with_another_output(graph):
    graph.output[0].name = graph.node[-2].output[0]


def with_two_outputs(graph):
    graph.output.add().CopyFrom(graph.value_info[0])


def with_another_shape(graph):
    graph.input[0].type.tensor_type.shape.dim[2].dim_value += 1


def with_a_symbolic_batch(graph):
    graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"


def without_input(graph):
    del graph.input[:]


def with_external_data(graph):
    tensor = graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="elsewhere")


CHANGES = (
    without_a_node, with_another_weight, with_a_fraction, with_nan, with_another_scale,
    with_another_type_of_constant, with_another_attribute, with_another_operator,
    with_another_source, with_a_node_more, with_a_constant_more, with_another_output,
    with_two_outputs, with_another_shape, with_a_symbolic_batch, without_input, with_external_data,
)  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_changed_graph(change, cnns):
    model = to_onnx(cnns["fixed_cnn"](0))
    change(model.graph)
    assert restore(model) is None


def test_changed_operator_set(cnns):
    model = to_onnx(cnns["fixed_cnn"](0))
    model.opset_import[0].version = 12
    assert restore(model) is None


@pytest.mark.parametrize("version", [None, "", "0", "2", "1.0"])
def test_another_version(version, cnns):
    assert restore(with_notes(to_onnx(cnns["residual"](0)), brambling=version)) is None


# Damaged descriptions ----------------------------------------------------------------------------


@pytest.mark.parametrize("digest", [None, "", "0" * 64])
def test_another_digest(digest, cnns):
    assert restore(with_notes(to_onnx(cnns["residual"](0)), **{DIGEST: digest})) is None


@pytest.mark.parametrize("text", [None, "", "{", "[]", "7", "{}", '{"layers": 3}', "[" * 100_000])
def test_damaged_description(text, cnns):
    assert restore(with_notes(to_onnx(cnns["residual"](0)), **{DESCRIPTION: text})) is None


@pytest.mark.parametrize("text", [None, "", "?", "AAAA", base64.b64encode(b"\x10" * 99).decode()])
def test_damaged_arrays(text, cnns):
    model = to_onnx(cnns["residual"](0))
    assert ARRAYS in notes_of(model)
    assert restore(with_notes(model, **{ARRAYS: text})) is None


def test_arrays_that_the_graph_contradicts(cnns):
    model = to_onnx(cnns["fixed_cnn"](0))
    hidden = load(base64.b64decode(notes_of(model)[ARRAYS]))
    for name, array in hidden.items():
        other = hidden | {name: array + 1}
        text = base64.b64encode(save(other)).decode()
        assert restore(with_notes(model, **{ARRAYS: text})) is None


def redescribed(model, change):
    """Copy a model with a changed description, and its hash where it is one."""
    meta = json.loads(notes_of(model)[DESCRIPTION])
    change(meta)
    changed = with_notes(model, **{DESCRIPTION: json.dumps(meta)})
    try:
        return with_notes(changed, **{DIGEST: described(changed).digest})
    except DAMAGE:
        return changed


def test_description_that_the_graph_contradicts(cnns):
    model = to_onnx(cnns["fixed_cnn"](0))
    for change in (
        lambda meta: meta["layers"][0].update(padding=[2, 2, 1, 2]),
        lambda meta: meta["layers"][1].update(rounding="floor"),
        lambda meta: meta["layers"][2].update(kernel=[2, 1]),
        lambda meta: meta["layers"].pop(),
        lambda meta: meta["input"].update(shape=[8, 9, 1]),
        lambda meta: meta["layers"][0].update(fmt="bipolar"),
    ):
        assert restore(redescribed(model, change)) is None


@pytest.mark.parametrize(
    ("fmt", "kernel"), [("u4.0", [9001, 9001]), ("s30.0", [9001, 9001]), ("u1.0", [3001, 3])]
)
def test_claims_of_something_huge(fmt, kernel, cnns):
    """A description cannot have more made of it than the file holds."""
    model = to_onnx(cnns["residual"](0))
    pool = {"kind": "Pool", "name": "huge", "inputs": ["input"], "pool": "sum", "stride": [1, 1],
            "kernel": kernel, "padding": [0, 0, 0, 0]}  # fmt: skip

    def change(meta):
        meta["input"] = {"shape": [10_000, 10_000, 1000], "fmt": fmt}
        meta["layers"] = [pool]

    changed = with_notes(redescribed(with_notes(model, **{ARRAYS: None}), change))
    assert notes_of(changed)[DIGEST] == described(changed).digest
    assert restore(changed) is None


def places(value, path=()):
    """Paths of all values in a JSON value."""
    yield path
    if isinstance(value, dict | list):
        for key, child in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(child, (*path, key))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 70), 1 << 70) | st.floats() | st.text(max_size=9)
    | st.sampled_from(["u64.0", "s8.0", "bipolar", "ternary", "input", "Dense", "Conv", "Pool"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner,
                                                                max_size=3),
    max_leaves=5,
)  # fmt: skip
MODELS = [to_onnx(CASES[name]) for name in ("conv_value_u4", "pool3_s30.0", "act_wide_s4.0")]
MODELS += [to_onnx(random_network(seed)) for seed in (4, 9)]


def unharmed(model):
    """A changed model gives nothing, or a network that is the same graph."""
    found = restore(model)
    if found is not None:
        batch = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value
        assert signature(to_onnx(found, batch)) == signature(model)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(model=st.sampled_from(MODELS), data=st.data())
def test_any_description(model, data):
    meta = json.loads(notes_of(model)[DESCRIPTION])
    path = data.draw(st.sampled_from([path for path in places(meta) if path]))
    value = data.draw(JSON)

    def change(meta):
        for key in path[:-1]:
            meta = meta[key]
        meta[path[-1]] = value

    unharmed(redescribed(model, change))


@pytest.mark.parametrize("count", [500, pytest.param(20_000, marks=pytest.mark.slow)])
def test_any_bytes(count):
    rng = random.Random(0)
    for _ in range(count):
        contents = bytearray(rng.choice(MODELS).SerializeToString())
        for _ in range(rng.randint(1, 4)):
            contents[rng.randrange(len(contents))] = rng.randrange(256)
        model = onnx.ModelProto()
        try:
            model.ParseFromString(bytes(contents))
        except Exception:  # Protobuf's own is in a private module.
            continue
        unharmed(model)

"""Reading ONNX files: what is folded, dropped and renamed, and what is refused."""

import numpy as np
import pytest

pytest.importorskip("onnx")

from onnx import ModelProto, TensorProto, checker, helper, numpy_helper

from brambling.errors import BramblingError, ConfigError, FileProblem
from brambling.quant.interchange import executor, reader

from .mutations import models

FLOAT = TensorProto.FLOAT
GENERAL = "qonnx.custom_op.general"


def node(op, inputs, outputs, **attributes):
    return helper.make_node(op, inputs.split(), outputs.split(), **attributes)


def tensors(**arrays):
    return [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()]


def model(nodes, constants=(), *, shape=(1, 4), opset=13, outputs=("y",), inputs=("x",)):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, FLOAT, shape) for name in inputs],
        [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs],
        list(constants),
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(GENERAL, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def i64(*values):
    return np.array(values, np.int64)


def row(*values):
    return np.array(values, np.float32)


def relu():
    return model([node("Relu", "x", "y")])


def refused(made: ModelProto, error=BramblingError, **kwargs):
    with pytest.raises(error) as caught:
        reader.parse(made, "m", **kwargs)
    return str(caught.value)


@pytest.mark.parametrize("name", models())
def test_the_model_that_is_handed_on_is_valid_and_reads_the_same(name):
    graph = reader.parse(models()[name], name)
    for domain in (GENERAL, "qonnx.custom_op.channels_last"):
        assert domain not in {other.domain for other in graph.nodes}
    if name != "finn":  # the checker looks for wrapped operators' domain as one of its own
        checker.check_model(graph.proto)
    again = reader.parse(graph.proto, name)
    assert [(n.op, n.inputs, n.outputs) for n in again.nodes] == [
        (n.op, n.inputs, n.outputs) for n in graph.nodes
    ]
    assert again.shapes == graph.shapes
    made = {t for n in graph.nodes for t in n.outputs} | {graph.input, *graph.constants}
    assert made == set(graph.shapes)


def test_a_shape_of_the_input_is_computed_and_the_batch_left_out():
    for batch in (1, 0, -1, "N", None):
        made = models()["dense"]
        dim = made.graph.input[0].type.tensor_type.shape.dim[0]
        dim.Clear()
        if isinstance(batch, str):
            dim.dim_param = batch
        elif batch is not None:
            dim.dim_value = batch
        graph = reader.parse(made, "m")
        assert graph.shapes["x"] == (1, 1, 4, 4)
        reshape = next(n for n in graph.nodes if n.op == "Reshape")
        np.testing.assert_array_equal(graph.constants[reshape.inputs[1]], [1, -1])
        assert not {"Shape", "Gather", "Unsqueeze", "Concat", "Pow"} & {n.op for n in graph.nodes}
        root = np.sqrt(np.float32(2) + np.float32(1e-5), dtype=np.float32)
        divide = next(n for n in graph.nodes if n.op == "Div")
        np.testing.assert_array_equal(graph.constants[divide.inputs[1]], [root])


def test_quantised_weights_stay_to_be_seen():
    graph = reader.parse(models()["dense"], "m")
    assert [n.op for n in graph.nodes] == [
        "IntQuant", "Reshape", "IntQuant", "Transpose", "MatMul", "BatchNormalization",
        "BipolarQuant", "IntQuant", "Gemm", "Div",
    ]  # fmt: skip
    graph = reader.parse(models()["qcdq"], "m")
    assert [n.op for n in graph.nodes].count("DequantizeLinear") == 5


def test_constants_are_computed_as_they_are_executed():
    graph = reader.parse(models()["computed"], "m")
    assert [n.op for n in graph.nodes] == ["IntQuant", "Mul", "Add", "Concat"]
    mul, add = graph.nodes[1:3]
    np.testing.assert_array_equal(
        graph.constants[mul.inputs[1]], np.sqrt(np.arange(8, dtype=np.float32))[None]
    )
    np.testing.assert_array_equal(graph.constants[add.inputs[1]], [0.5] * 8)


def test_what_does_nothing_is_dropped_and_the_output_keeps_its_name():
    nodes = [
        node("Identity", "x", "a"),
        node("Relu", "a", "b"),
        node("DebugMarker", "b", "c", domain=GENERAL, export_debug_name="here"),
        node("Add", "c k", "dead"),
        node("Dropout", "c", "d mask"),
        node("Identity", "d", "y"),
    ]
    graph = reader.parse(model(nodes, tensors(k=np.float32(1))), "m")
    assert [(n.op, n.inputs, n.outputs) for n in graph.nodes] == [("Relu", ("x",), ("y",))]
    assert (graph.output, dict(graph.constants)) == ("y", {})
    x = row(-1, 2, -3, 4)[None]
    np.testing.assert_array_equal(executor.execute(graph, x)["y"], [[0, 2, 0, 4]])


def test_dropout_that_drops_stays():
    nodes = [node("Dropout", "x r t", "y")]
    constants = tensors(r=np.float32(0.5), t=np.array(True))
    assert [n.op for n in reader.parse(model(nodes, constants), "m").nodes] == ["Dropout"]
    constants = tensors(r=np.float32(0.5), t=np.array(False))
    graph = reader.parse(model(nodes, constants), "m")
    assert (graph.nodes, graph.output) == ((), "x")


def test_old_names_of_domains_and_operators():
    for domain in (GENERAL, "onnx.brevitas", "finn.custom_op.general"):
        quant = node("Quant", "x s z b", "y", domain=domain)
        made = model([quant], tensors(s=np.float32(1), z=np.float32(0), b=np.float32(4)))
        (only,) = reader.parse(made, "m").nodes
        assert (only.op, only.domain, only.version) == ("IntQuant", "qonnx", 1)
    hard = node("StreamingFCLayer", "x", "y", domain="finn.custom_op.fpgadataflow")
    graph = reader.parse(model([hard, node("Relu", "y", "z")], outputs="z"), "m")
    assert [n.domain for n in graph.nodes] == ["finn.custom_op.fpgadataflow", ""]
    assert graph.shapes == {"x": (1, 4)}


def test_names():
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], name="same"),
        helper.make_node("Relu", ["a"], ["b"], name="same"),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("Relu", ["c"], ["d"], name="Relu_2"),
        helper.make_node("Relu", ["d"], ["/y: é"], name="/a.b[0] è"),
    ]
    graph = reader.parse(model(nodes, outputs=["/y: é"]), "m")
    assert [n.name for n in graph.nodes] == ["same", "Relu_1", "Relu_2_1", "Relu_2", "/a.b[0] è"]
    assert graph.output == "/y: é"


def test_nodes_in_no_order_are_put_in_one():
    nodes = [node("Add", "a b", "y"), node("Relu", "x", "a"), node("Neg", "a", "b")]
    assert [n.op for n in reader.parse(model(nodes), "m").nodes] == ["Relu", "Neg", "Add"]


def test_initialisers_that_are_listed_as_inputs():
    made = model([node("Add", "x k", "y")], tensors(k=np.ones(4, np.float32)), inputs=("x", "k"))
    assert reader.parse(made, "m").input == "x"


def test_functions_are_inlined():
    graph = reader.parse(models()["functions"], "m")
    assert [n.op for n in graph.nodes] == ["IntQuant", "Add", "Add", "Add"]
    x = np.ones((1, 8), np.float32)
    noise = graph.constants[graph.nodes[-1].inputs[1]]
    np.testing.assert_array_equal(executor.execute(graph, x)[graph.output], 4 * x + noise)


def test_functions_that_grow_beyond_measure_or_call_themselves():
    own = [helper.make_opsetid("", 13), helper.make_opsetid("f", 1)]
    made = model([node("F40", "x", "y", domain="f")])
    made.opset_import.append(own[1])
    body = [node("Relu", "a", "b")]
    made.functions.append(helper.make_function("f", "F0", ["a"], ["b"], body, own))
    for n in range(1, 41):
        body = [node(f"F{n - 1}", "a", "c", domain="f"), node(f"F{n - 1}", "c", "b", domain="f")]
        made.functions.append(helper.make_function("f", f"F{n}", ["a"], ["b"], body, own))
    assert refused(made) == "m: more than 100,000 nodes with its functions inlined"
    made.functions[0].node[0].CopyFrom(node("F40", "a", "b", domain="f"))
    assert refused(made).endswith("calls itself; export it anew")


@pytest.mark.parametrize("taken", [True, False])
def test_a_branch_that_is_always_taken_is_put_in_place(taken):
    def branch(op):
        out = [helper.make_tensor_value_info("r", FLOAT, None)]
        nodes = [node(op, "a", "q"), node("Add", "q one", "r")]
        return helper.make_graph(nodes, op, [], out, tensors(one=np.float32(1)))

    nodes = [node("Neg", "x", "a"), node("If", "c", "b"), node("Abs", "b", "y")]
    for key, op in (("then_branch", "Relu"), ("else_branch", "Exp")):
        nodes[1].attribute.append(helper.make_attribute(key, branch(op)))
    graph = reader.parse(model(nodes, tensors(c=np.array(taken))), "m")
    inner = "Relu" if taken else "Exp"
    assert [n.op for n in graph.nodes] == ["Neg", inner, "Add", "Abs"]
    nodes.insert(0, node("Greater", "x z", "c"))
    graph = reader.parse(model(nodes, tensors(z=np.float32(0))), "m")
    assert [n.op for n in graph.nodes] == ["Greater", "Neg", "If", "Abs"]


def test_a_fixed_batch_becomes_one():
    made = model([node("Reshape", "x s", "a"), node("Relu", "a", "y")],
                 tensors(s=i64(8, 6)), shape=(8, 2, 3))  # fmt: skip
    graph = reader.parse(made, "m")
    assert graph.shapes == {"x": (1, 2, 3), "s_of_one": (2,), "a": (1, 6), "y": (1, 6)}
    made = model([node("Add", "x k", "y")], tensors(k=np.ones((8, 4), np.float32)), shape=(8, 4))
    graph = reader.parse(made, "m")
    assert graph.shapes["y"] == (8, 4)
    made = model([node("Reshape", "x s", "y")], tensors(s=i64(4, 12)), shape=(8, 2, 3))
    assert refused(made, ConfigError) == (
        "m: Reshape_0 (Reshape): shape (4, 12) of (1, 2, 3): has another number of elements; the "
        "model is fixed to batches of 8: export it with batches of 1"
    )


def test_open_dimensions_are_asked_for():
    made = model([node("GlobalAveragePool", "x", "y")], shape=("N", 3, "height", None))
    assert refused(made, ConfigError) == (
        "m: input 'x': shape (N, 3, height, 0): is left open; give --input-shape C,H,W"
    )
    graph = reader.parse(made, "m", shape=(3, 5, 7))
    assert (graph.shapes["x"], graph.shapes["y"]) == ((1, 3, 5, 7), (1, 3, 1, 1))
    assert refused(made, ConfigError, shape=(4, 5, 7)) == (
        "m: input 'x': shape (N, 3, height, 0): does not fit --input-shape 4,5,7; give one that "
        "does, without the batch"
    )
    assert "does not fit" in refused(made, ConfigError, shape=(3, 5))
    made.graph.input[0].type.tensor_type.ClearField("shape")
    assert "is left open" in refused(made, ConfigError)
    assert reader.parse(made, "m", shape=(3, 5, 7)).shapes["y"] == (1, 3, 1, 1)


def test_inputs_and_outputs_must_be_one():
    two = model([node("Add", "x z", "y")], inputs=("x", "z"))
    assert refused(two, ConfigError) == (
        "m: inputs 'x', 'z': must be one; cut the model so that it has one"
    )
    two = model([node("Relu", "x", "y"), node("Neg", "x", "z")], outputs=("y", "z"))
    assert refused(two, ConfigError) == (
        "m: outputs 'y', 'z': must be one; cut the model so that it has one"
    )
    none = model([node("Neg", "k", "y")], tensors(k=np.float32(1)), inputs=())
    assert refused(none, ConfigError).startswith("m: inputs none: must be one")
    still = model([node("Neg", "k", "y")], tensors(k=np.float32(1)))
    assert refused(still, ConfigError) == "m: output 'y': does not depend on the input 'x'"


def test_damaged_structure_is_said_with_the_node():
    cycle = [node("Add", "x b", "a"), node("Relu", "a", "b"), node("Relu", "b", "y")]
    assert refused(model(cycle), FileProblem) == (
        "m: Add_0 (Add), Relu_1 (Relu), Relu_2 (Relu): read their own results; export it anew"
    )
    assert refused(model([node("Add", "x gone", "y")]), FileProblem) == (
        "m: Add_0 (Add): reads 'gone', which nothing makes; export it anew"
    )
    twice = [node("Relu", "x", "a"), node("Neg", "x", "a"), node("Add", "a a", "y")]
    assert refused(model(twice), FileProblem) == (
        "m: Neg_1 (Neg): tensor 'a' is there twice; export it anew"
    )
    known = model([node("Add", "x k", "y")], tensors(k=np.float32(1)) * 2)
    assert refused(known, FileProblem) == "m: tensor 'k' is there twice; export it anew"
    assert refused(model([node("Relu", "x", "a\nb")], outputs=["a\nb"])) == (
        r"m: name 'a\nb': has characters that cannot be printed; rename it"
    )


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (node("Conv", "x w", "y", strides=[0, 1]), "strides 0: must be from 1 to 65,536"),
        (node("Conv", "x w", "y", pads=[-1, 0, 0, 0]), "pads -1: must be from 0 to 65,536"),
        (node("Conv", "x w", "y", kernel_shape=[2**40, 1]),
         "kernel_shape 1099511627776: must be from 1 to 65,536"),
        (node("Conv", "x w", "y", group=0), "group 0: must be from 1 to 65,536"),
        (node("Conv", "x w", "y", group="two"), "group 'two': must be from 1 to 65,536"),
        (node("Conv", "x w", "y", pads=[9] * 3),
         "is not valid (Attribute pads has incorrect size); export it anew"),
        (node("Conv", "x w", "y", dilations=[9, 9]),
         "result: shape (1, 2, -3, -3): has nothing in it; use larger images or smaller windows"),
        (node("Transpose", "x", "y", perm=[0, 1]),
         "cannot be executed (perm size: 2 does not match input rank: 4); export it anew"),
        (node("DepthToSpace", "x", "y"),
         "is not valid (Required attribute 'blocksize' is missing); export it anew"),
        (node("IntQuant", "x s s s", "y", domain=GENERAL, signed="yes"),
         "signed 'yes': must be an integer"),
        (node("MaxPoolNHWC", "x", "y", domain=GENERAL),
         "has no kernel_shape, which it needs; export it anew"),
        (node("ConstantOfShape", "n", "y", value=helper.make_tensor("v", FLOAT, [1], [0])),
         "result: shape (1048576, 1048576): more than 268,435,456 elements; use smaller images"),
    ],
)  # fmt: skip
def test_a_node_that_cannot_be(bad, message):
    nodes = [bad]
    if bad.op_type == "ConstantOfShape":
        bad.output[0] = "k"
        nodes = [bad, node("Add", "x k", "y")]
    constants = tensors(w=np.ones((2, 3, 2, 2), np.float32), s=np.float32(1), n=i64(2**20, 2**20))
    text = refused(model(nodes, constants, shape=(1, 3, 6, 6)), ConfigError)
    assert text == f"m: {bad.op_type}_0 ({bad.op_type}): {message}"


def test_operator_sets():
    for opset in (8, 28):
        assert reader.parse(model([node("Relu", "x", "y")], opset=opset), "m").nodes
    assert refused(model([node("Relu", "x", "y")], opset=7), ConfigError) == (
        "m: operator set 7: 8 to 28 are read; export it anew"
    )
    assert refused(model([node("Relu", "x", "y")], opset=99), ConfigError) == (
        "m: operator set 99: the installed onnx knows 8 to 28; install a newer onnx"
    )
    made = relu()
    del made.opset_import[:]
    assert refused(made) == "m: names no version of ONNX's operators; export it anew"


def test_numbers_that_are_none_are_read():
    made = model([node("Mul", "x k", "y")], tensors(k=row(np.nan, np.inf, -np.inf, 0)))
    assert np.isnan(reader.parse(made, "m").constants["k"][0])


def test_notes_of_the_file_are_kept():
    made = relu()
    helper.set_model_props(made, {"author": "me"})
    assert reader.parse(made, "m").metadata == {"author": "me"}


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"", "{path}: 0 bytes: must be from 1 to 2,147,483,648; copy it again"),
        (b"\x89PNG\r\n\x1a\n", "{path}: not an ONNX file, or damaged; export or copy it again"),
        (relu().SerializeToString()[:-5],
         "{path}: not an ONNX file, or damaged; export or copy it again"),
        (ModelProto(ir_version=8).SerializeToString(),
         "model: there is no network in it; export it anew"),
    ],
)  # fmt: skip
def test_files_that_are_none(contents, message, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(contents)
    with pytest.raises(FileProblem) as error:
        reader.read(path)
    assert str(error.value) == message.format(path=path)


def test_no_file(tmp_path):
    for path in (tmp_path, tmp_path / "none.onnx"):
        with pytest.raises(FileProblem) as error:
            reader.read(path)
        assert str(error.value) == f"{path}: no such file; name an .onnx file"


def claiming(*dims, raw: bytes | None = b"\0" * 16):
    tensor = TensorProto(name="k", data_type=FLOAT, dims=dims)
    if raw is not None:
        tensor.raw_data = raw
    return model([node("Add", "x k", "y")], [tensor])


def test_a_tensor_has_the_data_that_its_shape_claims():
    assert refused(claiming(2**20, 2**20)) == (
        "m: tensor 'k': claims 4,398,046,511,104 bytes: at most 2,147,483,648; export it anew"
    )
    assert refused(claiming(5)) == (
        "m: tensor 'k': shape (5) needs 20 bytes, but the file has 16; export it anew"
    )
    assert refused(claiming(5, raw=None)) == (
        "m: tensor 'k': shape (5) needs 5 values, but the file has 0; export it anew"
    )
    assert refused(claiming(-4)) == "m: tensor 'k': dimensions (-4): not a shape; export it anew"
    assert reader.parse(claiming(4), "m").nodes


@pytest.fixture
def outside(tmp_path):
    """Make a model whose tensor lies in another file, in a folder beside a secret."""
    folder = tmp_path / "models"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(b"\1" * 16)
    (folder / "data.bin").write_bytes(np.arange(8, dtype=np.float32).tobytes())

    def make(location, **facts):
        made = claiming(4, raw=None)
        tensor = made.graph.initializer[0]
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {"location": location, **facts}.items():
            tensor.external_data.add(key=key, value=str(value))
        (folder / "model.onnx").write_bytes(made.SerializeToString())
        return folder / "model.onnx"

    return make


def test_data_beside_the_model_is_read(outside):
    graph = reader.read(outside("data.bin", offset=8, length=16))
    np.testing.assert_array_equal(graph.constants["k"], [2, 3, 4, 5])
    np.testing.assert_array_equal(reader.read(outside("data.bin")).constants["k"], range(4))
    assert not graph.proto.graph.initializer[0].external_data


@pytest.mark.parametrize(
    ("location", "facts", "message"),
    [
        ("../secret.bin", {}, "must be inside the model's folder; put it there"),
        ("sub/../../secret.bin", {}, "must be inside the model's folder; put it there"),
        ("/etc/passwd", {}, "must be inside the model's folder; put it there"),
        ("C:\\secret.bin", {}, "must be inside the model's folder; put it there"),
        ("..\\secret.bin", {}, "must be inside the model's folder; put it there"),
        ("", {}, "must be inside the model's folder; put it there"),
        ("gone.bin", {}, "no such file in the model's folder; copy it there"),
        ("link.bin", {}, "leads out of the model's folder; put the file there"),
        ("away/secret.bin", {}, "leads out of the model's folder; put the file there"),
    ],
)
def test_data_elsewhere_is_refused(location, facts, message, outside, tmp_path):
    (tmp_path / "models" / "link.bin").symlink_to(tmp_path / "secret.bin")
    (tmp_path / "models" / "away").symlink_to(tmp_path)
    with pytest.raises(FileProblem) as error:
        reader.read(outside(location, **facts))
    assert str(error.value) == f"model: tensor 'k': data in {location!r}: {message}"


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"offset": 20}, "bytes 20 to 36 of data.bin: the file has 32 only; copy it again"),
        ({"length": 12}, "shape (4) needs 16 bytes, but 12 are said to be in data.bin"),
        ({"offset": -4}, "offset '-4': not a number"),
        ({"offset": "9" * 30}, f"offset '{'9' * 30}': not a number"),
    ],
)  # fmt: skip
def test_data_that_is_not_there(facts, message, outside):
    with pytest.raises(FileProblem) as error:
        reader.read(outside("data.bin", **facts))
    assert str(error.value).removesuffix("; export it anew") == f"model: tensor 'k': {message}"


def test_data_in_another_file_needs_the_file():
    made = claiming(4, raw=None)
    made.graph.initializer[0].data_location = TensorProto.EXTERNAL
    assert refused(made) == (
        "m: tensor 'k': has its data in another file; read the model from its file"
    )


def test_constants_without_end_are_refused():
    nodes = [node("ConstantOfShape", "n", f"k{i}") for i in range(9)]
    nodes.append(node("Sum", " ".join(["x", *(f"k{i}" for i in range(9))]), "y"))
    made = model(nodes, tensors(n=i64(2**25)), shape=(1, 1))
    assert "constants of more than 134,217,728 elements to compute" in refused(made)

"""Networks made of QONNX and QCDQ graphs compute what plain loops over fractions do."""

import gzip
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper  # noqa: E402

from brambling.origin import origin_of  # noqa: E402
from brambling.quant.formats import Bipolar, Fixed  # noqa: E402
from brambling.quant.interchange import check, reader  # noqa: E402
from brambling.quant.interchange.importer import Options, import_graph  # noqa: E402
from brambling.quant.interchange.onnx_lowering import OPERATORS  # noqa: E402
from brambling.sim import golden  # noqa: E402

from . import importer_cases, importer_moves  # noqa: E402
from .importer_loops import BYTE, QUARTER, Net, exactly, images  # noqa: E402
from .small_models import GENERAL, LAST  # noqa: E402

SHARED = Path(__file__).resolve().parents[4] / "shared"
DOMAINS = (GENERAL, "onnx.brevitas", "finn.custom_op.general")
CASES = importer_cases.CASES | importer_moves.CASES
NAMES = {"Quant": "IntQuant"}


def imported(net, scale=QUARTER, fmt=BYTE, kind: Any = TensorProto.FLOAT):
    return import_graph(reader.parse(net.model(kind), "m"), Options(scale, fmt=fmt))


def computed(made, x):
    """What a network makes of a batch in the model's domain: its frames' edges, and reals."""
    origin = origin_of(made.network)
    assert origin is not None
    edges = golden.run(made.network, origin.input.frames(x, made.network.input))
    output = edges[origin.output.edge]
    return edges, origin.output.reals(output.reshape(len(output), -1))


@pytest.mark.parametrize("name", CASES)
def test_operator(name):
    for number, given in enumerate(CASES[name]()):
        made = imported(given.net, fmt=given.fmt, kind=given.kind)
        x = (given.codes * 0.25).astype(np.float32)
        _, y = computed(made, x)
        wanted = np.array(given.expected, float)
        assert y.shape == wanted.shape, (number, y.shape, wanted.shape)
        assert np.array_equal(y, wanted), (number, np.argwhere(y != wanted)[0].tolist())
        found = check.check(made, x)
        assert (sum(found.ties.values()), found.carried, found.outputs) == (0, 0, 0), number


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
def test_softmax_is_left_to_the_end(op):
    codes, x = images(6)
    w = np.random.default_rng(9).integers(-1, 2, (6, 4))
    net = Net(6)
    net.then("MatMul", net.const(w))
    net.then(op, axis=1)
    made = imported(net)
    edges, y = computed(made, (codes * 0.25).astype(np.float32))
    sums = (x[:, :, None] * exactly(w)).sum(1)
    assert np.array_equal(edges[made.network.layers[-1].name] * 0.25, np.array(sums, float))
    parts = np.exp(np.array(sums - sums.max(1, keepdims=True), float))
    share = parts / parts.sum(1, keepdims=True)
    np.testing.assert_allclose(y, share if op == "Softmax" else np.log(share), rtol=1e-12)
    assert made.notes == (
        f"{op}_1 ({op}) is left out of the network: it keeps the order of the classes",
    )
    largest = import_graph(made.graph, Options(QUARTER, fmt=BYTE, argmax=True))
    edges, _ = computed(largest, (codes * 0.25).astype(np.float32))
    first = [row.tolist().index(max(row)) for row in sums]
    assert edges["argmax"].reshape(-1).tolist() == first


def test_every_operator_has_a_case():
    seen = {("", "Softmax"), ("", "LogSoftmax")}
    for function in CASES.values():
        for given in function():
            for node in given.net.nodes:
                domain = {"": "", LAST: "channels_last"}.get(node.domain, "qonnx")
                seen.add((domain, NAMES.get(node.op_type, node.op_type)))
    assert set(OPERATORS) - seen == set()


# Files of many kinds ------------------------------------------------------------------------------


def plain(domain=GENERAL, op="Quant", opset=13):
    """A small network."""
    net = Net(2, 5, 4, opset=opset, domain=domain)
    net.rounds(0.25, 6, op=op)
    raw = net.const(np.random.default_rng(0).normal(size=(3, 2, 2, 2)))
    name = net.add(op, raw, *map(net.const, (0.25, 0, 4)), domain=domain)
    net.then("Conv", name)
    net.then("Relu")
    net.rounds(0.5, 3, op=op, signed=0)
    net.then("Flatten")
    net.then("MatMul", net.const(np.random.default_rng(1).integers(-3, 4, (36, 4))))
    return net


def network_of(net, change=lambda model: None, **options):
    model = net.model()
    change(model)
    return import_graph(reader.parse(model, "m"), Options(**options)).network


def test_files_of_one_meaning_are_one_network():
    def unnamed(model):
        for node in model.graph.node:
            assert node.name == ""

    def named(model):
        for number, node in enumerate(model.graph.node):
            node.name = f"/a.b[{number}] è"

    def shared(model):
        """Make equal initialisers one."""
        first: dict[bytes, str] = {}
        names = {}
        for tensor in list(model.graph.initializer):
            key = bytes(str(tensor.dims), "ascii") + tensor.raw_data
            names[tensor.name] = first.setdefault(key, tensor.name)
            if names[tensor.name] != tensor.name:
                model.graph.initializer.remove(tensor)
        for node in model.graph.node:
            node.input[:] = [names.get(name, name) for name in node.input]
        assert len(model.graph.initializer) < len(names)

    def listed(model):
        """Name initialisers as inputs as well."""
        for tensor in model.graph.initializer:
            info = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            model.graph.input.append(info)

    digest = network_of(plain()).digest
    for change in (unnamed, named, shared, listed):
        assert network_of(plain(), change).digest == digest, change
    for domain, op, opset in product(DOMAINS, ("Quant", "IntQuant"), (8, 11, 13, 21)):
        assert network_of(plain(domain, op, opset)).digest == digest, (domain, op, opset)
    assert network_of(plain(), scale=QUARTER).digest != digest


# A model of others --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published():
    """TFC-W1A1 as a graph, all test images, and their logits."""
    files = [
        SHARED / "models/TFC_1W1A.onnx",
        SHARED / "models/TFC_1W1A_logits.npz",
        SHARED / "data/mnist/t10k-images-idx3-ubyte.gz",
    ]
    for file in files:
        if not file.exists():
            pytest.skip(f"there is no {file.name} beside the repository, in shared/")
    pixels = np.frombuffer(gzip.decompress(files[2].read_bytes()), np.uint8, offset=16)
    with np.load(files[1]) as stored:
        return reader.read(files[0]), pixels.reshape(-1, 1, 28, 28), stored["logits"]


@pytest.mark.parametrize("scale", [Fraction(1, 255), None])
def test_all_logits_of_a_published_model(published, scale):
    graph, pixels, logits = published
    made = import_graph(graph, Options(scale))
    assert made.network.input.fmt == (Bipolar() if scale is None else Fixed(8, 0, signed=False))
    edges, y = computed(made, pixels / np.float32(255))
    assert y.shape == logits.shape == (10_000, 10)
    origin = origin_of(made.network)
    assert origin is not None
    # Every logit, less its offset, is nearest to one integer: that of the network.
    (gain,), (offset,) = origin.output.gain, origin.output.offset
    assert np.array_equal(np.rint((logits - offset) / gain), edges[origin.output.edge])
    # The file computes them of integers by four operations, each of which rounds its result once.
    names = [node.inputs for node in graph.nodes[-4:]]
    assert [node.op for node in graph.nodes[-4:]] == ["Sub", "Div", "Mul", "Add"]
    taken, divisor, factor, summand = (float(graph.constants[row[1]].item()) for row in names)
    most = (np.abs(edges["fc4"]) + abs(taken)) / abs(divisor) * abs(factor) + abs(summand)
    assert (np.abs(y - logits) <= 4.01 * 2.0**-24 * most).all()
    if scale is not None:  # Pixels themselves are as good.
        again, _ = computed(made, pixels)
        assert np.array_equal(again["fc4"], edges["fc4"])


@pytest.mark.parametrize(
    "count", [320, pytest.param(10_000, marks=pytest.mark.slow)], ids=["some", "all"]
)
@pytest.mark.parametrize("scale", [Fraction(1, 255), None])
def test_all_codes_of_a_published_model(published, scale, count):
    graph, pixels, logits = published
    made = import_graph(graph, Options(scale))
    x = pixels[:count] / np.float32(255)
    found = check.check(made, x, executed={graph.output: logits[:count]})
    codes = count * (784 + 3 * 64)
    assert (found.images, found.codes) == (count, codes)
    assert (sum(found.ties.values()), found.carried, found.outputs) == (0, 0, 0)

"""Models that Brevitas made and exported, as networks: all tensors equal the real qonnx's."""

from dataclasses import dataclass

import numpy as np
import pytest

pytest.importorskip("onnx")

from brambling import api
from brambling.origin import origin_of
from brambling.quant.interchange import check, reader
from brambling.quant.interchange.importer import Imported, import_graph
from brambling.sim import golden
from brambling.simulation import simulate

from . import real_qonnx

QUICK = ("lenet", "residual-alike", "binary", "qcdq")


@dataclass(frozen=True, eq=False)
class Model:
    name: str
    exported: real_qonnx.Exported
    tensors: dict
    made: Imported


def models(folder, names, seed):
    """Models with their tensors by the real qonnx, as networks."""
    exported = real_qonnx.models(folder, names, seed=seed)
    tensors = real_qonnx.execute([(model.file, model.inputs) for model in exported])
    rows = zip(names, exported, tensors, strict=True)
    return [Model(*row, import_graph(reader.read(row[1].file))) for row in rows]


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    real_qonnx.require()
    return models(tmp_path_factory.mktemp("models"), QUICK, 1)


def compare(model: Model):
    """Compare all codes, then the output with the integers of the last layer."""
    made, inputs, tensors = model.made, model.exported.inputs, model.tensors
    assert set(made.tensors) - set(tensors) <= {made.graph.input}, model.name
    found = check.check(made, inputs, executed=tensors)
    # A layer of each kind has codes, and they are not all the same.
    rounds = [row for row in check.differences(made, inputs, executed=tensors) if row.rounds]
    assert found.codes == sum(row.network.size for row in rounds) > 0
    assert all(len(np.unique(row.network)) > 1 for row in rounds), model.name
    output = tensors[made.graph.output]
    assert np.array_equal(output, model.exported.qonnx)
    origin = origin_of(made.network)
    assert origin is not None
    edges = golden.run(made.network, origin.input.frames(inputs, made.network.input))
    integers = edges[origin.output.edge].reshape(len(inputs), -1)
    gain, offset = np.array(origin.output.gain), np.array(origin.output.offset)
    seen = np.rint((output.reshape(len(inputs), -1) - offset) / gain)
    same = (seen == integers).all(axis=1)
    assert (~same).sum() <= found.outputs, model.name
    return found


def test_every_code_and_output(quick):
    for model in quick:
        found = compare(model)
        print(f"{model.name}: {found}")  # with pytest -s, and where the test fails
        assert sum(found.ties.values()) <= 1e-3 * found.codes, (model.name, found)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_every_code_and_output_of_all(seed, tmp_path):
    real_qonnx.require()
    for model in models(tmp_path, real_qonnx.MODELS, seed):
        found = compare(model)
        print(f"{model.name}: {found}")  # with pytest -s, and where the test fails
        assert sum(found.ties.values()) <= 1e-3 * found.codes, (model.name, found)


def engines(model: Model):
    made = model.made
    origin = origin_of(made.network)
    assert origin is not None
    frames = origin.input.frames(model.exported.inputs, made.network.input)
    plan = api.plan(made.network, "ulx3s-85f", "min-area")
    result = simulate(made.network, plan, frames, engine="golden")
    edges = golden.run(made.network, frames)
    output = edges[origin.output.edge].reshape(len(frames), -1)
    assert np.array_equal(result.outputs, output), model.name


def test_every_layer_has_an_engine(quick):
    for model in quick:
        if model.name in {"qcdq", "binary"}:  # The others take longer to plan.
            engines(model)


@pytest.mark.slow
def test_every_layer_of_all_has_an_engine(tmp_path):
    real_qonnx.require()
    for model in models(tmp_path, real_qonnx.MODELS, 1):
        engines(model)

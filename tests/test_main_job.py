"""The main job: a trained network, real images, every engine, the same numbers."""

import json
import shutil

import numpy as np
import pytest

from brambling import api, cli, zoo
from brambling.sim import golden
from brambling.simulation import simulate

FRAMES = {"pysim": 2, "icarus": 2, "verilator": 300, "cxxrtl": 300}
TOOLS = {"verilator": "c++", "cxxrtl": "c++", "icarus": "iverilog"}


@pytest.fixture(scope="module")
def job():
    network = api.load("tfc-w1a1")
    return network, api.plan(network, "ulx3s-25f", "fps=100000"), *zoo.evaluation_set()


@pytest.mark.parametrize("engine", FRAMES)
def test_every_engine_equals_both_models_on_real_images(job, engine):
    network, plan, images, labels = job
    if engine in TOOLS and shutil.which(TOOLS[engine]) is None:
        pytest.skip(f"{TOOLS[engine]} is not on PATH")
    frames = FRAMES[engine]
    result = simulate(network, plan, images, labels, engine=engine, frames=frames)
    assert result.equal_to_golden
    assert result.cycles_equal_to_model
    assert result.frames == frames
    wanted = golden.run(network, images[:frames], edges=("fc4",))["fc4"]
    assert np.array_equal(result.outputs, wanted)
    assert result.accuracy == network.provenance["accuracy"]
    assert all(layer.cycles == layer.cycles_simulated for layer in result.layers)


@pytest.mark.parametrize(
    ("name", "goal", "engine", "frames"),
    [
        ("lenet5-w4a4", "fps=5000", "verilator", 10),
        ("mnist-cnn-w1a2", "fps=500", "verilator", 10),
    ],
)
def test_convolutional_networks_equal_both_models_on_real_images(name, goal, engine, frames):
    if engine in TOOLS and shutil.which(TOOLS[engine]) is None:
        pytest.skip(f"{TOOLS[engine]} is not on PATH")
    network = api.load(name)
    plan = api.plan(network, "ulx3s-85f", goal)
    images, labels = zoo.evaluation_set(zoo.dataset_of(network))
    images, labels = images[:200], labels[:200]
    result = simulate(network, plan, images, labels, engine=engine, frames=frames)
    assert result.equal_to_golden
    assert result.cycles_equal_to_model
    assert result.frames == frames
    assert result.fps >= float(goal.removeprefix("fps="))
    last = network.layers[-1].name
    wanted = golden.run(network, images, edges=(last,))[last]
    assert result.accuracy == np.mean(wanted == labels)
    assert np.array_equal(result.outputs.argmax(axis=1), wanted[:frames])


@pytest.mark.parametrize(
    ("engine", "frames", "goal"),
    [("pysim", 2, "max-fps"), ("pysim", 2, "min-area"), ("verilator", 50, "max-fps")],
)
def test_a_network_that_takes_pixels_apart(engine, frames, goal, cnns, random_frames, tmp_path):
    """Saved and read again, planned, simulated: with a shuffle within and one at the end."""
    if engine in TOOLS and shutil.which(TOOLS[engine]) is None:
        pytest.skip(f"{TOOLS[engine]} is not on PATH")
    made = cnns["shuffled"](3)
    made.save(tmp_path / "net.safetensors")
    network = api.load(tmp_path / "net.safetensors")
    plan = api.plan(network, "ulx3s-25f", goal)
    assert [stage.engine for stage in plan.stages].count("shuffle") == 2
    images = random_frames(network, frames, 5)
    result = simulate(network, plan, images, engine=engine)
    assert result.equal_to_golden
    assert result.cycles_equal_to_model
    assert all(layer.cycles == layer.cycles_simulated for layer in result.layers)
    last = network.layers[-1].name
    wanted = golden.run(made, images, edges=(last,))[last]
    assert np.array_equal(result.outputs, wanted.reshape(result.outputs.shape))


def test_demo_does_the_main_job(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["demo", "tfc-w1a1", "--board", "ulx3s-25f", "--goal", "fps=100000"]) == 0
    said = capsys.readouterr().out
    for word in ("fc1", "xnor", "latency", "µs", "frames/s", "of 10,000 images", "bottleneck"):
        assert word in said
    assert "golden model  equal" in said
    assert "cycle model   equal" in said
    folder = tmp_path / "out" / "tfc-w1a1-ulx3s-25f"
    assert str(folder.relative_to(tmp_path)) in said
    assert (folder / "tfc_w1a1.v").stat().st_size > 100_000
    assert json.loads((folder / "simulation.json").read_text())["equal_to_golden"] is True
    assert max(map(len, said.splitlines())) <= 100


def test_demo_without_a_compiler_says_so(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli.shutil, "which", lambda name: None)
    monkeypatch.setattr(cli, "PYSIM_FRAMES", 1)
    assert cli.main(["demo", "tfc-w1a1", "--board", "ulx3s-25f", "--goal", "fps=100000"]) == 0
    said = capsys.readouterr().out
    assert "no C++ compiler found: using Amaranth's own simulator, which is slower" in said
    assert "1 frames in pysim" in said


def test_verify_verb(tmp_path, capsys, monkeypatch):
    tool = "iverilog" if shutil.which("iverilog") else None
    if tool is None and shutil.which("c++") is None:
        pytest.skip("neither iverilog nor a C++ compiler is on PATH")
    simulator = "icarus" if tool else "verilator"
    monkeypatch.setattr(cli, "VERIFY_FRAMES", 2)
    plan = ["--board", "ulx3s-25f", "--goal", "fps=100000"]
    assert cli.main(["verify", "tfc-w1a1", *plan, "--simulator", simulator, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["passed"] is True
    assert result["tests"] == 9
    assert result["edges_compared"] == 10
    assert result["beats_compared"] > 1000

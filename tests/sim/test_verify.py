"""Verification under cocotb: passes on the design, fails on any other."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from brambling.errors import ConfigError, ToolProblem
from brambling.generate import generate
from brambling.hw.accelerator import Accelerator, edges, pipeline
from brambling.hw.verilog import to_verilog
from brambling.network import Dense, Flatten, Network
from brambling.sim import cocotb_runner
from brambling.sim.cocotb_runner import Bench
from brambling.sim.verify import verify

ROWS = [(3, 3, 0, 5), (2, 7, 3, 2), (1, 5, 0, 2), (1, 1, 0, 1)]
SCENARIOS = 9


@pytest.fixture(params=["verilator", "icarus"])
def simulator(request):
    needed = {"verilator": ("c++", "make"), "icarus": ("iverilog",)}[request.param]
    for tool in needed:
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not on PATH")
    return request.param


@pytest.fixture
def network(small_network):
    return small_network([20, 9, 4], 1)


@pytest.fixture
def images():
    return np.random.default_rng(4).integers(0, 256, (4, 20))


def written(tmp_path, network, plan):
    path = tmp_path / "design.v"
    path.write_text(to_verilog(Accelerator(pipeline(network, plan)), network.name))
    return path


def test_every_scenario_passes(simulator, network, hand_plan, images):
    plan = hand_plan(network, ROWS)
    result = verify(network, plan, images, simulator=simulator, frames=4)
    assert result.passed
    assert result.failures == ()
    assert result.tests == SCENARIOS
    assert result.edges_compared == len(network.tensors)
    per_frame = sum(edge.beats.count for edge in edges(pipeline(network, plan)))
    assert result.beats_compared > 6 * 4 * per_frame


@pytest.mark.parametrize(
    "kind",
    [
        *("binary_cnn", "fixed_cnn", "residual", "separable", "bordered", "sequence"),
        pytest.param("shuffled", marks=pytest.mark.slow),
    ],
)
def test_convolutional_networks_pass(kind, cnns, random_plan, random_frames):
    if shutil.which("c++") is None or shutil.which("make") is None:
        pytest.skip("c++ or make is not on PATH")
    network = cnns[kind](1)
    plan = random_plan(network, 2)
    result = verify(network, plan, random_frames(network, 3), frames=3)
    assert result.failures == ()
    assert result.tests == SCENARIOS
    assert result.edges_compared == len(network.tensors) - sum(
        isinstance(layer, Flatten) for layer in network.layers
    )


def test_a_wrong_weight_is_found(simulator, network, hand_plan, images, tmp_path):
    plan = hand_plan(network, ROWS)
    layers = list(network.layers)
    wrong = layers[1].weights.copy()
    wrong[3, 5] *= -1
    layers[1] = Dense(name="fc1", inputs=("binarise",), weights=wrong, fmt=layers[1].fmt)
    other = Network(network.name, network.input, tuple(layers))
    verilog = written(tmp_path, other, plan)
    result = verify(network, plan, images, simulator=simulator, frames=4, verilog=verilog)
    assert not result.passed
    assert any("fc1: beat" in failure and "golden is" in failure for failure in result.failures)


def test_a_lost_cycle_is_found(simulator, network, hand_plan, images, tmp_path):
    plan = hand_plan(network, ROWS)
    stages = list(plan.stages)
    stages[1] = replace(stages[1], fifo=(0,))  # Same values, other cycles.
    verilog = written(tmp_path, network, replace(plan, stages=tuple(stages)))
    result = verify(network, plan, images, simulator=simulator, frames=4, verilog=verilog)
    assert not result.passed
    assert any("in cycle" in f and "the model says" in f for f in result.failures)


def test_the_generated_folder_is_verified_with_nothing_else(network, hand_plan, tmp_path):
    if shutil.which("iverilog") is None:
        pytest.skip("iverilog is not on PATH")
    generate(network, hand_plan(network, ROWS), tmp_path / "design")
    run = tmp_path / "design" / "testbench" / "run.py"
    done = subprocess.run(
        [sys.executable, str(run)], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert f"TESTS={SCENARIOS} PASS={SCENARIOS} FAIL=0" in done.stdout + done.stderr


def test_a_missing_simulator_is_one_line(network, hand_plan, images, monkeypatch):
    monkeypatch.setattr(cocotb_runner.shutil, "which", lambda name: None)
    plan = hand_plan(network, ROWS)
    message = "no iverilog on PATH: install Icarus Verilog, or use --simulator verilator"
    with pytest.raises(ToolProblem, match=f"^{message}$"):
        verify(network, plan, images, simulator="icarus")
    message = r"no make on PATH: install a C\+\+ compiler and make, or use --simulator icarus"
    with pytest.raises(ToolProblem, match=f"^{message}$"):
        verify(network, plan, images, simulator="verilator")


def test_what_is_built_is_for_one_installation_of_cocotb(simulator, tmp_path, monkeypatch):
    """It finds cocotb's libraries by their path, which a second environment has not."""
    keys = []

    def noted(key, make):
        keys.append(key)
        return tmp_path

    monkeypatch.setattr(cocotb_runner, "cached", noted)
    (tmp_path / "top.v").write_text("module top; endmodule\n")
    for place in ("here", "there", "here"):
        found = SimpleNamespace(locate_file=lambda path, place=place: Path(place))
        monkeypatch.setattr(cocotb_runner, "distribution", lambda name, found=found: found)
        Bench(simulator, tmp_path / "top.v", "top", lambda *args: None)
    assert keys[0] == keys[2] != keys[1]


def test_an_unknown_simulator_is_refused(network, hand_plan, images):
    message = "simulator must be one of verilator, icarus, not 'modelsim'"
    with pytest.raises(ConfigError, match=f"^{message}$"):
        verify(network, hand_plan(network, ROWS), images, simulator="modelsim")

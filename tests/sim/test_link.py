"""The simulated line: what it tells the simulator, and what is refused. The host's tests use it."""

import sys

import pytest

from brambling.errors import ConfigError, ToolProblem
from brambling.hw.link.device import DeviceSpec
from brambling.sim.link import SimulatedLine

#: A simulator that returns what it was sent, reversed, and takes as many clocks as it may.
ECHO = """
import struct, sys
while len(words := sys.stdin.buffer.read(8)) == 8:
    count, cycles = struct.unpack("<II", words)
    data = sys.stdin.buffer.read(count)
    sys.stdout.buffer.write(struct.pack("<II", count, cycles) + data[::-1])
    sys.stdout.buffer.flush()
"""


@pytest.fixture
def spec(small_network, hand_plan):
    def make(**options):
        network = small_network((5, 3))
        plan = hand_plan(network)
        return DeviceSpec.of(network, plan, clock_hz=1_000_000, **({"baud": 100_000} | options))

    return make


@pytest.fixture
def program(tmp_path):
    """Make a program of Python's text."""

    def make(text):
        path = tmp_path / "line"
        path.write_text(f"#!{sys.executable}\n{text}")
        path.chmod(0o755)
        return path

    return make


def test_what_the_simulator_is_told(spec, program):
    with SimulatedLine(spec(), program(ECHO)) as line:
        assert line.byte_seconds == 10 * 10 / 1_000_000
        assert line.now() == 0
        line.write(b"ab")
        line.write(b"c")
        assert line.now() == 0
        assert line.read(0.5) == b"cba"
        assert line.now() == 0.5
        assert line.read(0.25) == b""
        assert (line.now(), line.cycles) == (0.75, 750_000)
        assert line.read(1e-9) == b""
        assert line.cycles == 750_001


def test_a_simulation_that_ends(spec, program):
    with SimulatedLine(spec(), program("import sys; sys.stdin.buffer.read(8)")) as line:
        with pytest.raises(ToolProblem) as caught:
            line.read(1)
        assert str(caught.value) == "the simulation of the device has ended: start it again"


def test_without_a_compiler(spec, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ToolProblem) as caught:
        SimulatedLine(spec())
    assert str(caught.value) == ("no C++ compiler (c++, g++ or clang++) on PATH: install one")


def test_only_a_uart(spec, program):
    with pytest.raises(ConfigError) as caught:
        SimulatedLine(spec(link="spi"), program(ECHO))
    assert str(caught.value) == "a simulated line is a UART, not 'spi'"

"""Weights that are not in the bitstream: loaded over the line into the hardware."""

from dataclasses import replace

import numpy as np
import pytest

from brambling.errors import DeviceProblem
from brambling.host import Device
from brambling.hw.accelerator import pipeline
from brambling.hw.link.device import DeviceSpec
from brambling.hw.load import load_words
from brambling.protocol import Flag
from brambling.sim.link import SimulatedLine, simulator

from .conftest import BAUD, CLOCK, SILENCE, TIMEOUT
from .faults import FaultyLine


@pytest.fixture(scope="module")
def loaded(network, plan):
    """Plan, words and lines of a device whose weights are in SPRAM."""
    stages = tuple(
        replace(stage, weights="spram") if stage.engine == "xnor" else stage
        for stage in plan.stages
    )
    made = replace(plan, board="icebreaker", stages=stages)
    spec = DeviceSpec.of(network, made, clock_hz=CLOCK, baud=BAUD, timeout=SILENCE)
    program = simulator(spec)
    return load_words(pipeline(network, made)), lambda: SimulatedLine(spec, program)


@pytest.mark.slow
def test_hardware_is_loaded(loaded, network, images, results):
    words, line = loaded
    with Device(line(), network, timeout=TIMEOUT) as device:
        assert device.ident.flags == Flag.NEEDS_LOAD
        with pytest.raises(DeviceProblem, match=r"weights are not loaded: load them first"):
            device.run(images[:1])
        device.load(words)
        assert device.ident.flags == Flag.NEEDS_LOAD | Flag.LOADED
        assert device.run(images[:50]).tolist() == results[:50].tolist()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_spoilt_line_spoils_no_weights(loaded, network, images, results, seed):
    words, line = loaded
    with line() as opened:
        faulty = FaultyLine(opened, 0.15, seed)
        with Device(faulty, network, timeout=TIMEOUT, tries=40) as device:
            device.load(words)
            assert device.run(images[:30]).tolist() == results[:30].tolist()
        assert faulty.injected


@pytest.mark.slow
def test_another_network_s_weights_are_noticed(loaded, network):
    words, line = loaded
    with Device(line(), network, timeout=TIMEOUT) as device:
        device.load(words)
        with pytest.raises(DeviceProblem, match=r"the weights inside are not those that were sent"):
            device.load(np.flip(words))

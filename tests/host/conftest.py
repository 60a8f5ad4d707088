"""A small network on lines of four kinds: model or hardware, directly or behind a real port."""

from contextlib import ExitStack

import numpy as np
import pytest

from brambling.host import Device, ModelDevice, SerialTransport
from brambling.host.terminal import Terminal
from brambling.hw.link.device import DeviceSpec, Vectors
from brambling.sim import golden
from brambling.sim.link import SimulatedLine, simulator

CLOCK = 1_000_000
BAUD = CLOCK // 4
SILENCE = 800  #: Clocks of the hardware's time-out: 20 bytes.
TIMEOUT = 0.02  #: Seconds of the device, of the host's time-out.
SELFTEST = 2  #: Frames.


@pytest.fixture(scope="session")
def network(small_network):
    """Dense layers whose integers are the result: 11 codes in, 5 out."""
    return small_network((11, 6, 5), seed=3, argmax=False)


@pytest.fixture(scope="session")
def plan(network, hand_plan):
    """Lanes that divide nothing."""
    return hand_plan(network, [(4, 4), (2, 3), (1, 2)])


@pytest.fixture(scope="session")
def images(network):
    return np.random.default_rng(5).integers(0, 256, (400, 11))


@pytest.fixture(scope="session")
def results(network, images):
    """Golden results of the images."""
    last = network.layers[-1].name
    return golden.run(network, images, edges=(last,))[last]


@pytest.fixture(scope="session")
def device_spec(network, plan, images, results):
    """A device with a self-test, on a fast line."""
    vectors = Vectors(images[:SELFTEST], results[:SELFTEST])
    options = {"baud": BAUD, "timeout": SILENCE, "selftest": vectors}
    return DeviceSpec.of(network, plan, clock_hz=CLOCK, **options)


@pytest.fixture(scope="session")
def hardware(device_spec):
    """Make the line of the hardware, compiled once."""
    program = simulator(device_spec)
    return lambda: SimulatedLine(device_spec, program)


@pytest.fixture
def model(network, plan):
    def make(**options):
        options = {"silence": SILENCE / CLOCK, "selftest": True} | options
        options = {"clock_hz": CLOCK, "baud": BAUD} | options
        return ModelDevice.of(network, plan, **options)

    return make


@pytest.fixture(params=["model", "hardware", "model-port", "hardware-port"])
def line(request, model):
    """Make a line, and a time-out for it; what it needs is given back at the end."""
    kind, _, port = request.param.partition("-")
    make = model if kind == "model" else request.getfixturevalue("hardware")
    if port:
        pytest.importorskip("serial")
        pytest.importorskip("termios")
    with ExitStack() as stack:

        def opened():
            if not port:
                return make()
            return SerialTransport(stack.enter_context(Terminal(make())).port)

        yield opened


@pytest.fixture
def timeout(request):
    """Seconds for the host to wait: of the world where there is a port."""
    return 0.5 if "port" in request.node.callspec.id else TIMEOUT


@pytest.fixture
def device(line, network, timeout):
    with Device(line(), network, timeout=timeout, tries=20) as opened:
        yield opened

"""A device through its link: the same host and the same tests on a model and on the hardware."""

import numpy as np
import pytest

from brambling.digest import digest
from brambling.errors import ConfigError, DeviceProblem
from brambling.host import Device
from brambling.hw.accelerator import pipeline
from brambling.protocol import Flag, Kind, Register, frame_size


def test_identity(device, network, plan):
    nodes = pipeline(network, plan)
    i, o = nodes[0].spec.i, nodes[-1].spec.o
    ident = device.ident
    assert ident.digest == digest(network)
    assert (ident.frame_bytes, ident.result_bytes) == (frame_size(i), frame_size(o))
    assert ident.credits >= 1
    assert ident.flags == Flag.LOADED | Flag.HAS_SELFTEST | Flag.PASSED
    assert (device.layout.frame, device.layout.result) == (i, o)


def test_results_equal_golden(device, images, results):
    seen = []
    found = device.run(images[:60], lambda what, done, total: seen.append((what, done, total)))
    assert found.tolist() == results[:60].tolist()
    assert found.dtype == results.dtype
    assert seen[-1] == ("frames", 60, 60)
    assert len(device.cycles) == 60
    assert (device.cycles >= 3).all()


def test_classes(device, images, results):
    assert device.classify(images[:9]).tolist() == results[:9].argmax(axis=1).tolist()


def test_registers(device, images):
    device.run(images[:7])
    found = device.registers()
    assert list(found) == list(Register)
    assert found[Register.FRAMES] >= 7
    assert found[Register.RESULTS] >= 7
    assert found[Register.VERSION] == 1
    assert found[Register.LAST_CYCLES] == device.cycles[-1]
    assert found[Register.CYCLES_LOW] < device.register(Register.CYCLES_LOW)
    device.clear()
    assert [device.register(n) for n in (Register.FRAMES, Register.RESULTS)] == [0, 0]


def test_selftest(device):
    assert device.selftest()


def test_a_host_after_another(line, network, images, results, timeout):
    """One that stopped in the middle of a packet, and left answers that no one took."""
    opened = line()
    first = Device(opened, network, timeout=timeout, tries=20)
    packet = first.exchange.ask(Kind.FRAME, first.layout.encode(network, images[:1])[0])
    opened.write(packet + packet[: len(packet) // 2])
    with Device(opened, network, timeout=timeout, tries=20) as second:
        assert second.run(images[:5]).tolist() == results[:5].tolist()


def test_another_network(line, network, small_network, timeout):
    other = small_network((11, 6, 5), seed=4, argmax=False, name="other")
    opened = line()
    with pytest.raises(DeviceProblem) as caught:
        Device(opened, other, timeout=timeout)
    assert str(caught.value) == (
        f"{opened.name}: the device has another network ({digest(network).hex()}), not other "
        f"({digest(other).hex()}): load its bitstream, or give its model"
    )


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 12), int), "small takes images of 11 values (11:u8.0), not 12"),
        (np.zeros((0, 11), int), "small needs at least one image, not an empty batch"),
        (np.full((1, 11), 256), "small takes values from 0 to 255, not 256 to 256"),
        (np.zeros((1, 11)), "small takes images of integers (u8.0), not float64"),
    ],
)
def test_frames_of_the_wrong_form(model, network, images, message):
    with Device(model(), network) as device:
        with pytest.raises(ConfigError) as caught:
            device.run(images)
        assert str(caught.value) == message
        assert device.register(Register.FRAMES) == 0

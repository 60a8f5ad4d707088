"""What can go wrong with a device: one line each, with the remedy."""

from dataclasses import replace

import numpy as np
import pytest

from brambling.errors import ConfigError, DeviceProblem
from brambling.host import Device, SerialTransport, find_port
from brambling.host.terminal import Terminal
from brambling.protocol import ANSWER, DEVICE_MAGIC, HOST_MAGIC, Decoder, Kind, Packet, Reason

from .conftest import TIMEOUT


class Puppet:
    """A line whose far end answers each request with what a function returns."""

    name, byte_seconds = "puppet", 1e-5

    def __init__(self, answer):
        self.answer = answer
        self.time = 0.0
        self.said = b""
        self.closed = False
        self.heard = Decoder(HOST_MAGIC)

    def now(self):
        return self.time

    def write(self, data):
        for packet in self.heard.feed(data):
            self.said += self.answer(packet)

    def read(self, timeout):
        said, self.said = self.said, b""
        if not said:
            self.time += timeout
        return said

    def close(self):
        self.closed = True


def refusal(line, network, **options):
    with pytest.raises(DeviceProblem) as caught:
        Device(line, network, timeout=TIMEOUT, **options)
    return str(caught.value)


def reply(packet):
    return packet.encode(DEVICE_MAGIC)


def test_no_answer(network):
    line = Puppet(lambda packet: b"")
    assert refusal(line, network) == (
        "puppet: no answer to 4 requests, 0.02 s each: load the bitstream, reset the board, or "
        "choose another --port"
    )
    assert line.closed


def test_wrong_speed(network):
    line = Puppet(lambda packet: b"\xff\x80\x03\x00\xff")
    assert refusal(line, network) == (
        "puppet: 20 bytes came, but no valid answer: give the --baud that the device was built for"
    )


def test_another_version(network):
    line = Puppet(lambda packet: reply(replace(packet.reply(bytes(32)), version=2)))
    assert refusal(line, network) == (
        "puppet: the device speaks version 2 of the protocol, this host version 1: build it again, "
        "or use the host that it was built with"
    )


def test_a_device_that_does_not_know_our_version(network):
    assert refusal(Puppet(lambda packet: reply(packet.nak(Reason.KIND))), network) == (
        "puppet: the device speaks another version of the protocol, this host version 1: build it "
        "again, or use the host that it was built with"
    )


def test_an_identification_of_another_length(network):
    assert refusal(Puppet(lambda packet: reply(packet.reply(bytes(31)))), network) == (
        "puppet: an identification has 32 bytes, not 31: build the device again"
    )


class Spoilt(Puppet):
    """A model behind a line; frames get the answer of a function instead, if it has one."""

    def __init__(self, model, answer):
        super().__init__(answer)
        self.model = model

    def write(self, data):
        (packet,) = self.heard.feed(data)
        if packet.kind == Kind.FRAME:
            self.said += self.answer(packet)
        else:
            self.model.write(data)

    def read(self, timeout):
        return self.model.read(timeout) or super().read(timeout)


@pytest.mark.parametrize(
    ("answer", "lost"),
    [
        (lambda packet: b"", "3 requests, 3 silent, 2 repeated"),
        (lambda p: reply(p.nak(Reason.CRC)), "3 requests, 3 nak crc, 2 repeated"),
        (
            lambda p: reply(Packet(p.kind | ANSWER, p.session, p.sequence, bytes(13))),
            "3 requests, 3 silent, 3 mismatched, 2 repeated",
        ),
    ],
)
def test_a_frame_without_a_valid_answer(model, network, images, answer, lost):
    with Device(Spoilt(model(), answer), network, timeout=TIMEOUT, tries=3) as device:
        with pytest.raises(DeviceProblem) as caught:
            device.run(images[:1])
        assert str(caught.value) == (
            f"puppet: frame 0: no valid answer in 3 tries ({lost}): check cable and baud rate, or "
            "reset the board"
        )
        # It can still be spoken to.
        assert device.selftest()


def test_weights_that_are_not_loaded(model, network, images, results):
    words = np.arange(150)
    with Device(model(words=words), network) as device:
        with pytest.raises(DeviceProblem) as caught:
            device.run(images[:1])
        assert str(caught.value) == (
            "model: the device's weights are not loaded: load them first (--load)"
        )
        seen = []
        device.load(words, lambda what, done, total: seen.append((what, done, total)))
        assert seen == [("load", 64, 150), ("load", 128, 150), ("load", 150, 150)]
        assert device.run(images[:4]).tolist() == results[:4].tolist()


def test_weights_lost_in_a_reset(model, network, images):
    words = np.arange(10)
    line = model(words=words)
    with Device(line, network) as device:
        device.load(words)
        line.reset()
        with pytest.raises(DeviceProblem, match=r"weights are not loaded: load them first"):
            device.run(images[:3])


def test_an_interrupted_load_goes_on(model, network, images, results):
    words = np.arange(150)
    line = model(words=words)

    def interrupt(what, done, total):
        raise KeyboardInterrupt

    with Device(line, network) as device, pytest.raises(KeyboardInterrupt):
        device.load(words, interrupt)
    with Device(line, network) as device:
        with pytest.raises(DeviceProblem, match=r"weights are not loaded: load them first"):
            device.run(images[:1])
        seen = []
        device.load(words, lambda what, done, total: seen.append(done))
        assert seen == [64, 128, 150]
        assert device.run(images[:4]).tolist() == results[:4].tolist()


def test_weights_of_another_plan(model, network):
    with Device(model(words=np.arange(10)), network) as device:
        with pytest.raises(DeviceProblem) as caught:
            device.load(np.arange(12), None)
        assert str(caught.value) == (
            "model: 10 words are loaded where 12 are to be: reset the board, then load again"
        )
    with Device(model(words=np.arange(10)), network) as device:
        device.load(np.arange(10))
        with pytest.raises(DeviceProblem) as caught:
            device.load(np.arange(10)[::-1])
        assert str(caught.value) == (
            "model: the weights inside are not those that were sent: reset the board, then load "
            "again"
        )


def test_what_a_device_does_not_have(model, network):
    with Device(model(selftest=None), network) as device:
        with pytest.raises(ConfigError) as caught:
            device.selftest()
        assert str(caught.value) == (
            "model: the device was built without a self-test: build it with one"
        )
        with pytest.raises(ConfigError) as caught:
            device.load([1])
        assert str(caught.value) == "model: the device has its weights inside: nothing to load"


def test_a_failed_selftest(model, network):
    with Device(model(selftest=False), network) as device:
        assert not device.selftest()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timeout": 0}, "timeout must be above 0 s, not 0"),
        ({"tries": 0}, "tries must be at least 1, not 0"),
    ],
)
def test_options(model, network, options, message):
    with pytest.raises(ConfigError) as caught:
        Device(model(), network, **options)
    assert str(caught.value) == message


# Ports --------------------------------------------------------------------------------------------


@pytest.fixture
def terminal(model):
    pytest.importorskip("serial")
    pytest.importorskip("termios")
    with Terminal(model()) as made:
        yield made


def test_port_absent(network):
    pytest.importorskip("serial")
    with pytest.raises(DeviceProblem) as caught:
        Device.open("/dev/absent", network=network)
    assert str(caught.value) == (
        "/dev/absent: no such port: connect the board, or name another with --port"
    )


def test_port_busy(terminal, network):
    with Device.open(terminal.port, network=network):
        with pytest.raises(DeviceProblem) as caught:
            Device.open(terminal.port, network=network)
        assert str(caught.value) == (
            f"{terminal.port}: in use by another program: close it, or choose another port"
        )


def test_port_that_is_none(tmp_path):
    pytest.importorskip("serial")
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(DeviceProblem) as caught:
        SerialTransport(str(path))
    assert str(caught.value).startswith(f"{path}: cannot be opened (")
    assert str(caught.value).endswith("): name another port with --port")


def test_port_that_goes_away(terminal, network, images):
    line = SerialTransport(terminal.port)
    with Device(line, network, timeout=0.2, tries=2) as device:
        line._port.close()
        with pytest.raises(DeviceProblem) as caught:
            device.run(images[:2])
    assert str(caught.value).startswith(f"{terminal.port}: the port went away (")
    assert str(caught.value).endswith("): connect the board again")


@pytest.mark.parametrize(
    ("rate", "message"),
    [(0, "baud must be at least 1, not 0"), (-5, "baud must be at least 1, not -5")],
)
def test_rates(terminal, rate, message):
    with pytest.raises(ConfigError) as caught:
        SerialTransport(terminal.port, rate)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "no serial port on USB: connect the board, or name a port with --port"),
        (["/dev/b", "/dev/a"], "several serial ports, /dev/a, /dev/b: choose one with --port"),
    ],
)
def test_finding_the_port(monkeypatch, names, message):
    ports = [Port(name, 0x403) for name in names] + [Port("/dev/ttyS0", None)]
    tools = pytest.importorskip("serial.tools.list_ports")
    monkeypatch.setattr(tools, "comports", lambda: ports)
    with pytest.raises(DeviceProblem) as caught:
        find_port()
    assert str(caught.value) == message


def test_the_only_port(monkeypatch):
    tools = pytest.importorskip("serial.tools.list_ports")
    monkeypatch.setattr(tools, "comports", lambda: [Port("/dev/a", 1), Port("/dev/b", None)])
    assert find_port() == "/dev/a"


class Port:
    def __init__(self, device, vid):
        self.device, self.vid = device, vid

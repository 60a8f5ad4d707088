"""Runs the testbench beside it on the Verilog above it: ``python run.py [icarus|verilator]``.

Needs cocotb 2, NumPy, and the simulator; nothing of Brambling.
"""

import os
import sys
from pathlib import Path

from cocotb_tools.runner import get_runner

BENCH = Path(__file__).resolve().parent


def main(simulator: str = "icarus") -> None:
    (verilog,) = BENCH.parent.glob("*.v")
    runner = get_runner(simulator)
    build = BENCH / f"build_{simulator}"
    runner.build(
        sources=[verilog],
        hdl_toplevel=verilog.stem,
        build_dir=build,
        build_args=["-Wno-fatal"] if simulator == "verilator" else [],
        timescale=("1ns", "1ps"),
    )
    os.environ["BRAMBLING_SCENARIOS"] = str(BENCH)
    runner.test(
        hdl_toplevel=verilog.stem,
        test_module="cocotb_bench",
        test_dir=BENCH,
        build_dir=build,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])

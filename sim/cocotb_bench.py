"""The cocotb bench: plays scenarios on generated Verilog, and compares every beat.

Runs inside the simulator. The folder ``$BRAMBLING_SCENARIOS`` has ``scenarios.json`` and a
``<scenario>.npz`` for each; :mod:`brambling.sim.cocotb_runner` writes them. It needs cocotb and
NumPy, and nothing of Brambling, so that it can go along with a design.
"""

import json
import os
from itertools import cycle
from pathlib import Path

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge

FOLDER = Path(os.environ["BRAMBLING_SCENARIOS"])
PLAN = json.loads((FOLDER / "scenarios.json").read_text(encoding="utf-8"))
#: Words that the design must be loaded with before it takes frames.
WORDS = np.load(FOLDER / "load.npy", allow_pickle=False).tolist() if PLAN["load"] else []
RESET_CYCLES = 2


class Edge:
    """A stream that is watched: the design's own, or that of an instance within."""

    def __init__(self, dut, name, instance, port, ready):
        scope = dut[instance] if instance else dut
        self.name = name
        self.valid = scope[f"{port}__valid"]
        self.ready = scope[f"{port}__ready"] if ready else None
        self.payload = scope[f"{port}__payload"]
        self.beats = []

    def sample(self, now):
        """Note the beat that is transferred at the clock edge that has just come, if one is."""
        if self.valid.value and (self.ready is None or self.ready.value):
            self.beats.append((now, int(self.payload.value)))
            return True
        return False


class Job:
    """What the outside does, from reset on: see :class:`brambling.sim.job.Job`."""

    def __init__(self, scenario, number):
        with np.load(FOLDER / f"{scenario}.npz", allow_pickle=False) as arrays:
            arrays = {key: arrays[key] for key in arrays.files}
        prefix = f"{number}/"
        self.arrays = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
        self.beats = [int.from_bytes(b.tobytes(), "little") for b in self.arrays["beats"]]
        numbers = (int(n) for n in self.arrays["numbers"])
        self.outputs, self.limit, self.until, self.reset_at = numbers


async def load(dut):
    """Fill the memories that have no contents; once, for a reset does not empty them."""
    dut.load__valid.value = 1
    for word in WORDS:
        dut.load__payload.value = word
        await RisingEdge(dut.clk)
        while not dut.load__ready.value:
            await RisingEdge(dut.clk)
    dut.load__valid.value = 0


async def play(dut, job, edges):
    """Reset, then drive and watch until all outputs have come, or until the job's own reset."""
    dut.rst.value = 1
    dut.i__valid.value = 0
    dut.o__ready.value = 0
    if WORDS:
        dut.load__valid.value = 0
        dut.load_restart.value = 0
    for _ in range(RESET_CYCLES):
        await RisingEdge(dut.clk)
    dut.rst.value = 0
    if WORDS and not dut.loaded.value:
        await load(dut)
    offers, accepts = cycle(job.arrays["offer"].tolist()), cycle(job.arrays["accept"].tolist())
    waiting, held, got = iter(job.beats), None, 0
    for now in range(job.limit):
        may_offer = next(offers)
        if held is None and may_offer and (held := next(waiting, None)) is not None:
            dut.i__payload.value = held
        dut.i__valid.value = int(held is not None)
        dut.o__ready.value = int(next(accepts))
        await RisingEdge(dut.clk)
        moved = [edge.sample(now) for edge in edges]
        if moved[0]:
            held = None
        got += moved[-1]
        if (got >= job.outputs and now >= job.until) or now == job.reset_at:
            return
    raise AssertionError(f"only {got} of {job.outputs} output beats in {job.limit} cycles")


def compare(job, edge, scenario):
    """Compare what an edge did with what it should have done; return the number of beats."""
    wanted = job.arrays.get(f"{edge.name}/payloads")
    if wanted is None:
        return 0
    seen = edge.beats
    cycles = job.arrays.get(f"{edge.name}/cycles")
    if job.reset_at >= 0:
        wanted = wanted[: int(np.count_nonzero(cycles <= job.reset_at))]
    where = f"{scenario}, {edge.name}"
    assert len(seen) >= len(wanted), f"{where}: {len(seen)} beats, not {len(wanted)}"
    masks = [int.from_bytes(m.tobytes(), "little") for m in job.arrays[f"{edge.name}/masks"]]
    for n, row in enumerate(wanted):
        now, payload = seen[n]
        mask, value = masks[n % len(masks)], int.from_bytes(row.tobytes(), "little")
        assert payload & mask == value & mask, (
            f"{where}: beat {n} is {payload & mask:#x}, golden is {value & mask:#x}"
        )
        if cycles is not None:
            assert now == cycles[n], f"{where}: beat {n} in cycle {now}, the model says {cycles[n]}"
    return len(wanted)


def keep(name, edges):
    """Write what was seen, for whoever asks."""
    arrays = {}
    for edge in edges:
        size = -(-len(edge.payload) // 8)
        packed = b"".join(payload.to_bytes(size, "little") for _, payload in edge.beats)
        arrays[f"{edge.name}/cycles"] = np.array([now for now, _ in edge.beats], np.int64)
        arrays[f"{edge.name}/payloads"] = np.frombuffer(packed, np.uint8).reshape(-1, size)
    np.savez(FOLDER / name, allow_pickle=False, **arrays)


@cocotb.test()
@cocotb.parametrize(scenario=[*PLAN["scenarios"]])
async def equals_both_models(dut, scenario):
    """Play the jobs of a scenario one after the other, each from reset."""
    Clock(dut.clk, 10, unit="ns").start()
    compared = 0
    for number in range(PLAN["scenarios"][scenario]):
        job = Job(scenario, number)
        edges = [Edge(dut, *row) for row in PLAN["edges"]]
        try:
            await play(dut, job, edges)
        finally:
            if PLAN["traces"]:
                keep(f"{scenario}.{number}.trace.npz", edges)
        compared += sum(compare(job, edge, scenario) for edge in edges)
    (FOLDER / f"{scenario}.compared").write_text(str(compared), encoding="utf-8")

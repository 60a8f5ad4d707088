"""From a design to a bitstream: synthesis, place and route by several seeds, packing."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brambling.boards.family import FLOWS, Job, synthesis_command
from brambling.boards.phases import (
    Violations,
    nextpnr_phase,
    overflow,
    violations,
    yosys_phase,
)
from brambling.boards.process import Processes, Tell, Usage
from brambling.boards.tools import Found
from brambling.errors import DoesNotFit, FileProblem, ToolProblem
from brambling.files import write_atomically

__all__ = ["Clock", "Netlist", "Run", "best", "pack", "route", "synthesise"]

NONE = Violations()
NEAR = 1e-3  #: How far, by its share, nextpnr may round the clock that it is given.


@dataclass(frozen=True, slots=True, kw_only=True)
class Netlist:
    """A synthesised design: its file, how many cells of each kind, and what it took.

    ``usage`` is ``None`` where the netlist of an earlier build was taken again.
    """

    path: Path
    cells: Mapping[str, int]
    usage: Usage | None

    def flip_flops(self, family: str) -> int:
        """Flip-flops before packing."""
        prefix = FLOWS[family].flip_flops
        return sum(count for name, count in self.cells.items() if name.startswith(prefix))


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """A clock net: what it must reach, and what it does."""

    name: str
    required_hz: float
    fmax_hz: float

    @property
    def met(self) -> bool:
        """Whether it is fast enough."""
        return self.fmax_hz >= self.required_hz

    @property
    def slack_ns(self) -> float:
        """How much of a period is left over; negative where it is too slow."""
        return 1e9 / self.required_hz - 1e9 / self.fmax_hz


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A design, placed and routed with one seed; ``failed`` says why it could not be."""

    seed: int
    folder: Path
    clocks: tuple[Clock, ...] = ()
    sites: Mapping[str, tuple[int, int]]
    holds: Violations = NONE
    usage: Usage | None = None
    failed: str | None = None

    @property
    def ratio(self) -> float:
        """How fast the tightest clock is, by what it must be; 0 for a failure."""
        return min((clock.fmax_hz / clock.required_hz for clock in self.clocks), default=0.0)

    @property
    def tightest(self) -> Clock:
        """The clock that is nearest to being too slow."""
        return min(self.clocks, key=lambda clock: clock.fmax_hz / clock.required_hz)

    def passes(self, family: str) -> bool:
        """Whether a bitstream may be made of it."""
        return self.ratio >= 1 and not self.holds.real(FLOWS[family].excused)


def environment(folder: Path) -> dict[str, str]:
    """Return what the tools need: a place for compiled programs that can be written."""
    if "YOWASP_CACHE_DIR" in os.environ:
        return {}
    home = Path.home() / ".cache"
    place = home if home.exists() else home.parent
    return {} if os.access(place, os.W_OK) else {"YOWASP_CACHE_DIR": str(folder / "programs")}


def warm_up(found: Found, folder: Path, processes: Processes, tell: Tell) -> None:
    """Compile a WebAssembly program for this machine, unless that is done."""
    if not found.wasm:
        return
    name = found.tool.name

    def told(line: str) -> None:
        if line.startswith("Preparing to run"):
            tell(name, "compiled for this machine, which is done once")

    log = folder / f"{name}.first.log"
    processes.run(name, found.warm, folder, log, told, environment=environment(folder))
    log.unlink(missing_ok=True)


# Synthesis ----------------------------------------------------------------------------------------


def script(job: Job) -> str:
    """Yosys' commands."""
    name, command = job.name, synthesis_command(job.family, job.synthesis)
    return (
        f"read_rtlil {name}.il; {command} -top {name} -json {name}.json; "
        f"tee -o {name}.cells.json stat -json"
    )


def synthesise(
    job: Job, folder: Path, yosys: Found, processes: Processes, tell: Tell = lambda job, what: None
) -> Netlist:
    """Write the files of a job and synthesise it; take a netlist of the same design again.

    It may be of this folder or of one beside it: where only the clock differs, nothing else does.
    """
    for name, contents in job.files.items():
        write_atomically(folder / name, contents)
    key = _key(job, yosys)
    netlist, cells, done = _files(folder, job.name)
    for earlier in (folder, *sorted(folder.parent.iterdir())):
        if all(path.exists() for path in _files(earlier, job.name)):
            before, counted, digest = _files(earlier, job.name)
            if digest.read_text(encoding="utf-8") == key:
                if earlier != folder:
                    shutil.copyfile(before, netlist)
                    shutil.copyfile(counted, cells)
                    write_atomically(done, key)
                return Netlist(path=netlist, cells=_cells(cells), usage=None)
    done.unlink(missing_ok=True)
    warm_up(yosys, folder, processes, tell)
    usage = processes.run(
        "yosys",
        (*yosys.command, "-q", "-l", "synthesis.log", "-p", script(job)),
        folder,
        folder / "synthesis.out",
        _saying(tell, "synthesis", yosys_phase),
        follow=folder / "synthesis.log",
        environment=environment(folder),
    )
    write_atomically(done, key)
    return Netlist(path=netlist, cells=_cells(cells), usage=usage)


def _files(folder: Path, name: str) -> tuple[Path, Path, Path]:
    """Return where a netlist is, its numbers of cells, and a digest of what it was made of."""
    return (
        folder / f"{name}.json",
        folder / f"{name}.cells.json",
        folder / f"{name}.synthesised",
    )


def _key(job: Job, yosys: Found) -> str:
    """Digest of all that a netlist depends on."""
    digest = hashlib.sha256()
    for text in (script(job), " ".join(yosys.command), yosys.version):
        digest.update(text.encode() + b"\0")
    for name in sorted(job.files):
        if name.endswith((".il", ".v")):
            contents = job.files[name]
            digest.update(contents if isinstance(contents, bytes) else contents.encode())
    return digest.hexdigest()


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FileProblem(f"{path}: cannot be read as JSON ({error})") from None


def _cells(path: Path) -> dict[str, int]:
    return _read_json(path)["design"]["num_cells_by_type"]


def _saying(tell: Tell, job: str, phase: Callable[[str], str | None]) -> Callable[[str], None]:
    """Return what tells the phases that lines of a log begin."""

    def said(line: str) -> None:
        if (what := phase(line)) is not None:
            tell(job, what)

    return said


# Place and route ----------------------------------------------------------------------------------


def route(
    job: Job,
    netlist: Netlist,
    folder: Path,
    nextpnr: Found,
    seeds: Sequence[int],
    jobs: int,
    processes: Processes,
    tell: Tell = lambda job, what: None,
) -> tuple[Run, ...]:
    """Place and route once for each seed, ``jobs`` at a time.

    Raises
    ------
    DoesNotFit
        The part has too few of something.
    ToolProblem
        No seed could be routed.
    """
    warm_up(nextpnr, folder, processes, tell)

    def one(seed: int) -> Run:
        return _route(job, netlist, folder / f"seed{seed}", nextpnr, seed, processes, tell)

    with ThreadPoolExecutor(min(jobs, len(seeds))) as pool:
        waiting = [pool.submit(one, seed) for seed in seeds]
        try:
            runs = tuple(future.result() for future in waiting)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            processes.stop()
            raise
    if all(run.failed for run in runs):
        raise ToolProblem(str(runs[0].failed))
    return runs


def _route(
    job: Job,
    netlist: Netlist,
    folder: Path,
    nextpnr: Found,
    seed: int,
    processes: Processes,
    tell: Tell,
) -> Run:
    folder.mkdir(parents=True, exist_ok=True)
    suffix, option = FLOWS[job.family].routed
    log, report = folder / "route.log", folder / "report.json"
    for stale in (report, folder / f"{job.name}.{suffix}"):
        stale.unlink(missing_ok=True)
    inside = folder.name
    command = (
        *(*nextpnr.command, *job.device, *job.constraints),
        *("--json", netlist.path.name, option, f"{inside}/{job.name}.{suffix}"),
        *("--freq", f"{job.clock_hz / 1e6:.6f}", "--seed", str(seed)),
        # A clock that is missed is for us to judge, with the report in hand.
        *("--report", f"{inside}/report.json", "--timing-allow-fail"),
    )
    try:
        usage = processes.run(
            nextpnr.tool.name,
            command,
            folder.parent,
            log,
            _saying(tell, f"seed {seed}", nextpnr_phase),
            environment=environment(folder.parent),
        )
        clocks, sites = _report(report)
    except (ToolProblem, FileProblem) as error:
        tell(f"seed {seed}", "failed")
        _refuse(job, log)
        return Run(seed=seed, folder=folder, sites={}, failed=str(error))
    held = violations(log.read_text(encoding="utf-8", errors="replace"))
    run = Run(seed=seed, folder=folder, clocks=clocks, sites=sites, holds=held, usage=usage)
    _check_clock(job, run)
    tell(f"seed {seed}", f"routed, {run.tightest.fmax_hz / 1e6:.2f} MHz")
    return run


def _report(path: Path) -> tuple[tuple[Clock, ...], dict[str, tuple[int, int]]]:
    """Read nextpnr's report."""
    found = _read_json(path)
    clocks = tuple(
        Clock(
            name=name,
            required_hz=clock["constraint"] * 1e6,
            fmax_hz=clock["achieved"] * 1e6,
        )
        for name, clock in sorted(found["fmax"].items())
    )
    sites = {name: (site["used"], site["available"]) for name, site in found["utilization"].items()}
    return clocks, sites


def _refuse(job: Job, log: Path) -> None:
    """Raise where a design has failed because the part is too small."""
    over = overflow(log.read_text(encoding="utf-8", errors="replace")) if log.exists() else None
    if over is not None:
        site, needed, available = over
        raise DoesNotFit(
            job.name,
            job.part,
            site,
            needed,
            available,
            "plan a smaller design (--goal min-area or fps=N), or take a larger part",
        )


def _check_clock(job: Job, run: Run) -> None:
    """Make sure that nextpnr was held to the clock that the design is for."""
    if not any(abs(clock.required_hz / job.clock_hz - 1) < NEAR for clock in run.clocks):
        held = ", ".join(f"{clock.required_hz / 1e6:g}" for clock in run.clocks) or "none"
        raise ToolProblem(
            f"{job.name}: no clock was routed for {job.clock_hz / 1e6:g} MHz, but for {held} MHz: "
            "the constraints do not name the design's clock"
        )


def best(runs: Sequence[Run], family: str) -> Run:
    """Return the fastest run; those that may become a bitstream before the others."""
    return max(runs, key=lambda run: (run.passes(family), run.ratio))


# Bitstream ----------------------------------------------------------------------------------------


def pack(
    job: Job,
    run: Run,
    packer: Found,
    bitstream: Path,
    processes: Processes,
    tell: Tell = lambda job, what: None,
) -> Usage:
    """Write the bitstream of a run; it appears only once it is whole."""
    flow, folder = FLOWS[job.family], run.folder
    unfinished = folder / f"{job.name}.unfinished"
    unfinished.unlink(missing_ok=True)
    warm_up(packer, folder, processes, tell)
    tell("bitstream", packer.tool.name)
    try:
        usage = processes.run(
            packer.tool.name,
            (
                *packer.command,
                *flow.packing(f"{job.name}.{flow.routed[0]}", unfinished.name, job.packing),
            ),
            folder,
            folder / "pack.log",
            environment=environment(folder),
        )
        if not unfinished.exists() or not unfinished.stat().st_size:
            raise ToolProblem(f"{packer.tool.name} wrote no bitstream; log: {folder / 'pack.log'}")
        unfinished.replace(bitstream)
    finally:
        unfinished.unlink(missing_ok=True)
    return usage

"""From a network and a plan to a bitstream, and what it takes: placed and routed."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brambling.boards import wiring
from brambling.boards.clock import fmax as likely_clock
from brambling.boards.family import FLOWS, Job, synthesis_options
from brambling.boards.flow import Netlist, Run, best, pack, route, synthesise
from brambling.boards.parts import Board
from brambling.boards.process import Processes, Tell, terminable
from brambling.boards.reports import (
    Attempt,
    Built,
    ClockFigure,
    Resource,
    SeedFigure,
    Step,
    main_clock,
    to_markdown,
)
from brambling.boards.tools import FAMILIES, Found, find
from brambling.errors import ClockMissed, ConfigError
from brambling.files import write_atomically
from brambling.network import Network
from brambling.plan import Plan

if TYPE_CHECKING:
    from brambling.boards.project import Project
    from brambling.hw.link.selftest import Vectors

__all__ = ["build", "job_of"]

ROUNDS = 5  #: How often a clock is planned anew.
GAIN = 1.01  #: A clock that is not higher by so much is not worth another round.
SEEDS = 4  #: Seeds where none are asked for, if there are as many processors.

#: Arguments of nextpnr that let it choose pins.
UNPINNED = {
    "ecp5": ("--lpf-allow-unconstrained",),
    "ice40": ("--pcf-allow-unconstrained",),
    "gowin": (),
}


@dataclass(slots=True)
class _Builder:
    """A build that goes on: what is asked for, and the programs that run."""

    network: Network
    plan: Plan
    board: Board
    folder: Path
    link: str | None
    options: Mapping[str, Any]
    seeds: Sequence[int]
    jobs: int
    tools: tuple[Found, Found, Found]
    processes: Processes
    tell: Tell
    steps: list[Step]
    attempts: list[Attempt]

    @property
    def work(self) -> Path:
        """Folder of intermediate files."""
        return self.folder / "build"

    def place(self, clock_hz: float) -> Path:
        """Return the folder of intermediate files for a clock."""
        return self.work / f"{clock_hz / 1e6:g}MHz"

    def prepare(self, clock_hz: float) -> "Project":
        """Return the files for a clock: the highest that the board can make, not above it."""
        from brambling.boards.project import prepare

        plan = replace(self.plan, clock_hz=int(clock_hz))
        self.tell("design", "hardware and constraints")
        return prepare(self.network, plan, self.board, link=self.link or "uart", **self.options)

    def attempt(self, project: "Project") -> tuple[Job, Netlist, Run]:
        """Place and route for the clock of a project; return the best run."""
        job = job_of(project)
        yosys, nextpnr, _ = self.tools
        folder = self.place(job.clock_hz)
        netlist = synthesise(job, folder, yosys, self.processes, self.tell)
        self.steps.append(Step(name="synthesis", usage=netlist.usage))
        runs = route(
            job,
            netlist,
            folder,
            nextpnr,
            self.seeds,
            self.jobs,
            self.processes,
            self.tell,
        )
        self.steps += [Step(name=f"route, seed {run.seed}", usage=run.usage) for run in runs]
        run = best(runs, job.family)
        self.attempts.append(
            Attempt(
                clock_hz=job.clock_hz,
                reached_hz=main_clock(run.clocks, job.clock_hz).fmax_hz,
                passed=run.passes(job.family),
                seeds=tuple(_seed(run, job.family) for run in runs),
            )
        )
        return job, netlist, run


def build(
    network: Network,
    plan: Plan,
    board: Board,
    folder: Path,
    *,
    clock: float | str | None = None,
    seeds: Sequence[int] | None = None,
    jobs: int | None = None,
    link: str = "uart",
    selftest: "Vectors | None" = None,
    interval: int = 0,
    tools: Mapping[str, str] | None = None,
    tell: Tell = lambda job, what: None,
) -> Built:
    """Build a bitstream for a board, or for a bare part only what it takes and how fast it is.

    A bitstream that misses its clock is never written; one of an earlier build in ``folder`` is
    removed first. The plan is written to ``plan.toml``, the figures to ``report.json`` and
    ``report.md`` either way; logs and all that the tools have made stay in ``build/``.

    Parameters
    ----------
    clock
        In Hz; the plan's where ``None``. ``"auto"``: begin with the plan's and take the highest
        that is routed and that the board can make.
    seeds
        Of place and route; the best is taken.
    jobs
        How many of them at a time; as many as there are processors where ``None``.
    link, selftest, interval
        As :func:`brambling.boards.project.prepare` takes them.
    tools
        By name: commands to use instead of what is found.
    tell
        Told which job goes on, and what it does.

    Raises
    ------
    ClockMissed
        No seed reaches the clock.
    DoesNotFit, ToolProblem, ConfigError
        The part is too small; a program is missing or fails; the board cannot be built here.
    """
    _check(board, link)
    cores = os.cpu_count() or 1
    seeds = tuple(seeds or range(1, min(cores, SEEDS) + 1))
    yosys, nextpnr, packer = (find(name, tools) for name in FAMILIES[board.part.family])
    bitstream = folder / f"{network.name}.{FLOWS[board.part.family].suffix}"
    for stale in (bitstream, folder / "report.json", folder / "report.md"):
        stale.unlink(missing_ok=True)
    plan.save(folder / "plan.toml")
    with terminable(), Processes() as processes:
        builder = _Builder(
            network=network,
            plan=plan,
            board=board,
            folder=folder,
            link=None if board.platform is None else link,
            options={"selftest": selftest, "interval": interval},
            seeds=seeds,
            jobs=jobs or min(cores, len(seeds)),
            tools=(yosys, nextpnr, packer),
            processes=processes,
            tell=tell,
            steps=[],
            attempts=[],
        )
        return _build(builder, bitstream, clock)


def _check(board: Board, link: str) -> None:
    """Refuse what cannot be built, before anything is looked for."""
    if board.part.family not in FLOWS or not board.built_here:
        raise ConfigError(
            f"{board.name}: no open tools make a bitstream for {board.part.name}: "
            f"brambling generate, and the vendor's tools (docs/board-xilinx.md)"
        )
    if board.platform is not None:
        board.link(link)


def _build(builder: _Builder, bitstream: Path, clock: float | str | None) -> Built:
    auto = clock == "auto"
    asked = float(builder.plan.clock_hz if clock is None or isinstance(clock, str) else clock)
    kept = _highest(builder, asked) if auto else _once(builder, asked)
    job, netlist, run = kept
    if not run.passes(job.family):
        made = _report(builder, job, netlist, run, None)
        raise _missed(builder, made, auto)
    path = None
    if builder.board.platform is not None:
        usage = pack(job, run, builder.tools[2], bitstream, builder.processes, builder.tell)
        builder.steps.append(Step(name="bitstream", usage=usage))
        path = bitstream
    try:
        return _report(builder, job, netlist, run, path)
    except BaseException:
        bitstream.unlink(missing_ok=True)  # One without its report may be of any clock.
        raise


def _once(builder: _Builder, clock_hz: float) -> tuple[Job, Netlist, Run]:
    return builder.attempt(builder.prepare(clock_hz))


def _highest(builder: _Builder, clock_hz: float) -> tuple[Job, Netlist, Run]:
    """Try clocks, each the highest that the last was routed for, until none is higher."""
    tried: set[float] = set()
    kept: tuple[Job, Netlist, Run] | None = None
    project = builder.prepare(clock_hz)
    last = None
    for _ in range(ROUNDS):
        tried.add(project.clock_hz)
        last = builder.attempt(project)
        job, _, run = last
        if run.passes(job.family) and (kept is None or job.clock_hz > kept[0].clock_hz):
            kept = last
        reached = main_clock(run.clocks, job.clock_hz).fmax_hz
        project = builder.prepare(reached)
        slower = kept is not None and project.clock_hz < kept[0].clock_hz * GAIN
        if slower or project.clock_hz in tried:
            break
    assert last is not None
    return kept or last


def job_of(project: "Project") -> Job:
    """Return what is to be built of a project."""
    part = project.part
    constraints = project.constraints
    if project.link is None:  # Nothing says which pins: any will do.
        constraints += tuple(word for word in UNPINNED[part.family] if word not in constraints)
    return Job(
        name=project.name,
        family=part.family,
        part=part.name,
        files=project.files,
        device=project.device,
        constraints=constraints,
        packing=project.packing,
        clock_hz=project.clock_hz,
        synthesis=synthesis_options(part),
    )


def _missed(builder: _Builder, made: Built, auto: bool) -> ClockMissed:
    """Return the error for a clock that no seed reaches, with the highest that one might."""
    name, board = builder.network.name, builder.board.name
    reached = made.fmax_hz
    seeds = "1 seed" if len(builder.seeds) == 1 else f"{len(builder.seeds)} seeds"
    what = (
        f"{name} on {board} misses its clock of {made.clock_hz / 1e6:g} MHz: routed for "
        f"{reached / 1e6:.2f} MHz, best of {seeds}"
    )
    if made.holds and reached >= made.clock_hz:
        what = f"{name} on {board}: {made.holds} hold-time violations, whatever the clock"
        return ClockMissed(f"{what}: try other seeds (--seeds)", made.clock_hz, reached, None)
    offered = builder.prepare(reached).clock_hz
    remedy = (
        f"no clock passed in {len(made.attempts)} rounds: --clock {offered / 1e6:g}, or more seeds"
        if auto
        else f"--clock {offered / 1e6:g}, or --clock auto to have the highest found"
    )
    return ClockMissed(
        f"{what}; no bitstream is written: {remedy}", made.clock_hz, reached, offered
    )


# Figures ------------------------------------------------------------------------------------------


def _seed(run: Run, family: str) -> SeedFigure:
    real = run.holds.real(FLOWS[family].excused)
    return SeedFigure(
        seed=run.seed,
        fmax_hz=None if run.failed else run.tightest.fmax_hz,
        passed=run.passes(family),
        holds=real,
        holds_excused=run.holds.count - real,
        failed=run.failed,
    )


def _resources(builder: _Builder, job: Job, run: Run) -> tuple[Resource, ...]:
    needs = wiring.total(builder.network, builder.plan, builder.board.part)
    planned = {
        "LUT4": needs.luts,
        "logic cells": needs.luts,
        "block RAMs": needs.blocks,
        "multipliers": needs.dsps,
        "SPRAMs": needs.sprams,
    }
    rows = []
    for name, sites in FLOWS[job.family].resources.items():
        there = {site: run.sites.get(site, (0, 0)) for site in sites}
        used = sum(there[site][0] * times for site, times in sites.items())
        available = next(iter(there.values()))[1]
        if available and (used or planned.get(name)):
            row = Resource(name=name, used=used, available=available, planned=planned.get(name))
            rows.append(row)
    return tuple(rows)


def _report(
    builder: _Builder, job: Job, netlist: Netlist, run: Run, bitstream: Path | None
) -> Built:
    """Return the figures of a run, and write them."""
    board = builder.board
    real = run.holds.real(FLOWS[job.family].excused)
    likely = likely_clock(builder.network, builder.plan, board.part)
    made = Built(
        network=builder.network.name,
        board=board.name,
        part=board.part.name,
        family=job.family,
        goal=builder.plan.goal,
        link=builder.link,
        clock_hz=job.clock_hz,
        folder=builder.folder,
        bitstream=bitstream,
        seed=run.seed,
        clocks=tuple(map(ClockFigure.of, run.clocks)),
        planned_fmax_hz=None if likely is None else float(likely.hz),
        resources=_resources(builder, job, run),
        flip_flops=netlist.flip_flops(job.family),
        holds=real,
        holds_excused=run.holds.count - real,
        attempts=tuple(builder.attempts),
        steps=tuple(builder.steps),
        tools={found.tool.name: (found.version, found.origin) for found in builder.tools},
    )
    write_atomically(builder.folder / "report.json", json.dumps(made.to_json(), indent=2) + "\n")
    write_atomically(builder.folder / "report.md", to_markdown(made))
    return made

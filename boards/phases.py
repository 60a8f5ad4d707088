"""What the tools say while they work, made short enough for one line of progress."""

import re
from dataclasses import dataclass

__all__ = ["Violations", "nextpnr_phase", "overflow", "violations", "yosys_phase"]

PASS = re.compile(r"(\d+(?:\.\d+)*)\. Executing ([\w\-$]+)")
ITERATION = re.compile(r"Info: +at iteration #(\d+)")
#: IterCnt | w/ripup wo/ripup | w/r wo/r | arcs | …
ROUTED = re.compile(r"Info: +(\d+) \| +\d+ +\d+ \| +\d+ +\d+ \| +(\d+)\|")
ROUTED2 = re.compile(r"Info: +iter=(\d+) .*overused=(\d+)")
ARCS = re.compile(r"Info: Routing (\d+) arcs")
USED = re.compile(r"Info:\s+(\w+): +(\d+)/ *(\d+) +\d+%")
HOLDS = re.compile(r"(\d+) Hold/min time violations")
HOLD = re.compile(r"^(?:ERROR|Warning): Hold/min time violation", re.MULTILINE)
HELD = re.compile(r"^Info: +hold +-?[\d.]+ +-?[\d.]+ +\w+ +(\S+)$", re.MULTILINE)
#: Beginnings of nextpnr's lines, and what is done from there on.
PHASES = {
    "Info: Packing": "packing",
    "Info: Pack ": "packing",
    "Info: Promoting globals": "clocks to global nets",
    "Info: Creating initial": "placing",
    "Info: Running simulated": "placing, refinement",
    "Info: Routing globals": "routing clocks",
    "Info: Critical path report": "timing",
}


def yosys_phase(line: str) -> str | None:
    """Return number and name of the pass that a line of Yosys' log begins."""
    found = PASS.match(line)
    return f"{found[1]} {found[2]}" if found else None


def nextpnr_phase(line: str) -> str | None:
    """Return what a line of nextpnr's log says of its progress."""
    if found := ITERATION.match(line):
        return f"placing, iteration {found[1]}"
    if found := ROUTED.match(line):
        return f"routing, {int(found[2]):,} arcs left"
    if found := ROUTED2.match(line):
        return f"routing, iteration {found[1]}, {int(found[2]):,} wires used twice"
    if found := ARCS.match(line):
        return f"routing, {int(found[1]):,} arcs"
    return next((phase for start, phase in PHASES.items() if line.startswith(start)), None)


def overflow(log: str) -> tuple[str, int, int] | None:
    """Return what a design has more of than the part: its name, how many, and how many there are.

    Of several the one that is exceeded by the largest factor.
    """
    rows = {found[1]: (int(found[2]), int(found[3])) for found in USED.finditer(log)}
    # Cells that belong to no site have 0 of them.
    over = {name: row for name, row in rows.items() if 0 < row[1] < row[0]}
    if not over:
        return None
    name = max(over, key=lambda name: over[name][0] / over[name][1])
    return name, *over[name]


@dataclass(frozen=True, slots=True)
class Violations:
    """Paths that are too short: how many, and where those end that nextpnr lists, ten at most."""

    count: int = 0
    sinks: tuple[str, ...] = ()

    def real(self, excused: str) -> int:
        """Count those that matter: of those listed all whose pin does not begin with ``excused``.

        Where all that are listed are excused, so are the others, which are less severe.
        """
        if self.count and not (self.sinks and excused):
            return self.count
        pins = (sink.rpartition(".")[2] for sink in self.sinks)
        return sum(not pin.startswith(excused) for pin in pins)


def violations(log: str) -> Violations:
    """Read the hold-time violations that nextpnr's log lists."""
    if not (first := HOLD.search(log)):
        return Violations()
    total = HOLDS.search(log)
    count = int(total[1]) if total else len(HOLD.findall(log))
    return Violations(count, tuple(found[1] for found in HELD.finditer(log, first.start())))

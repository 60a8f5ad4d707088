"""What every benchmark says of itself: machine, versions, command, and how busy the machine was."""

import datetime
import json
import os
import platform
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"

Row = Mapping[str, Any]
Columns = Mapping[str, Callable[[Row], str]]  #: By heading: what a row has in it.


def processor() -> str:
    """Return the name of the processor, as well as the platform knows it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def load() -> float | None:
    """Return how many processes wanted to run in the last minute; ``None`` on Windows."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def plain(argument: str) -> str:
    """Return an argument without the folders that only this machine has."""
    return Path(argument).name if Path(argument).is_absolute() else argument


@dataclass
class Record:
    """A benchmark being run; make it before the first measurement.

    Parameters
    ----------
    title
        Of the table.
    packages
        Whose versions matter.
    notes
        What a reader has to know.
    """

    title: str
    packages: Sequence[str]
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        _, *argv = sys.argv
        self.made = {
            "command": " ".join(["python", f"bench/{Path(sys.argv[0]).name}", *map(plain, argv)]),
            "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
            "processor": processor(),
            "cores": os.cpu_count(),
            "load_before": load(),
            "versions": {
                "python": platform.python_version(),
                **{package: version(package) for package in self.packages},
            },
        }

    def write(self, path: Path, rows: Iterable[Row], columns: Columns) -> None:
        """Print ``rows``, and write them to ``path`` (JSON) and, as a table, beside it."""
        rows = list(rows)
        self.made["load_after"] = load()
        made = self.made
        busy = f"load average {made['load_before']} before and {made['load_after']} after"
        words = [
            f"{made['date']}; {made['processor']}, {made['cores']} cores; {busy}.",
            ", ".join(f"{name} {text}" for name, text in made["versions"].items()) + ".",
            *self.notes,
        ]
        table = Table(
            title=self.title, box=box.SIMPLE, padding=0, caption=words[0], caption_justify="left"
        )
        lines = [f"# {self.title}", "", f"    {made['command']}", ""]
        lines += [line for word in words for line in (word, "")]
        for number, heading in enumerate(columns):
            table.add_column(heading, justify="right" if number else "left", no_wrap=not number)
        lines += ["| " + " | ".join(columns) + " |", "|---" + "|---:" * (len(columns) - 1) + "|"]
        for row in rows:
            cells = [text(row) for text in columns.values()]
            table.add_row(*cells)
            lines.append("| " + " | ".join(cells) + " |")
        Console().print(table)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(made | {"notes": self.notes, "rows": rows}, indent=1) + "\n")
        path.with_suffix(".md").write_text("\n".join(lines) + "\n")

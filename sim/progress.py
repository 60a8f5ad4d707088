"""How far something is: told by what takes long, shown after a second."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

__all__ = ["Progress", "progress_bar"]

Progress = Callable[[str, int, int], None]  #: Told what is being done, how much, of how much.

PATIENCE = 1.0  #: Seconds before a bar appears.


@contextmanager
def progress_bar(console: Console | None = None) -> Iterator[Progress]:
    """Show on standard error what is told, a bar for each thing done; gone at the end."""
    console = console or Console(file=sys.stderr)
    bars = Bars(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )
    begin = time.monotonic()
    tasks: dict[str, TaskID] = {}

    def tell(what: str, done: int, total: int) -> None:
        if what not in tasks:
            tasks[what] = bars.add_task(what, total=total)
        bars.update(tasks[what], completed=done, total=total)
        if console.is_terminal and not bars.live.is_started and time.monotonic() - begin > PATIENCE:
            bars.start()

    try:
        yield tell
    finally:
        if bars.live.is_started:
            bars.stop()

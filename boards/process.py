"""Programs that run for minutes: their logs, what they say they are doing, and how they end."""

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Self

from brambling.errors import ToolProblem

__all__ = ["Processes", "Stopped", "Tell", "Usage", "last_lines", "terminable"]

Tell = Callable[[str, str], None]  #: Told which job goes on, and what it does now.

LOG_LINES = 8  #: How much of what a failed program said is shown.
LINE = 160  #: Characters of a line that are shown.
POLL = 0.1  #: Seconds between two looks at a program.
PATIENCE = 3.0  #: Seconds that an interrupted program has to end by itself.

#: What programs say when memory ran out, WebAssembly's runtime among them.
EXHAUSTED = re.compile(
    r"bad_alloc|out of memory|cannot allocate memory|MemoryError|memory allocation of \d+ bytes",
    re.IGNORECASE,
)
STACK = re.compile(r"call stack exhausted|stack overflow", re.IGNORECASE)
TRAP = re.compile(r"wasm trap|wasm backtrace|unreachable", re.IGNORECASE)
ASSERTION = re.compile(r"assert|^ERROR", re.IGNORECASE | re.MULTILINE)


class Stopped(Exception):
    """The program was ended because another one failed, or because the user asked for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a program took: seconds by the clock and of processors, and bytes at most."""

    seconds: float
    cpu_seconds: float | None = None
    memory_bytes: int | None = None


class Processes:
    """Programs that run now; leaving the context by an error ends them, and all they started."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is not None:
            self.stop()

    def stop(self) -> None:
        """End all programs that run, and let none begin."""
        with self._lock:
            self._stopped = True
            running = list(self._running)
        for process in running:
            _signal(process, signal.SIGINT)
        end = time.monotonic() + PATIENCE
        for process in running:
            while process.poll() is None and time.monotonic() < end:
                time.sleep(POLL / 10)
            _signal(process, getattr(signal, "SIGKILL", signal.SIGTERM))

    def run(
        self,
        name: str,
        command: Sequence[str],
        folder: Path,
        log: Path,
        tell: Callable[[str], None] = lambda line: None,
        *,
        follow: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Usage:
        """Run a program in ``folder`` until it ends; all that it says goes to ``log``.

        Parameters
        ----------
        tell
            Called with each line of the log.
        follow
            A log that the program writes by itself and that is told instead. Once it has ended,
            what it has said beside that is added to it, and ``log`` is gone.

        Raises
        ------
        ToolProblem
            It cannot be started, fails, or is killed.
        Stopped
            :meth:`stop` has ended it.
        """
        begin = time.monotonic()
        watched = follow or log
        watched.unlink(missing_ok=True)
        with log.open("wb") as output:
            process = self._start(name, command, folder, output, environment)
        try:
            cpu, memory = _watch(process, watched, tell)
        except BaseException:
            self.stop()  # It still runs.
            raise
        with self._lock:
            self._running.discard(process)
        if follow is not None:
            _append(follow, log)
        if self._stopped:
            raise Stopped
        if process.returncode:
            raise failure(name, process.returncode, watched)
        return Usage(seconds=time.monotonic() - begin, cpu_seconds=cpu, memory_bytes=memory)

    def _start(
        self,
        name: str,
        command: Sequence[str],
        folder: Path,
        output: IO[bytes],
        environment: Mapping[str, str] | None,
    ) -> "subprocess.Popen[bytes]":
        with self._lock:
            if self._stopped:
                raise Stopped
            try:
                process = subprocess.Popen(
                    command,
                    cwd=folder,
                    env={**os.environ, **(environment or {})},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # A group of its own, so that all of it can be ended.
                )
            except OSError as error:
                raise ToolProblem(f"{name}: {command[0]} does not start ({error})") from None
            self._running.add(process)
        return process


def _signal(process: "subprocess.Popen[bytes]", number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, number)
        else:
            process.terminate()


def _watch(
    process: "subprocess.Popen[bytes]", log: Path, tell: Callable[[str], None]
) -> tuple[float | None, int | None]:
    """Tell the lines of a log while the program runs; return what it took, where that is known."""
    with contextlib.ExitStack() as stack:
        file: IO[str] | None = None
        while True:
            usage = _ended(process)
            if file is None and log.exists():
                file = stack.enter_context(log.open(encoding="utf-8", errors="replace"))
            for line in file or ():
                tell(line.rstrip())
            if usage is not None:
                return usage
            time.sleep(POLL)


def _ended(process: "subprocess.Popen[bytes]") -> tuple[float | None, int | None] | None:
    """Return what a program took, once it has ended."""
    if not hasattr(os, "wait4"):
        return None if process.poll() is None else (None, None)
    try:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
    except ChildProcessError:  # Another thread has seen its end.
        process.wait()
        return None, None
    if not pid:
        return None
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


def _append(log: Path, more: Path) -> None:
    """Move the contents of a file to the end of another."""
    said = more.read_bytes()
    with log.open("ab") as file:
        file.write(said)
    more.unlink()


# What went wrong ----------------------------------------------------------------------------------


def last_lines(log: Path, count: int = LOG_LINES) -> list[str]:
    """Return the last lines of a log that say something, none of them long."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    lines = [line.rstrip() for line in lines if line.strip()]
    errors = [n for n, line in enumerate(lines) if line.startswith("ERROR")]
    if errors:  # What comes after the error itself says less.
        lines = lines[: errors[0] + count]
    return [line if len(line) <= LINE else f"{line[: LINE - 1]}…" for line in lines[-count:]]


def failure(name: str, status: int, log: Path) -> ToolProblem:
    """Return the error for a program that failed: what happened, and what may help."""
    lines = last_lines(log)
    said = "\n".join(lines)
    remedy = (
        f"name a native one (--tool {name}=PATH), build fewer seeds at a time (--jobs 1), or plan "
        f"a smaller design (--goal min-area or fps=N); log: {log}"
    )
    if status in {-9, 137}:
        return ToolProblem(
            f"{name} was killed (signal 9), as systems do where memory runs out: {remedy}"
        )
    if EXHAUSTED.search(said):
        return ToolProblem(f"{name} ran out of memory: {remedy}")
    if STACK.search(said):
        return ToolProblem(f"{name} ran out of stack: {remedy}")
    if TRAP.search(said) and not ASSERTION.search(said):
        return ToolProblem(
            f"{name} was stopped by WebAssembly, whose memory ends at 4 GB: {remedy}"
        )
    how = f"signal {-status}" if status < 0 else f"status {status}"
    return ToolProblem(f"{name} failed with {how}; log: {log}; its end:\n{said}")


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Treat a request to terminate as an interrupt, so that no program is left behind."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

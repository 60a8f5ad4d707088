"""The C++ compiler, called directly: no make, no perl, no shell."""

import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from brambling.errors import ToolProblem

__all__ = ["Compiler", "Source", "call"]

OTHERWISE = ", or use --engine pysim"  #: Ends errors for what simulation has another way around.
LOG_LINES = 8  #: How much of what a failed program said is shown.

Tell = Callable[[int, int], None]  #: Told the number of steps done, of how many.


@dataclass(frozen=True)
class Source:
    """A file to compile, with its own flags."""

    path: Path
    flags: tuple[str, ...]


def call(command: Sequence[str | Path], folder: Path, **environment: str) -> str:
    """Run a program in ``folder`` and return what it said.

    Where it fails, :class:`ToolProblem` says which, and the end of that.
    """
    result = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if result.returncode:
        end = "\n".join(result.stdout.strip().splitlines()[-LOG_LINES:])
        name = Path(command[0]).name
        raise ToolProblem(f"{name} failed with status {result.returncode}:\n{end}")
    return result.stdout


@dataclass(frozen=True)
class Compiler:
    """A C++ compiler.

    Parameters
    ----------
    command
        What calls it.
    native
        Flags to use all that this processor has, where the compiler knows such.
    identity
        What it says of itself, and of the processor.
    """

    command: tuple[str, ...]
    native: tuple[str, ...]
    identity: str

    @classmethod
    def find(cls) -> "Compiler":
        """Return the one that ``CXX`` names, or the first of c++, g++ and clang++ on the path."""
        chosen = shlex.split(os.environ.get("CXX", ""))
        if chosen and not shutil.which(chosen[0]):
            raise ToolProblem(f"no C++ compiler {chosen[0]!r}, which CXX names")
        command = chosen or [name for name in ("c++", "g++", "clang++") if shutil.which(name)][:1]
        if not command:
            raise ToolProblem(
                f"no C++ compiler (c++, g++ or clang++) on PATH: install one{OTHERWISE}"
            )
        for native in (("-march=native",), ()):
            probe = [*command, *native, "-v", "-E", "-x", "c++", os.devnull]
            result = subprocess.run(
                probe, capture_output=True, text=True, errors="replace", check=False
            )
            if not result.returncode:
                return cls(tuple(command), native, result.stderr)
        raise ToolProblem(f"{shlex.join(command)} does not work as a C++ compiler")

    def compile(self, sources: Sequence[Source], folder: Path, tell: Tell) -> list[Path]:
        """Compile all, as many at a time as there are processors; return the objects.

        They lie in ``folder`` and have the sources' names; relative includes start there too.
        """
        # The longest first, so that none is left over at the end.
        sources = sorted(sources, key=lambda source: -source.path.stat().st_size)
        objects = [folder / f"{source.path.name}.o" for source in sources]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            waiting = [
                pool.submit(
                    call, (*self.command, *source.flags, "-c", source.path, "-o", target), folder
                )
                for source, target in zip(sources, objects, strict=True)
            ]
            try:
                for done, future in enumerate(as_completed(waiting)):
                    future.result()
                    tell(done + 1, len(waiting))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        return objects

    def link(self, objects: Sequence[Path], program: Path) -> None:
        """Link ``objects`` to ``program``."""
        call((*self.command, *objects, "-pthread", "-o", program), program.parent)

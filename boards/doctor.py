"""What is installed of all that the verbs call: which version, what is missing, and its remedy."""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata

from packaging.requirements import Requirement

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
        wanted = Requirement(line)
        for extra in EXTRAS:
            if wanted.marker is None or wanted.marker.evaluate({"extra": extra}):
                yield _package(wanted, EXTRAS[extra])
                break


def _package(wanted: Requirement, needed_for: str) -> Check:
    problem, version = "", ""
    try:
        version = metadata.version(wanted.name)
    except metadata.PackageNotFoundError:
        problem = f"{wanted.name} is not installed"
    else:
        if not wanted.specifier.contains(version, prereleases=True):
            problem = f"{wanted.name} {version} is not of {wanted.specifier}"
    return Check(
        kind="package",
        name=wanted.name,
        needed_for=needed_for,
        version=version,
        problem=problem,
        remedy=f"pip install '{wanted.name}{wanted.specifier}'" if problem else "",
    )

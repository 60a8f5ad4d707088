"""Behaves as Yosys, nextpnr or another tool would, by the name that it is copied to.

Or as badly as a test wants: ``behaviour.json`` beside it has, by name, what it shall do.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

HERE = Path(__file__)
CELLS = {"SB_DFF": 7, "SB_DFFE": 5, "SB_LUT4": 9}
SITES = {
    "ICESTORM_LC": {"used": 120, "available": 5280},
    "ICESTORM_RAM": {"used": 3, "available": 30},
}

args = sys.argv[1:]
told = json.loads((HERE.parent / "behaviour.json").read_text()).get(HERE.name, {})


def option(name, default=""):
    return args[args.index(name) + 1] if name in args else default


def of_seed(what, default):
    """Return what is told, for each seed where that differs."""
    found = told.get(what, default)
    return found.get(option("--seed"), default) if isinstance(found, dict) else found


def misbehave():
    if told.get("stubborn"):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    if told.get("child") and not os.fork():
        (HERE.parent / "child.pid").write_text(str(os.getpid()))
    time.sleep(told.get("sleep", 0))
    if told.get("kill"):
        os.kill(os.getpid(), signal.SIGKILL)
    if status := of_seed("status", 0):
        sys.exit(status)


def synthesise():
    name = option("-p").split()[1].removesuffix(".il;")
    Path(f"{name}.json").write_text("{}")
    Path(f"{name}.cells.json").write_text(json.dumps({"design": {"num_cells_by_type": CELLS}}))


def route():
    asked = float(option("--freq"))
    clock = {"achieved": of_seed("fmax", 50.0), "constraint": told.get("constraint", asked)}
    report = {"fmax": {"clk": clock}, "utilization": SITES, "critical_paths": []}
    Path(option("--report")).write_text(json.dumps(report))
    Path(option("--asc")).write_text(f"seed {option('--seed')} at {asked}")


def main():
    if args and args[-1] in {"-V", "--version", "--Version"}:
        print(told.get("version", f"{HERE.name} (Version 0.70.1)"))
        sys.exit(told.get("asked", 0))
    with (HERE.parent / "calls.log").open("a") as calls:
        calls.write(json.dumps([HERE.name, os.getpid(), *args]) + "\n")
    said = of_seed("say", "")
    if log := option("-l"):
        Path(log).write_text(f"1. Executing RTLIL frontend.\n{said}\n")
    else:
        print(said, flush=True)
    misbehave()
    if HERE.name == "yosys":
        synthesise()
    elif HERE.name.startswith("nextpnr"):
        route()
    elif HERE.name == "icepack" and not told.get("nothing"):
        Path(args[-1]).write_text("bits, " + Path(args[-2]).read_text())


main()

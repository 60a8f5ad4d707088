"""Runs a program of a YoWASP package, with a deeper stack than it would have.

    python -P -m brambling.boards.wasm [--warm] PACKAGE FUNCTION [ARGUMENT…]

Programs of YoWASP are WebAssembly, which is compiled for this machine when it is first called, and
kept. ``--warm`` does that alone, and holds a lock meanwhile: any number of processes may ask for it
at once, and one of them compiles.

Some of their functions call themselves, deeper the larger a design is. The stack that wasmtime
gives them ends at half a megabyte ("call stack exhausted"), and can be made as deep as that of the
thread that it runs in.
"""

import contextlib
import ctypes
import importlib
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

__all__ = ["main"]

STACK = 1 << 30  #: Bytes of address space for the thread; only what is used is ever there.
GUARD = 16 << 20  #: Bytes of it that are left to what WebAssembly calls.
SHALLOW = 2 << 20  #: Bytes that a stack may have where the size of fibres cannot be set.


def deepen() -> None:
    """Make the stack of WebAssembly as deep as threads of this process may have it."""
    import wasmtime

    library = importlib.import_module("wasmtime._ffi").dll
    # wasmtime refuses a stack above that of its fibres, which its Python package has no name for.
    fibres = getattr(library, "wasmtime_config_async_stack_size_set", None)

    class Deep(wasmtime.Config):
        """A configuration that has the deep stack from the beginning."""

        def __init__(self) -> None:
            super().__init__()
            if fibres is not None:
                fibres(self.ptr(), ctypes.c_size_t(STACK))
            self.max_wasm_stack = SHALLOW if fibres is None else STACK - GUARD

    threading.stack_size(STACK)
    wasmtime.Config = Deep


def cache() -> Path:
    """Return the folder of the compiled programs."""
    import platformdirs

    chosen = os.environ.get("YOWASP_CACHE_DIR")
    return Path(chosen or platformdirs.user_cache_dir("YoWASP", appauthor=False))


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Wait until no other process is in here, where the system can tell."""
    try:
        import fcntl
    except ImportError:  # Windows: at worst several compile the same.
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "brambling.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main(argv: Sequence[str]) -> int:
    """Run the program that the arguments name; return its status."""
    warm = argv[0] == "--warm"
    package, function, *arguments = argv[warm:]
    deepen()
    run: Any = getattr(importlib.import_module(package), function)
    if not warm:
        return run(arguments)
    with alone(cache()):
        run(["--version"])  # Some know no such option: all that matters is that they started.
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""What is slow to make and made from known contents is kept, in the user's cache folder."""

import hashlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from brambling.errors import FileProblem

__all__ = ["cached", "digest"]

KEPT = 20  #: Entries; a compiled simulator has about 2 MB.
SUMS = "SHA256SUMS"
STALE = 86400  #: Seconds after which an unfinished entry is one of a process that died.


def folder() -> Path:
    """Where the platform keeps what can be made again."""
    home = Path.home()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = home / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or home / ".cache"
    return Path(base) / "brambling"


def digest(*parts: str | bytes) -> str:
    """Hexadecimal SHA-256 of the parts, each with its length."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "little"))
        total.update(data)
    return total.hexdigest()


def cached(key: str, make: Callable[[Path], None]) -> Path:
    """Folder of what ``make`` writes into the folder it is given; made only once for a ``key``.

    An entry appears whole or not at all. One that is damaged is made anew. The entries used last
    are kept.
    """
    entry = folder() / key
    if _whole(entry):
        os.utime(entry)
        return entry
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        unfinished = tempfile.TemporaryDirectory(
            dir=entry.parent, prefix=".", ignore_cleanup_errors=True
        )
    except OSError as error:
        raise FileProblem(
            f"{entry.parent}: cannot be written ({error.strerror}); compiled simulators are kept "
            "there, set XDG_CACHE_HOME to a folder that can be written"
        ) from None
    with unfinished as name:
        whole = Path(name) / "entry"
        whole.mkdir()
        make(whole)
        (whole / SUMS).write_text(_sums(whole))
        shutil.rmtree(entry, ignore_errors=True)
        try:
            whole.rename(entry)
        except OSError:
            if not _whole(entry):  # Else another process was first.
                raise
    _trim(entry.parent)
    return entry


def _sums(entry: Path) -> str:
    """Checksums of the files, as ``sha256sum`` writes them."""
    files = sorted(path for path in entry.rglob("*") if path.is_file() and path.name != SUMS)
    return "".join(
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(entry).as_posix()}\n"
        for path in files
    )


def _whole(entry: Path) -> bool:
    try:
        return (entry / SUMS).read_text() == _sums(entry)
    except (OSError, UnicodeDecodeError):
        return False


def _trim(root: Path) -> None:
    """Remove all but the entries used last, and what processes that died left behind."""
    used = {}
    for path in root.iterdir():
        try:
            used[path] = path.stat().st_mtime
        except OSError:  # Another process removed it.
            continue
    entries = sorted((path for path in used if path.name[0] != "."), key=used.__getitem__)
    stale = [p for p in used if p.name[0] == "." and time.time() - used[p] > STALE]
    for path in [*entries[:-KEPT], *stale]:
        shutil.rmtree(path, ignore_errors=True)

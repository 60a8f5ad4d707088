"""Files are written whole or not at all."""

import os
import re
import stat
from pathlib import Path

import pytest

from brambling.errors import FileProblem
from brambling.files import write_atomically


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    return path


@pytest.mark.parametrize(("contents", "written"), [("zwölf", "zwölf".encode()), (b"\0\n", b"\0\n")])
def test_writes_text_and_bytes(tmp_path, contents, written):
    path = tmp_path / "deep" / "er" / "file"
    write_atomically(path, contents)
    assert path.read_bytes() == written
    assert list(path.parent.iterdir()) == [path]


def test_replaces_a_file(path):
    write_atomically(path, "new")
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_mode_is_that_of_any_new_file(path):
    mask = os.umask(0o027)
    try:
        write_atomically(path, "new")
    finally:
        os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.parametrize("where", ["replace", "chmod"])
@pytest.mark.parametrize("what", [KeyboardInterrupt(), MemoryError()], ids=repr)
def test_an_interruption_leaves_the_old_file(path, monkeypatch, where, what):
    def interrupt(self, *args):
        raise what

    monkeypatch.setattr(Path, where, interrupt)
    with pytest.raises(type(what)):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_file(path, monkeypatch):
    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    message = f"{path}: cannot be written (No space left on device)"
    with pytest.raises(FileProblem, match=f"^{re.escape(message)}$"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_refuses_a_folder_that_is_a_file(path):
    target = path / "inside" / "file"
    message = f"{target}: cannot be written (Not a directory)"
    with pytest.raises(FileProblem, match=f"^{re.escape(message)}$"):
        write_atomically(target, "new")


def test_refuses_a_folder_that_is_read_only(path, monkeypatch):
    """Root may write anywhere, so the refusal is played."""

    def refuse(*args, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    message = f"{path}: cannot be written (Permission denied)"
    with pytest.raises(FileProblem, match=f"^{re.escape(message)}$"):
        write_atomically(path, "new")
    assert path.read_text() == "old"


def test_refuses_the_place_of_a_folder(tmp_path):
    (tmp_path / "file").mkdir()
    target = tmp_path / "file"
    with pytest.raises(FileProblem, match=r"cannot be written \(Is a directory\)$"):
        write_atomically(target, "new")
    assert list(tmp_path.iterdir()) == [target]

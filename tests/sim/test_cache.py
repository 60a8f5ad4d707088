"""The cache: made once, whole or not at all, and never too many."""

import os
from pathlib import Path

import pytest

from brambling.errors import FileProblem
from brambling.sim import cache
from brambling.sim.cache import cached, digest


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "folder", lambda: tmp_path)
    return tmp_path


class Maker:
    """Writes an entry, and counts how often."""

    def __init__(self):
        self.times = 0

    def __call__(self, folder):
        self.times += 1
        (folder / "sub").mkdir()
        (folder / "sub" / "file").write_text("contents")


def test_made_once(folder):
    make = Maker()
    for _ in range(3):
        assert (cached("key", make) / "sub" / "file").read_text() == "contents"
    assert make.times == 1
    cached("other", make)
    assert make.times == 2
    assert sorted(path.name for path in folder.iterdir()) == ["key", "other"]


@pytest.mark.parametrize("harm", ["truncate", "remove", "add", "no sums", "bad sums"])
def test_made_anew_if_damaged(folder, harm):
    make = Maker()
    entry = cached("key", make)
    match harm:
        case "truncate":
            (entry / "sub" / "file").write_text("cont")
        case "remove":
            (entry / "sub" / "file").unlink()
        case "add":
            (entry / "more").write_text("")
        case "no sums":
            (entry / cache.SUMS).unlink()
        case "bad sums":
            (entry / cache.SUMS).write_bytes(b"\xff")
    assert (cached("key", make) / "sub" / "file").read_text() == "contents"
    assert make.times == 2
    assert not (entry / "more").exists()


def test_nothing_is_left_of_what_failed(folder):
    def fail(path):
        (path / "file").write_text("part")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached("key", fail)
    assert not [*folder.iterdir()]


def test_another_process_may_be_first(folder):
    make = Maker()

    def late(path):
        make(path)
        cached("key", make)

    assert (cached("key", late) / "sub" / "file").read_text() == "contents"


def test_those_used_last_are_kept(folder, monkeypatch):
    monkeypatch.setattr(cache, "KEPT", 3)
    make = Maker()
    for n in range(5):
        for age, name in enumerate(["a", "b", "c", "d", "e"][: n + 1]):
            if (folder / name).exists():
                os.utime(folder / name, (age, age))
        cached("abcde"[n], make)
    assert sorted(path.name for path in folder.iterdir()) == ["c", "d", "e"]


def test_what_a_dead_process_left_is_removed(folder):
    (folder / ".old").mkdir()
    (folder / ".new").mkdir()
    os.utime(folder / ".old", (0, 0))
    cached("key", Maker())
    assert sorted(path.name for path in folder.iterdir()) == [".new", "key"]


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(cache, "folder", lambda: tmp_path / "file")
    with pytest.raises(FileProblem) as caught:
        cached("key", Maker())
    assert str(caught.value) == (
        f"{tmp_path / 'file'}: cannot be written (File exists); compiled simulators are kept "
        "there, set XDG_CACHE_HOME to a folder that can be written"
    )


@pytest.mark.parametrize(
    ("platform", "variable", "expected"),
    [
        ("linux", "XDG_CACHE_HOME", "given/brambling"),
        ("linux", None, "home/.cache/brambling"),
        ("darwin", None, "home/Library/Caches/brambling"),
        ("win32", "LOCALAPPDATA", "given/brambling"),
        ("win32", None, "home/AppData/Local/brambling"),
    ],
)
def test_folder_by_platform(platform, variable, expected, monkeypatch):
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setenv(variable, "given")
    monkeypatch.setattr("sys.platform", platform)
    monkeypatch.setattr(Path, "home", lambda: Path("home"))
    assert cache.folder() == Path(expected)


def test_digest_keeps_parts_apart():
    assert digest("ab", "c") != digest("a", "bc")
    assert digest("ab") == digest(b"ab")
    assert len(digest()) == 64

"""Progress appears only for what takes long, and on standard error."""

import io

from rich.console import Console

from brambling.sim import progress
from brambling.sim.progress import progress_bar


def shown(monkeypatch, patience):
    monkeypatch.setattr(progress, "PATIENCE", patience)
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    with progress_bar(console) as tell:
        for done in range(3):
            tell("simulate", done, 1200)
        tell("simulate", 1100, 1200)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_what_is_quick_shows_nothing(monkeypatch):
    assert not shown(monkeypatch, 60)


def test_what_takes_long_shows_a_bar(monkeypatch):
    text = shown(monkeypatch, -1)
    assert "simulate" in text
    assert "1,100 of 1,200" in text


def test_it_goes_to_standard_error(monkeypatch, capsys):
    monkeypatch.setattr(progress, "PATIENCE", -1)
    with progress_bar() as tell:
        tell("simulate", 1, 2)
    assert not capsys.readouterr().out

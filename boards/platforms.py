"""Amaranth's platforms of boards: who knows which pin is what."""

import importlib
from typing import Any

from brambling.boards.catalogue import Resource
from brambling.boards.parts import Board
from brambling.errors import ConfigError
from brambling.hw import pads

__all__ = ["load"]


def load(board: Board) -> Any:
    """Return a fresh platform of ``board``, with the resources of its file.

    Raises
    ------
    ConfigError
        The board is a bare part, its package is not installed, or its file does not agree with it.
    """
    if board.platform is None:
        raise ConfigError(f"{board.name} is a part, not a board: it has no pins")
    module, _, name = board.platform.partition(":")
    try:
        kind = getattr(importlib.import_module(module), name, None)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "amaranth_boards":
            raise
        raise ConfigError(
            f"{board.name}: its pins are in the package amaranth-boards, which is not installed "
            "or too old: pip install 'brambling[build]'"
        ) from None
    if kind is None:
        raise ConfigError(
            f"{board.name}: {module} has no {name}: pip install --upgrade amaranth-boards"
        )
    if board.attributes.items:
        # A vendor's platform is abstract: what a board adds to it are attributes.
        more = {"resources": [], "connectors": [], **dict(board.attributes.items)}
        kind = type(name, (kind,), more)
    platform = kind()
    try:
        platform.add_resources([_resource(row) for row in board.resources])
    except NameError as error:
        raise ConfigError(f"{board.name}: {error}") from None
    return platform


def _resource(row: Resource) -> Any:
    connector = None if row.connector is None else (row.connector.name, row.connector.number)
    return pads.resource(
        row.name,
        row.number,
        [(pin.signal, pin.pin, pin.dir, pin.invert) for pin in row.pins],
        connector=connector,
        hz=row.hz,
        attrs=dict(row.attrs.items),
    )

"""Weights in memories without initial contents: what fills them, and with what."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from numpy.typing import NDArray

from brambling.hw.mac import MacSpec
from brambling.hw.node import Node
from brambling.hw.rom import PIECE, filling, pieces

__all__ = ["Loader", "LoaderSpec", "load_words", "loaded_nodes"]


def loaded_nodes(nodes: tuple[Node, ...]) -> tuple[Node, ...]:
    """Return the engines whose weights must be loaded, in the order of ``nodes``."""
    return tuple(node for node in nodes if isinstance(node.spec, MacSpec) and node.spec.loads)


def load_words(nodes: tuple[Node, ...]) -> NDArray[np.uint16]:
    """Return what an accelerator is to be loaded with, ``(words,)``; empty where it needs nothing.

    Engine by engine in the order of ``nodes``; of each, the words of its weights
    (:meth:`MacSpec.weight_words`) from address 0 on, each in pieces of 16 bits, the lowest first.
    """
    contents = bytearray()
    for node in loaded_nodes(nodes):
        size = pieces(node.spec.bank.width) * PIECE // 8
        for word in node.spec.weight_words():
            contents += word.to_bytes(size, "little")
    return np.frombuffer(bytes(contents), "<u2").astype(np.uint16)


@dataclass(frozen=True, slots=True)
class LoaderSpec:
    """Memories that are filled one after the other.

    Parameters
    ----------
    memories
        Words of each, and bits of a word.
    """

    memories: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, nodes: tuple[Node, ...]) -> "LoaderSpec":
        """Return the memories of ``nodes`` that must be loaded."""
        specs = [node.spec for node in loaded_nodes(nodes)]
        return cls(tuple((spec.weight_depth, spec.bank.width) for spec in specs))

    @property
    def words(self) -> int:
        """Words of 16 bits of a whole load."""
        return sum(depth * pieces(width) for depth, width in self.memories)

    def build(self) -> "Loader":
        return Loader(self)


class Loader(wiring.Component):
    """Fills memories from a stream, a word a cycle, in the order of :func:`load_words`.

    It begins by waiting for a load. A whole one makes ``loaded`` 1, from the next cycle on, until
    the next begins: with another word, or with ``restart``. A reset forgets an unfinished load, but
    not that the memories have been filled.

    Members
    -------
    load : ``In(stream.Signature(16))``
    restart : ``In(1)``
        Whatever has come so far, the next word is the first one.
    loaded : ``Out(1)``
    fill0, … : ``Out(filling(depth, width))``
        One for each memory.
    """

    load: stream.Interface
    restart: Signal
    loaded: Signal

    def __init__(self, spec: LoaderSpec) -> None:
        self.spec = spec
        super().__init__({
            "load": In(stream.Signature(PIECE)),
            "restart": In(1),
            "loaded": Out(1),
            **{f"fill{n}": Out(filling(*memory)) for n, memory in enumerate(spec.memories)},
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        memories = self.spec.memories
        # What has been filled stays so over a reset; an unfinished load begins anew.
        active = Signal(init=1, reset_less=True)
        turn = Signal(len(memories), init=1)  # One-hot: the memory that is being filled.
        address = Signal(range(max(depth for depth, _ in memories)))
        piece = Signal(range(max(pieces(width) for _, width in memories)))
        store = Signal()
        m.d.comb += [
            self.loaded.eq(~active),
            self.load.ready.eq(active & ~self.restart),
            store.eq(self.load.valid & self.load.ready),
        ]

        whole_word, whole_memory = Signal(), Signal()
        last = [piece == pieces(width) - 1 for _, width in memories]
        deepest = [address == depth - 1 for depth, _ in memories]
        m.d.comb += [
            whole_word.eq((Cat(*last) & turn).any()),
            whole_memory.eq((Cat(*deepest) & turn).any()),
        ]
        for n, (_, width) in enumerate(memories):
            writes = [store & turn[n] & (piece == k) for k in range(pieces(width))]
            fill = getattr(self, f"fill{n}")
            m.d.comb += [
                fill.active.eq(active),
                fill.address.eq(address),
                fill.data.eq(self.load.payload),
                fill.write.eq(Cat(*writes)),
            ]

        with m.If(store):
            m.d.sync += piece.eq(Mux(whole_word, 0, piece + 1))
            with m.If(whole_word):
                m.d.sync += address.eq(Mux(whole_memory, 0, address + 1))
                with m.If(whole_memory):
                    m.d.sync += [turn.eq(turn.rotate_left(1)), active.eq(~turn[-1])]
        with m.Elif(self.load.valid):
            m.d.sync += active.eq(1)
        with m.If(self.restart):
            m.d.sync += [piece.eq(0), address.eq(0), turn.eq(1), active.eq(1)]
        return m

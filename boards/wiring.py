"""How the engines of a network are joined: who reads whom, and what adapts their beats."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, gcd, log2

from brambling.boards.lines import LineBuffer
from brambling.boards.memories import Needs, ram
from brambling.boards.parts import Part
from brambling.boards.resources import needs
from brambling.hw.beat import Beats
from brambling.layers import ArgMax, Dense, Flatten
from brambling.network import INPUT, Network, Tensor
from brambling.plan import Plan, Step

__all__ = ["Link", "adapters", "families", "links", "repixel", "total"]

PER_PLACE, PER_LEVEL = 0.4, 1.5  #: LUTs of a bit of a width adapter.


@dataclass(frozen=True, slots=True)
class Link:
    """An input of an engine.

    Parameters
    ----------
    source, reader
        Steps, by number; the source -1 is the network's input.
    number
        Which of the reader's inputs.
    tensor
        What is read, as its source makes it.
    flat
        Whether an image is read as a vector, one pixel after the other.
    """

    source: int
    reader: int
    number: int
    tensor: Tensor
    flat: bool


def links(network: Network, chain: tuple[Step, ...]) -> tuple[Link, ...]:
    """Every input of every step; flattening joins what it stands between."""
    makers = {INPUT: -1} | {step.output: n for n, step in enumerate(chain)}
    found = []
    for reader, step in enumerate(chain):
        for number, edge in enumerate(step.sources):
            while isinstance(layer := edge != INPUT and network.layer(edge), Flatten):
                edge = layer.inputs[0]
            tensor = network.tensors[edge]
            vector = len(step.tensors[number].shape) < 3
            vector |= isinstance(step.layers[0], Dense | ArgMax)
            flat = vector and len(tensor.shape) == 3 and tensor.shape[:2] != (1, 1)
            found.append(Link(makers[edge], reader, number, tensor, flat))
    return tuple(found)


def families(chain: tuple[Step, ...], joined: tuple[Link, ...]) -> list[list[int]]:
    """Find the steps that take and make the same number of pixels at a time, each family in order.

    A line buffer takes any number, so its engine begins a family; every other engine belongs to
    that of all its sources.
    """
    parents = list(range(-1, len(chain)))  # By step, from the input on; a family by any member.

    def find(n: int) -> int:
        while parents[n + 1] != n:
            n = parents[n + 1]
        return n

    for link in joined:
        if chain[link.reader].window is None and not link.flat:
            parents[find(link.source) + 1] = find(link.reader)
    groups: dict[int, list[int]] = {}
    for n in range(-1, len(chain)):
        groups.setdefault(find(n), []).append(n)
    return [[n for n in group if n >= 0] for group in groups.values() if group != [-1]]


def repixel(part: Part, tensor: Tensor, lanes: int, pixels: int, target: int) -> Needs:
    """Estimate what passes an image on with ``target`` pixels at a time."""
    if pixels == target:
        return Needs()
    buffer = LineBuffer.between(Beats.of(tensor, lanes, pixels), target)
    return buffer.needs(part, "block") + ram(part, 2, buffer.bits * target)


def adapters(network: Network, plan: Plan, part: Part) -> Iterator[tuple[str, Needs]]:
    """Yield what stands between engines whose beats differ, by the engine behind."""
    pairs = plan.pairs(network)
    chain = tuple(step for step, _ in pairs)
    for link in links(network, chain):
        reader = pairs[link.reader][1]
        if link.source < 0:  # The outside world sends what is wanted.
            continue
        lanes, pixels = pairs[link.source][1].pe, pairs[link.source][1].pixels
        wanted = pixels if chain[link.reader].window else reader.pixels
        yield chain[link.reader].name, between(part, link, lanes, pixels, reader.simd, wanted)


def between(part: Part, link: Link, lanes: int, pixels: int, target: int, wanted: int) -> Needs:
    """Estimate what turns beats of ``lanes`` by ``pixels`` into ``target`` by ``wanted``."""
    found, tensor = Needs(), link.tensor
    if link.flat:
        found += repixel(part, tensor, lanes, pixels, 1)
        full = next(n for n in range(lanes, tensor.shape[-1] + 1) if not tensor.shape[-1] % n)
        return found + width_adapter(tensor, lanes, full) + width_adapter(tensor, full, target)
    found += repixel(part, tensor, lanes, pixels, wanted)
    return found + width_adapter(tensor, lanes, target) * wanted


def width_adapter(tensor: Tensor, lanes: int, target: int) -> Needs:
    """Estimate an adapter of a pixel's lanes."""
    if lanes == target:
        return Needs()
    common = gcd(lanes, target)
    held = lanes + target - common
    places = held // common  # Where a unit may go: a multiplexer, or a shifter where they are many.
    choices = min(PER_PLACE * places, PER_LEVEL * log2(places))
    return Needs(0, ceil(30 + held * tensor.fmt.width * choices))


def total(network: Network, plan: Plan, part: Part) -> Needs:
    """Estimate what all engines of a plan take, with all that stands between them."""
    pairs = plan.pairs(network)
    brought: list[int | None] = [None] * len(pairs)
    for link in links(network, tuple(step for step, _ in pairs)):
        if link.number == 0 and link.source >= 0 and not link.flat:
            brought[link.reader] = pairs[link.source][1].pixels
    rows = [
        needs(step, stage, part, pixels)
        for (step, stage), pixels in zip(pairs, brought, strict=True)
    ]
    rows += [row for _, row in adapters(network, plan, part)]
    return sum(rows, start=Needs())

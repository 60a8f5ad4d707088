"""How the engines of a network are joined: who reads whom, and what adapts their beats."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil, gcd, log2
from typing import NamedTuple

from brambling.boards.lines import LineBuffer
from brambling.boards.memories import Needs, ram
from brambling.boards.parts import Part
from brambling.boards.resources import needs, seen_bits
from brambling.hw.beat import Beats
from brambling.hw.width import WidthAdapterSpec, dependences
from brambling.layers import ArgMax, Dense, Flatten
from brambling.network import INPUT, Network, Tensor
from brambling.plan import Plan, Stage, Step
from brambling.quant.formats import Bipolar

__all__ = [
    "Lanes",
    "Link",
    "Wiring",
    "adapters",
    "families",
    "links",
    "repixel",
    "total",
    "whole",
]

PER_PLACE, PER_LEVEL = 0.4, 1.5  #: LUTs of a bit of a width adapter.
PER_ADAPTER, PER_BEAT_BIT = 18, 2.6  #: Its control, and that by bits of the number of its beats.
PER_GATE, PER_GATED_BEAT_BIT = 4, 2.2  #: LUTs of the gate at the input, likewise.


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
    gated
        Bits of a code that must be masked by the gate at the input, which stands before its first
        reader; 0 elsewhere.
    """

    source: int
    reader: int
    number: int
    tensor: Tensor
    flat: bool
    gated: int = 0


class Lanes(NamedTuple):
    """Of a stage, what adapters depend on."""

    pe: int
    simd: int
    pixels: int


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
            gated = seen_bits(step) if edge == INPUT and all(x.source >= 0 for x in found) else 0
            found.append(Link(makers[edge], reader, number, tensor, flat, gated))
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


class Wiring:
    """Every input of every step, and what comes to it.

    Parameters
    ----------
    chain
        The steps.
    joined
        Their inputs, from :func:`links`.

    Attributes
    ----------
    first
        The first step that reads the network's input: the outside world sends what it wants.
    """

    def __init__(self, chain: Sequence[Step], joined: tuple[Link, ...]) -> None:
        self.joined = joined
        self.windows = [step.window is not None for step in chain]
        self.first = next(link for link in joined if link.source < 0)

    def beats(self, link: Link, stages: Sequence[Stage | Lanes]) -> tuple[int, int, int, int]:
        """Lanes and pixels of the beats that come to an input, then of those that are wanted."""
        reader = stages[link.reader]
        if link.source < 0:
            lanes, pixels = self.sent(stages[self.first.reader])
        else:
            lanes, pixels = stages[link.source].pe, stages[link.source].pixels
        # A line buffer takes any number of pixels.
        wanted = pixels if self.windows[link.reader] else reader.pixels
        return lanes, pixels, reader.simd, wanted

    def sent(self, stage: Stage | Lanes) -> tuple[int, int]:
        """Lanes and pixels of a beat of the network's input, by the stage of its first reader."""
        tensor = self.first.tensor
        lanes = min(tensor.shape[-1], stage.simd) if self.first.flat else stage.simd
        single = self.first.flat or self.windows[self.first.reader]
        return lanes, 1 if single else stage.pixels

    def brought(self, stages: Sequence[Stage]) -> list[int | None]:
        """Pixels that the first input of each step brings at a time; None: what it has itself."""
        found: list[int | None] = [None] * len(stages)
        for link in self.joined:
            if link.number == 0 and not link.flat:
                found[link.reader] = self.beats(link, stages)[1]
        return found


def adapters(network: Network, plan: Plan, part: Part) -> Iterator[tuple[str, Needs]]:
    """Yield what stands between engines whose beats differ, by the engine behind; and the gate."""
    chain = tuple(step for step, _ in plan.pairs(network))
    joints = Wiring(chain, links(network, chain))
    for link in joints.joined:
        lanes, pixels, *wanted = joints.beats(link, plan.stages)
        if link.gated:
            yield "gate", gate(link, lanes, pixels)
        yield (
            chain[link.reader].name,
            between(part, replace(link, gated=0), lanes, pixels, *wanted),
        )


def between(part: Part, link: Link, lanes: int, pixels: int, target: int, wanted: int) -> Needs:
    """Estimate what turns beats of ``lanes`` by ``pixels`` into ``target`` by ``wanted``."""
    found, tensor = gate(link, lanes, pixels), link.tensor
    if link.flat:
        found += repixel(part, tensor, lanes, pixels, 1)
        full = whole(tensor.shape[-1], lanes)
        found += width_adapter(tensor, lanes, full)
        return found + width_adapter(Tensor((tensor.size,), tensor.fmt), full, target)
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
    beats = -(-tensor.shape[-1] // min(lanes, target)) if tensor.shape else 1
    control = PER_ADAPTER + PER_BEAT_BIT * beats.bit_length()
    return Needs(0, ceil(control + held * tensor.fmt.width * choices))


def gate(link: Link, lanes: int, pixels: int) -> Needs:
    """Estimate what lets only whole frames in: a mask, and a counter of beats."""
    if not link.gated:
        return Needs()
    count = Beats.of(link.tensor, lanes, pixels).count
    masked = lanes * pixels * link.gated
    return Needs(0, ceil(PER_GATE + masked + PER_GATED_BEAT_BIT * count.bit_length()))


def whole(channels: int, lanes: int) -> int:
    """Return the fewest lanes, no fewer than ``lanes``, with which the last beat is full too."""
    return next(n for n in range(lanes, channels + 1) if not channels % n)


def cycles(link: Link, lanes: int, pixels: int, target: int, wanted: int) -> int:
    """Cycles a frame that the width adapters need which :func:`between` has."""
    rows, columns, channels = (1, 1, 1, *link.tensor.shape)[-3:]
    if link.flat:
        full, size = whole(channels, lanes), rows * columns * channels
        return max(rows * columns * period(channels, lanes, full), period(size, full, target))
    return rows * -(-columns // wanted) * period(channels, lanes, target)


@lru_cache(maxsize=1 << 15)
def period(elements: int, lanes: int, target: int) -> int:
    """Cycles from a pixel to the next in a width adapter that nothing holds up.

    Mostly those of the beats at the end that has more of them; with lanes that do not divide each
    other it can be one more.
    """
    if lanes == target:
        return -(-elements // lanes)
    spec = WidthAdapterSpec(i=Beats(Bipolar(), elements, lanes), target=target)
    places, needed = dependences(spec)
    given = [0]  # When the beats at the output move, behind the last one of the pixel before.
    taken: list[int] = []
    for beat in needed:
        while len(taken) <= beat:
            place = places[len(taken)]
            taken.append(max(taken[-1] + 1 if taken else 0, given[place]))
        given.append(max(given[-1], taken[beat]) + 1)
    return given[-1]


def total(network: Network, plan: Plan, part: Part) -> Needs:
    """Estimate what all engines of a plan take, with all that stands between them."""
    pairs = plan.pairs(network)
    chain = tuple(step for step, _ in pairs)
    brought = Wiring(chain, links(network, chain)).brought(plan.stages)
    rows = [
        needs(step, stage, part, pixels)
        for (step, stage), pixels in zip(pairs, brought, strict=True)
    ]
    rows += [row for _, row in adapters(network, plan, part)]
    return sum(rows, start=Needs())

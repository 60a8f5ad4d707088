"""Match counters: positions in which two words of bits are equal."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from amaranth.hdl import Cat, Const, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from numpy.typing import NDArray

from brambling.errors import ConfigError
from brambling.hw.pipe import Pipe

__all__ = ["MatchBank", "MatchBankSpec", "MatchCount", "MatchCountSpec", "encode_value"]


# Carry-save addition ---------------------------------------------------------------------------
#
# Column i holds bits of weight 2**i. A full adder makes three bits of a column into one and a carry
# to the next column for two LUT4s, and nothing removes a bit for less until two rows are left: then
# a carry chain does. Columns are words, so that a level is a few wide operations to a simulator,
# however many adders it has; and several independent sums may lie side by side in them, bit b of
# sum p at b * sums + p.

Adders = tuple[tuple[int, int], ...]  # Of one level: full and half adders in each column.


def columns_after(heights: Sequence[int], adders: Adders, width: int) -> list[int]:
    """Bits in each column after a level; carries beyond ``width`` columns cannot occur."""
    after = [h - 2 * full - half for h, (full, half) in zip(heights, adders, strict=True)]
    carries = [0] + [full + half for full, half in adders]
    if carries[-1] and len(after) < width:
        after.append(0)
    return [h + c for h, c in zip(after, carries, strict=False)]


def reduction(heights: Sequence[int], width: int) -> list[Adders]:
    """Levels of adders that leave at most two bits in each column.

    As few as can be (L. Dadda, "Some schemes for parallel multipliers", 1965): each level brings
    all columns to the next of the heights 2, 3, 4, 6, 9, 13, … and no further.
    """
    levels = []
    while max(heights) > 2:
        target = 2
        while target * 3 // 2 < max(heights):
            target = target * 3 // 2
        adders, carries = [], 0
        for height in heights:
            excess = max(0, height + carries - target)
            full, half = divmod(excess, 2)
            if half and 3 * (full + 1) <= height:  # It costs no more, and removes a bit.
                full, half = full + 1, 0
            adders.append((full, half))
            carries = full + half
        levels.append(tuple(adders))
        heights = columns_after(heights, tuple(adders), width)
    return levels


def add_level(
    m: Module, columns: Sequence[Value], adders: Adders, width: int, sums: int = 1, name: str = ""
) -> list[Value]:
    """One level of :func:`reduction`, for ``sums`` independent sums."""
    after: list[list[Value]] = [[] for _ in range(len(columns) + 1)]
    for n, (column, (full, half)) in enumerate(zip(columns, adders, strict=True)):
        f, h = full * sums, half * sums
        if f:
            differ, total, carry = (
                Signal(f, name=f"{name}{part}{n}") for part in ("differ", "sum", "carry")
            )
            a, b, c = column[:f], column[f : 2 * f], column[2 * f : 3 * f]
            m.d.comb += [
                differ.eq(a ^ b),
                total.eq(differ ^ c),
                carry.eq((differ & c) | (~differ & a)),
            ]
            after[n].append(total)
            after[n + 1].append(carry)
        if h:
            total, carry = (Signal(h, name=f"{name}half_{part}{n}") for part in ("sum", "carry"))
            a, b = column[3 * f : 3 * f + h], column[3 * f + h : 3 * f + 2 * h]
            m.d.comb += [total.eq(a ^ b), carry.eq(a & b)]
            after[n].append(total)
            after[n + 1].append(carry)
        after[n].insert(0, column[3 * f + 2 * h :])
    return [Cat(*parts) for parts in after[:width] if parts]


def add_rows(
    m: Module, columns: Sequence[Value], width: int, sums: int = 1, name: str = ""
) -> list[Signal]:
    """Add the two rows that are left; ``width`` bits of each sum."""
    totals = []
    for p in range(sums):
        total = Signal(width, name=f"{name}total{p}")
        first = Cat(column[p] for column in columns)
        second = Cat(column[sums + p] if len(column) > sums else Const(0, 1) for column in columns)
        m.d.comb += total.eq(first + second)
        totals.append(total)
    return totals


class Levels:
    """Levels of logic, with a register after each ``every``-th and after the last of ``count``."""

    def __init__(self, m: Module, every: int, count: int) -> None:
        self.pipe = Pipe(m)
        self._every = every
        self._left = count
        self._since = 0

    def end(self, **groups: Sequence[Value]) -> list[list[Value]]:
        """End a level; the same groups of values as they come into the next one."""
        self._left -= 1
        self._since += 1
        if self._left and self._since < self._every:
            return [list(values) for values in groups.values()]
        self._since = 0
        flat = {f"{key}{n}": v for key, values in groups.items() for n, v in enumerate(values)}
        registers: list[Value] = list(self.pipe.stage(**flat))
        return [[registers.pop(0) for _ in values] for values in groups.values()]


# One exact counter -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MatchCountSpec:
    """Number of equal bits of two words, both of which change every cycle.

    The operands arrive coded by :meth:`encode` and :func:`encode_value`: bit ``k`` is the parity of
    the bits up to ``k``. The exclusive or of two such words is the parity of the mismatches up to
    every position: the sums of all full adders of the last column. So half as many carries as there
    are lanes cost 1 LUT4 a lane, and counting them another.

    Parameters
    ----------
    lanes
        Bits of a word.
    every
        Levels of full adders from one register to the next.
    """

    lanes: int
    every: int = 3

    def __post_init__(self) -> None:
        check(self.lanes, 1, self.every)

    @property
    def width(self) -> int:
        """Bits of the count but for the last."""
        return self.lanes.bit_length() - 1

    @property
    def reduction(self) -> list[Adders]:
        return reduction([self.lanes // 2], self.width)

    @property
    def levels(self) -> int:
        return 1 + len(self.reduction) + 1

    @property
    def latency(self) -> int:
        """Clock edges from operands at the inputs to their count at the output; at least 1.

        The inputs are not registered, the output is: the operands must come straight from
        registers, the count may go into an adder.
        """
        return -(-self.levels // self.every)

    def reference(self, x: NDArray[np.bool_], w: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Golden result. ``x``, ``w``: bool ``(n, lanes)``, not coded; returns int64 ``(n,)``."""
        return np.count_nonzero(x == w, axis=1).astype(np.int64)

    def encode(self, bits: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Code words ``(..., lanes)``; the same shape is returned."""
        return np.logical_xor.accumulate(bits, axis=-1)

    def build(self) -> "MatchCount":
        return MatchCount(self)


def encode_value(m: Module, bits: Value) -> Signal:
    """Code a word as :meth:`MatchCountSpec.encode` does; no register."""
    coded = Signal(len(bits), name="coded_0")
    m.d.comb += coded.eq(bits)
    reach = 1  # Bit k is the parity of this many bits up to k.
    while reach < len(bits):
        further = Signal(len(bits), name=f"coded_{reach.bit_length()}")
        m.d.comb += further.eq(coded ^ (coded << reach)[: len(bits)])
        coded, reach = further, 2 * reach
    return coded


class MatchCount(wiring.Component):
    """Circuit of :class:`MatchCountSpec`: a count every cycle, ``spec.latency`` edges later.

    Members
    -------
    x, w : ``In(lanes)``
        Coded words, element 0 in bit 0.
    o : ``Out(range(lanes + 1))``
        The count.
    """

    x: Signal
    w: Signal
    o: Signal

    def __init__(self, spec: MatchCountSpec) -> None:
        self.spec = spec
        super().__init__({
            "x": In(spec.lanes),
            "w": In(spec.lanes),
            "o": Out(range(spec.lanes + 1)),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        spec = self.spec
        levels = Levels(m, spec.every, spec.levels)

        last, carries = self._carries(m)
        (last,), columns = levels.end(last=[last], column=[carries] if len(carries) else [])
        for n, adders in enumerate(spec.reduction, 1):
            columns = add_level(m, columns, adders, spec.width, name=f"level{n}_")
            (last,), columns = levels.end(last=[last], column=columns)
        (total,) = levels.end(total=[Cat(last, *add_rows(m, columns, spec.width))])

        m.d.comb += self.o.eq(total[0])
        assert levels.pipe.depth == spec.latency
        return m

    def _carries(self, m: Module) -> tuple[Value, Signal]:
        """Add all lanes without carrying: the last bit of the count, and the carries of weight 2.

        A full adder takes the parity of the matches so far and two lanes more.
        """
        spec = self.spec
        # Of k + 1 lanes, an odd number matches if k + 1 and the mismatches differ in parity.
        all_match = Const(sum((k + 1) % 2 << k for k in range(spec.lanes)), spec.lanes)
        matches = Signal(spec.lanes, name="matches_parity")
        m.d.comb += matches.eq(self.x ^ self.w ^ all_match)

        so_far = matches if spec.lanes % 2 else Cat(Const(0, 1), matches)
        before, between, after = so_far[:-1:2], so_far[1::2], so_far[2::2]
        carries = Signal(spec.lanes // 2)
        m.d.comb += carries.eq((between & ~after) | (~between & before))
        return so_far[-1], carries


# Counters that share an operand ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MatchBankSpec:
    """Equal bits of one word ``x`` with each of ``pe`` words, plus what depends on those alone.

    Two lanes at a time. With ``X`` and ``W`` the parities of two bits of ``x`` and two of ``w``,

        matches = X - W + 2 t,    t = (X < W) or (X == W and x0 == w0),

    and ``t`` is one LUT4, half a LUT4 a lane. The sum of all ``X`` is counted once for all ``pe``
    words; the sum of all ``W``, :meth:`excess`, is known beforehand and left in the result: who
    accumulates starts that much lower.

    Parameters
    ----------
    lanes
        Bits of a word.
    pe
        Words compared with ``x``.
    every
        Levels of full adders from one register to the next.
    """

    lanes: int
    pe: int
    every: int = 3

    def __post_init__(self) -> None:
        check(self.lanes, self.pe, self.every)

    @property
    def pairs(self) -> int:
        """Pairs of lanes; lane ``k`` is with lane ``k + pairs``, or with one that is always 0."""
        return (self.lanes + 1) // 2

    @property
    def width(self) -> int:
        """Bits of a result but for the last."""
        return (3 * self.pairs).bit_length() - 1

    @property
    def reduction(self) -> list[Adders]:
        """Of the bits ``t``, and of the bits ``X``."""
        return reduction([self.pairs], self.pairs.bit_length())

    @property
    def merge(self) -> list[Adders]:
        """Of what is left of the bits ``t``, and the sum of ``X`` but for its last bit."""
        heights, width = [self.pairs], self.pairs.bit_length()
        for adders in self.reduction:
            heights = columns_after(heights, adders, width)
        merged = [h + (n < width - 1) for n, h in enumerate(heights)]
        return reduction(merged, self.width)

    @property
    def levels(self) -> int:
        # t, their reduction; the sum of X; both together, and the last carry chain.
        return 1 + len(self.reduction) + 1 + len(self.merge) + 1

    @property
    def latency(self) -> int:
        """Clock edges from operands at the inputs to their results at the output; at least 1.

        The inputs are not registered, the output is.
        """
        return -(-self.levels // self.every)

    def excess(self, w: NDArray[np.bool_]) -> NDArray[np.int64]:
        """By how much results exceed matches. ``w``: bool ``(..., lanes)``; returns ``(...)``."""
        padded = np.zeros((*w.shape[:-1], 2 * self.pairs), bool)
        padded[..., : self.lanes] = w
        differ = padded[..., : self.pairs] ^ padded[..., self.pairs :]
        return np.count_nonzero(differ, axis=-1) + np.int64(self.lanes % 2)

    def reference(self, x: NDArray[np.bool_], w: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Golden result. bool ``(n, lanes)`` and ``(n, pe, lanes)``; returns int64 ``(n, pe)``."""
        return np.count_nonzero(x[:, None] == w, axis=-1) + self.excess(w)

    def encode(self, w: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Words ``(..., pe, lanes)`` as the input wants them: bool ``(..., lanes * pe)``."""
        return w.swapaxes(-1, -2).reshape(*w.shape[:-2], -1)

    def build(self) -> "MatchBank":
        return MatchBank(self)


class MatchBank(wiring.Component):
    """Circuit of :class:`MatchBankSpec`: ``pe`` results every cycle, ``spec.latency`` edges later.

    Members
    -------
    x : ``In(lanes)``
        The shared word, element 0 in bit 0.
    w : ``In(lanes * pe)``
        Element ``k`` of word ``p`` in bit ``k * pe + p``; see :meth:`MatchBankSpec.encode`.
    o : ``Out(range(3 * pairs + 1)).array(pe)``
        Matches plus :meth:`MatchBankSpec.excess` of each word.
    """

    x: Signal
    w: Signal
    o: tuple[Signal, ...]

    def __init__(self, spec: MatchBankSpec) -> None:
        self.spec = spec
        super().__init__({
            "x": In(spec.lanes),
            "w": In(spec.lanes * spec.pe),
            "o": Out(range(3 * spec.pairs + 1)).array(spec.pe),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        spec = self.spec
        levels = Levels(m, spec.every, spec.levels)
        width = spec.pairs.bit_length()

        t, x_odd = self._pairs(m)
        columns, shared = levels.end(column=[t], shared=[x_odd])
        for n, adders in enumerate(spec.reduction, 1):
            columns = add_level(m, columns, adders, width, spec.pe, name=f"level{n}_")
            shared = add_level(m, shared, adders, width, name=f"shared{n}_")
            columns, shared = levels.end(column=columns, shared=shared)
        columns, (x_sum,) = levels.end(
            column=columns, shared=add_rows(m, shared, width, name="shared_")
        )

        # t weighs 2, so that the last bit of the sum of X is the last bit of every result.
        last, *more = x_sum
        columns = [
            Cat(column, more[n].replicate(spec.pe)) if n < len(more) else column
            for n, column in enumerate(columns)
        ]
        for n, adders in enumerate(spec.merge, 1):
            columns = add_level(m, columns, adders, spec.width, spec.pe, name=f"merge{n}_")
            columns, (last,) = levels.end(column=columns, last=[last])
        totals = add_rows(m, columns, spec.width, spec.pe)
        totals, (last,) = levels.end(total=totals, last=[last])

        m.d.comb += [self.o[n].eq(Cat(last, total)) for n, total in enumerate(totals)]
        assert levels.pipe.depth == spec.latency
        return m

    def _pairs(self, m: Module) -> tuple[Signal, Signal]:
        """``t`` of every pair and word, and ``X`` of every pair."""
        spec = self.spec
        x_first, x_second = self.x[: spec.pairs], self.x[spec.pairs :]
        x_odd = Signal(spec.pairs)
        m.d.comb += x_odd.eq(x_first ^ x_second)

        split = spec.pairs * spec.pe
        w_first, w_second = self.w[:split], self.w[split:]
        x0, x1, w_odd, t = (Signal(split, name=name) for name in ("x0", "x1", "w_odd", "t"))
        m.d.comb += [
            x0.eq(Cat(bit.replicate(spec.pe) for bit in x_first)),
            x1.eq(Cat(bit.replicate(spec.pe) for bit in x_odd)),
            w_odd.eq(w_first ^ w_second),
            t.eq((w_odd & ~x1) | (~(w_odd ^ x1) & ~(x0 ^ w_first))),
        ]
        return t, x_odd


def check(lanes: int, pe: int, every: int) -> None:
    for name, value in (("lanes", lanes), ("pe", pe), ("every", every)):
        if value < 1:
            raise ConfigError(f"{name} must be at least 1, not {value}")

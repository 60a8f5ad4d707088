"""Sums of shifted terms in pipelined trees of adders."""

from collections.abc import Iterable
from dataclasses import dataclass

from amaranth.hdl import Cat, Const, Value

from brambling.hw.popcount import Levels

__all__ = ["Term", "add_terms", "tree_levels"]


@dataclass(frozen=True, slots=True)
class Term:
    """A summand: ``value * 2**shift``, subtracted where ``negative``."""

    value: Value
    shift: int = 0
    negative: bool = False

    def __add__(self, other: "Term") -> "Term":
        low, high = sorted((self, other), key=lambda term: term.shift)
        gap = high.shift - low.shift
        if low.negative and not high.negative:
            return Term(high.value.shift_left(gap) - low.value, low.shift)
        # The bits below the gap need no adder.
        value = extended(low.value, gap + 1)
        rest = value.shift_right(gap)
        total = rest - high.value if low.negative != high.negative else rest + high.value
        joined = Cat(value[:gap], total) if gap else total
        joined = joined.as_signed() if total.shape().signed else joined
        return Term(joined, low.shift, low.negative)


def extended(value: Value, width: int) -> Value:
    """``value`` in at least ``width`` bits."""
    more = width - len(value)
    if more <= 0:
        return value
    signed = value.shape().signed
    wide = Cat(value, (value[-1] if signed else Const(0, 1)).replicate(more))
    return wide.as_signed() if signed else wide


def tree_levels(terms: int) -> int:
    """Adders from one of ``terms`` summands to the sum."""
    return (terms - 1).bit_length()


def add_terms(levels: Levels, sums: Iterable[list[Term]]) -> list[Term]:
    """Add the terms of several sums, pair by pair; what is next to each other is added first."""
    trees = list(sums)
    while max(map(len, trees)) > 1:
        trees = [[_pair(terms[n : n + 2]) for n in range(0, len(terms), 2)] for terms in trees]
        values = levels.end(**{
            f"sum{n}_": [term.value for term in terms] for n, terms in enumerate(trees)
        })
        trees = [
            [Term(value, term.shift, term.negative) for value, term in zip(row, terms, strict=True)]
            for row, terms in zip(values, trees, strict=True)
        ]
    return [terms[0] for terms in trees]


def _pair(terms: list[Term]) -> Term:
    return terms[0] if len(terms) == 1 else terms[0] + terms[1]

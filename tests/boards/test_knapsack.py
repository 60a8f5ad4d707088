"""The knapsack: the cheapest of all choices, found by trying them all."""

from dataclasses import astuple
from itertools import product

import numpy as np
import pytest

from brambling.boards.knapsack import Knapsack
from brambling.boards.memories import Needs

PRICES = (1.0, 0.01, 0.4, 0.2)


def families_of(seed):
    """Two or three families of one or two members, in one to three variants."""
    rng = np.random.default_rng(seed)

    def items():
        shape = int(rng.integers(1, 4))
        return np.stack([rng.integers(0, n, shape) for n in (6, 300, 4, 3)], axis=1)

    return [
        [[items() for _ in range(members)] for _ in range(int(rng.integers(1, 4)))]
        for members in rng.integers(1, 3, rng.integers(2, 4))
    ]


def every_choice(families):
    """Needs of every choice, ``(n, 4)``."""
    rows = [
        [np.sum(rows, axis=0) for variant in family for rows in product(*variant)]
        for family in families
    ]
    return np.array([np.sum(rows, axis=0) for rows in product(*rows)])


def needs_of(families, chosen):
    rows = [
        items[way]
        for family, (variant, ways) in zip(families, chosen, strict=True)
        for items, way in zip(family[variant], ways, strict=True)
    ]
    return np.sum(rows, axis=0)


@pytest.mark.parametrize("seed", range(60))
def test_finds_the_cheapest_that_fits(seed):
    families, rng = families_of(seed), np.random.default_rng(seed)
    most = Needs(*(int(rng.integers(1, n)) for n in (14, 700, 8, 7)))
    knapsack = Knapsack(most)
    rows = every_choice(families)
    fitting = rows[(rows <= astuple(most)).all(axis=1)]
    chosen = knapsack.best(families, PRICES)
    assert knapsack.fits(families) == bool(len(fitting))
    if not len(fitting):
        assert chosen is None
        return
    found = needs_of(families, chosen)
    assert (found <= astuple(most)).all()
    assert found @ PRICES == pytest.approx((fitting @ PRICES).min())


def test_the_cases_are_of_both_kinds():
    found = set()
    for seed in range(60):
        rng = np.random.default_rng(seed)
        most = Needs(*(int(rng.integers(1, n)) for n in (14, 700, 8, 7)))
        found.add(Knapsack(most).fits(families_of(seed)))
    assert found == {True, False}


def test_nothing_fits_in_less_than_nothing():
    items = np.zeros((1, 4), np.int64)
    assert Knapsack(Needs()).fits([[[items]]])
    assert not Knapsack(Needs(-1, 5, 5)).fits([[[items]]])
    assert Knapsack(Needs(5, -1, 5)).best([[[items]]], PRICES) is None


def test_a_variant_without_a_way_is_none():
    some, none = np.ones((1, 4), np.int64), np.ones((0, 4), np.int64)
    most = Needs(3, 3, 3, 3)
    assert not Knapsack(most).fits([[[some, none]]])
    assert Knapsack(most).best([[[some, none], [some]]], PRICES) == [(1, [0])]

"""Banks of multipliers: sums of products of one vector with several rows of weights."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from amaranth.hdl import Cat, Const, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from numpy.typing import NDArray

from brambling.errors import ConfigError
from brambling.hw.popcount import Levels, MatchBankSpec
from brambling.hw.terms import Term, add_terms, tree_levels
from brambling.quant.formats import Bipolar, Fixed, Format, Ternary

__all__ = ["STYLES", "ProductBank", "ProductBankSpec"]

STYLES = ("dsp", "lut", "planes")
MULTIPLIER = 18  #: Bits of a factor in the narrowest multiplier of the supported parts, signed.
TABLE = 4  #: Bits of both factors up to which a product is one LUT for each of its bits.


# Bits as +1 and -1 -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Digits:
    """A format as ``(sum(weights[d] * b[d]) + constant) / divisor``, where each ``b`` is ±1."""

    weights: tuple[int, ...]
    constant: int
    divisor: int

    @classmethod
    def of(cls, fmt: Format) -> "Digits":
        """Return the digits that the bits of ``fmt`` are: 1 is +1 and 0 is -1."""
        if fmt == Bipolar():
            return cls((1,), 0, 1)
        weights = [1 << n for n in range(fmt.width)]
        if fmt.signed:
            weights[-1] *= -1
        return cls(tuple(weights), sum(weights), 2)

    @classmethod
    def of_weights(cls, fmt: Format) -> "Digits":
        """As :meth:`of`, but ternary weights are the halves of two ±1: see :func:`digit_bits`."""
        return cls((1, 1), 0, 2) if fmt == Ternary() else cls.of(fmt)


def digit_bits(fmt: Format, codes: NDArray) -> NDArray[np.bool_]:
    """Digits of weights, ``(digits, *codes.shape)``; those of :meth:`Digits.of_weights`."""
    if fmt == Ternary():
        return np.stack([codes >= 0, codes > 0])
    bits = fmt.to_bits(codes)
    return np.stack([(bits >> np.uint64(n)) & np.uint64(1) != 0 for n in range(fmt.width)])


# The bank ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ProductBankSpec:
    """Sums of ``simd`` products for each of ``pe`` rows of weights, up to what is known of those.

    Row ``p`` has the result ``o`` and the sum of products ``s`` with

        ``gain * o = 2 * s + excess(w)``

    where the excess depends on the weights alone: who accumulates starts that much lower, and no
    style has to correct what it can know beforehand.

    Parameters
    ----------
    x, w
        Formats of the inputs and of the weights.
    simd, pe
        Products in a sum, and sums.
    style
        ``"dsp"``: multipliers of the part, each for as many rows as fit into 18 signed bits side by
        side. ``"lut"``: the narrower factor, bit by bit, gates the other; bipolar and ternary
        weights negate. ``"planes"``: matches of each bit of the inputs with each bit of the
        weights, each bit standing for +1 or -1; with both bipolar, this is XNOR and popcount.
    every
        Levels of adders from one register to the next. With 1, each is a carry chain with a
        register, at no more than a LUT a bit; of several, Yosys makes carry-save adders, at two.
    """

    x: Format
    w: Format
    simd: int
    pe: int
    style: str
    every: int = 1

    def __post_init__(self) -> None:
        if self.style not in STYLES:
            raise ConfigError(f"style must be one of {', '.join(STYLES)}, not {self.style!r}")
        for name in ("simd", "pe", "every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name, fmt in (("x", self.x), ("w", self.w)):
            if fmt.width > 16:
                raise ConfigError(f"{name} must have at most 16 bits, not {fmt}: requantise before")

    # What is computed ----------------------------------------------------------------------------

    def reference(self, x: NDArray, w: NDArray) -> NDArray[np.int64]:
        """Golden sums: codes ``(n, simd)`` and ``(n, pe, simd)`` to int64 ``(n, pe)``."""
        return np.einsum("nk,npk->np", x.astype(np.int64), w.astype(np.int64))

    @property
    def gain(self) -> int:
        """Twice the sum of products that 1 in a result stands for: 1, 2 or 4."""
        if self.style != "planes":
            return 2
        return 4 // (self.x_digits.divisor * self.w_digits.divisor)

    def excess(self, w: NDArray) -> NDArray[np.int64]:
        """By how much ``gain * o`` exceeds twice the sum. Codes ``(..., simd)`` to ``(...)``."""
        w = w.astype(np.int64)
        if self.style == "planes":
            # The results, and the products, of inputs whose bits are all 0.
            bits, match = digit_bits(self.w, w), self.match
            zeros = self.simd - np.count_nonzero(bits, axis=-1) + match.excess(bits)
            planes = np.tensordot(np.array(self.w_digits.weights), zeros, 1)
            none = int(self.x.from_bits(0))
            return self.gain * sum(self.x_digits.weights) * planes - 2 * none * w.sum(axis=-1)
        if self.style == "lut" and self.inverts:
            return -2 * np.count_nonzero(w < 0, axis=-1).astype(np.int64)
        if self.style == "lut" and self.x == Bipolar():
            return 2 * w.sum(axis=-1)
        return np.zeros(w.shape[:-1], np.int64)

    @property
    def bounds(self) -> tuple[int, int]:
        """Range that holds every result."""
        if self.style == "planes":
            highest = 3 * self.match.pairs
            ones = self.simd * np.array([self.x.width != 1, 1]) * max(self.x.max, -self.x.min)
            span = highest * sum(abs(c) for c in self._planes.values())
            span += abs(self.w_digits.constant) * int(ones.max())
            return -span, span
        factors = [x * w for x in (self.x.min, self.x.max) for w in (self.w.min, self.w.max)]
        scale = self.simd if self.style == "dsp" else 2 * self.simd  # Inverted, or doubled.
        low, high = scale * min(0, *factors), scale * max(factors)
        return (min(low, -high), high) if self.style == "lut" else (low, high)

    # Weights -------------------------------------------------------------------------------------

    @property
    def width(self) -> int:
        """Bits of the weights of all rows."""
        return self.pe * self.simd * self.w.width

    def encode(self, w: NDArray) -> NDArray[np.bool_]:
        """Codes ``(..., pe, simd)`` to what the input wants, bool ``(..., width)``.

        Row by row, element by element, each as its bits; in style ``"planes"``, digit by digit
        those of :meth:`MatchBankSpec.encode`.
        """
        if self.style == "planes":
            planes = [self.match.encode(plane) for plane in digit_bits(self.w, w)]
            return np.concatenate(planes, axis=-1)
        bits = np.stack([*self._bits(w)], axis=-1)
        return bits.reshape(*w.shape[:-2], -1)

    def _bits(self, w: NDArray) -> Iterable[NDArray[np.bool_]]:
        words = self.w.to_bits(w)
        for n in range(self.w.width):
            yield (words >> np.uint64(n)) & np.uint64(1) != 0

    # Structure -----------------------------------------------------------------------------------

    @property
    def inverts(self) -> bool:
        """Whether weights turn inputs into their complements, short of the negative by 1."""
        return self.w == Bipolar() or (self.w == Ternary() and self.x != Bipolar())

    @property
    def product(self) -> Fixed:
        """Format of one product, less 1 where what is below it in a multiplier is negative."""
        factors = [x * w for x in (self.x.min, self.x.max) for w in (self.w.min, self.w.max)]
        low = min(factors)
        return Fixed.spanning(low - (low < 0), max(factors))

    @property
    def shared(self) -> int:
        """Rows that share a multiplier."""
        return max(1, min(self.pe, (MULTIPLIER - self.top) // self.product.width + 1))

    @property
    def top(self) -> int:
        """Bits of the uppermost of several weights, signed; less 1, as in :attr:`product`."""
        return Fixed.spanning(min(self.w.min, 0) - 1, self.w.max).width

    @property
    def multipliers(self) -> int:
        """Multipliers of the part that the bank takes."""
        return -(-self.pe // self.shared) * self.simd if self.style == "dsp" else 0

    @property
    def match(self) -> MatchBankSpec:
        """The match counters of one digit of the inputs with one of the weights."""
        return MatchBankSpec(self.simd, self.pe)

    @property
    def x_digits(self) -> Digits:
        return Digits.of(self.x)

    @property
    def w_digits(self) -> Digits:
        return Digits.of_weights(self.w)

    @property
    def _planes(self) -> dict[tuple[int, int], int]:
        """What the matches of each digit of the inputs and of the weights count, smallest first."""
        found = {
            (i, j): a * b
            for i, a in enumerate(self.x_digits.weights)
            for j, b in enumerate(self.w_digits.weights)
        }
        return dict(sorted(found.items(), key=lambda item: abs(item[1])))

    @property
    def planes(self) -> list[tuple[int, int, int, bool]]:
        """Digit of the inputs, digit of the weights, shift of their matches, whether negative."""
        return [(i, j, abs(c).bit_length() - 1, c < 0) for (i, j), c in self._planes.items()]

    @property
    def corrections(self) -> list[tuple[int, bool]]:
        """Shift and sign with which the sum of all inputs is added to every row's matches."""
        constant = self.w_digits.constant
        if constant <= 0:
            return [(0, True)] if constant else []
        return [(0, True), (self.w.width, False)]

    @property
    def gated(self) -> int:
        """Terms of one product in style ``"lut"``."""
        if self.inverts or self.x == Bipolar() or self.x.width + self.w.width <= TABLE:
            return 1
        return min(self.x.width, self.w.width)

    @property
    def levels(self) -> int:
        """Levels of the adders; of those behind the match counters where there are any."""
        match self.style:
            case "dsp":
                borrows = self.shared > 1 and self.product.signed
                return tree_levels(self.simd * (1 + borrows))
            case "lut":
                return max(1, tree_levels(self.simd * self.gated))
            case _:
                return tree_levels(len(self.planes) + len(self.corrections))

    @property
    def sum_latency(self) -> int:
        """Clock edges from the inputs to the sum of all of them."""
        return -(-max(1, tree_levels(self.simd)) // self.every)

    @property
    def latency(self) -> int:
        """Clock edges from operands at the inputs to their results at the output; at least 1.

        The inputs are not registered, the output is.
        """
        before = 0
        if self.style == "dsp":  # Packed weights, and products.
            before = 1 + (self.shared > 1)
        elif self.style == "planes":
            before = self.match.latency
            if self.corrections:
                before = max(before, self.sum_latency)
        return before + -(-self.levels // self.every)

    def build(self) -> "ProductBank":
        return ProductBank(self)


class ProductBank(wiring.Component):
    """Circuit of :class:`ProductBankSpec`: ``pe`` results every cycle, ``spec.latency`` later.

    Members
    -------
    x : ``In(simd * x.width)``
        Codes, element 0 lowest.
    w : ``In(spec.width)``
        Weights; see :meth:`ProductBankSpec.encode`.
    o : ``Out(range(low, high + 1)).array(pe)``
        Results.
    """

    x: Signal
    w: Signal
    o: tuple[Signal, ...]

    def __init__(self, spec: ProductBankSpec) -> None:
        self.spec = spec
        low, high = spec.bounds
        super().__init__({
            "x": In(spec.simd * spec.x.width),
            "w": In(spec.width),
            "o": Out(range(low, high + 1)).array(spec.pe),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        spec = self.spec
        match spec.style:
            case "dsp":
                edges, sums = self._multiply(m)
            case "lut":
                edges, sums = 0, self._gate()
            case _:
                edges, sums = self._match(m)
        levels = Levels(m, spec.every, spec.levels)
        totals = add_terms(levels, sums)
        if not levels.pipe.depth and not edges:
            (values,) = levels.end(total=[total.value for total in totals])
            totals = [Term(v, t.shift, t.negative) for v, t in zip(values, totals, strict=True)]
        for result, total in zip(self.o, totals, strict=True):
            assert not total.negative
            m.d.comb += result.eq(total.value.shift_left(total.shift))
        assert edges + levels.pipe.depth == spec.latency
        return m

    # Operands ------------------------------------------------------------------------------------

    @property
    def _inputs(self) -> list[Value]:
        """The inputs as numbers."""
        width = self.spec.x.width
        return [
            number(self.x[n * width : (n + 1) * width], self.spec.x) for n in range(self.spec.simd)
        ]

    def _weight(self, p: int, n: int) -> Value:
        """Bits of one weight; not in style ``"planes"``."""
        width = self.spec.w.width
        start = (p * self.spec.simd + n) * width
        return self.w[start : start + width]

    # Styles: edges spent, and the terms of each row ----------------------------------------------

    def _multiply(self, m: Module) -> tuple[int, list[list[Term]]]:
        """Multiply each input by the weights of several rows at once, side by side in one factor.

        A row's product then lies between those of its neighbours, and is 1 too small where what
        lies below it is negative: that is its neighbour's sign bit.
        """
        spec = self.spec
        fmt, step = spec.product, spec.product.width
        packs = [range(n, min(n + spec.shared, spec.pe)) for n in range(0, spec.pe, spec.shared)]
        inputs, factors = (
            self._inputs,
            [self._factor(pack, n) for pack in packs for n in range(spec.simd)],
        )
        levels = Levels(m, 1, 1 + (spec.shared > 1))
        if spec.shared > 1:
            inputs, factors = levels.end(x=inputs, factor=factors)
        (products,) = levels.end(
            product=[inputs[n % spec.simd] * factor for n, factor in enumerate(factors)]
        )
        sums = []
        for k, pack in enumerate(packs):
            row = products[k * spec.simd : (k + 1) * spec.simd]
            for place in range(len(pack)):
                fields = [wide.shift_right(place * step)[:step] for wide in row]
                terms = [Term(f.as_signed() if fmt.signed else f) for f in fields]
                if place and fmt.signed:
                    terms += [Term(wide[place * step - 1]) for wide in row]
                sums.append(terms)
        return levels.pipe.depth, sums

    def _factor(self, pack: range, n: int) -> Value:
        """Weights of element ``n`` of several rows, a product's width apart."""
        spec = self.spec
        terms = [
            Term(number(self._weight(p, n), spec.w), k * spec.product.width)
            for k, p in enumerate(pack)
        ]
        total = terms.pop()
        while terms:  # The lower bits of each sum are those of its lower term.
            total = terms.pop() + total
        width = (len(pack) - 1) * spec.product.width + spec.top
        return total.value[:width].as_signed() if spec.w.signed else total.value

    def _gate(self) -> list[list[Term]]:
        sums = []
        for p in range(self.spec.pe):
            terms = [
                term
                for n, x in enumerate(self._inputs)
                for term in self._product(x, self._weight(p, n), n)
            ]
            sums.append(sorted(terms, key=lambda term: term.shift))
        return sums

    def _product(self, x: Value, w: Value, n: int) -> list[Term]:
        """Terms of one product in style ``"lut"``."""
        spec = self.spec
        wide = x if x.shape().signed else Cat(x, Const(0, 1)).as_signed()
        if spec.w == Bipolar():
            return [Term(inverted(wide, ~w))]
        if spec.x == Bipolar():
            return [Term(gated(number(w, spec.w), self.x[n]), 1)]
        if spec.w == Ternary():
            return [Term(inverted(gated(wide, w[0]), w[1]))]
        if spec.x.width + spec.w.width <= TABLE:
            return [Term(table(x, spec.x, w, spec.w, spec.product))]
        value, gates, fmt = number(w, spec.w), x, spec.x
        if spec.w.width < spec.x.width:
            value, gates, fmt = x, w, spec.w
        top = fmt.width - 1
        return [Term(gated(value, gates[k]), k, fmt.signed and k == top) for k in range(fmt.width)]

    def _match(self, m: Module) -> tuple[int, list[list[Term]]]:
        spec = self.spec
        edges = spec.latency - -(-spec.levels // spec.every)
        width = spec.match.lanes * spec.pe
        found: list[list[Term]] = [[] for _ in range(spec.pe)]
        for i, j, shift, negative in spec.planes:
            m.submodules[f"match{i}_{j}"] = bank = spec.match.build()
            m.d.comb += [
                bank.x.eq(Cat(self.x[n * spec.x.width + i] for n in range(spec.simd))),
                bank.w.eq(self.w[j * width : (j + 1) * width]),
            ]
            for row, value in zip(found, bank.o, strict=True):
                row.append(Term(late(m, value, edges - spec.match.latency), shift, negative))
        if spec.corrections:
            total = self._sum(m, edges)
            for row in found:
                row += [Term(total, shift, negative) for shift, negative in spec.corrections]
        return edges, [sorted(row, key=lambda term: term.shift) for row in found]

    def _sum(self, m: Module, edges: int) -> Value:
        """Sum of all inputs; of bipolar ones, how many are 1."""
        spec = self.spec
        inputs = list(self.x) if spec.x == Bipolar() else self._inputs
        levels = Levels(m, spec.every, max(1, tree_levels(spec.simd)))
        (total,) = add_terms(levels, [[Term(x) for x in inputs]])
        value = total.value
        if spec.simd == 1:
            ((value,),) = levels.end(total=[value])
        return late(m, value, edges - levels.pipe.depth)


def number(bits: Value, fmt: Format) -> Value:
    """Bits as the code they spell."""
    if fmt == Bipolar():
        return Cat(Const(1, 1), ~bits).as_signed()
    return bits.as_signed() if fmt.signed else bits


def gated(value: Value, gate: Value) -> Value:
    """``value`` where ``gate``, else 0."""
    bits = value.as_unsigned() & gate.replicate(len(value))
    return bits.as_signed() if value.shape().signed else bits


def inverted(value: Value, invert: Value) -> Value:
    """Complement of a signed ``value`` where ``invert``: its negative, less 1."""
    return (value.as_unsigned() ^ invert.replicate(len(value))).as_signed()


def table(x: Value, x_fmt: Format, w: Value, w_fmt: Format, fmt: Fixed) -> Value:
    """Look up the product of two narrow codes, bit by bit."""
    words = np.arange(1 << x_fmt.width + w_fmt.width)
    products = x_fmt.from_bits(words & ((1 << x_fmt.width) - 1)) * w_fmt.from_bits(
        words >> x_fmt.width
    )
    bits = fmt.to_bits(products)
    at = Cat(x.as_unsigned(), w.as_unsigned())
    columns = [
        Const(sum(int(b >> np.uint64(n) & np.uint64(1)) << k for k, b in enumerate(bits)),
              len(bits)).bit_select(at, 1)
        for n in range(fmt.width)
    ]  # fmt: skip
    return Cat(*columns).as_signed() if fmt.signed else Cat(*columns)


def late(m: Module, value: Value, edges: int) -> Value:
    """Add ``edges`` registers behind ``value``."""
    for _ in range(edges):
        register = Signal.like(value, name="late")
        m.d.sync += register.eq(value)
        value = register
    return value

"""Feed with line buffers: the pixels under a window that slides over an image."""

from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import memory
from numpy.typing import NDArray

from brambling.errors import ConfigError
from brambling.hw.beat import Beats
from brambling.hw.counter import below
from brambling.hw.feed import Feed, check_chunks
from brambling.hw.lines import Axis, Flow
from brambling.hw.odometer import Odometer, table
from brambling.hw.pipe import Pipe
from brambling.layers.image import Window

__all__ = ["WindowFeed", "WindowFeedSpec"]

#: What a store of the lines is called in hardware.
STYLES = {"block": "block", "lut": "distributed"}

Pattern = tuple[tuple[int, int], ...]


@dataclass(frozen=True, kw_only=True)
class WindowFeedSpec:
    """The pixels under the windows of an image, ``pixels`` neighbouring windows a slot.

    Taps come row by row, in it column by column, in it by groups of ``simd`` channels of the chunk.
    The image is kept in a ring of lines, each spread over banks of memory: column ``c`` is in bank
    ``c % banks``, so that the columns of a slot are in different ones. A group of positions begins
    when the last pixel that it sees is there; the lines that no later one sees are free for what
    follows, of this frame or the next.

    Where the channels are ``split``, rows of positions come in *bands*: a band are the rows that
    one line of the image makes, and the line is read once for each.

    Parameters
    ----------
    source
        The image; its lanes are ``simd``.
    window
        What slides.
    pixels
        Neighbouring positions of a slot.
    chunks, folds
        See :mod:`brambling.hw.feed`.
    pad_value
        Code of the padding.
    factor
        Down and across, position ``n`` is what would be position ``n // factor``: upsampling. The
        window must then be a point.
    split
        Each of the ``factor`` positions of a pixel, row by row, sees a part of its channels, in
        order, and not all of them: depth to space.
    store
        Memory of the lines: ``"block"`` or ``"lut"``.
    ring
        Lines kept; ``None`` is the fewest that keep the full rate: :meth:`Flow.lines`, mostly
        what a window spans, what it moves by, and no more than one besides.
    """

    source: Beats
    window: Window
    pixels: int = 1
    chunks: int = 1
    folds: int = 1
    pad_value: int = 0
    factor: tuple[int, int] = (1, 1)
    split: bool = False
    store: str = "block"
    ring: int | None = None

    lag = 5
    RELEASE = 4  #: Edges from the last slot of a row of positions to its lines being free.

    def __post_init__(self) -> None:
        if min(self.factor) < 1 or (self.factor != (1, 1) and not self.window.point):
            raise ConfigError(
                "factor must be 2 numbers of at least 1, and (1, 1) unless the window is a point, "
                f"not {self.factor}"
            )
        if self.split and self.source.elements % (prod(self.factor) * self.source.lanes):
            raise ConfigError(
                f"lanes must divide each of {prod(self.factor)} equal parts of the "
                f"{self.source.elements} channels, not be {self.source.lanes}"
            )
        check_chunks(self.stored, self.chunks, self.folds)
        if min(self.rows, self.columns) < 1:
            raise ConfigError(
                f"window must fit the padded image of {self.source.rows} by "
                f"{self.source.columns}, but spans {self.window.span}: pad more"
            )
        if not 1 <= self.pixels <= self.columns:
            raise ConfigError(f"pixels must be 1 to {self.columns}, not {self.pixels}")
        if any(self.window.padding) and not self.source.fmt.holds(np.array([self.pad_value])):
            raise ConfigError(
                f"pad_value must be a code of {self.source.fmt}, not {self.pad_value}"
            )
        if self.store not in STYLES:
            raise ConfigError(f"store must be {' or '.join(STYLES)}, not {self.store!r}")
        if self.ring is not None and self.ring < self.down.least:
            raise ConfigError(f"ring must be at least {self.down.least} lines, not {self.ring}")

    @property
    def i(self) -> Beats:
        return self.source

    @property
    def simd(self) -> int:
        return self.source.lanes

    @property
    def rows(self) -> int:
        return self.window.extent(self.source.rows, self.source.columns)[0] * self.factor[0]

    @property
    def columns(self) -> int:
        return self.window.extent(self.source.rows, self.source.columns)[1] * self.factor[1]

    @cached_property
    def stored(self) -> Beats:
        """The image as it is kept: where it is split, each part of a pixel is a column."""
        i = self.source
        if not self.split:
            return i
        parts = prod(self.factor)
        columns = i.steps * i.pixels * parts
        return Beats(i.fmt, i.elements // parts, i.lanes, i.rows, columns, i.pixels)

    @property
    def elements(self) -> int:
        return self.stored.elements

    @property
    def passes(self) -> int:
        """Rows of positions in a band."""
        return self.factor[0] if self.split else 1

    @property
    def bands(self) -> int:
        """Bands of a frame: lines become free when one ends."""
        return self.rows // self.passes

    @property
    def steps(self) -> int:
        """Groups of positions in a band."""
        return self.passes * -(-self.columns // self.pixels)

    @cached_property
    def places(self) -> NDArray[np.int64]:
        """Row and column of each place of a band, ``(2, steps * pixels)``, idle ones included."""
        columns = self.steps // self.passes * self.pixels
        return np.indices((self.passes, columns)).reshape(2, -1)

    @property
    def idle(self) -> NDArray[np.bool_]:
        """Whether a place lies past the last column."""
        return self.places[1] >= self.columns

    @property
    def groups(self) -> int:
        """Groups of ``simd`` channels in a chunk."""
        return self.stored.groups // self.chunks

    @property
    def beats(self) -> int:
        """Slots of a run."""
        return self.window.kernel[0] * self.window.kernel[1] * self.groups

    @property
    def slots(self) -> int:
        """Slots of a group of positions."""
        return self.chunks * self.folds * self.beats

    @property
    def interval(self) -> int:
        """Cycles from one frame to the next when nothing stalls."""
        return max(self.bands * self.steps * self.slots, self.source.count)

    # What is needed, and what is free ------------------------------------------------------------

    def _axis(self, n: int, positions: NDArray[np.int64], size: int) -> Axis:
        window = self.window
        at = positions[:, None] * window.stride[n] // self.factor[n]
        taps = at + np.arange(window.kernel[n]) * window.dilation[n] - window.padding[2 * n]
        return Axis(taps, size)

    @cached_property
    def down(self) -> Axis:
        """Rows of the image, by band."""
        return self._axis(0, np.arange(0, self.rows, self.passes), self.source.rows)

    @cached_property
    def across(self) -> Axis:
        """Columns of the image as it is stored, by place of a band."""
        row, column = self.places
        seen = self._axis(1, column, self.source.columns)
        if not self.split:
            return seen
        # A beat brings one part of some neighbours: parts are apart, what they are parts of is not.
        step, place = np.divmod(seen.taps, self.source.pixels)
        part = row * self.factor[1] + column % self.factor[1]
        apart = (step * prod(self.factor) + part[:, None]) * self.source.pixels
        return Axis(apart + place, self.stored.columns)

    @cached_property
    def need_step(self) -> NDArray[np.int64]:
        """Step of the input, in its row, that a group of positions waits for, ``(steps,)``."""
        need = np.where(self.idle, 0, self.across.need // self.stored.pixels)
        return need.reshape(self.steps, self.pixels).max(axis=1)

    @cached_property
    def need(self) -> NDArray[np.int64]:
        """Input beat that each group of positions waits for, ``(bands * steps,)``."""
        steps = self.down.need[:, None] * self.stored.steps + self.need_step
        return ((steps + 1) * self.stored.groups - 1).reshape(-1)

    @cached_property
    def lines(self) -> int:
        """Lines of the ring."""
        if self.ring is not None:
            return self.ring
        steps, slots = self.need_step, self.slots
        flow = Flow(self.stored, self.down, need_step=steps, slots=slots, release=self.RELEASE)
        return flow.lines()

    # Where it is ---------------------------------------------------------------------------------

    @cached_property
    def banks(self) -> int:
        """Memories that a line is spread over: the columns of a slot are in different ones."""
        taps = self.across.taps[:, 0].reshape(self.steps, self.pixels)
        spread = int(np.ptp(taps, axis=1).max()) + 1
        return -(-spread // self.source.pixels) * self.source.pixels

    @property
    def words(self) -> int:
        """Words of a line in a bank."""
        return -(-self.stored.columns // self.banks) * self.stored.groups

    def _by_column(self, places: NDArray) -> NDArray:
        """From ``(steps * pixels, kernel)`` to ``(steps * kernel, pixels)``."""
        rows = places.reshape(self.steps, self.pixels, -1)
        return rows.swapaxes(1, 2).reshape(-1, self.pixels)

    @cached_property
    def patterns(self) -> tuple[list[int], list[Pattern]]:
        """For each column of taps of each step the number of its pattern; and the patterns.

        A pattern is, by place, the bank and whether it is the word after the first of the slot.
        """
        taps = self._by_column(self.across.taps)
        words, banks = np.divmod(taps, self.banks)
        words -= words.min(axis=1, keepdims=True)
        found: dict[Pattern, int] = {}
        numbers = [
            found.setdefault(tuple(zip(*row, strict=True)), len(found))
            for row in zip(banks.tolist(), words.tolist(), strict=True)
        ]
        return numbers, list(found)

    def column_words(self) -> dict[str, list[int]]:
        """Contents of the table of columns, by ``step * kernel + tap``.

        The pattern, the first word of the slot in its bank, and bits of the places that are in the
        image, or idle.
        """
        inside = self.across.inside | self.idle[:, None]
        inside = self._by_column(inside) @ (1 << np.arange(self.pixels))
        word = self._by_column(self.across.taps).min(axis=1) // self.banks * self.stored.groups
        word %= 1 << below(self.lines * self.words).width  # Below 0 in the padding: any will do.
        return {"pattern": self.patterns[0], "at": word.tolist(), "inside": inside.tolist()}

    def line_words(self) -> dict[str, list[int]]:
        """Contents of the table of lines, by ``band * kernel + tap``.

        The place in a ring in which the frame begins at 0, and whether it is in the image.
        """
        inside = self.down.inside.reshape(-1)
        place = np.where(inside, self.down.taps.reshape(-1) % self.lines, 0)
        return {"place": place.tolist(), "inside": inside.astype(int).tolist()}

    def row_words(self) -> dict[str, list[int]]:
        """Contents of the table of bands.

        How many lines further on the line is that the band after it waits for, and how many lines
        are free when it ends.
        """
        need = self.down.need
        further = np.diff(np.append(need, need[0] + self.source.rows))
        return {"further": further.tolist(), "freed": np.diff(self.down.base).tolist()}

    @property
    def padded(self) -> bool:
        """Whether some tap is in the padding."""
        whole = (1 << self.pixels) - 1
        return min(self.column_words()["inside"]) != whole or not self.down.inside.all()

    def operands(self, x: NDArray) -> NDArray[np.int64]:
        """See :meth:`brambling.hw.feed.FeedSpec.operands`."""
        i, down, across = self.stored, self.down, self.across
        # (n, bands, kernel rows, places, kernel columns, channels)
        seen = self._kept(x)[:, down.taps.clip(0, i.rows - 1)]
        seen = seen[:, :, :, across.taps.clip(0, i.columns - 1)]
        inside = down.inside[:, :, None, None] & across.inside
        seen = np.where(inside[..., None], seen, self.pad_value)
        spare = i.groups * i.lanes - i.elements
        idle = int(i.fmt.from_bits(0))
        seen = np.pad(seen, [(0, 0)] * 5 + [(0, spare)], constant_values=idle)
        (ky, kx), place = self.window.kernel, (self.steps, self.pixels)
        seen = seen.reshape(-1, self.bands, ky, *place, kx, self.chunks, self.groups, i.lanes)
        seen = seen.transpose(0, 1, 3, 6, 2, 5, 7, 8, 4)
        shape = self.bands * self.steps, self.chunks, self.beats, i.lanes, self.pixels
        return seen.reshape(-1, *shape)

    def _kept(self, x: NDArray) -> NDArray[np.int64]:
        """Codes of frames as they are stored, ``(n, rows, columns, channels)``."""
        i, kept = self.source, self.stored
        image = np.asarray(x, np.int64).reshape(-1, i.rows, i.columns, i.elements)
        if self.split:
            image = np.pad(image, ((0, 0), (0, 0), (0, i.steps * i.pixels - i.columns), (0, 0)))
            image = image.reshape(-1, i.rows, i.steps, i.pixels, prod(self.factor), kept.elements)
            image = image.swapaxes(3, 4)
        return image.reshape(-1, kept.rows, kept.columns, kept.elements)

    def build(self) -> "WindowFeed":
        return WindowFeed(self)


class WindowFeed(Feed):
    """Streaming form of :class:`WindowFeedSpec`.

    An input beat is written as it is taken. A group of positions may begin in the cycle after the
    input beat that it waits for, and a line is free ``RELEASE`` edges after the last slot that
    could see what was there: by then it has been read. Frames are whole, ``first`` is not looked
    at.
    """

    def __init__(self, spec: WindowFeedSpec) -> None:
        self.spec = spec
        super().__init__(spec)

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        spec = self.spec
        ky, kx = spec.window.kernel
        counts = {"group": spec.groups, "kx": kx, "ky": ky, "fold": spec.folds}
        counts |= {"chunk": spec.chunks, "step": spec.steps, "row": spec.bands}
        slot = Odometer(m, self.go, **counts)
        done = slot.turns["chunk"]
        start, frame = Signal(init=1), Signal(init=1)
        fresh = Signal(init=1)  # The slot is the first of a group of positions.
        m.d.comb += [
            self.start.eq(start),
            self.last.eq(slot.ends["group"] & slot.ends["kx"] & slot.ends["ky"]),
            self.frame.eq(frame),
        ]
        with m.If(self.go):
            following = Mux(done, 0, self.word + 1)
            m.d.sync += [start.eq(self.last), fresh.eq(done), self.word.eq(following)]
            with m.If(self.last):
                m.d.sync += frame.eq(slot.turns["row"])

        take = self.i.valid & self.i.ready
        beat = Odometer(
            m, take, w_group=spec.stored.groups, w_step=spec.stored.steps, w_line=spec.lines
        )
        row = slot.upcoming(m, "row", slot.turns["step"])
        rows = table(m, "rows", row, spec.row_words())
        there = self._there(m, slot, beat, rows["further"])
        m.d.comb += [
            self.go.eq((~fresh | there) & (self.room | ~self.last)),
            self.i.ready.eq(self._free(m, slot, beat, rows["freed"])),
        ]
        self._read(m, slot, self._write(m, take, beat))
        return m

    # When ----------------------------------------------------------------------------------------

    def _there(self, m: Module, slot: Odometer, beat: Odometer, further: Value) -> Value:
        """Whether the pixels of the group of positions have been written.

        The row of positions after this one waits for a line that is ``further`` on.
        """
        spec = self.spec
        row_end, row_done = slot.turns["step"], beat.turns["w_step"]
        step = slot.upcoming(m, "step", slot.turns["chunk"])
        need_step = table(m, "steps", step, {"need": spec.need_step.tolist()})["need"]

        # Complete lines, less those before the line that the row of positions waits for.
        least = max(spec.row_words()["further"] + [int(spec.down.need[0])])
        reach = max(least, spec.lines + 1).bit_length()
        ahead = Signal(signed(reach + 1), init=-int(spec.down.need[0]))
        m.d.sync += ahead.eq(ahead + row_done - Mux(row_end, further, 0))
        return (ahead > 0) | ((ahead == 0) & (beat.at["w_step"] > need_step))

    def _free(self, m: Module, slot: Odometer, beat: Odometer, freed: Value) -> Value:
        """Whether the line that is written, or comes next, is free.

        The end of this row of positions makes ``freed`` lines free.
        """
        spec = self.spec
        pipe = Pipe(m)
        (release,) = pipe.stage(release=Mux(slot.turns["step"], freed, 0))
        while pipe.depth < spec.RELEASE - 1:
            (release,) = pipe.stage(release=release)
        # A window that skips lines frees them before they are written.
        free = Signal(range(spec.lines + spec.source.rows + 1), init=spec.lines)
        m.d.sync += free.eq(free + release - beat.turns["w_step"])
        return free != 0

    # Input ---------------------------------------------------------------------------------------

    def _write(self, m: Module, take: Value, beat: Odometer) -> list[memory.Memory]:
        """Make the banks, and write the input into them."""
        spec, i = self.spec, self.spec.stored
        depth, sets = spec.lines * spec.words, spec.banks // i.pixels
        at, line, following = (Signal(below(depth), name=n) for n in ("w_at", "w_line_at", "w_new"))
        word = Signal(below(depth), name="w_word")  # Where this step began.
        turn = Signal(below(sets), name="w_set")  # Which of the sets of banks it is in.
        m.d.comb += following.eq(Mux(beat.ends["w_line"], 0, line + spec.words))
        with m.If(beat.turns["w_step"]):
            m.d.sync += [n.eq(following) for n in (at, line, word)] + [turn.eq(0)]
        with m.Elif(beat.turns["w_group"] & (turn != sets - 1)):
            m.d.sync += [at.eq(word), turn.eq(turn + 1)]
        with m.Elif(take):
            m.d.sync += at.eq(at + 1)
            with m.If(beat.ends["w_group"]):
                m.d.sync += [word.eq(at + 1), turn.eq(0)]

        banks = []
        for n in range(spec.banks):
            cells = memory.Memory(
                shape=spec.simd * i.fmt.width,
                depth=depth,
                init=[],
                # A word is never read while it is written, but for nothing: no need for logic that
                # settles what is read then. Yosys believes it only of reads that it registers.
                attrs={"ram_style": STYLES[spec.store], "no_rw_check": "1"},
            )
            m.submodules[f"bank{n}"] = cells
            port = cells.write_port()
            lanes = [i.lane(self.i.payload.data, k, n % i.pixels) for k in range(spec.simd)]
            m.d.comb += [
                port.addr.eq(at),
                port.data.eq(Cat(lanes)),
                port.en.eq(take & (turn == n // i.pixels)),
            ]
            if i.tail < spec.simd:  # Idle lanes are 0, whatever the beat has there.
                with m.If(beat.ends["w_group"]):
                    m.d.comb += port.data.eq(Cat(lanes[: i.tail]))
            banks.append(cells)
        return banks

    # Operands ------------------------------------------------------------------------------------

    def _read(self, m: Module, slot: Odometer, banks: list[memory.Memory]) -> None:
        """Fetch the operands of each slot."""
        spec, i, turns = self.spec, self.spec.stored, slot.turns
        kernel = spec.window.kernel
        group = slot.walk(m, "r_group", i.groups, self.go, "group", "fold", "chunk")
        column = slot.walk(
            m, "r_column", spec.steps * kernel[1], turns["group"], "kx", "chunk", "step"
        )
        line = slot.walk(m, "r_line", spec.bands * kernel[0], turns["kx"], "ky", "step", "row")
        size = below(spec.lines * spec.words)
        pipe = Pipe(m)

        # Cycle 1: what the taps see.
        across = table(m, "columns", column, spec.column_words())
        down = table(m, "lines", line, spec.line_words())
        group, frame_end = pipe.stage(group=group, frame_end=turns["row"])

        # Cycle 2: where it is, line and word.
        place = self._place(m, down["place"], frame_end)
        base = table(m, "bases", place, {"at": [n * spec.words for n in range(spec.lines)]})["at"]
        at = Signal(size, name="r_at")
        m.d.comb += at.eq(across["at"] + group)
        pattern, final, inside, at, beyond = pipe.stage(
            pattern=across["pattern"],
            final=group == i.groups - 1,
            inside=Mux(down["inside"], across["inside"], 0),
            at=at,
            beyond=(at + i.groups)[: size.width],
        )

        # Cycle 3: the address, in each bank.
        ports = self._ports(m, banks, pattern, base + at, base + beyond)
        held = {"pattern": pattern, "final": final, "inside": inside}
        pattern, final, inside = pipe.stage(**held)

        # Cycle 4: the memories answer. Cycle 5: the codes, place by place.
        pattern, final, inside = pipe.stage(pattern=pattern, final=final, inside=inside)
        (x,) = pipe.stage(x=self._select(ports, pattern, final, inside))
        m.d.comb += self.x.eq(x)
        assert pipe.depth == spec.lag

    def _place(self, m: Module, offset: Value, frame_end: Value) -> Value:
        """Line of the ring, ``offset`` lines behind that in which the frame begins.

        ``frame_end`` comes with the last offset of a frame.
        """
        spec = self.spec
        lines, moved = spec.lines, spec.source.rows % spec.lines
        if moved == 0:  # Every frame begins in line 0.
            return offset

        def ring(place: Value) -> Value:
            return Mux(place >= lines, place - lines, place)[: below(lines).width]

        origin = Signal(below(lines))
        with m.If(frame_end):
            m.d.sync += origin.eq(ring(origin + moved))
        return ring(origin + offset)

    def _ports(
        self, m: Module, banks: list[memory.Memory], pattern: Value, at: Value, beyond: Value
    ) -> list[Value]:
        """Read each bank, two edges later: the word of place 0, or that after it."""
        spec = self.spec
        size = below(spec.lines * spec.words)
        data = []
        for n, cells in enumerate(banks):
            later = [any(seen == (n, 1) for seen in seens) for seens in spec.patterns[1]]
            read = cells.read_port(domain="comb")
            word = Signal(spec.simd * spec.i.fmt.width, name=f"r_data{n}", reset_less=True)
            address = Signal(size, name=f"r_at{n}")
            if any(later):
                flags = Const(sum(flag << k for k, flag in enumerate(later)), len(later))
                chosen = Mux(flags.bit_select(pattern, 1), beyond, at)
            else:
                chosen = at
            m.d.sync += [address.eq(chosen), word.eq(read.data)]
            m.d.comb += read.addr.eq(address)
            data.append(word)
        return data

    def _select(self, data: list[Value], pattern: Value, final: Value, inside: Value) -> Value:
        """Operands of a slot, from the words of the banks; in the padding ``pad_value``."""
        spec, i = self.spec, self.spec.stored
        width, pixels = i.fmt.width, spec.pixels
        pad = Const(int(i.fmt.to_bits(spec.pad_value)), width)
        words = []
        for place in range(pixels):
            choice = [seen[place][0] for seen in spec.patterns[1]]
            words.append(
                data[choice[0]]
                if len(set(choice)) == 1
                else Value.cast(Array([data[n] for n in choice])[pattern])
            )
        codes = []
        for lane in range(spec.simd):
            for place, word in enumerate(words):
                code = word[lane * width : (lane + 1) * width]
                if spec.padded:
                    idle = Mux(final, 0, pad) if lane >= i.tail else pad
                    code = Mux(inside[place], code, idle)
                codes.append(code)
        return Cat(codes)

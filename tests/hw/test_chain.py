"""Chain: parts in order, each connected to the next."""

import numpy as np

from brambling.hw.beat import Beats
from brambling.hw.chain import Chain
from brambling.hw.queue import FifoSpec
from brambling.hw.width import WidthAdapterSpec
from brambling.quant.formats import Fixed
from brambling.sim.job import Design, Job
from brambling.sim.pysim import Pysim


def test_what_goes_in_comes_out_of_the_last():
    fmt = Fixed(5)
    up = WidthAdapterSpec(i=Beats(fmt, 7, 2), target=3)
    fifo = FifoSpec(Beats(fmt, 7, 3), 4)
    down = WidthAdapterSpec(i=Beats(fmt, 7, 3), target=1)
    x = np.random.default_rng(1).integers(-16, 16, (4, 7))

    def make():
        return Chain({"up": up.build(), "fifo": fifo.build(), "down": down.build()})

    job = Job(beats=up.i.pack(x), outputs=4 * 7, limit=200)
    trace = Pysim().run(Design.of("chain", make), job)
    assert np.array_equal(down.o.unpack(trace["output"].payloads), x)


def test_its_ports_are_those_of_the_ends():
    spec = FifoSpec(Beats(Fixed(5), 7, 3), 4)
    chain = Chain({"a": spec.build(), "b": spec.build()})
    assert chain.i.signature == spec.beats.signature.flip()
    assert chain.o.signature == spec.beats.signature

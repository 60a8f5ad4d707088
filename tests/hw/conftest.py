"""What every streaming component is tested for: values and cycles, flowing and stalled."""

import numpy as np
import pytest

from brambling.hw.accelerator import Node
from brambling.sim.cycles import Model
from brambling.sim.job import Design, Job, pattern
from brambling.sim.pysim import Pysim

PATTERNS = {
    "flowing": ("none", "none"),
    "starved": ("random", "none"),
    "blocked": ("none", "random"),
    "both": ("burst", "random"),
}


@pytest.fixture(
    params=[
        "flowing",
        "both",
        pytest.param("starved", marks=pytest.mark.slow),
        pytest.param("blocked", marks=pytest.mark.slow),
    ]
)
def stalls(request):
    """Patterns of the source and of the sink."""
    offer, accept = PATTERNS[request.param]
    return {"offer": pattern(offer, seed=3), "accept": pattern(accept, seed=5)}


@pytest.fixture
def run_component():
    """Run frames through a component; return its trace, after comparing cycles with the model."""

    def run(spec, codes, **stalls):
        outputs = len(codes) * spec.o.count
        model = Model(
            (Node("part", spec),),
            stalls.get("offer", np.ones(1, bool)),
            stalls.get("accept", np.ones(1, bool)),
        )
        model.run(len(codes) * spec.i.count, outputs)
        job = Job(
            beats=spec.i.pack(codes),
            outputs=outputs,
            limit=2 * model.output.times[outputs - 1] + 100,
            **stalls,
        )
        trace = Pysim().run(Design.of("part", spec.build), job)
        assert trace["output"].cycles.tolist() == model.output.times[:outputs]
        taken = trace["input"].cycles
        assert taken.tolist() == model.source.times[: len(taken)]
        return trace

    return run

"""The picture in the README: what ``brambling demo`` prints, as SVG.

    python bench/picture.py [--engine E] [--output FILE]

Runs the same as the demo: SFC planned for the ULX3S-85F, simulated in the fastest engine there is.
"""

import argparse
import io
import re
from pathlib import Path

from rich.console import Console

from brambling import api, zoo
from brambling.cli import BOARD, DEMO_FRAMES, best_engine
from brambling.report import show_simulation
from brambling.sim.progress import progress_bar
from brambling.simulation import ENGINES, simulate

PICTURE = Path(__file__).parents[1] / "docs" / "table.svg"
MODEL = "sfc-w1a1"
WIDTH = 84  #: Characters; the table has at most 80.


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", choices=ENGINES, help="default: the fastest there is")
    parser.add_argument("--output", type=Path, default=PICTURE, help="default: docs/table.svg")
    args = parser.parse_args()

    network = api.load(MODEL)
    plan = api.plan(network, BOARD)
    images, labels = zoo.evaluation_set()
    with progress_bar() as tell:
        result = simulate(
            network,
            plan,
            images,
            labels,
            engine=args.engine or best_engine(Console(stderr=True)),
            frames=DEMO_FRAMES,
            progress=tell,
        )
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    show_simulation(console, result, Path("out") / f"{MODEL}-{BOARD}")
    picture = console.export_svg(title="brambling demo", unique_id="table")
    # Rich would fetch fonts from the web; the reader's own will do.
    picture = re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL)
    args.output.write_text(picture, encoding="utf-8")
    print(args.output)


if __name__ == "__main__":
    main()

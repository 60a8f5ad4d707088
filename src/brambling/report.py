"""Tables for people."""

from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from brambling.simulation import Simulation
from brambling.zoo import Entry

__all__ = ["show_simulation", "show_zoo"]


def show_zoo(console: Console, entries: Iterable[Entry]) -> None:
    """Print the networks that come with the package."""
    table = Table(box=None, header_style="bold")
    for column in ("network", "data set"):
        table.add_column(column)
    for column in ("accuracy", "test images", "weight bits"):
        table.add_column(column, justify="right")
    for entry in entries:
        table.add_row(
            entry.name,
            entry.dataset,
            f"{entry.accuracy:.2%}",
            f"{entry.images:,}",
            f"{entry.weight_bits:,}",
        )
    console.print(table)


def show_simulation(console: Console, result: Simulation, folder: Path | None = None) -> None:
    """Print a simulation: a row a layer, then the whole."""
    console.print(
        f"[bold]{result.network}[/] on {result.board} ({result.goal}), "
        f"{result.frames:,} frames in {result.engine}"
    )
    table = Table(box=None, header_style="bold", pad_edge=False, collapse_padding=True)
    table.add_column("layer")
    table.add_column("engine")
    # Rows of at most 80 characters, for networks of some million weights.
    for column in ("MACs", "PE×SIMD", "weights", "BRAM", "interval", "predicted", "simulated"):
        table.add_column(column, justify="right")
    for layer in result.layers:
        table.add_row(
            layer.name,
            layer.engine,
            f"{layer.macs:,}" if layer.macs else "-",
            f"{layer.pe}×{layer.simd}" + (f"×{layer.pixels}" if layer.pixels > 1 else ""),
            f"{layer.weight_bits:,}" if layer.weight_bits else "-",
            str(layer.brams),
            f"{layer.interval:,}",
            f"{layer.cycles:,}",
            "-" if layer.cycles_simulated is None else f"{layer.cycles_simulated:,}",
        )
    total = result.layers
    table.add_row(
        "total",
        "",
        f"{sum(layer.macs for layer in total):,}",
        "",
        f"{sum(layer.weight_bits for layer in total):,}",
        str(sum(layer.brams for layer in total)),
        style="dim",
    )
    console.print(table)
    console.print(
        "[dim]weights in bits; BRAM from the sizes of the memories, not from synthesis\n"
        "PE×SIMD: outputs by inputs a cycle, and by positions where several\n"
        "interval: cycles a frame that the layer needs\n"
        "predicted, simulated: cycles of the first frame, first beat in to last beat out[/]"
    )
    microseconds = result.latency_s * 1e6
    clock = f"{result.clock_hz / 1e6:g} MHz (clock planned, not routed)"
    rows = [
        ("latency", f"{result.latency_cycles:,} cycles, {microseconds:,.3g} µs at {clock}"),
        ("throughput", f"{result.fps:,.0f} frames/s, one every {result.interval_cycles:,} cycles"),
    ]
    if result.accuracy is not None:
        rows.append(("accuracy", f"{result.accuracy:.2%} of {result.accuracy_images:,} images"))
    rows.append(("bottleneck", result.bottleneck.name))
    rows.append(("estimated", result.estimate))
    if result.equal_to_golden is not None:
        rows.append(("golden model", f"equal, {result.beats_compared:,} beats at every edge"))
        rows.append(("cycle model", "equal, the clock edge of every beat"))
    if folder is not None:
        rows.append(("files", str(folder)))
    for key, value in rows:
        console.print(f"{key:13} {value}", highlight=False, soft_wrap=True)

"""Two plots, from the same results: throughput and nanoseconds a frame, each over frame size, a line a contender."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .contenders import Unavailable
from .rows import CACHE, MEMORY
from .workloads import SIZES

if TYPE_CHECKING:
    from pathlib import Path

    from .measure import Results, Series

#: Contenders in the order of the legend, and how they are drawn.
STYLES = {
    "memcpy": ("black", ":"),
    "demux_into": ("#0b6e4f", "-"),
    "demux": ("#3fa34d", "-"),
    "copy, buffer to buffers": ("#8bbf56", "-"),
    "bollard decoder (Rust)": ("#b5651d", "--"),
    "Python twin, demux": ("#2a6fbb", "-"),
    "naive loop, BytesIO": ("#c1121f", "-"),
    "Moby StdCopy (Go)": ("#00add8", "--"),
    "aiodocker's parser": ("#7b2cbf", "--"),
    "podman-py stream_frames": ("#b07bd8", "--"),
    "docker-modem demuxStream (Node)": ("#888888", "--"),
}


def draw(results: Results, directory: Path) -> list[Path]:
    """Draw what can be drawn of a run; return the files.

    Raises:
        Unavailable: matplotlib is not installed.
    """
    try:
        matplotlib = importlib.import_module("matplotlib")
        matplotlib.use("svg")
        matplotlib.rcParams["svg.hashsalt"] = "muxframe"  # the same figures give the same file
        pyplot = importlib.import_module("matplotlib.pyplot")
    except ImportError as error:
        raise Unavailable(f"matplotlib is not installed ({error})") from error
    directory.mkdir(parents=True, exist_ok=True)
    files = []
    for section, where in ((MEMORY, "from and to memory"), (CACHE, "inside the last cache")):
        if any(series.section == section for series in results.series):
            files.append(_throughput(pyplot, results, section, where, directory / f"throughput-{section}.svg"))
            files.append(_nanoseconds(pyplot, results, section, where, directory / f"nanoseconds-{section}.svg"))
    return files


def _throughput(pyplot: Any, results: Results, section: str, where: str, path: Path) -> Path:
    def speed(series: Series) -> float:
        return series.payload_size / series.median / 1e9

    return _draw(pyplot, results, section, speed, "payload, GB/s", f"Throughput, {where}", path)


def _nanoseconds(pyplot: Any, results: Results, section: str, where: str, path: Path) -> Path:
    def cost(series: Series) -> float:
        return 1e9 * series.median / series.frames

    return _draw(pyplot, results, section, cost, "ns a frame", f"Cost of a frame, {where}", path)


def _draw(pyplot: Any, results: Results, section: str, value: Any, label: str, title: str, path: Path) -> Path:
    figure, axes = pyplot.subplots(figsize=(6, 6), layout="constrained")  # readable on a telephone, too
    for contender, (colour, line) in STYLES.items():
        found = [results.find(section, name, contender) for name in SIZES]
        points = [(series.payload_size / series.frames, value(series)) for series in found if series is not None]
        if points:
            axes.plot(*zip(*points), line, color=colour, marker="o", markersize=3.5, label=contender)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(list(SIZES.values()), [name.removesuffix("B") for name in SIZES])
    axes.yaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.set_xlabel("payload of a frame, bytes")
    axes.set_ylabel(label)
    axes.set_title(title)
    axes.grid(visible=True, alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize="small")
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    return path

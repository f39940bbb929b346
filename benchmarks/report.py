"""Tables: of everything on a terminal, of the figures in Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .rows import (
    CACHE,
    FILLED,
    FRAMES,
    LINES_OF_LOG,
    MEMORY,
    PIECES,
    SOCKET,
    START,
    TO_FILES,
    TO_NULL,
    make_rows,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from .measure import Results, Series

#: What the others of a section are compared with.
REFERENCES = {
    MEMORY: "memcpy",
    CACHE: "memcpy",
    FRAMES: "naive loop, BytesIO",
    LINES_OF_LOG: "split-and-parse loop",
    SOCKET: "recv_into and discard",
    FILLED: "recv_into and discard",
    PIECES: "naive buffer",
    TO_NULL: "cat",
    TO_FILES: "cat",
    START: "python -c pass",
}

TITLES = {
    MEMORY: "in memory, 32 MiB of wire: from and to memory",
    CACHE: "in memory, 4 MiB of wire: inside the last cache",
    FRAMES: "an object a frame in a Python loop, 4 MiB of wire",
    LINES_OF_LOG: "lines of a log with timestamps, 16 MiB of wire",
    SOCKET: "socket, 16 MiB of wire from another process",
    FILLED: "socket that holds up to 1 MiB of wire already: the receiver alone",
    PIECES: "fed a byte at a time, 16 KiB of wire; ns a byte of wire",
    TO_NULL: "pipe to /dev/null, whole process",
    TO_FILES: "pipe to files, whole process",
    START: "start and end of a process",
}

HEAD = ["workload", "contender", "ns a frame", "min", "GB/s", "x reference", "min"]


def grouped(results: Results) -> Iterable[tuple[str, str, list[Series]]]:
    """Yield section, workload and their series, fastest first."""
    for section in TITLES:
        names = dict.fromkeys(series.workload for series in results.series if series.section == section)
        for name in names:
            group = [series for series in results.series if (series.section, series.workload) == (section, name)]
            yield section, name, sorted(group, key=lambda series: series.median / units(series))


def units(series: Series) -> int:
    """What a time is divided by: frames, or bytes of wire where each takes a call, or nothing for a process."""
    if series.section == PIECES:
        return series.wire_size
    return series.frames or 1


def cells(series: Series, reference: Series | None) -> list[str]:
    """Render a series as a table's row."""
    median, minimum = series.median / units(series), series.minimum / units(series)
    texts = [series.workload, series.contender, nanoseconds(median), nanoseconds(minimum)]
    texts.append(f"{series.payload_size / series.median / 1e9:.2f}" if series.payload_size else "")
    if reference is not None:
        texts += [f"{series.over(reference):.2f}", f"{series.minimum / reference.minimum:.2f}"]
    return texts


def nanoseconds(seconds: float) -> str:
    value = seconds * 1e9
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 1000 else f"{value:,.0f}"


def as_text(results: Results, about: dict[str, Any]) -> str:
    """Render everything."""
    lines = [f"{name}: {value}" for name, value in about.items()]
    last = ""
    for section, name, group in grouped(results):
        if section != last:
            lines += ["", f"== {TITLES[section]}; times reference: {REFERENCES[section]}"]
            lines.append(_line(HEAD))
            last = section
        reference = results.find(section, name, REFERENCES[section])
        lines += [_line(cells(series, reference)) for series in group]
        lines.append("")
    lines += ["== figures (medians; minima beside them)"]
    lines += [f"  {row.verdict:12}  {row.work:58} {row.wanted:14} {row.measured}" for row in make_rows(results)]
    if results.skipped:
        lines += ["", "== skipped", *(f"  {name}: {why}" for name, why in results.skipped.items())]
    return "\n".join(lines) + "\n"


def _line(texts: Sequence[str]) -> str:
    widths = (18, 34)
    left = [f"{text:{width}}" for text, width in zip(texts, widths)]
    return "  " + " ".join([*left, *(f"{text:>12}" for text in texts[2:])]).rstrip()


# --- the document ----------------------------------------------------------------------------------------------------

BEGIN, END = "<!-- {}: written by benchmarks/run.py, do not edit -->", "<!-- end of {} -->"


def as_blocks(results: Results, about: dict[str, Any]) -> dict[str, str]:
    """Render what the document has markers for: a name, and Markdown."""
    blocks = {
        "machine": _table(["", ""], [[name, str(value)] for name, value in about.items()]),
        "figures": _table(
            ["work", "wanted", "measured: median (minimum)", ""],
            [[row.work, row.wanted, row.measured, row.verdict] for row in make_rows(results)],
        ),
    }
    for section, title in (
        (MEMORY, "memory"),
        (CACHE, "cache"),
        (FRAMES, "frames"),
        (LINES_OF_LOG, "lines"),
        (SOCKET, "socket"),
        (FILLED, "filled"),
        (PIECES, "pieces"),
    ):
        blocks[title] = _matrix(results, section)
    blocks["processes"] = _matrix(results, TO_NULL) + "\n" + _matrix(results, TO_FILES)
    skipped = [[name, why] for name, why in results.skipped.items()]
    blocks["skipped"] = _table(["skipped", "why"], skipped) if skipped else "Nobody was skipped.\n"
    return blocks


def _matrix(results: Results, section: str) -> str:
    """One line a contender, one column a workload: median ns a frame."""
    names = list(dict.fromkeys(series.workload for series in results.series if series.section == section))
    contenders = list(dict.fromkeys(series.contender for series in results.series if series.section == section))
    lines = []
    for contender in contenders:
        found = [results.find(section, name, contender) for name in names]
        lines.append([contender, *("" if one is None else nanoseconds(one.median / units(one)) for one in found)])
    head = TITLES[section] + ("" if section == PIECES else "; ns a frame")
    return _table([head, *names], lines)


def _table(head: list[str], lines: list[list[str]]) -> str:
    rule = ["---", *["---:" if len(head) > 4 else "---"] * (len(head) - 1)]
    return "".join(f"| {' | '.join(texts)} |\n" for texts in (head, rule, *lines))


def update_document(path: Path, blocks: dict[str, str]) -> None:
    """Write blocks between their markers.

    Raises:
        ValueError: a marker has no end.
    """
    text = path.read_text(encoding="utf-8")
    for name, block in blocks.items():
        begin, end = BEGIN.format(name), END.format(name)
        if begin not in text:
            continue
        before, _, rest = text.partition(begin)
        _, found, after = rest.partition(end)
        if not found:
            raise ValueError(f"{path}: no {end}")
        text = f"{before}{begin}\n\n{block}\n{end}{after}"
    path.write_text(text, encoding="utf-8")

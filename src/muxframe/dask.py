"""Archives as a dask DataFrame: one partition a slice. Needs the extra: `muxframe[dask]`.

    muxframe.dask.read("s3://logs/web-*.mux.zst", columns=["timestamp", "line"])

Only indexes are read at first; lines are read by the workers, through fsspec, as columns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._batches import BatchBuilder
from .archive import Archive
from .archive import open as open_archive
from .archive.reading import time_range
from .archive.recording import INDEX_SUFFIX

try:
    import dask.dataframe
    import fsspec
    import pandas
    import pyarrow
except ModuleNotFoundError as _error:
    text = 'this needs dask, fsspec and pyarrow: pip install "muxframe[dask]"'
    raise ModuleNotFoundError(text, name=_error.name) from _error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._batches_py import LineType
    from .archive import Slice
    from .engine.parameters import Moment

__all__ = ["read"]


def read(
    urls: str | Sequence[str],
    /,
    *,
    columns: Sequence[str] | None = None,
    since: Moment | None = None,
    until: Moment | None = None,
    partitions: int | None = None,
    raw: bool | None = None,
    timestamps: bool | None = None,
    details: bool | None = None,
    line_type: LineType = "large_utf8",
    storage_options: dict[str, Any] | None = None,
) -> Any:
    """Read the lines of archives.

    The columns are those of `muxframe.batches`, and `source`, the archive's URL: stream, timestamp (with timestamps),
    line, source, attrs (with details), partial. They have Arrow's types.

    Args:
        urls: of archives, for fsspec: paths, s3://..., with wildcards or without. Of each the index is at url + ".idx",
            if it is there; an archive without is one partition.
        columns: those wanted; None: all.
        since, until: only lines of that time, as for `Archive.lines`. What the index says is of another is not read.
        partitions: of each archive, at most; None: as many as its index allows.
        raw, timestamps, details: as for `muxframe.archive.open`.
        line_type: what `line` is: "large_utf8", where U+FFFD stands for what is no UTF-8, or "large_binary".
        storage_options: for fsspec.

    Returns:
        A dask DataFrame: a partition a slice, in the order of the URLs and of the lines in each.

    Raises:
        FileNotFoundError: there is no such archive.
        ArchiveError: an index is damaged, or another archive's.
        ValueError: a column is none, the archives do not have the same, or since is asked for without timestamps.
    """
    said = {"raw": raw, "timestamps": timestamps, "details": details}
    archives = _open(urls, storage_options or {}, said)
    shapes = {(archive.timestamps, archive.details) for archive in archives}
    if len(shapes) > 1:
        raise ValueError("some of the archives have timestamps or details, and some have not: read them apart")
    [(has_timestamps, has_details)] = shapes
    builder = BatchBuilder(timestamps=has_timestamps, details=has_details, line_type=line_type, source="")
    empty = _plain(pyarrow.schema(builder).empty_table())
    unknown = set(columns or ()) - set(empty.column_names)
    if unknown:
        raise ValueError(f"no such column: {', '.join(sorted(unknown))}; there are {', '.join(empty.column_names)}")
    empty = empty.select(empty.column_names if columns is None else list(columns))
    slices = [each for archive in archives for each in archive.slices(partitions, since=since, until=until)]
    return dask.dataframe.from_map(
        _load,
        slices or [None],
        empty=empty,
        times=time_range(since, until),
        line_type=line_type,
        meta=_frame(empty),
        label="muxframe",
    )


def _open(urls: str | Sequence[str], storage_options: dict[str, Any], said: dict[str, bool | None]) -> list[Archive]:
    archives = []
    for file in fsspec.open_files(urls, "rb", **storage_options):
        if file.path.endswith(INDEX_SUFFIX):  # it matched a wildcard
            continue
        index = fsspec.core.OpenFile(file.fs, file.path + INDEX_SUFFIX, "rb")
        has_index = file.fs.exists(index.path)
        if not has_index:
            file.fs.info(file.path)  # raises where there is no such file
        archives.append(open_archive(file, index=index if has_index else False, **said))
    if not archives:
        raise FileNotFoundError(f"no such archive: {urls}")
    return archives


def _load(part: Slice | None, empty: Any, times: tuple[int, int] | None, line_type: LineType) -> Any:
    """Read a partition: the worker's part."""
    tables = [empty]
    if part is not None:
        source = part.file.fs.unstrip_protocol(part.file.path)
        for batch in part.batches(line_type=line_type, source_name=source):
            table = pyarrow.table(batch)
            if times is not None:
                table = _between(table, times)
            tables.append(_plain(table).select(empty.column_names))
    return _frame(pyarrow.concat_tables(tables))


def _between(table: Any, times: tuple[int, int]) -> Any:
    """Keep the lines of a time; those without any are of none."""
    from pyarrow import compute

    nanoseconds = table["timestamp"].cast(pyarrow.int64())
    first, last = times[0], times[1] - 1  # 64 bits hold these
    return table.filter(
        compute.and_(compute.greater_equal(nanoseconds, first), compute.less_equal(nanoseconds, last))
    )


def _plain(table: Any) -> Any:
    """Let the column of sources be of plain strings: the dictionaries of partitions differ."""
    return table.set_column(
        table.column_names.index("source"), "source", table["source"].cast(pyarrow.string())
    )


def _frame(table: Any) -> Any:
    return table.to_pandas(types_mapper=pandas.ArrowDtype)

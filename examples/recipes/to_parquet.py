"""Keep logs in Parquet files: to_parquet.py DIRECTORY STATE [LABEL=VALUE...]; query them with duckdb.

Needs muxframe[parquet] and duckdb. What is in no whole file yet is not in STATE: it is read again after a restart.
"""

from __future__ import annotations

import sys
from typing import Any

import duckdb
import fleet

from muxframe.ingest import Parquet

ERRORS = "SELECT source, count(*) AS lines FROM '{}/*.parquet' WHERE stream = 2 GROUP BY source ORDER BY source"


def main(directory: str, state: str, *labels: str, **options: Any) -> None:
    files = Parquet(directory)
    for source, lines in fleet.read(state, *labels, flush=files.flush, interval=60, **options):
        files.write_lines(source, lines)
    print(duckdb.sql(ERRORS.format(directory)))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Export logs by OTLP: to_opentelemetry.py http://localhost:4318/v1/logs STATE [LABEL=VALUE...].

Needs opentelemetry-exporter-otlp-proto-http. Not through the SDK's batch processor: that drops what it has no room for,
and does not say what has arrived.
"""

from __future__ import annotations

import sys
from typing import Any

import fleet
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import LogRecordExportResult
from opentelemetry.sdk.resources import Resource

from muxframe import Line, Stream
from muxframe.ingest import Source

SEVERITIES = {Stream.STDOUT: SeverityNumber.INFO, Stream.STDERR: SeverityNumber.WARN}


def records(source: Source, lines: list[Line]) -> list[ReadableLogRecord]:
    resource = Resource({"container.id": source.id, "container.name": source.name})
    return [
        ReadableLogRecord(
            LogRecord(
                timestamp=line.timestamp,
                severity_number=SEVERITIES.get(line.stream),
                body=line.text,
                attributes={"log.iostream": line.stream.name.lower()},
            ),
            resource,
        )
        for line in lines
    ]


def main(endpoint: str, state: str, *labels: str, **options: Any) -> None:
    exporter = OTLPLogExporter(endpoint)  # tries again by itself, for a while
    for source, lines in fleet.read(state, *labels, **options):
        if exporter.export(records(source, lines)) is not LogRecordExportResult.SUCCESS:
            raise ConnectionError(f"{endpoint} has not taken the lines")


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Publish logs to Kafka: to_kafka.py localhost:9092 TOPIC STATE [LABEL=VALUE...]. Needs confluent-kafka.

The key is the container's id, so that its lines stay in one partition, and in order.
"""

from __future__ import annotations

import sys
from typing import Any

import fleet
from confluent_kafka import KafkaException, Producer

from muxframe.ingest import json_line


def main(servers: str, topic: str, state: str, *labels: str, **options: Any) -> None:
    producer = Producer({"bootstrap.servers": servers, "enable.idempotence": True})
    failures: list[Any] = []

    def report(error: Any, message: Any) -> None:
        if error is not None:
            failures.append(error)

    for source, lines in fleet.read(state, *labels, **options):
        for line in lines:
            time = 0 if line.timestamp is None else line.timestamp // 10**6
            producer.produce(topic, json_line(source, line), source.id, timestamp=time, on_delivery=report)
        producer.flush()
        if failures:
            raise KafkaException(failures[0])


if __name__ == "__main__":
    main(*sys.argv[1:])

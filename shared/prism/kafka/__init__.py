"""Kafka: clients, topics, compacted tables, the offset frontier and what a commit's metadata says.

Comes in: a bootstrap address and librdkafka properties. Goes out: records, acknowledged or not yet.
"""

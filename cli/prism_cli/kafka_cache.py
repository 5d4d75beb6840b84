"""Whether Kafka's jars are on this machine."""

import os

from prism_embedded.kafka_jars import KAFKA_VERSION, cache_folder


def is_cached() -> bool:
    """Return whether a start needs no download."""
    return bool(os.environ.get("PRISM_KAFKA_JARS")) or (cache_folder() / KAFKA_VERSION).is_dir()


def download_notice() -> str:
    """Return a remark on the download that the first start needs; empty when it is done."""
    return "" if is_cached() else f" (downloading Kafka {KAFKA_VERSION} first, 45 MB, this once)"

"""The yardstick: a plain `requests` loop that makes the very same calls, with no Kafka and nothing kept."""

import csv
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import requests
from requests.adapters import HTTPAdapter

from benchmarks.rig import EXAMPLE, MODEL
from prism.annotation import PromptFile, PromptRow, build_prompt


def bare_loop(path: Path, url: str, batch_size: int, threads: int) -> float:
    """Ask about every row of a CSV; return rows per second.

    The reading, the prompts and the parsing of HTTP bodies are in it; validation and writing are not.
    """
    prompt_file = PromptFile.parse((EXAMPLE / "feedback_prompt.json").read_text(encoding="utf-8"))
    session = requests.Session()
    session.mount("http://", HTTPAdapter(pool_maxsize=threads))
    began = time.monotonic()
    with path.open(newline="", encoding="utf-8") as source:
        rows = list(csv.DictReader(source))

    def ask(first: int) -> int:
        batch = rows[first : first + batch_size]
        prompt = build_prompt(
            prompt_file,
            [PromptRow(r["RowID"], r["Title"] or None, r["Message"], r["Sentiment"] or None) for r in batch],
        )
        body = {
            "model": MODEL,
            "messages": prompt.messages,
            "format": prompt.schema,
            "stream": False,
            "options": {"temperature": 0, "num_ctx": 16_384},
        }
        reply = session.post(f"{url}/api/chat", json=body, timeout=60).json()
        return len(reply["message"]["content"])

    starts = range(0, len(rows), batch_size)
    if threads == 1:
        for first in starts:
            ask(first)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(ask, starts))
    return len(rows) / (time.monotonic() - began)

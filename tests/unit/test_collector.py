"""How often a process that serves for long looks for garbage."""

import subprocess
import sys

SCRIPT = """
import gc
from pycni.collector import spare_collector

spare_collector()
began = gc.get_stats()[0]["collections"]
kept = [[] for _ in range(10_000)]
assert gc.get_stats()[0]["collections"] == began, "as many as requests have at once"
kept += [[] for _ in range(20_000)]
assert gc.get_stats()[0]["collections"] > began, "it still looks"
assert gc.get_freeze_count() > 1000
"""


def test_what_is_loaded_and_what_requests_have_at_once_is_not_looked_through() -> None:
    subprocess.run([sys.executable, "-c", SCRIPT], check=True, timeout=30)

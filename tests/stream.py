"""Converts a checkpoint and prints the most anonymous memory that it took: python tests/stream.py SOURCE OUT."""

import json
import re
import sys
import threading
import time
from pathlib import Path

from varytoy.checkpoints import convert

peak, done = 0, threading.Event()


def anonymous() -> int:
    return int(re.search(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024


def watch() -> None:
    global peak
    while not done.is_set():
        peak = max(peak, anonymous())
        time.sleep(0.005)


start, began = anonymous(), time.perf_counter()
watcher = threading.Thread(target=watch, daemon=True)
watcher.start()
told = convert(sys.argv[1], sys.argv[2])
done.set()
watcher.join()
print(json.dumps({"told": told, "start": start, "peak": peak, "seconds": round(time.perf_counter() - began, 1)}))

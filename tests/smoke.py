"""``python tests/smoke.py``: does this installation work at all? Read a page, train three steps, start the demo.

Ends with 1 at the first that fails, with the last lines of its output. A warning about a deprecated call of ours fails
too: the next release may refuse it.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).resolve().parents[1]
TEXT = "The quick brown fox jumps over the lazy dog."


class Failure(Exception):
    """A step that does not work, with what it printed."""


def draw(path: Path, text: str = TEXT) -> None:
    font = ImageFont.load_default(size=22)
    width = round(font.getlength(text)) + 40
    image = Image.new("RGB", (width, 60), "white")
    ImageDraw.Draw(image).text((20, 16), text, "black", font)
    image.save(path)


def call(*command: str | Path) -> str:
    """Run one of our programs with this Python. Returns its standard output."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "default"}
    done = subprocess.run(
        [sys.executable, *map(str, command)], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600
    )
    check(done.returncode == 0, done.stdout + done.stderr)
    ours = [line for line in done.stderr.splitlines() if "FutureWarning" in line and str(ROOT / "varytoy") in line]
    check(not ours, "\n".join(ours))
    return done.stdout


def check(good: bool, output: str) -> None:
    if not good:
        raise Failure(output)


def read(folder: Path) -> None:
    draw(folder / "page.png")
    found = call("-m", "varytoy.cli", "read", folder / "page.png")
    check("quick brown fox" in found, f"nano read {found!r} for {TEXT!r}")


def train(folder: Path) -> None:
    rows = []
    for number in range(4):
        name = f"{number}.png"
        draw(folder / name, f"sample {number}")
        user = {"role": "user", "content": "<image>\nProvide the OCR results of this image."}
        answer = {"role": "assistant", "content": f"sample {number}"}
        rows.append({"id": name, "task": "ocr", "messages": [user, answer], "images": [name]})
    (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    recipe = ROOT / "train/recipes/vary_toy/sft.yaml"
    call("-m", "train", "run", recipe, "--overlay", "full-8bit", f"output={folder / 'run'}", "--smoke-test", folder)
    check((folder / "run-smoke-test/model.safetensors").is_file(), "the run left no model.safetensors")


def demo(folder: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / "demo.log"
    with log.open("wb") as output:
        command = [sys.executable, str(ROOT / "demo/app.py"), "--port", str(port)]
        program = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 180
        while True:
            check(program.poll() is None and time.monotonic() < deadline, log.read_text(errors="replace"))
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as page:
                    check(page.status == 200 and b"varytoy" in page.read(), "the demo's page is not ours")
                return
            except OSError:
                time.sleep(0.5)
    finally:
        program.terminate()
        program.wait(30)


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        for step in (read, train, demo):
            start = time.monotonic()
            try:
                step(Path(folder))
            except Failure as error:
                print(f"smoke test: {step.__name__} fails")
                print("\n".join(str(error).strip().splitlines()[-15:]))
                return 1
            print(f"smoke test: {step.__name__} works ({time.monotonic() - start:.0f} s)", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""A model is fetched from a hub by the real client: from a server here that answers as the hub does."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import originals
import pytest
from conftest import ROOT, noise

SHA = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(tmp_path):
    """Serves the folders below ``tmp_path / "hub"`` as repositories; gives its address."""
    root = tmp_path / "hub"
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.answer(False)

        def do_GET(self):
            self.answer(True)

        def answer(self, body: bool) -> None:
            parts = self.path.partition("?")[0].split("/")[1:]
            if parts[:2] == ["api", "models"]:
                owner, name = parts[2:4]
                files = sorted((root / owner / name).iterdir())
                found: object = {
                    "id": f"{owner}/{name}",
                    "sha": SHA,
                    "siblings": [{"rfilename": f.name} for f in files],
                }
                if "tree" in parts:
                    kept = {"type": "file", "oid": SHA}
                    found = [{**kept, "path": file.name, "size": file.stat().st_size} for file in files]
                return self.send(json.dumps(found).encode(), {"Content-Type": "application/json"}, body)
            if len(parts) != 5:
                return self.send_error(404)
            owner, name, _, _, file = parts
            asked.append(file)
            data = (root / owner / name / file).read_bytes()
            tag = hashlib.sha256(data).hexdigest()
            return self.send(data, {"ETag": f'"{tag}"', "X-Repo-Commit": SHA}, body)

        def send(self, data: bytes, headers: dict[str, str], body: bool) -> None:
            self.send_response(200)
            for key, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(key, value)
            self.end_headers()
            if body:
                self.wfile.write(data)

        def log_message(self, *arguments) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()


def test_a_published_layout_is_fetched_and_read(tmp_path, hub):
    address, asked = hub
    folder = tmp_path / "hub" / "somebody" / "Vary-toy"
    originals.vary_toy(folder)
    (folder / "modeling_qwen.py").write_text("raise SystemExit('executed')")
    (folder / "README.md").write_text("words")
    noise(60, 40).save(tmp_path / "page.png")
    environment = {**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-m", "varytoy.cli", "read", str(tmp_path / "page.png"), "--model", "somebody/Vary-toy"]
    command += ["--json", "--max-new-tokens", "4"]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout)["model"] == "somebody/Vary-toy"
    assert set(asked) == {"config.json", "pytorch_model.bin", "qwen.tiktoken"}
    assert not list(Path(tmp_path / "home").rglob("*.py"))

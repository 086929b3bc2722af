"""The browser demo. Run it with ``python demo/app.py``."""

import os

# Gradio reads this when it is imported, Pillow that.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
# Blocks that hold pixels: of smaller ones the allocator keeps what a large picture took, once for each thread.
os.environ.setdefault("PILLOW_BLOCK_SIZE", "64m")
# Gradio asks its own server whether it is up, which no proxy can reach.
for name in ("NO_PROXY", "no_proxy"):
    os.environ[name] = ",".join(filter(None, [os.environ.get(name), "localhost", "127.0.0.1", "0.0.0.0"]))

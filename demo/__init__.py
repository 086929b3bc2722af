"""The browser demo. Run it with ``python demo/app.py``."""

import os

# Gradio reads this variable on import, Pillow the next.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
# Size of Pillow's pixel blocks: with smaller ones, each thread's allocator keeps the memory of a large image.
os.environ.setdefault("PILLOW_BLOCK_SIZE", "64m")
# Gradio checks whether its own server is up, which a proxy cannot reach.
for name in ("NO_PROXY", "no_proxy"):
    os.environ[name] = ",".join(filter(None, [os.environ.get(name), "localhost", "127.0.0.1", "0.0.0.0"]))

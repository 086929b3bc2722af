"""The browser demo. Run it with ``python demo/app.py``."""

import os

# Gradio reads this when it is imported, Pillow that.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
# Blocks that hold pixels: of smaller ones the allocator keeps what a large picture took, once for each thread.
os.environ.setdefault("PILLOW_BLOCK_SIZE", "64m")

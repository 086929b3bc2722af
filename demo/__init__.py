"""The browser demo. Run it with ``python demo/app.py``."""

import os

# Gradio reads this when it is imported.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

"""``varytoy serve``: an OpenAI-compatible server of one model."""

"""The programs of ``python -m data_tools``. A new program is a file with a class that registers itself (program.py),
imported here."""

from data_tools.programs import assets, bench, check, dialogue, image_net, render, tokenizer

__all__ = ["assets", "bench", "check", "dialogue", "image_net", "render", "tokenizer"]

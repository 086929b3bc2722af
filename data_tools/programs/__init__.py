"""The programs of ``python -m data_tools``. A new program is a file with a class that registers itself (program.py),
imported here."""

from data_tools.programs import assets, check, dialogue, image_net, mix, render, show, tokenizer

__all__ = ["assets", "check", "dialogue", "image_net", "mix", "render", "show", "tokenizer"]

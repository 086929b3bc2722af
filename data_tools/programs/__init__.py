"""The programs of ``python -m data_tools``. A new program is a file with a class that registers itself (program.py),
imported here."""

from data_tools.programs import (
    assets,
    audit,
    bench,
    check,
    dialogue,
    export,
    image_net,
    mix,
    pdf,
    render,
    show,
    square,
    tokenizer,
)

__all__ = [
    "assets",
    "audit",
    "bench",
    "check",
    "dialogue",
    "export",
    "image_net",
    "mix",
    "pdf",
    "render",
    "show",
    "square",
    "tokenizer",
]

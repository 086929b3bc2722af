import logging

# Of a package that nobody needs here; before bitsandbytes is imported, which transformers' training arguments do.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

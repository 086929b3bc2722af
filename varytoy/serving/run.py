"""Start the server: ``varytoy serve``."""

import argparse
import sys

from varytoy.data.documents import Limits, isolate_pdfs
from varytoy.extras import require
from varytoy.inference.reader import Reader
from varytoy.options import reader_options


def serve(options: argparse.Namespace) -> int:
    """Serve until interrupted.

    Raises:
        MissingExtra: the extra ``serve`` is not installed.
        ModelError: the model cannot be loaded.
    """
    require("serve", "fastapi", "uvicorn", "prometheus_client", by="varytoy serve")
    import uvicorn

    from varytoy.serving.app import Settings, create_app

    settings = Settings(
        api_key=options.api_key,
        together=options.together,
        queue=options.queue,
        timeout=options.timeout,
        allow_urls=options.allow_urls,
        max_tokens=options.max_new_tokens,
    )
    isolate_pdfs(Limits())
    reader = Reader.from_pretrained(*reader_options(options)).shared()
    for view in reader.parts.views:
        reader.parts.engine(view)  # loaded before the first request
    print(f"{reader.name} at http://{options.host}:{options.port}/v1", file=sys.stderr, flush=True)
    uvicorn.run(create_app(reader, settings), host=options.host, port=options.port, log_level="warning")
    reader.close()
    return 0

"""The browser demo: ``python demo/app.py [--model FOLDER_OR_HUB_ID] [--host HOST] [--port PORT]``."""

import argparse
import sys
import tempfile
from pathlib import Path

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

try:
    from demo.page import Demo
except ModuleNotFoundError as error:
    if error.name != "gradio":
        raise
    from varytoy.extras import pip_line

    sys.exit(f"The demo needs Gradio: {pip_line('demo')}")

from demo.measured import measured  # noqa: E402
from demo.pictures import examples  # noqa: E402
from varytoy.checkpoints.loading import ModelError  # noqa: E402
from varytoy.data.documents import Limits, isolate_pdfs  # noqa: E402
from varytoy.inference.reader import Reader  # noqa: E402
from varytoy.options import device_options, reader_options  # noqa: E402


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"'{text}' is not a port: a number from 1 to 65535")
    return int(text)


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Browser demo: a model reads images and PDFs.")
    parser.add_argument("--model", default="nano", metavar="FOLDER_OR_HUB_ID", help="default: the embedded model, nano")
    device_options(parser)
    parser.add_argument("--host", default="127.0.0.1", help="default: 127.0.0.1, this machine only")
    parser.add_argument("--port", type=_port, default=7860, help="default: 7860")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    chosen = arguments(words)
    try:
        reader = Reader.from_pretrained(*reader_options(chosen))
    except ModelError as error:
        print(error, file=sys.stderr)
        return 2
    isolate_pdfs(Limits())
    with tempfile.TemporaryDirectory() as folder:
        demo = Demo(reader, examples(Path(folder)), measured(chosen.model), reader.tasks)
        try:
            demo.launch(chosen.host, chosen.port)
        except OSError:
            reason = "the port is taken or the address is not this machine's; choose another with --port or --host"
            print(f"cannot serve on {chosen.host}:{chosen.port}: {reason}", file=sys.stderr)
            return 2
        print(f"{reader.name} on {reader.precision.reason}")
        print(f"Open http://{chosen.host}:{chosen.port} in a browser; Ctrl+C ends.", flush=True)
        demo.page.block_thread()
    return 0


if __name__ == "__main__":
    sys.exit(main())

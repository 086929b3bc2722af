"""``check``: validate samples, or a mixture and its sources."""

import sys
from pathlib import Path

from data_tools.mixture import sample_paths
from data_tools.program import Program, register
from varytoy.data.sample import SampleError
from varytoy.data.samples import read_samples


@register
class Check(Program):
    name = "check"
    help = "validate samples line by line, or a mixture and its sources"

    def options(self, parser):
        parser.add_argument("samples", type=Path, help="folder, .jsonl file, shard, or a mixture (.yaml)")

    def run(self, options):
        """Print every bad sample on a line; the exit code is 2 if there are any."""
        bad = good = 0

        def report(error: SampleError) -> None:
            nonlocal bad
            bad += 1
            print(f"data_tools: {error}", file=sys.stderr)

        for path in sample_paths(options.samples):
            for sample in read_samples(path, on_error=report):
                try:
                    sample.open_images()
                    sample.open_target_images()
                    good += 1
                except SampleError as error:
                    report(error)
        print(f"{good} samples are valid" + (f", {bad} are not" if bad else ""))
        return 2 if bad else 0

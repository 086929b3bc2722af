"""``python -m train.experiments.average OUT FOLDER=WEIGHT …``: the weighted mean of checkpoints of one shape.

OUT gets the other files of the first folder. Weights are brought to a sum of 1.
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import load_file, save_file

FILE = "model.safetensors"


def weighted(text: str) -> tuple[Path, float]:
    folder, equals, weight = text.rpartition("=")
    try:
        number = float(weight)
    except ValueError:
        number = 0.0
    if not equals or not number > 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not FOLDER=WEIGHT, e.g. runs/a=0.4")
    return Path(folder), number


def average(out: Path, parts: Sequence[tuple[Path, float]]) -> None:
    """Raises OSError, and ValueError for a folder whose tensors are others than those of the first."""
    whole = sum(weight for _, weight in parts)
    first = load_file(parts[0][0] / FILE)
    mean = {name: tensor.float() * (parts[0][1] / whole) for name, tensor in first.items()}
    for folder, weight in parts[1:]:
        other = load_file(folder / FILE)
        shapes = {name: tensor.shape for name, tensor in other.items()}
        if shapes != {name: tensor.shape for name, tensor in mean.items()}:
            raise ValueError(f"{folder} is a model of another shape than {parts[0][0]}")
        for name, tensor in other.items():
            mean[name] += tensor.float() * (weight / whole)
    out.mkdir(parents=True, exist_ok=True)
    for path in parts[0][0].iterdir():
        if path.is_file() and path.suffix in (".json", ".jinja"):
            shutil.copyfile(path, out / path.name)
    save_file({name: mean[name].to(first[name].dtype) for name in first}, out / FILE, metadata={"format": "pt"})


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m train.experiments.average", description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("parts", nargs="+", type=weighted, metavar="FOLDER=WEIGHT")
    options = parser.parse_args(words)
    try:
        average(options.out, options.parts)
    except (OSError, ValueError) as error:
        print(f"average: {error}", file=sys.stderr)
        return 2
    print(f"the mean of {len(options.parts)} checkpoints is in {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

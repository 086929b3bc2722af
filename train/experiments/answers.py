"""``python -m train.experiments.answers``: questions about rendered receipts and forms, whose fonts, texts and values
training never showed, as `varytoy read` answers them: the page is read, and its text is asked."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from train.structured import Ability, measure
from varytoy.options import positive

WHAT = "Questions about rendered receipts and forms, read and answered by nano, with 95 % intervals."
_METRIC = "vqa: exact match"
ABILITIES = {
    "receipts": Ability(("forms", "--kind-of-form", "receipt", "--degrade", "0.2"), 30, _METRIC),
    "forms": Ability(("forms", "--kind-of-form", "form", "--degrade", "0.2"), 30, _METRIC),
}


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m train.experiments.answers", description=__doc__)
    parser.add_argument("--source", type=Path, default=Path("data/sources"), help="filled by `data_tools fetch`")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--out", type=Path, default=Path("runs/answers"), help="finished parts of it are kept")
    parser.add_argument("--seed", type=int, default=81)
    parser.add_argument("--limit", type=positive, help="pages of each kind (default: 30)")
    parser.add_argument("--publish", action="store_true", help="write the figures to train/results")
    options = parser.parse_args(words)
    given = list(sys.argv[1:] if words is None else words) if options.publish else ()
    about = (options.source, options.out, options.model, options.seed, options.limit, given, ABILITIES, "answers", WHAT)
    return measure(*about, "python -m train.experiments.answers")


if __name__ == "__main__":
    sys.exit(main())

"""The step from run 9 to run 10 of nano: ``python -m train.experiments.place_codes RUN OUT --seed 5``.

The layer of positions is three times as large as usual, and the embeddings of the place tokens become the codes of the
rows and columns that they name, as the decoder sees them. In the history (LOG.md, 2026-11-22) this was done by hand.
"""

import argparse
import sys
from pathlib import Path

import torch

from train.run_folder import check_new
from train.stage_weights import load_stage
from varytoy.models.config import VaryConfig
from varytoy.models.vary import VaryForConditionalGeneration
from varytoy.models.vision.sam import place_codes
from varytoy.processing.processor import VaryProcessor

FACTOR = 3.0


@torch.no_grad()
def begin_places(model: VaryForConditionalGeneration, processor: VaryProcessor) -> None:
    """Enlarge the layer of positions and set the place tokens' embeddings.

    A row's code fills the first half of the channels, a column's the second; the other half of a place token's is zero.
    """
    vocabulary, connector = model.vision_vocabulary, model.connector
    vocabulary.place.weight.mul_(FACTOR)
    count, (down, across) = processor.places, vocabulary.config.stride
    steps = {"y": processor.place_size[0] // down, "x": processor.place_size[1] // across}
    codes = place_codes(count * steps["y"], count * steps["x"], vocabulary.config.hidden_size, "cpu")[0]
    half = codes.shape[-1] // 2
    embeddings = model.get_input_embeddings().weight
    for axis, along in (("y", codes[:: steps["y"], 0, :]), ("x", codes[0, :: steps["x"], :])):
        along = along.clone()
        along[:, half if axis == "y" else 0 : None if axis == "y" else half] = 0.0
        seen = vocabulary.place(along) @ connector.mm_projector_vary.weight.T
        for number in range(count):
            token = processor.tokenizer.convert_tokens_to_ids(f"<{axis}_{number}>")
            embeddings[token] = 0.0
            embeddings[token, -seen.shape[1] :] = seen[number]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m train.experiments.place_codes", description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="a finished run or a checkpoint of preset nano")
    parser.add_argument("out", type=Path, metavar="OUT", help="a new folder")
    parser.add_argument("--seed", type=int, default=5)
    options = parser.parse_args(arguments)
    try:
        check_new(options.out)
        torch.manual_seed(options.seed)
        model, processor = VaryForConditionalGeneration(VaryConfig.preset("nano")), VaryProcessor.preset("nano")
        loaded = load_stage(model, options.run)
        begin_places(model, processor)
        model.save_pretrained(options.out)
        processor.save_pretrained(options.out)
    except (ValueError, OSError) as error:
        print(f"train: {error}", file=sys.stderr)
        return 2
    print(f"{len(loaded.taken)} tensors from {options.run}, {len(loaded.left)} fresh, in {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

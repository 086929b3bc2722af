"""The training program end to end on the CPU, tiny: reading emerges, options really run, nothing is lost."""

import json
import random
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch
from conftest import TINY, losses, picture_source, tiny_config
from conftest import tiny_recipe as recipe
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import OPTForCausalLM

from data_tools.render.scenes import SceneRenderer
from data_tools.writer import write_samples
from train.__main__ import main
from train.data.bad_samples import BadSamples
from train.data.collator import Collator
from train.data.dataset import SampleDataset, merge_turns
from train.data.sampler import SizeSampler
from train.experiments.curve import read_metrics
from train.experiments.place_codes import FACTOR, begin_places
from train.loop import run
from train.model import VaryForTraining, build, opt_shape
from train.objectives import GuidedAttention, Letters, Objects
from train.objectives.locations import glyph_locations
from train.recipe import (
    DataSettings,
    RecipeError,
)
from train.stage_weights import load_stage
from varytoy.checkpoints import convert
from varytoy.data.sample import Annotations, Sample
from varytoy.data.samples import parse_sample, read_samples
from varytoy.inference.engine import Request
from varytoy.inference.reader import Reader
from varytoy.models.config import VaryConfig, VisionVocabularyConfig
from varytoy.models.vision.sam import place_codes
from varytoy.processing.images import VaryImageProcessor
from varytoy.processing.processor import IGNORED, VaryProcessor
from varytoy.tasks import metrics


def read_all(folder: Path, samples) -> list[str]:
    reader = Reader.from_pretrained(str(folder), "cpu")
    requests = [Request(sample.messages[:-1], sample.open_images(), max_new_tokens=64) for sample in samples]
    return [answer.text for answer in reader.engine.generate(requests)]


@pytest.mark.slow
def test_ten_pages_are_read_from_their_pictures(ten, tmp_path):
    """From random weights to reading; and it is the picture that is read, not the prompt or the order."""
    letters = {"letters": Letters.Settings(weight=0.2, aligned=True)}
    steps = {"max_steps": 420, "heads_warmup": 60, "warmup": 20}
    run(recipe(ten, tmp_path / "run", letters, learning_rate=2e-3, batch_size=10, **steps))
    samples = list(read_samples(ten))
    texts = read_all(tmp_path / "run", samples)
    truths = [sample.answer for sample in samples]
    assert metrics.character_error_rate(texts, truths) <= 0.02
    swapped = truths[1:] + truths[:1]
    assert metrics.character_error_rate(texts, swapped) > 0.3


def test_ctc_loss_falls_and_the_head_goes_along_to_the_next_stage(two, tmp_path):
    letters, steps = {"letters": Letters.Settings()}, {"heads_warmup": 100, "max_steps": 10}
    run(recipe(two, tmp_path / "one", letters, batch_size=2, learning_rate=5e-3, **steps))
    found = losses(tmp_path / "one")
    assert found[-1] < 0.5 * found[0]
    assert not any(name.startswith("heads") for name in load_file(tmp_path / "one" / "model.safetensors"))
    said = []
    start = (str(tmp_path / "one"),)
    following = recipe(two, tmp_path / "two", letters, start, batch_size=2, heads_warmup=100, max_steps=1)
    run(following, say=said.append)
    assert losses(tmp_path / "two")[0] < 1.5 * found[-1]
    assert "(0 are not in it)" in said[0]


def test_while_heads_warm_up_a_batch_without_anything_for_them_teaches_nothing():
    model = VaryForTraining(tiny_config())
    model.heads_only = True
    loss = model(torch.tensor([[3, 4, 6]]), torch.tensor([[IGNORED, 4, 6]])).loss
    loss.backward()
    assert loss.item() == 0 and not any(each.grad is not None and each.grad.any() for each in model.parameters())


def test_guided_heads_learn_where_to_look_and_object_heads_what_is_there(tmp_path):
    renderer = SceneRenderer(picture_source(tmp_path / "pictures"), 3)
    write_samples(tmp_path / "scenes", 6, renderer, workers=1)
    chosen = recipe(
        tmp_path / "scenes", tmp_path / "run", clip=True, batch_size=3, max_steps=16, learning_rate=5e-3, warmup=2
    )
    chosen.data[0].turns = 4
    guide, objects = GuidedAttention.Settings(1.0, [0, 1], 1), Objects.Settings(1.0)
    chosen.objectives = {"guide": guide, "objects": objects}
    run(chosen)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    rows = [row for row in rows if "loss_guide" in row]
    for name in ("loss_guide", "loss_objects", "loss_corners", "loss_clip_objects", "loss_clip_corners"):
        assert rows[-1][name] < 0.8 * rows[0][name], name
    assert not any("heads" in name for name in load_file(tmp_path / "run" / "model.safetensors"))


def test_where_to_look(ten):
    """The letters of the answer at the letters of the picture, the numbers of a box at its corners."""
    sample = next(read_samples(ten))
    found = glyph_locations(sample, sample.answer, sample.open_images()[0].size)
    assert "".join(sample.answer[place] for place, _, _ in found) == sample.answer
    spots = {place: (x, y) for place, x, y in found}
    assert all(spots[place] == spots[place + 1] for place, letter in enumerate(sample.answer) if letter.isspace())
    lines = [[x for place, x, _ in found if sample.answer[:place].count("\n") == line] for line in (0, 1)]
    lines[0].pop()  # the line break, seen where the next line begins
    assert all(line == sorted(line) and len(line) > 3 for line in lines)
    assert max(y for place, _, y in found if place < sample.answer.index("\n")) < min(
        y for place, _, y in found if place > sample.answer.index("\n")
    )
    scene = Sample(messages=[], task="detect")
    answer = "red ball: [100, 200, 300, 400], [010, 020, 030, 040];"
    places = {answer[place:][:3]: (x, y) for place, x, y in glyph_locations(scene, answer, (50, 50))}
    assert places["100"] == places["200"] == (0.1, 0.2) and places["300"] == places["400"] == (0.3, 0.4)
    assert places["red"] == (0.1, 0.2) and places["[01"] == (0.01, 0.02)


def test_lines_and_words_are_written_with_their_places_and_read_without(ten):
    processor = VaryProcessor.preset(TINY)
    sample = next(read_samples(ten))
    images = sample.open_images()
    guide = GuidedAttention(GuidedAttention.Settings(1.0))
    batch = Collator(processor, 4096, BadSamples(), objectives=[guide])([(sample, images)])
    ids = batch["labels"][0][batch["labels"][0] != IGNORED]
    written = "".join(processor.tokenizer.convert_ids_to_tokens(ids))
    words = re.findall(r"(?:<y_(\d+)>)?<x_(\d+)>([^<\s]+)(\s?)", written)
    assert [word for *_, word, _ in words] == sample.answer.split()
    assert processor.decode_text(ids) == sample.answer
    spots = {place: (x, y) for place, x, y in glyph_locations(sample, sample.answer, images[0].size)}
    starts = [match.start() for match in re.finditer(r"\S+", sample.answer)]
    for (down, across, _, _), start in zip(words, starts, strict=True):
        x, y = spots[start]
        assert int(across) == int(x * images[0].width / 16)
        assert bool(down) == (start == 0 or sample.answer[start - 1] == "\n")
        assert not down or int(down) == int(y * images[0].height / 16)
    tokens = batch["input_ids"][0].roll(-1) >= processor.tokenizer.convert_tokens_to_ids("<y_0>")
    assert int(tokens.sum()) == len(words) + 2
    positions = batch["targets"]["guide.positions"][0]
    assert bool((positions[tokens] >= 0).all())  # a place token looks where its word begins
    plain = VaryProcessor.preset(TINY)
    plain.places = 0
    ids = Collator(plain, 4096, BadSamples())([(sample, images)])["labels"][0]
    assert "<" not in "".join(plain.tokenizer.convert_ids_to_tokens(ids[ids != IGNORED][:-1]))


def test_corners_of_boxes_are_written_with_their_places_and_read_without():
    processor = VaryProcessor.preset(TINY)
    image = Image.new("RGB", (64, 64), "white")
    answer = "ball: [100, 200, 600, 900], [300, 000, 999, 500];"
    messages = [{"role": "user", "content": "<image>\nFind all."}, {"role": "assistant", "content": answer}]
    batch = Collator(processor, 4096, BadSamples())([(Sample(messages, ["a.png"], "detect"), [image])])
    ids = batch["labels"][0][batch["labels"][0] != IGNORED]
    assert processor.decode_text(ids) == answer
    written = re.sub(r"<y_(\d+)><x_(\d+)>", r"(\1 \2)", "".join(processor.tokenizer.convert_ids_to_tokens(ids)))
    assert written.startswith("(0 0)ball: [100, 200, (3 2)600, 900], (0 1)[300, 000, (2 3)999, 500];")


def test_samples_of_one_picture_become_a_conversation():
    def row(task: str, picture: str) -> Sample:
        content = f"<image>\nask {task}"
        messages = [{"role": "user", "content": content}, {"role": "assistant", "content": f"{task} of {picture}"}]
        return Sample(messages, [picture], task, task)

    tasks = ("detect", "ground", "caption", "vqa")
    made = merge_turns([row(task, picture) for picture in "ab" for task in tasks], 8, random.Random(0))
    assert [sample.images for sample in made] == [["a"], ["b"]]
    for sample in made:
        answers = [message["content"].split()[0] for message in sample.messages if message["role"] == "assistant"]
        assert sorted(answers) == sorted(tasks) and answers[-2:] == ["caption", "detect"]
        assert [message["content"].count("<image>") for message in sample.messages[::2]] == [1, 0, 0, 0]
        parse_sample(sample.to_json(), Path("."))
    told = [row("ocr", "a"), row("vqa", "a")]
    for sample in told:
        sample.messages.insert(0, {"role": "system", "content": "Be brief."})
    (joined,) = merge_turns(told, 2, random.Random(0))
    assert [message["role"] for message in joined.messages] == ["system", *["user", "assistant"] * 2]
    parse_sample(joined.to_json(), Path("."))
    alone = row("ocr", "a")
    alone.annotations = Annotations("o", [1, 2])
    assert merge_turns([alone], 8, random.Random(0)) == [alone]


def test_a_bare_opt_goes_into_the_decoder_with_more_positions(tmp_path):
    """From 16 positions to 32: the ends and OPT's two reserved rows stay, the rest is in between."""
    shape = opt_shape(tiny_config().text_config)
    shape.max_position_embeddings = 16
    before = OPTForCausalLM(shape)
    before.save_pretrained(tmp_path)
    config = tiny_config(opt=True)
    config.text_config.max_position_embeddings = 32
    model = VaryForTraining(config)
    load_stage(model, tmp_path)
    old, new = (decoder.model.decoder.embed_positions.weight for decoder in (before, model.language_model))
    assert old.shape[0] == 18 and new.shape[0] == 34
    assert torch.equal(new[:3], old[:3]) and torch.allclose(new[-1], old[-1])
    between = old[2] + (old[3] - old[2]) * 15 / 31
    assert torch.allclose(new[3], between, atol=1e-6)
    assert torch.equal(model.language_model.model.decoder.embed_tokens.weight, before.model.decoder.embed_tokens.weight)


def test_misread_letters_are_in_the_input_and_never_in_the_target(ten):
    rows = [(sample, sample.open_images()) for sample in read_samples(ten)]
    processor = VaryProcessor.preset("nano")
    plain = Collator(processor, 4096, BadSamples())(rows)
    misread = Collator(processor, 4096, BadSamples(), token_corruption=0.3)(rows)
    changed = plain["input_ids"] != misread["input_ids"]
    taught = plain["labels"] != IGNORED
    assert torch.equal(plain["labels"], misread["labels"])
    assert 0.1 < float(changed[taught].float().mean()) < 0.5
    assert not changed[~taught].any()
    ends = plain["input_ids"] == processor.tokenizer.eos_token_id
    assert ends.any() and not changed[ends].any()


def test_when_the_clip_branch_joins_the_vision_vocabulary_keeps_its_channels(tmp_path):
    alone = VaryConfig.preset(TINY)
    alone.clip_config, alone.clip_projection_size = None, 0
    before = VaryForTraining(alone)
    before.save_pretrained(tmp_path)
    model = VaryForTraining(VaryConfig.preset(TINY))
    load_stage(model, tmp_path)
    old, new = (part.connector.mm_projector_vary for part in (before, model))
    clip = model.connector.clip_width
    assert clip and torch.equal(new.weight, old.weight[clip:]) and torch.equal(new.bias, old.bias[clip:])


def test_what_is_frozen_does_not_move_and_is_printed(ten, tmp_path):
    run(recipe(ten, tmp_path / "one", clip=True, max_steps=1))
    chosen = recipe(ten, tmp_path / "two", init=(str(tmp_path / "one"),), clip=True, max_steps=2)
    chosen.freeze = ["vision_vocabulary", "clip"]
    said = []
    run(chosen, say=said.append)
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"connector", "language_model"}  # batch norm's statistics too
    assert "vision_vocabulary" in said[1] and "frozen" in said[1] and "trained" in said[1]


SMALL = {"optimizer": "adamw_bnb_8bit", "in_backward": True, "clip_norm": 0.0, "weights": "bf16"}
"""All that saves memory together."""


@pytest.mark.parametrize("way", [{}, SMALL], ids=["plain", "small"])
def test_resume_gives_the_weights_of_an_unbroken_run(ten, tmp_path, way):
    settings = {"schedule": "constant", "token_corruption": 0.2, **way}
    run(recipe(ten, tmp_path / "whole", max_steps=6, **settings))
    run(recipe(ten, tmp_path / "broken", max_steps=3, save_steps=3, **settings))
    run(recipe(ten, tmp_path / "broken", max_steps=6, **settings), resume=True)
    whole, broken = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "broken"))
    assert all(torch.equal(whole[name], broken[name]) for name in whole)


@pytest.mark.parametrize("weights", ["fp32", "bf16", "fp16"])
def test_steps_in_backward_train_with_8_bit_state_throughout(two, tmp_path, weights, capsys):
    """One page a step: in fp16, gradients of convolutions take seconds on a CPU."""
    settings = {**SMALL, "weights": weights, "loss_scale": 256.0 if weights == "fp16" else 1.0}
    settings |= {"max_steps": 8, "save_steps": 8, "batch_size": 1, "learning_rate": 3e-3}
    run(recipe(two, tmp_path / "run", **settings))
    found = losses(tmp_path / "run")
    assert found[-1] < 0.85 * found[0]
    assert "train.RoundingAdamW8bit, state in float32, uint8, stepped inside backward" in capsys.readouterr().out
    saved = load_file(tmp_path / "run" / "model.safetensors")
    embeddings = saved["language_model.model.embed_tokens.weight"]
    assert embeddings.dtype == {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[weights]
    assert read_all(tmp_path / "run", list(read_samples(two))[:1]) is not None
    state = torch.load(tmp_path / "run" / "checkpoint-8" / "optimizer.pt", weights_only=True)
    states = [row for inner in state["inner"] for row in inner["state"].values()]
    states = [row | row.get("__bnb_optimizer_quant_state__", {}) for row in states]
    model, *_ = build(recipe(two, tmp_path / "run"))
    wanted = Counter(tuple(parameter.shape) for parameter in model.parameters())
    assert Counter(tuple(row["state1"].shape) for row in states) == wanted
    for row in states:  # one byte a moment, and four for each 256 of them; tensors under 4,096 elements in 32 bits
        elements = row["state1"].numel()
        small = elements < 4096
        assert row["state1"].dtype == row["state2"].dtype == (torch.float32 if small else torch.uint8)
        assert small or row["absmax1"].numel() == -(-elements // 256)
    assert embeddings.numel() >= 4096 and tuple(embeddings.shape) in wanted


@pytest.mark.parametrize("opt", [False, True], ids=["qwen2", "opt"])
def test_a_checkpointed_decoder_has_the_same_losses_and_gradients(ten, opt):
    model, processor, _ = build(recipe(ten, ten))
    if opt:
        model = VaryForTraining(tiny_config(opt=True))
    rows = [(sample, sample.open_images()) for sample in list(read_samples(ten))[:3]]
    batch = Collator(processor, 4096, BadSamples())(rows)
    model.train()
    found = []
    for checkpointed in (False, True):
        if checkpointed:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        torch.manual_seed(0)
        loss = model(**batch).loss
        found.append((loss, torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)))
    (loss, gradients), (other_loss, other_gradients) = found
    assert torch.equal(loss, other_loss)
    for one, other in zip(gradients, other_gradients, strict=True):
        assert (one is None and other is None) or torch.equal(one, other)


def test_a_batch_of_bad_samples_is_passed_over(ten, tmp_path):
    """With one sample a batch, a bad one must not end the run."""
    folder = tmp_path / "data"
    shutil.copytree(ten, folder)
    (folder / "images" / "000" / "000001.png").write_bytes(b"no picture")
    said = []
    run(recipe(folder, tmp_path / "run", batch_size=1, epochs=1), say=said.append)
    assert len(losses(tmp_path / "run")) == 10 and not any(loss != loss for loss in losses(tmp_path / "run"))
    assert said[-1].startswith("1 bad samples")


def test_accumulation_weighs_all_parts_of_the_loss_alike(ten):
    chosen = recipe(ten, ten, {"letters": Letters.Settings(weight=1.0, aligned=True)})
    model, processor, _ = build(chosen)
    rows = [(sample, sample.open_images()) for sample in list(read_samples(ten))[:3]]
    batch = Collator(processor, 4096, BadSamples(), objectives=model.objectives)(rows)
    taught = int((batch["labels"] != IGNORED).sum())
    model.eval()
    alone, parts = model(**batch).loss.item(), dict(model.loss_parts)
    among_four = model(**batch, num_items_in_batch=4 * taught).loss.item()
    assert among_four == pytest.approx(alone / 4, rel=1e-4) and len(parts) == 2
    assert all(model.loss_parts[name].item() == pytest.approx(part.item(), rel=1e-4) for name, part in parts.items())


def test_a_converted_sam_begins_the_vocabulary_stage(tmp_path):
    config = VaryConfig.preset("vary-tiny")
    tower = {
        "image_size": 64,
        "hidden_size": 64,
        "num_layers": 2,
        "num_heads": 1,
        "window_size": 2,
        "global_layers": [1],
    }
    config.vocabulary_config = VisionVocabularyConfig(**tower, neck_size=16, compressor_sizes=(24, 32))
    config.text_config = tiny_config(opt=True).text_config
    model = VaryForTraining(config)
    sam = {
        name: torch.randn_like(each) for name, each in model.vision_vocabulary.state_dict().items() if "net" not in name
    }
    torch.save({f"image_encoder.{name}": each for name, each in sam.items()}, tmp_path / "sam.pth")
    convert(tmp_path / "sam.pth", tmp_path / "sam")
    found = load_stage(model, tmp_path / "sam")
    assert found.taken == {f"vision_vocabulary.{name}" for name in sam} and not found.misfits
    assert all(torch.equal(model.vision_vocabulary.state_dict()[name], each) for name, each in sam.items())


@pytest.mark.parametrize("table", [10, 500])
def test_a_decoder_with_another_vocabulary_gives_its_rows(tmp_path, table):
    shape = opt_shape(tiny_config().text_config)
    shape.vocab_size = table
    before = OPTForCausalLM(shape)
    before.save_pretrained(tmp_path)
    model = VaryForTraining(tiny_config(opt=True))
    found = load_stage(model, tmp_path)
    old, new = before.get_input_embeddings().weight, model.get_input_embeddings().weight
    rows = min(len(old), len(new))
    assert torch.equal(old[:rows], new[:rows]) and not found.misfits


def test_a_decoder_that_changes_its_scores_is_refused(ten, tmp_path):
    shape = json.loads(Path(TINY).read_text())
    shape["text_config"]["logit_scale"] = 0.5
    (tmp_path / "scaled.json").write_text(json.dumps(shape))
    chosen = recipe(ten, tmp_path / "run")
    chosen.model.preset = str(tmp_path / "scaled.json")
    with pytest.raises(RecipeError, match="changes its scores .logit_scale."):
        build(chosen)


def test_a_checkpoint_that_does_not_fit_is_said(ten, tmp_path):
    save_file({"something.else": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(RecipeError, match="nothing in .* belongs to this model"):
        build(recipe(ten, tmp_path, init=(str(tmp_path),)))
    width = VaryConfig.preset(TINY).text_config.hidden_size
    state = {"model.norm.weight": torch.zeros(width), "lm_head.weight": torch.zeros(9, 7)}
    save_file(state, tmp_path / "model.safetensors")
    assert "not taken: lm_head.weight" in build(recipe(ten, tmp_path, init=(str(tmp_path),)))[2]


def test_the_curve_runs_on_over_resumes_and_over_runs(tmp_path, capsys):
    for name, rows in {"one": [(1, 10), (2, 20), (3, 30), (2, 5), (3, 15)], "two": [(1, 7)]}.items():
        lines = [json.dumps({"step": step, "seconds": seconds, "loss": 2.0}) for step, seconds in rows]
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.jsonl").write_text("\n".join([*lines, '{"step": 3, "seconds": 31}']))
    found = [(row["step"], round(row["hours"] * 3600)) for row in read_metrics(tmp_path / "one")]
    assert found == [(1, 10), (2, 35), (3, 45)]
    assert main(["curve", str(tmp_path / "one"), str(tmp_path / "two"), "--out", str(tmp_path / "curve.png")]) == 0
    with Image.open(tmp_path / "curve.png") as picture:
        assert picture.width > 500
    assert main(["curve", str(tmp_path)]) == 2 and "no metrics.jsonl" in capsys.readouterr().err


def test_a_run_is_not_overwritten(ten, tmp_path, capsys):
    run(recipe(ten, tmp_path / "run", max_steps=1, save_steps=1))
    path = tmp_path / "recipe.yaml"
    path.write_text(f"output: {tmp_path / 'run'}\nmodel: {{preset: {TINY}}}\ndata: [{{path: {ten}}}]\n")
    assert main(["run", str(path)]) == 2
    assert "continue it with --resume" in capsys.readouterr().err


def test_bad_samples_are_counted_and_said(ten, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(ten, folder)
    lines = (folder / "samples.jsonl").read_text().splitlines()
    lines[3] = "{broken"
    (folder / "images" / "000" / "000001.png").write_bytes(b"no picture")
    (folder / "samples.jsonl").write_text("\n".join(lines) + "\n")
    said = []
    run(recipe(folder, tmp_path / "run", max_steps=2), say=said.append)
    text = "\n".join(said)
    assert "samples.jsonl line 4: not JSON" in text
    assert "000001.png" in text
    assert said[-1].startswith("2 bad samples")


def test_export_halves_the_weights_and_still_loads(ten, tmp_path, capsys):
    run(recipe(ten, tmp_path / "run", max_steps=1))
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "out")]) == 0
    assert "MiB" in capsys.readouterr().out
    whole, half = (load_file(tmp_path / name / "model.safetensors") for name in ("run", "out"))
    assert whole.keys() == half.keys()
    assert {tensor.dtype for name, tensor in half.items() if "running" not in name} == {torch.float16, torch.int64}
    samples = list(read_samples(ten))[:2]
    assert len(read_all(tmp_path / "out", samples)) == 2


def test_a_part_for_pictures_goes_along_with_what_was_trained_on_text(ten, tmp_path):
    run(recipe(ten, tmp_path / "base", max_steps=1))
    shutil.copytree(tmp_path / "base", tmp_path / "base" / "pictures")
    run(recipe(ten, tmp_path / "run", init=(str(tmp_path / "base"),), max_steps=1))
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "out")]) == 0
    reader = Reader.from_pretrained(str(tmp_path / "out"), "cpu")
    assert reader.picture_engine is not reader.engine


@pytest.mark.slow
def test_compiled_parts_give_the_same_losses(ten, tmp_path):
    for name in ("plain", "compiled"):
        run(recipe(ten, tmp_path / name, max_steps=3, compile=name == "compiled"))
    assert losses(tmp_path / "compiled") == pytest.approx(losses(tmp_path / "plain"), rel=1e-4)


def test_copies_of_a_sample_do_not_share_a_batch(ten):
    data = SampleDataset([DataSettings(str(ten), share=8)], 0, BadSamples())
    order = list(SizeSampler([(1, place % 10) for place in range(80)], data.spans, batch=5, seed=0))
    batches = [order[start : start + 5] for start in range(0, 80, 5)]
    assert sorted(order) == list(range(80))
    assert all(len({data.samples[index].id for index in batch}) == 5 for batch in batches)


def test_a_sample_is_tokenized_and_planned_once(ten, tmp_path, monkeypatch):
    """With heads, guide and place tokens, which all need its tokens or where they stand."""
    calls = Counter()
    for owner, name in ((VaryProcessor, "encode"), (VaryImageProcessor, "plan")):
        original = getattr(owner, name)
        monkeypatch.setattr(
            owner, name, lambda *rest, original=original, name=name: calls.update([name]) or original(*rest)
        )
    objectives = {
        "letters": Letters.Settings(weight=0.5, aligned=True),
        "guide": GuidedAttention.Settings(weight=0.3, layers=[1]),
    }
    run(recipe(ten, tmp_path / "run", objectives, max_steps=2))  # of five samples each
    assert calls == {"encode": 10, "plan": 10}


def test_place_tokens_begin_as_the_codes_that_they_name(model, processor):
    """What the decoder gets for the third row and for the fifth column differs from other rows and columns by it."""
    table = model.get_input_embeddings().weight
    before, layer = table.detach().clone(), model.vision_vocabulary.place.weight.detach().clone()
    begin_places(model, processor)
    assert torch.equal(model.vision_vocabulary.place.weight, FACTOR * layer)
    changed = (table != before).any(1).nonzero().flatten().tolist()
    tokens = [f"<{axis}_{number}>" for axis in "yx" for number in range(processor.places)]
    assert set(changed) == set(processor.tokenizer.convert_tokens_to_ids(tokens))
    width = model.config.vocabulary_config.hidden_size
    seen = (
        model.vision_vocabulary.place(place_codes(6, 12, width, "cpu")[0]) @ model.connector.mm_projector_vary.weight.T
    )
    rows = seen[:, 4] - seen[0, 4]
    token = table[processor.tokenizer.convert_tokens_to_ids(["<y_3>", "<y_0>"]), -seen.shape[-1] :]
    torch.testing.assert_close(token[0] - token[1], rows[3])
    columns = seen[2] - seen[2, 0]
    token = table[processor.tokenizer.convert_tokens_to_ids(["<x_5>", "<x_0>"]), -seen.shape[-1] :]
    torch.testing.assert_close(token[0] - token[1], columns[10])  # two tokens of 8 pixels a place

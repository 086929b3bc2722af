"""The memory planner: it agrees with what a real step takes, and each saving that is turned off shows."""

import json
import re
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from conftest import RECIPES, ROOT, tiny_recipe

import train.objectives.text
from train.__main__ import main
from train.loop import run
from train.memory.advice import verdict
from train.memory.inference import plan_reading
from train.memory.plan import GIB, RESERVE, dummy_batch, plan
from train.memory.reading import PROMPT
from train.recipe import DataSettings, LoraSettings, ModelSettings, Recipe, RecipeError, TrainSettings, load_recipe
from varytoy.devices.doctor import NEEDS
from varytoy.models.config import VaryConfig, read_preset
from varytoy.models.vary import VaryForConditionalGeneration
from varytoy.processing.processor import IGNORED

TOKENS, WIDTH, INNER, LAYERS, WORDS = 1024, 256, 688, 2, 30000


@pytest.fixture(scope="module")
def shape(tmp_path_factory) -> str:
    """Vary-toy with the published towers' grid and a small decoder."""
    tree = read_preset("vary-toy")
    tree["text_config"] |= {
        "hidden_size": WIDTH,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "vocab_size": WORDS,
        **{f"{name}_token_id": 0 for name in ("bos", "eos", "pad")},
    }
    tree["image_token_id"] = WORDS - 1
    tree["clip_config"] = {"width": 64, "layers": 2}
    tree["vocabulary_config"] = {"num_layers": 2, "hidden_size": 192, "num_heads": 3, "global_layers": [1]}
    path = tmp_path_factory.mktemp("shape") / "small.json"
    path.write_text(json.dumps(tree))
    return str(path)


def small(shape: str, **settings) -> Recipe:
    train = TrainSettings(batch_size=1, max_length=TOKENS, **settings)
    return Recipe(
        stage="pretrain",
        output="unused",
        model=ModelSettings(preset=shape),
        data=[DataSettings("unused")],
        freeze=["vision_vocabulary", "clip"],
        train=train,
    )


@pytest.fixture(scope="module")
def least(shape):
    """All savings together: recipe, plan and the sizes of what is trained."""
    recipe = small(
        shape,
        optimizer="adamw_bnb_8bit",
        weights="bf16",
        in_backward=True,
        clip_norm=0.0,
        gradient_checkpointing=True,
    )
    with torch.device("meta"):
        model = train.model.assemble(recipe)
        train.model.freeze(model, recipe.freeze)
    return recipe, plan(recipe), [parameter.numel() for parameter in model.parameters() if parameter.requires_grad]


def without(least, **settings) -> float:
    """How many bytes the peak rises by when these settings of the recipe are other ones."""
    recipe, found, _ = least
    return plan(replace(recipe, train=replace(recipe.train, **settings))).peak - found.peak


def test_without_8_bit_state(shape, least):
    sizes = least[2]
    packed = plan(small(shape, optimizer="adamw_bnb_8bit"))
    plain = plan(small(shape, optimizer="adamw_torch_fused"))
    assert plain.peak - packed.peak == pytest.approx((8 - 2) * sum(sizes), rel=0.05)
    assert packed.kinds["optimizer state"] == pytest.approx(2 * sum(sizes), rel=0.05)


def test_without_steps_in_backward(least):
    rise = without(least, in_backward=False)  # all gradients stand together, where there was one of the largest
    assert 0.5 * 2 * (sum(least[2]) - max(least[2])) < rise < 1.1 * 2 * sum(least[2])


def test_gradients_stand_while_the_next_micro_batch_comes(shape, least):
    one, two = (plan(small(shape, optimizer="adamw_torch_fused", accumulation=count)) for count in (1, 2))
    assert two.phases["forward: loss"] - one.phases["forward: loss"] == pytest.approx(4 * sum(least[2]), rel=0.05)


def test_without_checkpointing(least):
    recipe, found, _ = least
    plain = plan(replace(recipe, train=replace(recipe.train, gradient_checkpointing=False)))
    layer = TOKENS * (6 * WIDTH + 4 * INNER) * 2  # at least: inputs of the products, in 16 bits
    assert plain.peak > found.peak
    assert LAYERS * layer < plain.kinds["activations"] - found.kinds["activations"] < 3 * LAYERS * layer


def test_without_the_chunked_loss(least, monkeypatch):
    def plain(hidden, weight, labels, **options):
        scores = (hidden @ weight.T).float()
        return torch.nn.functional.cross_entropy(
            scores.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum"
        )

    monkeypatch.setattr(train.objectives.text, "chunked_cross_entropy", plain)
    rise = without(least)
    scores = TOKENS * WORDS * 4
    assert scores < rise < 4 * scores


def most_allocated(profile: torch.profiler.profile) -> int:
    """Bytes, beyond what stood when the profile began."""
    now = most = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_plan_is_what_a_real_step_takes(shape, precision):
    """Measured by torch's own profiler of memory, on the CPU; its kernels' hidden buffers are not in the plan."""
    recipe = small(shape, precision=precision, optimizer="adamw_torch_fused", gradient_checkpointing=True)
    found = plan(recipe)
    model = train.model.assemble(recipe)
    train.model.freeze(model, recipe.freeze)
    model.train()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, fused=True)
    ids = torch.zeros(1, TOKENS, dtype=torch.long)
    ids[:, :256] = WORDS - 1
    batch = {"input_ids": ids, "labels": ids.masked_fill(ids > 0, IGNORED)}
    batch |= {"pixel_values": torch.randn(1, 3, 1024, 1024), "clip_pixel_values": torch.randn(1, 3, 224, 224)}

    def step(mixed: bool) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    step(False)  # makes the optimizer's state; bf16 is slow on most CPUs
    kept = [*model.parameters(), *model.buffers(), *batch.values()]
    kept += [value for state in optimizer.state.values() for value in state.values()]
    before = sum({tensor.data_ptr(): tensor.nbytes for tensor in kept}.values())
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step(precision == "bf16")
    most = most_allocated(profile)
    assert (before + most) / found.peak == pytest.approx(1.0, abs=0.1)


def test_reading_takes_what_is_planned(shape):
    """As above, for ``needs``: two pages at once in fp16, on the CPU; then what packing must save."""
    found = plan_reading(shape, pages=2, answer=60)
    model = VaryForConditionalGeneration(VaryConfig.preset(shape)).half().eval()
    ids = torch.zeros(2, 256 + 40, dtype=torch.long)
    ids[:, :256] = WORDS - 1
    pictures = {"pixel_values": torch.randn(2, 3, 1024, 1024), "clip_pixel_values": torch.randn(2, 3, 224, 224)}
    before = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    with (
        torch.no_grad(),
        torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile,
    ):
        model(ids, **pictures, logits_to_keep=1)
    most = most_allocated(profile)
    pixels = sum(tensor.nbytes for tensor in pictures.values())
    assert (before + pixels + most) / found.peak == pytest.approx(1.0, abs=0.1)
    linears = LAYERS * (4 * WIDTH * WIDTH + 3 * WIDTH * INNER)
    for quantize, size in (("int8", 1.0), ("nf4", 0.5)):
        packed = plan_reading(shape, quantize, pages=2, answer=60)
        assert found.kinds["weights"] - packed.kinds["weights"] == pytest.approx((2 - size) * linears, rel=0.05)


def test_adapters_and_four_bits(shape, least):
    lora = LoraSettings(rank=8)
    base = small(shape, weights="bf16", precision="bf16", gradient_checkpointing=True)
    adapters = plan(replace(base, lora=lora))
    packed = plan(replace(base, lora=replace(lora, quantize="nf4")))
    assert packed.peak < adapters.peak < least[1].peak
    linears = LAYERS * (4 * WIDTH * WIDTH + 3 * WIDTH * INNER)
    assert adapters.kinds["weights"] - packed.kinds["weights"] == pytest.approx(1.5 * linears, rel=0.05)
    assert "NF4" in packed.approximations[0]


def test_the_last_line_is_the_answer(shape, tmp_path, capsys):
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"model: {{preset: {shape}}}\ndata: [{{path: unused}}]\ntrain: {{max_length: 600, batch_size: 1}}\n"
    )
    assert main(["memory", str(path), "--gpu", "1.2"]) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("does not fit: ") and " train." in last
    words, size = re.search(r"((?:train\.\S+ )+).*?([\d.]+) GiB$", last).groups()
    assert main(["memory", str(path), *words.split(), "--gpu", "1.2"]) == 0  # the advice is planned, and it fits
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"fits: {size} ")
    assert main(["memory", str(path), *words.split(), "--gpu", "1"]) == 1
    assert re.search(r"--overlay lora\b.*\bqlora$", capsys.readouterr().out.splitlines()[-1])
    assert main(["memory", str(path), "--tokens", "200"]) == 2
    assert re.search(r"\b256\b.*\b200\b", capsys.readouterr().err)


def test_measured_beside_the_plan(shape, tmp_path, capsys):
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"stage: sft\nmodel: {{preset: {shape}}}\nfreeze: [vision_vocabulary, clip]\ndata: [{{path: unused}}]\n"
        "lora: {rank: 4}\ntrain: {max_length: 300, batch_size: 1}\n"
    )
    assert main(["memory", str(path), "train.precision=fp16", "train.weights=fp16", "--measure"]) == 2
    assert re.search(r"train\.precision=fp16 .*\btrain\.weights\b.*\bbf16\b", capsys.readouterr().err)
    command = [sys.executable, "-m", "train", "memory", str(path), "--measure"]  # a process of its own is what grows
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    said = re.search(r"measured on (.+): peak ([\d.]+) GiB \(planned ([\d.]+)", out)
    assert 0.5 * float(said[3]) < float(said[2]) < 4 * float(said[3])  # a CPU's process has more than its tensors


def test_an_evaluation_is_planned_beside_the_optimizer(shape):
    """Two answers so long that their keys and values are most of it; then many short ones, whose images are."""
    recipe = small(shape, evaluate_steps=5, evaluate_on="unused", evaluate_batch=2, evaluate_tokens=60_000)
    plain, found = plan(replace(recipe, train=replace(recipe.train, evaluate_steps=0))), plan(recipe)
    assert not any(phase.startswith("evaluation") for phase in plain.phases)
    cache = 2 * LAYERS * 2 * (256 + PROMPT + 60_000) * WIDTH * 4  # in 32 bits
    assert found.kinds["keys and values"] == pytest.approx(cache, rel=0.01)
    assert found.phase == "evaluation: last token" and found.peak > plain.peak
    assert found.peak > cache + found.kinds["weights"] + found.kinds["optimizer state"]
    assert found.phases["clipping"] == plain.phases["clipping"] and "gradients" not in found.kinds
    alone = plan(recipe, steps=False)
    assert alone.peak == pytest.approx(found.peak, rel=0.001) and "backward: decoder" not in alone.phases
    said = verdict(found, recipe, card=(0.75 * found.peak + RESERVE) / GIB)
    assert re.search(r"^does not fit.*with train\.evaluate_batch=1 it is", said), said
    many, fewer = (
        plan(replace(recipe, train=replace(recipe.train, evaluate_batch=batch, evaluate_tokens=10)), steps=False)
        for batch in (16, 8)
    )
    assert many.phase == "evaluation: pictures and prompt"
    assert 0.5 * many.peak < fewer.peak < 0.6 * many.peak


def test_an_evaluation_takes_what_is_planned(shape):
    """transformers' generate, measured by torch's profiler."""
    rows, answer = 4, 20
    settings = {"evaluate_steps": 5, "evaluate_on": "unused", "evaluate_batch": rows, "evaluate_tokens": answer}
    recipe = small(shape, optimizer="sgd", **settings)
    found = plan(recipe, steps=False)
    model = train.model.assemble(recipe).eval()
    batch = dummy_batch(model, rows, 256 + PROMPT, 1)
    del batch["labels"]
    pixels = sum(tensor.nbytes for name, tensor in batch.items() if "pixel" in name)  # made before the profile begins
    length = {"max_new_tokens": answer, "min_new_tokens": answer, "do_sample": False, "pad_token_id": 0}
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        model.generate(**batch, attention_mask=torch.ones_like(batch["input_ids"]), **length)
    assert found.peak - found.kinds["weights"] == pytest.approx(most_allocated(profile) + pixels, rel=0.1)


@pytest.mark.parametrize("rank", [0, 4])
def test_the_disk_takes_what_is_said(two, tmp_path, rank):
    """With 32-bit states: 8-bit ones of small tensors stay in 32 bits, and these are all small."""
    settings = {"max_steps": 1, "save_steps": 1, "keep": 1, "batch_size": 2, "optimizer": "adamw_torch"}
    recipe = tiny_recipe(two, tmp_path / "run", clip=True, **settings)
    recipe.freeze, recipe.lora = ["vision_vocabulary", "clip"] * bool(rank), LoraSettings(rank=rank)
    run(recipe)

    def size(*patterns: str) -> int:
        return sum(file.stat().st_size for pattern in patterns for file in (tmp_path / "run").glob(pattern))

    found = {need.what: need.size for need in plan(recipe).needs if need.where == "disk"}
    assert found["weights in 2 checkpoints"] / 2 == pytest.approx(size("checkpoint-1/*.safetensors"), rel=0.1)
    assert found["optimizer state in 2 checkpoints"] / 2 == pytest.approx(size("checkpoint-1/optimizer.pt"), rel=0.2)
    assert found["the finished model"] == pytest.approx(size("*.safetensors"), rel=0.1)
    assert found.get("base of the adapters", 0) == pytest.approx(size("base/*.safetensors"), rel=0.1)


def test_each_row_names_the_setting_that_lowers_it(ten, shape, tmp_path, capsys):
    path = tmp_path / "recipe.yaml"
    path.write_text(f"stage: sft\nmodel: {{preset: {shape}}}\ndata: [{{path: {ten}}}]\ntrain: {{batch_size: 1}}\n")
    settings = ["train.workers=3", "train.evaluate_steps=9", "train.held_out=0.1", "train.max_length=600"]
    assert main(["memory", str(path), *settings]) == 0
    said = capsys.readouterr().out
    for what, setting in (
        ("optimizer state", "train.optimizer=adamw_bnb_8bit"),
        ("activations", "train.batch_size"),
        ("3 loader processes", "train.workers"),
        ("6 batches made ahead", "train.workers, train.batch_size"),
        ("3 images of", "train.workers"),
        ("weights in 3 checkpoints", "train.keep"),
        ("optimizer state in 3 checkpoints", "train.optimizer=adamw_bnb_8bit, train.keep"),
    ):
        assert re.search(rf"{what} .*GiB +lower: {setting}", said), (what, said)
    assert "evaluation: last token" in said


def test_deepspeed_of_another_kind_is_refused(shape):
    recipe = small(shape, precision="bf16", deepspeed=str(RECIPES / "deepspeed" / "zero3.json"))
    with pytest.raises(RecipeError, match="zero2-offload.json"):
        plan(recipe)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("base", "overlay", "tokens", "most"),
    [
        ("vary_toy/sft", "full-8bit", 2048, 10.2),
        ("vary_toy/sft", "lora", 2048, 7.0),
        ("vary_toy/sft", "qlora", 2048, 4.5),
        ("vary_toy/sft", "full-offload", 4096, 10.2),
        ("vary_tiny/vocabulary", "11gb", 1024, 8.0),
    ],
)
def test_full_size_recipes_fit(base, overlay, tokens, most):
    """The promise of the README, at micro-batch 1 with one picture of 256 tokens; and what the overlay says is so."""
    path = RECIPES / f"{base}.yaml"
    recipe = load_recipe(path, ["train.batch_size=1", f"train.max_length={tokens}"], [overlay])
    found = plan(recipe)
    assert found.peak <= most * GIB and found.fits(11)
    assert overlay == "11gb" or found.peak / GIB == pytest.approx(NEEDS[f"train {overlay}"], abs=0.01)  # the doctor's
    said = float(re.search(r"([\d.]+) GiB", (RECIPES / f"overlays/{overlay}.yaml").read_text()).group(1))
    own = load_recipe(path, overlays=[overlay])
    computed = found.peak if own.train.batch_size == 1 and own.train.max_length == tokens else plan(own).peak
    assert computed / GIB == pytest.approx(said, abs=0.05)


@pytest.mark.slow
def test_what_reading_needs_is_what_the_pages_say(capsys):
    assert main(["needs"]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    page = (ROOT / "varytoy" / "checkpoints" / "README.md").read_text(encoding="utf-8")
    assert len(rows) == 4 and all(row in page for row in rows[1:])
    cells = next(row for row in rows if row.startswith("| Vary-toy")).split(" | ")
    assert (float(cells[3]), float(cells[7])) == (NEEDS["read"], NEEDS["read in nf4"])


@pytest.mark.slow
@pytest.mark.parametrize(("base", "overlay"), [("pretrain", "pretrain-full-8bit"), ("sft", "full-8bit")])
def test_what_cannot_accumulate_has_the_largest_micro_batch(base, overlay):
    recipe = load_recipe(RECIPES / "vary_toy" / f"{base}.yaml", overlays=[overlay])
    assert plan(recipe).fits(11)
    assert not plan(replace(recipe, train=replace(recipe.train, batch_size=recipe.train.batch_size + 1))).fits(11)

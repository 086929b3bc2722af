"""Real DeepSpeed on the CPU, alone, with bitsandbytes and in two processes, and what it keeps in memory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, TINY, launch, losses, start_of


@pytest.mark.slow
@pytest.mark.parametrize(
    ("optimizer", "deepspeed"),
    [
        ("adamw_bnb_8bit", ""),
        ("adamw_torch", "zero2.json"),
        ("adamw_bnb_8bit", "zero2.json"),
        ("adamw_torch", "zero3.json"),
    ],
)
def test_eight_bit_and_zero_train(ten, tmp_path, optimizer, deepspeed):
    """Real bitsandbytes and real DeepSpeed, alone and together: the loss falls and the optimizer is the asked one."""
    output = tmp_path / "run"
    path = tmp_path / "recipe.yaml"
    path.write_text(f"stage: pretrain\noutput: {output}\nmodel: {{preset: {TINY}}}\ndata: [{{path: {ten}}}]\n")
    zero = [f"train.deepspeed={ROOT / 'train' / 'recipes' / 'deepspeed' / deepspeed}"] if deepspeed else []
    said = launch(
        path,
        f"train.optimizer={optimizer}",
        "train.max_steps=8",
        "train.batch_size=5",
        "train.learning_rate=2e-3",
        "train.log_steps=1",
        "train.save_steps=8",
        *zero,
    )
    found = losses(output)
    assert found[-1] < found[0]
    assert (output / "model.safetensors").is_file()
    name = {"adamw_torch": "torch.AdamW", "adamw_bnb_8bit": "bitsandbytes.AdamW"}[optimizer]
    if "8bit" in optimizer and not deepspeed:
        name = "train.RoundingAdamW8bit"
    assert f"optimizer: {name}," in said
    assert ("uint8" in said) == ("8bit" in optimizer)


@pytest.mark.slow
@pytest.mark.parametrize("deepspeed", ["zero2.json", "zero3.json"])
def test_two_processes_are_one_with_the_double_batch(ten, tmp_path, deepspeed):
    path = tmp_path / "recipe.yaml"
    path.write_text(f"stage: pretrain\nmodel: {{preset: {TINY}}}\ndata: [{{path: {ten}}}]\n")
    zero = f"train.deepspeed={ROOT / 'train' / 'recipes' / 'deepspeed' / deepspeed}"
    settings = ["train.max_steps=6", "train.log_steps=1", "train.learning_rate=2e-3", "train.save_steps=6", zero]
    launch(path, f"output={tmp_path / 'one'}", "train.batch_size=10", *settings)
    launch(path, f"output={tmp_path / 'two'}", "train.batch_size=5", *settings, processes=2)
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=2e-3)


@pytest.mark.slow
def test_deepspeed_keeps_on_the_host_what_the_planner_says(ten, tmp_path):
    """The planner's terms against a real engine's buffers, read where DeepSpeed keeps them."""
    tree = json.loads(Path(TINY).read_text())  # without batch norm, which DeepSpeed's 16 bits do not suit on a CPU
    tree["vocabulary_config"] = {"image_size": 64, "hidden_size": 32, "num_layers": 1, "num_heads": 2}
    tree["vocabulary_config"] |= {"window_size": 0, "global_layers": [0], "neck_size": 16, "compressor_sizes": [16, 32]}
    tree["processor"]["image_processor"] |= {"mode": "squash", "size": [64, 64], "stride": [64, 64]}
    shape = tmp_path / "shape.json"
    shape.write_text(json.dumps(tree))
    path = tmp_path / "recipe.yaml"
    offload = ROOT / "train" / "recipes" / "deepspeed" / "zero2-offload.json"
    path.write_text(
        f"stage: pretrain\noutput: {tmp_path / 'run'}\nmodel: {{preset: {shape}}}\ndata: [{{path: {ten}}}]\n"
        f"train: {{max_steps: 2, batch_size: 5, precision: bf16, deepspeed: {offload}}}\n"
    )
    look = f"""
import sys, json, varytoy, train.loop
from train.recipe import load_recipe
from train.memory.zero import zero_terms
seen = [0]
from deepspeed.runtime.zero.stage_1_and_2 import DeepSpeedZeroOptimizer as Zero
plain = Zero.reduce_ipg_grads
def watch(self, *arguments, **options):
    seen.extend(buffer.nbytes for bucket in self.ipg_buckets.values() for buffer in bucket.buffer)
    return plain(self, *arguments, **options)
Zero.reduce_ipg_grads = watch
def look(trainer):
    zero = trainer.model_wrapped.optimizer
    sizes = [p.numel() for p in trainer.model_wrapped.module.parameters() if p.requires_grad]
    terms = zero_terms({str(offload)!r}, sizes, 1)
    kept = [zero.temp_grad_buffer_for_cpu_offload, *zero.param_buffer_of_bit16_for_cpu_offload_groups]
    for part in zero.single_partition_of_fp32_groups:
        kept += [part, part.grad]
        kept += [value for value in zero.optimizer.state[part].values() if hasattr(value, "nbytes")]
    host = sum(tensor.nbytes for tensor in kept if tensor is not None)
    card = zero.temp_grad_buffer_for_gpu_offload.nbytes
    print("LOOK", json.dumps([terms.host, host, terms.largest, card, terms.bucket, max(seen)]))
    return "looked"
train.loop.describe_optimizer = look
train.loop.run(load_recipe({str(path)!r}))
"""
    command = {**start_of(path), "args": [sys.executable, "-c", look]}
    done = subprocess.run(**command, capture_output=True, text=True, timeout=600)
    assert "LOOK" in done.stdout, done.stderr[-3000:]
    said = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("LOOK"))[5:])
    host, real_host, largest, real_largest, bucket, real_bucket = said
    assert host == pytest.approx(real_host, rel=0.02) and (largest, bucket) == (real_largest, real_bucket)

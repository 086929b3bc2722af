"""Machine set-up of a run: GPUs, processes, DeepSpeed's environment."""

import os
import platform
import socket
import time
from pathlib import Path

import torch

from train.recipe import Recipe, RecipeError, read_zero

STALE = 300
"""Seconds after which a compilation's lock is stale, if nobody compiles."""


def distributed_defaults() -> None:
    """Set the rank variables that DeepSpeed needs; a plain ``python -m train run`` is a group of one process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    defaults = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    if "RANK" not in os.environ:
        os.environ.update({name: str(value) for name, value in defaults.items()})
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")


def allow_old_cards(report) -> None:
    """Allow fp16 below compute capability 7 (a GTX 10-series GPU has 6.1), which DeepSpeed refuses by default."""
    if torch.cuda.is_available() and torch.cuda.get_device_capability() < (7, 0):
        os.environ["DS_ALLOW_DEPRECATED_FP16"] = "1"
        report(f"{torch.cuda.get_device_name()}: DS_ALLOW_DEPRECATED_FP16=1 is set, for DeepSpeed to take fp16 on it")


def report_slow_bf16(recipe: Recipe, report) -> None:
    """Report bf16 on a CPU without instructions for it, where a step takes many times as long as in fp32."""
    asked = next((key for key in ("precision", "weights") if getattr(recipe.train, key) == "bf16"), None)
    if asked is None or torch.cuda.is_available() or platform.machine().lower() not in ("x86_64", "amd64"):
        return
    checks = [getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")]
    if all(check is not None and not check() for check in checks):
        report(f"train.{asked}=bf16: this CPU has no bf16 instructions, which makes steps slow; fp32 is faster here")


def remove_stale_locks(report) -> None:
    """Remove the lock that a killed compilation left, for which DeepSpeed's next one would wait without end.

    A lock is stale when it is over five minutes old and no process of this machine works in its folder.
    """
    import psutil  # DeepSpeed needs it too
    from torch.utils.cpp_extension import get_default_build_root  # needs setuptools, as DeepSpeed does

    root = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or get_default_build_root())
    locks = [lock for lock in root.glob("**/lock") if time.time() - lock.stat().st_mtime > STALE]
    if not locks:
        return
    busy = {process.info["cwd"] for process in psutil.process_iter(["cwd"])}
    for lock in locks:
        if str(lock.parent.resolve()) not in busy:
            lock.unlink(missing_ok=True)
            report(f"removed {lock}, which a killed compilation left")


def check_machine(recipe: Recipe) -> None:
    """Raises RecipeError for settings that do not work on this machine or with this number of processes."""
    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if recipe.train.precision == "fp16" and not cards:
        raise RecipeError("train.precision=fp16 needs a card: on a CPU set it, and train.weights if fp16, to bf16")
    if recipe.train.in_backward and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RecipeError(
            "train.in_backward steps before processes could share their gradients: start one process, or use DeepSpeed"
        )
    spread = recipe.train.deepspeed and read_zero(recipe.train.deepspeed).get("stage") == 3
    if recipe.train.evaluate_steps and spread and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RecipeError(  # what ZeRO-3 gathers without gradients it cannot train with afterwards
            "train.evaluate_steps: ZeRO-3 in several processes cannot generate: set it to 0, or take zero2.json"
        )
    if cards > 1 and "LOCAL_RANK" not in os.environ:
        raise RecipeError(
            f"one process sees {cards} cards: start torchrun --nproc_per_node {cards} -m train run RECIPE, or name one "
            "card in CUDA_VISIBLE_DEVICES"
        )

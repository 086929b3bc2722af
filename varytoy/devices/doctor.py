"""``varytoy doctor``: one line per check, with its reason and fix; the last line lists what this machine can run."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from varytoy._torchvision import ensure_torchvision
from varytoy.devices.precision import choose_precision, version_of
from varytoy.devices.versions import differences
from varytoy.errors import first_line
from varytoy.extras import pip_line

OLD_CARDS = "https://download.pytorch.org/whl/cu126"
"""PyTorch wheels that still have kernels for GPUs before the RTX 20 series."""
RESERVE = 0.8
NEEDS = {
    "read in nf4": 2.97,
    "read": 4.65,
    "train qlora": 4.10,
    "train lora": 5.78,
    "train full-offload": 6.25,
    "train full-8bit": 8.83,
}
"""GiB of GPU memory that Vary-toy needs, without the reserve: ``python -m train needs`` for one page, ``python -m train
memory`` at 2,048 tokens (4,096 with offload), micro-batch 1."""
HOST = {"train full-offload": 34.8}
"""GiB of host memory that it needs."""
GIB = 2**30


@dataclass(frozen=True)
class Finding:
    """Result of a check. ``state``: good, failed (something will not work) or note; ``fix`` is empty if not needed."""

    name: str
    state: str
    text: str
    fix: str = ""

    def __str__(self) -> str:
        mark = {"good": "ok  ", "failed": "FAIL", "note": "note"}[self.state]
        return f"{mark} {self.name}: {self.text}" + (f" -> {self.fix}" if self.fix else "")


def examine(build: bool = True) -> Iterator[Finding]:
    """Run all checks. ``build``: also compile DeepSpeed's CPU Adam, which takes minutes the first time."""
    checks: list[Callable[[], Finding]] = [_torch, _precision, _torchvision, _transformers, _bitsandbytes]
    checks += [_deepspeed if build else _deepspeed_unbuilt, _versions, _host, _cache]
    for check in checks:
        try:
            yield check()
        except Exception as error:  # a broken library may raise anything when it is imported
            yield Finding(check.__name__.strip("_").replace("_unbuilt", ""), "failed", first_line(error))
    yield _can_run()


def _torch() -> Finding:
    version = f"{torch.__version__} on Python {sys.version.split()[0]}"
    if torch.version.hip:
        return Finding("torch", "note", f"{version}, for AMD's cards, on which varytoy was never tried")
    if torch.cuda.is_available():
        capability, archs = torch.cuda.get_device_capability(), torch.cuda.get_arch_list()
        name = f"{torch.cuda.get_device_name()}, capability {capability[0]}.{capability[1]}"
        if not has_kernels(capability, archs):
            text = f"{version} has no kernels for {name}, only {', '.join(archs)}"
            return Finding("torch", "failed", text, f"pip install torch torchvision --index-url {OLD_CARDS}")
        return Finding("torch", "good", f"{version}, with kernels for {name}")
    if shutil.which("nvidia-smi"):
        fix = f"a newer driver, or pip install torch torchvision --index-url {OLD_CARDS}"
        return Finding("torch", "failed", f"{version} finds no GPU, but there is an NVIDIA driver", fix)
    return Finding("torch", "good", f"{version}; no NVIDIA card")


def has_kernels(capability: tuple[int, int], archs: list[str]) -> bool:
    """Whether a build for ``archs`` (sm_61, compute_90 …) runs on a GPU: kernels of the same major and no higher minor
    version, or PTX that the driver compiles."""
    for arch in archs:
        kind, _, digits = arch.partition("_")
        number = "".join(character for character in digits if character.isdigit())
        if not number:
            continue
        major, minor = int(number[:-1]), int(number[-1])
        if kind == "sm" and major == capability[0] and minor <= capability[1]:
            return True
        if kind == "compute" and (major, minor) <= capability:
            return True
    return False


def _precision() -> Finding:
    return Finding("precision", "note", choose_precision().reason)


def _torchvision() -> Finding:
    ensure_torchvision()
    import torchvision

    try:
        torchvision.ops.nms(torch.zeros(1, 4), torch.ones(1), 0.5)
    except (RuntimeError, AttributeError):
        return Finding(
            "torchvision",
            "note",
            f"{torchvision.__version__} was compiled for another torch; varytoy works without its compiled part",
            "pip install --force-reinstall torch torchvision (both in one command)",
        )
    return Finding("torchvision", "good", f"{torchvision.__version__}, its compiled part works")


def _transformers() -> Finding:
    return Finding("transformers", "good", f"{version_of('transformers')}, tokenizers {version_of('tokenizers')}")


def _versions() -> Finding:
    """Differences from the lock file; a version outside the allowed ranges is a failure."""
    versions = differences()
    outside = [f"{version.name} {version.installed} ({version.allowed})" for version in versions if version.allowed]
    others = [
        f"{version.name} {version.installed} (tested: {version.tested})" for version in versions if not version.allowed
    ]
    fix = f"{pip_line('demo')} (with the extras that you use)"
    if outside:
        return Finding("versions", "failed", f"outside the allowed ranges: {', '.join(outside)}", fix)
    if others:
        return Finding("versions", "note", f"not the tested ones: {', '.join(others)}", f"if something fails, {fix}")
    return Finding("versions", "good", "those that varytoy is tested with")


def _bitsandbytes() -> Finding:
    version = version_of("bitsandbytes")
    if version is None:
        return Finding("bitsandbytes", "note", "not installed: no 8-bit AdamW, int8 or NF4", "pip install bitsandbytes")
    from bitsandbytes import functional
    from bitsandbytes.cextension import lib

    if torch.cuda.is_available() and not getattr(lib, "compiled_with_cuda", False):
        fix = "python -m bitsandbytes prints what it looked for; pip install -U bitsandbytes"
        return Finding("bitsandbytes", "failed", f"{version} has no library for CUDA {torch.version.cuda}", fix)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    values = torch.linspace(-1, 1, 4096, device=device)
    packed, state = functional.quantize_4bit(values, quant_type="nf4")
    error = float((functional.dequantize_4bit(packed, state) - values).abs().max())
    if error > 0.2:
        return Finding("bitsandbytes", "failed", f"{version} quantizes wrongly on {device} (error {error:.2f})")
    return Finding("bitsandbytes", "good", f"{version}, quantizes and dequantizes on {device}")


def _deepspeed_unbuilt() -> Finding:
    version = version_of("deepspeed")
    if version is None:
        return Finding("deepspeed", "note", "not installed: one card, no offload", "pip install deepspeed ninja")
    return Finding("deepspeed", "note", f"{version}; its compiled part was not tried (--no-build)")


def _deepspeed() -> Finding:
    version = version_of("deepspeed")
    if version is None:
        return _deepspeed_unbuilt()
    program = "from deepspeed.ops.op_builder import CPUAdamBuilder; CPUAdamBuilder().load(verbose=False)"
    environment = dict(os.environ) | ({} if torch.cuda.is_available() else {"DS_ACCELERATOR": "cpu"})
    command = [sys.executable, "-c", program]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace")
    if process.returncode:
        lines = (process.stdout + process.stderr).splitlines()
        # The compiler's message, not the Python traceback around it.
        message = next((line for line in lines if "error:" in line.lower()), (lines or ["no message"])[-1])
        return Finding(
            "deepspeed",
            "failed",
            f"{version}: CPU Adam, for full-offload, cannot be compiled: {message.strip()}",
            "install a C++ compiler and ninja (apt-get install g++; pip install ninja), or train without offload",
        )
    return Finding("deepspeed", "good", f"{version}, CPU Adam is compiled")


def _host() -> Finding:
    free, total = memory()
    text = f"{free:.1f} of {total:.1f} GiB free on the host"
    if torch.cuda.is_available():
        free, total = (size / GIB for size in torch.cuda.mem_get_info())
        text += f", {free:.1f} of {total:.1f} GiB on the card"
    return Finding("memory", "note", text)


def memory() -> tuple[float, float]:
    """GiB of host memory: available (including the page cache), and total."""
    try:
        rows = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free, total = (int(rows[name].split()[0]) * 1024 / GIB for name in ("MemAvailable", "MemTotal"))
        return free, total
    except (OSError, KeyError, ValueError):
        pages = getattr(os, "sysconf", lambda _: -1)
        try:
            total = pages("SC_PAGE_SIZE") * pages("SC_PHYS_PAGES") / GIB
        except (ValueError, OSError):
            total = 0.0
        return total, total


def _cache() -> Finding:
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = Path(HF_HUB_CACHE)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    there = next(parent for parent in (folder, *folder.parents) if parent.is_dir())
    free = shutil.disk_usage(there).free / GIB
    text = f"{size / GIB:.1f} GiB of models in {folder}, {free:.0f} GiB free there"
    if free < 5:
        return Finding("models", "failed", text, "Vary-toy takes 4.2 GiB: set HF_HOME to a folder on a larger disk")
    return Finding("models", "good", text)


def _can_run() -> Finding:
    """Which of Vary-toy's recipes fit this machine."""
    if not torch.cuda.is_available():
        text = "reading on the CPU (vary-nano easily, Vary-toy slowly), training of vary-nano; Vary-toy's needs a GPU"
        return Finding("this machine", "note", text)
    packed = version_of("bitsandbytes") is not None
    card, host = torch.cuda.mem_get_info()[1] / GIB, memory()[1]
    fits = [name for name, need in NEEDS.items() if need + RESERVE <= card and HOST.get(name, 0) <= host]
    fits = [name for name in fits if packed or name.split()[-1] not in ("nf4", "qlora", "full-8bit")]
    lacks = [f"{name} ({need + RESERVE:.1f} GiB)" for name, need in NEEDS.items() if name not in fits]
    text = f"Vary-toy: {', '.join(fits) or 'nothing'}" + (f"; not {', '.join(lacks)}" if lacks else "")
    return Finding("this machine", "note", text, "python -m train memory RECIPE gives exact numbers")


def report(build: bool = True) -> int:
    """Print all findings. Returns the number of failures."""
    failed = 0
    for finding in examine(build):
        print(finding, flush=True)
        failed += finding.state == "failed"
    return failed

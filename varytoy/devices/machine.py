"""The machine that figures were taken on."""

import os
import platform
from pathlib import Path

import torch


def machine(device: torch.device | None = None) -> str:
    """The name of the GPU, or of the CPU with its cores."""
    if device is not None and device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):  # another system or processor
        name = platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores"

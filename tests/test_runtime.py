"""Device, numbers and packing are chosen with a reason, and the doctor names what is wrong and its fix."""

import copy
import re
import subprocess
import sys

import pytest
import torch
from conftest import noise, tiny_config, tiny_model
from originals import vary_toy

from varytoy.cli import main
from varytoy.devices import doctor, versions
from varytoy.devices.precision import DeviceError, Precision, choose_precision, place
from varytoy.inference.onnx_branches import run_in_onnx


@pytest.fixture
def card(monkeypatch):
    """Pretends that there is a card of some capability, for the policy alone."""

    def pretend(capability: tuple[int, int] | None, archs: list[str] | None = None, size: float = 11.0) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: capability is not None)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "Card")
        monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: archs or ["sm_75", "sm_80", "sm_90"])
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (int(size * 2**30), int(size * 2**30)))

    return pretend


@pytest.mark.parametrize(
    ("capability", "storage", "compute", "reason"),
    [
        ((6, 1), "fp16", "fp32", r"Card\b.*\b6\.1\b.*\bfp16\b.*\bfp32\b.*\bno bf16$"),
        ((7, 5), "fp16", "fp16", r"Card\b.*\b7\.5\b.*\bfp16\b.*\bno bf16$"),
        ((8, 6), "bf16", "bf16", r"Card\b.*\b8\.6: bf16$"),
        ((9, 0), "bf16", "bf16", r"Card\b.*\b9\.0: bf16$"),
        (None, "fp32", "fp32", r"CPU: fp32\b.*--dtype bf16\b"),
    ],
)
def test_numbers_by_capability(card, capability, storage, compute, reason):
    card(capability)
    found = choose_precision()
    assert (found.storage, found.compute) == (storage, compute) and re.match(reason, found.reason)
    assert found.device == ("cpu" if capability is None else "cuda")


def test_wishes(card):
    card((6, 1))
    assert choose_precision(dtype="fp32").storage == "fp32"
    assert (choose_precision(dtype="fp16").compute, choose_precision(quantize="nf4").quantize) == ("fp32", "nf4")
    found = choose_precision(quantize="int8")
    assert (found.device, found.storage, found.compute, found.quantize) == ("cuda", "fp16", "fp32", "")
    assert re.search(r"\b6\.1\b.*\bint8\b.*\b7\.5\b", found.reason)
    for wish in ({"dtype": "bf16"}, {"dtype": "int4"}, {"quantize": "int2"}, {"device": "tpu"}, {"device": "cuda:9"}):
        with pytest.raises(DeviceError):
            choose_precision(**wish)
    card(None)
    with pytest.raises(DeviceError, match="'cuda'.*varytoy doctor"):
        choose_precision("cuda")
    assert choose_precision("cpu", "fp16").compute == "fp32"


@pytest.mark.parametrize("storage", ["fp16", "bf16"])
def test_narrow_storage_computes_as_wide_weights_of_the_same_values(storage):
    model = tiny_model(tiny_config())
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}[storage]
    wanted = copy.deepcopy(model)
    for parameter in wanted.parameters():
        parameter.data = parameter.data.to(dtype).float()
    found = place(copy.deepcopy(model), Precision("cpu", storage, "fp32"))
    inputs = {"input_ids": torch.tensor([[7, 5, 5, 5, 5, 9, 11]]), "pixel_values": torch.randn(1, 3, 32, 16)}
    inputs |= {"clip_pixel_values": torch.randn(1, 3, 32, 32), "image_sizes": torch.tensor([[32, 16]])}
    with torch.no_grad():
        assert torch.equal(found(**inputs).logits, wanted(**inputs).logits)
    layers = [each.weight.dtype for each in found.modules() if isinstance(each, (torch.nn.Linear, torch.nn.Embedding))]
    assert set(layers) == {dtype}
    narrow = place(copy.deepcopy(model), Precision("cpu", "bf16", "bf16"))
    frequencies = [each for name, each in narrow.named_buffers() if "inv_freq" in name]
    assert frequencies and all(each.dtype == torch.float32 for each in frequencies)


@pytest.mark.parametrize(("kind", "most"), [("int8", 0.05), ("nf4", 0.35), ("dynamic-int8", 0.08)])
def test_a_packed_decoder_is_near_the_plain_one(kind, most, tmp_path):
    config = tiny_config()
    config.text_config.hidden_size, config.text_config.intermediate_size = 128, 192
    config.text_config.initializer_range = 0.05
    model = tiny_model(config)
    ids = torch.randint(6, 200, (1, 20), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = model(ids).logits
        packed = place(copy.deepcopy(model), Precision("cpu", "fp32", "fp32", kind))(ids).logits
    assert 0 < float((packed - plain).norm() / plain.norm()) < most
    if kind == "dynamic-int8":  # which takes layers of any width, and fp32 alone
        assert place(tiny_model(tiny_config()), Precision("cpu", "fp32", "fp32", kind))(ids).logits.isfinite().all()
        narrow = choose_precision("cpu", "bf16", kind)
        assert narrow.quantize == "" and "not dynamic-int8" in narrow.reason
        return
    with pytest.raises(DeviceError, match=r"--quantize: .*\b48\b.*\b64\b"):
        place(tiny_model(tiny_config()), Precision("cpu", "fp32", "fp32", kind))


def test_the_branches_of_a_reader_run_in_onnxruntime():
    pytest.importorskip("onnxruntime")
    model, pixels = tiny_model(tiny_config()), torch.randn(2, 2, 3, 32, 32)
    runs = copy.deepcopy(model)
    run_in_onnx(runs)
    for sizes in (None, torch.tensor([[32, 16], [16, 32]])):
        with torch.no_grad():
            wanted = model.vision_vocabulary(pixels[0], sizes), model.clip(pixels[1])
            found = runs.vision_vocabulary(pixels[0], sizes), runs.clip(pixels[1])
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    with pytest.raises(DeviceError, match="--dtype fp32"):
        run_in_onnx(model.half())


def test_read_says_what_it_did_not_do(tmp_path, card, capsys, monkeypatch):
    vary_toy(tmp_path / "x")
    noise(60, 40).save(tmp_path / "page.png")
    asked = ["read", str(tmp_path / "page.png"), "--model", str(tmp_path / "x"), "--max-new-tokens", "2"]
    assert main([*asked, "--dtype", "bf16"]) == 0
    assert main([*asked, "--dtype", "fp16", "--device", "cpu"]) == 0
    capsys.readouterr()
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    assert main([*asked, "--quantize", "nf4"]) == 0
    error = capsys.readouterr().err
    assert re.search(r"\bnf4: bitsandbytes\b.*pip install -c varytoy/constraints\.txt -e '\.\[train\]'", error)
    assert main([*asked, "--device", "cuda"]) == 2
    assert re.search("'cuda'.*varytoy doctor", capsys.readouterr().err)


def test_the_doctor_here(capsys):
    failed = main(["doctor", "--no-build"])
    lines = capsys.readouterr().out.splitlines()
    names = [line.split(":")[0].split()[-1] for line in lines]
    packages = ["torch", "precision", "torchvision", "transformers", "bitsandbytes", "deepspeed", "versions"]
    assert names == [*packages, "memory", "models", "machine"]
    assert failed == any(line.startswith("FAIL") for line in lines)


def test_the_doctor_names_versions_that_were_not_tested(monkeypatch):
    installed = {"transformers": "5.99.0", "pillow": "11.0.0", "torch": "2.13.0+cu126", "peft": None}
    monkeypatch.setattr(versions, "version_of", lambda name: installed.get(name, versions.tested_versions().get(name)))
    found = {each.name: each for each in versions.differences()}
    assert set(found) == {"transformers", "pillow"}
    assert found["transformers"].allowed and not found["pillow"].allowed
    assert doctor._versions().state == "failed" and "transformers 5.99.0" in doctor._versions().text


def test_the_doctor_on_an_old_card(card, monkeypatch):
    card((6, 1))
    said = str(doctor._torch())
    assert said.startswith("FAIL torch:") and re.search(r"Card\b.*\b6\.1\b.*\bsm_75\b", said)
    assert said.endswith("--index-url https://download.pytorch.org/whl/cu126")
    card((6, 1), ["sm_50", "sm_60", "sm_70"])
    assert str(doctor._torch()).startswith("ok")
    assert "Vary-toy: read in nf4, read, train qlora, train lora" in str(doctor._can_run())
    monkeypatch.setattr(doctor, "memory", lambda: (8.0, 16.0))
    assert "not train full-offload (7.0 GiB)" in str(doctor._can_run())
    card((6, 1), size=6.0)
    assert "read in nf4, read, train qlora; not train lora (6.6 GiB)" in str(doctor._can_run())


@pytest.mark.parametrize(
    ("capability", "archs", "runs"),
    [
        ((6, 1), ["sm_60"], True),
        ((6, 1), ["sm_70", "sm_75"], False),
        ((8, 9), ["sm_80", "sm_86"], True),
        ((12, 0), ["sm_90", "compute_90"], True),
        ((12, 0), ["sm_90a"], False),
    ],
)
def test_kernels_for_a_card(capability, archs, runs):
    assert doctor.has_kernels(capability, archs) == runs


def test_the_compilers_own_error_is_shown(monkeypatch):
    def fail(*arguments, **options):
        out = "building\ncpu_adam.cpp:1:10: fatal error: omp.h: No such file\nTraceback\nRuntimeError: Error building"
        return subprocess.CompletedProcess(arguments, 1, "", out)

    monkeypatch.setattr(doctor.subprocess, "run", fail)
    said = str(doctor._deepspeed())
    assert "cpu_adam.cpp:1:10: fatal error: omp.h: No such file" in said and "C++" in said and "Traceback" not in said

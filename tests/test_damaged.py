"""Damaged checkpoints: each fault of a folder is one sentence with the file's name, in little time and memory."""

import errno
import json
import re
import resource
import shutil
import time
from pathlib import Path

import originals
import pytest
import torch
from conftest import tiny_config, tiny_model
from safetensors.torch import load_file, save_file

from varytoy.checkpoints import WeightsError, convert, export_vocabulary, load
from varytoy.checkpoints.convert import understand
from varytoy.checkpoints.loading import ModelError
from varytoy.inference.reader import Reader
from varytoy.processing.processor import VaryProcessor


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    tiny_model(tiny_config()).save_pretrained(folder)
    processor = VaryProcessor.preset("nano")
    processor.image_processor.clip_size = 32
    processor.save_pretrained(folder)
    return folder


def spoil(folder: Path, out: Path, file: str, change) -> Path:
    """A copy with one file changed: to a text, to nothing (None), or with other settings by dotted key."""
    shutil.copytree(folder, out)
    target = out / file
    if change is None:
        target.unlink()
    elif isinstance(change, (str, bytes)):
        target.write_bytes(change if isinstance(change, bytes) else change.encode())
    else:
        tree = json.loads(target.read_text())
        for key, value in change.items():
            *path, last = key.split(".")
            part = tree
            for step in path:
                part = part[step]
            part[last] = value
        target.write_text(json.dumps(tree))
    return out


CONFIG, PROCESSOR, TOKENIZER = "config.json", "processor_config.json", "tokenizer.json"
OURS = [
    *((CONFIG, text) for text in ("[]", "5", "{", "\xff", '{"vocabulary_config": ' + "[" * 100_000, b"\xff\xfe")),
    (CONFIG, {"vocabulary_config": "x"}),
    (CONFIG, {"vocabulary_config.hidden_size": "x"}),
    (CONFIG, {"vocabulary_config.hidden_size": 10**9}),
    (CONFIG, {"vocabulary_config.hidden_size": 64}),
    (CONFIG, {"vocabulary_config.stem_stages": [[8, 2]]}),
    (CONFIG, {"vocabulary_config.stem_stages": [[8, 2, 2, 10**9]]}),
    (CONFIG, {"vocabulary_config.positions": "none"}),
    (CONFIG, {"vocabulary_config.global_layers": 5}),
    (CONFIG, {"clip_config": []}),
    (CONFIG, {"clip_config.layers": 10**9}),
    (CONFIG, {"clip_config.layers": [1, "x"]}),
    (CONFIG, {"clip_config.head_width": 0}),
    (CONFIG, {"clip_config.select_layer": -3}),
    (CONFIG, {"text_config.hidden_size": "x"}),
    (CONFIG, {"text_config.hidden_size": 10**9}),
    (CONFIG, {"text_config.num_hidden_layers": 10**9}),
    (CONFIG, {"text_config.num_attention_heads": 5}),
    (CONFIG, {"text_config.vocab_size": True}),
    (CONFIG, {"text_config.model_type": "nothing"}),
    (CONFIG, {"text_config.hidden_act": "nothing"}),
    (CONFIG, {"text_config.rope_parameters": {"rope_type": "nothing", "rope_theta": 1e4}}),
    (CONFIG, {"text_config.rms_norm_eps": {}}),
    (CONFIG, {"image_token_id": 512}),
    (CONFIG, {"image_token_id": 6}),
    (CONFIG, {"clip_projection_size": 48}),
    *((PROCESSOR, text) for text in ("[]", "{", "{}")),
    (PROCESSOR, {"image_processor": 5}),
    (PROCESSOR, {"image_processor.stride": "x"}),
    (PROCESSOR, {"image_processor.stride": [32, 8]}),
    (PROCESSOR, {"image_processor.clip_size": 64}),
    (PROCESSOR, {"image_processor.mean": [0, 0]}),
    (PROCESSOR, {"image_processor.std": [0, 1, 1]}),
    (PROCESSOR, {"image_processor.mode": 5}),
    (PROCESSOR, {"template": "mustache"}),
    (PROCESSOR, {"prompts": ["ocr"]}),
    (TOKENIZER, "{}"),
    (TOKENIZER, "[]"),
    (TOKENIZER, None),
    ("generation_config.json", "[]"),
    ("tokenizer_config.json", {"model_max_length": "x"}),
    (CONFIG, {"text_config.output_hidden_states": [[1]]}),
    ("model.safetensors", b""),
    ("model.safetensors", b"\xff" * 64),
]


@pytest.mark.parametrize(("file", "change"), OURS, ids=[f"{file} {str(change)[:40]}" for file, change in OURS])
def test_a_fault_of_ours_is_said_with_its_file(whole, tmp_path, file, change):
    folder = spoil(whole, tmp_path / "spoilt", file, change)
    start = time.process_time()
    with pytest.raises(ModelError) as caught:
        Reader.from_pretrained(str(folder), "cpu")
    said = str(caught.value)
    named = TOKENIZER if change == {"image_token_id": 6} else file
    assert named in said and "\n" not in said and len(said) < 800
    assert time.process_time() - start < 5


@pytest.fixture(scope="module")
def adapter(whole, tmp_path_factory) -> Path:
    """A PEFT folder with its base inside."""
    peft = pytest.importorskip("peft")
    folder = tmp_path_factory.mktemp("adapter")
    wrapped = peft.get_peft_model(tiny_model(tiny_config()), peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    wrapped.save_pretrained(folder)
    shutil.copytree(whole, folder / "base")
    return folder


ADAPTER, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
ADAPTERS = [
    *((ADAPTER, text) for text in ("[]", "{", "{}")),
    (ADAPTER, {"r": 10**9}),
    (ADAPTER, {"r": 4}),
    (ADAPTER, {"r": "x"}),
    (ADAPTER, {"peft_type": "NOTHING"}),
    (ADAPTER, {"target_modules": ["q_proj"]}),
    (ADAPTER, {"target_modules": ["nothing"]}),
    (WEIGHTS, b""),
    (WEIGHTS, None),
]


@pytest.mark.parametrize(("file", "change"), ADAPTERS, ids=[f"{file} {str(change)[:40]}" for file, change in ADAPTERS])
def test_a_fault_of_an_adapter_is_said_with_its_file(adapter, tmp_path, file, change):
    with pytest.raises(ModelError, match=file):
        Reader.from_pretrained(str(spoil(adapter, tmp_path / "spoilt", file, change)), "cpu")


def test_an_adapter_loads_and_is_no_base(adapter, tmp_path):
    assert Reader.from_pretrained(str(adapter), "cpu").engine.model.config.model_type == "vary"
    folder = tmp_path / "adapter"
    shutil.copytree(adapter, folder)
    shutil.rmtree(folder / "base")
    save_file({}, folder / "nothing.safetensors")
    settings = json.loads((folder / ADAPTER).read_text())
    (folder / ADAPTER).write_text(json.dumps(settings | {"base_model_name_or_path": str(folder)}))
    named = re.escape(f"'{folder}'")
    with pytest.raises(ModelError, match=rf"{named}.*{named} [^/]*\badapter\b"):
        Reader.from_pretrained(str(folder), "cpu")
    save_file({"x": torch.ones(2)}, folder / WEIGHTS)
    with pytest.raises(ModelError, match=rf"{re.escape(WEIGHTS)} .*\badapters\b"):
        Reader.from_pretrained(str(folder), "cpu")


FOREIGN = [
    {"num_attention_heads": "x"},
    {"num_attention_heads": 10**9},
    {"num_attention_heads": 3},
    {"rope_scaling": "x"},
    {"rope_scaling": {"type": "nothing"}},
    {"rope_theta": [1]},
    {"rotary_emb_base": "1e4"},
    {"text_config": "x"},
    {"text_config": {"rms_norm_eps": {}}},
    {"rms_norm_eps": {}},
    {"max_position_embeddings": 10**12},
    {"vision_config": 5},
    {"vision_config": {"num_attention_heads": "x"}},
    {"vision_select_layer": "last"},
    {"tie_word_embeddings": "no"},
]


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    originals.vary_toy(folder / "x")
    return folder / "x"


@pytest.mark.parametrize("change", FOREIGN, ids=str)
def test_a_fault_in_the_settings_of_another_project_is_said(toy, tmp_path, change):
    with pytest.raises(WeightsError, match=r"config\.json"):
        convert(spoil(toy, tmp_path / "x", CONFIG, change), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", [5, None, "../x/pytorch_model.bin", "config.json"])
def test_an_index_names_files_beside_it(toy, tmp_path, name):
    folder = spoil(toy, tmp_path / "y", "pytorch_model.bin.index.json", json.dumps({"weight_map": {"x": name}}))
    with pytest.raises(WeightsError, match=r"pytorch_model\.bin\.index\.json: .*" + str(name)):
        convert(folder, tmp_path / "out")


def edited(folder: Path, out: Path, change) -> Path:
    shutil.copytree(folder, out)
    state = torch.load(out / "pytorch_model.bin", weights_only=True)
    change(state)
    torch.save(state, out / "pytorch_model.bin")
    return out


BLOCK = "transformer.h.1.ln_1.weight"
UNLIKE = r"config\.json .*HaoranWei/Vary-toy"  # the file and the model that its tensors were taken for
TENSORS = {
    "layer 5,000,000": (
        lambda state: state.update({BLOCK.replace("1.ln", "5000000.ln"): state[BLOCK]}),
        r"h\.5000000\b",
    ),
    "layer 900,000": (
        lambda state: state.update({BLOCK.replace("1.ln", "900000.ln"): state[BLOCK]}),
        r"\b900000\b.*layers\.2\b",
    ),
    "number of 5000 digits": (
        lambda state: state.update({f"transformer.h.{'9' * 5000}.x": state[BLOCK]}),
        "transformer.h.9999",
    ),
    "a table without rows": (lambda state: state.update({"transformer.wte.weight": torch.ones(0, 0)}), UNLIKE),
    "a table of one dimension": (lambda state: state.update({"transformer.wte.weight": torch.ones(5)}), UNLIKE),
    "positions of one dimension": (
        lambda state: state.update({"transformer.vision_tower_high.pos_embed": torch.ones(5)}),
        UNLIKE,
    ),
    "a number of keys and values": (
        lambda state: state.update({"transformer.h.0.attn.c_attn.weight": torch.tensor(1.0)}),
        UNLIKE,
    ),
    "repeated numbers": (
        lambda state: state.update({BLOCK: torch.ones(1).expand(10**12)}),
        rf"pytorch_model\.bin: .*{re.escape(BLOCK)}",
    ),
    "a number as name": (lambda state: state.update({5: torch.ones(5)}), None),
}


@pytest.mark.parametrize("name", TENSORS)
def test_odd_tensors_are_said_at_once(toy, tmp_path, name):
    change, named = TENSORS[name]
    folder = edited(toy, tmp_path / "z", change)
    start = time.process_time()
    if named is None:
        assert understand(folder).targets  # what is not named by a text is none of a model's tensors
        return
    with pytest.raises(WeightsError, match=named):
        load(folder)
    assert time.process_time() - start < 5


@pytest.mark.parametrize("there", [True, False], ids=["into an empty folder", "into a new one"])
def test_a_full_disk_is_said_and_leaves_nothing(whole, toy, tmp_path, there):
    """The limit on the size of a file stands for a disk without room."""
    out = tmp_path / "out"
    if there:
        out.mkdir()
    before, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    assert sum(tensor.nbytes for tensor in load_file(whole / "model.safetensors").values()) > 30_000
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, most))
    try:
        for write in (lambda: convert(toy, out), lambda: export_vocabulary(toy, out)):
            with pytest.raises(WeightsError, match=rf"{re.escape(str(out))} .*\b{errno.EFBIG}\b"):
                write()
            assert list(tmp_path.iterdir()) == ([out] if there else []) and not (there and any(out.iterdir()))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, most))
    convert(toy, out)


def test_a_token_far_outside_the_vocabulary_is_said(tmp_path):
    """The tokenizers library would write all that could be before it."""
    originals.vary_tiny(tmp_path / "x")
    file = tmp_path / "x" / "vocab.json"
    words = json.loads(file.read_text())
    file.write_text(json.dumps(words | {next(iter(words)): 10**9}))
    with pytest.raises(WeightsError, match=rf"\b{10**9}\b"):
        convert(tmp_path / "x", tmp_path / "out")

"""KOSMOS-2.5 and GOT-OCR2 in transformers' own classes: small true models that have learned one image's answers."""

import json
from pathlib import Path

import pytest
import torch
from conftest import FakeEngine
from originals import bytes_to_unicode
from PIL import Image, ImageDraw, ImageFont
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    GotOcr2Config,
    GotOcr2ForConditionalGeneration,
    GotOcr2ImageProcessor,
    GotOcr2Processor,
    Kosmos2_5Config,
    Kosmos2_5ForConditionalGeneration,
    Kosmos2_5ImageProcessor,
    Kosmos2_5Processor,
    PreTrainedTokenizerFast,
)

from varytoy.checkpoints.loading import ModelError
from varytoy.cli import main
from varytoy.data.answer import Answer, Region
from varytoy.inference.across_pages import read_across
from varytoy.inference.originals import plain_markdown, read_lines
from varytoy.inference.reader import Reader

LINES = (((40, 30, 260, 60), "Delivery note"), ((40, 100, 130, 130), "Coffee"), ((40, 200, 110, 230), "Total 5"))
SIZE = (700, 300)
LATENTS = 8
PLACES = 1700


def page() -> Image.Image:
    image = Image.new("RGB", SIZE, "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(size=26)
    for (x, y, *_), text in LINES:
        pen.text((x, y), text, font=font, fill="black")
    pen.rectangle((30, 190, 150, 240), outline="red", width=3)
    return image


def tokenizer(added: list[str], special: list[str], **roles) -> PreTrainedTokenizerFast:
    """Bytes as in the true ones, without their merges."""
    words = {character: number + len(special) for number, character in enumerate(bytes_to_unicode().values())}
    words = {token: number for number, token in enumerate(special)} | words
    made = Tokenizer(models.BPE(vocab=words, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    made.add_tokens([AddedToken(token, normalized=False) for token in added])
    return PreTrainedTokenizerFast(tokenizer_object=made, **roles)


def learn(model, rows: list[tuple[dict, str]], words: PreTrainedTokenizerFast, end: str, **image) -> None:
    """Train the decoder on (input, answer) rows until it gives each answer. ``image``: the features, made once."""
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(200):
        losses = []
        for inputs, answer in rows:
            told = words(answer + end, add_special_tokens=False, return_tensors="pt")["input_ids"]
            ids = torch.cat([inputs["input_ids"], told], 1)
            given = {**image, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
            if "image_embeds_position_mask" in inputs:
                mask = inputs["image_embeds_position_mask"]
                given["image_embeds_position_mask"] = torch.cat([mask, torch.zeros_like(told)], 1)
            scores = model(**given).logits[0, inputs["input_ids"].shape[1] - 1 : -1]
            losses.append(torch.nn.functional.cross_entropy(scores, told[0]))
        loss = sum(losses) / len(losses)
        if loss < 0.02:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.02, loss
    model.eval()


def tokens_of(processor: Kosmos2_5Processor) -> str:
    """The page's lines as KOSMOS-2.5 writes them: pixels of the resized image."""
    made = processor(images=page(), text="<ocr>", return_tensors="pt")
    across, down = int(made["width"][0]) / SIZE[0], int(made["height"][0]) / SIZE[1]
    assert across > 2 and abs(across - down) > 0.01  # the image is scaled, and not alike along both sides
    written = ""
    for (x1, y1, x2, y2), text in LINES:
        written += f"<bbox><x_{int(x1 * across)}><y_{int(y1 * down)}>"
        written += f"<x_{int(x2 * across)}><y_{int(y2 * down)}></bbox>{text}\n"
    return written


@pytest.fixture(scope="session")
def kosmos(tmp_path_factory) -> Path:
    special = ["<s>", "<pad>", "</s>", "<unk>", "<image>", "</image>"]
    added = ["<ocr>", "<md>", "</chunk>", "<bbox>", "</bbox>"]
    added += [f"<{axis}_{number}>" for axis in "xy" for number in range(PLACES)]
    roles = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    named = {"boi_token": "<image>", "eoi_token": "</image>", "image_token": "<s>"}
    words = tokenizer(added, special, **roles, extra_special_tokens=named)
    processor = Kosmos2_5Processor(Kosmos2_5ImageProcessor(), words, num_image_tokens=LATENTS)
    text = dict(vocab_size=len(words), max_position_embeddings=512, embed_dim=32, layers=2, ffn_dim=64, dropout=0.0)
    vision = dict(hidden_size=32, intermediate_size=32, head_dim=16, num_hidden_layers=1, num_attention_heads=2)
    text["attention_heads"] = 2
    config = Kosmos2_5Config(text_config=text, vision_config=vision, latent_query_num=LATENTS)
    torch.manual_seed(0)
    model = Kosmos2_5ForConditionalGeneration(config).eval()
    given = {prompt: processor(images=page(), text=prompt, return_tensors="pt") for prompt in ("<ocr>", "<md>")}
    with torch.no_grad():
        image = model.get_image_features(given["<ocr>"]["flattened_patches"]).pooler_output
    rows = [(given["<ocr>"], tokens_of(processor)), (given["<md>"], "# Delivery note<br>Coffee\n\n\n\n Total 5 ")]
    learn(model, rows, words, "</s>", image_embeds=image)
    folder = tmp_path_factory.mktemp("models") / "kosmos-2.5"
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def got(tmp_path_factory) -> Path:
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<imgpad>"]
    words = tokenizer([], special, pad_token="<|endoftext|>", eos_token="<|endoftext|>")
    images = GotOcr2ImageProcessor(size={"height": 1024, "width": 1024})
    processor = GotOcr2Processor(images, words)
    vision = dict(hidden_size=16, output_channels=8, num_hidden_layers=1, num_attention_heads=1, mlp_dim=16)
    vision |= dict(global_attn_indexes=[], initializer_range=0.02)
    text = dict(model_type="qwen2", vocab_size=len(words), hidden_size=64, intermediate_size=96, num_hidden_layers=2)
    text |= dict(num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=2048)
    pad = words.convert_tokens_to_ids("<imgpad>")
    torch.manual_seed(0)
    config = GotOcr2Config(vision_config=vision, text_config=text, image_token_index=pad)
    model = GotOcr2ForConditionalGeneration(config).eval()
    asked = [
        ({}, "Delivery note\nCoffee\nTotal 5"),
        ({"format": True}, "# Delivery note"),
        ({"color": "red"}, "Total 5"),
        ({"box": [40, 100, 130, 130]}, "Coffee"),
    ]
    rows = [(processor(page(), return_tensors="pt", **options), answer) for options, answer in asked]
    with torch.no_grad():
        image = {"image": model.get_image_features(rows[0][0]["pixel_values"])}
    learn(model, rows, words, "<|im_end|>", mm_encoder_outputs=image)
    folder = tmp_path_factory.mktemp("models") / "GOT-OCR-2.0-hf"
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture
def file(tmp_path) -> Path:
    page().save(tmp_path / "page.png")
    return tmp_path / "page.png"


def near(box, truth, most: float = 1.5) -> bool:
    return all(abs(a - b) <= most for a, b in zip(box, truth, strict=True))


def test_kosmos_spots_in_pixels_of_the_file(kosmos, file, capsys):
    reader = Reader.from_pretrained(str(kosmos))
    assert reader.tasks == ("ocr", "markdown", "spot")
    answer = reader.spot(file)
    assert [line.text for line in answer.lines] == [text for _, text in LINES] and not answer.dropped
    assert all(near(line.box, box) for line, (box, _) in zip(answer.lines, LINES, strict=True))
    assert answer.stop_reason == "end" and answer.size == SIZE and answer.confidence > 0.9
    assert main(["read", str(file), "--model", str(kosmos), "--task", "spot"]) == 0
    first, *_ = capsys.readouterr().out.splitlines()
    assert first == answer.text.splitlines()[0] and first.endswith("] Delivery note")
    assert near([int(side) for side in first[1:19].split(", ")], (57, 100, 371, 200))  # thousandths
    turned = reader.spot(page().transpose(Image.Transpose.ROTATE_270))  # read upright, told in pixels of the file
    assert turned.turned and turned.size == SIZE[::-1]
    for line, ((x1, y1, x2, y2), _) in zip(turned.lines, LINES, strict=True):
        assert near(line.box, (SIZE[1] - y2, x1, SIZE[1] - y1, x2), 2.5)


def test_kosmos_reads_text_and_markdown(kosmos, file):
    reader = Reader.from_pretrained(str(kosmos))
    answer = reader.ocr(file)
    assert answer.text == "Delivery note\nCoffee\nTotal 5"
    first, second, _ = answer.lines  # for a searchable PDF
    assert near(second.box, LINES[1][0]) and [word.text for word in first.parts] == ["Delivery", "note"]
    assert first.box[0] < first.parts[0].box[2] < first.parts[1].box[0] < first.box[2]
    assert reader.markdown(file).markup == "# Delivery note\nCoffee\n\nTotal 5"
    *texts, last = reader.stream(file)
    assert texts[-1] == last.text and not any("<" in text for text in texts)


def test_got_reads_whole_pages_and_parts_of_them(got, file, capsys):
    ask = ["read", str(file), "--model", str(got), "--runtime", "transformers"]
    said = []
    for options in ([], ["--task", "markdown"], ["--place", "red"], ["--place", "40,100,130,130"]):
        assert main([*ask, *options]) == 0
        said.append(capsys.readouterr().out.strip())
    assert said == ["Delivery note\nCoffee\nTotal 5", "# Delivery note", "Total 5", "Coffee"]
    reader = Reader.from_pretrained(str(got), runtime="transformers")
    answer = reader.ocr(file, place=[40, 100, 130, 130])
    assert answer.blocks[0].box == (40, 100, 130, 130) and answer.stop_reason == "end"
    ours = Reader.from_pretrained(str(got)).ocr(file)  # converted in memory
    assert ours.text == said[0]
    assert [(line.box, line.text) for line in reader.ocr(file).lines] == [(line.box, line.text) for line in ours.lines]


def test_tiles_of_got_are_the_same_in_both_classes(got, file, capsys):
    """The prompt that names them, 3 x 256 image tokens, and the answer."""
    readers = [Reader.from_pretrained(str(got), runtime=runtime) for runtime in ("torch", "transformers")]
    for task in ("ocr", "markdown"):
        ours, theirs = (reader.ask(file, task, tiles=2, max_new_tokens=12) for reader in readers)
        assert ours.text == theirs.text and ours.prompt_tokens == theirs.prompt_tokens > 3 * 256
        assert abs(ours.confidence - theirs.confidence) < 1e-3
        assert ours.prompt_tokens > readers[0].ask(file, task).prompt_tokens + 2 * 256
    assert main(["read", str(file), "--model", str(got), "--tiles", "2", "--task", "ocr"]) == 0
    assert capsys.readouterr().out.strip()
    asked = ["read", str(file), "--model", str(got), "--runtime", "transformers", "--task", "ocr"]
    capsys.readouterr()
    assert main([*asked, "--resolution", "640"]) == 2
    assert "GOT-OCR2 in transformers takes images of its own size" in capsys.readouterr().err
    assert main(["read", str(file), "--tiles", "2"]) == 2 and "leave the tiles out" in capsys.readouterr().err


def test_several_pages_are_one_answer_in_both_classes(got, file, tmp_path, capsys):
    page().rotate(180).save(tmp_path / "other.png")
    readers = [Reader.from_pretrained(str(got), runtime=runtime) for runtime in ("torch", "transformers")]
    for task in ("ocr", "markdown"):
        ours, theirs = (
            read_across(reader, [file, tmp_path / "other.png"], task, max_new_tokens=12) for reader in readers
        )
        assert ours.text == theirs.text and ours.prompt_tokens == theirs.prompt_tokens > 2 * 256
        assert abs(ours.confidence - theirs.confidence) < 1e-3
    assert read_across(readers[0], file, "ocr").text == readers[0].ocr(file).text
    page().save(tmp_path / "two.pdf", save_all=True, append_images=[page().rotate(180)])
    command = ["read", str(tmp_path / "two.pdf"), "--across-pages", "--max-new-tokens", "12", "--json"]
    assert main([*command, "--model", str(got), "--task", "ocr"]) == 0
    (row,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert row["tokens"] and row["pages"] == 2
    assert main(command) == 2 and "line by line" in capsys.readouterr().err
    assert main([*command, "--page", "1"]) == 2 and "leave --page" in capsys.readouterr().err
    with pytest.raises(ValueError, match="line by line"):
        read_across(Reader.from_pretrained("nano", "cpu"), file)


def test_what_an_original_cannot_do_is_one_sentence(kosmos, got, file, capsys):
    assert main(["read", str(file), "--model", str(kosmos), "--task", "caption"]) == 2
    assert f"{kosmos} was trained on ocr, markdown, spot, and not on the task 'caption'" in capsys.readouterr().err
    reader = Reader.from_pretrained(str(kosmos))
    with pytest.raises(ValueError, match="takes no conversation"):
        reader.chat([{"role": "user", "content": "Who sent it?"}], [file])
    with pytest.raises(ValueError, match="takes no conversation"):
        reader.ask(file, "ocr", history=[{"role": "user", "content": "<image>\n<ocr>"}])
    with pytest.raises(ValueError, match="leave --quantize out"):
        Reader.from_pretrained(str(kosmos), quantize="dynamic-int8")
    with pytest.raises(ValueError, match="leave --runtime out"):
        Reader.from_pretrained(str(kosmos), runtime="onnx")
    with pytest.raises(ValueError, match="is for KOSMOS-2.5 and GOT-OCR2"):
        Reader.from_pretrained(runtime="transformers")
    with pytest.raises(ValueError, match="GOT-OCR-2.0-hf was trained on ocr, markdown, and not on the task 'spot'"):
        Reader.from_pretrained(str(got), runtime="transformers").spot(file)


def test_an_incomplete_original_is_refused(kosmos, tmp_path):
    config = json.loads((kosmos / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="cannot load the model"):
        Reader.from_pretrained(str(tmp_path))
    config["text_config"]["layers"] = 3  # one more than the weights have
    (tmp_path / "config.json").write_text(json.dumps(config))
    for name in ("model.safetensors", "tokenizer.json", "tokenizer_config.json", "processor_config.json"):
        (tmp_path / name).write_bytes((kosmos / name).read_bytes())
    with pytest.raises(ModelError, match=r"lacks .*layers\.2"):
        Reader.from_pretrained(str(tmp_path))


def test_originals_are_evaluated(kosmos, got, file, tmp_path):
    lines = [{"quad": [x1, y1, x2, y1, x2, y2, x1, y2], "text": text} for (x1, y1, x2, y2), text in LINES]
    file.with_suffix(".json").write_text(json.dumps({"lines": lines}))
    for model, spotted in ((kosmos, 1.0), (got, 0.0)):  # GOT-OCR2 does not tell where lines stand
        out = tmp_path / model.name
        ask = ["evaluate", "receipts", str(tmp_path), "--model", str(model), "--runtime", "transformers"]
        assert main([*ask, "--out", str(out)]) == 0
        (row,) = json.loads((out / "table.json").read_text())["rows"]
        values = {name: each["value"] for name, each in row["values"].items()}
        assert values["character error rate without case"] == 0.0 and values["spotting F1 at IoU 0.5"] == spotted


def test_lines_that_cannot_be_read_keep_their_words():
    good = "<bbox><x_100><y_50><x_300><y_100></bbox>One"
    text = f"{good}\n<bbox><x_5><y_5><x_5><y_9></bbox>Two\n<bbox><x_1><y_2></bbox>Three"
    text += "<bbox><x_0><y_0><x_900><y_9></bbox>4"
    answer = read_lines(text, (800, 400), (400, 1000))
    assert [(line.box, line.text) for line in answer.regions] == [((50, 125, 150, 250), "One")]
    assert answer.text == "One\nTwo\nThree\n4"
    assert answer.dropped == {"degenerate": 1, "malformed": 1, "out_of_range": 1}
    plain = read_lines("[1, 2, 3, 4] no box", (800, 400), (400, 1000))
    assert (plain.text, plain.regions, plain.dropped) == ("[1, 2, 3, 4] no box", [], {"malformed": 1})
    assert plain_markdown("a<br>b\n  \n\n\n c ") == "a\nb\n\nc"


def test_the_way_up_is_asked_with_whole_pages(processor):
    processor.image_processor.mode = "squash"

    def answer(request) -> Answer:
        upright = request.images[0].getpixel((90, 240))[1] < 100  # of the red frame
        return Answer("x", confidence=0.9 if upright else 0.5, tokens=1)

    for turn in (0, 180):
        engine = FakeEngine(processor, answer)
        found = Reader(engine).ocr(page().rotate(turn))
        assert found.turned == turn and all(image.size == SIZE for image in engine.images)


def test_lines_of_a_long_strip_stand_where_its_pieces_do(processor):
    processor.image_processor.mode = "squash"
    heights = []

    def answer(request) -> Answer:
        heights.append(request.images[0].height)
        return Answer("row", [Region((5, 10, 50, 30), text="row")], dropped={"malformed": 1})

    found = Reader(FakeEngine(processor, answer)).spot(Image.new("RGB", (100, 4000), "white"))
    assert len(heights) > 3
    assert [line.box[1] for line in found.lines] == [10 + sum(heights[:number]) for number in range(len(heights))]
    assert found.dropped == {"malformed": len(heights)} and found.text.count("\n") == len(heights) - 1

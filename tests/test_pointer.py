"""Boxes found by a pointer, and what pictures add to training: mirrored samples, rewarded captions, Muon."""

import json
import random
import re
from dataclasses import replace

import pytest
import torch
from conftest import noise, tiny_config, tiny_model, tiny_recipe
from PIL import Image, ImageOps
from torchvision.ops import generalized_box_iou
from transformers import TrainingArguments

from train.baselines import branches_off
from train.data.bad_samples import BadSamples
from train.data.dataset import SampleDataset, merge_turns
from train.data.item import Item
from train.data.mirror import is_mirrored, mirrored, with_mirrored
from train.loop import run
from train.model import VaryForTraining, opt_shape
from train.objectives.base import State
from train.objectives.chunked_loss import chunked_cross_entropy
from train.objectives.pointer import PointerObjective
from train.objectives.self_critical import SelfCritical
from train.optim.muon import Muon, orthogonalise
from train.recipe import DataSettings
from train.trainer import VaryTrainer
from varytoy.data.boxes import Box
from varytoy.data.sample import Annotations, Sample
from varytoy.inference.engine import Request, TransformersEngine
from varytoy.inference.generate import PointedBoxes
from varytoy.models.pointer import Pointed, Pointer, coverage, generalised_iou
from varytoy.models.vary import VaryForConditionalGeneration

BOXES = torch.tensor([[0.1, 0.2, 0.5, 0.6], [0.0, 0.0, 1.0, 1.0], [0.25, 0.5, 0.5, 0.75]])


def test_overlap_is_torchvisions_and_coverage_sums_to_one():
    others = BOXES.flip(0).contiguous()
    expected = generalized_box_iou(BOXES, others).diagonal()
    torch.testing.assert_close(generalised_iou(BOXES, others), expected, atol=1e-4, rtol=1e-4)
    cells = coverage(BOXES, (4, 4))
    torch.testing.assert_close(cells.sum(1), torch.ones(3))
    assert cells[2].nonzero().flatten().tolist() == [9]  # row 2, column 1


def test_a_pointer_learns_where_something_is():
    """The bright cells of a grid of 6 x 6."""
    torch.manual_seed(0)
    pointer = Pointer(16, (6, 6))
    optimizer = torch.optim.Adam(pointer.parameters(), 3e-3)
    state, direction = torch.randn(16), torch.randn(16)
    for _ in range(150):
        corners = torch.randint(0, 4, (32, 2)) / 6
        boxes = torch.cat([corners, corners + 2 / 6], 1)
        rows = (coverage(boxes, (6, 6)) > 0).float()[..., None] * direction + 0.1 * torch.randn(32, 36, 16)
        found = pointer(state.expand(32, -1), rows, torch.arange(32))
        loss = (found.boxes - boxes).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.06
    assert float(generalised_iou(found.boxes, boxes).mean()) > 0.5


@pytest.fixture(scope="module")
def pointing(tmp_path_factory) -> VaryForConditionalGeneration:
    return tiny_model(tiny_config(pointer=True))


def test_the_pointer_looks_at_each_step(pointing, processor, pictures):
    """With the key-value cache, whose steps have no image, it sees what it sees without."""
    side = pointing.config.vocabulary_config.image_size
    images = [picture.resize((side, side)) for picture in pictures[:2]]
    inputs = processor(["Where is it?", "Find a dog, please."], images, fit=False)
    with torch.no_grad():
        first = pointing(**inputs, position_ids=(inputs["attention_mask"].cumsum(1) - 1).clamp(0), use_cache=True)
        following = torch.tensor([[7], [8]])
        mask = torch.cat([inputs["attention_mask"], torch.ones(2, 1, dtype=torch.long)], 1)
        positions = inputs["attention_mask"].sum(1, keepdim=True)
        name = "cache" if hasattr(first, "cache") else "past_key_values"
        step = pointing(
            following, attention_mask=mask, position_ids=positions, **{name: getattr(first, name)}, use_cache=True
        )
        whole = {**inputs, "input_ids": torch.cat([inputs["input_ids"], following], 1), "attention_mask": mask}
        again = pointing(**whole, position_ids=(mask.cumsum(1) - 1).clamp(0), use_cache=False)
    assert first.pointed.boxes.shape == (2, 4)
    torch.testing.assert_close(step.pointed.boxes, again.pointed.boxes, atol=1e-5, rtol=1e-5)


class _Tokenizer:
    names = ("[100,", "[200,", " 300,", " 400,", " 500]", " 600]", "word", " [900,")

    def get_vocab(self):
        return {name: number for number, name in enumerate(self.names)}


def test_numbers_near_the_pointers_gain():
    processor = type("Processor", (), {"tokenizer": _Tokenizer()})()
    model = type("Model", (), {"pointed": Pointed(torch.tensor([[0.2, 0.3, 0.4, 0.6]]), torch.zeros(1, 4))})()
    point = PointedBoxes(model, processor, strength=1.0)
    scores, no = torch.zeros(1, 8), float("-inf")
    said = [point(torch.tensor([ids]), scores).tolist()[0] for ids in ([6, 6], [6, 0], [0, 2], [2, 3])]
    assert said[0] == [-10, 0, -10, 0, -10, 0, 0, 0]  # a box may begin
    assert said[1] == [no, no, 0, -10, no, no, no, no] and said[2] == [no, no, -10, 0, no, no, no, no]
    assert said[3] == [no, no, no, no, -10, 0, no, no]  # its last number
    model.pointed = None
    assert torch.equal(point(torch.tensor([[6]]), scores), scores)


def photo(task: str = "ground", answer: str = "[100, 200, 300, 400]", prompt: str = "Find a dog at the left.", **rest):
    messages = [{"role": "user", "content": f"<image>\n{prompt}"}, {"role": "assistant", "content": answer}]
    return Sample(messages, ["a.png"], "a", task, **rest)


def test_the_objective_finds_the_numbers_of_boxes(processor):
    plan = processor.image_processor.plan((64, 64), "picture")
    sample = photo("detect", "dog: [100, 200, 300, 400]; cat: [000, 000, 500, 999];")
    item = Item(sample, [noise(64, 64)], [plan], list(sample.messages))
    ids, labels = processor.encode(item.messages, [plan], True)
    targets = PointerObjective(PointerObjective.Settings()).targets(
        [item], {"labels": torch.tensor([labels])}, processor
    )
    written = [processor.tokenizer.decode([ids[position + 1]]) for _, position in targets["pointer.positions"].tolist()]
    assert written == ["1", "2", "3", "4", "0", "0", "5", "9"]
    assert targets["pointer.boxes"][4].tolist() == pytest.approx([0, 0, 0.5, 0.999])


def test_a_mirrored_sample(tmp_path):
    noise(40, 20).save(tmp_path / "a.png")
    sample = photo(boxes=[Box("a dog at the left", (100, 200, 300, 400))], folder=tmp_path)
    sample.annotations = Annotations(references=["Left of it.", "The right one."])
    other = mirrored(sample)
    assert other.prompt == "Find a dog at the right." and other.answer == "[700, 200, 900, 400]"
    assert other.boxes[0] == Box("a dog at the right", (700, 200, 900, 400))
    assert other.annotations.references == ["Right of it.", "The left one."]
    with Image.open(tmp_path / "a.png") as image:
        assert other.open_images()[0].tobytes() == ImageOps.mirror(image.convert("RGB")).tobytes()
    assert mirrored(other).messages == sample.messages


def test_mirrored_samples_are_packed_apart(tmp_path):
    noise(40, 20).save(tmp_path / "a.png")
    samples = [photo(folder=tmp_path), photo("vqa", "yes", "Is it left?", folder=tmp_path)]
    both = with_mirrored(samples)
    first, second = merge_turns(both, 8, random.Random(0), isolated=True)
    assert [is_mirrored(each) for each in (first, second)] == [False, True]
    assert {part.prompt for part in second.parts} == {"Find a dog at the right.", "Is it right?"}
    assert first.open_images()[0].tobytes() != second.open_images()[0].tobytes()
    letters = replace(samples[0], annotations=Annotations(letters="a", letter_positions=[1, 2]))
    assert with_mirrored([letters]) == [letters]
    text = photo("ocr", "left", "Read it.", folder=tmp_path)
    assert with_mirrored([text]) == [text]


def test_crops_show_the_boxes_and_move_them(tmp_path):
    """Another part of the picture in each epoch; the box stands around what it stood around."""
    picture = Image.new("RGB", (200, 100), "white")
    picture.paste("red", (60, 20, 120, 70))
    picture.save(tmp_path / "a.png")
    talk = photo("ground", "[300, 200, 600, 700]", "Find the red.").messages
    rows = [
        {
            "task": "ground",
            "messages": talk,
            "images": ["a.png"],
            "boxes": [{"label": "red", "box": [300, 200, 600, 700]}],
        },
        {
            "task": "ocr",
            "messages": talk,
            "images": ["a.png"],
            "annotations": {"lines": ["a"], "line_boxes": [0, 0, 9, 9]},
        },
    ]
    (tmp_path / "samples.jsonl").write_text("\n".join(map(json.dumps, rows)))
    settings = DataSettings(str(tmp_path), crop=0.6)
    data = SampleDataset([settings], 0, BadSamples())
    seen = set()
    for epoch in range(6):
        data.set_epoch(epoch)
        sample, (image,) = data[0]
        assert sample.boxes[0].xyxy == tuple(map(int, re.findall(r"\d+", sample.answer)))
        green = image.getchannel("G").point(lambda value: 255 * (value < 128))
        found = [1000 * side / (200, 100)[number % 2] for number, side in enumerate(green.getbbox())]
        assert all(abs(side - place) <= 12 for side, place in zip(found, sample.boxes[0].xyxy, strict=True))
        seen.add(sample.boxes[0].xyxy)
        assert data[1][0].messages == data.samples[1].messages and data[1][1][0].tobytes() == picture.tobytes()
    assert len(seen) == 6 and data[0][0] == sample  # the same again in one epoch
    whole = SampleDataset([replace(settings, crop=1.0)], 0, BadSamples())
    assert whole[0][0].answer == "[300, 200, 600, 700]"


def test_the_trainer_tells_the_data_its_epoch(tmp_path, ten):
    data = SampleDataset([DataSettings(str(ten))], 0, BadSamples())
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, remove_unused_columns=False, report_to=[])
    sizes = data.shapes((32, 32))
    trainer = VaryTrainer(
        sizes, model=tiny_model(tiny_config()), args=arguments, train_dataset=data, data_collator=list
    )
    trainer.get_train_dataloader().set_epoch(3)
    assert data.epoch == 3


def test_captions_are_rewarded_beside_a_loader_process(tmp_path):
    noise(32, 32).save(tmp_path / "a.png")
    sample = photo("caption", "a cat", "What is in this picture?", annotations=Annotations(references=["a cat"]))
    (tmp_path / "samples.jsonl").write_text(json.dumps(sample.to_json()))
    rewards = {"self_critical": SelfCritical.Settings(1.0, samples=2, max_new_tokens=3)}
    run(tiny_recipe(tmp_path, tmp_path / "run", rewards, max_steps=1, batch_size=1, workers=1, log_steps=1))
    assert "reward" in (tmp_path / "run/metrics.jsonl").read_text().splitlines()[0]


def test_scaled_embeddings_stay_tied_and_come_back(tmp_path):
    model = tiny_model(tiny_config(embedding_scale=5.0))
    model.save_pretrained(tmp_path)
    for each in (model, VaryForConditionalGeneration.from_pretrained(tmp_path)):
        table = each.get_input_embeddings()
        torch.testing.assert_close(table(torch.tensor([3])), 5 * table.weight[3:4])
        assert each.get_output_embeddings().weight is table.weight or not each.config.tie_word_embeddings


@pytest.mark.parametrize("decoder", ["qwen2", "opt"])
def test_dropout_is_for_training_alone(decoder):
    config = tiny_config()
    if decoder == "opt":
        config.text_config = opt_shape(config.text_config)
    model = VaryForTraining(config)
    model.add_dropout(0.5)
    ids = torch.tensor([[7, 8, 9, 10]])
    quiet = [model.eval()(ids).logits for _ in range(2)]
    torch.testing.assert_close(*quiet)
    assert (model.train()(ids).logits - quiet[0]).abs().max() > 1e-3


def test_smoothing_is_torchs():
    torch.manual_seed(0)
    hidden, weight = torch.randn(7, 5, requires_grad=True), torch.randn(11, 5, requires_grad=True)
    labels = torch.tensor([1, 2, -100, 4, 10, 0, 3])
    loss = chunked_cross_entropy(hidden, weight, labels, chunk=3, smoothing=0.1)
    expected = torch.nn.functional.cross_entropy(
        hidden @ weight.T, labels, ignore_index=-100, reduction="sum", label_smoothing=0.1
    )
    torch.testing.assert_close(loss, expected)
    grads = torch.autograd.grad(loss, (hidden, weight)), torch.autograd.grad(expected, (hidden, weight))
    torch.testing.assert_close(*grads)


def test_muon_steps_as_torchs_and_resumes():
    torch.manual_seed(0)
    values = orthogonalise(torch.randn(40, 30)).svd().S
    assert 0.6 < float(values.min()) and float(values.max()) < 1.3
    start, gradients = torch.randn(6, 4), torch.randn(4, 6, 4)

    def stepped(make, resume: bool = False) -> torch.Tensor:
        parameter = torch.nn.Parameter(start.clone())
        optimizer = make([parameter])
        for number, gradient in enumerate(gradients):
            if resume and number == 2:
                state = optimizer.state_dict()
                optimizer = make([parameter])
                optimizer.load_state_dict(state)
            parameter.grad = gradient.clone()
            optimizer.step()
        return parameter.detach()

    def ours(parameters):
        return Muon([{"params": parameters, "matrices": True}], lr=0.01, scale=2.0, weight_decay=0.1)

    def others(parameters):
        return Muon([{"params": parameters}], lr=0.01, weight_decay=0.1)

    if hasattr(torch.optim, "Muon"):
        theirs = stepped(lambda parameters: torch.optim.Muon(parameters, lr=0.02, weight_decay=0.1))
        torch.testing.assert_close(stepped(ours), theirs, atol=2e-2, rtol=0)  # it computes in bf16
    torch.testing.assert_close(stepped(others), stepped(lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1)))
    for make in (ours, others):
        torch.testing.assert_close(stepped(make), stepped(make, resume=True))


def test_captions_that_score_above_their_siblings_gain(processor, monkeypatch):
    """A model that may write two captions comes to write the one that is right."""
    from train.model import VaryForTraining

    torch.manual_seed(0)
    config = tiny_config()
    model = VaryForTraining(config)
    right, wrong = "red cow", "big sea"
    sample = photo("caption", right, "What is in this picture?")
    sample.annotations = Annotations(references=[right])
    other = replace(sample, annotations=Annotations(references=["a tall tower"]))
    data = type("Data", (), {"samples": [sample, other]})()
    objective = SelfCritical(SelfCritical.Settings(1.0, samples=4, max_new_tokens=12))
    objective.read_data(data)
    objective.tokenizer = processor.tokenizer
    plan = processor.image_processor.plan((32, 32), "picture")
    item = Item(sample, [noise(32, 32)], [plan], list(sample.messages))
    batch = dict(processor.batch([processor.encode(item.messages, [plan], True)], [(item.images[0], plan)], True))
    targets = objective.targets([item], batch, processor)
    ids = [processor.tokenizer(text, add_special_tokens=False)["input_ids"] for text in (right, wrong)]
    end = [processor.tokenizer.eos_token_id]
    drawn = torch.tensor([[*ids[number], *end] for number in (0, 1, 1, 0)])
    monkeypatch.setattr(model.language_model, "generate", lambda **options: drawn)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)

    def step() -> dict:
        rows = model.connect(model.encode_images(batch["pixel_values"], batch["image_sizes"]), batch["image_sizes"])
        state = State(batch["labels"], {}, torch.zeros(1), batch["image_sizes"], targets, rows)
        losses = objective.losses(model, None, state)
        optimizer.zero_grad()
        losses["self_critical"].backward()
        optimizer.step()
        return {name: float(loss) for name, loss in losses.items()}

    first = step()
    assert first["reward"] > 1.0  # half of the captions are the reference
    with torch.no_grad():
        before = _likelihood(model, processor, batch, drawn[:2])
    for _ in range(10):
        step()
    with torch.no_grad():
        after = _likelihood(model, processor, batch, drawn[:2])
    assert after[0] - after[1] > before[0] - before[1] + 0.5


def _likelihood(model, processor, batch, answers: torch.Tensor) -> list[float]:
    """Log probability of each answer after the prompt."""
    prompt = batch["input_ids"][0, : int((batch["labels"][0] != -100).nonzero()[0])]
    found = []
    for answer in answers:
        ids = torch.cat([prompt, answer])[None]
        logits = model(ids, pixel_values=batch["pixel_values"], image_sizes=batch["image_sizes"]).logits[0]
        chosen = logits[len(prompt) - 1 : -1].log_softmax(-1).gather(1, answer[:, None])
        found.append(float(chosen.sum()))
    return found


def test_equal_images_are_encoded_once(model, processor, pictures, monkeypatch):
    first, second = pictures[0].resize((64, 64)), noise(64, 64, 5)
    inputs = processor(["Read."] * 4, [first, first, second, first], "picture", fit=False)
    images = [inputs[name] for name in ("pixel_values", "image_sizes", "clip_pixel_values")]
    seen: list[int] = []
    encode = model.vision_vocabulary.forward
    monkeypatch.setattr(model.vision_vocabulary, "forward", lambda *all: seen.append(len(all[0])) or encode(*all))
    with torch.no_grad():
        together = model.encode_images(*images)
        alone = [model.encode_images(*(each[n : n + 1] for each in images)) for n in range(4)]
    assert seen == [3, 1, 1, 1, 1]
    for name, features in together.items():
        torch.testing.assert_close(features, torch.cat([each[name] for each in alone]), atol=1e-5, rtol=1e-4)


def test_a_second_question_does_not_encode_the_picture_again(model, processor, pictures, monkeypatch):
    """Until weights may have changed: training forgets."""
    engine = TransformersEngine(model, processor)
    seen: list[int] = []
    encode = model.vision_vocabulary.forward
    monkeypatch.setattr(model.vision_vocabulary, "forward", lambda *all: seen.append(len(all[0])) or encode(*all))

    def ask(image, words: str) -> str:
        (answer,) = engine.generate([Request([{"role": "user", "content": f"<image>{words}"}], [image], "picture", 4)])
        return answer.text

    first, second = pictures[0].resize((64, 64)), noise(64, 64, 5)
    expected = [ask(image, words) for words in ("Is it?", "Was it?") for image in (first, second)]
    assert seen == [1, 1]
    model.eval()
    assert [ask(image, words) for image in (first, second) for words in ("Is it?", "Was it?")] == [
        expected[n] for n in (0, 2, 1, 3)
    ]
    assert seen == [1, 1, 1, 1]
    with branches_off(model):
        ask(second, "Is it?")
    assert ask(second, "Is it?") == expected[1] and seen == [1] * 6

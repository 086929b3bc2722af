"""The whole model, tiny: counts of the published shapes, generation, batches, saving, switching branches off."""

import pytest
import torch
from conftest import noise, tiny_config, tiny_model
from torch.nn import functional as F
from transformers import AutoModelForImageTextToText, AutoProcessor

from varytoy.models.config import VaryConfig
from varytoy.models.connectors import LinearConnector
from varytoy.models.vary import CACHE, VaryForConditionalGeneration, count_parameters
from varytoy.processing.processor import VaryProcessor

PROMPTS = ["Read.", "What does this image say, please?"]


@pytest.mark.parametrize(("preset", "count"), [("vary-toy", 2_237_365_504), ("got", 560_528_640)])
def test_published_parameter_count(preset, count):
    assert count_parameters(VaryConfig.preset(preset)) == count


def test_unknown_preset_names_the_known_ones():
    with pytest.raises(ValueError, match=r"'huge'.*\bnano\b.*\bvary-toy\b"):
        VaryConfig.preset("huge")


def new_tokens(model: VaryForConditionalGeneration, inputs, steps: int = 12, **options) -> list[list[int]]:
    """Greedy tokens, none of which ends the answer."""
    options = {"max_new_tokens": steps, "do_sample": False, "eos_token_id": None, "pad_token_id": 0, **options}
    with torch.inference_mode():
        return model.generate(**inputs, **options)[:, inputs["input_ids"].shape[1] :].tolist()


def logits(model: VaryForConditionalGeneration, inputs) -> torch.Tensor:
    """[B, T, vocabulary], with positions counted from the first word, as in generation."""
    positions = (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    with torch.inference_mode():
        return model(**inputs, position_ids=positions).logits


def test_cached_generation_equals_uncached(model, processor, pictures):
    inputs = processor(PROMPTS, [[picture] for picture in pictures], fit=False)
    cached = new_tokens(model, inputs)
    assert len(set(cached[0])) > 2, "the tiny model says the same token again and again: the test shows nothing"
    assert cached == new_tokens(model, inputs, use_cache=False)


@pytest.mark.parametrize("spelling", ["cache", "past_key_values"])
def test_the_cache_has_both_names(model, processor, pictures, spelling):
    """transformers 5.24 renamed ``past_key_values`` to ``cache``; either is taken, and the output has the stock one."""
    inputs = processor(PROMPTS[0], pictures[0])
    whole = model(**inputs).logits[0, -1]
    first = {
        name: value[:, :-1] if name in ("input_ids", "attention_mask") else value for name, value in inputs.items()
    }
    kept = model(**first, use_cache=True)[CACHE]
    again = model(inputs["input_ids"][:, -1:], inputs["attention_mask"], **{spelling: kept}).logits[0, -1]
    torch.testing.assert_close(again, whole, atol=1e-4, rtol=1e-4)


def test_batch_generates_what_each_prompt_generates_alone(model, processor, pictures):
    together = new_tokens(model, processor(PROMPTS, [[picture] for picture in pictures]))
    alone = [new_tokens(model, processor(*pair))[0] for pair in zip(PROMPTS, pictures, strict=True)]
    assert together[0] != together[1]
    assert together == alone


def test_batch_logits_equal_single_ones(model, processor, pictures):
    together = logits(model, processor(PROMPTS, [[picture] for picture in pictures]))
    for row, prompt, picture in zip(together, PROMPTS, pictures, strict=True):
        alone = logits(model, processor(prompt, picture))[0]
        torch.testing.assert_close(row[-len(alone) :], alone, atol=1e-4, rtol=1e-4)


def test_text_only_rows_beside_a_picture(model, processor, pictures):
    hello = "Hello there, model."
    together = logits(model, processor([hello, PROMPTS[0]], [[], [pictures[0]]]))
    for row, inputs in zip(together, [processor(hello), processor(PROMPTS[0], pictures[0])], strict=True):
        alone = logits(model, inputs)[0]
        torch.testing.assert_close(row[-len(alone) :], alone, atol=1e-4, rtol=1e-4)


def test_two_pictures_in_one_conversation_come_in_order(model, processor, pictures):
    prompt = [{"role": "user", "content": "<image> and <image>: which?"}]
    there = logits(model, processor([prompt], [pictures]))
    back = logits(model, processor([prompt], [pictures[::-1]]))
    assert there.shape == back.shape
    assert (there[0, -1] - back[0, -1]).abs().max() > 1e-3


def test_saved_model_answers_the_same(model, processor, pictures, tmp_path):
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").is_file()
    assert not list(tmp_path.glob("*.bin"))
    again = AutoModelForImageTextToText.from_pretrained(tmp_path).eval()
    reader = AutoProcessor.from_pretrained(tmp_path)
    assert isinstance(again, VaryForConditionalGeneration)
    assert isinstance(reader, VaryProcessor)
    inputs, same = processor(PROMPTS[0], pictures[0]), reader(PROMPTS[0], pictures[0])
    assert inputs.keys() == same.keys()
    for name in inputs:
        assert torch.equal(inputs[name], same[name])
    assert torch.equal(logits(model, inputs), logits(again, same))


def test_clip_branch_matters_and_can_be_switched_off(model, processor, pictures):
    inputs = processor(PROMPTS[0], pictures[0])
    seen = logits(model, inputs)
    inputs.pop("clip_pixel_values")
    blind = logits(model, inputs)
    assert torch.isfinite(blind).all()
    assert (seen - blind).abs().max() > 1e-3


def test_channels_are_clip_then_vocabulary():
    config = tiny_config()
    connector = LinearConnector(config)
    with torch.no_grad():
        connector.mm_projector.weight.zero_()
        connector.mm_projector.bias.fill_(1.0)
        connector.mm_projector_vary.weight.zero_()
        connector.mm_projector_vary.bias.fill_(2.0)
        model = tiny_model(config)
        model.connector = connector
        rows = model.connect(model.encode_images(torch.zeros(1, 3, 32, 32), None, torch.zeros(1, 3, 32, 32)))
    assert tuple(rows.shape) == (2 * 4, 48)
    assert rows[:, :16].eq(1.0).all() and rows[:, 16:].eq(2.0).all()


def test_model_without_clip_branch(processor, pictures):
    config = tiny_config()
    config.clip_config, config.clip_projection_size = None, 0
    model = tiny_model(config)
    processor.image_processor.clip_size = 0
    inputs = processor(PROMPTS[0], pictures[0])
    assert "clip_pixel_values" not in inputs
    assert model.clip is None
    assert torch.isfinite(logits(model, inputs)).all()


def test_wrong_number_of_image_tokens_is_one_sentence(model, processor, pictures):
    inputs = processor(PROMPTS[0], pictures[0], fit=False)
    place = (inputs["input_ids"][0] == model.config.image_token_id).nonzero()[0]
    inputs["input_ids"][0, place] = 1
    with pytest.raises(ValueError, match=r"\b29 <imgpad>.*\b30\b.*VaryProcessor"):
        model(**inputs)


def test_opt_decoder_with_pictures_and_left_padding(opt_model, processor, pictures):
    inputs = processor(PROMPTS, [[picture] for picture in pictures])
    together = new_tokens(opt_model, inputs)
    alone = [new_tokens(opt_model, processor(*pair))[0] for pair in zip(PROMPTS, pictures, strict=True)]
    assert together[0] != together[1]
    assert together == alone
    assert together == new_tokens(opt_model, inputs, use_cache=False)


def test_opt_decoder_sees_the_picture(opt_model, processor, pictures):
    with torch.inference_mode():
        one = opt_model(**processor(PROMPTS[0], pictures[0], fit=False)).logits
        other = opt_model(**processor(PROMPTS[0], noise(*pictures[0].size, seed=9), fit=False)).logits
    assert (one - other)[0, -1].abs().max() > 1e-3


def test_opt_decoder_has_4096_positions(opt_model):
    ids = torch.randint(6, 384, (1, 4096), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.isfinite(opt_model(input_ids=ids, logits_to_keep=1).logits).all()
    assert VaryConfig.preset("vary-tiny").text_config.max_position_embeddings == 4096


def test_loss_counts_labelled_tokens_alone(model, processor, pictures):
    conversations = [
        [{"role": "user", "content": f"<image>\n{prompt}"}, {"role": "assistant", "content": answer}]
        for prompt, answer in zip(PROMPTS, ["Yes.", "A longer answer: 42."], strict=True)
    ]
    batch = processor(conversations, [[picture] for picture in pictures], train=True)
    with torch.no_grad():
        output = model(**batch)
    wanted = batch["labels"] != -100
    assert int(wanted.sum()) == len("Yes.") + len("A longer answer: 42.") + 2
    scores = output.logits[:, :-1][wanted[:, 1:]]
    expected = F.cross_entropy(scores, batch["labels"][wanted])
    torch.testing.assert_close(output.loss, expected, atol=1e-5, rtol=1e-5)


def test_every_trained_part_gets_a_gradient(model, processor, pictures):
    messages = [{"role": "user", "content": "<image>\nRead."}, {"role": "assistant", "content": "Yes."}]
    model.train()
    model(**processor([messages], [[pictures[0]]], train=True)).loss.backward()
    for part in (model.vision_vocabulary, model.clip.visual.conv1, model.connector, model.language_model):
        for name, parameter in part.named_parameters():
            assert parameter.grad is not None, name

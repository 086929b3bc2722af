"""Guided copying: where answers stand in the text, and heads that learn to look there."""

import json

import torch
from conftest import tiny_recipe

from train.loop import run
from train.objectives.guided_copying import GuidedCopying, _fill_sources
from varytoy.processing.processor import IGNORED


def test_an_answer_is_found_in_the_text():
    text, question, end = [11, 12, 13, 14, 15, 16], [7, 8], 2
    ids = [*text, *question, 13, 14, end, 8, 99, 15, 16, end, 8, 12, end]
    labels = torch.tensor([IGNORED] * 8 + [13, 14, end, IGNORED, 99, 15, 16, end, IGNORED, 12, end])
    sources = torch.full((len(ids),), IGNORED)
    _fill_sources(sources, ids, labels, shared=8)
    # 13 14 stands at 2; 15 16 at 4, where it begins with another token; one token alone is not looked for
    assert {place: int(source) for place, source in enumerate(sources) if source != IGNORED} == {
        7: 2,
        8: 3,
        11: 3,
        12: 4,
        13: 5,
    }
    sources.fill_(IGNORED)
    _fill_sources(sources, ids, labels, shared=4)  # the other answers stand in what only one part of the row sees
    assert [place for place, source in enumerate(sources) if source != IGNORED] == [7, 8]


def test_heads_learn_where_the_answer_stands(tmp_path):
    rows = []
    for number in range(24):
        lines = [f"key{place} | {(number * 7 + place * 31) % 90 + 10}" for place in range(4)]
        name, value = lines[number % 4].split(" | ")
        messages = [
            {"role": "user", "content": f"<image>\nWhat stands after {name}?"},
            {"role": "assistant", "content": value},
        ]
        about = {"annotations": {"plain_text": "\n".join(lines)}, "images": ["x.png"]}
        rows.append({"task": "chat", "messages": messages} | about)
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, rows)))
    chosen = tiny_recipe(
        tmp_path / "q.jsonl", tmp_path / "run", batch_size=12, max_steps=40, learning_rate=1e-2, warmup=2
    )
    chosen.data[0].as_text = True
    chosen.objectives = {"copying": GuidedCopying.Settings(1.0, layers=[1], layers_before=[0])}
    run(chosen)
    metrics = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    found = [row for row in metrics if "loss_copying_before" in row]
    assert found[-1]["loss_copying_before"] < 0.5 * found[0]["loss_copying_before"]
    assert found[-1]["loss_copying_sources"] < 0.8 * found[0]["loss_copying_sources"]

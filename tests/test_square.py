"""Square: questions from a model, filtered; resumed without asking twice; samples and sheets of what is kept."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
import transformers
from conftest import ROOT
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from data_tools.__main__ import main
from data_tools.render.truth import KINDS, UNANSWERABLE, Grid, Truth, questions
from data_tools.square import captions, parse
from data_tools.square.agree import compare, stands_in
from data_tools.square.backends import choose
from data_tools.square.backends.scripted import Mistakes, Scripted
from data_tools.square.items import Page
from data_tools.square.replies import Ask
from varytoy.data.samples import parse_sample, read_samples

SECRET = "sk-this-is-never-written"
GOODS = Grid(("item", "price"), (("Tea", "2.50"), ("Milk", "1.20"), ("Bread", "3.10")), "items", "of", ("Soap",))
TRUTH = Truth("receipt", {"total": ("$6.80", "6.80"), "date": ("2024-03-05",)}, GOODS, ("table number",))


def rows_of(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def receipts(tmp_path):
    """Samples of five pictures with a known truth."""
    folder = tmp_path / "receipts"
    (folder / "images").mkdir(parents=True)
    rows = []
    for number in range(5):
        Image.new("RGB", (60, 40), (40 * number, 90, 200)).save(folder / f"images/{number}.png")
        turns = [
            {"role": "user", "content": "<image>\nRead it."},
            {"role": "assistant", "content": "Tea 2.50\nMilk 1.20\nBread 3.10\nTOTAL $6.80\n2024-03-05"},
        ]
        row = {"id": f"r{number}", "task": "ocr", "messages": turns, "images": [f"images/{number}.png"]}
        rows.append(row | {"metadata": {"truth": TRUTH.to_json()}})
    (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


class Endpoint(ThreadingHTTPServer):
    """Chat completions of a scripted model, which fail, stall and answer nonsense at times.

    Attributes:
        answered: prompt -> how often it got a reply.
        faults: what each next requests gets in place of a reply.
    """

    daemon_threads = True

    def __init__(self, faults=(), delay=0.0):
        super().__init__(("127.0.0.1", 0), Handler)
        self.faults, self.delay = list(faults), delay
        self.answered, self.keys, self.lock = Counter(), set(), threading.Lock()
        self.model = Scripted(Mistakes(unreadable=0.0))
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *words):
        pass

    def do_GET(self):
        self.send(200, {"object": "list", "data": [{"id": "tiny-vlm", "object": "model"}]})

    def do_POST(self):
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        content = body["messages"][0]["content"]
        with server.lock:
            server.keys.add(self.headers["Authorization"])
            fault = server.faults.pop(0) if server.faults else ""
        time.sleep(server.delay)
        if fault == "stall":
            time.sleep(3)
        if fault in ("400", "401", "429", "500"):
            said = f"bad key {self.headers['Authorization'].split()[1]}" if fault == "401" else "try again"
            return self.send(int(fault), {"error": {"message": said}})
        if fault == "html":
            return self.send(200, "<html>gateway</html>")
        picture = next((part["image_url"]["url"] for part in content if part["type"] == "image_url"), "")
        prompt = content[-1]["text"]
        said = "]{ lorem ipsum" if fault == "nonsense" else reply_to(prompt)
        with server.lock:
            server.answered[picture, prompt] += 1
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": said}}
        used = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
        self.send(
            200,
            {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]} | {"usage": used},
        )

    def send(self, status, tree):
        data = (tree if isinstance(tree, str) else json.dumps(tree)).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html" if isinstance(tree, str) else "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Retry-After-Ms", "10")
        self.end_headers()
        try:
            self.wfile.write(data)
        except OSError:  # the client did not wait
            pass


def reply_to(prompt: str) -> str:
    """What a model says that reads the receipts without mistakes."""
    if "JSON list" in prompt:
        return '```json\n["What is the total?", "What is the date?", "What is the TOTAL?", "Who signed it?"]\n```'
    if "JSON object" in prompt:
        return '{"meaningful": true, "answerable": true, "correct": true}'
    if "Explain" in prompt:
        return "It stands at the end of the receipt."
    said = "5 March 2024" if "What is the date?" in prompt else "$6.80"
    if "Do they mean the same?" in prompt:
        return "no"
    if "signed it" in prompt:
        said = UNANSWERABLE
    return f"It is at the end.\nAnswer: {said}" if "step by step" in prompt else said


def test_questions_come_from_an_endpoint_that_fails_stalls_and_answers_nonsense(
    receipts, tmp_path, monkeypatch, capsys
):
    server = Endpoint(["500", "429", "", "html", "stall", "nonsense"] + [""] * 30 + ["500"] * 3 + ["nonsense"])
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    out = tmp_path / "out"
    command = ["square", str(receipts), "--out", str(out), "--backend", f"openai:{server.url}", "--ocr", "samples"]
    command += ["--questions", "4", "--timeout", "1"]
    assert main([*command, "--max-requests", "30"]) == 1
    assert "requests that failed: 1; run it again to ask them again" in capsys.readouterr().out  # HTML, not JSON
    assert main([*command, "--max-requests", "30"]) == 1
    assert "30 of 30 requests are used: run it again with a larger --max-requests" in capsys.readouterr().out
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "5 pages" in said and "16 questions after asking" in said  # nonsense in place of one page's list
    assert max(server.answered.values()) <= 2  # one may have come too late, and was asked again
    assert sum(count > 1 for count in server.answered.values()) <= 1
    asked = {file.name: rows_of(file) for file in sorted(out.glob("[1-6]-*.jsonl"))}
    assert len(asked) == 6 and all(rows for rows in asked.values())
    for row in (row for rows in asked.values() for row in rows):
        assert row["backend"] == "tiny-vlm" and row["prompt"].startswith("1/") and row["temperature"] == 0.0
    items = rows_of(out / "items.jsonl")
    kept = [item for item in items if not item.get("dropped")]
    assert kept and {item["question"] for item in kept} <= {"What is the total?", "What is the date?"}
    reasons = Counter(item["dropped"] for item in items if item.get("dropped"))
    assert reasons["asked twice"] >= 4 and reasons["no answer in the picture, says the model"] >= 4
    total = next(item for item in kept if item["question"] == "What is the total?")
    assert total["in_text"] and all(total["verdicts"].values())
    assert server.keys == {f"Bearer {SECRET}"}
    for file in out.rglob("*"):
        assert not file.is_file() or SECRET.encode() not in file.read_bytes(), file
    assert SECRET not in said


def test_a_key_that_the_server_repeats_is_not_shown(receipts, tmp_path, monkeypatch, capsys):
    server = Endpoint(["401"])
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    command = ["square", str(receipts), "--out", str(tmp_path / "out"), "--backend"]
    assert main([*command, f"openai:{server.url}", "--concurrency", "1"]) == 1
    said = capsys.readouterr()
    assert "stopped: tiny-vlm: Error code: 401" in said.out and "bad key ***" in said.out
    assert SECRET not in said.out + said.err
    assert main([*command, "openai:http://me:secret@127.0.0.1:1/v1"]) == 2
    assert "the URL holds a password" in capsys.readouterr().err


def test_a_picture_that_the_server_refuses_does_not_end_the_run(receipts, tmp_path, capsys):
    server, out = Endpoint(["400"]), tmp_path / "out"
    command = ["square", str(receipts), "--out", str(out), "--backend", f"openai:{server.url}", "--concurrency", "1"]
    assert main(command) == 0 and "16 questions after asking" in capsys.readouterr().out
    first, *others = rows_of(out / "1-questions.jsonl")
    assert first["reply"] == "" and "Error code: 400" in first["error"]
    assert len(others) == 4 and not any("error" in row for row in others)


def test_a_run_that_is_killed_goes_on_and_asks_nothing_twice(receipts, tmp_path):
    server, out = Endpoint(delay=0.03), tmp_path / "out"
    command = ["-m", "data_tools", "square", str(receipts), "--out", str(out), "--concurrency", "2"]
    command += ["--backend", f"openai:{server.url}", "--questions", "4"]
    run = subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ}
    )
    while sum(server.answered.values()) < 25:
        assert run.poll() is None
        time.sleep(0.01)
    run.send_signal(signal.SIGKILL)
    run.wait()
    time.sleep(0.5)  # the server still answers what was on its way
    before = dict(server.answered)
    with max(out.glob("[1-6]-*.jsonl")).open("a") as lines:
        lines.write('{"item": "000001-1", "ask": "answ')  # as a kill leaves it
    assert main(command[2:]) == 0
    again = {key for key, count in server.answered.items() if count > 1}
    assert len(before) >= 25 and len(again) <= 2 and again <= set(before)  # the two that were on their way
    assert {sample.answer for sample in read_samples(out) if sample.task == "vqa"} == {"$6.80", "5 March 2024"}
    assert main([*command[2:], "--temperature", "0.5"]) == 2


def test_pages_that_are_known_ask_themselves_and_a_model_only_finds_other_words(receipts, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["square", str(receipts), "--out", str(out), "--backend", "scripted", "--templates", "--questions", "6"]
    assert main([*command, "--forms", "short", "reason", "turns"]) == 0
    items = rows_of(out / "items.jsonl")
    assert len(items) == 30 and not any(item.get("dropped") for item in items)
    assert {item["kind"] for item in items} == set(KINDS)
    assert any(item["question"].startswith("Please tell me: ") for item in items)
    assert all(item["answer"] == item["answers"][0] for item in items)
    assert {path.name for path in out.glob("[1-6]-*")} == {"1-questions.jsonl"}
    samples = list(read_samples(out))
    assert Counter(sample.task for sample in samples) == {"vqa": 30, "chat": 35}
    reasoned = next(sample for sample in samples if sample.id.endswith("-reason"))
    assert reasoned.prompt.endswith("First answer the question and then give the reason.")
    answer, reason = reasoned.answer.split("\n")
    assert answer and len(reason.split()) > 4
    assert len(next(sample for sample in samples if sample.id.endswith("-turns")).messages) == 12
    assert main(["audit", str(out), "--count", "2"]) == 0
    assert Image.open(out / "audit.png").width > 600
    capsys.readouterr()
    for layout, name in (("llava", "l.json"), ("ms-swift", "s.jsonl"), ("llama-factory", "f.json")):
        assert main(["export", str(out), "--layout", layout, "--out", str(out / name)]) == 0
    llava = json.loads((out / "l.json").read_text())
    assert llava[0]["image"] == samples[0].images[0] and [turn["from"] for turn in llava[0]["conversations"]] == [
        "human",
        "gpt",
    ]
    assert [sample.messages for sample in read_samples(write_lines(out / "again.jsonl", llava))] == [
        sample.messages for sample in samples
    ]
    assert rows_of(out / "s.jsonl")[0] == {"messages": samples[0].messages, "images": samples[0].images}
    assert json.loads((out / "f.json").read_text()) == rows_of(out / "s.jsonl")
    assert json.loads((out / "dataset_info.json").read_text())["f"]["columns"] == {
        "messages": "messages",
        "images": "images",
    }


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_model_without_eyes_asks_by_the_text_and_its_answers_must_stand_there(receipts, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["square", str(receipts), "--out", str(out), "--backend", "scripted:wrong=0.5,stubborn=0", "--text-only"]
    assert main(command) == 2 and "--text-only needs the text: add --ocr varytoy" in capsys.readouterr().err
    assert main([*command, "--ocr", "samples", "--keep-going"]) == 0
    items = rows_of(out / "items.jsonl")
    for item in items:
        assert (item.get("dropped") == "answer does not stand in the text") or item["in_text"]
    assert {row["ask"].partition("#")[0] for row in rows_of(out / "1-questions.jsonl")} == {"ask.pairs"}


def tiny_llava(folder):
    """A LLaVA of transformers that has learned nothing, with its processor."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    ids = {piece: number for number, piece in enumerate(["<pad>", "<s>", "</s>", "<image>", *letters])}
    model = Tokenizer(models.BPE(ids, []))
    model.pre_tokenizer, model.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "additional_special_tokens": ["<image>"]}
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=model, **names)
    image = "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    template = f"{{% for turn in messages %}}{{% for part in turn['content'] %}}{image}{{% endfor %}}{{% endfor %}}"
    pixels = transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    shape = {"patch_size": 16, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    transformers.LlavaProcessor(pixels, tokenizer, chat_template=template, **shape).save_pretrained(folder)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**small, image_size=32, patch_size=16),
        text_config=transformers.LlamaConfig(**small, vocab_size=len(tokenizer)),
        image_token_index=3,
        vision_feature_layer=-1,
    )
    torch.manual_seed(0)
    transformers.LlavaForConditionalGeneration(config).save_pretrained(folder)


@pytest.mark.parametrize("name", ["a model of transformers", "nano"])
def test_a_model_on_this_machine_is_asked(receipts, tmp_path, capsys, name):
    if name != "nano":
        name = str(tmp_path / "llava")
        tiny_llava(name)
    backend = choose(name)
    page = Page("1", "images/0.png", "", "")
    seen = backend.reply(
        Ask("1", "answer.bare", page, {}, max_tokens=6), "Which colour?", receipts / page.image, 0.0, 0
    )
    again = backend.reply(
        Ask("1", "answer.bare", page, {}, max_tokens=6), "Which colour?", receipts / page.image, 0.0, 0
    )
    assert seen.text and seen == again
    if not backend.needs_picture:
        drawn = [
            backend.reply(Ask("1", "compare", page, {}, False, 6), "Yes?", None, 1.5, seed).text for seed in (1, 2, 1)
        ]
        assert drawn[0] == drawn[2] != drawn[1]
    backend.close()


def test_captions_are_kept_where_the_reader_finds_what_they_quote(receipts, tmp_path, capsys):
    command = ["square", str(receipts), "--captions", "--backend", "scripted:wrong=0.5,unreadable=0"]
    out = tmp_path / "out"
    assert main([*command, "--out", str(out), "--ocr", "samples"]) == 0
    judged = rows_of(out / "captions.jsonl")
    reversed_ = ["$08.6" in row["text"] or "08.6$" in row["text"] for row in judged]
    assert any(reversed_) and not all(reversed_)
    for row, backwards in zip(judged, reversed_, strict=True):
        assert row["dropped"] == ("quotes what the reader does not find" if backwards else "")
    kept = [row["text"] for row in judged if not row["dropped"]]
    assert [sample.answer for sample in read_samples(out)] == kept
    assert f"{len(kept)} captions kept" in capsys.readouterr().out
    assert main([*command, "--out", str(tmp_path / "no")]) == 2
    assert "--captions needs the text: add --ocr varytoy" in capsys.readouterr().err


def test_a_caption_that_names_the_placeholder_of_images_becomes_a_sample(tmp_path):
    page = Page("000001", "images/000001.png", "0" * 64, "page.png")
    caption = captions.Caption(page.id, 'The tag "<image>".', 1, 1)
    sample = parse_sample(captions.row(page, caption, 0), tmp_path, "1")
    assert sample.answer == 'The tag "image".'


@pytest.mark.parametrize(
    ("first", "second", "same", "by"),
    [
        ("The total", "total.", True, "text"),
        ("$1,234.50", "1234.5", True, "number"),
        ("12%", "12", True, "number"),
        ("1234", "1235", True, "number"),
        ("12.30", "12.40", False, "number"),
        ("Main Street 12", "Main Streat 12", True, "similarity"),
        ("Main Street 12", "Main Street 13", None, "nothing"),
        ("12.10.1994", "12.10.1995", None, "nothing"),
        ("2024-03-05", "5 March 2024", None, "nothing"),
        ("", "x", False, "text"),
    ],
)
def test_answers_are_compared_without_a_model_where_that_is_possible(first, second, same, by):
    found = compare(first, second)
    assert (found.same, found.by) == (same, by) and compare(second, first) == found


def test_replies_are_understood_in_the_forms_that_models_use():
    assert parse.questions('Sure! ["What is it?", {"question": "Who?"}]') == ["What is it?", "Who?"]
    assert parse.questions("Here they are:\n1. What is it?\n- Give the date.\nQ2: Who?") == [
        "What is it?",
        "Give the date.",
        "Who?",
    ]
    assert parse.questions("I cannot do that.") == []
    assert parse.pairs("Q: Who?\nA: Tom.\nQ2. When?\nAnswer: 1999") == [("Who?", "Tom."), ("When?", "1999")]
    assert parse.pairs('[{"question": "Who?", "answer": "Tom."}, {"question": "x"}]') == [("Who?", "Tom")]
    assert parse.answer("I see it.\n**Final answer:** $4.20.") == "$4.20"
    assert parse.answer('"Tom"\nbecause') == "Tom" and parse.answer("The image does not say.") == UNANSWERABLE
    assert parse.verdicts("meaningful: yes\nright - no", ("meaningful", "right")) == {
        "meaningful": True,
        "right": False,
    }
    assert parse.verdicts("meaningful: yes", ("meaningful", "right")) is None
    assert parse.yes("No, they differ.") is False and parse.yes("Yes.") is True and parse.yes("Hm") is None
    assert stands_in("Tea 2.50", "a\n(Tea  2.50)") and not stands_in("Tea 2", "Tea 2.50") and not stands_in("", "x")


def test_the_scripted_model_makes_the_mistakes_that_it_is_told_to():
    model = Scripted.parse("wrong=0.4,stubborn=0.5,meaningless=0.1,unanswerable=0.2,unreadable=0")
    fates = Counter()
    for number in range(150):
        page = Page(str(number), "", f"hash {number}", "", truth=TRUTH.to_json())
        for text, asked in model.asked(page, 3).items():
            fates[asked.fate] += 1
            said = [
                model.reply(Ask("1", name, page, {"question": text}), "", None, 0.0, 3).text
                for name in ("answer.bare", "prompt.1", "prompt.2")
            ]
            right = [model.is_right(page, 3, text, each) for each in said]
            assert all(right) if asked.fate == "right" else asked.fate == "wavering" or not any(right)
            assert asked.fate != "stubborn" or len(set(said)) == 1
    total = sum(fates.values())
    assert fates["unanswerable"] / total == pytest.approx(0.2, abs=0.06)
    assert fates["stubborn"] / total == pytest.approx(fates["wavering"] / total, abs=0.06)
    assert (fates["stubborn"] + fates["wavering"]) / total == pytest.approx(0.4 * 0.7, abs=0.08)


def test_bad_options_are_told(tmp_path, capsys):
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    base = ["square", str(tmp_path / "a.png"), "--out", str(tmp_path / "out")]
    for words, said in (
        (["--backend", "scripted:wrong=2"], "'wrong=2' is not NAME=SHARE"),
        (["--backend", "openai:http://127.0.0.1:9/v1"], "--backend openai:http://127.0.0.1:9/v1:"),
        (["--backend", str(tmp_path)], "nor is it a model of transformers"),
        (["--backend", "nano", "--model", "x"], "--model is for --backend openai:URL"),
    ):
        assert main([*base, *words]) == 2 and said in capsys.readouterr().err
    assert main([*base, "--backend", "scripted"]) == 1
    assert "scripted knows rendered pages alone" in capsys.readouterr().out
    assert main(["audit", str(tmp_path)]) == 2 and "name the folder of a finished square" in capsys.readouterr().err
    assert questions(TRUTH, random.Random(1), 3, ["unanswerable"])[0].answers == (UNANSWERABLE,)

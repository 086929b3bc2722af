"""Mutated input at every door: it is read, or refused with the door's own error; in seconds and little memory.

One case again, with its traceback: ``python tests/test_fuzz.py DOOR CASE``. Other cases: the variable FUZZ_SEED.
"""

import contextlib
import io
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from mutations import ODD, mutated_bytes, mutated_tree

ROOT = Path(__file__).resolve().parent.parent
SEED = int(os.environ.get("FUZZ_SEED", "1"))
SECONDS = 10
MAX_BYTES = 1.5e9
"""Of a process that takes all cases of a door."""
CASES = {
    "pictures": 500,
    "pdfs": 400,
    "samples": 500,
    "recipes": 300,
    "checkpoints": 250,
    "foreign": 150,
    "adapters": 50,
    "answers": 400,
}
Case = Callable[[random.Random], None]
"""One case: makes an input and gives it to its door; lets only errors through that the door should not raise."""


# ---- doors ----------------------------------------------------------------------------------------------------------


def pictures(folder: Path) -> Case:
    from PIL import Image

    from varytoy.data.documents import DocumentError, open_pages
    from varytoy.data.sample import SampleError, open_image

    made = []
    for number, mode in enumerate(("RGB", "L", "1", "P", "RGBA", "LA", "CMYK", "I;16", "F")):
        picture = Image.effect_noise((31, 23), 60).convert("RGB" if mode in ("P", "RGBA", "LA") else "L").convert(mode)
        exif = Image.Exif()
        exif[0x0112] = number % 9
        kinds = [("PNG", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"})]
        kinds += [("TIFF", {"compression": "group4"})] * (mode == "1")  # pillow crashes when it writes others so
        kinds += [("JPEG", {"exif": exif}), ("WEBP", {"lossless": True}), ("WEBP", {}), ("GIF", {}), ("BMP", {})]
        for kind, options in kinds:
            file = io.BytesIO()
            with contextlib.suppress(OSError, KeyError, ValueError):  # not every format has every mode
                frames = (
                    {"save_all": True, "append_images": [picture]} if kind in ("GIF", "TIFF") and not options else {}
                )
                picture.save(file, kind, **options, **frames)
                made.append(file.getvalue())

    def case(rng: random.Random) -> None:
        data = rng.choice(made)
        changed = mutated_bytes(data, rng)
        if data.startswith(b"\x89PNG") and rng.random() < 0.7:
            changed = _png_with_right_sums(changed)
        if rng.random() < 0.2:
            (folder / "x").write_bytes(changed)
            with contextlib.suppress(SampleError):
                open_image(folder / "x")
            return
        with contextlib.suppress(DocumentError):
            for page in open_pages(changed):
                with contextlib.suppress(DocumentError):
                    assert page.image.mode == "RGB" and min(page.image.size) > 0
                page.forget()
                if page.number > 4:
                    break

    return case


def _png_with_right_sums(data: bytes) -> bytes:
    found, place = bytearray(data[:8]), 8
    while place + 8 <= len(data):
        length = min(int.from_bytes(data[place : place + 4], "big"), len(data))
        chunk = data[place + 4 : place + 8 + length]
        found += data[place : place + 4] + chunk + zlib.crc32(chunk).to_bytes(4, "big")
        place += 12 + length
    return bytes(found)


def pdfs(folder: Path) -> Case:
    from varytoy.data.documents import DocumentError, open_pages

    numbers = "0 1 -1 0.001 -300 1e5 14400 99999999 4294967296 1" + "0" * 300 + " nan null [] (x) <00> /X 3 0 R 1 0 R"
    odd_values = [*numbers.split(" "), "3 0 R", "7 0 R", "99 0 R", "<< >>", "[0 0 0 0]", "[1 2]", "true"]

    def document(rng: random.Random) -> bytes:
        text = b"BT /F1 18 Tf 20 60 Td (Words 483920) Tj ET 0 0 50 20 re f q 40 0 0 40 10 10 cm /I1 Do Q"
        box = rng.choice(("[0 0 200 100]", "[0 0 14400 14400]", "[10 10 5 5]", "[0 0 3 2000]", "[-50 -50 90 60]"))
        field = "<< /Type /Annot /Subtype /Widget /FT /Tx /T (a) /V (483920) /Rect [20 20 99 40] /DA (/F1 9 Tf) >>"
        objects = [
            "<< /Type /Catalog /Pages 2 0 R /AcroForm << /Fields [7 0 R] /NeedAppearances true >> >>",
            "<< /Type /Pages /Kids [3 0 R 8 0 R] /Count 2 >>",
            f"<< /Type /Page /Parent 2 0 R /MediaBox {box} /CropBox [0 0 180 90] /Rotate 90 /UserUnit 2 /Annots "
            "[7 0 R] /Contents 4 0 R /Resources << /Font << /F1 5 0 R >> /XObject << /I1 6 0 R >> >> >>",
            f"<< /Length {len(text)} >>\nstream\n{text.decode()}\nendstream",
            "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
            "<< /Type /XObject /Subtype /Image /Width 4 /Height 4 /ColorSpace /DeviceGray /BitsPerComponent 8 "
            "/Length 16 >>\nstream\n0123456789abcdef\nendstream",
            field,
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 100 100] /Contents [4 0 R 4 0 R] >>",
        ]
        for _ in range(rng.choice((0, 1, 1, 2, 4))):
            number = rng.randrange(len(objects))
            words = objects[number].split(" ")
            words[rng.randrange(len(words))] = rng.choice(odd_values)
            objects[number] = " ".join(words)
        found, places = bytearray(b"%PDF-1.7\n"), []
        for number, each in enumerate(objects, 1):
            places.append(len(found))
            found += f"{number} 0 obj\n{each}\nendobj\n".encode()
        start = len(found)
        table = "".join(f"{place:010d} 00000 n \n" for place in places)
        found += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}".encode()
        found += f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{start}\n%%EOF\n".encode()
        return bytes(found)

    def case(rng: random.Random) -> None:
        data = document(rng)
        if rng.random() < 0.5:
            data = mutated_bytes(data, rng)
        with contextlib.suppress(DocumentError):
            for page in open_pages(data):
                with contextlib.suppress(DocumentError):
                    assert page.image.mode == "RGB" and min(page.image.size) > 0
                with contextlib.suppress(DocumentError):
                    assert page.text is None or page.text.encode() is not None
                page.forget()

    return case


def samples(folder: Path) -> Case:
    """What passes validation goes on to what a training makes of it."""
    from PIL import Image

    from train.data.bad_samples import BadSamples
    from train.data.collator import Collator
    from train.data.dataset import SampleDataset
    from train.objectives import GuidedAttention, Letters, Objects
    from train.recipe import DataSettings
    from varytoy.data.sample import SampleError
    from varytoy.processing.plan import Grid
    from varytoy.processing.processor import VaryProcessor
    from varytoy.tasks import TASKS

    (folder / "images").mkdir()
    Image.effect_noise((64, 32), 60).save(folder / "images" / "a.png")
    (folder / "images" / "text.png").write_text("no picture")
    (folder / "images" / "circle.png").symlink_to(folder / "images" / "circle.png")

    def row(task: str, answer: str, **more) -> dict:
        messages = [{"role": "user", "content": "<image>\nQuestion"}, {"role": "assistant", "content": answer}]
        return {"id": "a-1", "task": task, "messages": messages, "images": ["images/a.png"], **more}

    boxes = [{"label": "cat", "box": [10, 20, 300, 400]}, {"label": "bow (weapon)", "box": [0, 0, 1000, 1000]}]
    rows = [
        row(
            "ocr",
            "ab c",
            annotations={"letters": "abc", "letter_positions": [3, 4, 9, 4, 20, 4]},
            metadata={"lines": 1},
        ),
        row("markdown", "# ab", annotations={"letters": "ab", "letter_positions": [3, 4, 9, 4], "plain_text": "ab"}),
        row(
            "detect",
            "cat: [010, 020, 300, 400]; bow (weapon): [000, 000, 1000, 1000];",
            boxes=boxes,
            annotations={"classes": ["cat"]},
        ),
        row("ground", "[010, 020, 300, 400]", boxes=boxes[:1]),
        row("caption", "A cat.", annotations={"object_names": ["cat"], "all_objects": True}, boxes=boxes),
        {
            "conversations": [{"from": "human", "value": "<image>Hi"}, {"from": "gpt", "value": "a"}],
            "image": "images/a.png",
        },
        {
            "messages": [
                {"role": "system", "content": "s"},
                {"role": "user", "content": "x"},
                {"role": "assistant", "content": "y"},
            ]
        },
    ]
    processors = [VaryProcessor.preset(str(ROOT / "tests" / "tiny.json")), VaryProcessor.preset("nano")]
    processors[1].places = 0

    def case(rng: random.Random) -> None:
        lines = [json.dumps(rows[0])]
        for _ in range(3):
            line = json.dumps(mutated_tree(rng.choice(rows), rng, rng.choice((1, 1, 2, 3)))).encode()
            if rng.random() < 0.2:
                line = mutated_bytes(line, rng)
            if rng.random() < 0.05:
                line = line.replace(b"1", b"9" * 5000, 1)
            lines.append(line.decode("latin-1"))
        (folder / "samples.jsonl").write_bytes("\n".join(lines).encode("latin-1"))
        bad = BadSamples(report=lambda text: text.encode())
        with contextlib.suppress(SampleError):
            data = SampleDataset([DataSettings(str(folder), turns=rng.choice((1, 2)))], 0, bad)
            data.shapes((16, 8))
            letters = Letters(Letters.Settings(1.0, aligned=rng.choice((True, False)), characters="abc"))
            objects, guide = Objects(Objects.Settings(1.0)), GuidedAttention(GuidedAttention.Settings(1.0))
            objects.name_labels(data.labels())
            objects.clip_grid = Grid(2, 2)
            parts = {"objectives": [letters, objects, guide], "token_corruption": 0.2}
            collator = Collator(rng.choice(processors), 2048, bad, **parts, clip=True, names=True)
            collator([data[number] for number in range(len(data))])
            for sample in data.samples:
                with contextlib.suppress(SampleError):
                    TASKS[sample.task].score([sample.answer], [sample])
                json.dumps(sample.to_json()).encode()

    return case


def recipes(folder: Path) -> Case:
    import yaml

    from train.recipe import RecipeError, load_recipe, to_yaml

    files = sorted((ROOT / "train" / "recipes").glob("*/*.yaml"))
    bases, over = ([file for file in files if (file.parent.name == "overlays") == kind] for kind in (False, True))
    keys = "train.max_steps train.betas.1 data.0.path data.5.path data.².path model.init model.init.0 lora.rank train \
        train.lr_overrides.clip freeze.0 objectives.letters.weight x x.y . .. train. train.deepspeed stage output \
        objectives.objects.weight".split()

    def write(files: list[Path], path: Path, rng: random.Random) -> Path:
        text = rng.choice(files).read_text(encoding="utf-8")
        if rng.random() < 0.7:
            with contextlib.suppress(yaml.YAMLError, RecursionError):  # what yaml cannot write is no recipe
                text = yaml.safe_dump(
                    mutated_tree(yaml.safe_load(text), rng, rng.choice((1, 1, 2, 3))), allow_unicode=False
                )
        data = text.encode("utf-8", "surrogatepass")
        path.write_bytes(mutated_bytes(data, rng) if rng.random() < 0.4 else data)
        return path

    def case(rng: random.Random) -> None:
        overrides = []
        for _ in range(rng.choice((0, 1, 2))):
            value = rng.choice(
                (*map(repr, ODD), "[", "{", "9" * 5000, "!!python/object:x", "&a [*a]", "1:2:3", "2020-01-01", "@")
            )
            overrides.append(f"{rng.choice(keys)}{rng.choice(('=', '=', '=', '', '==', ' = '))}{value}")
        path = write(bases, folder / "x.yaml", rng)
        overlays = [write(over, folder / "over.yaml", rng)] if rng.random() < 0.5 else []
        overlays += [rng.choice((rng.choice(over).stem, str(rng.choice(ODD))))] if rng.random() < 0.3 else []
        with contextlib.suppress(RecipeError):
            to_yaml(load_recipe(path, overrides, overlays))

    return case


def _tiny_folder(folder: Path) -> Path:
    sys.path.insert(0, str(ROOT / "tests"))
    from conftest import tiny_config, tiny_model

    from varytoy.processing.processor import VaryProcessor

    tiny_model(tiny_config()).save_pretrained(folder)
    processor = VaryProcessor.preset("nano")
    processor.image_processor.clip_size = 32
    processor.save_pretrained(folder)
    return folder


def _spoil(folder: Path, out: Path, rng: random.Random) -> None:
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(folder, out)
    files = sorted(file for file in out.rglob("*") if file.is_file())
    settings = [file for file in files if file.suffix == ".json" and file.name != "tokenizer.json"]
    for _ in range(rng.choice((1, 1, 2))):
        file = rng.choice(settings if settings and rng.random() < 0.7 else files)
        if file in settings and rng.random() < 0.8:
            tree = json.loads(file.read_text())
            for key in ("vocabulary_config", "clip_config", "text_config", "image_processor"):
                if isinstance(tree, dict) and isinstance(tree.get(key), dict) and rng.random() < 0.4:
                    tree[key] = mutated_tree(tree[key], rng, 1)
                    break
            else:
                tree = mutated_tree(tree, rng, rng.choice((1, 1, 2)))
            file.write_text(json.dumps(tree))
        elif rng.random() < 0.9:
            data = file.read_bytes()
            head = min(len(data), 6000)  # most bytes of weights are numbers, of which all are right
            file.write_bytes(mutated_bytes(data[:head], rng) + data[head:])
        else:
            file.unlink()
        files = [each for each in files if each != file]
        settings = [each for each in settings if each != file]


def checkpoints(folder: Path) -> Case:
    """What can be loaded is asked."""
    from PIL import Image

    from varytoy.checkpoints.loading import ModelError
    from varytoy.inference.reader import Reader

    whole = _tiny_folder(folder / "whole")
    picture = Image.effect_noise((40, 24), 60)

    def case(rng: random.Random) -> None:
        _spoil(whole, folder / "x", rng)
        try:
            reader = Reader.from_pretrained(str(folder / "x"), "cpu")
        except ModelError:
            return
        with contextlib.suppress(ValueError):  # a context too short for the question
            reader.ask(picture, "detect", max_new_tokens=2)

    return case


def foreign(folder: Path) -> Case:
    sys.path.insert(0, str(ROOT / "tests"))
    import originals
    import torch

    from varytoy.checkpoints import WeightsError, convert

    layouts = (originals.vary_toy, originals.got, originals.got_transformers, originals.vary_tiny)
    wholes = []
    for number, make in enumerate(layouts):
        make(folder / f"whole{number}")
        wholes.append(folder / f"whole{number}")

    def change(state: dict, rng: random.Random) -> None:
        name = rng.choice(list(state))
        kind = rng.randrange(5)
        if kind == 0:
            del state[name]
        elif kind == 1:
            state[name] = torch.zeros(rng.choice(((), (0,), (0, 0), (5,), (1, 2, 3), (0, 10**9), (7, 7))))
        elif kind == 2:
            state[rng.choice(("x", name + ".x", name.replace("0", "77"), name.replace("1", "900000")))] = state.pop(
                name
            )
        elif kind == 3:
            state[name] = state[name].to(rng.choice((torch.int8, torch.float64, torch.bfloat16, torch.bool)))
        else:
            state[name] = state[name].flatten()

    def case(rng: random.Random) -> None:
        _spoil(rng.choice(wholes), folder / "x", rng)
        weights = folder / "x" / "pytorch_model.bin"
        if weights.is_file() and rng.random() < 0.5:
            with contextlib.suppress(Exception):  # its bytes are spoilt already
                state = torch.load(weights, weights_only=True)
                change(state, rng)
                torch.save(state, weights)
        shutil.rmtree(folder / "out", ignore_errors=True)
        try:
            convert(folder / "x", folder / "out")
        except WeightsError:
            assert not (folder / "out").exists()

    return case


def adapters(folder: Path) -> Case:
    import peft
    from conftest import tiny_config, tiny_model

    from varytoy.checkpoints.loading import ModelError
    from varytoy.inference.reader import Reader

    settings = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"])
    peft.get_peft_model(tiny_model(tiny_config()), settings).save_pretrained(folder / "whole")
    _tiny_folder(folder / "base")

    def case(rng: random.Random) -> None:
        _spoil(folder / "whole", folder / "x", rng)
        with contextlib.suppress(ModelError):
            Reader.from_pretrained(str(folder / "x"), "cpu")

    return case


def answers(folder: Path) -> Case:
    from PIL import Image

    from varytoy.data.boxes import parse_boxes, written_boxes
    from varytoy.tasks import TASKS

    pieces = [
        *"[](),;:*-#|`<>{}\n\t\0 0179²٣☃",
        *(" ", ", ", "cat", "1000", "99999", "<ref>", "</ref>", "<box>", "</box>", "<|det|>", "<|ref|>", "<|/ref|>"),
        *(
            "[1, 2, 3, 4]",
            "[001, 002, 003, 004]",
            "(5,6),(7,8)",
            "(1,2)",
            "cat: ",
            "; ",
            "**",
            "$$",
            "\\frac{",
            "<table>",
        ),
    ]
    picture = Image.new("RGB", (64, 48))

    def case(rng: random.Random) -> None:
        text = "".join(rng.choices(pieces, k=rng.choice((5, 30, 30, 300))))
        if rng.random() < 0.3:
            text = text[: rng.randrange(30)] + rng.choice(pieces) * 50_000 + text[-10:]
        for scale in (999, 1000):
            assert all(0 <= side <= 1000 for box in parse_boxes(text, scale) for side in box.xyxy)
        assert all(0 <= box.start < len(text) for box in written_boxes(text))
        for task in TASKS.values():
            answer = task.parse(text, picture.size, "words")
            assert all(0 <= x <= 64 and 0 <= y <= 48 for _, box in answer.boxes for x, y in (box[:2], box[2:]))
            answer.regions = [replace(each, label=each.label[:200]) for each in answer.regions[:50]]
            task.draw(picture, answer)

    return case


DOORS = (pictures, pdfs, samples, recipes, checkpoints, foreign, adapters, answers)


# ---- running --------------------------------------------------------------------------------------------------------


def run(door: str, first: int, end: int) -> None:
    """Take the cases in this process and print a JSON line before each and for each that is wrong. A case that takes
    too long ends the process by SIGPROF, in whatever library it is."""
    import varytoy.registration  # noqa: F401  (it repairs mismatched torchvision builds)

    sys.stdout, told = open(os.devnull, "w"), sys.stdout
    with tempfile.TemporaryDirectory() as folder:
        make = {each.__name__: each for each in DOORS}[door]
        case = make(Path(folder))
        for number in range(first, end):
            print(json.dumps({"case": number}), file=told, flush=True)
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            try:
                case(random.Random(f"{door}:{SEED}:{number}"))
            except Exception:  # which is what is looked for
                print(json.dumps({"case": number, "wrong": traceback.format_exc()[-1500:]}), file=told, flush=True)
            signal.setitimer(signal.ITIMER_PROF, 0)
            used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            if used > MAX_BYTES:
                print(json.dumps({"case": number, "wrong": f"{used / 1e9:.1f} GB"}), file=told, flush=True)
                return  # the next process starts at the next case


@pytest.mark.slow
@pytest.mark.parametrize("door", CASES)
def test_no_input_ends_a_program(door):
    wrong, number = [], 0
    while number < CASES[door]:
        command = [sys.executable, __file__, door, str(number), str(CASES[door])]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
        rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"case"')]  # libraries log
        assert rows, f"{door} could not begin: {done.stderr[-2000:]}"
        wrong += [row for row in rows if "wrong" in row]
        number = rows[-1]["case"] + 1
        if done.returncode:
            wrong.append({"case": rows[-1]["case"], "wrong": f"ended with {done.returncode}: {done.stderr[-500:]}"})
    said = "\n".join(f"python tests/test_fuzz.py {door} {row['case']}: {row['wrong']}" for row in wrong)
    assert not wrong, f"{len(wrong)} of {CASES[door]} cases\n{said}"


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    chosen, *span = sys.argv[1:]
    run(chosen, int(span[0]), int(span[-1]) + (len(span) == 1))

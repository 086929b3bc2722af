"""``varytoy read``: which files are meant, what is printed, what is said of what went wrong."""

import base64
import io
import json
import os
import signal
import subprocess
import sys
import time
import zlib

import pytest
from conftest import heed_interrupts, photograph
from PIL import Image, ImageDraw, ImageFont
from test_documents import make_pdf

from varytoy import cli
from varytoy.data.answer import Answer
from varytoy.inference.read import _of_answer

LOCKED = zlib.decompress(
    base64.b85decode(
        "c-n<hJ!=#}7_LOv#==(cC30XBcfRKajzjXLiAqAEHX+6A%)80Txf}K-"
        "ArZma!p5H<{t6KUJ1hMIT4`$vg>>TVCYM{e!rNPRdG>ui=HcyaEUnDbTO#RwIDPXcp+KO@o+N_-"
        "q#Je@$G{@83F*V*eS~z;20N;DVK_{%^vxja5EiS0G6042Ug5{E4ZNl9Ovq<?Q!4+5S_Uk`7{r;~1N4PmsE(ovi5DjXSiE-"
        "{l{yYiVr}BMI;dULZB$mG%GnDA*$xbc&A$_%<1ae?_p#g!dmv=w7NdZ5e2#3uC3KZ<N#jtXeVW{!zj5>Br?uy==Du8d`|Hl{t6zIRu3uR@DPEs"
        "`|9Dwmv#UQ(_TKg8_CLS>_97ac)6Okr$8y1ru??Kw#nB;#!dXbS4zkc@Z4%Q-@OEq(Ty<0?X}5wcy{-"
        "N9C<M}V81xY{Vq~8hrI^)P2*L7<XolRIoEkKqa)OQ+D?A~JqVDHt7|FHG6w70I8!#_o)3NgO5e!Hic0S|Wdx?nBWZYZjtVGI;M`2iQxK@NQmJy"
        "ys6X%@Kxlnzcd!eJ?<G3T!(;U^9Cj@jtE`Fe-<PvhYz-Vl){ZdXbC1x<n_zcD*ox!+LGnn8VEY!9b#a^3=H>;}I>UQ6@if0HK($yu{9-"
        "wBPXqOY2F~gjveb(3U*v@4-7AuDTpNI>+T)O&rKY%)4*tlu74s9z+u%y>pUSCQ60=Z8E&;"
    )
)
"""A PDF of one line, protected by the password "open"."""


@pytest.fixture
def folder(model, processor, tmp_path):
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def read(folder, capsys):
    """Runs ``varytoy read``; gives the exit code and what was printed."""

    def run(*words) -> tuple[int, str, str]:
        code = cli.main(["read", *map(str, words), "--model", str(folder), "--max-new-tokens", "2"])
        streams = capsys.readouterr()
        assert "Traceback" not in streams.err
        return code, streams.out, streams.err

    return run


def picture(path, text: str = "some words") -> None:
    image = Image.new("RGB", (220, 40), "white")
    ImageDraw.Draw(image).text((10, 8), text, "black", ImageFont.load_default(size=18))
    image.save(path)


def test_folders_patterns_and_several_pages_are_told_apart(read, tmp_path):
    (tmp_path / "in").mkdir()
    picture(tmp_path / "in/b.png")
    (tmp_path / "in/a.PDF").write_bytes(make_pdf("one", "two"))
    (tmp_path / "in/notes.txt").write_text("not read")
    code, out, _ = read(tmp_path / "in")
    heads = [line for line in out.splitlines() if line.startswith("==>")]
    a, b = tmp_path / "in/a.PDF", tmp_path / "in/b.png"
    assert (code, heads) == (0, [f"==> {a}, page 1 of 2 <==", f"==> {a}, page 2 of 2 <==", f"==> {b} <=="])
    code, out, err = read(tmp_path / "in/*.png", tmp_path / "model")
    assert code == 2 and "==>" not in out and f"{tmp_path / 'model'} is a folder without" in err


def test_nothing_is_loaded_where_there_is_nothing_to_read(capsys):
    start = time.process_time()
    assert cli.main(["read", "/no/such.png", "--model", "/no/such/model"]) == 2
    assert "/no/such.png" in capsys.readouterr().err and time.process_time() - start < 0.5


def test_standard_input_and_a_password(read, monkeypatch, tmp_path):
    picture(tmp_path / "x.png")
    data = io.TextIOWrapper(io.BytesIO((tmp_path / "x.png").read_bytes()))
    monkeypatch.setattr(sys, "stdin", data)
    code, out, _ = read("-", "--json")
    row = json.loads(out)
    assert (code, row["file"], row["width"], row["height"]) == (0, "standard input", 220, 40)
    (tmp_path / "locked.pdf").write_bytes(LOCKED)
    code, _, err = read(tmp_path / "locked.pdf")
    assert code == 2 and "--password" in err
    assert read(tmp_path / "locked.pdf", "--password", "wrong")[0] == 2
    assert read(tmp_path / "locked.pdf", "--password", "open")[0] == 0


def test_each_file_into_a_folder_and_nothing_is_replaced(read, tmp_path):
    picture(tmp_path / "x.png")
    (tmp_path / "two.pdf").write_bytes(make_pdf("one", "two"))
    out = tmp_path / "texts"
    assert read(tmp_path / "x.png", tmp_path / "two.pdf", "--out", out)[0] == 0
    assert sorted(path.name for path in out.iterdir()) == ["two.pdf.txt", "x.png.txt"]
    assert (out / "two.pdf.txt").read_text().count("\f") == 1
    code, _, err = read(tmp_path / "x.png", "--out", out)
    assert code == 2 and "x.png.txt exists" in err and "--overwrite" in err
    assert read(tmp_path / "x.png", "--out", out, "--overwrite")[0] == 0
    assert read(tmp_path / "x.png", "--out", out, "--task", "markdown", "--json")[0] == 0
    row = json.loads((out / "x.png.jsonl").read_text())
    assert row["markdown"] == row["text"] and all(len(block["box"]) == 4 for block in row["blocks"])


def test_photographs_are_described_where_no_task_is_named(read, processor, folder, tmp_path):
    """Each page by itself; ``--task`` and ``--prompt`` decide for all."""
    photo, pages = tmp_path / "photo.jpg", tmp_path / "pages.tif"
    photograph().save(photo)
    picture(tmp_path / "page.png")
    with Image.open(tmp_path / "page.png") as first:
        first.save(pages, save_all=True, append_images=[photograph(), first])

    def tasks(*words) -> list[str]:
        return [json.loads(line)["task"] for line in read(photo, pages, *words, "--json")[1].splitlines()]

    assert tasks() == ["caption", "ocr", "caption", "ocr"]
    assert tasks("--task", "ocr") == ["ocr"] * 4 and tasks("--prompt", "Who?") == ["chat"] * 4
    assert tasks("--prompt", "<md>") == ["markdown"] * 4 and tasks("--prompt", "Find the hat.") == ["ground"] * 4
    assert f"{photo} page 1: taken for a photograph" in read(photo)[2]
    assert "taken for" not in read(photo, "--task", "caption")[2] + read(photo, "--json")[2]
    processor.prompts = {"ocr": "OCR this image."}
    processor.save_pretrained(folder)
    assert tasks() == ["ocr"] * 4


def test_what_could_not_be_read_leaves_no_file(read, tmp_path):
    picture(tmp_path / "a.png")
    out = tmp_path / "out"
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[: len(whole) // 2])
    assert read(tmp_path / "a.png", "--out", out)[0] == 2 and not list(out.iterdir())
    code, said, _ = read(tmp_path / "a.png", "--out", out, "--json")
    assert code == 2 and "error" in json.loads(said) and not list(out.iterdir())
    (tmp_path / "a.png").write_bytes(whole)
    assert read(tmp_path / "a.png", "--out", out)[0] == 0
    before = (out / "a.png.txt").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[: len(whole) // 2])
    assert read(tmp_path / "a.png", "--out", out, "--overwrite")[0] == 2
    assert (out / "a.png.txt").read_bytes() == before
    assert read(tmp_path / "ou*")[2]  # folders only, which is said


def test_a_page_that_cannot_be_shown_has_its_row(read, tmp_path):
    kids = make_pdf("one", "two", "three").replace(
        b"/Kids [4 0 R 6 0 R 8 0 R]", b"/Kids [4 0 R 3 0 R 8 0 R]"
    )  # the second is a font
    (tmp_path / "odd.pdf").write_bytes(kids)
    code, out, err = read(tmp_path / "odd.pdf", "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert (code, [row["page"] for row in rows]) == (2, [1, 2, 3])
    assert ["error" in row for row in rows] == [False, True, False] and "Page 2 of odd.pdf" in err


def program(*words, **options) -> subprocess.Popen:
    environment = {**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONPATH": os.getcwd()}
    command = [sys.executable, "-m", "varytoy.cli", *map(str, words)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": environment, "preexec_fn": heed_interrupts}
    return subprocess.Popen(command, **pipes, **options)


def test_the_real_program_is_quiet_in_ascii_and_with_names_of_any_kind(folder, tmp_path):
    name = "\u00fcn\u00ef.png"
    picture(tmp_path / name)
    odd = os.fsencode(str(tmp_path)) + b"/odd\xff.png"
    os.link(tmp_path / name, odd)
    run = program("read", "--json", tmp_path / name, os.fsdecode(odd), "--model", folder, "--max-new-tokens", 2)
    out, err = run.communicate(timeout=120)
    rows = [json.loads(line) for line in out.decode("ascii").splitlines()]
    assert run.returncode == 0 and rows[0]["file"].endswith(name) and rows[1]["file"].endswith("odd\udcff.png")
    assert all(line.startswith(b"varytoy: ") for line in err.splitlines()), err.decode()


def test_an_interruption_is_one_line(folder, tmp_path):
    picture(tmp_path / "x.png")
    run = program("read", *[tmp_path / "x.png"] * 500, "--model", folder, "--max-new-tokens", 50)
    assert run.stdout.readline().startswith(b"==>")
    run.send_signal(signal.SIGINT)
    _, err = run.communicate(timeout=60)
    assert run.returncode == 130 and err.decode().splitlines()[-1:] == ["varytoy: interrupted"]
    assert b"Traceback" not in err


def test_what_was_left_out_of_an_answer_is_said():
    said = list(_of_answer(Answer("x", dropped={"malformed": 2, "out_of_range": 1})))
    assert said == ["parts of the answer are no lines with boxes and were left out: 2 malformed, 1 out of range"]

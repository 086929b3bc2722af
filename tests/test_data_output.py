"""What data_tools writes: folders and shards, manifests, and runs that go on after they were killed."""

import hashlib
import json
import os
import signal
import tarfile
import time
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import forked, noise
from PIL import Image

from data_tools.__main__ import main
from data_tools.output import JOURNAL, Output, Unit
from data_tools.writer import produce
from varytoy.data.sample import SampleError
from varytoy.data.samples import read_samples


def unit(number: int, rows: int = 2) -> Unit:
    """A picture and questions about it."""
    name = f"images/{number}.png"
    messages = [{"role": "user", "content": "<image>\nWhat?"}, {"role": "assistant", "content": str(number)}]
    samples = [{"id": f"{number}-{row}", "task": "vqa", "messages": messages, "images": [name]} for row in range(rows)]
    return Unit({name: b"picture %d" % number}, samples)


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("shard_size", [0, 5])
@pytest.mark.parametrize("stop", [0, 1, 4, 9])
def test_an_interrupted_output_goes_on_to_the_same_bytes(tmp_path, shard_size, stop):
    settings = {"seed": 3}
    with Output(tmp_path / "whole", settings, shard_size) as output:
        for number in range(10):
            output.add(unit(number))
        output.add(Unit())
    with pytest.raises(KeyboardInterrupt), Output(tmp_path / "parts", settings, shard_size) as output:
        for number in range(stop):
            output.add(unit(number))
        raise KeyboardInterrupt
    if not shard_size:  # what a kill leaves: a row that is cut, and images that no row is about
        (tmp_path / "parts/samples.jsonl.part").open("ab").write(b'{"id": "cu')
        (tmp_path / "parts/progress.jsonl").open("ab").write(b'{"units": 7')
    with pytest.raises(FileExistsError, match="--resume"):
        Output(tmp_path / "parts", settings, shard_size)
    with pytest.raises(ValueError, match="begun with other options"):
        Output(tmp_path / "parts", {"seed": 4}, shard_size, resume=True)
    with Output(tmp_path / "parts", settings, shard_size, resume=True) as output:
        assert output.units <= stop
        for number in range(output.units, 10):
            output.add(unit(number))
        output.add(Unit())
    assert everything(tmp_path / "parts") == everything(tmp_path / "whole")
    manifest = json.loads((tmp_path / "whole/manifest.json").read_text())
    assert manifest["samples"] == 20 and manifest["settings"] == {"seed": 3, "shard_size": shard_size}
    for name, digest in manifest["sha256"].items():
        assert hashlib.sha256((tmp_path / "whole" / name).read_bytes()).hexdigest() == digest
    with pytest.raises(FileExistsError, match="add --overwrite"):
        Output(tmp_path / "whole", settings, shard_size)
    for other in (3 - shard_size % 2, 0):  # an interrupted run in the other form leaves nothing to a new one
        with pytest.raises(KeyboardInterrupt), Output(tmp_path / "whole", settings, other, overwrite=True) as output:
            output.add(unit(0))
            raise KeyboardInterrupt
    with Output(tmp_path / "whole", settings, 9, overwrite=True) as output:
        output.add(unit(0))
    assert {path.name for path in (tmp_path / "whole").iterdir()} == {"images", "manifest.json", "shard-000000.tar"}


@pytest.mark.parametrize("shard_size", [0, 5])
def test_a_run_that_ended_before_its_manifest_goes_on(tmp_path, monkeypatch, shard_size):
    for name, cut in (("whole", False), ("cut", True)):
        with suppress(OSError), Output(tmp_path / name, {}, shard_size) as output:
            for number in range(4):
                output.add(unit(number))
            if cut:
                monkeypatch.setattr("data_tools.output.digest", lambda files: (_ for _ in ()).throw(OSError()))
        monkeypatch.undo()
    assert not (tmp_path / "cut/manifest.json").exists()
    with Output(tmp_path / "cut", {}, shard_size, resume=True) as output:
        assert output.units == 4
    assert everything(tmp_path / "cut") == everything(tmp_path / "whole")


def test_a_shard_that_the_journal_lacks_is_made_again(tmp_path):
    """A kill between the two leaves it."""
    for name in ("whole", "cut"):
        with Output(tmp_path / name, {}, 4) as output:
            for number in range(6):
                output.add(unit(number))
            if name == "cut":
                journal = (tmp_path / "cut" / JOURNAL).read_bytes().splitlines(keepends=True)
    (tmp_path / "cut/manifest.json").unlink()
    (tmp_path / "cut" / JOURNAL).write_bytes(b"".join(journal[:2]))
    with Output(tmp_path / "cut", {}, 4, resume=True) as output:
        assert [path.name for path in sorted((tmp_path / "cut").glob("*.tar"))] == ["shard-000000.tar"]
        for number in range(output.units, 6):
            output.add(unit(number))
    assert everything(tmp_path / "cut") == everything(tmp_path / "whole")


def test_a_worker_that_is_killed_ends_the_run_with_a_sentence(tmp_path):
    output = Output(tmp_path, {})
    with pytest.raises(ChildProcessError, match="a worker process was ended.*--resume"):
        produce(output, _fatal, range(20), workers=2)
    with Output(tmp_path, {}, resume=True) as output:
        assert output.units <= 5


def _fatal(number: int) -> Unit:
    if number == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return unit(number)


def test_shards_hold_what_a_folder_holds(source, tmp_path):
    command = ["--count", "5", "--seed", "2", "--workers", "1", "--source", str(source)]
    assert main(["render", "blocks", "--out", str(tmp_path / "folder"), *command]) == 0
    assert main(["render", "blocks", "--out", str(tmp_path / "shards"), *command, "--shards", "2"]) == 0
    shards = sorted(path.name for path in (tmp_path / "shards").glob("*.tar"))
    assert len(shards) > 1 and {path.name for path in (tmp_path / "shards").iterdir()} == {"manifest.json", *shards}
    for one, other in zip(read_samples(tmp_path / "folder"), read_samples(tmp_path / "shards"), strict=True):
        assert (one.id, one.messages, one.boxes) == (other.id, other.messages, other.boxes)
        assert one.annotations == other.annotations
        assert one.open_images()[0].tobytes() == other.open_images()[0].tobytes()
    with tarfile.open(tmp_path / "shards" / shards[0]) as archive:
        names = archive.getnames()
    assert names[:2] == ["000000000.png", "000000000.json"] and len(names) == len(set(names))
    assert main(["check", str(tmp_path / "shards")]) == 0


def test_a_gallery_shows_images_and_answers(source, tmp_path):
    words = ["--out", str(tmp_path / "sheet.png"), "--count", "5", "--source", str(source), "--across", "2"]
    assert main(["gallery", "blocks", *words]) == 0
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width == 870 and sheet.height > 200 and len(set(sheet.convert("L").tobytes())) > 20


def test_a_manifest_names_sources_and_licences(source, tmp_path):
    command = ["--count", "2", "--workers", "1", "--source", str(source)]
    assert main(["render", "blocks", "--out", str(tmp_path), *command, "--format", "jpeg"]) == 0
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["sources"]["sqlite3-doc"] == "public domain" and manifest["sources"]["fonts-lato"] == "OFL-1.1"
    assert manifest["settings"]["kind"] == "blocks" and manifest["settings"]["program"] == "render"
    assert next(read_samples(tmp_path)).images[0].endswith(".jpeg")


def test_a_damaged_shard_is_named(tmp_path):
    with Output(tmp_path, {}, 4) as output:
        for number in range(4):
            output.add(unit(number))
    first, second = sorted(tmp_path.glob("*.tar"))
    second.write_bytes(second.read_bytes()[:700])
    errors: list[SampleError] = []
    assert [sample.answer for sample in read_samples(tmp_path, errors.append)] == ["0", "0", "1", "1"]
    assert len(errors) == 1 and "shard-000001.tar cannot be read" in str(errors[0])
    sample = next(read_samples(first))
    sample.images = ["gone.png"]
    with pytest.raises(SampleError, match="has no member gone.png"):
        sample.open_images()
    outside = {"messages": [{"role": "user", "content": "<image>"}, {"role": "assistant", "content": ""}]}
    with Output(tmp_path / "out", {}, 4) as output:
        output.add(Unit({"a.png": b""}, [{**outside, "images": ["a.png"]}]))
    (shard,) = (tmp_path / "out").glob("*.tar")
    shard.write_bytes(shard.read_bytes().replace(b'"000000000.png"', b'"../00000a.png"'))
    with pytest.raises(SampleError, match="leaves the sample folder"):
        list(read_samples(shard))


def test_a_killed_rendering_goes_on(source, tmp_path):
    options = ["--count", "30", "--seed", "1", "--workers", "1", "--source", str(source)]
    command = ["render", "blocks", "--out", str(tmp_path / "out"), *options]
    process = forked(main, command)
    journal = tmp_path / "out" / JOURNAL
    while not journal.is_file() or journal.read_bytes().count(b"\n") < 5:
        time.sleep(0.01)
        assert process.is_alive()
    process.kill()
    process.join()
    done = journal.read_bytes().count(b"\n")
    assert main(command) == 2 and main([*command, "--resume"]) == 0
    assert main(["render", "blocks", "--out", str(tmp_path / "whole"), *options]) == 0
    assert everything(tmp_path / "out") == everything(tmp_path / "whole") and 5 <= done <= 31


def test_an_importer_counts_what_it_drops_by_reason(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    noise(20, 20).save(tmp_path / "in/a.png")
    rows = [
        {"image": image, "conversations": [{"from": "human", "value": "<image>\nHi"}, {"from": who, "value": "Ho"}]}
        for image, who in (("a.png", "gpt"), ("gone.png", "gpt"), ("a.png", "dog"), ("a.png", "gpt"))
    ]
    (tmp_path / "in/llava.json").write_text(json.dumps(rows))
    assert (
        main(
            ["llava", "--annotations", str(tmp_path / "in/llava.json"), "--out", str(tmp_path / "out"), "--shards", "9"]
        )
        == 0
    )
    assert "2 samples" in capsys.readouterr().out
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["dropped"] == {"image cannot be read": 1, "not a valid sample": 1} and manifest["samples"] == 2
    assert [sample.open_images()[0].size for sample in read_samples(tmp_path / "out")] == [(20, 20)] * 2

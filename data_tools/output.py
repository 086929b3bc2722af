"""Samples as they are made: in a folder or in .tar shards, with a manifest; an interrupted run goes on where it was.

``dropped.txt`` has a sentence on each sample that was left out.

A program makes units in an order that its options alone decide: a page with the rows about it, or the reason why there
is none. ``progress.jsonl`` says how far it is, until ``manifest.json`` takes its place.
"""

import errno
import io
import json
import tarfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path, PurePosixPath

from varytoy.data.samples import digest
from varytoy.data.shards import SUFFIX
from varytoy.errors import room

JOURNAL, MANIFEST, SAMPLES, DROPPED = "progress.jsonl", "manifest.json", "samples.jsonl", "dropped.txt"
_ODD = ("utf-8", "backslashreplace")  # names of files may hold bytes that are no text
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass
class Unit:
    """A piece of the output.

    Attributes:
        images: name in the folder -> the file's bytes.
        rows: samples about these images, as ``parse_sample`` takes them.
        dropped: reason -> number of samples that were left out for it.
        errors: a sentence on each of them, with its place in the source.
    """

    images: dict[str, bytes] = field(default_factory=dict)
    rows: list[dict] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)

    def drop(self, reason: str, error: object = "") -> None:
        """Count a sample that is left out; ``error``: a sentence about it."""
        self.dropped[reason] += 1
        if error:
            self.errors.append(str(error))


class Output:
    """Context: a folder that is filled unit by unit.

    Attributes:
        units: that are there already, from an interrupted run; the next that is added follows them.
        kept: samples so far; ``dropped``: reason -> number.

    Args:
        settings: of the program; they are in the manifest, and an interrupted run goes on with the same only.
        shard_size: samples of a shard; 0: ``samples.jsonl`` and images in a folder.
        resume: go on with an interrupted run.
        overwrite: replace samples that are there.
        sources: for the manifest: what the samples are made of -> its licence.

    Raises:
        FileExistsError: there are samples, or parts of them.
        ValueError: the interrupted run had other settings.
    """

    def __init__(
        self,
        out: Path,
        settings: Mapping,
        shard_size: int = 0,
        resume: bool = False,
        overwrite: bool = False,
        sources: Mapping[str, str] | None = None,
    ):
        self.out, self.settings, self.shard_size = out, {**settings, "shard_size": shard_size}, shard_size
        self.sources = dict(sources or {})
        self.units = self.kept = self.shards = 0
        self.dropped: Counter[str] = Counter()
        self._journal, self._part = out / JOURNAL, out / f"{SAMPLES}.part"
        self._tar: tarfile.TarFile | None = None
        self._in_shard = self._errors = 0
        check_free(out, resume, overwrite)
        if resume and self._journal.exists():
            self._go_on()
        else:
            self._begin(_there(out))

    def _begin(self, there: Sequence[str]) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        for name in there:  # old rows must not refer to new images if this is interrupted
            (self.out / name).unlink()
        self._clear()
        self._part.unlink(missing_ok=True)
        (self.out / DROPPED).unlink(missing_ok=True)
        self._write_journal([{"settings": self.settings}], "w")
        if not self.shard_size:
            self._part.write_bytes(b"")

    def _go_on(self) -> None:
        lines = self._journal.read_bytes().split(b"\n")[:-1]  # what follows the last break was cut
        entries = [json.loads(line) for line in lines]
        before = json.loads(json.dumps(self.settings))
        if not entries or entries[0].get("settings") != before:
            raise ValueError(f"{self.out} was begun with other options: give the same, or --overwrite")
        if len(entries) > 1:
            last = entries[-1]
            self.units, self.kept, self.shards = last["units"], last["kept"], last["shards"]
            self.dropped, self._errors = Counter(last["dropped"]), last.get("errors", 0)
        self._clear()
        for name in _shards(self.out)[self.shards :]:  # renamed, but not in the journal yet: made again
            (self.out / name).unlink()
        if (self.out / DROPPED).exists():
            with (self.out / DROPPED).open("ab") as dropped:
                dropped.truncate(entries[-1].get("errors", 0))
        if not self.shard_size:
            if (self.out / SAMPLES).exists():  # it ended before the manifest was written
                (self.out / SAMPLES).replace(self._part)
            with self._part.open("ab") as rows:
                rows.truncate(entries[-1].get("bytes", 0))

    def _clear(self) -> None:
        """Remove shards that were not finished."""
        for leftover in self.out.glob(f"shard-*{SUFFIX}.part"):
            leftover.unlink()

    def add(self, unit: Unit) -> None:
        """Raises OSError, with the room that is left on a full disk."""
        try:
            (self._add_to_shard if self.shard_size else self._add_to_folder)(unit)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            raise OSError(
                error.errno, f"{error.strerror} ({room(self.out)})", str(error.filename or self.out)
            ) from error

    def _add_to_folder(self, unit: Unit) -> None:
        for name, data in unit.images.items():
            (self.out / name).parent.mkdir(parents=True, exist_ok=True)
            (self.out / name).write_bytes(data)
        with self._part.open("ab") as rows:
            rows.write(b"".join(_line(row) for row in unit.rows))
            size = rows.tell()
        self._count(unit)
        self._note(bytes=size)

    def _add_to_shard(self, unit: Unit) -> None:
        if unit.rows:
            if self._tar is None:
                self._tar = tarfile.open(self.out / f"{self._shard}.part", "w", format=tarfile.USTAR_FORMAT)
            key, count = f"{self.units:09d}", len(unit.images)
            names = {
                name: f"{key}{f'.{number}' * (count > 1)}{PurePosixPath(name).suffix}"
                for number, name in enumerate(unit.images)
            }
            for name, data in unit.images.items():
                self._add_member(names[name], data)
            rows = [_renamed(row, names) for row in unit.rows]
            self._add_member(f"{key}.json", _line(rows[0] if len(rows) == 1 else rows))
        self._count(unit)
        self._in_shard += len(unit.rows)
        if self._in_shard >= self.shard_size:
            self._end_shard()

    def _add_member(self, name: str, data: bytes) -> None:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        assert self._tar is not None
        self._tar.addfile(member, io.BytesIO(data))

    def _end_shard(self) -> None:
        if self._tar is not None:
            self._tar.close()
            (self.out / f"{self._shard}.part").replace(self.out / self._shard)
            self._tar, self._in_shard = None, 0
            self.shards += 1
        self._note()

    @property
    def _shard(self) -> str:
        return f"shard-{self.shards:06d}{SUFFIX}"

    def _count(self, unit: Unit) -> None:
        self.units += 1
        self.kept += len(unit.rows)
        self.dropped.update(unit.dropped)
        if unit.errors:
            with (self.out / DROPPED).open("ab") as dropped:
                dropped.write("".join(f"{' '.join(error.split())}\n" for error in unit.errors).encode(*_ODD))
                self._errors = dropped.tell()

    def _note(self, **more: int) -> None:
        counts = {"units": self.units, "kept": self.kept, "shards": self.shards, "dropped": dict(self.dropped)}
        more |= {"errors": self._errors} if self._errors else {}
        self._write_journal([counts | more], "a")

    def _write_journal(self, entries: Iterable[dict], mode: str) -> None:
        with self._journal.open(f"{mode}b") as journal:
            journal.write(b"".join(map(_line, entries)))

    def __enter__(self) -> "Output":
        return self

    def __exit__(self, kind, *rest) -> None:
        if kind is not None:
            if self._tar is not None:
                self._tar.close()
            return
        if self.shard_size:
            self._end_shard()
        else:
            self._part.replace(self.out / SAMPLES)
        files = [self.out / SAMPLES] if not self.shard_size else [self.out / name for name in _shards(self.out)]
        manifest = {
            "made by": f"varytoy {version('varytoy')}",
            "sources": self.sources,
            "settings": self.settings,
            "samples": self.kept,
            "dropped": dict(sorted(self.dropped.items())),
            "sha256": {file.name: digest([file]) for file in files},
        }
        text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
        (self.out / MANIFEST).write_bytes(text.encode(*_ODD))
        self._journal.unlink()

    def summary(self) -> str:
        """A sentence on what was kept and dropped."""
        total = sum(self.dropped.values())
        reasons = "; ".join(f"{count} {reason}" for reason, count in self.dropped.most_common())
        return f"{self.kept} samples in {self.out}" + (f", {total} dropped: {reasons}" if total else "")


def check_free(out: Path, resume: bool = False, overwrite: bool = False) -> None:
    """Raises FileExistsError where samples, or parts of them, are that are not to be replaced or gone on with."""
    there = _there(out)
    if there and not overwrite and not (resume and JOURNAL in there):
        interrupted = JOURNAL in there and MANIFEST not in there
        fix = "add --resume to go on, or --overwrite" if interrupted else "choose another folder or add --overwrite"
        raise FileExistsError(f"{out / there[0]} exists: {fix}")


def _there(out: Path) -> list[str]:
    return [name for name in (SAMPLES, MANIFEST, JOURNAL) if (out / name).exists()] + _shards(out)


def _shards(out: Path) -> list[str]:
    with suppress(OSError):
        return sorted(each.name for each in out.glob(f"shard-*{SUFFIX}"))
    return []


def _line(row: object) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode(*_ODD) + b"\n"


def _renamed(row: dict, names: Mapping[str, str]) -> dict:
    changed = {key: [names[name] for name in row[key]] for key in ("images", "target_images") if row.get(key)}
    return {**row, **changed}

"""Texts in other languages than English, Chinese fonts and program code for the renderers: packages, licences and
held-out parts.

None of them is committed. ``fetch(DIR)`` downloads the packages with apt and adds them to the folder that
data_tools.assets.sources fills: ``DIR/texts/PACKAGE.txt`` (a paragraph a line), ``DIR/fonts/*.ttc`` and
``DIR/code/LANGUAGE/FILE``.
"""

import gzip
import re
import shutil
import unicodedata
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from data_tools.assets import sources
from data_tools.assets.packages import SourceError, unpacked
from data_tools.assets.sources import Font, prose

ENGLISH, CHINESE = "en", "zh"
LANGUAGES = (ENGLISH, "fr", "de", "es", "pl", "pt", "cs", CHINESE)
_DEBIAN = {"pt": "pt-br", CHINESE: "zh-cn"}
_MANUALS = {"pt": "pt-br"}
_MANUAL_FOLDERS = {"pt": "pt_BR", CHINESE: "zh_CN"}


@dataclass(frozen=True)
class LanguageText:
    """A package with text in one language; ``held_out``: for ``--split test`` alone."""

    language: str
    package: str
    licence: str
    pattern: str
    held_out: bool


def _texts(language: str) -> Iterator[LanguageText]:
    name = _DEBIAN.get(language, language)
    help_pages = "usr/share/libreoffice/help/*/text/**/*.html"
    yield LanguageText(language, f"libreoffice-help-{name}", "MPL-2.0", help_pages, False)
    licence = "GFDL-1.2+, GPL-2+" if language == CHINESE else "GPL-3+"
    manuals = f"usr/share/man/{_MANUAL_FOLDERS.get(language, language)}/man*/*.gz"
    yield LanguageText(language, f"manpages-{_MANUALS.get(language, language)}", licence, manuals, True)


TEXTS = tuple(text for language in LANGUAGES if language != ENGLISH for text in _texts(language))

CHINESE_FONTS = {
    "fonts-noto-cjk": "OFL-1.1",
    "fonts-wqy-microhei": "Apache-2.0 or GPL-3 with font exception",
}
_CHINESE_FACES = {
    ("NotoSansCJK-Regular.ttc", 2): ("Noto Sans CJK SC", "regular", False),
    ("NotoSansCJK-Bold.ttc", 2): ("Noto Sans CJK SC", "bold", False),
    ("NotoSerifCJK-Regular.ttc", 2): ("Noto Serif CJK SC", "regular", False),
    ("NotoSerifCJK-Bold.ttc", 2): ("Noto Serif CJK SC", "bold", False),
    ("wqy-microhei.ttc", 0): ("WenQuanYi Micro Hei", "regular", True),
}
"""File and number of the face in it -> family, style, and whether it is held out."""


@dataclass(frozen=True)
class CodeSource:
    language: str
    package: str
    licence: str
    pattern: str
    others: tuple[str, ...] = ()


CODE = (
    CodeSource(
        "python",
        "libpython3.11-stdlib",
        "PSF-2.0",
        "usr/lib/python3.*/*.py",
        ("libpython3.13-stdlib", "libpython3.12-stdlib", "libpython3.10-stdlib"),
    ),
    CodeSource("c", "libstb-dev", "MIT or public domain", "usr/include/stb/*.h"),
    CodeSource("go", "golang-github-spf13-cobra-dev", "Apache-2.0", "usr/share/gocode/src/**/*.go"),
    CodeSource("rust", "librust-regex-dev", "MIT or Apache-2.0", "usr/share/cargo/registry/**/src/**/*.rs"),
    CodeSource("javascript", "libjs-underscore", "MIT", "usr/share/**/underscore.js"),
)
_LONGEST = 400_000
"""Bytes of a file of code; longer ones are cut."""


def fetch(directory: Path) -> None:
    """Download the packages into ``directory``. Raises SourceError with apt's last message."""
    (directory / "texts").mkdir(parents=True, exist_ok=True)
    (directory / "fonts").mkdir(exist_ok=True)
    for text in TEXTS:
        with unpacked("apt", text.package) as root:
            read = _manual if text.held_out else prose
            paths = sorted(root.glob(text.pattern))
            lines = dict.fromkeys(line for path in paths for line in read(path) if _usable(line, text.language))
        (directory / "texts" / f"{text.package}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for package in CHINESE_FONTS:
        with unpacked("apt", package) as root:
            for path in sorted(root.rglob("*.ttc")):
                if path.name in {name for name, _ in _CHINESE_FACES}:
                    shutil.copyfile(path, directory / "fonts" / path.name)
    for source in CODE:
        with unpacked("apt", source.package, *source.others) as root:
            folder = directory / "code" / source.language
            folder.mkdir(parents=True, exist_ok=True)
            for path in sorted(root.glob(source.pattern)):
                if path.is_file() and not path.is_symlink():
                    (folder / path.name).write_bytes(path.read_bytes()[:_LONGEST])


def licences() -> str:
    """A table of the packages."""
    rows = [f"{text.package:<30} text   {text.licence}" + " (held out)" * text.held_out for text in TEXTS]
    rows += [f"{package:<30} fonts  {licence}" for package, licence in CHINESE_FONTS.items()]
    rows += [f"{source.package:<30} code   {source.licence}" for source in CODE]
    return "\n".join(rows)


def origins(language: str, split: str) -> dict[str, str]:
    """Packages of a language's texts and fonts -> licence."""
    if language == ENGLISH:
        return sources.origins(split=split)
    texts = {
        text.package: text.licence for text in TEXTS if text.language == language and text.held_out == (split == "test")
    }
    return texts | (CHINESE_FONTS if language == CHINESE else sources.FONTS)


def code_origins() -> dict[str, str]:
    return {source.package: source.licence for source in CODE}


def _usable(line: str, language: str) -> bool:
    """Whether a paragraph is prose; of Chinese, which says more in a character, shorter ones are."""
    letters = sum(character.isalpha() for character in line)
    if not line.isprintable() or letters < 0.6 * len(line):
        return False
    if language == CHINESE:
        return len(line) >= 10 and sum("\u4e00" <= character <= "\u9fff" for character in line) >= 0.5 * len(line)
    return len(line) >= 20 and len(line.split()) >= 3


_ENGLISH_WORDS = frozenset("the of and is this with for are you can will be".split())
_ESCAPES = ((r"\\f(?:\(..|\[[^]]*\]|.)", ""), (r"\\s[-+]?\d", ""), (r"\\[&/,|^:%]", ""), (r"\\[ ~0]", " "))
_SIGNS = {"lq": "\u201c", "rq": "\u201d", "oq": "\u2018", "cq": "\u2019", "aq": "'", "dq": '"', "co": "\u00a9"}
_SIGNS |= {"en": "\u2013", "em": "\u2014", "hy": "-"}


def _manual(path: Path) -> Iterator[str]:
    """The paragraphs of a manual page in roff that hold no request but ones for bold and italic words."""
    try:
        text = gzip.decompress(path.read_bytes()).decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError):
        return
    parts: list[str] = []
    for line in [*text.splitlines(), ".PP"]:
        if re.match(r"[.'](?:B|I|BI|BR|IR|RB|RI|IB)\s", line):
            parts.append(re.sub(r"^..\w?\s+", "", line).replace('"', ""))
        elif line[:1] in (".", "'") or not line.strip():
            paragraph = _plain(" ".join(parts))
            if paragraph and "\\" not in paragraph:
                yield paragraph
            parts = []
        else:
            parts.append(line)


def _plain(text: str) -> str:
    for pattern, plain in _ESCAPES:
        text = re.sub(pattern, plain, text)
    text = re.sub(r"\\\((..)|\\\[(..)\]", lambda sign: _SIGNS.get(sign[1] or sign[2], sign[0]), text)
    text = text.replace("\\-", "-").replace("\\.", ".")
    return " ".join(text.split())


@lru_cache(maxsize=16)
def paragraphs(directory: Path, split: str, language: str = ENGLISH) -> tuple[str, ...]:
    """Paragraphs of one language and split, in NFC with single spaces. Raises SourceError if there are none."""
    if language == ENGLISH:
        return sources.paragraphs(directory, split)
    lines: list[str] = []
    for text in TEXTS:
        path = directory / "texts" / f"{text.package}.txt"
        if text.language == language and text.held_out == (split == "test") and path.is_file():
            lines += [_clean(line, language) for line in path.read_text(encoding="utf-8").splitlines()]
    lines = [line for line in lines if line and not _is_english(line)]
    if not lines:
        raise SourceError(
            f"no {split} texts in the language '{language}' in {directory / 'texts'}: "
            f"run `python -m data_tools fetch --out {directory}`"
        )
    return tuple(lines)


@lru_cache(maxsize=16)
def prose_paragraphs(directory: Path, split: str, language: str = ENGLISH) -> tuple[str, ...]:
    """Those of ``paragraphs`` that are sentences, without entries of an index and the like; all if there are few."""
    every = paragraphs(directory, split, language)
    least, share = (15, 0.8) if language == CHINESE else (50, 0.9)
    chosen = tuple(
        text
        for text in every
        if len(text) >= least
        and text[-1] in ".:!?\u3002\uff01\uff1f\uff1a"
        and "<<" not in text
        and sum(character.isalpha() or character == " " for character in text) >= share * len(text)
    )
    return chosen if len(chosen) >= 50 else every


def _is_english(text: str) -> bool:
    """Whether a text was left untranslated."""
    words = text.casefold().split()
    return sum(word in _ENGLISH_WORDS for word in words) > 0.08 * len(words)


def _clean(text: str, language: str) -> str:
    text = unicodedata.normalize("NFC", text)
    text = "".join(character for character in text if unicodedata.category(character) not in ("Cf", "Cc", "Co", "Cn"))
    if language == CHINESE:
        text = re.sub(r"(?<=[\u3000-\u9fff\uff00-\uffef]) (?=[\u3000-\u9fff\uff00-\uffef])", "", text)
    return " ".join(text.split())


@dataclass(frozen=True)
class Face(Font):
    """A font of a collection file; ``number``: which of its faces."""

    number: int = 0


@lru_cache(maxsize=16)
def fonts(directory: Path, split: str, language: str = ENGLISH) -> tuple[Font, ...]:
    """Fonts of one language and split. Raises SourceError if there are none."""
    if language != CHINESE:
        return sources.fonts(directory, split)
    found = tuple(
        Face(family, style, str(directory / "fonts" / name), number)
        for (name, number), (family, style, held_out) in _CHINESE_FACES.items()
        if held_out == (split == "test") and (directory / "fonts" / name).is_file()
    )
    if not found:
        raise SourceError(
            f"no {split} fonts for Chinese in {directory / 'fonts'}: run `python -m data_tools fetch --out {directory}`"
        )
    return found


@lru_cache(maxsize=4)
def code(directory: Path, split: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """(language, lines) of each file of one split; a fifth of the files is for ``test``. Raises SourceError."""
    found = []
    for source in CODE:
        for path in sorted((directory / "code" / source.language).glob("*")):
            if (zlib.crc32(path.name.encode()) % 5 == 0) == (split == "test"):
                lines = path.read_text(encoding="utf-8", errors="ignore").expandtabs(4).splitlines()
                kept = tuple(line.rstrip() for line in lines if line.isascii())
                if len(kept) >= 20:
                    found.append((source.language, kept))
    if not found:
        raise SourceError(
            f"no {split} code in {directory / 'code'}: run `python -m data_tools fetch --out {directory}`"
        )
    return tuple(found)

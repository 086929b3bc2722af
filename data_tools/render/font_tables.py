"""The letters that a font file has and their widths, read from its tables with NumPy.

fontTools finds the tables; its own reading of them makes names and objects for every glyph, and takes twenty times as
long, which every process of a run would spend on every font.
"""

import struct

import numpy as np

_PREFERRED = ((3, 10), (0, 6), (0, 4), (3, 1), (0, 3), (0, 2), (0, 1), (0, 0))
"""Platform and encoding of Unicode tables, the largest first."""


def letters_and_widths(path: str, number: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Code points in order [N], and the width of each letter in ems [N]. Raises OSError, ValueError for a file that is
    not a font with a Unicode table."""
    from fontTools.ttLib import TTLibError
    from fontTools.ttLib.sfnt import SFNTReader

    try:
        with open(path, "rb") as file:
            tables = SFNTReader(file, fontNumber=number)
            cmap, head, hhea, hmtx = (tables[name] for name in ("cmap", "head", "hhea", "hmtx"))
        em, count = struct.unpack(">H", head[18:20])[0], struct.unpack(">H", hhea[34:36])[0]
        widths = np.frombuffer(hmtx, ">u2", 2 * count)[::2].astype(np.float32) / em
        codes, glyphs = _mapping(cmap)
    except (TTLibError, KeyError, struct.error) as error:
        raise ValueError(f"{path} is not a usable font ({error})") from error
    known = glyphs > 0
    codes, glyphs = codes[known], glyphs[known]
    order = np.argsort(codes)
    return codes[order], widths[np.minimum(glyphs[order], count - 1)]  # the last width holds for all that follow


def _mapping(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Code points and glyphs of a table ``cmap``."""
    (count,) = struct.unpack(">H", data[2:4])
    records = [struct.unpack(">HHL", data[4 + 8 * each : 12 + 8 * each]) for each in range(count)]
    offsets = {(platform, encoding): offset for platform, encoding, offset in records}
    for key in _PREFERRED:
        if key in offsets:
            part = data[offsets[key] :]
            (form,) = struct.unpack(">H", part[:2])
            if form in (4, 12):
                return _segments(part) if form == 4 else _groups(part)
    raise ValueError("it has no Unicode table of letters")


def _groups(part: bytes) -> tuple[np.ndarray, np.ndarray]:
    (count,) = struct.unpack(">L", part[12:16])
    groups = np.frombuffer(part, ">u4", 3 * count, 16).reshape(-1, 3).astype(np.int64)
    lengths = groups[:, 1] - groups[:, 0] + 1
    steps = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return np.repeat(groups[:, 0], lengths) + steps, np.repeat(groups[:, 2], lengths) + steps


def _segments(part: bytes) -> tuple[np.ndarray, np.ndarray]:
    length, _, double = struct.unpack(">HHH", part[2:8])
    count = double // 2
    ends, starts, deltas, offsets = (
        np.frombuffer(part, ">u2", count, at).astype(np.int64)
        for at in (14, 16 + double, 16 + 2 * double, 16 + 3 * double)
    )
    words = np.frombuffer(part[: len(part) // 2 * 2], ">u2").astype(np.int64)
    codes, glyphs = [], []
    for index in range(count):
        span = np.arange(starts[index], ends[index] + 1)
        span = span[span < 0xFFFF]
        if offsets[index]:
            places = (16 + 3 * double) // 2 + index + offsets[index] // 2 + span - starts[index]
            found = words[np.minimum(places, len(words) - 1)]
            found = np.where(found > 0, (found + deltas[index]) & 0xFFFF, 0)
        else:
            found = (span + deltas[index]) & 0xFFFF
        codes.append(span)
        glyphs.append(found)
    return np.concatenate(codes), np.concatenate(glyphs)

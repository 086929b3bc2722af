"""Scene text: words on photographs and textures, in perspective, for OCR."""

import random
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from data_tools.assets import languages
from data_tools.program import share, span
from data_tools.render import textures
from data_tools.render.degrade import DEGRADATIONS
from data_tools.render.document import Word
from data_tools.render.kind import Kind, register
from data_tools.render.looks import Look, named, text_row
from data_tools.render.pictures import library, load_background, origins
from data_tools.render.sheet import Sheet, thousandths
from data_tools.render.strips import line_strips, set_lines
from data_tools.writer import generator

_LEAST_CONTRAST = 90
"""Of 255, between letters and what is behind them."""

_BUSY = 22
"""Spread of the brightness behind letters from which they have an edge of another colour."""
_DRAWN, _LEAST_SIZE = 40, 17
"""Size of letters before they are put into perspective, and the least after it, pixels."""


class SceneTextRenderer:
    """index -> (image, rows): see data_tools.writer. Equal arguments give equal images."""

    def __init__(self, look: Look, seed: int, texts: tuple[int, int], strength: float):
        self.look, self.seed, self.texts, self.strength = look, seed, texts, strength
        self.library = library(look.source, look.split)
        held_out = tuple(each for each in self.library.backgrounds if each.held_out)
        self.backgrounds = held_out or self.library.backgrounds

    def __call__(self, index: int) -> tuple[Image.Image, list[dict]]:
        rng = generator(self.seed, "scene-text", self.look.split, index)
        width, height = rng.choice(((640, 480), (512, 512), (480, 640), (768, 512)))
        image = self._background(rng, width, height)
        rows = rng.randint(*self.texts)
        lines: list[str] = []
        line_boxes: list[np.ndarray] = []
        words: list[str] = []
        word_boxes: list[np.ndarray] = []
        for number in range(rows):  # one below the other, so that they have an order
            zone = (0, height * number // rows, width, height * (number + 1) // rows)
            sheet, boxes = self._sign(rng, image, zone)
            lines += sheet.line_texts()
            words += [word[0] for word in sheet.words]
            starts = [start for start, _ in sheet.lines]
            word_boxes.append(boxes)
            line_boxes.append(
                np.concatenate(
                    [np.minimum.reduceat(boxes[:, :2], starts), np.maximum.reduceat(boxes[:, 2:], starts)], 1
                )
            )
        for name in ("light", "shadow", "blur", "noise", "jpeg"):
            if rng.random() < 0.4 * (self.strength > 0):
                image = DEGRADATIONS[name](image, self.strength * rng.uniform(0.2, 0.8), rng)
        annotations = {
            "lines": lines,
            "line_boxes": thousandths(np.concatenate(line_boxes), image.size),
            "words": words,
            "word_boxes": thousandths(np.concatenate(word_boxes), image.size),
        }
        row = text_row("ocr", "\n".join(lines), rng, annotations, texts=rows)
        return image, named([row], "scene-text", self.look.split, self.seed, index)

    def _background(self, rng: random.Random, width: int, height: int) -> Image.Image:
        noise = np.random.default_rng(rng.getrandbits(63))
        if self.backgrounds and rng.random() < 0.65:
            picture = load_background(rng.choice(self.backgrounds).path)
            scale = max(width / picture.width, height / picture.height) * rng.uniform(1.0, 1.6)
            picture = picture.resize((round(picture.width * scale) + 1, round(picture.height * scale) + 1))
            left, top = rng.randint(0, picture.width - width), rng.randint(0, picture.height - height)
            return picture.crop((left, top, left + width, top + height))
        return textures.draw(rng.choice(self.library.textures), width, height, noise)[0]

    def _sign(self, rng: random.Random, image: Image.Image, zone: tuple) -> tuple[Sheet, np.ndarray]:
        """Print a few words inside a zone of the image. Returns them with their boxes there."""
        theme = self.look.theme(rng, 600, (_DRAWN, _DRAWN), inverted=0.0)
        composer = self.look.composer(rng, theme)
        longest = 0.55 * (zone[2] - zone[0]) / _LEAST_SIZE
        texts = [composer.words(1, 3) for _ in range(rng.choice((1, 1, 1, 2)))]
        texts = [text if len(text) * 0.55 < longest else text.split()[0] for text in texts]
        if rng.random() < 0.35:
            upper = [text.upper() for text in texts]
            texts = upper if theme.covers("".join(upper)) else texts
        style = theme.style(bold=rng.random() < 0.4 and theme.has_bold)
        board = rng.random() < 0.4
        region = np.asarray(image.crop(zone).convert("L").resize((16, 16)), np.float32)
        behind = tuple(rng.randint(0, 255) for _ in range(3)) if board else (round(float(region.mean())),) * 3
        ink = contrasting(rng, luma(behind))
        lines = [set_lines([(Word(word), style) for word in text.split()], 1e6)[0] for text in texts]
        strips = [strip for line in lines for strip in line_strips([line], theme)]
        wide = max(line[-1][1] + len(line[-1][0]) * style.size for line in lines)
        pad = round(0.6 * style.size)
        sheet = Sheet((round(wide) + 2 * pad, round(sum(strip.height for strip in strips)) + 2 * pad), (0, 0, 0))
        y = float(pad)
        for strip in strips:
            strip.put(sheet, pad, y)
            y += strip.height
        sheet.words = [
            (text, x, y, style._replace(colour=(255, 255, 255)), space) for text, x, y, style, space in sheet.words
        ]
        coverage, boxes = sheet.draw()
        right = int(boxes[:, 2].max()) + pad
        coverage = coverage.crop((0, 0, right, sheet.size[1]))
        return sheet, self._fasten(rng, image, zone, coverage, boxes, ink, behind if board else None)

    def _fasten(self, rng, image, zone, coverage, boxes, ink, board) -> np.ndarray:
        """Put letters into perspective and onto the image. Returns the words' boxes there, [N, 4]."""
        x1, y1, x2, y2 = zone
        width, height = coverage.size
        least = _LEAST_SIZE / _DRAWN
        scale = min((x2 - x1) * rng.uniform(0.45, 0.85) / width, (y2 - y1) * rng.uniform(0.35, 0.8) / height, 1.6)
        scale = max(scale, min(least, 0.9 * (x2 - x1) / width, 0.9 * (y2 - y1) / height))
        bend = 0.1
        quad = np.array([[0, 0], [width, 0], [width, height], [0, height]], float) * scale
        quad += np.array([[rng.uniform(-bend, bend) * height * scale for _ in range(2)] for _ in range(4)])
        turn = np.radians(rng.uniform(-9, 9))
        quad = quad @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
        quad -= quad.min(0)
        quad *= min(1.0, 0.96 * (x2 - x1) / quad[:, 0].max(), 0.96 * (y2 - y1) / quad[:, 1].max())
        free = np.array([x2 - x1, y2 - y1]) - quad.max(0)
        quad += np.array([x1, y1]) + free * np.array([rng.random(), rng.random()])
        flat = np.array([[0, 0], [width, 0], [width, height], [0, height]], float)
        corner = np.floor(quad.min(0)) - 6  # of the part of the image that changes
        part = tuple(int(side) for side in np.ceil(quad.max(0)) + 7 - corner)
        area = tuple(int(side) for side in (*corner, *(corner + part)))
        back = _homography(quad - corner, flat)
        matrix = tuple((back / back[2, 2]).reshape(-1)[:8])
        letters = coverage.transform(part, Image.Transform.PERSPECTIVE, matrix, resample=Image.Resampling.BICUBIC)
        if board is not None:
            plate = Image.new("L", part)
            ImageDraw.Draw(plate).polygon([tuple(point) for point in quad - corner], fill=255)
            image.paste(board, area, plate.filter(ImageFilter.GaussianBlur(0.7)))
        elif rng.random() < 0.4 or np.asarray(image.crop(zone).convert("L"), np.float32).std() > _BUSY:
            halo = letters.filter(ImageFilter.MaxFilter(5)).filter(ImageFilter.GaussianBlur(1))
            image.paste(contrasting(rng, luma(ink)), area, halo)
        image.paste(ink, area, letters)
        there = _homography(flat, quad)
        corners = boxes[:, [[0, 1], [2, 1], [2, 3], [0, 3]]].astype(float)
        corners = np.concatenate([corners, np.ones((*corners.shape[:2], 1))], 2) @ there.T
        corners = corners[..., :2] / corners[..., 2:]
        return np.concatenate([corners.min(1), corners.max(1)], 1)


def contrasting(rng: random.Random, behind: float, least: float = _LEAST_CONTRAST) -> tuple[int, int, int]:
    """A random colour that is lighter or darker than a brightness by at least so much, of 255."""
    while True:
        ink = tuple(rng.randint(0, 255) for _ in range(3))
        if abs(luma(ink) - behind) >= least:
            return ink


def luma(colour: tuple) -> float:
    return 0.3 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2]


def _homography(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The 3 x 3 matrix that takes four points to four others."""
    rows, values = [], []
    for (x, y), (u, v) in zip(source, target, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    return np.append(np.linalg.solve(np.array(rows), np.array(values)), 1).reshape(3, 3)


@register
class SceneText(Kind):
    name = "scene-text"
    help = "words on photographs and textures, in perspective (OCR)"
    image_format = "jpeg"

    def options(self, parser):
        parser.add_argument("--texts", type=span, default=(1, 4), help="signs in an image (default: 1-4)")
        parser.add_argument("--degrade", type=share, default=0.4, help="strength of the photograph's flaws, 0 to 1")
        parser.add_argument("--language", choices=languages.LANGUAGES, default=languages.ENGLISH, help="of the texts")

    def renderer(self, options):
        look = Look(Path(options.source), options.split, options.language)
        return SceneTextRenderer(look, options.seed, options.texts, options.degrade)

    def sources(self, options):
        return languages.origins(options.language, options.split) | origins()

"""Molecules in SMILES, drawn by RDKit."""

import logging
import re
from typing import TYPE_CHECKING

from varytoy.extras import require
from varytoy.formats.problem import NotationError, short

if TYPE_CHECKING:
    from rdkit.Chem import Mol

_LONGEST = 2000
"""Characters of a SMILES; longer ones have no picture that can be looked at."""
_SIDE = 480
_PLACE = re.compile(r"around position (\d+)")


def molecule(smiles: str) -> "Mol":
    """The molecule. Only the first word is SMILES; what follows is its name.

    Raises:
        NotationError: no molecule; the place is a character, from 1, or an atom, from 1.
        MissingExtra: RDKit is not installed.
    """
    require("render", "rdkit", by="a molecule")
    from rdkit import Chem

    word = (smiles.split() or [""])[0]
    if not word:
        raise NotationError("the SMILES is empty")
    if len(word) > _LONGEST:
        raise NotationError(f"the SMILES has {len(word):,} characters; at most {_LONGEST:,} are drawn")
    said: list[str] = []
    with _Listening(said):
        found = Chem.MolFromSmiles(word, sanitize=False)
        if found is None:
            raise NotationError(f"the SMILES cannot be read{_where(said)}: {short(word)}")
        for problem in Chem.DetectChemistryProblems(found):
            raise NotationError(f"the SMILES is no molecule ({_chemistry(problem.Message())}): {short(word)}")
        found = Chem.MolFromSmiles(word)
    if found is None:
        raise NotationError(f"the SMILES is no molecule ({' '.join(said) or 'RDKit does not say why'}): {short(word)}")
    return found


def canonical(smiles: str) -> str:
    """The one SMILES of RDKit for the same molecule. Raises as ``molecule``."""
    found = molecule(smiles)
    from rdkit import Chem

    return Chem.MolToSmiles(found)


def svg(smiles: str) -> str:
    """A picture of the molecule, its letters as paths. Raises as ``molecule``."""
    found = molecule(smiles)
    from rdkit.Chem.Draw import rdMolDraw2D

    drawer = rdMolDraw2D.MolDraw2DSVG(_SIDE, _SIDE)
    rdMolDraw2D.PrepareAndDrawMolecule(drawer, found)
    drawer.FinishDrawing()
    return drawer.GetDrawingText()


class _Listening(logging.Handler):
    """RDKit's messages, which go to standard error else."""

    def __init__(self, said: list[str]):
        super().__init__()
        self.said = said

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())

    def __enter__(self) -> None:
        from rdkit import rdBase

        rdBase.LogToPythonLogger()
        self._logger = logging.getLogger("rdkit")
        self._before = (self._logger.handlers, self._logger.propagate)
        self._logger.handlers, self._logger.propagate = [self], False

    def __exit__(self, *_) -> None:
        from rdkit import rdBase

        self._logger.handlers, self._logger.propagate = self._before
        rdBase.LogToCppStreams()


def _where(said: list[str]) -> str:
    for message in said:
        if place := _PLACE.search(message):
            return f" at character {place[1]}"
    return " (unclosed ring)" if any("unclosed ring" in message for message in said) else ""


def _chemistry(message: str) -> str:
    """RDKit's message in one line, its atoms counted from 1."""
    message = re.sub(r"atom # (\d+)", lambda match: f"atom {int(match[1]) + 1}", message)
    atoms = re.sub(
        r"(?<=atoms: )[\d ]+", lambda match: " ".join(str(int(each) + 1) for each in match[0].split()), message
    )
    return " ".join(atoms.split()).rstrip(".")

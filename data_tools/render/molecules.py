"""Molecules: random structural formulas by RDKit; the answer is their canonical SMILES."""

import io
import random
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps

from data_tools.program import share, span
from data_tools.render.degrade import degrade
from data_tools.render.kind import Kind, register
from data_tools.render.looks import named, on_paper, text_row
from data_tools.writer import generator, of_split
from varytoy.extras import require
from varytoy.formats.molecule import canonical

if TYPE_CHECKING:
    from rdkit.Chem import Atom, Mol

FONTS = {"train": "BuiltinTelexRegular", "test": "BuiltinRobotoRegular"}
_RINGS = (
    *("c1ccccc1",) * 4,
    *(
        "C1CCCCC1",
        "C1CCCC1",
        "C1CC1",
        "C1CCNCC1",
        "C1CCOCC1",
        "C1COCCN1",
        "C1CNCCN1",
        "C1CCNC1",
        "C1CCOC1",
        "C1=CCCCC1",
    ),
    *("c1ccncc1", "c1cncnc1", "c1ccoc1", "c1ccsc1", "c1cscn1", "c1c[nH]cn1", "c1cn[nH]c1", "c1cocn1"),
    *("c1ccc2ccccc2c1", "c1ccc2[nH]ccc2c1", "c1ccc2ncccc2c1", "c1ccc2c(c1)OCO2", "C1CC2CCC1C2"),
)
_CHAINS = (
    *("C", "C", "CC", "CC", "CCC", "C(C)C", "C(C)(C)C", "C=C", "CC=CC", "C#C", "C=O", "CC=O", "CC(C)=O", "C#N"),
    *("C(=O)O", "C(=O)O", "C(=O)N", "C(=O)N", "CC(=O)N", "COC", "O", "O", "O", "N", "N", "NC", "N(C)C", "S", "SC"),
    *("F", "F", "Cl", "Cl", "Br", "I", "C(F)(F)F", "[N+](=O)[O-]", "CS(C)(=O)=O", "CS(=O)(=O)N", "COC(C)=O"),
    *("OP(=O)(O)O", "NC(=O)N", "NC(=N)N", "C(=O)[O-]", "C[NH3+]"),
)
_STARTS = ("C", "CC", "CCC", "CC(C)C", "C=C", "CC=CC")


def random_molecule(rng: random.Random, atoms: int) -> str:
    """Canonical SMILES of a molecule of at most ``atoms`` atoms besides hydrogen, grown of rings and groups.

    It is one that could be, not one that is known: no carbon is given a second atom other than carbon by a new bond.

    Double bonds that can be E or Z are one of them; stereo centres of about half of the molecules are R or S.
    """
    from rdkit import Chem
    from rdkit.Chem.EnumerateStereoisomers import EnumerateStereoisomers, StereoEnumerationOptions

    whole = Chem.MolFromSmiles(rng.choice(_RINGS if atoms > 6 and rng.random() < 0.8 else _STARTS))
    for _ in range(2 * atoms):
        part = Chem.MolFromSmiles(rng.choice(_RINGS if rng.random() < 0.2 else _CHAINS))
        if whole.GetNumAtoms() + part.GetNumAtoms() <= atoms:
            whole = _joined(whole, part, rng)
    kinds = StereoEnumerationOptions(maxIsomers=1, rand=rng.randrange(2**31), onlyUnassigned=True)
    whole = next(iter(EnumerateStereoisomers(whole, kinds)))
    if rng.random() < 0.5:
        for atom in whole.GetAtoms():
            atom.SetChiralTag(Chem.ChiralType.CHI_UNSPECIFIED)
    return canonical(Chem.MolToSmiles(whole))


def _joined(whole: "Mol", part: "Mol", rng: random.Random) -> "Mol":
    """Two molecules with a single bond between them, or the first where they have no atoms that can take it."""
    from rdkit import Chem

    first, second = _free(whole), _free(part)
    pairs = [(one, other) for one in first for other in second if _fits(one, other) and _fits(other, one)]
    if not pairs:
        return whole
    one, other = rng.choice(pairs)
    both = Chem.RWMol(Chem.CombineMols(whole, part))
    both.AddBond(one.GetIdx(), whole.GetNumAtoms() + other.GetIdx(), Chem.BondType.SINGLE)
    joined = both.GetMol()
    return joined if Chem.SanitizeMol(joined, catchErrors=True) == Chem.SanitizeFlags.SANITIZE_NONE else whole


def _fits(atom: "Atom", new: "Atom") -> bool:
    """Whether ``new`` can be a neighbour of ``atom``."""
    if new.GetSymbol() == "C":
        return True
    others = [neighbour for neighbour in atom.GetNeighbors() if neighbour.GetSymbol() != "C"]
    return atom.GetSymbol() == "C" and (atom.GetIsAromatic() or not others)


def _free(molecule: "Mol") -> "list[Atom]":
    """Atoms that can take a single bond in the place of a hydrogen."""
    return [
        atom
        for atom in molecule.GetAtoms()
        if atom.GetNumImplicitHs() and not atom.GetFormalCharge() and atom.GetSymbol() in ("C", "N", "O", "S")
    ]


def draw_molecule(smiles: str, rng: random.Random, font: str) -> Image.Image:
    """The structural formula in one of many styles, cut to its ink with a margin."""
    from rdkit import Chem
    from rdkit.Chem.Draw import rdMolDraw2D

    drawer = rdMolDraw2D.MolDraw2DCairo(900, 900)
    options = drawer.drawOptions()
    options.fontFile = font
    options.rotate = rng.uniform(0, 360)
    options.bondLineWidth = rng.uniform(1.5, 4)
    options.multipleBondOffset = rng.uniform(0.12, 0.2)
    options.additionalAtomLabelPadding = rng.uniform(0, 0.12)
    options.fixedBondLength = rng.uniform(34, 60)
    options.explicitMethyl = rng.random() < 0.25
    options.singleColourWedgeBonds = True
    if rng.random() < 0.65:
        options.useBWAtomPalette()
    rdMolDraw2D.PrepareAndDrawMolecule(drawer, Chem.MolFromSmiles(smiles))
    drawer.FinishDrawing()
    with Image.open(io.BytesIO(drawer.GetDrawingText())) as drawn:
        image = drawn.convert("RGB")
    image = image.crop(ImageOps.invert(image).getbbox())
    image = ImageOps.expand(image, rng.randint(8, 30), (255, 255, 255))
    return on_paper(image, rng)


class MoleculeRenderer:
    """index -> (image, rows): see data_tools.writer. Equal arguments give equal images."""

    def __init__(self, seed: int, split: str, atoms: tuple[int, int], strength: float):
        self.seed, self.split, self.atoms, self.strength = seed, split, atoms, strength

    def __call__(self, index: int) -> tuple[Image.Image, list[dict]]:
        rng = generator(self.seed, "molecules", self.split, index)
        smiles = of_split(lambda: random_molecule(rng, rng.randint(*self.atoms)), self.split)
        image = draw_molecule(smiles, rng, FONTS[self.split])
        image, _ = degrade(image, np.array([[0, 0, *image.size]]), rng, self.strength)
        return image, named([text_row("molecule", smiles, rng)], "molecules", self.split, self.seed, index)


@register
class Molecules(Kind):
    name = "molecules"
    help = "structural formulas of molecules (molecule: SMILES)"

    def options(self, parser):
        parser.add_argument("--atoms", type=span, default=(4, 24), help="at most, besides hydrogen (default: 4-24)")
        parser.add_argument("--degrade", type=share, default=0.2, help="strength of the scan, 0 to 1 (default: 0.2)")

    def renderer(self, options):
        require("render", "rdkit", by="the kind 'molecules'")
        return MoleculeRenderer(options.seed, options.split, options.atoms, options.degrade)

    def sources(self, options):
        return {"RDKit": "BSD-3-Clause (letters: Telex, OFL-1.1; Roboto, Apache-2.0)"}

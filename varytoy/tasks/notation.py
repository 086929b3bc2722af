"""Pictures of things that have a notation of their own: formulas, sheet music, geometry and molecules."""

from varytoy.formats.molecule import canonical
from varytoy.formats.problem import NotationError
from varytoy.tasks import metrics
from varytoy.tasks.base import NotationTask


class _ByEditDistance(NotationTask):
    """Base of the notations that are compared letter by letter."""

    learned = True
    metric, is_error = "normalised edit distance", True

    def score(self, predictions, samples):
        pairs = zip(predictions, samples, strict=True)
        return metrics.mean(metrics.normalised_edit_distance(text, sample.answer) for text, sample in pairs)


class Formula(_ByEditDistance):
    """The answer is LaTeX, without delimiters, of one displayed formula, which is all that the picture shows."""

    name = "formula"
    view = "formula"
    prompts = (
        "Write the formula in LaTeX.",
        "Give this formula in LaTeX.",
        "Convert the formula to LaTeX.",
        "Transcribe the equation to LaTeX.",
        "What is this equation in LaTeX?",
        "Read the formula and write it as LaTeX.",
        "Type out the equation in LaTeX.",
        "Turn the picture of the formula into LaTeX.",
        "What does this formula say, in LaTeX?",
        "Give the LaTeX of this equation.",
    )


class Music(_ByEditDistance):
    """The answer is **kern. The picture is taken whole, not in lines of text."""

    name = "music"
    prompts = (
        "Write the sheet music as kern.",
        "Transcribe this music to kern.",
        "What notes are these, in kern?",
        "Convert the score to kern.",
        "Give the notes of this staff in kern.",
        "Read the sheet music and write it as kern.",
        "Give this score in kern.",
        "Type out the notes as kern.",
        "What does this staff say, in kern?",
        "Turn the picture of the music into kern.",
    )


class Geometry(_ByEditDistance):
    """The answer is TikZ, in the part of it that ``varytoy.formats.geometry`` draws."""

    name = "geometry"
    prompts = (
        "Write the figure in TikZ.",
        "Convert the geometric figure to TikZ.",
        "Give this figure in TikZ.",
        "Transcribe the drawing to TikZ.",
        "Read the figure and write it as TikZ.",
        "What is this figure in TikZ?",
        "Type out the figure in TikZ.",
        "Turn the geometric drawing into TikZ.",
        "Draw this figure again in TikZ.",
        "Give the TikZ of this drawing.",
    )


class Molecule(NotationTask):
    """The answer is SMILES."""

    name = "molecule"
    learned = True
    metric = "same molecule"
    prompts = (
        "Write the molecule as SMILES.",
        "What is the SMILES of this molecule?",
        "Convert the structure to SMILES.",
        "Give this chemical structure in SMILES.",
        "Which molecule is drawn here, in SMILES?",
        "Transcribe the structural formula to SMILES.",
        "Give the molecule in SMILES.",
        "Read the structural formula and write it as SMILES.",
        "Turn the drawing of the molecule into SMILES.",
        "What molecule does this show, in SMILES?",
    )

    def score(self, predictions, samples):
        """The share of answers whose canonical SMILES is that of the sample's."""
        pairs = zip(predictions, samples, strict=True)
        return metrics.mean(same_molecule(text, sample.answer) for text, sample in pairs)


def same_molecule(predicted: str, truth: str) -> bool:
    """Whether two SMILES are one molecule by RDKit, stereochemistry included. What is none is like nothing.

    Raises:
        MissingExtra: RDKit is not installed.
    """
    try:
        return canonical(predicted) == canonical(truth)
    except NotationError:
        return False

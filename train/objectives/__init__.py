"""What a run minimises. A new objective is a file with a class that registers itself (base.py), imported here."""

from train.objectives.base import OBJECTIVES, Objective, Settings, State
from train.objectives.drafts import Drafts
from train.objectives.drawing import Drawing
from train.objectives.guided_attention import GuidedAttention
from train.objectives.guided_copying import GuidedCopying
from train.objectives.letters import Letters
from train.objectives.numbers import Numbers
from train.objectives.objects import Objects
from train.objectives.pointer import PointerObjective
from train.objectives.self_critical import SelfCritical
from train.objectives.text import TextObjective

__all__ = [
    "Drafts",
    "Drawing",
    "OBJECTIVES",
    "GuidedAttention",
    "GuidedCopying",
    "Letters",
    "Numbers",
    "Objective",
    "Objects",
    "PointerObjective",
    "SelfCritical",
    "Settings",
    "State",
    "TextObjective",
]

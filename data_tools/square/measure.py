"""How good the filters are, on pages whose truth is known: which mistakes each finds, and what is left with and without
it."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from data_tools.square.items import Item
from data_tools.square.stages import FILTERS

NONE, ALL = "no filter", "all filters"


@dataclass(frozen=True)
class Filter:
    """What a filter does alone.

    Attributes:
        dropped, bad: questions that it drops, and those of them that are bad.
        of: all bad questions.
    """

    name: str
    dropped: int
    bad: int
    of: int

    @property
    def precision(self) -> float:
        return self.bad / self.dropped if self.dropped else float("nan")

    @property
    def recall(self) -> float:
        return self.bad / self.of if self.of else float("nan")


@dataclass(frozen=True)
class Rest:
    """What is left behind some filters: ``kept`` of ``asked`` questions, of which ``bad`` are bad."""

    name: str
    asked: int
    kept: int
    bad: int

    @property
    def share(self) -> float:
        return self.kept / self.asked if self.asked else 0.0

    @property
    def error(self) -> float:
        return self.bad / self.kept if self.kept else float("nan")


def measure(items: Sequence[tuple[Item, bool]]) -> tuple[list[Filter], list[Rest]]:
    """Each filter alone; and what is left with none, with all, with all but one, and with one alone.

    Args:
        items: with the verdicts of all filters, as a run that keeps going gives them; and whether each is right.
    """
    bad = sum(not right for _, right in items)
    filters = []
    for name in FILTERS:
        dropped = [right for item, right in items if not _passes(item, (name,))]
        filters.append(Filter(name, len(dropped), dropped.count(False), bad))

    def rest(name: str, chosen: Sequence[str]) -> Rest:
        kept = [right for item, right in items if _passes(item, chosen)]
        return Rest(name, len(items), len(kept), kept.count(False))

    rests = [rest(NONE, ()), rest(ALL, FILTERS)]
    rests += [rest(f"all but {name}", [other for other in FILTERS if other != name]) for name in FILTERS]
    rests += [rest(f"{name} alone", (name,)) for name in FILTERS]
    return filters, rests


def _passes(item: Item, filters: Iterable[str]) -> bool:
    return all(item.verdicts.get(name, False) for name in filters)


def tables(filters: Sequence[Filter], rests: Sequence[Rest]) -> str:
    """Markdown."""
    lines = ["| filter | drops | precision | recall |", "|---|---:|---:|---:|"]
    lines += [f"| {each.name} | {each.dropped:,} | {each.precision:.2f} | {each.recall:.2f} |" for each in filters]
    lines += ["", "| with | kept | wrong answers among them |", "|---|---:|---:|"]
    for each in rests:
        lines.append(f"| {each.name} | {each.kept:,} ({each.share:.0%}) | {each.error:.1%} |")
    return "\n".join(lines)


def to_json(filters: Sequence[Filter], rests: Sequence[Rest]) -> dict:
    return {
        "filters": {each.name: asdict(each) | {"precision": each.precision, "recall": each.recall} for each in filters},
        "rests": {each.name: asdict(each) | {"share": each.share, "error": each.error} for each in rests},
    }


def draw(filters: Sequence[Filter], rests: Sequence[Rest], target: Path) -> None:
    """Precision and recall of each filter; error and yield with and without each."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for each in filters:
        left.plot(each.recall, each.precision, "o", label=each.name)
    left.set(xlabel="recall of bad questions", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.05), title="each filter")
    left.legend(frameon=False)
    shown = [each for each in rests if not each.name.endswith("alone")]
    places = range(len(shown))
    right.barh(places, [100 * each.error for each in shown], color="C3")
    for place, each in zip(places, shown, strict=True):
        right.text(100 * each.error, place, f" {each.error:.1%}, {each.share:.0%} kept", va="center")
    right.set_yticks(list(places), [each.name for each in shown])
    right.invert_yaxis()
    right.set(xlabel="wrong answers among those kept, %", title="with and without each")
    right.set_xlim(0, 160 * max(each.error for each in shown))
    figure.savefig(target, dpi=110)

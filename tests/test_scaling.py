"""``python -m train scaling``: known laws are found again, too few rows are refused, folders of runs are read."""

import json
import re
import shutil

import numpy as np
import pytest
from conftest import ROOT, tiny_recipe
from PIL import Image

from train.__main__ import main
from train.loop import run
from train.published import MADE
from train.scaling.fit import fit
from train.scaling.report import breaks_at, limits

SIZES = np.repeat([100, 200, 400, 800, 1600, 3200], 3)
EXAMPLE = ROOT / "tests" / "scaling.csv"
"""loss = 4.1 - 0.9 log10 n and score = 0.92 - 2.4 n^-0.4, with normal noise of 0.03 and 0.005."""


def example() -> str:
    rng, lines = np.random.default_rng(0), ["n,seed,loss,score"]
    for number, n in enumerate(SIZES):
        loss = 4.1 - 0.9 * np.log10(n) + rng.normal(0, 0.03)
        score = 0.92 - 2.4 * float(n) ** -0.4 + rng.normal(0, 0.005)
        lines.append(f"{n},{number % 3 + 1},{loss:.4f},{score:.4f}")
    return "\n".join(lines) + "\n"


def test_the_example_is_as_it_says_and_the_document_shows_what_is_printed(monkeypatch, capsys):
    assert EXAMPLE.read_text() == example()
    shown = re.search(r"\$ (python -m train scaling [^\n]+)\n(.*?)```", (ROOT / "train/README.md").read_text(), re.S)
    monkeypatch.chdir(ROOT)
    assert main(shown[1].split()[3:]) == 0
    assert capsys.readouterr().out == shown[2]


def noisy(values: np.ndarray, spread: float, seed: int) -> np.ndarray:
    return values + np.random.default_rng(seed).normal(0, spread, len(values))


@pytest.mark.parametrize("quantity", ["loss", "score"])
def test_a_log_law_is_found_again(quantity):
    sign = -1 if quantity == "loss" else 1
    first, second = ("a", "b") if quantity == "loss" else ("c", "d")
    found = fit(quantity, SIZES, noisy((4.0 if sign < 0 else 0.1) + sign * 0.2 * np.log10(SIZES), 0.01, 1))
    for name, true in {first: 4.0 if sign < 0 else 0.1, second: 0.2}.items():
        interval = found.log.coefficients[name]
        assert interval.low < true < interval.high and interval.high - interval.low < 0.1
        assert interval.low < interval.value < interval.high
    slope, offset = np.polyfit(np.log10(SIZES), found.values, 1)
    assert np.allclose((found.log.curve.slope, found.log.curve.offset), (slope, offset))
    assert found.log.aicc < found.power.aicc and found.log.r2 > 0.95
    assert found.power.r2 >= found.log.r2 - 1e-3  # near g = 0 it is a log law


@pytest.mark.parametrize("quantity", ["loss", "score"])
def test_a_power_law_is_found_again(quantity):
    sign = 1 if quantity == "loss" else -1
    true = {"e": 0.9, "f": 3.0, "g": 0.45}
    found = fit(quantity, SIZES, noisy(true["e"] + sign * true["f"] * SIZES ** -true["g"], 0.005, 2))
    for name, value in true.items():
        interval = found.power.coefficients[name]
        assert interval.low < value < interval.high and interval.high - interval.low < value / 2
    assert found.power.aicc < found.log.aicc - 10
    assert abs(found.power.error) < 0.01 < abs(found.log.error)


def test_without_noise_the_power_law_is_exact_and_nothing_is_infinite():
    found = fit("loss", SIZES, 0.5 + 2.0 * SIZES**-0.5)
    assert np.allclose([value.value for value in found.power.coefficients.values()], [0.5, 2.0, 0.5], rtol=1e-4)
    assert np.isfinite(found.power.aicc) and found.power.r2 > 1 - 1e-9 and abs(found.power.error) < 1e-6


def test_aicc_and_the_held_out_error_are_what_is_said():
    values = noisy(3.0 - 0.5 * np.log10(SIZES), 0.05, 3)
    law = fit("loss", SIZES, values).log
    rss, count = ((values - law.curve(SIZES)) ** 2).sum(), len(values)
    assert law.aicc == pytest.approx(count * np.log(rss / count) + 2 * 3 + 2 * 3 * 4 / (count - 4))
    kept = SIZES < 3200
    slope, offset = np.polyfit(np.log10(SIZES[kept]), values[kept], 1)
    assert law.error == pytest.approx(offset + slope * np.log10(3200) - values[~kept].mean())


def test_intervals_are_as_wide_as_the_spread_of_the_seeds_says():
    values = noisy(3.0 - 0.5 * np.log10(SIZES), 0.05, 6)
    interval = fit("loss", SIZES, values).log.coefficients["b"]
    x = np.log10(np.unique(SIZES))
    pull = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    error = np.sqrt((pull**2 * values.reshape(-1, 3).var(1, ddof=1) / 3).sum())
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * error, rel=0.1)


@pytest.mark.slow
def test_intervals_hold_the_truth_about_as_often_as_the_document_says(monkeypatch):
    """200 simulated studies of each law, three seeds a size; 1,000 give 0.88 to 0.89 for the power law."""
    monkeypatch.setattr("train.scaling.fit.RESAMPLES", 400)
    held = {name: 0 for name in "abefg"}
    log, power = {"a": 4.1, "b": 0.9}, {"e": 0.92, "f": 2.4, "g": 0.4}
    for seed in range(200):
        first = fit("loss", SIZES, noisy(log["a"] - log["b"] * np.log10(SIZES), 0.03, seed), 1000 + seed)
        second = fit("score", SIZES, noisy(power["e"] - power["f"] * SIZES ** -power["g"], 0.005, seed), 1000 + seed)
        for truth, found in ((log, first.log), (power, second.power)):
            for name, value in truth.items():
                held[name] += found.coefficients[name].low <= value <= found.coefficients[name].high
    shares = {name: count / 200 for name, count in held.items()}
    assert all(0.84 <= share <= 0.96 for share in shares.values()), shares


def test_where_the_laws_must_break():
    loss = fit("loss", SIZES, noisy(4.0 - 1.0 * np.log10(SIZES), 1e-4, 4))
    assert breaks_at(loss, loss.log) == pytest.approx(4, abs=0.01) and "where the loss would be 0" in limits(loss)[0]
    score = fit("score", SIZES, noisy(20.0 + 10 * np.log10(SIZES), 1e-3, 4))
    assert breaks_at(score, score.log) == pytest.approx(8, abs=0.01) and "would pass 100" in limits(score)[0]
    power = fit("score", SIZES, noisy(1.2 - 4 * SIZES**-0.25, 1e-6, 4))  # 1 at (4 / 0.2)^4
    assert breaks_at(power, power.power) == pytest.approx(np.log10(20**4), abs=0.01)
    level = fit("loss", SIZES, noisy(0.9 + 3.0 * SIZES**-0.45, 1e-4, 4))
    assert breaks_at(level, level.power) is None and "break" not in limits(level)[1]
    flat = fit("loss", SIZES, noisy(np.full(len(SIZES), 2.0), 0.1, 5))
    assert "no dependence on n is shown" in limits(flat)[0]
    assert "gets worse with n" in limits(fit("score", SIZES, noisy(0.9 - 0.1 * np.log10(SIZES), 0.001, 4)))[0]


def test_the_picture_and_the_figures_are_written(tmp_path, capsys):
    picture, figures = tmp_path / "laws.png", tmp_path / "laws.json"
    assert main(["scaling", str(EXAMPLE), "--out", str(picture), "--json", str(figures)]) == 0
    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    half = pixels.shape[1] // 2
    for panel in (pixels[:, :half], pixels[:, half:]):  # both laws, in matplotlib's first colours
        for colour in ((31, 119, 180), (255, 127, 14)):
            assert (np.abs(panel - colour).max(-1) < 8).sum() > 200
    written = json.loads(figures.read_text())
    assert not [key for key in MADE if key not in written] and written["seed"] == 0
    assert written["command"].startswith("python -m train scaling")
    b = written["values"]["loss"]["log"]["coefficients"]["b"]
    assert b["low"] < 0.9 < b["high"] and len(written["values"]["score"]["rows"]) == 18
    assert f"b = {b['value']:.4g}" in capsys.readouterr().out


def test_json_lines_and_one_quantity_alone(tmp_path, capsys):
    lines = [line.split(",") for line in example().splitlines()[1:]]
    rows = [{"n": int(n), "seed": int(seed), "score": float(score)} for n, seed, _, score in lines]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    assert main(["scaling", str(path)]) == 0
    said = capsys.readouterr().out
    assert "| score | c + d log10 n | c = 0.1921" in said and "loss" not in said.replace("e = ", "")
    assert main(["scaling", str(path), "--json", str(path)]) == 2 and "would replace" in capsys.readouterr().err


HEAD = "n,seed,loss,score\n"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "\n".join(example().splitlines()[:13]), "missing: 1 more size$"),
        ("a.csv", example().rsplit("3200", 1)[0], r"n=3,200 \(2\); missing: 1 more seed at n=3,200$"),
        ("a.csv", HEAD + "100,1,nan,0.5\n", "a.csv line 2: loss must be a finite number, not 'nan'"),
        ("a.csv", HEAD + "100,1,2,0.5\n-5,1,2,0.5\n", "a.csv line 3: n must be a whole number .* not '-5'"),
        ("a.csv", HEAD + "nan,1,2,0.5\n", "a.csv line 2: n must be a finite number, not 'nan'"),
        ("a.csv", HEAD + "100,,2,0.5\n", "a.csv line 2: seed must be a whole number, not ''"),
        ("a.csv", HEAD + "100,1,2,.5\n\n100,1,3,.6\n", "a.csv line 4 repeats n=100 with seed=1 of .*a.csv line 2"),
        ("a.csv", HEAD + "100,1,2\n", "line 2 has 3 cells, the first line 4"),
        ("a.csv", re.sub(r"(200,2,)[\d.]+", r"\1", example(), count=1), "line 6 has no loss, as others have"),
        ("a.csv", re.sub(r",[\d.]+,[\d.]+\n", ",,\n", example()), "a.csv line 2 has neither loss nor score"),
        ("a.csv", re.sub(r",[\d.]+,[\d.]+\n", ",2,2\n", example()), "every loss is 2, so there is nothing to fit"),
        ("a.csv", "n;seed;loss\n100;1;2\n", "a.csv line 1 has no column n: .* separated by commas"),
        ("a.csv", HEAD, "a.csv has no rows"),
        ("a.jsonl", '{"n": 100, "seed": 1}\n{"n": \n', "a.jsonl line 2 is not a JSON object"),
        ("a.jsonl", '{"n": true, "seed": 1}\n', "a.jsonl line 1: n must be a finite number, not True"),
        ("a.txt", "", "does not end in .csv or .jsonl"),
    ],
)
def test_what_is_refused(name, text, said, tmp_path, capsys):
    (tmp_path / name).write_text(text)
    assert main(["scaling", str(tmp_path / name)]) == 2
    captured = capsys.readouterr()
    assert re.search(said, captured.err.strip()) and captured.err.count("\n") == 1 and captured.out == ""


@pytest.fixture(scope="module")
def trained(ten, tmp_path_factory):
    """A run of one epoch with an evaluation, as training writes it."""
    folder = tmp_path_factory.mktemp("run") / "run"
    asked = {"evaluate_steps": 2, "evaluate_count": 2, "evaluate_tokens": 4, "evaluate_on": str(ten)}
    run(tiny_recipe(ten, folder, **asked), say=lambda _: None)
    return folder


def copies(trained, folder, epoch: float = 1.0, **source) -> list[str]:
    """Fifteen runs in the same layout: five sizes, three seeds, losses and scores of known laws."""
    start = json.loads((trained / "runs.jsonl").read_text())
    metrics = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    rng, folders = np.random.default_rng(7), []
    for n in (50, 100, 200, 400, 800):
        for seed in (1, 2, 3):
            own = folder / f"{n}-{seed}"
            own.mkdir()
            start["data"][0]["samples"], start["recipe"]["train"]["seed"] = n, seed
            start["recipe"]["data"][0] |= {"path": f"data/{n}", **source}
            (own / "runs.jsonl").write_text(json.dumps(start) + "\n")
            rows = [dict(row) for row in metrics]
            for row in rows:
                if "loss_text" in row:
                    row["loss_text"] = 5 - 0.8 * np.log10(n) + rng.normal(0, 0.02)
                for name in row.keys() & {"eval_ocr_character_error_rate"}:
                    row[name] = 0.8 - 0.2 * np.log10(n) + rng.normal(0, 0.01)
            rows[-1]["epoch"] = epoch
            (own / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            folders.append(str(own))
    return folders


def figures(words: list[str], tmp_path) -> dict:
    assert main(["scaling", *words, "--json", str(tmp_path / "laws.json")]) == 0
    return json.loads((tmp_path / "laws.json").read_text())["values"]


def test_folders_of_runs(trained, tmp_path, capsys):
    found = figures(copies(trained, tmp_path), tmp_path)
    assert sorted({n for n, _ in found["loss"]["rows"]}) == [50, 100, 200, 400, 800]
    assert abs(found["loss"]["log"]["coefficients"]["b"]["value"] - 0.8) < 0.05
    assert found["score"]["log"]["coefficients"]["d"]["value"] > 0  # an error rate that falls is a score that rises
    assert "note" not in capsys.readouterr().out


def test_samples_that_are_shown_again_give_no_loss_and_are_counted_once(trained, tmp_path, capsys):
    found = figures(copies(trained, tmp_path, epoch=3.0), tmp_path)
    assert list(found) == ["score"] and found["score"]["rows"][0][0] == 50
    assert "loss is left out" in (said := capsys.readouterr().out) and "50 samples 3 times" in said
    (tmp_path / "more").mkdir()
    found = figures(copies(trained, tmp_path / "more", epoch=0.5, share=2.0), tmp_path)  # half of an epoch of copies
    assert found["loss"]["rows"][0][0] == 25


def test_what_a_run_does_not_tell_is_said(trained, tmp_path, capsys):
    folders = copies(trained, tmp_path)
    first = tmp_path / "50-1"
    kept = {name: (first / name).read_text() for name in ("runs.jsonl", "metrics.jsonl")}

    def refused(name: str, text: str) -> str:
        (first / name).write_text(text)
        assert main(["scaling", *folders]) == 2
        (first / name).write_text(kept[name])
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and str(first / name) in error or str(first) in error
        return error

    lines = kept["metrics.jsonl"].splitlines(keepends=True)
    assert "finish it with --resume" in refused("metrics.jsonl", "".join(lines[:-1]))
    early = "".join(line for line in lines if "eval_samples" not in line or '"step": 0' in line)
    assert "last evaluation is at step 0 of 2: train with train.evaluate_on" in refused("metrics.jsonl", early)
    none = "".join(line for line in lines if "eval_samples" not in line)
    assert "has no score" in refused("metrics.jsonl", none)
    start = json.loads(kept["runs.jsonl"])
    start["recipe"]["data"][0]["weight"] = 2.0
    assert "are distinct, with weight=2.0: give n, seed, loss, score" in refused("runs.jsonl", json.dumps(start))
    assert "runs.jsonl is missing or damaged" in refused("runs.jsonl", "")
    assert "lacks what a run writes there ('data')" in refused("runs.jsonl", '{"recipe": {}}')
    start = json.loads(kept["runs.jsonl"])
    start["recipe"]["train"]["learning_rate"] = 0.5
    (first / "runs.jsonl").write_text(json.dumps(start))
    assert main(["scaling", *folders]) == 0
    assert "note: train.learning_rate differs too" in capsys.readouterr().out
    shutil.rmtree(first)
    assert main(["scaling", *folders]) == 2 and "is no folder of a run" in capsys.readouterr().err

"""Suspicion scores on made households: manipulated copies rise above their originals, empty homes do not."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from fuhe.analytics.masks import F8
from fuhe.analytics.theft.attacks import FORMS, attack
from fuhe.analytics.theft.features import NAMES, features
from fuhe.analytics.theft.reasons import reasons
from fuhe.analytics.theft.score import LOOK_FROM, Training, score_windows
from fuhe.cli import root
from fuhe.model.lang import set_lang

DAYS, SLOTS = 60, 48


@pytest.fixture(autouse=True)
def fewer_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tested here does not need three hundred."""
    monkeypatch.setattr("fuhe.analytics.theft.score.TREES", 40)


def home(seed: int) -> F8:
    """A household: a standby load, evening peaks, now and then a kettle; kWh in three decimals."""
    rng = np.random.default_rng(seed)
    slot = np.arange(SLOTS)
    evening = np.exp(-(((slot - 38) / 4) ** 2)) + 0.5 * np.exp(-(((slot - 15) / 3) ** 2))
    base = rng.uniform(0.04, 0.12)
    use = rng.uniform(0.3, 0.8) * evening * rng.gamma(2.0, 0.5, (DAYS, SLOTS))
    kettle = (rng.random((DAYS, SLOTS)) < 0.04) * rng.uniform(0.5, 1.5)
    kwh: F8 = np.round(base * rng.choice([1.0, 1.0, 1.1], (DAYS, SLOTS)) + use + kettle, 3).astype(np.float64)
    return kwh


@pytest.fixture(scope="module")
def homes() -> F8:
    return np.array([home(i) for i in range(40)])


def fraud(homes: F8) -> tuple[F8, list[int]]:
    """Some of the homes manipulated, each form once."""
    x, which = homes.copy(), [3, 9, 14, 20, 27, 33]
    for i, form in zip(which, FORMS, strict=True):
        x[i] = attack(x[i], form, 28, np.random.default_rng(i))
    return x, which


def test_windows_judged_among_themselves(homes: F8) -> None:
    x, which = fraud(homes)
    x[5, 20:55] = 0.0  # an empty home, back before the end
    scores = score_windows(x, [f"c{i}" for i in range(len(x))])
    honest = np.delete(scores.score, which)
    assert ((scores.score >= 0) & (scores.score <= 100)).all()
    assert np.median(scores.score[which]) > LOOK_FROM > np.quantile(honest, 0.95)
    assert (scores.score[which, None] > honest[None, :]).mean() > 0.95
    assert abs(int(scores.day[14]) - 28) <= 1


def test_a_training_set_with_labels_is_used_for_windows_without(homes: F8) -> None:
    x, which = fraud(homes)
    theft = np.zeros(len(x), bool)
    theft[which] = True
    fresh = np.array([home(100 + i) for i in range(6)])
    bent = np.array([attack(w, f, 30, np.random.default_rng(9)) for w, f in zip(fresh, FORMS, strict=True)])
    training = Training(windows=x, theft=theft, customer=[f"c{i}" for i in range(len(x))])
    scores = score_windows(np.r_[fresh, bent], [""] * 12, training).score
    assert (scores[6:, None] > scores[None, :6]).mean() > 0.9
    with pytest.raises(ValueError, match="both kinds"):
        score_windows(fresh, [""] * 6, Training(windows=homes, theft=np.zeros(len(homes), bool), customer=[""] * 40))


@pytest.mark.parametrize(
    ("form", "said"),
    [("h1", "fell alike"), ("h3", "stands still"), ("h5", "flat line"), ("h6", "cut at one constant value")],
)
def test_reasons_name_what_is_seen_and_accuse_nobody(form: str, said: str) -> None:
    bent = attack(home(1), form, 30, np.random.default_rng(1))
    rows, day = features(bent[None])
    set_lang("en")
    text = "; ".join(reasons(rows[0], int(day[0])))
    assert said in text and text.startswith("from day ") and "theft" not in text and "steal" not in text
    set_lang("zh")
    try:
        chinese = "; ".join(reasons(rows[0], int(day[0])))
    finally:
        set_lang("en")
    assert chinese.startswith("自第") and "窃" not in chinese


def test_the_forms_do_what_they_are_called(homes: F8) -> None:
    x, rng = homes[0], np.random.default_rng(1)
    for form in FORMS:
        bent = attack(x, form, 30, rng)
        np.testing.assert_array_equal(bent[:30], x[:30])
        assert (bent[30:] != x[30:]).any() and (bent >= 0).all()
    assert len(np.unique(attack(x, "h5", 30, rng)[30:])) == 1
    assert 4 / 24 - 0.05 < (attack(x, "h3", 30, rng)[30:] == 0).mean() < 16 / 24 + 0.05
    with pytest.raises(ValueError, match="no form"):
        attack(x, "h9", 30, rng)


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.sampled_from([0.0, 0.001, 0.5, 3.0, 1e6, float("nan")]), min_size=1, max_size=12), st.integers(0, 999)
)
def test_features_are_finite_for_anything(values: list[float], seed: int) -> None:
    x = np.random.default_rng(seed).choice(values, (2, 30, 8))
    rows, day = features(x)
    assert rows.shape == (2, len(NAMES)) and np.isfinite(rows).all() and ((day >= 0) & (day < 30)).all()


def fuhe(*words: str) -> Result:
    return CliRunner().invoke(root, ["--lang", "en", *words])


def write(path: Path, x: F8, labels: list[int] | None = None, cut: int | None = None) -> None:
    flat = x.reshape(len(x), -1)[:, :cut]
    head = ["customer", *(["theft"] if labels else []), *(f"v{i}" for i in range(flat.shape[1]))]
    rows = [
        [f"c{i}", *([str(labels[i])] if labels else []), *("" if v != v else f"{v:g}" for v in row)]
        for i, row in enumerate(flat.tolist())
    ]
    path.write_text("\n".join(",".join(r) for r in [head, *rows]))


def test_the_verb_keeps_the_order_of_the_rows(homes: F8, tmp_path: Path) -> None:
    x, which = fraud(homes)
    x[0, 3, :5] = np.nan
    source, train, out = tmp_path / "w.csv", tmp_path / "t.csv", tmp_path / "o.csv"
    write(source, x)
    write(train, x, [int(i in which) for i in range(len(x))])
    for words in ([], ["--train", str(train)]):
        result = fuhe("lab", "theft", "--windows", str(source), "--out", str(out), *words)
        assert result.exit_code == 0, result.output
        rows = list(csv.DictReader(out.read_text().splitlines()))
        assert [r["customer"] for r in rows] == [f"c{i}" for i in range(len(x))]
        assert list(rows[0]) == ["customer", "score", "reasons"]
        assert np.median([float(rows[i]["score"]) for i in which]) > 60 and rows[which[4]]["reasons"]


@pytest.mark.parametrize(
    ("change", "words", "why"),
    [
        ("none", ["--per-day", "47"], "no whole number of days of 47"),
        ("few", [], "too few to compare"),
        ("short", [], "too short"),
    ],
)
def test_faults_of_the_windows_are_named(homes: F8, tmp_path: Path, change: str, words: list[str], why: str) -> None:
    source, out = tmp_path / "w.csv", tmp_path / "o.csv"
    write(source, homes[: 5 if change == "few" else 14], cut=48 * 20 if change == "short" else None)
    result = fuhe("lab", "theft", "--windows", str(source), "--out", str(out), *words)
    assert result.exit_code == 1 and why in result.output and not out.exists()

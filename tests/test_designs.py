"""What an experiment may declare, on a whole stack: pairs, hidden labels, segments, values, signals."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from contender import Client
from contender.contracts.ab_router import Prediction
from contender.contracts.feedback_service import Results
from contender.errors import RefusedError
from tests.stack import Stack, stack_in, wait_for

ROWS, CALL = 3_000, 500
WINDOW_S = 60.0
HIDDEN_ABOVE = 0.6
EXPLORED = 0.2
BEGAN_AT = 1_600_000_000.0
"""The rows are a replay: they carry times of the past."""

DESIGN = {
    "clock": "event",
    "cycle_days": 0,
    "cycle_reason": "the rows are drawn at random",
    "window_s": WINDOW_S,
    "outcome": "independent of the answer",
    "labels_seen_if": f"score < {HIDDEN_ABOVE}",
    "exploration_share": EXPLORED,
    "segments": ["region"],
    "value": "if(outcome, -10, 1) * (score < 0.5)",
    "guardrails": [{"metric": "latency", "margin": 1e6}, {"metric": "log_loss", "margin": 5.0, "segment": "region"}],
}


@pytest.fixture(scope="module")
def stack(kafka_jars: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = stack_in(tmp_path_factory.mktemp("home"), kafka_jars)
    up = stack.run("up", "--detach")
    try:
        assert up.returncode == 0, up.stderr
        yield stack
    finally:
        stack.run("down")


@pytest.fixture(scope="module")
def client(stack: Stack) -> Iterator[Client]:
    with stack.client() as client:
        yield client


@pytest.fixture(scope="module")
def credit(client: Client) -> str:
    """A model with two versions of which the second is better."""
    random = np.random.default_rng(3)
    rows = pd.DataFrame({"income": random.normal(0, 1, 2_000), "debt": random.normal(0, 1, 2_000)})
    defaults = random.random(2_000) < 1 / (1 + np.exp(-1.5 * (rows["debt"] - rows["income"])))
    client.register("credit", LogisticRegression().fit(rows, random.permutation(defaults)), rows, defaults)
    better = client.register("credit", LogisticRegression().fit(rows, defaults), rows, defaults)
    return better.version


def drawn(count: int) -> tuple[list[dict[str, object]], list[bool]]:
    """Rows of a call, and what comes true of each whatever the answer."""
    random = np.random.default_rng(11)
    income, debt = random.normal(0, 1, (2, count))
    outcomes = random.random(count) < 1 / (1 + np.exp(-1.5 * (debt - income)))
    rows = [
        {
            "unit": f"u-{number}",
            "inputs": {"income": float(income[number]), "debt": float(debt[number])},
            "context": {"region": ("north", "south")[number % 2]},
            "time": BEGAN_AT + 0.1 * number,
        }
        for number in range(count)
    ]
    return rows, [bool(outcome) for outcome in outcomes]


def report(client: Client, predictions: Sequence[Prediction], outcomes: Sequence[bool], first: int) -> int:
    """Report what an application would see: outcomes that the answer does not hide, and signals; return how many."""
    reports: list[dict[str, object]] = []
    for number, (prediction, outcome) in enumerate(zip(predictions, outcomes, strict=True), first):
        about = {"prediction_id": prediction.prediction_id, "time": BEGAN_AT + 0.1 * number + 1.0}
        is_hidden = prediction.outputs.score >= HIDDEN_ABOVE
        assert not prediction.explore or is_hidden
        if not is_hidden or prediction.explore:
            reports.append({**about, "outcome": outcome})
        if number % 5 == 0:
            reports += [{**about, "rating": 1 + number % 4}, {**about, "conversion": True}]
    client.feedback_batch(reports)
    return len(reports)


@pytest.fixture(scope="module")
def results(client: Client, credit: str) -> Results:
    """The results once all rows but the last minute's have matured."""
    test = client.experiment("credit", challenger=credit, name="credit-2", **DESIGN).start()
    rows, outcomes = drawn(ROWS)
    for first in range(0, ROWS, CALL):
        part = slice(first, first + CALL)
        predictions = client.predict_batch("credit", rows[part])
        report(client, predictions, outcomes[part], first)
    later = [{**row, "unit": f"later-{row['unit']}", "time": BEGAN_AT + 86_400.0} for row in rows[:20]]
    for row in later:  # each in a record of its own, so that every partition goes on
        client.predict("credit", **row)

    def matured() -> bool:
        found = test.results()
        return sum(variant.matured for variant in found.variants) >= ROWS and bool(found.effects.get("challenger"))

    wait_for(matured)
    return test.results()


@pytest.mark.timeout(240)
def test_pairs_decide_and_are_named(results: Results):
    effect = results.effects["challenger"]["log_loss"]
    assert (effect.estimator, effect.decides, effect.better) == ("paired", True, True)
    assert effect.n > 0.8 * ROWS  # all labelled rows, in the weights of those that were explored
    assert results.verdict.status == "challenger better"
    assert "on the same rows" in results.verdict.sentence
    estimators = results.checks["challenger"].estimators
    assert estimators is None or estimators > 0.001


def test_hidden_labels_arrive_alike_in_their_weights(results: Results):
    arrival = results.checks["challenger"].arrival
    assert arrival is not None
    assert arrival > 0.001
    labelled = sum(variant.matured_labelled for variant in results.variants)
    assert labelled < 0.95 * ROWS  # so that without weights it would be another question


def test_segments_values_and_signals_are_shown(results: Results):
    parts = {(part.segment, part.value): part for part in results.segments["challenger"]}
    assert set(parts) == {("region", "north"), ("region", "south")}
    assert all(part.estimate is not None and part.estimate < 0 for part in parts.values())
    (champion,) = [variant for variant in results.variants if variant.champion]
    assert {"value", "rating", "conversion", "latency", "latency_p95", "fallback_rate"} <= champion.metrics.keys()
    assert champion.metrics["rating"].mean == pytest.approx(2.5, abs=0.2)
    assert champion.metrics["conversion"].mean == pytest.approx(0.2, abs=0.03)
    assert len(results.value_curve["champion"]) > 10


def test_the_page_has_it_all(client: Client, results: Results):
    page = httpx.get(f"{client.feedback_url}/experiments/credit-2").text
    for words in ("on the same rows", "region = north", "Value at other thresholds", "mean latency"):
        assert words in page


def test_a_plan_comes_from_the_record(stack: Stack, results: Results):
    plan = stack.run("experiment", "plan", "--model", "credit", "--metric", "log_loss", "--effect", "0.02")
    assert plan.returncode == 0, plan.stderr
    assert "rows" in plan.stdout
    unknown = stack.run("experiment", "plan", "--model", "none", "--metric", "log_loss", "--effect", "0.02")
    assert unknown.returncode == 1
    assert "record" in unknown.stderr


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"labels_seen_if": "score <"}, "labels_seen_if"),
        ({"labels_seen_if": "", "exploration_share": 0.2}, "exploration_share"),
        ({"exploration_share": 0.3}, "exploration_share"),
        ({"exploration_share": 0.0}, "exploration_share"),
        ({"value": "import os"}, "value"),
        ({"metric": "value", "value": ""}, "value"),
        ({"segments": ["region", "region"]}, "segments"),
        ({"guardrails": [{"metric": "log_loss", "segment": "country"}]}, "guardrails[0].segment"),
        ({"error_limit": 3.0}, "error_limit"),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_field(client: Client, credit: str, change: dict, field: str):
    declared = {**DESIGN, "guardrails": [], **change}
    body = {
        "name": f"refused-{time.time_ns()}",
        "model": "credit",
        "variants": [
            {"name": "champion", "version": client.version("credit").version, "weight": 0.5},
            {"name": "challenger", "version": credit, "weight": 0.5},
        ],
        **declared,
    }
    with pytest.raises(RefusedError) as refused:
        client.create(body)
    assert field in {error.field for error in refused.value.errors}

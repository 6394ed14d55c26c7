"""The client: every call's request, its typed answer, and every fault as an error that says what to do."""

import json
import math
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import httpx
import msgspec
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from contender import Client, ContenderError, Experiment, ExperimentWarning, Refusal, RefusedError, UnreachableError
from contender.contracts import feedback_service
from contender.contracts.ab_router import Outputs, Prediction
from contender.contracts.experiments import (
    SHOW_HISTORY,
    SHOW_READINESS,
    Bandit,
    Canary,
    Evidence,
    ExperimentRevision,
    Guardrail,
    Namespace,
)
from contender.contracts.feature_service import FeatureDescription, ViewDescription
from contender.contracts.inference_service import LIST_PROMOTIONS
from contender.contracts.problems import FieldError
from contender.experiments import differences
from contender.pinning import pinned_options, trained_digests, training_sources
from embedded.ports import free_ports

ROUTER, INFERENCE, FEEDBACK = (f"http://127.0.0.1:{port}" for port in (8400, 8402, 8403))
SHA = "a" * 64
VERSION = {"model": "churn", "version": SHA, "task": "binary", "inputs": [], "registered_at": 1.0}
REVISION = {
    "name": "e",
    "model": "churn",
    "revision": 1,
    "epoch": 0,
    "status": "draft",
    "seed": "s",
    "champion": "champion",
    "variants": [],
    "metric": "log_loss",
    "window_s": 60.0,
    "changed_at": 1.0,
}
PROMOTED = {"model": "churn", "version": SHA, "alias": "champion", "registered_at": 1.0}
PREDICTED = {
    "prediction_id": "p-0",
    "model": "churn",
    "version": SHA,
    "variant": None,
    "experiment": None,
    "outputs": {"score": 0.25, "label": "leaves"},
    "degraded": False,
    "fresh": "a field of a later version",
}
RESULTS = {
    **feedback_service.GET_RESULTS.answer_example,
    "verdict": {"status": "collecting", "sentence": "No verdict yet."},
}


@pytest.fixture(autouse=True)
def nothing_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    services = (f"{name}_SERVICE_{part}" for name in ("INFERENCE", "FEATURE", "FEEDBACK") for part in ("URL", "PORT"))
    for name in ("URL", *services):
        monkeypatch.delenv(f"CONTENDER_{name}", raising=False)


class Services:
    """What the client has sent, and what it is answered: the given answers in turn, the last one again and again."""

    def __init__(self, *answers: Any, status: int = 200) -> None:
        self.answers = [answer if isinstance(answer, bytes) else json.dumps(answer).encode() for answer in answers]
        self.status = status
        self.requests: list[httpx.Request] = []
        self.client = Client(transport=httpx.MockTransport(self._answer))

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return httpx.Response(self.status, content=answer)

    @property
    def calls(self) -> list[tuple[str, str]]:
        return [(request.method, str(request.url)) for request in self.requests]

    @property
    def body(self) -> Any:
        return json.loads(self.requests[-1].content)


def test_a_prediction_is_asked_of_the_router():
    services = Services(PREDICTED)
    answer = services.client.predict("churn/1", unit="u", entities={"shop": 7}, inputs={"age": 3.5, "plan": None})
    assert services.calls == [("POST", f"{ROUTER}/v1/models/churn%2F1/predict")]
    assert services.requests[0].headers["content-type"] == "application/json"
    assert services.body == {"unit": "u", "entities": {"shop": 7}, "inputs": {"age": 3.5, "plan": None}, "context": {}}
    assert answer == Prediction(
        prediction_id="p-0",
        model="churn",
        version=SHA,
        variant=None,
        experiment=None,
        outputs=Outputs(0.25, "leaves"),
        degraded=False,
    )


def test_a_batch_is_answered_in_order():
    services = Services({"predictions": [PREDICTED, {**PREDICTED, "prediction_id": "p-1"}]})
    answers = services.client.predict_batch("churn", ({"unit": "a"}, MappingProxyType({"unit": "b"})))
    assert services.calls == [("POST", f"{ROUTER}/v1/models/churn/predict/batch")]
    assert services.body == {"rows": [{"unit": "a"}, {"unit": "b"}]}
    assert [answer.prediction_id for answer in answers] == ["p-0", "p-1"]


def test_a_refused_row_of_a_batch_has_its_refusal_in_place_of_a_prediction():
    errors = [{"field": "inputs.plan", "message": "is unknown"}]
    problem = {"type": "/problems/invalid-field", "title": "t", "status": 422, "detail": "inputs.plan is unknown"}
    services = Services({"predictions": [PREDICTED, {"error": {**problem, "errors": errors}}, PREDICTED]})
    first, refused, last = services.client.predict_batch("churn", [{"unit": unit} for unit in "abc"])
    assert isinstance(refused, Refusal)
    assert (refused.status, refused.detail) == (422, "inputs.plan is unknown")
    assert refused.errors == [FieldError("inputs.plan", "is unknown")]
    assert isinstance(first, Prediction)
    assert first == last


@pytest.mark.parametrize("answer", [{}, {"error": 7}, [], "p"])
def test_a_row_of_a_batch_that_is_neither_is_an_answer_of_something_else(answer):
    with pytest.raises(ContenderError, match="answered by something other than Contender"):
        Services({"predictions": [PREDICTED, answer]}).client.predict_batch("churn", [{"unit": "a"}])


def test_feedback_goes_to_the_feedback_service():
    services = Services({"accepted": 1})
    services.client.feedback("p-0", outcome="leaves", at=12.5)
    assert services.calls == [("POST", f"{FEEDBACK}/v1/feedback")]
    assert services.body == {"feedback": [{"prediction_id": "p-0", "outcome": "leaves", "time": 12.5}]}
    services.client.feedback("p-0", conversion=False)
    assert services.body == {"feedback": [{"prediction_id": "p-0", "conversion": False, "time": None}]}
    services.client.feedback("p-0", shown=False)
    assert services.body == {"feedback": [{"prediction_id": "p-0", "shown": False, "time": None}]}
    services.client.feedback("p-0", decided="stays")
    assert services.body == {"feedback": [{"prediction_id": "p-0", "decided": "stays", "time": None}]}
    services.client.feedback("p-0", rating=4.5, at=12.5)
    assert services.body == {"feedback": [{"prediction_id": "p-0", "rating": 4.5, "time": 12.5}]}
    services.client.feedback_batch([{"prediction_id": "p-0", "outcome": 1}])
    assert services.body == {"feedback": [{"prediction_id": "p-0", "outcome": 1}]}


@pytest.mark.parametrize("version", [SHA, None])
def test_a_version_is_promoted_by_its_name_or_itself(version):
    services = Services(VERSION, PROMOTED) if version is None else Services(PROMOTED)
    promoted = services.client.promote("churn", version or services.client.version("churn"))
    assert services.calls[-1] == ("PUT", f"{INFERENCE}/v1/models/churn/aliases/champion")
    assert services.body == {"version": SHA}
    assert (promoted.version, promoted.alias) == (SHA, "champion")


def test_a_promotion_rests_on_a_verdict():
    services = Services(PROMOTED)
    verdict = Evidence(experiment="e", number=2, challenger="new", status="better", sentence="It is better.", at=1.0)
    services.client.promote("churn", SHA, reason="decided", evidence=verdict, changed_by="ada")
    rests_on = {"experiment": "e", "verdict": 2, "evidence": "It is better."}
    assert services.body == {"version": SHA, "reason": "decided", "changed_by": "ada", **rests_on}


def test_a_model_goes_back_to_its_champion_of_before_and_lists_its_promotions():
    services = Services(PROMOTED, LIST_PROMOTIONS.answer_example)
    assert services.client.rollback("churn", "complaints").version == SHA
    assert services.body == {"reason": "complaints", "changed_by": ""}
    assert [record.number for record in services.client.promotions("churn")] == [1]
    assert services.calls == [
        ("POST", f"{INFERENCE}/v1/models/churn/aliases/champion/rollback"),
        ("GET", f"{INFERENCE}/v1/models/churn/promotions"),
    ]


NOTHING_RUNS: dict[str, Any] = {"experiments": []}


def test_an_experiment_takes_the_versions_that_aliases_stand_for():
    services = Services(VERSION, {**VERSION, "version": "b" * 64}, NOTHING_RUNS, REVISION)
    experiment = services.client.experiment("churn", challenger="new", share=0.25, name="e", window_s=60.0, alpha=0.1)
    assert services.calls == [
        ("GET", f"{INFERENCE}/v1/models/churn/versions/champion"),
        ("GET", f"{INFERENCE}/v1/models/churn/versions/new"),
        ("GET", f"{ROUTER}/v1/experiments"),
        ("POST", f"{ROUTER}/v1/experiments"),
    ]
    assert services.body == {
        "name": "e",
        "model": "churn",
        "variants": [
            {"name": "champion", "version": SHA, "weight": 0.75},
            {"name": "challenger", "version": "b" * 64, "weight": 0.25},
        ],
        "champion": "champion",
        "metric": "log_loss",
        "window_s": 60.0,
        "missing": "excluded",
        "clock": "wall",
        "cycle_days": 7,
        "cycle_reason": "",
        "hypothesis": "superiority",
        "margin": 0.0,
        "guardrails": [],
        "alpha": 0.1,
    }
    assert experiment.name == "e"


def test_a_regression_is_judged_by_its_absolute_error_and_named_after_the_model():
    regression = {**VERSION, "task": "regression"}
    services = Services(regression, regression, NOTHING_RUNS, REVISION)
    services.client.experiment("churn", challenger="new")
    assert services.body["metric"] == "absolute_error"
    assert services.body["name"].startswith("churn-20")


def test_a_design_is_declared_by_name():
    services = Services(VERSION, VERSION, NOTHING_RUNS, REVISION)
    design = {
        "clock": "event",
        "cycle_days": 0,
        "cycle_reason": "a replay",
        "hypothesis": "no difference",
        "margin": 0.1,
        "error_limit": 120.0,
        "outcome": "independent of the answer",
        "shadow_share": 0.5,
        "labels_seen_if": "score < 0.3",
        "exploration_share": 0.01,
        "segments": ["plan"],
        "correction": "holm",
        "value": "if(outcome == 1, 20, 0)",
    }
    guardrails = [Guardrail("auc", 0.01), {"metric": "brier"}]
    services.client.experiment("churn", challenger="new", guardrails=guardrails, time_zone="Asia/Tokyo", **design)
    assert design.items() <= services.body.items()
    assert services.body["guardrails"] == [{"metric": "auc", "margin": 0.01, "segment": ""}, {"metric": "brier"}]
    assert services.body["time_zone"] == "Asia/Tokyo"


DECLARED = {
    **REVISION,
    "name": "churn-1",
    "variants": [
        {"name": "champion", "version": SHA, "weight": 0.75},
        {"name": "challenger", "version": "b" * 64, "weight": 0.25},
    ],
    "window_s": 86_400.0,
}


def declare(*known: dict, **options: Any) -> tuple[Services, Callable[[], Any]]:
    """A client that declares an experiment on versions SHA and b..., beside the experiments that are there."""
    services = Services(VERSION, {**VERSION, "version": "b" * 64}, {"experiments": list(known)}, REVISION)
    return services, lambda: services.client.experiment("churn", challenger="new", **{"share": 0.25, **options})


@pytest.mark.parametrize("status", ["running", "paused", "decided", "draft"])
def test_an_experiment_that_is_there_with_the_same_configuration_goes_on(status: str):
    others = [{**DECLARED, "name": "other", "model": "other"}, {**DECLARED, "name": "old", "status": "stopped"}]
    services, call = declare(*others, {**DECLARED, "status": status}, {**DECLARED, "metric": "brier", "name": "z"})
    assert call().name == "churn-1"
    assert "POST" not in [method for method, _ in services.calls]


@pytest.mark.parametrize(
    ("changes", "options", "difference"),
    [
        ({}, {"share": 0.5}, "challenger's share is 0.25 there and 0.5 here"),
        ({}, {"metric": "brier"}, "metric is log_loss there and brier here"),
        ({}, {"window_s": 60.0}, "window_s is 86400.0 there and 60.0 here"),
        ({}, {"alpha": 0.01}, "alpha is 0.05 there and 0.01 here"),
        ({}, {"clock": "event"}, "clock is wall there and event here"),
        ({"label_range": [0, 9]}, {"label_range": (0, 8)}, "label_range is (0.0, 9.0) there and (0.0, 8.0) here"),
        ({}, {"label_range": (0, 8)}, "label_range is None there and (0.0, 8.0) here"),
        ({"horizon_rows": 500}, {}, "horizon_rows is 500 there and None here"),
        ({"segments": ["plan"]}, {}, "segments is plan there and none here"),
        ({}, {"outcome": "independent of the answer"}, "outcome is may depend on the answer there and independent of"),
        (
            {"guardrails": [{"metric": "brier", "segment": "plan"}]},
            {},
            "guardrails is brier by 0.0 in each plan there and none here",
        ),
        ({}, {"cycle_days": 0, "cycle_reason": "a test"}, "cycle_days is 7 there and 0 here; cycle_reason is"),
        ({}, {"guardrails": [{"metric": "auc", "margin": 0.01}]}, "guardrails is none there and auc by 0.01 here"),
        ({"guardrails": [{"metric": "brier"}]}, {}, "guardrails is brier by 0.0 there and none here"),
        ({}, {"holdout": 0.1, "owner": "ada"}, "holdout is 0.0 there and 0.1 here; owner is empty there and ada here"),
        ({}, {"forced": {"tester": "new"}}, "forced is none there and tester: new here"),
        ({}, {"canary": Canary([0.5])}, "canary is None there and steps: [0.5], rows_per_step: 1000"),
        ({}, {"namespace": Namespace("page", 0, 0.5)}, "namespace is None there and name: page, start: 0.0, end: 0.5"),
        ({"targeting": [{"key": "plan", "equals": "pro"}]}, {}, "targeting is key: plan, equals: pro there and none"),
        ({"fallback_value": 0.5}, {}, "fallback_value is 0.5 there and None here"),
        ({"champion": "challenger"}, {}, "champion is challenger there and champion here"),
        (
            {"variants": [DECLARED["variants"][0], {"name": "challenger", "version": "c" * 64, "weight": 0.25}]},
            {},
            "challenger's version is cccccccccccc there and bbbbbbbbbbbb here",
        ),
        ({"variants": [*DECLARED["variants"], {"name": "third", "version": SHA, "weight": 0.1}]}, {}, "variants is"),
    ],
)
def test_the_experiment_of_a_name_that_runs_goes_on_and_says_what_differs(changes, options, difference):
    services, call = declare({**DECLARED, "status": "running", **changes}, name="churn-1", **options)
    with pytest.warns(ExperimentWarning, match="experiment churn-1 is running with another configuration") as warned:
        experiment = call()
    assert experiment.name == "churn-1"
    assert difference in "; ".join(experiment.differences)
    assert difference in str(warned[0].message)
    assert {method for method, _ in services.calls} == {"GET"}


@pytest.mark.parametrize(
    ("options", "words"), [({}, "has stopped: its results stay"), ({"share": 0.5}, "has stopped with")]
)
def test_the_experiment_of_a_name_that_has_stopped_is_shown_and_not_begun_again(options, words):
    services, call = declare({**DECLARED, "status": "stopped"}, name="churn-1", **options)
    with pytest.warns(ExperimentWarning, match=words):
        assert call().name == "churn-1"
    assert {method for method, _ in services.calls} == {"GET"}


def test_beside_another_experiment_on_the_model_a_draft_is_created():
    services, call = declare({**DECLARED, "status": "running"}, metric="brier")
    assert call().name == REVISION["name"]
    assert services.calls[-1] == ("POST", f"{ROUTER}/v1/experiments")


@pytest.mark.parametrize("name", [None, "churn-1"])
def test_a_declaration_that_can_not_be_read_is_refused(name):
    _, call = declare({**DECLARED, "status": "running"}, name=name, horizon=3)
    with pytest.raises(ContenderError, match="Object contains unknown field `horizon`"):
        call()


def test_the_name_of_an_experiment_on_another_model_is_taken():
    services, call = declare({**DECLARED, "model": "other"}, name="churn-1")
    with pytest.raises(ContenderError, match="experiment churn-1 is on model other, and a name is final"):
        call()
    assert {method for method, _ in services.calls} == {"GET"}


def test_the_draft_of_a_name_is_revised_where_it_differs():
    services, call = declare({**DECLARED, "revision": 3}, name="churn-1", metric="brier")
    call()
    assert services.calls[-1] == ("PUT", f"{ROUTER}/v1/experiments/churn-1")
    assert (services.body["metric"], services.body["revision"]) == ("brier", 3)


def test_an_experiment_that_only_scores_in_shadow_gives_its_challenger_no_units():
    services, call = declare(shadow=True)
    call()
    assert [variant["weight"] for variant in services.body["variants"]] == [1.0, 0.0]


@pytest.mark.parametrize(
    ("more", "hidden"),
    [({"canary": Canary()}, {"coverage": 0.02}), ({"bandit": Bandit()}, {})],
    ids=["canary", "bandit"],
)
def test_what_a_schedule_or_the_results_set_is_no_difference(more, hidden):
    moved = [{**variant, "weight": 0.5} for variant in DECLARED["variants"]]
    there = {**DECLARED, **msgspec.to_builtins(more), **hidden, "variants": moved, "status": "running"}
    services, call = declare(there, **more)
    assert call().differences == ()
    assert {method for method, _ in services.calls} == {"GET"}


def test_who_changed_an_experiment_and_why_is_no_difference():
    changed = {**DECLARED, "revision": 7, "changed_by": "ada", "reason": "a longer window", "status": "running"}
    services, call = declare(changed, changed_by="script", reason="again")
    assert call().differences == ()
    assert {method for method, _ in services.calls} == {"GET"}


def test_the_champion_that_a_start_has_resolved_is_no_difference():
    variants = [{**DECLARED["variants"][0], "alias": "champion"}, DECLARED["variants"][1]]
    started = msgspec.convert({**DECLARED, "variants": variants}, ExperimentRevision)
    declared = [{**DECLARED["variants"][0], "version": "champion"}, DECLARED["variants"][1]]
    assert differences(started, {"name": "churn-1", "model": "churn", "variants": declared}) == []


def test_what_the_router_fills_in_is_no_difference():
    filled_in = msgspec.convert({**DECLARED, "label_range": [-10, 20]}, ExperimentRevision)
    body = {name: DECLARED[name] for name in ("name", "model", "variants", "metric")}
    assert differences(filled_in, body) == []
    assert differences(filled_in, {**body, "champion": "challenger", "label_range": [0, 1]}) == [
        "champion is champion there and challenger here",
        "label_range is (-10.0, 20.0) there and (0.0, 1.0) here",
    ]


def test_without_its_name_a_draft_is_gone_on_with_only_in_its_own_configuration():
    services, call = declare(DECLARED, name="another")
    call()
    assert services.body["name"] == "another"
    services, call = declare(DECLARED, metric="brier")
    call()
    assert services.body["metric"] == "brier"


def test_an_experiment_is_started_stopped_and_told_of():
    services = Services(REVISION, REVISION, REVISION, RESULTS)
    experiment = services.client.create({"name": "e"})
    results = experiment.start().stop().results()
    assert services.calls == [
        ("POST", f"{ROUTER}/v1/experiments"),
        ("POST", f"{ROUTER}/v1/experiments/e/start"),
        ("POST", f"{ROUTER}/v1/experiments/e/stop"),
        ("GET", f"{FEEDBACK}/v1/experiments/e/results"),
    ]
    assert services.requests[1].content == b""
    assert (results.verdict.status, str(results)) == ("collecting", "No verdict yet.")
    assert results.split.counts == {"champion": 5000, "challenger": 5000}
    assert (results.arrival.p, results.health.late) == (0.8, 24)


def test_an_experiment_is_changed_with_a_reason_and_shows_its_history():
    history, readiness = SHOW_HISTORY.answer_example, SHOW_READINESS.answer_example
    services = Services(*[REVISION] * 5, {**REVISION, "name": "e-2"}, history, readiness)
    experiment = Experiment(services.client, "e")
    experiment.start("agreed", override="tested").pause("an incident").ramp({"new": 0.3}, coverage=0.5)
    experiment.stop("enough seen").promote(override="urgent")
    assert experiment.restart(reason="again").name == "e-2"
    assert experiment.history()[0].revision.name == "churn-2"
    assert experiment.readiness().ready
    bodies = [json.loads(request.content) for request in services.requests[:6]]
    assert [(url.rpartition("/")[2], body) for (_, url), body in zip(services.calls, bodies, strict=False)] == [
        ("start", {"reason": "agreed", "override": "tested"}),
        ("pause", {"reason": "an incident"}),
        ("ramp", {"weights": {"new": 0.3}, "coverage": 0.5}),
        ("stop", {"reason": "enough seen"}),
        ("promote", {"override": "urgent"}),
        ("restart", {"reason": "again"}),
    ]
    assert [url.rpartition("/")[2] for _, url in services.calls[6:]] == ["history", "readiness"]


def test_an_experiment_is_shown_as_it_stood_and_all_on_a_model_are_stopped():
    services = Services(REVISION, REVISION, {"experiments": [REVISION]})
    services.client.revision("e", 2)
    services.client.revision("e", as_of=12.5)
    stopped = services.client.stop_all("churn", "an incident")
    assert services.calls == [
        ("GET", f"{ROUTER}/v1/experiments/e?revision=2"),
        ("GET", f"{ROUTER}/v1/experiments/e?as_of=12.5"),
        ("POST", f"{ROUTER}/v1/models/churn/stop"),
    ]
    assert [revision.name for revision in stopped] == ["e"]


@pytest.mark.parametrize(
    ("action", "fields", "message"),
    [
        ("end", {}, "action is 'end'; expected start, pause, ramp, stop, restart, promote"),
        ("stop", {"weights": {}}, "stop takes no weights; it takes reason, changed_by, revision, override"),
    ],
)
def test_a_change_that_there_is_not_is_refused_before_it_is_sent(action, fields, message):
    services = Services(REVISION)
    with pytest.raises(ContenderError, match=message):
        services.client.change("e", action, **fields)
    assert services.requests == []


@pytest.mark.parametrize(("status", "raises"), [("running", False), ("stopped", True), ("draft", True)])
def test_starting_what_runs_is_no_error(status, raises):
    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            return httpx.Response(409, json={"detail": f"experiment e is {status}"})
        return httpx.Response(200, json={**REVISION, "status": status})

    with Client(transport=httpx.MockTransport(answer)) as client:
        experiment = Experiment(client, "e")
        if raises:
            with pytest.raises(RefusedError, match=status):
                experiment.start()
        else:
            assert experiment.start() is experiment


def test_experiments_are_listed():
    services = Services({"experiments": [REVISION]})
    assert [(experiment.name, experiment.status) for experiment in services.client.experiments()] == [("e", "draft")]
    assert services.calls == [("GET", f"{ROUTER}/v1/experiments")]


def fitted() -> tuple[Any, pd.DataFrame, pd.Series]:
    rows = pd.DataFrame({"age": [20.0, 30.0, 40.0, 50.0]})
    return LogisticRegression().fit(rows, rows["age"] > 35), rows, rows["age"] > 35


def test_a_model_can_not_be_registered_where_nothing_answers(monkeypatch):
    monkeypatch.setenv("CONTENDER_INFERENCE_SERVICE_PORT", str(free_ports(1)[0]))
    with (
        Client() as client,
        pytest.raises(UnreachableError, match=r"http://127\.0\.0\.1:\d+/v1/models/churn/versions does not answer"),
    ):
        client.register("churn", *fitted())


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        (pd.Series([1, 0]).iloc[0], 1),
        (np.float32(0.5), 0.5),
        (np.longdouble(0.5), 0.5),
        (np.True_, True),
        (np.str_("leaves"), "leaves"),
        (np.array(3), 3),
        (np.array([[2.5]]), 2.5),
        (np.array(["leaves"], dtype=object), "leaves"),
        (2**70, 2**70),
    ],
    ids=lambda value: f"{type(value).__name__} {value}",
)
def test_numpys_scalars_and_arrays_of_one_are_sent_as_their_values(value, sent):
    services = Services({"accepted": 1}, PREDICTED)
    services.client.feedback("p-0", outcome=value)
    assert services.body["feedback"][0]["outcome"] == sent
    assert type(services.body["feedback"][0]["outcome"]) is type(sent)
    services.client.predict("churn", unit="u", inputs={np.str_("age"): value})
    assert services.body["inputs"] == {"age": sent}


FAULTS: dict[str, tuple[Callable[[Client], Any], str]] = {
    "NaN": (lambda client: client.predict("m", unit="u", inputs={"age": math.nan}), "inputs.age is nan, .*pass None"),
    "infinity of numpy": (
        lambda client: client.predict("m", unit="u", inputs={"age": np.float32(np.inf)}),
        "inputs.age is",
    ),
    "NaN in a batch": (
        lambda client: client.predict_batch("m", [{"unit": "u"}, {"unit": "u", "inputs": {"age": np.nan}}]),
        r"rows\[1\]\.inputs\.age is nan",
    ),
    "NaN as the outcome": (lambda client: client.feedback("p", outcome=math.nan), r"feedback\[0\]\.outcome is nan"),
    "an array": (lambda client: client.feedback("p", outcome=np.array([1, 2])), "outcome has the type ndarray"),
    "pandas' missing value": (lambda client: client.feedback("p", outcome=pd.NA), "outcome has the type NAType"),
    "half a character": (
        lambda client: client.predict("m", unit="\ud800"),
        r"unit contains .* can't encode: '\\ud800'",
    ),
    "half a character as a key": (
        lambda client: client.predict("m", unit="u", context={"\ud800": 1}),
        "context contains",
    ),
    "half a character as a name": (lambda client: client.predict("\ud800", unit="u"), "can't be used as a name"),
}


@pytest.mark.parametrize(("call", "message"), FAULTS.values(), ids=FAULTS)
def test_what_json_has_no_word_for_is_refused_by_field_before_it_is_sent(call, message):
    services = Services(PREDICTED)
    with pytest.raises(ContenderError, match=message):
        call(services.client)
    assert services.requests == []


def test_a_refusal_carries_the_status_and_the_fields():
    errors = [{"field": "inputs.age", "message": "is missing"}]
    services = Services(
        {"type": "/problems/invalid-field", "detail": "inputs.age is missing", "errors": errors}, status=422
    )
    with pytest.raises(RefusedError, match=r"^inputs\.age is missing$") as refused:
        services.client.predict("churn", unit="u")
    assert (refused.value.status, refused.value.errors) == (422, [FieldError("inputs.age", "is missing")])


@pytest.mark.parametrize("answer", [b"<h1>Bad gateway</h1>", b'["bad"]', b"\xff\xfe\xfd"])
def test_a_refusal_that_is_no_problem_is_told_as_it_came(answer):
    with pytest.raises(RefusedError) as refused:
        Services(answer, status=502).client.experiments()
    assert (refused.value.status, refused.value.errors) == (502, [])
    assert str(refused.value)


@pytest.mark.parametrize("answer", [b"<h1>Welcome</h1>", b"[]", b""])
def test_an_answer_of_something_else_is_said_to_be_none(answer):
    with pytest.raises(ContenderError, match="answered by something other than Contender"):
        Services(answer).client.experiments()


def test_a_service_that_does_not_answer_is_unreachable():
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    message = f"{ROUTER}/v1/experiments does not answer: refused"
    with Client(transport=httpx.MockTransport(refuse)) as client, pytest.raises(UnreachableError, match=message):
        client.experiments()


def addresses(client: Client) -> tuple[str, str, str, str]:
    return client.url, client.feature_url, client.inference_url, client.feedback_url


@pytest.mark.parametrize(
    ("url", "host"),
    [
        (None, "http://127.0.0.1"),
        ("http://[::1]:8400/", "http://[::1]"),
        ("https://contender.example:8400", "https://contender.example"),
    ],
)
def test_the_services_are_beside_the_router(url, host):
    assert addresses(Client(url)) == tuple(f"{host}:{port}" for port in (8400, 8401, 8402, 8403))


def test_the_environment_says_where_the_services_are(monkeypatch):
    monkeypatch.setenv("CONTENDER_URL", "http://router:80/")
    monkeypatch.setenv("CONTENDER_FEATURE_SERVICE_PORT", "9001")
    monkeypatch.setenv("CONTENDER_INFERENCE_SERVICE_URL", "https://models/api/")
    wanted = ("http://router:80", "http://router:9001", "https://models/api", "http://router:8403")
    assert addresses(Client()) == wanted
    assert Client("http://other").url == "http://other"


NO_URLS = ["http://[bad", "localhost:8400", "http://", "ftp://a", "http://a:b", "http://a:99999", "http://a\n"]


@pytest.mark.parametrize("url", NO_URLS)
@pytest.mark.parametrize("variable", ["CONTENDER_URL", "CONTENDER_FEEDBACK_SERVICE_URL"])
def test_what_is_no_url_is_said_at_once(monkeypatch, url, variable):
    with pytest.raises(ContenderError, match="is not a URL such as http://127"):
        Client(url)
    monkeypatch.setenv(variable, url)
    with pytest.raises(ContenderError, match="is not a URL such as http://127"):
        Client()


# What a model was trained on


def view(number: int, digest: str, *features: FeatureDescription) -> ViewDescription:
    return ViewDescription(
        name="speeds",
        label=f"speeds@{number}",
        digest=digest,
        newest=number == 2,
        features=list(features),
    )


VIEWS = [view(1, "aa", FeatureDescription("count_1h")), view(2, "bb", FeatureDescription("count_1h"))]


def pinned(reference: str, manifest: dict) -> str:
    digests = trained_digests(manifest) if manifest else {}
    return pinned_options(VIEWS, {"column": reference}, {}, digests)["sources"]["column"]


@pytest.mark.parametrize(
    ("reference", "digest", "expected"),
    [
        ("speeds:count_1h", "", "speeds@2:count_1h"),
        ("speeds@1:count_1h", "", "speeds@1:count_1h"),
        # A notebook numbers meanings in its own order: what counts is which one it was.
        ("speeds:count_1h", "aa", "speeds@1:count_1h"),
        ("speeds:count_1h", "bb", "speeds@2:count_1h"),
        ("speeds@1:count_1h", "bb", "speeds@2:count_1h"),
    ],
)
def test_a_model_is_served_what_it_was_trained_on(reference: str, digest: str, expected: str):
    manifest = {"features": {"column": "speeds@1:count_1h"}, "definitions": {"speeds@1": digest}} if digest else {}
    assert pinned(reference, manifest) == expected


def test_a_model_that_was_trained_on_another_meaning_is_not_registered():
    manifest = {"features": {"column": "speeds@1:count_1h"}, "definitions": {"speeds@1": "cc"}}
    with pytest.raises(ContenderError, match=r"no version of speeds:count_1h .* has the meaning"):
        pinned("speeds:count_1h", manifest)


class Recorded:
    """A training set's record."""

    manifest: Any = MappingProxyType(
        {
            "features": {"speeds__count_1h": "speeds@1:count_1h", "speeds__mean_1h": "speeds@1:mean_1h"},
            "definitions": {"speeds@1": "bb"},
        }
    )


def test_a_training_set_fills_the_sources_of_its_own_columns_among_those_of_the_rows():
    columns = pd.DataFrame({"speeds__count_1h": [1.0], "weight": [1.0]})
    assert training_sources(Recorded(), columns) == {"speeds__count_1h": "speeds@1:count_1h"}
    assert training_sources(None, columns) == {}


def test_a_count_is_known_never_to_be_null_and_defaults_of_definitions_stand_under_given_ones():
    views = [
        view(
            2,
            "bb",
            FeatureDescription("count_1h", kind="count"),
            FeatureDescription("mean_1h", kind="mean", default=4.0),
        )
    ]
    sources = {"a": "speeds:count_1h", "b": "speeds:mean_1h"}
    assert pinned_options(views, sources, {}, {}) == {
        "sources": {"a": "speeds@2:count_1h", "b": "speeds@2:mean_1h"},
        "defaults": {"b": 4.0},
        "never_null": ["a"],
    }
    assert pinned_options(views, sources, {"b": 1.0}, {})["defaults"] == {"b": 1.0}

"""What an event of the topic `verdicts` means for its experiment."""

import pytest

from contender.contracts.experiments import Evidence, ExperimentRevision
from contender.contracts.feedback_service import LASTING, VerdictEvent
from services.ab_router.domain.standing_verdicts import effect_of, evidence_of
from tests.experiment_revisions import revision


def event(**changes: object) -> VerdictEvent:
    """The second event of experiment `e`, at second 200: its challenger breaches a guardrail."""
    fields = {
        "experiment": "e",
        "number": 2,
        "kind": "decided",
        "challenger": "b",
        "status": "stopped: guardrail",
        "sentence": "b is slower.",
        "at": 200.0,
        "model": "m",
        "metric": "log_loss",
        "revision": 2,
    }
    return VerdictEvent(**{**fields, **changes})


def running(**changes: object) -> ExperimentRevision:
    """The experiment, which runs since second 100."""
    return revision(**{"revision": 2, "started_at": 100.0, **changes})


def known(number: int) -> dict[str, Evidence]:
    """Event `number` as what is known of the challenger."""
    return {"b": evidence_of(event(number=number))}


@pytest.mark.parametrize("status", ["running", "paused", "decided"])
@pytest.mark.parametrize("kind", ["decided", "questioned"])
def test_a_breached_guardrail_stops_an_experiment_in_force(status: str, kind: str):
    assert effect_of(event(kind=kind), running(status=status)) == "stop"


def test_it_stops_one_with_an_earlier_verdict():
    assert effect_of(event(kind="questioned"), running(status="decided", verdicts=known(1))) == "stop"


def test_where_the_design_says_so_it_is_a_verdict_like_any_other():
    assert effect_of(event(), running(auto_stop=False)) == "decide"
    assert effect_of(event(kind="questioned"), running(auto_stop=False)) is None


@pytest.mark.parametrize("status", sorted(set(LASTING) - {"stopped: guardrail"}))
def test_a_lasting_verdict_is_kept(status: str):
    assert effect_of(event(status=status), running()) == "decide"


@pytest.mark.parametrize("number", [2, 3])
def test_a_verdict_that_is_kept_already_changes_nothing(number: int):
    assert effect_of(event(status="no worse"), running(verdicts=known(number))) is None


@pytest.mark.parametrize(
    ("kind", "status"),
    [("questioned", "withheld: split"), ("contradicted", "challenger better"), ("decided", "collecting")],
)
def test_later_findings_and_passing_statuses_change_nothing(kind: str, status: str):
    assert effect_of(event(kind=kind, status=status), running()) is None


@pytest.mark.parametrize(
    "found",
    [
        None,
        running(status="stopped"),
        running(status="draft", started_at=None),
        running(started_at=205.1),
        running(model="another"),
        running(champion="b", variants=running().variants[:1]),
    ],
)
@pytest.mark.parametrize("status", ["stopped: guardrail", "challenger better"])
def test_an_event_of_an_unknown_a_stopped_or_an_earlier_experiment_changes_nothing(
    status: str, found: ExperimentRevision | None
):
    assert effect_of(event(status=status), found) is None


def test_the_clock_of_whoever_found_it_may_be_some_seconds_behind():
    assert effect_of(event(), running(started_at=204.9)) == "stop"


def test_evidence_names_the_event_and_what_it_said():
    assert evidence_of(event()) == Evidence(
        experiment="e", number=2, challenger="b", status="stopped: guardrail", sentence="b is slower.", at=200.0
    )

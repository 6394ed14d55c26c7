"""The HTTP interface of the feedback service, with everything behind it in memory."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import httpx
import msgspec
import numpy as np
import pytest
from msgspec.structs import replace
from sklearn.metrics import log_loss, roc_auc_score

from contender.contracts.experiments import VariantAllocation
from contender.contracts.feedback_service import Counts, FeedbackItem, VerdictEvent, VerdictEvents
from services.feedback_service.changes import InMemoryTable
from services.feedback_service.domain.memory import Memory
from services.feedback_service.errors import ResultsUnavailable
from services.feedback_service.experiments import InMemoryExperiments
from services.feedback_service.handlers import ReadResults, SubmitFeedback
from services.feedback_service.join import Join, SourceOffset
from services.feedback_service.main import State, create_app
from services.feedback_service.settings import FeedbackSettings
from services.feedback_service.store import InMemorySnapshots
from services.feedback_service.verdict_store import InMemoryVerdictStore, KeptMemory, Vintage
from shared.clock import FixedClock
from shared.errors import JournalFull
from shared.events import FeedbackFrame, FeedbackGiven, PredictionBlock, PredictionFrame
from shared.ids import new_frame_id
from shared.journal import Journal, Position
from shared.testing import client_for
from shared.topics import EXPERIMENTS, FEEDBACK, FRAME_BYTES
from tests.experiment_revisions import revision
from tests.unit.feedback_service.test_join import catch_up, flush

FRAME = new_frame_id(1.0)
ID = f"{FRAME}-2-7"
NAME = 'price <script>alert("x")</script>'


@pytest.fixture
def settings(tmp_path: Path) -> FeedbackSettings:
    return FeedbackSettings(data=tmp_path, feedback_rows_limit=5, partitions=4)


@pytest.fixture
def journal(tmp_path: Path):
    journal = Journal.open(tmp_path / "journal", limit_bytes=1024**2)
    yield journal
    journal.close()


@pytest.fixture
def snapshots() -> InMemorySnapshots:
    return InMemorySnapshots()


@pytest.fixture
def experiments() -> InMemoryExperiments:
    return InMemoryExperiments()


@pytest.fixture
def verdicts() -> InMemoryVerdictStore:
    return InMemoryVerdictStore()


@asynccontextmanager
async def client_over(settings, journal, snapshots, experiments, verdicts) -> AsyncIterator[httpx.AsyncClient]:
    @asynccontextmanager
    async def resources(settings: FeedbackSettings) -> AsyncIterator[State]:
        yield State(
            settings=settings,
            submit_feedback=SubmitFeedback(
                journal, FixedClock(50.0), settings.partitions, settings.feedback_rows_limit
            ),
            read_results=ReadResults(snapshots, experiments, FixedClock(50.0), verdicts),
            snapshots=snapshots,
            journal=journal,
        )

    async with client_for(create_app(settings, resources)) as client:
        yield client


@pytest.fixture
async def client(settings, journal, snapshots, experiments, verdicts) -> AsyncIterator[httpx.AsyncClient]:
    async with client_over(settings, journal, snapshots, experiments, verdicts) as client:
        yield client


def journalled(journal: Journal) -> list[tuple[int, FeedbackFrame]]:
    records = journal.read(Position(0, 0), 10**6)
    return [(record.partition, FEEDBACK.decode(record.value)) for record, _ in records]


async def test_one_outcome_is_in_the_journal_when_it_is_accepted(client, journal):
    answer = await client.post("/v1/feedback", json={"prediction_id": ID, "outcome": 1, "time": 20.5})
    assert (answer.status_code, answer.json()) == (202, {"accepted": 1})
    assert journalled(journal) == [(2, FeedbackFrame([FeedbackGiven(FRAME, 7, 1, 20.5)]))]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("rating", 4.5),
        ("reward", -1e9),
        ("conversion", True),
        ("complaint", False),
        ("shown", True),
        ("decided", "ask a colleague"),
    ],
)
async def test_other_reports_than_outcomes_are_kept_with_their_kind(client, journal, kind, value):
    for body in ({"prediction_id": ID, kind: value}, {"feedback": [{"prediction_id": ID, kind: value}]}):
        assert (await client.post("/v1/feedback", json=body)).status_code == 202
    events = [event for _, frame in journalled(journal) for event in frame.events]
    assert events == [FeedbackGiven(FRAME, 7, value, 50.0, kind=kind)] * 2


async def test_many_outcomes_go_in_one_frame_per_shard_and_are_given_now_by_default(client, journal):
    body = {"feedback": [{"prediction_id": f"{FRAME}-{shard}-0", "outcome": "yes"} for shard in (1, 3, 1)]}
    assert (await client.post("/v1/feedback", json=body)).json() == {"accepted": 3}
    frames = journalled(journal)
    assert [(shard, len(frame.events)) for shard, frame in frames] == [(1, 2), (3, 1)]
    assert frames[0][1].events[0].given_at == 50.0


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"prediction_id": "nonsense", "outcome": 1}, "prediction_id"),
        ({"prediction_id": f"{FRAME}-4-0", "outcome": 1}, "prediction_id"),
        ({"prediction_id": ID, "outcome": "x" * 1001}, "outcome"),
        ({"prediction_id": ID, "outcome": 2**64}, "outcome"),
        ({"prediction_id": ID, "outcome": None}, "outcome"),
        ({"prediction_id": ID, "outcome": [1]}, "outcome"),
        ({"prediction_id": ID}, "outcome"),
        ({"prediction_id": ID, "outcome": 1, "rating": 4}, "rating"),
        ({"prediction_id": ID, "conversion": True, "complaint": False}, "complaint"),
        ({"prediction_id": ID, "rating": -1.1e9}, "rating"),
        ({"prediction_id": ID, "reward": 1e10}, "reward"),
        ({"prediction_id": ID, "rating": True}, "rating"),
        ({"prediction_id": ID, "reward": "4"}, "reward"),
        ({"prediction_id": ID, "conversion": 1}, "conversion"),
        ({"prediction_id": ID, "complaint": None}, "complaint"),
        ({"prediction_id": ID, "shown": "yes"}, "shown"),
        ({"prediction_id": ID, "shown": True, "decided": 1}, "decided"),
        ({"prediction_id": ID, "decided": "x" * 1001}, "decided"),
        ({"prediction_id": ID, "decided": [1]}, "decided"),
        ({"prediction_id": ID, "decided": None}, "decided"),
        ({"prediction_id": ID, "outcome": 1, "time": -1}, "time"),
        ({"prediction_id": ID, "outcome": 1, "time": 50.0 + 301}, "time"),
        ({"prediction_id": f"{new_frame_id(50.0 + 301)}-2-7", "outcome": 1}, "prediction_id"),
        ({"prediction_id": ID, "outcome": 1, "times": 1}, "times"),
    ],
)
async def test_what_can_not_be_feedback_is_refused_by_field_and_nothing_is_kept(client, journal, wrong, field):
    right = {"prediction_id": ID, "outcome": 1}
    answer = await client.post("/v1/feedback", json={"feedback": [right, right, wrong]})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == f"feedback[2].{field}" or "..." in answer.json()["errors"][0]["field"]
    assert (await client.post("/v1/feedback", json=wrong)).status_code == 422
    assert journalled(journal) == []


@pytest.mark.parametrize(
    "body",
    [
        {"feedback": []},
        {"prediction_id": ID, "outcome": 1, "feedback": []},
        {"outcome": 1, "feedback": [{"prediction_id": ID, "outcome": 1}]},
        {"time": 1.0, "feedback": [{"prediction_id": ID, "outcome": 1}]},
        {"rating": 4, "feedback": [{"prediction_id": ID, "outcome": 1}]},
    ],
)
async def test_a_call_has_one_outcome_or_many_but_never_both_or_none(client, journal, body):
    answer = await client.post("/v1/feedback", json=body)
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == ["feedback"]
    assert journalled(journal) == []


async def test_a_large_call_goes_in_several_frames_per_shard_or_not_at_all(tmp_path):
    journal = Journal.open(tmp_path / "roomy", limit_bytes=8 * 1024**2)
    take = SubmitFeedback(journal, FixedClock(50.0), 4, 10_000)
    items = [FeedbackItem(f"{FRAME}-{number % 2}-{number}", f"{number} " + "x" * 990) for number in range(3000)]
    assert await take.submit(items) == 3000
    records = [record for record, _ in journal.read(Position(0, 0), 10**8)]
    assert [record.partition for record in records] == sorted(record.partition for record in records)
    assert len(records) == 4
    assert max(len(record.value) for record in records) <= FRAME_BYTES
    assert len({record.event_id for record in records}) == 4
    events = [event for record in records for event in FEEDBACK.decode(record.value).events]
    assert [event.row for event in events] == [*range(0, 3000, 2), *range(1, 3000, 2)]
    for _ in range(2):  # no room for all of them: then for none
        held = journal.unsent_bytes
        with suppress(JournalFull):
            await take.submit(items)
        assert journal.unsent_bytes in (held, 2 * held)
    assert len(list(journal.read(Position(0, 0), 10**8))) == 8
    journal.close()


async def test_more_outcomes_than_the_limit_are_too_many(client, journal):
    answer = await client.post("/v1/feedback", json={"feedback": [{"prediction_id": ID, "outcome": 1}] * 6})
    assert answer.status_code == 413
    assert journalled(journal) == []


async def test_an_unknown_experiment_is_not_found(client):
    for path in ("/v1/experiments/none/results", "/experiments/none"):
        assert (await client.get(path)).status_code == 404


async def publish(snapshots: InMemorySnapshots, rows: int = 400, labelled: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Publish predictions of two variants with labels for the first ones; return the challenger's labels and scores."""
    chance = np.random.default_rng(5)
    outcomes = chance.integers(0, 2, 2 * rows)
    noise = chance.random(2 * rows)
    scores = np.where(np.arange(2 * rows) < rows, noise, 0.25 + 0.5 * outcomes * noise + 0.1 * noise)
    blocks = [
        PredictionBlock(
            model="m",
            version=f"version-{number}",
            task="binary",
            classes=["no", "yes"],
            experiment=NAME,
            window_s=10.0,
            variant=variant,
            served_variant=variant,
            assignment_probability=0.5,
            unit=[f"u{row}" for row in range(rows)],
            time=[float(row) for row in range(rows)],
            score=scores[number * rows : (number + 1) * rows].tolist(),
        )
        for number, variant in enumerate(("champion", "challenger"))
    ]
    join = Join([InMemoryTable(), InMemoryTable()].__getitem__)
    join.assign([0, 1])
    join.partitions[0].record_predictions(FRAME, PredictionFrame(blocks), SourceOffset(0))
    row_numbers = [*range(labelled), *range(rows, rows + labelled)]
    events = [FeedbackGiven(FRAME, row, ["no", "yes"][outcomes[row]], row % rows + 1.0) for row in row_numbers]
    join.partitions[0].record_feedback(FeedbackFrame(events), SourceOffset(0))
    catch_up(join)
    for partition, joined in join.partitions.items():
        flush(join, partition)
        for update in joined.aggregates.updates(10):
            await snapshots.write(update)
        await snapshots.write_status(joined.aggregates.status(77.0))
    return outcomes[rows : rows + labelled], scores[rows : rows + labelled]


async def test_an_experiment_is_known_and_reached_by_whatever_name_it_has(client, snapshots):
    await publish(snapshots)
    known = (await client.get("/v1/experiments")).json()["experiments"]
    assert [experiment["name"] for experiment in known] == [NAME]
    results = await client.get(f"/v1/experiments/{quote(NAME, safe='')}/results")
    assert results.json()["experiment"] == NAME


async def test_the_list_has_the_verdicts_that_were_last_kept(client, snapshots, verdicts):
    await publish(snapshots)
    (experiment,) = (await client.get("/v1/experiments")).json()["experiments"]
    assert (experiment["verdict"], experiment["as_of"]) == (None, None)
    results = (await client.get(path_of("results"))).content
    await verdicts.write(NAME, KeptMemory(), Memory(), Vintage(20.0, results))
    (experiment,) = (await client.get("/v1/experiments")).json()["experiments"]
    shown = msgspec.json.decode(results)
    assert (experiment["verdict"], experiment["sentence"]) == (shown["verdict"]["status"], shown["verdict"]["sentence"])
    assert experiment["matured"] == sum(variant["matured"] for variant in shown["variants"])
    assert experiment["as_of"] == 77.0
    assert shown["verdict"]["status"] in (await client.get("/")).text


class CountedClock(FixedClock):
    """A clock that counts how often it is asked: each look is dated."""

    asked = 0

    def now(self) -> float:
        self.asked += 1
        return super().now()


async def test_only_what_has_changed_is_looked_at_again_and_the_partitions_are_shown_as_they_are(
    experiments, snapshots, verdicts
):
    await publish(snapshots)
    reader = ReadResults(snapshots, experiments, CountedClock(50.0), verdicts)
    first = await reader.results(NAME)
    (status, *_) = [snapshot.status for snapshot in await snapshots.read(NAME)]
    later = replace(status, offsets={"predictions": 9}, updated_at=99.0, counts=Counts(predictions=1000, expired=3))
    await snapshots.write_status(later)
    second = await reader.results(NAME)
    assert reader.clock.asked == 1
    assert (second.verdict, second.variants) == (first.verdict, first.variants)
    assert (second.offsets["predictions"]["0"], second.updated_at) == (9, 99.0)
    assert (second.totals.predictions, second.health.expired) == (1000, 3)
    await publish(snapshots, labelled=200)
    third = await reader.results(NAME)
    assert reader.clock.asked == 2
    assert sum(variant.labelled for variant in third.variants) == 400
    kept = Memory(events=[event(1, at=21.0)])
    await verdicts.write(NAME, KeptMemory(), kept)
    assert (await reader.results(NAME)).verdict.decided_at == 21.0


async def test_live_log_loss_is_scikit_learns(client, snapshots):
    outcomes, scores = await publish(snapshots)
    tell = ReadResults(snapshots, InMemoryExperiments(), FixedClock(50.0), InMemoryVerdictStore())
    results = await tell.results(NAME)
    challenger = results.variants[1]
    assert challenger.live["log_loss"].mean == pytest.approx(log_loss(outcomes, scores), abs=1e-12)
    assert challenger.live["auc"].mean == pytest.approx(roc_auc_score(outcomes, scores), abs=5e-3)
    assert (challenger.n, challenger.labelled) == (400, 300)
    assert challenger.matured_labelled == 300
    assert challenger.matured < 400
    assert results.effects["challenger"]["log_loss"].better is True
    assert results.verdict.status == "leading"
    assert results.offsets == {"predictions": {"0": 0}, "feedback": {"0": 0}}


async def test_an_experiment_without_predictions_has_results_that_say_so(client, experiments):
    experiments.put(revision())
    results = (await client.get("/v1/experiments/e/results")).json()
    assert [variant["name"] for variant in results["variants"]] == ["a", "b"]
    assert results["verdict"]["status"] == "withheld: too few"
    assert (results["watermark"], results["split"]) == (None, {"p": 1.0, "counts": {"a": 0, "b": 0}})
    assert (await client.get("/experiments/e")).status_code == 200


@pytest.mark.parametrize(
    "changes",
    [
        {"tuning_n": 10**400},
        {"tuning_n": -5},
        {"alpha": 5e-324},
        {"alpha": 1.0},
        {"alpha": -1e308},
        {"window_s": 1e308},
        {"window_s": -1e308},
        {"coverage": 5e-324},
        {"variants": [VariantAllocation("champion", "v1", 5e-324), VariantAllocation("challenger", "v2", 1.0)]},
        {"variants": [VariantAllocation("champion", "v1", 1e308), VariantAllocation("challenger", "v2", 1e308)]},
        {"variants": [VariantAllocation("champion", "v1", -0.5), VariantAllocation("challenger", "v2", 0.5)]},
        {"variants": [VariantAllocation("champion", "v1", 0.0), VariantAllocation("champion", "v1", 0.0)]},
        {"variants": []},
        {"champion": "nobody"},
        {"metric": "nonsense"},
        {"epoch": 10**400, "revision": 10**400},
        {"epoch": 0},
        {"status": "stopped", "stopped_at": -1e308},
        {"status": "stopped", "stopped_at": 1e308},
        {"fallback_value": 1e308, "seed": "", "model": ""},
    ],
)
async def test_a_revision_from_elsewhere_that_makes_no_sense_has_results_all_the_same(
    client, experiments, snapshots, changes
):
    await publish(snapshots)
    for name in (NAME, "without predictions"):
        odd = revision(**{"name": name, "champion": "champion", "epoch": 0, **changes})
        experiments.put(EXPERIMENTS.decode(EXPERIMENTS.encode(odd)))
        for path in (f"/v1/experiments/{quote(name, safe='')}/results", f"/experiments/{quote(name, safe='')}", "/"):
            assert (await client.get(path)).status_code == 200


def event(number: int, **changes) -> VerdictEvent:
    given = {
        "experiment": NAME,
        "number": number,
        "kind": "decided",
        "challenger": "challenger",
        "status": "challenger better",
        "sentence": "challenger is better, as was found at 20.",
        "at": 20.0,
        "model": "m",
        "metric": "log_loss",
        "revision": 1,
    }
    return VerdictEvent(**{**given, **changes})


def path_of(what: str) -> str:
    return f"/v1/experiments/{quote(NAME, safe='')}/{what}"


async def test_a_verdict_that_is_kept_is_shown_as_it_was_found(client, snapshots, verdicts):
    await publish(snapshots)
    before = (await client.get(path_of("results"))).json()["verdict"]
    assert (before["status"], before["sentence"] == event(1).sentence) == ("leading", False)
    assert await verdicts.memory(NAME) == KeptMemory()  # reading keeps nothing
    await verdicts.write(NAME, KeptMemory(), Memory(events=[event(1)]))
    verdict = (await client.get(path_of("results"))).json()["verdict"]
    assert (verdict["sentence"], verdict["decided_at"]) == (event(1).sentence, 20.0)


async def test_the_verdicts_of_an_experiment_are_listed_in_order(client, snapshots, verdicts):
    assert (await client.get(path_of("verdicts"))).status_code == 404
    await publish(snapshots)
    assert (await client.get(path_of("verdicts"))).json() == {"verdicts": []}
    events = [event(1), event(2, kind="questioned")]
    await verdicts.write(NAME, KeptMemory(), Memory(events=events))
    answer = await client.get(path_of("verdicts"))
    assert msgspec.json.decode(answer.content, type=VerdictEvents).verdicts == events


async def test_results_as_of_a_time_are_the_kept_bytes(client, snapshots, verdicts):
    await publish(snapshots)
    for at, results in ((20.5, b'{"as": "they were"}'), (30.0, b'{"later":  1}')):
        assert await verdicts.write(NAME, await verdicts.memory(NAME), Memory(), Vintage(at, results))
    for as_of, results in (("20.5", b'{"as": "they were"}'), ("29", b'{"as": "they were"}'), ("50", b'{"later":  1}')):
        answer = await client.get(path_of(f"results?as_of={as_of}"))
        assert (answer.status_code, answer.content) == (200, results)
        assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("as_of", "refusal"),
    [
        ("20", (404, "no-vintage")),
        ("-1e308", (404, "no-vintage")),
        ("50.5", (422, "invalid-field")),
        ("nan", (422, "invalid-field")),
        ("inf", (422, "invalid-field")),
        ("yesterday", (422, "invalid-field")),
        ("30&as_of=40", (422, "invalid-field")),
        ("30&at=40", (422, "invalid-field")),
    ],
)
async def test_a_time_without_results_is_refused(client, snapshots, verdicts, as_of, refusal):
    await publish(snapshots)
    await verdicts.write(NAME, KeptMemory(), Memory(), Vintage(20.5, b"{}"))
    answer = await client.get(path_of(f"results?as_of={as_of}"))
    assert (answer.status_code, answer.json()["type"].removeprefix("/problems/")) == refusal


async def test_an_unknown_experiment_has_no_results_of_any_time(client):
    answer = await client.get("/v1/experiments/none/results?as_of=20")
    assert (answer.status_code, answer.json()["type"]) == (404, "/problems/unknown-experiment")


async def test_an_older_revision_does_not_replace_a_newer_one(client, experiments):
    experiments.put(revision(revision=3, status="stopped"))
    experiments.put(revision(revision=2))
    assert (await client.get("/v1/experiments/e/results")).json()["status"] == "stopped"


async def test_pages_escape_names_and_forbid_inline_scripts_and_framing(client, snapshots):
    await publish(snapshots)
    overview = await client.get("/")
    link = re.search(r'href="(/experiments/[^"]+)"', overview.text)
    page = await client.get(link[1])
    assert page.status_code == 200
    for answer in (overview, page):
        assert "<script>" not in answer.text
        assert "style=" not in answer.text
        policy = answer.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
    places = [page.text.index(mark) for mark in ('class="verdict', 'class="health"', "<svg", "<h2>Variants")]
    assert places == sorted(places)


async def test_the_pages_assets_are_our_own(client):
    page = (await client.get("/")).text
    for asset in re.findall(r'(?:src|href)="(/static/[^"]+)"', page):
        answer = await client.get(asset)
        assert (answer.status_code, answer.headers["x-content-type-options"]) == (200, "nosniff")
    assert "http" not in page.replace('http-equiv="refresh"', "")


async def test_the_service_is_ready_while_its_store_answers(client):
    assert (await client.get("/readyz")).status_code == 200


async def test_a_time_and_an_id_a_little_ahead_of_now_are_taken(client, journal):
    body = {"prediction_id": f"{new_frame_id(50.0 + 299)}-2-7", "outcome": 1, "time": 50.0 + 299}
    assert (await client.post("/v1/feedback", json=body)).status_code == 202


class FrozenSnapshots(InMemorySnapshots):
    """A store that does not answer."""

    async def read(self, experiment: str):
        raise ResultsUnavailable(f"there is no answer for {experiment}")

    async def experiments(self):
        raise ResultsUnavailable("there is no answer")

    async def ping(self):
        raise ResultsUnavailable("there is no answer")


@pytest.fixture
async def frozen(settings, journal, experiments) -> AsyncIterator[httpx.AsyncClient]:
    @asynccontextmanager
    async def resources(settings: FeedbackSettings) -> AsyncIterator[State]:
        snapshots = FrozenSnapshots()
        yield State(
            settings=settings,
            submit_feedback=SubmitFeedback(
                journal, FixedClock(50.0), settings.partitions, settings.feedback_rows_limit
            ),
            read_results=ReadResults(snapshots, experiments, FixedClock(50.0), InMemoryVerdictStore()),
            snapshots=snapshots,
            journal=journal,
        )

    async with client_for(create_app(settings, resources)) as client:
        yield client


@pytest.mark.parametrize("path", ["/v1/experiments", "/v1/experiments/e/results", "/", "/experiments/e"])
async def test_without_the_store_of_results_a_caller_is_told_when_to_ask_again(frozen, path):
    answer = await frozen.get(path)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert "Redis" not in answer.text


async def test_feedback_is_accepted_without_the_store_of_results(frozen):
    assert (await frozen.post("/v1/feedback", json={"prediction_id": ID, "outcome": 1})).status_code == 202
    assert (await frozen.get("/readyz")).status_code == 503


async def test_a_metric_that_is_no_mean_decides_like_any_other(client, experiments, snapshots):
    await publish(snapshots)
    declared = [VariantAllocation("champion", "v1", 0.5), VariantAllocation("challenger", "v2", 0.5)]
    experiments.put(
        revision(name=NAME, champion="champion", variants=declared, epoch=0, metric="auc", window_s=10.0, cycle_days=0)
    )
    results = (await client.get(f"/v1/experiments/{quote(NAME, safe='')}/results")).json()
    assert (results["metric"], results["verdict"]["status"]) == ("auc", "challenger better")
    assert "challenger is better than champion in AUC: challenger minus champion is +" in results["verdict"]["sentence"]


async def test_pages_escape_what_an_experiment_declares(client, experiments):
    markup = "<b onload=x>&'\""
    declared = [VariantAllocation(f"{markup}{part}", markup, 0.5) for part in "ab"]
    experiments.put(revision(name=markup, model=markup, champion=f"{markup}a", variants=declared))
    for path in ("/", f"/experiments/{quote(markup, safe='')}"):
        page = (await client.get(path)).text
        assert "<b onload" not in page
        assert "&lt;b onload=x&gt;&amp;&#39;&#34;" in page


async def test_the_pages_say_what_they_show(client, snapshots):
    assert (
        "No experiments yet. Create one with <code>client.experiment(...)</code> and start it."
        in (await client.get("/")).text
    )
    await publish(snapshots)
    page = (await client.get(f"/experiments/{quote(NAME, safe='')}")).text
    assert "0 outcomes without a prediction, in all experiments" in page
    assert "Traffic splits as configured" in page
    assert "log loss (decides)" in page
    assert "their window of 10 seconds has passed" in page
    assert "better</text>" in page
    assert page.count("<svg") == 6


async def test_a_plan_is_made_from_given_figures_and_needs_a_record_otherwise(client):
    asked = {"model": "m", "metric": "brier", "effect": 0.01}
    missing = await client.post("/v1/plan", json=asked)
    assert (missing.status_code, missing.json()["type"].rpartition("/")[2]) == (404, "no-record")
    wrong = await client.post("/v1/plan", json={**asked, "power": 2})
    assert (wrong.status_code, wrong.json()["errors"][0]["field"]) == (422, "power")
    planned = await client.post("/v1/plan", json={**asked, "standard_deviation": 0.2, "rows_per_day": 1000})
    assert planned.status_code == 200
    assert planned.json()["tuning_n"] > 1_000

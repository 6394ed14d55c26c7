"""What speaks against a start: each test breaks exactly one thing of traffic that suits."""

from collections.abc import Mapping

import msgspec
import pytest

from contender.contracts.ab_router import PredictionRow
from contender.contracts.experiments import ExperimentRevision, Finding, NewExperiment, VariantAllocation
from contender.contracts.inference_service import InputColumn, ModelVersion
from services.ab_router.domain.experiments import draft
from services.ab_router.domain.readiness import ROWS_TO_BLOCK, VariantNeeds, traffic_findings
from services.ab_router.domain.traffic import CountKey, DayOfTraffic, kept_text, latency_step

NOW = 1_700_000_000.0
DELAY = "delays:mean"
CATEGORIES = {"carrier": ["DL", "UA"]}


def version(name: str, *inputs: InputColumn, **changes: object) -> ModelVersion:
    made = ModelVersion(model="late", version=name, task="binary", inputs=[*inputs], registered_at=1.0, classes=[0, 1])
    return msgspec.structs.replace(made, **changes)


OLD = version("aaa", InputColumn("distance", "float"))
NEW = version(
    "bbb",
    InputColumn("distance", "float"),
    InputColumn("carrier", "string"),
    InputColumn("seats", "integer", required=False, default=100),
    InputColumn("delay", "float", source=DELAY),
    categories=CATEGORIES,
)
VERSIONS = {"aaa": OLD, "bbb": NEW}
NEEDS = [VariantNeeds("old", OLD), VariantNeeds("new", NEW, ["origin"], ["weather"])]
KNOWN = {"distance", "carrier", "seats", "weather"}
VARIANTS = [VariantAllocation("old", "aaa", 0.5), VariantAllocation("new", "bbb", 0.5)]
SUITS: Mapping[CountKey, int] = {
    ("rows",): 1_000,
    ("sent", "distance"): 1_000,
    ("sent", "carrier"): 1_000,
    ("sent", "weather"): 1_000,
    ("sent", "seats"): 1_000,
    ("entity", "origin"): 1_000,
    ("value", "carrier", "DL"): 400,
    ("value", "carrier", "UA"): 600,
    ("feature", DELAY, "PRESENT"): 1_000,
    ("shadow", "bbb", str(latency_step(0.01))): 1_000,
}


def revision(**changes: object) -> ExperimentRevision:
    new = NewExperiment(name="e", model="late", variants=VARIANTS, window_s=60.0)
    return draft(msgspec.structs.replace(new, **changes), VERSIONS, seed="seed", now=NOW)


def day(changes: Mapping[CountKey, int] | None = None) -> DayOfTraffic:
    return DayOfTraffic(NOW - 86_000, NOW, {1: {**SUITS, **(changes or {})}})


def looked_at(
    changes: Mapping[CountKey, int] | None = None, needs: list[VariantNeeds] | None = None, **declared: object
) -> list[Finding]:
    return traffic_findings(revision(**declared), needs or NEEDS, KNOWN, day(changes), 5.0)


def only(findings: list[Finding]) -> Finding:
    (finding,) = findings
    return finding


def test_traffic_that_suits_has_no_finding():
    assert looked_at() == []


def test_a_column_that_nobody_sends_refuses_the_start():
    finding = only(looked_at({("sent", "carrier"): 0, ("value", "carrier", "DL"): 0, ("value", "carrier", "UA"): 0}))
    assert (finding.field, finding.blocks) == ("inputs.carrier", True)
    assert finding.message == (
        "is needed by variant new (bbb), and none of the 1,000 rows of the last day had it: the others would be refused"
    )


@pytest.mark.parametrize(
    ("instead", "rows"),
    [(("sent", "carriers"), 1_000), (("fault", "inputs.carriers"), 7)],
    ids=["that another version takes", "that was refused"],
)
def test_a_column_that_has_likely_been_renamed_is_named(instead, rows):
    finding = only(looked_at({("sent", "carrier"): 0, instead: rows}))
    assert (finding.field, finding.blocks) == ("inputs.carrier", True)
    assert "callers send carriers, which variant new (bbb) does not take: has it been renamed?" in finding.message


@pytest.mark.parametrize(
    "other",
    [("sent", "weather"), ("fault", "inputs.xyz"), ("fault", "inputs.carrier"), ("fault", "time")],
    ids=["a column of its own", "an unlike name", "the column itself, mistyped", "another field"],
)
def test_a_column_is_named_as_renamed_only_where_it_is_likely(other):
    assert "renamed" not in only(looked_at({("sent", "carrier"): 0, other: 1_000})).message


@pytest.mark.parametrize(
    ("changes", "blocks"),
    [
        ({("sent", "carrier"): 990}, []),
        ({("sent", "carrier"): 989}, [("inputs.carrier", "only 98.9 % of the 1,000 rows")]),
        ({("null", "carrier"): 11}, [("inputs.carrier", "only 98.9 % of the 1,000 rows")]),
        ({("sent", "weather"): 980}, [("inputs.weather", "only 98 % of the 1,000 rows")]),
        ({("null", "weather"): 1_000}, []),
        ({("entity", "origin"): 980}, [("entities.origin", "only 98 % of the 1,000 rows")]),
        ({("entity", "origin"): 0, ("entity", "origins"): 990}, [("entities.origin", "callers send origins")]),
        ({("entity", "origin"): 0, ("entity",): 1_000}, []),
        ({("sent", "seats"): 10}, []),
    ],
    ids=[
        "nearly all",
        "too few",
        "too many nulls",
        "a column that features are computed from",
        "nulls that features decide about",
        "a key of entities",
        "a renamed key",
        "a key that may be among those not told apart",
        "a column with a default",
    ],
)
def test_a_column_that_is_required_must_come_with_nearly_all_rows(changes, blocks):
    findings = looked_at(changes)
    assert [finding.field for finding in findings] == [field for field, _ in blocks]
    assert all(
        finding.blocks and words in finding.message for finding, (_, words) in zip(findings, blocks, strict=True)
    )


@pytest.mark.parametrize(
    ("hours", "blocks"),
    [
        ([(1_000, 0), (20, 20)], False),
        ([(1_000, 0), (20, 19)], True),
        ([(1_000, 0), (19, 19)], True),
        ([(20, 20), (1_000, 0)], True),
        ([(1_000, 0), (20, 20), (5, 0)], False),
    ],
    ids=["sent now", "not by all", "in too few rows", "not any more", "hours of few rows are passed over"],
)
def test_a_column_that_callers_have_begun_to_send_refuses_nothing(hours, blocks):
    counts = {
        number: {("rows",): rows, ("sent", "distance"): rows, ("sent", "carrier"): sent}
        for number, (rows, sent) in enumerate(hours)
    }
    needs = [NEEDS[0], VariantNeeds("new", version("bbb", InputColumn("carrier", "string")))]
    found = traffic_findings(revision(), needs, KNOWN, DayOfTraffic(0.0, NOW, counts), 5.0)
    assert [(finding.field, finding.blocks) for finding in found] == [("inputs.carrier", blocks)]
    assert ("of the latest hour:" in found[0].message) is not blocks


def test_a_column_with_a_default_that_nobody_sends_is_shown():
    finding = only(looked_at({("sent", "seats"): 0}))
    assert (finding.field, finding.blocks) == ("inputs.seats", False)
    assert "its default, or null, stands in for it" in finding.message


def test_of_variants_that_take_a_column_those_that_can_do_without_it_are_not_concerned():
    easy = version("ccc", InputColumn("carrier", "string", required=False))
    finding = only(looked_at({("sent", "carrier"): 500}, [*NEEDS, VariantNeeds("easy", easy)]))
    assert finding.message.startswith("is needed by variant new (bbb), and only 50 % of")


def test_variants_that_need_the_same_are_named_together():
    twin = VariantNeeds("twin", NEW, ["origin"], ["weather"])
    finding = only(looked_at({("sent", "carrier"): 500}, [*NEEDS, twin]))
    assert "variants new (bbb) and twin (bbb)" in finding.message


@pytest.mark.parametrize(("unseen", "blocks"), [(10, []), (11, [True])])
def test_categories_that_a_version_does_not_know_refuse_the_start_over_one_percent(unseen, blocks):
    findings = looked_at({("value", "carrier", "9E"): unseen - 3, ("value", "carrier"): 3})
    assert [finding.blocks for finding in findings] == blocks
    for finding in findings:
        assert finding.field == "inputs.carrier"
        assert finding.message == (
            "has values in 1.1 % of the 1,000 rows of the last day that variant new (bbb) did not see in training: "
            "9E (8), … (3)"
        )


def test_the_values_most_often_seen_are_named():
    others = {("value", "carrier", f"other {number}"): 10 * number for number in range(1, 8)}
    message = only(looked_at(others)).message
    assert message.endswith("other 7 (70), other 6 (60), other 5 (50), other 4 (40), other 3 (30), others")


def test_a_category_that_another_version_knows_is_unseen_for_this_one():
    wide = VariantNeeds("wide", msgspec.structs.replace(NEW, version="ccc", categories={"carrier": ["DL", "UA", "9E"]}))
    finding = only(looked_at({("value", "carrier", "9E"): 500}, [*NEEDS, wide]))
    assert "variant new (bbb) did not see" in finding.message


def test_a_long_category_is_known_by_its_hash():
    long = "a carrier with a name of more than forty characters"
    needs = [VariantNeeds("new", msgspec.structs.replace(NEW, categories={"carrier": ["DL", "UA", long]}))]
    assert kept_text(long) != long
    assert looked_at({("value", "carrier", kept_text(long)): 500}, needs) == []


@pytest.mark.parametrize(
    ("statuses", "blocks"),
    [
        ({"NOT_FOUND": 50, "PRESENT": 950}, []),
        ({"NOT_FOUND": 51, "PRESENT": 949}, [True]),
        ({"OUTSIDE_MAX_AGE": 51, "PRESENT": 949}, [True]),
        ({"OUTSIDE_MAX_AGE": 30, "NOT_FOUND": 21, "PRESENT": 949}, [True]),
        ({"NULL_VALUE": 500, "PRESENT": 500}, []),
        ({"NOT_FOUND": 19, "PRESENT": 0}, [False]),
    ],
    ids=["few", "not found", "too old", "both", "null is a value", "too few values to say"],
)
def test_features_that_are_often_not_there_refuse_the_start(statuses, blocks):
    findings = looked_at({("feature", DELAY, status): number for status, number in statuses.items()})
    assert [finding.blocks for finding in findings] == blocks
    assert all(finding.field == f"features.{DELAY}" for finding in findings)


@pytest.mark.parametrize(
    ("statuses", "blocks"),
    [
        ({"NOT_FOUND": 360, "PRESENT": 640}, False),
        ({"NOT_FOUND": 501, "PRESENT": 499}, True),
        ({"OUTSIDE_MAX_AGE": 51, "PRESENT": 949}, True),
    ],
    ids=["new entities", "hardly any is found", "too old"],
)
@pytest.mark.parametrize("changes", [{"required": False}, {"default": 0.0}], ids=str)
def test_a_version_that_can_do_without_a_feature_allows_for_new_entities(statuses, blocks, changes):
    delay = msgspec.structs.replace(NEW.inputs[-1], **changes)
    needs = [VariantNeeds("new", msgspec.structs.replace(NEW, inputs=[*NEW.inputs[:-1], delay]))]
    finding = only(looked_at({("feature", DELAY, status): number for status, number in statuses.items()}, needs))
    assert (finding.field, finding.blocks) == (f"features.{DELAY}", blocks)


def test_a_feature_that_no_row_was_served_proposes_a_shadow():
    finding = only(looked_at({("feature", DELAY, "PRESENT"): 0}))
    assert (finding.field, finding.blocks) == ("features", False)
    assert finding.message.startswith("delays:mean of variant new (bbb) were served to no row")
    assert "`shadow: true`" in finding.message
    weights = dict(zip(VARIANTS, (1.0, 0.0), strict=True))
    alone = [msgspec.structs.replace(variant, weight=weight) for variant, weight in weights.items()]
    assert looked_at({("feature", DELAY, "PRESENT"): 0}, shadow=True, variants=alone) == []


@pytest.mark.parametrize(("slow", "blocks"), [(50, []), (51, [True])])
def test_a_challenger_that_is_too_slow_in_shadow_refuses_the_start(slow, blocks):
    steps = {("shadow", "bbb", str(latency_step(0.01))): 1_000 - slow, ("shadow", "bbb", str(latency_step(7.0))): slow}
    findings = looked_at(steps)
    assert [finding.blocks for finding in findings] == blocks
    for finding in findings:
        assert finding.field == "variants.new"
        assert "1,000 rows in shadow took about 7.5 s or more" in finding.message
        assert "a challenger has 5 s (CONTENDER_CHALLENGER_DEADLINE_S)" in finding.message


@pytest.mark.parametrize("changes", [{("shadow", "bbb", str(latency_step(9.0))): 19}, {}], ids=["few rows", "champion"])
def test_latencies_of_few_rows_or_of_the_champion_refuse_nothing(changes):
    assert looked_at({("shadow", "bbb", str(latency_step(0.01))): 0, ("shadow", "aaa", "60"): 500, **changes}) == []


@pytest.mark.parametrize(("rows", "blocks"), [(ROWS_TO_BLOCK - 1, False), (ROWS_TO_BLOCK, True)])
def test_findings_of_few_rows_refuse_nothing(rows, blocks):
    counts = {("rows",): rows, ("sent", "distance"): rows}
    found = traffic_findings(revision(), NEEDS, KNOWN, DayOfTraffic(NOW - 86_000, NOW, {1: counts}), 5.0)
    assert {finding.field: finding.blocks for finding in found} == {
        "inputs.carrier": blocks,
        "inputs.weather": blocks,
        "entities.origin": blocks,
        "inputs.seats": False,
        "features": False,
    }
    assert [finding.blocks for finding in found] == sorted((finding.blocks for finding in found), reverse=True)


def test_without_any_traffic_a_first_experiment_may_start():
    finding = only(traffic_findings(revision(), NEEDS, KNOWN, DayOfTraffic(NOW - 86_000, NOW, {}), 5.0))
    assert (finding.field, finding.blocks) == ("traffic", False)
    assert "no row of model late in the last day" in finding.message


def test_traffic_that_is_refused_whole_refuses_the_start():
    counts = {("rows",): 40, ("refused",): 40, ("fault", "inputs.distance"): 40, ("fault", "inputs.distanze"): 40}
    finding = only(traffic_findings(revision(), NEEDS, KNOWN, DayOfTraffic(NOW - 86_000, NOW, {1: counts}), 5.0))
    assert (finding.field, finding.blocks) == ("traffic", True)
    assert "inputs.distance (40), inputs.distanze (40)" in finding.message


# The use case, with the router's own counts


async def send(router, rows: int, **inputs: object) -> None:
    for _ in range(rows // 5):
        await router.predict.rows("late", [PredictionRow("u", {"origin": "EWR"}, inputs)] * 5)


async def declared(router, **changes: object) -> ExperimentRevision:
    variants = [VariantAllocation("old", "plain", 0.5), VariantAllocation("new", "streaming", 0.5)]
    new = NewExperiment(name="e", model="late", variants=variants)
    return await router.experiments.create(msgspec.structs.replace(new, **changes))


async def look(router, **changes: object):
    experiment = await declared(router, **changes)
    return await router.readiness.look(experiment, (await router.catalog.find("late")).versions)


async def test_what_callers_sent_is_compared_with_what_variants_need(router):
    await send(router, 30, distance=700.0)
    looked = await look(router)
    assert [(finding.field, finding.blocks) for finding in looked.findings] == [
        ("inputs.carrier", False),
        ("features", False),
        ("plan", False),
    ]
    assert (looked.rows, looked.since) == (30, (router.clock.now() // 3600 - 23) * 3600)


async def test_a_variant_needs_the_keys_and_columns_of_its_views(router):
    for _ in range(5):
        await router.predict.rows("late", [PredictionRow("u", {}, {"distance": 700.0})] * 5)
    blocking = [finding.field for finding in (await look(router)).findings if finding.blocks]
    assert blocking == ["entities.origin"]


async def test_a_new_column_is_sent_before_the_experiment_starts(router):
    columns = [InputColumn("distance", "float"), InputColumn("weather", "string")]
    later = version("later", *columns, classes=["on time", "late"])
    router.inference.registered.append(later)
    await router.catalog.refresh()
    variants = [VariantAllocation("old", "plain", 0.5), VariantAllocation("new", "later", 0.5)]
    await send(router, 25, distance=700.0)
    looked = await look(router, variants=variants)
    assert [finding.field for finding in looked.findings if finding.blocks] == ["inputs.weather"]
    router.clock.advance(3_600)
    await send(router, 25, distance=700.0, weather="fog")
    experiment = router.experiments.find("e")
    findings = await router.readiness.findings(experiment, (await router.catalog.find("late")).versions)
    assert [finding.field for finding in findings] == ["inputs.carrier", "inputs.weather", "plan"]
    assert not any(finding.blocks for finding in findings)


async def test_versions_by_alias_are_looked_at_and_those_that_are_gone_are_not(router):
    await send(router, 30, distance=700.0)
    experiment = await declared(router)
    variants = [VariantAllocation("old", "champion", 0.5), VariantAllocation("new", "gone", 0.5)]
    model = await router.catalog.find("late")
    versions = {**model.versions, "champion": model.champion}
    looked = await router.readiness.look(msgspec.structs.replace(experiment, variants=variants), versions)
    assert [finding.field for finding in looked.findings] == ["inputs.carrier", "plan"]
    assert "variant old (plain)" in looked.findings[0].message


async def test_counts_that_can_not_be_read_refuse_nothing(router):
    await send(router, 25, distance=700.0)
    router.kept_traffic.down = True
    looked = await look(router)
    assert [(finding.field, finding.blocks) for finding in looked.findings] == [("traffic", False), ("plan", False)]
    assert "could not be looked at" in looked.findings[0].message
    assert (looked.rows, looked.since) == (0, None)


async def test_a_plan_is_asked_for_the_effect_that_the_tuning_is_meant_for(router):
    await send(router, 30, distance=700.0)
    looked = await look(
        router, coverage=0.5, tuning_n=6_000, alpha=0.1, cycle_days=0, cycle_reason="all days are alike"
    )
    first, second = router.plans.asked
    assert (first.model, first.metric, first.shares) == ("late", "log_loss", (0.25, 0.25))
    assert (first.alpha, first.cycle_days, first.window_s) == (0.1, 0, 86_400.0)
    assert 30 <= first.rows_per_day <= 30 * 24 / 23
    assert second == msgspec.structs.replace(first, effect=pytest.approx(3 * (0.24 / 6_000) ** 0.5))
    assert looked.findings[-1] == Finding(
        "plan",
        "needs about 18,300 labelled rows of the champion and the smallest challenger, to tell a difference of 0.019 "
        "in log loss in half of all cases; the last day had 30 of this model: about 14 days",
        blocks=False,
    )


async def test_a_claim_with_a_margin_is_planned_for_no_difference(router):
    looked = await look(router, hypothesis="non-inferiority", margin=0.02)
    (asked,) = router.plans.asked
    assert (asked.hypothesis, asked.margin, asked.effect, asked.rows_per_day) == ("non-inferiority", 0.02, 0.0, None)
    assert looked.findings[-1].message == (
        "needs about 18,300 labelled rows of the champion and the smallest challenger, to judge log loss in half of "
        "all cases; the last day had none of this model: about 14 days at the 1,800 a day of experiment churn-1"
    )


async def test_the_champions_share_comes_first_in_a_plan(router):
    variants = [VariantAllocation("new", "streaming", 0.2), VariantAllocation("old", "plain", 0.8)]
    await look(router, variants=variants, champion="old")
    assert router.plans.asked[0].shares == (0.8, 0.2)


async def test_a_plan_that_reaches_nothing_says_so(router):
    router.plans.planned = msgspec.structs.replace(router.plans.planned, rows=None, days=None)
    finding = (await look(router)).findings[-1]
    assert (finding.field, finding.blocks) == ("plan", False)
    assert finding.message.startswith("needs more rows or days than can be planned for")


async def test_without_a_plan_the_start_is_not_refused(router):
    router.plans.away = "no experiment of the model has matured rows to plan from yet"
    finding = (await look(router)).findings[-1]
    assert finding == Finding(
        "plan",
        f"can't tell the rows and days that a verdict takes: {router.plans.away}",
        blocks=False,
    )


async def test_the_counts_are_shown(client, router):
    later = version("later", InputColumn("distance", "float"), InputColumn("carrier", "string"), categories=CATEGORIES)
    router.inference.registered.append(later)
    await router.catalog.refresh()
    await send(router, 5, distance=700.0, carrier="UA")
    await send(router, 5, distance=700.0, carrier="9E")
    await send(router, 5, distance=700.0, carrier=None)
    await send(router, 5, distanze=700.0)
    router.traffic.note_features("late", {DELAY: ["PRESENT", "NOT_FOUND"]})
    router.traffic.note_shadow("late", "later", 0.1, 40)
    answer = (await client.get("/v1/models/late/traffic")).json()
    hour = router.clock.now() // 3600 * 3600
    assert (answer["model"], answer["rows"], answer["refused"]) == ("late", 20, 5)
    assert (answer["since"], answer["until"]) == (hour - 23 * 3600, router.clock.now())
    assert answer["hours"] == [{"start": hour, "rows": 20, "refused": 5}]
    assert answer["columns"]["distance"] == {"sent": 1.0, "null": 0.0, "values": {}, "unseen": {}}
    carrier = answer["columns"]["carrier"]
    assert (carrier["sent"], carrier["null"]) == (pytest.approx(2 / 3), pytest.approx(1 / 3))
    assert (carrier["values"], carrier["unseen"]) == ({"UA": 5, "9E": 5}, {"9E": 5})
    assert answer["entities"] == {"origin": 1.0}
    assert answer["refusals"] == {"inputs.distanze": 5, "inputs.distance": 5}
    assert answer["features"] == {DELAY: {"PRESENT": 1, "NOT_FOUND": 1}}
    assert answer["shadows"]["later"]["rows"] == 40
    assert answer["shadows"]["later"]["p95_s"] == pytest.approx(0.1, rel=0.2)


async def test_the_traffic_of_an_unknown_model_is_not_found(client):
    answer = await client.get("/v1/models/unknown/traffic")
    assert (answer.status_code, answer.json()["type"]) == (404, "/problems/unknown-model")


async def test_traffic_that_can_not_be_read_is_a_problem(client, router):
    router.kept_traffic.down = True
    answer = await client.get("/v1/models/late/traffic")
    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/unavailable")
    assert "can't be reached" in answer.json()["detail"]

"""Counters of what callers send: complete, by hour, and bounded."""

import tracemalloc

import msgspec
import pytest

from contender.contracts.ab_router import PredictionRow
from contender.contracts.experiments import NewExperiment, VariantAllocation
from contender.contracts.inference_service import InputColumn, ModelVersion
from services.ab_router.catalog import Model
from services.ab_router.domain.traffic import DayOfTraffic, kept_text, latency_step, quantile_s
from services.ab_router.stored_traffic import Addition, InMemoryTraffic
from services.ab_router.traffic import Traffic
from shared.clock import FixedClock
from shared.errors import FieldError, InvalidField, Unavailable

NOON = 1_700_000_000.0 // 3600 * 3600
COLUMNS = [InputColumn("distance", "float"), InputColumn("carrier", "string")]


def model_of(*categories: str, name: str = "late") -> Model:
    version = ModelVersion(
        model=name, version="a", task="binary", inputs=COLUMNS, registered_at=1.0, categories={"carrier": [*categories]}
    )
    return Model(name, {"a": version}, version)


LATE = model_of("UA", "DL")


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(NOON)


@pytest.fixture
def store() -> InMemoryTraffic:
    return InMemoryTraffic()


@pytest.fixture
def traffic(store, clock) -> Traffic:
    return Traffic(store, clock)


def row(**inputs: object) -> PredictionRow:
    return PredictionRow("u", {"origin": "EWR"}, inputs)


def note(traffic: Traffic, *rows: PredictionRow, model: Model = LATE) -> None:
    traffic.note(model, rows, [None] * len(rows))


def refused(*fields: str) -> InvalidField:
    return InvalidField("no", [FieldError(field, "is odd") for field in fields])


async def test_columns_nulls_entities_and_values_are_counted(traffic):
    note(traffic, row(distance=1.0, carrier="UA"), row(carrier="UA", distance=None), row(distance=2.0, carrier="9E"))
    note(traffic, PredictionRow("u", {}, {"distance": 1.0, "carrier": None}))
    day = await traffic.day("late")
    assert (day.rows, day.refused, day.accepted) == (4, 0, 4)
    assert day.by_name("sent") == {"distance": 4, "carrier": 4}
    assert day.by_name("null") == {"distance": 1, "carrier": 1}
    assert day.by_name("entity") == {"origin": 3}
    assert day.by_pair("value") == {"carrier": {"UA": 2, "9E": 1}}


async def test_refused_rows_are_counted_by_field_and_nothing_else_of_them(traffic):
    rows = [row(distance=1.0), row(distanze=1.0), row(distanze=1.0)]
    faults = refused("inputs.distanze", "inputs.distance")
    traffic.note(LATE, rows, [None, faults, faults])
    day = await traffic.day("late")
    assert (day.rows, day.refused, day.accepted) == (3, 2, 1)
    assert day.by_name("fault") == {"inputs.distanze": 2, "inputs.distance": 2}
    assert day.by_name("sent") == {"distance": 1}


async def test_what_was_counted_before_is_counted_once(traffic):
    for _ in range(3):
        note(traffic, row(distance=1.0, carrier="UA"), row(distance=1.0, carrier="9E"))
        traffic.note_features("late", {"delays:mean": ["PRESENT", "NOT_FOUND", "PRESENT"]})
        traffic.note_shadow("late", "a", 0.5, 2)
        await traffic.flush()
    day = await traffic.day("late")
    assert (day.rows, day.by_name("sent")) == (6, {"distance": 6, "carrier": 6})
    assert day.by_pair("value") == {"carrier": {"UA": 3, "9E": 3}}
    assert day.by_pair("feature") == {"delays:mean": {"PRESENT": 6, "NOT_FOUND": 3}}
    assert day.latency_s("a", 0.95) == (pytest.approx(0.5, rel=0.2), 6)


async def test_several_routers_add_up(traffic, store, clock):
    other = Traffic(store, clock)
    note(traffic, row(distance=1.0))
    note(other, row(distance=1.0), row(carrier="UA"))
    await other.flush()
    day = await traffic.day("late")
    assert (day.rows, day.by_name("sent")) == (3, {"distance": 2, "carrier": 1})


async def test_models_are_apart(traffic):
    note(traffic, row(distance=1.0))
    note(traffic, row(distance=1.0), row(distance=1.0), model=model_of(name="delay"))
    assert [(await traffic.day(name)).rows for name in ("late", "delay", "other")] == [1, 2, 0]


async def test_rows_belong_to_the_hour_in_which_they_came(traffic, clock):
    clock.at = NOON - 0.001
    note(traffic, row(distance=1.0))
    clock.at = NOON
    note(traffic, row(distance=1.0), row(distance=1.0))
    hour = int(NOON // 3600)
    day = await traffic.day("late")
    assert {number: counts["rows",] for number, counts in day.hours.items()} == {hour - 1: 1, hour: 2}


async def test_a_clock_that_is_set_back_loses_no_counts(traffic, clock):
    note(traffic, row(distance=1.0))
    clock.at = NOON - 1
    await traffic.flush()
    note(traffic, row(distance=1.0))
    await traffic.flush()
    clock.at = NOON + 1
    assert (await traffic.day("late")).rows == 2


async def test_a_day_is_the_present_hour_and_the_23_before(traffic, clock):
    note(traffic, row(distance=1.0))
    for later_s, rows in ((23 * 3600, 1), (24 * 3600 - 0.001, 1), (24 * 3600, 0)):
        clock.at = NOON + later_s
        day = await traffic.day("late")
        assert (day.rows, day.until) == (rows, clock.at)
        assert 23 * 3600 <= day.until - day.since < 24 * 3600


async def test_a_part_of_a_day_is_scaled_to_a_whole_one(traffic, clock):
    note(traffic, *[row(distance=1.0)] * 23)
    assert (await traffic.day("late")).accepted_per_day == pytest.approx(24)


async def test_counts_wait_while_the_store_is_away_and_are_added_once(traffic, store, clock):
    note(traffic, row(distance=1.0))
    store.down = True
    for _ in range(3):
        with pytest.raises(Unavailable):
            await traffic.flush()
        note(traffic, row(distance=1.0))
        clock.advance(3600)
    store.down = False
    day = await traffic.day("late")
    assert (day.rows, day.by_name("sent")) == (4, {"distance": 4})
    assert len(day.hours) == 3


async def test_counts_that_are_older_than_a_day_are_given_up(traffic, store, clock):
    store.down = True
    note(traffic, row(distance=1.0))
    with pytest.raises(Unavailable):
        await traffic.flush()
    clock.advance(24 * 3600)
    store.down = False
    await traffic.flush()
    assert await store.read("late", range(int(NOON // 3600) - 1, int(NOON // 3600) + 30)) == {}


class LostAnswers(InMemoryTraffic):
    """Adds, and loses the answer of every other call."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    async def add(self, addition: Addition) -> None:
        await super().add(addition)
        self.calls += 1
        if self.calls % 2:
            raise Unavailable("the answer is lost")


async def test_a_flush_that_fails_in_the_middle_counts_nothing_twice(clock):
    store = LostAnswers()
    traffic = Traffic(store, clock)
    columns = {f"column {number}": 1.0 for number in range(2_500)}
    sent = 0
    while store.calls < 12:
        note(traffic, row(**columns))
        sent += 1
        try:
            await traffic.flush()
        except Unavailable:
            continue
    store.calls = 1  # the next answers come
    for _ in range(9):
        try:
            day = await traffic.day("late")
            break
        except Unavailable:
            continue
    assert day.rows == sent
    assert day.by_name("sent") == dict.fromkeys(columns, sent)


async def test_the_last_counts_are_added_at_the_end(store, clock):
    async with Traffic(store, clock) as traffic:
        note(traffic, row(distance=1.0))
    assert len(await store.read("late", [int(NOON // 3600)])) == 1
    async with Traffic(store, clock) as traffic:
        note(traffic, row(distance=1.0))
        store.down = True


async def test_ten_thousand_names_and_long_values_take_bounded_memory(traffic, store):
    """Each row has another unknown column, another unknown value, and another key of entities; some have a megabyte."""
    await traffic.flush()
    tracemalloc.start()
    try:
        for number in range(10_000):
            rows = [PredictionRow("u", {f"key {number}": 1}, {"distance": 1.0, "carrier": f"carrier {number}"})]
            traffic.note(LATE, rows, [None])
            traffic.note(LATE, rows, [refused(f"inputs.column {number}")])
        for number in range(50):
            long = f"{number}" * 1_000_000
            traffic.note(LATE, [row(carrier=long), row()], [None, refused(f"inputs.{long}")])
            del long
        await traffic.flush()
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    day = await traffic.day("late")
    assert taken < 500_000
    for kind, rows in (("entity", 10_050), ("fault", 10_050)):
        named = day.by_name(kind)
        assert (len(named), sum(named.values())) == (101, rows)
    values = day.by_pair("value")["carrier"]
    assert (len(values), sum(values.values())) == (51, 10_050)
    assert max(len(name) for name in [*values, *day.by_name("fault")]) <= 40


async def test_the_bounds_of_an_hour_outlast_flushes(traffic):
    for number in range(200):
        note(traffic, row(carrier=f"carrier {number}"))
        traffic.note(LATE, [row()], [refused(f"inputs.column {number}")])
        await traffic.flush()
    day = await traffic.day("late")
    assert (len(day.by_pair("value")["carrier"]), len(day.by_name("fault"))) == (51, 101)
    assert day.by_pair("value")["carrier"]["…"] == 150


async def test_rows_whose_columns_come_in_any_order_are_counted_by_column(traffic):
    names = [f"column {number}" for number in range(8)]
    for turn in range(2_000):
        order = sorted(names, key=lambda name, turn=turn: hash((turn, name)))
        note(traffic, row(**dict.fromkeys(order, 1.0)))
    assert (await traffic.day("late")).by_name("sent") == dict.fromkeys(names, 2_000)


async def test_values_are_counted_only_where_a_version_names_categories(traffic):
    version = msgspec.structs.replace(LATE.champion, categories={})
    note(traffic, row(carrier="UA"), model=Model("late", {"a": version}, version))
    assert (await traffic.day("late")).by_pair("value") == {}
    note(traffic, row(carrier="UA"), row(carrier="AA"))
    assert (await traffic.day("late")).by_pair("value") == {"carrier": {"UA": 1, "AA": 1}}


async def test_values_of_a_column_that_is_served_are_not_counted(traffic):
    served = [InputColumn("carrier", "string", source="flights:carrier")]
    version = msgspec.structs.replace(LATE.champion, inputs=served)
    note(traffic, row(carrier="UA"), model=Model("late", {"a": version}, version))
    assert (await traffic.day("late")).by_pair("value") == {}


async def test_a_version_that_comes_in_the_middle_of_an_hour_adds_its_categories(traffic):
    for number in range(60):
        note(traffic, row(carrier=f"other {number}"))
    note(traffic, row(carrier="UA"), row(carrier="AA"), row(carrier="other 1"), model=model_of("AA"))
    values = (await traffic.day("late")).by_pair("value")["carrier"]
    assert (values["UA"], values["AA"], values["other 1"], values["…"]) == (1, 1, 2, 10)


@pytest.mark.parametrize("value", [True, 7, 1.5, float("nan"), "", "\ud800"], ids=repr)
async def test_values_of_any_type_are_counted(traffic, value):
    note(traffic, row(carrier=value))
    values = (await traffic.day("late")).by_pair("value")["carrier"]
    assert list(values.values()) == [1]


def test_a_long_text_is_kept_as_its_beginning_and_a_hash():
    first, second = kept_text("secret " * 100), kept_text("secret " * 100 + "!")
    assert first.startswith("secret secret secret…")
    assert first != second
    assert max(len(first), len(second)) <= 40
    assert kept_text("x" * 40) == "x" * 40


@pytest.mark.parametrize("seconds", [0.0, 1e-9, 0.001, 0.0123, 0.5, 5.0, 100.0])
def test_a_latency_is_known_to_a_tenth(seconds):
    assert quantile_s({latency_step(seconds): 1}, 0.95) == pytest.approx(max(seconds, 0.001), rel=0.1)


def test_no_rows_have_no_latency():
    assert DayOfTraffic(0.0, 1.0, {}).latency_s("a", 0.95) == (0.0, 0)


async def test_a_call_of_the_router_is_counted(router):
    rows = [
        PredictionRow("u", {}, {"distance": 1.0}),
        PredictionRow("u", {"origin": "EWR"}, {"distance": 2.0, "carrier": None}),
        PredictionRow("u", {}, {"distanze": 1.0}),
    ]
    await router.predict.rows("late", rows)
    day = await router.traffic.day("late")
    assert (day.rows, day.refused) == (3, 1)
    assert day.by_name("sent") == {"distance": 2, "carrier": 1}
    assert day.by_name("null") == {"carrier": 1}
    assert day.by_name("entity") == {"origin": 1}
    assert day.by_name("fault") == {"inputs.distanze": 1, "inputs.distance": 1}


async def test_statuses_of_features_and_latencies_in_shadow_are_counted(router):
    variants = [VariantAllocation("old", "plain", 0.5), VariantAllocation("new", "streaming", 0.5)]
    new = NewExperiment(name="e", model="late", variants=variants, outcome="independent of the answer")
    await router.experiments.create(new)
    await router.experiments.start("e")
    router.features.nulls["origin_delays:mean_delay"] = "OUTSIDE_MAX_AGE"
    units = [router.unit_of("old"), router.unit_of("new")]
    await router.predict.rows("late", [PredictionRow(unit, {"origin": "EWR"}, {"distance": 1.0}) for unit in units])
    await router.predict.noted()
    day = await router.traffic.day("late")
    assert day.by_pair("feature") == {"origin_delays:mean_delay": {"OUTSIDE_MAX_AGE": 2}}
    assert {version: sum(steps.values()) for version, steps in day.by_pair("shadow").items()} == {
        "plain": 1,
        "streaming": 1,
    }


async def test_predictions_go_on_while_the_counters_can_not_be_kept(router):
    router.kept_traffic.down = True
    for _ in range(2):
        (answer,) = await router.predict.rows("late", [PredictionRow("u", {}, {"distance": 1.0})])
        assert answer.version == "plain"
        with pytest.raises(Unavailable):
            await router.traffic.flush()

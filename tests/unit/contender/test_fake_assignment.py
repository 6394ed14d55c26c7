"""FakeContender assigns each row as the router does."""

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from contender.contracts.ab_router import PredictionRow
from contender.contracts.experiments import ExperimentRevision
from contender.faking.experiments import assigned, declared_revision, refusing
from services.ab_router.domain import assignment as routers

KEYS = st.sampled_from(["plan", "age"])
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([-1.5, 0.0, 1.0, 2.5]),
    st.sampled_from(["", "a", "ab", "1", "true"]),
)
NUMBERS = st.one_of(st.none(), st.integers(-2, 2).map(float))
KINDS = st.one_of(
    VALUES.map(lambda value: {"equals": value}),
    st.lists(VALUES, min_size=1, max_size=3).map(lambda values: {"one_of": values}),
    st.tuples(NUMBERS, NUMBERS)
    .filter(lambda bounds: bounds != (None, None))
    .map(lambda bounds: {"low": bounds[0], "high": bounds[1]}),
    st.sampled_from(["a", "a.*", "[0-9]+", ".+"]).map(lambda pattern: {"matches": pattern}),
    st.sampled_from([10, 50, 90]).map(lambda percent: {"percent": percent}),
)
RULES = st.lists(st.builds(lambda key, kind: {"key": key, **kind}, KEYS, KINDS), max_size=2)
PARTS = st.sampled_from([None, {"name": "n", "start": 0.0, "end": 0.5}, {"name": "n", "start": 0.5, "end": 1.0}])
FORCED = st.dictionaries(st.sampled_from(["unit-0", "unit-1"]), st.sampled_from(["old", "new", "gone"]))
PLACEMENTS = st.fixed_dictionaries(
    {},
    optional={
        "coverage": st.sampled_from([0.1, 0.5, 1.0]),
        "targeting": RULES,
        "namespace": PARTS,
        "forced": FORCED,
        "holdout": st.sampled_from([0.0, 0.2, 0.5]),
        "unit_missing": st.sampled_from(["refuse", "champion"]),
        "status": st.sampled_from(["running", "paused", "decided"]),
        "seed": st.sampled_from(["s", "t"]),
    },
)
ROWS = st.builds(
    PredictionRow,
    unit=st.one_of(st.just(""), st.integers(0, 200).map("unit-{}".format)),
    context=st.dictionaries(KEYS, VALUES),
)


def revision(name: str, placement: dict[str, Any]) -> ExperimentRevision:
    placement = {"seed": name, "status": "running", **placement}
    return declared_revision("churn", {"old": 0.3, "new": 0.7}, name=name, **placement)


@settings(max_examples=500, deadline=None)
@given(st.lists(PLACEMENTS, max_size=3), st.lists(ROWS, min_size=1, max_size=20))
def test_every_row_is_assigned_as_the_router_assigns_it(placements, rows):
    experiments = [revision(f"e-{number}", placement) for number, placement in enumerate(placements)]
    router = routers.InForce(experiments)
    for row in rows:
        ours, theirs = assigned(experiments, row), router.assign(row)
        for field in ("reason", "experiment", "variant", "share", "probability", "excluded"):
            assert getattr(ours, field) == getattr(theirs, field), (field, msgspec.json.encode(row))
        assert refusing(experiments, row) == router.refuses(row)

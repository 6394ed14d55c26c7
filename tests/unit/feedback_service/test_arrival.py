"""Label arrival: alike arms pass at every look, arms that differ do not."""

import numpy as np
import pytest

from services.feedback_service.domain.confidence import confidence_sequence
from services.feedback_service.domain.split import BLOCKING_P, BLOCKING_TUNING_N, MIN_MATURED_ROWS, label_arrival
from services.feedback_service.domain.sums.estimates import compare
from services.feedback_service.domain.sums.mean import ClusteredSums
from services.feedback_service.domain.sums.units import BUCKETS
from tests.unit.feedback_service.plain_sums import share


def counted(rows: int, labels: int) -> ClusteredSums:
    """Units of one row each: so many matured rows, some of which have a label."""
    by_bucket = np.bincount(np.arange(rows) % BUCKETS, minlength=BUCKETS)
    labelled = np.random.default_rng(rows).multivariate_hypergeometric(by_bucket, labels, method="marginals")
    return ClusteredSums(by_bucket.astype(float), labelled.astype(float))


def smallest_p(rng: np.random.Generator, champion_rate: float, challenger_rate: float, share: float) -> float:
    """The running minimum over 50 looks at 20,000 matured rows."""
    challenger = rng.binomial(400, share, 50)
    arms = ((400 - challenger, champion_rate), (challenger, challenger_rate))
    looks = zip(*(np.stack([rows, rng.binomial(rows, rate)]).cumsum(axis=1).T for rows, rate in arms), strict=True)
    arrivals = [label_arrival([(counted(*first), counted(*second))]) for first, second in looks]
    return min(1.0 if arrival is None else arrival for arrival in arrivals)


@pytest.mark.parametrize(("rate", "share"), [(0.6, 0.5), (0.95, 0.5), (0.95, 0.1), (0.99, 0.1)])
def test_labels_that_arrive_alike_pass_at_every_look(rate: float, share: float) -> None:
    rng = np.random.default_rng(40)
    p = [smallest_p(rng, rate, rate, share) for _ in range(60)]
    assert np.mean(np.array(p) < BLOCKING_P) <= 0.02


@pytest.mark.parametrize("rates", [(0.95, 0.90), (0.6, 0.52), (0.99, 0.96)])
def test_labels_that_arrive_differently_are_found(rates: tuple[float, float]) -> None:
    rng = np.random.default_rng(41)
    assert all(smallest_p(rng, *rates, 0.5) < BLOCKING_P for _ in range(20))


def test_a_ramp_over_a_drifting_label_rate_is_no_difference() -> None:
    epochs = [
        (counted(9000, 8100), counted(1000, 900)),
        (counted(5000, 3000), counted(5000, 3000)),
    ]
    arrival = label_arrival(epochs)
    assert arrival is not None
    assert arrival == 1.0


def test_every_row_labelled_in_both_arms_is_alike() -> None:
    arrival = label_arrival([(counted(500, 500), counted(500, 500))])
    assert arrival is not None
    assert arrival == 1.0


def test_too_few_matured_rows_say_nothing() -> None:
    assert label_arrival([]) is None
    assert label_arrival([(counted(1000, 900), counted(MIN_MATURED_ROWS - 1, 5))]) is None


def test_units_whose_labels_stay_away_together_are_one_observation() -> None:
    rng = np.random.default_rng(42)
    plain, robust = [], []
    for _ in range(100):
        labels, buckets = rng.random(400) < 0.5, rng.integers(0, BUCKETS, 400)
        pairs = [
            (ClusteredSums.of(buckets[arm], labels[arm]), int(labels[arm].sum())) for arm in np.split(np.arange(400), 2)
        ]
        busy = [ClusteredSums(50 * sums.rows, 50 * sums.totals) for sums, _ in pairs]
        arrival = label_arrival([(busy[0], busy[1])])
        rows = compare([(share(10_000, 50 * pairs[0][1]), share(10_000, 50 * pairs[1][1]))])
        assert arrival is not None
        assert rows is not None
        robust.append(arrival < BLOCKING_P)
        plain.append(confidence_sequence(rows.effect, alpha=BLOCKING_P, tuning_n=BLOCKING_TUNING_N).p < BLOCKING_P)
    assert np.mean(plain) > 0.25
    assert np.mean(robust) <= 0.02

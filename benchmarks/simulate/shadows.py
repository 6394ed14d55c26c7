"""Lines on pairs: both variants score every row, the other one in shadow; and on labels that the answer decides."""

from functools import partial

import numpy as np
from scipy.special import expit, logit

from benchmarks.simulate import worlds
from benchmarks.simulate.lines import RUNS, SEED, Lines, within
from benchmarks.simulate.looks import LOOKS
from benchmarks.simulate.pairs import Values, rows_to_decide
from benchmarks.simulate.worlds import ROWS
from contender.contracts.metrics import metric_named

RIGHT = 0.95
LOG_LOSS = metric_named("log_loss")


def _ends(rows: int) -> list[int]:
    return (np.arange(1, LOOKS + 1) * rows // LOOKS).tolist()


def shrunk(runs: int) -> tuple[str, bool]:
    """The champion's scores are shrunk by half."""
    random, paired, plain = np.random.default_rng(SEED), [], []
    for _ in range(runs):
        rows = worlds.independent(random)
        losses = [
            LOG_LOSS.row_values("binary", rows.outcomes, scores)
            for scores in (expit(0.5 * logit(rows.scores) - 0.65), rows.scores)
        ]
        own = np.where(rows.arms == 1, losses[1], losses[0])
        paired.append(rows_to_decide(Values(losses[1] - losses[0], rows.buckets), _ends(ROWS)))
        plain.append(rows_to_decide(Values(own, rows.buckets, rows.arms), _ends(ROWS)))
    median = float(np.median([at for at, _ in paired]))
    share, plain_share = (float(np.mean([sign < 0.0 for _, sign in looks])) for looks in (paired, plain))
    came = f"paired {share:.1%} decided, median {median:,.0f} rows (A/B {plain_share:.1%} decided)"
    return f"{came}; wanted 100 %, some 1,200", share == 1.0 and 900.0 <= median <= 1_500.0  # noqa: PLR2004


def same(runs: int) -> tuple[str, bool]:
    """Two models that are equally good."""
    random, alarms = np.random.default_rng(SEED), 0
    for _ in range(runs):
        rows = worlds.independent(random)
        losses = [
            LOG_LOSS.row_values("binary", rows.outcomes, expit(logit(rows.scores) + 0.2 * random.normal(size=ROWS)))
            for _ in range(2)
        ]
        alarms += rows_to_decide(Values(losses[1] - losses[0], rows.buckets), _ends(ROWS))[1] != 0.0
    return f"false alarms {alarms / runs:.1%}; wanted <= 5 %", within(alarms / runs, runs)


def selective(runs: int, *, is_better: bool) -> tuple[str, bool]:
    """Labels come only where the answer lets a case through, or where it is explored."""
    verdicts: dict[str, list[float]] = {"paired": [], "A/B": []}
    for seed in range(runs):
        world = worlds.selective(np.random.default_rng(seed), is_better=is_better)
        rows, seen = world.rows, np.flatnonzero(world.label_probabilities)
        losses = [LOG_LOSS.row_values("binary", rows.outcomes, scores) for scores in world.scores]
        weights = 1.0 / world.label_probabilities[seen]
        own = LOG_LOSS.row_values("binary", rows.outcomes, rows.scores)
        looks = {
            "paired": Values((losses[1] - losses[0])[seen], rows.buckets[seen], weights=weights),
            "A/B": Values(own[seen], rows.buckets[seen], rows.arms[seen], weights),
        }
        for name, values in looks.items():
            verdicts[name].append(rows_to_decide(values, _ends(len(seen)))[1])
    right = -1.0 if is_better else 1.0
    shares = {name: np.mean(np.array(signs) == right) for name, signs in verdicts.items()}
    wrong = {name: np.mean(np.array(signs) == -right) for name, signs in verdicts.items()}
    came = ", ".join(f"{name} right {shares[name]:.1%}, wrong {wrong[name]:.1%}" for name in shares)
    return f"{came}; wanted paired right >= 95 %", bool(shares["paired"] >= RIGHT)


LINES: Lines = {
    "paired, scores shrunk by half": (shrunk, 150),
    "paired, equally good": (same, RUNS),
    "labels where let through, better": (partial(selective, is_better=True), 40),
    "labels where let through, worse": (partial(selective, is_better=False), 40),
}

"""A further metric is one module and one line: in a copy of the packages that has one, everything else knows it."""

from pathlib import Path

from tests.layout.package_copy import add_entry, copy_packages, run_checks

TUPLE = "METRICS: tuple[Metric, ...] = ("
TOY = '''"""How far a probability is from the outcome."""

import numpy as np

from contender.contracts.metrics.metric import Floats, Metric
from contender.contracts.tasks import BINARY


def distance(outcomes: Floats, scores: Floats) -> Floats:
    """The size of the difference."""
    return np.abs(outcomes - scores)


DISTANCE = Metric("distance", "distance to the outcome", values={BINARY.name: distance})
'''


def test_a_metric_that_is_a_mean_is_one_module_and_one_line(tmp_path: Path) -> None:
    copy_packages(tmp_path)
    metrics = tmp_path / "contender" / "contracts" / "metrics"
    (metrics / "distance.py").write_text(TOY)
    line = "from contender.contracts.metrics.distance import DISTANCE"
    add_entry(metrics / "__init__.py", TUPLE, line, "DISTANCE")
    assert run_checks(tmp_path, "metric_checks.py") == "distance decides\n"

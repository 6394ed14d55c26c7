"""What the web process knows of experiments, whatever lies in their topic."""

import msgspec
import pytest

from services.feedback_service.experiments import ExperimentsFromKafka
from shared.topics import EXPERIMENTS
from tests.experiment_revisions import revision

REVISION = revision()


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"nonsense",
        b'{"name":"\xff"}',
        b'{"name":' + b"[" * 100_000,
        b'{"x":' + b"[" * 100_000,
        b"[]",
        b"\x00",
    ],
)
def test_a_record_that_tells_of_no_experiment_changes_nothing_and_those_behind_it_count(value):
    experiments = ExperimentsFromKafka("")
    experiments.apply(EXPERIMENTS.encode(REVISION), 0)
    experiments.apply(value, 1)
    assert experiments.all() == [REVISION]
    newer = msgspec.structs.replace(REVISION, revision=2, status="stopped")
    experiments.apply(EXPERIMENTS.encode(newer), 2)
    assert experiments.all() == [newer]

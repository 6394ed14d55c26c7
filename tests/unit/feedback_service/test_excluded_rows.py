"""Rows that got a variant and don't count: the join leaves them out, and their feedback too."""

from services.feedback_service.changes import InMemoryTable
from services.feedback_service.join import Join, SourceOffset
from shared.events import FeedbackFrame, FeedbackGiven, PredictionBlock, PredictionFrame


def block(units: list[str], **changes) -> PredictionBlock:
    given = {
        "model": "m",
        "version": "v",
        "task": "binary",
        "classes": [0, 1],
        "variant": "new",
        "served_variant": "new",
        "revision": 2,
        "epoch": 1,
        "unit": units,
        "time": [1.0] * len(units),
        "score": [0.5] * len(units),
    }
    return PredictionBlock(**{**given, **changes})


def test_rows_of_testers_are_in_no_counts_and_the_rows_behind_them_keep_their_numbers():
    table = InMemoryTable()
    join = Join(lambda _: table)
    join.assign([0])
    forced = block(["tester", ""], excluded_from="e", exclusion="forced")
    counted = block(["user-1"], experiment="e", window_s=100.0, assignment_probability=0.5)
    partition = join.partitions[0]
    partition.record_predictions("f", PredictionFrame([forced, counted]), SourceOffset(0))
    given = [FeedbackGiven("f", row, 1, 2.0) for row in (0, 1, 2)]
    partition.record_feedback(FeedbackFrame(given), SourceOffset(0))
    (experiment,) = partition.aggregates.experiments.values()
    groups = list(experiment.groups.values())
    assert [(group.key.experiment, group.key.variant) for group in groups] == [("e", "new")]
    counts = partition.aggregates.status(0.0).counts
    assert (counts.predictions, counts.no_experiment) == (3, 2)

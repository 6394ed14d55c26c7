"""Everything that the worlds use of the project, so that a moved name changes this file alone.

Run every file with the project's root as working directory and the project's own Python.
Nothing here asks a running stack.
"""

import asyncio
import os
import sys
from math import inf

import numpy as np

sys.path.insert(0, os.getcwd())

from benchmarks.simulate.looks import row_looks
from benchmarks.simulate.worlds import Rows
from contender.contracts.experiments import ExperimentRevision, VariantAllocation
from contender.contracts.metrics import metric_named
from services.feedback_service.changes import InMemoryTable
from services.feedback_service.domain.confidence import confidence_sequence, half_width  # noqa: F401
from services.feedback_service.domain.memory import Memory
from services.feedback_service.domain.results import results_of
from services.feedback_service.domain.split import (  # noqa: F401
    clustered_split_p,
    label_arrival,
    log_split_e_value,
)
from services.feedback_service.domain.sums.area import AreaUnderCurve
from services.feedback_service.domain.sums.mean import ClusteredSums, compare_clustered
from services.feedback_service.domain.sums.metric_sums import LabelledRows
from services.feedback_service.domain.sums.units import BUCKETS
from services.feedback_service.join import Join, SourceOffset
from services.feedback_service.store import InMemorySnapshots
from shared.events import FeedbackFrame, FeedbackGiven, PredictionBlock, PredictionFrame

MIN_ROWS = 100
ALPHA, TUNING_N = 0.05, 5000
UPDATE_LIMIT = 10


def row_values(metric, task, outcomes, scores):
    """One value of a mean metric per row."""
    return metric_named(metric).row_values(task, outcomes, scores)


def mean_effect(champion, challenger):
    """The look at challenger minus champion; each arm is a pair (rows per unit bucket, totals per unit bucket)."""
    comparison = compare_clustered([(ClusteredSums(*champion), ClusteredSums(*challenger))])
    return None if comparison is None else confidence_sequence(comparison.effect, alpha=ALPHA, tuning_n=TUNING_N)


def effects(rows, metric, looks=100):
    """The row number and the effect at each look that a verdict could rest on, as `worlds.effects` gives them."""
    return row_looks(rows_of(rows), metric_named(metric), looks)


def rows_of(rows):
    """The rows of a world as the product's own simulation has them."""
    return Rows(rows.arm, rows.bucket, rows.outcome, rows.score, rows.task)


def auc_of(outcomes, scores):
    """The AUC of one arm of independent rows with its standard error, from the bins in which the project counts."""
    outcomes, scores = np.asarray(outcomes, dtype=float), np.asarray(scores, dtype=float)
    buckets = (np.arange(len(scores)) % BUCKETS).astype(np.uint8)
    keys, counts = AreaUnderCurve.additions(
        metric_named("auc"), LabelledRows("binary", outcomes, scores, None, buckets)
    )
    return AreaUnderCurve.read({}, dict(enumerate(np.bincount(keys, counts)))).estimate


def arrival_p(champion, challenger):
    """The p-value of labels arriving alike; each arm is a pair (matured rows, labelled rows) per unit bucket."""
    p = label_arrival([(ClusteredSums(*champion), ClusteredSums(*challenger))])
    return 1.0 if p is None else p


class Experiment:
    """One experiment, driven through the feedback service's own join and results: no HTTP, no Kafka."""

    def __init__(
        self,
        variants=("champion", "challenger"),
        *,
        task="binary",
        metric="log_loss",
        window_s=3600.0,
        missing="excluded",
    ):
        self.names, self.task, self.window_s, self.missing = variants, task, window_s, missing
        self.weights = [1.0 / len(variants)] * len(variants)
        self.frames = self.feedback_frames = 0
        self.memory = Memory()
        self.join = Join([InMemoryTable()].__getitem__)
        self.join.assign([0])
        self.revision = ExperimentRevision(
            name="e", model="m", revision=1, epoch=1, status="running", seed="s", champion=variants[0], metric=metric,
            variants=[VariantAllocation(n, "v-" + n, w) for n, w in zip(variants, self.weights, strict=True)],
            window_s=window_s, missing=missing, changed_at=0.0, started_at=0.0, clock="event", cycle_days=0,
            cycle_reason="a case",
        )  # fmt: skip

    def predict(self, arm, unit, time, score):
        """Record one frame of rows, given as arrays; returns the address of each row."""
        frame_id = f"f{self.frames}"
        blocks, addresses, row = [], [None] * len(arm), 0
        for index, name in enumerate(self.names):
            rows = np.flatnonzero(np.asarray(arm) == index)
            if not len(rows):
                continue
            for j in rows:
                addresses[j] = (frame_id, row)
                row += 1
            blocks.append(
                PredictionBlock(
                    model="m",
                    version="v-" + name,
                    task=self.task,
                    classes=[] if self.task == "regression" else [0, 1],
                    experiment="e",
                    revision=1,
                    epoch=1,
                    window_s=self.window_s,
                    missing=self.missing,
                    label_range=(-20.0, 20.0) if self.task == "regression" else None,
                    variant=name,
                    served_variant=name,
                    assignment_probability=self.weights[index],
                    unit=[str(unit[j]) for j in rows],
                    time=[float(time[j]) for j in rows],
                    score=[float(score[j]) for j in rows],
                )
            )
        self.join.partitions[0].record_predictions(frame_id, PredictionFrame(blocks), SourceOffset(self.frames))
        self.frames += 1
        return addresses

    def feedback(self, addresses, outcomes, given_at):
        """Record outcomes for rows."""
        events = [FeedbackGiven(f, r, o, float(t)) for (f, r), o, t in zip(addresses, outcomes, given_at, strict=True)]
        self.join.partitions[0].record_feedback(FeedbackFrame(events), SourceOffset(self.feedback_frames))
        self.feedback_frames += 1

    def results(self):
        """The results once everything that was sent has been read; without feedback that is not known."""
        aggregates, snapshots = self.join.partitions[0].aggregates, InMemorySnapshots()
        aggregates.note_ends(aggregates.request_ends(inf), predictions=self.frames, feedback=self.feedback_frames or 1)
        self.join.partitions[0].flush()
        aggregates.publish_again()

        async def published():
            for update in aggregates.updates(UPDATE_LIMIT):
                await snapshots.write(update)
            await snapshots.write_status(aggregates.status(0.0))
            return await snapshots.read("e")

        look = results_of("e", self.revision, asyncio.run(published()), 0.0, self.memory)
        self.memory = look.memory
        return look.results

"""Shadow scores make pairs with the rows that were answered, once each; selective labels are weighted."""

import pytest
from msgspec.structs import replace

from contender.contracts.feedback_service import Counts
from services.feedback_service.domain.groups import Group, GroupKey
from services.feedback_service.domain.snapshots import CohortSnapshot
from services.feedback_service.join import Join, Limits
from tests.unit.feedback_service.test_join import (
    WINDOW_S,
    apply,
    block,
    feedback,
    flush,
    joined,
    numbers,
    predictions,
    shadow,
    shadows,
)

FRAME = predictions("f", block(rows=2, score=[0.2, 0.4]))
SHADOW = shadows(shadow(score=[0.3, 0.9]))
LABELS = feedback(("f", 0, 1, 5.0), ("f", 1, 0, 5.0))
DIFFERENCE = (0.7**2 - 0.8**2) + (0.9**2 - 0.4**2)


def pairs(join: Join) -> list[CohortSnapshot]:
    return [cohort for group in numbers(join).groups if group.paired for cohort in group.cohorts]


def after(*records) -> Join:
    join = joined()
    for record in records:
        apply(join, record)
    return join


@pytest.mark.parametrize("order", [(FRAME, SHADOW, LABELS), (FRAME, LABELS, SHADOW), (LABELS, FRAME, SHADOW)])
def test_a_pair_is_the_challengers_value_minus_the_champions_whenever_the_label_comes(order):
    (cohort,) = pairs(after(*order))
    assert (cohort.counts.predictions, cohort.counts.labelled) == (2, 2)
    assert sum(cohort.labelled.totals["brier"].values()) == pytest.approx(DIFFERENCE)
    assert set(cohort.labelled.totals) == {"log_loss", "brier", "accuracy"}  # means alone


def test_the_sign_is_that_of_the_challenger_where_the_champion_scores_in_shadow():
    frame = predictions("f", block("challenger", score=[0.3, 0.9]))
    join = after(frame, shadows(shadow(variant="champion", score=[0.2, 0.4])), LABELS)
    (group,) = [group for group in numbers(join).groups if group.paired]
    assert (group.variant, group.versions) == ("challenger", ["v-challenger"])
    assert sum(group.cohorts[0].labelled.totals["brier"].values()) == pytest.approx(DIFFERENCE)


def test_a_corrected_label_takes_the_old_difference_back():
    straight = after(FRAME, SHADOW, feedback(("f", 0, 0, 6.0)))
    corrected = after(FRAME, SHADOW, feedback(("f", 0, 1, 5.0)), feedback(("f", 0, 0, 6.0), offset=1))
    assert pairs(straight)[0].labelled == pairs(corrected)[0].labelled


def test_a_row_that_a_variant_scores_twice_counts_once():
    again = shadows(shadow(score=[0.6, 0.6]), shadow(rows=[1, 1]), offset=2)
    assert pairs(after(FRAME, SHADOW, again, LABELS)) == pairs(after(FRAME, SHADOW, LABELS))
    assert pairs(after(FRAME, SHADOW, SHADOW, LABELS)) == pairs(after(FRAME, SHADOW, LABELS))


def test_shadow_scores_count_for_no_variant():
    alone, paired = numbers(after(FRAME, LABELS)), numbers(after(FRAME, SHADOW, LABELS))
    assert [group for group in paired.groups if not group.paired] == alone.groups
    assert paired.counts == alone.counts


@pytest.mark.parametrize(
    "changes",
    [
        {"frame_id": "never"},
        {"experiment": "other"},
        {"rows": (7, 8)},
        {"rows": (-1, -2)},
        {"champion": "third"},
        {"variant": "champion"},
        {"score": [1.5, 0.5]},
        {"score": [[0.5, 0.5], [0.5, 0.5]]},
    ],
)
def test_a_shadow_that_fits_no_row_is_left_out(changes):
    assert pairs(after(FRAME, shadows(shadow(**changes)), LABELS)) == []


@pytest.mark.parametrize("changes", [{"score": [0.5]}, {"label": [1]}, {"version": "v" * 201}])
def test_a_shadow_of_a_wrong_shape_is_refused(changes):
    join = after(FRAME)
    with pytest.raises(ValueError, match=r"shadows\[0\]"):
        apply(join, shadows(shadow(**changes)))
    assert pairs(join) == []


def test_rows_that_a_fallback_answered_are_in_no_pair():
    frame = predictions("f", block("challenger", served_variant="champion"))
    assert pairs(after(frame, shadows(shadow(variant="champion")))) == []


def test_a_shadow_before_its_frame_is_left_out_even_when_it_is_read_again():
    late = predictions("f", block(rows=2), offset=1)
    early = shadows(shadow(), offset=0)
    join = after(early, late)
    join.partitions[0].table.local.write(join.partitions[0].flush()[:-1])  # a crash before the marks
    join.assign([0])
    for record in (early, late):
        apply(join, record)
    assert pairs(join) == []


def test_a_shadow_goes_with_its_frame_and_one_that_comes_later_is_left_out():
    join = joined(Limits(retention_s=50.0))
    apply(join, predictions("f", block(rows=2), sent_at=0.0))
    apply(join, shadows(shadow(), sent_at=1.0))
    flush(join)
    before = pairs(join)
    assert [key for key in join.partitions[0].table.local.values if key.startswith(b"s/")] == [b"s/f"]
    flush(join, expire_until=2 * WINDOW_S + 50, expire_limit=10)
    assert [key for key in join.partitions[0].table.local.values if key[:2] in {b"s/", b"f/"}] == []
    apply(join, shadows(shadow(variant="third"), offset=2))
    assert pairs(join) == before


def test_a_regressions_pair_counts_where_both_scores_can_be_judged():
    numeric = {"task": "regression", "classes": []}
    frame = predictions("f", block(rows=2, score=[1.0, 2.0], **numeric))
    join = after(frame, shadows(shadow(score=[3.0, 1e80])), feedback(("f", 0, 2.0, 5.0), ("f", 1, 2.0, 5.0)))
    (cohort,) = pairs(join)
    assert sum(cohort.labelled.rows.values()) == 1
    assert cohort.labelled.totals["absolute_error"] == {}  # both are off by one


def test_a_paired_group_has_an_id_of_its_own_and_others_keep_theirs():
    key = GroupKey("e", 1, "challenger", "binary", 100.0, "excluded")
    assert Group(key, "m").id.hex() == "b70215b68649567c5673af138a7603f4"
    assert Group(replace(key, paired=True), "m").id != Group(key, "m").id


def test_a_labelled_row_counts_for_all_that_it_stands_for():
    frame = predictions("f", block(rows=3, score=[0.2, 0.4, 0.6], label_probability=[1.0, 0.01, 0.0]))
    join = after(frame, feedback(*(("f", row, 1, 5.0) for row in range(3))))
    (group,) = numbers(join).groups
    (cohort,) = group.cohorts
    assert (cohort.counts.labelled, cohort.counts.refused, numbers(join).counts.refused) == (2, 1, 1)
    assert sorted(cohort.labelled.rows.values()) == [1, 100]
    assert sum(cohort.labelled.totals["brier"].values()) == pytest.approx(0.8**2 + 100 * 0.6**2)
    assert sum(cohort.labelled.totals["auc"].values()) == 101


def test_a_missing_label_that_means_negative_counts_for_all_that_its_row_stands_for():
    weighted = block(rows=3, missing="negative", label_probability=[0.5, 0.0, 1.0])
    (cohort,) = numbers(after(predictions("f", weighted), feedback(("f", 2, 1, 5.0)))).groups[0].cohorts
    assert (sum(cohort.assumed.rows.values()), sum(cohort.labelled.rows.values())) == (2, 1)


def test_a_pair_is_of_the_epoch_in_which_its_unit_was_assigned():
    frame = predictions("f", block(rows=2, epoch=1))  # a sticky unit's, scored in a later epoch
    (group,) = [group for group in numbers(after(frame, shadows(shadow(epoch=3)))).groups if group.paired]
    assert (group.epoch, group.cohorts[0].counts.predictions) == (1, 2)


@pytest.mark.parametrize(
    ("answered", "scored", "equal", "distance"),
    [
        ({"score": [0.2, 0.4]}, {"score": [0.3, 0.9]}, 1, 0.6),
        ({"score": [0.2, 0.4], "label": [1, 1]}, {"score": [0.3, 0.9], "label": [0, 1]}, 1, 0.6),
        ({"score": [0.2, 0.4], "label": [1, 1]}, {"score": [0.3, 0.9]}, 1, 0.6),
        (
            {"task": "multiclass", "classes": [1, 2, 3], "score": [[0.1, 0.7, 0.2], [0.5, 0.3, 0.2]]},
            {"score": [[0.1, 0.5, 0.4], [0.0, 0.8, 0.2]]},
            1,
            0.2 + 0.5,
        ),
        ({"task": "regression", "classes": [], "score": [1.0, 2.0]}, {"score": [3.0, 1e80]}, None, 2.0 + 1e75),
    ],
)
def test_pairs_without_labels_tell_how_far_two_variants_agree(answered, scored, equal, distance):
    (cohort,) = pairs(after(predictions("f", block(**answered)), shadows(shadow(**scored))))
    sums = cohort.ledgers["agreement"]
    assert sum(sums.rows.values()) == 2
    assert sum(sums.totals["score difference"].values()) == pytest.approx(distance)
    found = sums.totals.get("equal labels")
    assert (None if found is None else sum(found.values())) == equal


def test_weights_apply_to_pairs():
    frame = predictions("f", block(score=[0.2, 0.4], label_probability=[0.01, 0.0]))
    (cohort,) = pairs(after(frame, SHADOW, LABELS))
    assert sum(cohort.labelled.rows.values()) == 100
    assert sum(cohort.labelled.totals["brier"].values()) == pytest.approx(100 * (0.7**2 - 0.8**2))


@pytest.mark.parametrize("wrong", [[1.0], [0.3, 1.0], [1.5, 1.0], [-0.5, 1.0], [1e-300, 1.0], [float("nan"), 1.0]])
def test_a_label_probability_that_is_not_one_over_a_whole_number_is_refused(wrong):
    join = joined()
    with pytest.raises(ValueError, match="label_probability"):
        apply(join, predictions("f", block(label_probability=wrong)))
    assert numbers(join).counts == Counts()


def test_a_third_is_one_over_a_whole_number_within_rounding():
    thirds = after(predictions("f", block(label_probability=[1 / 3, 1.0])), LABELS)
    assert sum(numbers(thirds).groups[0].cohorts[0].labelled.rows.values()) == 4

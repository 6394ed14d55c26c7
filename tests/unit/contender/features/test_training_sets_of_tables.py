"""Training sets from frames and files, small and large, what is refused, and what is recorded of them."""

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

from contender.features import (
    DefinitionError,
    EventSource,
    FeatureView,
    TrainingSetError,
    count,
    distinct_count,
    last,
    last_n,
    mean,
    on_demand,
    std,
)
from contender.registration import export_pipeline
from contender.training import Catalogue, TrainingSet, build_training_set
from tests.unit.contender.features.traffic import CARS, EVENTS, LANE, ROAD, at, cars, view

MEANS = view(mean("speed", "1m"), count("1m"))
LIMITED = at(65, 65, 500).with_columns(pl.Series("limit", [4.0, None, 4.0]))


@on_demand(request={"limit": float}, inputs=["cars:mean_speed_1m"], features={"over": int, "share": float})
def limits(limit, speed):
    """How much the cars are over the limit."""
    return {"over": speed - limit, "share": speed / limit}


@pytest.mark.parametrize(
    ("events", "message"),
    [
        (EVENTS.drop("speed"), "events of 'cars' have no column 'speed'; there are event_timestamp"),
        (EVENTS.with_columns(speed=pl.lit(None, pl.Float64)), "'speed' holds 4 nulls"),
        (EVENTS.with_columns(speed=pl.lit("x")), "'speed' is String, not numbers"),
        (EVENTS.with_columns(speed=pl.lit(float("nan"))), "NaN or infinity"),
        (EVENTS.with_columns(seats=pl.lit(1.5)), "'seats' is Float64, not whole numbers"),
        (EVENTS.with_columns(road=pl.lit(None, pl.String)), "'road' holds 4 nulls"),
        (EVENTS.with_columns(road=pl.lit(1.0)), "'road' is Float64, not text"),
        (EVENTS.with_columns(event_timestamp=pl.lit("noon")), "a time is seconds since the Unix epoch"),
        (EVENTS.with_columns(event_timestamp=pl.lit(1.7e12)), "divide milliseconds by 1000"),
        (EVENTS.with_columns(event_timestamp=pl.lit(None, pl.Float64)), "'event_timestamp' holds 4 nulls"),
        (EVENTS.drop("event_timestamp"), "no column 'event_timestamp'"),
    ],
)
def test_events_that_do_not_fit_are_refused(events, message):
    with pytest.raises(TrainingSetError, match=message):
        build_training_set(view(mean("speed", "1m"), last("seats", "1m")), at(65), {"cars": events})


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (at(65).drop("time"), "rows have no column 'time'"),
        (at(65).drop("road"), "rows have no column 'road'"),
        (at(65).with_columns(time=pl.lit(None, pl.Float64)), "'time' holds 1 nulls"),
        (at(65).with_columns(road=pl.lit(True)), "'road' is Boolean"),
        (at(65).with_columns(cars__count_1m=1), "already have a column 'cars__count_1m'"),
        ("rows.txt", "no file 'rows.txt'"),
    ],
)
def test_rows_that_do_not_fit_are_refused(rows, message):
    with pytest.raises(TrainingSetError, match=message):
        build_training_set(view(count("1m")), rows, {"cars": EVENTS})


def test_a_source_without_events_or_history_is_told():
    with pytest.raises(TrainingSetError, match=r"source 'cars' has no events.*history="):
        build_training_set(view(count("1m")), at(65))


def test_two_views_of_one_name_are_refused():
    with pytest.raises(DefinitionError, match="two different definitions"):
        build_training_set([view(count("1m")), view(count("2m"))], at(65), {"cars": EVENTS})


@pytest.mark.parametrize("zone", [None, "UTC", "America/New_York"])
def test_datetimes_are_taken_as_what_they_are(zone):
    def moved(table: pl.DataFrame, name: str) -> pl.DataFrame:
        dates = pl.from_epoch((pl.col(name) * 1e6).cast(pl.Int64), "us")
        return table.with_columns((dates if zone is None else dates.dt.replace_time_zone("UTC")).alias(name))

    rows, events = moved(at(65.5), "time"), moved(EVENTS, "event_timestamp")
    if zone:
        rows = rows.with_columns(pl.col("time").dt.convert_time_zone(zone))
    built = build_training_set(view(count("1m")), rows, {"cars": events})
    assert built["cars__count_1m"].to_list() == [4]
    assert built["time"].dtype == rows["time"].dtype


def test_pandas_frames_are_taken_too():
    events = pd.DataFrame(EVENTS.to_dict(as_series=False))
    events["event_timestamp"] = pd.to_datetime(events["event_timestamp"], unit="s", utc=True)
    rows = pd.DataFrame({"time": [datetime.fromtimestamp(65, UTC)], "road": ["a"], "limit": [None]})
    built = build_training_set(view(count("1m"), last("seats", "1m")), rows, {"cars": events})
    assert built.iloc[:, -2:].to_numpy().tolist() == [[4, 5]]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Events of many roads in three Parquet and three CSV files."""
    drawn = np.random.default_rng(7)
    for number in range(3):
        table = cars(*zip(drawn.uniform(0, 1000, 400).round(3), drawn.normal(50, 9, 400), strict=True)).with_columns(
            road=pl.Series(drawn.integers(0, 12, 400)).cast(pl.String).str.zfill(3)
        )
        table.write_parquet(tmp_path / f"{number}.parquet")
        table.write_csv(tmp_path / f"{number}.csv")
    return tmp_path


@pytest.mark.parametrize("pattern", ["*.parquet", "*.csv"])
@pytest.mark.parametrize("as_known", [False, True])
def test_a_history_larger_than_memory_gives_the_same_values(files, pattern, as_known):
    source = EventSource("cars", CARS.schema, history=str(files / pattern), ingested_at="known")
    features = [mean("speed", "1m", "all"), std("speed", "2m"), last_n("seats", 2, "5m"), distinct_count("plate", "2m")]
    views = [
        FeatureView("roads", ROAD, source, features, hop="10s"),
        FeatureView("lanes", [ROAD, LANE], source, features, hop="30s"),
        FeatureView("everything", None, source, features, hop="1m"),
    ]
    drawn = np.random.default_rng(8)
    roads = pl.Series(drawn.integers(0, 14, 300)).cast(pl.String).str.zfill(3)
    rows = pl.DataFrame({"time": drawn.uniform(0, 1100, 300), "road": roads, "lane": drawn.integers(1, 3, 300)})
    rows.write_csv(files / "rows.txt.csv")
    frame = pl.concat([pl.read_parquet(file) for file in sorted(files.glob("[0-9].parquet"))])
    in_one = build_training_set(views, rows, {"cars": frame}, as_known=as_known)
    (files / "rows.txt.csv").unlink()
    by_bucket = build_training_set(views, rows, as_known=as_known, memory_rows=150)
    assert in_one["roads__mean_speed_1m"].null_count() < 100
    assert by_bucket.columns == in_one.columns
    for name in in_one.columns:
        whole, split = in_one[name], by_bucket[name]
        assert whole.dtype == split.dtype
        if whole.dtype == pl.Float64:
            assert ((whole - split).abs().fill_null(0) <= 1e-9 * whole.abs().fill_null(0) + 1e-12).all()
        else:
            assert whole.equals(split)
    assert by_bucket["time"].to_list() == rows["time"].to_list()


def test_text_keys_of_csv_files_keep_their_zeros(tmp_path):
    (tmp_path / "events.csv").write_text("time,road\n50,007\n51,7\n")
    (tmp_path / "rows.csv").write_text("time,road\n60,007\n60,07\n")
    source = EventSource("cars", {"road": str}, history=str(tmp_path / "events.csv"))
    built = build_training_set(FeatureView("cars", ROAD, source, [count("1m")], hop="10s"), tmp_path / "rows.csv")
    assert built.rows() == [(60, "007", 1), (60, "07", 0)]


def test_request_columns_of_csv_files_are_read_in_their_types(tmp_path):
    @on_demand(request={"limit": float, "lanes": int, "wet": bool, "town": str}, features={"told": str})
    def told(limit, lanes, wet, town):
        listed = zip(limit, lanes, wet, town, strict=True)
        return np.array(
            [f"{limit_of_row} {lane} {is_wet} {name}" for limit_of_row, lane, is_wet, name in listed], dtype=object
        )

    (tmp_path / "rows.csv").write_text("time,limit,lanes,wet,town\n60,50,2,true,007\n61,2.5,,false,\n")
    built = build_training_set(told, tmp_path / "rows.csv")
    assert built["told__told"].to_list() == ["50.0 2.0 1.0 007", "2.5 nan 0.0 None"]


def test_a_join_key_that_is_a_request_column_too_is_read_in_its_type(tmp_path):
    @on_demand(request={"lane": int}, inputs=["lanes:count_1m"], features={"twice": int})
    def twice(lane, cars):
        return lane * cars

    (tmp_path / "rows.csv").write_text("time,lane\n65,2\n")
    catalogue = Catalogue.of([FeatureView("lanes", LANE, CARS, [count("1m")], hop="10s"), twice])
    built = build_training_set(["twice:twice"], tmp_path / "rows.csv", {"cars": EVENTS}, catalogue=catalogue)
    assert built["twice__twice"].to_list() == [4]


def test_rows_of_csv_files_in_another_type_are_refused(tmp_path):
    (tmp_path / "rows.csv").write_text("time,road,limit\n60,a,fast\n")
    with pytest.raises(TrainingSetError, match=r"rows .*rows\.csv.* can't be read"):
        build_training_set(limits, tmp_path / "rows.csv", {"cars": EVENTS}, catalogue=Catalogue.of([MEANS, limits]))


def test_other_files_are_refused(tmp_path):
    (tmp_path / "events.txt").write_text("time,road\n")
    with pytest.raises(TrainingSetError, match=r"only .parquet or .csv"):
        build_training_set(view(count("1m")), at(65), {"cars": tmp_path / "events.txt"})


def test_memory_must_hold_one_event():
    with pytest.raises(TrainingSetError, match="memory_rows is 0"):
        build_training_set(view(count("1m")), at(65), {"cars": EVENTS}, memory_rows=0)


def test_the_result_can_be_written(tmp_path):
    built = build_training_set(view(count("1m")), at(65), {"cars": EVENTS}, to=tmp_path / "training.parquet")
    assert pl.read_parquet(tmp_path / "training.parquet").equals(built)


def test_no_rows_give_no_rows():
    assert build_training_set(view(count("1m"), last_n("speed", 2, "all")), at(), {"cars": EVENTS}).height == 0


# The record


def test_a_training_set_tells_what_it_was_made_from(files):
    catalogue = Catalogue.of([MEANS, limits])
    history = str(files / "*.parquet")
    asked = ["cars:count_1m", "limits:over"]
    built = TrainingSet.build(asked, LIMITED, {"cars": history}, catalogue=catalogue, as_known=True, seed=7)
    digests = {version.label: version.digest for version in catalogue.versions}
    record = built.manifest
    assert record["features"] == {"cars__count_1m": "cars@1:count_1m", "limits__over": "limits@1:over"}
    assert record["definitions"] == {"cars@1": digests["cars@1"], "limits@1": digests["limits@1"]}
    first_file = files / "0.parquet"
    assert record["sources"]["cars"]["files"][str(first_file)] == hashlib.sha256(first_file.read_bytes()).hexdigest()
    assert (record["rows"]["count"], record["seed"], record["as_known"]) == (3, 7, True)
    assert json.loads(json.dumps(record)) == record
    assert built.rows.height == 3


def test_the_record_changes_with_any_value_and_only_then():
    def record(rows: pl.DataFrame = LIMITED, events: pl.DataFrame = EVENTS) -> dict:
        return TrainingSet.build(MEANS, rows, {"cars": events}).manifest

    assert record() == record(LIMITED.clone(), EVENTS.clone())
    other = record(events=EVENTS.with_columns(plate=pl.lit("x")))
    assert other["sources"] != record()["sources"]
    assert other["rows"] == record()["rows"]
    shifted = LIMITED.with_columns(limit=pl.col("limit").fill_null(1.0))
    assert record(shifted)["rows"]["sha256"] != record()["rows"]["sha256"]


def test_a_view_that_the_catalogue_has_not_is_told_by_its_digest():
    other = view(count("1m"), hop="30s")
    built = TrainingSet.build(other, at(65), {"cars": EVENTS}, catalogue=Catalogue.of([MEANS]))
    assert list(built.manifest["definitions"]) == ["cars"]


def test_a_model_takes_the_record_of_its_training_set_into_its_manifest():
    built = TrainingSet.build(MEANS, at(62, 65, 70, 75), {"cars": EVENTS})
    columns = pd.DataFrame({"cars": built.rows["cars__count_1m"].to_numpy().astype(np.float64)})
    fitted = Pipeline([("model", LogisticRegression())]).fit(columns, [0, 1, 0, 1])
    exported = export_pipeline(fitted, columns, training_set=built)
    assert exported.manifest["training_set"] == built.manifest
    assert "training_set" not in export_pipeline(fitted, columns).manifest


def test_rows_of_pandas_come_back_as_pandas_with_their_index_and_types():
    rows = pd.DataFrame(
        {"time": pd.to_datetime([25, 5], unit="s", utc=True), "road": ["a", "b"], "label": [True, False]}, index=[7, 3]
    )
    features = view(count("20s"), mean("speed", "20s"), last_n("speed", 2, "20s"))
    built = TrainingSet.build(features, rows, {"cars": cars((11, 4.0), (12, 8.0))}).rows
    assert isinstance(built, pd.DataFrame)
    pd.testing.assert_frame_equal(built[rows.columns], rows)
    assert built["cars__count_20s"].tolist() == [2, 0]
    assert built["cars__count_20s"].dtype == np.int64
    assert built["cars__mean_speed_20s"].tolist()[0] == 6.0
    assert np.isnan(built["cars__mean_speed_20s"].tolist()[1])
    assert built["cars__last_2_speed_20s"].tolist()[0] == [8.0, 4.0]
    assert isinstance(build_training_set(features, rows, {"cars": cars((11, 4.0))}), pd.DataFrame)

"""A file is scored so that every row is recorded once, however often the run is ended."""

import json
from datetime import UTC, datetime
from pathlib import Path

import httpx
import msgspec
import polars as pl
import pytest
from typer.testing import CliRunner

from contender import Client, scoring
from contender.cli import app
from contender.commands import calls, score
from contender.commands.terminal import console
from contender.contracts.ab_router import PREDICT_BATCH, PredictionRows
from contender.contracts.feature_service import ViewDescription
from contender.contracts.inference_service import InputColumn, ModelVersion
from contender.errors import ContenderError, RefusedError
from contender.scoring import RowColumns, columns_of, describe, score_file
from tests.unit.contender.installation import Installation

COLUMNS = RowColumns(unit="user", entities={"customer": "customer_id"}, inputs=["age"])


class Router:
    """Answers batches, each request id once; what it records is in `recorded`."""

    def __init__(self, fail_at: int = -1, refused_age: float = -1.0) -> None:
        self.recorded: list[dict[str, object]] = []
        self.answers: dict[str, bytes] = {}
        self.fail_at = fail_at
        self.refused_age = refused_age
        self.statuses: list[int] = []

    def client(self) -> Client:
        return Client("http://router.test", transport=httpx.MockTransport(self._serve))

    def _serve(self, request: httpx.Request) -> httpx.Response:
        if self.statuses:
            return httpx.Response(self.statuses.pop(0), json={"detail": "later"})
        batch = msgspec.json.decode(request.content, type=PredictionRows)
        if batch.request_id not in self.answers:
            if len(self.answers) == self.fail_at:
                return httpx.Response(500, json={"detail": "ended"})
            self.answers[batch.request_id] = self._answer(batch)
        content = self.answers[batch.request_id]
        return httpx.Response(422 if b'"errors"' in content and b"predictions" not in content else 200, content=content)

    def _answer(self, batch: PredictionRows) -> bytes:
        rows, errors = [], []
        for number, row in enumerate(batch.rows):
            if row.inputs["age"] == self.refused_age:
                errors.append({"field": f"rows[{number}].inputs.age", "message": "is out of range"})
                rows.append({"error": {"type": "t", "title": "t", "status": 422, "detail": "inputs.age is bad"}})
                continue
            self.recorded.append(msgspec.to_builtins(row))
            outputs = {"score": 0.5, "label": 1}
            rows.append(
                {**PREDICT_BATCH.answer_example["predictions"][0], "prediction_id": row.unit, "outputs": outputs}
            )
        if len(errors) == len(rows):
            return msgspec.json.encode({"detail": "all are refused", "errors": errors})
        return msgspec.json.encode({"predictions": rows})


def table(folder: Path, rows: int) -> Path:
    path = folder / "in.parquet"
    ages = [None if row % 7 == 0 else float(row) for row in range(rows)]
    pl.DataFrame(
        {"user": [f"u{row}" for row in range(rows)], "customer_id": list(range(rows)), "age": ages}
    ).write_parquet(path)
    return path


def test_every_row_has_its_answer_in_order(tmp_path: Path):
    router, done = Router(), []
    source, target = table(tmp_path, 2_345), tmp_path / "out.parquet"
    scored = score_file(router.client(), "churn", source, target, COLUMNS, batch_rows=100, progress=done.append)
    output = pl.read_parquet(target)
    assert (scored.rows, scored.refused, sum(done)) == (2_345, 0, 2_345)
    assert output["row"].to_list() == list(range(2_345))
    assert output["unit"].to_list() == output["prediction_id"].to_list() == [f"u{row}" for row in range(2_345)]
    assert set(output["score"].to_list()) == {0.5}
    assert {row["unit"]: (row["entities"], row["inputs"]) for row in router.recorded}["u8"] == (
        {"customer": 8},
        {"age": 8.0},
    )
    assert not (tmp_path / "out.parquet.parts").exists()


def test_a_run_that_was_ended_goes_on_and_records_no_row_twice(tmp_path: Path):
    router = Router(fail_at=3)
    source, target = table(tmp_path, 1_000), tmp_path / "out.parquet"
    with pytest.raises(RefusedError, match="ended"):
        score_file(router.client(), "churn", source, target, COLUMNS, batch_rows=100, calls=1)
    assert not target.exists()
    lost = max((tmp_path / "out.parquet.parts").glob("*.parquet"))
    lost.unlink()  # as if the process had been killed between an answer and its part
    router.fail_at = -1
    scored = score_file(router.client(), "churn", source, target, COLUMNS, batch_rows=100)
    assert scored.rows == len(router.recorded) == 1_000
    assert pl.read_parquet(target)["prediction_id"].n_unique() == 1_000


def test_parts_of_another_run_are_not_mixed_in(tmp_path: Path):
    source, target = table(tmp_path, 300), tmp_path / "out.parquet"
    with pytest.raises(RefusedError):
        score_file(Router(fail_at=1).client(), "churn", source, target, COLUMNS, batch_rows=100, calls=1)
    with pytest.raises(ContenderError, match="begun with another batch_rows"):
        score_file(Router().client(), "churn", source, target, COLUMNS, batch_rows=50)


def test_a_refused_row_is_named_and_the_others_are_scored(tmp_path: Path):
    source, target = table(tmp_path, 30), tmp_path / "out.parquet"
    scored = score_file(Router(refused_age=13.0).client(), "churn", source, target, COLUMNS, batch_rows=10)
    assert (scored.rows, scored.refused, scored.first_error) == (30, 1, "row 13: inputs.age is bad")
    assert pl.read_parquet(target)["error"].null_count() == 29


def test_a_batch_of_refused_rows_alone_is_no_end(tmp_path: Path):
    source, target = tmp_path / "in.parquet", tmp_path / "out.parquet"
    pl.DataFrame({"user": ["a", "b"], "customer_id": [1, 2], "age": [-1.0, -1.0]}).write_parquet(source)
    scored = score_file(Router().client(), "churn", source, target, COLUMNS)
    assert (scored.refused, scored.first_error) == (2, "row 0: inputs.age is out of range")


def test_an_overloaded_router_is_asked_again(tmp_path: Path):
    router = Router()
    router.statuses = [503, 429, 409]
    source, target = table(tmp_path, 10), tmp_path / "out.parquet"
    assert score_file(router.client(), "churn", source, target, COLUMNS).rows == 10
    router.statuses = [503]
    with pytest.raises(RefusedError, match="later"):
        score_file(router.client(), "churn", source, tmp_path / "other.parquet", COLUMNS, wait_s=-1.0)


def test_an_empty_file_has_an_empty_output(tmp_path: Path):
    source, target = table(tmp_path, 0), tmp_path / "out.parquet"
    assert score_file(Router().client(), "churn", source, target, COLUMNS).rows == 0
    assert pl.read_parquet(target).columns[:3] == ["row", "unit", "prediction_id"]


def test_values_are_sent_as_json_has_them(tmp_path: Path):
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    frame = pl.DataFrame(
        {"user": [7], "seen": [moment], "age": [float("nan")], "plan": pl.Series(["pro"]).cast(pl.Categorical)}
    )
    columns = RowColumns(unit="user", time="seen", entities={}, context=["plan"], inputs=["age", "seen"])
    (row,) = columns.rows(frame.select(columns.expressions(frame.schema)))
    assert row == {
        "unit": "7",
        "time": moment.timestamp(),
        "entities": {},
        "context": {"plan": "pro"},
        "inputs": {"age": None, "seen": "2026-01-01 00:00:00.000000+00:00"},
    }
    assert json.loads(json.dumps(row)) == row


def test_the_columns_are_those_that_the_versions_and_their_features_take():
    version = ModelVersion(
        model="churn",
        version="v",
        task="binary",
        classes=[0, 1],
        inputs=[InputColumn("age", "float"), InputColumn("spend", "float", source="spending:mean_1h")],
        registered_at=0.0,
    )
    view = ViewDescription(
        name="spending",
        label="spending@1",
        digest="d",
        newest=True,
        join_keys=["customer"],
        request={"basket": "float"},
    )
    names = ["user", "customer", "age", "basket", "left"]
    columns = columns_of(names, [version], [view], unit="user")
    assert (columns.entities, list(columns.inputs)) == ({"customer": "customer"}, ["age", "basket"])
    with pytest.raises(ContenderError, match="no column uid"):
        columns_of(names, [version], [view], unit="uid")
    with pytest.raises(ContenderError, match="--entity customer=COLUMN"):
        columns_of(["user", "age"], [version], [view], unit="user")


def test_a_file_that_is_no_parquet_is_named(tmp_path: Path):
    path = tmp_path / "rows.csv"
    path.write_text("a,b\n1,2\n")
    for bad in (path, tmp_path / "missing.parquet"):
        with pytest.raises(ContenderError, match="can't be read as Parquet"):
            describe(bad)


@pytest.mark.parametrize(("refused", "code"), [(0, 0), (1, 0), (2, 1)])
def test_the_command_fails_where_all_rows_were_refused(tmp_path, monkeypatch, refused, code):
    installation = Installation()
    installation.add("churn", "old")
    monkeypatch.setattr(calls, "Client", lambda: installation.client)
    monkeypatch.setattr(scoring, "columns_of", lambda *_, **__: COLUMNS)
    monkeypatch.setattr(scoring, "score_file", lambda *_, **__: scoring.Scored(2, refused, "row 0: age is missing"))
    source = tmp_path / "in.parquet"
    pl.DataFrame({"user": ["a", "b"], "age": [1.0, 2.0]}).write_parquet(source)
    result = CliRunner().invoke(app, ["score", str(source), str(tmp_path / "out.parquet"), "--model", "churn"])
    assert result.exit_code == code, result.output


def test_who_waits_for_the_router_learns_why(tmp_path):
    router = Router()
    router.statuses = [503, 503]
    source, heard = tmp_path / "in.parquet", []
    pl.DataFrame({"user": ["a"], "customer_id": ["c"], "age": [1.0]}).write_parquet(source)
    scored = score_file(
        router.client(), "churn", source, tmp_path / "out.parquet", COLUMNS, calls=1, waiting=heard.append
    )
    assert (scored.rows, list(map(str, heard))) == (1, ["later", "later"])


def test_the_command_says_once_that_it_waits(capsys):
    say = score._once(console)
    for _ in range(3):
        say(ContenderError("http://router.test does not answer"))
    assert capsys.readouterr().out == "http://router.test does not answer: it is tried again for 5 minutes\n"

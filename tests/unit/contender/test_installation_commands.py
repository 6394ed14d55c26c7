"""`contender export` and `apply` between two installations in memory."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from msgspec.structs import replace
from typer.testing import CliRunner

from contender.cli import app
from contender.commands import calls
from contender.contracts.experiments import Bandit, Canary
from contender.contracts.feature_service import SHOW_DEFINITIONS
from tests.unit.contender.installation import Installation

RUN = CliRunner()
Run = Callable[..., str]
VIEW = {"name": "speeds", "label": "speeds@1", "digest": "d1", "newest": True, "complete": True}


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[Installation], None]:
    monkeypatch.setenv("COLUMNS", "200")

    def use_installation(known: Installation) -> None:
        known.calls.clear()
        monkeypatch.setattr(calls, "Client", lambda: known.client)

    return use_installation


@pytest.fixture
def here(use) -> Installation:
    """Two models; experiments in each state but stopped, one of which was stopped as well."""
    known = Installation()
    old, new = known.add("churn", "old"), known.add("churn", "new")
    known.add("sales", "plain")
    known.champions["churn"] = new
    variants = [{"name": "champion", "version": old, "weight": 0.5}, {"name": "new", "version": new, "weight": 0.5}]
    declared = {"model": "churn", "variants": variants, "window_s": 60.0, "forced": {"no": "new"}, "owner": "grace"}
    for part, name in enumerate(("running", "paused", "over", "draft")):
        namespace = {"name": "page", "start": part / 4, "end": (part + 1) / 4}
        known.declare(**declared, name=name, seed=f"seed of {name}", namespace=namespace)
    alias = [{"name": name, "version": "champion", "weight": 0.5} for name in ("a", "b")]
    known.declare(name="alias", model="churn", variants=alias, canary={"steps": [0.1]}, segments=["plan"])
    known.definitions = {"views": [VIEW]}
    use(known)
    for name, changes in {"running": ["start"], "paused": ["start", "pause"], "over": ["start", "stop"]}.items():
        for change in changes:
            known.client.change(name, change)
    known.client.change("alias", "start")
    known.calls.clear()
    return known


@pytest.fixture
def elsewhere() -> Installation:
    """An installation that holds nothing but the same feature definitions, under another history."""
    return Installation(definitions={"views": [{**VIEW, "complete": False}]})


def run(*arguments: object, code: int = 0) -> str:
    result = RUN.invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    assert code == 0 or isinstance(result.exception, SystemExit), result.exception
    return result.output


def edited(file: Path, name: str, /, **changes: object) -> dict:
    """Change an experiment in a file."""
    whole = yaml.safe_load(file.read_text())
    entry = next(entry for entry in whole["experiments"] if entry["name"] == name)
    entry |= changes
    file.write_text(yaml.safe_dump(whole, sort_keys=False))
    return whole


def test_what_an_installation_holds_reads_as_text(here):
    whole = yaml.safe_load(run("export"))
    versions = sorted(known["version"] for known in here.versions if known["model"] == "churn")
    assert whole["models"][0] == {"name": "churn", "champion": here.champions["churn"], "versions": versions}
    entries = {entry["name"]: entry for entry in whole["experiments"]}
    assert list(entries) == ["running", "paused", "draft", "alias"]
    assert list(entries["running"]) == [
        *("name", "model", "status", "seed", "champion", "variants", "metric", "window_s"),
        *("namespace", "forced", "owner"),
    ]
    assert (entries["running"]["seed"], entries["running"]["forced"]) == ("seed of running", {"no": "new"})
    assert entries["alias"]["variants"][0]["version"] == here.champions["churn"]
    assert list(whole["features"]) == ["views"]
    assert whole["features"]["views"] == [{"name": "speeds", "label": "speeds@1", "digest": "d1", "kind": "view"}]


def test_another_installation_that_applies_the_file_exports_the_same(here, elsewhere, use, tmp_path):
    file, models = tmp_path / "contender.yaml", tmp_path / "models"
    assert "Wrote the files of 3 versions" in run("export", file, "--models", models)
    assert "has all files already" in run("export", file, "--models", models)
    use(elsewhere)
    output = run("apply", file, "--models", models, "--by", "ada", "--reason", "moved")
    assert "+ experiment running: on churn, running, champion" in output
    assert run("export") == file.read_text()
    assert {key: onnx for key, (onnx, _) in elsewhere.files.items()} == {
        key: onnx for key, (onnx, _) in here.files.items()
    }
    assert elsewhere.revisions["running"][-1].changed_by == "ada"
    assert elsewhere.revisions["running"][-1].reason == "moved"
    assert [revision.status for revision in elsewhere.revisions["paused"]] == ["draft", "running", "paused"]
    use(elsewhere)
    assert "Nothing differs." in run("apply", file)
    assert elsewhere.changes == []


def test_a_file_applied_where_it_is_from_changes_nothing(here, tmp_path):
    file = tmp_path / "contender.yaml"
    run("export", file)
    output = run("apply", file)
    assert "0 new, 0 changed, 7 the same." in output
    assert here.changes == []


def test_a_difference_is_shown_and_with_dry_run_nothing_else_happens(here, tmp_path):
    file = tmp_path / "contender.yaml"
    run("export", file)
    edited(file, "running", coverage=0.5, owner="ada")
    output = run("apply", file, "--dry-run")
    assert "~ experiment running: coverage 1.0 -> 0.5; owner grace -> ada" in output
    assert "= experiment paused" in output
    edited(file, "draft", owner="", forced={"tester": "new"})
    assert "~ experiment draft: forced no: new -> tester: new; owner grace -> empty" in run("apply", file, "--dry-run")
    assert here.changes == []
    shown = json.loads(run("apply", file, "--dry-run", "--json"))
    assert {step["kind"] for step in shown["steps"]} == {"same", "changed"}
    assert shown["faults"] == []


def test_what_differs_is_ramped_revised_paused_and_stopped_in_a_safe_order(here, tmp_path):
    file = tmp_path / "contender.yaml"
    run("export", file)
    old = here.versions[0]["version"]
    weights = [{**each, "weight": share} for each, share in zip(_variants(file, "running"), (0.7, 0.3), strict=True)]
    edited(file, "running", variants=weights, owner="ada")
    edited(file, "paused", status="stopped")
    edited(file, "draft", status="running", metric="brier")
    whole = edited(file, "alias", status="paused")
    whole["models"][0]["champion"] = old
    file.write_text(yaml.safe_dump(whole))
    output = run("apply", file, "--override", "a drill")
    assert "~ model churn: champion" in output
    assert here.changes == [
        "PUT /v1/experiments/draft",
        "POST /v1/experiments/paused/stop",
        "POST /v1/experiments/alias/pause",
        "PUT /v1/models/churn/aliases/champion",
        "PUT /v1/experiments/running",
        "POST /v1/experiments/running/ramp",
        "POST /v1/experiments/draft/start",
    ]
    bodies = {call: body for call, body in here.calls if body}
    assert bodies["POST /v1/experiments/running/ramp"]["weights"] == {"champion": 0.7, "new": 0.3}
    assert bodies["POST /v1/experiments/draft/start"]["override"] == "a drill"
    assert [each["weight"] for each in bodies["PUT /v1/experiments/running"]["variants"]] == [0.5, 0.5]
    assert "Nothing differs." in run("apply", file)


def _variants(file: Path, name: str) -> list[dict]:
    entries = yaml.safe_load(file.read_text())["experiments"]
    return next(entry["variants"] for entry in entries if entry["name"] == name)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("running", {"metric": "brier"}, "experiment running has started, and its metric can't change any more"),
        ("running", {"window_s": 61.0}, "its window_s can't change any more"),
        ("running", {"seed": "another"}, "its seed can't change any more"),
        ("running", {"champion": "new"}, "its champion can't change any more"),
        ("running", {"model": "sales"}, "its model can't change any more"),
        ("running", {"guardrails": [{"metric": "auc"}]}, "its guardrails can't change any more"),
        ("running", {"status": "draft"}, "experiment running is running, and can't become a draft again"),
        ("draft", {"status": "stopped"}, "experiment draft is a draft, which is not stopped"),
        ("draft", {"name": "over"}, "experiment over has stopped, and a name is final"),
        ("draft", {"name": "running"}, "running stands more than once in the file"),
        ("draft", {"model": "none"}, "there is no model none"),
        (
            "draft",
            {
                "variants": [
                    {"name": "a", "version": "f" * 64, "weight": 1},
                    {"name": "b", "version": "champion", "weight": 0},
                ]
            },
            "model churn has no version ffffffffffff, that of variant a",
        ),
    ],
)
def test_what_can_not_be_applied_is_refused_with_its_line_before_the_first_change(
    here, tmp_path, name, changes, message
):
    file = tmp_path / "contender.yaml"
    run("export", file)
    edited(file, "paused", status="running")
    edited(file, name, **changes)
    for more in ([], ["--dry-run"]):
        output = run("apply", file, *more, code=1)
        assert message in output
        assert "contender.yaml, line " in output
        assert "Nothing was changed." in output
    assert here.changes == []


def test_an_unknown_version_is_refused_until_its_files_are_given(here, elsewhere, use, tmp_path):
    file, models = tmp_path / "contender.yaml", tmp_path / "models"
    run("export", file, "--models", models)
    use(elsewhere)
    assert "give the folder of its files by --models" in run("apply", file, code=1)
    file_of_one = next((models / "churn").glob("*.onnx"))
    content = file_of_one.read_bytes()
    file_of_one.write_bytes(b"other bytes than its name stands for")
    assert "has no files of it" in run("apply", file, "--models", models, code=1)
    file_of_one.write_bytes(content)
    assert elsewhere.changes == []
    run("apply", file, "--models", models)


def test_definitions_read_as_text_and_differ_by_what_they_mean(here, tmp_path):
    here.definitions = SHOW_DEFINITIONS.answer_example
    file = tmp_path / "contender.yaml"
    run("export", file)
    assert "complete" not in file.read_text()
    assert "= view " in run("apply", file, "--dry-run")
    whole = json.loads(json.dumps(SHOW_DEFINITIONS.answer_example))
    whole["views"][0] |= {"complete": not whole["views"][0].get("complete"), "newest": False}
    here.definitions = whole
    assert "Nothing differs." in run("apply", file)


def test_other_feature_definitions_are_refused_because_only_the_service_loads_them(here, elsewhere, use, tmp_path):
    file, models = tmp_path / "contender.yaml", tmp_path / "models"
    run("export", file, "--models", models)
    elsewhere.definitions = {"views": [{**VIEW, "digest": "d2"}]}
    use(elsewhere)
    output = run("apply", file, "--models", models, code=1)
    assert "view speeds@1 has another meaning here" in output
    assert "contender features apply" in output
    elsewhere.definitions = {"views": []}
    assert "view speeds@1 is not defined here" in run("apply", file, "--models", models, code=1)
    assert elsewhere.changes == []


def test_another_description_of_a_feature_holds_nothing_up(here, tmp_path):
    file = tmp_path / "contender.yaml"
    run("export", file)
    here.definitions = {"views": [{**VIEW, "description": "new words"}]}
    edited(file, "running", owner="ada")
    output = run("apply", file)
    assert "~ view speeds@1: another description here, from the service's own module" in output
    assert "Made 1 changes." in output


@pytest.mark.parametrize("way", [{"canary": Canary([0.1, 0.5])}, {"bandit": Bandit()}], ids=["canary", "bandit"])
def test_shares_that_a_schedule_or_the_results_move_do_not_differ(here, tmp_path, way):
    revisions = here.revisions["running"]
    revisions[-1] = replace(revisions[-1], **way)
    file = tmp_path / "contender.yaml"
    run("export", file)
    moved = [
        replace(variant, weight=weight) for variant, weight in zip(revisions[-1].variants, (0.2, 0.8), strict=True)
    ]
    coverage = {"coverage": 0.2} if "canary" in way else {}
    revisions[-1] = replace(revisions[-1], variants=moved, **coverage)
    assert "Nothing differs." in run("apply", file)


def test_a_decided_experiment_runs_on(here, tmp_path):
    file = tmp_path / "contender.yaml"
    run("export", file)
    revisions = here.revisions["running"]
    revisions[-1] = replace(revisions[-1], status="decided")
    assert "Nothing differs." in run("apply", file)


def test_a_champion_that_was_pinned_at_the_start_is_the_one_of_the_file(here, tmp_path):
    file = tmp_path / "contender.yaml"
    run("export", file)
    edited(file, "alias", variants=[{"name": name, "version": "champion", "weight": 0.5} for name in ("a", "b")])
    assert "Nothing differs." in run("apply", file)


def test_a_change_that_is_refused_midway_says_how_far_it_came(here, tmp_path):
    file = tmp_path / "contender.yaml"
    run("export", file)
    edited(file, "running", owner="ada")
    edited(file, "draft", status="running")
    here.refused["POST /v1/experiments/draft/start"] = (409, "experiment draft is not ready: inputs.plan is missing")
    output = run("apply", file, code=1)
    assert "experiment draft is not ready: inputs.plan is missing (1 of 2 changes were made" in output
    del here.refused["POST /v1/experiments/draft/start"]
    assert "Made 1 changes." in run("apply", file)


def test_a_revision_of_the_routers_own_between_reading_and_writing_is_read_again(here, tmp_path):
    file = tmp_path / "contender.yaml"
    run("export", file)
    edited(file, "running", owner="ada")
    here.interferes = "running"
    assert "Made 1 changes." in run("apply", file)
    assert here.changes == ["PUT /v1/experiments/running"] * 2
    assert here.revisions["running"][-1].owner == "ada"


def test_an_upload_that_was_not_kept_ends_the_export(here, tmp_path):
    version = here.versions[0]["version"]
    here.refused[f"GET /v1/models/churn/versions/{version}/file"] = (404, "the upload was not kept: register it again")
    assert "register it again" in run("export", tmp_path / "x.yaml", "--models", tmp_path / "m", code=1)
    assert not (tmp_path / "x.yaml").exists()


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("contender: 2\n", "line 1: contender: Invalid enum value 2"),
        ("contender: 1\nmodel: []\n", "contains unknown field `model`"),
        ("contender: 1\nmodels:\n- name: churn\n", "line 3: models[0]: Object missing required field `champion`"),
        (
            "contender: 1\nexperiments:\n- name: x\n  model: m\n  variants: 3\n",
            "line 5: experiments[0].variants: Expected",
        ),
        ("contender: 1\nexperiments:\n- name: x\n\tmodel: m\n", "line 4: found character"),
        ("contender: 1\ncontender: 1\n", "line 2: contender stands twice"),
        ("contender: 1\nmodels: !!python/object/apply:os.system [ls]\n", "line 2: could not determine a constructor"),
        ("contender: 1\nmodels: &a [*a]\n", "holds more than 200000 values once its aliases are followed"),
        (BOMB, "holds more than 200000 values once its aliases are followed"),
        ("[" * 5000, "can't be read"),
        ("contender: 1\n---\ncontender: 1\n", "line 2: but found another document"),
        ("", "Expected `object`, got `null`"),
        ("contender: 2026-02-31\n", "can't be read: day is out of range"),
        ("# " + "x" * 2_000_000, "is larger than"),
        ("\x00", "can't be read"),
    ],
    ids=lambda value: value[:30],
)
def test_a_file_that_is_no_such_file_is_refused_with_its_line(here, tmp_path, text, message):
    file = tmp_path / "contender.yaml"
    file.write_text(text)
    output = run("apply", file, code=1)
    assert message in output
    assert "contender.yaml" in output
    assert here.calls == []


@pytest.mark.parametrize("content", [b"\xff\xfe\xfd", None])
def test_a_file_of_no_text_and_a_file_that_is_not_there_are_refused(here, tmp_path, content):
    file = tmp_path / "contender.yaml"
    if content is not None:
        file.write_bytes(content)
    assert "contender.yaml can't be read" in run("apply", file, code=1)


def test_an_anchor_is_followed(here, tmp_path):
    file = tmp_path / "contender.yaml"
    run("export", file)
    file.write_text(
        file.read_text().replace("owner: grace", "owner: &owner grace", 1).replace("owner: grace", "owner: *owner")
    )
    assert "Nothing differs." in run("apply", file)


def test_a_file_that_can_not_be_written_is_told_of(here, tmp_path):
    assert "can't be written: Is a directory" in run("export", tmp_path, code=1)


def test_a_model_that_stands_twice_is_refused(here, tmp_path):
    file = tmp_path / "contender.yaml"
    entry = f"- name: churn\n  champion: {here.champions['churn']}\n"
    file.write_text(f"contender: 1\nmodels:\n{entry}{entry}")
    assert "line 5: churn stands more than once in the file" in run("apply", file, code=1)


def test_a_file_names_no_files_outside_of_the_folder(elsewhere, use, tmp_path):
    use(elsewhere)
    file = tmp_path / "contender.yaml"
    file.write_text("contender: 1\nmodels:\n- name: ../../etc\n  champion: passwd\n")
    assert "contender.yaml, line 3: model ../../etc has no version passwd here" in run(
        "apply", file, "--models", tmp_path, code=1
    )

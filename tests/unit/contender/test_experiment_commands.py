"""`contender experiment`, `promote`, `rollback` and `models promotions` against an installation in memory."""

import getpass
import json

import httpx
import pytest
from typer.testing import CliRunner

from contender.cli import app
from contender.client import Client
from contender.commands import calls
from contender.contracts.experiments import Evidence
from contender.contracts.feedback_service import LIST_VERDICTS
from tests.unit.contender.installation import Installation, replace

RUN = CliRunner()


@pytest.fixture
def installation(monkeypatch: pytest.MonkeyPatch) -> Installation:
    """Two versions of the model churn, and the draft churn-2 of both."""
    known = Installation()
    monkeypatch.setattr(calls, "Client", lambda: known.client)
    monkeypatch.setattr(getpass, "getuser", lambda: "ada")
    monkeypatch.setenv("COLUMNS", "200")
    old, new = known.add("churn", "old"), known.add("churn", "new")
    variants = [{"name": "champion", "version": old, "weight": 0.5}, {"name": "new", "version": new, "weight": 0.5}]
    known.declare(name="churn-2", model="churn", variants=variants, window_s=60.0, owner="grace")
    return known


def run(*arguments: str, code: int = 0) -> str:
    result = RUN.invoke(app, list(arguments))
    assert result.exit_code == code, result.output
    assert code == 0 or isinstance(result.exception, SystemExit)
    if code:
        assert len(result.output.strip().splitlines()) == 1, "an error is one sentence"
    return result.output


def sent(installation: Installation) -> tuple[str, dict]:
    """The last call that was to change something."""
    return next((call, body) for call, body in reversed(installation.calls) if not call.startswith("GET"))


def test_experiments_are_listed_by_model_and_status(installation):
    installation.add("other", "old")
    variants = [{"name": name, "version": "champion", "weight": 0.5} for name in "ab"]
    installation.declare(name="other-1", model="other", variants=variants)
    output = run("experiment", "list")
    assert ("churn-2" in output, "other-1" in output, "grace" in output) == (True, True, True)
    assert "champion 0.5, new 0.5" in output
    assert "other-1" not in run("experiment", "list", "--model", "churn")
    assert run("experiment", "list", "--status", "running") == "There is no such experiment.\n"
    listed = json.loads(run("experiment", "list", "--model", "churn", "--json"))
    assert [known["name"] for known in listed["experiments"]] == ["churn-2"]


def test_an_experiment_is_shown_with_versions_beside_names_and_readable_dates(installation):
    run("experiment", "start", "churn-2", "--reason", "agreed")
    output = run("experiment", "show", "churn-2")
    version = installation.versions[1]["version"]
    for part in ("churn-2 on churn: running, revision 2", "by ada: agreed", "2023-11-14 22:13:20 UTC", version[:12]):
        assert part in output
    assert version not in output
    assert "window_s" in output
    assert "alpha" not in output
    assert "draft, revision 1" in run("experiment", "show", "churn-2", "--revision", "1")
    assert json.loads(run("experiment", "show", "churn-2", "--json"))["status"] == "running"


@pytest.mark.parametrize("at", ["2026-01-31T12:00", "2026-01-31T13:00+01:00", "1769860800"])
def test_an_experiment_is_shown_as_it_stood(installation, monkeypatch, at):
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.query.decode())
        return installation.answer(request)

    client = Client("http://127.0.0.1:8400", transport=httpx.MockTransport(answer))
    monkeypatch.setattr(calls, "Client", lambda: client)
    run("experiment", "show", "churn-2", "--as-of", at)
    assert asked == ["as_of=1769860800.0"]


def test_an_experiment_is_declared_by_options(installation):
    new = installation.versions[1]["version"]
    options = ["--metric", "brier", "--guardrail", "auc=0.01", "--canary", "--set", "holdout=0.05", "--cycle-days", "0"]
    options += ["--cycle-reason", "a test", "--set", "targeting=[{key: plan, equals: pro}]", "--reason", "why"]
    output = run(
        "experiment", "new", "churn-3", "--model", "churn", "--challenger", new[:6], "--share", "0.1", *options
    )
    assert "contender experiment start churn-3" in output
    call, body = sent(installation)
    assert call == "POST /v1/experiments"
    assert body == {
        "name": "churn-3",
        "model": "churn",
        "metric": "brier",
        "cycle_days": 0,
        "cycle_reason": "a test",
        "canary": {},
        "guardrails": [{"metric": "auc", "margin": 0.01}],
        "reason": "why",
        "changed_by": "ada",
        "holdout": 0.05,
        "targeting": [{"key": "plan", "equals": "pro"}],
        "variants": [
            {"name": "champion", "version": "champion", "weight": 0.9},
            {"name": "challenger", "version": new, "weight": 0.1},
        ],
    }


def test_an_experiment_is_declared_by_a_file_and_options_go_before_it(installation, tmp_path):
    new = installation.versions[1]["version"]
    file = tmp_path / "churn.yaml"
    variants = [{"name": "a", "version": "champion", "weight": 0.5}, {"name": "b", "version": new, "weight": 0.5}]
    file.write_text(json.dumps({"name": "churn-4", "model": "churn", "variants": variants, "metric": "auc"}))
    run("experiment", "new", "--file", str(file), "--metric", "brier", "--by", "grace")
    _, body = sent(installation)
    assert (body["name"], body["metric"], body["variants"], body["changed_by"]) == (
        "churn-4",
        "brier",
        variants,
        "grace",
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x"], "--model is missing"),
        (["--model", "churn"], "the experiment is missing"),
        (["x", "--model", "churn"], "missing required field `variants`"),
        (
            ["x", "--model", "churn", "--challenger", "abc"],
            "is too short for a version of model churn: give at least 6",
        ),
        (["x", "--model", "churn", "--challenger", "ffffffffff"], "no version that begins with 'ffffffffff'"),
        (["x", "--model", "none", "--challenger", "abcdef"], "there is no model none"),
        (["x", "--model", "churn", "--variant", "a"], "--variant a: give NAME=VERSION:SHARE"),
        (["x", "--model", "churn", "--variant", "a=champion"], "--variant a=champion: give NAME=VERSION:SHARE"),
        (["x", "--model", "churn", "--variant", "a=champion:half"], "--variant a half: give a number"),
        (["x", "--model", "churn", "--set", "colour=red"], "--set colour: a declaration has no such field"),
        (["x", "--model", "churn", "--set", "holdout=[1"], "--set holdout, line 1:"),
        (["x", "--model", "churn", "--guardrail", "auc"], "--guardrail auc: give METRIC=MARGIN"),
        (["x", "--file", "/nowhere.yaml"], "/nowhere.yaml can't be read: No such file"),
    ],
)
def test_what_is_no_declaration_is_refused_before_anything_is_sent(installation, arguments, message):
    assert message in run("experiment", "new", *arguments, code=1)
    assert installation.changes == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: x\nmodel: churn\nvariants:\n- name: a\n  version: v\n  weight: half\n", "line 6: variants[0].weight"),
        ("- name\n", "holds no declaration"),
        ("name: x\nmodel: churn\nname: y\n", "line 3: name stands twice"),
        ("name: x\nmodel: churn\nvariants: []\ncolour: red\n", "contains unknown field `colour`"),
        ("name: [x\nmodel", "line 2:"),
    ],
)
def test_a_wrong_file_is_named_with_its_line(installation, tmp_path, text, message):
    file = tmp_path / "churn.yaml"
    file.write_text(text)
    assert message in run("experiment", "new", "--file", str(file), code=1)
    assert installation.changes == []


def test_an_experiment_is_started_ramped_paused_and_stopped_with_who_and_why(installation):
    assert run("experiment", "start", "churn-2", "--override", "tested") == "churn-2 runs (revision 2, epoch 1).\n"
    path = "POST /v1/experiments/churn-2"
    assert sent(installation) == (f"{path}/start", {"override": "tested", "changed_by": "ada"})
    output = run(
        "experiment", "ramp", "churn-2", "--weight", "champion=0.7", "--weight", "new=0.3", "--coverage", "0.5"
    )
    assert "champion 0.7, new 0.3 of 50.00% of the units" in output
    assert sent(installation)[1]["weights"] == {"champion": 0.7, "new": 0.3}
    run("experiment", "pause", "churn-2", "--reason", "an incident", "--revision", "3")
    assert sent(installation) == (f"{path}/pause", {"reason": "an incident", "revision": 3, "changed_by": "ada"})
    run("experiment", "start", "churn-2", "--by", "grace")
    assert sent(installation)[1] == {"changed_by": "grace"}
    assert json.loads(run("experiment", "stop", "churn-2", "--json"))["status"] == "stopped"
    assert "churn-2-2 is a draft" in run("experiment", "restart", "churn-2")
    assert "again is a draft" in run("experiment", "restart", "churn-2", "--as", "again")
    assert run("experiment", "start", "churn-2", code=1) == "experiment churn-2 is stopped\n"
    assert run("experiment", "stop", "none", code=1) == "there is no experiment none\n"


def test_all_experiments_on_a_model_are_stopped_at_once(installation):
    assert "No experiment is in force" in run("experiment", "stop", "--model", "churn", "--all")
    run("experiment", "start", "churn-2")
    assert run("experiment", "stop", "--model", "churn", "--all", "--reason", "no") == "Stopped on churn: churn-2.\n"
    assert sent(installation) == ("POST /v1/models/churn/stop", {"reason": "no", "changed_by": "ada"})


@pytest.mark.parametrize(
    "arguments", [[], ["--all"], ["--model", "churn"], ["churn-2", "--all"], ["churn-2", "--model", "churn", "--all"]]
)
def test_what_is_to_stop_is_said_in_one_way(installation, arguments):
    assert "name one experiment, or give --model MODEL --all" in run("experiment", "stop", *arguments, code=1)
    assert installation.calls == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing is to change"),
        (["--weight", "new"], "--weight new: give VARIANT=SHARE"),
        (["--weight", "new=much"], "--weight new much: give a number"),
        (["--weight", "new=0.1", "--weight", "new=0.9"], "--weight names a variant twice"),
    ],
)
def test_a_ramp_that_says_nothing_is_refused(installation, arguments, message):
    assert message in run("experiment", "ramp", "churn-2", *arguments, code=1)
    assert installation.calls == []


def test_readiness_names_what_blocks_and_who_else_is_there(installation):
    installation.readiness = {
        "ready": False,
        "findings": [
            {"field": "inputs.plan", "message": "is missing in 3 % of the rows", "blocks": True},
            {"field": "rows", "message": "are few", "blocks": False},
        ],
        "overlaps": [{"experiment": "churn-1", "status": "running", "share": 0.5, "shares_units": True}],
        "rows": 41000,
        "since": 1_700_000_000.0,
    }
    result = RUN.invoke(app, ["experiment", "readiness", "churn-2"])
    assert result.exit_code == 1
    for part in (
        "churn-2 is not ready: 41,000 rows since 2023-11-14",
        "Against it: inputs.plan is missing in 3 %",
        "Note: rows are few",
        "Beside it churn-1 is running: 50.00% of the units; it could take the same units.",
    ):
        assert part in result.output
    installation.readiness["ready"] = True
    assert json.loads(run("experiment", "readiness", "churn-2", "--json"))["ready"]


def test_a_history_says_who_changed_what_when_and_why(installation):
    run("experiment", "start", "churn-2", "--reason", "agreed")
    run("experiment", "ramp", "churn-2", "--coverage", "0.25")
    output = run("experiment", "history", "churn-2")
    for part in ("agreed", "ada", "2023-11-14 22:13:20 UTC", "status draft -> running", "coverage 1 -> 0.25"):
        assert part in output
    assert not {"changed_by", "started_at"} & set(output.split())
    assert len(json.loads(run("experiment", "history", "churn-2", "--json"))["history"]) == 3


def test_two_revisions_are_compared_field_by_field(installation):
    run("experiment", "start", "churn-2")
    run("experiment", "ramp", "churn-2", "--coverage", "0.25")
    output = run("experiment", "diff", "churn-2", "1", "3")
    assert [line.split()[:3] for line in output.splitlines() if line.startswith("coverage")] == [
        ["coverage", "1", "0.25"]
    ]
    assert "variant new" not in output
    changes = {
        change["field"]: change for change in json.loads(run("experiment", "diff", "churn-2", "2", "3", "--json"))
    }
    assert (changes["coverage"]["before"], changes["coverage"]["after"]) == (1.0, 0.25)
    assert "has no revision 9: it has 1 to 3" in run("experiment", "diff", "churn-2", "1", "9", code=1)


def test_the_version_that_an_alias_was_resolved_to_is_shown(installation):
    variants = [{"name": name, "version": "champion", "weight": 0.5} for name in ("a", "b")]
    installation.declare(name="alias", model="churn", variants=variants)
    assert run("experiment", "show", "alias").count(" champion ") == 2
    run("experiment", "start", "alias")
    champion = installation.champions["churn"][:12]
    assert f"{champion} (champion at the start)" in run("experiment", "show", "alias")
    assert f"champion, 0.5  {champion} (champion at the start), 0.5" in run("experiment", "diff", "alias", "1", "2")


def test_a_challenger_is_promoted_on_its_verdict(installation):
    run("experiment", "start", "churn-2")
    sentence = "new is better."
    verdict = Evidence(experiment="churn-2", number=1, challenger="new", status="better", sentence=sentence, at=1.0)
    revisions = installation.revisions["churn-2"]
    revisions[-1] = replace(revisions[-1], evidence=verdict)
    output = run("experiment", "promote", "churn-2", "--override", "urgent", "--variant", "new")
    assert f"{installation.versions[0]['version'][:12]} is the champion on the evidence: new is better." in output
    assert sent(installation)[1] == {"override": "urgent", "variant": "new", "changed_by": "ada"}


@pytest.mark.parametrize("moment", ["yesterday", "2026-13-01"])
def test_a_time_that_is_none_is_refused(installation, moment):
    output = run("experiment", "show", "churn-2", "--as-of", moment, code=1)
    assert f"--as-of {moment}: give seconds since 1970" in output


def test_a_version_is_promoted_by_its_first_characters(installation):
    new = installation.versions[1]["version"]
    output = run("promote", f"churn@{new[:6]}", "--reason", "decided")
    assert output == f"churn {new[:12]} is the champion now; `contender rollback churn` undoes it.\n"
    body = {"version": new, "reason": "decided", "changed_by": "ada"}
    assert sent(installation) == ("PUT /v1/models/churn/aliases/champion", body)
    assert run("promote", f"churn@{new}") == f"churn {new[:12]} is the champion already.\n"
    assert json.loads(run("promote", f"churn@{new}", "--json"))["alias"] == "champion"
    listed = run("models", "promotions", "churn")
    for part in ("ada", "decided", new[:12], installation.versions[0]["version"][:12], "2023-11-14 22:13:20 UTC"):
        assert part in listed
    assert len(json.loads(run("models", "promotions", "churn", "--json"))["promotions"]) == 1


def test_a_promotion_names_the_verdict_that_it_rests_on(installation):
    new = installation.versions[1]["version"]
    event = LIST_VERDICTS.answer_example["verdicts"][0]
    promotion = ("promote", f"churn@{new[:12]}", "--experiment", "churn-2")
    assert "experiment churn-2 has no verdict on churn" in run(*promotion, code=1)
    installation.verdicts = [{**event, "challenger": name, "number": number} for number, name in enumerate("ab", 1)]
    assert "has no verdict on churn" in run(*promotion, code=1)
    other = installation.add("churn", "newest")
    assert "has no variant of churn" in run("promote", f"churn@{other[:12]}", "--experiment", "churn-2", code=1)
    assert installation.changes == []
    installation.verdicts += [{**event, "challenger": "new", "number": number} for number in (3, 4)]
    run(*promotion)
    rests_on = {"experiment": event["experiment"], "verdict": 4, "evidence": event["sentence"]}
    assert sent(installation)[1] == {"version": new, "changed_by": "ada", **rests_on}
    assert f"verdict 4: {event['sentence'][:20]}" in run("models", "promotions", "churn")


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("churn", "churn names no version: give MODEL@VERSION"),
        ("churn@", "give MODEL@VERSION"),
        ("@abcdef", "give MODEL@VERSION"),
        ("churn@abc", "'abc' is too short"),
        ("churn@ffffffff", "no version that begins with 'ffffffff'"),
        ("none@ffffffff", "there is no model none"),
    ],
)
def test_a_version_that_there_is_not_is_not_promoted(installation, version, message):
    assert message in run("promote", version, code=1)
    assert installation.changes == []


def test_a_prefix_of_two_versions_asks_for_more_characters(installation):
    twins = [{**installation.versions[0], "version": "abcdef" + end * 58} for end in "01"]
    installation.versions += twins
    assert "2 versions of model churn begin with 'abcdef': give more characters" in run(
        "promote", "churn@abcdef", code=1
    )


def test_what_a_service_refuses_is_one_sentence(installation):
    assert run("rollback", "churn", code=1) == "model churn has no promotion on record\n"
    assert sent(installation)[1] == {"changed_by": "ada", "reason": ""}
    assert "no promotion is on record" in run("models", "promotions", "churn")


def test_a_user_without_a_name_makes_changes_all_the_same(installation, monkeypatch):
    def nobody() -> str:
        raise KeyError("uid not found: 1234")

    monkeypatch.setattr(getpass, "getuser", nobody)
    run("experiment", "start", "churn-2")
    assert sent(installation)[1] is None


def test_names_from_elsewhere_can_not_move_the_cursor(installation):
    revisions = installation.revisions["churn-2"]
    revisions[-1] = replace(revisions[-1], owner="\x1b[2Jgrace", reason="a\rb")
    for command in ("list", "show", "history"):
        output = run("experiment", command, *([] if command == "list" else ["churn-2"]))
        assert not {"\x1b", "\r"} & set(output)


def test_a_file_may_shorten_versions(installation, tmp_path):
    new = installation.versions[1]["version"]
    variants = [{"name": "a", "version": "champion", "weight": 0.5}, {"name": "b", "version": new[:8], "weight": 0.5}]
    file = tmp_path / "churn.yaml"
    file.write_text(json.dumps({"name": "churn-4", "model": "churn", "variants": variants}))
    run("experiment", "new", "--file", str(file))
    assert [variant["version"] for variant in sent(installation)[1]["variants"]] == ["champion", new]
    file.write_text(file.read_text().replace(new[:8], "f" * 8))
    output = run("experiment", "new", "--file", str(file), code=1)
    assert "model churn has no version that begins with 'ffffffff'" in output


def test_an_unknown_status_is_no_empty_list(installation):
    output = run("experiment", "list", "--status", "runing", code=1)
    assert output == "--status runing: give one of draft, running, paused, decided, stopped\n"


def test_what_is_shown_says_what_decides_and_leaves_out_what_the_router_keeps_for_itself(installation):
    installation.revisions["churn-2"].append(
        replace(installation.revisions["churn-2"][-1], revision=2, was_partial=True)
    )
    output = run("experiment", "show", "churn-2")
    assert "decides by log_loss: superiority" in output
    assert not {"was_partial", "model_champion"} & set(output.split())
    revisions = installation.revisions["churn-2"]
    other = "f" * 64
    revisions.append(replace(revisions[-1], revision=3, model_champion=other))
    assert f"model_champion  {other[:12]}" in run("experiment", "show", "churn-2")


def test_a_history_says_a_verdict_once(installation):
    sentence = "new is better."
    verdict = Evidence(experiment="churn-2", number=1, challenger="new", status="better", sentence=sentence, at=1.0)
    revisions = installation.revisions["churn-2"]
    revisions.append(replace(revisions[-1], revision=2, evidence=verdict, verdicts={"new": verdict}, reason=sentence))
    assert run("experiment", "history", "churn-2").count(sentence) == 1
    revisions.append(replace(revisions[-1], revision=3, reason="agreed"))
    assert "agreed; verdict 1: new is better." in run("experiment", "history", "churn-2")

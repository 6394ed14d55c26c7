"""`contender experiment new`: a declaration from options, or from a YAML file."""

import re
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from contender.client import Client
from contender.commands.calls import connected
from contender.commands.showing import AsJson, By, Reason, number, pair, person, print_json, say
from contender.commands.terminal import fail
from contender.commands.versions import find_version
from contender.contracts.experiments import CHAMPION, NewExperiment
from contender.experiments import usual_metric
from contender.yaml_files import Document

_CHALLENGER = "challenger"
_FULL = re.compile(r"[0-9a-f]{64}")
_FIELDS = NewExperiment.__struct_fields__


def new(
    name: Annotated[str, typer.Argument(help="The experiment's name, which is final; default: that in the file.")] = "",
    *,
    file: Annotated[Path | None, typer.Option(help="A YAML file with the declaration; options go before it.")] = None,
    model: Annotated[str | None, typer.Option(help="The model whose units are split.")] = None,
    challenger: Annotated[
        str, typer.Option(help="The version to compare with the champion, by its first characters.")
    ] = "",
    share: Annotated[float, typer.Option(help="The challenger's share of the units.")] = 0.5,
    variant: Annotated[
        list[str] | None,
        typer.Option(help="NAME=VERSION:SHARE for each variant in place of --challenger, the champion's first."),
    ] = None,
    metric: Annotated[str | None, typer.Option(help="The metric that decides; default: the first of the task.")] = None,
    hypothesis: Annotated[str | None, typer.Option(help="superiority, non-inferiority or no difference.")] = None,
    margin: Annotated[float | None, typer.Option(help="The margin of the hypothesis.")] = None,
    window_s: Annotated[float | None, typer.Option(help="Seconds a label may take.")] = None,
    missing: Annotated[str | None, typer.Option(help="What a missing label means: excluded or negative.")] = None,
    cycle_days: Annotated[int | None, typer.Option(help="Days of a cycle; 0: none, with a --cycle-reason.")] = None,
    cycle_reason: Annotated[str | None, typer.Option(help="Why days do not matter.")] = None,
    coverage: Annotated[float | None, typer.Option(help="The share of the units that take part.")] = None,
    guardrail: Annotated[list[str] | None, typer.Option(help="METRIC=MARGIN that must not be harmed.")] = None,
    shadow: Annotated[bool, typer.Option("--shadow", help="Score the challengers in shadow alone.")] = False,
    canary: Annotated[bool, typer.Option("--canary", help="Grow the challengers' shares by the usual steps.")] = False,
    bandit: Annotated[bool, typer.Option("--bandit", help="Let the weights follow the results.")] = False,
    owner: Annotated[str | None, typer.Option(help="Who answers for it.")] = None,
    field: Annotated[
        list[str] | None,
        typer.Option("--set", help="FIELD=VALUE for any other field of a declaration, the value in YAML."),
    ] = None,
    reason: Reason = "",
    by: By = "",
    as_json: AsJson = False,
) -> None:
    """Declare an experiment, which assigns no unit until it is started."""
    options: dict[str, Any] = {
        "name": name or None,
        "model": model,
        "metric": metric,
        "hypothesis": hypothesis,
        "margin": margin,
        "window_s": window_s,
        "missing": missing,
        "cycle_days": cycle_days,
        "cycle_reason": cycle_reason,
        "coverage": coverage,
        "owner": owner,
        "shadow": shadow or None,
        "canary": {} if canary else None,
        "bandit": {} if bandit else None,
        "guardrails": [_guardrail(text) for text in guardrail or []] or None,
        "reason": reason or None,
        "changed_by": person(by) or None,
    }
    with connected() as client:
        document = None if file is None else Document.read(file)
        body = {} if document is None else _fields(document)
        body |= {option: value for option, value in options.items() if value is not None}
        body |= dict(_field(text) for text in field or [])
        if not body.get("name") or not body.get("model"):
            raise fail(f"{'--model' if body.get('name') else 'the experiment'} is missing: give NAME and --model")
        if variant or challenger:
            texts = variant or _two(challenger, 0.0 if body.get("shadow") else share)
            body["variants"] = [_variant(client, str(body["model"]), text) for text in texts]
            body.setdefault("metric", usual_metric(find_version(client, str(body["model"]), "")))
        _check(body, document)
        body["variants"] = [_in_full(client, body["model"], each) for each in body["variants"]]
        created = client.create(body).revision()
    if as_json:
        print_json(created)
    else:
        say(f"{created.name} is a draft: `contender experiment start {created.name}` lets it run.")


def _two(challenger: str, share: float) -> list[str]:
    return [f"{CHAMPION}={CHAMPION}:{1 - share:.12g}", f"{_CHALLENGER}={challenger}:{share:.12g}"]


def _variant(client: Client, model: str, text: str) -> dict[str, Any]:
    example = "NAME=VERSION:SHARE, such as new=0c912f6d1ab4:0.5"
    name, value = pair(text, "--variant", example)
    version, colon, share = value.rpartition(":")
    if not colon:
        raise fail(f"--variant {text}: give {example}")
    if version != CHAMPION:
        version = find_version(client, model, version).version
    return {"name": name, "version": version, "weight": number(share, f"--variant {name}")}


def _in_full(client: Client, model: str, variant: dict[str, Any]) -> dict[str, Any]:
    """A variant whose version may be shortened in a file as well as in an option."""
    version = variant["version"]
    if version == CHAMPION or _FULL.fullmatch(version):
        return variant
    return {**variant, "version": find_version(client, model, version).version}


def _guardrail(text: str) -> dict[str, Any]:
    metric, margin = pair(text, "--guardrail", "METRIC=MARGIN, such as brier=0.01")
    return {"metric": metric, "margin": number(margin, f"--guardrail {metric}")}


def _field(text: str) -> tuple[str, Any]:
    name, value = pair(text, "--set", "FIELD=VALUE, such as holdout=0.05")
    if name not in _FIELDS:
        raise fail(f"--set {name}: a declaration has no such field; it has {', '.join(_FIELDS)}")
    return name, Document(f"--set {name}", value).value


def _fields(document: Document) -> dict[str, Any]:
    if not isinstance(document.value, dict):
        raise fail(f"{document.source} holds no declaration: write its fields, such as `model: churn`, one a line")
    return dict(document.value)


def _check(body: dict[str, Any], document: Document | None) -> None:
    """Refuse what is no declaration; a wrong field of a file is named with its line."""
    try:
        msgspec.convert(body, NewExperiment)
    except msgspec.ValidationError as error:
        if document is not None:
            document.converted(NewExperiment)
        way_out = "" if "variants" in body else "; --challenger or --variant name the variants"
        raise fail(f"the declaration can't be read: {error}{way_out}") from error

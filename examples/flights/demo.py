"""`contender demo`: the whole loop on real flights, from training to a verdict."""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import polars as pl
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from contender.client import Client, Experiment
from contender.commands.terminal import visible
from contender.contracts.feedback_service import Results
from contender.contracts.inference_service import ModelVersion
from contender.errors import ContenderError
from contender.training import build_training_set
from embedded import stack
from embedded.detached import start_detached
from embedded.errors import EmbeddedError
from embedded.settings import StackSettings
from examples.flights import data, features
from examples.flights.check import Comparison, compare_features, offline_log_loss
from examples.flights.models import Contender, train_schedule, train_streaming
from examples.flights.replay import MODEL, Replay, ReplayError, days_of, first_days, sampled
from shared.settings import SERVICE_NAMES

VIEWS = [features.origin_delays, features.carrier_delays, features.tail_delays]
REPLAY_FROM = 1_372_651_200.0
"""The first of July 2013 in New York; models are trained on what was before."""
WINDOW_S = 86_400.0
"""How long an outcome may take: the longest delay of a year and the flight itself fit into a day.

Twelve hours would cut off the longest delays, all of which are late: the rows left over would look too punctual.
"""
WATERMARK_STEP_S = WINDOW_S / 24
"""The watermark of an experiment advances in steps of a cohort."""
LOG_LOSS_TOLERANCE = 1e-6
_SETTLED_S = 120
_POLL_S = 0.2
_TIMEOUT_S = 60
_REPORT_DAYS = 3
_INTERRUPTED = 130
console = Console(highlight=False, markup=False, emoji=False)


class DemoError(RuntimeError):
    """The demo can't go on; the message says why."""


@dataclass(frozen=True)
class Report:
    """The demo's result, as --json writes it."""

    flights: int
    predictions: int
    feedback: int
    variants: list[dict[str, Any]]
    effect: dict[str, float | None]
    features_compared: int
    features_different: int
    verdict: str
    seconds: float


def run(flights: int, json_file: Path | None) -> int:
    """Run the demo on at most that many flights; the exit code of the command."""
    started = time.monotonic()
    try:
        settings = StackSettings.load()
        _write(json_file, "", "a")  # an unwritable file stops the demo before the work
        report = _run(settings, flights, started)
        _write(json_file, json.dumps(asdict(report), indent=2) + "\n", "w")
    except (DemoError, ReplayError, EmbeddedError, ContenderError) as error:
        console.print(visible(f"The demo has stopped: {error}"), style="red", soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print(_left_behind(settings), soft_wrap=True)
        return _INTERRUPTED
    return 0 if report.features_different == 0 else 1


def _write(file: Path | None, text: str, mode: Literal["a", "w"]) -> None:
    if file is None:
        return
    try:
        with file.open(mode) as opened:
            opened.write(text)
    except OSError as error:
        raise DemoError(f"{file} can't be written: {error.strerror}") from error


def _left_behind(settings: StackSettings) -> str:
    if stack.running(settings) is None:
        return "The demo was interrupted: nothing was left running."
    return "The demo was interrupted, and the stack stays up: `contender down` stops it."


def _run(settings: StackSettings, flights: int, started: float) -> Report:
    with _progress() as progress:
        table, rows = _prepare(progress, settings, flights)
        contenders = _train(progress, table)
        urls = {service: settings.url(service) for service in SERVICE_NAMES}
        with Client(timeout_s=_TIMEOUT_S, urls=urls) as client:
            versions = _register(progress, client, contenders)
            experiment = _start_experiment(client, versions)
            replay = _replay(progress, table, rows, experiment)
            results = _settled(experiment, replay)
        compared = compare_features(replay.served, rows, replay.flights.events, VIEWS)
    report = _report(results, replay, compared, time.monotonic() - started)
    _check(results, replay, compared)
    _print(report, settings)
    return report


def _prepare(progress: Progress, settings: StackSettings, flights: int) -> tuple[data.Flights, pl.DataFrame]:
    task = progress.add_task("Starting Kafka, Valkey and the services", total=None)
    if stack.running(settings) is None:
        start_detached(settings, lambda text: progress.update(task, description=text.capitalize()))
    progress.update(task, total=1, completed=1, description="Kafka, Valkey and the services are up")
    task = progress.add_task("Reading 336,776 flights", total=1)
    table = data.load()
    progress.update(task, completed=1)
    rows = first_days(sampled(table.rows.filter(pl.col("time") >= REPLAY_FROM)), flights)
    return table, rows


def _train(progress: Progress, table: data.Flights) -> list[Contender]:
    task = progress.add_task("Building training sets, January to June", total=3)
    labelled = table.rows.filter((pl.col("landed") < REPLAY_FROM) & pl.col("late").is_not_null())
    training = build_training_set(VIEWS, labelled, table.events)
    progress.update(task, advance=1, description="Training v1, logistic regression")
    contenders = [train_schedule(training)]
    progress.update(task, advance=1, description="Training v3, gradient boosting")
    contenders.append(train_streaming(training))
    progress.update(task, advance=1, description="Trained v1 and v3")
    return contenders


def _register(progress: Progress, client: Client, contenders: list[Contender]) -> list[ModelVersion]:
    task = progress.add_task("Registering", total=len(contenders))
    versions: list[ModelVersion] = []
    for contender in contenders:
        versions.append(
            client.register(
                MODEL,
                contender.pipeline,
                contender.columns,
                contender.labels,
                sources=contender.sources,
                description=contender.description,
            )
        )
        progress.update(task, advance=1, description=f"Registered {contender.name}")
    return versions


def _start_experiment(client: Client, versions: list[ModelVersion]) -> Experiment:
    """Start a 50/50 experiment of the two, in place of one that is still in force from an earlier demo."""
    for known in client.experiments():
        if known.status in ("running", "paused", "decided") and known.model == MODEL:
            client.change(known.name, "stop")
    body = {
        "name": f"{MODEL}-{int(time.time())}",
        "model": MODEL,
        "variants": [
            {"name": name, "version": version.version, "weight": 0.5}
            for name, version in zip(("v1", "v3"), versions, strict=True)
        ],
        "champion": "v1",
        "metric": "log_loss",
        "window_s": WINDOW_S,
        "clock": "event",
        "time_zone": data.TIME_ZONE,
        "cycle_days": 7,
    }
    return client.create(body).start()


def _replay(progress: Progress, table: data.Flights, rows: pl.DataFrame, experiment: Experiment) -> Replay:
    """Replay whole days until the verdict, or all rows where none comes."""
    replay = Replay(table, experiment.client, experiment.name)
    task = progress.add_task("Replaying days", total=len(days_of(rows)))

    def on_step(days: float) -> None:
        progress.update(task, completed=days, description=f"Replaying days, {len(replay.served):,} flights so far")

    def is_over(days: int) -> bool:
        results = experiment.results()
        if days % _REPORT_DAYS == 0 and not results.verdict.decided:
            progress.console.print(_line(results, days), soft_wrap=True)
        return results.verdict.decided

    days = replay.run(rows, on_step, is_over)
    progress.update(task, completed=days, total=days, description=f"Replayed {len(replay.served):,} flights")
    return replay


def _settled(experiment: Experiment, replay: Replay) -> Results:
    """The results once every prediction and every outcome is in them, and all rows have matured that will."""
    end = time.monotonic() + _SETTLED_S
    sent = (len(replay.served), len(replay.labels))
    while True:
        results = experiment.results()
        variants = results.variants
        seen = (sum(row.n for row in variants), sum(row.labelled + row.late for row in variants))
        if seen == sent and (results.watermark or 0.0) >= replay.reached - WATERMARK_STEP_S:
            return results
        if time.monotonic() > end:
            raise DemoError(f"results show {seen} predictions and outcomes after {_SETTLED_S} s, {sent} were sent")
        time.sleep(_POLL_S)


def _report(results: Results, replay: Replay, compared: Comparison, seconds: float) -> Report:
    variants = [
        {
            "name": variant.name,
            "version": variant.version,
            "n": variant.n,
            "labelled": variant.labelled,
            "log_loss": variant.live["log_loss"].mean,
            "auc": variant.live["auc"].mean,
        }
        for variant in results.variants
    ]
    effect = results.effects.get("v3", {}).get(results.metric)
    return Report(
        flights=len(replay.served),
        predictions=len(replay.served),
        feedback=len(replay.labels),
        variants=variants,
        effect={name: getattr(effect, name, None) for name in ("estimate", "low", "high")},
        features_compared=compared.compared,
        features_different=compared.different,
        verdict=results.verdict.sentence,
        seconds=round(seconds, 1),
    )


def _check(results: Results, replay: Replay, compared: Comparison) -> None:
    for variant in results.variants:
        shown = variant.live["log_loss"].mean
        computed = offline_log_loss(replay.served, replay.labels, variant.name, WINDOW_S)
        if shown is None or computed is None or abs(shown - computed) > LOG_LOSS_TOLERANCE:
            raise DemoError(f"log loss of {variant.name} is shown as {shown}, scikit-learn computes {computed}")
    for line in compared.examples:
        console.print(visible(f"different: {line}"), style="red", soft_wrap=True)


def _print(report: Report, settings: StackSettings) -> None:
    console.print()
    for variant in report.variants:
        console.print(
            f"{visible(variant['name'])}: {variant['n']:,} predictions, {variant['labelled']:,} outcomes, "
            f"log loss {_figure(variant['log_loss'])} (as scikit-learn computes it), AUC {_figure(variant['auc'], 3)}",
            soft_wrap=True,
        )
    console.print(
        f"Features: {report.features_compared:,} served values compared with the training-set builder, "
        f"{report.features_different:,} different.",
        soft_wrap=True,
    )
    console.print(visible(report.verdict), style="bold", soft_wrap=True)
    console.print(
        f"{report.seconds:.0f} s. The dashboard is on {settings.url('feedback_service')} ; `contender down` stops it."
    )


def _line(results: Results, days: int) -> str:
    variants = " · ".join(
        f"{variant.name} {variant.labelled:,} of {variant.n:,} labelled, "
        f"log loss {_figure(variant.live['log_loss'].mean)}"
        for variant in results.variants
    )
    return visible(f"{days} days: {variants or 'no results yet'}")


def _figure(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _progress() -> Progress:
    return Progress(
        SpinnerColumn(finished_text="[green]✓"),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )

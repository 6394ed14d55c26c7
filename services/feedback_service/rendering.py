"""HTML of the dashboard, in the order readers look: verdict, health, effects, variants. Every name is escaped."""

from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from urllib.parse import quote

from contender.contracts.feedback_service import Effect, ExperimentSummary, Interval, Results, VariantResult
from services.feedback_service.domain.split import BLOCKING_P

_UNKNOWN = "?"
_WIDTH, _HEIGHT, _MARGIN = 220, 22, 6


def overview_page(experiments: Sequence[ExperimentSummary]) -> str:
    """A list of experiments."""
    rows = [
        [
            f'<a href="/experiments/{quote(one.name, safe="")}">{escape(one.name)}</a>',
            escape(one.status),
            escape(one.model),
            escape(", ".join(one.variants)),
        ]
        for one in experiments
    ]
    empty = "<p>No experiment has been announced yet, and no prediction has come for one.</p>"
    body = _table(["experiment", "status", "model", "variants"], rows) if rows else empty
    return _page("Experiments", f"<h1>Experiments</h1>{body}")


def experiment_page(results: Results) -> str:
    """One experiment's results."""
    parts = [
        f"<h1>{escape(results.experiment)} <small>({escape(results.status)})</small></h1>",
        _verdict(results),
        _health(results),
        "<h2>Challenger minus champion, matured rows</h2>",
        _effects(results),
        "<h2>Variants, matured rows <span class='live'>(in grey: all labelled rows, matured or not)</span></h2>",
        _variants(results),
        _footer(results),
    ]
    return _page(results.experiment, "".join(parts))


def _verdict(results: Results) -> str:
    status = results.verdict.status
    tone = "bad" if status.startswith("withheld: ") and status != "withheld: too few" else ""
    tone = "good" if results.verdict.decided else tone
    matured = sum(variant.matured for variant in results.variants)
    seen = sum(variant.n for variant in results.variants)
    share = f"{matured:,} of {seen:,} predictions have matured"
    return f'<p class="verdict {tone}">{escape(results.verdict.sentence)}<small>{escape(status)}; {share}</small></p>'


def _health(results: Results) -> str:
    health, arrival = results.health, results.arrival.p
    items = [
        _item("split p", f"{results.split.p:.3g}", alarm=results.split.p < BLOCKING_P),
        _item(
            "label arrival p",
            "not tested" if arrival is None else f"{arrival:.3g}",
            alarm=arrival is not None and arrival < BLOCKING_P,
        ),
        _item("late labels", f"{health.late:,}"),
        _item("refused", f"{health.refused:,}", alarm=health.refused > 0),
        _item("duplicates", f"{health.duplicates:,}"),
        _item("unmatched (all experiments)", f"{health.unmatched:,}"),
        _item("late, prediction deleted (all experiments)", f"{health.expired:,}"),
        _item("degraded", f"{health.degraded:,}", alarm=health.degraded > 0),
        _item("fallbacks", f"{health.fallbacks:,}", alarm=health.fallbacks > 0),
    ]
    return f'<ul class="health">{"".join(items)}</ul>'


def _item(name: str, value: str, *, alarm: bool = False) -> str:
    return f"<li{' class=alarm' if alarm else ''}>{escape(name)} <b>{escape(value)}</b></li>"


def _effects(results: Results) -> str:
    by_name = {variant.name: variant for variant in results.variants}
    rows = []
    for challenger, effects in results.effects.items():
        for metric, effect in effects.items():
            champion = by_name[results.champion].metrics.get(metric)
            mine = by_name[challenger].metrics.get(metric)
            name = f"<b>{escape(metric)}</b>" if metric == results.metric else escape(metric)
            rows.append(
                [
                    escape(challenger),
                    name,
                    _mean(champion),
                    _mean(mine),
                    _signed(effect.estimate),
                    f"{_signed(effect.low)} to {_signed(effect.high)}",
                    _bar(effect),
                    f"{effect.p:.3g}",
                ]
            )
    if not rows:
        return "<p>Too few matured rows to compare yet.</p>"
    return _table(["challenger", "metric", "champion", "challenger", "difference", "interval", "", "p"], rows)


def _bar(effect: Effect) -> str:
    """The interval as a bar around zero, on a scale of its own."""
    if effect.low is None or effect.high is None or effect.estimate is None:
        return "no interval yet"
    reach = max(abs(effect.low), abs(effect.high)) or 1.0

    def x(value: float) -> float:
        return _WIDTH / 2 + value / reach * (_WIDTH / 2 - _MARGIN)

    tone = "open" if effect.better is None else ("good" if effect.better else "bad")
    middle = _HEIGHT / 2
    label = f"{effect.low:.4g} to {effect.high:.4g}"
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">'
        f'<line class="axis" x1="{_WIDTH / 2}" x2="{_WIDTH / 2}" y1="0" y2="{_HEIGHT}"/>'
        f'<line class="{tone}" x1="{x(effect.low):.1f}" x2="{x(effect.high):.1f}" y1="{middle}" y2="{middle}" '
        f'stroke-width="4"/><circle class="{tone}" cx="{x(effect.estimate):.1f}" cy="{middle}" r="5"/></svg>'
    )


def _variants(results: Results) -> str:
    metrics = list(results.variants[0].metrics) if results.variants else []
    head = ["variant", "version", "predictions", "matured", "labelled", "late", "fallbacks", "degraded", *metrics]
    return _table([escape(name) for name in head], [_variant(variant, metrics) for variant in results.variants])


def _variant(variant: VariantResult, metrics: Sequence[str]) -> list[str]:
    role = " (champion)" if variant.champion else ""
    return [
        escape(variant.name + role),
        escape(variant.version[:12]),
        f"{variant.n:,}",
        f"{variant.matured:,}",
        f"{variant.matured_labelled:,} <span class='live'>{variant.labelled:,}</span>",
        f"{variant.late:,}",
        f"{variant.fallbacks:,}",
        f"{variant.degraded:,}",
        *(
            f"{_mean(variant.metrics.get(name))} <span class='live'>{_mean(variant.live.get(name))}</span>"
            for name in metrics
        ),
    ]


def _footer(results: Results) -> str:
    offsets = "; ".join(
        f"{escape(topic)} " + ", ".join(f"{partition}:{offset}" for partition, offset in sorted(by_partition.items()))
        for topic, by_partition in sorted(results.offsets.items())
    )
    since = "" if results.since is None else f" Results hold since {_time(results.since)}: older records are gone."
    return (
        f"<footer>Watermark {_time(results.watermark)}, window {results.window_s:g} s, updated "
        f"{_time(results.updated_at)}. Applied: {offsets or 'nothing yet'}.{since}</footer>"
    )


def _mean(interval: Interval | None) -> str:
    return _UNKNOWN if interval is None or interval.mean is None else f"{interval.mean:.4g}"


def _signed(value: float | None) -> str:
    return _UNKNOWN if value is None else f"{value:+.3g}"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return _UNKNOWN
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):  # a replay may use any time
        return f"{seconds:g}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are HTML already."""
    top = "".join(f"<th>{cell}</th>" for cell in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _page(title: str, body: str) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)} - Contender</title>"
        '<link rel="stylesheet" href="/static/page.css"><script src="/static/refresh.js" defer></script>'
        '<noscript><meta http-equiv="refresh" content="5"></noscript></head>'
        f'<body><header><a href="/">Contender</a></header><main>{body}</main></body></html>'
    )

"""Renders descriptions of definitions for a terminal of 80 columns."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from contender.commands.describe import Facts, spelled

_MOST_REFERENCE = 24
"""Columns reserved for references; longer ones are folded."""

_WIDE = 120
"""Columns from which a reference fits on one line."""

Shorten = Callable[[str], str]


def render(facts: Facts, shorten: Shorten) -> RenderableType:
    """One definition: a title, its documentation, and tables of its features and tiles.

    Args:
        facts: a description by `contender.commands.describe.describe`.
        shorten: shortens a location.
    """
    parts: list[RenderableType] = [Text(f"{facts['what']} {facts.get('reference') or facts['name']}", style="bold")]
    parts.append(_grid(_rows(facts, shorten)))
    if facts["what"] == "view":
        parts += _view_tables(facts)
    function = facts.get("function") or facts.get("view", {}).get("function")
    if function:
        parts += [Text("\nfunction", style="bold"), Text(function)]
    return Group(*parts, Text())


def _rows(facts: Facts, shorten: Shorten) -> Iterator[tuple[str, str]]:
    layouts = {
        "view": _view_rows,
        "on-demand view": _on_demand_rows,
        "source": _source_rows,
        "entity": lambda entity: [("join key", entity["join_key"]), ("views", _listed(entity["views"]))],
        "feature service": lambda service: [("features", "\n".join(service["features"]))],
        "feature": _feature_rows,
    }
    described = facts["view"] if facts["what"] == "feature" else facts
    yield "description", facts.get("description") or described["description"] or "(none)"
    yield "owner", described["owner"] or "(none)"
    if described["tags"]:
        yield "tags", _listed([f"{name}={value}" for name, value in described["tags"].items()])
    yield from layouts[facts["what"]](facts)
    yield "defined at", shorten(facts.get("defined_at") or described["defined_at"])


def _view_rows(view: Facts) -> Iterator[tuple[str, str]]:
    yield "meaning", f"digest {view['digest']}; the service gives it a version number when it is applied"
    yield (
        "entity",
        _listed([f"{entity['name']} by {entity['join_key']}" for entity in view["entities"]])
        or "none: features over all events",
    )
    source = view["source"]
    yield "source", f"{source['name']}: {source['description']}" if source["description"] else source["name"]
    yield "schema", _typed(source["schema"])
    yield "history", source["history"] or "(none)"
    yield "topic", source["topic"]
    yield "hop", f"{spelled(view['hop'])}: windows move in steps of it"
    yield "lateness", f"{spelled(view['lateness'])}: an event this much older than its entity's newest still counts"
    yield (
        "max age",
        f"null where the newest event is older than {spelled(view['max_age'])}" if view["max_age"] else "any",
    )
    yield "fresh within", spelled(view["fresh_within"])
    yield "filter", view["where"] or "every event counts"


def _view_tables(view: Facts) -> Iterator[RenderableType]:
    table = Table("feature", "computes", "covers", "default", box=None, pad_edge=False)
    for feature in view["features"]:
        computes = f"{feature['computes']}\nwhere {feature['where']}" if feature["where"] else feature["computes"]
        table.add_row(
            *map(Text, (feature["name"], computes, feature["covers"].removeprefix("covers "), _default(feature)))
        )
    yield from (Text(), table)
    kept = Table("tiles of", "for", "tiles", "bytes each", "bytes", box=None, pad_edge=False)
    for group in view["tiles"]:
        numbers = (f"{group['tiles']:,}", f"{group['tile_bytes']:,}", f"{group['bytes']:,}")
        kept.add_row(*map(Text, (group["column"] or "bare events", "\n".join(group["features"]), *numbers)))
    yield from (Text(), kept)
    yield Text(f"An entity takes {view['bytes_per_entity']:,} bytes of memory, its offsets included.")


def _on_demand_rows(view: Facts) -> Iterator[tuple[str, str]]:
    yield "meaning", f"digest {view['digest']}; the service gives it a version number when it is applied"
    if "features" in view:
        yield "features", _typed(view["features"])
    yield "request", _typed(view["request"]) or "no columns"
    yield "inputs", "\n".join(view["inputs"]) or "none"
    yield "entity keys", _listed(view["entity_keys"]) or "none"


def _source_rows(source: Facts) -> Iterator[tuple[str, str]]:
    yield "schema", _typed(source["schema"])
    yield "timestamp", source["timestamp"]
    yield "history", source["history"] or "(none)"
    yield "ingested at", source["ingested_at"] or "(not known)"
    yield "topic", source["topic"]
    yield "views", _listed(source["views"]) or "none"


def _feature_rows(feature: Facts) -> Iterator[tuple[str, str]]:
    view = feature["view"]
    yield "type", feature["type"]
    if view["what"] == "on-demand view":
        yield from _on_demand_rows(view)
        return
    yield "computes", feature["computes"]
    yield "window", feature["covers"]
    if feature["kind"] != "ratio":
        yield "feature filter", feature["where"] or "every event counts"
    yield "without events", "null" if feature["over_an_empty_window"] is None else "0"
    yield "default", _default(feature)
    shared = feature["tiles_shared_with"]
    yield "cost", f"{feature['tile_bytes']:,} bytes per entity" + (f", shared with {_listed(shared)}" if shared else "")
    yield from _view_rows(view)


def _grid(rows: Iterator[tuple[str, str]]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in rows:
        table.add_row(Text(name), Text(text))
    return table


def _default(feature: Facts) -> str:
    return "none" if feature["default"] is None else str(feature["default"])


def _typed(columns: Mapping[str, Any]) -> str:
    return _listed([f"{name} {kind}" for name, kind in columns.items()])


def _listed(texts: Sequence[str]) -> str:
    return ", ".join(texts)


def render_list(features: Sequence[Facts], width: int) -> Table:
    """A table of features for a terminal of `width` columns."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for title in ("reference", "kind", "window", "keys", "source", "owner", "description"):
        table.add_column(title, overflow="fold")
    # In a narrow terminal the view and the feature of a reference stand one below the other.
    split = width < _WIDE
    previous = ""
    for feature in features:
        reference = feature["reference"].replace(":", ":\n ") if split else feature["reference"]
        description = "" if feature["description"] == previous else feature["description"]
        previous = feature["description"]
        keys = "\n".join(feature["entity_keys"])
        cells = (reference, feature["kind"], feature["window"], keys, feature["source"], feature["owner"], description)
        table.add_row(*map(Text, cells))
    longest = max(len(half) for feature in features for half in feature["reference"].split(":"))
    table.columns[0].min_width = min(longest + 1, _MOST_REFERENCE)
    return table

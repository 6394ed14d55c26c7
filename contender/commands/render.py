"""What is known of a definition, laid out for a terminal of 80 columns."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from contender.commands.describe import Facts, spelled

Shorten = Callable[[str], str]


def page(facts: Facts, shorten: Shorten) -> RenderableType:
    """One definition: a title, what is told about it, and tables of what it consists of.

    Args:
        facts: as `contender.commands.describe.facts` gives them.
        shorten: makes a place as short as it can be said.
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
        "entity": lambda one: [("join key", one["join_key"]), ("views", _listed(one["views"]))],
        "feature service": lambda one: [("features", "\n".join(one["features"]))],
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
    yield "meaning", f"digest {view['digest']}; the service that takes it up gives it a version's number"
    yield "entity", _listed([f"{one['name']} by {one['join_key']}" for one in view["entities"]]) or "none: of the whole"
    source = view["source"]
    yield "source", f"{source['name']}: {source['description']}" if source["description"] else source["name"]
    yield "schema", _typed(source["schema"])
    yield "history", source["history"] or "(none)"
    yield "topic", source["topic"]
    yield "hop", f"{spelled(view['hop'])}: a window moves in steps of it"
    yield "lateness", f"{spelled(view['lateness'])} behind the newest event of its entity an event still counts"
    yield (
        "max age",
        f"null where the newest event is older than {spelled(view['max_age'])}" if view["max_age"] else "any",
    )
    yield "fresh within", spelled(view["fresh_within"])
    yield "filter", view["where"] or "every event counts"


def _view_tables(view: Facts) -> Iterator[RenderableType]:
    table = Table("feature", "computes", "covers", "default", box=None, pad_edge=False)
    for one in view["features"]:
        computes = f"{one['computes']}\nwhere {one['where']}" if one["where"] else one["computes"]
        table.add_row(*map(Text, (one["name"], computes, one["covers"].removeprefix("covers "), _default(one))))
    yield from (Text(), table)
    kept = Table("tiles of", "for", "tiles", "bytes each", "bytes", box=None, pad_edge=False)
    for one in view["tiles"]:
        numbers = (f"{one['tiles']:,}", f"{one['tile_bytes']:,}", f"{one['bytes']:,}")
        kept.add_row(*map(Text, (one["column"] or "bare events", "\n".join(one["features"]), *numbers)))
    yield from (Text(), kept)
    yield Text(f"An entity takes {view['bytes_per_entity']:,} bytes of memory, its offsets included.")


def _on_demand_rows(view: Facts) -> Iterator[tuple[str, str]]:
    yield "meaning", f"digest {view['digest']}; the service that takes it up gives it a version's number"
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

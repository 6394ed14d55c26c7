"""`contender features new`: writes a file of valid definitions to adapt."""

from pathlib import Path
from string import Template
from typing import Annotated

import typer

from contender.commands.terminal import console, fail
from contender.features.limits import NAME

MOST_NAME = 40
"""Longest name that longer ones, of at most 63 characters, are made from."""

TEMPLATE = Template('''\
"""Features of $name.

Replace names and columns with your own, then run `contender features check $path`.
"""

from contender.features import Entity, EventSource, FeatureService, FeatureView, column, count, last, mean, on_demand

OWNER = "your-team"

# The entity that features describe. The second name is the column of the events that identifies it.
customer = Entity("customer", "customer_id", description="Somebody who buys.", owner=OWNER)

# The events. Every column is a str, int, float or bool; an event's time is not among the columns.
# history="$name-*.parquet" would name files with earlier events, for training sets.
events = EventSource(
    "$name",
    schema={"customer_id": str, "amount": float, "channel": str},
    description="A purchase: its cost and its channel.",
    owner=OWNER,
)

# The features. One aggregation takes several windows, each a whole number of hops; "all" is all time.
activity = FeatureView(
    "${name}_activity",
    entity=customer,
    source=events,
    features=[
        count("1h", "24h", "7d"),
        mean("amount", "24h", "7d"),
        last("amount", "7d"),
        count("7d", name="on_the_web_7d", where=column("channel") == "web"),
    ],
    hop="30m",  # how finely windows move: a shorter hop takes more memory
    description="How often and for how much a customer buys.",
    owner=OWNER,
)


# A feature that depends on the request, too. Parameters are the columns of the request, then the inputs: numpy arrays,
# in which a null is NaN. The function must stand alone; it may use numpy as np.
@on_demand(
    request={"price": float},
    inputs=["${name}_activity:mean_amount_7d"],
    features={"price_to_usual": float},
    owner=OWNER,
)
def ${name}_compared(price, usual):
    """How the price at hand compares with what the customer usually pays."""
    return price / usual


# The features of one model.
everything = FeatureService(
    "${name}_model",
    features=[
        "${name}_activity:count_24h",
        "${name}_activity:mean_amount_7d",
        "${name}_activity:on_the_web_7d",
        "${name}_compared:price_to_usual",
    ],
    description="The inputs of the model of $name.",
    owner=OWNER,
)
''')


def new(
    name: Annotated[str, typer.Argument(help="The kind of events, such as payments.")],
    *,
    path: Annotated[Path | None, typer.Option(help="The file to write; default: NAME.py.")] = None,
) -> None:
    """Write a small file of definitions to start from."""
    if not NAME.fullmatch(name) or len(name) > MOST_NAME:
        raise fail(
            f"{name!r} can't be a name; use at most {MOST_NAME} lower-case letters, digits and single underscores"
        )
    file = path or Path(f"{name}.py")
    if file.suffix != ".py":
        raise fail(f"{file} must end in .py, so that it can be loaded")
    try:
        with file.open("x", encoding="utf-8") as opened:
            opened.write(TEMPLATE.substitute(name=name, path=file))
    except FileExistsError as error:
        raise fail(f"{file} exists already; choose another name or another --path") from error
    except OSError as error:
        raise fail(f"{file} can't be written: {error.strerror}") from error
    steps = (
        f"Wrote {file}. Next:",
        f"  contender features check {file}",
        f"  contender features show {name}_activity {file}",
        f"  export CONTENDER_FEATURES={file.resolve()}    # then `contender up` serves them",
    )
    console.print("\n".join(steps), markup=False, soft_wrap=True)

"""What `contender features new` writes: definitions that load as they are, to be made one's own."""

from string import Template

TEMPLATE = Template('''\
"""Features of $name: what they are computed from, and over which windows.

Put your own names and columns in, then run `contender features check $path`.
"""

from contender.features import Entity, EventSource, FeatureService, FeatureView, column, count, last, mean, on_demand

OWNER = "your-team"

# Whom features describe. The second name is the column of the events that tells one from another.
customer = Entity("customer", "customer_id", description="Somebody who buys.", owner=OWNER)

# What happens. Every column has one of the types str, int, float and bool; the time of an event comes by itself.
# history="$name-*.parquet" would name files with what happened before, for training sets.
events = EventSource(
    "$name",
    schema={"customer_id": str, "amount": float, "channel": str},
    description="A purchase: what it cost, and where it was made.",
    owner=OWNER,
)

# What is computed from it. One aggregation takes several windows, each a whole number of hops; "all" is all time.
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


# What depends on the request too. Parameters are the columns of the request, then the inputs: whole numpy arrays, in
# which a null is NaN. The function stands alone, with numpy as np.
@on_demand(
    request={"price": float},
    inputs=["${name}_activity:mean_amount_7d"],
    features={"price_to_usual": float},
    owner=OWNER,
)
def ${name}_compared(price, usual):
    """How the price at hand compares with what the customer usually pays."""
    return price / usual


# What one model asks for.
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

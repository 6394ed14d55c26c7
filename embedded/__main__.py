"""`python -m embedded`: the stack of `contender up --detach`, which reports in its state file and its log."""

import sys

from embedded.errors import EmbeddedError
from embedded.settings import StackSettings
from embedded.stack import run

if __name__ == "__main__":
    try:
        run(StackSettings.load(), lambda _: None, lambda: None)
    except EmbeddedError as error:
        sys.exit(str(error))

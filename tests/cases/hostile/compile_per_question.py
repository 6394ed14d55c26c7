"""What a question for an on-demand feature costs beside the function itself; needs no running stack.
came 2026-11-27: 146 us a question on a busy machine (28 on a quiet one), of which 95 % compile the source again; the
    function itself takes 13 (3).
right: compiled once for each definition: a question takes less than three times the function's own time plus 5 us.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import time

import numpy as np
from _case import check, done

from contender.features.on_demand import OnDemandView

text = "def v(a, b):\n    x = np.where(b > 0, a / b, 0.0)\n    y = np.log1p(np.abs(x))\n    return y * 2"
view = OnDemandView("v", (), {"a": float, "b": float}, {"f": float}, text)
columns = [np.ones(1), np.ones(1)]


def own(a, b):
    x = np.where(b > 0, a / b, 0.0)
    y = np.log1p(np.abs(x))
    return y * 2


def per_call(function, n=2000):
    best = 1e9
    for _ in range(3):
        began = time.perf_counter()
        for _ in range(n):
            function()
        best = min(best, (time.perf_counter() - began) / n * 1e6)
    return best


whole, alone = per_call(lambda: view.compute(columns)), per_call(lambda: own(*columns))
check(
    "compiled once, not at every question", whole < 3 * alone + 5, f"{whole:.0f} us; the function itself {alone:.0f} us"
)
done()

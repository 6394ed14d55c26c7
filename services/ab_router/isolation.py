"""Finds the rows for which a question is refused, so that the other rows are answered."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from services.ab_router.clients import CallError, QuestionRefusedError
from shared.breaker import RetryBudget

RowT = TypeVar("RowT")
ResultT = TypeVar("ResultT")


async def ask_by_halves(
    rows: Sequence[RowT],
    ask: Callable[[Sequence[RowT]], Awaitable[Sequence[ResultT]]],
    budget_s: float,
    retries: RetryBudget,
) -> list[ResultT | CallError]:
    """One result per row, in order: a refused question is asked again in halves, down to the single row.

    `k` bad rows among `n` take about `2 k log2(n / k)` calls, one after another.

    Args:
        rows: what to ask for.
        ask: gives one result per row; raises QuestionRefusedError where the question is refused. Any other CallError,
            where nobody answers, becomes the result of its rows.
        budget_s: seconds after which no further half is asked; a CallError is the result of the remaining rows.
        retries: how many halves may be asked, of which each row allows a share; those rows have that result, too.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + budget_s
    retries.note(len(rows))
    results: list[ResultT | CallError] = []
    parts = [rows]
    while parts:
        part = parts.pop()
        try:
            if loop.time() > until:
                raise CallError(f"{budget_s:g} s were not enough to find the rows that are refused")  # noqa: TRY301
            if part is not rows and not retries.take():
                raise CallError("too many questions are refused to ask them again in halves")  # noqa: TRY301
            results += await ask(part)
        except QuestionRefusedError as refusal:
            if len(part) == 1:
                results.append(refusal)
            else:
                half = len(part) // 2
                parts += [part[half:], part[:half]]
        except CallError as error:
            results += [error] * len(part)
    return results

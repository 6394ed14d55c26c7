"""Fixtures of the shared package's tests."""

import asyncio
from collections.abc import Callable, Mapping

import pytest

from tests.unit.shared.manual_time import ManualTimeLoop

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, LoopFactory]:
    """Run a test that asks for `manual_time` in a loop whose time it moves, every other test in a usual loop."""
    is_manual = "manual_time" in getattr(item, "fixturenames", ())
    return {"manual": ManualTimeLoop} if is_manual else {"usual": asyncio.new_event_loop}


@pytest.fixture
async def manual_time() -> ManualTimeLoop:
    """The running loop, whose time the test moves."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, ManualTimeLoop)
    return loop

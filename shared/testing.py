"""Test seams that ship with the product: an application in-process, with its lifespan."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from shared.guard import Admission, Guard
from shared.settings import Settings


@asynccontextmanager
async def client_for(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application behind its guard, in this process, while its lifespan lasts."""
    guarded, settings = Guard(app, Admission()), Settings.load()
    async with app.router.lifespan_context(app) as state:

        async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
            # httpx's transport runs no lifespan, so the state that a server would pass is put in here.
            scope["state"] = {"settings": settings, **(state or {})}
            await guarded(scope, receive, send)

        transport = httpx.ASGITransport(app=with_state, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            yield client

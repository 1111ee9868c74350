"""Launch the page and keep it up."""

from __future__ import annotations

import asyncio
import json
import os

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read while gradio is imported
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import threading
import time
from typing import Any

import gradio as gr
import uvicorn
from fastapi import FastAPI
from gradio.routes import App
from starlette.routing import Mount

from core.errors import LaunchError
from pruneviz import ASSETS, access, api, boundary, housekeeping, present, scripts, ui
from pruneviz.arguments import Arguments
from pruneviz.context import AppContext
from pruneviz.theme import build_css, build_theme

#: What Gradio keeps of open pages is a copy of the page each; the one that was quiet longest goes first.
MOST_SESSIONS = 64
MOST_WAITING = 256
#: Where Gradio answers models.
MCP = "/gradio_api/mcp"


def serve(arguments: Arguments) -> None:
    """Build the page, serve it until interrupted, then give the engine back. Raises LaunchError."""
    housekeeping.spare()
    app = AppContext(
        arguments.runs_dir,
        arguments.model,
        arguments.device,
        arguments.dtype,
        arguments.load_limit_s,
        arguments.allow_remote_code,
        ASSETS / "examples",
        arguments.cluster,
        arguments.device_map,
        arguments.max_memory,
    )
    config = uvicorn.Config(
        build(app, arguments),
        host=arguments.host,
        port=arguments.port,
        log_level="warning",
        ws="none",
        server_header=False,
        proxy_headers=bool(arguments.allow_hosts),  # a proxy on this machine then says whom it answers
    )
    try:
        thread = _started(uvicorn.Server(config), f"{arguments.host}:{arguments.port}")
        housekeeping.start()
        print(_where(arguments), flush=True)
        thread.join()
    except KeyboardInterrupt:
        print("Interrupted; runs that are under way go on.", flush=True)
    finally:
        app.close()


def build(app: AppContext, arguments: Arguments) -> FastAPI:
    """The page behind its boundary, with `/present` beside it."""
    page = ui.build(app).queue(default_concurrency_limit=8, max_size=MOST_WAITING)
    page.state_session_capacity = MOST_SESSIONS
    names = access.names(arguments.host, arguments.allow_hosts)
    server = FastAPI(middleware=boundary.middleware(names), openapi_url=None)
    gr.mount_gradio_app(
        server,
        page,
        path="/",
        auth=arguments.auth,
        run_history=False,
        footer_links=[],
        ssr_mode=False,
        show_error=True,
        enable_monitoring=False,
        mcp_server=arguments.mcp,
        theme=build_theme(),
        css=build_css(),
        head=scripts.HEAD,
        allowed_paths=[str(ASSETS)],
    )
    (mounted,) = (route.app for route in server.routes if isinstance(route, Mount))
    assert isinstance(mounted, App)
    present.add_route(mounted, app)
    if arguments.mcp:
        _answer_models(mounted, app)
    return server


def _answer_models(server: App, app: AppContext) -> None:
    """Put the login before what models ask, and the endpoints' own words into what they get.

    Gradio would look at the types of arguments first and refuse them in words of a schema, and it writes
    Python where JSON is read.

    Raises:
        LaunchError: there is nothing that answers them.
    """
    where = next((r for r in server.routes if isinstance(r, Mount) and r.path == MCP), None)
    tools = server.get_blocks().mcp_server_obj
    if where is None or tools is None:
        raise LaunchError(f"--mcp does not work here: {server.get_blocks().mcp_error}; leave it out.")
    types = tools.types

    async def call(name: str, arguments: dict[str, Any]) -> list[Any]:
        said = await asyncio.to_thread(api.answer, app, name, arguments)
        return [types.TextContent(type="text", text=json.dumps(said))]

    tools.mcp_server.call_tool(validate_input=False)(call)
    where.app = boundary.LoggedIn(where.app, lambda cookies: present.logged_in(server, cookies))


def _started(server: uvicorn.Server, where: str) -> threading.Thread:
    """The thread in which `server` answers. Raises LaunchError if it does not come up."""
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        if not thread.is_alive():
            raise LaunchError(f"Nothing can listen on {where}; the reason stands above.")
        time.sleep(0.01)
    return thread


def _where(arguments: Arguments) -> str:
    """Where the page is found, and who may open it."""
    found = " or ".join(access.addresses(arguments.host, arguments.port))
    lines = [f"Pruning workbench: {found}  (runs in {arguments.runs_dir})"]
    if arguments.mcp:
        lines.append(f"For models (MCP): {access.addresses(arguments.host, arguments.port)[0]}{MCP[1:]}/")
    if access.exposed(arguments.host) and not arguments.auth:
        lines.append("Without a login: whoever reaches this address can start runs here as you.")
    return "\n".join(lines)

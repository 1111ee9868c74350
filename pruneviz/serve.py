"""Launch the page and keep it up."""

from __future__ import annotations

import os

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read while gradio is imported
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

from pruneviz import ASSETS, present, scripts, ui
from pruneviz.arguments import Arguments
from pruneviz.context import AppContext
from pruneviz.theme import build_css, build_theme


def serve(arguments: Arguments) -> None:
    """Build the page, serve it until interrupted, then give the engine back."""
    app = AppContext(arguments.runs_dir, arguments.model, arguments.device, arguments.dtype)
    page = ui.build(app).queue(default_concurrency_limit=8)
    host = "127.0.0.1" if arguments.host in ("0.0.0.0", "::") else arguments.host
    try:
        server, *_ = page.launch(
            prevent_thread_lock=True,
            server_name=arguments.host,
            server_port=arguments.port,
            auth=arguments.auth,
            quiet=True,
            share=False,
            run_history=False,
            footer_links=[],
            ssr_mode=False,
            show_error=True,
            theme=build_theme(),
            css=build_css(),
            head=scripts.HEAD,
            allowed_paths=[str(ASSETS)],
        )
        present.add_route(server, app)
        print(f"Pruning workbench: http://{host}:{arguments.port}/  (runs in {app.runs_dir})", flush=True)
        page.block_thread()
    finally:
        app.close()

"""Pages built so that Gradio leaves nothing open: outside an event loop it makes ones it never closes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import gradio as gr
import pytest

from pruneviz import ui
from pruneviz.context import AppContext


@pytest.fixture(scope="session")
def build_page() -> Callable[[AppContext], gr.Blocks]:
    """`ui.build`, called from within an event loop."""

    def build(app: AppContext) -> gr.Blocks:
        async def inside() -> gr.Blocks:
            return ui.build(app)

        return asyncio.run(inside())

    return build

"""Colours, type and CSS. The colours live here once; CSS gets them as variables, figures as values.

Contrast of every text colour on its background is at least 4.5 : 1 (WCAG AA); a test computes it.
"""

from __future__ import annotations

import gradio as gr
from gradio.themes.utils import colors, fonts, sizes

from pruneviz import ASSETS

#: Green is what stays, clay what goes; blue is attention and ochre FFN wherever the two stand side by side.
LIGHT = {
    "page": "#f7f6f2", "panel": "#ffffff", "sunken": "#f0eee7", "line": "#dedbd1", "text": "#1d2521",
    "quiet": "#5a645e", "accent": "#1d6b50", "on-accent": "#ffffff", "soft": "#e2efe8", "removed": "#a8431f",
    "attention": "#2f5f9e", "ffn": "#8a5a00", "residual": "#7a3f86", "embedding": "#4d5f57",
    "good": "#1d6b50", "busy": "#2f5f9e", "bad": "#a32424", "warn": "#8a5a00", "idle": "#5a645e",
}  # fmt: skip
DARK = {
    "page": "#121614", "panel": "#1a201d", "sunken": "#151a17", "line": "#333c37", "text": "#e8ece9",
    "quiet": "#a3aea8", "accent": "#74c9a6", "on-accent": "#0f1512", "soft": "#21332b", "removed": "#f08d66",
    "attention": "#8db8f2", "ffn": "#e0b04f", "residual": "#d09be0", "embedding": "#a9bcb2",
    "good": "#74c9a6", "busy": "#8db8f2", "bad": "#f59a9a", "warn": "#e0b04f", "idle": "#a3aea8",
}  # fmt: skip
GREEN = colors.Color(
    "#f1f7f4", "#e2efe8", "#c3dfd2", "#96c9b2", "#5fab8c", "#3b8d6d", "#1d6b50", "#195a44", "#164838",
    "#123a2e", "#0a221b", "leaf",
)  # fmt: skip
STONE = colors.Color(
    "#faf9f6", "#f0eee7", "#dedbd1", "#c7c4b9", "#a3aea8", "#727c76", "#5a645e", "#414a45", "#333c37",
    "#1a201d", "#121614", "stone-green",
)  # fmt: skip
#: What Gradio calls a part -> its colour, in both themes.
PAINTED = {
    "body_background_fill": "page", "body_text_color": "text", "body_text_color_subdued": "quiet",
    "background_fill_primary": "panel", "background_fill_secondary": "sunken",
    "border_color_primary": "line", "block_background_fill": "panel", "block_label_text_color": "quiet",
    "block_title_text_color": "quiet", "block_info_text_color": "quiet", "input_background_fill": "panel",
    "input_border_color": "line",
    "button_primary_background_fill": "accent", "button_primary_text_color": "on-accent",
    "button_secondary_background_fill": "panel", "button_secondary_border_color": "line",
    "slider_color": "accent",
}  # fmt: skip


def build_theme() -> gr.themes.Base:
    """The Gradio theme. All fonts are served by the app itself.

    Weights are 400 and 700: the 600 files that Gradio ships lack most letters.
    """
    theme = gr.themes.Base(
        primary_hue=GREEN,
        secondary_hue=GREEN,
        neutral_hue=STONE,
        radius_size=sizes.radius_sm,
        font=[fonts.LocalFont("IBM Plex Sans", weights=(400, 700)), "system-ui", "sans-serif"],
        font_mono=[fonts.LocalFont("IBM Plex Mono", weights=(400, 700)), "ui-monospace", "monospace"],
    )
    painted = {part: f"var(--pv-{colour})" for part, colour in PAINTED.items()}
    dark = {f"{part}_dark": colour for part, colour in painted.items()}
    hover = "color-mix(in srgb, var(--pv-accent) 88%, {})"
    return theme.set(
        **{**painted, **dark, "input_background_fill_dark": "var(--pv-sunken)"},
        color_accent="var(--pv-accent)",
        button_primary_background_fill_hover=hover.format("black"),
        button_primary_background_fill_hover_dark=hover.format("white"),
        block_title_text_weight="600",
        block_shadow="none",
        input_border_width="1px",
        button_border_width="1px",
        button_large_text_size="*text_md",
        button_large_text_weight="400",
        button_large_padding="8px 16px",
    )


def variables(colours: dict[str, str]) -> str:
    """The colours as CSS custom properties `--pv-<name>`."""
    return "".join(f"--pv-{name}:{value};" for name, value in colours.items())


def build_css() -> str:
    """Colour variables for both themes, then `assets/theme.css`."""
    sheet = (ASSETS / "theme.css").read_text(encoding="utf-8")
    return f":root{{{variables(LIGHT)}}}\n.dark{{{variables(DARK)}}}\n{sheet}"

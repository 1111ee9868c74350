from __future__ import annotations

import pytest

from pruneviz import theme


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    """WCAG contrast ratio."""
    high, low = sorted((_luminance(a), _luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_the_ratio_itself():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


@pytest.mark.parametrize("colours", [theme.LIGHT, theme.DARK], ids=["light", "dark"])
@pytest.mark.parametrize("background", ["page", "panel", "sunken", "soft"])
@pytest.mark.parametrize(
    "text", ["text", "quiet", "accent", "removed", "good", "busy", "bad", "warn", "idle"]
)
def test_every_text_colour_can_be_read(colours, background, text):
    assert contrast(colours[text], colours[background]) >= 4.5


def test_both_themes_name_the_same_colours():
    assert theme.LIGHT.keys() == theme.DARK.keys()


@pytest.mark.parametrize("colours", [theme.LIGHT, theme.DARK], ids=["light", "dark"])
def test_the_main_button_can_be_read(colours):
    assert contrast(colours["on-accent"], colours["accent"]) >= 4.5


def test_the_sheet_uses_only_colours_that_exist():
    import re

    used = set(re.findall(r"var\(--pv-([a-z-]+)\)", theme.build_css()))
    assert used <= theme.LIGHT.keys()


def test_nothing_is_loaded_from_elsewhere():
    assert "http" not in theme.build_css()
    assert theme.build_theme()._stylesheets == []

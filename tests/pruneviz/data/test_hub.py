"""Models are found on a hub, and described before anything is loaded; the hub here is a real server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import huggingface_hub
import pytest

from core.errors import DataError
from pruneviz.data import hub
from pruneviz.figures.model import card_html
from pruneviz.tabs import hub_search

LLAMA = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 2, "hidden_size": 16,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 100,
}  # fmt: skip
#: Id -> config, whether it is gated, its numbers by type.
MODELS: dict[str, tuple[dict[str, Any], str | bool, dict[str, int]]] = {
    "org/open-llama": (LLAMA, False, {"BF16": 1000, "F32": 10}),
    "org/terms-llama": (LLAMA, "manual", {"BF16": 7_000_000_000}),
    "org/eight-llama": ({**LLAMA, "quantization_config": {"quant_method": "gptq"}}, False, {"I32": 500}),
}


class Hub(BaseHTTPRequestHandler):
    """The hub's API as far as it is used here."""

    def log_message(self, *_: Any) -> None:
        """Nothing is written."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        name, _, file = url.path.strip("/").partition("/resolve/main/")
        if url.path == "/api/models":
            query = parse_qs(url.query)
            assert query["filter"] == ["safetensors"] and "gated" in query["expand"]
            self.answer([self.told(key) for key in MODELS if query["search"][0] in key])
        elif url.path.removeprefix("/api/models/") in MODELS:
            self.answer(self.told(url.path.removeprefix("/api/models/")))
        elif name in MODELS and file == "config.json" and not MODELS[name][1]:
            self.answer(MODELS[name][0])
        elif name in MODELS:
            self.answer({"error": "gated"}, 403, {"X-Error-Code": "GatedRepo"})
        else:
            self.answer({"error": "none"}, 404, {"X-Error-Code": "RepoNotFound"})

    def told(self, name: str) -> dict[str, Any]:
        config, gated, numbers = MODELS[name]
        weights = {"parameters": numbers, "total": sum(numbers.values())}
        told = {"id": name, "gated": gated, "safetensors": weights, "downloads": 1200}
        return {**told, "config": {"model_type": config["model_type"]}}

    def answer(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        told = {"Content-Length": str(len(body)), "ETag": '"e0"', "X-Repo-Commit": "c" * 40}
        told |= headers or {}
        for key, text in told.items():
            self.send_header(key, text)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """The address of a hub that `HfApi` asks."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    where = f"http://127.0.0.1:{server.server_port}"
    at(monkeypatch, where, tmp_path)
    yield where
    server.shutdown()
    server.server_close()


def at(monkeypatch: pytest.MonkeyPatch, where: str, cache: Path) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", where)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache / "hub"))
    template = where + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


def test_models_are_found_by_a_part_of_their_name(asked: str) -> None:
    labels = {source: label for label, source in hub.search("llama")}
    assert list(labels) == list(MODELS) and hub.search("nothing") == []
    assert labels["org/open-llama"] == "org/open-llama · 1,010 parameters · llama · 1,200 downloads a month"
    assert "gated: its owner wants terms accepted" in labels["org/terms-llama"]


def test_what_is_found_is_described_before_it_is_loaded(asked: str) -> None:
    card = hub.describe("org/open-llama")
    assert (card.params, card.stored_bytes, card.layers, card.kv_heads) == (1010, 2040, 2, 2)
    assert card.access == "open to everybody" and not card.refusal


def test_a_gated_model_says_what_to_do(asked: str) -> None:
    card = hub.describe("org/terms-llama")
    assert card.access == "gated"
    assert card.refusal.startswith(f"It is gated: accept its terms at {asked}/org/terms-llama, then log in")
    assert all(told in card_html(card) for told in ("7 B", "half in 16 bits (13 GiB)", card.refusal))


def test_a_model_that_cannot_be_pruned_says_so(asked: str) -> None:
    assert "quantised weights (gptq)" in hub.describe("org/eight-llama").refusal


def test_what_the_hub_does_not_have_is_one_line(asked: str) -> None:
    with pytest.raises(DataError, match="no such model, or it is private"):
        hub.describe("org/none")
    (*_, (words, source)) = hub_search._describe("org/none")
    assert "no such model" in words and "pv-quiet" in words and source == "org/none"


@pytest.mark.parametrize("kind", ["silent", "closed"])
def test_a_hub_out_of_reach_is_one_quiet_line(
    kind: str, silent_hub: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    at(monkeypatch, silent_hub["HF_ENDPOINT"] if kind == "silent" else "http://127.0.0.1:1", tmp_path)
    monkeypatch.setattr(hub, "WAIT_S", 0.3)
    (*_, (words, found)) = hub_search._search("llama")
    assert "cannot be asked" in words and "pv-quiet" in words and found == []


def test_nothing_is_asked_where_the_hub_is_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert hub.offline()
    with pytest.raises(DataError, match="cannot be asked"):
        hub.search("llama")

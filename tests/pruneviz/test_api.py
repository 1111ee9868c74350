"""The endpoints with a name, asked by `gradio_client` and by an MCP client, on a running dashboard."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client

from pruneviz.arguments import parse
from tests.browser.driver import Dashboard, free_port
from tests.cli.calls import refused

NAMES = ["/analyse", "/prune", "/status", "/compare"]
NOTEBOOK = Path(__file__).resolve().parents[2] / "docs" / "notebook.ipynb"
USER = ("me", "secret")


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory: pytest.TempPathFactory, tiny_llama_folder: Path) -> Iterator[Dashboard]:
    folder = tmp_path_factory.mktemp("api")
    app = Dashboard(folder / "runs", model=str(tiny_llama_folder), options=("--mcp", "--device", "cpu"))
    app.start()
    yield app
    app.stop()
    assert "Traceback" not in app.log.read_text()


@pytest.fixture(scope="module")
def client(dashboard: Dashboard) -> Client:
    return Client(dashboard.url, verbose=False)


def called(dashboard: Dashboard, tool: str, headers: dict[str, str] | None = None, **arguments: Any) -> Any:
    """What an MCP client gets from a tool, and whether that is an error."""

    async def ask() -> Any:
        async with (
            httpx.AsyncClient(headers=headers, timeout=60) as http,
            streamable_http_client(f"{dashboard.url}gradio_api/mcp/", http_client=http) as (reads, writes, _),
            ClientSession(reads, writes) as session,
        ):
            await session.initialize()
            if not tool:
                return await session.list_tools()
            return await session.call_tool(tool, arguments)

    return asyncio.run(ask())


def test_only_what_is_documented_can_be_called(client: Client) -> None:
    named = client.view_api(return_format="dict", print_info=False)
    assert list(named["named_endpoints"]) == NAMES and not named["unnamed_endpoints"]
    for each in named["named_endpoints"].values():
        assert all(parameter["type"] for parameter in each["parameters"])
    page = (Path(__file__).resolve().parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
    for name, each in named["named_endpoints"].items():
        words = [f"`{parameter['parameter_name']}`" for parameter in each["parameters"]]
        assert f"`{name}`" in page and all(word in page for word in words), name


def test_a_model_starts_a_run_and_a_program_asks_how_it_goes(dashboard: Dashboard, client: Client) -> None:
    (content,) = called(dashboard, "analyse", model=dashboard.model, analyses=["groups"]).content
    known = json.loads(content.text)
    while (said := client.predict(known["id"][:-1], api_name="/status"))["ended"] is None:
        time.sleep(0.2)
    assert (known["goal"], said["state"]) == ("explore", "finished")
    assert said["spec"]["explore"]["analyses"] == ["groups"]
    assert known["id"] in {run["id"] for run in client.predict(api_name="/status")["runs"]}
    assert client.predict(api_name="/compare")["models"] == []


@pytest.mark.slow
def test_the_notebook_analyses_prunes_compares_and_loads(
    dashboard: Dashboard, texts: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    small = {"calibration": str(texts[0]), "samples": 4, "length": 16, "ppl": str(texts[1]), "window": 16}
    quick = {**small, "tokens": 64, "ppl-also": "", "prompt": [], "efficiency": False, "method": "l2"}
    put = {"URL": dashboard.url, "MODEL": dashboard.model, "OPTIONS": quick}
    space: dict[str, Any] = {}
    for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
        lines = "".join(cell["source"]).splitlines() if cell["cell_type"] == "code" else []
        named = [line.partition(" = ")[0] for line in lines]
        here = [f"{n} = {put[n]!r}" if n in put else line for n, line in zip(named, lines, strict=True)]
        exec("\n".join(here).replace('["recommended"]', '.get("recommended")'), space)
    cut, known = space["cut"], space["known"]
    assert known["spec"]["explore"]["analyses"] == ["groups"]
    assert (cut["method"], cut["sparsity"]) == ("l2", 0.2) and space["model"].num_parameters() > 0
    assert "Parameters" in capsys.readouterr().out and len(space["beside"]["models"]) == 2
    assert {run["id"] for run in space["client"].predict(api_name="/status")["runs"]} == {
        known["id"],
        cut["id"],
    }
    said = called(dashboard, "status", run=cut["id"])
    assert json.loads(said.content[0].text)["metrics"] == cut["metrics"]


def test_tools_are_the_same_endpoints(dashboard: Dashboard) -> None:
    tools = called(dashboard, "").tools
    assert [f"/{tool.name}" for tool in tools] == NAMES
    for tool in tools:
        assert tool.description and all(p.get("description") for p in tool.inputSchema["properties"].values())


WRONG = [
    ({"sparsity": "20"}, ["--sparsity", "20"]),
    ({"sparsity": 1.5}, ["--sparsity", "1.5"]),
    ({"method": "taylor_frist"}, ["--method", "taylor_frist"]),
    ({"preset": "minute"}, ["--preset", "minute"]),
    ({"options": {"layers": "4:99"}}, ["--layers", "4:99"]),
    ({"options": {"kinds": ["query_haed"]}}, ["--kinds", "query_haed"]),
    ({"options": {"samples": 0}}, ["--samples", "0"]),
    ({"options": {"rank": 3}}, ["--rank", "3"]),
    ({"options": {"calibration": "x" * 300}}, ["--calibration", "x" * 300]),
    ({"options": {"target": "params=1M"}, "sparsity": 0.2}, ["--target", "params=1M", "--sparsity", "0.2"]),
]


@pytest.mark.parametrize(("arguments", "words"), WRONG, ids=lambda each: " ".join(map(str, each)))
def test_what_is_wrong_is_said_in_the_line_of_the_command(
    dashboard: Dashboard,
    client: Client,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: dict[str, Any],
    words: list[str],
) -> None:
    line = refused(capsys, ["prune", dashboard.model, *words, "--runs-dir", str(tmp_path)]).strip()
    with pytest.raises(AppError) as error:
        client.predict(dashboard.model, api_name="/prune", **arguments)
    assert str(error.value) == line
    said = called(dashboard, "prune", model=dashboard.model, **arguments)
    assert said.isError and said.content[0].text == line


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("analyse", {"model": "", "analyses": ["groups"]}, "model must be a hub id"),
        ("analyse", {"model": "demo", "analyses": ["group"]}, "Did you mean 'groups'"),
        ("prune", {"model": "demo", "options": {"sparsty": 1}}, "Did you mean 'sparsity'"),
        ("prune", {"model": "demo", "options": [1]}, "options must be an object"),
        ("prune", {"model": "demo", "options": {"trust-remote-code": True}}, "--allow-remote-code"),
        ("status", {"run": "none-such"}, "none-such"),
        ("compare", {"models": ["none-such"]}, "Unknown run 'none-such'"),
        ("compare", {"models": "dense"}, "models must be a list"),
    ],
)
def test_other_requests_are_refused_in_one_line(
    client: Client, name: str, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(AppError) as error:
        client.predict(**arguments, api_name=f"/{name}")
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("tool", "arguments", "line"),
    [
        (
            "prnue",
            {},
            "Unknown tool 'prnue'. Did you mean 'prune'? Available: analyse, prune, status, compare.",
        ),
        ("status", {"runs": "a"}, "Unknown argument of status 'runs'. Did you mean 'run'? Available: run."),
        (
            "analyse",
            {},
            "analyse needs the argument model; it takes model, analyses, options.",
        ),
        ("prune", {"model": ["demo"]}, "model must be a hub id, folder, .gguf file or 'demo', got ['demo']."),
        ("prune", {"sparsity": [0.2]}, "sparsity must be in [0, 1), got [0.2]; write 0.2 for 20 %."),
        ("prune", {"sparsity": 2}, "sparsity must be in [0, 1), got 2; write 0.02 for 2 %."),
        ("prune", {"method": 7}, "method must be a text, got 7."),
        ("prune", {"preset": ["minutes"]}, "preset must be a text, got ['minutes']."),
        ("prune", {"options": {"set": 5}}, "set must be an object: name -> value, got 5."),
        ("compare", {"models": {"a": 1}}, "models must be a list of runs or 'dense', got {'a': 1}."),
    ],
)
def test_what_no_tool_takes_is_refused_in_the_same_words(
    dashboard: Dashboard, tool: str, arguments: dict[str, Any], line: str
) -> None:
    given = {"model": dashboard.model, **arguments} if tool == "prune" else arguments
    said = called(dashboard, tool, **given)
    assert said.isError and said.content[0].text == line


@pytest.mark.parametrize("path", ["gradio_api/mcp/", "gradio_api/run/status", "gradio_api/mcp/schema"])
def test_other_pages_and_names_are_refused(dashboard: Dashboard, path: str) -> None:
    for headers, status in (({"Origin": "http://127.0.0.1:9"}, 403), ({"Host": "evil.test"}, 400)):
        assert httpx.post(dashboard.url + path, headers=headers, json={}).status_code == status


def test_a_login_is_asked_of_programs_too(tmp_path: Path, tiny_llama_folder: Path) -> None:
    options = ("--mcp", "--auth", USER[0])
    app = Dashboard(tmp_path / "runs", str(tiny_llama_folder), None, options, {"PRUNEVIZ_PASSWORD": USER[1]})
    app.start()
    try:
        for path in ("", "schema", "sse", "messages/"):
            answer = httpx.post(f"{app.url}gradio_api/mcp/{path}", json={})
            assert answer.status_code == 401 and "log in first" in answer.text
        assert httpx.post(f"{app.url}gradio_api/run/status", json={"data": [None]}).status_code == 401
        assert Client(app.url, auth=USER, verbose=False).predict(api_name="/status") == {"runs": []}
        cookies = httpx.post(f"{app.url}login", data={"username": USER[0], "password": USER[1]}).cookies
        cookie = "; ".join(f"{name}={value}" for name, value in cookies.items())
        assert not called(app, "status", {"Cookie": cookie}).isError
    finally:
        app.stop()


def test_mcp_without_its_package_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from core.errors import InputError

    monkeypatch.setattr("pruneviz.arguments.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"requirements-mcp\.txt"):
        parse(["--mcp", "--port", str(free_port()), "--runs-dir", str(tmp_path)])

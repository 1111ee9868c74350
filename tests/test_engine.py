from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from core.engine import Engine
from core.errors import DataError, InputError, LaunchError, ModelError, NotPrunableError, StopRequested
from tests.conftest import llama_config, random_model

PROMPT = "the of to and"


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Any) -> str:
    """A model that never ends its text by itself."""
    folder = tmp_path_factory.mktemp("models") / "endless"
    model = random_model(llama_config(max_position_embeddings=1_000_000))
    model.config.eos_token_id = model.generation_config.eos_token_id = None
    model.save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    path.write_text(path.read_text().replace('"eos_token": "</s>"', '"eos_token": null'))
    return str(folder)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    found = Engine("cpu")
    yield found
    found.close()


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("texts") / "words.txt"
    path.write_text(" ".join(f"w{i * 7 % 90}" for i in range(300)))
    return str(path)


def child() -> psutil.Process:
    """The process of the only engine that runs."""
    (found,) = [one for one in psutil.Process().children() if "spawn_main" in " ".join(one.cmdline())]
    return found


def wait_until(true: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def test_asking_needs_no_torch() -> None:
    code = (
        "import sys, core.engine; core.engine.Engine(); print({'torch', 'transformers'} & set(sys.modules))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "set()"


def test_a_model_is_loaded_and_described(engine: Engine, tiny_llama_folder: Path) -> None:
    card = engine.load(str(tiny_llama_folder))
    wanted = {
        "name": "tiny-llama", "family": "llama", "architecture": "LlamaForCausalLM", "num_hidden_layers": 2,
        "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2,
        "head_dim": 8, "vocab_size": 128, "max_position_embeddings": 256, "tie_word_embeddings": True,
        "dtype": "float32", "device": "cpu", "chat_template": False, "pruned": False, "revision": None,
    }  # fmt: skip
    assert {key: card[key] for key in wanted} == wanted
    params = sum(parameter.numel() for parameter in random_model(llama_config()).parameters())
    assert card["params"] == params
    assert card["memory_gib"] == pytest.approx(4 * params / 2**30, rel=1e-2)
    assert len(card["weights_sha256"]) == 64
    assert engine.state() == {"started": True, "busy": False, "models": {"dense": card}}


def test_a_card_needs_no_weights(engine: Engine, endless: str) -> None:
    held = engine.state()["models"]
    card = engine.card(endless)
    assert (card["name"], card["params"]) == ("endless", engine.load(endless)["params"])
    assert "memory_gib" not in card and held != engine.state()["models"]


def test_what_it_writes_is_what_the_model_writes(
    engine: Engine, tiny_llama: Any, tiny_tokenizer: Any, tiny_llama_folder: Path
) -> None:
    from core.evaluate.generation import generate

    *pieces, done = engine.generate(str(tiny_llama_folder), PROMPT, max_new_tokens=12)
    wanted = generate(tiny_llama, tiny_tokenizer, PROMPT, max_new_tokens=12)
    assert "".join(piece["piece"] for piece in pieces) == wanted.text != ""
    assert (done["done"], done["tokens"], done["stopped"]) == (True, wanted.tokens, False)
    assert done["tokens_per_second"] == pytest.approx(done["tokens"] / done["seconds"])
    settings: dict[str, Any] = {"max_new_tokens": 12, "temperature": 2.0, "top_p": 0.9, "seed": 5}
    drawn = engine.generate(str(tiny_llama_folder), PROMPT, **settings)
    assert (
        "".join(event.get("piece", "") for event in drawn)
        == generate(tiny_llama, tiny_tokenizer, PROMPT, **settings).text
    )


def test_a_model_in_8_bits_answers_as_one_put_in_8_bits_does(
    engine: Engine, tiny_llama: Any, tiny_tokenizer: Any, tiny_llama_folder: Path
) -> None:
    from core.evaluate.generation import generate
    from core.evaluate.quantized import quantized

    plain = engine.load(str(tiny_llama_folder))
    *pieces, done = engine.generate(str(tiny_llama_folder), PROMPT, max_new_tokens=12, int8=True)
    wanted = generate(quantized(tiny_llama), tiny_tokenizer, PROMPT, max_new_tokens=12)
    assert "".join(piece["piece"] for piece in pieces) == wanted.text and not done["stopped"]
    (card,) = engine.state()["models"].values()
    assert card["dtype"] == "int8" and card["memory_gib"] < plain["memory_gib"]
    assert engine.load(str(tiny_llama_folder)) == plain, "which is another model, and read anew"


def test_a_text_is_stopped_in_the_middle(engine: Engine, endless: str) -> None:
    events = engine.generate(endless, PROMPT, max_new_tokens=100_000)
    pieces = [next(events), next(events)]
    assert engine.state()["busy"]
    engine.stop()
    *more, done = events
    assert done["stopped"] and 2 <= done["tokens"] < 100_000
    assert all("piece" in event for event in pieces + more)
    assert not engine.state()["busy"]


def test_who_stops_reading_stops_the_model(engine: Engine, endless: str) -> None:
    events = engine.generate(endless, PROMPT, max_new_tokens=1_000_000)
    next(events)
    events.close()  # type: ignore[attr-defined]
    assert engine.load(endless)["name"] == "endless", "the engine is still busy"


def test_two_callers_are_served_one_after_the_other(engine: Engine, endless: str, text: str) -> None:
    answers: dict[int, list[dict[str, Any]]] = {}

    def ask(number: int) -> None:
        answers[number] = list(
            engine.generate(endless, PROMPT, max_new_tokens=30, temperature=1.0, seed=number)
        )

    callers = [threading.Thread(target=ask, args=(number,)) for number in range(3)]
    for caller in callers:
        caller.start()
    assert engine.perplexity(endless, text, window=20, tokens=100)["ppl"] > 1
    for caller in callers:
        caller.join(60)
    texts = ["".join(event.get("piece", "") for event in answers[number]) for number in range(3)]
    assert [answers[number][-1]["tokens"] for number in range(3)] == [30, 30, 30]
    assert len(set(texts)) == 3
    again = engine.generate(endless, PROMPT, max_new_tokens=30, temperature=1.0, seed=1)
    assert "".join(event.get("piece", "") for event in again) == texts[1]


def test_one_thread_may_read_two_texts_in_turns(engine: Engine, endless: str) -> None:
    one, two = (engine.generate(endless, PROMPT, max_new_tokens=5) for _ in range(2))
    assert list(zip(one, two, strict=True))[-1][0]["done"]


def test_a_mask_is_tried_for_one_call(
    engine: Engine, tiny_llama: Any, tiny_tokenizer: Any, tiny_llama_folder: Path, text: str
) -> None:
    from core.evaluate.perplexity import perplexity
    from core.masks import masked
    from core.texts import consecutive_windows, evaluation_text
    from tests.handmade import graph_of

    removed = {"L00.ffn_channel": tuple(range(0, 40)), "L01.query_head": (0, 3)}
    windows = consecutive_windows(tiny_tokenizer, evaluation_text(text), window=20, tokens=200)
    dense = perplexity(tiny_llama, windows).ppl
    with masked(tiny_llama, graph_of(tiny_llama), removed):
        wanted = perplexity(tiny_llama, windows).ppl

    def ask(gone: Any) -> dict[str, Any]:
        return engine.perplexity(str(tiny_llama_folder), text, window=20, tokens=200, removed=gone)

    assert ask(None)["ppl"] == pytest.approx(dense, rel=1e-5)
    found = ask(removed)
    assert found["ppl"] == pytest.approx(wanted, rel=1e-5) != dense
    assert (found["window"], found["tokens"], found["text"]) == (20, 200, "words.txt")
    assert ask({})["ppl"] == pytest.approx(dense, rel=1e-5), "the mask is still on"

    def write(gone: Any) -> list[Any]:
        events = engine.generate(str(tiny_llama_folder), PROMPT, max_new_tokens=10, removed=gone)
        return [event.get("piece") for event in events]

    assert write(removed) != write(None)


def test_errors_keep_their_kind_and_words(engine: Engine, tiny_llama_folder: Path, text: str) -> None:
    with pytest.raises(ModelError, match="There is no folder or file /nowhere"):
        engine.load("/nowhere")
    with pytest.raises(InputError, match="no chat template"):
        list(engine.generate(str(tiny_llama_folder), PROMPT, chat=True))
    with pytest.raises(DataError, match="Unknown text"):
        engine.perplexity(str(tiny_llama_folder), "nowhere")
    with pytest.raises(NotPrunableError, match="no group 'L09"):
        engine.perplexity(
            str(tiny_llama_folder), text, window=20, tokens=40, removed={"L09.ffn_channel": [1]}
        )
    with pytest.raises(LaunchError, match="The engine failed: TypeError"):
        engine.perplexity(str(tiny_llama_folder), text, window="x")  # type: ignore[arg-type]


def test_a_measurement_is_stopped(engine: Engine, tiny_llama_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_text("the of to and " * 200_000)
    failed: list[BaseException] = []

    def ask() -> None:
        try:
            engine.perplexity(str(tiny_llama_folder), str(path), window=200, tokens=800_000)
        except StopRequested as error:
            failed.append(error)

    caller = threading.Thread(target=ask)
    caller.start()
    wait_until(lambda: engine.state()["busy"])
    engine.stop()
    caller.join(60)
    assert failed and "Stopped after" in str(failed[0])


def test_models_are_given_back(engine: Engine, tiny_llama_folder: Path, endless: str) -> None:
    engine.load(endless)
    engine.load(str(tiny_llama_folder))
    assert [card["name"] for card in engine.state()["models"].values()] == ["tiny-llama"]
    engine.release()
    assert engine.state()["models"] == {}
    assert list(engine.generate(endless, PROMPT, max_new_tokens=1))[-1]["done"]


def test_a_dense_and_a_pruned_model_are_held_side_by_side(
    engine: Engine, tiny_llama_folder: Path, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    from core import export
    from core.plan import PruningPlan, with_costs
    from core.surgery import operate
    from tests.handmade import graph_of

    model = random_model(llama_config())
    graph = graph_of(model)
    for name, gone in (("one", (0, 1)), ("two", (2, 3, 4))):
        plan = with_costs(graph, PruningPlan({"L00.ffn_channel": gone}), list(graph.groups))
        cut = operate(random_model(llama_config()), graph, plan.removed)
        export.save(cut, tiny_tokenizer, graph, plan, tmp_path / name, facts={})
    dense = engine.load(str(tiny_llama_folder))
    engine.load(str(tmp_path / "one"))
    pruned = engine.load(str(tmp_path / "two"))
    assert (pruned["pruned"], dense["params"] - pruned["params"]) == (True, 3 * 3 * 32)
    assert engine.state()["models"] == {"dense": dense, "pruned": pruned}
    assert list(engine.generate(str(tmp_path / "two"), PROMPT, max_new_tokens=2))[-1]["done"]


def test_a_death_is_told_and_the_next_call_works(engine: Engine, endless: str) -> None:
    events = engine.generate(endless, PROMPT, max_new_tokens=1_000_000)
    next(events)
    first = child()
    first.send_signal(signal.SIGKILL)
    with pytest.raises(LaunchError, match="The engine has ended in the middle of this"):
        list(events)
    assert engine.state()["models"] == {}
    assert engine.load(endless)["name"] == "endless"
    idle = child()
    assert idle.pid != first.pid
    idle.send_signal(signal.SIGKILL)
    idle.wait(30)
    time.sleep(0.2)
    assert engine.load(endless)["name"] == "endless", "a death while idle costs nobody anything"


def test_closing_ends_the_process_in_the_middle(engine: Engine, endless: str) -> None:
    events = engine.generate(endless, PROMPT, max_new_tokens=1_000_000)
    next(events)
    process = child()
    engine.close()
    with pytest.raises(LaunchError):
        list(events)
    wait_until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)
    assert engine.state() == {"started": False, "busy": False, "models": {}}


PARENT = """
import sys, time, psutil
from core.engine import Engine

if __name__ == "__main__":
    engine = Engine("cpu")
    events = engine.generate(sys.argv[1], "the of", max_new_tokens=1_000_000)
    next(events)
    print(*[one.pid for one in psutil.Process().children()], flush=True)
    time.sleep(600)
"""


def test_it_ends_when_its_parent_is_killed(tmp_path: Path, endless: str) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    root = Path(__file__).resolve().parents[1]
    parent = subprocess.Popen(
        [sys.executable, str(script), endless],
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    children = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
    assert children
    parent.kill()
    parent.communicate()
    wait_until(lambda: not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in children))


def test_attention_of_two_heads_comes_with_its_tokens(engine: Engine, tiny_llama_folder: Path) -> None:
    found = engine.attention(str(tiny_llama_folder), "the a of " * 40, 1, [0, 3])
    assert len(found["maps"]) == 2 and len(found["tokens"]) == len(found["maps"][0]) == 96
    assert found["cut"] == 120 - 96 and found["tokens"][:3] == ["the", "a", "of"]
    assert all(abs(sum(row) - 1) < 1e-4 for one in found["maps"] for row in one)
    with pytest.raises(DataError, match="heads 0 to 3"):
        engine.attention(str(tiny_llama_folder), "the", 0, [7])

"""The coupled groups on the command line: what couples two parameters, and models that cannot be followed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoConfig

from core.cli.app import main
from tests.graph.families import config

MLP, ATTENTION = "model.layers.1.mlp", "model.layers.1.self_attn"


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("llama")
    config("llama_tied").save_pretrained(folder)
    return str(folder)


def ask(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    assert main(["groups", *arguments, "--config-only", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_what_couples_two_matrices(llama: str, capsys: pytest.CaptureFixture[str]) -> None:
    gate, up = f"{MLP}.gate_proj.weight", f"{MLP}.up_proj.weight"
    found = ask(capsys, llama, "--between", gate, up)["between"]
    assert found["path"] == [gate, "aten.silu", "aten.mul", up]
    assert found["groups"] == ["L01.ffn_channel", "residual_channel"]
    assert found["strength"] is None  # they meet, but neither flows into the other


def test_the_strength_of_a_coupling(llama: str, capsys: pytest.CaptureFixture[str]) -> None:
    value, output = f"{ATTENTION}.v_proj.weight", f"{ATTENTION}.o_proj.weight"
    found = ask(capsys, llama, "--between", output, value)["between"]
    # Queries, keys and values flow into the output matrix, and values nowhere else.
    assert found["strength"] == pytest.approx(1 / 4)
    assert "L01.kv_group" in found["groups"]


def test_a_tied_head_goes_by_both_names(llama: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = ask(capsys, llama, "--between", "lm_head.weight", "model.norm.weight")["between"]
    assert found["groups"] == ["residual_channel"] and found["path"]


def test_without_a_question_the_answer_is_the_groups_alone(
    llama: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert set(ask(capsys, llama)) == {"model", "family", "seconds", "kinds", "not_prunable"}


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["groups", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    return err


def test_an_unknown_parameter_is_told(llama: str, capsys: pytest.CaptureFixture[str]) -> None:
    err = refusal(capsys, llama, "--config-only", "--between", "nope", "lm_head.weight")
    assert "no parameter 'nope'" in err and "model.embed_tokens.weight" in err


_SMALL = {"vocab_size": 61, "num_hidden_layers": 2, "hidden_size": 48, "num_attention_heads": 6}


@pytest.mark.parametrize(
    ("model_type", "options", "said"),
    [
        ("bert", _SMALL, ("an encoder", "bert")),
        ("t5", {"num_layers": 1, "d_model": 48}, ("encoder with a decoder", "t5")),
        # Its length is read from a tensor, which has no numbers without weights.
        (
            "xlm",
            {"vocab_size": 61, "emb_dim": 48, "n_layers": 2, "n_heads": 6},
            ("module 'transformer' (XLMModel)", "operation aten._local_scalar_dense", "numbers in a tensor"),
        ),
    ],
)
def test_what_cannot_be_followed_is_one_line(
    model_type: str, options: dict, said: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    AutoConfig.for_model(model_type, **options).save_pretrained(tmp_path)
    err = refusal(capsys, str(tmp_path), "--config-only")
    assert all(part in err for part in said), err

"""One line on stderr for what is wrong, and nothing started."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from core.cli.app import main
from tests.cli.calls import refused


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--sparsity", "1.0"], "sparsity must be in [0, 1), got 1; write 0.2 for 20 %."),
        (["--sparsity", "20"], "got 20; write 0.2 for 20 %."),
        (["--sparsity", "-1"], "got -1; write"),
        (["--sparsity", "abc"], "got abc; write"),
        (["--target", "param=3M"], "Unknown target 'param'. Did you mean 'params'?"),
        (["--target", "8GiB"], "target must be a quantity with what it may be at most, got '8GiB'"),
        (["--target", "size=8GiB@q4"], "Unknown packing of a size 'q4'. Did you mean"),
        (["--target", "params=2GiB"], "target params=2GiB must be an amount above 0 in k, M, B, T"),
        (["--target", "kv=-100%"], "target kv=-100% leaves 0% of the dense model"),
        (["--target", "macs=-10%,macs=5k"], "two budgets of macs, macs=-10% and macs=5k; keep one"),
        (["--target", "params=-9%", "--sparsity", "0.2"], "--sparsity 0.2 and --target params=-9% both say"),
        (["--target", "params=-9%", "--kind-sparsity", "ffn_channel=0.1"], "target must be left out where"),
        (["--target", "params=-9%", "--units", "L00.query_head=0"], "so leave out --target"),
        (["--target", "params=-9%", "--method", "nuteprune"], "nuteprune learns towards a sparsity"),
        (["--target", "params=1k"], "Target params=1k is out of reach: the least is params="),
        (
            ["--sparsity", "0.99"],
            "of the parameters in scope can go, since one unit of every group",
        ),
        (
            ["--target", "params=9k", "--target", "macs=9k"],
            "--target was given 2 times: params=9k and macs",
        ),
        (["--samples", "4", "--samples", "8"], "--samples was given 2 times: 4 and 8; give it once."),
        (["--kinds", "query_head", "--kinds", "ffn_channel"], "give it once, several values with commas."),
        (["--target", "size=3GiB"], "as it is, so target size=3GiB is met; ask for less."),
        (["--sparsity", "nan"], "got nan; write"),
        (["--method", "tailor_first"], "Did you mean 'taylor_first'? Available:"),
        (["--method", "nutprune"], "Did you mean 'nuteprune'? Available:"),
        (["--layers", "1:9"], "layers 1:9 goes past the model, which has layers 0 to 1"),
        (["--layers", "x"], "layers must be first:last, for example 4:30, got 'x'"),
        (["--scope", "globl"], "Unknown scope 'globl'. Did you mean 'global'?"),
        (["--kind-sparsity", "ffn_channel=1.2"], "sparsity must be in [0, 1), got 1.2; write"),
        (["--kind-sparsity", "ffn_channel"], "kind_sparsity takes kind=sparsity, got 'ffn_channel'"),
        (["--align", "0"], "align must be none, or a whole number from 1 up, got 0."),
        (["--align", "some"], "align must be none, 32, 64, 128 or 256, got 'some'."),
        (["--reconstruct", "non"], "Did you mean 'none'?"),
        (["--strategy", "chanel"], "Did you mean 'channel'?"),
        (["--strategy", "block", "--kinds", "ffn_channel"], "leave out --kinds ffn_channel"),
        (["--kinds", "neuron"], "kinds must be some of ffn_channel"),
        (["--kinds", "query_head,kv_group"], "either query_head or kv_group"),
        (["--method", "manual"], "method must be a method that ranks units, or manual with the units"),
        (["--units", "L00.query_head"], "'L00.query_head' does not say which units of which group"),
        (["--units", "L00.query_head=5-2"], "The range 5-2 runs backwards; write 2-5."),
        (["--units", "L00.query_head=x"], "'x' is no unit number and no range; write numbers and ranges"),
        (["--units", "L00.query_head=0", "--sparsity", "0.2"], "--units says which units go, so leave out"),
        (["--units", "L00.query_head=0", "--plan", "plan.json"], "Give either --units or --plan, got both."),
        (["--units", "L00.query_head=9"], "L00.query_head has units 0 to 3, each once; got [9]."),
        (["--units", "L00.query_head=0-3"], "removes all 4 units of L00.query_head; at least one must stay"),
        (["--units", "L09.query_head=0"], "This model has no group 'L09.query_head'"),
        (["--plan", "nowhere.json"], "--plan nowhere.json cannot be read"),
        (["--window", "300", "--tokens", "600"], "window is 300, but this model reads 256 tokens"),
        (["--samples", "many"], "'--samples'"),
        (["--samples=many"], ", got 'many'. See: python -m core prune --help"),
        (["--samples", "4", "--samples", "many"], ", got '4', 'many'. See: python -m core prune --help"),
        (["--sparsity="], "got nothing; write"),
        (
            ["--calibration", ""],
            "calibration must be mixed, bundled, factbook, a named data set, a file, a hub data set, self or "
            "none, got ''.",
        ),
        (["--samples", "0"], "samples must be a whole number from 1 up, got 0."),
        (["--seed", "-3"], "seed must be a whole number from 0 up, got -3."),
        (["--dtype", "int8"], "dtype must be one of auto, float32"),
        (["--calibration", "nowhere.txt"], "nowhere.txt"),
        (["--ppl", "nowhere.txt"], "nowhere.txt"),
        (["--spec", "nowhere.json"], "nowhere.json cannot be read"),
        (["--wrong"], "No such option: --wrong"),
    ],
)
def test_a_wrong_request_gets_one_line_and_starts_nothing(
    capsys: pytest.CaptureFixture[str],
    tiny_llama_folder: Path,
    tmp_path: Path,
    arguments: list[str],
    said: str,
) -> None:
    runs = tmp_path / "runs"
    asked = ["prune", str(tiny_llama_folder), "--runs-dir", str(runs), "--device", "cpu", *arguments]
    assert said in refused(capsys, asked)
    assert not runs.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fly"], "No such command 'fly'; there is groups, score"),
        (["runs", "fly"], "there is list, show, stop, resume"),
        (["runs", "show", "nothing"], "Unknown run 'nothing'"),
        (["prune"], "prune needs a MODEL"),
        (["groups"], "Missing argument"),
        (["sweep", "demo", "--methods", "nuteprune"], "nuteprune trains, and scores no units"),
        (["sensitivity", "demo", "--ratio", "x"], "ratio must be numbers in (0, 1], got 'x'."),
        (["generate", "demo"], "Missing option '--prompt'"),
    ],
)
def test_a_wrong_command_line_gets_one_line(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in refused(capsys, arguments)


def bad_models(folder: Path) -> dict[str, tuple[str, str]]:
    from transformers import BertConfig, T5Config

    (folder / "empty").mkdir()
    BertConfig(architectures=["BertForMaskedLM"]).save_pretrained(folder / "encoder")
    T5Config(architectures=["T5ForConditionalGeneration"]).save_pretrained(folder / "seq2seq")
    return {
        "unknown": (str(folder / "nowhere"), "nowhere"),
        "no config": (str(folder / "empty"), "config.json"),
        "encoder": (str(folder / "encoder"), "Bert"),
        "seq2seq": (str(folder / "seq2seq"), "T5"),
    }


@pytest.mark.parametrize("which", ["unknown", "no config", "encoder", "seq2seq"])
@pytest.mark.parametrize("command", ["prune", "evaluate", "groups", "score", "generate"])
def test_what_is_no_decoder_is_refused_by_every_command(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, which: str, command: str
) -> None:
    source, said = bad_models(tmp_path)[which]
    runs = [] if command == "groups" else ["--runs-dir", str(tmp_path / "runs")]
    prompt = ["--prompt", "x"] if command == "generate" else []
    assert said in refused(capsys, [command, source, *runs, *prompt])
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("command", ["prune", "evaluate"])
def test_a_damaged_weight_is_named_when_the_model_is_measured(
    capsys: pytest.CaptureFixture[str],
    asked: dict[str, list[str]],
    tiny_llama_folder: Path,
    tmp_path: Path,
    command: str,
) -> None:
    damaged = shutil.copytree(tiny_llama_folder, tmp_path / "damaged")
    weights = load_file(damaged / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][3, 4] = torch.nan
    save_file(weights, damaged / "model.safetensors", {"format": "pt"})
    assert main([command, str(damaged), *asked[command][2:]]) == 2
    assert "model.layers.1.mlp.up_proj.weight holds 1 of" in capsys.readouterr().err
    (events,) = (tmp_path / "runs").glob("*/events.jsonl")
    assert '"metric"' not in events.read_text()


@pytest.mark.parametrize("more", [[], ["--detach"]])
def test_a_path_that_is_not_there_is_refused_before_torch_is_loaded(
    more: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("core.stages.worker", "core.stages.check"):
        monkeypatch.setitem(sys.modules, name, None)  # importing them fails
    monkeypatch.chdir(tmp_path)
    assert "no folder or file ./demoo. Did you mean demo?" in refused(capsys, ["prune", "./demoo", *more])


@pytest.mark.parametrize("extra", [[], ["--detach"]])
def test_a_runs_folder_that_cannot_be_written_is_refused(
    capsys: pytest.CaptureFixture[str], asked: dict[str, list[str]], tmp_path: Path, extra: list[str]
) -> None:
    (tmp_path / "file").write_text("")
    arguments = [*asked["prune"], *extra, "--runs-dir", str(tmp_path / "file" / "runs")]
    assert "cannot be written" in (said := refused(capsys, arguments))
    assert "choose another folder with --runs-dir" in said


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("tau", "--set takes key=value, got 'tau'"),
        ("taw=1", "Unknown option of random 'taw'. Available: none"),
    ],
)
def test_a_setting_that_nobody_takes_is_refused(
    capsys: pytest.CaptureFixture[str], tiny_llama_folder: Path, given: str, said: str
) -> None:
    words = ["prune", str(tiny_llama_folder), "--method", "random", "--set", given]
    assert main(words) == 2
    assert said in capsys.readouterr().err

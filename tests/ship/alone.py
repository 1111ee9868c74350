"""What a Python without the workbench makes of saved folders: `PYTHON tests/ship/alone.py FOLDER...`.

torch and transformers are all it needs; peft and lm-eval are tried where they are installed. Beside every
folder lies `FOLDER.expected.safetensors`: token ids, the logits that the run's own model has for them, and
the tokens that it goes on with, as `tests/ship/test_alone.py` writes them. Prints a row of a table for each.
"""

from __future__ import annotations

import copy
import importlib.util
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

COLUMNS = ("folder", "layers", "logits", "generate", "static cache", "saved again", "peft", "lm-eval")


def read(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, dtype=torch.float32).eval()


@torch.no_grad()
def logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    return model(ids).logits


def apart(one: torch.Tensor, other: torch.Tensor) -> str:
    return f"{float((one - other).abs().max()):.1g}"


def goes_on(model: Any, ids: torch.Tensor, wanted: torch.Tensor, **more: Any) -> str:
    """Whether greedy tokens are those of the run's own model."""
    told = model.generate(
        ids[:1], attention_mask=torch.ones_like(ids[:1]), do_sample=False, min_new_tokens=wanted.numel(),
        max_new_tokens=wanted.numel(), **more,
    )  # fmt: skip
    return "same" if torch.equal(told[0, ids.shape[1] :], wanted) else "others"


def again(model: Any, ids: torch.Tensor, wanted: torch.Tensor) -> str:
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder, max_shard_size="100KB" if model.num_parameters() < 1e6 else "200MB")
        return apart(logits(read(Path(folder)), ids), wanted)


def peft(model: Any, ids: torch.Tensor, wanted: torch.Tensor) -> str:
    """A fresh LoRA changes nothing, a step lowers the loss, and what is merged is what was trained."""
    if importlib.util.find_spec("peft") is None:
        return "-"
    from peft import LoraConfig, get_peft_model

    trained = get_peft_model(copy.deepcopy(model), LoraConfig(target_modules="all-linear", r=4))
    fresh = apart(logits(trained, ids), wanted)
    optimizer = torch.optim.SGD([p for p in trained.parameters() if p.requires_grad], lr=1e-2)
    before = trained(ids, labels=ids).loss
    before.backward()
    optimizer.step()
    after = logits(trained, ids)
    loss = trained(ids, labels=ids).loss
    merged = apart(logits(trained.merge_and_unload(), ids), after)
    return f"{fresh}, {'learns' if loss < before else 'does not learn'}, merged {merged}"


def lm_eval(folder: Path, model: Any) -> str:
    """lm-eval's likelihood of a text, and ours."""
    if importlib.util.find_spec("lm_eval") is None or not (folder / "tokenizer.json").is_file():
        return "-"
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    asked = ("The capital of France is", " Paris.")
    harness = HFLM(pretrained=str(folder), trust_remote_code=True, dtype="float32", device="cpu")
    told = harness.loglikelihood([Instance("loglikelihood", {}, asked, 0)], disable_tqdm=True)[0][0]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    context, whole = (tokenizer(text, return_tensors="pt").input_ids for text in (asked[0], "".join(asked)))
    likely = logits(model, whole)[0, :-1].log_softmax(-1).gather(1, whole[0, 1:, None])[:, 0]
    return f"{abs(float(likely[context.shape[1] - 1 :].sum()) - told):.1g}"


def tried(what: Callable[..., str], *given: Any) -> str:
    """A cell; a table of what works says what does not."""
    try:
        return what(*given)
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"


def row(folder: Path) -> list[str]:
    expected = load_file(folder.with_name(f"{folder.name}.expected.safetensors"))
    ids, wanted, tokens = expected["ids"], expected["logits"], expected["tokens"]
    model = read(folder)
    code = "with code" if (folder / "modeling_pruned.py").is_file() else "plain"
    return [
        folder.name, code, apart(logits(model, ids), wanted), goes_on(model, ids, tokens),
        goes_on(model, ids, tokens, cache_implementation="static"), again(model, ids, wanted),
        tried(peft, model, ids, wanted), tried(lm_eval, folder, model),
    ]  # fmt: skip


def main(folders: list[str]) -> None:
    print("|", " | ".join(COLUMNS), "|", flush=True)
    print("|---" * len(COLUMNS) + "|", flush=True)
    for folder in folders:
        print("|", " | ".join(row(Path(folder))), "|", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])

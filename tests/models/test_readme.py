"""The card of a saved model: what is not known is left out, what is known stands as it is."""

from __future__ import annotations

from dataclasses import replace

from huggingface_hub import RepoCard

from core.models.readme import card
from core.plan.allocation import allocate
from tests.pruneviz.samples import MEASURED, graph


def test_what_is_not_known_is_left_out() -> None:
    text = card(graph(), allocate(graph(), None, sparsity=0.3), {}, stock=True)
    assert text.startswith(
        "---\nlibrary_name: transformers\npipeline_tag: text-generation\ntags:\n- pruned\n---\n\n"
        "# tiny, pruned by 28.2%\n\n"
    )
    assert "Perplexity" not in text and "calibrated" not in text and "None" not in text
    assert "| Parameters | 2,496 | 1,792 |\n| Multiply-adds per token |" in text
    assert "AutoModelForCausalLM" in text and text.endswith("it was not recorded here.\n")
    assert "\n\n\n" not in text


def test_it_says_what_was_added_and_how_the_rest_was_refitted() -> None:
    plan = allocate(graph(), None, sparsity=0.3)
    text = card(graph(), plan, {"reconstruct": "none"}, stock=True)
    assert "Parts were removed; nothing was added." in text and "refitted" not in text
    biased = replace(plan, biases=("model.layers.0.mlp.down_proj.bias",))
    text = card(graph(), biased, {"reconstruct": "bias"}, stock=True)
    assert "Parts were removed, and biases added." in text and "nothing was added" not in text
    assert "`--reconstruct bias`" in text and "\n\n\n" not in text


def test_it_is_markdown_and_nothing_in_it_is_escaped() -> None:
    plan = replace(allocate(graph(), None, sparsity=0.3), notes=("a & <b>", "second"), model="org/it's")
    text = card(graph(), plan, {**MEASURED, "license": "mit", "ppl_stderr_after": 0.5}, stock=False)
    assert "\n- a & <b>\n- second\n\n## Numbers\n" in text and "# org/it's, pruned" in text
    head = RepoCard(text).data.to_dict()
    assert (head["license"], head["library_name"], head["tags"]) == ("mit", "transformers", ["pruned"])
    on = "bundled evaluation text, 32 windows of 256 tokens, 8,160 scored, Workbench's protocol"
    assert f"Perplexity on {on}, ± one standard error.\n\n## Loading\n" in text
    assert "from core.export import from_pretrained" in text and "\n\n\n" not in text

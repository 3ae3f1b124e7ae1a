"""The model card: what a saved model is, what it was trained on, what it scores, and its limits."""

from collections.abc import Mapping
from typing import Any

from drin_jax.config import flat
from drin_jax.linking.model import LinkModel

SHOWN = ("hits@1", "hits@3", "hits@5", "mrr")


def text(model: LinkModel, content: Mapping[str, Any]) -> str:
    """The card as Markdown, with the front matter that hubs read.

    Args:
        content: of the model's manifest.
    """
    config, counts = flat(model.config), model.scores.get("test", {}).get("counts", {})
    encoders = [
        f"| {n} | `{e['place']}` | `{e['digest'][:12]}` |" for n, e in content["encoders"].items()
    ]
    remembered = len(model.remembered.mentions) if model.remembered else 0
    return "\n".join(
        [
            "---",
            "library_name: drin_jax",
            "tags: [entity-linking, multimodal]",
            "---",
            f"# {content['system']} on {content['name']}",
            "",
            "Decides which entity of a knowledge base a mention in a text with a picture means.",
            "",
            "    from drin_jax import Linker",
            '    linker = Linker.from_pretrained("THIS FOLDER")',
            '    linker.link("A text that names someone.", mention="someone")',
            "",
            "## Data and protocol",
            "",
            f"Trained on {content['name']} (reader `{config['data.reader']}`, split "
            f"`{config['data.split']}`), {counts.get('mentions', '?')} mentions in test. "
            f"{content['protocol']}.",
            "",
            "## Scores",
            "",
            *_scores(model.scores),
            "",
            "## What it reads",
            "",
            "| encoder | place | SHA-256 |",
            "|---|---|---|",
            *encoders,
            "",
            f"Relations: {', '.join(config['graph.relations'])}.{_of_reranker(model)} It "
            f"remembers {remembered:,} training mentions with their texts: whoever passes the "
            "folder on passes those on, under the licence of the data.",
            "",
            "## Limits",
            "",
            "* Probabilities are calibrated on the valid split of this data set; on other texts "
            "and knowledge bases they are a guess until they are measured.",
            "* " + _of_nil(model),
            "* What the knowledge base, the encoders and the training mentions get wrong or leave "
            "out, it does too.",
            "",
        ]
    )


def _scores(scores: Mapping[str, Any]) -> list[str]:
    rows = ["| split | " + " | ".join(SHOWN) + " | error of probabilities |"]
    rows.append("|---" * (len(SHOWN) + 2) + "|")
    for split, told in scores.items():
        systems = told["subsets"]["all"]["end_to_end"]
        own = systems[list(systems)[-1]]["mean"]
        shown = [f"{100 * own[name]:.1f}" if name in own else "" for name in SHOWN]
        rows.append(f"| {split} | {' | '.join(shown)} | {100 * told['decisions']['ece']:.1f} |")
    return rows


def _of_reranker(model: LinkModel) -> str:
    if model.reranker is None:
        return ""
    return f" A cross-encoder reads the best {model.reranker.best} of undecided mentions again."


def _of_nil(model: LinkModel) -> str:
    if model.calibration.none is None:
        return "It never says that no entity is meant: in its valid split one always was."
    return "It says that no entity is meant from a probability on that was chosen on valid."

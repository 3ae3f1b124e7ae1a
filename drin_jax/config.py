"""What a config's fields may be."""

from ml_collections import ConfigDict

from data_pipeline.schema import UserError
from drin_jax.models.graph import RELATIONS
from drin_jax.training import losses


def check(config: ConfigDict) -> None:
    """UserError for a field whose value cannot be meant, before any work is done."""
    gold_slot, edges, relations = config.graph.gold_slot, config.graph.edges, config.graph.relations
    if gold_slot not in ("never", "upstream"):
        raise UserError(f"graph.gold_slot is {gold_slot!r}; known are never, upstream")
    if edges not in ("dynamic", "static"):
        raise UserError(f"graph.edges is {edges!r}; known are dynamic, static")
    unknown = [name for name in relations if name not in RELATIONS]
    if unknown:
        raise UserError(f"graph.relations has {unknown[0]!r}; known are {', '.join(RELATIONS)}")
    if config.loss.form not in losses.FORMS:
        known = ", ".join(losses.FORMS)
        raise UserError(f"loss.form is {config.loss.form!r}; known are {known}")
    select_by = config.eval.select_by
    if select_by != "mrr" and not select_by.removeprefix("hits@").isdigit():
        raise UserError(f"eval.select_by is {select_by!r}; known are mrr, hits@K")
    for group, name in (("train", "batch"), ("train", "epochs"), ("eval", "batch"),
                        ("train", "save_every"), ("train", "log_every"), ("model", "width"),
                        ("train", "accumulate"),
                        ("model", "layers")):  # fmt: skip
        if config[group][name] < 1:
            raise UserError(f"{group}.{name} is {config[group][name]}; it must be at least 1")

"""The suites: each is a table of the paper, or one it should have, as rows of config overrides."""

import dataclasses
import importlib.util
from collections.abc import Callable, Collection
from typing import Any

from ml_collections import ConfigDict

from data_pipeline.schema import EVIDENCE, READ_GOLDS, RELATIONS, check_known

SYSTEMS = ("bert", "jmel", "dzmned", "mel_hi", "ghmfc", "drin")
TITLES = {name: name.upper().replace("_", "-") for name in SYSTEMS}
LAYERS = (1, 2, 3, 4, 5)
SHARES = (10, 20, 40, 70, 100)  # percent of the training mentions
DETECTORS = {"fasterrcnn": "Faster R-CNN", "maskrcnn": "Mask R-CNN"}
FIRST_STAGES = {
    "union": "Union",
    "names": "Names",
    "statistics": "Names, prior and words",
    "given": "The data set's own",
    "vectors": "Dense vectors",
}
GOLD_SLOTS = {"never": "", "upstream": ", GOLD IN GRAPH"}
# Relations that stand or fall together.
GROUPS = {
    "golds": READ_GOLDS,
    "surfaces": ("names", "retrieval", "votes"),
    "meaning": ("words", "vectors", "context", "association"),
}
MENTIONS = (100, 300, 1_000, 3_000, 10_000)
# MATH.md's open choices: the paper form has them, the authors' program has decided them.
PAPER_CHOICES = ("edge_activation", "vertex_activation", "edge_scale", "mention_rows")


@dataclasses.dataclass(frozen=True)
class RowPlan:
    """A row to run: the config with these fields changed. `share` is the part of the training
    mentions that is used; `why_not`, where set, says why the row cannot be run."""

    row: str
    title: str
    overrides: dict[str, Any]
    share: float = 1.0
    why_not: str | None = None

    def config(self, base: ConfigDict) -> ConfigDict:
        """The row's config, locked; `base` stays as it is."""
        config = base.copy_and_resolve_references()
        config.update_from_flattened_dict(self.overrides)
        if config.model.name != "relational":
            config.model.nil = False  # which no other system learns
        return config.lock()


@dataclasses.dataclass(frozen=True)
class Suite:
    """A named list of rows. `against` is the row that the others are tested against, `split` the
    one that the suite is judged on."""

    name: str
    title: str
    help: str
    plan: Callable[[ConfigDict], list[RowPlan]]
    against: str | Callable[[ConfigDict], str]
    split: str = "test"

    def default_against(self, config: ConfigDict) -> str:
        """The row to test against where the user names none."""
        return self.against if isinstance(self.against, str) else self.against(config)


def _systems(config: ConfigDict) -> list[RowPlan]:
    """The paper's six, and ours over the same features with every relation."""
    ours = {
        "model.name": "relational",
        "graph.relations": (*config.graph.relations, *EVIDENCE),
        "loss.form": "softmax",
    }
    why = "a release has no texts, which its relations read"
    return [
        *(RowPlan(name, title, {"model.name": name}) for name, title in TITLES.items()),
        RowPlan("relational", "RELATIONAL", ours,
                why_not=why if config.data.reader == "release" else None),
    ]  # fmt: skip


def _evidence(config: ConfigDict) -> list[RowPlan]:
    """Every relation and group left out, and fewer mentions to train on."""
    enabled = tuple(config.graph.relations)
    why = None
    if config.model.name != "relational":
        why = "the config's system is not relational; pass --config=configs/text.py"

    def only(row: str, title: str, out: Collection[str], **fields: Any) -> RowPlan:
        kept = tuple(name for name in enabled if name not in out)
        more = {"graph.relations": kept, **fields}
        reason = why or (None if kept else f"{title}: no relation is left")
        return RowPlan(row, title, more, why_not=reason)

    beyond = [name for name in EVIDENCE if name in enabled]
    groups = {name: [one for one in out if one in enabled] for name, out in GROUPS.items()}
    rows = [RowPlan("full", "Full", {}, why_not=why)]
    rows += [only(f"without_{name}", f"w/o {name}", [name]) for name in beyond]
    rows += [
        only(f"without_{name}", f"w/o {name}: {', '.join(out)}", out)
        for name, out in groups.items()
        if len(out) > 1
    ]
    for n in MENTIONS:
        fields = {"train.max_mentions": n}
        rows.append(only(f"mentions_{n}", f"{n:,} mentions train", [], **fields))
        rows.append(only(f"mentions_{n}_no_golds", f"{n:,} mentions train, w/o golds", READ_GOLDS,
                         **fields))  # fmt: skip
    return rows


def has_pictures(config: ConfigDict) -> bool:
    """Whether a store of this config can hold pictures."""
    encoders = config.encoders
    return bool(encoders.image or encoders.pictures) or config.data.reader == "release"


def _relations(config: ConfigDict) -> list[RowPlan]:
    enabled = tuple(config.graph.relations)

    def without(relation: str) -> RowPlan:
        kept = tuple(name for name in enabled if name != relation)
        why = None
        if relation not in enabled:
            why = f"the config's graph has no relation {relation} to leave out"
        elif not {*kept} & {*RELATIONS}:
            why = f"without {relation} no relation is left"
        elif relation != "tt" and not has_pictures(config):
            why = f"the config has no pictures, so no relation {relation} to leave out"
        fields = {"model.name": "drin", "graph.relations": kept}
        return RowPlan(f"without_{relation}", f"w/o {relation}", fields, why_not=why)

    static = {"model.name": "drin", "graph.edges": "static"}
    return [
        RowPlan("full", "Full", {"model.name": "drin", "graph.edges": "dynamic"}),
        *map(without, RELATIONS),
        RowPlan("static", "Static edges", static),
    ]


def _objects(config: ConfigDict) -> list[RowPlan]:
    # A file of boxes, where it is no detector (or nothing) that finds the objects.
    boxes = "" if config.encoders.objects in DETECTORS else config.encoders.objects
    why = None
    if boxes:
        why = f"the config's objects are a file of boxes ({boxes}), which no detector made"
    elif not has_pictures(config):
        why = "the config has no pictures"
    elif importlib.util.find_spec("torchvision") is None:
        why = "torchvision is not installed; pip install 'drin-jax[detector]'"
    given = [RowPlan("boxes", f"Boxes of {boxes}", {"model.name": "drin"})] if boxes else []
    return given + [
        RowPlan(name, title, {"model.name": "drin", "encoders.objects": name}, why_not=why)
        for name, title in DETECTORS.items()
    ]


def _choices(config: ConfigDict) -> list[RowPlan]:
    """The config as it is, then every other value of one field at a time."""
    from drin_jax import models
    from drin_jax.training import losses  # --help lists the suites and needs no models

    rows = [RowPlan("as_configured", "As configured", {"model.name": "drin"})]
    fields = {f"model.{name}": models.CHOICES[name] for name in ("form", *PAPER_CHOICES)}
    for field, values in (fields | {"loss.form": losses.FORMS}).items():
        group, name = field.split(".")
        open_choice = name in PAPER_CHOICES and config.model.form != "paper"
        why = "only the paper form leaves it open; pass --config.model.form=paper"
        rows += [
            RowPlan(
                f"{group}_{name}_{value}" if name == "form" else f"{name}_{value}",
                f"{field} = {value}",
                {"model.name": "drin", field: value},
                why_not=why if open_choice else None,
            )
            for value in values
            if value != config[group][name]
        ]
    return rows


SUITES = {
    suite.name: suite
    for suite in (
        Suite("table2", "Systems", "all systems on the same features and candidates (Table 2)",
              _systems, "drin"),
        Suite("table3", "Ablation of the relations",
              "DRIN without one relation at a time, and with static edges (Table 3)",
              _relations, "full"),
        Suite("table4", "Number of graph layers", "DRIN with 1 to 5 layers (Table 4)",
              lambda config: [RowPlan(f"layers_{n}", f"L = {n}",
                                      {"model.name": "drin", "model.layers": n}) for n in LAYERS],
              lambda config: (f"layers_{config.model.layers}" if config.model.layers in LAYERS
                              else "layers_2")),
        Suite("table5", "Source of the objects",
              "DRIN with objects of Faster R-CNN and Mask R-CNN, a store each (Table 5)",
              _objects, lambda config: _objects(config)[0].row),
        Suite("retrieval", "First stage",
              "the config's system over each first stage's candidates, a store each",
              lambda config: [RowPlan(name, title, {"retrieval.method": name})
                              for name, title in FIRST_STAGES.items()],
              lambda config: config.retrieval.method),
        Suite("relations", "Relations beyond the paper's",
              "the relational system without each relation and group, and with fewer mentions",
              _evidence, "full"),
        Suite("learning_curve", "Share of the training mentions",
              "the config's system with 10 to 100 % of the training mentions",
              lambda config: [RowPlan(f"share_{n}", f"{n} % of the training mentions", {}, n / 100)
                              for n in SHARES],
              "share_100"),
        Suite("choices", "Open choices, on valid",
              "forms, activations, scales and losses, one changed at a time; valid only",
              _choices, "as_configured", "valid"),
        Suite("gold_slot", "Gold in the graph: what the leaking protocol is worth",
              "every system with the gold never and always put into its graph",
              lambda config: [RowPlan(f"{name}_{slot}", title + label,
                                      {"model.name": name, "graph.gold_slot": slot})
                              for name, title in TITLES.items()
                              for slot, label in GOLD_SLOTS.items()],
              "drin_never"),
    )
}  # fmt: skip


def get(name: str) -> Suite:
    """The suite of this name; UserError listing those there are."""
    check_known("SUITE", name, SUITES)
    return SUITES[name]


def described() -> str:
    """A line of help for each suite."""
    return "\n".join(f"  {name:<15} {suite.help}" for name, suite in SUITES.items())

"""A case, the kinds of errors and a list of mentions on stdout; colours only on a terminal."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from data_pipeline.schema import RELATIONS
from drin_jax.evaluation.tables import blank
from drin_jax.explain.cases import MOVED, Candidate, Case, Outcome, two_decimals
from drin_jax.explain.outcomes import mention_ids
from drin_jax.explain.sources import Sources
from drin_jax.workdir import FinishedRun

DESCRIPTION = 60  # characters shown of one
NO_EDGE = "–"


def show_case(out: Console, case: Case, sources: Sources, n: int, against: Case | None) -> None:
    """The mention, its n best candidates and the gold, and their edges before -> after."""
    mention = sources.mentions.get(case.id)
    before, span, after = sources.parts(case.id, case.surface)
    bare = out.is_terminal or not mention or not span
    text = Text.assemble(before, (span, "bold reverse") if bare else f"[[{span}]]", after)
    out.print(Panel(text, title=Text(f"{case.split} {case.id}"), title_align="left"))
    if case.gold:  # of new text nobody knows it
        out.print(Text(f"gold: {case.gold}"))
    picture = mention.image if mention and mention.image else "none"
    told = [
        sources.missing or f"picture: {picture}",
        "; ".join(filter(None, (case.system, case.protocol))),
    ]
    for line in [*told, f"against: {against.system}"] if against else told:
        out.print(Text(line), soft_wrap=True)
    shown = case.shown(n)
    out.print(_ranking(shown, sources, against))
    if case.gains:
        out.print(_reasons(case))
        out.print(
            "lead: how much of the first one's lead over the second goes without the relation",
            soft_wrap=True,
        )
    if case.layers or (against and against.layers):
        out.print(_edges(case, shown, against))
        out.print(
            "the first weight of an edge comes from the frozen features (what static edges keep), "
            f"the others follow after each layer, the last unused; {NO_EDGE}: no such edge",
            soft_wrap=True,
        )
    elif not case.gains:
        out.print(Text(f"{case.system} has no edges: ranking only"))


def arrows(weights: np.ndarray) -> Text:
    """`0.31 -> 0.87` of one edge's weights [l+1], each step coloured by its direction."""
    if np.isnan(weights).any():
        return Text(NO_EDGE, style="dim")
    steps: list[float] = weights.tolist()
    out = Text(two_decimals(steps[0]))
    for old, new in itertools.pairwise(steps):
        change = new - old
        style = "green" if change > MOVED else "red" if change < -MOVED else "dim"
        out.append(f" → {two_decimals(new)}", style=style)
    return out


def _ranking(shown: Sequence[Candidate], sources: Sources, against: Case | None) -> Table:
    columns = ["rank>", "score>", "", "candidate", "id", "picture", "description"]
    table = _table(*columns, *(["against>"] if against else []))
    for c in shown:
        entity = sources.entities.get(c.id)
        picture = entity.image.rsplit("/", 1)[-1] if entity and entity.image else ""
        there = "yes" if c.has_image else "no"
        cells = [str(c.rank), f"{c.score:.4f}", "gold" if c.gold else "", c.name, c.id]
        cells += [picture or there, sources.description(c.id, DESCRIPTION)]
        if against:
            other = against.find(c.id)
            cells.append(f"{other.rank}: {other.score:.4f}" if other else NO_EDGE)
        table.add_row(*map(Text, cells), style="bold green" if c.gold else "")
    return table


def _reasons(case: Case) -> Table:
    """What each relation knows of the first and the second, by what it adds to the lead."""
    first, second = case.candidates[:2]
    table = _table("relation", "lead>", str(first), str(second))
    for name, gain in sorted(case.gains.items(), key=lambda item: -item[1]):
        style = "green" if gain > MOVED else "red" if gain < -MOVED else "dim"
        told = (Text(c.reasons.get(name, NO_EDGE)) for c in (first, second))
        table.add_row(Text(name), Text(f"{gain:+.2f}".replace("-0.00", "+0.00"), style), *told)
    return table


def _edges(case: Case, shown: Sequence[Candidate], against: Case | None) -> Table:
    table = _table("rank>", "edges of", *RELATIONS)
    for c in shown:
        name = Text(f"{c}{' gold' if c.gold else ''}")
        if c.edges is not None:
            table.add_row(str(c.rank), name, *(arrows(c.edges[:, i]) for i in range(4)))
        other = against.find(c.id) if against else None
        if other and other.edges is not None:
            label = Text(f"against, rank {other.rank}", style="dim") if case.layers else name
            rank = "" if case.layers else str(c.rank)
            table.add_row(rank, label, *(arrows(other.edges[:, i]) for i in range(4)))
    return table


def show_errors(out: Console, told: dict[str, Any], examples: int) -> None:
    """The counts of every kind with shares, and so many examples of each (`outcomes.summary`)."""
    n = told["wrong"]
    share = f"{100 * n / told['mentions']:.1f} %"
    out.print(Text(f"{told['system']}; {told['protocol']}"), soft_wrap=True)
    out.print(f"{told['split']}: {n} of {told['mentions']} mentions wrong ({share})")
    if told["without_raw_files"]:
        out.print(Text(told["without_raw_files"]), soft_wrap=True)
    table = _table("kind", "first that applies>", "share of wrong>", "all that apply>", "share>")
    for row in told["kinds"]:
        counts = [(row[count], f"{100 * row[count] / n:.1f} %") for count in ("first", "all")]
        table.add_row(Text(row["kind"]), *(str(cell) for pair in counts for cell in pair))
    out.print(table)
    for row in told["kinds"]:
        own = [w for w in told["wrong_mentions"] if w["kinds"][0] == row["kind"]][:examples]
        if own:
            out.print(Text(f"{row['kind']}:", style="bold"))
        for w in own:
            line = f"  {w['id']} {w['surface']!r}: gold {_named(w, 'gold')}, "
            out.print(Text(f"{line}predicted {_named(w, 'predicted')}"), soft_wrap=True)


def _named(wrong: dict[str, Any], what: str) -> str:
    entity, name, score = wrong[what], wrong[f"{what}_name"], wrong[f"{what}_score"]
    if entity is None:
        return "none"
    return f"{name} ({entity})" + ("" if score is None else f" {score:.4f}")


def show_list(out: Console, run: FinishedRun, found: Outcome, n: int) -> None:
    """The split's first n mentions: id, surface form and the rank of the gold."""
    surfaces, split = run.store.strings("mention_surface"), found.view.split
    rows = run.store.array(f"{split}_mention")
    table = _table("id", "mention", "rank of the gold")
    for i, mention in enumerate(mention_ids(run, split)[:n]):
        rank = f"{found.ranks[i]:.0f}" if np.isfinite(found.ranks[i]) else "not ranked"
        table.add_row(*map(Text, (mention, surfaces[int(rows[i])], rank)))
    out.print(table)


def _table(*columns: str) -> Table:
    """Of columns with these heads; "name>" is a column of numbers."""
    return blank((name.removesuffix(">"), name.endswith(">")) for name in columns)

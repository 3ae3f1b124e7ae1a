"""Training of a cross-encoder on the mentions of train that a finished system leaves undecided."""

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict
from scipy import optimize, special

from data_pipeline.files import plain, write_json
from data_pipeline.output import Progress, say
from data_pipeline.schema import Mention, UserError, differing
from data_pipeline.store.reader import Store
from drin_jax.encoders import cross_encoder, hf
from drin_jax.encoders.cross_encoder import PairScore, PairTokenizer
from drin_jax.encoders.text_encoder import FILES
from drin_jax.evaluation.calibration import Calibration
from drin_jax.evaluation.evaluate import SplitView
from drin_jax.evaluation.ranks import NotFinite
from drin_jax.evaluation.reordering import ABOUT, AGAIN, FOLDER, SPLITS, read_about
from drin_jax.extract.corpus import mentions_of
from drin_jax.reranking.reranker import chosen, open_reranker, pairs_of
from drin_jax.training.checkpoint import Checkpoints, Position
from drin_jax.training.loop import Terminated, stop_signals
from drin_jax.training.step import TrainState, create_state

SAVE_SECONDS, LOOK = 60.0, 16  # between checkpoints, and steps between looks at the loss
WARM, DECAY, LARGEST = 0.1, 0.01, 1.0  # share of the steps, of weights, norm of a gradient
HEAVIEST = 4.0  # weight that is looked for
STEPS = 16  # between the padded lengths of batches
SORTED = 16  # batches' worth of examples among which those of a length come together


def ready(config: ConfigDict, store: Store) -> list[Mention]:
    """The store's mentions in its order, for `fit`; before any other work.

    Raises:
        UserError: no reranker can be made for this config, or the raw files are gone.
    """
    if config.data.reader == "release":
        raise UserError("reranker.text is set, and a release has no texts to read; leave it empty")
    mentions = mentions_of(config, store)
    folder = _source(config)
    model = cross_encoder.load(folder)
    PairTokenizer(folder, model.bert.config, config.reranker.max_length)
    return mentions


def _source(config: ConfigDict) -> Path:
    """The folder of the checkpoint that it begins from, which a data set may bring."""
    name = config.reranker.text
    own = Path(config.data.root) / name
    return hf.resolve(own if own.is_dir() else name, FILES)


def fit(
    config: ConfigDict,
    store: Store,
    mentions: Sequence[Mention],
    scores: Mapping[str, np.ndarray],
    calibration: Calibration,
    workdir: Path,
) -> None:
    """Trains the reranker of a run, into its folder, and lets it read valid and test. What is
    there already is left, or gone on with.

    Args:
        mentions: the store's, in its order.
        scores: split -> the system's [n,r].
        calibration: of the system.

    Raises:
        UserError: what is there is of something else, or a score is not finite.
        Terminated: after a signal; everything is saved.
    """
    folder, partial_folder = workdir / FOLDER, workdir / f"{FOLDER}.partial"
    made_of = _made_of(config, store, scores)
    for there in (folder, partial_folder):
        if (there / ABOUT).exists() and (told := differing(read_about(there)["of"], made_of)):
            raise UserError(f"{there}: was trained for something else ({told}); {AGAIN}")
    if (folder / ABOUT).exists():
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # of a run killed at its end
        return
    began = time.perf_counter()
    split = {name: _Split.of(store, mentions, name, some) for name, some in scores.items()}
    source = _source(config)
    training = _Training(config, source, store, split["train"], calibration)
    about: dict[str, Any] = {"of": made_of, "calibration": dataclasses.asdict(calibration)}
    partial_folder.mkdir(exist_ok=True)
    write_json(partial_folder / ABOUT, about | {"weight": 1.0})
    training.fit(partial_folder / "checkpoints", json.dumps(made_of, sort_keys=True))
    cross_encoder.save(training.model(), source, partial_folder)
    reranker = open_reranker(partial_folder, config)
    for name in SPLITS:
        one = split[name]
        said = reranker.said(store.kb, one.mentions, one.candidates, one.scores)
        np.save(partial_folder / f"said_{name}.npy", said)
        if name == "valid":
            about["weight"] = weight_of(one.view, one.scores, said)
        about[name] = int((~np.isnan(said)).any(1).sum())
    read = " and ".join(f"{about[name]:,} mentions of {name}" for name in SPLITS)
    say(f"reranker: has read {read} again; its scores count {about['weight']:.2f}")
    about |= {"train": len(training.examples), "seconds": time.perf_counter() - began}
    write_json(partial_folder / ABOUT, plain(about))
    os.replace(partial_folder, folder)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)


def weight_of(view: SplitView, scores: np.ndarray, said: np.ndarray) -> float:
    """The weight from 0 to HEAVIEST of what was said [n,r] beside scores [n,r] under which the
    golds of a split, which is valid, are likeliest among what was read."""
    read = ~np.isnan(said)
    rows = np.flatnonzero(view.gold >= 0)
    rows = rows[read[rows, view.gold[rows]]]
    if not len(rows):
        return 0.0
    own = np.where(read[rows], np.asarray(scores[rows], np.float64), -np.inf)
    more, gold = np.nan_to_num(said[rows]).astype(np.float64), view.gold[rows]

    def loss(weight: float) -> float:
        logits = own + weight * more
        return float(np.mean(special.logsumexp(logits, 1) - logits[np.arange(len(gold)), gold]))

    found = optimize.minimize_scalar(loss, bounds=(0, HEAVIEST), method="bounded").x
    return float(found) if loss(found) < loss(0.0) else 0.0


def _made_of(config: ConfigDict, store: Store, scores: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What decides a reranker: its fields, seed and store, and the scores it stands beside."""
    digest = hashlib.sha256()
    for split in sorted(scores):
        digest.update(np.ascontiguousarray(scores[split]).tobytes())
    fields = {f"reranker.{name}": value for name, value in config.reranker.items()}
    return {
        **fields,
        "seed": config.seed,
        "feature store": store.fingerprint(),
        "scores": digest.hexdigest()[:16],
    }


@dataclasses.dataclass(frozen=True)
class _Split:
    """Mentions of a split, their candidates' rows [n,r], and the system's scores [n,r] of them."""

    view: SplitView
    mentions: Sequence[Mention]
    candidates: np.ndarray
    scores: np.ndarray

    @classmethod
    def of(
        cls, store: Store, mentions: Sequence[Mention], split: str, scores: np.ndarray
    ) -> "_Split":
        r = scores.shape[1]
        own = [mentions[i] for i in np.asarray(store.array(f"{split}_mention"))]
        candidates = np.asarray(store.array(f"{split}_candidates"))[:, :r]
        return cls(SplitView.of(store, split, r), own, candidates, scores)


class _Training:
    """A cross-encoder, the examples that it learns from, and the steps of one on the other.

    `examples` holds of each mention the rows of tokens of its candidates that are read, in the
    order of retrieval, and which of them is the gold's. The loss is the negative log likelihood of
    the gold among those.
    """

    def __init__(
        self,
        config: ConfigDict,
        source: Path,
        store: Store,
        train: _Split,
        calibration: Calibration,
    ):
        self._fields, self._seed = config.reranker, config.seed
        model = cross_encoder.load(source)
        tokenizer = PairTokenizer(source, model.bert.config, self._fields.max_length)
        self._limit = tokenizer.max_length
        asks = self._fields.best, self._fields.undecided
        asked = chosen(train.scores, train.view.candidates, calibration, *asks)
        gold = train.view.gold
        learnt = (gold >= 0) & asked[np.arange(len(gold)), np.maximum(gold, 0)]
        if most := self._fields.max_mentions:  # the least decided
            sure = calibration.probabilities(train.scores, train.view.candidates)[:, :-1].max(1)
            first = np.argsort(np.where(learnt, sure, np.inf), kind="stable")[:most]
            learnt &= np.isin(np.arange(len(learnt)), first)
        if not learnt.any():
            raise UserError(
                "the system decides every mention of train that a reranker could learn from; raise "
                "reranker.undecided, or leave reranker.text empty"
            )
        asked &= learnt[:, None]
        pairs = pairs_of(config.text, store.kb, train.mentions, train.candidates, asked)
        rows, ends = tokenizer.rows(pairs), np.cumsum(asked.sum(1)[learnt])
        self.examples = [
            (rows[end - count : end], int(asked[row, : gold[row]].sum()))
            for row, end, count in zip(
                np.flatnonzero(learnt), ends, asked.sum(1)[learnt], strict=True
            )
        ]
        self._lengths = np.array([max(len(row) for row, _ in rows) for rows, _ in self.examples])
        self._graphdef, params = nnx.split(model, nnx.Param)
        self._epoch = -(-len(self.examples) // self._fields.batch)
        self._total = self._epoch * self._fields.epochs
        rate = optax.warmup_cosine_decay_schedule(
            0.0, self._fields.learning_rate, max(int(WARM * self._total), 1), self._total
        )
        self._optimizer = optax.chain(
            optax.clip_by_global_norm(LARGEST), optax.adamw(rate, weight_decay=DECAY)
        )
        mesh = Mesh(np.asarray(jax.local_devices()), ("data",))
        self._devices = mesh.size
        self._shared = NamedSharding(mesh, PartitionSpec())
        self._split = NamedSharding(mesh, PartitionSpec("data"))
        self._state: Any = jax.device_put(create_state(params, self._optimizer), self._shared)
        self._step: Any = jax.jit(self._updated, donate_argnums=0)

    def model(self) -> PairScore:
        """The network as it is."""
        model: PairScore = nnx.merge(self._graphdef, jax.device_get(self._state.params))
        return model

    def fit(self, folder: Path, made_of: str) -> None:
        """Train to the end, from where the checkpoints in this folder end."""
        checkpoints = Checkpoints(folder, made_of, alone=True)
        done = 0
        if checkpoints.last_step is not None:
            done, state, _ = checkpoints.restore(jax.device_get(self._state))
            self._state = jax.device_put(state, self._shared)
        say(f"reranker: learns from {len(self.examples):,} mentions that the system leaves open")
        saved, position = time.perf_counter(), Position(loader={})
        bar = Progress("reranker", self._total, done)
        losses: list[Any] = []
        with contextlib.closing(checkpoints), stop_signals() as received, bar:
            for step in range(done, self._total):
                self._state, loss = self._step(self._state, *self._batch(step))
                losses.append(loss)
                bar.advance()
                if received or time.perf_counter() - saved > SAVE_SECONDS or len(losses) > LOOK:
                    mean = float(np.mean(jax.device_get(losses)))
                    losses = []
                    if not np.isfinite(mean):
                        raise NotFinite(
                            f"the reranker's loss is {mean} at step {step}; lower "
                            "reranker.learning_rate"
                        )
                    bar.note(f"loss {mean:.4f}")
                if received or time.perf_counter() - saved > SAVE_SECONDS:
                    # On the host: of several processes' devices orbax would save all or none.
                    checkpoints.save(step + 1, jax.device_get(self._state), position)
                    saved = time.perf_counter()
                if received:
                    checkpoints.wait()
                    name = signal.Signals(received[-1]).name
                    say(
                        f"{name}: step {step + 1} of {self._total} of the reranker is saved; the "
                        "same command goes on from there"
                    )
                    raise Terminated(128 + received[-1])
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(self._state.params)):
            raise NotFinite("the reranker is not finite; lower reranker.learning_rate")

    def _batch(self, step: int) -> tuple[Any, ...]:
        """Rows of tokens [m*best,s] and their counts [m*best,2], and the gold's place [m] among a
        mention's rows, -1 for no mention; the order is the seed's and the epoch's."""
        epoch, place = divmod(step, self._epoch)
        size, best = self._fields.batch, self._fields.best
        some = [self.examples[i] for i in self._order(epoch)[place * size : (place + 1) * size]]
        size = -(-size // self._devices) * self._devices
        longest = max(len(row) for rows, _ in some for row, _ in rows)
        length = -(-longest // STEPS) * STEPS  # few shapes are compiled
        gold = np.full(size, -1, np.int32)
        there = np.zeros((size, best), bool)
        flat: list[tuple[np.ndarray, int]] = [(np.zeros(1, np.int32), 1)] * (size * best)
        for i, (rows, own) in enumerate(some):
            gold[i], there[i, : len(rows)] = own, True
            flat[i * best : i * best + len(rows)] = rows
        ids, counts = PairTokenizer.batch(flat, min(length, self._limit), size * best)
        return tuple(jax.device_put((ids, counts, there, gold), self._split))

    def _order(self, epoch: int) -> np.ndarray:
        """The examples as this epoch takes them: by chance, those of about a length together."""
        chance, size = np.random.default_rng((self._seed, epoch)), self._fields.batch
        order = chance.permutation(len(self.examples))
        for begin in range(0, len(order), size * SORTED):
            some = order[begin : begin + size * SORTED]
            order[begin : begin + size * SORTED] = some[
                np.argsort(self._lengths[some], kind="stable")
            ]
        whole = len(order) // size * size
        order[:whole] = chance.permutation(order[:whole].reshape(-1, size)).ravel()
        return order

    def _updated(
        self, state: TrainState, ids: Any, counts: Any, there: Any, gold: Any
    ) -> tuple[TrainState, Any]:
        def loss_of(params: Any) -> Any:
            said = nnx.merge(self._graphdef, params)((ids, counts)).reshape(there.shape)
            logits = jnp.where(there, said, -jnp.inf)
            known = gold >= 0
            own = jnp.take_along_axis(said, jnp.maximum(gold, 0)[:, None], 1)[:, 0]
            lost = jax.nn.logsumexp(jnp.where(known[:, None], logits, 0.0), axis=1) - own
            return jnp.sum(jnp.where(known, lost, 0.0)) / jnp.maximum(known.sum(), 1)

        loss, gradients = jax.value_and_grad(loss_of)(state.params)
        updates, opt_state = self._optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        now = dataclasses.replace(state, step=state.step + 1, params=params, opt_state=opt_state)
        return now, loss

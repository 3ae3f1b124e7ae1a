"""DRIN with relations of many values (`relational`) on any corpus, from its texts alone.

Trains: every relation that texts, names, the knowledge base and training golds tell of, over the
first 30 candidates of the union; no pictures, no graph of vertices.
Needs:  a data set in one of the formats of data.reader, and a BERT of sentence vectors.
Score, time, memory and every row: docs/results.md.

    python -m drin_jax.main --config=configs/text.py --workdir=runs/text \
        --config.data.reader=jsonl --config.data.root=$DATA --config.encoders.text=$BERT
"""

from ml_collections import ConfigDict

from drin_jax.config import card


def get_config() -> ConfigDict:
    """Chosen on WikiMEL's valid split and a part of its train split, but for `members`
    (docs/results.md); the same for every corpus."""
    config = card("common").get_config()
    config.encoders.text = "sentence-transformers/all-MiniLM-L6-v2"
    config.encoders.max_length = 256
    for side in ("mention", "entity"):
        config.encoders[f"{side}_vertex"] = config.encoders[f"{side}_edge"] = "mean"
    config.text.mention = "{mention}: {sentence}"
    config.encoders.image = config.encoders.clip = config.encoders.objects = ""
    config.retrieval.r = 30
    config.graph.relations = (
        *("tt", "names", "words", "years", "vectors", "retrieval", "votes", "exemplars"),
        *("neighbours", "association", "context"),
    )
    config.model.name = "relational"
    config.model.vertices = False
    config.model.layers = 3
    config.model.members = 3
    config.loss.form = "softmax"
    config.train.batch = 128
    config.train.epochs = 20
    config.train.learning_rate = 2e-3
    config.train.average = 0.998
    return config

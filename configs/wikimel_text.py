"""DRIN on WikiMEL's complete public text, with a small real BERT (MiniLM); pictures masked.

Trains: the text relation over the first 30 of 100 name candidates; 17,359 training mentions.
Needs:  WikiMEL's text (4 files, 8 MB) and all-MiniLM-L6-v2, by its hub id or as a folder.
Score, time, memory and every row: docs/results.md.

    python -m drin_jax.main --config=configs/wikimel_text.py --workdir=runs/wikimel_text \
        --config.data.root=$DATA/wikimel --config.encoders.text=$DATA/minilm
"""

from ml_collections import ConfigDict

from drin_jax.config import card


def get_config() -> ConfigDict:
    """Sizes chosen so that features and training take less than an hour on 2 cores."""
    config = card("wikimel").get_config("paper")
    config.data.name = "WikiMEL text"
    config.encoders.text = "sentence-transformers/all-MiniLM-L6-v2"
    config.encoders.image = config.encoders.clip = config.encoders.objects = ""
    config.encoders.max_length = 256
    config.encoders.mention_vertex = "mean"
    config.encoders.mention_edge = "mean"
    config.encoders.entity_vertex = "mean"
    config.encoders.entity_edge = "mean"
    config.text.mention = "{mention}: {sentence}"
    config.text.entity = "{name}. {description}"
    config.graph.relations = ("tt",)
    config.graph.r = 30
    config.model.width = 384
    config.train.epochs = 30
    config.train.patience = 5
    return config

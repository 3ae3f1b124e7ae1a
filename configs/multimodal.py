"""DRIN with relations of many values (`relational`) on any corpus with pictures.

Trains: what configs/text.py trains, on the edges of DRIN's graph of texts and pictures; three in
        ten mentions train without their picture, so that it links with and without one.
Needs:  a data set in one of the formats of data.reader, a BERT of sentence vectors, a CLIP, a
        ResNet, and a detector (extra "detector") or a file of boxes.
Score, time, memory and every row: docs/results.md.

    python -m drin_jax.main --config=configs/multimodal.py --workdir=runs/multimodal \
        --config.data.reader=jsonl --config.data.root=$DATA --config.encoders.text=$BERT
"""

from ml_collections import ConfigDict

from drin_jax.config import card


def get_config() -> ConfigDict:
    """The settings of configs/text.py with pictures; the same for every corpus."""
    config = card("text").get_config()
    config.encoders.image = "microsoft/resnet-152"
    config.encoders.clip = "openai/clip-vit-base-patch32"
    config.encoders.objects = "fasterrcnn"
    config.graph.relations = ("tt", "tv", "vt", "vv", *config.graph.relations[1:], "pictures")
    config.model.vertices = True
    config.model.form = "paper"
    config.model.width = 384
    config.model.drop_pictures = 0.3
    return config

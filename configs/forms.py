"""The published encoders, and the two forms of the published system, as sets of fields:
--config=configs/wikidiverse.py:paper

upstream  what the authors' public program computes, and what made the published numbers
paper     the equations of the paper, trained with the hinge loss (docs/decisions.md)
"""

from ml_collections import ConfigDict

FORMS = ("upstream", "paper")


def apply(config: ConfigDict, form: str, *, pooler: bool) -> ConfigDict:
    """Sets the encoders, and the fields in which the forms differ.

    Args:
        pooler: whether upstream represents this data set's entities by BERT's pooler, as for
            WikiDiverse; otherwise by the mean of their tokens, with CLS in the edge.

    Raises:
        ValueError: an unknown form; lists the known ones.
    """
    if form not in FORMS:
        raise ValueError(f"unknown form {form!r}; known are {', '.join(FORMS)}")
    encoders = config.encoders
    encoders.image = "microsoft/resnet-152"
    encoders.clip = "openai/clip-vit-base-patch32"
    encoders.objects = "fasterrcnn"
    config.model.form = form
    encoders.mention_vertex = "span"  # [2]
    if form == "upstream":
        config.loss.form = "upstream"
        encoders.mention_edge = "span"
        encoders.entity_vertex = "pooler" if pooler else "inner"
        encoders.entity_edge = "pooler" if pooler else "cls"
        encoders.mention_objects, encoders.entity_objects = 3, 1
    else:
        config.loss.form = "hinge"
        encoders.mention_edge = encoders.entity_vertex = encoders.entity_edge = "cls"  # [3], [6]
        encoders.mention_objects = encoders.entity_objects = 3
    return config

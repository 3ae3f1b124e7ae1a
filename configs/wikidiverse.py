"""DRIN on WikiDiverse, as in the paper's Table 2.

Trains: both text and picture relations over 10 given candidates; 13,205 training mentions.
Form:   `upstream`, what the authors' program computes, or with
        --config=configs/wikidiverse.py:paper the paper's equations (configs/forms.py).
Score:  not measured here: nobody has run it on the full data yet. The paper's Table 2 is under a
        protocol that puts the gold into every graph (docs/protocol.md); its numbers are not
        repeated here.
Costs:  computed, not measured: 26 kB of features an entity and 30 kB a mention (about 2 GB in all),
        and 3 GB more with the regions that GHMFC reads. Step times on 2 CPU cores:
        docs/performance.md.
Needs:  the raw lists with their pictures, bert-base-cased, openai/clip-vit-base-patch32,
        microsoft/resnet-152, and torchvision for the detector (`pip install -e '.[detector]'`).

    python -m drin_jax.main --config=configs/wikidiverse.py --workdir=runs/wikidiverse \
        --config.data.root=$DATA/wikidiverse
"""

from ml_collections import ConfigDict

from drin_jax.config import card


def get_config(form: str = "upstream") -> ConfigDict:
    """The paper's hyper-parameters on WikiDiverse."""
    config = card("common").get_config()
    config.data.name = "WikiDiverse"
    config.data.reader = "wikidiverse"
    config.data.root = "data/wikidiverse"
    config.data.split = "published"
    config.data.hint = (
        "download WikiDiverse ({train,valid,test}_w_10cands.json, entity2brief_{split}.json or "
        "wikipedia_entity2desc_filtered.tsv, wikipedia_entity2imgs.tsv and the pictures) from "
        "github.com/wangxw5/wikiDiverse and pass its folder as --config.data.root=DIR"
    )
    config.retrieval.method = "given"
    config.retrieval.r = 10
    return card("forms").apply(config, form, pooler=True)

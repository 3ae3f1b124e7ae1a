"""DRIN on WikiMEL, as in the paper's Table 2.

Trains: both text and picture relations over 100 name candidates; about 18,000 training mentions.
Form:   `upstream`, what the authors' program computes, or with --config=configs/wikimel.py:paper
        the paper's equations; configs/forms.py has the fields.
Score:  not measured here: nobody has run it on the full data yet. The paper's Table 2 is under a
        protocol that puts the gold into every graph (docs/protocol.md); its numbers are not
        repeated here.
Costs:  computed, not measured: 26 kB of features an entity and 30 kB a mention (about 3.5 GB for
        the published knowledge base of 109,976), and 9 GB more with the regions that GHMFC reads.
        Step times on 2 CPU cores: docs/performance.md.
Needs:  the data with its pictures, bert-base-cased, openai/clip-vit-base-patch32,
        microsoft/resnet-152, and torchvision for the detector (`pip install -e '.[detector]'`).

    python -m drin_jax.main --config=configs/wikimel.py --workdir=runs/wikimel \
        --config.data.root=$DATA/wikimel
"""

from ml_collections import ConfigDict

from drin_jax.config import card


def get_config(form: str = "upstream") -> ConfigDict:
    """The paper's hyper-parameters on WikiMEL."""
    config = card("common").get_config()
    config.data.name = "WikiMEL"
    config.data.reader = "wikimel"
    config.data.root = "data/wikimel"
    config.data.hint = (
        "download WikiMEL (WIKIMEL_{train,valid,test}.json with qid2ne.json and qid2abs.json, or "
        "MELBench's Wikidata-MEL.json with them) from github.com/seukgcode/MELBench and "
        "github.com/seukgcode/MEL-GHMFC and pass its folder as --config.data.root=DIR"
    )
    config.retrieval.method = "names"
    config.retrieval.r = 100
    return card("forms").apply(config, form, pooler=False)

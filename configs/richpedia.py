"""DRIN on RichpediaMEL, a data set the paper does not have, with the paper's hyper-parameters.

Trains: both text and picture relations over 100 name candidates.
Form:   `upstream`, what the authors' program computes, or with --config=configs/richpedia.py:paper
        the paper's equations; configs/forms.py has the fields.
Score:  not measured here: nobody has run it on the full data yet; the paper has no number for it.
        Others rank the whole knowledge base; this config ranks what the first stage found.
Costs:  computed, not measured: 26 kB of features an entity and 30 kB a mention (about 4.5 GB for
        the published knowledge base of 160,935), and more with the regions that GHMFC reads.
Needs:  the data with its pictures, bert-base-cased, openai/clip-vit-base-patch32,
        microsoft/resnet-152, and torchvision for the detector (`pip install -e '.[detector]'`).

    python -m drin_jax.main --config=configs/richpedia.py --workdir=runs/richpedia \
        --config.data.root=$DATA/richpedia
"""

from ml_collections import ConfigDict

from drin_jax.config import card


def get_config(form: str = "upstream") -> ConfigDict:
    """The paper's hyper-parameters on RichpediaMEL."""
    config = card("common").get_config()
    config.data.name = "RichpediaMEL"
    config.data.reader = "richpedia"
    config.data.root = "data/richpedia"
    config.data.hint = (
        "download RichpediaMEL ({train,valid,test}.json, qid2ne.json, qid2abs.json and its "
        "pictures) from github.com/seukgcode/MELBench and github.com/seukgcode/MEL-GHMFC and pass "
        "its folder as --config.data.root=DIR"
    )
    config.retrieval.method = "names"
    config.retrieval.r = 100
    return card("forms").apply(config, form, pooler=False)

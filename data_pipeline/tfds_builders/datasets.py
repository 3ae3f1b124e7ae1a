"""The public data sets by name. What each folder holds is told by its reader."""

from data_pipeline.tfds_builders.corpus_builder import CorpusBuilder


class WikiMEL(CorpusBuilder):
    """WikiMEL, in any form that `data_pipeline.readers.wikimel` reads."""

    name = reader = "wikimel"
    description = "WikiMEL: sentences and pictures about people, linked to Wikidata."
    homepage = "https://github.com/seukgcode/MELBench"
    MANUAL_DOWNLOAD_INSTRUCTIONS = """
    Download WikiMEL (WIKIMEL_{train,valid,test}.json with qid2ne.json and qid2abs.json, or
    MELBench's Wikidata-MEL.json with them) from github.com/seukgcode/MELBench and
    github.com/seukgcode/MEL-GHMFC, pictures in its folder images/, and pass the folder as
    manual_dir
    """


class WikiDiverse(CorpusBuilder):
    """WikiDiverse, in any form that its reader reads."""

    name = reader = "wikidiverse"
    description = "WikiDiverse: captions and pictures of news, linked to Wikipedia."
    homepage = "https://github.com/wangxw5/wikiDiverse"
    MANUAL_DOWNLOAD_INSTRUCTIONS = """
    Download WikiDiverse ({train,valid,test}_w_10cands.json with its entity texts) from
    github.com/wangxw5/wikiDiverse and pass the folder as manual_dir
    """


class RichpediaMEL(CorpusBuilder):
    """RichpediaMEL, in any form that its reader reads."""

    name = reader = "richpedia"
    description = "RichpediaMEL: sentences and pictures of Richpedia, linked to Wikidata."
    homepage = "https://github.com/seukgcode/MELBench"
    MANUAL_DOWNLOAD_INSTRUCTIONS = """
    Download RichpediaMEL (a JSON file a split, with qid2ne.json and qid2abs.json) from
    github.com/seukgcode/MELBench and github.com/seukgcode/MEL-GHMFC and pass the folder as
    manual_dir
    """


BUILDERS: dict[str, type[CorpusBuilder]] = {
    builder.reader: builder for builder in (WikiMEL, WikiDiverse, RichpediaMEL)
}

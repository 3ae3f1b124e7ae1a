"""The public data sets as TensorFlow Datasets, in ArrayRecord files, without TensorFlow.

    python -m data_pipeline.tfds_builders --dataset=wikimel --manual_dir=DIR --data_dir=OUT

makes OUT/wikimel/{disjoint,published,entities}/1.0.0; after that

    import tensorflow_datasets as tfds
    source = tfds.builder_from_directory("OUT/wikimel/disjoint/1.0.0").as_data_source("test")

is a random access source of examples, as `grain.MapDataset.source` takes it. Importing this package
registers the names, so that tfds.data_source("wikimel/disjoint", split="test", data_dir="OUT")
does the same.
"""

from data_pipeline.tfds_builders.corpus_builder import CONFIGS, CorpusBuilder, build
from data_pipeline.tfds_builders.datasets import BUILDERS, RichpediaMEL, WikiDiverse, WikiMEL

__all__ = [
    "BUILDERS",
    "CONFIGS",
    "CorpusBuilder",
    "RichpediaMEL",
    "WikiDiverse",
    "WikiMEL",
    "build",
]

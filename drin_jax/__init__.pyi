from drin_jax.linking.linker import Linker as Linker
from drin_jax.linking.query import Query as Query

__version__: str

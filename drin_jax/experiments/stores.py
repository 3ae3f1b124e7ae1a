"""Which feature store each row of a suite reads: one for all rows that the same store can serve."""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from ml_collections import ConfigDict

from data_pipeline.schema import UserError
from data_pipeline.store.reader import Store
from drin_jax import models
from drin_jax.experiments.suites import has_pictures
from drin_jax.extract import preparation
from drin_jax.extract.stored import settings, store_path


@dataclasses.dataclass
class SharedStore:
    """A store that rows share: where it lies and all that its rows' systems read."""

    path: Path
    needs: set[str]
    opened: Store | None = None
    lacks: dict[str, str] = dataclasses.field(default_factory=dict)  # need -> why it is not there


class Stores:
    """The stores of a suite's rows, made when first asked for.

    Args:
        base: the suite's config, whose store lies where `drin_jax.main` has it.
        rows: row -> its config.
    """

    def __init__(self, base: ConfigDict, rows: Mapping[str, ConfigDict], workdir: Path):
        self._workdir = workdir
        self._stores = {_key(base): SharedStore(store_path(base, workdir), set())}
        for row, config in rows.items():
            shared = self._stores.setdefault(
                _key(config), SharedStore(workdir / "stores" / row, set())
            )
            shared.needs |= set(models.needs(config.model.name, int(has_pictures(config))))

    def of(self, config: ConfigDict) -> Store:
        """The row's store with what its system needs; UserError saying why not."""
        shared = self._stores[_key(config)]
        if shared.opened is None:
            self._open(shared, config)
        assert shared.opened is not None
        store = shared.opened
        missing = store.lacks(models.needs(config.model.name, store.sizes["image_width"]))
        if missing:
            why = shared.lacks.get(missing[0], "the store has none")
            raise UserError(f"{config.model.name} needs {' and '.join(missing)}: {why}")
        return store

    def _open(self, shared: SharedStore, config: ConfigDict) -> None:
        asking = config.copy_and_resolve_references()
        asking.data.store = str(shared.path)

        def prepare(needs: Iterable[str]) -> Store:
            return preparation.prepare(asking, self._workdir, needs=sorted(needs))

        try:
            shared.opened = prepare(shared.needs)
        except UserError:
            if not shared.needs:
                raise
            # Some rows' systems cannot be fed; the others can, or this says why not.
            shared.opened = prepare(())
            for need in sorted(shared.needs):
                try:
                    shared.opened = prepare([need])
                except UserError as error:
                    shared.lacks[need] = str(error)


def _key(config: ConfigDict) -> str:
    """Equal for configs that one store serves."""
    return json.dumps(settings(config), sort_keys=True, default=str)

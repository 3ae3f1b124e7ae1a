"""The service held against its own /openapi.json: whatever is sent, it answers as it says there."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

pytest.importorskip("fastapi", reason="the service is for extra serve")
pytest.importorskip("httpx", reason="its tests are for extra dev")
pytest.importorskip("schemathesis", reason="it is for extra dev")

import schemathesis
from schemathesis.checks import CHECKS

from drin_jax.linking.server.app import create_app
from drin_jax.linking.server.bounds import Bounds
from drin_jax.linking.server.service import Service
from tests.linking.fake_linker import FakeLinker
from tests.linking.running_server import WRITER, Running, running

API = create_app(Service(FakeLinker(), Bounds())).openapi()
SCHEMA = schemathesis.openapi.from_dict(API)
GOOD, BAD = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE
ASKS = [
    (path, method, mode)
    for path, methods in API["paths"].items()
    for method, told in methods.items()
    for mode in (GOOD, BAD)
    if mode == GOOD or "requestBody" in told or path == "/entities"  # else all that can be is right
]
# No schema says that a string is a picture, or a span within its text; a form's field may be empty.
UNSAID = CHECKS.get_by_names(["positive_data_acceptance"])
UNSAID_OF_FORMS = [*UNSAID, *CHECKS.get_by_names(["negative_data_rejection"])]
FEW = settings(
    max_examples=25,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def service() -> Iterator[Running]:
    with running(FakeLinker(), wait=0) as one:
        yield one
        assert one.alive()


@pytest.mark.parametrize(("path", "method", "mode"), ASKS)
def test_it_answers_as_it_says(service: Running, path: str, method: str, mode: Any) -> None:
    @FEW
    @given(case=SCHEMA[path][method].as_strategy(generation_mode=mode))
    def answers(case: Any) -> None:
        form = case.media_type == "multipart/form-data"
        case.call_and_validate(
            base_url=service.url,
            headers=WRITER,
            excluded_checks=UNSAID_OF_FORMS if form else UNSAID,
        )

    answers()

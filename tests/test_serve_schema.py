"""The API against its own OpenAPI document: whatever is sent, fitting or not, gets an answer that it tells of."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("fastapi")

from posezoo.serve.app import create_app
from posezoo.serve.settings import Settings
from posezoo.serve.worker import Capped, Model
from serve_fakes import FakeEstimator, one_person


def _opens(name: str, limits: Settings) -> Model:
    capped = Capped(one_person, limits.max_people)
    return Model(name, FakeEstimator(capped, name), capped, 0.0)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("mode", ["POSITIVE", "NEGATIVE"])
def test_every_answer_is_one_that_the_document_tells_of(mode: str) -> None:
    schemathesis = pytest.importorskip("schemathesis")
    import hypothesis
    from schemathesis.specs.openapi.checks import positive_data_acceptance

    app = create_app(Settings(max_body_mb=0.1, max_images=3), _opens)
    service = app.state.service
    service.start()
    service.wait_ready(20)
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    seen: set[tuple[str, int]] = set()
    for operation in (found.ok() for found in schema.get_all_operations()):
        how = hypothesis.settings(
            max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(hypothesis.HealthCheck)
        )
        cases = operation.as_strategy(generation_mode=schemathesis.GenerationMode[mode])

        @how
        @hypothesis.given(case=cases)
        def check(case: Any) -> None:
            answer = case.call()
            seen.add((case.path, answer.status_code))
            # a string that is no JSON, and a picture that is none, fit the document all the same
            case.validate_response(answer, excluded_checks=[positive_data_acceptance])

        try:
            check()
        except hypothesis.errors.Unsatisfiable:  # nothing about it can be wrong
            assert mode == "NEGATIVE"
    service.close()
    statuses = {status for _, status in seen}
    assert not statuses & {500, 503} and ("/v1/predict", 400) in seen
    assert mode == "NEGATIVE" or statuses >= {200, 400, 404}

"""What examples of the docs register is gone after their test."""

import pytest

from telegrad.spec import registry


@pytest.fixture(autouse=True)
def registry_as_before():
    registry.load()
    known = {kind: dict(classes) for kind, classes in registry.known_by_kind.items()}
    yield
    registry.known_by_kind.clear()
    registry.known_by_kind.update(known)

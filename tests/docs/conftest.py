"""What examples of the docs register is gone after their test."""

import pytest

from telegrad import spec


@pytest.fixture(autouse=True)
def registry_as_before():
    spec._load()
    known = {kind: dict(classes) for kind, classes in spec._registry.items()}
    yield
    spec._registry.clear()
    spec._registry.update(known)

import pytest
from fake_simulate import FakeSimulate


@pytest.fixture
def simulate(monkeypatch):
    fake = FakeSimulate()
    monkeypatch.setattr("telegrad.lab.runner.simulate", fake)
    return fake

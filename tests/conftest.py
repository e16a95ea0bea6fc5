import pytest
import torch


def pytest_collection_modifyitems(items):
    for item in items:
        if "cuda" in item.keywords and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU"))
        if "network" in item.keywords and "network" not in (item.config.option.markexpr or ""):
            item.add_marker(pytest.mark.skip(reason="needs the internet; run with -m network"))


@pytest.fixture(autouse=True)
def _seeded():
    """Every test draws the same numbers, whatever ran before it."""
    torch.manual_seed(0)

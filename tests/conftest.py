import pytest
import torch
from hypothesis import settings

from tests.hub_server import serve

settings.register_profile("nl3d", deadline=None, derandomize=True)  # the same examples on a busy machine
settings.load_profile("nl3d")


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


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A Hub of our own, an empty cache, and no token but what a test sets; the client is the real one."""
    import huggingface_hub
    from huggingface_hub import constants

    from nl3d.hub import fetch

    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    with serve() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setattr(constants, "HF_STORED_TOKENS_PATH", str(tmp_path / "tokens"))
        monkeypatch.setattr(fetch, "_RETRY_WAITS", (0.01, 0.01))
        if hasattr(huggingface_hub, "close_session"):
            huggingface_hub.close_session()  # the client reads the environment when it is made
        yield server

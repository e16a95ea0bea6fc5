import pytest

from tests.hub_server import serve


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A Hub of our own, an empty cache, and no token but what a test sets; the client is the real one."""
    import huggingface_hub
    from huggingface_hub import constants

    from nl3d.storage import fetch

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

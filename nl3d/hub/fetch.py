"""One file of the Hugging Face Hub, by its own client, with one-sentence errors, limited waits and checked bytes."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from pathlib import Path
from typing import Any

from huggingface_hub import (
    HfApi,
    constants,
    get_hf_file_metadata,
    hf_hub_download,
    hf_hub_url,
    try_to_load_from_cache,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from nl3d._version import __version__
from nl3d.files import replacing

# The bases are the errors of the HTTP client below the Hub's.
_FAILURES: tuple[type[Exception], ...] = (OSError, *HfHubHTTPError.__bases__)
_CALLER: Any = {"library_name": "nl3d", "library_version": __version__}
_TRANSIENT = (408, 429, 500, 502, 503, 504)
_RETRY_WAITS = (0.5, 1.0)  # seconds; the Hub's client alone would wait for minutes before it gave up
_RETRY_UNTIL = 10.0  # seconds after which a failed attempt is the last
_DOWNLOAD_TIME = 60.0  # seconds that any download may take, and besides
_SLOWEST = 20_000.0  # bytes per second


def fetch(
    repo_id: str,
    filename: str,
    *,
    revision: str | None = None,
    sha256: str | None = None,
    cache_dir: str | Path | None = None,
    force_download: bool = False,
    token: str | bool | None = None,
    local_files_only: bool = False,
) -> Path:
    """Path of a file of a Hub repository in huggingface_hub's cache, downloaded if it is not there.

    A file at a full commit hash that is in the cache is returned without a look at the network. The Hub's environment
    variables (``HF_HOME``, ``HF_ENDPOINT``, ``HF_TOKEN``, ``HF_HUB_OFFLINE``, ...) work as always.

    Args:
        repo_id: ``"org/name"``.
        filename: File within the repository.
        revision: Branch, tag or commit hash, at least seven digits of it; the default branch if left out.
        sha256: Hash that the file's bytes must have. It is checked after a download, and once for a file that was in
            the cache: a stamp beside it records the check. A cached file of other bytes is fetched again.
        cache_dir: The cache, if not the usual one.
        force_download: Whether to fetch again what is in the cache.
        token: As for :func:`huggingface_hub.hf_hub_download`.
        local_files_only: Whether only to look into the cache.
    """
    where = f"{repo_id}/{filename}"
    cached = None
    try:
        if revision is not None and re.fullmatch("[0-9a-f]{7,39}", revision):
            revision = _full_commit(repo_id, filename, revision, cache_dir=cache_dir, token=token)
        found = try_to_load_from_cache(repo_id, filename, cache_dir=cache_dir, revision=revision)
        cached = Path(found) if isinstance(found, str) and not force_download else None
        if cached and sha256 and not _has_hash(cached, sha256):
            _discard(cached)
            cached = None
        if cached and (local_files_only or re.fullmatch("[0-9a-f]{40}", revision or "")):
            return cached
        if local_files_only:
            raise OfflineModeIsEnabled(where)
        size = _wait_for(hf_hub_url(repo_id, filename, revision=revision), token=token)
        path = _download(
            _DOWNLOAD_TIME + (size or 0) / _SLOWEST,
            repo_id,
            filename,
            revision=revision,
            cache_dir=cache_dir,
            force_download=force_download,
            token=token,
        )
    except _FAILURES as failure:
        error = failure
        if isinstance(failure, LocalEntryNotFoundError) and isinstance(failure.__cause__, Exception):
            error = failure.__cause__  # the client says first that the cache did not help; this is why it was asked
        unreachable = not isinstance(error, (HfHubHTTPError, EntryNotFoundError))
        if cached and (unreachable or _status(error) in _TRANSIENT):
            return cached  # a branch that cannot be asked for news: what it was when last seen
        raise _explained(error, repo_id, filename, revision) from None
    if sha256 is not None and not _has_hash(path, sha256):
        digest = _hash(path)
        _discard(path)  # so that the next attempt starts afresh
        raise ValueError(f"weights must be the published file, but the bytes of {where} hash to {digest}, not {sha256}")
    return path


def _download(limit: float, *arguments: Any, **options: Any) -> Path:
    """Download a file, or raise after ``limit`` seconds: the client's own limits are per packet."""
    done: list[Path | BaseException] = []

    def download() -> None:
        try:
            done.append(Path(hf_hub_download(*arguments, **options)))
        except BaseException as error:
            done.append(error)

    worker = threading.Thread(target=download, daemon=True)
    worker.start()
    worker.join(limit)
    if not done:
        raise TimeoutError(f"less than {_SLOWEST / 1000:.0f} kB per second")
    if isinstance(done[0], BaseException):
        raise done[0]
    return done[0]


def _wait_for(url: str, *, token: str | bool | None) -> int | None:
    """Return the size of a file once the Hub answers for it, or raise after a few attempts."""
    start = time.monotonic()
    for wait in (*_RETRY_WAITS, None):
        try:
            return get_hf_file_metadata(url, token=token, timeout=constants.HF_HUB_ETAG_TIMEOUT, **_CALLER).size
        except _FAILURES as error:
            lasting = isinstance(error, HfHubHTTPError) and _status(error) not in _TRANSIENT
            too_late = time.monotonic() - start > _RETRY_UNTIL
            if wait is None or lasting or too_late or isinstance(error, OfflineModeIsEnabled):
                raise
            time.sleep(wait)
    raise AssertionError("the last attempt returns or raises")


def _full_commit(
    repo_id: str, filename: str, start: str, *, cache_dir: str | Path | None, token: str | bool | None
) -> str:
    """Complete a commit hash from the cache, or from the repository's history."""
    folder = Path(cache_dir or constants.HF_HUB_CACHE) / f"models--{repo_id.replace('/', '--')}" / "snapshots"
    known = sorted(path.name for path in folder.glob(f"{start}*"))
    if not known:
        _wait_for(hf_hub_url(repo_id, filename), token=token)
        known = [info.commit_id for info in HfApi().list_repo_commits(repo_id, token=token)]
    commits = [commit for commit in known if commit.startswith(start)]
    if len(commits) != 1:
        raise ValueError(f"revision must name one commit of {repo_id}, got {start!r}, which {len(commits)} begin with")
    return commits[0]


def _status(error: BaseException) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _has_hash(path: Path, sha256: str) -> bool:
    """Whether a file has the hash: as its stamp says if the file has not changed since, else by reading it."""
    file = path.resolve()  # the cache's blob
    stamp = file.with_name(f"{file.name}.sha256")
    status = file.stat()
    words = f"{sha256} {status.st_size} {status.st_mtime_ns}"
    try:
        if stamp.read_text(encoding="ascii") == words:
            return True
    except (OSError, ValueError):
        pass
    if _hash(file) != sha256:
        return False
    try:
        with replacing(stamp) as written:
            written.write_text(words, encoding="ascii")
    except OSError:
        pass  # a cache that cannot be written to is checked each time
    return True


def _hash(path: Path) -> str:
    hasher = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            hasher.update(chunk)
    return hasher.hexdigest()


def _discard(path: Path) -> None:
    path.resolve().unlink(missing_ok=True)  # the cache's blob
    path.unlink(missing_ok=True)


def _explained(error: BaseException, repo_id: str, filename: str, revision: str | None) -> BaseException:
    """The same failure in one sentence that says what to do, as one of Python's own errors."""
    endpoint = constants.ENDPOINT
    where = f"{repo_id}/{filename}" + (f" at {revision}" if revision else "")
    status = _status(error)
    if isinstance(error, OfflineModeIsEnabled):
        return FileNotFoundError(
            f"weights need {where}, which is not in the cache {constants.HF_HUB_CACHE}, and HF_HUB_OFFLINE or "
            "local_files_only forbids to fetch it; fetch it once online, or pass the path of a file"
        )
    if isinstance(error, GatedRepoError):
        return PermissionError(
            f"weights need {where}, which is gated; ask for access at {endpoint}/{repo_id} and log in with "
            "`hf auth login` or HF_TOKEN"
        )
    if isinstance(error, RevisionNotFoundError):
        return FileNotFoundError(f"weights need {where}, but {endpoint}/{repo_id} has no such revision")
    if isinstance(error, EntryNotFoundError):
        return FileNotFoundError(f"weights need {where}, but {endpoint}/{repo_id} has no such file at that revision")
    if isinstance(error, RepositoryNotFoundError) or status in (401, 403):
        kind = FileNotFoundError if status == 404 else PermissionError
        return kind(
            f"weights need {where}, which {endpoint} has not or does not show you (status {status}); check the name, "
            "and log in with `hf auth login` or HF_TOKEN if it is private"
        )
    if status is not None:
        return ConnectionError(f"weights need {where}, but {endpoint} answers with status {status}; try again later")
    if isinstance(error, OSError) and error.errno is not None:
        return error  # the disk's fault, not the network's; it names the path itself
    reason = str(error) if isinstance(error, TimeoutError) else type(error).__name__
    return ConnectionError(
        f"weights need {where}, but it could not be fetched whole from {endpoint} ({reason}); check the "
        "connection, proxy and HF_ENDPOINT and try again, or pass the path of a file"
    )

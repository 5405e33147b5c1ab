"""Translate errors of any store's library to an `OSError` with the URL and a remedy."""

from __future__ import annotations

import errno

_CONFLICTS = frozenset({"PreconditionFailed", "ConditionalRequestConflict"})


class RemoteError(OSError):
    """A store refused a request; `strerror` says why and what to do."""


def translated(error: Exception, url: str, writing: bool) -> OSError:
    """Return the error to raise instead: FileNotFoundError, FileExistsError or RemoteError."""
    kind, cause = type(error).__name__, type(error.__cause__).__name__
    response = getattr(error.__cause__, "response", None)
    code = response.get("Error", {}).get("Code", "") if isinstance(response, dict) else ""
    bucket = "/".join(url.split("/")[:3])
    if isinstance(error, FileExistsError) or code in _CONFLICTS:
        return FileExistsError(errno.EEXIST, "it exists already, or was replaced by another", url)
    if isinstance(error, FileNotFoundError) or code in ("NoSuchKey", "404"):
        if cause == "NoSuchBucket" or writing:
            return RemoteError(errno.EIO, f"there is no bucket {bucket}; make it, or correct the name", url)
        return FileNotFoundError(errno.ENOENT, "there is no such file", url)
    if "Credential" in kind or "ProfileNotFound" in kind:
        text = (
            f"no credentials were found ({error}); set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or for "
            "public data FSSPEC_S3_ANON=true"
        )
    elif isinstance(error, PermissionError):
        text = f"access is denied ({error}); check the credentials (AWS_PROFILE) and what they may do in {bucket}"
    elif "Connection" in kind or "Timeout" in kind:
        text = f"the store cannot be reached ({error}); check the network, and AWS_ENDPOINT_URL if it is not Amazon's"
    elif isinstance(error, NotImplementedError):
        text = f"the store cannot do that ({kind}: {error}); choose another one"
    else:
        text = f"{kind}: {error}"
    return RemoteError(errno.EIO, text, url)

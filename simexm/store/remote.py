"""Files behind a URL, through fsspec: in an object store a file is a key, and a folder is a prefix of keys.

Errors of a store are raised as an `OSError` with the URL: `FileNotFoundError` for a missing file, else `RemoteError`.
Endpoint, profile and anonymous access are set as for fsspec and the store: by environment variables such as AWS_PROFILE,
AWS_ENDPOINT_URL and FSSPEC_S3_ANON, and by files in ~/.aws and ~/.config/fsspec. simexm never stores them, so every worker
needs them, too.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Self

from simexm.errors import SpecError
from simexm.store.refusals import RemoteError, translated

_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}
_READ_ONLY = frozenset({"http", "https"})
_UPLOAD_BYTES = 1 << 26
"""Larger files are uploaded in parts."""


@dataclass(frozen=True, slots=True)
class About:
    """Size in bytes, time of writing (seconds since 1970) and version of a file."""

    st_size: int
    st_mtime: float
    version: str


if TYPE_CHECKING:
    _Path = Path  # type checkers accept a Remote wherever code is written for paths
else:
    _Path = object  # at run time it is no path: open() and os refuse it


@dataclass(frozen=True, slots=True)
class Remote(_Path):
    """A file or folder in a store, with the part of the interface of `pathlib.Path` that simexm needs."""

    url: str  # such as s3://bucket/folder/name, without a slash at its end

    @classmethod
    def at(cls, url: str) -> Self:
        """Check a URL; raises SpecError if it holds a password, or its protocol is unknown or its package missing."""
        import fsspec  # type: ignore[import-untyped]

        protocol, _, rest = url.partition("://")
        if "@" in rest.partition("/")[0]:
            raise SpecError(
                f"the URL {protocol}://...@{rest.partition('@')[2]} holds a name or password, which would be written into plans "
                "and logs; leave it out, and put credentials where the store's own tools find them (AWS_PROFILE, ~/.aws)"
            )
        try:
            fsspec.get_filesystem_class(protocol)
        except ImportError as error:
            package = _PACKAGES.get(protocol, "the package it names")
            extra = "'simexm[s3]'" if package == "s3fs" else package
            fault = f"{url} needs a package that is not installed ({error}); type: pip install {extra}"
            raise SpecError(fault) from error
        except ValueError as error:
            fault = f"{url}: there is no kind of storage {protocol}://; name a path, or s3://BUCKET/NAME"
            raise SpecError(fault) from error
        return cls(f"{protocol}://{rest.rstrip('/')}")

    # ---------------------------------------------------------------- names

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, key: str) -> Self:  # type: ignore[override]
        return type(self)(f"{self.url}/{key.strip('/')}") if key.strip("/") else self

    def joinpath(self, *parts: str) -> Self:  # type: ignore[override]
        """As `pathlib.Path` does."""
        return self / "/".join(parts)

    @property
    def protocol(self) -> str:
        """Part before ://."""
        return self.url.partition("://")[0]

    @property
    def name(self) -> str:
        """As `pathlib.Path` does."""
        return self._pure.name

    @property
    def stem(self) -> str:
        """As `pathlib.Path` does."""
        return self._pure.stem

    @property
    def suffix(self) -> str:
        """As `pathlib.Path` does."""
        return self._pure.suffix

    @property
    def parent(self) -> Self:
        """The folder above; of a bucket, the bucket itself."""
        return next(iter(self.parents), self)

    @property
    def parents(self) -> tuple[Self, ...]:
        """All folders above, nearest first, down to the bucket."""
        return tuple(self._with(p) for p in self._pure.parents if p.name)

    def with_name(self, name: str) -> Self:
        """As `pathlib.Path` does."""
        return self._with(self._pure.with_name(name))

    def with_suffix(self, suffix: str) -> Self:
        """As `pathlib.Path` does."""
        return self._with(self._pure.with_suffix(suffix))

    def relative_to(self, folder: Path) -> PurePosixPath:  # type: ignore[override]
        """As `pathlib.Path` does."""
        if not isinstance(folder, Remote) or folder.protocol != self.protocol:
            raise ValueError(f"{self} is not below {folder}")
        return self._pure.relative_to(folder._pure)

    @property
    def _pure(self) -> PurePosixPath:
        return PurePosixPath(self.url.partition("://")[2])

    def _with(self, path: PurePosixPath) -> Self:
        return type(self)(f"{self.protocol}://{path}")

    # ---------------------------------------------------------------- reading

    @property
    def system(self) -> Any:
        """The fsspec file system; it caches no listings, since others write, too."""
        import fsspec

        return fsspec.filesystem(self.protocol, use_listings_cache=False)

    @property
    def key(self) -> str:
        """Name within the file system, bucket first."""
        return str(self.system._strip_protocol(self.url))

    def stat(self) -> About:  # type: ignore[override]
        """Size, time and version of a file; raises FileNotFoundError if it is missing."""
        with self._translated():
            about = self.system.info(self.key)
        if about["type"] != "file":
            raise FileNotFoundError(errno.ENOENT, "there is no such file", self.url)
        time, version = _time(about), _version(about)
        seconds = time.timestamp() if hasattr(time, "timestamp") else time if isinstance(time, float) else 0.0
        return About(int(about["size"] or 0), seconds, str(version or (about["size"], time)))

    @property
    def can_list(self) -> bool:
        """Whether the store lists folders; web servers need not."""
        return self.protocol not in _READ_ONLY

    def exists(self) -> bool:
        """Whether there is a file of this name, or any file below it."""
        return self.is_file() or self.is_dir()

    def is_file(self) -> bool:
        """As `pathlib.Path` does."""
        try:
            self.stat()
        except FileNotFoundError:
            return False
        return True

    def is_dir(self) -> bool:
        """Whether there is any file below."""
        return next(self.iterdir(), None) is not None

    def is_symlink(self) -> bool:
        """Stores have no links."""
        return False

    def iterdir(self) -> Generator[Self, None, None]:
        """Files and folders directly below; none if there is no such folder."""
        for name, _ in self.scan():
            yield self / name

    def scan(self) -> Iterator[tuple[str, int | None]]:
        """Name and size of each entry; the size of a folder is None."""
        for name, size, _ in self.entries():
            yield name, size

    def entries(self) -> Iterator[tuple[str, int | None, str]]:
        """Name, size and version of each entry; of a folder name, None and ""."""
        with contextlib.suppress(FileNotFoundError), self._translated():
            if self._is_s3:
                for page in self._pages(Delimiter="/"):
                    for each in page.get("CommonPrefixes", ()):
                        yield each["Prefix"].rstrip("/").rpartition("/")[2], None, ""
                    for each in page.get("Contents", ()):
                        if not each["Key"].endswith("/"):  # some programs write an object for the folder itself
                            yield each["Key"].rpartition("/")[2], int(each["Size"]), str(_version(each))
                return
            for each in self.system.ls(self.key, detail=True):
                key = each["name"].rstrip("/")
                if key != self.key and each["type"] == "directory":
                    yield key.rpartition("/")[2], None, ""
                elif key != self.key:
                    yield key.rpartition("/")[2], int(each["size"] or 0), str(_version(each) or _time(each))

    def files(self) -> Iterator[Self]:
        """All files below, in one listing; on S3 page by page."""
        with self._translated():
            if self._is_s3:
                bucket = self.key.partition("/")[0]
                found = (f"{bucket}/{each['Key']}" for page in self._pages() for each in page.get("Contents", ()))
            else:
                found = self.system.find(self.key)
            for key in found:
                yield type(self)(f"{self.protocol}://{key}")

    @property
    def _is_s3(self) -> bool:
        return self.protocol in ("s3", "s3a")

    def _pages(self, **options: str) -> Iterator[Mapping[str, Any]]:
        """List the keys below, a thousand at a time."""
        bucket, _, prefix = self.key.partition("/")
        options |= {"Bucket": bucket, "Prefix": f"{prefix}/" if prefix else ""}
        while True:
            page = self.system.call_s3("list_objects_v2", **options)
            yield page
            if not page.get("IsTruncated"):
                return
            options["ContinuationToken"] = page["NextContinuationToken"]

    def read_bytes(self) -> bytes:
        """As `pathlib.Path` does."""
        with self._translated():
            data: bytes = self.system.cat_file(self.key)
        return data

    def read_ranges(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Fetch the bytes of each (start, stop), concurrently; a negative start counts from the end."""
        with self._translated():
            if len(ranges) == 1:
                start, stop = ranges[0]
                return [self.system.cat_file(self.key, start=start, end=None if start < 0 else stop)]
            starts, stops = zip(*ranges, strict=True)
            keys = [self.key] * len(ranges)
            found: list[bytes] = self.system.cat_ranges(keys, list(starts), list(stops), on_error="raise")
        return found

    def read_text(self, encoding: str = "utf-8") -> str:  # type: ignore[override]
        """As `pathlib.Path` does."""
        return self.read_bytes().decode(encoding)

    # ---------------------------------------------------------------- writing

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Do nothing: a folder exists as soon as a file is in it."""

    def rmdir(self) -> None:
        """Do nothing: a folder ends with its last file."""

    def put(self, data: bytes) -> str:
        """Replace the file atomically; return its version."""
        return self._put(data)

    def upload(self, file: Path, *, new: bool = False) -> None:
        """Replace the file atomically by a local one; with `new`, create it: see `create`."""
        if file.stat().st_size <= _UPLOAD_BYTES:
            data = file.read_bytes()
            self.create(data) if new else self._put(data)
            return
        with self._translated(writing=True):
            self.system.put_file(str(file), self.key, **({"mode": "create"} if new else {}))

    def create(self, data: bytes) -> str:
        """Write the file unless it exists, atomically if the store can; return its version.

        Raises FileExistsError if it exists with other content.
        """
        try:
            return self._put(data, mode="create")
        except FileExistsError:
            if self.read_bytes() != data:  # else the answer was lost and the request sent again
                raise
            return self.stat().version

    def replace_version(self, data: bytes, version: str) -> str:
        """Replace the file if it still has this version; return the new version. Atomic on S3 only.

        Raises FileExistsError if it has another version by now, or is gone.
        """
        if self._is_s3:
            return self._put(data, IfMatch=version)
        try:
            same = self.stat().version == version
        except FileNotFoundError:
            same = False
        if not same:
            raise FileExistsError(errno.EEXIST, "it was replaced by another", self.url)
        return self._put(data)

    def _put(self, data: bytes, **conditions: str) -> str:
        with self._translated(writing=True):
            answer = self.system.pipe_file(self.key, data, **conditions)
        version = answer.get("ETag") if isinstance(answer, dict) else None
        return str(version) if version else self.stat().version

    def unlink(self, missing_ok: bool = False) -> None:
        """As `pathlib.Path` does."""
        if not missing_ok:
            self.stat()
        with contextlib.suppress(FileNotFoundError), self._translated():
            self.system.rm_file(self.key)

    def remove_keys(self, urls: list[str]) -> None:
        """Remove files of this store in one request for many."""
        with contextlib.suppress(FileNotFoundError), self._translated():
            self.system.rm(urls)

    def remove_tree(self) -> None:
        """Remove all files below."""
        if self.is_dir():
            with contextlib.suppress(FileNotFoundError), self._translated():
                self.system.rm(self.key, recursive=True)

    # ---------------------------------------------------------------- errors

    def refuse_read_only(self) -> None:
        """Raise SpecError if the store cannot be written to."""
        if self.protocol in _READ_ONLY:
            raise SpecError(f"{self} can be read, but not written to; name a path, or s3://BUCKET/NAME.zarr")

    @contextlib.contextmanager
    def _translated(self, writing: bool = False) -> Iterator[None]:
        """Raise errors of any store as `OSError`."""
        try:
            yield
        except RemoteError:
            raise
        except Exception as error:
            raise translated(error, self.url, writing) from error


def _time(about: Mapping[str, Any]) -> Any:
    """Time of writing as the store reports it, else 0."""
    return next((about[k] for k in ("LastModified", "mtime", "updated", "created") if about.get(k)), 0.0)


def _version(about: Mapping[str, Any]) -> Any:
    """Version as the store reports it, else None."""
    return next((about[k] for k in ("ETag", "etag", "generation", "md5Hash") if about.get(k)), None)

"""Files behind a URL, through fsspec: an object store, where a file is a key and a folder is what keys begin with.

Whatever a store says of what went wrong comes out as an `OSError` with the URL in it: `FileNotFoundError` where there is
nothing, `RemoteError` for all else. Options (endpoint, profile, anonymous) are fsspec's and the store's own: environment
variables such as AWS_PROFILE, AWS_ENDPOINT_URL and FSSPEC_S3_ANON, and the files in ~/.aws and ~/.config/fsspec. They are
never written down, so every worker needs them, too.
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
"""Larger files are sent from the disk in parts."""


@dataclass(frozen=True, slots=True)
class About:
    """What a store says of a file: its size in bytes, when it was written (seconds since 1970), and which version it is."""

    st_size: int
    st_mtime: float
    version: str


if TYPE_CHECKING:
    _Path = Path  # so that what is written for paths is checked for both
else:
    _Path = object  # but nothing may take it for a name on a disk


@dataclass(frozen=True, slots=True)
class Remote(_Path):
    """A place in a store. It has the names that `pathlib.Path` has, as far as simexm needs them, and is no `os.PathLike`.

    Attributes
    ----------
    url
        Such as s3://bucket/folder/name, without a slash at its end.
    """

    url: str

    @classmethod
    def at(cls, url: str) -> Self:
        """The place that a URL names.

        Raises
        ------
        SpecError
            If it holds a password, or the package for it is missing.
        """
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
            extra = (
                "'simexm[s3]'" if _PACKAGES.get(protocol) == "s3fs" else _PACKAGES.get(protocol, "the package it names")
            )
            raise SpecError(
                f"{url} needs a package that is not installed ({error}); type: pip install {extra}"
            ) from error
        except ValueError as error:
            raise SpecError(
                f"{url}: there is no kind of storage {protocol}://; name a path, or s3://BUCKET/NAME"
            ) from error
        return cls(f"{protocol}://{rest.rstrip('/')}")

    # ---------------------------------------------------------------- names

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, key: str) -> Self:  # type: ignore[override]
        return type(self)(f"{self.url}/{key.strip('/')}") if key.strip("/") else self

    def joinpath(self, *parts: str) -> Self:  # type: ignore[override]
        """A place below."""
        return self / "/".join(parts)

    @property
    def protocol(self) -> str:
        """What stands before ://."""
        return self.url.partition("://")[0]

    @property
    def name(self) -> str:
        """The last part."""
        return self._pure.name

    @property
    def stem(self) -> str:
        """The last part without its suffix."""
        return self._pure.stem

    @property
    def suffix(self) -> str:
        """The end of the name from its last dot on."""
        return self._pure.suffix

    @property
    def parent(self) -> Self:
        """The folder, at last the bucket."""
        return next(iter(self.parents), self)

    @property
    def parents(self) -> tuple[Self, ...]:
        """All folders above, nearest first, at last the bucket."""
        return tuple(self._with(p) for p in self._pure.parents if p.name)

    def with_name(self, name: str) -> Self:
        """Another one beside it."""
        return self._with(self._pure.with_name(name))

    def with_suffix(self, suffix: str) -> Self:
        """The same with another suffix."""
        return self._with(self._pure.with_suffix(suffix))

    def relative_to(self, folder: Path) -> PurePosixPath:  # type: ignore[override]
        """The part below a folder."""
        if not isinstance(folder, Remote) or folder.protocol != self.protocol:
            raise ValueError(f"{self} is not below {folder}")
        return self._pure.relative_to(folder._pure)

    @property
    def _pure(self) -> PurePosixPath:
        return PurePosixPath(self.url.partition("://")[2])

    def _with(self, path: PurePosixPath) -> Self:
        return type(self)(f"{self.protocol}://{path}")

    # ---------------------------------------------------------------- looking

    @property
    def system(self) -> Any:
        """The fsspec file system, which caches no listings: others write, too."""
        import fsspec

        return fsspec.filesystem(self.protocol, use_listings_cache=False)

    @property
    def key(self) -> str:
        """The name that the file system knows, bucket first."""
        return str(self.system._strip_protocol(self.url))

    def stat(self) -> About:  # type: ignore[override]
        """Size, time and version of a file; raises FileNotFoundError where there is none."""
        with self._told():
            about = self.system.info(self.key)
        if about["type"] != "file":
            raise FileNotFoundError(errno.ENOENT, "there is no such file", self.url)
        time, version = _time(about), _version(about)
        seconds = time.timestamp() if hasattr(time, "timestamp") else time if isinstance(time, float) else 0.0
        return About(int(about["size"] or 0), seconds, str(version or (about["size"], time)))

    @property
    def can_list(self) -> bool:
        """Whether the store tells what is in a folder, as web servers need not."""
        return self.protocol not in _READ_ONLY

    def exists(self) -> bool:
        """Whether there is a file, or any file below."""
        return self.is_file() or self.is_dir()

    def is_file(self) -> bool:
        """Whether there is a file of this name."""
        try:
            self.stat()
        except FileNotFoundError:
            return False
        return True

    def is_dir(self) -> bool:
        """Whether there is any file below."""
        return next(self.iterdir(), None) is not None

    def is_symlink(self) -> bool:
        """No store has links."""
        return False

    def iterdir(self) -> Generator[Self, None, None]:
        """Files and folders right below; none where there is no such folder."""
        for name, _ in self.scan():
            yield self / name

    def scan(self) -> Iterator[tuple[str, int | None]]:
        """Their names; of files the size, of folders None."""
        for name, size, _ in self.entries():
            yield name, size

    def entries(self) -> Iterator[tuple[str, int | None, str]]:
        """Their names; of files size and version, of folders None and nothing."""
        with contextlib.suppress(FileNotFoundError), self._told():
            if self._is_s3:
                for page in self._pages(Delimiter="/"):
                    for each in page.get("CommonPrefixes", ()):
                        yield each["Prefix"].rstrip("/").rpartition("/")[2], None, ""
                    for each in page.get("Contents", ()):
                        if not each["Key"].endswith("/"):  # what some programs put there for the folder itself
                            yield each["Key"].rpartition("/")[2], int(each["Size"]), str(_version(each))
                return
            for each in self.system.ls(self.key, detail=True):
                key = each["name"].rstrip("/")
                if key != self.key and each["type"] == "directory":
                    yield key.rpartition("/")[2], None, ""
                elif key != self.key:
                    yield key.rpartition("/")[2], int(each["size"] or 0), str(_version(each) or _time(each))

    def files(self) -> Iterator[Self]:
        """All files below, in one listing, which on S3 is read page by page."""
        with self._told():
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
        """A listing of what is below, a thousand keys at a time."""
        bucket, _, prefix = self.key.partition("/")
        options |= {"Bucket": bucket, "Prefix": f"{prefix}/" if prefix else ""}
        while True:
            page = self.system.call_s3("list_objects_v2", **options)
            yield page
            if not page.get("IsTruncated"):
                return
            options["ContinuationToken"] = page["NextContinuationToken"]

    def read_bytes(self) -> bytes:
        """The whole file."""
        with self._told():
            data: bytes = self.system.cat_file(self.key)
        return data

    def read_ranges(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Bytes from `start` up to `stop`, of each (start, stop), fetched at once; a negative start counts from the end."""
        with self._told():
            if len(ranges) == 1:
                start, stop = ranges[0]
                return [self.system.cat_file(self.key, start=start, end=None if start < 0 else stop)]
            starts, stops = zip(*ranges, strict=True)
            found: list[bytes] = self.system.cat_ranges(
                [self.key] * len(ranges), list(starts), list(stops), on_error="raise"
            )
        return found

    def read_text(self, encoding: str = "utf-8") -> str:  # type: ignore[override]
        """The whole file as text."""
        return self.read_bytes().decode(encoding)

    # ---------------------------------------------------------------- writing

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing: folders are there as soon as a file is."""

    def rmdir(self) -> None:
        """Nothing: folders are gone as soon as their files are."""

    def put(self, data: bytes) -> str:
        """Replace the file in one step; returns its version."""
        return self._put(data)

    def upload(self, file: Path, *, new: bool = False) -> None:
        """Replace the file in one step by one of this machine, or make it if it is `new`: see `create`."""
        if file.stat().st_size <= _UPLOAD_BYTES:
            data = file.read_bytes()
            self.create(data) if new else self._put(data)
            return
        with self._told(writing=True):
            self.system.put_file(str(file), self.key, **({"mode": "create"} if new else {}))

    def create(self, data: bytes) -> str:
        """Make the file if it is not there, in one step where the store knows how; returns its version.

        Raises
        ------
        FileExistsError
            If there is one with other content already.
        """
        try:
            return self._put(data, mode="create")
        except FileExistsError:
            if self.read_bytes() != data:  # else an answer was lost and the request sent again
                raise
            return self.stat().version

    def replace_version(self, data: bytes, version: str) -> str:
        """Replace the file if it is still of this version; returns the new one. In one step on S3 alone.

        Raises
        ------
        FileExistsError
            If it is of another version by now, or gone.
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
        with self._told(writing=True):
            answer = self.system.pipe_file(self.key, data, **conditions)
        version = answer.get("ETag") if isinstance(answer, dict) else None
        return str(version) if version else self.stat().version

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the file."""
        if not missing_ok:
            self.stat()
        with contextlib.suppress(FileNotFoundError), self._told():
            self.system.rm_file(self.key)

    def remove_keys(self, urls: list[str]) -> None:
        """Remove files of this store."""
        with contextlib.suppress(FileNotFoundError), self._told():
            self.system.rm(urls)

    def remove_tree(self) -> None:
        """Remove all files below."""
        if self.is_dir():
            with contextlib.suppress(FileNotFoundError), self._told():
                self.system.rm(self.key, recursive=True)

    # ---------------------------------------------------------------- what a store says

    def refuse_read_only(self) -> None:
        """Raise where nothing can be written."""
        if self.protocol in _READ_ONLY:
            raise SpecError(f"{self} can be read, but not written to; name a path, or s3://BUCKET/NAME.zarr")

    @contextlib.contextmanager
    def _told(self, writing: bool = False) -> Iterator[None]:
        """Errors of any store as `OSError`s."""
        try:
            yield
        except RemoteError:
            raise
        except Exception as error:
            raise translated(error, self.url, writing) from error


def _time(about: Mapping[str, Any]) -> Any:
    """When a file was written, as its store tells it; 0 where it does not."""
    return next((about[k] for k in ("LastModified", "mtime", "updated", "created") if about.get(k)), 0.0)


def _version(about: Mapping[str, Any]) -> Any:
    """Which version of a file it is; None where the store does not tell."""
    return next((about[k] for k in ("ETag", "etag", "generation", "md5Hash") if about.get(k)), None)

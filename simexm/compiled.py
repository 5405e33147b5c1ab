"""numba, imported at the first call of a compiled function: importing it and filling its registries takes 0.8 s.

A command that computes little, such as `simexm plan`, never pays for it. What such a command needs has two forms with the same
bits, one in NumPy and one compiled; `pays` chooses between them.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator
from functools import update_wrapper
from pathlib import Path
from threading import get_ident
from types import FunctionType
from typing import Any

from simexm.machine import refuse_tight_shell

_logger = logging.getLogger("simexm")


class Compiled:
    """A function that numba compiles at its first call; other attributes (`py_func`, `signatures`) are its dispatcher's."""

    def __init__(self, function: Callable[..., Any], options: dict[str, Any]) -> None:
        update_wrapper(self, function)
        self._function = function
        self._options = options
        self._made: list[Any] = []
        self._made_inner: list[Any] = []

    @property
    def dispatcher(self) -> Any:
        """numba's dispatcher, for calls from Python."""
        # concurrent threads may each build one and all use the first: a lock of ours could deadlock with numba's
        if not self._made:
            self._made.append(_compiler(self._options)(self._function))
        return self._made[0]

    @property
    def inner(self) -> Any:
        """The dispatcher for calls in compiled code.

        Its functions have no entry for Python, which would hold a second copy of each: three quarters of the time to compile.
        """
        if not self._made_inner:
            options = {**self._options, "no_cpython_wrapper": True}
            self._made_inner.append(_compiler(options)(_renamed(self._function, "inner")))
        return self._made_inner[0]

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Call the compiled function."""
        return self.dispatcher(*arguments, **named)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # copy and pickle ask incomplete objects
            raise AttributeError(name)
        return getattr(self.dispatcher, name)


def njit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """`numba.njit`, applied when the function is first called.

    Nothing in C calls these functions, and without numba's entry for C they compile in four fifths of the time.
    """
    return lambda function: Compiled(function, {"no_cfunc_wrapper": True, **options})


def _renamed(function: Callable[..., Any], suffix: str) -> Callable[..., Any]:
    """Copy a function under another name, by which numba caches it in files of its own."""
    of: Any = function
    copy = FunctionType(of.__code__, of.__globals__, of.__name__, of.__defaults__, of.__closure__)
    update_wrapper(copy, function)
    copy.__qualname__ = f"{of.__qualname__}.{suffix}"
    del copy.__wrapped__  # type: ignore[attr-defined]
    return copy


def _compiler(options: dict[str, Any]) -> Callable[[Callable[..., Any]], Any]:
    """`numba.njit` that also works where its cache cannot be read or written."""
    njit = _numba().njit

    def compiler(function: Callable[..., Any]) -> Any:
        cached = bool(options.get("cache"))
        try:
            dispatcher = njit(**options)(function)
        except RuntimeError:  # none of numba's cache folders can be written
            cached, dispatcher = False, njit(**{**options, "cache": False})(function)
        if cached:
            _share_cache(dispatcher)
        _compile_once(dispatcher)
        return dispatcher

    return compiler


def _compile_once(dispatcher: Any) -> None:
    """Let calls in compiled code pass integer constants as integers.

    numba would compile the function, and all that it calls, again for each constant, and for each counter that begins with one:
    a quarter of the time of a first run. Where a constant helps, LLVM propagates it.
    """
    unliteral: Callable[[Any], Any] = _numba().types.unliteral
    template = dispatcher.get_call_template
    dispatcher.get_call_template = lambda positional, named: template(
        tuple(map(unliteral, positional)), {name: unliteral(kind) for name, kind in named.items()}
    )


def _share_cache(dispatcher: Any) -> None:
    """Compile a function in one process at a time, and tolerate cached code that cannot be read or stored.

    Workers start together and need the same functions: the first one compiles, the others wait and load what it stored.
    """
    cache = dispatcher._cache
    compile_signature, load, save = dispatcher.compile, cache.load_overload, cache.save_overload
    lock = _FileLock(Path(cache.cache_path, f"{cache._impl.filename_base}.lock"))

    def read(*arguments: Any) -> Any:
        try:
            return load(*arguments)
        except Exception as error:  # pickle may raise anything on damaged bytes
            _logger.info("%s cannot be read (%s) and is compiled again", cache, error)
            with contextlib.suppress(OSError):
                cache.flush()  # or it would stay damaged
            return None

    def load_overload(*arguments: Any) -> Any:
        found = read(*arguments)
        if found is None:
            lock.acquire()
            found = read(*arguments)  # another process may have compiled it meanwhile
        return found

    def save_overload(*arguments: Any) -> None:
        try:
            save(*arguments)
        except OSError as error:
            _logger.warning("%s cannot be cached in %s: %s", cache, cache.cache_path, error)

    def compile_alone(signature: Any) -> Any:
        try:
            return compile_signature(signature)
        finally:
            lock.release()

    cache.load_overload, cache.save_overload, dispatcher.compile = load_overload, save_overload, compile_alone


class _FileLock:
    """A lock between processes, held while a function is compiled; without effect where the file system has no locks."""

    PATIENCE_S = 300.0
    """Longer than any function takes to compile: the process that holds the lock may have been stopped."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # by thread: numba compiles in one at a time, but each releases after that
        self._descriptors: dict[int, int] = {}

    def acquire(self) -> None:
        """Wait until no other process holds the lock."""
        if self._descriptors:
            return
        end_s = time.monotonic() + self.PATIENCE_S
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = self._descriptors[get_ident()] = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            while time.monotonic() < end_s:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return
                except BlockingIOError:
                    time.sleep(0.02)

    def release(self) -> None:
        """Let the next process compile, if this thread holds the lock."""
        descriptor = self._descriptors.pop(get_ident(), None)
        if descriptor is not None:
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)  # a child that was forked meanwhile has the descriptor, too
            os.close(descriptor)


_imported = False
_operations_without = 0
WORTH_IMPORTING = 600_000_000
"""Operations that NumPy does, on arrays in the CPU's cache, in the time of numba's import."""


def pays(operations: int) -> bool:
    """Whether the compiled form pays off for so many operations: numba is imported, or its import would have paid by now."""
    global _operations_without
    _operations_without += operations
    return _imported or _operations_without > WORTH_IMPORTING


def _numba() -> Any:
    """Import numba and teach it that a `Compiled` is a function in compiled code."""
    global _imported
    if not _imported:
        refuse_tight_shell()
        # with colorama installed, numba would write an escape sequence to the terminal at exit
        os.environ.setdefault("NUMBA_DISABLE_ERROR_MESSAGE_HIGHLIGHTING", "1")
    import numba
    from numba.extending import typeof_impl

    if not _imported:

        @typeof_impl.register(Compiled)
        def type_of(value: Compiled, context: Any) -> Any:
            return numba.types.Dispatcher(value.inner)

        _imported = True
    return numba


_LARGE = ("kernels/emission/emit.py", "legacy2017/kernels/label.py")
"""Modules whose functions need most memory to compile; a run calls those of one of them."""


def is_cached() -> bool:
    """Whether the large functions are in numba's cache, without importing numba."""
    sources = [Path(__file__).parent / name for name in _LARGE]
    return any(
        index.stat().st_mtime >= source.stat().st_mtime
        for source in sources
        for folder in _caches(source.parent)
        for index in folder.glob(f"{source.stem}.*.nbi")
    )


def _caches(code: Path) -> Iterator[Path]:
    """Folders where numba may cache the functions of a folder: the user's choice, the user's cache, beside the source."""
    for root in (os.environ.get("NUMBA_CACHE_DIR"), Path.home() / ".cache" / "numba"):
        if root:
            with contextlib.suppress(PermissionError):  # the home folder of another user
                yield from Path(root).glob(f"{code.name}_*")
    yield code / "__pycache__"

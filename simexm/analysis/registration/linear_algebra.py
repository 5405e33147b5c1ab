"""Linear algebra on one thread, whose order of additions then does not depend on how many a machine has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from simexm.errors import OutputError


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute products and inverses of matrices on one thread; raises OutputError without threadpoolctl."""
    try:
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # late: it is of an extra
    except ImportError:
        raise OutputError(
            "aligning needs threadpoolctl, which is not installed; type: pip install 'simexm[align]'"
        ) from None
    with threadpool_limits(1, user_api="blas"):
        yield

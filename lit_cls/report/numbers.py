"""Formatting of figures in reports and messages."""

from collections.abc import Sequence

from lit_cls.evaluation.metrics import wilson_interval


def count(n: float) -> str:
    """12,345"""
    return f"{n:,}"


def percent(share: float | None, sign: bool = False, digits: int = 2) -> str:
    """A share as 91.92%; n/a for None."""
    return "n/a" if share is None else f"{share:{'+' if sign else ''}.{digits}%}"


def interval(bounds: Sequence[float] | None, digits: int = 2) -> str:
    """Two shares as 85.13% – 95.91%; n/a for None."""
    return "n/a" if bounds is None else " – ".join(percent(bound, digits=digits) for bound in bounds)


def share(k: int, n: int) -> str:
    """k of n as 90.00% (45 of 50; 78.6% – 95.7%), with the 95 % Wilson interval."""
    return f"{percent(k / n)} ({k:,} of {n:,}; {interval(wilson_interval(k, n), digits=1)})" if n else "n/a (0 of 0)"


def decimal(value: float | None) -> str:
    """0.8392; n/a for None."""
    return "n/a" if value is None else f"{value:.4f}"


def small(value: float) -> str:
    """A value near 0 with two digits: 1.2e-07, 0.31."""
    return f"{value:.2g}"

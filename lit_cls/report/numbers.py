"""How a report writes its figures."""


def count(n: float) -> str:
    """12,345"""
    return f"{n:,}"


def percent(share: float | None, sign: bool = False) -> str:
    """A share as 91.92%; n/a for None."""
    return "n/a" if share is None else f"{share:{'+' if sign else ''}.2%}"


def decimal(value: float | None) -> str:
    """0.8392; n/a for None."""
    return "n/a" if value is None else f"{value:.4f}"


def small(value: float) -> str:
    """1.2e-07, or 0.31 where it is no rounding."""
    return f"{value:.2g}"

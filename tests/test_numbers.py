"""How figures are written."""

import pytest

from lit_cls.report.numbers import count, decimal, percent, small


def test_figures_on_paper() -> None:
    assert count(1234567) == "1,234,567"
    assert percent(0.91919) == "91.92%"
    assert percent(0.0051, sign=True) == "+0.51%"
    assert percent(-0.0051, sign=True) == "-0.51%"
    assert decimal(0.83994) == "0.8399"
    assert small(1.19e-7) == "1.2e-07"
    assert small(0.3051) == "0.31"


@pytest.mark.parametrize("write", [percent, decimal])
def test_what_is_not_defined_is_no_number(write: object) -> None:
    assert write(None) == "n/a"  # type: ignore[operator]

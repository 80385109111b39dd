"""How figures are written."""

import pytest

from lit_cls.report.numbers import count, decimal, interval, percent, share, small


def test_figures_on_paper() -> None:
    assert count(1234567) == "1,234,567"
    assert percent(0.91919) == "91.92%"
    assert percent(0.0051, sign=True) == "+0.51%"
    assert percent(-0.0051, sign=True) == "-0.51%"
    assert interval((0.5, 0.75)) == "50.00% – 75.00%"
    assert interval((0.5, 0.75), digits=1) == "50.0% – 75.0%"
    assert decimal(0.83994) == "0.8399"
    assert small(1.19e-7) == "1.2e-07"
    assert small(0.3051) == "0.31"


@pytest.mark.parametrize("write", [percent, decimal, interval])
def test_what_is_not_defined_is_no_number(write: object) -> None:
    assert write(None) == "n/a"  # type: ignore[operator]


def test_a_share_has_its_interval() -> None:
    assert share(285, 300) == "95.00% (285 of 300; 91.9% – 96.9%)"
    assert share(0, 0) == "n/a (0 of 0)"
    assert share(40, 40) == "100.00% (40 of 40; 91.2% – 100.0%)"

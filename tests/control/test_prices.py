"""The file of prices: what it says, and what is said of it when it is wrong."""

from decimal import Decimal
from pathlib import Path

import pytest

from longtail.control.costs import plain, priced, significant
from longtail.control.prices import Price, Prices, read_prices
from longtail.control.settings import Settings, load_settings
from longtail.errors import SettingsError


def written(directory: Path, text: str) -> Path:
    path = directory / "prices.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_prices_are_read_as_they_are_written(tmp_path: Path) -> None:
    prices = read_prices(
        written(tmp_path, "currency: EUR\ngpuHour: {default: 2, H100: 2.99, l40s: '1.10', H100-MIG-3G.40GB: 1.2}\n")
    )
    assert prices.of("H100") == Price(Decimal("2.99"), "EUR")
    assert prices.of("h100") == prices.of("H100")
    assert prices.of("L40S") == Price(Decimal("1.10"), "EUR")
    assert prices.of("H100-MIG-3G.40GB") == Price(Decimal("1.2"), "EUR")
    assert prices.of("UNKNOWN") == Price(Decimal(2), "EUR")


def test_without_a_default_other_classes_have_no_price(tmp_path: Path) -> None:
    assert read_prices(written(tmp_path, "{currency: USD, gpuHour: {H100: 0}}")).of("L4") is None
    assert Prices("USD", {"H100": Decimal(0)}).of("H100") == Price(Decimal(0), "USD")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("currency: USD", ["gpuHour"], id="no-price"),
        pytest.param("{currency: USD, gpuHour: {}}", ["gpuHour"], id="an-empty-list"),
        pytest.param("gpuHour: {H100: 1}", ["currency"], id="no-currency"),
        pytest.param("{currency: $, gpuHour: {H100: 1}}", ["currency", "'$'"], id="no-code-of-a-currency"),
        pytest.param("{currency: USD, gpuHour: {H100: -1}}", ["gpuHour.H100", "-1"], id="negative"),
        pytest.param("{currency: USD, gpuHour: {H100: .inf}}", ["gpuHour.H100", "inf"], id="infinite"),
        pytest.param("{currency: USD, gpuHour: {H100: true}}", ["gpuHour.H100", "True"], id="boolean"),
        pytest.param("{currency: USD, gpuHour: {H100: two}}", ["gpuHour.H100", "'two'"], id="a-word"),
        pytest.param("{currency: USD, gpuHour: {NVIDIA H100: 1}}", ["gpuHour", "NVIDIA H100"], id="a-blank"),
        pytest.param("{currency: USD, gpuHour: {H100: 1, h100: 2}}", ["gpuHour.h100", "H100"], id="twice"),
        pytest.param("{currency: USD, gpuHours: {H100: 1}}", ["gpuHours"], id="misspelt"),
        pytest.param("[1, 2]", ["file"], id="a-list"),
        pytest.param("a: b: c", ["mapping values"], id="no-yaml"),
    ],
)
def test_what_is_wrong_is_named_with_file_field_and_value(tmp_path: Path, text: str, says: list[str]) -> None:
    path = written(tmp_path, text)
    with pytest.raises(SettingsError) as refused:
        read_prices(path)
    assert all(word in str(refused.value) for word in [str(path), *says])


def test_prices_are_a_setting_and_need_not_be_there(tmp_path: Path) -> None:
    assert Settings().prices() is None
    path = written(tmp_path, "{currency: USD, gpuHour: {default: 2.5}}")
    settings = load_settings(environment={"LONGTAIL_PRICES_FILE": str(path)}, flags={})
    prices = settings.prices()
    assert prices is not None
    assert prices.of("any") == Price(Decimal("2.5"), "USD")
    with pytest.raises(SettingsError, match=r"nowhere\.yaml"):
        load_settings(environment={}, flags={"prices_file": "/nowhere.yaml"}).prices()


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.00001234, "0.000012"), (0.5, "0.5"), (9.96, "10"), (99.5, "100"), (123456.0, "120000")],
)
def test_amounts_are_rounded_and_have_no_exponent(value: float, text: str) -> None:
    assert significant(value) == text


def test_money_without_a_price_is_not_known() -> None:
    assert priced(2.0, None) is None
    assert priced(None, Price(Decimal(3), "USD")) is None
    assert priced(2.0, Price(Decimal("2.5"), "USD")) == 5
    assert plain(Decimal(100)) == "100"

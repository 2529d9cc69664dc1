"""The administrator's file of prices: YAML or JSON in, what a GPU-hour costs by class.

    currency: USD
    gpuHour:
      default: "2.00"       # of any class that is not listed
      H100: "2.99"
      L40S: "1.10"

What a contract says per GPU and hour, node and network included: longtail knows no cloud's price list. Prices are
optional; without them GPU-hours are counted all the same, and no money is told.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

from longtail.control.files import read_file
from longtail.errors import SettingsError

_DEFAULT: Final = "default"


@dataclass(frozen=True, slots=True)
class Price:
    """Of one GPU for one hour."""

    amount: Decimal
    currency: str


@dataclass(frozen=True, slots=True)
class Prices:
    """By class of GPU, in capitals."""

    currency: str
    by_class: Mapping[str, Decimal]
    default: Decimal | None = None

    def of(self, gpu_class: str) -> Price | None:
        """The price of one GPU-hour; None where nothing is said of the class."""
        amount = self.by_class.get(gpu_class.upper(), self.default)
        return None if amount is None else Price(amount, self.currency)


def _spelled(value: object) -> object:
    """A number of YAML is binary: 2.99 is meant as it is written."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


GpuHourPrice = Annotated[Decimal, BeforeValidator(_spelled), Field(ge=0, le=1_000_000, allow_inf_nan=False)]
GpuClass = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$")]


class PricesFile(BaseModel):
    """The whole file. Strict: a misspelt key is an error, not a default."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", frozen=True)

    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
    gpu_hour: Annotated[dict[GpuClass, GpuHourPrice], Field(min_length=1)]


def read_prices(path: Path) -> Prices:
    """Read the file.

    Raises:
        SettingsError: it is not there, not YAML, or an entry is wrong; the message names file, key and value.
    """
    file = read_file(path, PricesFile, what="prices")
    by_class: dict[str, Decimal] = {}
    for name, amount in file.gpu_hour.items():
        if name.upper() in by_class:
            raise SettingsError(f"prices file {path}: gpuHour.{name}: {name.upper()} has a price already")
        if name != _DEFAULT:
            by_class[name.upper()] = amount
    return Prices(file.currency, by_class, file.gpu_hour.get(_DEFAULT))

"""The administrator's file of GPU budgets: YAML or JSON in, ``GpuBudget`` values out.

    budgets:
      - {class: H100, gpus: 64}
      - {class: H100, namespace: team-a, gpus: 24}
      - {class: L40S, gpus: 40}

A setting of the operator and no resource of the cluster: a quota is decided on by whoever decides on the operator, and
seldom; a resource would be one more definition, one more watch and one more right, and two of them could contradict
each other while nobody looks. This file is checked as a whole before the operator starts.
"""

from collections import Counter
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from longtail.control.files import read_file
from longtail.policy.fleet import GpuBudget

_CLASS = r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"
_NAMESPACE = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"


class _Entry(BaseModel):
    """Strict: a misspelt key is an error, not a default."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class BudgetEntry(_Entry):
    """At most so many GPUs."""

    gpu_class: Annotated[str, Field(alias="class", max_length=63, pattern=_CLASS)]
    gpus: Annotated[int, Field(ge=0, le=1_000_000, strict=True)]
    namespace: Annotated[str, Field(pattern=_NAMESPACE)] | None = None

    def to_budget(self) -> GpuBudget:
        """Return the value that the policy reads: classes are in capitals there."""
        return GpuBudget(gpu_class=self.gpu_class.upper(), gpus=self.gpus, namespace=self.namespace)


class BudgetsFile(_Entry):
    """The whole file."""

    budgets: list[BudgetEntry]

    @model_validator(mode="after")
    def _has_one_budget_for_each(self) -> Self:
        counts = Counter((entry.gpu_class.upper(), entry.namespace) for entry in self.budgets)
        for (gpu_class, namespace), count in counts.items():
            if count > 1:
                where = "" if namespace is None else f" in namespace {namespace}"
                raise ValueError(f"budgets: {count} of them for class {gpu_class}{where}, give one")
        return self


def read_budgets(path: Path) -> tuple[GpuBudget, ...]:
    """Read the file.

    Raises:
        SettingsError: it is not there, not YAML, or an entry is wrong; the message names file, key and value.
    """
    file = read_file(path, BudgetsFile, what="GPU budgets")
    return tuple(entry.to_budget() for entry in file.budgets)

"""Parts that data files share: a checked, frozen table, and a figure with its interval."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator


class DataModel(BaseModel):
    """A table of a data file: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Interval(DataModel):
    """A figure with its 95% interval and where it comes from."""

    value: float = Field(gt=0)
    low: float = Field(gt=0)
    high: float = Field(gt=0)
    source: str = Field(min_length=1)

    @model_validator(mode="after")
    def _ordered(self) -> Interval:
        if not self.low <= self.value <= self.high:
            raise ValueError(f"low <= value <= high does not hold: {self}")
        return self

"""How a feature is named: `view:feature`, or `view@2:feature` for a version of the view."""

from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class FeatureRef:
    """A reference of a feature, or of a whole view where `feature` is empty.

    `version` is the number of the view's version, as text; empty for what the view means today.
    """

    view: str
    feature: str = ""
    version: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """The reference that a text holds. Whether the view and the feature exist is the catalogue's question."""
        label, _, feature = text.partition(":")
        view, _, version = label.partition("@")
        return cls(view, feature, version)

    @property
    def label(self) -> str:
        """The view with its version, if it has one: `view` or `view@2`."""
        return f"{self.view}@{self.version}" if self.version else self.view

    def __str__(self) -> str:
        """The reference as it is written."""
        return f"{self.label}:{self.feature}" if self.feature else self.label

"""What can be wrong with feature definitions and with the tables of a training set.

FeatureError
├── DefinitionError     a definition contradicts itself or another one
├── UnknownFeatureError a reference names no view or feature
└── TrainingSetError    a table has not the columns or values that the definitions ask for
"""


class FeatureError(ValueError):
    """Something about features that their author can correct."""


class DefinitionError(FeatureError):
    """A definition contradicts itself or another one; the message names it and says what would be right.

    Args:
        message: what is wrong, and what would be right.
        location: `file:line` of the definition, which then leads the message.
    """

    def __init__(self, message: str, location: str = "") -> None:
        super().__init__(f"{location}: {message}" if location else message)
        self.location = location


class UnknownFeatureError(FeatureError):
    """A reference names no view or feature."""


class TrainingSetError(FeatureError):
    """A table has not the columns or values that the definitions ask for."""

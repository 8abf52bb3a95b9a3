"""Errors that the user can mend: one line each, with the value, the limit and the fix."""


class WithstandError(Exception):
    """Base of all errors that the user can mend; the command line ends with exit code 2 on one."""


class ConfigError(WithstandError):
    """The configuration is missing, malformed or contradicts itself."""


class DataError(WithstandError):
    """The data cannot be read or cannot be evaluated."""


class ModelError(WithstandError):
    """The model cannot be loaded or answers in an unexpected form."""


class ThreatError(WithstandError):
    """The threat model is impossible or does not fit the model."""


class BudgetError(WithstandError):
    """A budget allows nothing."""


class CheckpointError(WithstandError):
    """A checkpoint is damaged or belongs to another run."""


class OutputError(WithstandError):
    """A result cannot be written."""

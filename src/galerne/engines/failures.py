"""Knows the ways in which an engine cannot do what it is asked, beyond a caller's mistake."""

from galerne.kernel.errors import GalerneError


class UnusableModel(GalerneError):
    """A model that is corrupt, truncated, or of a kind that this engine does not run; the message names the file."""

    status = 500
    code = "unusable_model"


class EngineFailed(GalerneError):
    """The native engine broke off or answered with something other than what it promises."""

    status = 500
    code = "engine_failed"

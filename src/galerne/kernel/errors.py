"""Two ways of going wrong: what may happen is a typed error that a person can act on, what must hold an invariant."""

from typing import Self


class GalerneError(Exception):
    """Something that may happen, with the answer for whoever asked.

    `status` is the HTTP status, `code` a stable snake_case name, `message` says what was wrong, where, and what to do,
    `param` names the field at fault (a dotted path), `retry_after_s` asks for a pause before the next try.
    """

    status = 500
    code = "internal_error"

    def __init__(
        self, message: str, *, code: str | None = None, param: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or type(self).code
        self.param = param
        self.retry_after_s = retry_after_s

    def again(self) -> Self:
        """The same error, never raised: one that is kept and raised holds the frames that it went through, with all
        that these hold, and what keeps it besides; and raised for many callers it would chain them together.
        """
        made = type(self).__new__(type(self), *self.args)
        made.__dict__.update(self.__dict__)
        return made


class BadRequest(GalerneError):
    """The request cannot be understood or asks for what cannot be."""

    status = 400
    code = "invalid_request"


class Unauthenticated(GalerneError):
    """No key, an unknown key, an expired or revoked one."""

    status = 401
    code = "invalid_api_key"


class Forbidden(GalerneError):
    """A known caller who may not do this."""

    status = 403
    code = "forbidden"


class NotFound(GalerneError):
    """The thing named does not exist, or not for this caller."""

    status = 404
    code = "not_found"


class Conflict(GalerneError):
    """The thing exists already, or changed meanwhile."""

    status = 409
    code = "conflict"


class TooLarge(GalerneError):
    """The body is larger than this server takes."""

    status = 413
    code = "request_too_large"


class Unprocessable(GalerneError):
    """Well-formed, but a field is not what it must be."""

    status = 422
    code = "unprocessable"


class RateLimited(GalerneError):
    """Too much, too fast: try again after `retry_after_s`."""

    status = 429
    code = "rate_limit_exceeded"


class UpstreamFailed(GalerneError):
    """The engine behind this model answered wrongly or went away."""

    status = 502
    code = "upstream_failed"


class Unavailable(GalerneError):
    """This server cannot answer now, and will later."""

    status = 503
    code = "unavailable"


class InvariantViolated(RuntimeError):
    """Something that must always be true was not: a defect, never a user's mistake."""


def invariant(condition: bool, message: str) -> None:
    """Raise `InvariantViolated` unless `condition` holds; unlike `assert` it is there in production too."""
    if not condition:
        raise InvariantViolated(message)


def place_of(error: BaseException) -> str:
    """What kind of surprise it was and where: all that may be logged, for its text may quote what a caller wrote.

    Where: the innermost line, and before it the innermost one of our own if that is another.
    """
    ours = last = ""
    trace = error.__traceback__
    while trace is not None:
        last = f"{trace.tb_frame.f_code.co_qualname}:{trace.tb_lineno}"
        if str(trace.tb_frame.f_globals.get("__name__", "")).startswith("galerne."):
            ours = last
        trace = trace.tb_next
    return " at ".join([type(error).__name__, *dict.fromkeys(place for place in (ours, last) if place)])

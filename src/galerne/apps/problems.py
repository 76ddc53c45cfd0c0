"""How a server says no: every error as a refusal in the caller's dialect, none with what the caller wrote.

Knows no framework but Starlette, so that a data plane can refuse without the control plane.
"""

from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError, StatementError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Scope

from galerne.gateway import Dialect, choose_dialect, error_body, error_headers, error_status, split_mount
from galerne.kernel import BadRequest, GalerneError, NotFound, Unavailable, get_logger, place_of

__all__ = ["TOLD", "refusal", "told"]

TOLD = (GalerneError, HTTPException, SQLAlchemyError, OSError)
"""What may happen; anything else is a defect, and `told` explains that too."""

_AWAY = (OperationalError, InterfaceError)


def refusal(error: GalerneError, scope: Scope) -> Response:
    """The answer that tells the caller of `scope` about `error`."""
    dialect = _dialect(scope)
    answer = Response(error_body(error, dialect), error_status(error, dialect), media_type="application/json")
    answer.raw_headers.extend(error_headers(error, dialect))
    return answer


def told(error: Exception, scope: Scope) -> GalerneError:
    """What the caller of `scope` may know of `error`; what the operator must know of it is logged."""
    if isinstance(error, GalerneError):
        return error
    if isinstance(error, HTTPException):
        return _http_problem(error, scope)
    if isinstance(error, StatementError) and not isinstance(error, _AWAY):
        return _defect(error)
    if isinstance(error, SQLAlchemyError | OSError):
        get_logger("api").error("database failed", kind=type(error).__name__)
        return Unavailable(
            "The database cannot answer at the moment; try again.", code="database_unavailable", retry_after_s=1
        )
    return _defect(error)


def _http_problem(error: HTTPException, scope: Scope) -> GalerneError:
    if error.status_code == 404:
        return NotFound(f"There is nothing at {scope['path']}. See /docs for what there is.")
    problem = BadRequest(f"{error.detail}: {scope['method']} {scope['path']}", code="http_error")
    problem.status = error.status_code
    return problem


def _defect(error: Exception) -> GalerneError:
    get_logger("api").error("defect", kind=type(error).__name__, place=place_of(error))
    return GalerneError("This is a defect of the server; it has been logged under the request id.")


def _dialect(scope: Scope) -> Dialect:
    agent = dict(scope["headers"]).get(b"user-agent", b"").decode("latin-1")
    return choose_dialect(split_mount(scope["path"])[0], None, agent)

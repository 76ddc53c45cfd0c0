"""How the control plane says no: every error in the caller's dialect, none with what the caller wrote."""

import traceback
from collections.abc import Mapping
from typing import Any, cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError, StatementError
from starlette.exceptions import HTTPException
from starlette.types import Scope

from galerne.gateway import Dialect, choose_dialect, error_body, error_headers, error_status, split_mount
from galerne.kernel import BadRequest, GalerneError, NotFound, Unavailable, get_logger

_AWAY = (OperationalError, InterfaceError)


def install_refusals(app: FastAPI) -> None:
    """Have `app` answer every kind of error as the gateway does."""
    app.add_exception_handler(GalerneError, _refuse)
    app.add_exception_handler(RequestValidationError, _refuse_fields)
    app.add_exception_handler(HTTPException, _refuse_http)
    app.add_exception_handler(SQLAlchemyError, _refuse_database)
    app.add_exception_handler(OSError, _refuse_database)
    app.add_exception_handler(Exception, _refuse_defect)


def refusal(error: GalerneError, scope: Scope) -> Response:
    """The answer that tells the caller of `scope` about `error`."""
    dialect = _dialect(scope)
    answer = Response(error_body(error, dialect), error_status(error, dialect), media_type="application/json")
    answer.raw_headers.extend(error_headers(error, dialect))
    return answer


def _dialect(scope: Scope) -> Dialect:
    agent = dict(scope["headers"]).get(b"user-agent", b"").decode("latin-1")
    return choose_dialect(split_mount(scope["path"])[0], None, agent)


async def _refuse(request: Request, error: Exception) -> Response:
    return refusal(cast(GalerneError, error), request.scope)


async def _refuse_fields(request: Request, error: Exception) -> Response:
    # The value is left out: it may be what somebody wrote, or a key in the wrong place.
    first = cast(Mapping[str, Any], cast(RequestValidationError, error).errors()[0])
    if first["type"] == "json_invalid":
        return refusal(BadRequest("The body is not valid JSON.", code="invalid_json"), request.scope)
    where = ".".join(str(step) for step in first["loc"][1:]) or "body"
    return refusal(BadRequest(f"{where}: {first['msg']}", code="invalid_value", param=where), request.scope)


async def _refuse_http(request: Request, error: Exception) -> Response:
    http = cast(HTTPException, error)
    if http.status_code == 404:
        return refusal(NotFound(f"There is nothing at {request.url.path}. See /docs for what there is."), request.scope)
    told = BadRequest(f"{http.detail}: {request.method} {request.url.path}", code="http_error")
    told.status = http.status_code
    return refusal(told, request.scope)


async def _refuse_database(request: Request, error: Exception) -> Response:
    if isinstance(error, StatementError) and not isinstance(error, _AWAY):
        return await _refuse_defect(request, error)
    get_logger("api").error("database failed", kind=type(error).__name__)
    away = Unavailable(
        "The database cannot answer at the moment; try again.", code="database_unavailable", retry_after_s=1
    )
    return refusal(away, request.scope)


async def _refuse_defect(request: Request, error: Exception) -> Response:
    # The place and no values: a traceback's last frame says enough to begin with, and its variables may be anybody's.
    frame = traceback.extract_tb(error.__traceback__)[-1]
    get_logger("api").error("defect", kind=type(error).__name__, place=f"{frame.filename}:{frame.lineno}")
    defect = GalerneError("This is a defect of the server; it has been logged under the request id.")
    return refusal(defect, request.scope)

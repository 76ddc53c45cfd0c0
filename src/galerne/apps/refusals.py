"""How the control plane's framework says no: every error that FastAPI meets is told as `problems` has it."""

from collections.abc import Mapping
from typing import Any, cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response

from galerne.apps.problems import TOLD, refusal, told
from galerne.kernel import BadRequest

__all__ = ["install_refusals"]


def install_refusals(app: FastAPI) -> None:
    """Have `app` answer every kind of error as the gateway does."""
    app.add_exception_handler(RequestValidationError, _refuse_fields)
    for kind in (*TOLD, Exception):
        app.add_exception_handler(kind, _refuse)


async def _refuse(request: Request, error: Exception) -> Response:
    return refusal(told(error, request.scope), request.scope)


async def _refuse_fields(request: Request, error: Exception) -> Response:
    # The value is left out: it may be what somebody wrote, or a key in the wrong place.
    first = cast(Mapping[str, Any], cast(RequestValidationError, error).errors()[0])
    if first["type"] == "json_invalid":
        return refusal(BadRequest("The body is not valid JSON.", code="invalid_json"), request.scope)
    where = ".".join(str(step) for step in first["loc"][1:]) or "body"
    return refusal(BadRequest(f"{where}: {first['msg']}", code="invalid_value", param=where), request.scope)

"""The extra `billing`: libraries that only documents need, loaded when first used, and a clear word when missing."""

import importlib
from typing import Any

from galerne.kernel import Unavailable


def load(module: str) -> Any:
    """This module of the extra `billing`; raises `Unavailable`, saying how to install it, when it isn't there."""
    try:
        return importlib.import_module(module)
    except ImportError as missing:
        raise Unavailable(
            f"Invoices need {missing.name}, which is not installed: pip install 'galerne[billing]'",
            code="extra_missing",
        ) from missing

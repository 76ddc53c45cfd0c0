"""LangChain's own standard tests for chat models, with its OpenAI client against this server and `brise`.

What eight million parameters cannot do is marked below, with the reason; everything else runs as LangChain wrote it.
LangChain itself skips pictures, sound, PDF and Anthropic's message format, which this model does not take, and its
recorded-cassette test, because here the server is real.
"""

from typing import Any, ClassVar

import pytest
from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import BaseChatModel
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from tests.serving import Key, Server

pytestmark = [
    pytest.mark.filterwarnings("default"),  # LangChain's own deprecations are not ours to fix
    pytest.mark.filterwarnings(
        "ignore:The test .* is marked with '@pytest.mark.asyncio'"
    ),  # the class is, for its loop
]

BOTH_OUTPUT_VERSIONS = pytest.mark.parametrize("model", [{}, {"output_version": "v1"}], indirect=True)


def beyond_brise(reason: str, *raises: type[Exception]) -> pytest.MarkDecorator:
    """Not strict: a better-trained model may well do it. Other errors than wrong content still fail."""
    return pytest.mark.xfail(strict=False, raises=(AssertionError, *raises), reason=reason)


COPIES_A_NUMBER = beyond_brise("wants the very number of the question in the call, which a model of this size may miss")


@pytest.mark.asyncio(loop_scope="class")  # LangChain keeps one asynchronous HTTP client for all models of one address
class TestBrise(ChatModelIntegrationTests):
    reached_at: ClassVar[dict[str, str]] = {}

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def address(cls, server: Server, key: Key) -> None:
        cls.reached_at = {"base_url": f"{server.address}/v1", "api_key": key.secret}

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        # Small models repeat themselves for ever when they always write the likeliest token.
        sampling = {"temperature": 0.5, "seed": 1, "frequency_penalty": 0.5}
        return {"model": "brise", "max_retries": 0, "stream_usage": True, **sampling, **self.reached_at}

    @property
    def model_override_value(self) -> str:
        return "brise-latest"

    @property
    def supports_json_mode(self) -> bool:
        return True

    @COPIES_A_NUMBER
    @BOTH_OUTPUT_VERSIONS
    def test_tool_calling(self, model: BaseChatModel) -> None:
        super().test_tool_calling(model)

    @COPIES_A_NUMBER
    async def test_tool_calling_async(self, model: BaseChatModel) -> None:
        await super().test_tool_calling_async(model)

    @beyond_brise("wants keys that only the question names, and gives no schema", OutputParserException)
    def test_json_mode(self, model: BaseChatModel) -> None:
        super().test_json_mode(model)

    @beyond_brise("wants Chinese to be copied, and this model has read English alone")
    def test_unicode_tool_call_integration(self, model: BaseChatModel, **_: Any) -> None:
        super().test_unicode_tool_call_integration(model)


class TestBriseWithoutAServer(ChatModelUnitTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": "brise", "base_url": "http://127.0.0.1:9/v1", "api_key": "test"}

    @property
    def init_from_env_params(self) -> tuple[dict[str, str], dict[str, Any], dict[str, Any]]:
        variables = {"OPENAI_API_KEY": "from-the-environment", "OPENAI_API_BASE": "http://127.0.0.1:9/v1"}
        expected = {"openai_api_key": "from-the-environment", "openai_api_base": "http://127.0.0.1:9/v1"}
        return variables, {"model": "brise"}, expected

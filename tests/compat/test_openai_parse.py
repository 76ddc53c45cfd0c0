from typing import Literal

from openai import OpenAI, pydantic_function_tool
from pydantic import BaseModel


class Verdict(BaseModel):
    verdict: Literal["good", "bad"]
    sure: bool


class Order(BaseModel):
    """Order a drink."""

    drink: Literal["tea", "water"]
    count: Literal[1, 2]


def test_the_clients_parse_helper_gives_a_pydantic_object(openai: OpenAI) -> None:
    answer = openai.chat.completions.parse(
        model="brise", messages=[{"role": "user", "content": "Judge."}], response_format=Verdict, max_tokens=100
    )
    assert isinstance(answer.choices[0].message.parsed, Verdict)


def test_the_clients_parse_helper_gives_parsed_tool_arguments(openai: OpenAI) -> None:
    answer = openai.chat.completions.parse(
        model="brise",
        messages=[{"role": "user", "content": "Two teas."}],
        tools=[pydantic_function_tool(Order)],
        tool_choice="required",
        parallel_tool_calls=False,
    )
    (call,) = answer.choices[0].message.tool_calls or []
    assert isinstance(call.function.parsed_arguments, Order)

"""Knows what all endpoints share while the engine runs: the model, its native server, its template, its queue."""

from collections import OrderedDict
from contextlib import aclosing
from dataclasses import dataclass, field

from galerne.engines.llamacpp.generation import Generator
from galerne.engines.llamacpp.grammars import probing
from galerne.engines.llamacpp.measures import Measures
from galerne.engines.llamacpp.model_file import ModelFile
from galerne.engines.llamacpp.native import NativeClient
from galerne.engines.llamacpp.prompts import ChatTemplate, Segment
from galerne.kernel.clock import Clock
from galerne.kernel.errors import BadRequest
from galerne.kernel.ids import Ids

_REMEMBERED_GRAMMARS = 512


@dataclass(frozen=True)
class Runtime:
    """One running model; `name` is what it calls itself, `context` the tokens that a request may use."""

    name: str
    model: ModelFile
    context: int
    client: NativeClient
    template: ChatTemplate
    generator: Generator
    measures: Measures
    clock: Clock
    ids: Ids = field(default_factory=Ids)
    _grammars: OrderedDict[str, bool] = field(default_factory=OrderedDict[str, bool])

    def new_id(self, prefix: str) -> str:
        """A fresh id for an answer."""
        return f"{prefix}-{self.ids.new()}"

    def created(self) -> int:
        """Now, in seconds since 1970."""
        return int(self.clock.now().timestamp())

    async def tokens(self, segments: list[Segment]) -> list[int]:
        """The tokens of a rendered prompt."""
        tokens: list[int] = []
        for segment in segments:
            tokens += await self.client.tokenize(segment.text, control=segment.control)
        return tokens

    async def check_grammar(self, source: str, param: str) -> None:
        """Makes sure that the sampler can enforce `source`; raises `BadRequest` naming `param` if it cannot.

        Costs one token for a grammar that was not seen lately.
        """
        if source not in self._grammars:
            self._grammars[source] = await self._enforced(source)
            if len(self._grammars) > _REMEMBERED_GRAMMARS:
                self._grammars.popitem(last=False)
        self._grammars.move_to_end(source)
        if not self._grammars[source]:
            raise BadRequest(
                f"{param} uses something that this engine cannot enforce (`not`, an unresolvable `$ref`, …)",
                param=param,
                code="unsupported_schema",
            )

    async def _enforced(self, source: str) -> bool:
        ends = self.model.control.get(self.model.eos)
        wanted = next(token for token in self.model.control.values() if token != ends)
        body = {
            "prompt": [wanted],
            "n_predict": 1,
            "stream": True,
            "temperature": 0.0,
            "cache_prompt": False,
            "grammar": probing(source, wanted),
            "logit_bias": [[wanted, -1000.0]],
        }
        tokens: list[int] = []
        async with aclosing(self.client.complete(body)) as batches:
            async for chunks in batches:
                for chunk in chunks:
                    tokens += chunk.tokens
        return tokens[:1] == [wanted]

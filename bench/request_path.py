"""The plugin's way of a request without an engine: vLLM's own request objects in, blocks out.

A step is what the engine's would be: the scheduler's output names new requests, the batch computes their
prompts, and what is captured is encoded as for the socket and read back as the sidecar does.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from secrets import token_hex
from time import time
from typing import Any, Final, NamedTuple

import torch
from vllm.sampling_params import SamplingParams
from vllm.v1.core.sched.output import NewRequestData, SchedulerOutput
from vllm.v1.request import Request

from subtext_sidecar.contract.canary import Canary, canary_key, make_token, prompt_digest
from subtext_sidecar.contract.counters import Hop
from subtext_sidecar.contract.facts import RequestFacts
from subtext_sidecar.local.block import decode_block
from subtext_sidecar.local.ledger import Ledger
from subtext_sidecar.local.policy import CapturePolicy
from subtext_sidecar.plugin.capture import Capture
from subtext_sidecar.plugin.sampling.canary import CanaryGate
from subtext_sidecar.plugin.sampling.split import WHOLE, EngineHalves
from subtext_sidecar.plugin.secret import key_of
from subtext_sidecar.plugin.step import Step
from subtext_sidecar.plugin.transfer.device import Layout
from subtext_sidecar.plugin.transfer.encoding import Identity, encode
from subtext_sidecar.plugin.transfer.handover import Handover
from subtext_sidecar.plugin.transfer.ring import open_ring

D_MODEL: Final = 4
_ROWS: Final = 4096
_CONTEXT: Final = 4096
_MODEL: Final = "m"
_SECRET: Final = b"nobody knows the secret of this engine"
_IDENTITY: Final = Identity(_MODEL, 1, frozenset())


def make_canary() -> str:
    """Return the operator's token for one canary, as whoever reads his traffic would see it."""
    said = Canary(token_hex(16), int(time()) + 240, prompt_digest([0] * Arrival("").prompt_tokens))
    return make_token(canary_key(_SECRET), said, _MODEL)


class Arrival(NamedTuple):
    """A request as vLLM's front end hands it to the engine."""

    internal_id: str
    prompt_tokens: int = 4
    computed_tokens: int = 0  # of the prompt, cached or transferred
    max_tokens: int = 16
    extra_args: dict[str, Any] | None = None
    is_token: list[bool] | None = None  # of each position; the others are embeddings
    has_tokens: bool = True  # False: the whole prompt is embeddings
    is_received: bool = False  # a KV connector brought the computed tokens


class _Batch:
    """A model runner that has just computed the prompts of the newest requests."""

    name = "bench"

    def __init__(self) -> None:
        self.arrivals: Sequence[Arrival] = ()

    def enable(self, aux_layer: int) -> None: ...

    def disable(self) -> None: ...

    def executed(self) -> Any:
        return self

    def received(self, result: Any) -> Iterable[str]:  # noqa: ARG002  # the port of a runner
        # What came in an earlier step, as far as the plugin can tell the difference.
        return [one.internal_id for one in self.arrivals if one.is_received]

    def step(self, executed: Any, rows: int) -> Step:  # noqa: ARG002  # the port of a runner
        starts, firsts = [0], []
        positions: list[int] = []
        for one in self.arrivals:
            firsts.append(one.computed_tokens)
            positions += range(one.computed_tokens, one.prompt_tokens)
            starts.append(len(positions))
        count = len(positions)
        return Step(
            [one.internal_id for one in self.arrivals],
            starts,
            firsts,
            torch.zeros((count, D_MODEL)),
            D_MODEL,
            torch.zeros(count, dtype=torch.int32),
            torch.tensor(positions, dtype=torch.int64),
        )


class RequestPath:
    """The plugin of one engine."""

    def __init__(self, policy: CapturePolicy, *, halves: EngineHalves = WHOLE) -> None:
        self.blocks = 0
        self._counted: dict[tuple[str, int], dict[str, int]] = {}
        self._ledger = Ledger(source="bench", hop=Hop.PLUGIN)
        self._handover: Handover = Handover()
        self._batch = _Batch()
        self._capture = Capture(
            runner=self._batch,
            policy=policy,
            model=_MODEL,
            ledger=self._ledger,
            ring=open_ring(Layout(_ROWS, D_MODEL, torch.float32), torch.device("cpu")),
            handover=self._handover,
            context=_CONTEXT,
            key=key_of(_SECRET),
            halves=halves,
            canaries=CanaryGate(canary_key(_SECRET), _MODEL),
            randomized_ids=True,
        )

    def serve(self, arrivals: Iterable[Arrival]) -> list[RequestFacts]:
        """Run one step in which these requests arrive, finish them; return whose rows the sidecar gets.

        Raises whatever would turn capture off, and RecordError for a block that the sidecar would refuse.
        """
        self._batch.arrivals = tuple(arrivals)
        scheduled = SchedulerOutput.make_empty()
        scheduled.scheduled_new_reqs = [_scheduled(one) for one in self._batch.arrivals]
        scheduled.total_num_scheduled_tokens = sum(
            one.prompt_tokens - one.computed_tokens for one in self._batch.arrivals
        )
        self._capture.after_execute(scheduled)
        self._capture.after_sample()
        captured = [facts for block in self._sent() for facts in block]
        finished = SchedulerOutput.make_empty()
        finished.finished_req_ids = {one.internal_id for one in self._batch.arrivals}
        self._batch.arrivals = ()
        self._capture.after_execute(finished)
        self._capture.after_sample()
        return captured

    def counts(self) -> Counter[str]:
        """Return what was counted so far, over strata and minutes."""
        for count in self._ledger.take_changed():
            self._counted[count.stratum, count.minute] = count.counts
        total: Counter[str] = Counter()
        for counts in self._counted.values():
            total.update(counts)
        return total

    def _sent(self) -> Iterable[list[RequestFacts]]:
        while self._handover:
            batch = self._handover.popleft()
            for part in encode(batch, _IDENTITY).parts:
                self.blocks += 1
                yield decode_block(part.header, part.vectors.tobytes()).header.requests
            batch.release()


def _scheduled(one: Arrival) -> NewRequestData:
    params = SamplingParams(max_tokens=one.max_tokens, extra_args=one.extra_args)
    is_embedded = not one.has_tokens or one.is_token is not None
    request = Request(
        one.internal_id,
        [0] * one.prompt_tokens if one.has_tokens else None,
        params,
        None,
        prompt_embeds=torch.zeros((one.prompt_tokens, D_MODEL)) if is_embedded else None,
        prompt_is_token_ids=one.is_token,
    )
    request.num_computed_tokens = one.computed_tokens
    return NewRequestData.from_request(request, block_ids=())

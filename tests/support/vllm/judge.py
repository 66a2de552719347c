"""Judge captured rows by Hugging Face's forward pass of their request, and by the policy."""

from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from subtext_sidecar.contract.record import Record
from subtext_sidecar.local.policy import CapturePolicy
from subtext_sidecar.plugin.sampling import rule as sampling
from tests.support.secret import KEY
from tests.support.vllm.runs import EngineRun

# Cosines: the right block must reach 0.999. Neighbouring blocks only add to the residual stream, so their
# outputs are similar (0.93 to 0.975 measured); below 0.99 an off-by-one cannot pass unnoticed.
SAME = 0.999
NEIGHBOUR = 0.99


class Reference:
    """A model in Hugging Face transformers; caches the hidden states of texts."""

    def __init__(self, model_dir: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        self._model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
        self._known: dict[tuple[int, ...], list[npt.NDArray[np.float32]]] = {}

    def hidden_states(self, token_ids: list[int]) -> list[npt.NDArray[np.float32]]:
        """Return the embeddings and each block's output, (tokens, d_model) each."""
        import torch

        key = tuple(token_ids)
        if key not in self._known:
            with torch.inference_mode():
                # Without the head, which costs as much as eight blocks of SmolLM2.
                body = self._model.base_model
                states = body(torch.tensor([token_ids]), output_hidden_states=True).hidden_states
            self._known[key] = [state[0].numpy() for state in states]
        return self._known[key]

    def continue_greedily(self, token_ids: list[int], tokens: int) -> list[int]:
        """Return the model's greedy continuation."""
        import torch

        with torch.inference_mode():
            text = self._model.generate(
                torch.tensor([token_ids]), max_new_tokens=tokens, do_sample=False, eos_token_id=None
            )
        return [int(token) for token in text[0, len(token_ids) :]]


class RowAgreement(NamedTuple):
    """Agreement of one run's rows with the reference."""

    rows: int
    least: float  # smallest cosine to the right layer
    most_neighbour: float  # largest cosine to the layer before or after


def judge(
    run: EngineRun, reference: Reference, layer: int, *, neighbour: float = NEIGHBOUR
) -> RowAgreement:
    """Fail unless every row is block ``layer``'s output at its request's token."""
    by_request: dict[str, list[Record]] = defaultdict(list)
    for record in run.records:
        by_request[record.header.request.request_id].append(record)
    assert set(by_request) <= set(run.texts)
    least, most = 1.0, -1.0
    for request_id, records in by_request.items():
        tokens = run.texts[request_id]
        states = reference.hidden_states(tokens)
        for record in records:
            header = record.header
            where = (request_id, header.position)
            assert header.layer == layer
            assert header.token_id == tokens[header.position], where
            before, right, after = (
                cosine(record.values(), states[index][header.position])
                for index in (layer, layer + 1, layer + 2)
            )
            assert right >= SAME, (*where, right)
            assert max(before, after) < neighbour, (*where, before, after)
            norm = float(np.linalg.norm(states[layer + 1][header.position]))
            assert abs(header.norm - norm) < 1e-3 * norm, (*where, header.norm, norm)
            least, most = min(least, right), max(most, before, after)
    return RowAgreement(len(run.records), least, most)


def cosine(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
    """Return the cosine of two vectors."""
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def assert_counts_reconcile(run: EngineRun, *, sampled: int) -> None:
    """Fail unless the plugin's counts equal the received rows, and no row came twice."""
    counts = run.counts()
    dropped = sum(count for counter, count in counts.items() if counter.startswith("dropped_"))
    assert counts["requests_sampled"] == sampled
    assert counts["rows_sampled"] == counts["rows_handed_over"] + dropped
    assert counts["rows_handed_over"] == len(run.records)
    assert len(positions(run)) == len(run.records)


def positions(run: EngineRun) -> set[tuple[str, int]]:
    """Return (request, position) of every row."""
    return {(record.header.request.request_id, record.header.position) for record in run.records}


def wanted(run: EngineRun, prompts: dict[str, list[int]], policy: CapturePolicy) -> set[tuple[str, int]]:
    """Return every (request, position) that the policy selects.

    A text's last token is never a model input, so its position has no activation.
    """
    captures = {
        record.header.request.request_id: record.header.request.capture_id or "" for record in run.records
    }
    selected: set[tuple[str, int]] = set()
    for request_id, prompt in prompts.items():
        drawn = sampling.draw(KEY, policy.seed, captures[request_id])
        choice = sampling.choose(policy, drawn, len(prompt), 1.0, run.context)
        position = sampling.next_position(choice, 0)
        while position < len(run.texts[request_id]) - 1:
            selected.add((request_id, position))
            position = sampling.next_position(choice, position + 1)
    return selected


def prompts_of(requests: list[dict[str, Any]]) -> dict[str, list[int]]:
    """Return the prompts by request id."""
    return {request["id"]: request["prompt"] for request in requests}

"""Sessions of streaming inputs, through an in-process engine as vLLM's AsyncLLM feeds one."""

from copy import deepcopy
from typing import Any


def run_session(engine: Any, session: dict[str, Any]) -> list[int]:
    """Run one session to its end and return its text: inputs and what was answered to each.

    Of each answer but the last the last token is left out, as by vLLM: the next input begins in its place.
    """
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    internal_id, text = None, list[int]()
    for prompt in session["inputs"]:
        del text[-1:]
        params = SamplingParams(
            temperature=0.0,
            detokenize=False,
            ignore_eos=True,
            max_tokens=session["max_tokens"],
            output_kind=RequestOutputKind.DELTA,
        )
        internal_id = _add(engine, session["id"], internal_id, prompt, params, is_last=False)
        text += prompt
        wanted = len(text) + session["max_tokens"]
        while len(text) < wanted:
            for output in engine.step():
                text += output.outputs[0].token_ids
    # vLLM's sign that no more inputs follow.
    _add(engine, session["id"], internal_id, [0], params, is_last=True)
    while engine.has_unfinished_requests():
        engine.step()
    return text


def _add(
    engine: Any, session_id: str, internal_id: str | None, prompt: list[int], params: Any, *, is_last: bool
) -> str:
    request = engine.input_processor.process_inputs(
        request_id=internal_id or session_id,
        prompt={"prompt_token_ids": prompt},
        params=params.clone(),
        supported_tasks=engine.get_supported_tasks(),
        resumable=not is_last,
    )
    if internal_id is None:
        engine.input_processor.assign_request_id(request)
    else:
        request.external_req_id = session_id
    engine.output_processor.add_request(request, None, None, 0)
    # In a server the engine has a copy of its own: both sides make the prompt longer.
    engine.engine_core.add_request(deepcopy(request))
    name: str = request.request_id
    return name

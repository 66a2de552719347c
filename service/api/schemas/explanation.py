"""An explanation as answered: always with its fidelity, its probability and the word hypothesis."""

import datetime as dt
import uuid
from typing import Any, Final, Literal

from pydantic import Field

from service.api.access.disclosure import HOW_TO_READ, Disclosure
from service.api.schemas.answer import Answer, part, stored
from service.api.vocabulary import Withholding
from service.highlights import MOST_RANGES, ranges_of, words_of
from service.store.read import explanations, words
from service.store.tables import SEARCHED_CHARACTERS
from service.store.tables import ConceptMatch as MatchRow
from service.store.tables import Decoder as DecoderRow
from service.store.tables import Explanation as ExplanationRow
from service.store.tables import Sample as SampleRow

LABEL: Final = (
    "Hypothesis: one decoder's reading of one activation. Verified means that the text rebuilds this "
    "vector better than texts of other vectors do; it never means that a claim in the text is true."
)

ROLE: Final = (
    "What its engine did where two serve one request: `prefill` computed the prompt, `decode` wrote the "
    "answer, each as a capture of its own. Null when one engine did both, and when it was stored before "
    "this was."
)


class DecoderReference(Answer):
    """Which decoder spoke."""

    id: uuid.UUID
    name: str = Field(examples=["smollm2-135m-l23"])
    digest: str = Field(description="SHA-256 over its weights, meta file and calibration.")

    @classmethod
    def of(cls, row: DecoderRow) -> "DecoderReference":
        """Return the reference to a decoder."""
        return cls.model_validate(decoder_part(row))


class Fidelity(Answer):
    """How well the vector is rebuilt from the text alone."""

    cosine: float = Field(description="Between vector and reconstruction; 1 is perfect.", examples=[0.87])
    fve: float = Field(
        description="Fraction of variance explained against predicting the calibration mean, on unit "
        "vectors: 1 is perfect, 0 no better than the mean, negative worse.",
        examples=[0.41],
    )
    verified: bool = Field(
        description="True only when `fve_beyond_token`, or `fve` where that is null, is above "
        "`verified_above`. The decoder must also have kept its format, and the vector must lie about as "
        "far from the mean as the calibration's where the calibration asks for it. Never true of readings "
        "that were made while the worker did not trust its decoder."
    )
    fve_beyond_token: float | None = Field(
        description="How much more than its token the text tells: the share of what the mean of all "
        "vectors at this token leaves open that the text explains. 0 is what the token alone gives away. "
        "Null when the decoder knows no token means.",
        examples=[0.31],
    )
    position_class: str = Field(
        description="What the reading is compared with: positions of the chat `template`, of the `prompt` "
        "or of the `answer`.",
        examples=["answer"],
    )
    verified_above: float = Field(
        description="The threshold that applied: that of this position class, below which 95% of "
        "other vectors' readings before the same token are, else `shuffled_fve_p95`; never below 0.",
        examples=[0.08],
    )
    candidates: int = Field(
        description="How many readings of this vector were written; the one that rebuilds it best is "
        "shown. Thresholds are of decoders that choose among as many.",
        examples=[4],
    )
    margin: float | None = Field(
        description="Cosine of the best reading less that of the second best; null for a single one.",
        examples=[0.02],
    )
    shuffled_fve_p95: float = Field(
        description="95th percentile of the FVE between calibration vectors and the "
        "reconstructions of other vectors' texts. By construction one in twenty of those passes it. Of a "
        "decoder that tells position classes apart, the largest of their thresholds.",
        examples=[0.3],
    )
    calibration_n: int = Field(
        description="How many calibration readings the threshold stands on.", examples=[4720]
    )
    decoder: DecoderReference


class Claims(Answer):
    """What the text says, in parts. Each part is a hypothesis like the whole."""

    register_: str = Field(
        alias="register", description="What kind of text it is of.", examples=["an answer"]
    )
    area: str | None = Field(
        description="The theme; null where the decoder is not sure.", examples=["medicine"]
    )
    topic: str | None = Field(description="Within the area; null where it is not sure.", examples=["pain"])
    kinds: list[str] = Field(description="What it touches on.", examples=[["medical advice"]])
    expects: str | None = Field(
        description="The token that it expects next; null where the decoder broke its format.",
        examples=[" to"],
    )
    expects_agreement: float | None = Field(
        description="Share of the candidates that expect the same; null for a single one.", examples=[0.75]
    )
    areas: dict[str, float] = Field(
        description="Probability of each area, those of at least 0.01.", examples=[{"medicine": 0.81}]
    )
    kind_scores: dict[str, float] = Field(
        description="Probability of each kind, those of at least 0.01.", examples=[{"medical advice": 0.64}]
    )


class Anomaly(Answer):
    """How unlike the calibration traffic the activation is, whatever its text says."""

    score: float = Field(
        description="How far out of the calibration traffic it lies: 0 at the benign median, 1 at the "
        "benign 99th percentile; larger is stranger.",
        examples=[1.21],
    )
    p_value: float | None = Field(
        description="Conformal p-value of one activation, not corrected for how many were tested.",
        examples=[0.00635],
    )
    p_value_floor: float | None = Field(
        description="The smallest p-value that this calibration can give, 1 / (calibration_n + 1).",
        examples=[0.000212],
    )
    calibration_n: int | None = Field(
        description="How many activations the p-value stands on.", examples=[4720]
    )


class ConceptMatch(Answer):
    """A concept that the text matched. A match alone is no flag."""

    concept: str = Field(examples=["weapons"])
    matcher: str = Field(description="How it matched.", examples=["regex", "semantic", "claim", "probe"])
    score: float = Field(description="1 for a regex; the similarity for a semantic match.", examples=[0.72])


class WithheldText(Answer):
    """Why texts and tokens are not shown."""

    code: Withholding = Field(description="Stable name of the reason.", examples=["missing_purpose"])
    detail: str = Field(description="What to do about it.")


class SampleFields(Answer):
    """What is known about a sampled activation besides its reading."""

    model: str = Field(
        description="The audited model, by its served name.", examples=["SmolLM2-135M-Instruct"]
    )
    request_id: str = Field(
        description="The audited request, as its client said; others may share it.", examples=["chat-7f3a"]
    )
    capture_id: uuid.UUID | None = Field(
        description="The identity that the plugin gave the request: no two share it, and no client chooses "
        "it. Null when it was stored before captures had one."
    )
    layer: int = Field(description="K: the activation is the output of block K.", examples=[23])
    position: int = Field(description="Token position; 0 is the first prompt token.", examples=[41])
    phase: str = Field(
        description="`prefill` for prompt tokens, `decode` for generated ones.", examples=["decode"]
    )
    token_id: int | None = Field(
        description="The token at the position; null where it is withheld, see `withheld`."
    )
    token_text: str | None = Field(
        description="Its text; null where it is withheld, see `withheld`.", examples=[" sum"]
    )
    text_withheld: bool = Field(
        description="True when the key lacks `explanations:read_text` or no purpose was stated: text and "
        "tokens are as personal as the prompt."
    )
    withheld: WithheldText | None = Field(description="Why, and how to read it; null where text is shown.")
    norm: float = Field(description="L2 norm of the activation.", examples=[241.3])
    captured_at: dt.datetime = Field(description="When the activation was sampled, UTC.")
    stored_at: dt.datetime = Field(description="When it was stored, UTC.")
    stratum: str = Field(
        description="How its request was chosen: `uniform`, by a hash of its identity or trace, or "
        "`opt_in`, because the client asked. Estimates over requests that nobody picked use `uniform` "
        "alone.",
        examples=["uniform"],
    )
    trace_id: str | None = Field(
        description="The W3C trace that the request said it belongs to; null when it named none. Clients "
        "choose it: look up by it, and trust it no further.",
        examples=["0af7651916cd43dd8448eb211c80319c"],
    )
    span_id: str | None = Field(
        description="The span of the caller in that trace.", examples=["b7ad6b7169203331"]
    )
    role: str | None = Field(description=ROLE, examples=["decode"])
    inclusion_probability: float = Field(
        description="The probability with which this activation was chosen, for whatever reason; weight by "
        "its inverse for unbiased estimates.",
        gt=0,
        le=1,
        examples=[0.25],
    )
    baseline_probability: float = Field(
        description="The probability with which the random baseline alone chose it; 0 when only the screen "
        "did. The rows above 0, weighted by its inverse, are an unbiased sample that no screen touched.",
        ge=0,
        le=1,
        examples=[0.25],
    )
    reason: str = Field(
        description="Why it was chosen: by the sampling policy (`prompt_end` or `decode`) or, when the "
        "baseline left it out, `screen_anomaly` or `screen_probe_<name>`.",
        examples=["decode"],
    )
    screen_scores: dict[str, float] = Field(
        description="What the sidecar's screen measured: `anomaly`, `anomaly_p_value`, `probe_<name>`; "
        "empty without a screen. Rows that were chosen at random carry them too. Where `anomaly` has "
        "another p-value, the sidecar had another reference than the worker.",
        examples=[{"anomaly": 1.21, "anomaly_p_value": 0.00635}],
    )


class ConfigurationReference(Answer):
    """What it came about by: `GET /v1/configuration/versions/{digest}` tells what a digest is of."""

    worker: str | None = Field(
        description="Digest of the configuration of the worker that read it, which names decoder, concepts,"
        " calibrations and thresholds; null when it was stored before workers said so.",
        examples=["9d1c6a0f4b7e2d35889a1b0c6f3e5d7294ab60c1e8f7d2b3a4958671c0d9e8f7"],
    )
    plugin: str | None = Field(
        description="Digest of the configuration of the engine that sampled it, which names the model's"
        " revision and the capture policy by which its request was decided on; null when it named none.",
        examples=["47ab0c6f3e5d72949d1c6a0f4b7e2d35889a1b60c1e8f7d2b3a4958671c0d9e8"],
    )


class Explanation(SampleFields):
    """What one decoder said about one sampled activation: a hypothesis with its fidelity."""

    id: uuid.UUID
    sample_id: uuid.UUID
    hypothesis: Literal[True] = Field(default=True, description="Always true.")
    label: str = Field(default=LABEL, description="What to show beside the text.")
    text: str | None = Field(
        description="The explanation; null without the scope `explanations:read_text` and a stated purpose."
    )
    claims: Claims | None = Field(
        description="The same in parts; null where text is withheld, and for a decoder that does not tell "
        "parts apart."
    )
    well_formed: bool = Field(description="False when the decoder broke its output format.")
    fidelity: Fidelity
    configuration: ConfigurationReference
    anomaly: Anomaly | None = Field(description="Null when the activation was not scored.")
    matches: list[ConceptMatch] = Field(description="Concepts that the text matched, by name.")


class Highlight(Answer):
    """Where a word that was looked for stands in a text."""

    start: int = Field(description="Of its first character, a Unicode code point; 0 is the first.", ge=0)
    end: int = Field(description="Behind its last character.", ge=1)


class Highlights(Answer):
    """Of one explanation."""

    explanation_id: uuid.UUID
    ranges: list[Highlight] = Field(
        description=f"In order, without overlaps, {MOST_RANGES} at most. PostgreSQL decides what is found; "
        "a word that it cuts out of a text in a way of its own is found and not marked."
    )


class Search(Answer):
    """What of the period was searched for the words: nothing is said of the rest."""

    searched_since: dt.datetime | None = Field(
        description="Explanations captured since are searched, up to where this page begins; null where a "
        "request was given without a time, and all of it is searched."
    )
    complete: bool = Field(
        description="False where more of the period is left to search: follow `next_cursor`, also of a "
        "page without items."
    )
    searched_characters: int = Field(
        description="Of each text, from its beginning.", examples=[SEARCHED_CHARACTERS]
    )
    highlights: list[Highlights] = Field(description="Of the page's items, in their order.")


class ExplanationPage(Answer):
    """One page of explanations, newest capture first."""

    items: list[Explanation]
    next_cursor: str | None = Field(description="Pass it as `cursor` for the next page; null on the last.")
    search: Search | None = Field(
        default=None, description="With `q`, what was searched; null where no words were given."
    )


def sample_fields(row: SampleRow, model: str, disclosure: Disclosure) -> dict[str, Any]:
    """Return the answer's sample part, with tokens only where the disclosure shows them.

    As values: the answer that they are of is made once, and not each of its parts before.
    """
    is_shown = disclosure.shows_token(row)
    # The id gives the token away as surely as its text: tokenizers are public.
    tokens = {} if is_shown else dict.fromkeys(("token_id", "token_text"))
    beside = {"model": model, "text_withheld": not is_shown, "withheld": _withheld(disclosure)}
    return part(row, _OF_SAMPLE) | tokens | beside


def search(found: words.Found, disclosure: Disclosure) -> Search:
    """Return what was searched, with the places of words in texts that the disclosure shows."""
    looked_for = words_of(found.query)
    return Search(
        searched_since=found.since,
        complete=found.is_complete,
        searched_characters=SEARCHED_CHARACTERS,
        highlights=[
            Highlights(
                explanation_id=view.explanation.id,
                ranges=[
                    Highlight(start=one.start, end=one.end)
                    for one in ranges_of(view.explanation.text[:SEARCHED_CHARACTERS], looked_for)
                ],
            )
            for view in found.page.items
            if disclosure.shows_text(view.explanation.id)
        ],
    )


def _withheld(disclosure: Disclosure) -> dict[str, Any] | None:
    code = disclosure.withholding
    return None if code is None else {"code": code, "detail": HOW_TO_READ[code]}


def explanation(view: explanations.View, disclosure: Disclosure) -> Explanation:
    """Return the answer for one explanation, with text and tokens only where the disclosure shows them."""
    row = view.explanation
    with_text = disclosure.shows_text(row.id)
    return Explanation.model_validate(
        sample_fields(view.sample, view.model, disclosure)
        | {
            "id": row.id,
            "sample_id": row.sample_id,
            "text": row.text if with_text else None,
            "claims": row.claims if with_text else None,
            "well_formed": row.well_formed,
            "fidelity": _fidelity(row, view.decoder),
            "configuration": {
                "worker": _digest(view, row.configuration_id),
                "plugin": _digest(view, view.sample.configuration_id),
            },
            "anomaly": _anomaly(row),
            "matches": [part(match, _OF_MATCH) for match in view.matches],
        }
    )


def _digest(view: explanations.View, version_id: int | None) -> str | None:
    return None if version_id is None else view.digests.get(version_id)


def explanation_fidelity(view: explanations.View) -> Fidelity:
    """Return the fidelity of one reading, for an answer that does not show the reading itself."""
    return Fidelity.model_validate(_fidelity(view.explanation, view.decoder))


def _fidelity(row: ExplanationRow, decoder: DecoderRow) -> dict[str, Any]:
    return part(row, _OF_FIDELITY) | {
        "verified_above": _verified_above(row, decoder),
        "shuffled_fve_p95": decoder.shuffled_fve_p95,
        "calibration_n": decoder.calibration_n,
        "decoder": decoder_part(decoder),
    }


def decoder_part(row: DecoderRow) -> dict[str, Any]:
    """Return the values of a decoder's reference."""
    return part(row, _OF_DECODER)


def _verified_above(row: ExplanationRow, decoder: DecoderRow) -> float:
    # As the worker does: see `threshold` of the decoder's identity.
    thresholds = decoder.verified_above or {}
    return max(float(thresholds.get(row.position_class, decoder.shuffled_fve_p95)), 0.0)


def _anomaly(row: ExplanationRow) -> dict[str, Any] | None:
    if row.anomaly_score is None:
        return None
    known = row.anomaly_calibration_n
    return {
        "score": row.anomaly_score,
        "p_value": row.anomaly_p_value,
        "p_value_floor": None if known is None else 1 / (known + 1),
        "calibration_n": known,
    }


_OF_SAMPLE: Final = stored(SampleFields, SampleRow)
_OF_FIDELITY: Final = stored(Fidelity, ExplanationRow)
_OF_DECODER: Final = stored(DecoderReference, DecoderRow)
_OF_MATCH: Final = stored(ConceptMatch, MatchRow)

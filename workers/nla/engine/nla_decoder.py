"""The decoder of one decoder directory: AV, AR and calibration."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from subtext_sidecar.anomaly.reference import digest as digest_reference
from subtext_sidecar.anomaly.score import Reference
from workers.nla import claims, fidelity
from workers.nla.calibration import FIGURES, Calibration, load_anomaly, load_calibration
from workers.nla.candidates import Choice, RoundTrip, agreement, choose
from workers.nla.checkpoint.assemble import pair_digest
from workers.nla.checkpoint.pair import Pair, load_pair
from workers.nla.checkpoint.scale import check_scale
from workers.nla.decoder import Claims, DecoderIdentity, GivenFacts, PositionClass, Reading, applied
from workers.nla.engine.reconstructor import Reconstructor
from workers.nla.engine.verbalizer import EngineSettings, Explanation, Verbalizer
from workers.nla.errors import CalibrationError, MetaError, PromptError
from workers.nla.positions import TemplateIds, classify, template_ids

_WORTH_KEEPING = 0.01
"""Smallest probability that claims keep."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NlaDecoder:
    """Implements `Decoder` with a real pair. Not thread-safe."""

    identity: DecoderIdentity
    pair_digest: str
    """Digest of the weights alone; calibrations refer to it."""
    calibration: Calibration | None
    anomaly: Reference | None
    """The detector's reference for the layer, from the decoder directory."""
    verbalizer: Verbalizer
    reconstructor: Reconstructor
    tokenizer: Any
    template: TemplateIds

    @classmethod
    def open(cls, folder: Path, settings: EngineSettings, *, calibrating: bool = False) -> Self:
        """Load a decoder directory: `av/`, `ar/`, calibration, `card.json`.

        Raises DecoderError, naming the field and the fix, if possible before loading weights. A decoder
        without a calibration verifies no reading. `calibrating` ignores an existing calibration, so that a
        broken one can be replaced.
        """
        pair, digest, calibration, anomaly = _read_files(folder, calibrating=calibrating)
        check_candidates(calibration, settings)
        tokenizer, ar_tokenizer = _load_tokenizers(pair)
        # The AR loads first: its errors then appear before the slow start of the AV's engine.
        reconstructor = Reconstructor(
            pair.ar.folder, pair.ar.meta, ar_tokenizer, device=_device(), products=settings.products
        )
        if pair.av.meta.projector is None:
            check_scale(pair.av.meta, layer=pair.layer, typical_norm=reconstructor.typical_norm())
        identity = identify(
            folder, pair, digest, calibration, anomaly=anomaly, candidates=settings.candidates
        )
        verbalizer = Verbalizer(pair.av.folder, pair.av.meta, tokenizer, settings)
        return cls(
            identity=dataclasses.replace(identity, engine=verbalizer.facts | reconstructor.facts),
            pair_digest=digest,
            calibration=calibration,
            anomaly=anomaly,
            verbalizer=verbalizer,
            reconstructor=reconstructor,
            tokenizer=tokenizer,
            template=template_ids(tokenizer),
        )

    def read(self, vectors: NDArray[np.float32], given: GivenFacts) -> list[Reading]:
        """Return one reading per row of (n, d_model), in order; see `Decoder`.

        1. The label head labels each vector, and the AV writes the candidates.
        2. The AR rebuilds the vector from every candidate, and the best candidate is kept.
        3. The kept candidate's fidelity is compared with the threshold of its position class.
        """
        trip = self.round_trip(vectors, given)
        if not len(vectors):
            return []
        calibration = self.calibration
        return judge(
            vectors,
            trip,
            choose(vectors, trip.rebuilt),
            classes=classify(given, self.template),
            tokens=[self.token_text(token_id) for token_id in given.token_ids],
            expected=self.predict_token_means(given),
            is_typical=calibration.is_typical(vectors) if calibration else np.ones(len(vectors), bool),
            identity=self.identity,
        )

    def round_trip(self, vectors: NDArray[np.float32], given: GivenFacts) -> RoundTrip:
        """Write candidates for every row of (n, d_model), and rebuild vectors from text and read token."""
        self.reconstructor.check_tokens(given.token_ids)
        candidates = self.verbalizer.verbalize(vectors, given)
        texts = [candidate.text for of_one in candidates for candidate in of_one]
        token_ids = [
            token_id for token_id, of_one in zip(given.token_ids, candidates, strict=True) for _ in of_one
        ]
        rebuilt = self.reconstructor.rebuild(texts, token_ids)
        shape = (len(candidates), self.verbalizer.candidates, self.identity.d_model)
        return RoundTrip(candidates, rebuilt.reshape(shape))

    def predict_token_means(self, given: GivenFacts) -> NDArray[np.float64] | None:
        """Return the mean directions at the read tokens, (n, d_model); None without token means."""
        if self.calibration is None or self.calibration.token_means is None:
            return None
        return self.calibration.token_means.predict(
            given.token_ids, self.reconstructor.embed(given.token_ids)
        )

    def token_text(self, token_id: int) -> str:
        """Return the text of a token of the audited model."""
        return str(self.tokenizer.decode([token_id])).replace("\x00", "")

    def close(self) -> None:
        """Release the AV's engine."""
        self.verbalizer.close()


def identity_of(folder: Path, *, candidates: int) -> DecoderIdentity:
    """Return the identity of a decoder directory without loading its weights; raises DecoderError.

    It hashes them: seconds for a large pair.
    """
    pair, digest, calibration, anomaly = _read_files(folder, calibrating=False)
    return identify(folder, pair, digest, calibration, anomaly=anomaly, candidates=candidates)


class _Files(NamedTuple):
    """What a decoder directory holds besides weights."""

    pair: Pair
    digest: str
    calibration: Calibration | None
    anomaly: Reference | None


def _read_files(folder: Path, *, calibrating: bool) -> _Files:
    pair = load_pair(folder / "av", folder / "ar")
    digest = pair_digest(folder)
    if calibrating:
        return _Files(pair, digest, None, None)
    return _Files(pair, digest, load_calibration(folder, decoder_digest=digest), load_anomaly(folder))


def judge(
    vectors: NDArray[np.float32],
    trip: RoundTrip,
    choice: Choice,
    *,
    classes: Sequence[PositionClass],
    tokens: Sequence[str],
    expected: NDArray[np.float64] | None,
    is_typical: NDArray[np.bool_],
    identity: DecoderIdentity,
) -> list[Reading]:
    """Return every row's reading: the chosen candidate, its fidelity, and whether it is verified; pure.

    `vectors` and `expected` (the token means) are (n, d_model), `is_typical` is (n,).
    """
    fves = fidelity.fve(vectors, choice.rebuilt, baseline=identity.fve_baseline)
    beyond = measure_beyond_token(vectors, fves, expected, baseline=identity.fve_baseline)
    scores = fves if beyond is None else beyond
    readings = []
    for row, (candidates, best) in enumerate(zip(trip.candidates, choice.best.tolist(), strict=True)):
        candidate = candidates[best]
        above = bool(scores[row] > identity.threshold(classes[row]))
        readings.append(
            Reading(
                text=claims.shown(candidate.text, tokens[row])
                if candidate.continuation
                else candidate.text,
                well_formed=candidate.well_formed,
                cosine=float(choice.cosine[row]),
                fve=float(fves[row]),
                fve_beyond_token=None if beyond is None else float(beyond[row]),
                verified=identity.is_calibrated
                and above
                and candidate.well_formed
                and bool(is_typical[row]),
                position_class=classes[row],
                claims=to_claims(candidate, agreement(candidates, best)),
                candidates=len(candidates),
                margin=None if choice.margin is None else float(choice.margin[row]),
            )
        )
    return readings


def measure_beyond_token(
    vectors: NDArray[np.float32],
    fves: NDArray[np.float64],
    expected: NDArray[np.float64] | None,
    *,
    baseline: float,
) -> NDArray[np.float64] | None:
    """Return FVE beyond the token, (n,), for token means `expected` (n, d_model); None without them."""
    if expected is None:
        return None
    return fidelity.fve_beyond_token(fves, fidelity.fve(vectors, expected, baseline=baseline))


def to_claims(candidate: Explanation, expects_agreement: float | None) -> Claims | None:
    """Return a candidate's claims; None for a pair without labels."""
    labelled, continuation = candidate.labelled, candidate.continuation
    if labelled is None:
        return None
    return Claims(
        register=labelled.register,
        area=labelled.area,
        topic=labelled.topic,
        kinds=labelled.kinds,
        expects=continuation.expects if continuation else None,
        expects_agreement=expects_agreement,
        areas={name: share for name, share in labelled.areas.items() if share >= _WORTH_KEEPING},
        kind_scores={
            name: score for name, score in labelled.kind_scores.items() if score >= _WORTH_KEEPING
        },
    )


def identify(
    folder: Path,
    pair: Pair,
    digest: str,
    calibration: Calibration | None,
    *,
    anomaly: Reference | None,
    candidates: int,
) -> DecoderIdentity:
    """Return a decoder's identity; its digest covers weights, calibration and anomaly reference.

    Raises MetaError when the calibration has another layer or width than the pair.
    """
    figures = calibration.figures if calibration else None
    if figures is not None and (figures.layer, figures.d_model) != (pair.layer, pair.av.meta.d_model):
        raise MetaError(
            f"calibration.json: layer and d_model are {figures.layer} and {figures.d_model}, the decoder's"
            f" {pair.layer} and {pair.av.meta.d_model}; run `subtext calibrate` again"
        )
    card = _load_card(folder / "card.json")
    version = digest
    if figures is not None:
        version = _stamped(version, (folder / FIGURES).read_bytes())
        card = {**card, "calibration": figures.measured}
    if anomaly is not None:
        reference = digest_reference(anomaly)
        version = _stamped(version, reference.encode())
        card = {**card, "anomaly_reference": reference}
    return DecoderIdentity(
        name=str(card.get("name", folder.name)),
        digest=version,
        model=pair.av.meta.base_checkpoint,
        layer=pair.layer,
        d_model=pair.av.meta.d_model,
        fve_baseline=figures.fve_baseline if figures else 1.0,
        shuffled_fve_p95=figures.shuffled_fve_p95 if figures else 1.0,
        calibration_n=figures.n if figures else 0,
        verified_above=applied(figures.verified_above) if figures else {},
        candidates=figures.candidates if figures else candidates,
        card=card,
    )


def _stamped(version: str, stamp: bytes) -> str:
    return hashlib.sha256(version.encode() + stamp).hexdigest()


def check_candidates(calibration: Calibration | None, settings: EngineSettings) -> None:
    """Raise CalibrationError unless the calibration used the same number of candidates.

    The best of many candidates scores higher than the best of few, so thresholds are not transferable.
    """
    if calibration is None or calibration.figures.candidates == settings.candidates:
        return
    calibrated = calibration.figures.candidates
    raise CalibrationError(
        f"calibration.json: candidates: calibrated with {calibrated}, this decoder writes"
        f" {settings.candidates}; set SUBTEXT_CANDIDATES={calibrated}, or run"
        f" `subtext calibrate --candidates {settings.candidates}`"
    )


def _load_card(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise MetaError(f"{path}: not JSON ({error}); copy it again or remove it") from error
    if not isinstance(card, dict):
        raise MetaError(f"{path}: must be one JSON object; copy it again or remove it")
    return card


def _load_tokenizers(pair: Pair) -> tuple[Any, Any]:
    """Return the AV's and the AR's tokenizers, which share a vocabulary but may differ in adding BOS."""
    import transformers

    try:
        av, ar = (
            transformers.AutoTokenizer.from_pretrained(half.folder, local_files_only=True)
            for half in (pair.av, pair.ar)
        )
    except (OSError, ValueError) as error:
        raise MetaError(
            f"{pair.av.folder}: the tokenizer's files are missing or broken ({error})"
        ) from error
    if av.get_vocab() != ar.get_vocab():
        raise PromptError("tokenizer: av/ and ar/ hold different vocabularies; use two halves of one pair")
    return av, ar


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"

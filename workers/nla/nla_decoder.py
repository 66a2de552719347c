"""The real decoder: AV, AR and calibration of one decoder directory."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from workers.nla import fidelity
from workers.nla.assemble import pair_digest
from workers.nla.calibration import Calibration, load_calibration
from workers.nla.checkpoint import Pair, load_pair
from workers.nla.decoder import DecoderIdentity, Reading
from workers.nla.errors import MetaError, PromptError
from workers.nla.reconstructor import Reconstructor
from workers.nla.scale import check_scale
from workers.nla.verbalizer import EngineSettings, Explanation, Verbalizer


class RoundTrip(NamedTuple):
    """What a batch of vectors said, and what was rebuilt from that."""

    explanations: list[Explanation]
    rebuilt: NDArray[np.float32]
    """(n, d_model)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NlaDecoder:
    """Reads vectors by way of text and back. One instance belongs to one thread."""

    identity: DecoderIdentity
    pair_digest: str
    """Digest of the weights alone, which a calibration names."""
    calibration: Calibration | None
    verbalizer: Verbalizer
    reconstructor: Reconstructor
    tokenizer: Any

    @classmethod
    def open(cls, folder: Path, settings: EngineSettings, *, calibrating: bool = False) -> Self:
        """Load a decoder directory: `av/`, `ar/`, calibration, `card.json`.

        Everything that can be wrong is checked before weights are loaded; raises DecoderError
        naming the field and the fix. Without a calibration it loads, and verifies nothing; for
        `calibrating` an old calibration is not looked at, so that it can be replaced.
        """
        pair = load_pair(folder / "av", folder / "ar")
        digest = pair_digest(folder)
        calibration = None if calibrating else load_calibration(folder, decoder_digest=digest)
        tokenizer, ar_tokenizer = _load_tokenizers(pair)
        # The AR first: a broken head or prompt shows before the engine takes its time.
        reconstructor = Reconstructor(pair.ar.folder, pair.ar.meta, ar_tokenizer, device=_device())
        check_scale(pair.av.meta, layer=pair.layer, typical_norm=reconstructor.typical_norm())
        return cls(
            identity=identify(folder, pair, digest, calibration),
            pair_digest=digest,
            calibration=calibration,
            verbalizer=Verbalizer(pair.av.folder, pair.av.meta, tokenizer, settings),
            reconstructor=reconstructor,
            tokenizer=tokenizer,
        )

    def read(self, vectors: NDArray[np.float32]) -> list[Reading]:
        """Return one reading a row of (n, d_model), in order; see `Decoder`."""
        explanations, rebuilt = self.round_trip(vectors)
        return judge(vectors, explanations, rebuilt, self.identity)

    def round_trip(self, vectors: NDArray[np.float32]) -> RoundTrip:
        """Verbalize every row and rebuild it from the text alone."""
        explanations = self.verbalizer.verbalize(vectors)
        return RoundTrip(explanations, self.reconstructor.rebuild([said.text for said in explanations]))

    def token_text(self, token_id: int) -> str:
        """Return the text of a token of the audited model."""
        return str(self.tokenizer.decode([token_id])).replace("\x00", "")

    def close(self) -> None:
        """Free the engine."""
        self.verbalizer.close()


def judge(
    vectors: NDArray[np.float32],
    explanations: Sequence[Explanation],
    rebuilt: NDArray[np.float32],
    identity: DecoderIdentity,
) -> list[Reading]:
    """Measure every row's fidelity and say whether it beats the shuffled pairs; pure."""
    cosines = fidelity.cosine(vectors, rebuilt)
    fves = fidelity.fve(vectors, rebuilt, baseline=identity.fve_baseline)
    return [
        Reading(
            text=said.text,
            well_formed=said.well_formed,
            cosine=float(cosine),
            fve=float(fve),
            verified=identity.is_calibrated and bool(fve > identity.verified_above),
        )
        for said, cosine, fve in zip(explanations, cosines, fves, strict=True)
    ]


def identify(folder: Path, pair: Pair, digest: str, calibration: Calibration | None) -> DecoderIdentity:
    """Name a decoder by its contents, calibration included."""
    figures = calibration.figures if calibration else None
    if figures is not None and (figures.layer, figures.d_model) != (pair.layer, pair.av.meta.d_model):
        raise MetaError(
            f"calibration.json: layer and d_model are {figures.layer} and {figures.d_model}, the decoder's"
            f" {pair.layer} and {pair.av.meta.d_model}; run `subtext calibrate` again"
        )
    card = _load_card(folder / "card.json")
    version = digest
    if figures is not None:
        stamp = (folder / "calibration.json").read_bytes()
        version = hashlib.sha256(digest.encode() + stamp).hexdigest()
        card = {**card, "calibration": figures.measured}
    return DecoderIdentity(
        name=str(card.get("name", folder.name)),
        digest=version,
        model=pair.av.meta.base_checkpoint,
        layer=pair.layer,
        d_model=pair.av.meta.d_model,
        fve_baseline=figures.fve_baseline if figures else 1.0,
        shuffled_fve_p95=figures.shuffled_fve_p95 if figures else 1.0,
        calibration_n=figures.n if figures else 0,
        card=card,
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
    """Return the AV's and the AR's: their vocabulary is one, whether they add BOS may differ."""
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

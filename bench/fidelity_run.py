"""Measure one source of vectors with every method that its columns and files allow."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench import fidelity_figures, fidelity_themes, fidelity_words, patch, probes
from bench.fidelity_data import Source, SourceError, choose_rows
from bench.fidelity_read import Reads, read_all
from bench.pair import log
from workers.judge.embedder import MiniLmEmbedder
from workers.nla import fidelity
from workers.nla.checkpoint.labels import LabelHead, Names
from workers.nla.checkpoint.projector import centre
from workers.nla.engine.nla_decoder import NlaDecoder
from workers.nla.fidelity import Interval
from workers.nla.token_means import TokenMeans
from workers.training.data.labels import Labeller, Taxonomy
from workers.training.fit.labels import wanted_of

Table = dict[str, Interval]
Chats = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Sample sizes."""

    limit: int
    """Vectors to decode per source."""
    per_document: int
    patches: int
    """Positions to patch."""
    rounds: int
    """Bootstrap rounds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A loaded decoder with everything that its figures need."""

    decoder: NlaDecoder
    means: TokenMeans
    mean: NDArray[Any]
    """Mean direction of the layer, (d,)."""
    baseline: float
    frame: tuple[NDArray[np.float32], float] | None
    """Mean and scale that centre vectors for label head and probes; None without a projector."""
    head: LabelHead | None
    taxonomy: Taxonomy
    model: Path
    """The audited model."""
    train: Source | None
    sizes: Sizes

    def measure(self, source: Source, chats: Chats | None) -> Table:
        """Decode and measure a source; `chats` are its documents."""
        sizes = self.sizes
        rows = choose_rows(source.samples.documents, limit=sizes.limit, per_document=sizes.per_document)
        reads = read_all(self.decoder, self.means, source.take(rows), source.vectors, log)
        table = fidelity_figures.measure(reads, self.mean, baseline=self.baseline, rounds=sizes.rounds)
        decode = self.decoder.tokenizer.decode
        table |= fidelity_words.measure(reads, decode, rounds=sizes.rounds)
        if self.frame is not None:
            if self.train is not None:
                log("fitting probes")
                table |= self._probe(source, reads, self.train, self.frame)
            if self.head is not None and source.has_labels:
                log("measuring themes")
                table |= self._themes(source, chats, self.head, self.frame)
        if chats is not None:
            table |= self._patch(reads, chats)
        return table

    def _themes(
        self, source: Source, chats: Chats | None, head: LabelHead, frame: tuple[NDArray[np.float32], float]
    ) -> Table:
        samples, targets = source.samples, wanted_of(source.samples, self.taxonomy)
        known = fidelity_themes.held_out(samples, centre(samples.vectors, *frame), rounds=self.sizes.rounds)
        on_answer = None if chats is None else self._label_answers(samples.documents, chats)
        return fidelity_themes.measure(head, known, targets, on_answer)

    def _label_answers(self, documents: NDArray[np.int64], chats: Chats) -> dict[int, int]:
        """Return the area of each answer, labelled without the prompt, by document."""
        names = np.unique(documents).tolist()
        texts = [
            self.decoder.tokenizer.decode(answer_of(chats[name]), skip_special_tokens=True)
            for name in names
        ]
        labels = Labeller(self.taxonomy, MiniLmEmbedder()).label(texts, texts, [False] * len(texts))
        return dict(zip(names, labels.areas.argmax(axis=1).tolist(), strict=True))

    def _probe(
        self, source: Source, reads: Reads, train: Source, frame: tuple[NDArray[np.float32], float]
    ) -> Table:
        fitted = train.samples
        fitted_probes = probes.fit(
            centre(fitted.vectors, *frame), fitted.next_tokens[:, 0], fitted.areas, fitted.documents
        )
        read = reads.source.samples
        right = fitted_probes.next_tokens(centre(read.vectors, *frame)) == read.next_tokens[:, 0]
        table = {"probe_next_right": _mean(right, read.documents, self.sizes.rounds)}
        if source.has_labels and train.has_labels:
            samples = source.samples
            named = fitted_probes.areas(centre(samples.vectors, *frame)) == samples.areas.argmax(axis=1)
            for origin, is_real in fidelity_themes.ORIGINS.items():
                rows = (samples.is_answer == 1) & (samples.is_real == is_real)
                if rows.any():
                    table[f"probe_area_right_{origin}"] = _mean(
                        named[rows], samples.documents[rows], self.sizes.rounds
                    )
        return table

    def _patch(self, reads: Reads, chats: Chats) -> Table:
        """Patch evenly spaced rows, leaving out rows without a same-token null."""
        samples = reads.source.samples
        tried, first = np.unique(reads.pairs.rows, return_index=True)
        spread = np.linspace(0, len(tried) - 1, min(self.sizes.patches, len(tried))).round().astype(int)
        rows, pairs = tried[np.unique(spread)], first[np.unique(spread)]
        best = fidelity_figures.chosen(reads.best.real)
        directions = {
            "best": best[rows],
            "greedy": fidelity_figures.chosen(reads.greedy.real)[rows],
            "shuffled": best[fidelity.other_documents(samples.documents)][rows],
            "same_token": fidelity_figures.chosen(reads.best.other)[pairs],
            patch.MEAN: self.mean,
        }
        if reads.true is not None:
            directions["true_text"] = reads.true[rows]
        vectors = samples.vectors[rows]
        log(f"patching {len(rows)} positions")
        kl = patch.measure_kl(
            patch.Patcher(self.model, layer=self.decoder.identity.layer),
            vectors,
            [
                prefix_of(chats, document, position)
                for document, position in zip(
                    samples.documents[rows].tolist(), samples.positions[rows].tolist(), strict=True
                )
            ],
            patch.replacements(vectors, directions),
        )
        return patch.measure_removed(kl, samples.documents[rows], rounds=self.sizes.rounds)


def check_names(names: Names, taxonomy: Taxonomy) -> None:
    """Raise SourceError, naming the part, unless the taxonomy's labels are the pair's."""
    for part, mine, theirs in (
        ("areas", names.areas, taxonomy.areas),
        ("topics", names.topics, taxonomy.topics),
        ("kinds", names.kinds, [kind.name for kind in taxonomy.kinds]),
    ):
        if list(mine) != list(theirs):
            raise SourceError(f"taxonomy: {part}: are not those that the pair names; use its own taxonomy")


def check_chats(source: Source, chats: Chats) -> None:
    """Raise SourceError, naming the row, unless the chats hold every row's read token at its position."""
    samples = source.samples
    if not source.has_positions:
        raise SourceError("positions: missing; without them --chats tells nothing")
    rows = zip(samples.documents.tolist(), samples.positions.tolist(), samples.tokens.tolist(), strict=True)
    for row, (document, position, token) in enumerate(rows):
        if document >= len(chats) or chats[document]["tokens"][position : position + 1] != [token]:
            raise SourceError(
                f"chats: document {document} does not hold token {token} at position {position}, as"
                f" row {row} of the vectors does; they are of another run"
            )


def prefix_of(chats: Chats, document: int, position: int) -> list[int]:
    """Return a chat's tokens up to and including a position."""
    return list(chats[document]["tokens"][: position + 1])


def answer_of(chat: Mapping[str, Any]) -> list[int]:
    """Return the answer's tokens."""
    return list(chat["tokens"][chat["prompt_tokens"] :])


def _mean(values: NDArray[Any], documents: NDArray[np.int64], rounds: int) -> Interval:
    return fidelity.mean_interval(np.asarray(values, np.float64), documents, rounds=rounds)

"""What must not be trained on, gathered from evaluation items and held-out documents, and found.

An evaluation item is found through any of its parts: a solution without its prompt is as bad as
both. What has too few words to be recognised is counted, not guessed at.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from apr.corpus.certificate import DocumentTally, EvaluationSet
from apr.corpus.decontamination.evaluation import Item, list_evaluation_files, read_items
from apr.corpus.decontamination.references import Match, Reference, ReferenceIndex, make_reference
from apr.corpus.reading.blocks import RawBlocks
from apr.corpus.reading.documents import Document
from apr.corpus.reading.listed import ListedCorpus
from apr.corpus.similarity.grams import Grams, Words
from apr.corpus.similarity.normal_form import normal_hash
from apr.corpus.similarity.substance import substance
from apr.corpus.similarity.tokens import tokenize
from apr.errors import Refusal
from apr.progress import Report

# Shorter runs occur by chance. Source: Brown et al. 2020, appendix C, where n is 8 to 13.
FEWEST_WORDS = 8
_FEWEST_SHARED_RUNS = 8


@dataclass(frozen=True)
class Suspicion:
    """How much a document holds of what it must not hold."""

    is_copy: bool
    """Whether its text counts as the same as a held-out one."""
    evaluation: Match | None
    held_out: Match | None


class Forbidden:
    """Evaluation items and held-out documents, ready to be found in training documents.

    `num_words` is the length of a run, `containment` the share of runs that makes a document
    suspect.
    """

    def __init__(self, *, num_words: int, containment: float) -> None:
        self.num_words = num_words
        self.containment = containment
        self.evaluation_sets: list[EvaluationSet] = []
        self.held_out = DocumentTally()
        self._parts: list[Reference] = []
        self._short_parts: list[Reference] = []
        self._held_out: list[Reference] = []
        self._held_out_hashes: set[bytes] = set()
        self._indexes: list[ReferenceIndex] = []
        self._held_out_index = ReferenceIndex([], num_words=num_words, threshold=containment)

    def add_evaluation_sets(self, paths: Sequence[Path | str], *, content_field: str) -> None:
        """Read evaluation items from files.

        Refuses: corpus.evaluation-damaged, corpus.evaluation-empty, and as list_files.
        """
        for file in list_evaluation_files(paths):
            name = Path(file.location).name
            num_items = num_too_short = 0
            for item in read_items(file, content_field=content_field):
                num_items += 1
                num_too_short += not self._add_item(name, item)
            blocks = RawBlocks(
                file.location, start=0, stop=file.size_bytes, size_bytes=file.size_bytes
            )
            if num_items == num_too_short:
                _refuse_empty(file.location, num_items)
            self.evaluation_sets.append(
                EvaluationSet(
                    name=name,
                    sha256=blocks.sha256,
                    num_items=num_items,
                    num_too_short=num_too_short,
                )
            )
        # A short part is evidence only as a whole.
        self._indexes = [
            ReferenceIndex(self._parts, num_words=self.num_words, threshold=self.containment),
            ReferenceIndex(self._short_parts, num_words=FEWEST_WORDS, threshold=1.0),
        ]

    def add_held_out(self, corpus: ListedCorpus, progress: Report) -> None:
        """Read the held-out documents."""
        for document in corpus.documents("reading held-out text", progress):
            self.held_out.add(document.text)
            self._held_out_hashes.add(normal_hash(document.text))
            text = substance(document.text)
            if _num_words(text) >= self.num_words + _FEWEST_SHARED_RUNS - 1:
                name = document.place
                self._held_out.append(make_reference(name, text, num_words=self.num_words))
        self._held_out_index = ReferenceIndex(
            self._held_out,
            num_words=self.num_words,
            threshold=self.containment,
            both_ways=True,
            min_runs=_FEWEST_SHARED_RUNS,
        )

    def look_at(self, documents: Sequence[Document]) -> list[Suspicion]:
        """What is suspicious about each of some documents."""
        texts = [document.text for document in documents]
        words = Words(texts)
        grams = {
            index.num_words: list(words.grams(num_words=index.num_words))
            for index in [*self._indexes, self._held_out_index]
            if index.num_references
        }
        return [
            Suspicion(
                is_copy=bool(self._held_out_hashes) and normal_hash(text) in self._held_out_hashes,
                evaluation=_best([_match(index, text, grams, at) for index in self._indexes]),
                held_out=_match(self._held_out_index, text, grams, at),
            )
            for at, text in enumerate(texts)
        ]

    def _add_item(self, set_name: str, item: Item) -> bool:
        """Whether the item has enough words to be recognised."""
        parts = {key: substance(text) for key, text in item.parts.items()}
        long_enough = {key: text for key, text in parts.items() if _num_words(text) >= FEWEST_WORDS}
        whole = "\n".join(parts.values())
        if not long_enough and _num_words(whole) >= FEWEST_WORDS:
            long_enough = {"whole": whole}
        for key, text in long_enough.items():
            name = f"{set_name} {item.name} {key}"
            is_short = _num_words(text) < self.num_words
            num_words = FEWEST_WORDS if is_short else self.num_words
            chosen = self._short_parts if is_short else self._parts
            chosen.append(make_reference(name, text, num_words=num_words))
        return bool(long_enough)


def _refuse_empty(location: str, num_items: int) -> NoReturn:
    raise Refusal(
        "corpus.evaluation-empty",
        location,
        found=f"{num_items} items, none of which has {FEWEST_WORDS} words",
        expected="at least one item that can be recognised",
        fix="name the file of an evaluation set, such as HumanEval.jsonl.gz",
    )


def _match(
    index: ReferenceIndex, text: str, grams: dict[int, list[Grams]], at: int
) -> Match | None:
    return index.best(text, grams[index.num_words][at]) if index.num_references else None


def _best(matches: Sequence[Match | None]) -> Match | None:
    found = [match for match in matches if match is not None]
    return max(found, key=lambda match: match.share) if found else None


def _num_words(text: str) -> int:
    return len(tokenize([text], words_only=True).hashes)

"""The translation memory as a worker uses it: what names a sentence, which sentences of a batch
need no engine, and which translations are worth keeping."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Protocol

from broker.memory import Name
from inference_worker.draft import Draft, LanguageModel, Unit

DIGEST_BYTES = 16

# To be raised when the same model and settings translate differently than before: when text is
# prepared, decoded or checked in another way.
REVISION = "2"


class Store(Protocol):
    """What is needed of ``broker.memory.Memory``."""

    def find(self, names: Collection[Name]) -> dict[Name, str]: ...
    def keep(self, translations: Mapping[Name, str]) -> None: ...


class SentenceMemory:
    """Names sentences by all that decides their translation: the model and its revision, how it is
    run (``LanguageModel.recipe``), the pair, the text; and whose they are.

    ``recall`` belongs to the intake thread, ``note`` and ``keep`` to the outtake thread.
    """

    def __init__(self, store: Store, model: LanguageModel) -> None:
        self._store = store
        self._start = blake2b(digest_size=DIGEST_BYTES)
        _add(self._start, (REVISION, model.name, model.revision, model.recipe))
        self._fresh: dict[Name, str] = {}

    def name(self, tenant: str, source: str, target: str, text: str) -> Name:
        """What the translation of a sentence is found by."""
        digest = self._start.copy()
        _add(digest, (source, target, text))
        return Name(tenant, digest.hexdigest())

    def recall(self, drafts: Sequence[Draft]) -> set[Unit]:
        """Names the units of drafts that nothing was done with yet, and settles those whose
        translation is known, which it returns."""
        for draft in drafts:
            record = draft.delivery.record
            texts = draft.segments.sentences
            for unit, text in zip(draft.units, texts, strict=True):
                unit.name = self.name(record.tenant, record.source, record.target, text)
        names = dict.fromkeys(unit.name for draft in drafts for unit in draft.units if unit.name)
        found = self._store.find(names) if names else {}
        known = set()
        for draft in drafts if found else ():
            for at, unit in enumerate(draft.units):
                if unit.name in found:
                    draft.settle(at, found[unit.name])
                    draft.cached += 1
                    known.add(unit)
        return known

    def note(self, name: Name, text: str) -> None:
        """A translation that nothing is wrong with, for the next ``keep``."""
        if text:
            self._fresh[name] = text

    def keep(self) -> None:
        """Stores what was noted."""
        if self._fresh:
            self._store.keep(self._fresh)
            self._fresh = {}


def _add(digest: blake2b, parts: Iterable[str]) -> None:
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        digest.update(b"%d:" % len(data))  # so that no two lists of parts read alike
        digest.update(data)

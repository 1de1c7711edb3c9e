"""Does the output check itself? What the checks catch, what a second try mends and what it spoils.

    python -m benchmarks.quality                           # the bundled model, 2 minutes
    python -m benchmarks.quality --references data/train.tsv.gz   # how many references fail a check

Four counts. *Failures*: sentences of kinds that M2M100 is known to fail on (``failures.tsv``).
*Held-out*: the test set in both directions. *Unknown*: those of its sentences that lack a piece if
400 pieces are hidden from the vocabulary. *References*: what people wrote as translations, which
should pass: how many do not is the rate of false alarms. Better and worse are chrF against
the reference, sentence by sentence, of what is kept with the checks against what is kept without.
"""

import argparse
import json
import random
import shutil
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import report
from benchmarks.workload import SMALL, Text, read_texts
from broker.warnings import MEANING
from inference_worker.engine.continuous.rules import Rules, shipped_rules
from inference_worker.engine.ctranslate.engine import CTranslateEngine, open_ctranslate
from inference_worker.engine.protocol import Hypothesis, Sentence
from inference_worker.quality.checks import examine
from inference_worker.quality.review import Again, Case, Reading, Reviewer
from inference_worker.tokens import VOCABULARY_FILE, Vocabulary
from models.training.tsv import read_pairs

FAILURES = Path(__file__).parent / "failures.tsv"
MOST_TOKENS = 128
HIDDEN = 400  # pieces
RARE = 8  # sentences that such a piece is in, at most
CHRF_POINTS = 1.0  # a smaller difference is neither better nor worse


@dataclass(frozen=True, slots=True)
class Task:
    """A sentence to translate, and of which kind it is."""

    kind: str
    text: Text

    @property
    def languages(self) -> tuple[str, str]:
        return self.text.source_language, self.text.target_language


@dataclass(frozen=True, slots=True)
class Answer:
    """What is kept without a second try, and with it."""

    task: Task
    plain: Reading
    kept: Reading
    retried: bool


class Translator:
    """The bundled model under the rules that a worker gives it."""

    def __init__(self, cache: Path, compute_type: str, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.rules = rules_of()
        self._engine = open_ctranslate(
            SMALL, self.rules, cache=cache, batch=32, compute_type=compute_type
        )
        self.spent_s = 0.0

    def run(self, sentences: Sequence[Sentence]) -> dict[int, tuple[Hypothesis, ...]]:
        began_s = time.process_time()
        found = drive(self._engine, sentences)
        self.spent_s += time.process_time() - began_s
        return found


def rules_of() -> Rules:
    shipped = shipped_rules(SMALL)
    return replace(shipped, early_stopping=True, hypotheses=shipped.beams)


def drive(
    engine: CTranslateEngine, sentences: Sequence[Sentence]
) -> dict[int, tuple[Hypothesis, ...]]:
    found: dict[int, tuple[Hypothesis, ...]] = {}
    left = list(sentences)
    while left or engine.free < engine.slots:
        fits, left = left[: engine.free], left[engine.free :]
        engine.admit(fits)
        found |= {one.key: one.hypotheses for one in engine.step()}
    return found


def read_failures() -> list[Task]:
    lines = FAILURES.read_text("utf-8").splitlines()
    rows = [line.split("\t") for line in lines if not line.startswith("#")]
    return [Task(kind, Text(*rest)) for kind, *rest in rows]


def held_out() -> list[Task]:
    """The test set in both directions."""
    tasks = []
    for text in read_texts():
        back = Text(text.target_language, text.source_language, text.target, text.source)
        for one in (text, back):
            tasks.append(Task(f"{one.source_language}>{one.target_language}", one))
    return tasks


def hiding(tasks: Sequence[Task], folder: Path) -> Vocabulary:
    """The bundled vocabulary without some of the rarer pieces of these sentences."""
    whole = Vocabulary(SMALL)
    texts = [whole.pieces(task.text.source) for task in tasks]
    counts = Counter(piece for pieces in texts for piece in set(pieces))
    rare = sorted(piece for piece, count in counts.items() if 2 <= count <= RARE)
    hidden = set(random.Random(0).sample(rare, HIDDEN))
    shutil.copytree(SMALL, folder, dirs_exist_ok=True)
    numbers: dict[str, int] = json.loads((SMALL / VOCABULARY_FILE).read_bytes())
    renamed = {f"gone {at}" if at in hidden else piece: at for piece, at in numbers.items()}
    (folder / VOCABULARY_FILE).write_text(json.dumps(renamed), "utf-8")
    return Vocabulary(folder)


@dataclass(slots=True)
class Costs:
    """Processor seconds."""

    first_s: float = 0.0
    again_s: float = 0.0
    checks_s: float = 0.0


def translate(translator: Translator, tasks: Sequence[Task]) -> tuple[list[Answer], Costs]:
    """Every task twice: as the model says it, and as the checks leave it."""
    vocabulary = translator.vocabulary
    longest = translator.rules.max_length - 2
    retrying = Reviewer(vocabulary, "retry", longest=longest, most_tokens=MOST_TOKENS)
    reporting = Reviewer(vocabulary, "report", longest=longest, most_tokens=MOST_TOKENS)
    costs = Costs()
    encoded = [vocabulary.encode(t.text.source, t.languages[0]) for t in tasks]
    cases = [
        Case(task.text.source, task.languages, one.unknown)
        for task, one in zip(tasks, encoded, strict=True)
    ]
    targets = [vocabulary.language(task.languages[1]) for task in tasks]
    first = translator.run(
        [
            Sentence(key, one.ids, target)
            for key, (one, target) in enumerate(zip(encoded, targets, strict=True))
        ]
    )
    costs.first_s = translator.spent_s
    began_s = time.process_time()
    verdicts = {key: retrying.review(case, first[key]) for key, case in enumerate(cases)}
    costs.checks_s = time.process_time() - began_s
    retried: set[int] = set()
    while again := {key: one for key, one in verdicts.items() if isinstance(one, Again)}:
        retried |= again.keys()
        said = translator.run(
            [Sentence(key, one.source, targets[key], one.ngram) for key, one in again.items()]
        )
        verdicts |= {key: retrying.review(one.case, said[key]) for key, one in again.items()}
    costs.again_s = translator.spent_s - costs.first_s
    answers = []
    for key, task in enumerate(tasks):
        verdict = verdicts[key]
        if isinstance(verdict, Again):
            raise RuntimeError("a sentence is still to be tried again")
        plain = reporting.review(cases[key], first[key][:1])
        if isinstance(plain, Again):
            raise RuntimeError("a sentence was to be tried again by who only reports")
        answers.append(Answer(task, plain, verdict, key in retried))
    translator.spent_s = 0.0
    return answers, costs


@dataclass(slots=True)
class Tally:
    """Sentences of one kind: all; with findings; retried; replaced; clean at last; and of the
    replaced ones better, worse and about as good by chrF."""

    total: int = 0
    caught: int = 0
    retried: int = 0
    replaced: int = 0
    mended: int = 0
    better: int = 0
    worse: int = 0
    before: float = 0.0
    after: float = 0.0

    def add(self, answer: Answer, score: Callable[[str, str], float]) -> None:
        reference = answer.task.text.target
        before, after = score(answer.plain.text, reference), score(answer.kept.text, reference)
        replaced = answer.kept.text != answer.plain.text
        self.total += 1
        self.caught += bool(answer.plain.findings) or answer.retried
        self.retried += answer.retried
        self.replaced += replaced
        self.mended += replaced and answer.kept.clean
        self.better += replaced and after >= before + CHRF_POINTS
        self.worse += replaced and after <= before - CHRF_POINTS
        self.before += before
        self.after += after

    def row(self, name: str) -> str:
        cells = [self.total, self.caught, self.retried, self.replaced, self.mended]
        cells += [self.better, self.worse]
        scores = [f"{score / max(1, self.total):.1f}" for score in (self.before, self.after)]
        return "| " + " | ".join([name, *map(str, cells), *scores]) + " |"


HEAD = (
    "| | sentences | caught | tried again | replaced | mended | better | worse | chrF"
    " | with checks |"
)


def chrf() -> Callable[[str, str], float]:
    """chrF of a translation against one reference."""
    from sacrebleu.metrics import CHRF  # of the extra "training"; nothing else here needs it

    metric = CHRF()
    return lambda text, reference: float(metric.sentence_score(text, [reference]).score)


def table(answers: Iterable[Answer], name: str) -> list[str]:
    """A row for each kind and one for all."""
    score, tallies = chrf(), defaultdict[str, Tally](Tally)
    for answer in answers:
        for kind in (answer.task.kind, name):
            tallies[kind].add(answer, score)
    rows = [tally.row(kind) for kind, tally in tallies.items() if kind != name]
    return [HEAD, "|---|" + "--:|" * 9, *rows, tallies[name].row(f"**{name}**")]


def findings_of(answers: Iterable[Answer]) -> str:
    counts: Counter[str] = Counter()
    left: Counter[str] = Counter()
    for answer in answers:
        counts.update(answer.plain.findings.keys())
        left.update(answer.kept.findings.keys())
    return ", ".join(f"{code} {counts[code]} → {left[code]}" for code in MEANING if counts[code])


def references(pairs: Iterable[Text]) -> list[str]:
    """How many translations by people fail a check, by direction and by check."""
    totals: Counter[tuple[str, str]] = Counter()
    failed: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for text in pairs:
        for source, target, here, there in (
            (text.source, text.target, text.source_language, text.target_language),
            (text.target, text.source, text.target_language, text.source_language),
        ):
            totals[here, there] += 1
            findings = examine(source, target, (here, there))
            failed[here, there].update(findings.keys())
            failed[here, there]["any"] += bool(findings)
    codes = [code for code in MEANING if any(code in counts for counts in failed.values())]
    lines = [
        "| | references | " + " | ".join(f"`{code}`" for code in codes) + " | any |",
        "|---|" + "--:|" * (len(codes) + 2),
    ]
    everything: Counter[str] = Counter()
    for direction, total in sorted(totals.items()):
        everything.update(failed[direction])
        lines.append(rates(">".join(direction), failed[direction], total, codes))
    lines.append(rates("**all**", everything, totals.total(), codes))
    return lines


def rates(name: str, counts: Counter[str], total: int, codes: Sequence[str]) -> str:
    cells = [f"{counts[code] / total:.3%}" for code in (*codes, "any")]
    return "| " + " | ".join([name, f"{total:,}", *cells]) + " |"


def told(given: argparse.Namespace, machine: str) -> str:
    """Measures, and reports in Markdown."""
    parts = [f"`{report.command('quality')}`"]
    if given.references:
        pairs = read_pairs(given.references)
        parts.append("\n".join(references(Text(*pair[:4]) for pair in pairs)))
        return "\n\n".join([*parts, f"{machine}."]) + "\n"
    known, tests = Vocabulary(SMALL), held_out()
    reduced = hiding(tests, given.cache / "reduced")
    lacking = [t for t in tests if reduced.encode(t.text.source, t.languages[0]).unknown]
    for name, vocabulary, tasks in (
        ("failures", known, read_failures()),
        ("held-out", known, tests),
        ("unknown", reduced, [replace(task, kind="400 pieces hidden") for task in lacking]),
    ):
        translator = Translator(given.cache, given.compute_type, vocabulary)
        answers, costs = translate(translator, tasks)
        parts.append("\n".join(table(answers, name)))
        checked_us = costs.checks_s / len(tasks) * 1e6
        parts.append(
            f"Findings: {findings_of(answers)}."
            f" Processor time: model {costs.first_s:.2f} s, checks {costs.checks_s:.3f} s"
            f" ({checked_us:.0f} µs a sentence), second tries {costs.again_s:.2f} s"
            f" (+{(costs.again_s + costs.checks_s) / costs.first_s:.1%})."
        )
        if given.show:
            report.tell(changes(answers))
    parts.append("References of the held-out set, of which none should fail a check:")
    parts.append("\n".join(references(read_texts())))
    return "\n\n".join([*parts, f"{machine}."]) + "\n"


def changes(answers: Iterable[Answer]) -> str:
    """Every sentence that changed: what the model says, and what is kept."""
    return "\n".join(
        f"{'>'.join(one.task.languages)} {one.task.text.source}\n"
        f"  - {one.plain.text} {dict(one.plain.findings)}\n"
        f"  + {one.kept.text} {dict(one.kept.findings)}"
        for one in answers
        if one.kept.text != one.plain.text
    )


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = report.parser("quality", __doc__)
    add = parser.add_argument
    add("--references", type=Path, help="pairs as models.training writes them")
    add("--cache", type=Path, default=Path("runs/quality"), help="where the models are kept")
    add("--compute-type", default="int8", help="of CTranslate2")
    add("--show", action="store_true", help="tell every sentence that changed")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    given = parsed(arguments)
    return report.made("quality", lambda machine: told(given, machine), given.out)


if __name__ == "__main__":
    sys.exit(main())

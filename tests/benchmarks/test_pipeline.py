"""The way through HTTP and Redis: its sentences, its arithmetic, and a small run of each part."""

import sys
from pathlib import Path

import pytest
import uvloop

from benchmarks import bare, load, pipeline, requests, stacks, trips
from benchmarks.pipeline import Round
from benchmarks.servers import NotStarted, started
from benchmarks.stacks import Spent
from inference_worker.tokens import Vocabulary


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return bare.vocabulary_of("small")


def test_texts_are_single_sentences_that_do_not_repeat_early(vocabulary: Vocabulary) -> None:
    texts = bare.texts(vocabulary, 800)
    assert len({text.source for text in texts}) == 800
    assert [text.source for text in bare.texts(vocabulary, 1_200)][:800] == [
        text.source for text in texts
    ]


def test_languages_of_the_countdown_stand_for_lengths(tmp_path: Path) -> None:
    for name in ("vocab.json", "sentencepiece.bpe.model", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((bare.SMALL / name).read_bytes())
    vocabulary = bare.CountdownVocabulary(tmp_path)
    assert len(vocabulary.languages) == 100
    for tokens in (3, 20, 102):
        # The model counts down from the forced token to </s>; the forced one counts too.
        assert vocabulary.language(vocabulary.asking_for(tokens)) == vocabulary.end + tokens - 1
    assert vocabulary.asking_for(1) == vocabulary.asking_for(3)
    assert vocabulary.asking_for(500) == vocabulary.asking_for(102)
    texts = bare.texts(vocabulary, 300)
    assert all(text.source_language != text.target_language for text in texts)


def test_ratios() -> None:
    spent = Spent({"workers": 10.0, "api": 1.0, "redis": 0.5}, [1.0], 0.25)
    measured = Round(bare.Run(1_000, 9.5, 9.0, "any"), 10.0, spent)
    assert measured.ratio == 0.95
    assert measured.cpu_ratio == 0.9
    assert pipeline.each_us(spent, 1_000, ("api", "redis")) == ["1000", "500", "250"]


@pytest.mark.parametrize(
    ("status", "body", "wrong"),
    [
        (200, b'{"result":[{"id":"0","text":""},{"id":"1","text":"a"}]}', ""),
        (503, b"{}", "status 503"),
        (200, b'{"result":[{"id":"0","text":"a"}]}', "wrong ids"),
        (200, b'{"result":[{"id":"0","text":"a"},{"id":"1","error":{}}]}', "a record without text"),
    ],
)
def test_what_is_a_right_answer(status: int, body: bytes, wrong: str) -> None:
    assert requests.wrong(status, body, 2, blank=True) == wrong


def test_a_wrong_answer_ends_the_measurement() -> None:
    with pytest.raises(NotStarted, match="1 of 2 answers were wrong: status 503"):
        requests.check([load.Answer(0.1), load.Answer(0.1, "status 503")])


@pytest.mark.slow
def test_records_go_round_the_broker() -> None:
    with stacks.valkey() as (folder, redis):
        settings = trips.settings_of(folder)
        argv = [sys.executable, "-m", "benchmarks.trips", "--redis-url", settings.redis_url]
        with started(argv, trips.READY):
            records, seconds = uvloop.run(trips.made(settings, trips.Shape(16, 4), 0.2))
        assert records >= 64
        assert seconds > 0
        assert trips.xadd(folder, 200, 4_000).rate > 0
        assert redis.running()


@pytest.mark.slow
def test_the_bundled_model_through_everything() -> None:
    plan = pipeline.Plan(records=12, connections=4, slots=8)
    row = pipeline.engine_row("small", plan, rounds=1)
    assert len(row) == len(pipeline.ENGINE_HEADS)
    assert float(row[5]) > 0


def test_unknown_parts_are_refused() -> None:
    for wrong in (["--parts", "engine,kitchen"], ["--rounds", "0"], ["--seconds", "600"]):
        with pytest.raises(SystemExit):
            pipeline.parsed(wrong)
    assert pipeline.parsed(["--models", "small"]).models == ["small"]

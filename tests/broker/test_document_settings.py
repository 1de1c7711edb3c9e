import pytest

from broker.document_settings import DocumentSettings


@pytest.mark.parametrize(
    "name", ["document_ttl_s", "document_deadline_s", "parse_cpu_s", "max_queued_documents"]
)
def test_what_cannot_be_nothing_is_above_0(name: str) -> None:
    with pytest.raises(ValueError, match=f"--{name.replace('_', '-')} must be above 0"):
        DocumentSettings(**{name: 0})


def test_an_interpreter_needs_some_memory() -> None:
    with pytest.raises(ValueError, match="--parse-memory-mib must be at least 64"):
        DocumentSettings(parse_memory_mib=63)

"""A fake service for the tests of the client and of ``dragoman translate``."""

from collections.abc import Iterator

import pytest

from tests.dragoman.fake_service import FakeService


@pytest.fixture
def service() -> Iterator[FakeService]:
    fake = FakeService()
    yield fake
    fake.close()

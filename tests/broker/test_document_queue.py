import pytest

from broker.document_queue import connect_queue
from broker.document_settings import DocumentSettings
from broker.errors import BrokerMisconfigured
from broker.settings import BrokerSettings


def test_the_queue_has_a_user_of_its_own_or_the_brokers(tmp_path) -> None:
    for name in ("ours", "theirs"):
        (tmp_path / name).write_text(name)
    broker = BrokerSettings(
        "redis://h:1/0", redis_user="me", redis_password_file=str(tmp_path / "ours")
    )
    theirs = str(tmp_path / "theirs")
    for settings, expected in (
        (DocumentSettings(), ("me", "ours")),
        (DocumentSettings(rq_user="rq", rq_password_file=theirs), ("rq", "theirs")),
        (DocumentSettings(rq_url="redis://x:2/0"), (None, None)),
    ):
        queue = connect_queue(broker, settings)
        told = queue.connection_pool.connection_kwargs
        assert (told.get("username"), told.get("password")) == expected
        queue.close()


def test_a_cluster_is_no_place_for_the_queue() -> None:
    cluster = "redis+cluster://h:1"
    for broker, settings in (
        (BrokerSettings(cluster), DocumentSettings()),
        (BrokerSettings("redis://h:1/0"), DocumentSettings(rq_url=cluster)),
    ):
        with pytest.raises(BrokerMisconfigured, match="--rq-url"):
            connect_queue(broker, settings)

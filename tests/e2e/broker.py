"""A real Kafka broker for tests: Apache Kafka in KRaft mode, from its public Java artifacts, on free loopback ports."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic

KAFKA_VERSION = "3.9.1"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "millrace" / "kafka"
START_TIMEOUT_S = 240.0
USER, PASSWORD = "ada", "lovelace"
"""Who may come in by the listener that asks."""

_POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>millrace</groupId><artifactId>test-broker</artifactId><version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{KAFKA_VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId><artifactId>slf4j-nop</artifactId><version>1.7.36</version>
    </dependency>
  </dependencies>
</project>
"""


def missing() -> str | None:
    """Why no broker can be started on this machine, or None."""
    if shutil.which("java") is None:
        return "Kafka tests need Java 17: there is no 'java'"
    if shutil.which("mvn") is None and not (CACHE / KAFKA_VERSION / "done").exists():
        return "Kafka tests need Maven to fetch the broker once: there is no 'mvn'"
    return None


def require() -> None:
    """Skip the calling test, by name and reason, where there can be no broker; with CI=true that is a failure."""
    reason = missing()
    if reason is None:
        return
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def jars() -> Path:
    """The folder with the broker's artifacts, fetched where they are not there yet."""
    folder = CACHE / KAFKA_VERSION
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "done").exists():
            (folder / "pom.xml").write_text(_POM)
            goal = ["dependency:copy-dependencies", f"-DoutputDirectory={folder / 'jars'}"]
            subprocess.run(["mvn", "-q", "-B", "-f", str(folder / "pom.xml"), *goal], check=True, timeout=170)
            (folder / "done").touch()
    return folder / "jars"


def free_port() -> int:
    """A loopback port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Broker:
    """One broker that is controller too; its data lives in a temporary folder and outlives a restart."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="millrace-kafka-"))
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.servers = f"127.0.0.1:{self._port}"
        self.secure_servers = f"127.0.0.1:{free_port()}"
        self.authority = self._folder / "authority.pem"
        self._certify()
        settings = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "listeners": f"PLAINTEXT://{self.servers},SECURE://{self.secure_servers},"
            f"CONTROLLER://127.0.0.1:{(controller := free_port())}",
            "advertised.listeners": f"PLAINTEXT://{self.servers},SECURE://{self.secure_servers}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL",
            "inter.broker.listener.name": "PLAINTEXT",
            "listener.name.secure.sasl.enabled.mechanisms": "PLAIN",
            "listener.name.secure.plain.sasl.jaas.config": "org.apache.kafka.common.security.plain.PlainLoginModule "
            f'required user_{USER}="{PASSWORD}";',
            "ssl.keystore.location": str(self._folder / "keys.p12"),
            "ssl.keystore.password": PASSWORD,
            "ssl.keystore.type": "PKCS12",
            "controller.listener.names": "CONTROLLER",
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "log.dirs": str(self._folder / "data"),
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "2",
            "group.initial.rebalance.delay.ms": "0",
            "auto.create.topics.enable": "false",
            "log.cleaner.enable": "false",
            "num.network.threads": "2",
            "num.io.threads": "2",
        }
        self._settings = self._folder / "server.properties"
        self._settings.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        self._java("kafka.tools.StorageTool", "format", "-t", "0nRO3fQmSVKEdxZQrbVXVg", "-c").wait(60)
        self.start()

    def _certify(self) -> None:
        """A key of the broker's own for its TLS listener, and the certificate that clients are to trust."""
        store = ["-keystore", str(self._folder / "keys.p12"), "-storepass", PASSWORD, "-alias", "broker"]
        made = ["-genkeypair", "-keyalg", "EC", "-dname", "CN=127.0.0.1", "-ext", "SAN=ip:127.0.0.1"]
        for arguments in (
            [*made, "-validity", "30", "-storetype", "PKCS12"],
            ["-exportcert", "-rfc", "-file", str(self.authority)],
        ):
            subprocess.run(["keytool", *arguments, *store], check=True, timeout=60, capture_output=True)

    def _java(self, main: str, *arguments: str) -> subprocess.Popen[bytes]:
        command = ["java", "-Xmx400m", "-Xms128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        command += ["-cp", f"{jars()}/*", main, *arguments, str(self._settings)]
        log = open(self._folder / "log.txt", "ab")  # noqa: SIM115 - the child keeps it
        with log:
            return subprocess.Popen(command, stdout=log, stderr=log, cwd=self._folder)

    def start(self) -> None:
        """Start the broker and wait until it answers."""
        self._process = self._java("kafka.Kafka")
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), 1):
                break
            assert self._process.poll() is None, (self._folder / "log.txt").read_text()[-4000:]
            assert time.monotonic() < deadline, "the broker did not start"
            time.sleep(0.1)
        self.admin = AdminClient({"bootstrap.servers": self.servers, "log_level": 2})
        self.admin.list_topics(timeout=30)

    def stop(self, *, kill: bool = False) -> None:
        """End the broker's process, by force where asked."""
        if self._process is not None:
            self._process.kill() if kill else self._process.terminate()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Stop the broker where it stands."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen broker go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End the broker and delete its data."""
        self.stop(kill=True)
        shutil.rmtree(self._folder, ignore_errors=True)

    def topic(self, partitions: int = 1, name: str | None = None, **config: str) -> str:
        """A new topic under a name of its own."""
        name = name or f"t-{uuid.uuid4().hex[:10]}"
        settings = {key.replace("_", "."): value for key, value in config.items()}
        self.admin.create_topics([NewTopic(name, partitions, 1, config=settings)])[name].result(30)
        self._wait_for(name, partitions)
        return name

    def grow(self, topic: str, partitions: int) -> None:
        """Give a topic more partitions."""
        from confluent_kafka.admin import NewPartitions

        self.admin.create_partitions([NewPartitions(topic, partitions)])[topic].result(30)
        self._wait_for(topic, partitions)

    def config(self, topic: str) -> dict[str, str]:
        """A topic's settings."""
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
        return {k: v.value for k, v in self.admin.describe_configs([resource])[resource].result(30).items()}

    def _wait_for(self, topic: str, partitions: int) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with contextlib.suppress(KafkaException):
                found = self.admin.list_topics(topic, timeout=10).topics[topic]
                if len(found.partitions) >= partitions and all(
                    p.leader >= 0 for p in found.partitions.values()
                ):
                    return
            time.sleep(0.02)
        raise AssertionError(f"topic {topic} did not appear")


def running() -> Iterator[Broker]:
    """A broker for the length of a session."""
    require()
    broker = Broker()
    try:
        yield broker
    finally:
        broker.close()

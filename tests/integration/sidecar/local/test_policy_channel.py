import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from subtext_sidecar.local.policy import CapturePolicy, PolicyUpdate
from subtext_sidecar.local.policy_channel import LOGGER, PolicyPublisher, PolicySubscriber
from tests.support.waiting import wait_until

UPDATES = [PolicyUpdate(version=str(n), capture=CapturePolicy(request_rate=n / 10)) for n in range(4)]
DEADLINE_SECONDS = 10.0


@pytest.fixture
def context() -> Iterator["zmq.Context[zmq.Socket[bytes]]"]:
    with zmq.Context() as one:
        yield one


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"ipc://{tmp_path}/s"


def heard(publisher: PolicyPublisher, update: PolicyUpdate, subscriber: PolicySubscriber) -> PolicyUpdate:
    """Publish again and again, as the sidecar does, until the subscriber hears."""

    def latest() -> PolicyUpdate | None:
        publisher.publish(update)
        return subscriber.latest()

    got = wait_until("a policy is heard", latest, DEADLINE_SECONDS)
    assert got is not None
    return got


def test_a_policy_reaches_the_plugin_once(context: "zmq.Context[zmq.Socket[bytes]]", address: str) -> None:
    with PolicyPublisher(context, address) as publisher, PolicySubscriber(context, address) as subscriber:
        first = heard(publisher, UPDATES[0], subscriber)
        # The repeats of the first are no news: the next thing heard is the second.
        second = heard(publisher, UPDATES[1], subscriber)

    assert first == UPDATES[0]
    assert second == UPDATES[1]


def test_a_sidecar_that_comes_later_and_one_that_restarts_are_heard(
    context: "zmq.Context[zmq.Socket[bytes]]", address: str
) -> None:
    with PolicySubscriber(context, address) as subscriber:
        assert subscriber.latest() is None
        with PolicyPublisher(context, address) as publisher:
            first = heard(publisher, UPDATES[0], subscriber)
        with PolicyPublisher(context, address) as publisher:
            second = heard(publisher, UPDATES[2], subscriber)

    assert (first, second) == (UPDATES[0], UPDATES[2])


def test_publishing_to_nobody_does_not_wait(
    context: "zmq.Context[zmq.Socket[bytes]]", address: str
) -> None:
    with PolicyPublisher(context, address) as publisher:
        for _ in range(5000):
            publisher.publish(UPDATES[0])


def test_an_unusable_policy_is_logged_once_and_skipped(
    context: "zmq.Context[zmq.Socket[bytes]]", address: str, caplog: pytest.LogCaptureFixture
) -> None:
    bad = PolicyUpdate(version="bad", capture=CapturePolicy(window=9))
    with (
        PolicyPublisher(context, address) as publisher,
        PolicySubscriber(context, address) as subscriber,
        caplog.at_level(logging.WARNING, LOGGER),
    ):
        heard(publisher, UPDATES[0], subscriber)

        def publish_bad() -> None:
            publisher.publish(bad)
            assert subscriber.latest() is None

        wait_until("a warning", lambda: caplog.records, DEADLINE_SECONDS, meanwhile=publish_bad)
        after = heard(publisher, UPDATES[1], subscriber)

    assert after == UPDATES[1]
    [record] = caplog.records
    assert "capture.window is 9: it must be at most decode_stride (8)" in record.getMessage()

"""What webhooks stand on."""

from __future__ import annotations

import random
import secrets
import ssl
from dataclasses import dataclass
from datetime import timedelta

from adapters.webhook.config import WebhookPolicy, networks
from adapters.webhook.courier import Courier
from adapters.webhook.link import Link
from config.settings import Settings
from gateway.bootstrap.basis import Basis
from gateway.delivery_book import DeliveryBook
from gateway.notifications import Relay
from gateway.store.sealing import Sealer, load_or_create_sealing_key
from gateway.webhooks import Webhooks


@dataclass(frozen=True)
class Hooks:
    """What webhooks stand on: one link and one courier for dispatch and notifications."""

    book: DeliveryBook
    courier: Courier
    policy: WebhookPolicy
    relay: Relay
    webhooks: Webhooks


def make_hooks(basis: Basis) -> Hooks:
    """One link and one courier for dispatch and notifications."""
    settings = basis.settings.webhook
    policy = _webhook_policy(basis.settings)
    key = settings.key or basis.settings.store.signing_key.with_name("webhook.key")
    sealer = Sealer(load_or_create_sealing_key(key))
    book = DeliveryBook(engine=basis.engine, writer=basis.writer, sealer=sealer, wall=basis.wall)
    link = Link(policy, tls=ssl.create_default_context(cafile=settings.ca_certificate))

    def count(outcome: str) -> None:
        basis.metrics.webhook_attempts.labels(outcome=outcome).inc()

    courier = Courier(
        link, book, policy=policy, monotonic=basis.clock.monotonic,
        unix=lambda: basis.wall().timestamp(), jitter=random.SystemRandom().random, count=count,
    )  # fmt: skip
    relay = Relay(
        book, engine=basis.engine, writer=basis.writer, link=link, courier=courier,
        clock=basis.clock, wall=basis.wall, count=count, first_retry_s=policy.trial_every_s,
        give_up=timedelta(seconds=settings.give_up_s),
    )  # fmt: skip
    webhooks = Webhooks(
        book, engine=basis.engine, writer=basis.writer, sealer=sealer, link=link,
        courier=courier, policy=policy, wall=basis.wall, new_id=basis.new_id,
        new_secret=lambda: f"fxw_{secrets.token_urlsafe(32)}",
        overlap=timedelta(seconds=settings.rotation_overlap_s),
    )  # fmt: skip
    return Hooks(book=book, courier=courier, policy=policy, relay=relay, webhooks=webhooks)


def _webhook_policy(settings: Settings) -> WebhookPolicy:
    webhook = settings.webhook
    return WebhookPolicy(
        lab=settings.lab, allow_addresses=networks(webhook.allow_addresses),
        connect_timeout_s=webhook.connect_timeout_s, answer_timeout_s=webhook.answer_timeout_s,
        attempts=webhook.attempts, backoff_s=webhook.backoff_s,
        broken_after=webhook.broken_after, trial_every_s=webhook.trial_every_s,
        ping_s=webhook.ping_s,
    )  # fmt: skip

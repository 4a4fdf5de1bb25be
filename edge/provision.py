"""From a fresh device to a member of a fleet: UNPROVISIONED → JOINING → PENDING → IDLE."""

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import urllib3

from edge.backoff import delays_s
from edge.config import Config, ConfigError
from edge.files import remove
from edge.join import JoinError, Pending, TokenRefused, Unavailable, join
from edge.lifecycle import MEMBER, Lifecycle
from edge.membership import Membership, load_membership, save_membership
from edge.state import Journal
from edge.trust import Trust, TrustError
from protocol.enrolment import split_token
from protocol.signing import SigningKey

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Provisioner:
    """Makes a device a member. An aggregator that is away, or an operator who has not approved yet, is waited for.

    Attributes:
        config: names the device, the aggregator and the token's file.
        journal: its lifecycle is moved along.
        key: the device's.
        http: the connections to use.
        wait: sleeps that many seconds; true when the program is to end.
        rng: for the jitter.
    """

    config: Config
    journal: Journal
    key: SigningKey
    http: urllib3.PoolManager
    wait: Callable[[float], bool]
    rng: random.Random = field(default_factory=random.Random)

    def membership(self) -> Membership | None:
        """The device's membership, by joining if it has none yet; the token is then no longer on the disk.

        Returns:
            None when the program is to end before there is an answer.

        Raises:
            JoinError: no token, or one that is refused; the name is taken; or the device was revoked.
            ConfigError: no aggregator is named.
            MembershipError: the file of an earlier joining is damaged.
            TrustError: the aggregator is not the one that the token is from.
        """
        if self.journal.record.lifecycle is Lifecycle.REVOKED:
            advice = "join again with bitfleet-edge join --token"
            raise JoinError(f"device {self.config.device}: revoked by its aggregator; {advice}")
        membership = load_membership(self.config.state_dir) or self._ask_until_answered()
        if membership is None:
            return None
        if self.journal.record.lifecycle not in MEMBER:
            self._enter(Lifecycle.JOINING)
            self.journal.move(Lifecycle.IDLE)
        remove(self.config.token_path)
        return membership

    def _ask_until_answered(self) -> Membership | None:
        (token, authority), complaint = split_token(_read_token(self.config)), ""
        for delay_s in delays_s(self.rng):
            self._enter(Lifecycle.JOINING)
            try:
                return self._ask(token, authority)
            except (Unavailable, Pending) as error:
                if isinstance(error, Pending):
                    self._enter(Lifecycle.PENDING)
                if str(error) != complaint:  # once per event
                    log.warning("device %s: %s; asking again", self.config.device, error)
                complaint = str(error)
            except (JoinError, TrustError):
                self._enter(Lifecycle.UNPROVISIONED)
                raise
            if self.wait(delay_s):
                break
        return None

    def _ask(self, token: str, authority: str) -> Membership:
        config = self.config
        trust = self._trust(authority)
        membership = join(
            self.http if trust is None else trust.connections(self.http),
            config.aggregator,
            device=config.device,
            public=self.key.public,
            token=token,
            trust=trust,
            key=self.key,
        )
        save_membership(config.state_dir, membership)
        return membership

    def _trust(self, authority: str) -> Trust | None:
        """Whom to trust; the fleet's authority, if the token names one, before anything is said to anybody."""
        url, trust = self.config.aggregator, Trust(self.config.state_dir)
        if authority and not url.startswith("https:"):
            raise JoinError(f"aggregator {url}: the token is for a fleet with TLS: expected a URL https://…")
        if authority:
            try:
                trust.pin(url, authority)
            except (urllib3.exceptions.HTTPError, OSError) as error:
                raise Unavailable(f"aggregator {url}: not reachable ({error})") from error
        return trust if url.startswith("https:") else None

    def _enter(self, state: Lifecycle) -> None:
        if self.journal.record.lifecycle is not state:
            self.journal.move(state)


def _read_token(config: Config) -> str:
    if not config.aggregator:
        raise ConfigError("aggregator: expected its URL, for example http://10.0.0.2:8700 (--aggregator)")
    try:
        token = config.token_path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        token = ""
    if not token:
        raise TokenRefused(
            f"device {config.device} has not joined a fleet and {config.token_path} holds no token;"
            " ask the operator for one (bitfleet-aggregator token) and pass it with --token"
        )
    return token

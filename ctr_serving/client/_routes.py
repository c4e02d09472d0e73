"""Which server a request goes to: the variants of a predictor and the endpoints of each."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ctr_serving.client._outages import Outages
from cube_core.conf.prototxt import read_predictors
from cube_core.endpoint import Endpoint, parse_endpoint_list
from cube_core.errors import ConfError
from cube_core.hedging import HedgeBudget
from cube_core.tls import ClientTls, TlsFiles

if TYPE_CHECKING:
    from cube_proto.predictors_pb2 import ConnectionConf, Predictor, VariantConf

CONNECT_TIMEOUT_MS = 2000
TIMEOUT_MS = 20_000
RETRY_COUNT = 2
NO_HEDGE = -1
# As an unsigned number, which older files have.
_NO_HEDGE_UNSIGNED = 0xFFFFFFFF
HEDGE_COUNT = 2
HEDGE_SHARE_MAX = 0.1
"""Share of all requests to a variant that may be sent a second time."""


@dataclass(frozen=True)
class Options:
    """How requests to a variant are made.

    Attributes:
        timeout_ms: for a request, retries included.
        retry_count: further endpoints (or the same again) that are tried when a connection fails.
        hedge_timeout_ms: a request that has no answer after so long is sent to a further endpoint
            too; NO_HEDGE: it is not.
        hedge_count: how often it is, each after as long again.
        tls: what the endpoints speak; None for plain text.
    """

    connect_timeout_ms: int = CONNECT_TIMEOUT_MS
    timeout_ms: int = TIMEOUT_MS
    retry_count: int = RETRY_COUNT
    hedge_timeout_ms: int = NO_HEDGE
    hedge_count: int = HEDGE_COUNT
    tls: ClientTls | None = None


class Variant:
    """One variant of a predictor: endpoints that are asked in turn.

    Attributes:
        hedge_count: to how many further endpoints a request may be sent; none where there is none,
            or it is not wanted.
        hedges: how many may be.
        outages: its endpoints that failed lately.
    """

    def __init__(self, tag: str, endpoints: Sequence[Endpoint], options: Options) -> None:
        self.tag = tag
        self.options = options
        is_wanted = options.hedge_timeout_ms >= 0
        self.hedge_count = min(options.hedge_count, len(endpoints) - 1) if is_wanted else 0
        self.hedges = HedgeBudget(HEDGE_SHARE_MAX)
        self.outages = Outages(trial_s=options.connect_timeout_ms / 1000)
        self._endpoints = list(endpoints)
        self._turns = itertools.count()

    @property
    def can_hedge(self) -> bool:
        return self.hedge_count > 0

    def servers(self, now_s: float) -> Iterator[Endpoint]:
        """The endpoint whose turn it is, and round from there without end; those that failed lately
        after the others."""
        turn = next(self._turns) % len(self._endpoints)
        in_turn = self._endpoints[turn:] + self._endpoints[:turn]
        return itertools.cycle(self.outages.in_order(in_turn, now_s))


@dataclass(frozen=True)
class Routes:
    """Variants with their weights, and the protocol that the configuration names ("" for none)."""

    variants: Sequence[Variant]
    weights: Sequence[int]
    protocol: str = ""

    @property
    def tags(self) -> tuple[str, ...]:
        return tuple(variant.tag for variant in self.variants)

    def pick(self, tag: str | None = None) -> Variant:
        """The variant with that tag; with none, one at random, by weight.

        Raises:
            ValueError: no variant has the tag.
        """
        if tag is not None:
            return self._tagged(tag)
        if len(self.variants) == 1:
            return self.variants[0]
        return random.choices(self.variants, self.weights)[0]  # noqa: S311

    def _tagged(self, tag: str) -> Variant:
        for variant in self.variants:
            if variant.tag == tag:
                return variant
        raise ValueError(f"no variant has the tag {tag!r}, only {', '.join(self.tags)}")


def routes_of_address(address: str, options: Options) -> Routes:
    """Reads "host:port" or "list://host:port,host:port".

    Raises:
        ConfError: it is neither.
    """
    try:
        endpoints = parse_endpoint_list(address, "address")
    except ValueError as error:
        raise ConfError("command line", "", str(error)) from error
    return Routes([Variant("default", endpoints, options)], [1])


def read_routes(path: Path | str, name: str, tls: ClientTls | None = None) -> Routes:
    """Reads the predictor `name` of a predictors.prototxt.

    Args:
        tls: instead of what the file says.

    Raises:
        ConfError: names the file and the field, or the file of a certificate that cannot be used.
    """
    conf = read_predictors(path)
    index, predictor = _find(str(path), conf.predictors, name)
    field = f"predictors[{index}]"
    if not predictor.variants:
        raise ConfError(str(path), f"{field}.variants", "at least one is needed")
    variants = [
        _variant(str(path), f"{field}.variants[{number}]", variant, conf.default_variant_conf, tls)
        for number, variant in enumerate(predictor.variants)
    ]
    weights = _weights(str(path), f"{field}.weighted_random_render_conf", predictor)
    return Routes(variants, weights, conf.default_variant_conf.rpc_parameter.protocol)


def _find(file: str, predictors: Sequence[Predictor], name: str) -> tuple[int, Predictor]:
    for index, predictor in enumerate(predictors):
        if predictor.name == name:
            if predictor.endpoint_router != "WeightedRandomRender":
                raise ConfError(
                    file,
                    f"predictors[{index}].endpoint_router",
                    f"{predictor.endpoint_router!r} is not supported; write WeightedRandomRender",
                )
            return index, predictor
    known = ", ".join(predictor.name for predictor in predictors) or "none"
    raise ConfError(file, "predictors", f"there is no {name!r}, only {known}")


def _variant(
    file: str, field: str, variant: VariantConf, default: VariantConf, tls: ClientTls | None
) -> Variant:
    connection = type(default.connection_conf)()
    connection.MergeFrom(default.connection_conf)
    connection.MergeFrom(variant.connection_conf)
    cluster = variant.naming_conf.cluster or default.naming_conf.cluster
    try:
        endpoints = parse_endpoint_list(cluster, "naming_conf.cluster")
    except ValueError as error:
        raise ConfError(file, field, str(error)) from error
    hedge_timeout_ms = _at_least(file, field, "hedge_request_timeout_ms", NO_HEDGE, connection)
    options = Options(
        connect_timeout_ms=_at_least(file, field, "connect_timeout_ms", 1, connection),
        timeout_ms=_at_least(file, field, "rpc_timeout_ms", 1, connection),
        retry_count=_at_least(file, field, "connect_retry_count", 0, connection),
        hedge_timeout_ms=NO_HEDGE if hedge_timeout_ms == _NO_HEDGE_UNSIGNED else hedge_timeout_ms,
        hedge_count=_at_least(file, field, "hedge_fetch_retry_count", 0, connection),
        tls=tls or _tls(Path(file).parent, connection),
    )
    return Variant(variant.tag, endpoints, options)


def _tls(directory: Path, connection: ConnectionConf) -> ClientTls | None:
    if not connection.HasField("tls"):
        return None
    conf = connection.tls
    paths = (conf.cert_file, conf.key_file, conf.ca_file)
    files = TlsFiles(*(str(directory / each) if each else "" for each in paths))
    return ClientTls(files, conf.server_name)


def _at_least(file: str, field: str, name: str, smallest: int, connection: object) -> int:
    value = int(getattr(connection, name))
    if value < smallest:
        raise ConfError(
            file, f"{field}.connection_conf.{name}", f"is {value}, must be {smallest} or more"
        )
    return value


def _weights(file: str, field: str, predictor: Predictor) -> list[int]:
    text = predictor.weighted_random_render_conf.variant_weight_list
    weights = [int(part) if part.strip().isdecimal() else -1 for part in text.split("|")]
    if len(weights) != len(predictor.variants) or min(weights) < 0 or not any(weights):
        raise ConfError(
            file,
            f"{field}.variant_weight_list",
            f"{text!r} is not a weight, 0 or more, for each of {len(predictor.variants)} variants,"
            " separated by |",
        )
    return weights

"""Which settings a queue may have, and what it has where nothing is said.

What people ask for comes as *fields*: a mapping in the shape of a v2 ``Queue`` with ``snake_case`` names, enums by
name, times and durations as numbers; a field that is not there was not given. Types were checked when it was read.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import isfinite
from typing import Any, Final

from hopline_engine.core.cloud.errors import invalid
from hopline_engine.core.cloud.headers import check_headers
from hopline_engine.core.cloud.model import (
    DAY,
    UNLIMITED,
    AppEngineRouting,
    HttpMethod,
    HttpTarget,
    OAuthToken,
    OidcToken,
    Queue,
    QueueConfig,
    QueueType,
    RateLimits,
    RetryConfig,
    UriOverride,
)

Fields = Mapping[str, Any]

MOST_PER_SECOND: Final = 500.0
MOST_CONCURRENT: Final = 5000
MOST_BURST: Final = 500
_TASK_TTL: Final = (10 * DAY, 3650 * DAY)
_TOMBSTONE_TTL: Final = (3600.0, 9 * DAY)

_HOST: Final = re.compile(
    r"[^\s\x00-\x20/?#@\\:%\[\]<>^`{|}\"\x7f]{1,253}|\[?[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*\]?"
)
"""Names, and addresses of the sixth version, which alone have colons."""
_OUTPUT_ONLY: Final = frozenset({"name", "state", "purge_time", "stats", "type", "pull_target"})
"""Fields of a queue that a patch may name and cannot change."""
_TOKENS: Final[Mapping[str, str]] = {"oauth_token": "oidc_token", "oidc_token": "oauth_token"}
"""Fields of which one replaces the other."""
_PATCHED: Final[Mapping[str, frozenset[str]]] = {
    "rate_limits": frozenset({"max_dispatches_per_second", "max_burst_size", "max_concurrent_dispatches"}),
    "retry_config": frozenset({"max_attempts", "max_retry_duration", "min_backoff", "max_backoff", "max_doublings"}),
    "app_engine_routing_override": frozenset({"service", "version", "instance", "host"}),
    "http_target": frozenset({"uri_override", "http_method", "header_overrides", "oauth_token", "oidc_token"}),
    "stackdriver_logging_config": frozenset({"sampling_ratio"}),
    "task_ttl": frozenset(),
    "tombstone_ttl": frozenset(),
}


def burst_of(rate: float) -> int:
    """Return the burst of a queue: a fifth of a second's worth, between 10 and 100, as seen at the original.

    >>> burst_of(500.0), burst_of(1.0), burst_of(0.25)
    (100, 10, 10)
    """
    return min(100, max(10, round(rate / 5)))


def queue_from(name: str, fields: Fields, *, of_pull: bool | None = None) -> Queue:
    """Return the queue that *fields* ask for, with defaults for what they leave out.

    Args:
        name: of the queue.
        fields: what is asked for.
        of_pull: whether it is a pull queue, whatever *fields* say; for a queue that is there already.

    Raises:
        CloudTasksError: a field has a value that it cannot have.
    """
    is_pull = _asks_for_pull(fields) if of_pull is None else of_pull
    config = QueueConfig(
        type=QueueType.PULL if is_pull else QueueType.PUSH,
        retry_config=_pull_retry(fields) if is_pull else retry_config_from(fields.get("retry_config", {})),
        app_engine_routing_override=_routing(fields.get("app_engine_routing_override")),
        http_target=http_target_from(fields.get("http_target")),
        sampling_ratio=_ratio(fields.get("stackdriver_logging_config", {}).get("sampling_ratio", 0.0)),
        task_ttl=_within("Queue.taskTtl", fields.get("task_ttl", 31 * DAY), _TASK_TTL),
        tombstone_ttl=_within("Queue.tombstoneTtl", fields.get("tombstone_ttl", 3600.0), _TOMBSTONE_TTL),
    )
    limits = rate_limits_from(fields.get("rate_limits", {}))
    if is_pull:
        limits = RateLimits(max_concurrent_dispatches=UNLIMITED)
    return Queue(name=name, rate_limits=limits, config=config)


def patched(queue: Queue, fields: Fields, mask: Sequence[str]) -> Queue:
    """Return *queue* with the fields that *mask* names set as in *fields*, or to their defaults if not given there.

    An empty mask names every field. State, type and name stay.

    Raises:
        CloudTasksError: the mask names an unknown field, or a value is not possible.
    """
    merged = fields if not mask or "*" in mask else _merged(fields_of(queue), fields, mask)
    changed = queue_from(queue.name, merged, of_pull=queue.is_pull)
    return Queue(
        name=queue.name,
        rate_limits=changed.rate_limits,
        config=changed.config,
        state=queue.state,
        purge_time=queue.purge_time,
    )


def _merged(old: Fields, new: Fields, mask: Sequence[str]) -> Fields:
    merged = dict(old)
    for path in mask:
        root, _, rest = path.partition(".")
        if root in _OUTPUT_ONLY:
            continue
        leaf = rest.partition(".")[0]
        if root not in _PATCHED or (leaf and leaf not in _PATCHED[root]):
            raise invalid(f"Invalid field in update mask: {path}.")
        if not rest:
            _set(merged, root, new.get(root))
        else:
            # A path may lead deeper into an override; what lies below its second part is replaced together.
            inner = dict(merged.get(root) or {})
            value = (new.get(root) or {}).get(leaf)
            if value is not None:
                inner.pop(_TOKENS.get(leaf, ""), None)
            _set(inner, leaf, value)
            _set(merged, root, inner or None)
    return merged


def _set(fields: dict[str, Any], name: str, value: Any) -> None:
    if value is None:
        fields.pop(name, None)
    else:
        fields[name] = value


def fields_of(queue: Queue) -> dict[str, Any]:
    """Return what would have to be asked for to get *queue*."""
    config = queue.config
    fields: dict[str, Any] = {
        "retry_config": asdict(config.retry_config),
        "stackdriver_logging_config": {"sampling_ratio": config.sampling_ratio},
        "task_ttl": config.task_ttl,
        "tombstone_ttl": config.tombstone_ttl,
    }
    if not queue.is_pull:
        # The burst follows from the rate, unless it was said: then it is not the one that would follow.
        limits = asdict(queue.rate_limits)
        if limits["max_burst_size"] == burst_of(limits["max_dispatches_per_second"]):
            del limits["max_burst_size"]
        fields["rate_limits"] = limits
    if config.app_engine_routing_override is not None:
        fields["app_engine_routing_override"] = asdict(config.app_engine_routing_override)
    if config.http_target is not None:
        fields["http_target"] = fields_of_target(config.http_target)
    return fields


def fields_of_target(target: HttpTarget) -> dict[str, Any]:
    """Return an HTTP target in the shape of v2's ``HttpTarget``."""
    fields: dict[str, Any] = {}
    if target.uri_override is not None:
        fields["uri_override"] = _fields_of_override(target.uri_override)
    if target.http_method is not None:
        fields["http_method"] = target.http_method.value
    if target.header_overrides:
        fields["header_overrides"] = [
            {"header": {"key": key, "value": value}} for key, value in target.header_overrides
        ]
    if target.oauth_token is not None:
        fields["oauth_token"] = asdict(target.oauth_token)
    if target.oidc_token is not None:
        fields["oidc_token"] = asdict(target.oidc_token)
    return fields


def _fields_of_override(override: UriOverride) -> dict[str, Any]:
    fields: dict[str, Any] = {
        name: value
        for name, value in (("scheme", override.scheme), ("host", override.host), ("port", override.port))
        if value is not None
    }
    if override.path is not None:
        fields["path_override"] = {"path": override.path}
    if override.query is not None:
        fields["query_override"] = {"query_params": override.query}
    fields["uri_override_enforce_mode"] = "ALWAYS" if override.always else "IF_NOT_EXISTS"
    return fields


def rate_limits_from(fields: Fields) -> RateLimits:
    """Return the limits that *fields* ask for."""
    rate = float(fields.get("max_dispatches_per_second", 0.0))
    concurrent = int(fields.get("max_concurrent_dispatches", 0))
    burst = int(fields.get("max_burst_size", 0))
    if not isfinite(rate):
        raise invalid("RateLimits.maxDispatchesPerSecond must be a finite number.")
    if rate < 0:
        raise invalid("RateLimits.maxDispatchesPerSecond cannot be negative.")
    if rate > MOST_PER_SECOND:
        raise invalid("RateLimits.maxDispatchesPerSecond must be less than or equal to 500.")
    if concurrent < 0:
        raise invalid("RateLimits.maxConcurrentDispatches cannot be negative.")
    if concurrent > MOST_CONCURRENT:
        raise invalid("RateLimits.maxConcurrentDispatches must be less than or equal to 5000.")
    rate = rate or MOST_PER_SECOND
    return RateLimits(
        max_dispatches_per_second=rate,
        # A negative burst is ignored, as by the original.
        max_burst_size=min(burst, MOST_BURST) if burst > 0 else burst_of(rate),
        max_concurrent_dispatches=concurrent or 1000,
    )


def retry_config_from(fields: Fields) -> RetryConfig:
    """Return the retrying that *fields* ask for."""
    default = RetryConfig()
    attempts = int(fields.get("max_attempts", 0)) or default.max_attempts
    doublings = int(fields.get("max_doublings", default.max_doublings))
    duration = float(fields.get("max_retry_duration", default.max_retry_duration))
    shortest = float(fields.get("min_backoff", default.min_backoff))
    longest = float(fields.get("max_backoff", default.max_backoff))
    if attempts < UNLIMITED:
        raise invalid("RetryConfig.maxAttempts must be greater or equal to -1.")
    if doublings < 0:
        raise invalid("RetryConfig.maxDoublings cannot be negative.")
    if duration < 0:
        raise invalid("RetryConfig.maxRetryDuration cannot be negative.")
    if shortest < 0:
        raise invalid("RetryConfig.minBackoff cannot be negative.")
    if longest < 0:
        raise invalid("RetryConfig.maxBackoff cannot be negative.")
    if shortest > longest:
        raise invalid("RetryConfig.minBackoff must be less than or equal to RetryConfig.maxBackoff.")
    return RetryConfig(
        max_attempts=attempts,
        max_retry_duration=float(int(duration)),
        min_backoff=shortest,
        max_backoff=longest,
        max_doublings=doublings,
    )


def http_target_from(fields: Fields | None) -> HttpTarget | None:
    """Return the HTTP target that *fields* ask for; an empty one is none."""
    if not fields:
        return None
    method = fields.get("http_method")
    oauth, oidc = fields.get("oauth_token"), fields.get("oidc_token")
    if oauth is not None and oidc is not None:
        raise invalid("HttpTarget can have only one of oauthToken and oidcToken.")
    overrides = tuple(
        (header.get("key", ""), header.get("value", ""))
        for header in (override.get("header", {}) for override in fields.get("header_overrides", ()))
    )
    check_headers("HttpTarget.headerOverrides", overrides)
    return HttpTarget(
        uri_override=_uri_override(fields.get("uri_override")),
        http_method=HttpMethod(method) if method else None,
        header_overrides=overrides,
        oauth_token=OAuthToken(**oauth) if oauth is not None else None,
        oidc_token=OidcToken(**oidc) if oidc is not None else None,
    )


def _uri_override(fields: Fields | None) -> UriOverride | None:
    if fields is None:
        return None
    host, port = fields.get("host"), fields.get("port")
    if host == "":
        raise invalid("UriOverride.host must not be empty.")
    if host is not None and not _HOST.fullmatch(host):
        raise invalid("UriOverride.host must be the name or the address of a host, without a port.")
    if port is not None and not 0 <= port <= 65535:
        raise invalid("UriOverride.port must be between 0 and 65535.")
    path, query = fields.get("path_override"), fields.get("query_override")
    return UriOverride(
        scheme=fields.get("scheme"),
        host=host,
        port=port,
        path=path.get("path", "") if path is not None else None,
        query=query.get("query_params", "") if query is not None else None,
        always=fields.get("uri_override_enforce_mode", "ALWAYS") == "ALWAYS",
    )


def _asks_for_pull(fields: Fields) -> bool:
    return "pull_target" in fields or fields.get("type") == QueueType.PULL


def _pull_retry(fields: Fields) -> RetryConfig:
    given = fields.get("retry_config", {})
    return retry_config_from({name: given[name] for name in ("max_attempts", "max_retry_duration") if name in given})


def _routing(fields: Fields | None) -> AppEngineRouting | None:
    return AppEngineRouting(**{**fields, "host": ""}) if fields is not None else None


def _ratio(value: float) -> float:
    if not 0.0 <= value <= 1.0:
        raise invalid("StackdriverLoggingConfig.samplingRatio must be between 0.0 and 1.0.")
    return value


def _within(field: str, value: float, bounds: tuple[float, float]) -> float:
    least, most = bounds
    if not least <= value <= most:
        raise invalid(f"{field} must be between {least:.0f}s and {most:.0f}s.")
    return value

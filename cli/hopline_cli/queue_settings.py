"""The settings of queues on the command line, with gcloud's flags: what each is called, takes and means in the API."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from hopline_cli.errors import UsageError
from hopline_cli.spans import span

Body = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A flag and its field."""

    flag: str
    path: tuple[str, ...]
    help: str
    read: Callable[[str], Any] = str
    is_list: bool = False

    @property
    def parameter(self) -> str:
        """Its name among the arguments of a command."""
        return self.flag.replace("-", "_")


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"{text!r} is not a number") from None


def _real(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"{text!r} is not a number") from None


def _attempts(text: str) -> int:
    """Return how many attempts are meant.

    >>> _attempts("unlimited")
    -1
    """
    return -1 if text == "unlimited" else _number(text)


def pairs(text: str) -> dict[str, str]:
    """Return what is written as ``key:value,key:value``.

    >>> pairs("service:mail,version:v1")
    {'service': 'mail', 'version': 'v1'}
    """
    found: dict[str, str] = {}
    for part in text.split(","):
        key, separator, value = part.partition(":")
        if not separator:
            raise UsageError(f"{text!r} is not written as KEY:VALUE,KEY:VALUE")
        found[key.strip()] = value.strip()
    return found


def routing(text: str) -> Body:
    """Return an App Engine route."""
    found = pairs(text)
    unknown = found.keys() - {"service", "version", "instance"}
    if unknown:
        raise UsageError(f"a route has service, version and instance, and no {', '.join(sorted(unknown))}")
    return dict(found)


def _uri(text: str) -> Body:
    """Return an override of URIs.

    >>> _uri("host:example.com,port:8080,mode:if-not-exists")["port"]
    '8080'
    """
    override: Body = {}
    for key, value in pairs(text).items():
        match key:
            case "scheme":
                override["scheme"] = value.upper()
            case "host" | "port":
                override[key] = value
            case "path":
                override["pathOverride"] = {"path": value}
            case "query":
                override["queryOverride"] = {"queryParams": value}
            case "mode":
                override["uriOverrideEnforceMode"] = value.upper().replace("-", "_")
            case _:
                raise UsageError(f"an override has scheme, host, port, path, query and mode, and no {key}")
    return override


def header(text: str) -> tuple[str, str]:
    """Return name and value of a header.

    >>> header("Accept: text/plain")
    ('Accept', 'text/plain')
    """
    name, separator, value = text.partition(":")
    if not separator:
        raise UsageError(f"{text!r} is not a header", hint='write it as "NAME: VALUE"')
    return name.strip(), value.strip()


def _override_of_header(text: str) -> Body:
    name, value = header(text)
    return {"header": {"key": name, "value": value}}


_RETRY, _RATE, _TARGET = "retryConfig", "rateLimits", "httpTarget"

SETTINGS = (
    Setting(
        flag="max-attempts", path=(_RETRY, "maxAttempts"), help="Attempts of a task, or unlimited.", read=_attempts
    ),
    Setting(flag="max-retry-duration", path=(_RETRY, "maxRetryDuration"), help="How long, as 90s or 2h.", read=span),
    Setting(flag="max-doublings", path=(_RETRY, "maxDoublings"), help="How often the wait doubles.", read=_number),
    Setting(flag="min-backoff", path=(_RETRY, "minBackoff"), help="The first wait, as 0.5s.", read=span),
    Setting(flag="max-backoff", path=(_RETRY, "maxBackoff"), help="The longest wait, as 1h.", read=span),
    Setting(
        flag="max-dispatches-per-second", path=(_RATE, "maxDispatchesPerSecond"), help="Tasks a second.", read=_real
    ),
    Setting(
        flag="max-concurrent-dispatches", path=(_RATE, "maxConcurrentDispatches"), help="Tasks at a time.", read=_number
    ),
    Setting(
        flag="log-sampling-ratio",
        path=("stackdriverLoggingConfig", "samplingRatio"),
        help="Part of operations that are logged.",
        read=_real,
    ),
    Setting(
        flag="routing-override",
        path=("appEngineRoutingOverride",),
        help="service:S,version:V,instance:I of App Engine.",
        read=routing,
    ),
    Setting(
        flag="http-uri-override",
        path=(_TARGET, "uriOverride"),
        help="scheme:..,host:..,port:..,path:..,query:..,mode:..",
        read=_uri,
    ),
    Setting(flag="http-method-override", path=(_TARGET, "httpMethod"), help="Method of requests.", read=str.upper),
    Setting(
        flag="http-header-override",
        path=(_TARGET, "headerOverrides"),
        help='"NAME: VALUE"; may be repeated.',
        read=_override_of_header,
        is_list=True,
    ),
    Setting(
        flag="http-oidc-service-account-email-override",
        path=(_TARGET, "oidcToken", "serviceAccountEmail"),
        help="Whose identity token requests carry.",
    ),
    Setting(
        flag="http-oidc-token-audience-override",
        path=(_TARGET, "oidcToken", "audience"),
        help="For whom that token is.",
    ),
    Setting(
        flag="http-oauth-service-account-email-override",
        path=(_TARGET, "oauthToken", "serviceAccountEmail"),
        help="Whose access token requests carry.",
    ),
    Setting(
        flag="http-oauth-token-scope-override", path=(_TARGET, "oauthToken", "scope"), help="What that token is for."
    ),
)


def body_of(given: Mapping[str, Any]) -> tuple[Body, list[str]]:
    """Return the fields of a queue that flags set, and the paths of those that they set or clear.

    Raises:
        UsageError: a flag has a value that it cannot have, or is set and cleared at once.
    """
    body: Body = {}
    mask: list[str] = []
    for setting in SETTINGS:
        value, cleared = given.get(setting.parameter), given.get(f"clear_{setting.parameter}", False)
        if value and cleared:
            raise UsageError(f"--{setting.flag} and --clear-{setting.flag} cannot be given together")
        if value or cleared:
            # Below the second part an override is replaced as a whole.
            mask.append(".".join(setting.path[:2]))
        if value:
            _put(body, setting.path, [setting.read(one) for one in value] if setting.is_list else setting.read(value))
    return body, list(dict.fromkeys(mask))


def _put(body: Body, path: tuple[str, ...], value: Any) -> None:
    for name in path[:-1]:
        body = body.setdefault(name, {})
    body[path[-1]] = value


def with_settings(*, clearing: bool) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add the flags of all settings to a command, which takes them as keywords; *clearing* adds their opposites."""

    def add(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command)
        parameters = [each for each in own.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
        for setting in SETTINGS:
            kind: Any = list[str] | None if setting.is_list else str | None
            option = typer.Option(f"--{setting.flag}", help=setting.help, show_default=False)
            parameters.append(_keyword(setting.parameter, Annotated[kind, option], None))
            if clearing:
                clear = typer.Option(f"--clear-{setting.flag}", help="Back to the default.", show_default=False)
                parameters.append(_keyword(f"clear_{setting.parameter}", Annotated[bool, clear], False))
        command.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {each.name: each.annotation for each in parameters}
        return command

    return add


def _keyword(name: str, annotation: Any, default: object) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)

"""Where the services of an App Engine app are, when there is no App Engine."""

from collections.abc import Iterable

from hopline_engine.core.cloud.model import AppEngineRouting


class AppEngineUrls:
    """Base URLs by service, version and instance; the most exact one counts."""

    def __init__(self, entries: Iterable[str]) -> None:
        """Read entries ``URL``, ``SERVICE=URL``, ``VERSION.SERVICE=URL`` or ``INSTANCE.VERSION.SERVICE=URL``."""
        self._urls: dict[str, str] = {}
        for entry in entries:
            name, separator, url = entry.partition("=")
            if separator and "://" not in name:
                self._urls[name.strip()] = url.strip()
            else:
                self._urls[""] = entry.strip()

    def __call__(self, routing: AppEngineRouting) -> str:
        """Return the base URL of a service.

        >>> AppEngineUrls(["http://a", "mail=http://b"])(AppEngineRouting(service="mail", version="1"))
        'http://b'

        Raises:
            ValueError: the setting names none.
        """
        service = routing.service or "default"
        names = [service, ""]
        if routing.version:
            names.insert(0, f"{routing.version}.{service}")
            if routing.instance:
                names.insert(0, f"{routing.instance}.{routing.version}.{service}")
        for name in names:
            if name in self._urls:
                return self._urls[name]
        raise ValueError(f"the setting app_engine_urls names no URL for the App Engine service {service!r}")

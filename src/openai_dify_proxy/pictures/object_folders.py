"""Opens object stores: S3 and compatible stores, Google Cloud Storage, Azure Blob Storage."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qsl, urlsplit

from msgspec import Struct

from openai_dify_proxy.pictures.object_errors import LIBRARY_MISSING
from openai_dify_proxy.settings import NetworkSettings, SettingsError

try:
    from obstore.exceptions import BaseError, UnknownConfigurationKeyError
    from obstore.store import AzureStore, GCSStore, S3Store
except ImportError:
    raise SettingsError([LIBRARY_MISSING]) from None

ObjectStore = S3Store | GCSStore | AzureStore

_CLIENT_OPTIONS = frozenset(("allow_http", "connect_timeout", "proxy_url", "timeout"))

_LOOPBACK = ("localhost", "127.0.0.0/8", "::1")
"""Never reached through a proxy."""


class ObjectFolder(Struct, frozen=True):
    """A prefix of an object store. ``serve`` says whether clients are redirected to signed links."""

    store: ObjectStore
    serve: Literal["proxy", "redirect"]


def open_object_folder(url: str, name: str = "", *, network: NetworkSettings | None = None) -> ObjectFolder:
    """Open the folder ``name`` of the store at ``scheme://bucket/prefix?option=value&…``, through ``network``.

    Options are those of obstore for the kind of store, some of its HTTP client, and ``serve=redirect``. Other values
    come from the environment variables of the store's own tools. Raises SettingsError.
    """
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query))
    serve = options.pop("serve", "proxy")
    if serve not in ("proxy", "redirect"):
        raise SettingsError([f"PICTURE_STORE has serve={serve}: it must be proxy or redirect"])
    plain = options.get("endpoint", "").startswith("http://")
    client: dict[str, Any] = {"connect_timeout": "5s", "timeout": "60s"}
    if network is not None:
        client |= _network_options(network, plain=plain)
    client |= {name: options.pop(name) for name in _CLIENT_OPTIONS & options.keys()}
    if plain:
        client["allow_http"] = True
    prefix = "/".join(part for part in (parts.path.strip("/"), name) if part)
    try:
        store = _make(parts.scheme, parts.netloc, prefix, options, client)
    except (BaseError, UnknownConfigurationKeyError, ValueError) as exc:
        raise SettingsError([f"PICTURE_STORE cannot be used: {_first_line(exc)}"]) from exc
    return ObjectFolder(store, "redirect" if serve == "redirect" else "proxy")


def _network_options(network: NetworkSettings, *, plain: bool) -> dict[str, Any]:
    """Return the proxy and the additional authorities as options of obstore's HTTP client."""
    options: dict[str, Any] = {}
    proxy = network.http_proxy if plain else network.https_proxy
    if proxy is not None and "*" not in network.no_proxy:
        options["proxy_url"] = proxy.get_secret_value()
        options["proxy_excludes"] = ",".join((*_LOOPBACK, *network.no_proxy))
    if network.extra_ca_certs is not None:
        options["root_certificate"] = Path(network.extra_ca_certs).expanduser().read_bytes()
    return options


def _make(scheme: str, bucket: str, prefix: str, options: Mapping[str, Any], client: Any) -> ObjectStore:
    retries: Any = {"max_retries": 3, "retry_timeout": timedelta(seconds=20)}
    common: Mapping[str, Any] = {"client_options": client, "retry_config": retries, "prefix": prefix or None}
    match scheme:
        case "gs":
            return GCSStore(bucket, **common, **options)
        case "az":
            return AzureStore(bucket, **common, **options)
        case _:
            return S3Store(bucket, **common, **options)


def _first_line(exc: Exception) -> str:
    return str(exc).strip().partition("\n")[0][:500]

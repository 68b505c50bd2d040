"""``GET /`` and ``GET /console/{version}/{path}``: the console's page and its files.

They need no key: they are the same for everyone. The page loads its data from the API, with the caller's key.
"""

from __future__ import annotations

from functools import cache

from starlette.requests import Request
from starlette.responses import Response

from openai_dify_proxy.console.assets import Asset, Assets, load_assets
from openai_dify_proxy.errors import NotFound

IMMUTABLE = "public, max-age=31536000, immutable"

SECURITY = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

_assets = cache(load_assets)


async def serve_console(request: Request) -> Response:
    """Return the page of the console, or 304."""
    return _response(request, _assets().page, "no-cache")


async def serve_console_file(request: Request) -> Response:
    """Return a file of the console. Raises NotFound, also for the files of another version."""
    assets: Assets = _assets()
    asset = assets.files.get(request.path_params["path"])
    if asset is None or request.path_params["version"] != assets.version:
        raise NotFound("The console has no such file. Reload the page.")
    return _response(request, asset, IMMUTABLE)


def _response(request: Request, asset: Asset, caching: str) -> Response:
    headers = {**SECURITY, "Cache-Control": caching, "ETag": asset.etag, "Vary": "Accept-Encoding"}
    if request.headers.get("if-none-match") == asset.etag:
        return Response(status_code=304, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(asset.compressed, headers={**headers, "Content-Encoding": "gzip"}, media_type=asset.media_type)
    return Response(asset.data, headers=headers, media_type=asset.media_type)

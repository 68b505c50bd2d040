"""The configured picture store, and the links to its pictures."""

from __future__ import annotations

import structlog

from openai_dify_proxy.pictures.local import LocalPictures
from openai_dify_proxy.pictures.records import PictureRecord
from openai_dify_proxy.pictures.store import PictureStore
from openai_dify_proxy.settings import Settings

log = structlog.get_logger(__name__)


class Pictures:
    """The picture store and its links.

    ``gateway`` is a template with ``{cid}`` for the links of pictures on IPFS; ``prefer_gateway`` says whether clients
    get these links.
    """

    def __init__(
        self,
        store: PictureStore,
        *,
        public_url: str | None = None,
        gateway: str | None = None,
        prefer_gateway: bool = False,
    ) -> None:
        self.store = store
        self._public_url = public_url
        self._gateway = gateway
        self._prefer_gateway = prefer_gateway

    def link(self, record: PictureRecord, base_url: str) -> str:
        """Return the URL of a picture for a client; ``base_url`` is the server's address in its request."""
        link = self.gateway_link(record) if self._prefer_gateway else None
        return link or f"{(self._public_url or base_url).rstrip('/')}/pictures/{record.name}"

    def gateway_link(self, record: PictureRecord) -> str | None:
        """Return the link of a picture on IPFS; None if it is not there, or no gateway is configured."""
        if self._gateway is None or record.ipfs != "sent" or record.cid is None:
            return None
        return self._gateway.replace("{cid}", record.cid)

    async def close(self) -> None:
        await self.store.close()


def open_pictures(settings: Settings) -> Pictures:
    """Open the configured store. Raises SettingsError if it cannot be used."""
    return Pictures(
        open_picture_store(settings),
        public_url=settings.public_url,
        gateway=settings.ipfs_gateway_url,
        prefer_gateway=settings.picture_links == "ipfs",
    )


def open_picture_store(settings: Settings) -> PictureStore:
    if settings.picture_store is None:
        local = LocalPictures(settings.image_storage_dir)
        try:
            local.restrict()
        except OSError as error:  # another user owns it
            log.warning("pictures_readable_by_others", path=str(local.directory), reason=error.strerror)
        return local
    from openai_dify_proxy.pictures.objects import open_object_store  # noqa: PLC0415 - its library is an extra

    return open_object_store(settings.picture_store.get_secret_value(), network=settings)

"""Archives of images, for the command line and the API. No garbage is collected while an archive is written or read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from baker.core.events import Reporter
from baker.core.workspace import STORE_LEASE, workplace
from baker.publish.archive.read import Imported, import_archive
from baker.publish.archive.write import Written, archive

if TYPE_CHECKING:
    from baker.publish.base import PublishServices
    from baker.trust.attest.keys import Keys


class Archives:
    """Writes images of one home to archives, and imports images from archives."""

    def __init__(self, services: PublishServices, keys: Keys) -> None:
        self._services, self._keys = services, keys
        self._report = Reporter(services.sink)

    def write(self, reference: str, path: Path, *, overwrite: bool = False) -> Written:
        """Write one file with an image, its ancestors, and all their records. See baker.publish.archive.write."""
        services = self._services
        with services.leases.shared(STORE_LEASE):
            image = services.catalog.resolve(reference)
            return archive(image, path, services.catalog, services.store, self._keys, overwrite=overwrite, report=self._report)

    def read(self, path: Path, *, beside: bool = False, trust: bool = False) -> Imported:
        """Import such a file completely or not at all. See baker.publish.archive.read."""
        services = self._services
        with workplace(services.home, services.leases, services.ledger) as scratch:
            return import_archive(
                path, scratch, services.catalog, services.store, self._keys, beside=beside, trust=trust, report=self._report
            )

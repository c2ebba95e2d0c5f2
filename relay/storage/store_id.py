"""What names a store to its clients: the numbers of its revisions mean nothing to another one."""

import hashlib
import os
from contextlib import suppress

import orjson

from relay.core.errors import StoreError
from relay.storage.documents import Documents

_DOCUMENT = "store_id"


async def read_store_id(documents: Documents, file_number: int) -> str:
    """Return the name of a store, the same in each run; a file that has none gets one.

    A copy of the file has another `file_number`, and so another name. What cannot be kept is a name for this run.
    """
    name = os.urandom(12).hex()
    with suppress(StoreError, ValueError):
        kept = await documents.get(_DOCUMENT)
        if kept is None:
            await documents.put(_DOCUMENT, orjson.dumps(name))
        else:
            name = str(orjson.loads(kept.body))
    return hashlib.blake2b(f"{name} {file_number}".encode(), digest_size=8).hexdigest()


def next_store_id(store_id: str, replacements: int) -> str:
    """Return the name for the rest of a run in which the file was replaced so many times."""
    if not replacements:
        return store_id
    return hashlib.blake2b(f"{store_id} {replacements}".encode(), digest_size=8).hexdigest()

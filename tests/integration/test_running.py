"""What runs beside tests ends with them."""

import asyncio
import sys
from asyncio.subprocess import PIPE

import pytest

from tests.support.running_relay import end_process


# A process does not hear that time jumps.
@pytest.mark.real_time
async def test_process_ends_that_wrote_more_than_anybody_read() -> None:
    code = "while True: print('more')"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=PIPE, limit=16_384)
    assert process.stdout is not None
    await process.stdout.readline()
    # Until there is so much unread that no more is taken.
    await asyncio.sleep(0.3)
    async with asyncio.timeout(30):
        await end_process(process)
    assert process.returncode is not None

"""The durable engine (DBOS) behind the conductor's `Journal`: each step's record is kept once it has ended.

A process carries one operation: its executor is named after it and only its own workflow is recovered, so that
several migrations may be driven from one machine. The caller holds the operation's lock before it starts one,
since two live engines of one executor would both run a step. What the journal says never decides where the guest
is: the hosts are asked for that.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from dbos import DBOS, DBOSConfig, DBOSPortableJSONSerializer, SetWorkflowID, WorkflowHandleAsync, error

from vferry.migration.record import StepRecord
from vferry.migration.stepper import Ending, Journal

_VERSION = "1"
"""Of the journal's format. Pinned, so that a newer vferry takes over what an older one began."""

Body = Callable[[Journal], Awaitable[Ending]]


class _Raised(BaseException):
    """Carries what is raised in a run past the engine.

    That records an exception as the end of the step and of the run, for good: whoever takes the run over would be given
    it again, and do nothing. A step's failure is a record, so what is raised is of this process: it ends as if killed.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


@contextmanager
def _unrecorded() -> Iterator[None]:
    try:
        yield
    except error.DBOSException:
        raise  # the engine's own
    except Exception as raised:
        raise _Raised(raised) from raised


class _Steps:
    """The journal inside a running workflow."""

    async def once(self, key: str, work: Callable[[], Awaitable[StepRecord]]) -> StepRecord:
        async def recorded() -> dict[str, Any]:
            with _unrecorded():
                return dict(msgspec.to_builtins(await work()))

        return msgspec.convert(await DBOS.run_step_async({"name": key}, recorded), StepRecord)


async def run_journaled(journal: Path, run: str, body: Body) -> Ending:
    """Runs `body` under the engine as the workflow `run`, or takes it up where it was left.

    A run that has ended before gives its ending again and does nothing. What is raised in one does not end it: it can
    be taken up.
    """
    config: DBOSConfig = {
        "name": "vferry",
        "system_database_url": f"sqlite:///{journal}",
        "executor_id": run,
        "application_version": _VERSION,
        "serializer": DBOSPortableJSONSerializer(),
        "log_level": "ERROR",
        "notification_listener_polling_interval_sec": 0.2,
    }
    DBOS(config=config)
    failed: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()

    @DBOS.workflow(name="migration")
    async def migration() -> dict[str, Any]:
        try:
            with _unrecorded():
                return dict(msgspec.to_builtins(await body(_Steps())))
        except _Raised as raised:
            if not failed.done():
                failed.set_exception(raised.error)
            raise

    try:
        DBOS.launch()
        with SetWorkflowID(run):
            handle = await DBOS.start_workflow_async(migration)
        return await _first(asyncio.ensure_future(_ending(handle)), failed)
    finally:
        DBOS.destroy(destroy_registry=True)
        # The engine has made its own the loop's executor, and shut that down.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor())


async def _ending(handle: WorkflowHandleAsync[dict[str, Any]]) -> Ending:
    return msgspec.convert(await handle.get_result(), Ending)


async def _first(result: asyncio.Task[Ending], failed: asyncio.Future[Ending]) -> Ending:
    """The engine's result, or what was raised: of a run that it took up itself, it would wait for a recorded end."""
    try:
        await asyncio.wait({result, failed}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        result.cancel()
        await asyncio.wait({result})
    if failed.done():
        if not result.cancelled():
            result.exception()  # the same
        return failed.result()
    return result.result()

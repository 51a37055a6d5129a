"""The durable engine (DBOS) behind the conductor's `Journal`: each step's record is kept once it has ended.

A process carries one operation: its executor is named after it and only its own workflow is recovered, so that
several migrations may be driven from one machine. The caller holds the operation's lock before it starts one,
since two live engines of one executor would both run a step. What the journal says never decides where the guest
is: the hosts are asked for that.
"""

import asyncio
import errno
import logging
import os
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from dbos import DBOS, DBOSConfig, DBOSPortableJSONSerializer, SetWorkflowID, WorkflowHandleAsync, error

from vferry.controller.room import NoRoom, room
from vferry.migration.record import StepRecord
from vferry.migration.stepper import Ending, Journal
from vferry.model.problem import Exit, Problem

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


class _Full(BaseException):
    """Ends a run past the engine, which has no room to record how."""


@contextmanager
def _unrecorded() -> Iterator[None]:
    try:
        yield
    except error.DBOSException:
        raise  # the engine's own
    except Exception as raised:
        raise _Raised(raised) from raised


class _Steps:
    """The journal inside a running workflow.

    Once there was no room for a step's record, it takes no more: whoever takes the run up would do that step again, and
    not those after it.
    """

    def __init__(self, leave: Callable[[], None] | None) -> None:
        self._leave = leave
        self.full = False

    async def once(self, key: str, work: Callable[[], Awaitable[StepRecord]]) -> StepRecord:
        if self.full:
            return await work()
        done: StepRecord | None = None

        async def recorded() -> dict[str, Any]:
            nonlocal done
            with _unrecorded():
                done = await work()
                return dict(msgspec.to_builtins(done))

        try:
            return msgspec.convert(await DBOS.run_step_async({"name": key}, recorded), StepRecord)
        except Exception as error:
            if self._leave is None or not _is_full(error):
                raise
        self.full = True
        self._leave()
        return done or await work()


def _is_full(error: BaseException | None) -> bool:
    """Whether the journal's disk was full: by SQLite's error below the engine's."""
    while error is not None and not isinstance(error, sqlite3.Error):
        error = error.__cause__
    return error is not None and error.sqlite_errorcode == sqlite3.SQLITE_FULL


def _is_news(record: logging.LogRecord) -> bool:
    """Leaves what the engine logs of a full disk, with its traceback, to whoever says what is to be done."""
    return not (record.exc_info and _is_full(record.exc_info[1]))


logging.getLogger("dbos").addFilter(_is_news)


@contextmanager
def _room_in(journal: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if not _is_full(error):
            raise
        with room():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(journal)) from error


async def run_journaled(journal: Path, run: str, body: Body, leave: Callable[[], None] | None = None) -> Ending:
    """Runs `body` under the engine as the workflow `run`, or takes it up where it was left.

    A run that has ended before gives its ending again and does nothing. What is raised in one does not end it: it can
    be taken up. Raises `NoRoom` where the journal cannot be begun. Where it cannot be written later on, `leave` is
    called, once, and the run goes on without; without `leave` it ends as if killed, with the problem ``no-space``.
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
    untold: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
    steps = _Steps(leave)
    ending: Ending | None = None

    @DBOS.workflow(name="migration")
    async def migration() -> dict[str, Any]:
        nonlocal ending
        try:
            with _unrecorded():
                ending = await body(steps)
        except _Raised as raised:
            if not untold.done():
                untold.set_exception(raised.error)
            raise
        if steps.full:
            if not untold.done():
                untold.set_result(ending)
            raise _Full
        return dict(msgspec.to_builtins(ending))

    try:
        with _room_in(journal):
            DBOS.launch()
            with SetWorkflowID(run):
                handle = await DBOS.start_workflow_async(migration)
        return await _first(asyncio.ensure_future(_ending(handle)), untold)
    except NoRoom:
        raise
    except Exception as error:
        if not _is_full(error):
            raise
        if ending is None or leave is None:
            raise _interrupted(journal) from error
        leave()
        return ending
    finally:
        DBOS.destroy(destroy_registry=True)
        # The engine has made its own the loop's executor, and shut that down.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor())


def _interrupted(journal: Path) -> Problem:
    return Problem(
        "no-space",
        f"In the middle of it, no space is left on the file system of {journal}",
        "Free some, then: vferry operation recover",
        exit=Exit.OPERATOR,
    )


async def _ending(handle: WorkflowHandleAsync[dict[str, Any]]) -> Ending:
    return msgspec.convert(await handle.get_result(), Ending)


async def _first(result: asyncio.Task[Ending], untold: asyncio.Future[Ending]) -> Ending:
    """The engine's result, or what it is not told: of a run that it took up itself it would wait for a recorded end."""
    try:
        await asyncio.wait({result, untold}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        result.cancel()
        await asyncio.wait({result})
    if untold.done():
        if not result.cancelled():
            result.exception()  # the same
        return untold.result()
    return result.result()

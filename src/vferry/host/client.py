"""The controller's side: a host on which operations are called."""

import asyncio
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import aiohttp
import msgspec

from vferry.host.api import Operation, Session
from vferry.host.certificates_tls import TlsFiles
from vferry.host.transport import CONNECT_S, Transport, find_transport, unreachable
from vferry.host.wire import MAX_BODY, decode_problem, reply_type, session_headers, tag
from vferry.model.problem import Exit, Problem

R = TypeVar("R")


def connect(
    name: str,
    uri: str,
    tls: TlsFiles | None = None,
    session: Session | None = None,
    *,
    directory: Path | None = None,
) -> "RemoteHost":
    """A host by its URI; the connection is made at the first call. `directory` is for ssh's sockets.

    Problem ``uri-invalid``. End it with `aclose`, or use it in ``async with``.
    """
    return RemoteHost(name, _Connection(name, find_transport(name, uri, tls, directory)), session)


class RemoteHost:
    """An agent on another host. It belongs to the event loop in which it was called first."""

    def __init__(self, name: str, connection: "_Connection", session: Session | None = None) -> None:
        self._name = name
        self._connection = connection
        self.session = session

    @property
    def name(self) -> str:
        return self._name

    def with_session(self, session: Session | None) -> "RemoteHost":
        """The same host and connection in the name of a session; closing either closes both."""
        return RemoteHost(self._name, self._connection, session)

    async def call(self, operation: Operation[R], *, timeout_s: float = 30.0) -> R:
        """Asks the agent. Problems: its own; ``host-unreachable``, when it may have done it or not;

        ``answer-invalid``, when it answers something else than expected.
        """
        body, headers = msgspec.json.encode(operation), session_headers(self.session)
        if len(body) > MAX_BODY:
            raise Problem("request-too-large", f"{tag(operation)} has {len(body)} bytes, more than an agent takes")
        status, answer = await self._connection.post(tag(operation), body, headers, timeout_s)
        if status != 200:
            raise decode_problem(answer) or self._invalid(operation, f"status {status}")
        try:
            reply: R = msgspec.json.decode(answer, type=reply_type(type(operation)))
        except msgspec.DecodeError as error:
            raise self._invalid(operation, str(error)) from error
        return reply

    async def aclose(self) -> None:
        """Ends the connection; ssh ends with it."""
        await self._connection.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def _invalid(self, operation: Operation[Any], detail: str) -> Problem:
        return Problem(
            "answer-invalid",
            f"Host {self._name} gave an answer to {tag(operation)} that is none: {detail}",
            "Its agent may be of another version: upgrade the older one",
            exit=Exit.REFUSED,
            host=self._name,
        )


class _Connection:
    """One HTTP session with an agent, shared by all `RemoteHost`s of it."""

    def __init__(self, name: str, transport: Transport) -> None:
        self.name = name
        self.transport = transport
        self._http: aiohttp.ClientSession | None = None

    async def post(self, tag: str, body: bytes, headers: dict[str, str], timeout_s: float) -> tuple[int, bytes]:
        """Status and body of the answer. Problem ``host-unreachable``."""
        try:
            async with asyncio.timeout(timeout_s):
                try:
                    return await self._post(tag, body, headers)
                except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, ConnectionResetError) as error:
                    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ClientSSLError):
                        raise
                    # An agent that has been restarted leaves dead connections behind; operations may be repeated.
                    return await self._post(tag, body, headers)
        except aiohttp.ConnectionTimeoutError as error:
            raise unreachable(self.name, *self.transport.explain(error)) from error
        except TimeoutError:
            cause = f"no answer to {tag} within {timeout_s:g} s"
            raise unreachable(self.name, cause, "Check the host and its agent's log; it may still be at it") from None
        except (aiohttp.ClientError, OSError) as error:
            raise unreachable(self.name, *self.transport.explain(error)) from error

    async def _post(self, tag: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        await self.transport.ready()
        if self._http is None:
            self._http = aiohttp.ClientSession(
                connector=self.transport.connector(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
                headers={"Content-Type": "application/json"},
            )
        async with self._http.post(
            f"{self.transport.url}/v1/{tag}", data=body, headers=headers, server_hostname=self.transport.server_name
        ) as answer:
            return answer.status, await answer.read()

    async def aclose(self) -> None:
        if self._http is not None:
            await self._http.close()
            self._http = None
        await self.transport.aclose()

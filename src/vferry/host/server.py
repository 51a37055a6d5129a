"""The agent's API over HTTP: on a socket for root, and over mutual TLS for the controller.

``POST /v1/<tag>`` with an operation as JSON; status 200 and its answer, or a `Problem` with another status.
"""

import asyncio
import logging
import re
import socket
import time
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from vferry.host.api import Operation
from vferry.host.certificates_tls import TlsFiles, is_controller, names, server_context
from vferry.host.configuration import Listen
from vferry.host.service import Service
from vferry.host.wire import MAX_BODY, describe, encode_problem, operations, read_session
from vferry.model.problem import Exit, Problem, no_space

log = logging.getLogger("vferry.agent")

SLOW_CLIENT_S = 10.0
"""How long a client may take to shake hands, to send a request's head, and to send its body."""
GRACE_S = 20.0
"""How long a stopping agent waits for what it is at."""
LOOKING = frozenset(
    {"inventory", "guest", "guest-network", "guest-latency", "definition", "fit", "migration", "connections", "relay"}
)
"""Operations that change nothing: not logged unless they fail."""
IP_FREEBIND = 15
"""Linux's: binds an address that the host has not got yet, such as that of a network still coming up."""


class Server:
    """Listens, checks who calls, decodes, answers, logs."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._http = web.Server(self._answer, access_log=None, keepalive_timeout=120.0, lingering_time=1.0)
        self._listeners: list[asyncio.Server] = []
        self._tls: asyncio.Server | None = None
        self._silent: set[asyncio.BaseProtocol] = set()

    async def listen_socket(self, path: Path) -> None:
        """Serves root on a UNIX socket. The caller has made sure that no other agent uses it."""
        loop = asyncio.get_running_loop()
        self._listeners.append(await loop.create_unix_server(self._connection, sock=_unix(path)))
        log.info("listening on %s", path)

    async def listen_tls(self, listen: Listen, files: TlsFiles) -> int:
        """Serves the controller; instead of an earlier TLS listener, if there is one. Returns the port."""
        context = server_context(files)
        if self._tls is not None:
            self._tls.close()
        self._tls = await asyncio.get_running_loop().create_server(
            self._connection, sock=_tcp(listen), ssl=context, ssl_handshake_timeout=SLOW_CLIENT_S
        )
        port = int(self._tls.sockets[0].getsockname()[1])
        log.info("listening on https://%s:%d", listen.address, port)
        return port

    async def close(self) -> None:
        """Takes no more calls, and lets those under way end."""
        for listener in [*self._listeners, *([self._tls] if self._tls else [])]:
            listener.close()
        self._http.pre_shutdown()
        await self._http.shutdown(GRACE_S)

    def _connection(self) -> asyncio.BaseProtocol:
        handler = self._http()
        self._silent.add(handler)

        def drop_if_silent() -> None:
            if handler in self._silent:
                self._silent.discard(handler)
                handler.force_close()

        asyncio.get_running_loop().call_later(SLOW_CLIENT_S, drop_if_silent)
        return handler

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        self._silent.discard(request.protocol)
        try:
            return _response(200, await self._call(request))
        except Problem as problem:
            return _response(_status(problem), encode_problem(problem))

    async def _call(self, request: web.BaseRequest) -> bytes:
        caller = _caller(request)
        kind = _kind(request)
        body = await _body(request)
        session = read_session(request.headers)
        operation = _decode(kind, body)
        what = f"{kind.__struct_config__.tag} {describe(operation)}".rstrip()
        who = f"{session.operation}/{session.epoch}" if session else "none"
        started, level = time.monotonic(), logging.INFO
        outcome = "failed"
        try:
            reply = await self.service.handle(operation, session)
            outcome = "done"
            level = logging.DEBUG if kind.__struct_config__.tag in LOOKING else logging.INFO
            return msgspec.json.encode(reply)
        except Problem as problem:
            outcome = problem.code
            raise
        except OSError as error:
            full = no_space(error, self.service.name)
            if full is None:
                log.exception("fault in %s, operation %s", what, who)
                raise self._fault(str(kind.__struct_config__.tag)) from error
            outcome = full.code
            raise full from error
        except Exception as error:
            log.exception("fault in %s, operation %s", what, who)
            raise self._fault(str(kind.__struct_config__.tag)) from error
        finally:
            took_ms = (time.monotonic() - started) * 1000
            log.log(level, "%s: %s, operation %s, %.1f ms, by %s", what, outcome, who, took_ms, caller)

    def _fault(self, tag: str) -> Problem:
        return Problem(
            "agent-fault",
            f"The agent of {self.service.name} failed in {tag}",
            f"Look at its log on {self.service.name}: journalctl -u vferry-agent",
            exit=Exit.UNDONE,
        )


def _caller(request: web.BaseRequest) -> str:
    """Who calls. Problem ``not-the-controller``: a host's certificate is good for gateways, not for orders."""
    transport = request.transport
    if transport is None or transport.get_extra_info("ssl_object") is None:
        return "root"
    certificate = transport.get_extra_info("peercert")
    if not is_controller(certificate):
        log.warning("refused a call by %s, which is not the controller", names(certificate))
        raise Problem(
            "not-the-controller",
            "The caller's certificate is not a controller's",
            "Call with the controller's certificate, or over ssh",
            exit=Exit.REFUSED,
        )
    return "the controller"


def _kind(request: web.BaseRequest) -> type[Operation[Any]]:
    found = re.fullmatch(r"/v1/([a-z][a-z0-9-]{0,63})", request.path)
    kind = operations().get(found[1]) if found else None
    if kind is None or request.method != "POST":
        raise Problem(
            "call-unknown",
            f"This agent knows no {request.method} {request.path[:80]}",
            "Controller and agent may be of different versions: upgrade the older one",
        )
    return kind


async def _body(request: web.BaseRequest) -> bytes:
    try:
        async with asyncio.timeout(SLOW_CLIENT_S):
            return await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise Problem("request-too-large", f"The request is larger than {MAX_BODY} bytes", "Send less") from None
    except TimeoutError:
        raise Problem(
            "request-slow", f"The request took longer than {SLOW_CLIENT_S:.0f} s to arrive", "Try again"
        ) from None


def _decode(kind: type[Operation[Any]], body: bytes) -> Operation[Any]:
    try:
        operation: Operation[Any] = msgspec.json.decode(body or b"{}", type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Problem(
            "request-invalid",
            f"The request {kind.__struct_config__.tag} is not what it should be: {error}",
            "Controller and agent may be of different versions: upgrade the older one",
        ) from error
    return operation


def _status(problem: Problem) -> int:
    exact = {"not-the-controller": 403, "call-unknown": 404, "request-too-large": 413, "request-slow": 408}
    by_exit = {Exit.USAGE: 400, Exit.REFUSED: 409}
    return exact.get(problem.code) or by_exit.get(problem.exit, 500)


def _response(status: int, body: bytes) -> web.Response:
    return web.Response(status=status, body=body, content_type="application/json")


def _unix(path: Path) -> socket.socket:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    path.chmod(0o600)
    return listener


def _tcp(listen: Listen) -> socket.socket:
    family = socket.AF_INET6 if ":" in listen.address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
        listener.bind((listen.address, listen.port))
    except OSError as error:
        listener.close()
        raise Problem(
            "listen-failed",
            f"Cannot listen on {listen.address}:{listen.port}: {error.strerror}",
            "Change listen in the agent's configuration, or end what uses that port",
        ) from error
    return listener

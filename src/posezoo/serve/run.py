"""The server itself: a socket, uvicorn, and an end that loses nothing."""

from __future__ import annotations

import errno
import logging
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn

from posezoo.errors import PosezooError
from posezoo.serve.app import create_app
from posezoo.serve.connections import LOG as CONNECTIONS_LOG
from posezoo.serve.connections import Seldom, connection_class, room
from posezoo.serve.gate import ACCESS_LOG
from posezoo.serve.service import Service
from posezoo.serve.settings import Settings

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_KEEP_ALIVE_S = 15
_GRACE_S = 5.0  # beyond the time limit of a request


def open_socket(host: str, port: int) -> socket.socket:
    """A socket that is bound to an address; port 0: any that is free.

    Raises:
        PosezooError: the port is taken or not allowed, or there is no such address here.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as err:
        raise PosezooError(f"no such address to listen on: {host} ({getattr(err, 'strerror', None) or err})") from None
    opened = socket.socket(family, kind, protocol)
    try:
        if sys.platform != "win32":  # where it would let two servers share a port
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
        opened.listen(128)
    except OSError as err:
        opened.close()
        if err.errno == errno.EADDRINUSE:
            raise PosezooError(
                f"port {port} of {host} is taken: stop what listens there, or choose another with --port (0: any)"
            ) from None
        raise PosezooError(f"cannot listen on {host}, port {port}: {err.strerror or err}") from None
    return opened


def address_of(opened: socket.socket) -> str:
    """The address of the page."""
    host, port = opened.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(
    settings: Settings, opened: socket.socket, *, log: bool = True, on_ready: Callable[[Service], object] | None = None
) -> None:
    """Serve until the process is told to end (SIGTERM or Ctrl-C), and finish the requests that were taken.

    Told a second time, the process ends at once.

    Args:
        settings: models and limits.
        opened: see `open_socket`; closed at the end.
        log: write a line for each request to stderr.
        on_ready: called once the models are loaded, in another thread.

    Raises:
        PosezooError: a model cannot be loaded.
    """
    _log_to_stderr(log)
    app = create_app(settings, on_failure=lambda: setattr(server, "should_exit", True))
    service: Service = app.state.service
    most, backlog = room()
    config = uvicorn.Config(
        app,
        http=connection_class(settings.timeout_s, most, service.metrics.refused.labels("busy").inc),
        backlog=backlog,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=int(settings.timeout_s + _GRACE_S),
    )
    server = _Server(config, service)
    if on_ready is not None:
        threading.Thread(target=_tell, args=(service, server, on_ready), daemon=True).start()
    with opened:
        server.run(sockets=[opened])
    if service.failure is not None:
        raise service.failure


class _Server(uvicorn.Server):
    """Ends for good once asked to: a signal is not raised again after the last answer, and a second one is obeyed."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._service.drain()
        super().handle_exit(sig, frame)
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)


def _tell(service: Service, server: uvicorn.Server, on_ready: Callable[[Service], object]) -> None:
    while not server.started and not server.should_exit:
        threading.Event().wait(0.02)
    try:
        service.wait_ready()
    except BaseException:  # which `serve` raises
        return
    on_ready(service)


def _log_to_stderr(requests: bool) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    # python_multipart warns of every form that is damaged, which the line of its request tells of
    levels = {"posezoo.serve": logging.WARNING, "uvicorn": logging.WARNING, "python_multipart": logging.ERROR}
    levels["asyncio"] = logging.WARNING
    for name, level in levels.items():
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
    for often in (logging.getLogger("asyncio"), CONNECTIONS_LOG):
        often.filters = [Seldom()]
    ACCESS_LOG.setLevel(logging.INFO if requests else logging.CRITICAL)

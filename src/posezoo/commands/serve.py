"""`posezoo serve`: the pipeline behind HTTP, with a page."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from posezoo.errors import PosezooError, require
from posezoo.terminal import AsBatchSize, AsDevice, AsPrecision, AsRuntime, AsThreads, guard

if TYPE_CHECKING:
    from posezoo.serve.service import Service


@guard
def serve_command(
    model: Annotated[
        list[str] | None,
        typer.Option("-m", "--model", help="A model of the zoo or a file; repeat it for several. Default: embedded."),
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="A checkpoint to use instead of the model's own.")] = None,
    detector: Annotated[
        str, typer.Option(help="embedded, yolov3-spp, yolov3, whole (each picture is one person), or a network's file.")
    ] = "embedded",
    host: Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0: any.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0: any that is free.")] = 8000,
    token_file: Annotated[
        Path | None, typer.Option(help="A file with the token that clients must send; else POSEZOO_TOKEN.")
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="Another name that clients may call this server by; repeat for several.")
    ] = None,
    runtime: AsRuntime = "auto",
    precision: AsPrecision = "auto",
    device: AsDevice = "auto",
    threads: AsThreads = None,
    batch_size: AsBatchSize = None,
    max_body_mb: Annotated[float, typer.Option(help="Refuse larger requests.")] = 20.0,
    max_megapixels: Annotated[float, typer.Option(help="Refuse larger pictures.")] = 50.0,
    max_images: Annotated[int, typer.Option(help="Refuse requests with more pictures.")] = 16,
    max_people: Annotated[int, typer.Option(help="Refuse pictures with more people.")] = 100,
    max_queue: Annotated[int, typer.Option(help="Requests taken at a time; more are told to come again.")] = 32,
    timeout: Annotated[float, typer.Option(help="Seconds until a request is given up.")] = 30.0,
    log: Annotated[bool, typer.Option("--log/--no-log", help="A line of JSON on stderr for each request.")] = True,
) -> None:
    """Serve the models over HTTP, with a page to try them on.

    Listens on this machine only, unless --host says otherwise. Ctrl-C ends it; what it has taken is finished, or given
    up at a second Ctrl-C.

    Example:  posezoo serve --port 8000
    """
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # a broken file is the client's news
    for module in ("fastapi", "uvicorn", "python_multipart", "prometheus_client"):
        require(module, "serve", "posezoo serve")
    from posezoo.media.images import limit_decoder
    from posezoo.serve.settings import Settings

    token = _token(token_file)
    settings = Settings(
        models=tuple(model or ["embedded"]),
        weights=weights,
        detector=detector,
        runtime=runtime,
        device=device,
        precision=precision,
        threads=threads,
        batch_size=batch_size,
        token=token,
        hosts=_hosts(host, allow_host),
        max_body_mb=max_body_mb,
        max_megapixels=max_megapixels,
        max_images=max_images,
        max_people=max_people,
        max_queue=max_queue,
        timeout_s=timeout,
    )
    limit_decoder(max_megapixels)  # before OpenCV is imported
    from posezoo.serve.run import address_of, open_socket, serve

    opened = open_socket(host, port)
    address = address_of(opened)
    if token is None and not _is_loopback(host):
        text = f"warning: {host} can be reached from other machines, and no token is asked for (POSEZOO_TOKEN)"
        typer.echo(text, err=True)

    def tell(service: Service) -> None:
        from posezoo.deploy.runtimes import describe

        for name, each in service.models.items():
            typer.echo(f"{name}: {describe(each.estimator.runtime)}")
        typer.echo(f"ready: {address}")

    typer.echo(f"posezoo serves on {address} (Ctrl-C ends it)")
    serve(settings, opened, log=log, on_ready=tell)


def _token(file: Path | None) -> str | None:
    """The token in a file or in the environment; None where neither is given."""
    if file is None:
        return os.environ.get("POSEZOO_TOKEN") or None
    try:
        token = file.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        raise PosezooError(f"no such token file: {file}") from None
    except UnicodeDecodeError:
        raise PosezooError(f"the token file {file} is not text") from None
    except OSError as err:
        raise PosezooError(f"cannot read the token file {file}: {err.strerror or err}") from None
    if not token:
        raise PosezooError(f"the token file {file} is empty")
    return token


def _is_loopback(host: str) -> bool:
    from posezoo.serve.settings import LOOPBACK

    return host in LOOPBACK or host.startswith("127.")


def _hosts(host: str, also: list[str] | None) -> tuple[str, ...]:
    """The names that a server of this machine alone is called by; one for others is called whatever they call it."""
    from posezoo.serve.settings import LOOPBACK

    if not _is_loopback(host) and not also:
        return ()
    return tuple(dict.fromkeys(name.lower() for name in (*LOOPBACK, host, *(also or []))))

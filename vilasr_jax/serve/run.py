"""`vilasr serve`: opens a model, starts its engine, and serves it until it is stopped."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from absl import logging
from etils import epath
from starlette.applications import Starlette

from vilasr_jax.errors import ConfigError, UserError
from vilasr_jax.open_checkpoint import open_checkpoint
from vilasr_jax.processing import load_image
from vilasr_jax.progress import show_progress
from vilasr_jax.sampler import load_weights, open_engine
from vilasr_jax.serve.address import check_listening, host_names
from vilasr_jax.serve.app import make_app
from vilasr_jax.serve.limits import Limits
from vilasr_jax.serve.replies import data_url
from vilasr_jax.serve.worker import Worker
from vilasr_jax.trained_model import TrainedModel, trained_model

SAMPLES = 12  # questions that the page offers
STAGES = ("rl", "reflect", "cold_start")


def serve(
    checkpoint: str | Path,
    *,
    host: str,
    port: int,
    token: str,
    limits: Limits,
    allow_hosts: Sequence[str] = (),
    cors: Sequence[str] = (),
    weights: str = "",
) -> None:
    """Serves a checkpoint of any kind (see `open_checkpoint`) until it is interrupted.

    On this machine alone it answers to `host` and the machine's own names; `allow_hosts` are more names, such
    as that which a container has for the machine. With an address beyond this machine it answers to any name,
    or, where there are `allow_hosts`, to these and its own alone.

    Raises:
      ConfigError: an address beyond this machine without a token.
      CheckpointError: `checkpoint` isn't a model.
    """
    check_listening(host, port, token)
    listener = _listen(host, port)
    opened = open_checkpoint(checkpoint)
    model, name = trained_model(opened, weights), opened.address.name
    worker = make_worker(model, limits)
    hosts = host_names(host, allow_hosts)
    questions = list(samples(opened.folder, model))
    app = make_app(worker, name, limits=limits, token=token, hosts=hosts, samples=questions, cors=cors)
    print("Warming up (compiling the model's steps)", flush=True)
    warm_up(worker)
    worker.start()
    shown = f"http://[{host}]" if ":" in host else f"http://{host}"
    where = f"{shown}:{listener.getsockname()[1]}"
    print(f"Serving {name} at {where} (the page) and {where}/v1 (the API)")
    print(f"At most {limits.slots} conversations at once; Ctrl-C stops the server.", flush=True)
    run_server(worker, app, listener)


def run_server(worker: Worker, app: Starlette, listener: socket.socket) -> None:
    """Serves until a signal comes; then open requests end with a 503, and running conversations at once."""
    import uvicorn

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            print("Stopping", flush=True)
            worker.close()
            await super().shutdown(sockets)

    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5)
    try:
        Server(config).run(sockets=[listener])
    finally:
        worker.stop()


def warm_up(worker: Worker) -> None:
    """Compiles in another thread, as Ctrl-C would reach the main one only when a call is compiled."""
    with show_progress("shapes") as show, ThreadPoolExecutor(1, "warm-up") as pool:
        try:
            pool.submit(worker.warm_up, show).result()
        except KeyboardInterrupt:
            print("Stopping, once this shape is compiled", flush=True)
            worker.close()
            raise


def _listen(host: str, port: int) -> socket.socket:
    """Opens the socket; done first, so that a port in use is reported at once."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        raise ConfigError(
            f"can't listen at {host}, port {port} ({error.strerror}); choose another --port"
        ) from None


def make_worker(model: TrainedModel, limits: Limits) -> Worker:
    """An engine for any questions and images within `limits`, not yet started."""
    if limits.images > model.settings.max_images:
        raise ConfigError(
            f"--images={limits.images}: conversations of this model hold at most "
            f"{model.settings.max_images} images, drawn ones included"
        )
    image = model.job.image
    engine = open_engine(
        model,
        slots=limits.slots,
        images=limits.images,
        decode_steps=8,  # few: a client gets text after each call
        call_rows=1,  # few shapes: all are compiled before the first client
        max_tokens=limits.max_tokens,
    )
    params = load_weights(engine, model)
    pixels = (image.min_pixels, image.max_pixels, model.images)
    return Worker(engine, params, model.settings, pixels, model.job.eval.sampling, limits)


def samples(checkpoint: Path | epath.Path, model: TrainedModel) -> Iterator[dict[str, Any]]:
    """Example questions: those of the run's evaluation, else new ones of its task."""
    for stage in STAGES:
        folder = checkpoint / "eval" / stage
        found = list(_evaluated(folder)) if (folder / "results.jsonl").is_file() else []
        if found:
            yield from found
            return
    try:
        rows = model.rows("test", SAMPLES)
    except Exception as error:  # a task of the user's own can raise anything, and is no reason not to serve
        logging.warning("the page offers no questions (%s)", " ".join(str(error).split()))
        return
    for row in rows:
        if len(row.images) == 1:
            picture = data_url(row.images[0])
            yield {
                "question": row.question,
                "options": list(row.options),
                "answer": row.answer,
                "image": picture,
            }


def _evaluated(folder: Path | epath.Path) -> Iterator[dict[str, Any]]:
    count = 0
    with (folder / "results.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            try:
                row = json.loads(line)
                (name,) = row["images"]
                picture = data_url(load_image(folder / name))
                keys = ("question", "options", "answer")
                yield {**{key: row[key] for key in keys}, "image": picture}
            except (ValueError, KeyError, TypeError, UserError):
                continue  # a line without its one image
            count += 1
            if count == SAMPLES:
                return

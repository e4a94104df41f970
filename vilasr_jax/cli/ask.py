"""Commands that put questions to a model: solve and serve."""

from __future__ import annotations

import os
from typing import Any

from vilasr_jax.cli.flags import MAX_TOKENS, WEIGHTS_FORM, check_at_least_1, max_tokens
from vilasr_jax.commands import Flag, command
from vilasr_jax.errors import ImageError
from vilasr_jax.files import folder_path, near_path


@command(
    "solve",
    "IMAGE...",
    Flag("question", "TEXT", "the question", required=True, short="Q"),
    Flag("checkpoint", "WHERE", "any checkpoint, see below", required=True),
    Flag("options", "A,B,C,D", "the choices, with commas between them; they get letters", []),
    Flag("out", "DIR", "a folder for the drawn images", "solved", writes="folder"),
    Flag("video", "", "the images are frames of one video, in order", False),
    Flag("fps", "N", "frames a second of the video, for a model that reads times (default: no times)", 0.0),
    WEIGHTS_FORM,
    MAX_TOKENS,
)
def run_solve(words: list[str], flags: Any) -> None:
    """One question about images, answered turn by turn.

    Prints each turn while it is written, and saves each drawn image. A checkpoint is
      runs/x            a workdir: its last finished stage
      runs/x:rl         a stage of it: cold_start, reflect or rl
      runs/x:rl@120     a saved step of a stage
      DIR               a Hugging Face folder, or an Orbax folder of `vilasr convert from-hf`
      hf://ORG/NAME     a model of the Hugging Face hub, downloaded once (the extra [hub])
    each local or gs://.

    Example
      vilasr solve maze.png --question "Where is the end?" --options=A,B,C,D --checkpoint runs/quickstart
    """
    from vilasr_jax.checkpoint.address import check_address
    from vilasr_jax.processing import load_image

    out, tokens = folder_path("--out", flags.out), max_tokens(flags)
    if missing := next((path for path in words if not os.path.exists(path)), None):
        raise ImageError(f"{missing}: no such image file{near_path(missing)}")
    images = [load_image(path) for path in words]
    check_address(flags.checkpoint)
    from vilasr_jax.parallel import check_devices
    from vilasr_jax.solve import solve

    check_devices()
    solve(
        images,
        flags.question,
        flags.checkpoint,
        out,
        flags.options,
        weights=flags.weights or "",
        max_tokens=tokens,
        video=flags.video,
        fps=flags.fps,
    )


@command(
    "serve",
    "CHECKPOINT",
    Flag("port", "8000", "the port to listen at; 0: any free one", 8000),
    Flag("host", "127.0.0.1", "the address to listen at; beyond this machine it needs a token", "127.0.0.1"),
    Flag("token", "SECRET", "what clients send as their API key (default: VILASR_TOKEN)"),
    Flag("allow-host", "A,B", "more host names that it answers to, such as host.docker.internal", []),
    Flag("cors", "A,B", "origins whose web pages may call the API, such as https://chat.example; *: any", []),
    Flag("images", "4", "images of a question, at most, such as 16 frames of a video", 4),
    Flag(
        "history",
        "HOW",
        "earlier turns of a chat: refuse, fold (into the question) or ignore",
        "refuse",
        choices=("refuse", "fold", "ignore"),
    ),
    Flag("slots", "8", "conversations at once; three times as many may wait, more get a 429", 8),
    WEIGHTS_FORM,
    MAX_TOKENS,
)
def run_serve(words: list[str], flags: Any) -> None:
    """A web page for questions to a model, and an OpenAI-compatible API.

    The page is at http://HOST:PORT, the API (chat completions with images, streaming) at http://HOST:PORT/v1.
    CHECKPOINT is a workdir (its last finished stage), or any other checkpoint (`vilasr solve --help` lists
    them). Ctrl-C ends it.
    It answers to the names of this machine; with a --host beyond it to any name, or to those of --allow-host.

    Example
      vilasr serve runs/quickstart
      curl http://127.0.0.1:8000/v1/chat/completions -H "Content-Type: application/json" -d @question.json
    """
    from vilasr_jax.checkpoint.address import check_address
    from vilasr_jax.serve.address import check_listening
    from vilasr_jax.serve.limits import Limits

    check_at_least_1(flags, "slots")
    check_at_least_1(flags, "images")
    token = os.environ.get("VILASR_TOKEN", "") if flags.token is None else flags.token
    check_listening(flags.host, flags.port, token)
    limits = Limits(
        slots=flags.slots,
        waiting=3 * flags.slots,
        max_tokens=max_tokens(flags),
        images=flags.images,
        body_bytes=max(1, flags.images // 4) * Limits.body_bytes,
        history=flags.history,
    )
    check_address(words[0])
    from vilasr_jax.parallel import check_devices
    from vilasr_jax.serve import serve

    check_devices()
    serve(
        words[0],
        host=flags.host,
        port=flags.port,
        token=token,
        limits=limits,
        allow_hosts=flags["allow-host"].value,
        cors=flags.cors,
        weights=flags.weights or "",
    )

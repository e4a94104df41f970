"""What `vilasr COMMAND --help` prints."""

_TRAINING = """
  --config=FILE         a file of configs/, such as configs/maze_tiny.py
  --config.KEY=VALUE    changes one key of it, such as --config.rl.steps=100; a key that does
                        not exist is an error
  --workdir=DIR         the folder of the run; everything is written there
  --json=FILE           also writes the table of scores to this file

The workdir holds config.json, the stages' folders with checkpoints and metrics.jsonl,
eval/, hf/ (the exported model), summary.json and report.html. Ctrl-C stops a run; the
same command goes on from the last checkpoint.
A finished stage is never run again: choose another --workdir, or delete the stage's folder.
"""

HELP: dict[str, str] = {
    "train": f"""vilasr train --config=FILE --workdir=DIR [--config.KEY=VALUE ...]

Runs all stages of a config in order: cold start, reflection, reinforcement learning,
evaluation, export, report.
{_TRAINING}
Example
  vilasr train --config=configs/maze_tiny.py --workdir=runs/quickstart
""",
    "sft": f"""vilasr sft --config=FILE --workdir=DIR [--config.KEY=VALUE ...]

Runs the first stage alone, the cold start: supervised fine-tuning on expert drawing
traces.
{_TRAINING}""",
    "reflect": f"""vilasr reflect --config=FILE --workdir=DIR [--config.KEY=VALUE ...]

Runs the second stage alone: samples conversations with the cold start's model, keeps
those that are right, well formed and self-corrected, and trains on them. The workdir
must hold a finished cold start.
{_TRAINING}""",
    "rl": f"""vilasr rl --config=FILE --workdir=DIR [--config.KEY=VALUE ...]

Runs the third stage alone: GRPO on questions without traces. The workdir must hold a
finished reflection.
{_TRAINING}""",
    "eval": f"""vilasr eval --config=FILE --workdir=DIR [--config.KEY=VALUE ...]
vilasr eval --answers=A.jsonl[,B.jsonl...] [--benchmark=NAME]

Answers held-out questions, and those of config.data.benchmarks, with the finished stages
of a workdir, in conversations that run freely, and writes eval/, summary.json and
report.html there. What is scored already is not scored again.
With --answers it scores anyone's results files, without a model, and compares several.
{_TRAINING}""",
    "solve": """vilasr solve IMAGE... --question=TEXT --checkpoint=DIR [--options=A,B,C,D] [--out=DIR]

Asks a model one question about one or more images. Prints each turn while it is
written, and saves each drawn image.

  --question=TEXT       what to ask
  --options=A,B,C,D     the choices, where there are any
  --checkpoint=DIR      a workdir (its last finished stage), or a Hugging Face folder
  --out=DIR             where the drawn images go (default: solved)

Example
  vilasr solve maze.png --question "Where does the path end?" --options=A,B,C,D --checkpoint runs/quickstart
""",
    "serve": """vilasr serve WORKDIR [--port=8000] [--host=127.0.0.1] [--token=SECRET] [--slots=8]

Serves a model until Ctrl-C: a page at http://HOST:PORT where one asks about an image
and watches the model draw, and an OpenAI-compatible API at http://HOST:PORT/v1 (chat
completions with images, streaming).
WORKDIR is the folder of a run (its last finished stage), or a Hugging Face folder.

  --port=8000           0 takes any free one
  --host=127.0.0.1      the address to listen at; one that other machines can reach needs a token
  --token=SECRET        what clients send as their API key (default: the environment variable VILASR_TOKEN)
  --allow-host=A,B      more host names that it answers to, such as host.docker.internal; by default
                        those of this machine (with a --host beyond it: any, or these where given)
  --slots=8             conversations at once; three times as many may wait, more are refused with 429

Needs the extra [serve]: pip install "vilasr-jax[serve]"

Example
  vilasr serve runs/quickstart
  curl http://127.0.0.1:8000/v1/chat/completions -H "Content-Type: application/json" -d @question.json
""",
    "data": """vilasr data make --config=FILE --workdir=DIR
vilasr data show [DIR] --config=FILE [--out=PAGE.html] [--count=8]
vilasr data import FORMAT SRC DST [--images=DIR]

make writes rows of the config's tasks as TFDS folders; config.make says how many. A
stopped run goes on.
show writes a page of rows with their images and traces, of the config or made in DIR.
import reads published data and writes rows that this program trains on and evaluates
with. Rows that can't be used are left out, and listed with file and line in DST.

  FORMAT                cold_start, rrs, rl, maze, SpatialEval_spatialreal, vsi_bench,
                        spar_bench or mmsi_bench
  SRC                   a folder, a zip file or a part of one, or gs://BUCKET/...
  --images=DIR          where relative image paths start, if not at SRC
""",
    "synthesize": f"""vilasr synthesize --config=FILE --workdir=DIR [--config.KEY=VALUE ...]

Samples traces from a teacher: the last finished stage, or config.model.init_from.
{_TRAINING}""",
    "plan": """vilasr plan --config=FILE --topology=v5e:8x8 [--steps=A,B] [--sweep] [--json=FILE]

Compiles the config's real steps for a TPU slice on any machine, without the slice: what
fits, memory, traffic between chips, and predicted time.

  --topology=KIND:SHAPE a slice, such as v5e:8x8, v6e:4x4 or v5p:4x4x4
  --steps=A,B           only these steps
  --sweep               tries meshes, remat policies and batch sizes, and recommends one
  --max_minutes=60      of all compilations together
  --chip_hour=PRICE     what a chip costs an hour, to tell the cost of 1,000 samples
  --layers=N            cuts the language model to N layers, for a quick look
  --save_hlo=DIR        a folder for each step's optimised HLO text
""",
    "bench": """vilasr bench NAME [--json=FILE]

  learn --config=FILE --workdir=DIR --seeds=0,1,2
                        a config's stages and controls, seed by seed, in one table
  soft --config=FILE --workdir=DIR --seeds=0,1,2
                        a cold start with and without the soft drawing term
  render                drawings a second
  sft                   supervised steps beside transformers, the same weights and data
  convert --size=7b     a conversion beside a plain copy of the same bytes
""",
    "convert": """vilasr convert from-hf SRC DST [--param_dtype=bfloat16]
vilasr convert to-hf SRC DST

Converts a Hugging Face folder (safetensors) to an Orbax checkpoint, or back, one tensor
at a time: memory stays far below the size of the model.

  --param_dtype=DTYPE   of the written weights: float32, bfloat16 or float16 (default: as stored;
                        where tensors are of mixed dtypes, as config.json says)

Example
  vilasr convert from-hf Qwen2.5-VL-7B-Instruct checkpoints/7b
""",
    "config": """vilasr config --config=FILE [--config.KEY=VALUE ...] [--json=FILE]

Prints every value of a config as it would run, one `KEY = VALUE` a line, and beside those
that differ from the defaults the default.

Example
  vilasr config --config=configs/vilasr.py:7b,v5e-64
""",
    "report": """vilasr report WORKDIR

Writes WORKDIR/report.html anew from what is in the workdir: one file that loads
nothing, to be opened or sent. Stages that have not run are left out, so it can be
written while a run goes on.
""",
}

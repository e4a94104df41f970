"""What happens between the start of a command and its first answer: compiled programs, and what is shown."""

import io
import os
import stat
import subprocess
import sys

import jax
import pytest

from tests.test_conversation_settings import workdir as workdir
from vilasr_jax.errors import ConfigError
from vilasr_jax.parallel.compile_cache import use_compile_cache
from vilasr_jax.progress import StatusLine
from vilasr_jax.sampler import open_engine
from vilasr_jax.trained_model import open_model

COUNTED = """
import sys, jax
from vilasr_jax import cli
seen = []
jax.monitoring.register_event_listener(lambda name, **_: seen.append(name.rpartition("/")[2]))
try:
    cli.main(["vilasr", *sys.argv[1:]])
finally:
    print("programs", seen.count("compile_requests_use_cache"), "read", seen.count("cache_hits"))
"""


@pytest.fixture
def cached(monkeypatch):
    """JAX's settings as in a user's process; they are restored."""
    names = ("compilation_cache_dir", "enable_compilation_cache", "persistent_cache_min_compile_time_secs")
    before = {f"jax_{name}": getattr(jax.config, f"jax_{name}") for name in names}
    jax.config.update("jax_enable_compilation_cache", True)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.mark.slow  # two processes compile a model's steps
def test_a_second_start_compiles_nothing(workdir, tmp_path):
    picture = tmp_path / "maze.png"
    open_model(workdir).rows("test", 1)[0].images[0].save(picture)
    env = {
        **os.environ,
        "JAX_ENABLE_COMPILATION_CACHE": "1",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    words = ["solve", picture, "--question=Where?", f"--checkpoint={workdir}", f"--out={tmp_path / 'out'}"]

    def programs():
        done = subprocess.run(
            [sys.executable, "-c", COUNTED, *map(str, words)],
            env=env,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        steps = [line.split()[1] for line in done.stderr.splitlines() if line.startswith("compiling ")]
        assert steps[0] == "prefill" and {"start", "decode"} <= set(steps)
        _, count, _, read = done.stdout.splitlines()[-1].split()
        return int(count), int(read)

    count, read = programs()
    assert count > 3 and read < count
    assert programs() == (count, count)


def test_the_cache_is_in_the_users_folder(cached, tmp_path):
    folder = use_compile_cache({"XDG_CACHE_HOME": str(tmp_path)})
    assert folder == tmp_path / "vilasr_jax" / "compiled" and stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert jax.config.jax_compilation_cache_dir == str(folder)
    assert jax.config.jax_persistent_cache_min_compile_time_secs == 0


def test_other_settings_of_the_cache_come_first(cached, tmp_path):
    jax.config.update("jax_compilation_cache_dir", "elsewhere")
    assert use_compile_cache({"XDG_CACHE_HOME": str(tmp_path)}) is None
    assert jax.config.jax_compilation_cache_dir == "elsewhere"
    jax.config.update("jax_compilation_cache_dir", None)
    jax.config.update("jax_enable_compilation_cache", False)
    assert use_compile_cache({"XDG_CACHE_HOME": str(tmp_path)}) is None
    assert jax.config.jax_compilation_cache_dir is None and not any(tmp_path.iterdir())


@pytest.mark.parametrize("home", ["/proc/none", __file__])
def test_a_folder_that_cannot_be_written_is_no_error(cached, home):
    assert use_compile_cache({"XDG_CACHE_HOME": home}) is None
    assert jax.config.jax_compilation_cache_dir is None


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_in_a_log_is_lines():
    log = io.StringIO()
    status = StatusLine(log, seconds=0)
    for done in (2**30, 3 * 2**30):
        status.loaded(done, 3 * 2**30)
    status.compiling("decode")
    status.clear()
    first, last, step = log.getvalue().splitlines()
    assert first == "loading weights: 1.0 of 3.0 GiB" and step == "compiling decode ..."
    assert last.startswith("loaded 3.0 GiB of weights in ")


def test_a_small_model_is_loaded_in_mib():
    log = io.StringIO()
    status = StatusLine(log, seconds=0)
    for done in (2**20, 2 * 2**20):
        status.loaded(done, 2 * 2**20)
    first, last = log.getvalue().splitlines()
    assert first == "loading weights: 1.0 of 2.0 MiB" and last.startswith("loaded 2.0 MiB of weights in ")


def test_weights_that_load_at_once_show_no_progress():
    log = io.StringIO()
    StatusLine(log).loaded(5, 5)
    assert log.getvalue() == ""


def test_progress_on_a_terminal_is_one_line():
    terminal = Terminal()
    status = StatusLine(terminal)
    status.compiling("decode")
    status.clear()
    assert "\n" not in terminal.getvalue() and terminal.getvalue().endswith("\r\x1b[K")


def test_max_tokens_without_room_for_a_prompt_is_refused(workdir):
    with pytest.raises(ConfigError, match=r"--max_tokens=20: a prompt alone may have \d+ tokens"):
        open_engine(open_model(workdir), slots=2, images=1, max_tokens=20)

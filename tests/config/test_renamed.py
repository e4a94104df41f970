"""Files of earlier versions are read by their old keys; elsewhere an old key is answered with the new one."""

import json

import ml_collections
import pytest

from vilasr_jax.config import JobConfig, from_config_dict, read_config, to_dict
from vilasr_jax.conversation_settings import SETTINGS_FILE, read_exported_settings
from vilasr_jax.errors import ConfigError
from vilasr_jax.workdir import open_workdir, read_job

OLD = {
    '"warmup_fraction"': '"warmup_share"',
    '"final_fraction"': '"final_share"',
    '"slip_fraction"': '"slip_share"',
    '"kept_fraction"': '"kept_share"',
    '"traces_fraction"': '"traces_share"',
    '"stop_fraction"': '"stop_share"',
    '"per_request_sampling"': '"own_sampling"',
    '"allow_same_questions"': '"share_questions"',
    '"dataset": ""': '"made": ""',
}


def test_a_workdir_with_old_keys_resumes(tmp_path):
    job = read_config("configs/maze_tiny.py")
    text = json.dumps(to_dict(job))
    for new, old in OLD.items():
        assert new in text
        text = text.replace(new, old)
    (tmp_path / "config.json").write_text(text)
    assert read_job(tmp_path) == job == open_workdir(job, tmp_path)
    assert (tmp_path / "config.json").read_text() == text


def test_an_exported_folder_with_old_keys_opens(tmp_path):
    settings = {"name": "old", "tasks": ["maze"], "cold_start": {"format": "text", "slip_share": 0.5}}
    (tmp_path / SETTINGS_FILE).write_text(json.dumps(settings))
    job, _ = read_exported_settings(tmp_path)
    assert (job.cold_start.format, job.cold_start.slip_fraction) == ("text", 0.5)


def test_an_old_key_elsewhere_is_answered_with_the_new_one():
    with pytest.raises(ConfigError, match=r"cold_start\.made: no such key; it is now cold_start\.dataset"):
        read_config("configs/maze_tiny.py", {"cold_start.made": "rows"})
    old = ml_collections.ConfigDict({"engine": {"own_sampling": True}})
    with pytest.raises(ConfigError, match=r"it is now config\.engine\.per_request_sampling"):
        from_config_dict(old)
    assert from_config_dict({}) == JobConfig()

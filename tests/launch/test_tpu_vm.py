"""`tpu_vm.py` against fake machines: every failure that would lose a run or money, played in seconds."""

import os
import re
import signal
import time

import pytest

from tests.launch.fake_cloud import JOB, WATCH, Cloud

DELETE = "gcloud compute tpus queued-resources delete one --zone=us-west4-a --force --quiet"


@pytest.fixture
def cloud(tmp_path):
    clouds = []

    def create(*plans):
        clouds.append(Cloud(tmp_path, *plans))
        return clouds[0]

    yield create
    for one in clouds:
        one.end()


def test_a_run_is_on_all_hosts_and_gives_the_machines_back(cloud):
    pod = cloud("0", "0")
    code, out = pod.run(WATCH)
    assert code == 0, out
    assert pod.calls("queued-resources create") == pod.calls("queued-resources delete") == 1
    assert [pod.starts(host) for host in (0, 1)] == [1, 1]


WORDS = (
    *JOB,
    "--config.data.traces=('gs://my-bucket/a b', 'gs://other/c')",
    "--config.data.benchmarks=('vsi_bench',)",
    '--config.name=it\'s "$HOME" & \\n; `id` *',
    "--config.model.init_from=gs://my-bucket/weights",
)


def test_words_arrive_as_they_were_given(cloud):
    """A tuple, quotes, dollars and blanks pass two shells; every gs:// of a word becomes a folder."""
    pod = cloud("0")
    code, out = pod.run(WATCH, command=WORDS)
    assert code == 0, out
    gcs = pod.folder / "gcs"
    assert pod.words(0) == [
        "train",
        "--config=configs/maze_tiny.py",
        f"--workdir={gcs}/my-bucket/runs/one",
        f"--config.data.traces=('{gcs}/my-bucket/a b', '{gcs}/other/c')",
        *WORDS[4:],
    ]
    assert {line.split()[-2] for line in (pod.folder / "mounts").read_text().splitlines()} == {
        "my-bucket",
        "other",
    }


def test_no_fuse_mounts_nothing_and_keeps_the_words(cloud):
    pod = cloud("0")
    code, out = pod.run(WATCH, "--no-fuse")
    assert code == 0, out
    assert pod.words(0) == list(JOB) and not (pod.folder / "mounts").exists()
    assert "install_host.sh\n" in pod.log


def test_a_failed_describe_changes_nothing(cloud):
    """While the state is not known a live slice is neither deleted nor requested again."""
    pod = cloud("wait")
    process = pod.start(WATCH)
    pod.wait(process, lambda: pod.starts(0))
    pod.set("describe_fails", *["UNAVAILABLE: connection reset by peer"] * 8)
    pod.wait(process, lambda: not (pod.folder / "describe_fails").read_text())
    pod.set("finish")
    out = process.communicate(timeout=60)[0]
    assert process.returncode == 0, out
    assert out.count("its state is not known now") == 8
    assert pod.calls("queued-resources create") == pod.calls("queued-resources delete") == pod.starts(0) == 1


def test_without_an_answer_of_gcloud_nothing_begins(cloud):
    pod = cloud("0")
    pod.set("describe_fails", "You do not currently have an active account selected")
    code, out = pod.run(WATCH)
    assert code == 1 and "active account" in out and not pod.calls("create") and not pod.calls("delete")


def test_a_preempted_resource_is_requested_again(cloud):
    pod = cloud("wait 0", "wait 0")
    process = pod.start(WATCH, "--spot")
    pod.wait(process, lambda: pod.starts(1))
    pod.set("next_states", "SUSPENDING", "SUSPENDED")
    out = process.communicate(timeout=60)[0]
    assert process.returncode == 0, out
    assert pod.calls("queued-resources create") == 2 and pod.calls("queued-resources delete") == 2
    assert [pod.starts(host) for host in (0, 1)] == [2, 2]
    assert "was preempted" in out and pod.calls("--spot") == 2


def test_a_request_that_fails_is_tried_with_growing_pauses(cloud):
    pod = cloud("0")
    pod.set("create_fails", *["RESOURCE_EXHAUSTED: quota"] * 3)
    code, out = pod.run(WATCH)
    assert code == 0, out
    assert re.findall(r"next try in (\S+) s", out) == ["0.01", "0.02", "0.04"]


def test_a_request_that_can_never_be_met_ends_at_once(cloud):
    pod = cloud("0")
    pod.set("create_fails", "INVALID_ARGUMENT: accelerator type")
    code, out = pod.run(WATCH)
    assert code == 1 and "INVALID_ARGUMENT" in out
    assert pod.calls("queued-resources create") == 1 and pod.calls("queued-resources delete") == 0


def test_failed_requests_are_deleted_and_requested_again(cloud):
    pod = cloud("0")
    pod.set("next_states", "WAITING_FOR_RESOURCES", "FAILED")
    pod.set("state", "WAITING_FOR_RESOURCES")
    code, out = pod.run(WATCH)
    assert code == 0, out
    assert pod.calls("queued-resources create") == 1 and pod.calls("queued-resources delete") == 2


def test_a_failed_install_deletes_what_was_requested(cloud):
    pod = cloud("0")
    pod.set("scp_fails", *["connection refused"] * 3)
    code, out = pod.run(WATCH)
    assert code == 1 and "could not be installed" in out
    assert pod.calls("tpu-vm scp") == 3 and pod.calls("queued-resources delete") == 1
    assert not (pod.folder / "state").exists()


def test_an_install_that_fails_once_is_tried_again(cloud):
    pod = cloud("0")
    pod.set("scp_fails", "connection refused")
    code, out = pod.run(WATCH)
    assert code == 0, out


def test_machines_of_an_earlier_command_stay_and_are_named(cloud):
    """What this command did not request it does not delete, but it says what costs and how to end that."""
    pod = cloud("0")
    pod.set("state", "ACTIVE")
    pod.set("scp_fails", *["connection refused"] * 3)
    code, out = pod.run(WATCH)
    assert code == 1 and pod.calls("queued-resources delete") == 0
    assert "IS NOT DELETED and may COST MONEY" in out and DELETE in out


def test_what_can_not_be_deleted_is_named(cloud):
    pod = cloud("0")
    pod.set("scp_fails", *["connection refused"] * 3)
    pod.set("delete_fails", "UNAVAILABLE")
    code, out = pod.run(WATCH)
    assert code == 1 and "IS NOT DELETED and may COST MONEY" in out and DELETE in out


def test_deleting_after_the_run_is_tried_again(cloud):
    pod = cloud("0")
    pod.set("delete_fails", "UNAVAILABLE", "UNAVAILABLE")
    code, out = pod.run(WATCH)
    assert code == 0 and pod.calls("queued-resources delete") == 3, out


@pytest.mark.parametrize("number, ends", [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_an_interrupt_before_the_run_deletes_the_request(cloud, number, ends):
    pod = cloud("0")
    pod.set("slow_create")
    code, out = pod.interrupt(pod.start(WATCH), lambda: (pod.folder / "state").exists(), number)
    assert code == ends and pod.calls("queued-resources delete") == 1, out
    assert not (pod.folder / "state").exists()


def test_an_interrupt_while_waiting_for_machines_deletes_them(cloud):
    pod = cloud("0")
    pod.set("next_states", *["WAITING_FOR_RESOURCES"] * 300)
    process = pod.start("create", "--type=v6e-8")
    code, out = pod.interrupt(process, lambda: pod.calls("describe") > 2)
    assert code == 130 and not (pod.folder / "state").exists(), out


def test_an_interrupt_during_the_run_leaves_it_and_says_so(cloud):
    pod = cloud("wait")
    code, out = pod.interrupt(pod.start(WATCH), lambda: pod.starts(0) and pod.calls("--state") > 2)
    assert code == 130 and pod.calls("queued-resources delete") == 0
    assert "the same command watches it again" in out and DELETE in out
    pod.set("finish")
    code, out = pod.run(WATCH)
    assert code == 0 and pod.starts(0) == 1, out
    assert pod.calls("queued-resources create") == 1 and pod.calls("queued-resources delete") == 1


def test_exit_143_is_resumed(cloud):
    pod = cloud("143 0", "143 0")
    code, out = pod.run(WATCH)
    assert code == 0 and [pod.starts(host) for host in (0, 1)] == [2, 2], out
    assert pod.calls("queued-resources create") == 1 and pod.calls("queued-resources delete") == 1


def test_a_host_that_restarted_joins_again(cloud):
    """A worker whose programs are gone, as after maintenance, is started again; the others stay."""
    pod = cloud("wait", "wait")
    process = pod.start(WATCH)
    pod.wait(process, lambda: pod.starts(0) and pod.starts(1))
    os.killpg(int((pod.folder / "host-1" / "vilasr.pid").read_text()), signal.SIGKILL)
    pod.wait(process, lambda: pod.starts(1) == 2)
    pod.set("finish")
    out = process.communicate(timeout=60)[0]
    assert process.returncode == 0 and [pod.starts(host) for host in (0, 1)] == [1, 2], out


def test_one_host_that_refuses_ends_all(cloud):
    """Host 2 refuses: the others save and end, logs are in the bucket, machines are given back."""
    pod = cloud("wait", "wait", "2")
    began = time.monotonic()
    code, out = pod.run(WATCH)
    assert code == 2 and time.monotonic() - began < 30, out
    assert "ended with code 2 on host-2" in out and "the command was refused" in out
    assert pod.calls("queued-resources delete") == 1
    logs = pod.saved_logs()
    assert len(logs) == 3 and [("saved" in text) for text in logs.values()] == [True, True, False]


def test_a_host_that_gives_up_ends_all(cloud):
    pod = cloud("wait", "7")
    code, out = pod.run(WATCH)
    assert code == 7 and "ended with code 7 on host-1" in out and pod.calls("queued-resources delete") == 1, (
        out
    )


def test_a_silent_host_does_not_count_as_done(cloud):
    """Machines are not given back while a worker whose answer is missing may still run."""
    pod = cloud("0", "wait")
    process = pod.start(WATCH)
    pod.wait(process, lambda: pod.starts(1))
    (pod.folder / "host-1" / "kept.silent").touch()
    looks = pod.calls("--state")
    pod.wait(process, lambda: pod.calls("--state") >= looks + 5)
    assert not pod.calls("queued-resources delete")
    (pod.folder / "host-1" / "kept.silent").unlink()
    pod.set("finish")
    out = process.communicate(timeout=60)[0]
    assert process.returncode == 0 and "1 of 2 workers answered" in out, out


def test_another_command_that_runs_there_is_left_alone(cloud):
    pod = cloud("wait")
    code, out = pod.interrupt(pod.start(WATCH), lambda: pod.starts(0) and pod.calls("--state") > 2)
    code, out = pod.run(WATCH, command=(*JOB, "--config.rl.steps=3"))
    assert code == 1 and "another command runs on one" in out
    assert pod.starts(0) == 1 and not pod.calls("queued-resources delete")


def test_an_old_result_of_another_command_is_no_result(cloud):
    pod = cloud("0 wait")
    pod.set("state", "ACTIVE")
    pod.run("install")
    pod.run("run", command=(*JOB, "--config.rl.steps=3"))
    process = pod.start(WATCH)
    pod.wait(process, lambda: pod.starts(0) == 2)
    pod.set("finish")
    out = process.communicate(timeout=60)[0]
    assert process.returncode == 0, out


def test_logs_are_in_the_bucket_while_the_run_goes(cloud):
    pod = cloud("wait", "wait")
    process = pod.start(WATCH)
    pod.wait(process, lambda: ["attempt 0" in text for text in pod.saved_logs().values()] == [True, True])
    assert [name[:6] for name in pod.saved_logs()] == ["host-0", "host-1"]
    pod.set("finish")
    assert process.wait(60) == 0


def test_stop_saves_and_status_says_so(cloud):
    pod = cloud("wait")
    pod.set("state", "ACTIVE")
    pod.run("install")
    assert pod.run("run")[0] == 0
    while not pod.starts(0):
        time.sleep(0.05)
    time.sleep(0.3)  # its trap is set
    assert "host-0 running" in pod.run("status")[1]
    assert pod.run("run")[1].count("already there") == 1 and pod.starts(0) == 1
    code, out = pod.run("stop")
    assert code == 0 and "host-0 ended 143" in pod.run("status")[1], out
    assert "saved" in next(iter(pod.saved_logs().values()))

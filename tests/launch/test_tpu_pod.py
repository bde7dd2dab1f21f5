# SPDX-License-Identifier: Apache-2.0
"""tpu_pod.sh with tpu_worker.sh and tpu_end.sh, against a cloud in a folder (cloud.py)."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.launch.stand_ins import (
    NEW,
    POD,
    RESOURCE,
    RUN,
    Launch,
    await_call,
    await_file,
    make_python,
    requests,
    worker,
)


def test_from_nothing_to_a_run_and_back(pod: Launch) -> None:
    status, calls, stderr = pod.run("launch/tpu_pod.sh", "run", *NEW, *RUN)
    assert status == 0, stderr
    (create,) = requests(calls, "gcloud", "<create>")
    for wanted in (
        "<--accelerator-type=v5litepod-16>",
        "<--runtime-version=v2-alpha-tpuv5-lite>",
        "<--node-id=mypod>",
        "<--project=project>",
        "<--valid-until-duration=12h>",
        f"<--metadata=mlm-jax-pod={RESOURCE},mlm-jax-time=24h>",
        f"<--metadata-from-file=startup-script={pod.checkout}/launch/tpu_end.sh>",
    ):
        assert wanted in create
    assert "--spot" not in create
    assert calls.count("venv of 3.13") == 2  # of the workers' own Python
    for number in (0, 1):
        folder = worker(pod, number) / "mlm_jax"
        (pip,) = [c for c in calls if c.startswith("pip") and str(folder) in c]
        assert f"<{folder}[tpu]>" in pip
        assert (
            f"mlm_jax <pretrain> <configs/quickstart.py> <--workdir> <gs://bucket/it's a $run> "
            f"<--hosts.start> <cluster> in {folder}"
        ) in calls
    assert "training" in pod.stdout  # worker 0's log
    assert "<delete>" in calls[-1] and "<--force>" in calls[-1]
    assert not (pod.cloud / "states").exists()
    assert "waiting for mypod" in stderr and "it will be deleted in 24 h" in stderr
    assert "Attempting to connect" not in stderr  # which gcloud says of every connection


def test_a_config_of_ones_own_goes_along(pod: Launch, tmp_path: Path) -> None:
    own = tmp_path / "my configs"
    own.mkdir()
    (own / "my own.py").write_text("# mine")
    status, calls, stderr = pod.run("launch/tpu_pod.sh", "run", *NEW, "my own.py", *RUN[1:], cwd=own)
    assert status == 0, stderr
    assert len(requests(calls, "mlm_jax <pretrain> <my own.py>", "")) == 2
    assert (worker(pod, 1) / "mlm_jax/my own.py").read_text() == "# mine"


def test_of_a_workdir_its_config_goes_along(pod: Launch, tmp_path: Path) -> None:
    """As of a study's run, whose corpus lies in the bucket."""
    folder = tmp_path / "runs/exponent-0.3--seed-0"
    (folder / "corpus").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "corpus/blocks").write_text("many")
    status, calls, stderr = pod.run(
        "launch/tpu_pod.sh", "run", *NEW, "runs/exponent-0.3--seed-0", *RUN[1:], cwd=tmp_path
    )
    assert status == 0, stderr
    assert len(requests(calls, "mlm_jax <pretrain> <exponent-0.3--seed-0>", "")) == 2
    there = worker(pod, 1) / "mlm_jax/exponent-0.3--seed-0"
    assert [path.name for path in there.iterdir()] == ["config.json"]


@pytest.mark.parametrize(
    "step", ["mkdir", "bash mlm_jax/launch/tpu_worker.sh install", "bash mlm_jax/launch/tpu_worker.sh start"]
)
def test_a_failing_worker_is_named(pod: Launch, step: str) -> None:
    status, calls, stderr = pod.run("launch/tpu_pod.sh", "run", *NEW, *RUN, WORKERS="3", SSH_FAILS=f"2 {step}")
    assert status == 2
    assert "[mypod:2] boom" in pod.stdout
    last = stderr.splitlines()[-1]
    assert last.startswith("error: run failed on 1 of 3 workers of mypod: mypod:2; what they say is above")
    assert "launch/tpu_pod.sh delete mypod --zone us-central1-a" in last  # it costs until then
    assert not requests(calls, "gcloud", "<delete>")


def test_a_failed_installation_is_named(pod: Launch) -> None:
    status, calls, stderr = pod.run("launch/tpu_pod.sh", "run", *NEW, *RUN, PIP_EXIT="1")
    assert status == 2
    assert "[mypod:1] error: the installation failed; what pip says is above" in pod.stdout
    assert "failed on 2 of 2 workers of mypod: mypod:0 mypod:1" in stderr
    assert not requests(calls, "mlm_jax", "")


def test_a_run_that_fails_leaves_the_pod_and_its_last_words(pod: Launch) -> None:
    status, calls, _ = pod.run("launch/tpu_pod.sh", "run", *NEW, *RUN, RUN_EXIT="7")
    assert status == 7
    assert "[mypod:1] training" in pod.stdout
    assert not requests(calls, "gcloud", "<delete>")


def test_stop_saves_and_start_continues(pod: Launch, tmp_path: Path) -> None:
    pod.run("launch/tpu_pod.sh", "create", *NEW)
    pod.run("launch/tpu_pod.sh", "install", *POD)
    started = tmp_path / "started"
    status, _, stderr = pod.run("launch/tpu_pod.sh", "start", *POD, *RUN, WAIT=str(started))
    assert status == 0, stderr
    await_file(started)
    status, _, stderr = pod.run("launch/tpu_pod.sh", "start", *POD, *RUN)
    assert (status, stderr.splitlines()[-1]) == (2, "error: a run is going on on mypod; follow it, or stop it first")
    pod.run("launch/tpu_pod.sh", "status", *POD)
    assert "[mypod:1] running" in pod.stdout
    status, _, stderr = pod.run("launch/tpu_pod.sh", "stop", *POD)
    assert status == 0 and "the pod stays, and costs" in stderr.lower()
    for number in (0, 1):
        assert (worker(pod, number) / "mlm_jax/log").read_text() == "training\nsaved\n"
    assert pod.run("launch/tpu_pod.sh", "follow", *POD)[0] == 143
    status, calls, _ = pod.run("launch/tpu_pod.sh", "start", *POD, *RUN)
    assert status == 0 and not requests(calls, "pip", "")
    assert pod.run("launch/tpu_pod.sh", "follow", *POD)[0] == 0


def test_a_lost_connection_ends_nothing(pod: Launch, tmp_path: Path) -> None:
    started = tmp_path / "started"
    (pod.cloud / "lost").write_text("follow status")  # once each
    with ThreadPoolExecutor() as pool:
        ran = pool.submit(pod.run, "launch/tpu_pod.sh", "run", *NEW, *RUN, WAIT=str(started))
        await_file(started)
        await_call(pod, "tpu_worker.sh follow", 2)
        for number in (0, 1):
            os.kill(int((worker(pod, number) / "pid").read_text()), 15)
        status, calls, stderr = ran.result(60)
    assert status == 143, stderr
    assert (pod.cloud / "lost").read_text().strip() == ""
    assert len(requests(calls, "gcloud", "follow>")) >= 2
    assert not requests(calls, "gcloud", "<delete>")


def test_the_same_command_follows_a_run_that_goes_on(pod: Launch) -> None:
    pod.run("launch/tpu_pod.sh", "create", *NEW)
    pod.run("launch/tpu_pod.sh", "install", *POD)
    started = pod.cloud / "started"
    pod.run("launch/tpu_pod.sh", "start", *POD, *RUN, WAIT=str(started))
    await_file(started)
    with ThreadPoolExecutor() as pool:
        ran = pool.submit(pod.run, "launch/tpu_pod.sh", "run", *NEW, *RUN)
        await_call(pod, "tpu_worker.sh follow")
        for number in (0, 1):
            os.kill(int((worker(pod, number) / "pid").read_text()), 15)
        status, calls, stderr = ran.result(60)
    assert status == 143
    assert "a run is going on; this follows it" in stderr
    assert not requests(calls, "gcloud", "<scp>") and not requests(calls, "gcloud", "<create>")


def test_a_preempted_pod_is_asked_for_again(pod: Launch) -> None:
    """Preempted while the run is followed, and once more while it is installed."""
    (pod.cloud / "lost").write_text("follow status")
    comes = "ACTIVE/READY\nACTIVE/READY\nSUSPENDED/\n"
    first = pod.run("launch/tpu_pod.sh", "create", *NEW, "--spot", COMES=comes.replace("SUSPENDED/", "ACTIVE/READY"))
    assert first[0] == 0
    (pod.cloud / "states").write_text(comes)
    status, calls, stderr = pod.run("launch/tpu_pod.sh", "run", *NEW, "--spot", *RUN)
    assert status == 0, stderr
    assert "mypod was preempted; the same command continues the run on another" in stderr
    assert "mypod has ended (preempted, or not to be had in time); asking for another" in stderr
    (create,) = requests(calls, "gcloud", "<create>")
    assert "<--spot>" in create
    assert len(requests(calls, "gcloud", "<delete>")) == 2  # the preempted one, and the one whose run is done
    assert len(requests(calls, "mlm_jax", "")) == 4  # two workers, twice


def test_a_run_that_lost_a_worker_is_not_started_over_and_over(pod: Launch) -> None:
    """75 is its status, as of a run whose pod was preempted, but the pod is there."""
    status, calls, _ = pod.run("launch/tpu_pod.sh", "run", *NEW, *RUN, RUN_EXIT="75")
    assert status == 75
    assert "[mypod:1] training" in pod.stdout
    assert len(requests(calls, "mlm_jax", "")) == 2
    assert len(requests(calls, "gcloud", "<create>")) == 1


def test_follow_tells_a_preempted_pod_from_one_that_is_gone(pod: Launch) -> None:
    pod.run("launch/tpu_pod.sh", "create", *NEW)
    for state, expected, message in (
        ("ACTIVE/READY\nSUSPENDED/\n", 75, "mypod was preempted; the same command continues the run on another"),
        ("ACTIVE/READY\n/\n", 2, "error: mypod is gone: deleted by hand, by its time-out, or since its run is done"),
    ):
        (pod.cloud / "states").write_text(state)
        (pod.cloud / "lost").write_text("follow status")
        status, _, stderr = pod.run("launch/tpu_pod.sh", "follow", *POD)
        assert status == expected
        assert stderr.splitlines()[-1].startswith(message)


def test_a_request_that_fails_is_not_repeated(pod: Launch) -> None:
    status, calls, stderr = pod.run("launch/tpu_pod.sh", "run", *NEW, *RUN, COMES="PROVISIONING/\nFAILED/\n")
    assert status == 2
    assert stderr.splitlines()[-1].startswith(
        "error: mypod could not be had: no quota for v5litepod-16; ask again later"
    )
    assert len(requests(calls, "gcloud", "<create>")) == 1


def test_slices_run_together(pod: Launch) -> None:
    status, calls, stderr = pod.run("launch/tpu_pod.sh", "run", *NEW, "--slices", "2", *RUN)
    assert status == 0, stderr
    assert "<--node-count=2> <--node-prefix=mypod>" in requests(calls, "gcloud", "<create>")[0]
    for node in ("mypod-0", "mypod-1"):
        for number in (0, 1):
            assert any(c.endswith(f"in {pod.cloud}/{node}-w-{number}/mlm_jax") for c in requests(calls, "mlm_jax", ""))


def test_workers_without_a_python_that_will_do_get_one(pod: Launch, tmp_path: Path) -> None:
    brought = make_python(tmp_path / "brought by uv", "3.12")
    brought.write_text(brought.read_text().replace("${UNSUITABLE:-0}", "0"))
    for name in ("python3.13", "python3.12", "python3.11", "python3"):
        make_python(pod.programs / name, "3.10")
    environment = {"UNSUITABLE": "1", "UV_PYTHON": str(brought)}
    status, calls, stderr = pod.run("launch/tpu_pod.sh", "run", *NEW, *RUN, **environment)
    assert status == 0, stderr
    assert calls.count("venv of 3.12") == 2
    assert len(requests(calls, "uv", "<install> <3.12>")) == 2


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "nothing: not an action; bash launch/tpu_pod.sh run|create|install|start|follow|status|stop|delete NAME"),
        (["go", *POD], "go: not an action"),
        (["run", "--zone", "z"], "--zone: not a name for a pod"),
        (["run", "My Pod", "--zone", "z"], "My Pod: not a name for a pod"),
        (["run", "mypod", *RUN], "name the zone: --zone us-central1-a"),
        (["run", *POD, "--tpye", "v4-8", *RUN], "--tpye: no such option before the config file"),
        (["run", *POD, "--type"], "--type needs a value"),
        (["run", *NEW, "--hours", "soon", *RUN], "soon: not a whole number"),
        (["run", *NEW, "--flex-start", "--hours", "200", *RUN], "--flex-start is for 1 to 168 hours"),
        (
            ["run", *NEW],
            "name a config file: bash launch/tpu_pod.sh run mypod --zone us-central1-a configs/quickstart.py",
        ),
        (["run", *NEW, "none.py"], "none.py: no such config file"),
        (["run", *NEW, "configs/quickstart.py"], "no workdir: the workers' disks go with the pod; use --workdir gs://"),
        (["start", *POD, "configs/quickstart.py", "--workdir=runs/x"], "runs/x: the workers' disks go with the pod"),
        (["run", *POD, *RUN], "mypod is not there yet; to create it, name its type: --type v5litepod-16"),
        (["follow", *POD], "mypod is not there; run or create asks for it"),
    ],
)
def test_bad_input_is_refused_in_one_line(pod: Launch, arguments: list[str], expected: str) -> None:
    status, calls, stderr = pod.run("launch/tpu_pod.sh", *arguments)
    assert status == 2
    assert stderr.startswith(f"error: {expected}"), stderr
    assert stderr.count("\n") == 1
    assert not requests(calls, "gcloud", "<create>")


def test_what_gcloud_says_is_passed_on(pod: Launch) -> None:
    status, _, stderr = pod.run("launch/tpu_pod.sh", "follow", *POD, GCLOUD_ERROR="Please log in")
    assert status == 2
    assert stderr.splitlines() == [
        "ERROR: (gcloud) Please log in",
        "error: gcloud could not tell about mypod; what it says is above",
    ]


def test_without_gcloud_or_a_project_it_says_so(pod: Launch) -> None:
    assert (
        "name the project: --project PROJECT"
        in pod.run("launch/tpu_pod.sh", "follow", *POD, CLOUDSDK_CORE_PROJECT="")[2]
    )
    status, _, _ = pod.run("launch/tpu_pod.sh", "--dry-run", "run", *NEW, *RUN, CLOUDSDK_CORE_PROJECT="")
    assert status == 0 and "--project=PROJECT" in pod.stdout
    (pod.programs / "gcloud").unlink()
    path = f"{pod.programs}:/bin"
    if shutil.which("gcloud", path=path) is None:
        assert "gcloud is not installed" in pod.run("launch/tpu_pod.sh", "follow", *POD, PATH=path)[2]


def dry_runs(pod: Launch) -> list[list[str]]:
    printed = []
    for action in (
        ["run", *NEW, "--spot", *RUN],
        ["run", *NEW, "--slices", "2", "--flex-start", *RUN],
        ["stop", *POD],
        ["status", *POD],
        ["delete", *POD],
    ):
        status, calls, stderr = pod.run("launch/tpu_pod.sh", "--dry-run", *action)
        assert (status, calls, stderr) == (0, [], "")
        printed += [shlex.split(line) for line in pod.stdout.splitlines() if line[0] != "#"]
    return printed


def test_a_dry_run_prints_every_command(pod: Launch) -> None:
    printed = dry_runs(pod)
    assert [line[0] for line in printed[:9]] == ["gcloud", "gcloud", "tar", *["gcloud"] * 6]
    (start, *_) = [line[-1] for line in printed if "tpu_worker.sh start" in line[-1]]
    words = shlex.split(start.removeprefix("--command="))
    assert words[-4:] == [*RUN[1:], "--hosts.start", "cluster"]


@pytest.mark.slow
def test_the_real_gcloud_takes_every_command(pod: Launch, tmp_path: Path) -> None:
    """It gets as far as asking who we are, which it does after reading its options."""
    gcloud = shutil.which("gcloud")
    if gcloud is None:
        pytest.skip("gcloud is not installed")
    environment = os.environ | {
        "CLOUDSDK_CONFIG": str(tmp_path / "no account"),
        "CLOUDSDK_CORE_CHECK_GCE_METADATA": "false",
        "CLOUDSDK_CORE_DISABLE_PROMPTS": "1",
        "CLOUDSDK_API_ENDPOINT_OVERRIDES_TPU": "http://127.0.0.1:9/",
    }
    commands = {tuple(line) for line in dry_runs(pod) if line[0] == "gcloud"}
    there = (*POD, "--project=project")
    commands.add(("gcloud", "compute", "tpus", "tpu-vm", "describe", *there, "--format=value(networkEndpoints.len())"))
    commands.add(("gcloud", "compute", "tpus", "queued-resources", "describe", *there, "--format=value(state.state)"))
    commands.add(("gcloud", "compute", "tpus", "tpu-vm", "delete", *there, "--quiet"))
    for command in commands:
        done = subprocess.run([gcloud, *command[1:]], env=environment, capture_output=True, text=True, check=False)
        assert "You do not currently have an active account selected" in done.stderr, f"{command}\n{done.stderr}"

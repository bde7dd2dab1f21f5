# SPDX-License-Identifier: Apache-2.0
"""A TPU pod costs money until it is deleted: what sees to it that it is."""

from __future__ import annotations

import shutil
import subprocess

from tests.launch.stand_ins import NEW, POD, RESOURCE, RUN, Launch, await_file, requests, worker


def test_a_tpu_vm_of_others_is_used_and_left(pod: Launch) -> None:
    (pod.cloud / "states").write_text("/READY\n")
    status, calls, stderr = pod.run("launch/tpu_pod.sh", "run", *POD, *RUN)
    assert status == 0
    assert "made by other means: it has no time-out, and stays when the run is done" in stderr
    assert not requests(calls, "gcloud", "<create>") and not requests(calls, "gcloud", "<delete>")
    assert not (worker(pod, 0) / "timer").exists()
    pod.run("launch/tpu_pod.sh", "delete", *POD)
    assert not (pod.cloud / "states").exists()


def test_the_time_out_is_set_at_boot_and_deletes_the_pod(pod: Launch) -> None:
    """The startup script, as the guest agent runs it: from a file that is gone afterwards."""
    pod.run("launch/tpu_pod.sh", "create", *NEW, "--hours", "48")
    attributes, home = pod.cloud / "attributes", worker(pod, 0)
    attributes.mkdir()
    home.mkdir()
    (attributes / "mlm-jax-pod").write_text(RESOURCE)
    (attributes / "mlm-jax-time").write_text("48h")
    script = home / "startup-script"
    shutil.copy(pod.checkout / "launch/tpu_end.sh", script)
    environment = pod.environment | {"HOME": str(home), "WORKER": "0"}
    subprocess.run(["bash", script], env=environment, check=True)
    script.unlink()
    time_out, *command = (home / "timer").read_text().split()
    assert time_out == "48h"
    pod.log.write_text("")
    subprocess.run(command, env=environment, check=True)
    assert not (pod.cloud / "states").exists()
    assert (
        pod.log.read_text()
        .splitlines()[-1]
        .startswith("curl <--silent> <--show-error> <--request> <DELETE> <--header> <Authorization: Bearer secret>")
    )
    assert f"<https://tpu.googleapis.com/v2/{RESOURCE}?force=true>" in pod.log.read_text()


def test_a_time_out_that_did_not_come_with_the_boot_is_set_by_the_installation(pod: Launch) -> None:
    pod.run("launch/tpu_pod.sh", "create", *NEW, "--hours", "5")
    pod.run("launch/tpu_pod.sh", "install", *POD, "--hours", "5")
    for number in (0, 1):
        assert (worker(pod, number) / "timer").read_text().startswith("5h ")


def test_the_pod_ends_after_its_run_unless_kept(pod: Launch) -> None:
    """By worker 0, though nobody follows it."""
    pod.run("launch/tpu_pod.sh", "create", *NEW)
    pod.run("launch/tpu_pod.sh", "install", *POD)
    for keep, expected in (["--keep"], "24h"), ([], "10min"):
        assert pod.run("launch/tpu_pod.sh", "start", *POD, *keep, *RUN)[0] == 0
        assert pod.run("launch/tpu_pod.sh", "follow", *POD)[0] == 0
        await_file(worker(pod, 0) / "timer")
        assert (worker(pod, 0) / "timer").read_text().split()[0] == expected
        assert (worker(pod, 1) / "timer").read_text().split()[0] == "24h"


def test_start_leaves_the_time_out_or_sets_or_ends_it(pod: Launch) -> None:
    pod.run("launch/tpu_pod.sh", "create", *NEW, "--hours", "5")
    pod.run("launch/tpu_pod.sh", "install", *POD, "--hours", "5")
    for given, expected in ([], "5h"), (["--hours", "30"], "30h"), (["--hours", "0"], None):
        assert pod.run("launch/tpu_pod.sh", "start", *POD, *given, "--keep", *RUN)[0] == 0
        assert pod.run("launch/tpu_pod.sh", "follow", *POD)[0] == 0
        timer = worker(pod, 1) / "timer"
        assert (timer.read_text().split()[0] if timer.exists() else None) == expected


def test_a_pod_that_could_not_delete_itself_is_refused(pod: Launch) -> None:
    status, calls, stderr = pod.run("launch/tpu_pod.sh", "run", *NEW, *RUN, NO_PERMISSION="1")
    assert status == 2
    assert (
        "error: the pod could not delete itself" in pod.stdout and "roles/tpu.admin in projects/project" in pod.stdout
    )
    assert "failed on 2 of 2 workers" in stderr
    assert not requests(calls, "mlm_jax", "")
    pod.run("launch/tpu_pod.sh", "delete", *POD)
    assert pod.run("launch/tpu_pod.sh", "run", *NEW, "--hours", "0", *RUN, NO_PERMISSION="1")[0] == 0


def test_flex_start_is_ended_by_google(pod: Launch) -> None:
    status, calls, _ = pod.run(
        "launch/tpu_pod.sh", "run", *NEW, "--flex-start", "--hours", "48", *RUN, NO_PERMISSION="1"
    )
    assert status == 0
    (create,) = requests(calls, "gcloud <alpha>", "<create>")
    assert "<--provisioning-model=flex-start> <--max-run-duration=48h>" in create
    assert "startup-script" not in create

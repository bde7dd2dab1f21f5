# SPDX-License-Identifier: Apache-2.0
"""Stand-ins for gcloud, and for what TPU VMs have: sudo, hostname, systemd and curl. Called as cloud.py PROGRAM ARGS.

The cloud is the folder $CLOUD. Its `states` has a line QUEUED-RESOURCE/TPU-VM for each look at the pod, the last of
which stays; without the file there is no pod. A worker is the folder NODE-w-NUMBER, in which `pid` is the service's.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

CLOUD = Path(os.environ["CLOUD"])
STATES = CLOUD / "states"
COMES = "WAITING_FOR_RESOURCES/\nPROVISIONING/CREATING\nACTIVE/READY\n"


def option(arguments: list[str], name: str) -> str:
    return next((a.partition("=")[2] for a in arguments if a.startswith(f"--{name}=")), "")


def look() -> tuple[str, str]:
    """The state of queued resource and TPU VM."""
    if not STATES.exists():
        return "", ""
    queue, _, node = STATES.read_text().splitlines()[0].partition("/")
    return queue, node


def gcloud(arguments: list[str]) -> int:
    if "Please log in" in os.environ.get("GCLOUD_ERROR", ""):
        print("ERROR: (gcloud) Please log in", file=sys.stderr)
        return 1
    words = [a for a in arguments if not a.startswith("--")]
    queue, node = look()
    match words:
        case ["alpha", *rest]:
            return gcloud(rest)
        case ["compute", "tpus", kind, "describe", _]:
            if "len()" in option(arguments, "format"):
                print(os.environ.get("WORKERS", "2"))
                return 0
            if "error" in option(arguments, "format"):
                print("no quota for v5litepod-16")
                return 0
            state = queue if kind == "queued-resources" else node
            if kind == "tpu-vm" and STATES.exists():  # asked last: this look is over
                first, *later = STATES.read_text().splitlines()
                rest = CLOUD / "states.rest"  # renamed, so that nobody reads half of it
                rest.write_text("\n".join(later or [first]))
                rest.rename(STATES)
            if not state:
                print("ERROR: NOT_FOUND: no such resource", file=sys.stderr)
                return 1
            print(state)
        case ["compute", "tpus", "queued-resources", "create", _]:
            STATES.write_text(os.environ.get("COMES", COMES))
        case ["compute", "tpus", _, "delete", _]:
            STATES.unlink()
        case ["compute", "tpus", "tpu-vm", "scp", source, target]:
            name, _, path = target.partition(":")
            home = worker_home(name, arguments)
            shutil.copy(source, home / path)
        case ["compute", "tpus", "tpu-vm", "ssh", name]:
            return ssh(name, arguments)
        case _:
            raise SystemExit(f"stand-in: no such command: {words}")
    return 0


def worker_home(name: str, arguments: list[str]) -> Path:
    home = CLOUD / f"{name}-w-{option(arguments, 'worker')}"
    home.mkdir(exist_ok=True)
    return home


def ssh(name: str, arguments: list[str]) -> int:
    worker, command = option(arguments, "worker"), option(arguments, "command")
    print(f"SSH: Attempting to connect to worker {worker}...", file=sys.stderr)
    if f"{worker} {command}".startswith(os.environ.get("SSH_FAILS", "never")):
        print("boom", file=sys.stderr)
        return 3
    lost = CLOUD / "lost"  # every word of this file is an action during which the connection breaks, once
    for action in lost.read_text().split() if lost.exists() else []:
        if command.endswith(f"tpu_worker.sh {action}"):
            lost.write_text(lost.read_text().replace(action, "", 1))
            return 1
    home = worker_home(name, arguments)
    environment = os.environ | {"HOME": str(home), "WORKER": worker}
    environment.pop("PYTHON", None)
    return subprocess.run(["bash", "-c", command], cwd=home, env=environment, check=False).returncode


def systemd_run(arguments: list[str]) -> int:
    home = Path(os.environ["HOME"])
    options = [a for a in arguments if a.startswith("--")]
    command = [a for a in arguments if not a.startswith("--")]
    if option(options, "on-active"):
        (home / "timer").write_text(f"{option(options, 'on-active')} {' '.join(command)}")
        return 0
    service = subprocess.Popen(
        command,
        cwd=option(options, "working-directory"),
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    (home / "pid").write_text(str(service.pid))
    return 0


def alive() -> int:
    """The service's process; 0 where there is none."""
    file = Path(os.environ["HOME"]) / "pid"
    pid = int(file.read_text()) if file.exists() else 0
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    # One that ended, and whose end nobody has asked for, is still there as a zombie.
    ended = not state.strip() or state.startswith("Z")
    return 0 if ended else pid


def systemctl(arguments: list[str]) -> int:
    timer = Path(os.environ["HOME"]) / "timer"
    match [a for a in arguments if not a.startswith("--")]:
        case ["is-active", "mlm-jax"]:
            return 0 if alive() else 3
        case ["is-active", "mlm-jax-end.timer"]:
            return 0 if timer.exists() else 3
        case ["show", "mlm-jax"]:
            print(alive())
        case ["stop", "mlm-jax"]:
            if pid := alive():
                os.kill(pid, signal.SIGTERM)  # KillMode=mixed: to the service's first process
            while alive():
                time.sleep(0.02)
        case ["stop", "mlm-jax-end.timer", "mlm-jax-end.service"]:
            timer.unlink(missing_ok=True)
        case words:
            raise SystemExit(f"stand-in: no such command: {words}")
    return 0


def curl(arguments: list[str]) -> int:
    url = arguments[-1]
    if url.endswith("/token"):
        print('{"access_token":"secret","expires_in":3599,"token_type":"Bearer"}')
    elif "/attributes/" in url:
        print((CLOUD / "attributes" / url.rpartition("/")[2]).read_text(), end="")
    elif url.endswith(":testIamPermissions"):
        print("{}" if os.environ.get("NO_PERMISSION") else '{"permissions": ["tpu.nodes.delete"]}')
    else:
        STATES.unlink(missing_ok=True)
    return 0


def main() -> int:
    program, *arguments = sys.argv[1:]
    if program == "sudo":
        os.execvp(arguments[0], arguments)
    if program == "hostname":
        print(f"t1v-n-0a1b2c3d-w-{os.environ['WORKER']}")
        return 0
    with open(os.environ["LOG"], "a") as log:
        log.write(f"{program} {' '.join(f'<{a}>' for a in arguments)}\n")
    programs = {"gcloud": gcloud, "systemd-run": systemd_run, "systemctl": systemctl, "curl": curl}
    return programs[program](arguments)


if __name__ == "__main__":
    sys.exit(main())

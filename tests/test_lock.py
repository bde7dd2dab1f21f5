# SPDX-License-Identifier: Apache-2.0
"""One command at a time writes a folder."""

import dataclasses
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from etils import epath

from mlm_jax import actions, children, cli, files, lock, start
from mlm_jax.commands import find_command
from mlm_jax.errors import UserError
from mlm_jax.evaluate import run as evaluate
from mlm_jax.evaluate.config import Evaluate, Tuned
from mlm_jax.files import write_whole
from mlm_jax.finetune.config import Finetune
from mlm_jax.lock import Holder, locked
from mlm_jax.neutrality.config import Analyze
from tests.corpora import tiny_config, write_config
from tests.finetune.toys import make_finetuned, make_start

HOLD = """
import sys
from mlm_jax.lock import locked
with locked(sys.argv[1], "pretrain"):
    print("in", flush=True)
    sys.stdin.readline()
"""
needs_proc = pytest.mark.skipif(not lock._identity(), reason="needs /proc of this PID namespace")


def holder(**fields):
    """Of a lock as a living run of this host would have written it, this test's parent, but for what is given."""
    there = lock._identity() | {"started": lock._started(str(os.getppid())) or ""}
    given = {"pid": os.getppid(), "since": "2026-01-02 03:04:05", "command": "pretrain", "token": "ab12", **there}
    return Holder(**{"host": socket.gethostname(), **given, **fields})


def leave(folder, beat=3, **fields):
    (folder / ".new").write_text(json.dumps(dataclasses.asdict(holder(**fields)) | {"beat": beat}))
    (folder / ".new").replace(folder / "running.json")


def read(folder):
    return json.loads((folder / "running.json").read_text())


def hold(folder, *before):
    """A process that has locked the folder, until a line is written to it."""
    run = subprocess.Popen(
        [*before, sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert run.stdout.readline() == "in\n", run.stderr.read()
    return run


@pytest.fixture
def ended(monkeypatch):
    """Where a process whose lock is another's would end."""

    def end(line, status):
        raise SystemExit(line)

    monkeypatch.setattr(lock, "end_at_once", end)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(lock, "PATIENCE", 0.3)


def test_held_and_released(tmp_path):
    with locked(str(tmp_path)):
        assert read(tmp_path)["pid"] == os.getpid()
    with pytest.raises(ZeroDivisionError), locked(str(tmp_path)):
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


def test_of_a_folder_that_nothing_came_of_nothing_is_left(tmp_path):
    with locked(tmp_path / "new"):
        assert read(tmp_path / "new")["pid"] == os.getpid()
    assert not list(tmp_path.iterdir())


@needs_proc
def test_the_second_run_is_refused_and_the_first_named(tmp_path, capsys):
    path = write_config(tmp_path / "c.py", tiny_config(str(tmp_path)))
    leave(tmp_path)
    assert cli.main(["pretrain", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"mlm-jax pretrain is at work here, process {os.getppid()} on {socket.gethostname()} since 2026" in error
    # It has touched nothing.
    assert {p.name for p in tmp_path.iterdir()} == {"c.py", "running.json"}


@needs_proc
def test_the_same_process_gets_no_second_lock(tmp_path):
    with (
        locked(tmp_path, "pretrain"),
        pytest.raises(UserError, match=f"process {os.getpid()} on "),
        locked(tmp_path),
    ):
        pass


ELSEWHERE = {
    "another host": {"host": "elsewhere"},
    "another container of this host": {"namespace": "pid:[1]"},
    "this process's pid in another container": {"namespace": "pid:[1]", "pid": os.getpid()},
    "another start of this machine, or one of its name": {"boot": "another"},
    "an earlier version": {"token": "", "started": "", "boot": "", "namespace": "", "command": ""},
}
elsewhere = pytest.mark.parametrize("fields", ELSEWHERE.values(), ids=ELSEWHERE)


@elsewhere
def test_a_lock_from_elsewhere_is_respected_while_it_beats(tmp_path, monkeypatch, fields):
    monkeypatch.setattr(lock, "PATIENCE", 30.0)
    leave(tmp_path, **fields)
    pid, host = holder(**fields).pid, holder(**fields).host
    beat = threading.Timer(0.1, leave, [tmp_path, 4], fields)
    beat.start()
    with pytest.raises(UserError, match=rf"process {pid} on {host} since 2026-01-02 03:04:05; wait for it or stop it"):
        locked(str(tmp_path)).__enter__()
    beat.join()


@elsewhere
def test_a_lock_from_elsewhere_is_taken_over_when_it_stands_still(tmp_path, capsys, fields):
    leave(tmp_path, **fields)
    with locked(str(tmp_path)):
        assert read(tmp_path)["token"] not in ("", "ab12")
    assert "no sign of life of process" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@needs_proc
@pytest.mark.parametrize(
    "fields",
    [{"started": "1"}, {"pid": 1, "started": "999999999999"}, {"pid": 2**31 - 1}, {"pid": os.getpid(), "started": "1"}],
    ids=["in use again", "in use again as 1", "of nobody", "my own"],
)
def test_a_pid_that_is_in_use_again_refuses_no_restart(tmp_path, capsys, fields):
    leave(tmp_path, **fields)
    (tmp_path / ".running.json.ab12.partial").write_text("")  # killed while it beat
    with locked(tmp_path):
        assert read(tmp_path)["pid"] == os.getpid()
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "") and not list(tmp_path.iterdir())


def test_where_the_system_tells_of_no_starts(tmp_path, monkeypatch, capsys):
    """As on macOS: a pid that is gone is gone, and of one that is there the heartbeat decides."""
    monkeypatch.setattr(lock, "_identity", dict)
    monkeypatch.setattr(lock, "_started", lambda process: None)
    monkeypatch.setattr(sys, "platform", "darwin")
    with locked(tmp_path):
        assert (read(tmp_path)["started"], read(tmp_path)["boot"], read(tmp_path)["namespace"]) == ("", "", "")
    leave(tmp_path, pid=2**31 - 1)
    with locked(tmp_path):
        pass
    assert capsys.readouterr().out == ""
    leave(tmp_path)
    with locked(tmp_path):
        assert read(tmp_path)["pid"] == os.getpid()
    assert "seeing whether it is alive" in capsys.readouterr().out


def test_on_linux_without_proc_the_heartbeat_decides(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(lock, "_identity", dict)
    monkeypatch.setattr(sys, "platform", "linux")
    leave(tmp_path, pid=2**31 - 1)
    with locked(tmp_path):
        pass
    assert "seeing whether it is alive" in capsys.readouterr().out


def test_a_held_lock_beats(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "BEAT", 0.02)
    with locked(str(tmp_path)):
        deadline = time.monotonic() + 30
        while read(tmp_path)["beat"] < 3:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert not list(tmp_path.iterdir())


def test_a_lock_beats_on_a_full_disk(tmp_path, monkeypatch):
    def full(self, *_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(lock, "BEAT", 0.02)
    with locked(tmp_path):
        before = lock._read(epath.Path(tmp_path / "running.json"))
        monkeypatch.setattr(type(epath.Path(tmp_path)), "write_text", full)
        deadline = time.monotonic() + 30
        while lock._read(epath.Path(tmp_path / "running.json")).content == before.content:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert read(tmp_path)["token"] == before.holder.token


def test_a_file_system_without_links(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    for _ in range(2):
        with locked(tmp_path):
            assert read(tmp_path)["pid"] == os.getpid()
            with pytest.raises(UserError, match="is at work here"), locked(tmp_path):
                pass
    assert not list(tmp_path.iterdir())


WRONG = {
    "empty": b"",
    "cut": b"{",
    "not UTF-8": b'{"host": "\xff\xfe"}',
    "zeros": bytes(512),
    "a list": b"[1, 2]",
    "a number": b"3",
    "null": b"null",
    "nothing": b"{}",
    "deep": b"[" * 60_000,
    "pid too large": b'{"host": "HOST", "pid": 1000000000000000000000000, "since": "then", "beat": 1}',
    "pid negative": b'{"host": "HOST", "pid": -1, "since": "then", "beat": 1}',
    "pid a text": b'{"host": "HOST", "pid": "1", "since": "then", "beat": 1}',
    "pid a fraction": b'{"host": "HOST", "pid": 1.5, "since": "then", "beat": 1}',
    "pid true": b'{"host": "HOST", "pid": true, "since": "then", "beat": 1}',
    "host a number": b'{"host": 7, "pid": 1, "since": "then", "beat": 1}',
    "token null": b'{"host": "HOST", "pid": 1, "since": "then", "token": null}',
    "half an emoji and control characters": b'{"host": "\\ud83d\\u001b[31m\\n", "pid": 1, "since": "\\r\\nx", "beat": 1}',
    "numbers of 10,000 digits": b'{"host": "HOST", "pid": ' + b"9" * 10_000 + b"}",
    "NaN": b'{"host": "HOST", "pid": NaN, "since": "x"}',
    "a token that is a path": b'{"host": "HOST", "pid": 2147483647, "since": "x", "token": "../../x"}',
    "large": b'{"host": "' + b"x" * 200_000,
}


@pytest.mark.parametrize("content", WRONG.values(), ids=WRONG)
def test_any_content_is_taken_over_when_it_stands_still(tmp_path, capsys, content):
    (tmp_path / "running.json").write_bytes(content.replace(b"HOST", socket.gethostname().encode()))
    with locked(tmp_path):
        assert read(tmp_path)["pid"] == os.getpid()
    said = capsys.readouterr()
    assert said.err.startswith("warning: ") and said.err.count("\n") == 1 and said.err[:-1].isprintable()
    assert not list(tmp_path.iterdir())


def test_any_content_is_respected_while_it_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "PATIENCE", 30.0)
    (tmp_path / "running.json").write_text("")
    beat = threading.Timer(0.1, (tmp_path / "running.json").write_text, ["x"])
    beat.start()
    with pytest.raises(UserError, match=r"running\.json changes, so a run is at work here; wait for it or stop it"):
        locked(tmp_path).__enter__()
    beat.join()


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_a_lock_that_is_no_file_is_named(tmp_path, make):
    make(tmp_path / "running.json")
    with pytest.raises(UserError, match=r"running.json: is no regular file; remove it"):
        locked(str(tmp_path)).__enter__()


def test_a_link_to_nothing_is_no_lock(tmp_path):
    (tmp_path / "running.json").symlink_to("nothing")
    with locked(tmp_path):
        assert read(tmp_path)["pid"] == os.getpid()


def test_a_killed_run_blocks_no_restart(tmp_path):
    with hold(tmp_path) as run:
        with pytest.raises(UserError, match=f"process {run.pid} on {socket.gethostname()} since "):
            locked(str(tmp_path)).__enter__()
        run.kill()
        # Also where nobody waits for it, as in many containers.
        if lock._identity():
            while lock._started(str(run.pid)):
                time.sleep(0.01)
            with locked(str(tmp_path)):
                pass
    with locked(str(tmp_path)):
        assert read(tmp_path)["pid"] == os.getpid()
    assert not list(tmp_path.iterdir())


@needs_proc
def test_a_run_that_is_stopped_keeps_its_lock_on_its_own_host(tmp_path):
    with hold(tmp_path) as run:
        run.send_signal(signal.SIGSTOP)
        with pytest.raises(UserError, match=f"process {run.pid} on "):
            locked(str(tmp_path)).__enter__()
        run.send_signal(signal.SIGCONT)
        run.communicate("\n")
    assert run.returncode == 0 and not list(tmp_path.iterdir())


def test_in_another_container_of_the_host(tmp_path, monkeypatch):
    """Two PID namespaces: both runs are process 1."""
    inside = ["unshare", "-r", "-p", "-f", "--mount-proc"]
    if not shutil.which("unshare") or subprocess.run([*inside, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs unshare")
    monkeypatch.setattr(lock, "PATIENCE", 60.0)
    beating = HOLD.replace("with locked", "import mlm_jax.lock as lock\nlock.BEAT = 0.1\nwith locked")
    second = "import mlm_jax.lock as lock\nlock.PATIENCE = 60.0\n" + HOLD
    first = subprocess.Popen(
        [*inside, sys.executable, "-c", beating, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with first:
        assert first.stdout.readline() == "in\n"
        assert read(tmp_path)["pid"] == 1
        refused = subprocess.run(
            [*inside, sys.executable, "-c", second, str(tmp_path)], capture_output=True, text=True, check=False
        )
        assert "mlm-jax pretrain is at work here, process 1 on " in refused.stderr
        with pytest.raises(UserError, match="process 1 on "):
            locked(tmp_path).__enter__()
        assert read(tmp_path)["pid"] == 1
        first.communicate("\n")
    assert not list(tmp_path.iterdir())


def test_a_run_whose_lock_is_anothers_ends_before_it_writes(tmp_path, ended):
    taken_over = r"mlm-jax export has taken over, process 7 on elsewhere .* had stood still"
    with locked(tmp_path, "pretrain"):
        write_whole(tmp_path / "mine", "1")
        (tmp_path / "running.json").unlink()
        write_whole(tmp_path / "mine", "2")  # a lock that was removed is no one else's
        leave(tmp_path, host="elsewhere", pid=7, command="export")
        with pytest.raises(SystemExit, match=taken_over):
            write_whole(tmp_path / "mine", "3")
    assert (tmp_path / "mine").read_text() == "2"
    assert read(tmp_path)["host"] == "elsewhere"  # nor has it removed the other's


def test_a_run_whose_lock_is_anothers_writes_no_metrics_and_no_checkpoint(tmp_path, ended):
    from mlm_jax.train.checkpoints import Checkpoints
    from mlm_jax.train.metrics import MetricsWriter

    with locked(tmp_path):
        writer = MetricsWriter(tmp_path, 0)
        checkpoints = Checkpoints(tmp_path / "checkpoints", {}, {})
        leave(tmp_path, host="elsewhere")
        with pytest.raises(SystemExit):
            writer.write({"kind": "train", "step": 1, "seconds": 1.0})
        with pytest.raises(SystemExit):
            checkpoints.save(1, None, None)
        writer.close()
        checkpoints.close()
    assert (tmp_path / "metrics.jsonl").read_text() == "" and not list((tmp_path / "checkpoints").iterdir())
    assert read(tmp_path)["host"] == "elsewhere"


def test_a_run_that_goes_on_after_another_took_over_ends_at_its_heartbeat(tmp_path):
    program = HOLD.replace("with locked", "import mlm_jax.lock as lock\nlock.BEAT = 0.1\nwith locked")
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as run:  # fmt: skip
        assert run.stdout.readline() == "in\n"
        run.send_signal(signal.SIGSTOP)
        leave(tmp_path, host="elsewhere", pid=7)
        run.send_signal(signal.SIGCONT)
        error = run.stderr.read()
    assert run.returncode == 2 and error.count("\n") == 1
    assert error.startswith(f"error: {tmp_path}: mlm-jax pretrain has taken over, process 7 on elsewhere")
    assert read(tmp_path)["host"] == "elsewhere"


def test_two_that_take_over_at_once(tmp_path, monkeypatch):
    """The second has judged the old lock when the first has its own already: it leaves that one in place."""
    leave(tmp_path, pid=2**31 - 1)
    path = epath.Path(tmp_path / "running.json")
    first = holder(token="cd34")
    real = lock._lives

    def late(other, mine):
        lives = real(other, mine)
        if other.token == "ab12":
            path.unlink()
            assert lock._create(path, first)
        return lives

    monkeypatch.setattr(lock, "_lives", late)
    if lock._identity():
        with pytest.raises(UserError, match="is at work here"):
            locked(tmp_path).__enter__()
        assert read(tmp_path)["token"] == "cd34" and len(list(tmp_path.iterdir())) == 1


def test_a_child_works_under_its_parents_lock(tmp_path, monkeypatch, ended):
    leave(tmp_path, host="elsewhere", token="cd34")
    monkeypatch.setenv(lock.INHERITED, "ab12 cd34")
    with locked(tmp_path, "prepare"):
        write_whole(tmp_path / "made", "")
        leave(tmp_path, token="ef56")  # its parent's is another's now
        with pytest.raises(SystemExit):
            write_whole(tmp_path / "made", "x")
        leave(tmp_path, host="elsewhere", token="cd34")
    assert read(tmp_path)["token"] == "cd34"
    with locked(tmp_path / "other", "prepare"):
        assert read(tmp_path / "other")["pid"] == os.getpid()


def test_what_a_process_starts_is_told_of_its_locks(tmp_path, monkeypatch):
    given = {}

    class Done:
        stderr = ()

        def __init__(self, command, env, **_):
            given.update(env)

        def wait(self):
            return 0

    monkeypatch.setattr(start.subprocess, "Popen", Done)
    with locked(tmp_path / "a"), locked(tmp_path / "b"):
        start.run_in_own_process("prepare", "c.py")
        tokens = [read(tmp_path / name)["token"] for name in "ab"]
    assert given[lock.INHERITED].split() == tokens and given[children.PARENT] == str(os.getpid())


def test_of_a_folder_beside_which_the_lock_is(tmp_path):
    name = "ö" * 120
    with locked(tmp_path / name, "export", beside=True):
        [found] = tmp_path.iterdir()
        assert found.name.startswith(".öö") and found.name.endswith(".running.json")
        with pytest.raises(UserError, match=f"{name}: mlm-jax export is at work here"):
            locked(tmp_path / name, beside=True).__enter__()
    assert not list(tmp_path.iterdir())


def test_a_lock_is_checked_before_what_is_written_whole(tmp_path, monkeypatch):
    checked = []
    monkeypatch.setattr(files, "before_writing", [lambda: checked.append(True)])
    write_whole(tmp_path / "x", "")
    assert checked


def exchanged(name):
    return {name: default for name, (_, default) in find_command(name).options.items()}


# What each command that writes a folder is given, to write `folder`.
WRITERS = {
    "prepare": lambda folder: tiny_config(folder),
    "pretrain": lambda folder: tiny_config(folder),
    "finetune": lambda folder: Finetune(workdir=folder),
    "evaluate": lambda folder: Evaluate(workdir=folder),
    "analyze": lambda folder: Analyze(workdir=folder),
    "import": lambda folder: exchanged("import") | {"FOLDER": f"{folder}/..", "WORKDIR": folder},
    "export": lambda folder: exchanged("export") | {"WORKDIR": f"{folder}/..", "FOLDER": folder},
}


@needs_proc
@pytest.mark.parametrize("name", WRITERS)
def test_the_second_of_any_command_that_writes_is_refused_and_touches_nothing(tmp_path, name):
    (tmp_path / "x").mkdir()
    if name == "export":
        leave(tmp_path, command=name)
        (tmp_path / "running.json").rename(tmp_path / ".x.running.json")
    else:
        leave(tmp_path / "x", command=name)
    before = {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}
    with pytest.raises(UserError) as refused:
        find_command(name).run(WRITERS[name](str(tmp_path / "x")), [])
    said = str(refused.value)
    assert said.startswith(f"{tmp_path}/x: mlm-jax {name} is at work here, process {os.getppid()} on ")
    other = "use another --workdir" if name not in ("import", "export") else f"{name} into another folder"
    assert said.endswith(f"; wait for it or stop it, or {other}")
    assert {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")} == before


def test_an_experiment_of_an_evaluation_is_locked_while_it_trains(tmp_path, monkeypatch):
    found = []
    made = Finetune(workdir=str(tmp_path / "experiment"))

    def stop(config):
        found.append(read(tmp_path / "experiment")["command"])
        return [], signal.SIGTERM

    monkeypatch.setattr(evaluate, "own_benchmarks", lambda *_: [])
    monkeypatch.setattr(evaluate, "experiment", lambda *_: made)
    monkeypatch.setattr(evaluate, "share_encoder", lambda *_: None)
    monkeypatch.setattr(evaluate.finetuning, "run_finetuning", stop)
    config = Evaluate(workdir=str(tmp_path), tuned=(Tuned("toy", made),))
    assert evaluate.run(config) == ([], signal.SIGTERM) and found == ["evaluate"]


@needs_proc
@pytest.mark.slow
def test_what_only_reads_a_workdir_does_so_while_a_run_is_in_it(tmp_path, capsys):
    make_finetuned(make_start(tmp_path / "start"), tmp_path / "run", "classify")
    leave(tmp_path / "run")
    (tmp_path / "texts.jsonl").write_text('{"text": "so so"}\n')
    run = str(tmp_path / "run")
    assert cli.main(["export", run, str(tmp_path / "hf")]) == 0
    assert cli.main(["import", run, str(tmp_path / "next")]) == 0
    assert cli.main(["predict", run, str(tmp_path / "texts.jsonl"), str(tmp_path / "out")]) == 0
    assert read(tmp_path / "run")["token"] == "ab12"
    assert not (tmp_path / "next" / "running.json").exists() and not list(tmp_path.glob(".*"))


@needs_proc
def test_a_corpus_that_is_there_may_be_looked_at_while_a_run_is_in_the_workdir(tmp_path, monkeypatch):
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "manifest.json").write_text("")
    leave(tmp_path)
    monkeypatch.setattr(actions, "prepare_here", lambda config, arguments, there: 17 if there else 0)
    assert actions.prepare(tiny_config(str(tmp_path)), ["--check"]) == 17


@pytest.mark.parametrize("system", ["linux", "darwin"])
def test_a_child_ends_with_its_parent_however_that_ends(tmp_path, system):
    if system == "linux" and sys.platform != "linux":
        pytest.skip("needs Linux")
    child = f"""
import sys, time
sys.platform = {system!r}
from mlm_jax.children import end_with_parent
end_with_parent()
print("ready", flush=True)
while True:
    time.sleep(60)
"""
    parent = f"""
import os, subprocess, sys, time
from mlm_jax import children
child = subprocess.Popen([sys.executable, "-c", {child!r}], env=os.environ | children.environment(), stdout=subprocess.PIPE)
child.stdout.readline()
print("ready", flush=True)
time.sleep(600)
"""
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        process.kill()
        process.stderr.read()  # to its end: the child, which has it too, is gone


def test_a_child_whose_parent_has_ended_before_it_looks_ends():
    program = "from mlm_jax.children import end_with_parent\nend_with_parent()\nprint('lives')"
    environment = os.environ | {children.PARENT: "2147483647"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")


def test_hanging_up_stops_a_run_as_sigterm_does_unless_it_is_ignored():
    from mlm_jax.train.clock import catch_stop

    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with catch_stop(0) as stop:
            assert stop(1) is None
            signal.raise_signal(signal.SIGHUP)
            assert stop(2) is signal.SIGHUP
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
        with catch_stop(0) as stop:
            signal.raise_signal(signal.SIGHUP)
            assert stop(1) is None
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)

# SPDX-License-Identifier: Apache-2.0
"""Where metrics go when a disk fails."""

import contextlib
import errno
import os
import subprocess
import sys

import pytest
from tensorboardX.record_writer import RecordWriter

from mlm_jax.files import said
from mlm_jax.train.metrics import MetricsWriter, read_metrics


def record(step):
    return {"kind": "train", "step": step, "seconds": 0.5 * step, "loss": 1.0, "languages": {"de": {"loss": 1.0}}}


@pytest.mark.parametrize("call", ["write", "flush", "close", "open"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EMFILE])
def test_a_board_that_cannot_be_written_stops_no_run(tmp_path, monkeypatch, capsys, call, number):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    written = RecordWriter.write
    if call == "open":
        monkeypatch.setattr("tensorboardX.record_writer.open_file", fail)
    elif call == "write":  # but for the first, which names the format
        monkeypatch.setattr(RecordWriter, "write", lambda self, data: written(self, data) if len(data) < 30 else fail())
    else:
        monkeypatch.setattr(RecordWriter, call, fail)
    writer = MetricsWriter(tmp_path, 0)
    for step in range(1, 41):  # more than its queue holds
        writer.write(record(step))
    writer.close()
    assert [found["step"] for found in read_metrics(tmp_path)] == list(range(1, 41))
    said = capsys.readouterr().err
    assert (
        said
        == f"warning: {tmp_path}/tensorboard: {os.strerror(number)}; the run goes on without TensorBoard's log from here\n"
    )


def test_what_tensorboard_does_without_is_there_for_others(tmp_path):
    """PyTorch is hidden while tensorboardX is imported, and only then."""
    program = (
        "import importlib.util, sys\n"
        "from mlm_jax.train.metrics import MetricsWriter\n"
        f"writer = MetricsWriter({str(tmp_path)!r}, 0)\n"
        "assert 'torch' not in sys.modules and 'tensorboardX' in sys.modules\n"
        "if importlib.util.find_spec('torch'):\n"
        "    import torch\n"
        "    assert float(torch.ones(1)) == 1\n"
        "writer.close()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_metrics_that_cannot_be_written_name_their_file(tmp_path, monkeypatch):
    writer = MetricsWriter(tmp_path, 0)
    with contextlib.suppress(OSError), open("/dev/full", "w") as full:
        monkeypatch.setattr(writer, "_file", full)
        with pytest.raises(OSError, match="No space") as raised:
            writer.write(record(1))
        monkeypatch.undo()
    writer.close()
    assert said(raised.value).startswith(f"{tmp_path}/metrics.jsonl: No space left on device; free space there")

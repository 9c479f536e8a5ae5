"""The program in the wheel, interrupts, and what the package is made of."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from wheel import ENVIRONMENT, GIVEN, SCRIPT, pictures, run

if importlib.util.find_spec("csae._csae") is None:
    pytest.skip("the wheel is not installed", allow_module_level=True)

import csae

ROOT = Path(__file__).resolve().parents[2]


def version(manifest: str) -> str:
    found = re.search(r'^version = "(.+?)"', (ROOT / manifest).read_text("utf-8"), re.MULTILINE)
    assert found
    return found.group(1)


def test_versions_are_one() -> None:
    versions = {csae.__version__, importlib.metadata.version("csae"), version("Cargo.toml"),
                version("python/Cargo.toml")}
    assert versions == {run("--version", script=True).stdout.split()[1]}


def test_the_script_is_the_program(tmp_path: Path) -> None:
    """Results, messages and exit statuses are those of the program built on its own."""
    if not GIVEN:
        pytest.skip("no program is given: CSAE_PROGRAM")
    np.save(tmp_path / "x.npy", pictures(4, 3, 32, 32))
    for arguments in (
        ("--help",), ("presets",), ("guide", "faq"), ("trian",), ("denoise", "none.png"), (),
        ("features", "photographs", tmp_path / "x.npy", "--layout", "NCHW", "--device", "cpu",
         "-o", tmp_path / "out.npy", "--force"),
    ):
        ours, theirs = run(*arguments, script=True), run(*arguments)
        assert (ours.stdout, ours.stderr, ours.returncode) == (
            theirs.stdout, theirs.stderr, theirs.returncode), arguments
    assert run("trian", script=True).returncode == 2
    module = subprocess.run([sys.executable, "-m", "csae", "--version"], capture_output=True)
    assert module.returncode == 0 and module.stdout.startswith(b"csae ")


def interrupted(command: list[str], ready: str) -> tuple[float, int, str]:
    """Sends SIGINT after a line with `ready`: the seconds until the end, status and messages."""
    environment = {**os.environ, **ENVIRONMENT}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        assert process.stdout
        lines = []
        for line in process.stdout:
            lines.append(line)
            if ready in line:
                break
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        start = time.monotonic()
        rest = process.communicate(timeout=60)[0]
        return time.monotonic() - start, process.returncode, "".join(lines) + rest


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
@pytest.mark.parametrize("work", ["fit", "denoise", "encode"])
def test_ctrl_c_is_a_keyboard_interrupt(work: str) -> None:
    """The exception arrives while the work runs, which would take minutes."""
    calls = {
        "fit": "csae.Autoencoder(epochs=1e5, device='cpu').fit(x.reshape(-1, 1000))",
        "denoise": "csae.denoise(x, 20, device='cpu', ensemble=True)",
        "encode": "csae.load('denoise', 'cpu').reconstruct(x[None, None])",
    }
    code = f"""
import time
import numpy as np, csae
csae.denoise(np.full((20, 20), 0.5), 10, device="cpu")
x = np.random.default_rng(0).random((5000, 5000), dtype=np.float32)
print("begun", flush=True)
try: {calls[work]}
except KeyboardInterrupt: print("interrupted", flush=True)
small = csae.denoise(np.full((20, 20), 0.5), 10, device="cpu")
print("again", small.shape, flush=True)
"""
    seconds, status, output = interrupted([sys.executable, "-u", "-c", code], "begun")
    assert "interrupted" in output and "again (20, 20)" in output and status == 0, output
    # The limit only tells an interrupt from waiting for the end of the work, which takes minutes.
    assert seconds < 45.0, output


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
def test_ctrl_c_ends_the_program_as_it_ends_a_training(tmp_path: Path) -> None:
    command = [str(SCRIPT), "train", "photos", "--device", "cpu", "--epochs", "10000",
               "-o", str(tmp_path / "run")]
    _, status, output = interrupted(command, "model:")
    assert status == 130 and "csae resume" in output and "Traceback" not in output, output


def test_the_lock_is_released_during_work() -> None:
    import threading

    ticks: list[float] = []
    done = threading.Event()

    def tick() -> None:
        while not done.is_set():
            ticks.append(time.monotonic())
            time.sleep(0.001)

    thread = threading.Thread(target=tick)
    thread.start()
    start = len(ticks)
    csae.denoise(pictures(1, 1, 200, 200)[0, 0], 20, device="cpu", ensemble=True)
    found = len(ticks) - start
    done.set()
    thread.join()
    assert found >= 5


def test_public_names_are_documented_and_typed() -> None:
    package = Path(csae.__file__).parent
    assert (package / "py.typed").exists()
    for name in csae.__all__:
        assert (getattr(csae, name).__doc__ or "").strip(), name
    # The stub has the names of the compiled part.
    stub = ast.parse((package / "_csae.pyi").read_text("utf-8"))
    named = {one.name for one in stub.body if isinstance(one, (ast.FunctionDef, ast.ClassDef))}
    from csae import _csae

    assert named == {name for name in dir(_csae) if not name.startswith("_")}
    core = next(one for one in stub.body if isinstance(one, ast.ClassDef))
    methods = {one.name for one in core.body if isinstance(one, ast.FunctionDef)}
    assert methods == {name for name in dir(_csae.Core) if not name.startswith("_")}
    with pytest.raises(AttributeError, match="no attribute 'encoder'"):
        _ = csae.encoder


def test_drivers_do_not_complain_about_displays() -> None:
    code = "import csae, os; csae.load('denoise'); csae.devices(); print(*os.environ)"
    environment = {k: v for k, v in os.environ.items() if k != "XDG_RUNTIME_DIR"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert done.returncode == 0 and b"XDG_RUNTIME_DIR" not in done.stdout + done.stderr, done


def test_importing_is_light() -> None:
    code = "import sys, csae; csae.load; print(*sorted({'sklearn', 'torch'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "" and done.returncode == 0, done


def test_the_lines_of_the_readme_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but those of csae.torch, which `test_readme.py` runs."""
    pytest.importorskip("sklearn")
    text = (ROOT / "python" / "README.md").read_text("utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text.split("## csae.torch")[0], re.DOTALL)
    assert len(blocks) == 2
    monkeypatch.chdir(tmp_path)
    for block in blocks:
        names: dict[str, object] = {}
        exec(compile(block, "README.md", "exec"), names)

"""`srcli doctor`: what works is called ok, and what is broken is named with its remedy."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tomllib
import types
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from packaging.requirements import Requirement

from srcli import health
from srcli.backends import BACKENDS, get_backend
from srcli.backends.preference import keep_orders, orders_file
from srcli.bench import latencies, tuning
from srcli.checkpoints import shipped as store
from srcli.health import Finding, backends, gpu, installed, onnx_runtime, probes
from srcli.health.finding import guarded
from srcli.health.gpu import driver_finding, torch_finding
from srcli.health.pictures import pictures
from srcli.health.storage import cache, weights
from srcli.models.registry import get_model
from srcli.system import cache as system_cache
from srcli.system.cuda import Driver, driver

ROOT = Path(__file__).resolve().parents[2]
PROJECT_EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
    "optional-dependencies"
]


@pytest.fixture
def patience(monkeypatch):
    """Time for slow machines: how long loading takes is none of these tests' business."""
    monkeypatch.setattr(probes, "SECONDS", 60.0)


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Put a module in the place of an installed one, for this process and those it starts."""

    def pretend(name, content):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(content)
        monkeypatch.syspath_prepend(str(tmp_path))

    return pretend


def install(folder, package, version):
    """Pretend that a distribution is installed in a folder."""
    place = folder / f"{package.replace('-', '_')}-{version}.dist-info"
    place.mkdir()
    (place / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")


def only(check):
    (finding,) = check()
    return finding


@pytest.fixture(scope="module")
def report():
    """What the whole command says in JSON, and the modules that it loaded itself."""
    script = (
        "import sys\n"
        "from srcli.cli import run\n"
        "from srcli.health import probes\n"
        "probes.SECONDS = 60\n"
        "code = run(['doctor', '--json'])\n"
        "print(*sys.modules, file=sys.stderr)\n"
        "sys.exit(code)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    return done.returncode, json.loads(done.stdout), set(done.stderr.split())


def test_this_machine_is_healthy(report):
    code, said, _ = report
    assert [entry for entry in said["findings"] if entry["status"] == "problem"] == []
    assert (code, said["healthy"]) == (0, True)


def test_everything_is_looked_at(report):
    found = {entry["subject"]: entry["found"] for entry in report[1]["findings"]}
    expected = {"srcli", "python", "cache", "weights", "libvips", "onnxruntime", "TensorRT"}
    assert driver().devices or "CUDA" in found
    assert expected | {"NVIDIA driver", "backend", "onnxruntime CPU"} <= set(found)
    assert set(installed.PACKAGES) <= set(found)
    assert "all with the checksum" in found["weights"]
    assert any(f"auto chooses {backend.name}" in found["backend"] for backend in BACKENDS)


def test_the_share_of_a_container_is_told(monkeypatch):
    monkeypatch.setattr(installed, "usable_cores", lambda: 3)
    monkeypatch.setattr(installed.os, "cpu_count", lambda: 64)
    monkeypatch.setattr(installed, "free_memory", lambda: 3 << 29)
    assert only(installed.machine).found == "3 of 64 cores, 1.5 GiB of memory free"
    monkeypatch.setattr(installed, "usable_cores", lambda: 64)
    monkeypatch.setattr(installed, "free_memory", lambda: None)
    assert only(installed.machine).found == "64 cores"


def test_nothing_heavy_is_loaded_in_the_process_itself(report):
    assert not {"torch", "onnxruntime", "onnx", "pyvips", "numpy"} & report[2]


def test_problems_make_a_table_and_exit_code_3(monkeypatch, srcli):
    broken = Finding(
        subject="libvips", status="problem", found="gone", remedy="Run `pip install 'x[binary]'`."
    )
    monkeypatch.setattr(health, "examine", lambda: [broken])
    code, out, err = srcli("doctor")
    assert code == 3
    assert "problem   libvips   gone. Run `pip install 'x[binary]'`." in out
    assert err == "1 problem\n"
    assert json.loads(srcli("doctor", "--json")[1])["healthy"] is False


def test_without_rich_there_are_plain_lines(monkeypatch, srcli):
    finding = Finding(subject="rich", status="problem", found="not installed", remedy="Get it.")
    monkeypatch.setattr(health, "examine", lambda: [finding])
    for name in [name for name in sys.modules if name.partition(".")[0] == "rich"]:
        monkeypatch.setitem(sys.modules, name, None)
    assert srcli("doctor")[:2] == (3, "problem  rich  not installed. Get it.\n")


def test_an_exception_becomes_a_problem():
    def unlucky():
        yield Finding(subject="before", status="ok", found="")
        raise KeyError("x")

    before, finding = guarded(unlucky)
    assert before.subject == "before"
    assert (finding.subject, finding.status) == ("unlucky", "problem")
    assert "KeyError" in finding.found
    assert finding.remedy


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setattr(installed, "version_of", {"numpy": "2.0"}.get)
    findings = {finding.subject: finding for finding in installed.packages()}
    assert findings["numpy"].status == "ok"
    assert findings["torch"].status == "problem"
    assert "pip install torch" in findings["torch"].remedy


# ONNX Runtime.


def test_two_runtimes_are_a_problem_with_one_command(tmp_path, monkeypatch):
    for package in ("onnxruntime", "onnxruntime-gpu"):
        install(tmp_path, package, "1.2.3")
    monkeypatch.syspath_prepend(str(tmp_path))
    finding = only(installed.runtimes)
    assert finding.status == "problem"
    assert "onnxruntime 1.2.3 and onnxruntime-gpu 1.2.3" in finding.found
    wanted = installed.wanted_runtime()
    command = f"pip uninstall -y onnxruntime onnxruntime-gpu && pip install {wanted}"
    assert finding.remedy == f"Run `{command}`."


def test_what_is_looked_up_is_what_is_required():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = {
        requirement.name
        for requirement in map(Requirement, project["dependencies"])
        if requirement.marker is None or requirement.marker.evaluate()
    }
    assert required == {*installed.PACKAGES, *installed.LIGHT_PACKAGES, installed.wanted_runtime()}


BROKEN = {
    "left over by an uninstalled package": ("", "empty shell"),
    "without its library": ("raise ImportError('libx.so: no such file')", "libx.so"),
    "crashing": ("import os; os.abort()", "Aborted"),
    "failing": ("1 / 0", "division by zero"),
}


@pytest.mark.parametrize("content,says", BROKEN.values(), ids=BROKEN)
def test_a_broken_runtime_is_a_problem(module, patience, content, says):
    module("onnxruntime", f"print('noise')\n{content}\n")
    finding = only(lambda: probes.probe("onnxruntime"))
    assert finding.status == "problem"
    assert says in finding.found
    assert finding.remedy


def test_what_hangs_is_given_up(module, monkeypatch):
    module("onnxruntime", "import time; time.sleep(60)")
    monkeypatch.setattr(probes, "SECONDS", 0.5)
    finding = only(lambda: probes.probe("onnxruntime"))
    assert finding.status == "problem"
    assert "takes longer" in finding.found


def test_what_was_found_before_a_crash_is_kept(module, patience):
    module(
        "onnxruntime",
        "import os\n"
        "__version__ = '1'\n"
        "InferenceSession = SessionOptions = object\n"
        "set_default_logger_severity = lambda level: None\n"
        "def get_available_providers():\n"
        "    yield 'CPUExecutionProvider'\n"
        "    os.abort()\n",
    )
    provider, crash = probes.probe("onnxruntime")
    assert provider.subject == "onnxruntime CPU"
    assert "crash" in crash.found


class PretendedRuntime:
    """An ONNX Runtime whose sessions use a provider of their own choice."""

    __file__ = "nowhere"

    def __init__(self, uses, result=lambda x: x):
        session = types.SimpleNamespace(
            get_providers=lambda: [uses], run=lambda outputs, inputs: [result(inputs["x"])]
        )
        self.InferenceSession = lambda *arguments, **options: session
        self.SessionOptions = lambda: types.SimpleNamespace(
            add_session_config_entry=lambda name, value: None
        )


@pytest.mark.parametrize(
    "uses,result,says",
    [
        ("CUDAExecutionProvider", lambda x: x, None),
        ("CPUExecutionProvider", lambda x: x, "CPUExecutionProvider is used in its place"),
        ("CUDAExecutionProvider", lambda x: 0 * x, "it computes wrong results"),
    ],
)
def test_a_quiet_fallback_is_noticed(uses, result, says):
    ort = PretendedRuntime(uses, result)
    assert onnx_runtime.provider_refusal(ort, "CUDAExecutionProvider") == says


def test_an_unusable_provider_is_a_problem_where_there_is_a_gpu():
    ort = PretendedRuntime("CPUExecutionProvider")
    name = "CUDAExecutionProvider"
    assert onnx_runtime.provider_finding(ort, name, device=False).status == "note"
    finding = onnx_runtime.provider_finding(ort, name, device=True)
    assert finding.status == "problem"
    assert "onnxruntime-gpu[cuda,cudnn]" in finding.remedy


def test_the_graph_is_one_convolution():
    graph = onnx.load_model_from_string(onnx_runtime.GRAPH)
    onnx.checker.check_model(graph, full_check=True)
    assert [node.op_type for node in graph.graph.node] == ["Conv"]


# CUDA and TensorRT.


@pytest.mark.parametrize(
    ("built", "says"),
    [
        ("None", "PyTorch for CUDA (2.9 is installed). .*https://pytorch.org/get-started"),
        ("'13.0'", "^missing: an NVIDIA GPU with its driver. On a machine with one, install its"),
    ],
)
def test_a_line_says_what_cuda_lacks_where_there_is_no_gpu(monkeypatch, tmp_path, built, says):
    (tmp_path / "version.py").write_text(f"__version__ = '2.9'\ncuda: Optional[str] = {built}\n")
    spec = types.SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(gpu.importlib.util, "find_spec", lambda name: spec)
    monkeypatch.setattr(gpu, "version_of", lambda name: "2.9")
    finding = gpu.cuda_finding()
    assert finding.status == "note"
    line = f"{finding.found}. {finding.remedy}"
    assert re.search(says.replace("(", r"\(").replace(")", r"\)"), line)
    assert "\n" not in line


def test_a_line_says_what_tensorrt_lacks_where_there_is_no_gpu(monkeypatch):
    monkeypatch.setattr(backends, "driver", lambda: Driver(version=None))
    for name in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_libs", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(backends.importlib.util, "find_spec", lambda name: None)
    (finding,) = backends.tensorrt()
    assert (finding.status, "\n" in finding.found) == ("note", False)
    assert finding.found == "missing: TensorRT, and an NVIDIA GPU with its driver"
    assert "pip install 'srcli[tensorrt]'" in finding.remedy


DRIVERS = {
    "none": (Driver(version=None), "note", "on the CPU"),
    "no GPU": (Driver(version=(13, 0), error=100), "note", "no GPU"),
    "broken": (Driver(version=(13, 0), error=999), "problem", "CUDA error 999"),
    "fine": (Driver(version=(13, 0), devices=2), "ok", "CUDA 13.0, 2 GPUs"),
}


@pytest.mark.parametrize("driver,status,says", DRIVERS.values(), ids=DRIVERS)
def test_the_driver_is_told(driver, status, says):
    finding = driver_finding(driver)
    assert finding.status == status
    assert says in finding.found


def test_hidden_gpus_are_explained(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "CUDA_VISIBLE_DEVICES" in driver_finding(Driver(version=(13, 0), error=100)).remedy


@pytest.mark.parametrize(
    "built,driver,status,remedy",
    [
        (None, (13, 0), "note", "pytorch.org"),
        ("13.0", (12, 4), "problem", "Update the NVIDIA driver to one for CUDA 13.0"),
        ("12.6", (13, 0), "problem", "pytorch.org"),
    ],
)
def test_a_torch_without_the_gpu_is_explained(monkeypatch, built, driver, status, remedy):
    torch = types.ModuleType("torch")
    torch.__version__ = "2.9"
    torch.version = types.SimpleNamespace(cuda=built)
    torch.cuda = types.SimpleNamespace(is_available=lambda: False)
    monkeypatch.setitem(sys.modules, "torch", torch)
    finding = torch_finding(Driver(version=driver, devices=1))
    assert finding.status == status
    assert remedy in finding.remedy


def test_a_broken_tensorrt_is_a_problem_only_with_a_gpu(module, monkeypatch):
    module("tensorrt", "raise ImportError('libnvinfer.so.10: no such file')")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "tensorrt")
    for name in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_libs"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    for name in ("tensorrt_rtx", "tensorrt_rtx_libs"):
        monkeypatch.setitem(sys.modules, name, None)
    for devices, status in ((0, "note"), (1, "problem")):
        monkeypatch.setattr(
            backends, "driver", lambda n=devices: Driver(version=(13, 0), devices=n)
        )
        finding = only(backends.tensorrt)
        assert finding.status == status
        assert "libnvinfer.so.10" in finding.found
        assert "pip install" in finding.remedy


# Files.


def test_the_cache_is_measured_and_not_made(tmp_path, monkeypatch):
    folder = tmp_path / "a" / "b"
    monkeypatch.setenv("SRCLI_CACHE", str(folder))
    finding = only(cache)
    assert finding.status == "ok"
    assert f"{folder}, 0 files" in finding.found
    assert not folder.exists()
    (folder / "graphs").mkdir(parents=True)
    (folder / "graphs" / "x.onnx").write_bytes(bytes(3 << 20))
    assert "1 file, 3.0 MiB" in only(cache).found


def test_a_cache_that_cannot_be_written_is_a_problem(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("SRCLI_CACHE", str(tmp_path / "file" / "cache"))
    finding = only(cache)
    assert finding.status == "problem"
    assert "SRCLI_CACHE" in finding.remedy


def test_a_full_disk_is_worth_a_note(tmp_path, monkeypatch):
    monkeypatch.setenv("SRCLI_CACHE", str(tmp_path))
    usage = types.SimpleNamespace(free=5 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    assert "only 5.0 MiB are free" in only(cache).found


def test_damaged_weights_are_named(monkeypatch, tmp_path):
    first, second, *_ = store.shipped_weights()
    changed = replace(first, sha256="0" * 64)
    missing = replace(second, path=tmp_path / "gone.safetensors")
    monkeypatch.setattr(store, "shipped_weights", lambda: (changed, missing))
    finding = only(weights)
    assert finding.status == "problem"
    assert changed.path.name in finding.found
    assert "gone.safetensors cannot be read" in finding.found


def test_each_file_of_weights_is_read_once(monkeypatch):
    """Also one that serves several scales."""
    read, right = [], store.sha256_of
    monkeypatch.setattr(store, "sha256_of", lambda path: read.append(path) or right(path))
    finding = only(weights)
    folder = store.shipped_weights()[0].path.parent
    assert sorted(read) == sorted(
        [*folder.glob("*.safetensors"), *folder.glob("prepared/*.safetensors")]
    )
    assert f"{len(read)} files" in finding.found


def test_a_libvips_that_cannot_be_loaded_is_a_problem(module, patience):
    module("pyvips", "raise OSError('libvips.so.42: cannot open shared object file')")
    finding = only(lambda: probes.probe("pictures"))
    assert finding.status == "problem"
    assert "libvips.so.42" in finding.found
    assert "pip install 'pyvips[binary]'" in finding.remedy


def test_a_format_that_is_missing_is_named(monkeypatch):
    from srcli import images

    def without_avif(picture, options):
        if options.format == "avif":
            raise OSError("no codec")
        return encode(picture, options)

    encode = images.encode
    monkeypatch.setattr(images, "encode", without_avif)
    finding = only(pictures)
    assert finding.status == "problem"
    assert "avif (no codec)" in finding.found


def test_damaged_entries_of_the_cache_are_named(tmp_path, monkeypatch):
    """faults.md 33: the doctor said "no problems"."""
    from srcli.system.cache import seal

    monkeypatch.setenv("SRCLI_CACHE", str(tmp_path))
    (tmp_path / "graphs").mkdir()
    for name in ("a.onnx", "b.onnx"):
        (tmp_path / "graphs" / name).write_bytes(bytes(1000))
        seal(tmp_path / "graphs" / name)
    assert only(cache).status == "ok"
    (tmp_path / "graphs" / "b.onnx").write_bytes(bytes(999) + b"1")
    finding = only(cache)
    assert finding.status == "note"
    assert "b.onnx is not as srcli wrote it" in finding.found
    assert "made anew" in finding.remedy


def test_codecs_that_are_missing_are_a_note(tmp_path, monkeypatch):
    """faults.md 17 and 28: what reads rare files is an extra."""
    extras = PROJECT_EXTRAS["codecs"]
    assert {Requirement(text).name for text in extras} == set(installed.CODECS)
    versions = dict.fromkeys(installed.CODECS, "1.0")
    monkeypatch.setattr(installed, "version_of", versions.get)
    assert only(installed.codecs).status == "ok"
    del versions["pillow-heif"]
    finding = only(installed.codecs)
    assert finding.status == "note"
    assert finding.found.startswith("pillow-heif is not installed")
    assert "srcli[codecs]" in finding.remedy


def test_text_from_files_cannot_command_the_terminal(srcli, monkeypatch):
    """faults.md 42."""
    odd = Finding(subject="a\x1b]0;b\x07", status="note", found="c\x1b[2Jd", remedy="e\rf")
    monkeypatch.setattr(health, "examine", lambda: [odd])
    code, out, _ = srcli("doctor")
    assert code == 0
    assert not {"\x1b", "\x07", "\r"} & set(out)
    assert "[2Jd" in out


def test_no_probe_loads_pytorch_where_there_is_no_gpu():
    """faults.md 28: it alone takes more than a second."""
    if driver().devices:
        pytest.skip("a machine with a GPU, whose PyTorch is looked at")
    script = (
        "import sys\n"
        "from srcli.health.probes import PROBES\n"
        "for checks in PROBES.values():\n"
        "    for check in checks:\n"
        "        list(check())\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True)
    assert done.returncode == 0


def test_tuning_decides_what_auto_takes_for_a_family(srcli, monkeypatch, tmp_path):
    """LAPAR is measured with its smallest network, and the order holds for all of them."""
    monkeypatch.setenv("SRCLI_CACHE", str(tmp_path))
    monkeypatch.setattr(latencies, "WIDTH", 64)
    monkeypatch.setattr(latencies, "HEIGHT", 36)
    lapar = [weights for weights in tuning.subjects() if weights.model.startswith("lapar")]
    assert [weights.model for weights in lapar] == ["lapar-c"]
    monkeypatch.setattr(tuning, "subjects", lambda: lapar)
    code, out, _ = srcli("doctor", "--tune", "--json")
    assert code == 0
    (row,) = json.loads(out)["measured"]
    assert sorted(row["order"], key=row["milliseconds"].get) == row["order"]
    assert {"native", "ort", "torch"} <= {*row["order"]} <= {b.name for b in BACKENDS} - {"trt"}
    for name in ("lapar-a", "lapar-c"):
        assert get_backend("auto", get_model(name)).name == row["order"][0]
    assert f"{row['order'][0]} for lapar" in " ".join(f.found for f in backends.backend())

    keep_orders({"lapar": ["torch", "native"]})
    assert get_backend("auto", get_model("lapar-a")).name == "torch"
    assert get_backend("auto", get_model("awsrn-sd")).name == "native"
    assert srcli("doctor", "--forget")[0] == 0
    assert get_backend("auto", get_model("lapar-a")).name == "native"


@pytest.mark.parametrize("content", ["", "[1]", '{"lapar": 3}', "{"])
def test_a_damaged_order_counts_as_none(monkeypatch, tmp_path, content):
    monkeypatch.setenv("SRCLI_CACHE", str(tmp_path))
    keep_orders({"lapar": ["torch"]})
    orders_file().write_text(content)
    assert get_backend("auto", get_model("lapar-a")).name == "native"
    system_cache.keep(orders_file(), content)  # whole, but of no use
    assert get_backend("auto", get_model("lapar-a")).name == "native"


def test_tune_and_forget_exclude_each_other(srcli):
    code, _, err = srcli("doctor", "--tune", "--forget")
    assert code == 2
    assert "exclude each other" in err

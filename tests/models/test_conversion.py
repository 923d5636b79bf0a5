"""From a checkpoint to a file in the cache. The converter is a stand-in, llama.cpp's quantization
is real, and both run in their own processes."""

import contextlib
import logging
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
from fakes.checkpoints import Shapes, write_checkpoint, write_converter
from fakes.weights import types_of, write_weights

from tgi_llama.errors import ConfigError, StartError
from tgi_llama.models.conversion import ConversionKey, convert, find_converted

KEY = ConversionKey("Qwen/Qwen2.5-3B", "abc123", "q4_0")
PLAIN = attrs.evolve(KEY, quantize="f16")
TRACEBACK = """Traceback (most recent call last):
  File "convert_hf_to_gguf.py", line 7, in <module>
{0}
"""


@attrs.frozen
class Place:
    folder: Path

    @property
    def source(self) -> Path:
        return self.folder / "source"

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    def converter(self, body: str) -> Path:
        return write_converter(self.folder / "converter", body)

    @property
    def good_converter(self) -> Path:
        """Writes random weights, and a line of what it was asked for."""
        weights = write_weights(self.folder / "weights.gguf")
        return self.converter(
            f"shutil.copy({str(weights)!r}, outfile)\n"
            f"with open({str(self.calls)!r}, 'a') as calls:\n"
            "    print(outtype, given.model_name, *sorted(os.listdir(source)), file=calls)\n"
        )

    @property
    def calls(self) -> Path:
        return self.folder / "calls"

    def files(self) -> list[str]:
        """All that is in the cache, hidden files too, but not what links point to."""
        paths = (path for path in self.cache.rglob("*") if path.is_file() and not path.is_symlink())
        return sorted(str(path.relative_to(self.cache)) for path in paths)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    write_checkpoint(tmp_path / "source")
    return Place(tmp_path)


def test_conversion_is_kept_where_people_find_it_and_reused(place: Place) -> None:
    assert find_converted(KEY, place.cache) is None

    path = convert(place.source, KEY, place.cache, place.good_converter)

    assert place.files() == ["Qwen/Qwen2.5-3B/abc123/q4_0.gguf"]
    assert path == place.cache / place.files()[0]
    assert types_of(path)["blk.0.attn_q.weight"] == "Q4_0"
    assert find_converted(KEY, place.cache) == path
    shutil.rmtree(place.source)  # what is in the cache needs neither of them
    assert convert(place.source, KEY, place.cache, place.folder / "absent") == path


@pytest.mark.parametrize(
    ("shapes", "quantize", "outtype"),
    [
        ({"a": ("BF16", (2, 2))}, "q4_0", "auto"),
        ({"a": ("F16", (2, 2))}, "q8_0", "auto"),
        ({"a": ("F32", (2, 2))}, "q4_0", "f32"),
        ({"a": ("F32", (2, 2))}, "f16", "f16"),
        ({"a": ("BF16", (2, 2))}, "f32", "f32"),
        ({"a": ("BF16", (2, 2))}, "bf16", "bf16"),
    ],
)
def test_converter_keeps_the_checkpoints_precision_for_what_comes_after(
    tmp_path: Path, shapes: Shapes, quantize: str, outtype: str
) -> None:
    write_checkpoint(tmp_path / "source", shapes)
    place = Place(tmp_path)

    key = attrs.evolve(KEY, quantize=quantize)
    convert(place.source, key, place.cache, place.good_converter)

    assert place.calls.read_text().split()[:2] == [outtype, "Qwen2.5-3B"]


@pytest.mark.parametrize("trusted", [False, True])
def test_converter_sees_python_files_only_where_they_are_trusted(
    place: Place, trusted: bool
) -> None:
    (place.source / "tokenization_odd.py").write_text("raise SystemExit")

    convert(place.source, KEY, place.cache, place.good_converter, trust_remote_code=trusted)

    seen = place.calls.read_text().split()[2:]
    assert "model.safetensors" in seen
    assert ("tokenization_odd.py" in seen) is trusted


def test_progress_is_logged_in_percent(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    weights = write_weights(place.folder / "weights.gguf")
    converter = place.converter(
        f"shutil.copy({str(weights)!r}, outfile)\n"
        "for n in range(101):\n"
        r"    sys.stderr.write(f'\rWriting: {n:3d}%|##   | 1.0/2.0 [00:01<00:01, 1byte/s]')"
    )

    convert(place.source, KEY, place.cache, converter)

    texts = [record.getMessage() for record in caplog.records]
    assert f"converting {place.source}: 40 %" in texts
    assert sum(f"converting {place.source}: " in text for text in texts) == 10
    assert "quantizing to q4_0: 100 %" in texts
    assert texts[-1].startswith(f"made {KEY.path(place.cache)} (")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise NotImplementedError('BPE is odd')", r"failed: NotImplementedError: BPE is odd$"),
        ("raise OSError(28, 'No space left on device')", r"failed: OSError: .*No space left"),
        ("print('Model Odd is not supported'); sys.exit(1)", r"failed: Model Odd is not supported"),
        ("sys.exit(3)", r"failed with status 3$"),
        ("os.kill(os.getpid(), 9)", r"failed with signal 9$"),
        ("outfile.write_text('GGUF, but no more')", r"quantizing to q4_0 failed: .*failed to load"),
    ],
)
def test_failure_is_one_line_and_leaves_no_file(place: Place, body: str, message: str) -> None:
    write_half = "outfile.write_text('half')\n"

    with pytest.raises(StartError, match=message) as caught:
        convert(place.source, KEY, place.cache, place.converter(write_half + body))

    assert "\n" not in str(caught.value)
    assert place.files() == []


def test_missing_package_says_how_to_get_it(place: Place) -> None:
    converter = place.converter("import torch_that_nobody_has")

    with pytest.raises(ConfigError, match=r"\(No module named 'torch_that.*tgi_llama\[convert\]"):
        convert(place.source, KEY, place.cache, converter)

    assert place.files() == []


def test_missing_python_is_one_line(place: Place) -> None:
    python = place.folder / "python"

    with pytest.raises(StartError, match=r"cannot run .*python: No such file"):
        convert(place.source, KEY, place.cache, place.converter(""), python=python)


def test_full_disk_while_quantizing_is_one_line_and_leaves_no_file(place: Place) -> None:
    """No process can write more than 100 kB in one file, which is the same to llama.cpp."""
    converter = place.converter(
        f"os.link({str(write_weights(place.folder / 'weights.gguf'))!r}, outfile)"
    )
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(StartError, match=r"cannot write to .*cache/Qwen/.*, whose disk has"):
            convert(place.source, KEY, place.cache, converter)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    assert place.files() == []


def test_no_room_is_told_before_the_work(place: Place) -> None:
    checkpoint = place.folder / "large"
    write_checkpoint(checkpoint)
    header = b'{"a": {"dtype": "BF16", "shape": [1000000, 100000000], "data_offsets": [0, 0]}}'
    (checkpoint / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)

    with pytest.raises(StartError, match=r"not enough room .*about 275000.0 GB are needed"):
        convert(checkpoint, KEY, place.cache, place.good_converter)

    assert not place.calls.exists()


def test_type_with_a_matrix_is_refused_before_anything(place: Place) -> None:
    key = attrs.evolve(KEY, quantize="iq2_xs")

    with pytest.raises(ConfigError, match=r"--quantize: iq2_xs needs an importance matrix"):
        convert(place.source, key, place.cache, place.good_converter)


@pytest.mark.parametrize("name", ["", "a//b", "../a", "/etc", "a/..", "a/."])
def test_name_that_leads_out_of_the_cache_is_refused(place: Place, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be named"):
        find_converted(attrs.evolve(KEY, name=name), place.cache)


def test_cache_that_cannot_be_written_is_named(place: Place) -> None:
    place.cache.write_text("a file")

    with pytest.raises(ConfigError, match=r"cannot write to .*cache/Qwen"):
        convert(place.source, KEY, place.cache, place.good_converter)


def test_remains_of_a_killed_conversion_are_removed(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    remains = PLAIN.path(place.cache).parent / ".f16.gguf-x1y2"
    remains.mkdir(parents=True)
    (remains / "converted.gguf").write_text("half")

    convert(place.source, PLAIN, place.cache, place.good_converter)

    assert place.files() == ["Qwen/Qwen2.5-3B/abc123/f16.gguf"]
    assert f"removing {remains}, which an" in caplog.text


PROGRAM = """
import logging, signal, sys
from pathlib import Path
from tgi_llama.models.conversion import ConversionKey, convert
signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background ignore it
logging.basicConfig(level=logging.INFO, format="%(message)s")
source, cache, converter = map(Path, sys.argv[1:])
print(convert(source, ConversionKey("a/b", "v", "f16"), cache, converter))
"""


@contextlib.contextmanager
def _started(place: Place, converter: Path) -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, place.source, place.cache, converter],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _slow_converter(place: Place) -> tuple[Path, Path, Path]:
    """One that says through a pipe that it works, and then waits for another to hang up."""
    working, go = place.folder / "working", place.folder / "go"
    os.mkfifo(working)
    os.mkfifo(go)
    return (
        place.converter(
            "outfile.write_text('half')\n"
            f"working = open({str(working)!r}, 'w')\n"
            "working.write('yes'); working.flush()\n"
            f"open({str(go)!r}).read()\n"
            "outfile.write_text('whole')\n"
        ),
        working,
        go,
    )


def test_two_starts_at_once_convert_once(place: Place) -> None:
    converter, working, go = _slow_converter(place)
    with _started(place, converter) as first, working.open() as signal:
        assert signal.read(3) == "yes"
        with _started(place, converter) as second:
            assert second.stderr is not None
            waiting = second.stderr.readline()
            assert f"waiting for process {first.pid} on" in waiting
            go.open("w").close()
            outputs = [each.communicate()[0] for each in (first, second)]
            statuses = [first.returncode, second.returncode]

    assert statuses == [0, 0]
    assert outputs == [f"{place.cache}/a/b/v/f16.gguf\n"] * 2
    assert place.files() == ["a/b/v/f16.gguf"]
    assert (place.cache / "a/b/v/f16.gguf").read_text() == "whole"


def test_second_start_takes_over_from_one_that_was_killed(place: Place) -> None:
    """The converter of the first ends with it, though nobody ended it, and its half file goes."""
    converter, working, go = _slow_converter(place)
    with _started(place, converter) as first, working.open() as signal:
        assert signal.read(3) == "yes"
        first.kill()
        assert signal.read() == ""  # the converter is gone
    with _started(place, converter) as second, working.open() as signal:
        assert signal.read(3) == "yes"
        assert len(place.files()) == 2  # its lock and its half file
        go.open("w").close()
        output, _ = second.communicate()

    assert output == f"{place.cache}/a/b/v/f16.gguf\n"
    assert place.files() == ["a/b/v/f16.gguf"]


def test_interrupted_start_ends_the_converter_and_leaves_no_file(place: Place) -> None:
    converter, working, _go = _slow_converter(place)
    with _started(place, converter) as process, working.open() as signal:
        assert signal.read(3) == "yes"
        process.send_signal(2)
        assert signal.read() == ""
        _, said = process.communicate()

    assert said.rstrip().endswith("KeyboardInterrupt")
    assert place.files() == []

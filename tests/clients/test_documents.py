"""What the documents for users say is true: their code runs, their examples have the right shape,
their tables are complete."""

import functools
import itertools
import json
import os
import re
import shlex
import shutil
from pathlib import Path

import attrs
import pytest
from clients.examples import assert_like, at, curl, events
from clients.snippets import ROOT, Block, blocks, quoted, rows, section
from fakes.site import build_site

from tgi_llama import builtin, cli
from tgi_llama.bench import command as bench
from tgi_llama.config import Config, options
from tgi_llama.models import convert_command, download_command
from tgi_llama.wire.generate_requests import GenerateParameters
from tgi_llama.wire.openai_requests import ChatRequest, CompletionRequest

API = "docs/http-api.md"
MIGRATING = "docs/migrating-from-tgi.md"
DOCUMENTS = (
    "README.md",
    API,
    MIGRATING,
    "docs/models.md",
    "docs/structured-output.md",
    "docs/tools.md",
)
COMMANDS = (*DOCUMENTS, "docs/docker.md", "docs/gpu.md", "docs/lora.md", "docs/operations.md")
"""Where commands are looked at; see ``test_lora_document.py`` for the rest of that one."""

BUILTIN = Path(builtin.__file__).parent / "model" / "model.gguf"

# The clients' own oversights; see the tests of each.
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pydantic.PydanticDeprecatedSince20"
)


def in_language(language: str) -> list[Block]:
    return [b for document in DOCUMENTS for b in blocks(document) if b.language == language]


def answered_requests() -> list[tuple[Block, Block]]:
    """Each request with the answer that is printed after it."""
    pairs = []
    for document in DOCUMENTS:
        every = list(blocks(document))
        for request, answer in itertools.pairwise(every):
            if request.text.startswith("curl ") and answer.language in ("json", "text"):
                pairs.append((request, answer))
    return pairs


@pytest.mark.parametrize("block", in_language("python"), ids=lambda block: block.name)
def test_program_of_a_document_runs(block, server_url, capsys):
    program = compile(at(server_url, block.text), block.name, "exec")
    exec(program, {"__name__": "__main__"})
    assert capsys.readouterr().out.strip()


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
@pytest.mark.parametrize(
    ("request_block", "answer"), answered_requests(), ids=[a.name for a, _ in answered_requests()]
)
def test_request_of_a_document_gets_its_answer(request_block, answer, server_url):
    body = curl(at(server_url, request_block.text))
    if answer.language == "json":
        assert_like(json.loads(body), json.loads(answer.text))
        return
    if not answer.text.startswith("data: "):
        assert body == answer.text
        return
    expected, got = events(answer.text), events(body)
    for index in (0, -2, -1):
        assert_like(got[index], expected[index])


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_readme_requests_are_answered(server_url):
    plain, structured = (b.text for b in blocks("README.md") if "curl" in b.text)
    requests = plain.split("\n\n")
    assert len(requests) == 3
    for request in requests:
        assert '"error"' not in curl(at(server_url, request))
    extraction, call = (
        json.loads(curl(at(server_url, request)))["choices"][0]["message"]
        for request in structured.split("\n\n")
    )
    assert json.loads(extraction["content"]) == {"name": "Anna", "age": 34, "city": "Oslo"}
    (made,) = call["tool_calls"]
    assert made["function"] == {"name": "get_weather", "arguments": '{"city": "Paris"}'}


# --- tables ---


async def test_routes_are_all_in_the_table(nursery):
    site = await build_site(nursery)
    served = {
        (rule_method, re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule.replace("//", "/")))
        for rule in site.app.url_map.iter_rules()
        for rule_method in rule.methods - {"HEAD", "OPTIONS"}
    }
    listed = {
        tuple(route.split(" ")) for row in rows(section(API, "Routes")) for route in quoted(row[0])
    }
    assert listed == served


async def test_routes_that_need_a_key_are_marked(nursery):
    site = await build_site(nursery, api_keys=("secret",))
    for row in rows(section(API, "Routes")):
        for route in quoted(row[0]):
            method, path = re.sub(r"\{\w+\}", "1", route).split(" ")
            response = await site.client().open(path, method=method)
            assert (response.status_code == 401) == (row[-1] == "yes"), route


@pytest.mark.parametrize(
    ("heading", "wire_type"),
    [("Generate", GenerateParameters), ("Chat", ChatRequest), ("Completions", CompletionRequest)],
)
def test_fields_are_all_in_the_table(heading, wire_type):
    listed = [name for row in rows(section(API, heading)) for name in quoted(row[0])]
    assert sorted(listed) == sorted(f.name for f in attrs.fields(wire_type))


def test_launcher_options_are_what_the_table_says():
    known = {flag: o for o in options() for flag in (o.flag, *o.aliases)}
    same, without_effect, unknown = (
        quoted(row[0]) for row in rows(section(MIGRATING, "2. Keep the flags"))
    )
    assert [flag for flag in same if known[flag].no_effect] == []
    assert [flag for flag in without_effect if not known[flag].no_effect] == []
    assert known.keys().isdisjoint(unknown)


def test_every_defect_of_tgi_is_decided_in_the_document():
    better = rows(section("docs/compatibility.md", "Better than TGI, and why"))
    numbers = {int(number) for row in better for number in re.findall(r"\d+", row[0])}
    assert numbers == set(range(1, 24))


def test_documents_lead_to_each_other():
    for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        text = path.read_text(encoding="utf-8")
        for target, anchor in re.findall(r"\]\((?!http)([^)#]*)(?:#([^)]*))?\)", text):
            there = (path.parent / target) if target else path
            assert there.exists(), (path, target)
            if anchor:
                headings = re.findall(r"^#+ (.*)$", there.read_text(encoding="utf-8"), re.MULTILINE)
                assert anchor in [anchor_of(heading) for heading in headings], (path, anchor)


def anchor_of(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


# --- commands ---


def commands(document: str) -> list[str]:
    """The command lines that start our server, continued lines joined."""
    lines = [
        line.strip()
        for block in blocks(document)
        if block.language in ("sh", "")
        for line in block.text.replace("\\\n", " ").splitlines()
    ]
    return [
        line
        for line in lines
        if re.search(r"\btgi-llama\b|-m tgi_llama\b", line) and not line.startswith("docker ")
    ]


def parser_of(command):
    """What reads the arguments of a command that shares options with the server."""
    return functools.partial(command.parse, options=cli.server_options(command.RELEVANT))


PARSED = {
    "bench": bench.parse,
    "convert": parser_of(convert_command),
    "download": parser_of(download_command),
}


@pytest.mark.parametrize(
    "command", [c for document in COMMANDS for c in commands(document)], ids=lambda c: c[:60]
)
def test_command_of_a_document_is_understood(command, monkeypatch, tmp_path):
    for model in set(re.findall(r"/models/([\w.-]+)", command)):
        (tmp_path / model).touch()
    for folder in set(re.findall(r"--base /models/([\w.-]+)", command)):
        (tmp_path / folder).unlink()
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path)
    command = command.replace("/models/", f"{tmp_path}/").replace(" /adapters", f" {tmp_path}")
    words = shlex.split(command.rpartition("&&")[2].removeprefix("$ "))
    while re.match(r"[A-Z_]+=", words[0]):
        monkeypatch.setenv(*words.pop(0).split("=", 1))
    arguments = words[1:] if words[0] == "tgi-llama" else words[3:]
    name = arguments[0] if arguments else ""
    if name == "inspect":
        shutil.copy(BUILTIN, arguments[1])
        assert cli.run(arguments, serve=repr) == 0
        return
    if name in PARSED:
        assert PARSED[name](arguments[1:], program="tgi-llama") is not None
        return
    config = cli.parse(arguments)
    assert isinstance(config, Config)
    for name in ("model_gguf", "port", "max_total_tokens"):
        if name.upper() in os.environ:
            assert str(getattr(config, name)) == os.environ[name.upper()]


def test_every_step_of_the_migration_has_code_that_is_tested():
    steps = re.findall(r"^## (\d+\. .*)$", (ROOT / MIGRATING).read_text(), re.MULTILINE)
    assert len(steps) >= 4
    tested = {b.heading for b in blocks(MIGRATING) if b.language in ("python", "sh")}
    assert tested >= set(steps)

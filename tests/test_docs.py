# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The README and `docs/`: every block of code runs, every quoted message exists, what is generated is up to date."""

import ast
import os
import re
import shlex
import shutil
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from accelerate.commands.launch import launch_command_parser
from markdown_it import MarkdownIt
from torch.distributed.run import get_args_parser
from trl import TrlParser

import trl_grpo_variants
from trl_grpo_variants import GRPOVariantConfig, variants
from trl_grpo_variants.cli import main
from trl_grpo_variants.objective.terms import Advantage, Setting, registry, written
from trl_grpo_variants.papers import GRPO_DYNAMICS


ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
OTHER_PAGES = [ROOT / "CONTRIBUTING.md", *sorted((ROOT / "examples").glob("*/README.md"))]
# What a reader is told of a block that cannot run everywhere, in its first line.
NEEDS = re.compile(r"# needs a (GPU|network)$")


def fences(path):
    """Blocks of code: language, first line in the file, text."""
    tokens = MarkdownIt("commonmark").parse(path.read_text())
    return [(token.info.strip(), token.map[0] + 1, token.content) for token in tokens if token.type == "fence"]


def commands(text):
    return text.replace("\\\n", " ").splitlines()


def generator():
    spec = spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def options(script):
    return set(re.findall(r"\"(--[\w-]+)\"", (ROOT / script).read_text()))


def check_command(command, capsys):
    """
    Run a command of this package, which prints the numbers of its comment; of any other, look whether what it names is
    there.
    """
    words = shlex.split(command, comments=True)
    while words and "=" in words[0] and not words[0].startswith("-"):
        words = words[1:]
    match words:
        case []:
            return
        case ["trl-variants", "grpo" | "run", *_]:
            raise AssertionError(f"{command!r} trains a model of another place and needs a marker")
        case ["trl-variants", *arguments]:
            assert main(arguments) == 0, command
            printed = capsys.readouterr().out
            assert all(number in printed for number in re.findall(r"\d+\.\d+", command.partition(" # ")[2])), printed
        case ["python", script, *arguments]:
            given = {word.partition("=")[0] for word in arguments if word.startswith("--")}
            assert given <= options(script), command
        case ["make", target, *_]:
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), command
        case _:
            raise AssertionError(f"{command!r} is neither run nor looked at by this test")


def check_options(command):
    """Look whether the options exist of a command that trains with this package where the tests cannot."""
    words = shlex.split(command, comments=True)
    if not any("trl" in word for word in words):
        return
    parsers = (launch_command_parser(), get_args_parser(), TrlParser((GRPOVariantConfig,)))
    known = {option for parser in parsers for action in parser._actions for option in action.option_strings}
    given = {word.partition("=")[0] for word in words if word.startswith("--")}
    assert given <= known | {"--config", "--accelerate_config"}, command


def check_yaml(text, folder):
    """Read a configuration as a script that takes one with `--config` does."""
    file = folder / "recipe.yaml"
    file.write_text(text)
    arguments = ["--config", str(file), "--output_dir", "out", "--use_cpu", "true", "--bf16", "false"]
    (args,) = TrlParser((GRPOVariantConfig,)).parse_args_and_config(arguments)
    assert isinstance(args, GRPOVariantConfig)


def run_python(text, where, namespace):
    """Run a block after those before it; one that begins with the name of a file is that file."""
    name = re.match(r"# (\w+\.py)\n", text)
    if name:
        Path(name[1]).write_text(text)
    exec(compile(text, where, "exec"), namespace)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """What a reader has at the root of the repository, in a place that may be written to."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    # What a page registers is its own.
    monkeypatch.setattr(variants, "_VARIANTS", dict(variants._VARIANTS))
    monkeypatch.syspath_prepend(str(tmp_path))
    modules = set(sys.modules)
    yield tmp_path
    for name in {*sys.modules} - modules:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture(scope="session")
def first_run(tmp_path_factory):
    """The program of the README, and what it leaves: a folder of a run."""
    (text,) = [text for language, _, text in fences(PAGES[0]) if language == "python"]
    place = tmp_path_factory.mktemp("readme")
    (place / "examples").symlink_to(ROOT / "examples")
    before = os.getcwd()
    os.chdir(place)
    try:
        namespace = {"__name__": "readme"}
        run_python(text, "README.md", namespace)
    finally:
        os.chdir(before)
    return place, namespace


def test_the_program_of_the_readme_trains(first_run):
    _, namespace = first_run
    success = [entry["success"] for entry in namespace["trainer"].state.log_history if "success" in entry]
    said = re.search(r"success rises:\s+([\d.]+)\s+at\s+first,\s+([\d.]+)\s+at\s+last", PAGES[0].read_text())
    # On another machine sums are rounded otherwise, and other completions are sampled.
    assert [success[0], success[-1]] == pytest.approx(list(map(float, said.groups())), abs=0.05)


@pytest.mark.parametrize("path", PAGES[1:], ids=lambda path: path.stem)
def test_blocks_of_a_page_run(path, folder, first_run, capsys):
    place, _ = first_run
    shutil.copytree(place / "runs", folder / "runs")
    own = {"__name__": "docs"}
    for language, line, text in fences(path):
        where = f"{path.relative_to(ROOT)}:{line}"
        if language in ("text", "diff"):
            continue
        if NEEDS.match(text.partition("\n")[0]):
            for command in commands(text):
                check_options(command)
        elif language == "python":
            run_python(text, where, own)
        elif language == "yaml":
            check_yaml(text, folder)
        elif language == "bash":
            for command in commands(text):
                check_command(command, capsys)
        else:
            pytest.fail(f"{where}: {language!r} is no language that is run here")


def test_blocks_of_the_readme_run(folder):
    for language, _, text in fences(PAGES[0]):
        if language == "yaml":
            check_yaml(text, folder)
        elif language == "bash":
            assert NEEDS.match(text.partition("\n")[0])
            for command in commands(text):
                check_options(command)
        else:
            assert language in ("python", "diff")


@pytest.mark.parametrize("path", OTHER_PAGES, ids=lambda path: path.parent.stem)
def test_commands_and_files_that_other_pages_name_are_there(path, folder, capsys):
    for language, _, text in fences(path):
        assert language in ("bash", "text", "python")
        for command in commands(text) if language == "bash" else ():
            check_command(command, capsys)
    for name in re.findall(r"`((?:docs|tests|\.ci|examples)/[\w./-]+\.\w+)[` ]", path.read_text()):
        assert (ROOT / name).exists(), name


def test_the_advantage_of_the_contributors_guide_can_be_registered():
    def centered_advantages(rewards, num_generations, *, power=1.0):
        groups = rewards.view(-1, num_generations)
        return ((groups - groups.mean(dim=1, keepdim=True)) ** power).flatten()

    (text,) = [text for language, _, text in fences(OTHER_PAGES[0]) if language == "python"]
    names = {"Advantage": Advantage, "Setting": Setting, "written": written, "SOME_PAPER": GRPO_DYNAMICS}
    names["centered_advantages"] = centered_advantages
    run_python(text, "CONTRIBUTING.md", names)
    part = registry(names["CENTERED"])["centered"]
    assert part.keywords() == {"power": 1.0}
    assert part.formula({"power": 2.0}) == "(r - mean)^2"


def test_a_block_that_is_wrong_is_seen(folder, capsys):
    with pytest.raises(ValueError, match="Unknown variant 'tic'"):
        check_yaml("variant: tic\n", folder)
    with pytest.raises(AssertionError):
        check_options("trl-variants grpo --config recipe.yaml --varient dual")
    wrong = ("python examples/theory/advantages.py --colour", "make coffee", "trl-variants run x.py", "curl x")
    for command in (*wrong, "trl-variants plan --p-ref 0.2 --target 0.8   # beta 0.123456"):
        with pytest.raises(AssertionError):
            check_command(command, capsys)


def messages():
    """Texts of the package, with … where a value goes."""
    for path in (ROOT / "trl_grpo_variants").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                yield "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_quoted_messages_are_those_of_the_code():
    quotes = re.findall("^> (.*)$", (ROOT / "docs" / "troubleshooting.md").read_text(), re.MULTILINE)
    assert len(quotes) > 30
    written = [" ".join(text.split()) for text in messages()]
    for quote in quotes:
        pattern = re.compile(".*".join(map(re.escape, quote.strip("… ").rstrip(".").split("…"))))
        assert any(pattern.search(text) for text in written), quote


def test_the_reference_has_each_public_name():
    listed = re.findall(r"^::: .*\.(\w+)$", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(trl_grpo_variants.__all__)


def test_what_is_generated_is_up_to_date():
    pages = generator().pages()
    assert len(pages) == 6
    for path, text in pages.items():
        assert path.read_text() == text, f"{path.relative_to(ROOT)}: run `python docs/generate.py`"


@pytest.mark.parametrize("path", [*PAGES, *OTHER_PAGES], ids=lambda path: f"{path.parent.stem}-{path.stem}")
def test_lines_of_prose_can_be_read_in_one_go(path):
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    prose = [line for line in text.splitlines() if not line.lstrip().startswith(("|", "<"))]
    assert max(map(len, prose)) <= 200


@pytest.mark.parametrize("path", [*PAGES, *OTHER_PAGES], ids=lambda path: f"{path.parent.stem}-{path.stem}")
def test_links_lead_somewhere(path):
    text = path.read_text()
    for link, image in re.findall(r"\]\(([^)\s]+)\)|(?:src|srcset)=\"([^\"]+)\"", text):
        target, _, anchor = (link or image).partition("#")
        if target.startswith("https://"):
            continue
        file = (path.parent / target).resolve() if target else path
        assert file.exists(), target
        if anchor:
            headings = re.findall("^#+ (.*)$", file.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}, link

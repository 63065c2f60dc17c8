# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""
Lays the site out as the repository is, so that the same relative links work in both: the README is its first page, and
whatever a page links to, or shows, is part of it.
"""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files


ROOT = Path(__file__).resolve().parents[1]
_TARGET = re.compile(r"\]\(([^)\s#:]+)(?:#[^)]*)?\)|(?:src|srcset)=\"([^\":]+)\"")


def linked(page: Path) -> set[Path]:
    """Files of the repository that a page links to."""
    targets = (page.parent / (link or image) for link, image in _TARGET.findall(page.read_text()))
    return {target.resolve() for target in targets if target.is_file()}


def on_files(files: Files, config: Any) -> Files:
    # Those of the theme stay.
    for file in [file for file in files if file.src_dir == config.docs_dir]:
        files.remove(file)
    waiting, known = [ROOT / "README.md"], {ROOT / "README.md"}
    while waiting:
        path = waiting.pop()
        uri = path.relative_to(ROOT).as_posix()
        files.append(File(uri, str(ROOT), config.site_dir, config.use_directory_urls))
        found = linked(path) - known if path.suffix == ".md" else set()
        known |= found
        waiting += sorted(found)
    return files


def on_page_content(html: str, page: Any, **_: Any) -> str:
    """Docstrings name types and other objects as TRL's do, in marks that are Markdown's only in part."""
    if page.file.src_uri != "docs/api.md":
        return html
    html = re.sub(r"\[<code>~?([\w.]+)</code>\]", r"<code>\1</code>", html)
    marks = re.compile(r"\[`~?|`\]|`|\*(?=optional)|(?<=optional)\*")
    return re.sub(r"<code>[^<]*`[^<]*</code>", lambda match: marks.sub("", match[0]), html)

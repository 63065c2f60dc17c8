# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The snippet for vLLM that the model card prints, on what the trainer has saved."""

import re
import subprocess
import sys

import pytest

from ..tiny import make_trainer
from .engine import environment, lora, parity


@pytest.mark.parametrize("adapter", [True, False], ids=["lora", "full"])
def test_snippet_runs(policy, tmp_path, adapter):
    published = tmp_path / "policy-tic"
    trainer = make_trainer(
        str(policy),
        published,
        model=str(policy),
        variant="tic_grpo",
        peft_config=lora() if adapter else None,
        reward_funcs=parity,
    )
    trainer.train()
    trainer.save_model()
    trainer.create_model_card(model_name="policy-tic")
    card = (published / "README.md").read_text()
    (snippet,) = [code for code in re.findall(r"```python\n(.*?)```", card, re.DOTALL) if "from vllm import" in code]
    assert ("LoRARequest" in snippet) is adapter
    # What the card of a run on folders, which nobody else has, calls them.
    (tmp_path / "path" / "to" / "the").mkdir(parents=True)
    (tmp_path / "path" / "to" / "the" / "base-model").symlink_to(policy)
    (tmp_path / "path" / "to" / published.name).symlink_to(published)
    # Nothing else is needed but what a CPU with little memory needs.
    small = "dtype='float32', enforce_eager=True, gpu_memory_utilization=0.05, max_model_len=64)"
    snippet, changed = re.subn(r"(llm = LLM\(.*)\)\n", rf"\1, {small}\n", snippet)
    assert changed == 1
    script = f'if __name__ == "__main__":\n    {snippet.replace(chr(10), chr(10) + "    ")}\n'
    (tmp_path / "snippet.py").write_text(script)
    done = subprocess.run(
        [sys.executable, "snippet.py"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    # The policy answers with letters, or nothing.
    assert re.fullmatch(r"[ a-h?]*", done.stdout.splitlines()[-1])

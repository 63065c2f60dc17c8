# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""
Reward functions that are at work on the processor, in processes of their own.

A worker imports what a function needs and nothing of the trainer, so neither PyTorch nor TRL is imported here.
"""

import asyncio
import inspect
import pickle
import queue
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .checks import check_number, check_whole_number, shown
from .warn import warn_user


if TYPE_CHECKING:
    from .fields import VariantFields


# What TRL gives to a reward function that belongs to the trainer's process.
_OF_TRAINER = ("trainer_state", "log_extra", "log_metric", "environments")
# Seconds, nearly twelve days; the system counts milliseconds, of which it knows no more than a month.
_LONGEST = 1e6


class RewardFunctionError(RuntimeError):
    """A reward function has failed in a worker, or in one of several processes, and all of them stop."""


class _WorkerFailure(Exception):
    """What became of a call, as a predicate to the function's name."""


def check_reward_workers(args: "VariantFields") -> None:
    """Refuse, with a `ValueError`, settings of the workers that are wrong or contradict each other."""
    check_whole_number("reward_num_workers", args.reward_num_workers, at_least=0)
    check_number("reward_timeout", args.reward_timeout, greater_than=0.0, at_most=_LONGEST, optional=True)
    if args.reward_timeout is not None and args.reward_num_workers == 0:
        raise ValueError(
            f"`reward_timeout={args.reward_timeout!r}` stops a call in a process of its own, but `reward_num_workers=0` "
            "makes none; set `reward_num_workers` to at least 1."
        )


class RewardWorkers:
    """
    Processes that score completions, one completion at a time each.

    They start with the first completions and are there until [`close`], or the end of the outermost context of the pool;
    those of a closed pool start anew.

    Args:
        num_workers (`int`):
            Number of processes, of each process that trains.
        timeout (`float`, *optional*):
            Seconds that a function may take for a completion.
    """

    def __init__(self, num_workers: int, timeout: float | None) -> None:
        self._num_workers, self._timeout = num_workers, timeout
        self._functions: list[Callable[..., Any]] = []
        self._workers: list[_Worker] = []
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self._threads: ThreadPoolExecutor | None = None
        self._contexts = 0

    def __enter__(self) -> None:
        self._contexts += 1

    def __exit__(self, *_: Any) -> None:
        self._contexts -= 1
        if self._contexts == 0:
            self.close()

    def take(self, reward_funcs: Any) -> Any:
        """
        Reward functions as TRL takes them, of which those that are synchronous will be called in a worker if there are any.

        Raises:
            `ValueError`: If one cannot be, as it cannot be pickled or needs something of the trainer's.
        """
        if self._num_workers == 0:
            return reward_funcs
        is_list = isinstance(reward_funcs, list | tuple)
        taken = [self._taken(function) for function in (reward_funcs if is_list else [reward_funcs])]
        if not self._functions:
            warn_user(
                f"`reward_num_workers={self._num_workers}` does nothing: no reward function is a synchronous one."
            )
        return taken if is_list else taken[0]

    def _taken(self, function: Any) -> Any:
        call = function
        while isinstance(call, partial):
            call = call.func
        # A model is called with other arguments.
        is_function = callable(call) and not hasattr(call, "forward")
        if not is_function or inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(call.__call__):
            return function
        name = getattr(call, "__name__", type(call).__name__)
        self._check(function, call.__module__, name)
        self._functions.append(function)
        return self._pooled(len(self._functions) - 1, name)

    def _check(self, function: Callable[..., Any], module: str, name: str) -> None:
        where = f"`reward_num_workers={self._num_workers}` calls reward functions in other processes, but `{name}`"
        for parameter in inspect.signature(function).parameters.values():
            if parameter.name in _OF_TRAINER and parameter.default is parameter.empty:
                raise ValueError(
                    f"{where} needs `{parameter.name}`, which belongs to the trainer's; do without it, or set "
                    "`reward_num_workers=0`."
                )
        # The script of another process that has none.
        if module == "__main__" and not Path(getattr(sys.modules[module], "__file__", "")).is_file():
            raise ValueError(
                f"{where} is defined in a notebook or at a prompt, where they do not find it; define it in a module, or set "
                "`reward_num_workers=0`."
            )
        try:
            pickle.dumps(function)
        except Exception as error:  # whatever the function holds may raise anything
            raise ValueError(
                f"{where} cannot be pickled ({' '.join(str(error).split())}); define it at the top level of a module, "
                "or set `reward_num_workers=0`."
            ) from error

    def _pooled(self, number: int, name: str) -> Callable[..., Any]:
        """A function, under its name, that TRL awaits together with others."""

        async def pooled(**columns: Any) -> list[float | None]:
            columns = {column: values for column, values in columns.items() if column not in _OF_TRAINER}
            count = len(columns["prompts"])
            rows = [{column: [values[row]] for column, values in columns.items()} for row in range(count)]
            calls = [asyncio.wrap_future(self._submit(number, row)) for row in rows]
            done, waiting = await asyncio.wait(calls, return_when=asyncio.FIRST_EXCEPTION)
            # All of them: an exception that nobody has asked for is printed when it is forgotten.
            failed = [row for row, call in enumerate(calls) if call in done and call.exception()]
            if not failed:
                return [call.result() for call in calls]
            for call in waiting:
                call.cancel()
            first = failed[0]
            raise RewardFunctionError(
                f"The reward function `{name}` {calls[first].exception()} for completion {first} of {count}: prompt "
                f"{shown(rows[first]['prompts'][0])}, completion {shown(rows[first]['completions'][0])}."
            )

        pooled.__name__ = name
        return pooled

    def _submit(self, number: int, arguments: dict[str, list[Any]]) -> "Future[float | None]":
        if self._threads is None:
            self._workers = [_Worker(self._functions) for _ in range(self._num_workers)]
            self._idle = queue.SimpleQueue()
            for worker in self._workers:
                self._idle.put(worker)
            # One that waits for each worker.
            self._threads = ThreadPoolExecutor(self._num_workers)
        return self._threads.submit(self._call, number, arguments)

    def _call(self, number: int, arguments: dict[str, list[Any]]) -> float | None:
        worker = self._idle.get()
        try:
            return worker.call(number, arguments, self._timeout)
        finally:
            self._idle.put(worker)

    def close(self) -> None:
        """End the processes, whatever they are at."""
        for worker in self._workers:
            worker.end()
        if self._threads is not None:
            # What waits for a worker finds one that has ended.
            self._threads.shutdown()
        self._workers, self._threads = [], None


class _Worker:
    """One of the processes, which begins at once."""

    def __init__(self, functions: Sequence[Callable[..., Any]]) -> None:
        # Forked, it would share the locks of the trainer's threads.
        context = get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_work, args=(other, functions), daemon=True)
        self._process.start()
        other.close()
        self._is_ready = False

    def call(self, number: int, arguments: dict[str, list[Any]], timeout: float | None) -> float | None:
        try:
            if not self._is_ready:
                # What it has to import is no time of a call.
                self._pipe.recv()
                self._is_ready = True
            self._send(number, arguments)
            if not self._pipe.poll(timeout):
                self.end()
                raise _WorkerFailure(f"took longer than `reward_timeout={timeout:g}` seconds")
            failure, reward = self._pipe.recv()
        except (EOFError, OSError) as error:
            self._process.join()
            # A script that trains whenever it is imported ends a worker, which imports it.
            hint = (
                ""
                if self._is_ready
                else ", before it could be called (a script trains under `if __name__ == '__main__':`),"
            )
            raise _WorkerFailure(f"ended its process with exit code {self._process.exitcode}{hint}") from error
        if failure is not None:
            raise _WorkerFailure(failure)
        return reward

    def _send(self, number: int, arguments: dict[str, list[Any]]) -> None:
        try:
            message = ForkingPickler.dumps((number, arguments))
        except Exception as error:  # whatever a column holds may raise anything
            reason = " ".join(str(error).split())
            raise _WorkerFailure(f"could not be given its arguments, which cannot be pickled ({reason}),") from error
        self._pipe.send_bytes(message)

    def end(self) -> None:
        self._process.kill()
        self._process.join()


def _work(pipe: Connection, functions: Sequence[Callable[..., Any]]) -> None:
    """What a worker does until the trainer's end of the pipe is closed."""
    # The trainer ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pipe.send(None)
    while True:
        try:
            number, arguments = pipe.recv()
        except EOFError:
            return
        try:
            (reward,) = functions[number](**arguments)
            pipe.send((None, None if reward is None else float(reward)))
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"in `{place.name}`, {Path(place.filename).name}, line {place.lineno}"
            pipe.send((f"raised {type(error).__name__}: {' '.join(str(error).split())} ({where})", None))

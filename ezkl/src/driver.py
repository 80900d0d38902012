"""Calls functions of the ezkl package for zklora: JSON lines in, JSON lines out.

The first line of the output names the installed version: {"ezkl": VERSION or null, "why": TEXT}.
A request is {"id": N, "call": NAME, "args": {...}}. Its answers are {"id": N, "progress": NAME} and
then either {"id": N, "ok": VALUE, "seconds": S, "cpu_seconds": S, "peak_bytes": N} or
{"id": N, "error": TEXT}. The process ends with its input. All other output goes to stderr.

Arguments: the parent's process number, the required version, and the memory limit in MiB.
"""

import sys

# Import nothing from the current folder. The other imports must follow this line.
# ruff: noqa: E402
sys.path[:] = [folder for folder in sys.path if folder]

import asyncio
import importlib.metadata
import inspect
import json
import os
import time

CALLS = (
    "gen_settings",
    "calibrate_settings",
    "compile_circuit",
    "gen_srs",
    "setup",
    "gen_witness",
    "mock",
    "prove",
    "verify",
)


def end_with_parent(parent):
    """Asks the kernel to kill this process when its parent ends (Linux)."""
    if not sys.platform.startswith("linux"):
        return
    import ctypes
    import signal

    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    try:
        os.kill(parent, 0)
    except ProcessLookupError:
        os._exit(1)
    except PermissionError:
        pass


def limit_memory(mebibytes):
    """Limits address space, because the parent checks resident memory only at intervals.

    Address space exceeds resident memory by libraries, and by a stack and a malloc arena per core.
    """
    try:
        import resource

        beyond = 1024 + 256 * (os.cpu_count() or 1)
        resource.setrlimit(resource.RLIMIT_AS, ((mebibytes + beyond) << 20,) * 2)
    except (ImportError, OSError, OverflowError, ValueError):
        pass


def take_stdout():
    """Returns the stream of answers, and sends other output to stderr."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def peak():
    """Returns the largest memory of this program so far.

    The figure of getrusage includes the parent's memory at the time of the fork.
    """
    try:
        with open("/proc/self/status", encoding="ascii") as lines:
            for line in lines:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    try:
        import resource
    except ImportError:
        return 0
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size if sys.platform == "darwin" else size * 1024


def run_args(ezkl, values):
    made = ezkl.PyRunArgs()
    for name, value in values.items():
        setattr(made, name, [tuple(pair) for pair in value] if name == "variables" else value)
    return made


async def call(ezkl, name, args):
    if name not in CALLS:
        raise ValueError(f"no such call: {name}")
    if "py_run_args" in args:
        args["py_run_args"] = run_args(ezkl, args["py_run_args"])
    made = getattr(ezkl, name)(**args)
    return await made if inspect.isawaitable(made) else made


async def answer(ezkl, request, say):
    say({"id": request["id"], "progress": request["call"]})
    wall, cpu = time.perf_counter(), time.process_time()
    try:
        made = await call(ezkl, request["call"], request["args"])
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of the package is not an Exception
        say({"id": request["id"], "error": f"{type(error).__name__}: {error}"[:4000]})
        return
    say(
        {
            "id": request["id"],
            # A verification succeeds only if it returns True.
            "ok": made is True if request["call"] == "verify" else made is not False,
            "seconds": time.perf_counter() - wall,
            "cpu_seconds": time.process_time() - cpu,
            "peak_bytes": peak(),
        }
    )


def main():
    end_with_parent(int(sys.argv[1]))
    limit_memory(int(sys.argv[3]))
    answers = take_stdout()

    def say(value):
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    try:
        version = importlib.metadata.version("ezkl")
    except importlib.metadata.PackageNotFoundError:
        say({"ezkl": None, "why": "not installed"})
        return
    if version != sys.argv[2]:
        say({"ezkl": version, "why": "another version"})
        return
    try:
        import ezkl
    except BaseException as error:
        say({"ezkl": None, "why": f"{type(error).__name__}: {error}"[:1000]})
        return
    say({"ezkl": version, "why": ""})

    async def serve():
        for line in sys.stdin:
            await answer(ezkl, json.loads(line), say)

    asyncio.run(serve())


main()

"""Measures how much longer a loss takes through a contributor than with a local adapter.

    python python/bench/overhead.py BASE_FOLDER ADAPTER_FOLDER [--tokens 128] [--passes 8]

Both parties are on this machine. Every pass reads different text, so that every row is new. Prints
medians of wall time as a Markdown table.
"""

import argparse
import os
import pathlib
import statistics
import tempfile
import time

import peft
import torch
import transformers

import zklora

ROOT = pathlib.Path(__file__).resolve().parents[2]


def seconds(model, ids):
    start = time.perf_counter()
    with torch.no_grad():
        model(ids, labels=ids).loss.item()
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description="Overhead of a remote adapter over local peft.")
    parser.add_argument("base")
    parser.add_argument("adapter")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--passes", type=int, default=8)
    args = parser.parse_args()

    tokenizer = transformers.AutoTokenizer.from_pretrained(args.base)
    text = "".join(path.read_text() for path in sorted((ROOT / "docs").glob("*.md")))
    ids = tokenizer(text, return_tensors="pt").input_ids[0]
    batches = [ids[at * args.tokens :][: args.tokens][None] for at in range(args.passes + 1)]

    def load():
        return transformers.AutoModelForCausalLM.from_pretrained(
            args.base, dtype=torch.float32
        ).eval()

    alone, local, patched = (
        load(),
        peft.PeftModel.from_pretrained(load(), args.adapter).eval(),
        load(),
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        zklora.LocalContributor(args.adapter, args.base, max_rows="unlimited") as contributor,
    ):
        options = {"session_dir": os.path.join(folder, "session"), "base_folder": args.base}
        with zklora.remote_lora(patched, [contributor], **options) as remote:
            # The models take turns for every text, so that other work on the machine affects all
            # alike. The first text warms up.
            times = [[seconds(model, ids) for model in (alone, local, patched)] for ids in batches][
                1:
            ]
            traffic = remote.comms[0].session.statistics()
            start = time.perf_counter()
        end = time.perf_counter() - start
    report = remote.reports[0]
    medians = [statistics.median(column) for column in zip(*times)]
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, {os.cpu_count()} cores; "
        f"{args.tokens} tokens a pass\n"
    )
    print("| one loss | median | of local peft |\n|---|---|---|")
    for name, median in zip(("base model alone", "local peft", "through a contributor"), medians):
        print(f"| {name} | {1000 * median:.0f} ms | {median / medians[1]:.2f} |")
    of_pass = {name: value / len(batches) for name, value in traffic.items()}
    print(
        f"\n{of_pass['calls']:.0f} calls, {of_pass['bytes_sent'] / 1e6:.1f} MB sent and "
        f"{of_pass['bytes_received'] / 1e6:.1f} MB received a pass. End of the session of "
        f"{sum(report['rows'].values())} rows: {end:.2f} s, of which "
        f"{report['verify_seconds']:.2f} s to verify; a proof of {report['proof_bytes']} bytes."
    )


if __name__ == "__main__":
    main()

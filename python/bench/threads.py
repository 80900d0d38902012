"""Measures losses of several texts in threads, over a connection with a delay.

    python python/bench/threads.py BASE_FOLDER ADAPTER_FOLDER [--rtt 50] [--threads 4] [--tokens 32]

Both parties are on this machine, with a relay between them that delays all bytes. Prints the time
of all texts in one batch, in one thread after the other, and in as many threads, as a Markdown
table. All texts are new in each case.
"""

import argparse
import os
import pathlib
import queue
import socket
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import torch
import transformers

import zklora

ROOT = pathlib.Path(__file__).resolve().parents[2]


def relay(upstream, seconds):
    """Returns the port of a relay to ``upstream`` that delays the bytes of each direction."""
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source, sink):
        delayed = queue.Queue()

        def write():
            while True:
                when, data = delayed.get()
                time.sleep(max(0, when - time.perf_counter()))
                try:
                    sink.sendall(data)
                    if not data:
                        sink.shutdown(socket.SHUT_WR)
                        return
                except OSError:
                    return

        threading.Thread(target=write, daemon=True).start()
        data = b"begin"
        while data:
            try:
                data = source.recv(1 << 18)
            except OSError:
                data = b""
            delayed.put((time.perf_counter() + seconds, data))

    def accept():
        while True:
            client, _ = listener.accept()
            server = socket.create_connection(upstream)
            for ends in ((client, server), (server, client)):
                ends[0].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=pump, args=ends, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listener.getsockname()[1]


def main():
    parser = argparse.ArgumentParser(description="Losses in threads over a slow connection.")
    parser.add_argument("base")
    parser.add_argument("adapter")
    parser.add_argument("--rtt", type=float, default=50, help="milliseconds")
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=32)
    args = parser.parse_args()

    tokenizer = transformers.AutoTokenizer.from_pretrained(args.base)
    text = "".join(path.read_text() for path in sorted((ROOT / "docs").glob("*.md")))
    ids = tokenizer(text, return_tensors="pt").input_ids[0]
    batches = (ids[at * args.tokens :][: args.tokens][None] for at in range(1_000_000))
    model = transformers.AutoModelForCausalLM.from_pretrained(args.base, dtype=torch.float32).eval()

    def loss(batch):
        with torch.no_grad():
            return model(batch, labels=batch).loss.item()

    def seconds(work):
        texts = [next(batches) for _ in range(args.threads)]
        start = time.perf_counter()
        work(texts)
        return time.perf_counter() - start

    def in_threads(texts):
        with ThreadPoolExecutor(args.threads) as pool:
            list(pool.map(loss, texts))

    with (
        tempfile.TemporaryDirectory() as folder,
        zklora.LocalContributor(args.adapter, args.base, max_rows="unlimited") as contributor,
    ):
        port = relay((contributor.host, contributor.port), args.rtt / 2000)
        remote = zklora.remote_lora(
            model,
            [("127.0.0.1", port)],
            expected_adapters=[contributor.adapter_id],
            session_dir=os.path.join(folder, "session"),
            base_folder=args.base,
        )
        with remote:
            loss(next(batches))
            cases = {
                "one batch": seconds(lambda texts: loss(torch.cat(texts))),
                "one after the other": seconds(lambda texts: [loss(text) for text in texts]),
                "threads": seconds(in_threads),
            }
    print(
        f"torch {torch.__version__}, {os.cpu_count()} cores; {args.threads} texts of "
        f"{args.tokens} tokens, {args.rtt:g} ms round trip\n"
    )
    print("| all texts | seconds | of one batch |\n|---|---|---|")
    for name, value in cases.items():
        print(f"| {name} | {value:.2f} | {value / cases['one batch']:.2f} |")


if __name__ == "__main__":
    main()

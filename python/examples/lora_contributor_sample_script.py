"""Compiles an adapter, commits to it, and serves its deltas until Ctrl-C.

    python lora_contributor_sample_script.py \\
        --base_model BASE_FOLDER --lora_model_id ADAPTER_FOLDER --out_dir a-out

The script prints the adapter id, which users pin before the session.
"""

import argparse
import logging
import threading

import zklora


def arguments():
    parser = argparse.ArgumentParser(description="Serve the deltas of a LoRA adapter.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port_a", type=int, default=30000, help="0: any free port")
    parser.add_argument(
        "--base_model", default="distilgpt2", help="folder or name of the base model"
    )
    parser.add_argument(
        "--lora_model_id",
        default="ng0-k1/distilgpt2-finetuned-es",
        help="PEFT folder, or an id on the hub",
    )
    parser.add_argument(
        "--out_dir", default="a-out", help="public/ is for users; keep private/ private"
    )
    parser.add_argument(
        "--max_rows", type=int, help="row limit of a module; a few rows reveal most of the adapter"
    )
    return parser.parse_args()


def main():
    args = arguments()
    logging.basicConfig(level=logging.INFO, format="[A] %(message)s")
    server = zklora.LoRAServer(args.base_model, args.lora_model_id, args.out_dir)
    stop = threading.Event()
    thread = zklora.AServerTCP(args.host, args.port_a, server, stop, max_rows=args.max_rows)
    thread.start()
    print(f"[A] adapter id {server.adapter_id}")
    print(
        f"[A] {len(server.list_lora_injection_points())} modules at {thread.url}; Ctrl-C stops",
        flush=True,
    )
    try:
        thread.join()
    except KeyboardInterrupt:
        stop.set()
        thread.join()
    print(f"[A] proofs: {server.finalize_proofs_and_collect()}")


if __name__ == "__main__":
    main()

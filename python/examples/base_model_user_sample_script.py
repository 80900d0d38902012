"""Computes a model's loss with a contributor's deltas, and verifies the proof of all of them.

    python base_model_user_sample_script.py \\
        --base_model BASE_FOLDER --expected_adapter ADAPTER_ID --session_dir b-out

The pin comes from the contributor, before the session: an adapter id, a manifest file or a public
folder.
"""

import argparse
import logging

import zklora


def arguments():
    parser = argparse.ArgumentParser(description="Run a base model with a contributor's adapter.")
    parser.add_argument("--host_a", default="127.0.0.1")
    parser.add_argument("--port_a", type=int, default=30000)
    parser.add_argument(
        "--base_model", default="distilgpt2", help="folder or name of the base model"
    )
    parser.add_argument("--combine_mode", choices=["replace", "add_delta"], default="add_delta")
    parser.add_argument(
        "--expected_adapter", help="the pin; without it, the proof shows almost nothing"
    )
    parser.add_argument("--session_dir", default="b-out", help="folder for your own record")
    parser.add_argument(
        "--text", default="In the beginning was the Word, and the Word was with God."
    )
    parser.add_argument(
        "--generate", type=int, default=0, metavar="TOKENS", help="also continue the text"
    )
    return parser.parse_args()


def main():
    args = arguments()
    logging.basicConfig(level=logging.INFO, format="[B] %(message)s")
    client = zklora.BaseModelClient(
        args.base_model,
        args.host_a,
        args.port_a,
        args.combine_mode,
        expected_adapters=args.expected_adapter,
        session_dir=args.session_dir,
    )
    print(f"[B] loss of the base model: {client.forward_loss(args.text):.4f}")
    client.init_and_patch()
    print(f"[B] loss with the adapter: {client.forward_loss(args.text):.6f}")
    if args.generate:
        options = {"max_new_tokens": args.generate, "do_sample": False}
        continuation = client.generate(args.text, **options)
        print(f"[B] continuation: {continuation!r}")
    for report in client.end_inference():
        pin = "your pin" if report.get("pinned") else "NOT PINNED"
        print(f"[B] adapter {report['adapter_id']} ({pin}): {report['message']}")
    print(f"[B] your record is in {client.transcript}")


if __name__ == "__main__":
    main()

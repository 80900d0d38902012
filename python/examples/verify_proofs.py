"""Verifies the proofs of a folder again, from files.

    python verify_proofs.py \\
        --proof_dir b-out --transcript b-out --expected_adapter ADAPTER_ID --verbose

Without --transcript and --expected_adapter, warnings list the checks that were skipped.
"""

import argparse

import zklora


def main():
    parser = argparse.ArgumentParser(
        description="Verify proofs against your own record of the session."
    )
    parser.add_argument(
        "--proof_dir", default="proof_artifacts", help="folder with proofs (.pf) and manifests"
    )
    parser.add_argument("--transcript", help="your own record: the folder of a session, or a trace")
    parser.add_argument("--expected_adapter", action="append", help="the pin; may be repeated")
    parser.add_argument("--verbose", action="store_true", help="print a line for every proof")
    args = parser.parse_args()
    seconds, count = zklora.batch_verify_proofs(
        args.proof_dir, args.transcript, args.expected_adapter, args.verbose
    )
    print(f"{count} proofs in {seconds:.2f} s")


if __name__ == "__main__":
    main()

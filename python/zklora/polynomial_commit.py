"""Hiding commitments to activations, byte for byte those of the original ZKLoRA."""

from . import _native

__all__ = ["commit_activations", "verify_commitment"]


def commit_activations(activations_path) -> str:
    """Commits to the numbers of a JSON file ``{"input_data": [...]}``; returns JSON with ``root`` and ``nonce``.

    Whoever has the nonce can test guesses of all values: it opens the commitment, so keep it.
    """
    return _native.commit_activations(activations_path)


def verify_commitment(activations_path, commitment: str) -> bool:
    """Whether ``commitment`` is to exactly the numbers of the file, in this order.

    A text that is not the JSON of a commitment is a commitment to nothing: ``False``. Hex digits may be of either case.
    """
    return _native.verify_commitment(activations_path, commitment)

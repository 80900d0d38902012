"""Hiding commitments to activations, byte for byte like those of the original ZKLoRA."""

from . import _native

__all__ = ["commit_activations", "verify_commitment"]


def commit_activations(activations_path) -> str:
    """Commits to the numbers of a JSON file ``{"input_data": [...]}``.

    Returns JSON with ``root`` and ``nonce``. The nonce opens the commitment: a party that has it
    can test guesses of all values, so keep it private.
    """
    return _native.commit_activations(activations_path)


def verify_commitment(activations_path, commitment: str) -> bool:
    """Whether ``commitment`` is to exactly the numbers of the file, in this order.

    Returns ``False`` for a text that is not the JSON of a commitment. Hex digits may be in upper or
    lower case.
    """
    return _native.verify_commitment(activations_path, commitment)

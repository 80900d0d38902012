"""lm-eval's command line, with the model ``zklora``: ``python -m zklora.lm_eval``."""

import sys

from lm_eval.__main__ import cli_evaluate

# Registers the model.
from . import ZkloraLM as ZkloraLM

if __name__ == "__main__":
    sys.argv[0] = "python -m zklora.lm_eval"
    cli_evaluate()

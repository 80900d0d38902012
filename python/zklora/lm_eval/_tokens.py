"""Tokens of lm-evaluation-harness's requests, cut as its model class for transformers cuts them.

Imports lm_eval, and of its model classes only the one that needs no torch.
"""

import base64
import json
import os

import jinja2
from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from .._foreign_text import shown
from ..errors import FileError, InputError

#: lm-eval's limit for a model that states none, in tokens.
DEFAULT_LENGTH = 2048
#: A tokenizer of transformers states a length above this if it knows none.
_UNKNOWN_LENGTH = 10**9
#: Limit for the size of a configuration file, in bytes.
_LARGEST_FILE = 16 << 20


def _json(path):
    """Returns the object of a JSON file, or an empty one if there is none to read."""
    try:
        if os.path.getsize(path) > _LARGEST_FILE:
            return {}
        with open(path, encoding="utf-8") as file:
            value = json.load(file)
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _first_id(value):
    """A token id of a model's configuration, which may be a list of several."""
    if isinstance(value, list) and value:
        value = value[0]
    return value if type(value) is int else None


class _FromFile:
    """A tokenizer of the package ``tokenizers``, with the methods that are used here."""

    def __init__(self, tokenizer, folder=None):
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        names = {} if folder is None else _json(os.path.join(folder, "special_tokens_map.json"))
        own = {} if folder is None else _json(os.path.join(folder, "tokenizer_config.json"))
        names.update((key, value) for key, value in own.items() if value is not None)
        self.bos_token_id = self._id(names.get("bos_token"))
        self.eos_token_id = self._id(names.get("eos_token"))
        self.model_max_length = own.get("model_max_length")

    def _id(self, token):
        token = token.get("content") if isinstance(token, dict) else token
        return self._tokenizer.token_to_id(token) if isinstance(token, str) else None

    def encode(self, text, add_special_tokens=True):
        return self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids

    def decode(self, token):
        return self._tokenizer.decode([token], skip_special_tokens=False)


def _load(path, add_bos_token):
    """Loads a tokenizer from a folder or a ``tokenizer.json``; returns it and the folder."""
    path = os.fspath(path)
    if not os.path.exists(path):
        raise FileError(f"{path}: there is no tokenizer: pass its folder as tokenizer")
    folder = path if os.path.isdir(path) else os.path.dirname(path) or "."
    try:
        import transformers
    except ImportError:
        transformers = None
    try:
        if transformers is not None:
            options = {} if add_bos_token is None else {"add_bos_token": add_bos_token}
            if os.path.isdir(path) or os.path.basename(path) == "tokenizer.json":
                return transformers.AutoTokenizer.from_pretrained(folder, **options), folder
            return transformers.PreTrainedTokenizerFast(tokenizer_file=path, **options), folder
        import tokenizers

        if add_bos_token is not None:
            raise InputError("add_bos_token needs transformers: run `pip install transformers`")
        return _FromFile(tokenizers.Tokenizer.from_file(tokenizer_file(path)), folder), folder
    except ImportError:
        raise InputError(
            "no tokenizer can be read: run `pip install tokenizers` or `pip install transformers`"
        ) from None
    except InputError:
        raise
    except Exception as error:  # The readers raise anything.
        raise FileError(f"{path}: the tokenizer cannot be read: {error}") from error


def tokenizer_file(tokenizer):
    """The file of a tokenizer that is given by its path, or ``None``."""
    if not isinstance(tokenizer, (str, os.PathLike)):
        return None
    path = os.fspath(tokenizer)
    return os.path.join(path, "tokenizer.json") if os.path.isdir(path) else path


def _offered_length(offer):
    """The most tokens of a sequence in a contributor's offer, or ``None`` if it cannot be read.

    It only chooses a default: an offer is checked before anything is sent.
    """
    if not isinstance(offer, (str, os.PathLike)):
        return None
    offer = os.fspath(offer)
    if os.path.isdir(offer):
        offer = os.path.join(offer, "offer.json")
    found = _json(offer)
    try:
        if "payload" in found:
            found = json.loads(base64.b64decode(found["payload"]))
        found = found["limits"]["unit_tokens"]
    except (ValueError, TypeError, KeyError):
        return None
    return found if type(found) is int else None


class Encoder(TemplateLM):
    """Encodes requests like lm-eval's ``HFLM`` with the same tokenizer and options.

    ``max_length`` are the tokens that a model reads before the last scored one, as in lm-eval: a
    sequence has one more.
    """

    def __init__(
        self,
        tokenizer=None,
        base=None,
        integer_model=None,
        offer=None,
        max_length=None,
        add_bos_token=None,
        prefix_token_id=None,
    ):
        super().__init__()
        if tokenizer is None:
            if base is None:
                raise InputError("neither tokenizer nor base is given: pass the tokenizer's folder")
            tokenizer = os.path.join(os.path.dirname(os.fspath(base)) or ".", "tokenizer.json")
        folder = None
        if isinstance(tokenizer, (str, os.PathLike)):
            tokenizer, folder = _load(tokenizer, add_bos_token)
        elif hasattr(tokenizer, "token_to_id"):
            tokenizer = _FromFile(tokenizer)
        else:
            folder = getattr(tokenizer, "name_or_path", None)
        self.tokenizer = tokenizer
        self._add_bos_token = add_bos_token
        config = _json(os.path.join(folder, "config.json")) if folder else {}
        self._prefix = prefix_token_id
        for known in (
            tokenizer.bos_token_id,
            tokenizer.eos_token_id,
            _first_id(config.get("bos_token_id")),
            _first_id(config.get("eos_token_id")),
        ):
            self._prefix = known if self._prefix is None else self._prefix
        self._prefix_text = None if self._prefix is None else tokenizer.decode(self._prefix)
        longest = [_offered_length(offer)]
        if integer_model is not None:
            path = os.path.join(os.fspath(integer_model), "integer-model.json")
            longest.append(_json(path).get("tokens"))
        longest = min((tokens for tokens in longest if type(tokens) is int), default=None)
        self._length = max_length
        if max_length is None:
            self._length = self._model_length(config)
            if longest is not None:
                self._length = min(self._length, longest - 1)
        elif longest is not None and max_length >= longest:
            raise InputError(
                f"max_length is {max_length}, but a sequence has at most {longest} tokens, and the "
                f"last is scored only: pass at most {longest - 1}"
            )
        if self._length < 1:
            raise InputError(f"max_length is {self._length}: pass at least 1")

    def _model_length(self, config):
        own = config.get("text_config")
        config = own if isinstance(own, dict) else config
        for name in ("n_positions", "max_position_embeddings", "n_ctx"):
            if type(config.get(name)) is int:
                return config[name]
        own = getattr(self.tokenizer, "model_max_length", None)
        return own if type(own) is int and own < _UNKNOWN_LENGTH else DEFAULT_LENGTH

    @property
    def max_length(self):
        """The tokens that a model reads before the last scored one."""
        return self._length

    @property
    def eot_token_id(self):
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self):
        """The token before a text without context."""
        if self._prefix is None:
            raise InputError(
                "the tokenizer has no token for the start or the end of a text: pass "
                "prefix_token_id"
            )
        return self._prefix

    @property
    def tokenizer_name(self):
        return getattr(self.tokenizer, "name_or_path", "").replace("/", "__")

    def apply_chat_template(self, chat_history, add_generation_prompt=True):
        """Returns a dialogue as text, as the tokenizer's template writes it."""
        if not hasattr(self.tokenizer, "apply_chat_template"):
            raise InputError("a chat template needs transformers: run `pip install transformers`")
        options = {
            "tokenize": False,
            "add_generation_prompt": add_generation_prompt,
            "continue_final_message": not add_generation_prompt,
        }
        try:
            return self.tokenizer.apply_chat_template(chat_history, **options)
        except jinja2.TemplateError:
            # Like lm-eval: some templates have no place for the system's message.
            chat_history = [message for message in chat_history if message["role"] != "system"]
            return self.tokenizer.apply_chat_template(chat_history, **options)

    def tok_encode(self, string, add_special_tokens=None, **_):
        options = {}
        if add_special_tokens is not None:
            options = {"add_special_tokens": add_special_tokens}
        elif self._prefix_text is not None and string.startswith(self._prefix_text):
            options = {"add_special_tokens": False}
        elif self._add_bos_token is not None:
            options = {"add_special_tokens": self._add_bos_token}
        return self.tokenizer.encode(string, **options)

    def sequence(self, context, continuation, what):
        """Returns tokens, and the place of the first scored one, of a continuation.

        ``what`` names the request in errors. Too long a context loses tokens on the left.
        """
        for text in (context, continuation):
            if not isinstance(text, str):
                raise InputError(f"{what}: expected texts, not {shown(type(text).__name__)}")
        if context:
            before, scored = self._encode_pair(context, continuation)
        else:
            before, scored = [], self.tok_encode(continuation, add_special_tokens=False)
            if scored[:1] == [self.prefix_token_id]:
                before, scored = scored[:1], scored[1:]
            else:
                before = [self.prefix_token_id]
        return self._checked(before, scored, what)

    def windows(self, text, what):
        """Returns tokens, and the place of the first scored one, of every window of a text."""
        if not isinstance(text, str):
            raise InputError(f"{what}: expected a text, not {shown(type(text).__name__)}")
        parts = get_rolling_token_windows(
            self.tok_encode(text), self.prefix_token_id, self.max_length, 1
        )
        return [self._checked(*make_disjoint_window(part), what) for part in parts]

    def _checked(self, before, scored, what):
        if not before:
            raise InputError(f"{what}: its context has no token, so nothing can be scored after it")
        if not scored:
            raise InputError(f"{what}: its continuation has no token of its own")
        if len(scored) > self.max_length:
            raise InputError(
                f"{what}: its continuation has {len(scored)} tokens, but max_length is "
                f"{self.max_length}: shorten it, or use a model that reads more"
            )
        tokens = (list(before) + list(scored))[-(self.max_length + 1) :]
        return tokens, len(tokens) - len(scored)

    def _loglikelihood_tokens(self, requests, **_):
        raise NotImplementedError

    def loglikelihood_rolling(self, requests, disable_tqdm=False):
        raise NotImplementedError

    def generate_until(self, requests, disable_tqdm=False):
        raise NotImplementedError

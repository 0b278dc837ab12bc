"""Tokens that JSON files add to a tokenizer's vocabulary, as transformers 5 reads them.

They are in `tokenizer_config.json` (`added_tokens_decoder`, `extra_special_tokens`, and each key
that ends in `_token`), or in folders of older versions in `special_tokens_map.json` and
`added_tokens.json`; those in `tokenizer.json` are in the tokenizer already. Order and precedence
are those of `PreTrainedTokenizerBase._from_pretrained` and `TokenizersBackend.__init__`; tests
compare the resulting ids with transformers'.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from score.errors import ModelError
from score.folder.model_folder import read_optional_json
from score.type_aliases import Json
from score.wording.quoting import quoted

CONFIG = "tokenizer_config.json"

# Named special tokens, in the order in which they are added.
_NAMED = tuple(f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))

_MOST = 16_384  # in one list: they are added in half a second

Token = str | AddedToken


@dataclass(frozen=True, slots=True)
class AddedTokens:
    """The tokens that a folder's JSON files add to the vocabulary.

    named: special tokens by name, `bos_token` first. by_id: tokens that are listed with an id.
    extra: other special tokens. complete: whether `by_id` also lists the tokens that
    `tokenizer.json` adds.
    """

    named: Mapping[str, Token]
    by_id: Mapping[int, AddedToken]
    extra: tuple[Token, ...]
    complete: bool

    @classmethod
    def read(cls, folder: Path, defaults: Mapping[str, str]) -> AddedTokens:
        """Reads the tokens of a folder. `defaults`: named tokens of the tokenizer's class.

        Raises ModelError for files that cannot be read, and for unsupported settings.
        """
        config = dict(read_optional_json(folder / CONFIG))
        _refuse(config, folder / CONFIG)
        _check_number(config, folder / CONFIG)
        if "additional_special_tokens" in config and not config.get("extra_special_tokens"):
            config["extra_special_tokens"] = config.pop("additional_special_tokens")
        complete = "added_tokens_decoder" in config
        listed: dict[int, AddedToken] = {}
        try:
            if complete:
                listed = {
                    int(id): AddedToken(**token)
                    for id, token in config["added_tokens_decoder"].items()
                }
            else:
                _merge(config, _read(folder / "special_tokens_map.json"))
                listed = dict(_added(_read(folder / "added_tokens.json"), config))
            return cls(_named(config, defaults), listed, _extra(config), complete)
        except (TypeError, ValueError, AttributeError, OverflowError) as error:
            reason = str(error)[:200]
            raise ModelError(f"unusable added tokens in {folder}: {reason}") from error

    def name(self, name: str, default: str) -> str:
        """The text of a named token."""
        return _content(self.named.get(name, default))

    def without(self, pattern: re.Pattern[str]) -> AddedTokens:
        """Those that do not match a pattern."""
        by_id = {
            id: token for id, token in self.by_id.items() if not pattern.fullmatch(token.content)
        }
        extra = tuple(token for token in self.extra if not pattern.fullmatch(_content(token)))
        return replace(self, by_id=by_id, extra=extra)

    def add_to(self, tokenizer: Tokenizer) -> None:
        """Adds them. Raises ModelError if a token does not get the id in its file."""
        own = tokenizer.get_added_tokens_decoder()
        listed = {**self.by_id} if self.complete else {**self.by_id, **own}
        if self.complete:
            self._check_own(own)
        tokens = [listed[id] for id in sorted(listed)]
        known = {token.content: token for token in tokens}
        for token in (*self.named.values(), *self.extra):
            content = _content(token)
            if content not in known:
                known[content] = _special(token)
        named = {_content(token) for token in self.named.values()}
        for token in known.values():
            if token.content in named and not token.special:
                token.special = True
        tokenizer.add_tokens(list(known.values()))
        for id, token in listed.items():
            if (actual := tokenizer.token_to_id(token.content)) != id:
                raise ModelError(
                    f"the added token {quoted(token.content)} is listed with the id {id:,}, and "
                    f"transformers gives it {actual:,}: those that the vocabulary lacks get the "
                    "ids after its own, without a gap"
                )

    def _check_own(self, own: Mapping[int, AddedToken]) -> None:
        listed = {token.content for token in self.by_id.values()}
        listed |= {_content(token) for token in (*self.named.values(), *self.extra)}
        for token in own.values():
            if token.content not in listed:
                raise ModelError(
                    f"tokenizer.json adds the token {quoted(token.content)}, which {CONFIG} leaves "
                    "out of added_tokens_decoder: make them agree"
                )


def _refuse(config: Json, file: Path) -> None:
    """Raises ModelError for settings that change ids and are not supported."""
    for name, usual in (("split_special_tokens", False), ("truncation_side", "right")):
        if config.get(name, usual) != usual:
            raise ModelError(f"{file}: {name}={quoted(config[name])} is not supported")


def _read(file: Path) -> Json:
    content = read_optional_json(file)
    _check_number(content, file)
    return content


def _check_number(content: Json, file: Path) -> None:
    """Raises ModelError for more tokens than can be compared with each other in a moment."""
    for value in (content, *content.values()):
        if isinstance(value, (dict, list)) and len(value) > _MOST:
            raise ModelError(f"{file} lists {len(value):,} values; at most {_MOST:,} are read")


def _merge(config: dict[str, Any], special: Json) -> None:
    """Merges `special_tokens_map.json`, which takes precedence, into the configuration."""
    for name, value in special.items():
        if name == "extra_special_tokens" and isinstance(value, list):
            before = list(config.get(name) or [])
            known = set(map(_spelled, before))  # comparing each with each would take seconds
            config[name] = before + [token for token in value if _spelled(token) not in known]
        elif isinstance(value, dict) and name != "extra_special_tokens":
            config[name] = AddedToken(**{**_plain(value), "special": True})
        else:
            config[name] = value


def _spelled(token: object) -> str:
    return json.dumps(token, sort_keys=True)


def _added(listed: Json, config: Json) -> Iterator[tuple[int, AddedToken]]:
    """The tokens of `added_tokens.json` (token → id).

    A token listed elsewhere as special is matched in the original text, others in the normalized
    text.
    """
    special = {str(config[name]) for name in _NAMED if config.get(name)}
    special |= {str(token) for token in config.get("extra_special_tokens") or ()}
    for content, id in listed.items():
        known = content in special
        yield int(id), AddedToken(content, normalized=not known, special=known)


def _named(config: Json, defaults: Mapping[str, str]) -> dict[str, Token]:
    """The named tokens: transformers' names first, then the model's own, typed ones first."""
    extra = config.get("extra_special_tokens")
    own = {name: value for name, value in config.items() if name.endswith("_token")}
    typed = {name: value for name, value in own.items() if not isinstance(value, str)}
    listed = extra if isinstance(extra, dict) else {}
    values = {**dict.fromkeys(_NAMED), **defaults, **typed, **own, **listed}
    tokens = {name: _token(value) for name, value in values.items()}
    return {name: token for name, token in tokens.items() if token is not None}


def _extra(config: Json) -> tuple[Token, ...]:
    listed = config.get("extra_special_tokens", config.get("additional_special_tokens")) or ()
    tokens = () if isinstance(listed, dict) else tuple(map(_token, listed))
    if None in tokens:
        raise TypeError(f"extra_special_tokens holds {quoted(listed)}")
    return tuple(token for token in tokens if token is not None)


def _token(value: object) -> Token | None:
    """A token in a configuration; None for a value that is not one (`add_bos_token: true`)."""
    if isinstance(value, (str, AddedToken)):
        return value
    if isinstance(value, dict) and "content" in value:
        return AddedToken(**_plain(value))
    return None


def _plain(token: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in token.items() if name != "__type"}


def _special(token: Token) -> AddedToken:
    return AddedToken(token, special=True) if isinstance(token, str) else token


def _content(token: Token) -> str:
    return token if isinstance(token, str) else token.content

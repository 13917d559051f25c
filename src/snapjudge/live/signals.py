"""Forms of text that judges do not read as people do: marks of chat templates, what the vocabulary lacks, invisible characters. Knows nothing of policies."""

import re

from snapjudge.model.tokens import TextTokens

MOST_UNREAD = 0.02  # tokens that stand for something the vocabulary lacks, of all
LONGEST_RUN = 100  # characters without a space
MOST_HIDDEN = 0.01  # invisible characters, of all
_TEMPLATE = re.compile(r"<\|[a-z_]{2,20}\|>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|</?(?:s|bos|eos)>|^#{2,3} (?:Instruction|Response):", re.MULTILINE)
_RUN = re.compile(rf"\S{{{LONGEST_RUN + 1},}}")
_LINK = re.compile(r"https?://\S+")
_HIDDEN = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff\ue000-\uf8ff\U000e0000-\U000e007f]")


def odd_form(text: str, tokens: TextTokens) -> str:
    """What is odd about a text's form: `template` (marks of chat templates), `unreadable` (what the vocabulary lacks, runs without spaces), `hidden`
    (invisible characters); empty where nothing is.
    """
    if _TEMPLATE.search(text):
        return "template"
    if text and len(_HIDDEN.findall(text)) > MOST_HIDDEN * len(text):
        return "hidden"
    if _RUN.search(_LINK.sub(" ", text)) or tokens.unknown_share(text) > MOST_UNREAD:
        return "unreadable"
    return ""

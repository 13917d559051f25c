"""A backbone as live traffic meets it: how text becomes its tokens, what its open answers rest on, and the engines that run it."""

from collections.abc import Mapping
from dataclasses import dataclass

from snapjudge.core.question import Evidence, OpenType
from snapjudge.generalist import open_terms
from snapjudge.live.host import Host, HostTerms
from snapjudge.model.hub import load_prompt_rules
from snapjudge.model.prompt_rules import PromptRules


@dataclass(frozen=True, eq=False)
class Backing:
    """Made by `Backing.start`."""

    name: str
    host: Host
    rules: PromptRules
    evidence: Mapping[OpenType, Evidence]

    @classmethod
    async def start(cls, terms: HostTerms) -> "Backing":
        """Start the engines of a backbone.

        Raises:
            BackboneNotFound, BackboneUnsupported, EngineDown.
        """
        host = Host(terms)
        own = cls(terms.backbone, host, load_prompt_rules(terms.backbone), open_terms(terms.backbone).evidence)
        await host.start()
        return own

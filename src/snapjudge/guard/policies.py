"""The policies that are loaded, by name: replaced by newer versions, paused and resumed while they are used; kept in a folder where there is one.

Knows nothing of what they decide.
"""

from collections.abc import Iterator
from pathlib import Path

from snapjudge.core.api import PolicyState
from snapjudge.core.policy import Policy
from snapjudge.errors import PolicyInvalid, PolicyUnknown, RunConflict
from snapjudge.guard.policy_file import dump_policy, read_policy
from snapjudge.store.files import write_file


class Policies:
    """All that are loaded.

    Args:
        folder: where each lies as NAME.yaml; changes are written there before they count.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._known: dict[str, Policy] = {}
        for path in sorted(folder.glob("*.yaml")) if folder is not None else ():
            policy = read_policy(path)
            if policy.name in self._known:
                raise RunConflict(
                    f"{path.name}: another file has a policy {policy.name}", hint="one file for each policy; a new version takes the old one's place"
                )
            self._known[policy.name] = policy

    def __iter__(self) -> Iterator[Policy]:
        return iter(self._known.values())

    def find(self, name: str) -> Policy:
        """The policy of a name, or of a name and version such as `support@3`.

        Raises:
            PolicyUnknown.
        """
        plain, _, version = name.partition("@")
        found = self._known.get(plain)
        if found is None or (version and version != str(found.version)):
            there = f"; {found.signature} is" if found is not None else ""
            raise PolicyUnknown(f"no policy {name[:140]!r} is loaded{there}", hint="GET /v1/policies lists those that are", received=name[:140])
        return found

    def put(self, policy: Policy) -> Policy:
        """Load a policy, or a newer version of one.

        Raises:
            RunConflict: another policy has this name and version already, or a newer one is there. StorageFailed.
        """
        known = self._known.get(policy.name)
        if known is not None and known != policy and policy.version <= known.version:
            raise RunConflict(f"{known.signature} is loaded", hint=f"a changed policy gets a version above {known.version}", received=policy.signature)
        return self._keep(policy)

    def pause(self, name: str, *, paused: bool) -> Policy:
        """Pause a policy, so that it allows everything and says so, or resume it.

        Raises:
            PolicyUnknown, StorageFailed.
        """
        return self._keep(self.find(name).model_copy(update={"paused": paused}))

    def drop(self, name: str) -> Policy:
        """Forget a policy.

        Raises:
            PolicyUnknown, StorageFailed.
        """
        found = self.find(name)
        if self._folder is not None:
            (self._folder / f"{found.name}.yaml").unlink(missing_ok=True)
        return self._known.pop(found.name)

    def _keep(self, policy: Policy) -> Policy:
        if self._folder is not None:
            write_file(self._folder / f"{policy.name}.yaml", dump_policy(policy))
        self._known[policy.name] = policy
        return policy


def state_of(policy: Policy) -> PolicyState:
    """A policy for people and clients."""
    rules = [leaf for stage in policy.stages for leaf in policy.leaves(stage)]
    judges = dict.fromkeys([*(name for leaf in rules if leaf.question is None for name in leaf.names), *(one.judge for one in policy.routing if one.judge)])
    stages = {stage: tuple(one.name for one in policy.rulesets(stage)) for stage in policy.stages}
    return PolicyState(policy=policy.signature, version=policy.version, paused=policy.paused, stages=stages, judges=tuple(judges), about=policy.about)


def check_own(policy: Policy) -> None:
    """See that a policy that comes with a request holds nothing that only those who manage the server may say.

    Raises:
        PolicyInvalid: it has a pattern, which may be made to take for ever, or a webhook, which calls wherever it says.
    """
    for stage, rulesets in policy.stages.items():
        for ruleset in rulesets:
            if ruleset.webhooks or any(leaf.pattern for rule in ruleset.rules for leaf in rule.leaves):
                raise PolicyInvalid.one(
                    f"policy {policy.name}",
                    f"stages.{stage}.{ruleset.name}",
                    "a pattern or a webhook in a policy that comes with a request",
                    "keywords; or a policy that is loaded (PUT /v1/policies/NAME)",
                )

"""Policies as data: what people may write, what is refused with its line, and what is decided from answers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapjudge.core.api import Answer, Flags
from snapjudge.core.judgement import Abstention
from snapjudge.core.policy import OPERATORS, Rule
from snapjudge.errors import PolicyInvalid, PolicyUnknown, RunConflict
from snapjudge.guard.evaluate import Evidence, decide
from snapjudge.guard.policies import Policies, check_own, state_of
from snapjudge.guard.policy_file import dump_policy, parse_policy, policy_of, read_policy

WHOLE = """\
name: support
version: 2
fail: closed
deadline_ms: 300
stages:
  input:
    - name: words
      priority: 1
      rules: [{keywords: [passphrase, "top secret"]}]
      action: {block: {message: "Not here."}}
    - name: rude
      rules:
        - any:
            - toxicity
            - {judge: tone, in: [anger, annoyance]}
        - not: {judge: praise}
      action: {steer: "Stay calm."}
  output:
    - name: private
      when: any
      rules:
        - {judges: [pii_email, pii_card], not_empty: true}
        - {judge: pii, gte: 0.9, fail: open, deadline_ms: 50}
      action: {redact: {kinds: [email, card]}}
      webhooks: [{url: "https://example.org/hook", on: [triggered, error], secret_env: HOOK}]
    - name: odd
      rules: [{question: "Is it about money?", label: "yes", gt: 0.8}]
      action: {override: "I would rather not ({label}, {score})."}
"""


def answer(judge, label="bad", score=0.9, *, flagged=True, asked=None, **flags):
    return Answer(
        asked=asked or judge,
        judge=f"{judge}@1",
        digest="d",
        label=label,
        score=score,
        probabilities={label: score, "other": 1 - score},
        confidence=0.8,
        flagged=flagged,
        flags=Flags(**flags),
    )


def failed(judge, code="engine_failed"):
    return Answer(asked=judge, judge=judge, digest="", flags=Flags(abstained=True), abstention=Abstention(judge=judge, code=code, message="m"))


def policy_of_rules(*rules, action="block", **more):
    ruleset = {"name": "r", "rules": list(rules), "action": action, **more.pop("set", {})}
    return policy_of({"name": "p", "stages": {"output": [ruleset]}, **more}, "p")


def fired(rule, *answers, fields=None, **more):
    verdict = decide(policy_of_rules(rule, **more), "output", Evidence({one.asked: one for one in answers}, fields or {}))
    return None if verdict is None else verdict.action == "block"


def test_a_policy_reads_back_to_the_same_value_and_tells_what_it_looks_at():
    policy = parse_policy(WHOLE, "support.yaml")
    assert parse_policy(dump_policy(policy), "again") == policy
    state = state_of(policy)
    assert state.stages == {"input": ("words", "rude"), "output": ("private", "odd")}
    assert state.judges == ("toxicity", "tone", "praise", "pii_email", "pii_card", "pii")
    assert str(policy.rulesets("input")[1].rule) == "all of (any of (toxicity is flagged; tone: label in ['anger', 'annoyance']); none of (praise is flagged))"


@pytest.mark.parametrize(
    ("change", "line", "told"),
    [
        (("name: support", "name: 'a b'"), 1, "pattern"),
        (("version: 2", "version: 0"), 2, "greater than or equal to 1"),
        (("fail: closed", "fail: maybe"), 3, "'open' or 'closed'"),
        (("  input:", "  inptu:"), 6, "'input'"),
        (("rules: [{keywords", "rules: [{keyword"), 9, "not permitted"),
        (("in: [anger, annoyance]", "in: anger"), 15, "needs a list"),
        (("gte: 0.9", "gte: high"), 23, "needs a number"),
        (("gte: 0.9", "gte: 0.9, lt: 2"), 23, "one operator"),
        (('{steer: "Stay calm."}', "steer"), 17, "needs a message"),
        (("https://example.org/hook", "example"), 25, "URL"),
        (("    - name: odd", "    - name: private"), 1, "two rulesets are called private"),
        (("- toxicity", "- {judge: a, judges: [b]}"), 14, "one of judge, judges"),
    ],
)
def test_a_policy_with_a_problem_is_refused_with_its_line(change, line, told):
    with pytest.raises(PolicyInvalid) as error:
        parse_policy(WHOLE.replace(*change), "support.yaml")
    assert told in str(error.value)
    assert line in [problem.line for problem in error.value.problems]


def test_all_problems_are_told_at_once_and_what_is_no_policy_at_all_is_refused(tmp_path):
    with pytest.raises(PolicyInvalid) as error:
        parse_policy(WHOLE.replace("version: 2", "version: x").replace("gte: 0.9", "gte: x"), "support.yaml")
    assert len(error.value.problems) >= 2
    for text in ("", "- a", "a: [", "x: !!python/object:os.system {}"):
        with pytest.raises(PolicyInvalid):
            parse_policy(text, "odd")
    with pytest.raises(PolicyInvalid, match="No such file"):
        read_policy(tmp_path / "none.yaml")
    with pytest.raises(PolicyInvalid, match="regular expression"):
        policy_of_rules({"pattern": "("})


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"judge": "j"}, True),
        ({"judge": "j", "gt": 0.9}, False),
        ({"judge": "j", "gte": 0.9}, True),
        ({"judge": "j", "lt": 0.9}, False),
        ({"judge": "j", "lte": 0.9}, True),
        ({"judge": "j", "eq": "bad"}, True),
        ({"judge": "j", "neq": "bad"}, False),
        ({"judge": "j", "in": ["bad", "worse"]}, True),
        ({"judge": "j", "of": "label", "contains": "ba"}, True),
        ({"judge": "j", "of": "labels", "contains": "bad"}, True),
        ({"judge": "j", "all": ["bad"]}, True),
        ({"judge": "j", "all": ["bad", "worse"]}, False),
        ({"judge": "j", "any": ["bad", "worse"]}, True),
        ({"judge": "j", "empty": True}, False),
        ({"judge": "j", "not_empty": True}, True),
        ({"judge": "j", "of": "confidence", "lt": 0.9}, True),
        ({"judge": "j", "of": "windowed", "eq": True}, False),
        ({"judge": "j", "label": "other", "lt": 0.2}, True),
        ({"judge": "j", "label": "none", "gt": 0.0}, False),
        ({"judges": ["j", "k"]}, True),
        ({"judges": ["j", "k"], "all": ["j", "k"]}, False),
        ({"judges": ["j", "k"], "any": ["k"]}, False),
        ({"judges": ["j", "k"], "contains": "j"}, True),
        ({"all": ["j", "k"]}, False),
        ({"any": ["j", "k"]}, True),
        ({"not": ["j", "k"]}, False),
        ({"not": "k"}, True),
        ({"keywords": ["GRÜN"]}, True),
        ({"keywords": ["ein"]}, False),
        ({"pattern": r"\d{3}"}, True),
        ({"pattern": r"\d{3}", "field": "input"}, False),
    ],
)
def test_operators_and_combinations(rule, expected):
    fields = {"output": "Keine grüne? Doch: grün, 123.", "input": "x"}
    assert fired(rule, answer("j"), answer("k", "fine", 0.1, flagged=False), fields=fields) == expected


def test_every_operator_of_the_field_is_there():
    assert set(OPERATORS) == {"gt", "gte", "lt", "lte", "eq", "neq", "in", "contains", "all", "any", "empty", "not_empty"}


def test_a_judge_that_fails_fails_open_or_closed_as_its_rule_says():
    assert fired("j", failed("j")) is False
    assert fired("j", failed("j"), fail="closed") is True
    assert fired({"judge": "j", "fail": "open"}, failed("j"), fail="closed") is False
    assert fired({"not": {"judge": "j", "fail": "closed"}}, failed("j")) is True  # bad either way
    assert fired({"any": [{"judge": "j", "fail": "closed"}, "k"]}, failed("j"), answer("k")) is True
    assert fired({"all": [{"judge": "j", "fail": "closed"}, "k"]}, failed("j"), answer("k", flagged=False)) is False  # k decides


def test_a_judge_that_finds_nothing_to_read_is_skipped_and_not_bad():
    verdict = decide(policy_of_rules("j", fail="closed"), "output", Evidence({"j": failed("j", "input_invalid")}))
    assert verdict.action == "allow"
    assert verdict.outcomes[0].status == "skipped"


def test_what_is_not_answered_yet_is_waited_for_only_where_it_counts():
    assert fired("j") is None
    assert fired({"any": ["j", "k"]}, answer("k")) is True
    assert fired({"all": ["j", "k"]}, answer("k", flagged=False)) is False
    policy = policy_of_rules({"judge": "j", "deadline_ms": 100, "fail": "closed"})
    assert decide(policy, "output", Evidence(elapsed=0.05)) is None
    late = decide(policy, "output", Evidence(elapsed=0.1))
    assert (late.action, late.outcomes[0].status) == ("block", "timeout")


def test_rulesets_are_looked_at_by_priority_until_one_ends_it():
    policy = parse_policy(
        """
name: p
stages:
  output:
    - {name: last, priority: 9, rules: [c], action: allow}
    - {name: flagging, priority: 1, rules: [a], action: flag}
    - {name: steering, priority: 2, rules: [a], action: {steer: be nice}}
    - {name: blocking, priority: 3, rules: [b], action: block}
""",
        "p",
    )
    both = decide(policy, "output", Evidence({"a": answer("a"), "b": answer("b")}))
    assert both.action == "block"
    assert [one.ruleset.name for one in both.taken] == ["flagging", "steering", "blocking"]
    assert [one.ruleset.name for one in both.outcomes] == ["flagging", "steering", "blocking"]
    mild = decide(policy, "output", Evidence({"a": answer("a"), "b": answer("b", flagged=False), "c": answer("c", flagged=False)}))
    assert mild.action == "steer"
    assert decide(policy, "input", Evidence()).action == "allow"


def test_what_is_paused_allows_and_says_so():
    assert decide(policy_of_rules("j", paused=True), "output", Evidence({"j": answer("j")})).outcomes[0].status == "paused"
    assert fired("j", answer("j"), set={"paused": True}) is False


def _nested(inner):
    return st.one_of(*(st.fixed_dictionaries({key: st.lists(inner, min_size=1, max_size=3)}) for key in ("all", "any", "not")))


RULES = st.recursive(st.sampled_from(["a", "b", "c"]), _nested)
TRUTH = st.fixed_dictionaries({name: st.sampled_from([True, False, None]) for name in "abc"})


@given(RULES, TRUTH)
def test_what_is_decided_before_all_is_known_is_what_all_would_have_said(rule, truth):
    known = {name: answer(name, flagged=value) for name, value in truth.items() if value is not None}
    early = fired(rule, *known.values())
    for a in (True, False):
        for b in (True, False):
            for c in (True, False):
                whole = {name: value if value is not None else later for (name, value), later in zip(truth.items(), (a, b, c), strict=True)}
                late = fired(rule, *(answer(name, flagged=value) for name, value in whole.items()))
                assert early is None or early == late


def test_policies_are_replaced_by_newer_versions_kept_paused_and_dropped(tmp_path):
    policies = Policies(tmp_path)
    first = policies.put(parse_policy(WHOLE, "x"))
    with pytest.raises(RunConflict, match="support@2 is loaded"):
        policies.put(first.model_copy(update={"fail": "open"}))
    assert policies.put(first) == first
    policies.put(first.model_copy(update={"version": 3}))
    policies.pause("support", paused=True)
    again = Policies(tmp_path)
    assert again.find("support@3").paused
    with pytest.raises(PolicyUnknown, match="support@3 is"):
        again.find("support@2")
    again.drop("support")
    assert list(Policies(tmp_path)) == []


def test_a_policy_that_comes_with_a_request_may_not_hold_what_harms_the_server():
    check_own(policy_of_rules({"keywords": ["x"]}))
    for policy in (policy_of_rules({"any": [{"pattern": "(a+)+$"}]}), parse_policy(WHOLE, "x")):
        with pytest.raises(PolicyInvalid, match="comes with a request"):
            check_own(policy)


def test_a_rule_says_what_it_is_in_words():
    assert str(Rule.model_validate({"judge": "j", "label": "bad", "gt": 0.5})) == "j: P(bad) gt 0.5"
    assert str(Rule.model_validate({"keywords": ["a", "b"]})) == "keywords a, b"

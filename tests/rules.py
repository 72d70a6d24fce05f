#!/usr/bin/env python3
"""Whether the unit tests of the Prometheus rules would notice a broken rule.

promtool runs them on the rules as they are, which must pass, and then on the rules with one defect each, which must not:

- never: an alert that never fires, a record of zeros: the rule has a case with a value;
- looser: a threshold moved by a tenth (`> 0` becomes `>= 0`, `== 0` and `== 1` become `>= 0`): each comparison has a case just
  short of it;
- at once: an alert without its `for`: it has a case that holds for less.

Only the tests that name the rule are run on its defects.

usage: rules.py     (needs promtool and PyYAML)
"""
import copy
import pathlib
import re
import subprocess
import sys
import tempfile

import yaml

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "deploy/prometheus"
# A threshold is the last operand of its line: `expr > 1.1e-6`, perhaps in brackets or before `or`.
COMPARISON = re.compile(r"(?<![<>=!~])(>|<|==)(?!=) *([0-9][0-9.e-]*)")


def looser(sign, number):
    """The comparison that a little less passes."""
    if sign == "==" or float(number) == 0:
        return ">= 0"
    return f"{sign} {float(number) * (0.9 if sign == '>' else 1.1)!r}"


def defects(rule):
    """(what was broken, the rule with it)."""
    expression = rule["expr"]
    yield "never", {**rule, "expr": f"({expression}) and on () vector(0) > 0" if "alert" in rule else f"0 * ({expression})"}
    if "alert" not in rule:
        return
    for found in COMPARISON.finditer(expression):
        broken = expression[:found.start()] + looser(*found.groups()) + expression[found.end():]
        yield f"looser than {found.group()}", {**rule, "expr": broken}
    if "for" in rule:
        yield "at once", {name: value for name, value in rule.items() if name != "for"}


def about(rule, tests):
    """The tests that ask for `rule`, each without what it asks for others."""
    for test in tests:
        test = copy.deepcopy(test)
        test["alert_rule_test"] = [t for t in test.get("alert_rule_test", []) if t["alertname"] == rule.get("alert")]
        test["promql_expr_test"] = [t for t in test.get("promql_expr_test", []) if t["expr"] == rule.get("record")]
        if test["alert_rule_test"] or test["promql_expr_test"]:
            yield test


def passes(rules, tests, folder):
    """Whether promtool's unit tests pass, and what it prints."""
    (folder / "rules.yaml").write_text(yaml.safe_dump(rules, allow_unicode=True))
    (folder / "tests.yaml").write_text(yaml.safe_dump({**tests, "rule_files": ["rules.yaml"]}, allow_unicode=True))
    done = subprocess.run(["promtool", "test", "rules", str(folder / "tests.yaml")], capture_output=True, text=True, timeout=120)
    said = done.stdout + done.stderr
    # A test file that promtool cannot read fails too, and shows nothing.
    if done.returncode and "FAILED" not in said:
        sys.exit(f"promtool: {said}")
    return done.returncode == 0 and "SUCCESS" in said, said


def main():
    rules = yaml.safe_load((FOLDER / "airan.rules.yaml").read_text())
    tests = yaml.safe_load((FOLDER / "airan.rules_test.yaml").read_text())
    unnoticed, noticed, count = [], 0, 0
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        good, said = passes(rules, tests, folder)
        if not good:
            sys.exit(f"the rules' unit tests fail:\n{said}")
        for group, at in [(group, at) for group in rules["groups"] for at in range(len(group["rules"]))]:
            rule, name = group["rules"][at], group["rules"][at].get("alert") or group["rules"][at]["record"]
            count += 1
            asking = list(about(rule, tests["tests"]))
            if not asking:
                unnoticed.append(f"{name}: no unit test")
                continue
            for defect, broken in defects(rule):
                group["rules"][at] = broken
                if passes(rules, {**tests, "tests": asking}, folder)[0]:
                    unnoticed.append(f"{name}: {defect}: no unit test fails")
                else:
                    noticed += 1
            group["rules"][at] = rule
    if unnoticed or count < 35:
        sys.exit("\n".join(["rules whose defects the unit tests do not notice:", *unnoticed]) if unnoticed else f"only {count} rules")
    print(f"ok   the unit tests of {count} rules pass, and notice each of {noticed} defects put into them")


main()

"""An explainer, judge and simulator without any language model: it knows tokens alone.

It explains a latent by a table of its marked tokens with their mean activations, and answers from
that table: a simulated activation is the one in the table, or 0. So its scores say how well a
latent is predicted by the token that it is on. `python -m tests.helpers.token_rules PORT` serves
it.
"""

import json
import re
import sys
import time
from collections.abc import Sequence

from .rule_server import MARKED, Rules, serving

ACTIVE = re.compile(r"(\"(?:[^\"\\]|\\.)*\") (\d+)")
MOST = 8  # tokens of an explanation


class TokenRules(Rules):
    """The rules behind the endpoint. An explanation is `tokens` and a table as JSON."""

    def __init__(self) -> None:
        super().__init__({})
        self.logprobs = True

    def explain(self, user: str) -> str:
        found: dict[str, list[int]] = {}
        for line in user.split("\n"):
            if line.startswith("Active: "):
                for quoted, level in ACTIVE.findall(line):
                    found.setdefault(json.loads(quoted), []).append(int(level))
        means = {token: sum(levels) / len(levels) for token, levels in found.items()}
        ranked = sorted(means, key=lambda token: (-len(found[token]), -means[token], token))
        table = {token: round(means[token], 1) for token in ranked[:MOST]}
        return f"Explanation: tokens {json.dumps(table, ensure_ascii=False)}"

    @staticmethod
    def table(explanation: str) -> dict[str, float]:
        """The table of an explanation; empty for another sentence."""
        begin = explanation.find("{")
        return json.loads(explanation[begin:]) if begin >= 0 else {}

    def answer(self, messages: Sequence) -> str:
        user = messages[1]["content"]
        if "Explanation:" not in user or "\t?" in user:
            return super().answer(messages)
        explanation, numbered = user.split("\n\n", 1)
        words = self.table(explanation)
        examples = re.findall(r"^\d+\. (.*)$", numbered, re.MULTILINE)
        if "stand between <<" in messages[0]["content"]:
            said = [all(any(w in p for w in words) for p in MARKED.findall(t)) for t in examples]
        else:
            said = [any(word in f" {text}" for word in words) for text in examples]
        return json.dumps([int(yes) for yes in said])

    def simulate(self, explanation: str, words: Sequence[str]) -> list[float]:
        table = self.table(explanation)
        return [float(table.get(word, 0.0)) for word in words]

    def intruder(self, user: str) -> str:
        """The fragment that shares marked text with fewest others; of several the first."""
        lines = re.findall(r"^\d+\. (.*)$", user, re.MULTILINE)
        marks = [set(MARKED.findall(line)) for line in lines]
        shared = [sum(bool(one & other) for other in marks) for one in marks]
        return str(shared.index(min(shared)) + 1)


def main() -> None:
    """Serve until interrupted."""
    with serving(TokenRules(), int(sys.argv[1]) if len(sys.argv) > 1 else 0) as rules:
        print(rules.url, flush=True)
        while True:
            time.sleep(1.0)
            rules.asked.clear()


if __name__ == "__main__":
    main()

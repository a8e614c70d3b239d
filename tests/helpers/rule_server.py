"""A server on loopback that explains and judges by rule, so that the right score is known.

It knows classes of words. Asked to explain, it names the class that holds most of the marked words;
asked to judge, it says yes if a word of the named class stands in the example (detection), or if
all marked words are of that class (fuzzing). It simulates 8 on words of the class, names as an
intruder the fragment whose marks are of no class, and embeds a text as counts of words of each
class. `faults` are served first, one a request.
"""

import json
import math
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Response = tuple[int, bytes, Mapping[str, str]]
"""Status, body and headers."""
MARKED = re.compile(r"<<(.*?)>>")
ASKED = re.compile(r"^(\d+\t(.*)\t)\?$", re.MULTILINE)  # a line of a simulation


class Rules:
    """The rule, what it was asked, and faults to serve before (or in place of) answers.

    A fault is a status, `hang`, or a text in place of the answer. `broken` maps a piece of a
    prompt to a text that every request holding that piece is answered with.
    """

    def __init__(self, classes: Mapping[str, Sequence[str]]) -> None:
        self.classes = classes
        self.asked: list[dict] = []
        self.embedded: list[dict] = []
        self.keys: list[str | None] = []
        self.faults: list[int | str] = []
        self.broken: dict[str, str] = {}
        self.hang = 0.0
        self.slow = 0.0
        self.url = ""
        self.grades = (1, 0)
        self.logprobs = False

    def respond(self, body: dict) -> Response | None:
        """A whole response, in place of the one by rule; None for that."""
        return None

    def answer(self, messages: Sequence[Mapping[str, str]]) -> str:
        system, user = messages[0]["content"], messages[1]["content"]
        for piece, text in self.broken.items():
            if piece in user:
                return text
        if lines := ASKED.findall(user):
            levels = self.simulate(user.split("\n", 1)[0], [word for _, word in lines])
            pairs = zip(lines, levels, strict=True)
            return "\n".join(f"{begin}{math.floor(level + 0.5)}" for (begin, _), level in pairs)
        if "Explanation:" not in user:
            return self.intruder(user) if "does not belong" in system else self.explain(user)
        explanation, numbered = user.split("\n\n", 1)
        words = self.classes.get(explanation.split()[-1], ())
        examples = re.findall(r"^\d+\. (.*)$", numbered, re.MULTILINE)
        fuzzing = "stand between <<" in system
        said = [self.fits(text, words, fuzzing) for text in examples]
        return json.dumps([self.grades[0] if yes else self.grades[1] for yes in said])

    def explain(self, user: str) -> str:
        marked = [w for piece in MARKED.findall(user) for w in piece.split()]
        best = max(self.classes, key=lambda name: sum(w in self.classes[name] for w in marked))
        return f"The words have something in common.\nExplanation: words of the class {best}"

    def simulate(self, explanation: str, words: Sequence[str]) -> list[float]:
        """The activation on every token, from 0 to 10."""
        named = self.classes.get(explanation.split()[-1], ())
        return [8.0 if word.strip() in named else 0.0 for word in words]

    def intruder(self, user: str) -> str:
        lines = re.findall(r"^\d+\. (.*)$", user, re.MULTILINE)
        every = {word for words in self.classes.values() for word in words}
        odd = [not any(w in every for w in " ".join(MARKED.findall(t)).split()) for t in lines]
        return f"The fragment is {odd.index(True) + 1}." if any(odd) else "1"

    def embed(self, text: str) -> list[float]:
        """A vector: how many words are of each class, or whether its name is in the text."""
        words = text.split()
        counts = [sum(w in c for w in words) + (n in words) for n, c in self.classes.items()]
        return [*map(float, counts), 0.5]

    def levels_of(self, body: dict) -> list[float]:
        """The exact activations behind the answer to a simulation; empty for other questions."""
        user = body["messages"][1]["content"]
        words = [word for _, word in ASKED.findall(user)]
        return self.simulate(user.split("\n", 1)[0], words) if words else []

    @staticmethod
    def listed(text: str, levels: Sequence[float]) -> list[dict]:
        """Log-probabilities of an answer: numbers get those whose mean is the exact level."""
        left, tokens = list(levels), []
        for piece in re.findall(r"\t\d+$|.+?(?=\t\d+$)|\n", text, re.MULTILINE):
            number = piece.strip().isdigit() and piece[0] == "\t"
            tokens += [{"token": "\t"}, {"token": piece[1:]}] if number else [{"token": piece}]
            for token in tokens[-2:]:
                token.setdefault("top_logprobs", [{"token": token["token"], "logprob": -0.01}])
            if number:
                level = left.pop(0)
                low, part = math.floor(level), level - math.floor(level)
                chances = [(low, 1 - part), (low + 1, part)]
                tokens[-1]["top_logprobs"] = [
                    {"token": str(n), "logprob": math.log(0.9 * p)} for n, p in chances if p > 0
                ] + [{"token": " no", "logprob": math.log(0.1)}]
        return tokens

    @staticmethod
    def fits(text: str, words: Sequence[str], fuzzing: bool) -> bool:
        if fuzzing:
            return all(w in words for piece in MARKED.findall(text) for w in piece.split())
        return any(word in words for word in text.split())


class Difficult(Rules):
    """The same rules behind a server that refuses `max_tokens` and `temperature`, limits requests,
    fails, and thinks aloud: an answer needs `needed` tokens, or it is cut inside its reasoning, or
    behind it in the midst of an answer that could be read."""

    def __init__(self, classes: Mapping[str, Sequence[str]], needed: int) -> None:
        super().__init__(classes)
        self.needed = needed
        self.served = 0
        self.answered: list[str] = []
        self._lock = threading.Lock()

    def respond(self, body: dict) -> Response:
        with self._lock:
            self.served += 1
            turn = self.served
        for name, more in (
            ("max_tokens", "Use 'max_completion_tokens' instead."),
            ("temperature", "Only the default (1) value is supported."),
        ):
            if name in body:
                error = {"message": f"Unsupported parameter: '{name}'. {more}", "param": name}
                return 400, json.dumps({"error": error}).encode(), {}
        if turn % 7 == 0:
            return 429, b"slow down", {"retry-after-ms": "20"}
        if turn % 11 == 0:
            return 500, b"oh", {}
        text, finish = self.answer(body["messages"]), "stop"
        thought = "Perhaps [0, 0, 0, 0, 0].\nExplanation: a wrong one"
        if body["max_completion_tokens"] < self.needed:
            wrong = "Explanation: words of the class nothing\n[0, 0, 0, 0, 0]"
            text = f"<think>{thought}" if turn % 2 else f"<think>{thought}</think>{wrong}"
            finish = "stop" if turn % 2 else "length"
            content: object = text
        else:
            parts = [f"<think>{thought}</think>\n\n", text]
            content = [{"type": "text", "text": part} for part in parts]
            content.insert(0, {"type": "reasoning", "text": thought})
            with self._lock:
                self.answered.append(json.dumps(body["messages"]))
        choice = {"message": {"role": "assistant", "content": content}, "finish_reason": finish}
        return 200, json.dumps({"choices": [choice]}).encode(), {}


@contextmanager
def serving(rules: Rules, port: int = 0) -> Iterator[Rules]:
    """The rules behind an OpenAI-compatible endpoint at `rules.url`."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path.endswith("/embeddings"):
                self.embeddings(body)
            else:
                self.complete(body)

        def complete(self, body: dict) -> None:
            rules.asked.append(body)
            rules.keys.append(self.headers.get("Authorization"))
            time.sleep(rules.slow)
            own = rules.respond(body)
            fault = rules.faults.pop(0) if rules.faults and own is None else None
            if own is not None:
                self.reply(*own)
            elif fault == "hang":
                time.sleep(rules.hang)
            elif isinstance(fault, int):
                self.reply(fault, b'{"error": "no"}')
            else:
                self.tell(fault, body)

        def tell(self, fault: str | None, body: dict) -> None:
            text = fault if fault is not None else rules.answer(body["messages"])
            told: dict = {
                "choices": [{"message": {"role": "assistant", "content": text}}],
                "usage": {"prompt_tokens": 10, "completion_tokens": 2},
            }
            levels = rules.levels_of(body) if fault is None and rules.logprobs else []
            if body.get("logprobs") and levels:
                told["choices"][0]["logprobs"] = {"content": rules.listed(text, levels)}
            whole = text if text == "no json" else json.dumps(told)
            self.reply(200, whole.encode())

        def embeddings(self, body: dict) -> None:
            rules.embedded.append(body)
            vectors = [
                {"index": i, "embedding": rules.embed(t)} for i, t in enumerate(body["input"])
            ]
            told = {"data": vectors[::-1], "usage": {"prompt_tokens": 3}}
            self.reply(200, json.dumps(told).encode())

        def reply(self, status: int, body: bytes, headers: Mapping[str, str] = {}) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A client that has gone is no news."""

    server = Quiet(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    rules.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield rules
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

"""Two pretend models behind an OpenAI-compatible API on this machine, for the tutorial: no weights, no network, no GPU.

They do sums like "What is 17 × 23?". ``play-large`` is nearly always right. ``play-small`` is right where numbers are
small, and knows where it may be wrong: its stated digit is spread over probabilities that mean what they say, as a
trained model's should be. A real untrained model does not know that (docs/results.md). Needs Python alone; the same
question always gets the same answer.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODELS = ("play-small", "play-large")
_SUM = re.compile(r"(\d+) × (\d+)")
#: How often the small model is right, by the digits of both numbers together.
_RIGHT = {2: 0.999, 3: 0.995, 4: 0.6}


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8009)
    with ThreadingHTTPServer(("127.0.0.1", parser.parse_args().port), Handler) as server:
        sys.stderr.write(f"{' and '.join(MODELS)} answer at http://127.0.0.1:{server.server_port}/v1 (Ctrl-C stops)\n")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return


class Handler(BaseHTTPRequestHandler):
    """``GET /v1/models`` and ``POST /v1/chat/completions``, whole or as a stream of one piece."""

    protocol_version = "HTTP/1.1"
    # Headers and body are two writes: without this the second waits for the first's acknowledgement.
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._send({"object": "list", "data": [{"id": name, "object": "model"} for name in MODELS]})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = completion(asked)
        if not asked.get("stream"):
            self._send(answer)
            return
        [choice] = answer["choices"]
        choice["delta"] = choice.pop("message")
        body = f"data: {json.dumps({**answer, 'object': 'chat.completion.chunk'})}\n\ndata: [DONE]\n\n"
        self._write(body.encode(), "text/event-stream")

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: hundreds of lines would hide what the terminal is for."""

    def _send(self, payload: Mapping[str, Any]) -> None:
        self._write(json.dumps(payload).encode(), "application/json")

    def _write(self, body: bytes, content_type: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def completion(asked: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to a request, in OpenAI's shape."""
    tokens = reply(asked["model"], asked["messages"])
    text = "".join(token for token, _ in tokens)
    read = sum(len(str(message["content"]).split()) for message in asked["messages"])
    content = [_logprobs(token, top) for token, top in tokens] if asked.get("logprobs") else None
    return {
        "id": f"play-{_lot(text):.12f}",
        "object": "chat.completion",
        "created": 0,
        "model": asked["model"],
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "finish_reason": "stop",
                "logprobs": None if content is None else {"content": content},
            }
        ],
        "usage": {"prompt_tokens": read, "completion_tokens": len(tokens), "total_tokens": read + len(tokens)},
    }


Tokens = list[tuple[str, Mapping[str, float]]]


def reply(model: str, messages: Sequence[Mapping[str, Any]]) -> Tokens:
    """What a model writes: tokens, each with the probabilities of what might have stood in its place."""
    said = [str(message["content"]) for message in messages]
    question = next((text for text in said if _SUM.search(text)), "")
    if not question:
        return _sure("I only do sums, such as: What is 17 × 23?")
    chance = _chance(question)
    if "one digit from 0" in said[-1]:
        return [_digit(chance)]
    if "True or False" in said[-1]:
        return [("True" if chance >= 0.5 else "False", {"True": chance, "False": 1 - chance})]
    found = _product(question) if _lot(model + question) < (chance if model == "play-small" else 0.995) else 0
    answer = found or _product(question) + 10
    worked = _sure(f"I multiply.\nAnswer: {answer}")
    asked_inline = any("Confidence:" in text for text in said)
    return [*worked, *_sure("\nConfidence: "), _digit(chance)] if asked_inline else worked


def _product(question: str) -> int:
    left, right = _numbers(question)
    return left * right


def _numbers(question: str) -> tuple[int, int]:
    left, right = _SUM.findall(question)[0]
    return int(left), int(right)


def _chance(question: str) -> float:
    """That the small model is right, which it knows: by the numbers' digits, and a little by the question."""
    right = _RIGHT.get(sum(len(str(number)) for number in _numbers(question)), 0.2)
    return min(0.999, max(0.02, right + 0.1 * (_lot("how hard" + question) - 0.5) * (1 - right)))


def _digit(chance: float) -> tuple[str, Mapping[str, float]]:
    """The likelier of the two digits whose values, (d + 0.5)/10, lie on either side of ``chance``; the mean is it."""
    place = min(8.999, max(0.0, chance * 10 - 0.5))
    low, above = int(place), place - int(place)
    digits = {str(low): 1 - above, str(low + 1): above}
    return max(digits, key=lambda digit: digits[digit]), digits


def _sure(text: str) -> Tokens:
    return [(token, {token: 0.99}) for token in re.findall(r"\s?\S+|\s", text)]


def _lot(text: str) -> float:
    """A number in [0, 1) that is the text's own, whoever asks and whenever."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6]) / 2**48


def _logprobs(token: str, top: Mapping[str, float]) -> dict[str, Any]:
    listed = [{"token": one, "logprob": math.log(max(p, 1e-9)), "bytes": None} for one, p in top.items()]
    return {"token": token, "logprob": math.log(max(top[token], 1e-9)), "bytes": None, "top_logprobs": listed}


if __name__ == "__main__":
    main()

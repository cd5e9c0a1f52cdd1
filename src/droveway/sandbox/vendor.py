"""This file knows how a request becomes a reply: keys, routes, limits, faults and the journal."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from droveway.clock import Clock
from droveway.sandbox.answer import chance_of, compose
from droveway.sandbox.asked import RefusedError, read_request
from droveway.sandbox.chunks import Label, stream_reply, usage_of, whole_reply
from droveway.sandbox.embeddings import chance_for, embeddings_reply, read_wanted
from droveway.sandbox.fault import Case
from droveway.sandbox.faults import FAULTS, MODEL_PREFIX, Wish, read_wish
from droveway.sandbox.journal import Journal, Seen
from droveway.sandbox.limits import Lane, Limits
from droveway.sandbox.profile import Profile
from droveway.sandbox.purse import Purse
from droveway.sandbox.reply import Reply, error_reply, json_reply
from droveway.sandbox.requests import Request
from droveway.sandbox.script import Director
from droveway.sandbox.shapes import SchemaError
from droveway.sandbox.tokens import PrefixCache, prompt_tokens

FAULT_HEADER: Final = "x-sandbox-fault"
_KEY_HEADERS: Final = frozenset({"authorization", "x-api-key", "api-key", "cookie"})
_BODIES_MAX: Final = 100_000
_CHAT: Final = "/chat/completions"
_EMBEDDINGS: Final = "/embeddings"
_MODELS: Final = ("sandbox", "deepseek-flash", "deepseek-v4-pro")


@dataclass(frozen=True, slots=True)
class Take:
    """A reply that is to be played, with its journal entry and the lane it occupies."""

    reply: Reply
    seen: Seen
    lane: Lane | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a vendor was told at its start; the names are those of `Sandbox`."""

    seed: int
    profile: Profile
    limits: Limits
    api_keys: frozenset[str] | None
    journal_bodies: bool


class Vendor:
    """The provider itself, without a socket.

    Args:
        terms: Its settings.
        director: Applies the script.
        journal: Where requests are noted.
        clock: Tells the time.

    Attributes:
        director: Applies the script from now on.
        purse: What is left in the callers' account.
    """

    def __init__(self, terms: Terms, director: Director, journal: Journal, *, clock: Clock) -> None:
        self.director = director
        self.purse = Purse()
        self._terms = terms
        self._journal = journal
        self._clock = clock
        self._cache = PrefixCache()
        self._lanes: dict[tuple[str, str], Lane] = {}
        self._attempts: dict[int, int] = {}
        self._count = 0

    def answer(self, request: Request, connection: int) -> Take:
        """Decide the reply to a request that came on a connection, and note it."""
        path = urlsplit(request.path).path
        if path == "/sandbox/journal":
            return Take(self._journal_reply(request), self._note(request, connection))
        seen = self._note(request, connection)
        self._journal.add(seen)
        try:
            take = self._route(request, path, seen)
        except RefusedError as refused:
            code = "invalid_api_key" if refused.status == 401 else None
            refusal = error_reply(refused.status, refused.message, param=refused.param, code=code)
            take = Take(refusal, seen)
        reply = take.reply.with_headers(("x-request-id", f"req-{seen.id}"))
        return Take(reply, seen, take.lane)

    def _note(self, request: Request, connection: int) -> Seen:
        self._count += 1
        return Seen(
            id=f"chatcmpl-sandbox-{self._count}",
            connection=connection,
            method=request.method,
            path=request.path,
            at=self._clock.now(),
            began_at=self._clock.monotonic(),
            headers={k: v for k, v in request.headers.items() if k not in _KEY_HEADERS},
            body=request.body if self._terms.journal_bodies else None,
        )

    def _journal_reply(self, request: Request) -> Reply:
        if request.method == "DELETE":
            self._journal.forget()
            return json_reply({"deleted": True})
        return json_reply({"requests": [seen.as_json() for seen in self._journal.all()]})

    def _route(self, request: Request, path: str, seen: Seen) -> Take:
        keys = self._terms.api_keys
        if keys is not None and request.key not in keys:
            raise RefusedError(401, "Incorrect API key provided. The sandbox knows other keys.")
        bare = path.removeprefix("/v1")
        expected = "POST" if bare in {_CHAT, _EMBEDDINGS} else "GET"
        known = {_CHAT, _EMBEDDINGS, "/models", "/user/balance"}
        if bare not in known and not bare.startswith("/models/"):
            raise RefusedError(404, f"Unknown request URL: {request.method} {path}.")
        if request.method != expected:
            raise RefusedError(405, f"Not allowed to {request.method} on {path}.")
        if bare == _CHAT:
            return self._chat(request, seen)
        if bare == _EMBEDDINGS:
            return self._embeddings(request, seen)
        if bare == "/user/balance":
            return Take(json_reply(self.purse.as_json()), seen)
        if bare == "/models":
            return Take(json_reply({"object": "list", "data": list(map(_model, _names()))}), seen)
        return Take(json_reply(_model(unquote(bare.removeprefix("/models/")))), seen)

    def _chat(self, request: Request, seen: Seen) -> Take:
        asked = read_request(request.body)
        seen.model, seen.stream = asked.model, asked.stream
        seen.attempt = self._attempt(request.body)
        rule = self.director.choose(asked.model, asked.question)
        text = rule.answer if rule else None
        wish = _wish(request, asked.model, rule.fault if rule else None)
        prompt = prompt_tokens(asked.messages, asked.tools)
        chance = chance_of(asked, self._terms.seed)
        try:
            said = compose(asked, chance, self._terms.profile, text=text)
        except SchemaError as error:
            raise RefusedError(400, f"Invalid schema: {error}") from None
        owner = (request.key, asked.model)
        lane = self._lane(owner)
        refusal = lane.admit(len(prompt) + said.size, self._clock.monotonic())
        if refusal is not None:
            return Take(refusal, seen)
        cached = self._cache.read_and_keep(owner, prompt)
        seen.prompt_tokens, seen.cached_tokens = len(prompt), cached
        seen.completion_tokens, seen.reasoning_tokens = said.size, len(said.reasoning)
        usage = usage_of(said, len(prompt), cached)
        label = Label(seen.id, int(seen.at.timestamp()), asked.model)
        profile = self._terms.profile
        if asked.stream:
            told = usage if asked.include_usage else None
            reply = stream_reply(label, said, told, chance=chance, profile=profile)
        else:
            wait_s = profile.first_wait_s(chance) + profile.chunk_wait_s(chance, said.size)
            reply = whole_reply(label, said, usage, wait_s=wait_s)
        if wish is not None:
            reply = self._suffer(wish, reply, seen)
        return Take(reply.with_headers(*lane.headers()), seen, lane)

    def _embeddings(self, request: Request, seen: Seen) -> Take:
        wanted = read_wanted(request.body)
        seen.model = wanted.model
        seen.attempt = self._attempt(request.body)
        rule = self.director.choose(wanted.model, wanted.text)
        wish = _wish(request, wanted.model, rule.fault if rule else None)
        lane = self._lane((request.key, wanted.model))
        refusal = lane.admit(wanted.tokens, self._clock.monotonic())
        if refusal is not None:
            return Take(refusal, seen)
        seen.prompt_tokens = wanted.tokens
        chance = chance_for(self._terms.seed, wanted.model, *wanted.inputs)
        wait_s = self._terms.profile.first_wait_s(chance)
        reply = embeddings_reply(wanted, seed=self._terms.seed, wait_s=wait_s)
        if wish is not None and not wish.fault.only_chats:
            reply = self._suffer(wish, reply, seen)
        return Take(reply.with_headers(*lane.headers()), seen, lane)

    def _suffer(self, wish: Wish, reply: Reply, seen: Seen) -> Reply:
        """Play a fault on a reply, unless this body suffered it often enough already.

        An error that replaces the answer has no tokens.
        """
        if wish.times is not None and seen.attempt > wish.times:
            return reply
        seen.fault = wish.text
        case = Case(number=wish.number, now=seen.at, stream=seen.stream)
        bad = wish.fault.play(reply, case)
        if bad.status >= 400 or bad.headless:
            seen.prompt_tokens = seen.cached_tokens = 0
            seen.completion_tokens = seen.reasoning_tokens = 0
        return bad

    def _attempt(self, body: bytes) -> int:
        name = hash(body)
        count = self._attempts.pop(name, 0) + 1
        self._attempts[name] = count
        if len(self._attempts) > _BODIES_MAX:
            del self._attempts[next(iter(self._attempts))]
        return count

    def _lane(self, owner: tuple[str, str]) -> Lane:
        lane = self._lanes.get(owner)
        if lane is None:
            lane = self._lanes[owner] = Lane(self._terms.limits, self._clock.monotonic())
        return lane


def _wish(request: Request, model: str, scripted: str | None) -> Wish | None:
    """The fault that a header, else the model's name, else the script asks for."""
    text = request.headers.get(FAULT_HEADER)
    name = model.rpartition("/")[2]
    if not text and name.startswith(MODEL_PREFIX):
        text = name.removeprefix(MODEL_PREFIX)
    text = text or scripted
    if not text:
        return None
    try:
        return read_wish(text)
    except ValueError as error:
        raise RefusedError(400, str(error), param="model") from None


def _names() -> Iterable[str]:
    yield from _MODELS
    yield from (MODEL_PREFIX + name for name in FAULTS)


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 1_795_392_000, "owned_by": "sandbox"}

"""This file knows the admin API: what an operator may look at and change, with one token."""

import asyncio
import hmac
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, NamedTuple
from urllib.parse import unquote

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route

from droveway.accounts import Key, KeyRing
from droveway.accounts.key import KeyTerms
from droveway.engine.desk import Desk
from droveway.engine.engine import Engine
from droveway.engine.journal_store import StoredJournal
from droveway.engine.journal_upkeep import hours
from droveway.engine.written import as_json
from droveway.errors import (
    BadRequestError,
    InvalidKeyError,
    MethodNotAllowedError,
    RouteNotFoundError,
    SettingsError,
)
from droveway.gateway import admin_accounts as accounts
from droveway.gateway.caller import key_of
from droveway.gateway.reading import too_large
from droveway.gateway.reloading import Reloaded
from droveway.gateway.telling import hour_sum, provider_states
from droveway.gateway.visit import Visit
from droveway.gateway.wanted import (
    HoursWanted,
    NewKey,
    RequestsWanted,
    Wanted,
    read_json,
    read_query,
)
from droveway.settings import Secret
from droveway.storage import Store

BODY_BYTES_MAX: Final = 64 * 1024
HOURS_SHOWN: Final = timedelta(hours=24)
# What is told may be a secret, and is true now only.
_UNKEPT: Final = ((b"cache-control", b"no-store"),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Administration:
    """What the admin API works on.

    Attributes:
        token: What an operator must send.
        keys: The keys of the gateway.
        journal: What was served.
        store: Where the hourly sums are.
        engine: Returns the engine that serves now; a reload may put another in its place.
        desk: Returns the desk with the terms of billing that are in force now, likewise.
        reload: Reads the settings anew; a SettingsError leaves the old ones in force.
    """

    token: Secret
    keys: KeyRing
    journal: StoredJournal
    store: Store
    engine: Callable[[], Engine]
    desk: Callable[[], Desk]
    reload: Callable[[], Awaitable[Reloaded]]


class Asked(NamedTuple):
    """A request of an operator.

    Attributes:
        visit: How it is answered.
        named: What its path names, by parameter.
    """

    visit: Visit
    named: Mapping[str, str]

    def body(self, kind: type[Wanted]) -> Wanted:
        """Read its body.

        Raises:
            RequestTooLargeError: It is above 64 KiB.
            BadRequestError: As `read_json`.
        """
        if len(self.visit.body) > BODY_BYTES_MAX:
            raise too_large(BODY_BYTES_MAX)
        return read_json(self.visit.body, kind)

    def query(self, kind: type[Wanted]) -> Wanted:
        """Read its query; raises as `read_query`."""
        return read_query(self.visit.query, kind)

    def tell(self, document: object, *, status: int = 200) -> None:
        """Answer with a document."""
        self.tell_written(msgspec.json.encode(document), status=status)

    def tell_written(self, document: bytes, *, status: int = 200) -> None:
        """Answer with a document that is JSON already."""
        self.visit.respond(status, document, headers=_UNKEPT)


Endpoint = Callable[[Administration, Asked], Awaitable[None]]


class Admin:
    """Serves `ROUTES` to whoever has the token.

    Args:
        administration: What it works on.
    """

    def __init__(self, administration: Administration) -> None:
        self._administration = administration
        self._routes = [(Route(path, _found), told) for path, told in ROUTES.items()]

    def let_in(self, visit: Visit) -> None:
        """Look for the token.

        Raises:
            InvalidKeyError: It is not there, or is another one.
        """
        given = key_of(visit.headers).encode("latin-1")
        if not hmac.compare_digest(given, self._administration.token.reveal().encode("ascii")):
            raise InvalidKeyError(
                "this is not the token of /admin/v1; send the one that server.admin_token names"
            )

    async def serve(self, visit: Visit) -> None:
        """Answer a request."""
        endpoints, parameters = self._find(visit)
        endpoint = endpoints.get("GET" if visit.method == "HEAD" else visit.method)
        if endpoint is None:
            allowed = ", ".join(endpoints)
            raise MethodNotAllowedError(
                f"{visit.path} takes {allowed}, not {visit.method}", allow=allowed
            )
        await endpoint(self._administration, Asked(visit, parameters))

    def _find(self, visit: Visit) -> tuple[Mapping[str, Endpoint], Mapping[str, str]]:
        # The path as it was sent: a name may hold a slash, written as %2F.
        asked = {"type": "http", "path": visit.path, "method": "GET", "root_path": ""}
        for route, endpoints in self._routes:
            match, found = route.matches(asked)
            if match is not Match.NONE:
                named = {name: unquote(value) for name, value in found["path_params"].items()}
                return endpoints, named
        raise RouteNotFoundError(f"there is no {visit.path!r} here; see /openapi.json")


async def list_keys(administration: Administration, asked: Asked) -> None:
    """Serve `GET /admin/v1/keys`."""
    asked.tell({"data": administration.keys.list()})


async def make_key(administration: Administration, asked: Asked) -> None:
    """Serve `POST /admin/v1/keys`: the only answer that holds its secret."""
    wanted = asked.body(NewKey)
    terms = {name: getattr(wanted, name) for name in KeyTerms.__struct_fields__}
    desk = administration.desk()
    key, plain = await desk.issue_key(wanted.name, account=wanted.account, **terms)
    asked.tell({"key": plain, **msgspec.to_builtins(key)}, status=201)


async def show_key(administration: Administration, asked: Asked) -> None:
    """Serve `GET /admin/v1/keys/{key}`."""
    asked.tell(_key(administration, asked.named["key"]))


async def revoke_key(administration: Administration, asked: Asked) -> None:
    """Serve `DELETE /admin/v1/keys/{key}`; done twice, it is done."""
    key = _key(administration, asked.named["key"])
    if key.revoked_at is None:
        key = await administration.keys.revoke(key.id)
    asked.tell(key)


async def rotate_key(administration: Administration, asked: Asked) -> None:
    """Serve `POST /admin/v1/keys/{key}/rotate`: the only answer that holds the new secret."""
    key, plain = await administration.keys.rotate(_key(administration, asked.named["key"]).id)
    asked.tell({"key": plain, **msgspec.to_builtins(key)})


async def list_requests(administration: Administration, asked: Asked) -> None:
    """Serve `GET /admin/v1/requests`: the last ones, or with `after` what was written then."""
    wanted = asked.query(RequestsWanted)
    journal = administration.journal
    key_id = None if wanted.key is None else _key(administration, wanted.key).id
    if wanted.after is None:
        last_seq = journal.last_seq()
        rows = journal.recent(wanted.limit, since=wanted.since, model=wanted.model, key_id=key_id)
        last_seq, more = max(last_seq, *(row.seq for row in rows), 0), False
    else:
        page = journal.following(wanted.after, wanted.limit, model=wanted.model)
        last_seq = page[-1].seq if page else wanted.after
        more = len(page) == wanted.limit
        rows = [
            row
            for row in page
            if (key_id is None or row.key_id == key_id)
            and (wanted.since is None or row.at >= wanted.since)
        ]
    data = [as_json(row) for row in rows]
    asked.tell({"data": data, "last_seq": last_seq, "more": more})


async def show_request(administration: Administration, asked: Asked) -> None:
    """Serve `GET /admin/v1/requests/{id}`, with its attempts."""
    request_id, journal = asked.named["id"], administration.journal
    row = journal.get(request_id)
    if row is None:
        # It may have ended a moment ago, and wait to be written down.
        await journal.flush()
        row = journal.get(request_id)
    if row is None:
        raise RouteNotFoundError(
            f"there is no request {request_id!r}; it was never here, or is older than "
            "journal.keep_days"
        )
    asked.tell(as_json(row))


async def list_hours(administration: Administration, asked: Asked) -> None:
    """Serve `GET /admin/v1/hours`: the sums of the last day, or since a moment."""
    wanted = asked.query(HoursWanted)
    since = wanted.since or administration.engine().clock.now() - HOURS_SHOWN

    def read() -> bytes:
        told = [hour_sum(hour) for hour in hours(administration.store, since)]
        return msgspec.json.encode({"data": told})

    # Of years it may be long: those who wait for an answer shall not wait for this.
    asked.tell_written(await asyncio.to_thread(read))


async def list_providers(administration: Administration, asked: Asked) -> None:
    """Serve `GET /admin/v1/providers`."""
    asked.tell({"data": provider_states(administration.engine())})


async def reload_settings(administration: Administration, asked: Asked) -> None:
    """Serve `POST /admin/v1/reload`."""
    try:
        reloaded = await administration.reload()
    except SettingsError as error:
        raise BadRequestError(
            f"the new settings cannot be used, and the old ones stay: {error.message}"
        ) from error
    asked.tell(reloaded)


ROUTES: Final[Mapping[str, Mapping[str, Endpoint]]] = {
    "/admin/v1/keys": {"GET": list_keys, "POST": make_key},
    "/admin/v1/keys/{key}": {"GET": show_key, "DELETE": revoke_key},
    "/admin/v1/keys/{key}/revoke": {"POST": revoke_key},
    "/admin/v1/keys/{key}/rotate": {"POST": rotate_key},
    "/admin/v1/accounts": {"GET": accounts.list_accounts, "POST": accounts.open_account},
    "/admin/v1/accounts/{account}": {"GET": accounts.show_account},
    "/admin/v1/accounts/{account}/freeze": {"POST": accounts.freeze_account},
    "/admin/v1/accounts/{account}/thaw": {"POST": accounts.thaw_account},
    "/admin/v1/accounts/{account}/topups": {"GET": accounts.list_topups, "POST": accounts.top_up},
    "/admin/v1/accounts/{account}/credits": {"POST": accounts.give_credit},
    "/admin/v1/accounts/{account}/statement": {"GET": accounts.show_statement},
    "/admin/v1/accounts/{account}/vouchers": {"POST": accounts.redeem_voucher},
    "/admin/v1/topups/{reference}/refunds": {"POST": accounts.refund_topup},
    "/admin/v1/vouchers": {"GET": accounts.list_vouchers, "POST": accounts.issue_vouchers},
    "/admin/v1/budgets": {
        "GET": accounts.list_budgets,
        "PUT": accounts.set_budget,
        "DELETE": accounts.end_budget,
    },
    "/admin/v1/requests": {"GET": list_requests},
    "/admin/v1/requests/{id}": {"GET": show_request},
    "/admin/v1/hours": {"GET": list_hours},
    "/admin/v1/providers": {"GET": list_providers},
    "/admin/v1/reload": {"POST": reload_settings},
}


async def _found(request: Request) -> Response:
    """Stand in where the router wants an endpoint; it is asked for matches only."""
    raise NotImplementedError(request.url.path)


def _key(administration: Administration, name_or_id: str) -> Key:
    try:
        return administration.keys.show(name_or_id)
    except BadRequestError as error:
        raise RouteNotFoundError(f"there is no key {name_or_id!r}; see /admin/v1/keys") from error

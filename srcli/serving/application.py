"""The application: routes, and the way of a picture through the service."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from http import HTTPStatus
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from srcli.errors import SrcliError
from srcli.images.picture import Metadata
from srcli.models.registry import get_model
from srcli.models.spec import TASKS, Task
from srcli.pages.documents import asset
from srcli.pages.served import ASSETS, start_page
from srcli.serving.bodies import SMALL, Account, Held, Parts, read_body, stated_length
from srcli.serving.description import offers, openapi
from srcli.serving.figures import TEXT, Figures
from srcli.serving.guards import App, Guard
from srcli.serving.journal import FAULT, Journal, facts_of
from srcli.serving.lanes import Lanes, Ticket
from srcli.serving.orders import Order, order_of
from srcli.serving.problems import CLOSED_BY_CLIENT, Problem, busy, problem_of
from srcli.serving.restoring import Answer, Networks, restore, rules_of, wishes_of
from srcli.serving.settings import Settings, Tell

NO_STORE = {"Cache-Control": "no-store"}


class Service:
    """One service: its networks, its lanes, its figures, and the handlers of its routes.

    Args:
        settings: Of the service.
        tell: Reports what happens.
    """

    def __init__(self, settings: Settings, tell: Tell) -> None:
        self.settings, self._tell = settings, tell
        self.networks = Networks(settings, tell.line)
        self.lanes = Lanes(settings.lanes, settings.queue)
        self.held = Held(settings.held_bytes)
        self.figures = Figures(self.lanes, self.held)
        self.ready = False
        self.is_cut = False
        """True if the service ended before a picture was answered."""

        self._tickets: dict[str, Ticket] = {}

    def application(self) -> App:
        """Return the whole ASGI application."""
        app = Starlette(
            routes=[
                *(
                    Route(f"/v1/{task}", partial(self.restore, task=task), methods=["POST"])
                    for task in TASKS
                ),
                Route("/v1/models", self.models),
                Route("/v1/progress/{word}", self.progress),
                Route("/healthz", self.health),
                Route("/readyz", self.readiness),
                Route("/metrics", self.metrics),
                Route("/openapi.json", self.document),
                Route("/static/{name}", self.static),
                Route("/", self.page),
            ],
            lifespan=self._life,
            exception_handlers={HTTPException: self._no_route, Exception: self._fault},
        )
        return Journal(Guard(app, self.settings), self.figures, self._tell)

    @asynccontextmanager
    async def _life(self, app: Starlette) -> AsyncIterator[None]:
        """Take pictures until nobody asks any more, then close the networks."""
        self.ready = True
        try:
            yield
        finally:
            self.ready = False
            await asyncio.get_running_loop().run_in_executor(None, self.lanes.close)
            self.networks.close()

    def open(self) -> None:
        """Open the usual network of the first model, before anybody asks for it.

        Raises:
            SrcliError: It has no weights here, or cannot be opened.
        """
        spec = get_model(self.settings.models[0])
        task = spec.tasks()[0]
        order = order_of(task, {}, self.settings.models)
        passes = wishes_of(order, self.settings.max_pixels).size.resolve(
            1, 1, spec.reached(task), spec.scale_grid
        )
        for step in rules_of(order).steps(passes.passes, Metadata()):
            self.networks.restorer(spec, step)

    # Pictures

    async def restore(self, request: Request, task: Task) -> App:
        """Restore the picture in a request."""
        facts = facts_of(request.scope)
        facts["route"] = f"/v1/{task}"
        try:
            order = order_of(task, request.query_params, self.settings.models)
            facts |= {"model": order.spec.name, "scale": float(order.factor)}
            if stated_length(request) > SMALL:
                self._check_room()
            with self._ticket(order) as ticket:
                return await self._answered(request, order, ticket)
        except SrcliError as error:
            return _refusal(request, problem_of(error))
        except Problem as problem:
            return _refusal(request, problem)
        except asyncio.CancelledError:  # the server does it, when it must wait no longer
            self.is_cut = True
            return _refusal(request, busy("the service ends", 5))
        except ClientDisconnect:
            facts["gone"] = True
            nothing: App = Response(status_code=CLOSED_BY_CLIENT)
            return nothing

    def _check_room(self) -> None:
        """Send large pictures away before they are read, if they would find no place."""
        try:
            self.lanes.check_room()
        except Problem as problem:
            raise Problem(
                status=problem.status,
                problem=problem.problem,
                remedy=problem.remedy,
                headers={**problem.headers, "Connection": "close"},
            ) from None

    @contextmanager
    def _ticket(self, order: Order) -> Iterator[Ticket]:
        """Give a picture a ticket, which the client may ask for by its word."""
        ticket = Ticket()
        if order.progress is None:
            yield ticket
            return
        if order.progress in self._tickets:
            raise Problem(
                status=HTTPStatus.CONFLICT,
                problem="progress: this word is in use",
                remedy="Choose another for each picture.",
            )
        self._tickets[order.progress] = ticket
        try:
            yield ticket
        finally:
            del self._tickets[order.progress]

    async def _answered(self, request: Request, order: Order, ticket: Ticket) -> App:
        """Read a picture, restore it in its turn, and return it; its bytes are counted."""
        account = Account(self.held)
        try:
            content = await read_body(request, self.settings, account)
            limit = self.settings.max_pixels
            work = partial(restore, order, content, self.networks, limit, ticket.advance)
            answer = await self._in_time(request, self.lanes.run(work, ticket), ticket)
            facts_of(request.scope).update(
                bytes_received=len(content),
                queued_seconds=round(ticket.waited, 4),
                network_seconds=round(answer.seconds, 4),
                output=[answer.width, answer.height],
            )
            self.figures.count_picture(order.task, order.spec.name, answer)
            account.change(len(answer.content))
            return Parts(answer.content, _headers(answer), account)
        except BaseException:
            account.free()
            raise

    async def _in_time(
        self, request: Request, work: Coroutine[object, object, Answer], ticket: Ticket
    ) -> Answer:
        """Wait for work; give it up if it takes too long, or if the client goes away."""
        doing = asyncio.ensure_future(work)
        gone = asyncio.ensure_future(_disconnected(request))
        try:
            await asyncio.wait(
                {doing, gone},
                timeout=self.settings.seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if doing.done():
                return doing.result()
        finally:
            gone.cancel()
            if not doing.done():
                ticket.stop()
                doing.cancel()
        if gone.done() and not gone.cancelled():
            raise ClientDisconnect
        raise self._too_slow(ticket)

    def _too_slow(self, ticket: Ticket) -> Problem:
        limit = f"{self.settings.seconds:g} s"
        if ticket.state == "waiting":
            seconds = str(self.lanes.seconds_until_room())
            return Problem(
                status=HTTPStatus.SERVICE_UNAVAILABLE,
                problem=f"no lane became free within {limit}",
                remedy=f"Try again in {seconds} s.",
                headers={"Retry-After": seconds},
            )
        return Problem(
            status=HTTPStatus.GATEWAY_TIMEOUT,
            problem=f"the picture took longer than {limit}",
            remedy="Choose a smaller scale, a faster model or a smaller picture.",
        )

    # Everything else

    async def models(self, request: Request) -> Response:
        """Answer what is offered."""
        facts_of(request.scope)["route"] = "/v1/models"
        return JSONResponse(offers(self.settings), headers=NO_STORE)

    async def progress(self, request: Request) -> App:
        """Answer how far a picture is."""
        facts_of(request.scope)["route"] = "/v1/progress"
        ticket = self._tickets.get(request.path_params["word"])
        if ticket is None:
            problem = Problem(
                status=HTTPStatus.NOT_FOUND,
                problem="no request under way has this word",
                remedy="It has not arrived, or is answered.",
            )
            return _refusal(request, problem)
        state = {"state": ticket.state, "done": ticket.share}
        response: App = JSONResponse(state, headers=NO_STORE)
        return response

    async def health(self, request: Request) -> Response:
        """Answer that the process lives."""
        facts_of(request.scope)["route"] = "/healthz"
        return JSONResponse({"status": "alive"}, headers=NO_STORE)

    async def readiness(self, request: Request) -> Response:
        """Answer whether pictures are taken."""
        facts_of(request.scope)["route"] = "/readyz"
        status = HTTPStatus.OK if self.ready else HTTPStatus.SERVICE_UNAVAILABLE
        said = "ready" if self.ready else "not ready"
        return JSONResponse({"status": said}, status_code=status, headers=NO_STORE)

    async def metrics(self, request: Request) -> Response:
        """Answer figures for Prometheus."""
        facts_of(request.scope)["route"] = "/metrics"
        return Response(self.figures.text(), headers={**NO_STORE, "Content-Type": TEXT})

    async def document(self, request: Request) -> Response:
        """Answer the OpenAPI document."""
        facts_of(request.scope)["route"] = "/openapi.json"
        return JSONResponse(openapi(self.settings))

    async def static(self, request: Request) -> Response:
        """Answer a file of the page."""
        facts_of(request.scope)["route"] = "/static"
        name = request.path_params["name"]
        if name not in ASSETS:
            raise HTTPException(HTTPStatus.NOT_FOUND)
        headers = {"Cache-Control": "no-cache"}
        return Response(asset(name), media_type=ASSETS[name], headers=headers)

    async def page(self, request: Request) -> Response:
        """Answer the page for people."""
        facts_of(request.scope)["route"] = "/"
        return Response(start_page(), media_type="text/html", headers={"Cache-Control": "no-cache"})

    async def _fault(self, request: Request, error: Exception) -> App:
        """Answer that there is a fault of ours; the journal gets to know the error itself."""
        return _refusal(request, FAULT)

    async def _no_route(self, request: Request, error: HTTPException) -> App:
        """Answer what has no route, or not this method."""
        problem = Problem(
            status=error.status_code,
            problem=f"{request.method} {request.url.path[:200]}: is not served here",
            remedy="See /openapi.json for what is.",
            headers=error.headers or {},
        )
        return _refusal(request, problem)


async def _disconnected(request: Request) -> None:
    """Return when the client of a request goes away."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _refusal(request: Request, problem: Problem) -> App:
    facts_of(request.scope)["problem"] = problem.problem
    response: App = JSONResponse(
        problem.as_dict(),
        status_code=int(problem.status),
        media_type="application/problem+json",
        headers={**NO_STORE, **problem.headers},
    )
    return response


def _headers(answer: Answer) -> dict[str, str]:
    plain = answer.name.encode("ascii", "replace").decode().replace('"', "_").replace("\\", "_")
    return {
        **NO_STORE,
        "Content-Type": answer.media,
        "Content-Length": str(len(answer.content)),
        "Content-Disposition": f"attachment; filename=\"{plain}\"; filename*=UTF-8''"
        f"{quote(answer.name, safe='')}",
        "Srcli-Notes": json.dumps(answer.notes),
        "Srcli-Size": f"{answer.width}x{answer.height}",
        "Srcli-Steps": ", ".join(answer.steps),
        "Srcli-Seconds": f"{answer.seconds:.4f}",
    }

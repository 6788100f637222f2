import asyncio

from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route


async def hello(request):
    return JSONResponse({"hello": request.path_params["name"], "q": request.query_params.get("q")})


async def echo(request):
    return JSONResponse(await request.json(), 201)


async def upload(request):
    async with request.form() as form:
        file = form["file"]
        return PlainTextResponse(f"{file.filename} {len(await file.read())} {form['word']}")


async def stream(request):
    async def parts():
        for i in range(3):
            await asyncio.sleep(0.001)
            yield f"{i};"

    return StreamingResponse(parts(), media_type="text/plain")


async def fail(request):
    raise ValueError("asked to")


app = Starlette(
    routes=[
        Route("/hello/{name}", hello),
        Route("/json", echo, methods=["POST"]),
        Route("/upload", upload, methods=["POST"]),
        Route("/stream", stream),
        Route("/fail", fail),
    ]
)

"""A worker without wharf, by componentize-py alone."""

from componentize_py_types import Ok
from wit_world import exports
from wit_world.imports import types as http


class IncomingHandler(exports.IncomingHandler):
    def handle(self, request, response_out):
        response = http.OutgoingResponse(http.Fields.from_list([("content-type", b"text/plain")]))
        body = response.body()
        http.ResponseOutparam.set(response_out, Ok(response))
        with body.write() as stream:
            stream.blocking_write_and_flush(b"hello\n")
        http.OutgoingBody.finish(body, None)

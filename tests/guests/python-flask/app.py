"""A Flask application as a wasi:http component, by componentize-py."""

import encodings.idna  # noqa: F401  (imported now: a request has no files to import from)

from flask import Flask
from wit_world import exports

import wsgi

app = Flask(__name__)


@app.get("/")
@app.get("/api/flask")
def hello():
    return "hello\n", 200, {"content-type": "text/plain"}


# Once, at build time: what Flask, Werkzeug and the standard library make at their first use is
# part of the component.
app.test_client().get("/api/flask?a=%20")
wsgi.rehearse()


class IncomingHandler(exports.IncomingHandler):
    def handle(self, request, response_out):
        wsgi.serve(app, request, response_out)

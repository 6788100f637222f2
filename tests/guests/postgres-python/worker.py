"""A worker with a PostgreSQL database, by pg8000.

`GET` answers the notes, `POST` adds one, and `GET` below `/error` tells of a statement
that PostgreSQL refuses. Where the database is say `PGHOST`, `PGPORT`, `PGUSER`,
`PGPASSWORD` and `PGDATABASE`.
"""

import os

from pg8000.exceptions import DatabaseError
from pg8000.native import Connection, InterfaceError
from wharf import Response


def connect():
    variables = os.environ
    return Connection(
        variables["PGUSER"],
        host=variables["PGHOST"],
        port=int(variables["PGPORT"]),
        database=variables["PGDATABASE"],
        password=variables["PGPASSWORD"],
        timeout=10,
    )


def notes(database):
    rows = database.run("select id, text from notes order by id")
    return Response.json([{"id": number, "text": text} for number, text in rows])


def add(database, text):
    statement = database.prepare("insert into notes (text) values (:text) returning id")
    ((number,),) = statement.run(text=text)
    return Response.json({"id": number}, 201)


def refused(database):
    try:
        database.run("select * from nowhere")
    except DatabaseError as error:
        # The fields of ErrorResponse (PostgreSQL, "Error and Notice Message Fields").
        (fields,) = error.args
    ((still,),) = database.run("select 'here'")
    return Response.json({"code": fields["C"], "message": fields["M"], "still": still}, 400)


def worker(request):
    try:
        database = connect()
    except (InterfaceError, DatabaseError, OSError) as error:
        # Of a connection that failed pg8000 says where to, and its cause why.
        return Response.json({"error": str(error.__cause__ or error)}, 502)
    try:
        if request.method == "POST":
            return add(database, request.text)
        return refused(database) if request.path.endswith("/error") else notes(database)
    finally:
        database.close()

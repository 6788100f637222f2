"""`sqlite3` where many instances open the same new database at once.

Locks are folders beside the database (SQLite's dotfile locking: WASI has no
others). A connection that waited for its first lock while another one wrote
the first page of an empty database then fails once with SQLITE_NOTADB (seen
with SQLite 3.51.2): so an empty database gets its first page here.
"""

import os


def patch(module):
    own_connect = module.connect

    def connect(database, *arguments, **keywords):
        connection = own_connect(database, *arguments, **keywords)
        try:
            _begin(module, connection)
        except (module.OperationalError, OSError):
            pass  # It can't be written: whoever writes is told.
        return connection

    module.connect = module.dbapi2.connect = connect


def _begin(module, connection):
    """Writes the first page of a database that has none."""
    file = next((row[2] for row in connection.execute("pragma database_list") if row[1] == "main"), "")
    if not file or os.path.getsize(file) > 0:
        return
    level, connection.isolation_level = connection.isolation_level, None
    try:
        for _ in range(3):
            try:
                connection.execute("begin immediate")
                connection.execute("commit")
                return
            except module.DatabaseError as error:
                if error.sqlite_errorname != "SQLITE_NOTADB":
                    raise
    finally:
        connection.isolation_level = level

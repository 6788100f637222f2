#include "store.h"

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* WASI has no fcntl locks. With the VFS "unix-dotfile" a lock is a folder beside the
 * database: only one instance at a time has any, to read or to write. So a request is one
 * transaction, which ends before its response is sent. */
#define VFS "unix-dotfile"
#define LOCK ".lock"
#define BREAKER ".lock.breaker"

#define WAIT_MILLISECONDS 10
#define WAITS 1000

/* An instance that the server stops leaves its lock. None lives longer than `timeout` in
 * wharf.toml: a lock older than this is a dead one's. */
#define LOCK_SECONDS 60

static const char SCHEMA[] =
    "create table if not exists entries (id integer primary key, name text not null, text text not null) strict;"
    "create table if not exists counters (name text primary key, value integer not null) strict;"
    "create table if not exists files (name text primary key, content blob not null) strict;";

struct store {
    sqlite3 *db;
    char *path;
};

static enum result failed(struct store *store, const char *what)
{
    fprintf(stderr, "cannot %s: %s\n", what, sqlite3_errmsg(store->db));
    return FAILED;
}

int touch_lock(const char *path, const struct timeval times[2]);

/* What SQLite calls for utimes, to show that a lock is in use: "now" is 1970 to the
 * wasi-libc of Debian 12. */
int touch_lock(const char *path, const struct timeval times[2])
{
    struct timeval now[2];
    gettimeofday(&now[0], NULL);
    now[1] = now[0];
    return utimes(path, times ? times : now);
}

/* Whether the file `path` with `suffix` was there so long that who made it is dead. */
static bool is_stale(const char *path, const char *suffix, char *name, size_t size)
{
    struct stat status;
    int length = snprintf(name, size, "%s%s", path, suffix);
    return length > 0 && (size_t)length < size && stat(name, &status) == 0 &&
           time(NULL) - status.st_mtime > LOCK_SECONDS;
}

/* Removes a lock that a dead instance left. Only one at a time looks and removes, so that
 * none removes the lock of who came after. What the dead one had begun to write SQLite
 * takes back by its journal. */
static void break_stale_lock(const char *path)
{
    char lock[256], breaker[256];
    if (!is_stale(path, LOCK, lock, sizeof lock))
        return;
    if (is_stale(path, BREAKER, breaker, sizeof breaker))
        rmdir(breaker);
    if (mkdir(breaker, 0777) != 0)
        return;
    if (is_stale(path, LOCK, lock, sizeof lock) && rmdir(lock) == 0)
        fprintf(stderr, "removed %s, which a stopped instance left\n", lock);
    rmdir(breaker);
}

static int on_busy(void *path, int waits)
{
    if (waits >= WAITS)
        return 0;
    break_stale_lock(path);
    sqlite3_sleep(WAIT_MILLISECONDS);
    return 1;
}

static enum result begin(struct store *store)
{
    /* Who waited while another one wrote the first page of a new database fails once with
     * SQLITE_NOTADB. */
    int status = SQLITE_NOTADB;
    for (int tries = 0; tries < 3 && status == SQLITE_NOTADB; tries++)
        status = sqlite3_exec(store->db, "begin immediate", NULL, NULL, NULL);
    if (status == SQLITE_OK)
        status = sqlite3_exec(store->db, SCHEMA, NULL, NULL, NULL);
    return status == SQLITE_OK ? DONE : failed(store, "begin a transaction");
}

struct store *store_open(const char *path)
{
    struct store *store = calloc(1, sizeof *store);
    if (!store)
        return NULL;
    store->path = strdup(path);
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
    bool open = store->path && sqlite3_open_v2(path, &store->db, flags, VFS) == SQLITE_OK;
    if (!open)
        failed(store, "open the database");
    else
        sqlite3_busy_handler(store->db, on_busy, store->path);
    if (!open || begin(store) == FAILED) {
        store_close(store, false);
        return NULL;
    }
    return store;
}

enum result store_close(struct store *store, bool keep)
{
    enum result result = DONE;
    if (keep && sqlite3_exec(store->db, "commit", NULL, NULL, NULL) != SQLITE_OK)
        result = failed(store, "commit a transaction");
    /* Rolls back what is not committed. */
    sqlite3_close(store->db);
    free(store->path);
    free(store);
    return result;
}

static sqlite3_stmt *prepare(struct store *store, const char *sql)
{
    sqlite3_stmt *statement;
    if (sqlite3_prepare_v2(store->db, sql, -1, &statement, NULL) != SQLITE_OK) {
        failed(store, "prepare a statement");
        return NULL;
    }
    return statement;
}

/* Finalizes a statement after its last row, of which `found` tells whether there was one. */
static enum result finish(struct store *store, sqlite3_stmt *statement, bool found)
{
    if (sqlite3_finalize(statement) != SQLITE_OK)
        return failed(store, "use the database");
    return found ? DONE : NOTHING;
}

/* The first column of the only row, in bytes. Takes the statement. */
static enum result only_value(struct store *store, sqlite3_stmt *statement, struct buffer *value)
{
    bool found = sqlite3_step(statement) == SQLITE_ROW;
    if (found) {
        /* Asked for in this order, as SQLite's documentation has it. */
        const void *bytes = sqlite3_column_blob(statement, 0);
        buffer_append(value, bytes, (size_t)sqlite3_column_bytes(statement, 0));
        sqlite3_step(statement);
    }
    return finish(store, statement, found);
}

enum result store_list_json(struct store *store, struct buffer *json)
{
    sqlite3_stmt *statement = prepare(
        store, "select json_group_array(json_object('id', id, 'name', name, 'text', text) order by id) from entries");
    return statement ? only_value(store, statement, json) : FAILED;
}

enum result store_list_html(struct store *store, struct buffer *html)
{
    sqlite3_stmt *statement = prepare(store, "select name, text from entries order by id");
    if (!statement)
        return FAILED;
    while (sqlite3_step(statement) == SQLITE_ROW) {
        buffer_append_text(html, "<li><b>");
        buffer_append_html(html, (const char *)sqlite3_column_text(statement, 0));
        buffer_append_text(html, "</b> ");
        buffer_append_html(html, (const char *)sqlite3_column_text(statement, 1));
        buffer_append_text(html, "</li>\n");
    }
    return finish(store, statement, true);
}

enum result store_add(struct store *store, const struct draft *draft, long long *id)
{
    sqlite3_stmt *statement = prepare(store, "insert into entries (name, text) values (?1, ?2)");
    if (!statement)
        return FAILED;
    sqlite3_bind_text(statement, 1, draft->name.data, -1, SQLITE_STATIC);
    sqlite3_bind_text(statement, 2, draft->text.data, -1, SQLITE_STATIC);
    sqlite3_step(statement);
    *id = sqlite3_last_insert_rowid(store->db);
    return finish(store, statement, true);
}

enum result store_entry(struct store *store, long long id, struct buffer *json)
{
    sqlite3_stmt *statement =
        prepare(store, "select json_object('id', id, 'name', name, 'text', text) from entries where id = ?1");
    if (!statement)
        return FAILED;
    sqlite3_bind_int64(statement, 1, id);
    return only_value(store, statement, json);
}

enum result store_visits(struct store *store, struct buffer *number)
{
    sqlite3_stmt *statement = prepare(store, "select coalesce(max(value), 0) from counters where name = 'visits'");
    return statement ? only_value(store, statement, number) : FAILED;
}

enum result store_visit(struct store *store, struct buffer *number)
{
    sqlite3_stmt *statement = prepare(store, "insert into counters values ('visits', 1)"
                                             " on conflict do update set value = value + 1 returning value");
    return statement ? only_value(store, statement, number) : FAILED;
}

enum result store_file(struct store *store, const char *name, struct buffer *content)
{
    sqlite3_stmt *statement = prepare(store, "select content from files where name = ?1");
    if (!statement)
        return FAILED;
    sqlite3_bind_text(statement, 1, name, -1, SQLITE_STATIC);
    return only_value(store, statement, content);
}

enum result store_put_file(struct store *store, const char *name, const struct buffer *content)
{
    sqlite3_stmt *statement = prepare(store, "insert or replace into files values (?1, ?2)");
    if (!statement)
        return FAILED;
    sqlite3_bind_text(statement, 1, name, -1, SQLITE_STATIC);
    /* An address of nothing would be NULL. */
    sqlite3_bind_blob64(statement, 2, content->length ? content->data : "", content->length, SQLITE_STATIC);
    sqlite3_step(statement);
    return finish(store, statement, true);
}

enum result store_draft_from_json(struct store *store, const struct buffer *json, struct draft *draft,
                                  struct buffer *problem)
{
    /* Each is NULL unless it is there, and a text. */
    sqlite3_stmt *statement = prepare(
        store, "with object (value) as (select ?1 where json_valid(?1) and json_type(?1) = 'object')"
               " select iif(json_type(value, '$.name') = 'text', value ->> '$.name', null),"
               " iif(json_type(value, '$.text') = 'text', value ->> '$.text', null) from object");
    if (!statement)
        return FAILED;
    if (utf8_length(json->data, json->length) > 0)
        sqlite3_bind_text64(statement, 1, json->data, json->length, SQLITE_STATIC, SQLITE_UTF8);
    bool valid = sqlite3_step(statement) == SQLITE_ROW;
    if (valid) {
        const char *name = (const char *)sqlite3_column_text(statement, 0);
        size_t name_length = (size_t)sqlite3_column_bytes(statement, 0);
        const char *text = (const char *)sqlite3_column_text(statement, 1);
        size_t text_length = (size_t)sqlite3_column_bytes(statement, 1);
        valid = draft_set_name(draft, name, name_length, problem) && draft_set_text(draft, text, text_length, problem);
    } else {
        buffer_set_text(problem, "expected a JSON object with the texts name and text");
    }
    return finish(store, statement, valid);
}

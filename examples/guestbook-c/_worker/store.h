/* The database: entries, visits and files, in SQLite. */
#ifndef STORE_H
#define STORE_H

#include "entry.h"

struct store;

/* How an operation ended. */
enum result {
    DONE,
    NOTHING, /* there is no such thing */
    FAILED,  /* which the log tells of */
};

/* Opens the database and begins a transaction, waiting for those of other instances.
 * None: it failed. */
struct store *store_open(const char *path);

/* Ends the transaction, by a commit if `keep` is set. */
enum result store_close(struct store *store, bool keep);

/* All entries, oldest first, as an array of JSON, and as items of a list in HTML. */
enum result store_list_json(struct store *store, struct buffer *json);
enum result store_list_html(struct store *store, struct buffer *html);

enum result store_add(struct store *store, const struct draft *draft, long long *id);
enum result store_entry(struct store *store, long long id, struct buffer *json);

/* The number of visits; store_visit counts one more. */
enum result store_visits(struct store *store, struct buffer *number);
enum result store_visit(struct store *store, struct buffer *number);

enum result store_file(struct store *store, const char *name, struct buffer *content);
enum result store_put_file(struct store *store, const char *name, const struct buffer *content);

/* Takes a draft from JSON, by SQLite's own functions. NOTHING: it is none, and `problem`
 * says why. */
enum result store_draft_from_json(struct store *store, const struct buffer *json, struct draft *draft,
                                  struct buffer *problem);

#endif

/* A guestbook: a program that is started for each request, and speaks CGI/1.1. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "http.h"
#include "store.h"

#define DATABASE "/data/guestbook.db"

/* Answers a request. `name` is what the path has behind the route's. */
typedef enum result handler(struct store *store, const struct request *request, const char *name,
                            struct response *response);

static enum result page(struct store *store, const struct request *request, const char *name,
                        struct response *response)
{
    (void)request, (void)name;
    response->status = 200;
    response->type = "text/html; charset=utf-8";
    buffer_append_text(&response->body, "<!doctype html>\n"
                                        "<html lang=\"en\">\n"
                                        "<meta charset=\"utf-8\">\n"
                                        "<title>Guestbook</title>\n"
                                        "<h1>Guestbook</h1>\n"
                                        "<ul>\n");
    enum result result = store_list_html(store, &response->body);
    buffer_append_text(&response->body, "</ul>\n<p><a href=\"/\">Sign it</a></p>\n</html>\n");
    return result;
}

static enum result sign(struct store *store, const struct request *request, const char *name,
                        struct response *response)
{
    (void)name;
    struct draft draft = {0};
    struct buffer problem = {0};
    enum result result = DONE;
    if (draft_from_form(&draft, &request->body, &problem)) {
        long long id;
        result = store_add(store, &draft, &id);
        response->status = 303;
        snprintf(response->location, sizeof response->location, "/entries");
    } else {
        buffer_append(&problem, "", 1);
        response_text(response, 400, problem.data);
    }
    draft_free(&draft);
    buffer_free(&problem);
    return result;
}

static enum result list(struct store *store, const struct request *request, const char *name,
                        struct response *response)
{
    (void)request, (void)name;
    response_json(response, 200, "");
    return store_list_json(store, &response->body);
}

static enum result create(struct store *store, const struct request *request, const char *name,
                          struct response *response)
{
    (void)name;
    struct draft draft = {0};
    struct buffer problem = {0};
    enum result result = store_draft_from_json(store, &request->body, &draft, &problem);
    if (result == DONE) {
        long long id = 0;
        result = store_add(store, &draft, &id);
        response_json(response, 201, "");
        snprintf(response->location, sizeof response->location, "/api/entries/%lld", id);
        if (result == DONE)
            result = store_entry(store, id, &response->body);
    } else if (result == NOTHING) {
        /* None of our messages has a character that JSON would escape. */
        response_json(response, 400, "{\"error\":\"");
        buffer_append(&response->body, problem.data, problem.length);
        buffer_append_text(&response->body, "\"}");
        result = DONE;
    }
    draft_free(&draft);
    buffer_free(&problem);
    return result;
}

static enum result show(struct store *store, const struct request *request, const char *name,
                        struct response *response)
{
    (void)request;
    response_json(response, 200, "");
    enum result result = NOTHING;
    /* One that is too large is LLONG_MAX, which no entry has. */
    if (strspn(name, "0123456789") == strlen(name))
        result = store_entry(store, strtoll(name, NULL, 10), &response->body);
    if (result == NOTHING) {
        response_json(response, 404, "{\"error\":\"no such entry\"}");
        result = DONE;
    }
    return result;
}

static enum result visits(struct store *store, const struct request *request, const char *name,
                          struct response *response)
{
    (void)request, (void)name;
    response_text(response, 200, "");
    return store_visits(store, &response->body);
}

static enum result visit(struct store *store, const struct request *request, const char *name,
                         struct response *response)
{
    (void)request, (void)name;
    response_text(response, 200, "");
    return store_visit(store, &response->body);
}

/* Whether a file can have that name: none that is hidden, or a path. */
static bool is_file_name(const char *name)
{
    size_t length = strlen(name);
    return length >= 1 && length <= 100 && name[0] != '.' &&
           strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") == length;
}

static enum result file(struct store *store, const struct request *request, const char *name,
                        struct response *response)
{
    (void)request;
    response->status = 200;
    response->type = "application/octet-stream";
    enum result result = is_file_name(name) ? store_file(store, name, &response->body) : NOTHING;
    if (result == NOTHING) {
        response_text(response, 404, "no such file\n");
        result = DONE;
    }
    return result;
}

static enum result put_file(struct store *store, const struct request *request, const char *name,
                            struct response *response)
{
    if (!is_file_name(name)) {
        response_text(response, 400, "name: expected at most 100 of A-Z a-z 0-9 . _ -, no dot in front");
        return DONE;
    }
    response->status = 204;
    return store_put_file(store, name, &request->body);
}

/* A path that ends in a slash has a name behind it. */
static const struct route {
    const char *path, *method;
    handler *answer;
} routes[] = {
    {"/entries", "GET", page},
    {"/entries", "POST", sign},
    {"/api/entries", "GET", list},
    {"/api/entries", "POST", create},
    {"/api/entries/", "GET", show},
    {"/visits", "GET", visits},
    {"/visits", "POST", visit},
    {"/files/", "GET", file},
    {"/files/", "PUT", put_file},
};

/* What `path` has behind the route's; none: it is another route's. */
static const char *match(const struct route *route, const char *path)
{
    size_t length = strlen(route->path);
    if (strncmp(path, route->path, length) != 0)
        return NULL;
    const char *name = path + length;
    bool has_name = route->path[length - 1] == '/';
    return has_name == (*name != '\0') && !strchr(name, '/') ? name : NULL;
}

static void answer(const struct route *route, const struct request *request, const char *name,
                   struct response *response)
{
    struct store *store = store_open(DATABASE);
    bool done = store && route->answer(store, request, name, response) == DONE;
    if (store && store_close(store, done) == FAILED)
        done = false;
    if (!done) {
        struct buffer body = response->body;
        *response = (struct response){.body = body};
        response_text(response, 500, "internal server error\n");
    }
}

static void dispatch(const struct request *request, struct response *response)
{
    /* The server leaves the body of an answer to HEAD away. */
    const char *method = strcmp(request->method, "HEAD") == 0 ? "GET" : request->method;
    for (size_t i = 0; i < sizeof routes / sizeof *routes; i++) {
        const char *name = match(&routes[i], request->path);
        if (!name)
            continue;
        if (strcmp(routes[i].method, method) == 0) {
            response->allow[0] = '\0';
            answer(&routes[i], request, name, response);
            return;
        }
        size_t used = strlen(response->allow);
        snprintf(response->allow + used, sizeof response->allow - used, "%s, ", routes[i].method);
    }
    if (response->allow[0]) {
        strncat(response->allow, "HEAD", sizeof response->allow - strlen(response->allow) - 1);
        response_text(response, 405, "method not allowed\n");
    } else {
        response_text(response, 404, "not found\n");
    }
}

int main(void)
{
    struct request request = {0};
    struct response response = {0};
    if (request_read(&request, &response))
        dispatch(&request, &response);
    response_write(&response);
    buffer_free(&request.body);
    buffer_free(&response.body);
    return 0;
}

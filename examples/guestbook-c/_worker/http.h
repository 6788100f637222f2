/* Requests and responses by CGI/1.1 (RFC 3875). */
#ifndef HTTP_H
#define HTTP_H

#include <stdbool.h>

#include "buffer.h"

/* Largest body of a request, in bytes. wharf.toml has the server refuse what is larger. */
#define BODY_MOST (1024 * 1024)

struct request {
    const char *method;
    const char *path; /* decoded */
    struct buffer body;
};

struct response {
    int status;
    const char *type;   /* none: there is no body */
    char location[64];  /* empty: none */
    char allow[64];     /* empty: none */
    struct buffer body;
};

/* Reads the request. False: it is incomplete or too large, and the response says so. */
bool request_read(struct request *request, struct response *response);

void response_write(const struct response *response);

/* Makes it a response of text, or of JSON. */
void response_text(struct response *response, int status, const char *text);
void response_json(struct response *response, int status, const char *json);

#endif

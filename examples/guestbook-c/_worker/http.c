#include "http.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

static const char *variable(const char *name)
{
    const char *value = getenv(name);
    return value ? value : "";
}

bool request_read(struct request *request, struct response *response)
{
    request->method = variable("REQUEST_METHOD");
    request->path = variable("PATH_INFO");
    const char *digits = variable("CONTENT_LENGTH");
    if (*digits == '\0')
        return true;

    char *end;
    errno = 0;
    unsigned long length = strtoul(digits, &end, 10);
    if (*end != '\0' || errno != 0 || length > BODY_MOST) {
        response_text(response, 413, "expected at most 1 MiB\n");
        return false;
    }
    char *body = buffer_reserve(&request->body, length);
    request->body.length = fread(body, 1, length, stdin);
    if (request->body.length < length) {
        response_text(response, 400, "the body is incomplete\n");
        return false;
    }
    return true;
}

void response_write(const struct response *response)
{
    printf("Status: %d\r\n", response->status);
    if (response->location[0])
        printf("Location: %s\r\n", response->location);
    if (response->allow[0])
        printf("Allow: %s\r\n", response->allow);
    if (response->type)
        /* Whatever a file says it is: no browser shows it as a page of this site. */
        printf("Content-Type: %s\r\nContent-Length: %zu\r\nX-Content-Type-Options: nosniff\r\n",
               response->type, response->body.length);
    fputs("\r\n", stdout);
    if (response->body.length > 0)
        fwrite(response->body.data, 1, response->body.length, stdout);
    fflush(stdout);
}

void response_text(struct response *response, int status, const char *text)
{
    response->status = status;
    response->type = "text/plain; charset=utf-8";
    buffer_set_text(&response->body, text);
}

void response_json(struct response *response, int status, const char *json)
{
    response->status = status;
    response->type = "application/json";
    buffer_set_text(&response->body, json);
}

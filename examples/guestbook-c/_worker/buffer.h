/* Bytes that grow. */
#ifndef BUFFER_H
#define BUFFER_H

#include <stddef.h>

struct buffer {
    char *data;
    size_t length, capacity;
};

/* Room for `size` bytes more, at the end. Where there is no memory the program ends, and
 * with it the request: the server answers 500. */
char *buffer_reserve(struct buffer *buffer, size_t size);

void buffer_append(struct buffer *buffer, const void *bytes, size_t length);
void buffer_append_text(struct buffer *buffer, const char *text);

/* Appends a text so that it is one in HTML. */
void buffer_append_html(struct buffer *buffer, const char *text);

/* Puts a text in place of all that is there. */
void buffer_set_text(struct buffer *buffer, const char *text);

void buffer_free(struct buffer *buffer);

#endif

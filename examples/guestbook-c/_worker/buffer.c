#include "buffer.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

char *buffer_reserve(struct buffer *buffer, size_t size)
{
    if (size > buffer->capacity - buffer->length) {
        size_t capacity = buffer->capacity ? buffer->capacity : 256;
        while (capacity - buffer->length < size && capacity <= SIZE_MAX / 2)
            capacity *= 2;
        char *data = capacity - buffer->length < size ? NULL : realloc(buffer->data, capacity);
        if (!data) {
            fputs("no memory\n", stderr);
            abort();
        }
        buffer->data = data;
        buffer->capacity = capacity;
    }
    return buffer->data + buffer->length;
}

void buffer_append(struct buffer *buffer, const void *bytes, size_t length)
{
    char *end = buffer_reserve(buffer, length);
    if (length > 0)
        memcpy(end, bytes, length);
    buffer->length += length;
}

void buffer_append_text(struct buffer *buffer, const char *text)
{
    buffer_append(buffer, text, strlen(text));
}

void buffer_append_html(struct buffer *buffer, const char *text)
{
    while (*text) {
        size_t plain = strcspn(text, "&<>\"'");
        buffer_append(buffer, text, plain);
        text += plain;
        switch (*text) {
        case '&': buffer_append_text(buffer, "&amp;"); break;
        case '<': buffer_append_text(buffer, "&lt;"); break;
        case '>': buffer_append_text(buffer, "&gt;"); break;
        case '"': buffer_append_text(buffer, "&quot;"); break;
        case '\'': buffer_append_text(buffer, "&#39;"); break;
        default: return;
        }
        text++;
    }
}

void buffer_set_text(struct buffer *buffer, const char *text)
{
    buffer->length = 0;
    buffer_append_text(buffer, text);
}

void buffer_free(struct buffer *buffer)
{
    free(buffer->data);
    *buffer = (struct buffer){0};
}

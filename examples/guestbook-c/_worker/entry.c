#include "entry.h"

#include <stdio.h>
#include <string.h>

long utf8_length(const char *text, size_t length)
{
    const unsigned char *byte = (const unsigned char *)text, *end = byte + length;
    long count = 0;
    for (; byte < end; count++) {
        unsigned long character = *byte++;
        size_t more = character < 0x80 ? 0 : character < 0xe0 ? 1 : character < 0xf0 ? 2 : 3;
        if (character == 0 || (character >= 0x80 && character < 0xc2) || character > 0xf4)
            return -1;
        if ((size_t)(end - byte) < more)
            return -1;
        character &= 0x7fu >> (more ? more + 1 : 0);
        for (size_t i = 0; i < more; i++) {
            if ((*byte & 0xc0) != 0x80)
                return -1;
            character = character << 6 | (*byte++ & 0x3f);
        }
        /* Longer than need be, half of a pair of UTF-16, or past the last one. */
        if ((more == 2 && character < 0x800) || (more == 3 && character < 0x10000) ||
            (character >= 0xd800 && character < 0xe000) || character > 0x10ffff)
            return -1;
    }
    return count;
}

static bool is_space(char byte)
{
    return byte == ' ' || (byte >= '\t' && byte <= '\r');
}

static bool set(struct buffer *field, const char *label, long most, const char *value, size_t length,
                struct buffer *problem)
{
    while (length > 0 && is_space(value[0]))
        value++, length--;
    while (length > 0 && is_space(value[length - 1]))
        length--;
    long characters = utf8_length(value, length);
    char said[64] = "";
    if (characters <= 0)
        snprintf(said, sizeof said, "%s: expected a text", label);
    else if (characters > most)
        snprintf(said, sizeof said, "%s: expected at most %ld characters", label, most);
    if (*said) {
        buffer_set_text(problem, said);
        return false;
    }
    field->length = 0;
    buffer_append(field, value, length);
    buffer_append(field, "", 1);
    return true;
}

bool draft_set_name(struct draft *draft, const char *value, size_t length, struct buffer *problem)
{
    return set(&draft->name, "name", NAME_MOST, value, length, problem);
}

bool draft_set_text(struct draft *draft, const char *value, size_t length, struct buffer *problem)
{
    return set(&draft->text, "text", TEXT_MOST, value, length, problem);
}

static int digit(char hex)
{
    if (hex >= '0' && hex <= '9')
        return hex - '0';
    hex |= 0x20;
    return hex >= 'a' && hex <= 'f' ? hex - 'a' + 10 : -1;
}

static void decode(const char *from, const char *end, struct buffer *into)
{
    into->length = 0;
    while (from < end) {
        char byte = *from++;
        if (byte == '+') {
            byte = ' ';
        } else if (byte == '%' && end - from >= 2 && digit(from[0]) >= 0 && digit(from[1]) >= 0) {
            byte = (char)(digit(from[0]) << 4 | digit(from[1]));
            from += 2;
        }
        buffer_append(into, &byte, 1);
    }
}

/* The value of the first field `name`, decoded; empty if there is none. */
static void form_value(const struct buffer *form, const char *name, struct buffer *value)
{
    value->length = 0;
    if (form->length == 0)
        return;
    const char *at = form->data, *end = at + form->length;
    for (;;) {
        const char *next = memchr(at, '&', (size_t)(end - at));
        const char *stop = next ? next : end;
        const char *equals = memchr(at, '=', (size_t)(stop - at));
        decode(at, equals ? equals : stop, value);
        bool found = value->length == strlen(name) && memcmp(value->data, name, value->length) == 0;
        value->length = 0;
        if (found && equals)
            decode(equals + 1, stop, value);
        if (found || !next)
            return;
        at = next + 1;
    }
}

bool draft_from_form(struct draft *draft, const struct buffer *form, struct buffer *problem)
{
    struct buffer value = {0};
    form_value(form, "name", &value);
    bool valid = draft_set_name(draft, value.data, value.length, problem);
    if (valid) {
        form_value(form, "text", &value);
        valid = draft_set_text(draft, value.data, value.length, problem);
    }
    buffer_free(&value);
    return valid;
}

void draft_free(struct draft *draft)
{
    buffer_free(&draft->name);
    buffer_free(&draft->text);
}

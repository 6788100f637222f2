/* What an entry is made of: texts that were sent, checked. */
#ifndef ENTRY_H
#define ENTRY_H

#include <stdbool.h>

#include "buffer.h"

#define NAME_MOST 100  /* characters */
#define TEXT_MOST 1000

/* An entry that has no number yet: texts in UTF-8, trimmed, not empty, not too long. */
struct draft {
    struct buffer name, text; /* each ends in a NUL, which is part of `length` */
};

/* Takes the field `name` or `text` of a draft. False: it can't be one, and `problem` says why. */
bool draft_set_name(struct draft *draft, const char *value, size_t length, struct buffer *problem);
bool draft_set_text(struct draft *draft, const char *value, size_t length, struct buffer *problem);

/* Takes both from a form (application/x-www-form-urlencoded). */
bool draft_from_form(struct draft *draft, const struct buffer *form, struct buffer *problem);

void draft_free(struct draft *draft);

/* Characters of a text in UTF-8 (RFC 3629) without NUL; -1: it is none. */
long utf8_length(const char *text, size_t length);

#endif

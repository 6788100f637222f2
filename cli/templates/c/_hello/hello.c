/* A program that is started for each request, and speaks CGI/1.1 (RFC 3875). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(void) {
    const char *query = getenv("QUERY_STRING");
    const char *name = query ? strstr(query, "name=") : NULL;
    printf("content-type: text/plain\r\n\r\nhello ");
    if (name)
        printf("%.*s\n", (int)strcspn(name + 5, "&"), name + 5);
    else
        printf("world\n");
    return 0;
}

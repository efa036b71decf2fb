/*
 * Functions that gcc calls even in a freestanding program.
 */
#include <stddef.h>

void *memset(void *to, int value, size_t n)
{
    volatile char *at = to;     /* volatile: not to become a call of itself */

    while (n--) {
        *at++ = value;
    }
    return to;
}

void *memcpy(void *to, const void *from, size_t n)
{
    volatile char *at = to;     /* volatile: the same */

    for (const char *c = from; n--; c++) {
        *at++ = *c;
    }
    return to;
}

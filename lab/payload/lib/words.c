/*
 * The payload's words: the case that runs, as "fill,base=1G,size=0x1000", and
 * its arguments.
 */
#include "payload.h"

static const char *current;     /* the word of the case that runs */
static char current_name[64] = "start";

bool is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\t';
}

const char *skip_prefix(const char *text, const char *prefix)
{
    while (*prefix) {
        if (*text++ != *prefix++) {
            return NULL;
        }
    }
    return text;
}

static bool parse_number(const char *s, uint64_t *value)
{
    unsigned base = 10;
    const char *start;

    if (s[0] == '0' && s[1] == 'x') {
        base = 16;
        s += 2;
    }
    *value = 0;
    for (start = s; ; s++) {
        unsigned digit = *s <= '9' ? *s - '0' : (*s | 0x20) - 'a' + 10;
        if (digit >= base) {
            break;
        }
        *value = *value * base + digit;
    }
    if (s == start) {
        return false;
    }
    switch (*s) {
    case 'G':
        *value <<= 10;
        /* fall through */
    case 'M':
        *value <<= 10;
        /* fall through */
    case 'K':
        *value <<= 10;
        s++;
    }
    return !*s || *s == ',' || is_space(*s);
}

const char *begin_case(const char *word)
{
    size_t n = 0;

    for (; word[n] && word[n] != ',' && !is_space(word[n]) &&
           n < sizeof(current_name) - 1; n++) {
        current_name[n] = word[n];
    }
    current_name[n] = '\0';
    current = word;
    return current_name;
}

const char *case_name(void)
{
    return current_name;
}

uint64_t arg(const char *key, uint64_t otherwise)
{
    for (const char *s = current; *s && !is_space(*s); s++) {
        const char *rest = *s == ',' ? skip_prefix(s + 1, key) : NULL;
        uint64_t value;

        if (!rest || *rest != '=') {
            continue;
        }
        if (!parse_number(rest + 1, &value)) {
            say("not ok %s: %s is not a number\n", current_name, key);
            finish(1);
        }
        return value;
    }
    return otherwise;
}

const char *cases_left(void)
{
    const char *s = current;

    while (*s && !is_space(*s)) {
        s++;
    }
    return s;
}

const char *check_range(uint64_t base, uint64_t size,
                        uint64_t **start, uint64_t **end)
{
    if (!size || base % 8 || size % 8 || base + size < base) {
        return "base= and size= must name a range of whole 64-bit words";
    }
    if (base < (uintptr_t)payload_end &&
        base + size > (uintptr_t)payload_start) {
        return "the range holds the payload itself";
    }
    if (base + size > RAM_START + ((uint64_t)MAPPED_GIB << 30)) {
        return "the payload does not map as much memory";
    }
    *start = (uint64_t *)base;
    *end = (uint64_t *)(base + size);
    return NULL;
}

const char *arg_range(uint64_t **start, uint64_t **end)
{
    return check_range(RAM_START + arg("base", 0), arg("size", 0), start, end);
}

const char *arg_pages(const char *base_key, const char *size_key,
                      uint64_t *start, uint64_t *end)
{
    uint64_t base = RAM_START + arg(base_key, 0), size = arg(size_key, 0);
    uint64_t *first, *last;
    const char *why = check_range(base, size, &first, &last);

    if (!why && (base | size) % PAGE_SIZE) {
        why = "base= and size= must name whole pages";
    }
    *start = base;
    *end = base + size;
    return why;
}

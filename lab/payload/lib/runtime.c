/*
 * The payload's run time: what it says, and how it ends.
 */
#include <stdarg.h>
#include "payload.h"

struct line {                   /* what say() says, before it goes out */
    size_t n;
    char text[512];
};

static spinlock out_lock;

static void add_char(struct line *line, char c)
{
    if (line->n < sizeof(line->text)) {
        line->text[line->n++] = c;
    } else {
        line->text[line->n - 1] = c;    /* too long: still ends as it should */
    }
}

static void add_number(struct line *line, uint64_t value, unsigned base)
{
    char digits[20];
    int n = 0;

    do {
        digits[n++] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value);
    while (n) {
        add_char(line, digits[--n]);
    }
}

static void format_line(struct line *line, const char *format, va_list args)
{
    for (; *format; format++) {
        if (*format != '%') {
            add_char(line, *format);
            continue;
        }
        switch (*++format) {
        case 's':
            for (const char *s = va_arg(args, const char *); *s; s++) {
                add_char(line, *s);
            }
            break;
        case 'd':
        case 'u':
        {
            uint64_t value = va_arg(args, uint64_t);

            if (*format == 'd' && (int64_t)value < 0) {
                add_char(line, '-');
                value = -value;
            }
            add_number(line, value, 10);
            break;
        }
        case 'x':
            add_char(line, '0');
            add_char(line, 'x');
            add_number(line, va_arg(args, uint64_t), 16);
            break;
        }
    }
}

void say(const char *format, ...)
{
    struct line line = { 0 };
    va_list args;

    va_start(args, format);
    format_line(&line, format, args);
    va_end(args);

    /*
     * Nothing that can fault while the lock is held. Not with "outs": for that
     * KVM would read the text from the shared half of our memory.
     */
    spin_lock(&out_lock);
    for (size_t i = 0; i < line.n; i++) {
        put_byte(line.text[i]);
    }
    spin_unlock(&out_lock);
}

void finish(uint64_t failed)
{
    say("done %u failed\n", failed);
    spin_lock(&out_lock);       /* for good: other processors still run */
    end_machine(failed);
}

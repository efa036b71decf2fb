/*
 * The payload: start, list of cases, report.
 *
 * The cases come from the command line (-append) or, when that is empty, from
 * the fw_cfg file opt/gmem/cases: words, each "NAME[,KEY=NUMBER]...", that run
 * one after another. Report on I/O port 0xe9, a line each: "ok NAME" or
 * "not ok NAME: WHY", what a case itself says, and "done N failed" at the end.
 * Then the isa-debug-exit device at 0xf4, if there is one, gets 0 when all
 * passed, else 1 (QEMU exits with 1 and 3); without it, the processor halts.
 */
#include <stdarg.h>
#include "payload.h"

struct gate {
    uint16_t offset_low, selector, flags, offset_middle;
    uint32_t offset_high, zero;
};

struct line {                   /* what say() says, before it goes out */
    size_t n;
    char text[512];
};

static struct gate idt[33];
static spinlock out_lock;
static char case_list[4096];
static const char *current;     /* the word of the case that runs */
static const char *current_name = "start";

/* gcc may call these even in a freestanding program. */
void *memset(void *to, int value, size_t n)
{
    void *start = to;
    asm volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(value) : "memory");
    return start;
}

void *memcpy(void *to, const void *from, size_t n)
{
    void *start = to;
    asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
    return start;
}

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
        outb(0xe9, line.text[i]);
    }
    spin_unlock(&out_lock);
}

static _Noreturn void finish(uint64_t failed)
{
    say("done %u failed\n", failed);
    spin_lock(&out_lock);       /* for good: other processors still run */
    outb(0xf4, failed != 0);
    for (;;) {
        asm volatile("cli; hlt");
    }
}

void exception(uint64_t number, uint64_t error, uint64_t rip, uint64_t cr2)
{
    say("not ok %s: exception %u, error code %x, rip %x, cr2 %x, CPU %u\n",
        current_name, number, error, rip, cr2, (uint64_t)this_cpu());
    finish(1);
}

static void set_gate(int number, uint64_t entry)
{
    idt[number] = (struct gate) {
        .offset_low = entry, .selector = 8, .flags = 0x8e00,
        .offset_middle = entry >> 16, .offset_high = entry >> 32,
    };
}

void load_idt(void)
{
    struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) pointer = { sizeof(idt) - 1, (uintptr_t)idt };

    asm volatile("lidt %0" : : "m"(pointer));
}

static void set_up_exceptions(void)
{
    for (int i = 0; i < 32; i++) {
        set_gate(i, (uintptr_t)exception_entries[i]);
    }
    set_gate(WAKE_VECTOR, (uintptr_t)wake_entry);
    load_idt();
}

static bool is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\t';
}

/* Where the text after the prefix goes on, or NULL. */
static const char *skip_prefix(const char *text, const char *prefix)
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

const char *arg_range(uint64_t **start, uint64_t **end)
{
    return check_range(arg("base", 0), arg("size", 0), start, end);
}

const char *check_range(uint64_t base, uint64_t size,
                        uint64_t **start, uint64_t **end)
{
    if (!size || base % 8 || size % 8 || base + size < base) {
        return "base= and size= must name a range of whole 64-bit words";
    }
    if (base < (uintptr_t)payload_end && base + size > 0x100000) {
        return "the range holds the payload itself";
    }
    if (base + size > 64ULL << 30) {
        return "the payload maps only 64 GiB";
    }
    *start = (uint64_t *)base;
    *end = (uint64_t *)(base + size);
    return NULL;
}

/* The fw_cfg file opt/gmem/cases, by I/O ports. */
static void read_fw_cfg(void)
{
    uint32_t count = 0;

    outw(0x510, 0x19);          /* the directory; its numbers are big-endian */
    for (int i = 0; i < 4; i++) {
        count = count << 8 | inb(0x511);
    }
    while (count--) {
        struct {
            uint8_t size[4], key[2], reserved[2];
            char name[56];
        } file;
        const char *rest;

        for (size_t i = 0; i < sizeof(file); i++) {
            ((uint8_t *)&file)[i] = inb(0x511);
        }
        rest = skip_prefix(file.name, "opt/gmem/cases");
        if (rest && !*rest) {
            size_t size = file.size[2] << 8 | file.size[3];

            if (file.size[0] || file.size[1] || size >= sizeof(case_list)) {
                say("not ok start: opt/gmem/cases is too long\n");
                finish(1);
            }
            outw(0x510, file.key[0] << 8 | file.key[1]);
            for (size_t i = 0; i < size; i++) {
                case_list[i] = inb(0x511);
            }
            return;
        }
    }
}

/* Runs the case that the word names. */
static const char *run_case(const char *word)
{
    static char name[64];
    const struct test_case *c;
    size_t n = 0;

    for (; word[n] && word[n] != ',' && !is_space(word[n]) &&
           n < sizeof(name) - 1; n++) {
        name[n] = word[n];
    }
    name[n] = '\0';
    current = word;
    current_name = name;
    for (c = cases; c->name; c++) {
        const char *rest = skip_prefix(name, c->name);
        if (rest && !*rest) {
            return c->run();
        }
    }
    for (c = cases; c->name; c++) {
        say("# %s: %s\n", c->name, c->help);
    }
    return "there is no such case";
}

uint64_t run_cases(const char *s)
{
    uint64_t failed = 0;

    while (*s) {
        if (is_space(*s)) {
            s++;
            continue;
        }
        const char *why = run_case(s);
        if (why) {
            say("not ok %s: %s\n", current_name, why);
            failed++;
        } else {
            say("ok %s\n", current_name);
        }
        while (*s && !is_space(*s)) {
            s++;
        }
    }
    return failed;
}

void payload_main(const struct start_info *info)
{
    const char *s = (const char *)info->command_line;

    set_up_exceptions();
    /* Out of the way of what a case may write. */
    for (size_t i = 0; s && s[i] && i < sizeof(case_list) - 1; i++) {
        case_list[i] = s[i];
    }
    if (!case_list[0]) {
        read_fw_cfg();
    }
    finish(run_cases(case_list));
}

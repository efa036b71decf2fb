/*
 * A case of the payload: it converts the page that it runs on.
 */
#include "payload.h"
#include "x86.h"

/*
 * The code's own page goes: the processor then runs on through a page of zeros,
 * each pair of which is "add %al, (%rax)", and as al and rax are 0, the status,
 * nothing comes of it. So this has an end, if all goes well: the next page
 * returns.
 */
static const char *run_self(void)
{
    static const uint8_t rest[] = {
        0xba, 1, 0, 0, 0,               /* mov $1, %edx */
        0xe9, 0xf3, 0x0f, 0, 0,         /* jmp to the next page */
    };
    uint64_t status = HC_MAP_GPA_RANGE, pages = 1, mark = MAP_GPA_PRIVATE;
    uint64_t start, end;
    const char *why = arg_pages("base", "size", &start, &end);
    uint8_t *code = (uint8_t *)start, *next = code + PAGE_SIZE;

    if (why) {
        return why;
    }
    if (end - start < 2 * PAGE_SIZE) {
        return "size= must be two pages";
    }
    why = convert(start, end, false);
    if (why) {
        return why;
    }
    code[0] = 0x0f;
    code[1] = 0x01;
    code[2] = is_amd() ? 0xd9 : 0xc1;
    for (size_t i = 0; i < sizeof(rest); i++) {
        code[3 + i] = rest[i];
    }
    /* cmc; after an odd number of zeros, "add %dh, %ch" as well; dh is 0 */
    next[0] = 0xf5;
    next[1] = 0xc3;                     /* ret */
    say("# the page at %x, which runs, becomes private\n", start);
    asm volatile("call *%4"
                 : "+a"(status), "+d"(mark), "+c"(pages)
                 : "b"(start), "r"(code) : "memory", "cc");
    say("# status %d, %s\n", status,
        mark == 1 ? "and the code was still there" : "and the code was gone");
    if (status) {
        return "the conversion failed";
    }
    return mark == 1 ? "the page has kept its contents" : NULL;
}

CASE(run_self, "self", "base=,size=8K: makes private the page that it runs on");

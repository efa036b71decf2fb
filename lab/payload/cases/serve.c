/*
 * The payload as a server: a test has cases run one after another, over the
 * first serial port, and looks at the VM in between. Meanwhile the other
 * processors may convert memory.
 */
#include "payload.h"

static char read_byte(void)
{
    while (!serial_has_byte()) {
        doze();
    }
    return serial_byte();
}

/* Each line is a list of cases, and "served" the end of what they say. */
static const char *run_serve(void)
{
    static char line[1024];

    serial_set_up();
    say("serving\n");
    for (;;) {
        size_t n = 0;

        do {
            line[n] = read_byte();
        } while (line[n] != '\n' && ++n < sizeof(line) - 1);
        line[n] = '\0';
        run_cases(line);
        say("served\n");
    }
    __builtin_unreachable();
}

CASE(run_serve, "serve", "runs the cases that come on the first serial port");

static struct {
    uint64_t start, size;       /* of the part of the first processor */
    bool stop, failed;
    uint64_t turns, busy;
} toggle;

static const char *turn(uint64_t start, uint64_t end, uint64_t seed)
{
    const char *why;
    int64_t status;

    fill(start, end, seed);
    status = map_gpa(start, (end - start) / PAGE_SIZE, MAP_GPA_PRIVATE);
    if (status == GUEST_EBUSY) {
        __atomic_fetch_add(&toggle.busy, 1, __ATOMIC_RELAXED);
        return check_filled(start, end, seed);
    }
    if (status) {
        say("# %x to %x to private: %d\n", start, end, status);
        return "a conversion failed";
    }
    why = check_converted(start, end, seed);
    if (!why) {
        fill(start, end, seed + 1);
        why = check_filled(start, end, seed + 1) ?:
              convert(start, end, false) ?:
              check_converted(start, end, seed + 1);
    }
    return why;
}

static void toggle_part(unsigned cpu, void *opaque)
{
    uint64_t start = toggle.start + (cpu - 1) * toggle.size, seed = 0;

    (void)opaque;
    while (!__atomic_load_n(&toggle.stop, __ATOMIC_RELAXED)) {
        const char *why = turn(start, start + toggle.size, seed += 2);

        if (why) {
            say("FAIL: toggle: %s; CPU %u, seed %u\n", why, (uint64_t)cpu,
                seed);
            __atomic_store_n(&toggle.failed, true, __ATOMIC_RELAXED);
            break;
        }
        __atomic_fetch_add(&toggle.turns, 1, __ATOMIC_RELAXED);
    }
}

/*
 * All processors but the first, each with a part of memory of its own, make it
 * private and shared again, until the case "calm". A migration may refuse it to
 * become private.
 */
static const char *run_toggle(void)
{
    unsigned cpus;
    uint64_t end;
    const char *why = arg_cpus(&cpus) ?:
                      arg_pages("base", "size", &toggle.start, &end);

    if (!why && cpus < 2) {
        why = "there is one processor alone";
    }
    if (!why) {
        toggle.size = end - toggle.start;
        toggle.stop = toggle.failed = false;
        toggle.turns = toggle.busy = 0;
        start_others(cpus, toggle_part, NULL);
        /* From here on there are conversions, or refusals. */
        while (!__atomic_load_n(&toggle.turns, __ATOMIC_RELAXED) &&
               !__atomic_load_n(&toggle.failed, __ATOMIC_RELAXED)) {
            pause();
        }
    }
    return why;
}

CASE(run_toggle, "toggle",
     "base=,size=[,cpus=]: all processors but one convert, until the case "
     "calm");

static const char *run_calm(void)
{
    __atomic_store_n(&toggle.stop, true, __ATOMIC_RELAXED);
    wait_for_others();
    say("toggled %u times, %u refused\n", toggle.turns, toggle.busy);
    return toggle.failed ? "a turn went wrong" : NULL;
}

CASE(run_calm, "calm", "ends the case toggle");

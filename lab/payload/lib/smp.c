/*
 * The payload's other processors: started when a case first asks for them, then
 * halted until there is something to run.
 */
#include "payload.h"

static struct {
    void (*function)(unsigned cpu, void *opaque);
    void *opaque;
    unsigned cpus;
    unsigned number;            /* of the job: a new one is to be run */
    unsigned done;              /* processors, the first not counted */
} job;

static unsigned ready;          /* processors, the first not counted */

void ap_main(unsigned cpu)
{
    unsigned seen = 0;

    set_up_cpu();
    __atomic_fetch_add(&ready, 1, __ATOMIC_RELEASE);
    for (;;) {
        while (__atomic_load_n(&job.number, __ATOMIC_ACQUIRE) == seen) {
            sleep_until_woken();
        }
        seen++;
        if (cpu < job.cpus) {
            job.function(cpu, job.opaque);
        }
        __atomic_fetch_add(&job.done, 1, __ATOMIC_RELEASE);
    }
}

static bool wait_until_ready(unsigned n, uint64_t cycles)
{
    uint64_t start = timestamp();

    while (__atomic_load_n(&ready, __ATOMIC_ACQUIRE) != n) {
        if (timestamp() - start > cycles) {
            return false;
        }
        pause();
    }
    return true;
}

static bool start_cpus(unsigned others)
{
    prepare_other_cpus();
    if (ready == others) {
        return true;
    }
    reset_other_cpus();
    wait_until_ready(others, 10000000);
    start_other_cpus();
    if (wait_until_ready(others, 1000000000)) {
        return true;
    }
    /* Lost, or just slow; one that has started does not heed it. */
    start_other_cpus();
    return wait_until_ready(others, 100000000000);
}

const char *arg_cpus(unsigned *cpus)
{
    unsigned there;
    uint64_t wanted;

    fw_cfg_select(FW_CFG_CPUS);
    there = fw_cfg_read();
    there |= fw_cfg_read() << 8;
    there = there < MAX_CPUS ? there : MAX_CPUS;
    wanted = arg("cpus", there);
    if (!wanted || wanted > there) {
        say("# there are %u processors (%u at most)\n",
            (uint64_t)there, (uint64_t)MAX_CPUS);
        return "cpus= is more than there are";
    }
    if (wanted > 1 && !start_cpus(there - 1)) {
        say("# %u of %u are ready\n",
            (uint64_t)__atomic_load_n(&ready, __ATOMIC_RELAXED),
            (uint64_t)there - 1);
        return "the other processors do not start";
    }
    *cpus = wanted;
    return NULL;
}

void start_others(unsigned n, void (*function)(unsigned cpu, void *opaque),
                  void *opaque)
{
    job.function = function;
    job.opaque = opaque;
    job.cpus = n;
    job.done = 0;
    __atomic_fetch_add(&job.number, 1, __ATOMIC_RELEASE);
    wake_other_cpus();
}

void wait_for_others(void)
{
    while (__atomic_load_n(&job.done, __ATOMIC_ACQUIRE) != ready) {
        pause();
    }
}

void on_all_cpus(unsigned n, void (*function)(unsigned cpu, void *opaque),
                 void *opaque)
{
    if (n > 1) {
        start_others(n, function, opaque);
    }
    function(0, opaque);
    if (n > 1) {
        wait_for_others();
    }
}

/*
 * The payload: start, list of cases, report.
 *
 * The cases come from the command line (-append) or, when that is empty, from
 * the fw_cfg file opt/gmem/cases: words, each "NAME[,KEY=NUMBER]...", that run
 * one after another. The report has a line for each: "ok NAME" or
 * "not ok NAME: WHY", what a case itself says, and "done N failed" at the end.
 * Then the machine ends.
 */
#include "payload.h"

static char case_list[4096];

/* The fw_cfg file opt/gmem/cases. */
static void read_fw_cfg(void)
{
    uint32_t count = 0;

    fw_cfg_select(FW_CFG_DIRECTORY);    /* its numbers are big-endian */
    for (int i = 0; i < 4; i++) {
        count = count << 8 | fw_cfg_read();
    }
    while (count--) {
        struct {
            uint8_t size[4], key[2], reserved[2];
            char name[56];
        } file;
        const char *rest;

        for (size_t i = 0; i < sizeof(file); i++) {
            ((uint8_t *)&file)[i] = fw_cfg_read();
        }
        rest = skip_prefix(file.name, "opt/gmem/cases");
        if (rest && !*rest) {
            size_t size = file.size[2] << 8 | file.size[3];

            if (file.size[0] || file.size[1] || size >= sizeof(case_list)) {
                say("not ok start: opt/gmem/cases is too long\n");
                finish(1);
            }
            fw_cfg_select(file.key[0] << 8 | file.key[1]);
            for (size_t i = 0; i < size; i++) {
                case_list[i] = fw_cfg_read();
            }
            return;
        }
    }
}

/* Runs the case that the word names. */
static const char *run_case(const char *word)
{
    const char *name = begin_case(word);
    const struct test_case *const *c;

    for (c = cases_start; c < cases_end; c++) {
        const char *rest = skip_prefix(name, (*c)->name);
        if (rest && !*rest) {
            return (*c)->run();
        }
    }
    for (c = cases_start; c < cases_end; c++) {
        say("# %s: %s\n", (*c)->name, (*c)->help);
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
            say("not ok %s: %s\n", case_name(), why);
            failed++;
        } else {
            say("ok %s\n", case_name());
        }
        while (*s && !is_space(*s)) {
            s++;
        }
    }
    return failed;
}

void payload_main(const struct start_info *info)
{
    const char *s = info ? (const char *)info->command_line : NULL;

    set_up_traps();
    /* Out of the way of what a case may write. */
    for (size_t i = 0; s && s[i] && i < sizeof(case_list) - 1; i++) {
        case_list[i] = s[i];
    }
    if (!case_list[0]) {
        read_fw_cfg();
    }
    finish(run_cases(case_list));
}

/* SPDX-License-Identifier: Apache-2.0 */
/* atom eval tasks MODEL FILE... */
#include "eval_log.h"
#include "eval_measures.h"
#include "eval_scores.h"
#include "execute.h"
#include "files.h"

#include <stdlib.h>
#include <string.h>

/* A file of records with its labels, as named and as read. */
struct task_file {
    const char *name, *labels; /* NULL: none */
    struct atom_task_file file;
    char subject[64];
};

struct task_run {
    const char *dir;
    struct atom_model *model;
    struct atom_task_options opt;
    struct cli_progress bar;
    struct eval_log log;
    bool json, by_subtask, quiet;
    int widest; /* name of the table's first column */
    /* beyond opt, as the command line has it */
    const char *labels, *log_name;
    uint64_t seed;
    bool resume, overwrite;
    struct task_file examples;
};

/* ---- files in ---------------------------------------------------------------------------------------------------- */

/* MMLU's authors call their files SUBJECT_test.csv and so on. */
static void name_subject(struct task_file *f)
{
    static const char *const ends[] = {"_test", "_val", "_dev"};
    const struct eval_task_name name = eval_name_task(f->name);
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        size_t n = strlen(ends[i]), all = (size_t)name.stem_bytes;
        if (all <= n || all - n >= sizeof f->subject || memcmp(name.stem + all - n, ends[i], n) != 0)
            continue;
        snprintf(f->subject, sizeof f->subject, "%.*s", (int)(all - n), name.stem);
        if (f->subject[strspn(f->subject, "abcdefghijklmnopqrstuvwxyz_")] == 0)
            f->file.subject = f->subject;
    }
}

static enum atom_status read_text(const char *name, struct atom_task_text *out, struct atom_error *err)
{
    char *text;
    enum atom_status st = cli_read_file(name, &text, &out->n_bytes, err);
    if (!st) {
        out->name = name;
        out->text = text;
    }
    return st;
}

static enum atom_status read_task(struct task_file *f, struct atom_error *err)
{
    enum atom_status st = read_text(f->name, &f->file.records, err);
    if (!st && f->labels)
        st = read_text(f->labels, &f->file.labels, err);
    name_subject(f);
    return st;
}

static void free_task(struct task_file *f)
{
    free((char *)f->file.records.text);
    free((char *)f->file.labels.text);
    f->file = (struct atom_task_file){0};
}

/* ---- scores out -------------------------------------------------------------------------------------------------- */

/* Seconds go to the line of all items alone. */
static enum atom_status print_score(const struct task_run *run, const struct atom_task_score *s, double seconds,
                                    struct atom_error *err)
{
    if (!run->json) {
        eval_print_row(&run->log.task, run->widest, s);
        return ATOM_OK;
    }
    json_t *o = eval_score_json(&run->log.task, s);
    if (o && !s->subtask)
        json_object_set_new(o, "seconds", json_real(seconds));
    if (o && run->opt.cut)
        json_object_set_new(o, "cut", json_integer(s->cut));
    if (o) {
        eval_put_line(stdout, o, 12); /* cli_finish sees what is lost */
        return ATOM_OK;
    }
    err->code = ATOM_ERR_FORMAT;
    snprintf(err->message, sizeof err->message, "%.900s: no JSON can name it: it is not UTF-8", run->log.task.file);
    return err->code;
}

static enum atom_status print_result(const struct task_run *run, const struct atom_task_result *r, double seconds,
                                     struct atom_error *err)
{
    enum atom_status st = print_score(run, &r->all, seconds, err);
    for (int i = 0; run->by_subtask && i < r->n_subtasks && !st; i++)
        st = print_score(run, &r->subtasks[i], seconds, err);
    fflush(stdout);
    if (r->all.cut)
        fprintf(stderr, "atom: %s: %lld of %lld items lost their first tokens\n", run->log.task.file,
                (long long)r->all.cut, (long long)r->all.n);
    return st;
}

/* ---- one file after the other ------------------------------------------------------------------------------------ */

/* After each batch: what was scored is logged before it is told. */
static bool show(void *user, const struct atom_progress *p)
{
    struct task_run *run = user;
    return eval_log_flush(&run->log) && cli_progress_show(&run->bar, p);
}

static enum atom_status begin_log(struct task_run *run, const struct task_file *f, struct atom_error *err)
{
    const struct eval_task_name name = eval_name_task(f->name);
    char *signature = NULL;
    enum atom_status st = ATOM_OK;
    if (run->log.name)
        st = atom_task_signature(run->dir, &f->file, &run->opt, &signature, err);
    st = st ? st : eval_log_begin(&run->log, &name, signature, err);
    free(signature);
    return st;
}

static enum atom_status score(struct task_run *run, const struct task_file *f, struct atom_error *err)
{
    struct atom_task_result r = {0};
    double started = cli_seconds();
    run->bar.started = 0;
    enum atom_status st = begin_log(run, f, err);
    st = st ? st : atom_eval_task(run->model, &f->file, &run->opt, &r, err);
    cli_progress_end(&run->bar);
    if (st == ATOM_ERR_CANCELLED && !cli_stopped()) /* the log's doing, which says why */
        st = ATOM_OK;
    else
        st = st ? st : print_result(run, &r, cli_seconds() - started, err);
    st = st ? st : eval_log_end(&run->log, &r.all, err);
    atom_task_result_free(&r);
    return st;
}

static enum atom_status one_file(struct task_run *run, struct task_file *f, struct atom_error *err)
{
    enum atom_status st = read_task(f, err);
    st = st ? st : score(run, f, err);
    free_task(f);
    return st;
}

static enum atom_status all_files(struct task_run *run, const char **files, int n, struct atom_error *err)
{
    enum atom_status st = ATOM_OK;
    if (!run->json)
        eval_print_head(run->widest);
    for (int i = 0; i < n && !st; i++) {
        struct task_file f = {.name = files[i], .labels = run->labels};
        st = one_file(run, &f, err);
    }
    return st;
}

static void settle(struct task_run *run, const char *dir)
{
    run->dir = dir;
    run->opt.seed = (uint32_t)run->seed;
    run->widest = run->by_subtask ? 50 : 20;
    run->opt.progress = show;
    run->opt.user = run;
    if (run->log_name) {
        run->opt.on_item = eval_log_item;
        run->opt.recall = run->resume ? eval_log_recall : NULL;
        run->opt.item_user = run->opt.recall_user = &run->log;
    }
}

static enum atom_status open_inputs(struct task_run *run, const char *const *files, int n, struct atom_error *err)
{
    const char *const others[] = {run->labels, run->examples.name, run->examples.labels};
    enum atom_status st = cli_check_files(files, n, err);
    st = st ? st : cli_check_files(others, 3, err);
    st = st ? st : atom_model_open(run->dir, &run->model, err);
    if (!st && run->examples.name) {
        st = read_task(&run->examples, err);
        run->opt.examples = &run->examples.file;
    }
    return st;
}

static enum atom_status execute(void *user, const char **args, int n, struct atom_error *err)
{
    struct task_run *run = user;
    struct atom_error at_close = {0};
    enum eval_log_mode mode = run->resume ? EVAL_LOG_RESUME : run->overwrite ? EVAL_LOG_OVERWRITE : EVAL_LOG_NEW;
    settle(run, args[0]);
    enum atom_status st = open_inputs(run, args + 1, n - 1, err);
    st = st ? st : eval_log_open(&run->log, run->log_name, mode, err);
    st = st ? st : all_files(run, args + 1, n - 1, err);
    if (eval_log_close(&run->log, &at_close) && !st) {
        *err = at_close;
        st = err->code;
    }
    free_task(&run->examples);
    atom_model_close(run->model);
    return st;
}

static int check(const struct cli_command *cmd, void *user, const char **args, int n)
{
    const struct task_run *r = user;
    if ((r->resume || r->overwrite) && !r->log_name)
        return cli_usage(cmd, r->resume ? "--resume goes on with a --log FILE" : "--overwrite is for a --log FILE");
    if (r->resume && r->overwrite)
        return cli_usage(cmd, "--resume goes on with a log, --overwrite begins it anew: one of them");
    const char *const others[] = {r->labels, r->examples.name, r->examples.labels};
    for (int i = 1; i < n + 3; i++)
        if (cli_same_file(r->log_name, i < n ? args[i] : others[i - n]))
            return cli_usage(cmd, "--log %s would overwrite what is read", r->log_name);
    if (r->labels && n > 2)
        return cli_usage(cmd, "--labels are those of one file");
    if (r->examples.name && !r->opt.n_examples)
        return cli_usage(cmd, "--examples are for --few-shot N");
    if (r->seed > UINT32_MAX)
        return cli_usage(cmd, "--seed takes a whole number from 0 to %u", UINT32_MAX);
    if (r->examples.labels && !r->examples.name)
        return cli_usage(cmd, "--example-labels are those of --examples FILE");
    return CLI_GO_ON;
}

static struct task_run run = {.seed = 1234};

static const struct cli_option options[] = {
    {"format", 0, CLI_WORD, ATOM_TASK_FORMATS, &run.opt.format, 0, 0, "what the files are, where not items as above",
     NULL},
    {"labels", 0, CLI_TEXT, "FILE", &run.labels, 0, 0, "a label a line (piqa, winogrande)", NULL},
    {"few-shot", 'k', CLI_INT, "N", &run.opt.n_examples, 0, 255, "N solved examples in front of each item", NULL},
    {"examples", 0, CLI_TEXT, "FILE", &run.examples.name, 0, 0,
     "they are drawn from here, not from the file's other items", NULL},
    {"example-labels", 0, CLI_TEXT, "FILE", &run.examples.labels, 0, 0, "the labels of these", NULL},
    {"seed", 0, CLI_SIZE, "N", &run.seed, 0, 0, "chooses the examples (1234)", NULL},
    {"limit", 0, CLI_INT, "N", &run.opt.limit, 0, 1 << 30, "score the first N items of a file (0: all)", NULL},
    {"cut", 0, CLI_FLAG, NULL, &run.opt.cut, 0, 0, "items longer than the model's positions lose their first tokens",
     NULL},
    {"by-subtask", 0, CLI_FLAG, NULL, &run.by_subtask, 0, 0, "a line for each \"task\" that items name too", NULL},
    {"log", 0, CLI_TEXT, "FILE", &run.log_name, 0, 0, "one JSON line an item: log-likelihoods and what they chose",
     NULL},
    {"resume", 0, CLI_FLAG, NULL, &run.resume, 0, 0, "go on where the log of a stopped run ends", NULL},
    {"overwrite", 0, CLI_FLAG, NULL, &run.overwrite, 0, 0, "begin a log that is there anew", NULL},
    {"json", 0, CLI_FLAG, NULL, &run.json, 0, 0, "one JSON line a file", NULL},
    {"quiet", 'q', CLI_FLAG, NULL, &run.quiet, 0, 0, "no progress", NULL},
    {NULL, 0, CLI_FLAG, NULL, NULL, 0, 0, NULL, NULL}};

static const struct cli_command cmd = {
    "eval tasks [options] MODEL FILE...",
    "Multiple choice, scored as lm-evaluation-harness does. Each file holds JSON lines of one of these forms:\n"
    "  {\"context\": TEXT, \"choices\": [TEXT, ...], \"gold\": INDEX}\n"
    "  {\"contexts\": [TEXT, ...], \"continuation\": TEXT, \"gold\": INDEX}\n"
    "  {\"context\": TEXT, \"continuation\": TEXT}\n"
    "or the records of a data set as it is published, whose --format says how they become items.",
    options,
    2,
    -1,
    "examples:\n"
    "  atom eval tasks MODEL --json piqa.jsonl winogrande.jsonl\n"
    "  atom eval tasks MODEL --format piqa valid.jsonl --labels valid-labels.lst\n"
    "  atom eval tasks MODEL --format mmlu -k 5 --examples dev.jsonl test.jsonl --by-subtask\n"
    "  atom eval tasks MODEL hellaswag.jsonl --log items.log --resume"};

int eval_tasks(int argc, char **argv)
{
    const struct cli_work work = {&cmd, check, execute, &run, &run.bar, &run.quiet};
    return cli_execute(&work, argc, argv);
}

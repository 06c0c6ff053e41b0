/* SPDX-License-Identifier: Apache-2.0 */
#include "progress.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t interrupted;

static void on_interrupt(int sig)
{
    interrupted = 1;
    signal(sig, SIG_DFL);
}

void cli_catch_interrupts(void)
{
    signal(SIGINT, on_interrupt);
    signal(SIGTERM, on_interrupt);
    if (signal(SIGHUP, on_interrupt) == SIG_IGN) /* nohup */
        signal(SIGHUP, SIG_IGN);
}

bool cli_interrupted(void) { return interrupted != 0; }

bool cli_stopped(void) { return interrupted != 0 || ferror(stdout); }

double cli_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

void cli_progress_init(struct cli_progress *p, bool quiet)
{
    *p = (struct cli_progress){.quiet = quiet, .terminal = isatty(STDERR_FILENO) == 1};
}

static void print_time(char *buf, size_t n, double s)
{
    if (s < 60)
        snprintf(buf, n, "%.0f s", s);
    else if (s < 3600)
        snprintf(buf, n, "%d:%02d min", (int)s / 60, (int)s % 60);
    else
        snprintf(buf, n, "%d:%02d h", (int)(s / 3600), (int)s / 60 % 60);
}

static void print_bar(const struct atom_progress *p, double share)
{
    enum { WIDTH = 24 };
    char bar[WIDTH + 1];
    int full = (int)(share * WIDTH);
    memset(bar, '.', WIDTH);
    memset(bar, '#', (size_t)(full < 0 ? 0 : full > WIDTH ? WIDTH : full));
    bar[WIDTH] = 0;
    fprintf(stderr, "\r\033[K%s [%s] ", p->phase, bar);
}

bool cli_progress_show(void *user, const struct atom_progress *p)
{
    struct cli_progress *c = user;
    double now = cli_seconds(), share = p->total > 0 ? p->done / p->total : 0;
    char left[32];
    if (c->started <= 0)
        c->started = c->last = now;
    if (c->quiet)
        return !cli_stopped();
    if (p->note) {
        fprintf(stderr, "%s%s\n", c->terminal && c->shown ? "\r\033[K" : "", p->note);
        c->shown = false;
    }
    bool due = now - c->last > (c->terminal ? 0.1 : 10) || p->done >= p->total;
    if (!due || p->done <= 0)
        return !cli_stopped();
    double rate = p->done / (now - c->started + 1e-9);
    print_time(left, sizeof left, p->done > 0 ? (p->total - p->done) / rate : 0);
    if (c->terminal)
        print_bar(p, share);
    else
        fprintf(stderr, "%s: ", p->phase);
    fprintf(stderr, "%.0f of %.0f %ss, %.3g a second, %s left%s", p->done, p->total, p->unit, rate, left,
            c->terminal ? "" : "\n");
    c->last = now;
    c->shown = c->terminal;
    return !cli_stopped();
}

void cli_progress_end(struct cli_progress *p)
{
    if (p->shown)
        fputs("\r\033[K", stderr);
    p->shown = false;
}

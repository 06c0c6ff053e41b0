/* SPDX-License-Identifier: Apache-2.0 */
/* Read-only mappings that outlive a file cut short: the fault handler puts a zero page in the hole. */
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_MAPS = 1024 };

/* Read by the signal handler, so plain atomics guarded by a sequence number that is odd while the range changes. A
 * range that is changing cannot be the one that faults: a mapping is registered before it is handed out and forgotten
 * before it is unmapped. */
struct slot {
    atomic_uint sequence;
    atomic_uintptr_t begin, end;
    atomic_bool lost; /* a zero page was put into it */
    int fd;           /* kept open to see the file's size; guarded by `lock`'s owner of the slot */
    bool taken;       /* guarded by lock */
};

static struct slot slots[MAX_MAPS];
static atomic_int n_slots; /* slots ever used: the handler looks no further */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct sigaction previous;
static uintptr_t page_bytes;

static struct slot *slot_of(uintptr_t address)
{
    int n = atomic_load(&n_slots);
    for (int i = 0; i < n; i++) {
        struct slot *s = &slots[i];
        unsigned before = atomic_load(&s->sequence);
        uintptr_t begin = atomic_load(&s->begin), end = atomic_load(&s->end);
        if (!(before & 1) && before == atomic_load(&s->sequence) && address >= begin && address < end)
            return s;
    }
    return NULL;
}

static bool fill_hole(uintptr_t address)
{
    struct slot *s = slot_of(address);
    if (!s)
        return false;
    void *page = (void *)(address & ~(page_bytes - 1));
    if (mmap(page, page_bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
        return false;
    atomic_store(&s->lost, true);
    return true;
}

/* A fault is met again when the handler returns, now with the default action; a signal that was sent is not, so it is
 * raised anew. */
static void act_by_default(int number, bool sent)
{
    signal(number, SIG_DFL);
    if (sent)
        raise(number);
}

/* A handler that was installed after ours and passes faults on to us would get them back from us for ever. */
static _Thread_local bool passing __attribute__((tls_model("initial-exec")));

static void pass_on(int number, siginfo_t *info, void *context)
{
    bool sent = info->si_code <= 0, handled = previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN;
    if (sent && previous.sa_handler == SIG_IGN)
        return;
    if (!handled || passing) {
        act_by_default(number, sent);
        return;
    }
    passing = true;
    if (previous.sa_flags & SA_SIGINFO)
        previous.sa_sigaction(number, info, context);
    else
        previous.sa_handler(number);
    passing = false;
}

static void on_sigbus(int number, siginfo_t *info, void *context)
{
    int saved = errno;
    if (info->si_code != BUS_ADRERR || !fill_hole((uintptr_t)info->si_addr))
        pass_on(number, info, context);
    errno = saved;
}

/* With every map, because the program may have put its own in the place of ours since the last. */
static enum atom_status install_handler(struct atom_error *err)
{
    struct sigaction now, action = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigemptyset(&action.sa_mask);
    if (!page_bytes)
        page_bytes = (uintptr_t)sysconf(_SC_PAGESIZE);
    if (sigaction(SIGBUS, NULL, &now))
        return atom_fail_errno(err, errno, "cannot look at the handler for SIGBUS");
    if ((now.sa_flags & SA_SIGINFO) && now.sa_sigaction == on_sigbus)
        return ATOM_OK;
    previous = now; /* known before ours can run */
    if (sigaction(SIGBUS, &action, NULL))
        return atom_fail_errno(err, errno, "cannot install a handler for SIGBUS");
    return ATOM_OK;
}

static void set_range(struct slot *s, uintptr_t begin, uintptr_t end)
{
    atomic_fetch_add(&s->sequence, 1);
    atomic_store(&s->begin, begin);
    atomic_store(&s->end, end);
    atomic_fetch_add(&s->sequence, 1);
}

static enum atom_status take_slot(int *slot, struct atom_error *err)
{
    enum atom_status status = ATOM_ERR_CAPACITY;
    pthread_mutex_lock(&lock);
    if (install_handler(err)) {
        status = ATOM_ERR_IO;
        goto done;
    }
    for (int i = 0; i < MAX_MAPS && status; i++) {
        if (slots[i].taken)
            continue;
        slots[i].taken = true;
        atomic_store(&slots[i].lost, false);
        if (i >= atomic_load(&n_slots))
            atomic_store(&n_slots, i + 1);
        *slot = i;
        status = ATOM_OK;
    }
    if (status)
        atom_fail(err, status, "more than %d files would be mapped at once", MAX_MAPS);
done:
    pthread_mutex_unlock(&lock);
    return status;
}

static void drop_slot(int slot)
{
    pthread_mutex_lock(&lock);
    slots[slot].taken = false;
    pthread_mutex_unlock(&lock);
}

enum atom_status atom_map_open(const char *path, struct atom_map *out, struct atom_error *err)
{
    enum atom_status status;
    struct stat st;
    struct atom_map map = {.slot = -1};
    /* Not blocking, so that a FIFO in a file's place is refused instead of waited for. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return atom_fail_errno(err, errno, "cannot open %s", path);
    if (fstat(fd, &st)) {
        status = atom_fail_errno(err, errno, "cannot read the size of %s", path);
        goto fail;
    }
    if (!S_ISREG(st.st_mode)) {
        status = atom_fail(err, ATOM_ERR_IO, "%s is not a regular file", path);
        goto fail;
    }
    if (st.st_size == 0) {
        close(fd);
        *out = map;
        return ATOM_OK;
    }
    map.n_bytes = (size_t)st.st_size;
    status = take_slot(&map.slot, err);
    if (status)
        goto fail;
    void *data = mmap(NULL, map.n_bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED) {
        status = atom_fail_errno(err, errno, "cannot map %s", path);
        drop_slot(map.slot);
        goto fail;
    }
    map.data = data;
    slots[map.slot].fd = fd;
    /* The last page is mapped whole, and faults as a whole. */
    set_range(&slots[map.slot], (uintptr_t)data, ((uintptr_t)data + map.n_bytes + page_bytes - 1) & ~(page_bytes - 1));
    *out = map;
    return ATOM_OK;
fail:
    close(fd);
    return status;
}

void atom_map_close(struct atom_map *map)
{
    if (!map || !map->data)
        return;
    struct slot *s = &slots[map->slot];
    set_range(s, 0, 0);
    munmap((void *)(uintptr_t)map->data, map->n_bytes);
    close(s->fd);
    drop_slot(map->slot);
    *map = (struct atom_map){.slot = -1};
}

void atom_map_release(const struct atom_map *map)
{
    if (map->data)
        madvise((void *)(uintptr_t)map->data, map->n_bytes, MADV_DONTNEED);
}

bool atom_map_is_whole(const struct atom_map *map)
{
    if (!map->data)
        return true;
    const struct slot *s = &slots[map->slot];
    struct stat st;
    /* A cut inside the last page raises no fault: its tail just turns to zeros. */
    return !atomic_load(&s->lost) && fstat(s->fd, &st) == 0 && (size_t)st.st_size >= map->n_bytes;
}

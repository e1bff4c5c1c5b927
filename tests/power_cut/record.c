/*
 * Records what a process makes of its disk and says on its sockets, in the order in which it does so.
 *
 * Loaded by LD_PRELOAD into the real server; power_cut.rs compiles it, reads the record and says what a power cut at
 * each point of it would have left. A record is a header and `length` bytes; it is appended by one write, so that no
 * lock is needed between threads or processes. What changes a file is recorded before it is done and a sync when it
 * has begun and when it has ended, so that the record never claims more than the disk has been told; what is sent is
 * recorded before it is sent.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

struct header {
    uint64_t kind, inode, offset, length;
};

enum { OPEN = 'o', WRITE = 'w', TRUNCATE = 't', SYNC_BEGUN = 'b', SYNCED = 's', UNLINK = 'u', RENAME = 'r', SENT = 'n' };

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int record_file = -1;

__attribute__((constructor)) static void start(void) {
    const char *path = getenv("POWER_CUT_RECORD");
    if (path) record_file = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
}

/* A record that is not whole is worse than none: the reader finds no end, and the test fails. */
static void record(uint64_t kind, uint64_t inode, uint64_t offset, const struct iovec *parts, int count) {
    struct header header = {kind, inode, offset, 0};
    struct iovec all[17] = {{&header, sizeof header}};
    if (record_file < 0) return;
    if (count > 16) abort();
    for (int i = 0; i < count; i++) {
        all[i + 1] = parts[i];
        header.length += parts[i].iov_len;
    }
    if (syscall(SYS_writev, record_file, all, count + 1) != (long)(sizeof header + header.length)) abort();
}

static void record_text(uint64_t kind, uint64_t inode, uint64_t offset, const char *text) {
    struct iovec part = {(void *)text, strlen(text)};
    record(kind, inode, offset, &part, 1);
}

/* A socket, a file or a directory? Anything else does not matter. */
static mode_t kind_of(int fd, uint64_t *inode) {
    struct stat about;
    if (fd == record_file || fstat(fd, &about)) return 0;
    *inode = about.st_ino;
    return about.st_mode & S_IFMT;
}

static void written(int fd, int64_t offset, const struct iovec *parts, int count) {
    uint64_t inode;
    switch (kind_of(fd, &inode)) {
    case S_IFREG:
        record(WRITE, inode, (uint64_t)(offset < 0 ? lseek(fd, 0, SEEK_CUR) : offset), parts, count);
        break;
    case S_IFSOCK:
        record(SENT, inode, 0, parts, count);
    }
}

static int opened(int fd, int was_there, const char *path) {
    uint64_t inode;
    if (fd >= 0 && kind_of(fd, &inode) == S_IFREG) record_text(OPEN, inode, (uint64_t)!was_there, path);
    return fd;
}

#define OPENS(name)                                                     \
    int name(const char *path, int flags, ...) {                        \
        va_list more;                                                   \
        va_start(more, flags);                                          \
        mode_t mode = (flags & O_CREAT) ? va_arg(more, mode_t) : 0;     \
        va_end(more);                                                   \
        int was_there = access(path, F_OK) == 0;                        \
        return opened(REAL(name)(path, flags, mode), was_there, path);  \
    }
OPENS(open)
OPENS(open64)

#define WRITES_AT(name, offset_type)                                        \
    ssize_t name(int fd, const void *bytes, size_t size, offset_type at) {  \
        struct iovec part = {(void *)bytes, size};                          \
        written(fd, at, &part, 1);                                          \
        return REAL(name)(fd, bytes, size, at);                             \
    }
WRITES_AT(pwrite, off_t)
WRITES_AT(pwrite64, off64_t)

ssize_t write(int fd, const void *bytes, size_t size) {
    struct iovec part = {(void *)bytes, size};
    written(fd, -1, &part, 1);
    return REAL(write)(fd, bytes, size);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    written(fd, -1, parts, count);
    return REAL(writev)(fd, parts, count);
}

ssize_t send(int fd, const void *bytes, size_t size, int flags) {
    struct iovec part = {(void *)bytes, size};
    written(fd, -1, &part, 1);
    return REAL(send)(fd, bytes, size, flags);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
    written(fd, -1, message->msg_iov, (int)message->msg_iovlen);
    return REAL(sendmsg)(fd, message, flags);
}

#define TRUNCATES(name, offset_type)                                          \
    int name(int fd, offset_type size) {                                      \
        uint64_t inode;                                                       \
        if (kind_of(fd, &inode) == S_IFREG) record(TRUNCATE, inode, (uint64_t)size, NULL, 0); \
        return REAL(name)(fd, size);                                          \
    }
TRUNCATES(ftruncate, off_t)
TRUNCATES(ftruncate64, off64_t)

#define SYNCS(name)                                              \
    int name(int fd) {                                           \
        uint64_t inode;                                          \
        mode_t kind = kind_of(fd, &inode);                       \
        if (kind) record(SYNC_BEGUN, inode, kind == S_IFDIR, NULL, 0); \
        int result = REAL(name)(fd);                             \
        if (kind && result == 0) record(SYNCED, inode, kind == S_IFDIR, NULL, 0); \
        return result;                                           \
    }
SYNCS(fsync)
SYNCS(fdatasync)

int unlink(const char *path) {
    record_text(UNLINK, 0, 0, path);
    return REAL(unlink)(path);
}

int rename(const char *from, const char *to) {
    struct iovec both[2] = {{(void *)from, strlen(from) + 1}, {(void *)to, strlen(to)}};
    record(RENAME, 0, 0, both, 2);
    return REAL(rename)(from, to);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "sock.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

void p2p_msg_init(struct p2p_msg *m, enum p2p_msg_type type, uint32_t seq)
{
    memset(m, 0, sizeof *m);
    m->magic = P2P_CONTROL_MAGIC;
    m->type = type;
    m->seq = seq;
}

int p2p_msg_send(int sock, const struct p2p_msg *m, int fd)
{
    struct iovec iov = { .iov_base = (void *)m, .iov_len = sizeof *m };
    union {
        struct cmsghdr align;
        char buf[CMSG_SPACE(sizeof(int))];
    } control = { 0 };
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

    if (fd >= 0) {
        msg.msg_control = control.buf;
        msg.msg_controllen = sizeof control.buf;
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof fd);
        memcpy(CMSG_DATA(c), &fd, sizeof fd);
    }
    ssize_t n;
    do {
        n = sendmsg(sock, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : 0;
}

static void *close_main(void *fd)
{
    close((int)(intptr_t)fd);
    return NULL;
}

void p2p_close_foreign(int fd)
{
    pthread_attr_t attr;
    pthread_t thread;

    if (fcntl(fd, F_GET_SEALS) >= 0) {
        close(fd);
    } else if (!pthread_attr_init(&attr)) {
        (void)pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
        (void)pthread_create(&thread, &attr, close_main, (void *)(intptr_t)fd); /* If it cannot be made, the file stays.
                                                                                 * */
        pthread_attr_destroy(&attr);
    }
}

int p2p_msg_recv(int sock, struct p2p_msg *m, int *fdp)
{
    struct iovec iov = { .iov_base = m, .iov_len = sizeof *m };
    union {
        struct cmsghdr align;
        char buf[CMSG_SPACE(sizeof(int))];
    } control;
    /* Room for exactly one descriptor: what is more, the kernel keeps from us, and says so (MSG_CTRUNC). */
    struct msghdr msg = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.buf, .msg_controllen = CMSG_LEN(sizeof(int)),
    };
    int fd = -1;

    *fdp = -1;
    ssize_t n;
    do {
        n = recvmsg(sock, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
        return -errno;
    }
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof fd)) {
            memcpy(&fd, CMSG_DATA(c), sizeof fd);
        }
    }
    if (n == 0) {
        if (fd >= 0) {
            p2p_close_foreign(fd);
        }
        return -ECONNRESET;
    }
    /* (MSG_CTRUNC and none has come: we are out of descriptors.  Who needs it, misses it.) */
    if (n != sizeof *m || msg.msg_flags & MSG_TRUNC || (msg.msg_flags & MSG_CTRUNC && fd >= 0)
        || m->magic != P2P_CONTROL_MAGIC) {
        if (fd >= 0) {
            p2p_close_foreign(fd);
        }
        return -EPROTO;
    }
    m->name[sizeof m->name - 1] = '\0';
    m->text[sizeof m->text - 1] = '\0';
    *fdp = fd;
    return 0;
}

int p2p_sock_connect(const char *path)
{
    struct sockaddr_un sun = { .sun_family = AF_UNIX };

    if (strlen(path) >= sizeof sun.sun_path) {
        return -ENAMETOOLONG;
    }
    strcpy(sun.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return -errno;
    }
    if (connect(fd, (struct sockaddr *)&sun, sizeof sun) < 0) {
        int error = -errno;
        close(fd);
        return error;
    }
    return fd;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "sock.h"
#include <errno.h>
#include <fcntl.h>
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

int p2p_msg_recv(int sock, struct p2p_msg *m, int *fdp)
{
    struct iovec iov = { .iov_base = m, .iov_len = sizeof *m };
    union {
        struct cmsghdr align;
        char buf[CMSG_SPACE(4 * sizeof(int))];
    } control;
    struct msghdr msg = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.buf, .msg_controllen = sizeof control.buf,
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
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
            size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
            for (size_t i = 0; i < count; i++) {
                int got;
                memcpy(&got, CMSG_DATA(c) + i * sizeof got, sizeof got);
                if (fd < 0) {
                    fd = got;
                } else {
                    close(got); /* One per message is the rule; do not let a peer fill our table. */
                }
            }
        }
    }
    if (n == 0) {
        if (fd >= 0) {
            close(fd);
        }
        return -ECONNRESET;
    }
    if (n != sizeof *m || (msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) || m->magic != P2P_CONTROL_MAGIC) {
        if (fd >= 0) {
            close(fd);
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

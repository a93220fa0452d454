/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>
#include "p2plinkd-region.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "util.h"

char *region_check_fd(int fd, uint64_t size)
{
    const int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
    struct stat st;

    if (fd < 0) {
        return xstrdup("no descriptor came with the region");
    } else if (fstat(fd, &st) < 0) {
        return xasprintf("the region's descriptor is of no use: %s", ovs_strerror(errno));
    } else if (size < P2P_PAGE || size & (size - 1) || (uint64_t)st.st_size != size) {
        return xasprintf("a region of %"PRIu64" bytes was announced and one of %jd came: both must be the same power "
                         "of two", size, (intmax_t)st.st_size);
    } else if ((fcntl(fd, F_GET_SEALS) & seals) != seals || fcntl(fd, F_GET_SEALS) < 0) {
        return xstrdup("the region is not sealed against resizing");
    }
    return NULL;
}

bool region_read_header(int fd, struct p2p_region_header *h)
{
    struct stat st;

    if (fstat(fd, &st) < 0 || pread(fd, h, sizeof *h, 0) != sizeof *h) {
        return false;
    }
    for (size_t i = 0; i < ARRAY_SIZE(h->name); i++) {
        h->name[i][sizeof h->name[i] - 1] = '\0';
    }
    return h->magic == (h->link_id ? P2P_LINK_MAGIC : P2P_PORT_MAGIC) && h->size == (uint64_t)st.st_size;
}

int region_find_fd(pid_t pid, uint64_t generation, uint32_t link_id)
{
    char *dir = xasprintf("/proc/%ld/fd", (long)pid);
    DIR *d = pid > 0 ? opendir(dir) : NULL;
    int found = -1;

    for (struct dirent *e; d && found < 0 && (e = readdir(d));) {
        struct p2p_region_header h;
        char target[64];
        ssize_t n = readlinkat(dirfd(d), e->d_name, target, sizeof target - 1);

        target[MAX(n, 0)] = '\0';
        if (strncmp(target, "/memfd:p2plink", strlen("/memfd:p2plink"))) {
            continue;
        }
        int fd = openat(dirfd(d), e->d_name, O_RDWR | O_CLOEXEC);
        if (fd < 0) {
            continue;
        }
        if (region_read_header(fd, &h) && h.generation == generation && h.link_id == link_id) {
            char *bad = region_check_fd(fd, h.size);
            if (!bad) {
                found = fd;
                break;
            }
            free(bad);
        }
        close(fd);
    }
    if (d) {
        closedir(d);
    }
    free(dir);
    return found;
}

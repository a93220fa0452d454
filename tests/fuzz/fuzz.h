/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What all harnesses share: reading the fuzzer's input, time, turns, and memory that changes while it is read.
 *
 * A harness is LLVMFuzzerTestOneInput(): it sets up one side of the library for real, and plays the other side as the
 * input says.  Input that has been used up reads as zeros.  What must not be, ends the program (CHECK), and so do
 * ASan and UBSan.  One thread, but for the scribbler.
 */
#ifndef FUZZ_H
#define FUZZ_H 1

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <p2plink/common.h>
#include <p2plink/layout.h>
#include "atomics.h"

#define CHECK(COND)                                                                  \
    do {                                                                             \
        if (!(COND)) {                                                               \
            fprintf(stderr, "%s:%d: CHECK failed: %s\n", __FILE__, __LINE__, #COND); \
            abort();                                                                 \
        }                                                                            \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

/*
 * Input.
 */

struct input {
    const uint8_t *data;
    size_t left;
};

uint8_t in8(struct input *in);
uint16_t in16(struct input *in);
uint32_t in32(struct input *in);
uint64_t in64(struct input *in);
static inline uint32_t in_below(struct input *in, uint32_t n) { return (n <= 256 ? in8(in) : in32(in)) % n; }
/* A value for a word that has 'now' in it: anything, or near to that, or one of the numbers that hurt. */
uint64_t in_word(struct input *in, uint64_t now);
/* A descriptor for a ring with 'data_size' bytes and frames of up to 'max_len', good or at the edge of it or bad. */
struct p2p_desc in_desc(struct input *in, uint32_t data_size, uint32_t max_len);
/* A word of a region's header, mostly of those that say something. */
uint64_t *in_header(struct input *in, void *base);

/*
 * Time: CLOCK_MONOTONIC and CLOCK_REALTIME of the library.  Real time and what has been added to it; or, if frozen,
 * only what has been added, and a little at each look, so that whoever waits by the clock gets there.
 */
void fuzz_freeze_time(void);
void fuzz_pass_ms(unsigned ms);
uint64_t fuzz_now_ns(void);

/* Called when the library sleeps or polls, if not NULL (then it returns at once, and the time has passed). */
extern void (*fuzz_turn)(void);
/* Called with each shared mapping that the library has just made: before it looks at it. */
extern void (*fuzz_mapped)(void *base, size_t size);
extern bool fuzz_no_holes; /* Regions are not punched. */
/* If true, no thread is made: fuzz_thread_main and fuzz_thread_arg say what it would have run. */
extern bool fuzz_catch_threads;
extern void *(*fuzz_thread_main)(void *);
extern void *fuzz_thread_arg;

/*
 * The scribbler: a second thread that stores words, each in turn with its former content, until it is told to stop.
 */
struct scribble {
    uint64_t *at;
    uint64_t value;
};
#define SCRIBBLES_MAX 8
void scribble_begin(const struct scribble *list, unsigned n);
void scribble_end(void);

/* Takes no line, but formats it (done by the library): for struct p2p_logger and configurations. */
void fuzz_log(void *aux, enum p2p_log_level level, const char *message);

/* Makes a folder in $FUZZ_TMP, or in /tmp, and writes its path there. */
void fuzz_make_dir(char *path, size_t size);

int fuzz_count_fds(void);
/* Waits until there are 'n' again: strangers' files are closed by threads.  False if it does not come to that. */
bool fuzz_wait_fds(int n);

#endif /* fuzz.h */

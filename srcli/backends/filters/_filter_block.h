/* Code that both compiled modules use: filter a block of pixels, each by a kernel of its own.

   For inclusion after <Python.h>. */

#include <string.h>

enum { SIDE = 5, RADIUS = 2, TAPS = 13, BLOCK = 128 };

#ifdef _MSC_VER
#define restrict __restrict
#endif

/* Compiles a function for several levels of x86-64; the loader picks the highest that the
   processor has. Levels and features are named, not models: those would leave out all others. */
#if !defined(__x86_64__) || !defined(__GLIBC__) || !defined(__GNUC__) || defined(__clang__)
#define FOR_EVERY_PROCESSOR
#elif __GNUC__ >= 12
#define FOR_EVERY_PROCESSOR \
    __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FOR_EVERY_PROCESSOR __attribute__((target_clones("avx512f", "avx2", "default")))
#endif

/* Filter a block of pixels of one plane. `rows` are those of the picture from two above the block
   to two below; they begin two pixels to its left. */
FOR_EVERY_PROCESSOR
static void filter_block(float *restrict out, const float *const rows[SIDE],
                         const float (*restrict taps)[BLOCK], Py_ssize_t count)
{
    const float *a = rows[0], *b = rows[1], *c = rows[2], *d = rows[3], *e = rows[4];
    for (Py_ssize_t x = 0; x < count; x++) {
        float sum = taps[0][x] * (a[x] + e[x + 4]);
        sum += taps[1][x] * (a[x + 1] + e[x + 3]);
        sum += taps[2][x] * (a[x + 2] + e[x + 2]);
        sum += taps[3][x] * (a[x + 3] + e[x + 1]);
        sum += taps[4][x] * (a[x + 4] + e[x]);
        sum += taps[5][x] * (b[x] + d[x + 4]);
        sum += taps[6][x] * (b[x + 1] + d[x + 3]);
        sum += taps[7][x] * (b[x + 2] + d[x + 2]);
        sum += taps[8][x] * (b[x + 3] + d[x + 1]);
        sum += taps[9][x] * (b[x + 4] + d[x]);
        sum += taps[10][x] * (c[x] + c[x + 4]);
        sum += taps[11][x] * (c[x + 1] + c[x + 3]);
        sum += taps[12][x] * c[x + 2];
        out[x] = sum;
    }
}

/* Copy the taps of a block of pixels from an array of any strides, tap by tap. */
FOR_EVERY_PROCESSOR
static void gather_taps(float (*restrict taps)[BLOCK], const char *from, Py_ssize_t tap_stride,
                        Py_ssize_t pixel_stride, Py_ssize_t count)
{
    if (pixel_stride == sizeof(float)) {
        for (int tap = 0; tap < TAPS; tap++)
            memcpy(taps[tap], from + tap * tap_stride, (size_t)count * sizeof(float));
        return;
    }
    for (Py_ssize_t x = 0; x < count; x++)
        for (int tap = 0; tap < TAPS; tap++)
            taps[tap][x] = *(const float *)(from + tap * tap_stride + x * pixel_stride);
}

static Py_ssize_t reflected(Py_ssize_t index, Py_ssize_t count)
{
    if (index < 0)
        return -index;
    return index < count ? index : 2 * count - 2 - index;
}

/* The fused networks of LAPAR and AWSRN on a CPU, their convolutions by Winograd's minimal filtering.

   Features lie in memory pixel by pixel, the channels of a pixel side by side, their number rounded
   up to a multiple of 16 (GROUP) with zeros. Outside a map everything is zero, as in the network's
   padded convolutions. Arrays are given by Python, which also shares the work out to its threads:
   each function does one rectangle of its output and lets other threads run meanwhile.

   Knows Python's limited API only, so one build serves every version from 3.11 on. */

#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>

#include "../filters/_filter_block.h"

#if !defined(__GNUC__)
#error "needs vectors as GCC and Clang have them"
#endif

/* Those that Python needs it reads from the module. */
enum {
    GROUP = 16,         /* channels that are computed together */
    STEP = 4,           /* channels of a source are rounded up to a multiple of this */
    TILE = 4,           /* side of the outputs of one tile */
    TILES = 16,         /* tiles that are done together */
    SLICE = 4,          /* groups of outputs whose gradients are done together */
    MOST_SOURCES = 10
};

/* Raised with every change of what Python calls or must lay out. `native.py` has the number too, on
   purpose: it tells a module that was built from another version. */
enum { LAYOUT = 4 };

#define INLINE static inline __attribute__((always_inline))
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#define ROLLED _Pragma("clang loop unroll(disable)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#define ROLLED _Pragma("GCC unroll 1")
#endif

/* A rectangle of features; beyond it there is nothing. */
typedef struct {
    float *base;                          /* of the pixel (top, left) */
    Py_ssize_t row, pixel;                /* floats from one to the next */
    Py_ssize_t top, left, bottom, right;
} Map;

typedef struct {
    const Map *from;
    int sources;                          /* maps, whose channels follow each other */
    int channels;                         /* of each map that count */
    int groups;                           /* of 16 channels in a pixel, in and out */
    int outputs;                          /* groups of channels that are computed */
    int scale;                            /* outputs fill scale x scale pixels each */
    int rectified;
    const float *weights, *bias;
    const Map *skip;                      /* times `factor` is added, unless NULL */
    float factor;
} Convolution;

/* Where the pixels of a tile lie. */
typedef struct {
    float *base;
    Py_ssize_t row, pixel;
} Place;

INLINE float *pixel(const Map *map, Py_ssize_t y, Py_ssize_t x)
{
    return map->base + (y - map->top) * map->row + (x - map->left) * map->pixel;
}

INLINE Py_ssize_t least(Py_ssize_t a, Py_ssize_t b)
{
    return a < b ? a : b;
}

/* The next multiple of `step`. */
INLINE Py_ssize_t up_to(Py_ssize_t a, Py_ssize_t step)
{
    return (a + step - 1) / step * step;
}

INLINE Py_ssize_t most(Py_ssize_t a, Py_ssize_t b)
{
    return a > b ? a : b;
}

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wpsabi"
#endif

/* The features of a kind are asked of the processor before its kernels are called. On Windows GCC
   keeps vectors on a stack that is not aligned for them. */
#if defined(__x86_64__) && !defined(_WIN32) && !defined(__CYGWIN__)
#define SEVERAL_KINDS
#define LANES 16
#define TOGETHER 8
#define NAMED(name) name##_512
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,avx2,fma"))), apply_to = function)
#include "_network_kernels.h"
#pragma clang attribute pop
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,prefer-vector-width=512")
#include "_network_kernels.h"
#pragma GCC pop_options
#endif
#undef LANES
#undef TOGETHER
#undef NAMED

#define LANES 8
#define TOGETHER 4
#define NAMED(name) name##_256
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#include "_network_kernels.h"
#pragma clang attribute pop
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#include "_network_kernels.h"
#pragma GCC pop_options
#endif
#undef LANES
#undef TOGETHER
#undef NAMED
#endif

#define LANES 4
#ifdef __aarch64__
#define TOGETHER 4
#else
#define TOGETHER 2
#endif
#define NAMED(name) name##_128
#include "_network_kernels.h"

typedef void Convolve(const Convolution *, const Map *, float *);
typedef void Gradient(const Map *, const Map *, int, int, float *, float *);
typedef struct {
    Convolve *convolve_3, *convolve_5;
    Gradient *gradient_3, *gradient_5;
    int bits;
} Kernels;

#define KERNELS(bits) \
    {convolve_3_##bits, convolve_5_##bits, gradient_3_##bits, gradient_5_##bits, bits}
#ifdef SEVERAL_KINDS
static const Kernels kernels_512 = KERNELS(512), kernels_256 = KERNELS(256);
#endif
static const Kernels kernels_128 = KERNELS(128);
static const Kernels *kernels = &kernels_128;

/* Those of the widest vectors that the processor has, or of so many bits; NULL if it has none. */
static const Kernels *kernels_of(int bits)
{
#ifdef SEVERAL_KINDS
    __builtin_cpu_init();
    if ((bits == 0 || bits == 512) && __builtin_cpu_supports("avx512f") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("fma"))
        return &kernels_512;
    if ((bits == 0 || bits == 256) && __builtin_cpu_supports("avx2") &&
        __builtin_cpu_supports("fma"))
        return &kernels_256;
#endif
    return bits == 0 || bits == 128 ? &kernels_128 : NULL;
}

/* Memory for intermediate results, handed out piece by piece. */
typedef struct {
    float *free;
    Py_ssize_t left;
    int failed;
} Scratch;

static float *take(Scratch *scratch, Py_ssize_t count)
{
    count = up_to(count, GROUP);
    if (count > scratch->left) {
        scratch->failed = 1;
        return NULL;
    }
    float *taken = scratch->free;
    scratch->free += count;
    scratch->left -= count;
    return taken;
}

static int take_map(Scratch *scratch, Map *map, int groups)
{
    map->pixel = (Py_ssize_t)groups * GROUP;
    map->row = (map->right - map->left) * map->pixel;
    map->base = take(scratch, (map->bottom - map->top) * map->row);
    return map->base != NULL;
}

/* Points at which a kernel and a tile are evaluated. */
static Py_ssize_t points_of(int side)
{
    return (Py_ssize_t)(side + TILE - 1) * (side + TILE - 1);
}

/* Floats that a convolution takes for the tiles it has in work. `channels` are those of all its
   sources, each rounded up to groups. */
static Py_ssize_t convolution_room(int side, Py_ssize_t channels)
{
    return points_of(side) * (TILES * (up_to(channels, GROUP) + GROUP) + 2 * GROUP);
}

/* The same for the gradient of a convolution's weights. */
static Py_ssize_t gradient_room(int side, Py_ssize_t channels)
{
    return points_of(side) * (TILES * (up_to(channels, GROUP) + SLICE * GROUP) + 2 * GROUP);
}

/* `out` by Winograd's filtering with kernels of 3 x 3 or 5 x 5. */
static void convolve(int side, const Convolution *to_do, const Map *out, Scratch *scratch)
{
    Scratch before = *scratch;
    Py_ssize_t channels = to_do->sources * up_to(to_do->channels, GROUP);
    float *room = take(scratch, convolution_room(side, channels));
    if (room == NULL)
        return;
    (side == 3 ? kernels->convolve_3 : kernels->convolve_5)(to_do, out, room);
    *scratch = before;
}

/* The part of a map that lies in a rectangle. */
static Map part_of(Map map, Py_ssize_t top, Py_ssize_t left, Py_ssize_t bottom, Py_ssize_t right)
{
    map.base = pixel(&map, top, left);
    map.top = top;
    map.left = left;
    map.bottom = bottom;
    map.right = right;
    return map;
}

/* A map of its own for a rectangle that is `reach` larger than another, as far as there is any. */
static int take_around(Scratch *scratch, Map *made, const Map *inner, Py_ssize_t reach,
                       const Map *whole, int groups)
{
    made->top = most(whole->top, inner->top - reach);
    made->left = most(whole->left, inner->left - reach);
    made->bottom = least(whole->bottom, inner->bottom + reach);
    made->right = least(whole->right, inner->right + reach);
    return take_map(scratch, made, groups);
}

/* The largest multiple of `step` that is no more; also of negative numbers. */
INLINE Py_ssize_t down_to(Py_ssize_t a, Py_ssize_t step)
{
    return a - ((a % step + step) % step);
}

/* A map of its own for what a convolution makes around a rectangle. Tiles begin at its corner, so
   above the picture and to the left of it the map goes on: wherever a rectangle begins, the same
   pixels are then the corners of tiles, and the same digits come out. `blank` clears that part. */
static int take_tiles(Scratch *scratch, Map *made, Py_ssize_t top, Py_ssize_t left,
                      Py_ssize_t bottom, Py_ssize_t right, const Map *whole, int groups)
{
    made->top = top;
    made->left = left;
    made->bottom = least(whole->bottom, bottom);
    made->right = least(whole->right, right);
    return take_map(scratch, made, groups);
}

static int take_tiles_around(Scratch *scratch, Map *made, const Map *inner, Py_ssize_t reach,
                             const Map *whole, int groups)
{
    return take_tiles(scratch, made, inner->top - reach, inner->left - reach,
                      inner->bottom + reach, inner->right + reach, whole, groups);
}

/* Outside the picture everything is zero. */
static void blank(const Map *map)
{
    size_t wide = (size_t)map->row * sizeof(float);
    size_t narrow = (size_t)(most(0, -map->left) * map->pixel) * sizeof(float);
    for (Py_ssize_t y = map->top; y < map->bottom && (y < 0 || narrow > 0); y++)
        memset(pixel(map, y, map->left), 0, y < 0 ? wide : narrow);
}

/* A picture's planes as features of three channels, their mean taken away. */
static void enter_picture(const float *picture, Py_ssize_t height, Py_ssize_t width,
                          const float *mean, const Map *out)
{
    for (Py_ssize_t y = out->top; y < out->bottom; y++)
        for (Py_ssize_t x = out->left; x < out->right; x++) {
            float *to = pixel(out, y, x);
            memset(to, 0, (size_t)out->pixel * sizeof(float));
            for (int plane = 0; plane < 3; plane++)
                to[plane] = picture[(plane * height + y) * width + x] - mean[plane];
        }
}

/* The picture that the filters are applied to. */
typedef struct {
    const float *planes;                  /* 3 x height x width, not enlarged */
    Py_ssize_t height, width;
    int scale;
    const float *phases;                  /* scale x 5: the taps along one side */
} Source;

/* Row `y` of the enlarged picture from `left` to `right`, bicubic; beyond its border it is
   reflected. `column` has room for the columns of the source that it takes, `reach` on each side
   included. */
FOR_EVERY_PROCESSOR
static void enlarge_row(const Source *source, int plane, Py_ssize_t y, Py_ssize_t left,
                        Py_ssize_t right, float *restrict column, float *restrict row)
{
    int scale = source->scale;
    Py_ssize_t height = source->height, width = source->width;
    Py_ssize_t line = reflected(y, height * scale);
    Py_ssize_t begin = most(left, 0), end = least(right, width * scale);
    const float *from = source->planes + plane * height * width;
    if (scale == 1) {
        memcpy(row + (begin - left), from + line * width + begin,
               (size_t)(end - begin) * sizeof(float));
    } else {
        Py_ssize_t first = begin / scale, last = (end - 1) / scale + 1; /* columns of the source */
        const float *taps = source->phases + line % scale * SIDE, *rows[SIDE];
        for (int k = 0; k < SIDE; k++)
            rows[k] = from + most(0, least(height - 1, line / scale + k - REACH)) * width;
        float *inner = column + REACH - first;
        Py_ssize_t known = most(0, first - REACH), unknown = least(width, last + REACH);
        for (Py_ssize_t x = known; x < unknown; x++)
            inner[x] = taps[0] * rows[0][x] + taps[1] * rows[1][x] + taps[2] * rows[2][x] +
                       taps[3] * rows[3][x] + taps[4] * rows[4][x];
        for (Py_ssize_t x = first - REACH; x < known; x++)
            inner[x] = inner[known];
        for (Py_ssize_t x = unknown; x < last + REACH; x++)
            inner[x] = inner[unknown - 1];
        for (int phase = 0; phase < scale; phase++) {
            const float *weights = source->phases + phase * SIDE;
            Py_ssize_t x = up_to(begin - phase, scale) / scale;
            Py_ssize_t beyond = up_to(end - phase, scale) / scale;
            for (; x < beyond; x++)
                row[x * scale + phase - left] =
                    weights[0] * inner[x - 2] + weights[1] * inner[x - 1] + weights[2] * inner[x] +
                    weights[3] * inner[x + 1] + weights[4] * inner[x + 2];
        }
    }
    for (Py_ssize_t x = left; x < begin; x++)
        row[x - left] = row[-x - left];
    for (Py_ssize_t x = end; x < right; x++)
        row[x - left] = row[reflected(x, width * scale) - left];
}

/* The pixels of a map of taps: each the sum of the picture around it, weighted by its taps. */
static void apply_taps(const Source *source, const Map *taps, float *out, Scratch *scratch)
{
    Scratch before = *scratch;
    Py_ssize_t height = source->height * source->scale, width = source->width * source->scale;
    Py_ssize_t padded = taps->right - taps->left + 2 * REACH;
    float *column = take(scratch, padded + 4 * REACH), *rows = take(scratch, 3 * SIDE * padded);
    if (column == NULL || rows == NULL)
        return;
    for (Py_ssize_t below = taps->top - REACH; below < taps->bottom + REACH; below++) {
        Py_ssize_t y = below - REACH;
        for (int plane = 0; plane < 3; plane++)
            enlarge_row(source, plane, below, taps->left - REACH, taps->right + REACH, column,
                        rows + (plane * SIDE + (below + SIDE) % SIDE) * padded);
        for (Py_ssize_t x = taps->left; y >= taps->top && x < taps->right; x += BLOCK) {
            float block[TAPS][BLOCK];
            Py_ssize_t count = least(BLOCK, taps->right - x);
            gather_taps(block, (const char *)pixel(taps, y, x), sizeof(float),
                        taps->pixel * (Py_ssize_t)sizeof(float), count);
            for (int plane = 0; plane < 3; plane++) {
                const float *around[SIDE];
                for (int k = 0; k < SIDE; k++)
                    around[k] = rows + (plane * SIDE + (y - REACH + k + SIDE) % SIDE) * padded +
                                (x - taps->left);
                filter_block(out + (plane * height + y) * width + x, around,
                             (const float(*)[BLOCK])block, count);
            }
        }
    }
    *scratch = before;
}

/* What Python gave, released together. */
typedef struct {
    Py_buffer views[16];
    int count;
} Held;

static void release(Held *held)
{
    while (held->count > 0)
        PyBuffer_Release(&held->views[--held->count]);
}

static Py_buffer *hold(Held *held, PyObject *object, int flags, int dimensions, const char *name)
{
    Py_buffer *view = &held->views[held->count];
    if (PyObject_GetBuffer(object, view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | flags) < 0)
        return NULL;
    held->count++;
    if (view->ndim == dimensions && view->itemsize == sizeof(float) &&
        strcmp(view->format, "f") == 0 && (uintptr_t)view->buf % sizeof(float) == 0)
        return view;
    PyErr_Format(PyExc_ValueError, "%s: %d dimensions of float32 are needed", name, dimensions);
    return NULL;
}

/* Numbers that are read in vectors: at least `count`. */
static float *numbers(Held *held, PyObject *object, int flags, Py_ssize_t count, const char *name)
{
    Py_buffer *view = hold(held, object, flags, 1, name);
    if (view == NULL)
        return NULL;
    if (view->shape[0] >= count && (uintptr_t)view->buf % 64 == 0)
        return view->buf;
    PyErr_Format(PyExc_ValueError, "%s: %zd numbers at a multiple of 64 bytes are needed", name,
                 count);
    return NULL;
}

/* Maps x height x width x channels, at most so many; returns their number, or -1. */
static int maps(Held *held, PyObject *object, int flags, int groups, Map *found, int limit,
                const char *name)
{
    Py_buffer *view = hold(held, object, flags, 4, name);
    if (view == NULL)
        return -1;
    const Py_ssize_t *shape = view->shape;
    if (shape[0] < 1 || shape[0] > limit || shape[3] != groups * GROUP) {
        PyErr_Format(PyExc_ValueError, "%s: not such maps", name);
        return -1;
    }
    if ((uintptr_t)view->buf % 64 != 0) {
        PyErr_Format(PyExc_ValueError, "%s: must begin at a multiple of 64 bytes", name);
        return -1;
    }
    for (Py_ssize_t k = 0; k < shape[0]; k++)
        found[k] = (Map){.base = (float *)view->buf + k * shape[1] * shape[2] * shape[3],
                         .row = shape[2] * shape[3], .pixel = shape[3],
                         .bottom = shape[1], .right = shape[2]};
    return (int)shape[0];
}

typedef struct {
    Py_ssize_t top, left, bottom, right;
} Rectangle;

static int lies_in(const Rectangle *inner, Py_ssize_t height, Py_ssize_t width)
{
    if (inner->top >= 0 && inner->top < inner->bottom && inner->bottom <= height &&
        inner->left >= 0 && inner->left < inner->right && inner->right <= width)
        return 1;
    PyErr_SetString(PyExc_ValueError, "there is no such rectangle");
    return 0;
}

static int same_size(const Map *one, const Map *other)
{
    if (one->bottom == other->bottom && one->right == other->right)
        return 1;
    PyErr_SetString(PyExc_ValueError, "maps are not of one size");
    return 0;
}

/* Weights as Python lays them out: outputs x points x sources x channels x 16, and 16 biases for
   each of `outputs`. */
static int kernel(Held *held, PyObject *pair, int side, Convolution *to_do)
{
    PyObject *weights, *bias;
    Py_ssize_t points = points_of(side);
    if (!PyTuple_Check(pair)) {
        PyErr_SetString(PyExc_TypeError, "kernel: a pair of weights and bias is needed");
        return 0;
    }
    if (!PyArg_ParseTuple(pair, "OO", &weights, &bias))
        return 0;
    Py_ssize_t of_point = to_do->sources * up_to(to_do->channels, STEP) * GROUP;
    to_do->weights = numbers(held, weights, 0, to_do->outputs * points * of_point, "weights");
    if (to_do->weights == NULL)
        return 0;
    to_do->bias = numbers(held, bias, 0, to_do->outputs * GROUP, "bias");
    return to_do->bias != NULL;
}

static int scratch_of(Held *held, PyObject *object, Scratch *scratch)
{
    *scratch = (Scratch){.free = numbers(held, object, PyBUF_WRITABLE, 0, "scratch")};
    if (scratch->free == NULL)
        return 0;
    scratch->left = held->views[held->count - 1].shape[0];
    return 1;
}

static PyObject *finished(Held *held, const Scratch *scratch)
{
    release(held);
    if (PyErr_Occurred())
        return NULL;
    if (scratch->failed) {
        PyErr_SetString(PyExc_ValueError, "scratch: too small for this rectangle");
        return NULL;
    }
    Py_RETURN_NONE;
}

static int is_side(int side)
{
    if (side == 3 || side == 5)
        return 1;
    PyErr_SetString(PyExc_ValueError, "kernels are 3 x 3 or 5 x 5");
    return 0;
}

static int groups_for(int channels)
{
    if (channels >= 1 && channels <= 4096)
        return (channels + GROUP - 1) / GROUP;
    PyErr_SetString(PyExc_ValueError, "there are no such channels");
    return 0;
}

/* What Python gives. All arrays are float32 and contiguous; h x w is the size of a map, S the scale,
   H x W = S*h x S*w. Where vectors are read, they begin at a multiple of 64 bytes.

     features, out, skip, gradients   maps x h x w x C, C the channels rounded up to GROUPs
     picture                          3 x h x w, its restored form 3 x H x W
     mean                             3, flat
     kernel                           a pair. Weights: groups of outputs x points x sources x
                                      channels (rounded up to STEPs) x GROUP, flat; points are 36 for
                                      3 x 3 and 64 for 5 x 5. Biases: groups of outputs x GROUP, flat
     phases                           S x 5, flat
     rectangle                        (top, left, bottom, right) of the output, the last two beyond it
     scratch                          flat; see `convolution_floats`

   A ValueError says what does not fit. */

/* head(picture, mean, kernel, channels, rectified, out, rectangle, scratch): the first convolution,
   3 x h x w -> 1 x h x w x C. */
static PyObject *head(PyObject *module, PyObject *arguments)
{
    PyObject *picture, *mean, *pair, *target, *room;
    int channels, rectified;
    Rectangle area;
    Held held = {.count = 0};
    Scratch scratch = {.failed = 0};
    Map out, inner, whole, from;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "OOOipO(nnnn)O", &picture, &mean, &pair, &channels, &rectified,
                          &target, &area.top, &area.left, &area.bottom, &area.right, &room))
        return NULL;
    int groups = groups_for(channels);
    Convolution to_do = {.from = &from, .sources = 1, .channels = 3, .groups = groups,
                         .outputs = groups, .scale = 1, .rectified = rectified};
    Py_buffer *planes = groups ? hold(&held, picture, 0, 3, "picture") : NULL;
    const float *means = planes ? numbers(&held, mean, 0, 3, "mean") : NULL;
    if (means == NULL || !kernel(&held, pair, 3, &to_do) ||
        maps(&held, target, PyBUF_WRITABLE, groups, &out, 1, "out") != 1 ||
        !lies_in(&area, out.bottom, out.right) || !scratch_of(&held, room, &scratch))
        return finished(&held, &scratch);
    if (planes->shape[0] != 3 || planes->shape[1] != out.bottom || planes->shape[2] != out.right) {
        PyErr_SetString(PyExc_ValueError, "picture: not 3 planes of the size of the output");
        return finished(&held, &scratch);
    }
    Py_BEGIN_ALLOW_THREADS
    whole = out;
    inner = part_of(out, area.top, area.left, area.bottom, area.right);
    if (take_around(&scratch, &from, &inner, 1, &whole, groups)) {
        enter_picture(planes->buf, whole.bottom, whole.right, means, &from);
        convolve(3, &to_do, &inner, &scratch);
    }
    Py_END_ALLOW_THREADS
    return finished(&held, &scratch);
}

/* unit(features, opening, closing, channels, wide, factor, out, rectangle, scratch): two
   convolutions with `wide` channels between them, the first rectified; `factor` times the features
   is added. 1 x h x w x C -> 1 x h x w x C; `opening` and `closing` are kernels of 3 x 3. */
static PyObject *unit(PyObject *module, PyObject *arguments)
{
    PyObject *features, *opening, *closing, *target, *room;
    int channels, wide;
    float factor;
    Rectangle area;
    Held held = {.count = 0};
    Scratch scratch = {.failed = 0};
    Map from, between, out, inner;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "OOOiifO(nnnn)O", &features, &opening, &closing, &channels,
                          &wide, &factor, &target, &area.top, &area.left, &area.bottom, &area.right,
                          &room))
        return NULL;
    int groups = groups_for(channels), inside = groups ? groups_for(wide) : 0;
    Convolution first = {.from = &from, .sources = 1, .channels = channels, .groups = inside,
                         .outputs = inside, .scale = 1, .rectified = 1};
    Convolution second = {.from = &between, .sources = 1, .channels = wide, .groups = groups,
                          .outputs = groups, .scale = 1, .skip = &from, .factor = factor};
    if (inside && maps(&held, features, 0, groups, &from, 1, "features") == 1 &&
        maps(&held, target, PyBUF_WRITABLE, groups, &out, 1, "out") == 1 &&
        same_size(&from, &out) && lies_in(&area, out.bottom, out.right) &&
        kernel(&held, opening, 3, &first) &&
        kernel(&held, closing, 3, &second) && scratch_of(&held, room, &scratch)) {
        Py_BEGIN_ALLOW_THREADS
        inner = part_of(out, area.top, area.left, area.bottom, area.right);
        if (take_tiles_around(&scratch, &between, &inner, 1, &out, inside)) {
            convolve(3, &first, &between, &scratch);
            blank(&between);
            convolve(3, &second, &inner, &scratch);
        }
        Py_END_ALLOW_THREADS
    }
    return finished(&held, &scratch);
}

/* reduction(features, kernel, channels, skip, factor, out, rectangle, scratch): one convolution of
   several maps; `factor` times another is added. k x h x w x C, at most MOST_SOURCES maps, and a
   skip of 1 x h x w x C -> 1 x h x w x C. */
static PyObject *reduction(PyObject *module, PyObject *arguments)
{
    PyObject *features, *pair, *other, *target, *room;
    int channels;
    float factor;
    Rectangle area;
    Held held = {.count = 0};
    Scratch scratch = {.failed = 0};
    Map from[MOST_SOURCES], skip, out, inner;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "OOiOfO(nnnn)O", &features, &pair, &channels, &other, &factor,
                          &target, &area.top, &area.left, &area.bottom, &area.right, &room))
        return NULL;
    int groups = groups_for(channels);
    Convolution to_do = {.from = from, .channels = channels, .groups = groups, .outputs = groups,
                         .scale = 1, .skip = &skip, .factor = factor};
    to_do.sources = groups ? maps(&held, features, 0, groups, from, MOST_SOURCES, "features") : -1;
    if (to_do.sources > 0 && maps(&held, other, 0, groups, &skip, 1, "skip") == 1 &&
        maps(&held, target, PyBUF_WRITABLE, groups, &out, 1, "out") == 1 &&
        same_size(&from[0], &out) && same_size(&skip, &out) &&
        lies_in(&area, out.bottom, out.right) && kernel(&held, pair, 3, &to_do) &&
        scratch_of(&held, room, &scratch)) {
        Py_BEGIN_ALLOW_THREADS
        inner = part_of(out, area.top, area.left, area.bottom, area.right);
        convolve(3, &to_do, &inner, &scratch);
        Py_END_ALLOW_THREADS
    }
    return finished(&held, &scratch);
}

/* What `convolution` and `weight_gradient` take: features, something that goes with the outputs,
   the kernel's side, channels of features and outputs, what is written, a rectangle of the outputs,
   and scratch. */
typedef struct {
    PyObject *features, *other, *target, *room;
    int side, channels;
    int inputs, outputs;                  /* groups of 16 channels */
    Rectangle area;
} Single;

static int single(PyObject *arguments, Single *given)
{
    int outputs;
    Rectangle *area = &given->area;
    if (!PyArg_ParseTuple(arguments, "OOiiiO(nnnn)O", &given->features, &given->other, &given->side,
                          &given->channels, &outputs, &given->target, &area->top, &area->left,
                          &area->bottom, &area->right, &given->room))
        return 0;
    given->inputs = groups_for(given->channels);
    given->outputs = given->inputs ? groups_for(outputs) : 0;
    return given->outputs && is_side(given->side);
}

/* convolution(features, kernel, side, channels, outputs, out, rectangle, scratch): one convolution
   of 3 x 3 or 5 x 5, and nothing else. 1 x h x w x I -> 1 x h x w x O. */
static PyObject *convolution(PyObject *module, PyObject *arguments)
{
    Single given;
    Held held = {.count = 0};
    Scratch scratch = {.failed = 0};
    Map from, out, inner;
    (void)module;
    if (!single(arguments, &given))
        return NULL;
    const Rectangle *area = &given.area;
    Convolution to_do = {.from = &from, .sources = 1, .channels = given.channels,
                         .groups = given.outputs, .outputs = given.outputs, .scale = 1};
    if (maps(&held, given.features, 0, given.inputs, &from, 1, "features") == 1 &&
        maps(&held, given.target, PyBUF_WRITABLE, given.outputs, &out, 1, "out") == 1 &&
        same_size(&from, &out) && lies_in(area, out.bottom, out.right) &&
        kernel(&held, given.other, given.side, &to_do) &&
        scratch_of(&held, given.room, &scratch)) {
        Py_BEGIN_ALLOW_THREADS
        inner = part_of(out, area->top, area->left, area->bottom, area->right);
        convolve(given.side, &to_do, &inner, &scratch);
        Py_END_ALLOW_THREADS
    }
    return finished(&held, &scratch);
}

/* weight_gradient(features, gradients, side, channels, outputs, sums, rectangle, scratch): add to
   `sums` what the gradients of a convolution's outputs in the rectangle give as gradient of its
   weights, at the points of Winograd's filtering and in the layout of the weights. Features
   1 x h x w x I, gradients 1 x h x w x O, sums O/GROUP x points x I x GROUP, flat. */
static PyObject *weight_gradient(PyObject *module, PyObject *arguments)
{
    Single given;
    Held held = {.count = 0};
    Scratch scratch = {.failed = 0};
    Map from, by;
    (void)module;
    if (!single(arguments, &given))
        return NULL;
    const Rectangle *area = &given.area;
    int inputs = given.inputs, outputs = given.outputs;
    Py_ssize_t points = points_of(given.side);
    Gradient *add = given.side == 3 ? kernels->gradient_3 : kernels->gradient_5;
    float *sums = numbers(&held, given.target, PyBUF_WRITABLE,
                          outputs * points * inputs * GROUP * GROUP, "sums");
    if (sums != NULL && maps(&held, given.features, 0, inputs, &from, 1, "features") == 1 &&
        maps(&held, given.other, 0, outputs, &by, 1, "gradients") == 1 && same_size(&from, &by) &&
        lies_in(area, by.bottom, by.right) && scratch_of(&held, given.room, &scratch)) {
        float *free = take(&scratch, gradient_room(given.side, inputs * GROUP));
        by = part_of(by, area->top, area->left, area->bottom, area->right);
        Py_BEGIN_ALLOW_THREADS
        if (free != NULL)
            add(&from, &by, inputs, outputs, sums, free);
        Py_END_ALLOW_THREADS
    }
    return finished(&held, &scratch);
}

/* The four convolutions after the body, and the filters. */
typedef struct {
    Convolution up, mix, merge, taps;
    Map features;                         /* of the body */
    Source source;
    float *out;                           /* 3 x height x width, enlarged */
} Tail;

static void restore_rectangle(Tail *tail, const Rectangle *area, Scratch *scratch)
{
    int groups = tail->mix.groups, scale = tail->source.scale;
    Map whole = {.bottom = tail->source.height * scale, .right = tail->source.width * scale};
    Map inner = {.top = area->top, .left = area->left, .bottom = area->bottom,
                 .right = area->right};
    Map enlarged = tail->features, mixed, merged, taps;
    tail->mix.from = &enlarged;
    tail->merge.from = &mixed;
    tail->taps.from = &merged;
    if (!take_tiles_around(scratch, &mixed, &inner, 2, &whole, groups))
        return;
    Scratch before = *scratch;
    if (scale > 1) {
        if (!take_tiles(scratch, &enlarged, down_to(mixed.top - 2, scale),
                        down_to(mixed.left - 2, scale), up_to(mixed.bottom + 2, scale),
                        up_to(mixed.right + 2, scale), &whole, groups))
            return;
        convolve(3, &tail->up, &enlarged, scratch);
        blank(&enlarged);
    }
    convolve(5, &tail->mix, &mixed, scratch);
    blank(&mixed);
    *scratch = before; /* What was enlarged is not needed any more. */
    if (!take_tiles_around(scratch, &merged, &inner, 1, &whole, groups))
        return;
    convolve(3, &tail->merge, &merged, scratch);
    blank(&merged);
    taps = inner; /* In the place of what was mixed. */
    taps.base = mixed.base;
    taps.pixel = GROUP;
    taps.row = (taps.right - taps.left) * GROUP;
    convolve(3, &tail->taps, &taps, scratch);
    apply_taps(&tail->source, &taps, tail->out, scratch);
}

/* tail(features, up, mix, merge, taps, channels, scale, phases, picture, out, rectangle, scratch):
   what follows the body of LAPAR, from features 1 x h x w x C and the picture 3 x h x w to the
   restored picture 3 x H x W; `up` is None at scale 1. The rectangle is one of the output. */
static PyObject *tail(PyObject *module, PyObject *arguments)
{
    PyObject *features, *up, *mix, *merge, *taps, *phases, *picture, *target, *room;
    int channels, scale;
    Rectangle area;
    Held held = {.count = 0};
    Scratch scratch = {.failed = 0};
    Tail work = {.out = NULL};
    (void)module;
    if (!PyArg_ParseTuple(arguments, "OOOOOiiOOO(nnnn)O", &features, &up, &mix, &merge, &taps,
                          &channels, &scale, &phases, &picture, &target, &area.top, &area.left,
                          &area.bottom, &area.right, &room))
        return NULL;
    int groups = groups_for(channels);
    if (groups && (scale < 1 || scale > 16)) {
        PyErr_SetString(PyExc_ValueError, "there is no such scale");
        groups = 0;
    }
    Convolution plain = {.sources = 1, .channels = channels, .groups = groups, .outputs = groups,
                         .scale = 1};
    work.up = work.mix = work.merge = work.taps = plain;
    work.up.from = &work.features;
    work.up.scale = scale;
    work.up.outputs = groups * scale * scale;
    work.up.rectified = work.merge.rectified = 1;
    work.taps.outputs = 1;
    Py_buffer *planes = groups ? hold(&held, picture, 0, 3, "picture") : NULL;
    Py_buffer *restored = planes ? hold(&held, target, PyBUF_WRITABLE, 3, "out") : NULL;
    if (restored == NULL || maps(&held, features, 0, groups, &work.features, 1, "features") != 1 ||
        (scale > 1 && !kernel(&held, up, 3, &work.up)) || !kernel(&held, mix, 5, &work.mix) ||
        !kernel(&held, merge, 3, &work.merge) || !kernel(&held, taps, 3, &work.taps) ||
        !scratch_of(&held, room, &scratch))
        return finished(&held, &scratch);
    work.source = (Source){.planes = planes->buf, .height = planes->shape[1],
                           .width = planes->shape[2], .scale = scale,
                           .phases = numbers(&held, phases, 0, scale * SIDE, "phases")};
    work.out = restored->buf;
    if (work.source.phases == NULL)
        return finished(&held, &scratch);
    Py_ssize_t height = planes->shape[1] * scale, width = planes->shape[2] * scale;
    if (planes->shape[0] != 3 || restored->shape[0] != 3 || restored->shape[1] != height ||
        restored->shape[2] != width || work.features.bottom != planes->shape[1] ||
        work.features.right != planes->shape[2] || height <= REACH || width <= REACH)
        PyErr_SetString(PyExc_ValueError, "picture, features and output do not fit together");
    else if (lies_in(&area, height, width)) {
        Py_BEGIN_ALLOW_THREADS
        restore_rectangle(&work, &area, &scratch);
        Py_END_ALLOW_THREADS
    }
    return finished(&held, &scratch);
}

/* Features of scale * scale channels for each plane to pixels of the planes. */
static void shuffle(const Map *phases, int scale, float *out, Py_ssize_t height, Py_ssize_t width)
{
    for (Py_ssize_t y = phases->top; y < phases->bottom; y++)
        for (int line = 0; line < 3 * scale; line++) {
            Py_ssize_t plane = line / scale, below = y * scale + line % scale;
            float *to = out + (plane * height + below) * width + phases->left * scale;
            const float *from = pixel(phases, y, phases->left) + line * scale;
            for (Py_ssize_t x = phases->left; x < phases->right; x++, from += phases->pixel)
                for (int column = 0; column < scale; column++)
                    *to++ = from[column];
        }
}

enum { SHIFTED = 9 }; /* kernels of 3 x 3 that make one of 9 x 9 */

/* reconstruction(features, kernel, channels, scale, mean, picture, out, rectangle, scratch): AWSRN's
   last two convolutions and its pixel shuffle. The one of the features, 9 x 9, is nine of 3 x 3 of
   the features moved by three pixels each way; the one of the picture is the tenth. Features
   1 x h x w x C and the picture 3 x h x w -> 3 x H x W. The rectangle is one of the features. */
static PyObject *reconstruction(PyObject *module, PyObject *arguments)
{
    PyObject *features, *pair, *mean, *picture, *target, *room;
    int channels, scale;
    Rectangle area;
    Held held = {.count = 0};
    Scratch scratch = {.failed = 0};
    Map from[SHIFTED + 1], whole, phases;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "OOiiOOO(nnnn)O", &features, &pair, &channels, &scale, &mean,
                          &picture, &target, &area.top, &area.left, &area.bottom, &area.right,
                          &room))
        return NULL;
    int groups = groups_for(channels);
    if (groups && (scale < 1 || scale > 16)) {
        PyErr_SetString(PyExc_ValueError, "there is no such scale");
        groups = 0;
    }
    int outputs = groups ? groups_for(3 * scale * scale) : 0;
    Convolution to_do = {.from = from, .sources = SHIFTED + 1, .channels = channels,
                         .groups = outputs, .outputs = outputs, .scale = 1};
    Py_buffer *planes = groups ? hold(&held, picture, 0, 3, "picture") : NULL;
    Py_buffer *restored = planes ? hold(&held, target, PyBUF_WRITABLE, 3, "out") : NULL;
    const float *means = restored ? numbers(&held, mean, 0, 3, "mean") : NULL;
    if (means == NULL || maps(&held, features, 0, groups, &whole, 1, "features") != 1 ||
        !kernel(&held, pair, 3, &to_do) || !lies_in(&area, whole.bottom, whole.right) ||
        !scratch_of(&held, room, &scratch))
        return finished(&held, &scratch);
    Py_ssize_t height = whole.bottom * scale, width = whole.right * scale;
    if (planes->shape[0] != 3 || planes->shape[1] != whole.bottom ||
        planes->shape[2] != whole.right || restored->shape[0] != 3 ||
        restored->shape[1] != height || restored->shape[2] != width) {
        PyErr_SetString(PyExc_ValueError, "picture, features and output do not fit together");
        return finished(&held, &scratch);
    }
    Py_BEGIN_ALLOW_THREADS
    for (int k = 0; k < SHIFTED; k++) {
        Py_ssize_t down = 3 * (k / 3 - 1), right = 3 * (k % 3 - 1);
        from[k] = whole;
        from[k].top -= down;
        from[k].bottom -= down;
        from[k].left -= right;
        from[k].right -= right;
    }
    phases = (Map){.top = area.top, .left = area.left, .bottom = area.bottom, .right = area.right};
    if (take_around(&scratch, &from[SHIFTED], &phases, 1, &whole, groups) &&
        take_map(&scratch, &phases, outputs)) {
        enter_picture(planes->buf, whole.bottom, whole.right, means, &from[SHIFTED]);
        convolve(3, &to_do, &phases, &scratch);
        shuffle(&phases, scale, restored->buf, height, width);
    }
    Py_END_ALLOW_THREADS
    return finished(&held, &scratch);
}

/* convolution_floats(side, channels): scratch that one convolution takes, for its tiles. `channels`
   are those of all its sources, each rounded up to a multiple of GROUP. */
static PyObject *convolution_floats(PyObject *module, PyObject *arguments)
{
    int side, channels;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "ii", &side, &channels) || !is_side(side))
        return NULL;
    return PyLong_FromSsize_t(convolution_room(side, channels));
}

/* gradient_floats(side, channels): scratch that `weight_gradient` takes, by the channels of the
   features. */
static PyObject *gradient_floats(PyObject *module, PyObject *arguments)
{
    int side, channels;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "ii", &side, &channels) || !is_side(side))
        return NULL;
    return PyLong_FromSsize_t(gradient_room(side, channels));
}

/* choose(bits): compute in vectors of so many bits from now on, 0 for the widest; whether the
   processor and the build have such. For tests: nothing may be computed meanwhile. */
static PyObject *choose(PyObject *module, PyObject *arguments)
{
    int bits;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "i", &bits))
        return NULL;
    const Kernels *chosen = kernels_of(bits);
    if (chosen != NULL)
        kernels = chosen;
    return PyBool_FromLong(chosen != NULL);
}

/* vectors(): the bits that it computes in. */
static PyObject *vectors(PyObject *module, PyObject *arguments)
{
    (void)module;
    (void)arguments;
    return PyLong_FromLong(kernels->bits);
}

static PyMethodDef methods[] = {{"head", head, METH_VARARGS, NULL},
                                {"unit", unit, METH_VARARGS, NULL},
                                {"reduction", reduction, METH_VARARGS, NULL},
                                {"tail", tail, METH_VARARGS, NULL},
                                {"reconstruction", reconstruction, METH_VARARGS, NULL},
                                {"convolution", convolution, METH_VARARGS, NULL},
                                {"weight_gradient", weight_gradient, METH_VARARGS, NULL},
                                {"convolution_floats", convolution_floats, METH_VARARGS, NULL},
                                {"gradient_floats", gradient_floats, METH_VARARGS, NULL},
                                {"choose", choose, METH_VARARGS, NULL},
                                {"vectors", vectors, METH_NOARGS, NULL},
                                {NULL, NULL, 0, NULL}};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_network", NULL, 0, methods,
                                        NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__network(void)
{
    PyObject *module = PyModule_Create(&definition);
    kernels = kernels_of(0);
    if (module != NULL && (PyModule_AddIntConstant(module, "LAYOUT", LAYOUT) < 0 ||
                           PyModule_AddIntConstant(module, "GROUP", GROUP) < 0 ||
                           PyModule_AddIntConstant(module, "STEP", STEP) < 0 ||
                           PyModule_AddIntConstant(module, "TILE", TILE) < 0 ||
                           PyModule_AddIntConstant(module, "MOST_SOURCES", MOST_SOURCES) < 0)) {
        Py_DECREF(module);
        return NULL;
    }
    return module;
}

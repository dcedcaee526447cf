/* Run the fused networks of LAPAR and AWSRN on a CPU, with Winograd's minimal filtering.

   Features are stored pixel by pixel (height x width x channels). The number of channels is padded
   with zeros to a multiple of 16 (GROUP). Outside a map everything is zero, as in the network's
   padded convolutions. Python allocates the arrays and distributes the work to its threads: each
   function computes one rectangle of its output, and releases the interpreter's lock meanwhile.

   Uses only Python's limited API, so one build serves every version from 3.11 on. */

#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>

#include "../filters/_filter_block.h"

#if !defined(__GNUC__) && !defined(__clang__)
#error "needs vectors as GCC and Clang have them"
#endif

/* The module exports those that Python needs. */
enum {
    GROUP = 16,         /* channels that are computed at once */
    STEP = 4,           /* channels of a source are rounded up to a multiple of this */
    TILE = 4,           /* side of the outputs of one tile */
    TILES = 16,         /* tiles that are computed at once */
    /* Floats from one point of the tiles to the next. 16 of them are padding: points a power of two
       apart would share few lines of the cache. */
    POINT = TILES * GROUP + GROUP,
    SLICE = 4,          /* groups of outputs whose gradients are computed at once */
    STRIP = 32,         /* rows of output that the tail computes at once, at least */
    MAX_SOURCES = 10    /* maps that one convolution can read */
};

/* Version of the interface: raise it with every change of the functions, constants or array layouts
   that Python uses. `compiled.py` holds the same number, to recognise a module that was built from
   another version. */
enum { LAYOUT = 6 };

/* Keep the compiler from computing all addresses that depend on `x` in advance: they are more than
   there are registers. */
#define OPAQUE(x) __asm__("" : "+r"(x))
#define INLINE static inline __attribute__((always_inline))
#ifdef __SANITIZE_ADDRESS__ /* whose checks, unrolled, take minutes to compile */
#define UNROLL
#define ROLLED
#elif defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#define ROLLED _Pragma("clang loop unroll(disable)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#define ROLLED _Pragma("GCC unroll 1")
#endif

/* A rectangle of features. What lies outside of it counts as zero. */
typedef struct {
    float *base;                          /* of the pixel (top, left) */
    Py_ssize_t row, pixel;                /* floats from one to the next */
    Py_ssize_t top, left, bottom, right;
} Map;

typedef struct {
    const Map *from;
    int sources;                          /* maps, whose channels follow each other */
    int channels;                         /* of each map, without padding */
    int groups;                           /* of 16 channels in an output pixel */
    int outputs;                          /* groups that are computed, for all phases */
    int scale;                            /* each group fills scale x scale pixels */
    int rectified;
    const float *weights, *bias;
    const Map *skip;                      /* added `factor` times, unless NULL */
    float factor;
} Convolution;

/* The pixels of a tile in memory. */
typedef struct {
    float *base;
    Py_ssize_t row, pixel;
} TileView;

INLINE float *pixel(const Map *map, Py_ssize_t y, Py_ssize_t x)
{
    return map->base + (y - map->top) * map->row + (x - map->left) * map->pixel;
}

INLINE Py_ssize_t minimum(Py_ssize_t a, Py_ssize_t b)
{
    return a < b ? a : b;
}

/* Round up to a multiple of `step`. */
INLINE Py_ssize_t round_up(Py_ssize_t a, Py_ssize_t step)
{
    return (a + step - 1) / step * step;
}

INLINE Py_ssize_t maximum(Py_ssize_t a, Py_ssize_t b)
{
    return a > b ? a : b;
}

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wpsabi"
#endif

/* Kernels are compiled for several vector sizes; the widest that the processor has is chosen at run
   time. Not by GCC on Windows: there it keeps vectors on a stack that is not aligned for them. */
#if defined(__x86_64__) && (defined(__clang__) || !(defined(_WIN32) || defined(__CYGWIN__)))
#define SEVERAL_VECTOR_SIZES
#define LANES 16
#define REGISTERS 32
#define REGISTER_BLOCK 16
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
#undef REGISTERS
#undef REGISTER_BLOCK
#undef NAMED

#define LANES 8
#define REGISTERS 16
#define REGISTER_BLOCK 4
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
#undef REGISTERS
#undef REGISTER_BLOCK
#undef NAMED
#endif

#define LANES 4
#ifdef __aarch64__
#define REGISTERS 32
#define REGISTER_BLOCK 4
#else
#define REGISTERS 16
#define REGISTER_BLOCK 2
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
#ifdef SEVERAL_VECTOR_SIZES
static const Kernels kernels_512 = KERNELS(512), kernels_256 = KERNELS(256);
#endif
static const Kernels kernels_128 = KERNELS(128);
static const Kernels *kernels = &kernels_128;

/* Return the kernels for vectors of `bits`, or with 0 for the widest; NULL if there are none. */
static const Kernels *kernels_of(int bits)
{
#ifdef SEVERAL_VECTOR_SIZES
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

/* Memory for intermediate results, allocated like a stack. */
typedef struct {
    float *free;
    Py_ssize_t available;
    int failed;
} Scratch;

static float *allocate(Scratch *scratch, Py_ssize_t count)
{
    count = round_up(count, GROUP);
    if (count > scratch->available) {
        scratch->failed = 1;
        return NULL;
    }
    float *allocated = scratch->free;
    scratch->free += count;
    scratch->available -= count;
    return allocated;
}

static int allocate_map(Scratch *scratch, Map *map, int groups)
{
    map->pixel = (Py_ssize_t)groups * GROUP;
    map->row = (map->right - map->left) * map->pixel;
    map->base = allocate(scratch, (map->bottom - map->top) * map->row);
    return map->base != NULL;
}

/* Count the points at which Winograd's filtering evaluates a kernel and a tile. */
static Py_ssize_t points_of(int side)
{
    return (Py_ssize_t)(side + TILE - 1) * (side + TILE - 1);
}

/* Return the floats of scratch that a convolution needs for its tiles, and for the sums of two
   groups of outputs. `channels` is the sum over all its sources, each rounded up to groups. */
static Py_ssize_t convolution_scratch(int side, Py_ssize_t channels)
{
    return points_of(side) * POINT * (round_up(channels, GROUP) / GROUP + 2);
}

/* Return the floats of scratch that the gradient of a convolution's weights needs. */
static Py_ssize_t gradient_scratch(int side, Py_ssize_t channels)
{
    return points_of(side) * POINT * (round_up(channels, GROUP) / GROUP + SLICE);
}

/* Compute `out` by Winograd's filtering with kernels of 3 x 3 or 5 x 5. */
static void convolve(int side, const Convolution *layer, const Map *out, Scratch *scratch)
{
    Scratch saved = *scratch;
    Py_ssize_t channels = layer->sources * round_up(layer->channels, GROUP);
    float *memory = allocate(scratch, convolution_scratch(side, channels));
    if (memory == NULL)
        return;
    (side == 3 ? kernels->convolve_3 : kernels->convolve_5)(layer, out, memory);
    *scratch = saved;
}

/* Return a view of the part of a map that lies in a rectangle. */
static Map part_of(Map map, Py_ssize_t top, Py_ssize_t left, Py_ssize_t bottom, Py_ssize_t right)
{
    map.base = pixel(&map, top, left);
    map.top = top;
    map.left = left;
    map.bottom = bottom;
    map.right = right;
    return map;
}

/* Allocate a map for a rectangle with a border of `radius`, cut off at the edges of `whole`. */
static int allocate_around(Scratch *scratch, Map *created, const Map *inner, Py_ssize_t radius,
                           const Map *whole, int groups)
{
    created->top = maximum(whole->top, inner->top - radius);
    created->left = maximum(whole->left, inner->left - radius);
    created->bottom = minimum(whole->bottom, inner->bottom + radius);
    created->right = minimum(whole->right, inner->right + radius);
    return allocate_map(scratch, created, groups);
}

/* Round down to a multiple of `step`; also negative numbers. */
INLINE Py_ssize_t round_down(Py_ssize_t a, Py_ssize_t step)
{
    return a - ((a % step + step) % step);
}

/* Allocate a map for the outputs of a convolution, a rectangle with a border of `radius`. Tiles
   begin at its top left corner, so the map is not cut off above the picture and to the left of it:
   wherever a rectangle begins, the corners of tiles are the same pixels, and the results have the
   same digits. `clear_outside` then clears that part. */
static int allocate_tiles_around(Scratch *scratch, Map *created, const Map *inner,
                                 Py_ssize_t radius, const Map *whole, int groups)
{
    created->top = inner->top - radius;
    created->left = inner->left - radius;
    created->bottom = minimum(whole->bottom, inner->bottom + radius);
    created->right = minimum(whole->right, inner->right + radius);
    return allocate_map(scratch, created, groups);
}

/* Set what lies above the picture and to the left of it to zero. */
static void clear_outside(const Map *map)
{
    size_t row_bytes = (size_t)map->row * sizeof(float);
    size_t left_bytes = (size_t)(maximum(0, -map->left) * map->pixel) * sizeof(float);
    for (Py_ssize_t y = map->top; y < map->bottom && (y < 0 || left_bytes > 0); y++)
        memset(pixel(map, y, map->left), 0, y < 0 ? row_bytes : left_bytes);
}

/* Write a picture's planes, minus their mean, as features of three channels. */
static void write_picture(const float *picture, Py_ssize_t height, Py_ssize_t width,
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

/* The picture that the filters are applied to, before it is enlarged. */
typedef struct {
    const float *planes;                  /* 3 x height x width */
    Py_ssize_t height, width;
    int scale;
    const float *phases;                  /* scale x 5: the taps along one side */
} Picture;

/* Enlarge a row along its side: `scale` pixels for each of the columns from `first` to `end`. */
INLINE void enlarge_columns(int scale, const float *restrict phases, const float *restrict column,
                            Py_ssize_t first, Py_ssize_t end, float *restrict row)
{
    for (Py_ssize_t x = first; x < end; x++)
        for (int phase = 0; phase < scale; phase++) {
            const float *taps = phases + phase * SIDE;
            row[x * scale + phase] = taps[0] * column[x - 2] + taps[1] * column[x - 1] +
                                     taps[2] * column[x] + taps[3] * column[x + 1] +
                                     taps[4] * column[x + 2];
        }
}

/* Compute row `y` of the enlarged (bicubic) picture from `left` to `right`; beyond its border the
   picture is reflected. Up to `scale` - 1 pixels before and after may be written too. `column` is
   scratch for the columns of the small picture that this reads, including RADIUS on each side. */
FOR_EVERY_PROCESSOR
static void enlarge_row(const Picture *source, int plane, Py_ssize_t y, Py_ssize_t left,
                        Py_ssize_t right, float *restrict column, float *restrict row)
{
    int scale = source->scale;
    Py_ssize_t height = source->height, width = source->width;
    Py_ssize_t row_index = reflected(y, height * scale);
    Py_ssize_t begin = maximum(left, 0), end = minimum(right, width * scale);
    const float *from = source->planes + plane * height * width;
    if (scale == 1) {
        memcpy(row + (begin - left), from + row_index * width + begin,
               (size_t)(end - begin) * sizeof(float));
    } else {
        /* Columns of the small picture. */
        Py_ssize_t first = begin / scale, last = (end - 1) / scale + 1;
        const float *taps = source->phases + row_index % scale * SIDE, *rows[SIDE];
        for (int k = 0; k < SIDE; k++)
            rows[k] =
                from + maximum(0, minimum(height - 1, row_index / scale + k - RADIUS)) * width;
        float *inner = column + RADIUS - first;
        Py_ssize_t first_valid = maximum(0, first - RADIUS);
        Py_ssize_t end_valid = minimum(width, last + RADIUS);
        for (Py_ssize_t x = first_valid; x < end_valid; x++)
            inner[x] = taps[0] * rows[0][x] + taps[1] * rows[1][x] + taps[2] * rows[2][x] +
                       taps[3] * rows[3][x] + taps[4] * rows[4][x];
        for (Py_ssize_t x = first - RADIUS; x < first_valid; x++)
            inner[x] = inner[first_valid];
        for (Py_ssize_t x = end_valid; x < last + RADIUS; x++)
            inner[x] = inner[end_valid - 1];
        if (scale == 2)
            enlarge_columns(2, source->phases, inner, first, last, row - left);
        else if (scale == 4)
            enlarge_columns(4, source->phases, inner, first, last, row - left);
        else
            enlarge_columns(scale, source->phases, inner, first, last, row - left);
    }
    for (Py_ssize_t x = left; x < begin; x++)
        row[x - left] = row[-x - left];
    for (Py_ssize_t x = end; x < right; x++)
        row[x - left] = row[reflected(x, width * scale) - left];
}

/* The enlarged picture, row by row: for each plane the latest SIDE rows, `width` apart. */
typedef struct {
    const Picture *source;
    Py_ssize_t left, right;
    Py_ssize_t next;                      /* the first row that is not computed yet */
    Py_ssize_t width;                     /* with a margin of `scale` on each side */
    float *column, *rows;
} Enlarged;

static int allocate_enlarged(Scratch *scratch, Enlarged *made, const Picture *source,
                             const Map *inner)
{
    *made = (Enlarged){.source = source, .left = inner->left - RADIUS,
                       .right = inner->right + RADIUS, .next = inner->top - RADIUS,
                       .width = inner->right - inner->left + 2 * (RADIUS + source->scale)};
    made->column = allocate(scratch, made->width + 4 * RADIUS);
    made->rows = allocate(scratch, 3 * SIDE * made->width);
    return made->column != NULL && made->rows != NULL;
}

static float *enlarged_row(const Enlarged *from, int plane, Py_ssize_t y)
{
    return from->rows + (plane * SIDE + (y + SIDE) % SIDE) * from->width + from->source->scale;
}

/* Filter each pixel of the picture by the taps that the map holds for it; rows from top to bottom
   in one call or several. */
static void apply_taps(Enlarged *enlarged, const Map *taps, float *out)
{
    const Picture *source = enlarged->source;
    Py_ssize_t height = source->height * source->scale, width = source->width * source->scale;
    for (Py_ssize_t y = taps->top; y < taps->bottom; y++) {
        for (; enlarged->next <= y + RADIUS; enlarged->next++)
            for (int plane = 0; plane < 3; plane++)
                enlarge_row(source, plane, enlarged->next, enlarged->left, enlarged->right,
                            enlarged->column, enlarged_row(enlarged, plane, enlarged->next));
        for (Py_ssize_t x = taps->left; x < taps->right; x += BLOCK) {
            float block[TAPS][BLOCK];
            Py_ssize_t count = minimum(BLOCK, taps->right - x);
            gather_taps(block, (const char *)pixel(taps, y, x), sizeof(float),
                        taps->pixel * (Py_ssize_t)sizeof(float), count);
            for (int plane = 0; plane < 3; plane++) {
                const float *around[SIDE];
                for (int k = 0; k < SIDE; k++)
                    around[k] = enlarged_row(enlarged, plane, y - RADIUS + k) + (x - taps->left);
                filter_block(out + (plane * height + y) * width + x, around,
                             (const float(*)[BLOCK])block, count);
            }
        }
    }
}

/* The buffers of Python's arguments, released at the end. */
typedef struct {
    Py_buffer views[16];
    int count;
} Buffers;

static void release(Buffers *buffers)
{
    while (buffers->count > 0)
        PyBuffer_Release(&buffers->views[--buffers->count]);
}

static Py_buffer *acquire(Buffers *buffers, PyObject *object, int flags, int dimensions,
                          const char *name)
{
    Py_buffer *view = &buffers->views[buffers->count];
    if (PyObject_GetBuffer(object, view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | flags) < 0)
        return NULL;
    buffers->count++;
    if (view->ndim == dimensions && view->itemsize == sizeof(float) &&
        strcmp(view->format, "f") == 0 && (uintptr_t)view->buf % sizeof(float) == 0)
        return view;
    PyErr_Format(PyExc_ValueError, "%s: %d dimensions of float32 are needed", name, dimensions);
    return NULL;
}

/* Return at least `count` floats that begin at a multiple of 64 bytes, as vectors need. */
static float *read_floats(Buffers *buffers, PyObject *object, int flags, Py_ssize_t count,
                          const char *name)
{
    Py_buffer *view = acquire(buffers, object, flags, 1, name);
    if (view == NULL)
        return NULL;
    if (view->shape[0] >= count && (uintptr_t)view->buf % 64 == 0)
        return view->buf;
    PyErr_Format(PyExc_ValueError, "%s: %zd numbers at a multiple of 64 bytes are needed", name,
                 count);
    return NULL;
}

/* Read maps x height x width x channels, at most `limit` maps; return their number, or -1. */
static int read_maps(Buffers *buffers, PyObject *object, int flags, int groups, Map *found,
                     int limit, const char *name)
{
    Py_buffer *view = acquire(buffers, object, flags, 4, name);
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

static int check_rectangle(const Rectangle *inner, Py_ssize_t height, Py_ssize_t width)
{
    if (inner->top >= 0 && inner->top < inner->bottom && inner->bottom <= height &&
        inner->left >= 0 && inner->left < inner->right && inner->right <= width)
        return 1;
    PyErr_SetString(PyExc_ValueError, "there is no such rectangle");
    return 0;
}

static int check_same_size(const Map *one, const Map *other)
{
    if (one->bottom == other->bottom && one->right == other->right)
        return 1;
    PyErr_SetString(PyExc_ValueError, "maps are not of one size");
    return 0;
}

/* Read the weights of a convolution, outputs x points x sources x channels x 16, and its biases,
   outputs x 16. */
static int read_kernel(Buffers *buffers, PyObject *pair, int side, Convolution *layer)
{
    PyObject *weights, *bias;
    Py_ssize_t points = points_of(side);
    if (!PyTuple_Check(pair)) {
        PyErr_SetString(PyExc_TypeError, "kernel: a pair of weights and bias is needed");
        return 0;
    }
    if (!PyArg_ParseTuple(pair, "OO", &weights, &bias))
        return 0;
    Py_ssize_t point_size = layer->sources * round_up(layer->channels, STEP) * GROUP;
    layer->weights =
        read_floats(buffers, weights, 0, layer->outputs * points * point_size, "weights");
    if (layer->weights == NULL)
        return 0;
    layer->bias = read_floats(buffers, bias, 0, layer->outputs * GROUP, "bias");
    return layer->bias != NULL;
}

static int read_scratch(Buffers *buffers, PyObject *object, Scratch *scratch)
{
    *scratch = (Scratch){.free = read_floats(buffers, object, PyBUF_WRITABLE, 0, "scratch")};
    if (scratch->free == NULL)
        return 0;
    scratch->available = buffers->views[buffers->count - 1].shape[0];
    return 1;
}

static PyObject *result(Buffers *buffers, const Scratch *scratch)
{
    release(buffers);
    if (PyErr_Occurred())
        return NULL;
    if (scratch->failed) {
        PyErr_SetString(PyExc_ValueError, "scratch: too small for this rectangle");
        return NULL;
    }
    Py_RETURN_NONE;
}

static int check_side(int side)
{
    if (side == 3 || side == 5)
        return 1;
    PyErr_SetString(PyExc_ValueError, "kernels are 3 x 3 or 5 x 5");
    return 0;
}

static int count_groups(int channels)
{
    if (channels >= 1 && channels <= 4096)
        return (channels + GROUP - 1) / GROUP;
    PyErr_SetString(PyExc_ValueError, "there are no such channels");
    return 0;
}

/* Arguments from Python. All arrays are float32 and contiguous; h x w is the size of a map, S the
   scale, H x W = S*h x S*w. Arrays that are read in vectors begin at a multiple of 64 bytes.

     features, out, skip, gradients   maps x h x w x C, where C is rounded up to a multiple of GROUP
     picture                          3 x h x w; restored 3 x H x W
     mean                             3, flat
     kernel                           a pair of weights and biases. Weights: groups of outputs x
                                      points x sources x channels (rounded up to a multiple of
                                      STEP) x GROUP, flat; 36 points for 3 x 3, 64 for 5 x 5.
                                      Biases: groups of outputs x GROUP, flat
     phases                           S x 5, flat
     rectangle                        (top, left, bottom, right) of the output, the last two
                                      exclusive
     scratch                          flat; see `convolution_floats`

   Raises ValueError if an argument does not fit. */

/* head(picture, mean, kernel, channels, rectified, out, rectangle, scratch): the first convolution,
   3 x h x w -> 1 x h x w x C. */
static PyObject *head(PyObject *module, PyObject *arguments)
{
    PyObject *picture, *mean, *pair, *target, *memory;
    int channels, rectified;
    Rectangle area;
    Buffers buffers = {.count = 0};
    Scratch scratch = {.failed = 0};
    Map out, inner, whole, from;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "OOOipO(nnnn)O", &picture, &mean, &pair, &channels, &rectified,
                          &target, &area.top, &area.left, &area.bottom, &area.right, &memory))
        return NULL;
    int groups = count_groups(channels);
    Convolution layer = {.from = &from, .sources = 1, .channels = 3, .groups = groups,
                         .outputs = groups, .scale = 1, .rectified = rectified};
    Py_buffer *planes = groups ? acquire(&buffers, picture, 0, 3, "picture") : NULL;
    const float *means = planes ? read_floats(&buffers, mean, 0, 3, "mean") : NULL;
    if (means == NULL || !read_kernel(&buffers, pair, 3, &layer) ||
        read_maps(&buffers, target, PyBUF_WRITABLE, groups, &out, 1, "out") != 1 ||
        !check_rectangle(&area, out.bottom, out.right) || !read_scratch(&buffers, memory, &scratch))
        return result(&buffers, &scratch);
    if (planes->shape[0] != 3 || planes->shape[1] != out.bottom || planes->shape[2] != out.right) {
        PyErr_SetString(PyExc_ValueError, "picture: not 3 planes of the size of the output");
        return result(&buffers, &scratch);
    }
    Py_BEGIN_ALLOW_THREADS
    whole = out;
    inner = part_of(out, area.top, area.left, area.bottom, area.right);
    if (allocate_around(&scratch, &from, &inner, 1, &whole, groups)) {
        write_picture(planes->buf, whole.bottom, whole.right, means, &from);
        convolve(3, &layer, &inner, &scratch);
    }
    Py_END_ALLOW_THREADS
    return result(&buffers, &scratch);
}

/* unit(features, opening, closing, channels, hidden, factor, out, rectangle, scratch): a residual
   unit of two convolutions with `hidden` channels between them, the first rectified; `factor` times
   the features is added. 1 x h x w x C -> 1 x h x w x C; `opening` and `closing` are kernels of
   3 x 3. */
static PyObject *unit(PyObject *module, PyObject *arguments)
{
    PyObject *features, *opening, *closing, *target, *memory;
    int channels, hidden;
    float factor;
    Rectangle area;
    Buffers buffers = {.count = 0};
    Scratch scratch = {.failed = 0};
    Map from, between, out, inner;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "OOOiifO(nnnn)O", &features, &opening, &closing, &channels,
                          &hidden, &factor, &target, &area.top, &area.left, &area.bottom,
                          &area.right, &memory))
        return NULL;
    int groups = count_groups(channels), hidden_groups = groups ? count_groups(hidden) : 0;
    Convolution first = {.from = &from, .sources = 1, .channels = channels, .groups = hidden_groups,
                         .outputs = hidden_groups, .scale = 1, .rectified = 1};
    Convolution second = {.from = &between, .sources = 1, .channels = hidden, .groups = groups,
                          .outputs = groups, .scale = 1, .skip = &from, .factor = factor};
    if (hidden_groups && read_maps(&buffers, features, 0, groups, &from, 1, "features") == 1 &&
        read_maps(&buffers, target, PyBUF_WRITABLE, groups, &out, 1, "out") == 1 &&
        check_same_size(&from, &out) && check_rectangle(&area, out.bottom, out.right) &&
        read_kernel(&buffers, opening, 3, &first) &&
        read_kernel(&buffers, closing, 3, &second) && read_scratch(&buffers, memory, &scratch)) {
        Py_BEGIN_ALLOW_THREADS
        inner = part_of(out, area.top, area.left, area.bottom, area.right);
        if (allocate_tiles_around(&scratch, &between, &inner, 1, &out, hidden_groups)) {
            convolve(3, &first, &between, &scratch);
            clear_outside(&between);
            convolve(3, &second, &inner, &scratch);
        }
        Py_END_ALLOW_THREADS
    }
    return result(&buffers, &scratch);
}

/* reduction(features, kernel, channels, skip, factor, out, rectangle, scratch): one convolution of
   several maps, k x h x w x C with k at most MAX_SOURCES; `factor` times the skip connection,
   1 x h x w x C, is added. -> 1 x h x w x C. */
static PyObject *reduction(PyObject *module, PyObject *arguments)
{
    PyObject *features, *pair, *other, *target, *memory;
    int channels;
    float factor;
    Rectangle area;
    Buffers buffers = {.count = 0};
    Scratch scratch = {.failed = 0};
    Map from[MAX_SOURCES], skip, out, inner;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "OOiOfO(nnnn)O", &features, &pair, &channels, &other, &factor,
                          &target, &area.top, &area.left, &area.bottom, &area.right, &memory))
        return NULL;
    int groups = count_groups(channels);
    Convolution layer = {.from = from, .channels = channels, .groups = groups, .outputs = groups,
                         .scale = 1, .skip = &skip, .factor = factor};
    layer.sources =
        groups ? read_maps(&buffers, features, 0, groups, from, MAX_SOURCES, "features") : -1;
    if (layer.sources > 0 && read_maps(&buffers, other, 0, groups, &skip, 1, "skip") == 1 &&
        read_maps(&buffers, target, PyBUF_WRITABLE, groups, &out, 1, "out") == 1 &&
        check_same_size(&from[0], &out) && check_same_size(&skip, &out) &&
        check_rectangle(&area, out.bottom, out.right) && read_kernel(&buffers, pair, 3, &layer) &&
        read_scratch(&buffers, memory, &scratch)) {
        Py_BEGIN_ALLOW_THREADS
        inner = part_of(out, area.top, area.left, area.bottom, area.right);
        convolve(3, &layer, &inner, &scratch);
        Py_END_ALLOW_THREADS
    }
    return result(&buffers, &scratch);
}

/* Arguments of `convolution` and `weight_gradient`: features, a kernel or gradients (`other`), the
   kernel's side, the channels of features and outputs, the array to write, a rectangle of the
   outputs, and scratch. */
typedef struct {
    PyObject *features, *other, *target, *memory;
    int side, channels;
    int inputs, outputs;                  /* groups of 16 channels */
    Rectangle area;
} PlainArguments;

static int read_plain(PyObject *arguments, PlainArguments *given)
{
    int outputs;
    Rectangle *area = &given->area;
    if (!PyArg_ParseTuple(arguments, "OOiiiO(nnnn)O", &given->features, &given->other, &given->side,
                          &given->channels, &outputs, &given->target, &area->top, &area->left,
                          &area->bottom, &area->right, &given->memory))
        return 0;
    given->inputs = count_groups(given->channels);
    given->outputs = given->inputs ? count_groups(outputs) : 0;
    return given->outputs && check_side(given->side);
}

/* convolution(features, kernel, side, channels, outputs, out, rectangle, scratch): one convolution
   of 3 x 3 or 5 x 5, without activation. 1 x h x w x I -> 1 x h x w x O. */
static PyObject *convolution(PyObject *module, PyObject *arguments)
{
    PlainArguments given;
    Buffers buffers = {.count = 0};
    Scratch scratch = {.failed = 0};
    Map from, out, inner;
    (void)module;
    if (!read_plain(arguments, &given))
        return NULL;
    const Rectangle *area = &given.area;
    Convolution layer = {.from = &from, .sources = 1, .channels = given.channels,
                         .groups = given.outputs, .outputs = given.outputs, .scale = 1};
    if (read_maps(&buffers, given.features, 0, given.inputs, &from, 1, "features") == 1 &&
        read_maps(&buffers, given.target, PyBUF_WRITABLE, given.outputs, &out, 1, "out") == 1 &&
        check_same_size(&from, &out) && check_rectangle(area, out.bottom, out.right) &&
        read_kernel(&buffers, given.other, given.side, &layer) &&
        read_scratch(&buffers, given.memory, &scratch)) {
        Py_BEGIN_ALLOW_THREADS
        inner = part_of(out, area->top, area->left, area->bottom, area->right);
        convolve(given.side, &layer, &inner, &scratch);
        Py_END_ALLOW_THREADS
    }
    return result(&buffers, &scratch);
}

/* weight_gradient(features, gradients, side, channels, outputs, sums, rectangle, scratch): add to
   `sums` the gradient of a convolution's weights that follows from the gradients of its outputs in
   the rectangle, at the points of Winograd's filtering and in the layout of the weights. Features
   1 x h x w x I, gradients 1 x h x w x O, sums O/GROUP x points x I x GROUP, flat. */
static PyObject *weight_gradient(PyObject *module, PyObject *arguments)
{
    PlainArguments given;
    Buffers buffers = {.count = 0};
    Scratch scratch = {.failed = 0};
    Map from, by;
    (void)module;
    if (!read_plain(arguments, &given))
        return NULL;
    const Rectangle *area = &given.area;
    int inputs = given.inputs, outputs = given.outputs;
    Py_ssize_t points = points_of(given.side);
    Gradient *add = given.side == 3 ? kernels->gradient_3 : kernels->gradient_5;
    float *sums = read_floats(&buffers, given.target, PyBUF_WRITABLE,
                              outputs * points * inputs * GROUP * GROUP, "sums");
    if (sums != NULL && read_maps(&buffers, given.features, 0, inputs, &from, 1, "features") == 1 &&
        read_maps(&buffers, given.other, 0, outputs, &by, 1, "gradients") == 1 &&
        check_same_size(&from, &by) && check_rectangle(area, by.bottom, by.right) &&
        read_scratch(&buffers, given.memory, &scratch)) {
        float *free = allocate(&scratch, gradient_scratch(given.side, inputs * GROUP));
        by = part_of(by, area->top, area->left, area->bottom, area->right);
        Py_BEGIN_ALLOW_THREADS
        if (free != NULL)
            add(&from, &by, inputs, outputs, sums, free);
        Py_END_ALLOW_THREADS
    }
    return result(&buffers, &scratch);
}

/* The four convolutions after the body, and the filters. */
typedef struct {
    Convolution up, mix, merge, taps;
    Map features;                         /* of the body */
    Picture source;
    float *out;                           /* 3 x height x width, enlarged */
} Tail;

/* A convolution's output on its way down a rectangle. */
typedef struct {
    Map map;                              /* rows that are still needed */
    Py_ssize_t rows;                      /* that there is memory for */
    Py_ssize_t step;                      /* rows of a tile */
    int side;                             /* of the kernel */
    Convolution layer;
} Rolling;

/* Begin an empty map of the columns from `left` to `right` that has memory for `rows` rows. */
static int begin_rolling(Scratch *scratch, Rolling *made, int side, const Convolution *layer,
                         const Map *from, Py_ssize_t top, Py_ssize_t left, Py_ssize_t right,
                         Py_ssize_t rows)
{
    Map map = {.top = top, .left = left, .bottom = top + rows, .right = right};
    if (!allocate_map(scratch, &map, layer->groups))
        return 0;
    map.bottom = top;
    *made = (Rolling){.map = map, .rows = rows, .side = side, .layer = *layer,
                      .step = (Py_ssize_t)TILE * layer->scale};
    made->layer.from = from;
    return 1;
}

/* Return where a map ends that has whole tiles down to row `bottom` at least, or all rows. */
static Py_ssize_t end_of_tiles(const Rolling *rolling, Py_ssize_t bottom, const Map *whole)
{
    const Map *map = &rolling->map;
    return minimum(whole->bottom, map->bottom + round_up(bottom - map->bottom, rolling->step));
}

/* Compute the rows of a map down to `bottom`; drop those above `needed`. */
static void roll(Rolling *rolling, Py_ssize_t needed, Py_ssize_t bottom, Scratch *scratch)
{
    Map *map = &rolling->map;
    needed = minimum(needed, map->bottom);
    if (needed > map->top) {
        memmove(map->base, pixel(map, needed, map->left),
                (size_t)((map->bottom - needed) * map->row) * sizeof(float));
        map->top = needed;
    }
    scratch->failed |= bottom - map->top > rolling->rows;
    if (bottom <= map->bottom || scratch->failed)
        return;
    Map fresh = *map;
    fresh.base = pixel(map, map->bottom, map->left);
    fresh.top = map->bottom;
    map->bottom = fresh.bottom = bottom;
    convolve(rolling->side, &rolling->layer, &fresh, scratch);
    clear_outside(&fresh);
}

/* Restore a rectangle from top to bottom, a few rows at a time, so that no row is computed twice
   and what is between two convolutions stays in the cache.

   Wherever rows begin and end, only whole tiles are used, but for the end of the picture. So digits
   depend on the columns of a rectangle alone. */
static void restore_rectangle(const Tail *tail, const Rectangle *area, Scratch *scratch)
{
    /* Of each map: the rows of a strip, and what its last tiles and the next one's first reach. */
    enum { MORE_MIXED = 12, MORE_MERGED = 8, MORE_ENLARGED = 16 };
    int scale = tail->source.scale;
    Py_ssize_t rows = round_up(STRIP, TILE * scale);
    Map whole = {.bottom = tail->source.height * scale, .right = tail->source.width * scale};
    Map taps = {.left = area->left, .right = area->right, .top = area->top, .bottom = area->top,
                .pixel = GROUP, .row = (area->right - area->left) * GROUP};
    Py_ssize_t top = area->top, left = area->left, right = area->right;
    Rolling up, mix, merge;
    Convolution last = tail->taps;
    Enlarged enlarged;
    last.from = &merge.map;
    taps.base = allocate(scratch, rows * taps.row);
    if (taps.base == NULL || !allocate_enlarged(scratch, &enlarged, &tail->source, &taps) ||
        !begin_rolling(scratch, &mix, 5, &tail->mix, scale > 1 ? &up.map : &tail->features, top - 2,
                       left - 2, minimum(whole.right, right + 2), rows + MORE_MIXED) ||
        !begin_rolling(scratch, &merge, 3, &tail->merge, &mix.map, top - 1, left - 1,
                       minimum(whole.right, right + 1), rows + MORE_MERGED))
        return;
    if (scale > 1 &&
        !begin_rolling(scratch, &up, 3, &tail->up, &tail->features, round_down(top - 4, scale),
                       round_down(left - 4, scale),
                       minimum(whole.right, round_up(mix.map.right + 2, scale)),
                       rows + 8 * scale + MORE_ENLARGED))
        return;
    for (; taps.top < area->bottom; taps.top = taps.bottom) {
        taps.bottom = minimum(area->bottom, taps.top + rows);
        Py_ssize_t end = taps.top + round_up(taps.bottom - taps.top, TILE);
        Py_ssize_t merged = end_of_tiles(&merge, end + 1, &whole);
        Py_ssize_t mixed = end_of_tiles(&mix, merged + 1, &whole);
        if (scale > 1)
            roll(&up, mix.map.bottom - 2, end_of_tiles(&up, mixed + 2, &whole), scratch);
        roll(&mix, merge.map.bottom - 1, mixed, scratch);
        roll(&merge, taps.top - 1, merged, scratch);
        convolve(3, &last, &taps, scratch);
        apply_taps(&enlarged, &taps, tail->out);
    }
}

/* tail(features, up, mix, merge, taps, channels, scale, phases, picture, out, rectangle, scratch):
   the part of LAPAR after its body, from features 1 x h x w x C and the picture 3 x h x w to the
   restored picture 3 x H x W; `up` is None at scale 1. The rectangle is one of the output. */
static PyObject *tail(PyObject *module, PyObject *arguments)
{
    PyObject *features, *up, *mix, *merge, *taps, *phases, *picture, *target, *memory;
    int channels, scale;
    Rectangle area;
    Buffers buffers = {.count = 0};
    Scratch scratch = {.failed = 0};
    Tail work = {.out = NULL};
    (void)module;
    if (!PyArg_ParseTuple(arguments, "OOOOOiiOOO(nnnn)O", &features, &up, &mix, &merge, &taps,
                          &channels, &scale, &phases, &picture, &target, &area.top, &area.left,
                          &area.bottom, &area.right, &memory))
        return NULL;
    int groups = count_groups(channels);
    if (groups && (scale < 1 || scale > 16)) {
        PyErr_SetString(PyExc_ValueError, "there is no such scale");
        groups = 0;
    }
    Convolution plain = {.sources = 1, .channels = channels, .groups = groups, .outputs = groups,
                         .scale = 1};
    work.up = work.mix = work.merge = work.taps = plain;
    work.up.scale = scale;
    work.up.outputs = groups * scale * scale;
    work.up.rectified = work.merge.rectified = 1;
    work.taps.outputs = 1;
    Py_buffer *planes = groups ? acquire(&buffers, picture, 0, 3, "picture") : NULL;
    Py_buffer *restored = planes ? acquire(&buffers, target, PyBUF_WRITABLE, 3, "out") : NULL;
    if (restored == NULL ||
        read_maps(&buffers, features, 0, groups, &work.features, 1, "features") != 1 ||
        (scale > 1 && !read_kernel(&buffers, up, 3, &work.up)) ||
        !read_kernel(&buffers, mix, 5, &work.mix) ||
        !read_kernel(&buffers, merge, 3, &work.merge) ||
        !read_kernel(&buffers, taps, 3, &work.taps) || !read_scratch(&buffers, memory, &scratch))
        return result(&buffers, &scratch);
    work.source = (Picture){.planes = planes->buf, .height = planes->shape[1],
                            .width = planes->shape[2], .scale = scale,
                            .phases = read_floats(&buffers, phases, 0, scale * SIDE, "phases")};
    work.out = restored->buf;
    if (work.source.phases == NULL)
        return result(&buffers, &scratch);
    Py_ssize_t height = planes->shape[1] * scale, width = planes->shape[2] * scale;
    if (planes->shape[0] != 3 || restored->shape[0] != 3 || restored->shape[1] != height ||
        restored->shape[2] != width || work.features.bottom != planes->shape[1] ||
        work.features.right != planes->shape[2] || height <= RADIUS || width <= RADIUS)
        PyErr_SetString(PyExc_ValueError, "picture, features and output do not fit together");
    else if (check_rectangle(&area, height, width)) {
        Py_BEGIN_ALLOW_THREADS
        restore_rectangle(&work, &area, &scratch);
        Py_END_ALLOW_THREADS
    }
    return result(&buffers, &scratch);
}

/* Rearrange 3 * scale * scale channels to the pixels of three planes. */
static void pixel_shuffle(const Map *phases, int scale, float *out, Py_ssize_t height,
                          Py_ssize_t width)
{
    for (Py_ssize_t y = phases->top; y < phases->bottom; y++)
        for (int row_index = 0; row_index < 3 * scale; row_index++) {
            Py_ssize_t plane = row_index / scale, below = y * scale + row_index % scale;
            float *to = out + (plane * height + below) * width + phases->left * scale;
            const float *from = pixel(phases, y, phases->left) + row_index * scale;
            for (Py_ssize_t x = phases->left; x < phases->right; x++, from += phases->pixel)
                for (int column = 0; column < scale; column++)
                    *to++ = from[column];
        }
}

enum { SHIFTED = 9 }; /* kernels of 3 x 3 that one of 9 x 9 is divided into */

/* reconstruction(features, kernel, channels, scale, mean, picture, out, rectangle, scratch): the
   last two convolutions of AWSRN and its pixel shuffle. The convolution of the features, 9 x 9, is
   computed as nine of 3 x 3, whose inputs are shifted by multiples of three pixels; the convolution
   of the picture is the tenth. Features 1 x h x w x C and the picture 3 x h x w -> 3 x H x W. The
   rectangle is one of the features. */
static PyObject *reconstruction(PyObject *module, PyObject *arguments)
{
    PyObject *features, *pair, *mean, *picture, *target, *memory;
    int channels, scale;
    Rectangle area;
    Buffers buffers = {.count = 0};
    Scratch scratch = {.failed = 0};
    Map from[SHIFTED + 1], whole, phases;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "OOiiOOO(nnnn)O", &features, &pair, &channels, &scale, &mean,
                          &picture, &target, &area.top, &area.left, &area.bottom, &area.right,
                          &memory))
        return NULL;
    int groups = count_groups(channels);
    if (groups && (scale < 1 || scale > 16)) {
        PyErr_SetString(PyExc_ValueError, "there is no such scale");
        groups = 0;
    }
    int outputs = groups ? count_groups(3 * scale * scale) : 0;
    Convolution layer = {.from = from, .sources = SHIFTED + 1, .channels = channels,
                         .groups = outputs, .outputs = outputs, .scale = 1};
    Py_buffer *planes = groups ? acquire(&buffers, picture, 0, 3, "picture") : NULL;
    Py_buffer *restored = planes ? acquire(&buffers, target, PyBUF_WRITABLE, 3, "out") : NULL;
    const float *means = restored ? read_floats(&buffers, mean, 0, 3, "mean") : NULL;
    if (means == NULL || read_maps(&buffers, features, 0, groups, &whole, 1, "features") != 1 ||
        !read_kernel(&buffers, pair, 3, &layer) ||
        !check_rectangle(&area, whole.bottom, whole.right) ||
        !read_scratch(&buffers, memory, &scratch))
        return result(&buffers, &scratch);
    Py_ssize_t height = whole.bottom * scale, width = whole.right * scale;
    if (planes->shape[0] != 3 || planes->shape[1] != whole.bottom ||
        planes->shape[2] != whole.right || restored->shape[0] != 3 ||
        restored->shape[1] != height || restored->shape[2] != width) {
        PyErr_SetString(PyExc_ValueError, "picture, features and output do not fit together");
        return result(&buffers, &scratch);
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
    if (allocate_around(&scratch, &from[SHIFTED], &phases, 1, &whole, groups) &&
        allocate_map(&scratch, &phases, outputs)) {
        write_picture(planes->buf, whole.bottom, whole.right, means, &from[SHIFTED]);
        convolve(3, &layer, &phases, &scratch);
        pixel_shuffle(&phases, scale, restored->buf, height, width);
    }
    Py_END_ALLOW_THREADS
    return result(&buffers, &scratch);
}

/* convolution_floats(side, channels): the floats of scratch that one convolution needs. `channels`
   is the sum over all its sources, each rounded up to a multiple of GROUP. */
static PyObject *convolution_floats(PyObject *module, PyObject *arguments)
{
    int side, channels;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "ii", &side, &channels) || !check_side(side))
        return NULL;
    return PyLong_FromSsize_t(convolution_scratch(side, channels));
}

/* gradient_floats(side, channels): the floats of scratch that `weight_gradient` needs; `channels`
   is the number of channels of the features. */
static PyObject *gradient_floats(PyObject *module, PyObject *arguments)
{
    int side, channels;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "ii", &side, &channels) || !check_side(side))
        return NULL;
    return PyLong_FromSsize_t(gradient_scratch(side, channels));
}

/* choose(bits): compute in vectors of `bits` from now on, or with 0 in the widest. Returns False,
   and changes nothing, if the processor or the build has none. For tests: call it only while no
   other function runs. */
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

/* vectors(): the bits of the vectors in use. */
static PyObject *vectors(PyObject *module, PyObject *arguments)
{
    (void)module;
    (void)arguments;
    return PyLong_FromLong(kernels->bits);
}

/* widest(): the bits of the widest vectors that the processor has, also where this build has no
   kernels for them. */
static PyObject *widest(PyObject *module, PyObject *arguments)
{
    int bits = 128;
    (void)module;
    (void)arguments;
#ifdef __x86_64__
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2"))
        bits = __builtin_cpu_supports("avx512f") ? 512 : 256;
#endif
    return PyLong_FromLong(bits);
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
                                {"widest", widest, METH_NOARGS, NULL},
                                {NULL, NULL, 0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_network", NULL, 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__network(void)
{
    PyObject *module = PyModule_Create(&definition);
    kernels = kernels_of(0);
    if (module != NULL && (PyModule_AddIntConstant(module, "LAYOUT", LAYOUT) < 0 ||
                           PyModule_AddIntConstant(module, "GROUP", GROUP) < 0 ||
                           PyModule_AddIntConstant(module, "STEP", STEP) < 0 ||
                           PyModule_AddIntConstant(module, "TILE", TILE) < 0 ||
                           PyModule_AddIntConstant(module, "STRIP", STRIP) < 0 ||
                           PyModule_AddIntConstant(module, "MAX_SOURCES", MAX_SOURCES) < 0)) {
        Py_DECREF(module);
        return NULL;
    }
    return module;
}

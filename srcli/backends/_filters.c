/* Filter every pixel with a 5x5 kernel of its own, in one pass over memory.

   The same sums in the same order as `apply_filters` of srcli/models/lapar/network.py. As nodes of
   a graph each of the 24 neighbours is a copy of the picture, written to memory and read again;
   here a row of the taps is read once, and the five rows of the picture stay in the cache.

   Knows Python's limited API only, so one build serves every version from 3.11 on. */

#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <string.h>

enum { SIDE = 5, REACH = 2, TAPS = 13, BLOCK = 128 };

#ifdef _MSC_VER
#define restrict __restrict
#endif

/* Compiled for several generations of processors, and chosen when the library is loaded. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define FOR_EVERY_PROCESSOR \
    __attribute__((target_clones("arch=skylake-avx512", "arch=haswell", "default")))
#else
#define FOR_EVERY_PROCESSOR
#endif

/* A block of pixels of one plane. Rows are of the picture, from two above to two below, and begin
   two pixels to the left of the block. */
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

/* The taps of a block of pixels, wherever they lie, tap by tap. */
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

/* A row of one plane with its reflected border. */
static void copy_row(float *restrict row, const char *from, Py_ssize_t stride, Py_ssize_t width)
{
    if (stride == sizeof(float))
        memcpy(row + REACH, from, (size_t)width * sizeof(float));
    else
        for (Py_ssize_t x = 0; x < width; x++)
            row[REACH + x] = *(const float *)(from + x * stride);
    for (Py_ssize_t x = 0; x < REACH; x++) {
        row[x] = row[2 * REACH - x];
        row[REACH + width + x] = row[REACH + reflected(width + x, width)];
    }
}

/* Rows `top` to `bottom` of one picture. `scratch` has room for five rows of each plane; they are
   reused in turn. */
static void filter_rows(const Py_buffer *picture, const Py_buffer *taps, const Py_buffer *out,
                        Py_ssize_t n, Py_ssize_t top, Py_ssize_t bottom, float *scratch)
{
    Py_ssize_t planes = picture->shape[1], height = picture->shape[2], width = picture->shape[3];
    Py_ssize_t padded = width + 2 * REACH;
    float block[TAPS][BLOCK];
#define ROW(plane, y) (scratch + ((plane) * SIDE + ((y) + SIDE) % SIDE) * padded)
    for (Py_ssize_t below = top - REACH; below < bottom + REACH; below++) {
        const char *from = (const char *)picture->buf + n * picture->strides[0] +
                           reflected(below, height) * picture->strides[2];
        for (Py_ssize_t plane = 0; plane < planes; plane++)
            copy_row(ROW(plane, below), from + plane * picture->strides[1], picture->strides[3],
                     width);
        Py_ssize_t y = below - REACH;
        if (y < top)
            continue;
        for (Py_ssize_t left = 0; left < width; left += BLOCK) {
            Py_ssize_t count = width - left < BLOCK ? width - left : BLOCK;
            gather_taps(block,
                        (const char *)taps->buf + n * taps->strides[0] + y * taps->strides[2] +
                            left * taps->strides[3],
                        taps->strides[1], taps->strides[3], count);
            for (Py_ssize_t plane = 0; plane < planes; plane++) {
                const float *rows[SIDE];
                for (int row = 0; row < SIDE; row++)
                    rows[row] = ROW(plane, y - REACH + row) + left;
                char *to = (char *)out->buf + n * out->strides[0] + plane * out->strides[1] +
                           y * out->strides[2];
                filter_block((float *)to + left, rows, (const float(*)[BLOCK])block, count);
            }
        }
    }
#undef ROW
}

static int open_array(PyObject *object, Py_buffer *view, int flags, const char *name)
{
    if (PyObject_GetBuffer(object, view, PyBUF_STRIDES | PyBUF_FORMAT | flags) < 0)
        return -1;
    if (view->ndim == 4 && view->itemsize == sizeof(float) && strcmp(view->format, "f") == 0)
        return 0;
    PyErr_Format(PyExc_ValueError, "%s: four dimensions of float32 are needed", name);
    PyBuffer_Release(view);
    return -1;
}

static const char *flaw(const Py_buffer *picture, const Py_buffer *taps, const Py_buffer *out,
                        Py_ssize_t top, Py_ssize_t bottom)
{
    for (int axis = 0; axis < 4; axis++) {
        if (out->shape[axis] != picture->shape[axis])
            return "out has another shape than picture";
        if (axis != 1 && taps->shape[axis] != picture->shape[axis])
            return "taps are of another size than picture";
    }
    if (taps->shape[1] != TAPS)
        return "13 taps are needed";
    if (picture->shape[2] <= REACH || picture->shape[3] <= REACH)
        return "sides of at least 3 pixels are needed";
    if (out->strides[3] != sizeof(float))
        return "the rows of out must be contiguous";
    if (top < 0 || top > bottom || bottom > picture->shape[2])
        return "there are no such rows";
    return NULL;
}

static PyObject *filter(PyObject *module, PyObject *arguments)
{
    PyObject *objects[3];
    Py_ssize_t top, bottom;
    Py_buffer picture, taps, out;
    float *scratch = NULL;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "OOOnn", &objects[0], &objects[1], &objects[2], &top, &bottom))
        return NULL;
    if (open_array(objects[0], &picture, 0, "picture") < 0)
        return NULL;
    if (open_array(objects[1], &taps, 0, "taps") < 0)
        goto close_picture;
    if (open_array(objects[2], &out, PyBUF_WRITABLE, "out") < 0)
        goto close_taps;
    const char *wrong = flaw(&picture, &taps, &out, top, bottom);
    if (wrong != NULL) {
        PyErr_SetString(PyExc_ValueError, wrong);
        goto close_out;
    }
    size_t padded = (size_t)picture.shape[3] + 2 * REACH;
    scratch = PyMem_Malloc((size_t)picture.shape[1] * SIDE * padded * sizeof(float));
    if (scratch == NULL) {
        PyErr_NoMemory();
        goto close_out;
    }
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t n = 0; n < picture.shape[0]; n++)
        filter_rows(&picture, &taps, &out, n, top, bottom, scratch);
    Py_END_ALLOW_THREADS
    PyMem_Free(scratch);
close_out:
    PyBuffer_Release(&out);
close_taps:
    PyBuffer_Release(&taps);
close_picture:
    PyBuffer_Release(&picture);
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {{"filter", filter, METH_VARARGS, NULL}, {NULL, NULL, 0, NULL}};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_filters", NULL, 0, methods,
                                        NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__filters(void)
{
    return PyModule_Create(&definition);
}

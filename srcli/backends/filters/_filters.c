/* Filter every pixel with a 5x5 kernel of its own, in one pass over memory.

   Computes the same sums in the same order as `apply_filters` of srcli/models/lapar/network.py. As
   nodes of a graph each of the 24 neighbours is a copy of the picture, written to memory and read
   again; here a row of the taps is read once, and the five rows of the picture stay in the cache.

   Uses only Python's limited API, so one build serves every version from 3.11 on. */

#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "_filter_block.h"

/* Add the gradient by the taps of one plane, given that by its filtered pixels in `weight`. `rows`
   as for `filter_block`. */
FOR_EVERY_PROCESSOR
static void add_gradient(float (*restrict taps)[BLOCK], const float *const rows[SIDE],
                         const float *restrict weight, Py_ssize_t count)
{
    for (int tap = 0; tap < TAPS - 1; tap++) {
        const float *one = rows[tap / SIDE] + tap % SIDE;
        const float *other = rows[SIDE - 1 - tap / SIDE] + (SIDE - 1 - tap % SIDE);
        for (Py_ssize_t x = 0; x < count; x++)
            taps[tap][x] += weight[x] * (one[x] + other[x]);
    }
    for (Py_ssize_t x = 0; x < count; x++)
        taps[TAPS - 1][x] += weight[x] * rows[RADIUS][x + RADIUS];
}

/* Copy the taps of a block of pixels to an array of any strides: the inverse of `gather_taps`. */
FOR_EVERY_PROCESSOR
static void scatter_taps(const float (*restrict taps)[BLOCK], char *to, Py_ssize_t tap_stride,
                         Py_ssize_t pixel_stride, Py_ssize_t count)
{
    if (pixel_stride == sizeof(float)) {
        for (int tap = 0; tap < TAPS; tap++)
            memcpy(to + tap * tap_stride, taps[tap], (size_t)count * sizeof(float));
        return;
    }
    for (Py_ssize_t x = 0; x < count; x++)
        for (int tap = 0; tap < TAPS; tap++)
            *(float *)(to + tap * tap_stride + x * pixel_stride) = taps[tap][x];
}

/* Copy a row of one plane, with its border reflected. */
static void copy_row(float *restrict row, const char *from, Py_ssize_t stride, Py_ssize_t width)
{
    if (stride == sizeof(float))
        memcpy(row + RADIUS, from, (size_t)width * sizeof(float));
    else
        for (Py_ssize_t x = 0; x < width; x++)
            row[RADIUS + x] = *(const float *)(from + x * stride);
    for (Py_ssize_t x = 0; x < RADIUS; x++) {
        row[x] = row[2 * RADIUS - x];
        row[RADIUS + width + x] = row[RADIUS + reflected(width + x, width)];
    }
}

/* The arrays of one call. It computes the filtered picture from the taps or, if `backwards`, the
   gradient by the taps from that by the filtered picture. */
typedef struct {
    Py_buffer picture, taps, filtered;
    int backwards;
} Work;

static char *element(const Py_buffer *array, Py_ssize_t n, Py_ssize_t plane, Py_ssize_t y,
                     Py_ssize_t x)
{
    return (char *)array->buf + n * array->strides[0] + plane * array->strides[1] +
           y * array->strides[2] + x * array->strides[3];
}

/* Compute a block of pixels of one row. */
static void filter_one_block(const Work *work, float *scratch, Py_ssize_t padded, Py_ssize_t n,
                             Py_ssize_t y, Py_ssize_t left, Py_ssize_t count)
{
    float block[TAPS][BLOCK];
    const Py_buffer *taps = &work->taps;
    if (work->backwards)
        memset(block, 0, sizeof block);
    else
        gather_taps(block, element(taps, n, 0, y, left), taps->strides[1], taps->strides[3], count);
    for (Py_ssize_t plane = 0; plane < work->picture.shape[1]; plane++) {
        const float *rows[SIDE];
        for (int k = 0; k < SIDE; k++)
            rows[k] = scratch + (plane * SIDE + (y - RADIUS + k + SIDE) % SIDE) * padded + left;
        float *filtered = (float *)element(&work->filtered, n, plane, y, left);
        if (work->backwards)
            add_gradient(block, rows, filtered, count);
        else
            filter_block(filtered, rows, (const float(*)[BLOCK])block, count);
    }
    if (work->backwards)
        scatter_taps((const float(*)[BLOCK])block, element(taps, n, 0, y, left), taps->strides[1],
                     taps->strides[3], count);
}

/* Compute rows `top` to `bottom` of one picture. `scratch` holds five rows of each plane, row y at
   index y % 5. */
static void filter_rows(const Work *work, float *scratch, Py_ssize_t n, Py_ssize_t top,
                        Py_ssize_t bottom)
{
    const Py_buffer *picture = &work->picture;
    Py_ssize_t height = picture->shape[2], width = picture->shape[3];
    Py_ssize_t padded = width + 2 * RADIUS;
    for (Py_ssize_t below = top - RADIUS; below < bottom + RADIUS; below++) {
        for (Py_ssize_t plane = 0; plane < picture->shape[1]; plane++)
            copy_row(scratch + (plane * SIDE + (below + SIDE) % SIDE) * padded,
                     element(picture, n, plane, reflected(below, height), 0), picture->strides[3],
                     width);
        Py_ssize_t y = below - RADIUS;
        for (Py_ssize_t left = 0; y >= top && left < width; left += BLOCK)
            filter_one_block(work, scratch, padded, n, y, left,
                             width - left < BLOCK ? width - left : BLOCK);
    }
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

static const char *mismatch(const Work *work, Py_ssize_t top, Py_ssize_t bottom)
{
    const Py_ssize_t *shape = work->picture.shape;
    for (int axis = 0; axis < 4; axis++) {
        if (work->filtered.shape[axis] != shape[axis])
            return "the filtered picture has another shape than the picture";
        if (axis != 1 && work->taps.shape[axis] != shape[axis])
            return "taps are of another size than the picture";
    }
    if (work->taps.shape[1] != TAPS)
        return "13 taps are needed";
    if (shape[2] <= RADIUS || shape[3] <= RADIUS)
        return "sides of at least 3 pixels are needed";
    if (work->filtered.strides[3] != sizeof(float))
        return "the rows of the filtered picture must be contiguous";
    if (top < 0 || top > bottom || bottom > shape[2])
        return "there are no such rows";
    return NULL;
}

/* Return the bytes of five padded rows of each plane; 0 if that overflows. An array may have
   strides of 0, so its shape can be larger than any memory. */
static size_t scratch_bytes(Py_ssize_t planes, Py_ssize_t width)
{
    const Py_ssize_t maximum = PY_SSIZE_T_MAX / (Py_ssize_t)(SIDE * sizeof(float));
    if (width > maximum - 2 * RADIUS || (planes > 0 && width + 2 * RADIUS > maximum / planes))
        return 0;
    return ((size_t)planes * (size_t)(width + 2 * RADIUS) * SIDE + 1) * sizeof(float);
}

static int filter_picture(const Work *work, Py_ssize_t top, Py_ssize_t bottom)
{
    const char *message = mismatch(work, top, bottom);
    if (message != NULL) {
        PyErr_SetString(PyExc_ValueError, message);
        return -1;
    }
    const Py_ssize_t *shape = work->picture.shape;
    size_t bytes = scratch_bytes(shape[1], shape[3]);
    float *scratch = bytes ? PyMem_Malloc(bytes) : NULL;
    if (scratch == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t n = 0; n < shape[0]; n++)
        filter_rows(work, scratch, n, top, bottom);
    Py_END_ALLOW_THREADS
    PyMem_Free(scratch);
    return 0;
}

static PyObject *run(PyObject *arguments, int backwards)
{
    PyObject *picture, *taps, *filtered;
    Py_ssize_t top, bottom;
    Work work = {.backwards = backwards};
    int done = -1;
    if (!PyArg_ParseTuple(arguments, "OOOnn", &picture, &taps, &filtered, &top, &bottom))
        return NULL;
    if (open_array(picture, &work.picture, 0, "picture") < 0)
        return NULL;
    if (open_array(taps, &work.taps, backwards ? PyBUF_WRITABLE : 0, "taps") == 0) {
        if (open_array(filtered, &work.filtered, backwards ? 0 : PyBUF_WRITABLE, "filtered") == 0) {
            done = filter_picture(&work, top, bottom);
            PyBuffer_Release(&work.filtered);
        }
        PyBuffer_Release(&work.taps);
    }
    PyBuffer_Release(&work.picture);
    if (done < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* filter(picture, taps, filtered, top, bottom): write rows `top` to `bottom` of `filtered`.

   All arrays are float32: picture and filtered n x c x H x W, taps n x 13 x H x W; any strides, but
   rows of `filtered` are contiguous. Sides are at least 3. Raises ValueError if an argument does
   not fit. */
static PyObject *filter(PyObject *module, PyObject *arguments)
{
    (void)module;
    return run(arguments, 0);
}

/* gradient(picture, taps, filtered, top, bottom): write rows `top` to `bottom` of the gradient of a
   loss by the taps to `taps`, given its gradient by the filtered picture in `filtered`. Shapes as
   for `filter`. */
static PyObject *gradient(PyObject *module, PyObject *arguments)
{
    (void)module;
    return run(arguments, 1);
}

static PyMethodDef methods[] = {{"filter", filter, METH_VARARGS, NULL},
                                {"gradient", gradient, METH_VARARGS, NULL},
                                {NULL, NULL, 0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_filters", NULL, 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__filters(void)
{
    return PyModule_Create(&definition);
}

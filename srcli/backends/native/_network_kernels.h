/* The kernels of _network.c for one vector size.

   Included once for each size, with LANES (floats in a vector), REGISTER_BLOCK (sums that are kept
   in registers at a time) and NAMED(x), which gives each copy its own names.

   Winograd's minimal filtering F(4x4, RxR): a tile of N x N inputs, N = 4 + R - 1, gives 4 x 4
   outputs. Tile and kernel are evaluated as polynomials at N points (one of them infinity), are
   multiplied there, and the product is transformed back. N * N multiplications for each pair of
   channels replace 16 * R * R: a fourth for 3 x 3, less than a sixth for 5 x 5.

   The points of 3 x 3 are 0, +-1/sqrt(2), +-sqrt(2), those of 5 x 5 are 0, +-1, +-2, +-1/2: of all
   that were tried they lose the fewest digits (2 and 6 times the error of a plain sum in float32).

   `input_transform` and `output_transform` are the paper's; `gradient_transform`, for training, is
   the transpose of the latter. Each works along one side of a tile, on one vector of channels.
   Values are `s` floats apart in `from` and `r` floats apart in `to`.

   Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015, section 4. */

typedef float NAMED(Vector) __attribute__((vector_size(4 * LANES), may_alias));
typedef int NAMED(Mask) __attribute__((vector_size(4 * LANES), may_alias));
#define Vector NAMED(Vector)
#define Mask NAMED(Mask)
#define PARTS (GROUP / LANES)
#define VECTOR(pointer) (*(Vector *)(pointer))
#define LOAD(pointer) (*(const Vector *)(pointer))

/* 6 inputs to their values at 6 points. */
INLINE void NAMED(input_transform_6)(const float *from, Py_ssize_t s, float *to, Py_ssize_t r)
{
    const float a = 0.70710678118654752f, b = 1.41421356237309505f; /* their squares: 1/2 and 2 */
    Vector d1 = LOAD(from + s), d2 = LOAD(from + 2 * s), d3 = LOAD(from + 3 * s),
           d4 = LOAD(from + 4 * s);
    VECTOR(to) = d4 - 2.5f * d2 + LOAD(from);
    VECTOR(to + 5 * r) = LOAD(from + 5 * s) - 2.5f * d3 + d1;
    Vector even = d4 - 2 * d2, odd = d3 - 2 * d1;
    VECTOR(to + r) = even + a * odd;
    VECTOR(to + 2 * r) = even - a * odd;
    even = d4 - 0.5f * d2;
    odd = d3 - 0.5f * d1;
    VECTOR(to + 3 * r) = even + b * odd;
    VECTOR(to + 4 * r) = even - b * odd;
}

/* 8 inputs to their values at 8 points. */
INLINE void NAMED(input_transform_8)(const float *from, Py_ssize_t s, float *to, Py_ssize_t r)
{
    const float a = 1, b = 4, c = 0.25f; /* squares of the points */
    Vector d1 = LOAD(from + s), d2 = LOAD(from + 2 * s), d3 = LOAD(from + 3 * s),
           d4 = LOAD(from + 4 * s);
    Vector d5 = LOAD(from + 5 * s), d6 = LOAD(from + 6 * s);
    VECTOR(to) = d6 - (a + b + c) * d4 + (a * b + a * c + b * c) * d2 - (a * b * c) * LOAD(from);
    VECTOR(to + 7 * r) =
        LOAD(from + 7 * s) - (a + b + c) * d5 + (a * b + a * c + b * c) * d3 - (a * b * c) * d1;
    Vector even = d6 - (b + c) * d4 + b * c * d2, odd = d5 - (b + c) * d3 + b * c * d1;
    VECTOR(to + r) = even + odd;
    VECTOR(to + 2 * r) = even - odd;
    even = d6 - (a + c) * d4 + a * c * d2;
    odd = d5 - (a + c) * d3 + a * c * d1;
    VECTOR(to + 3 * r) = even + 2 * odd;
    VECTOR(to + 4 * r) = even - 2 * odd;
    even = d6 - (a + b) * d4 + a * b * d2;
    odd = d5 - (a + b) * d3 + a * b * d1;
    VECTOR(to + 5 * r) = even + 0.5f * odd;
    VECTOR(to + 6 * r) = even - 0.5f * odd;
}

/* 6 products to 4 outputs. */
INLINE void NAMED(output_transform_6)(const float *from, Py_ssize_t s, float *to, Py_ssize_t r)
{
    const float a = 0.70710678118654752f, b = 1.41421356237309505f;
    Vector m1 = LOAD(from + s), m2 = LOAD(from + 2 * s), m3 = LOAD(from + 3 * s),
           m4 = LOAD(from + 4 * s);
    Vector sum_a = m1 + m2, difference_a = m1 - m2, sum_b = m3 + m4, difference_b = m3 - m4;
    VECTOR(to) = LOAD(from) + sum_a + sum_b;
    VECTOR(to + r) = a * difference_a + b * difference_b;
    VECTOR(to + 2 * r) = 0.5f * sum_a + 2 * sum_b;
    VECTOR(to + 3 * r) = LOAD(from + 5 * s) + (0.5f * a) * difference_a + (2 * b) * difference_b;
}

/* 8 products to 4 outputs. */
INLINE void NAMED(output_transform_8)(const float *from, Py_ssize_t s, float *to, Py_ssize_t r)
{
    Vector m1 = LOAD(from + s), m2 = LOAD(from + 2 * s), m3 = LOAD(from + 3 * s),
           m4 = LOAD(from + 4 * s);
    Vector m5 = LOAD(from + 5 * s), m6 = LOAD(from + 6 * s);
    Vector sum_a = m1 + m2, difference_a = m1 - m2, sum_b = m3 + m4, difference_b = m3 - m4;
    Vector sum_c = m5 + m6, difference_c = m5 - m6;
    VECTOR(to) = LOAD(from) + sum_a + sum_b + sum_c;
    VECTOR(to + r) = difference_a + 2 * difference_b + 0.5f * difference_c;
    VECTOR(to + 2 * r) = sum_a + 4 * sum_b + 0.25f * sum_c;
    VECTOR(to + 3 * r) =
        LOAD(from + 7 * s) + difference_a + 8 * difference_b + 0.125f * difference_c;
}

/* Gradients of 4 outputs to those of 6 products: the transpose of `output_transform_6`. */
INLINE void NAMED(gradient_transform_6)(const float *from, Py_ssize_t s, float *to, Py_ssize_t r)
{
    const float a = 0.70710678118654752f, b = 1.41421356237309505f;
    Vector y0 = LOAD(from), y1 = LOAD(from + s), y2 = LOAD(from + 2 * s), y3 = LOAD(from + 3 * s);
    VECTOR(to) = y0;
    VECTOR(to + 5 * r) = y3;
    Vector even = y0 + 0.5f * y2, odd = a * (y1 + 0.5f * y3);
    VECTOR(to + r) = even + odd;
    VECTOR(to + 2 * r) = even - odd;
    even = y0 + 2 * y2;
    odd = b * (y1 + 2 * y3);
    VECTOR(to + 3 * r) = even + odd;
    VECTOR(to + 4 * r) = even - odd;
}

/* Gradients of 4 outputs to those of 8 products: the transpose of `output_transform_8`. */
INLINE void NAMED(gradient_transform_8)(const float *from, Py_ssize_t s, float *to, Py_ssize_t r)
{
    Vector y0 = LOAD(from), y1 = LOAD(from + s), y2 = LOAD(from + 2 * s), y3 = LOAD(from + 3 * s);
    VECTOR(to) = y0;
    VECTOR(to + 7 * r) = y3;
    Vector even = y0 + y2, odd = y1 + y3;
    VECTOR(to + r) = even + odd;
    VECTOR(to + 2 * r) = even - odd;
    even = y0 + 4 * y2;
    odd = 2 * y1 + 8 * y3;
    VECTOR(to + 3 * r) = even + odd;
    VECTOR(to + 4 * r) = even - odd;
    even = y0 + 0.25f * y2;
    odd = 0.5f * y1 + 0.125f * y3;
    VECTOR(to + 5 * r) = even + odd;
    VECTOR(to + 6 * r) = even - odd;
}

INLINE void NAMED(gradient_transform)(int n, const float *from, Py_ssize_t s, float *to,
                                      Py_ssize_t r)
{
    if (n == 6)
        NAMED(gradient_transform_6)(from, s, to, r);
    else
        NAMED(gradient_transform_8)(from, s, to, r);
}

INLINE void NAMED(input_transform)(int n, const float *from, Py_ssize_t s, float *to, Py_ssize_t r)
{
    if (n == 6)
        NAMED(input_transform_6)(from, s, to, r);
    else
        NAMED(input_transform_8)(from, s, to, r);
}

INLINE void NAMED(output_transform)(int n, const float *from, Py_ssize_t s, float *to, Py_ssize_t r)
{
    if (n == 6)
        NAMED(output_transform_6)(from, s, to, r);
    else
        NAMED(output_transform_8)(from, s, to, r);
}

/* Return `side` x `side` pixels of a map from (y, x) on, 16 channels: a view of the map, or if part
   of them lies outside of it a copy in `bordered`, padded with zeros. */
INLINE TileView NAMED(tile_at)(int side, const Map *map, Py_ssize_t y, Py_ssize_t x,
                               Py_ssize_t group, float *bordered)
{
    TileView inside = {pixel(map, y, x) + group * GROUP, map->row, map->pixel};
    if (y >= map->top && x >= map->left && y + side <= map->bottom && x + side <= map->right)
        return inside;
    memset(bordered, 0, (size_t)(side * side) * GROUP * sizeof(float));
    for (int i = 0; i < side; i++)
        for (int j = 0; j < side; j++)
            if (y + i >= map->top && y + i < map->bottom && x + j >= map->left &&
                x + j < map->right)
                memcpy(bordered + (i * side + j) * GROUP,
                       inside.base + i * inside.row + j * inside.pixel, GROUP * sizeof(float));
    return (TileView){bordered, side * GROUP, GROUP};
}

/* Transform a tile of n x n pixels from (y, x) on, 16 channels, to n x n points in `to`. */
INLINE void NAMED(transform_input_tile)(int n, const Map *map, Py_ssize_t y, Py_ssize_t x,
                                        Py_ssize_t group, float *to, Py_ssize_t point_stride)
{
    float half[8 * 8 * GROUP] __attribute__((aligned(64)));
    float bordered[8 * 8 * GROUP] __attribute__((aligned(64)));
    TileView from = NAMED(tile_at)(n, map, y, x, group, bordered);
    for (int part = 0; part < PARTS; part++) {
        ROLLED
        for (int j = 0; j < n; j++)
            NAMED(input_transform)(n, from.base + j * from.pixel + part * LANES, from.row,
                                   half + j * LANES, n * LANES);
        ROLLED
        for (int i = 0; i < n; i++)
            NAMED(input_transform)(n, half + i * n * LANES, LANES,
                                   to + i * n * point_stride + part * LANES, point_stride);
    }
}

/* Transform the gradients of 4 x 4 outputs from (y, x) on, 16 channels, to n x n points in `to`. */
INLINE void NAMED(transform_gradient_tile)(int n, const Map *map, Py_ssize_t y, Py_ssize_t x,
                                           Py_ssize_t group, float *to, Py_ssize_t point_stride)
{
    float half[8 * 4 * LANES] __attribute__((aligned(64)));
    float bordered[4 * 4 * GROUP] __attribute__((aligned(64)));
    TileView from = NAMED(tile_at)(4, map, y, x, group, bordered);
    for (int part = 0; part < PARTS; part++) {
        ROLLED
        for (int j = 0; j < 4; j++)
            NAMED(gradient_transform)(n, from.base + j * from.pixel + part * LANES, from.row,
                                      half + j * LANES, 4 * LANES);
        ROLLED
        for (int i = 0; i < n; i++)
            NAMED(gradient_transform)(n, half + i * 4 * LANES, LANES,
                                      to + i * n * point_stride + part * LANES, point_stride);
    }
}

/* At one point: sum over all input channels for `count` tiles, to 16 output channels. Each of the
   `blocks` of up to 16 input channels holds all tiles side by side, so that every address is at a
   constant distance from one pointer: addresses with an index take the processor two steps.

   REGISTER_BLOCK divides TILES, so `count` may be rounded up to a multiple of it. */
INLINE void NAMED(multiply)(int count, float *restrict sums, const float *restrict tiles,
                            const float *restrict weights, int blocks, Py_ssize_t point_stride,
                            int channels, int last)
{
    for (int first = 0; first < count; first += REGISTER_BLOCK) {
        Vector sum[REGISTER_BLOCK][PARTS];
        UNROLL
        for (int t = 0; t < REGISTER_BLOCK; t++)
            UNROLL
            for (int part = 0; part < PARTS; part++)
                sum[t][part] = (Vector){0};
        const float *weight = weights;
        for (int k = 0; k < blocks; k++) {
            const float *value = tiles + first * GROUP + k * point_stride;
            const float *end = value + ((k + 1) % last ? GROUP : channels);
            for (; value < end; value += STEP, weight += STEP * GROUP)
                UNROLL
                for (int c = 0; c < STEP; c++)
                    UNROLL
                    for (int t = 0; t < REGISTER_BLOCK; t++)
                        UNROLL
                        for (int part = 0; part < PARTS; part++)
                            sum[t][part] += LOAD(weight + c * GROUP + part * LANES) *
                                            value[t * GROUP + c];
        }
        UNROLL
        for (int t = 0; t < REGISTER_BLOCK; t++)
            UNROLL
            for (int part = 0; part < PARTS; part++)
                VECTOR(sums + (first + t) * GROUP + part * LANES) = sum[t][part];
    }
}

/* Write the outputs of one tile, 16 channels: add bias and skip connection, rectify. */
INLINE void NAMED(transform_output_tile)(int n, int rectified, int skipped, const float *sums,
                                         Py_ssize_t point_stride, const float *bias,
                                         const TileView *out, const TileView *skip, float factor,
                                         int rows, int columns)
{
    float half[4 * 8 * LANES] __attribute__((aligned(64)));
    for (int part = 0; part < PARTS; part++) {
        Vector offset = LOAD(bias + part * LANES);
        ROLLED
        for (int j = 0; j < n; j++)
            NAMED(output_transform)(n, sums + j * point_stride + part * LANES, n * point_stride,
                                    half + j * LANES, n * LANES);
        for (int i = 0; i < rows; i++) {
            float done[4 * LANES] __attribute__((aligned(64)));
            float *to = out->base + i * out->row + part * LANES;
            const float *from = skipped ? skip->base + i * skip->row + part * LANES : NULL;
            NAMED(output_transform)(n, half + i * n * LANES, LANES, done, LANES);
            UNROLL
            for (int j = 0; j < 4; j++) {
                Vector value = LOAD(done + j * LANES) + offset;
                if (j >= columns)
                    break;
                if (skipped)
                    value += factor * LOAD(from + j * skip->pixel);
                if (rectified)
                    value = (Vector)((Mask)value & ~(value <= 0)); /* NaN stays NaN */
                VECTOR(to + j * out->pixel) = value;
            }
        }
    }
}

/* Compute all pixels of `out`, tile by tile at input resolution. */
INLINE void NAMED(convolve)(int n, const Convolution *layer, const Map *out, float *scratch)
{
    int radius = (n - 4) / 2, scale = layer->scale, groups = layer->groups;
    int filled = (layer->channels + GROUP - 1) / GROUP;
    Py_ssize_t top = out->top / scale, height = out->bottom / scale - top;
    Py_ssize_t left = out->left / scale, width = out->right / scale - left;
    int blocks = layer->sources * filled;
    int channels = (layer->channels + STEP - 1) / STEP * STEP; /* of each source, padded */
    /* 16 floats of padding: points a power of two apart would share few lines of the cache. */
    Py_ssize_t block = TILES * GROUP, points = blocks * block + GROUP, products = block + GROUP;
    float *tiles = scratch, *sums = scratch + n * n * points;
    Py_ssize_t ys[TILES], xs[TILES], y = 0, x = 0; /* within the output */
    while (y < height) {
        int count = 0;
        for (; count < TILES && y < height; count++) {
            ys[count] = y;
            xs[count] = x;
            for (int k = 0; k < layer->sources; k++)
                for (int group = 0; group < filled; group++)
                    NAMED(transform_input_tile)(
                        n, &layer->from[k], top + y - radius, left + x - radius, group,
                        tiles + (k * filled + group) * block + count * GROUP, points);
            x += 4;
            if (x >= width) {
                x = 0;
                y += 4;
            }
        }
        const float *weights = layer->weights;
        for (int output = 0; output < layer->outputs; output++) {
            int phase = output / groups, group = output % groups;
            const float *bias = layer->bias + output * GROUP;
            float *base =
                out->base + phase / scale * out->row + phase % scale * out->pixel + group * GROUP;
            for (int point = 0; point < n * n; point++) {
                NAMED(multiply)(count, sums + point * products, tiles + point * points, weights,
                                blocks, block, channels - (filled - 1) * GROUP, filled);
                weights += (Py_ssize_t)layer->sources * channels * GROUP;
            }
            for (int t = 0; t < count; t++) {
                int rows = (int)minimum(4, height - ys[t]),
                    columns = (int)minimum(4, width - xs[t]);
                TileView to = {base + ys[t] * scale * out->row + xs[t] * scale * out->pixel,
                               scale * out->row, scale * out->pixel};
                const float *sum = sums + t * GROUP;
                if (layer->skip) {
                    const Map *skip = layer->skip;
                    TileView from = {pixel(skip, top + ys[t], left + xs[t]) + group * GROUP,
                                     skip->row, skip->pixel};
                    NAMED(transform_output_tile)(n, 0, 1, sum, products, bias, &to, &from,
                                                 layer->factor, rows, columns);
                } else if (layer->rectified)
                    NAMED(transform_output_tile)(n, 1, 0, sum, products, bias, &to, NULL, 0, rows,
                                                 columns);
                else
                    NAMED(transform_output_tile)(n, 0, 0, sum, products, bias, &to, NULL, 0, rows,
                                                 columns);
            }
        }
    }
}

static void NAMED(convolve_3)(const Convolution *layer, const Map *out, float *scratch)
{
    NAMED(convolve)(6, layer, out, scratch);
}

static void NAMED(convolve_5)(const Convolution *layer, const Map *out, float *scratch)
{
    NAMED(convolve)(8, layer, out, scratch);
}

/* At one point: add the gradient of `count` tiles by the weights from 16 channels to 16. */
INLINE void NAMED(add_products)(int count, float *restrict sums, const float *restrict inputs,
                                const float *restrict outputs)
{
    for (int first = 0; first < GROUP; first += REGISTER_BLOCK) {
        Vector sum[REGISTER_BLOCK][PARTS];
        UNROLL
        for (int c = 0; c < REGISTER_BLOCK; c++)
            UNROLL
            for (int part = 0; part < PARTS; part++)
                sum[c][part] = LOAD(sums + (first + c) * GROUP + part * LANES);
        for (int t = 0; t < count; t++)
            UNROLL
            for (int c = 0; c < REGISTER_BLOCK; c++)
                UNROLL
                for (int part = 0; part < PARTS; part++)
                    sum[c][part] += LOAD(outputs + t * GROUP + part * LANES) *
                                    inputs[t * GROUP + first + c];
        UNROLL
        for (int c = 0; c < REGISTER_BLOCK; c++)
            UNROLL
            for (int part = 0; part < PARTS; part++)
                VECTOR(sums + (first + c) * GROUP + part * LANES) = sum[c][part];
    }
}

/* Add the gradient of the weights, in the layout of the weights, that follows from the gradients of
   the outputs in the rectangle of `by`. Few groups of outputs at a time, so that their sums stay in
   the cache. */
INLINE void NAMED(gradient)(int n, const Map *from, const Map *by, int inputs, int outputs,
                            float *sums, float *scratch)
{
    int radius = (n - 4) / 2;
    Py_ssize_t block = TILES * GROUP, point_size = (Py_ssize_t)inputs * GROUP * GROUP;
    Py_ssize_t input_stride = inputs * block + GROUP, output_stride = SLICE * block + GROUP;
    float *tiles = scratch, *gradients = scratch + n * n * input_stride;
    for (int slice = 0; slice < outputs; slice += SLICE) {
        int groups = (int)minimum(SLICE, outputs - slice);
        Py_ssize_t y = by->top, x = by->left;
        while (y < by->bottom) {
            int count = 0;
            for (; count < TILES && y < by->bottom; count++) {
                for (int k = 0; k < inputs; k++)
                    NAMED(transform_input_tile)(n, from, y - radius, x - radius, k,
                                                tiles + k * block + count * GROUP, input_stride);
                for (int k = 0; k < groups; k++)
                    NAMED(transform_gradient_tile)(n, by, y, x, slice + k,
                                                   gradients + k * block + count * GROUP,
                                                   output_stride);
                x += 4;
                if (x >= by->right) {
                    x = by->left;
                    y += 4;
                }
            }
            for (int k = 0; k < groups; k++)
                for (int point = 0; point < n * n; point++)
                    for (int input = 0; input < inputs; input++)
                        NAMED(add_products)(count,
                                            sums + ((slice + k) * n * n + point) * point_size +
                                                input * GROUP * GROUP,
                                            tiles + point * input_stride + input * block,
                                            gradients + point * output_stride + k * block);
        }
    }
}

static void NAMED(gradient_3)(const Map *from, const Map *by, int inputs, int outputs, float *sums,
                              float *scratch)
{
    NAMED(gradient)(6, from, by, inputs, outputs, sums, scratch);
}

static void NAMED(gradient_5)(const Map *from, const Map *by, int inputs, int outputs, float *sums,
                              float *scratch)
{
    NAMED(gradient)(8, from, by, inputs, outputs, sums, scratch);
}

#undef Vector
#undef Mask
#undef PARTS
#undef VECTOR
#undef LOAD

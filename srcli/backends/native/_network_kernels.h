/* The kernels of _network.c for one vector size.

   Included once for each size, with LANES (floats in a vector), REGISTERS (that the processor has
   for vectors), REGISTER_BLOCK (tiles whose sums are kept in registers at a time, for one group
   of outputs) and NAMED(x), which gives each copy its own names.

   Winograd's minimal filtering F(4x4, RxR): a tile of N x N inputs, N = 4 + R - 1, gives 4 x 4
   outputs. Tile and kernel are evaluated as polynomials at N points (one of them infinity), are
   multiplied there, and the product is transformed back. N * N multiplications for each pair of
   channels replace 16 * R * R: a fourth for 3 x 3, less than a sixth for 5 x 5.

   The points of 3 x 3 are 0, +-1/sqrt(2), +-sqrt(2), those of 5 x 5 are 0, +-1, +-2, +-1/2: of all
   that were tried they lose the fewest digits (2 and 6 times the error of a plain sum in float32).

   `input_pair` and `output_pair` are the paper's transforms, two values at a time;
   `gradient_transform`, for training, is the transpose of the latter, from values `s` floats apart
   in `from` to values `r` floats apart in `to`. Each works along one side of a tile, on one vector
   of channels.

   Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015, section 4. */

typedef float NAMED(Vector) __attribute__((vector_size(4 * LANES), may_alias));
typedef int NAMED(Mask) __attribute__((vector_size(4 * LANES), may_alias));
#define Vector NAMED(Vector)
#define Mask NAMED(Mask)
#define PARTS (GROUP / LANES)
#if REGISTERS == 32 /* else what is between the two directions goes through memory */
#define UNROLL_COLUMNS UNROLL
#else
#define UNROLL_COLUMNS ROLLED
#endif
#define TOGETHER (PARTS == 1 ? 2 : 1) /* groups of outputs that share each load of an input */
#define VECTOR(pointer) (*(Vector *)(pointer))
#define LOAD(pointer) (*(const Vector *)(pointer))

/* Points other than 0 and infinity come in pairs, x and -x, which share most of their sums. Pair 0
   is 0 and infinity, the first and the last point; pair k is the points 2k - 1 and 2k. Factors are
   put where most sums need none: processors add beside what they multiply. */

/* The values of a polynomial of 6 coefficients at a pair of points. */
INLINE void NAMED(input_pair_6)(int pair, const Vector *d, Vector *first, Vector *second)
{
    if (pair == 0) {
        *first = d[4] + d[0] - 2.5f * d[2];
        *second = d[5] + d[1] - 2.5f * d[3];
    } else {
        const float x = pair == 1 ? 0.70710678118654752f : 1.41421356237309505f;
        const float other = pair == 1 ? 2 : 0.5f; /* the square of the other pair's points */
        Vector even = d[4] - other * d[2], odd = x * d[3] - (x * other) * d[1];
        *first = even + odd;
        *second = even - odd;
    }
}

/* The values of a polynomial of 8 coefficients at a pair of points. */
INLINE void NAMED(input_pair_8)(int pair, const Vector *d, Vector *first, Vector *second)
{
    if (pair == 0) {
        *first = d[6] - d[0] + 5.25f * (d[2] - d[4]);
        *second = d[7] - d[1] + 5.25f * (d[3] - d[5]);
    } else if (pair == 1) {
        Vector even = d[6] + d[2] - 4.25f * d[4], odd = d[5] + d[1] - 4.25f * d[3];
        *first = even + odd;
        *second = even - odd;
    } else {
        const float x = pair == 2 ? 2 : 0.5f;
        const float sum = 5.25f - x * x, product = 1 / (x * x); /* of the other pairs' squares */
        Vector even = d[6] - sum * d[4] + product * d[2];
        Vector odd = x * d[5] - (x * sum) * d[3] + (x * product) * d[1];
        *first = even + odd;
        *second = even - odd;
    }
}

/* Outputs `row` and `row` + 2, with `row` 0 or 1, from 6 products. */
INLINE void NAMED(output_pair_6)(int row, const Vector *m, Vector *first, Vector *second)
{
    const float a = 0.70710678118654752f, b = 1.41421356237309505f;
    if (row == 0) {
        Vector sum_a = m[1] + m[2], sum_b = m[3] + m[4];
        *first = m[0] + sum_a + sum_b;
        *second = 0.5f * sum_a + 2 * sum_b;
    } else {
        Vector difference_a = m[1] - m[2], difference_b = m[3] - m[4];
        *first = a * difference_a + b * difference_b;
        *second = m[5] + (0.5f * a) * difference_a + (2 * b) * difference_b;
    }
}

/* Outputs `row` and `row` + 2, with `row` 0 or 1, from 8 products. */
INLINE void NAMED(output_pair_8)(int row, const Vector *m, Vector *first, Vector *second)
{
    if (row == 0) {
        Vector sum_a = m[1] + m[2], sum_b = m[3] + m[4], sum_c = m[5] + m[6];
        *first = m[0] + sum_a + sum_b + sum_c;
        *second = sum_a + 4 * sum_b + 0.25f * sum_c;
    } else {
        Vector difference_a = m[1] - m[2], difference_b = m[3] - m[4], difference_c = m[5] - m[6];
        *first = difference_a + 2 * difference_b + 0.5f * difference_c;
        *second = m[7] + difference_a + 8 * difference_b + 0.125f * difference_c;
    }
}

INLINE void NAMED(input_pair)(int n, int pair, const Vector *d, Vector *first, Vector *second)
{
    if (n == 6)
        NAMED(input_pair_6)(pair, d, first, second);
    else
        NAMED(input_pair_8)(pair, d, first, second);
}

INLINE void NAMED(output_pair)(int n, int row, const Vector *m, Vector *first, Vector *second)
{
    if (n == 6)
        NAMED(output_pair_6)(row, m, first, second);
    else
        NAMED(output_pair_8)(row, m, first, second);
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

/* Return `side` x `side` pixels of a map from (y, x) on, 16 channels: a view of the map, or if part
   of them lies outside of it a copy in `bordered`, padded with zeros. */
INLINE TileView NAMED(tile_at)(int side, const Map *map, Py_ssize_t y, Py_ssize_t x,
                               Py_ssize_t group, float *bordered)
{
    TileView inside = {pixel(map, y, x) + group * GROUP, map->row, map->pixel};
    if (y >= map->top && x >= map->left && y + side <= map->bottom && x + side <= map->right)
        return inside;
    memset(bordered, 0, (size_t)(side * side) * GROUP * sizeof(float));
    Py_ssize_t top = maximum(map->top - y, 0), bottom = minimum(map->bottom - y, side);
    Py_ssize_t left = maximum(map->left - x, 0), right = minimum(map->right - x, side);
    for (Py_ssize_t i = top; i < bottom; i++)
        for (Py_ssize_t j = left; j < right; j++)
            memcpy(bordered + (i * side + j) * GROUP,
                   inside.base + i * inside.row + j * inside.pixel, GROUP * sizeof(float));
    return (TileView){bordered, side * GROUP, GROUP};
}

/* Evaluate a column of n pixels at a pair of points; `x` is its distance from the start of rows. */
INLINE void NAMED(transform_column)(int n, int pair, const float *const *rows, Py_ssize_t x,
                                    Vector *first, Vector *second)
{
    Vector column[8];
    UNROLL
    for (int i = 0; i < n; i++)
        column[i] = LOAD(rows[i] + x);
    NAMED(input_pair)(n, pair, column, first, second);
}

/* Evaluate a row of n values at n points. */
INLINE void NAMED(transform_row)(int n, const Vector *row, float *to)
{
    Vector first, second;
    UNROLL
    for (int pair = 0; pair < n / 2; pair++) {
        NAMED(input_pair)(n, pair, row, &first, &second);
        VECTOR(to + (pair == 0 ? 0 : 2 * pair - 1) * POINT) = first;
        VECTOR(to + (pair == 0 ? n - 1 : 2 * pair) * POINT) = second;
    }
}

/* Transform `count` tiles side by side, n x n pixels and 16 channels each, to n x n points in `to`.

   One pair of rows of points at a time, so that what lies between the two directions stays in
   registers. Neighbours share n - 4 columns, which are evaluated once. */
INLINE void NAMED(transform_input_tiles)(int n, int count, TileView from, float *to)
{
    UNROLL
    for (int pair = 0; pair < n / 2; pair++)
        for (int part = 0; part < PARTS; part++) {
            const float *rows[8];
            Vector first[8], second[8];
            UNROLL
            for (int i = 0; i < n; i++)
                rows[i] = from.base + i * from.row + part * LANES;
            float *upper = to + (pair == 0 ? 0 : 2 * pair - 1) * n * POINT + part * LANES;
            float *lower = to + (pair == 0 ? n - 1 : 2 * pair) * n * POINT + part * LANES;
            Py_ssize_t x = 0;
            UNROLL
            for (int j = 0; j < n - 4; j++, x += from.pixel)
                NAMED(transform_column)(n, pair, rows, x, &first[j], &second[j]);
            ROLLED
            for (int t = 0; t < count; t++, upper += GROUP, lower += GROUP) {
                UNROLL
                for (int j = n - 4; j < n; j++, x += from.pixel) {
                    OPAQUE(x);
                    NAMED(transform_column)(n, pair, rows, x, &first[j], &second[j]);
                }
                NAMED(transform_row)(n, first, upper);
                NAMED(transform_row)(n, second, lower);
                UNROLL
                for (int j = 0; j < n - 4; j++) {
                    first[j] = first[j + 4];
                    second[j] = second[j + 4];
                }
            }
        }
}

/* Return how many of `count` tiles of n x n pixels side by side from (y, x) on lie inside a map. */
INLINE int NAMED(inside)(int n, const Map *map, Py_ssize_t y, Py_ssize_t x, int count)
{
    if (y < map->top || y + n > map->bottom || x < map->left || x + n > map->right)
        return 0;
    return (int)minimum(count, (map->right - x - n) / 4 + 1);
}

/* Transform `count` tiles side by side, the first from (y, x) on. */
INLINE void NAMED(transform_input_row)(int n, const Map *map, Py_ssize_t y, Py_ssize_t x, int count,
                                       Py_ssize_t group, float *to)
{
    float bordered[8 * 8 * GROUP] __attribute__((aligned(64)));
    while (count > 0) {
        int together = NAMED(inside)(n, map, y, x, count);
        together = together > 0 ? together : 1;
        TileView from = NAMED(tile_at)(n, map, y, x, group, bordered);
        NAMED(transform_input_tiles)(n, together, from, to);
        to += together * GROUP;
        x += 4 * (Py_ssize_t)together;
        count -= together;
    }
}

/* Transform the gradients of 4 x 4 outputs from (y, x) on, 16 channels, to n x n points in `to`. */
INLINE void NAMED(transform_gradient_tile)(int n, const Map *map, Py_ssize_t y, Py_ssize_t x,
                                           Py_ssize_t group, float *to)
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
                                      to + i * n * POINT + part * LANES, POINT);
    }
}

/* At one point: sum over all input channels for `count` tiles, to `together` groups of 16 output
   channels, whose weights are `weight_stride` apart. Each of the `blocks` of up to 16 input
   channels (the `last` of each `filled` holds fewer), `stride` apart, holds all tiles side by side,
   so that every address is at a constant distance from one pointer: addresses with an index take
   the processor two steps.

   `sums` may be `tiles`: what is overwritten has been read. REGISTER_BLOCK / `together` divides
   TILES, so `count` may be rounded up to a multiple of it. */
INLINE void NAMED(multiply)(int together, int count, float *sums, const float *tiles,
                            const float *weights, Py_ssize_t weight_stride, int blocks,
                            Py_ssize_t stride, int last, int filled)
{
    const int side = REGISTER_BLOCK / together, vectors = together * PARTS;
    for (int first = 0; first < count; first += side) {
        Vector sum[REGISTER_BLOCK][2 * PARTS];
        UNROLL
        for (int t = 0; t < side; t++)
            UNROLL
            for (int v = 0; v < vectors; v++)
                sum[t][v] = (Vector){0};
        const float *weight = weights;
        for (int k = 0; k < blocks; k++) {
            const float *value = tiles + first * GROUP + k * stride;
            const float *end = value + ((k + 1) % filled ? GROUP : last);
            for (; value < end; value += STEP, weight += STEP * GROUP) {
#if LANES == 4
                Vector values[REGISTER_BLOCK]; /* STEP of them: Arm multiplies by one lane */
                UNROLL
                for (int t = 0; t < side; t++)
                    values[t] = LOAD(value + t * GROUP);
#define VALUE(t, c) values[t][c]
#else
#define VALUE(t, c) value[(t) * GROUP + (c)]
#endif
                UNROLL
                for (int c = 0; c < STEP; c++)
                    UNROLL
                    for (int t = 0; t < side; t++)
                        UNROLL
                        for (int v = 0; v < vectors; v++)
                            sum[t][v] += LOAD(weight + v / PARTS * weight_stride + c * GROUP +
                                              v % PARTS * LANES) *
                                         VALUE(t, c);
#undef VALUE
            }
        }
        UNROLL
        for (int t = 0; t < side; t++)
            UNROLL
            for (int v = 0; v < vectors; v++)
                VECTOR(sums + v / PARTS * stride + (first + t) * GROUP + v % PARTS * LANES) =
                    sum[t][v];
    }
}

/* Write the outputs of one tile, 16 channels: add bias and skip connection, rectify. Two rows at a
   time, so that what lies between the two directions stays in registers. */
INLINE void NAMED(transform_output_tile)(int n, int rectified, int skipped, const float *sums,
                                         const float *bias, const TileView *out,
                                         const TileView *skip, float factor, int rows,
                                         int columns)
{
    for (int part = 0; part < PARTS; part++) {
        Vector offset = LOAD(bias + part * LANES);
        UNROLL
        for (int first = 0; first < 2; first++) {
            Vector half[2][8], column[8], done[4];
            UNROLL_COLUMNS
            for (int j = 0; j < n; j++) {
                UNROLL
                for (int i = 0; i < n; i++)
                    column[i] = LOAD(sums + (i * n + j) * POINT + part * LANES);
                NAMED(output_pair)(n, first, column, &half[0][j], &half[1][j]);
            }
            UNROLL
            for (int k = 0; k < 2; k++) {
                int i = first + 2 * k;
                if (i >= rows)
                    break;
                float *to = out->base + i * out->row + part * LANES;
                const float *from = skipped ? skip->base + i * skip->row + part * LANES : NULL;
                NAMED(output_pair)(n, 0, half[k], &done[0], &done[2]);
                NAMED(output_pair)(n, 1, half[k], &done[1], &done[3]);
                UNROLL
                for (int j = 0; j < 4; j++) {
                    Vector value = done[j] + offset;
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
}

/* Tiles that are computed at once: their number, and where they begin within the output. */
#define Tiles NAMED(Tiles)
typedef struct {
    int count;
    Py_ssize_t ys[TILES], xs[TILES];
} Tiles;

/* Write one group of 16 channels of all tiles, from the sums of their products. */
INLINE void NAMED(write_outputs)(int n, const Convolution *layer, const Map *out, int output,
                                 const Tiles *tiles, const float *sums)
{
    int scale = layer->scale, phase = output / layer->groups, group = output % layer->groups;
    Py_ssize_t top = out->top / scale, height = out->bottom / scale - top;
    Py_ssize_t left = out->left / scale, width = out->right / scale - left;
    const float *bias = layer->bias + output * GROUP;
    float *base =
        out->base + phase / scale * out->row + phase % scale * out->pixel + group * GROUP;
    for (int t = 0; t < tiles->count; t++, sums += GROUP) {
        Py_ssize_t y = tiles->ys[t], x = tiles->xs[t];
        int rows = (int)minimum(4, height - y), columns = (int)minimum(4, width - x);
        TileView to = {base + y * scale * out->row + x * scale * out->pixel, scale * out->row,
                       scale * out->pixel};
        if (layer->skip) {
            const Map *skip = layer->skip;
            TileView from = {pixel(skip, top + y, left + x) + group * GROUP, skip->row,
                             skip->pixel};
            NAMED(transform_output_tile)(n, 0, 1, sums, bias, &to, &from, layer->factor, rows,
                                         columns);
        } else if (layer->rectified)
            NAMED(transform_output_tile)(n, 1, 0, sums, bias, &to, NULL, 0, rows, columns);
        else
            NAMED(transform_output_tile)(n, 0, 0, sums, bias, &to, NULL, 0, rows, columns);
    }
}

/* Compute all pixels of `out`, tile by tile at input resolution. */
INLINE void NAMED(convolve)(int n, const Convolution *layer, const Map *out, float *scratch)
{
    int radius = (n - 4) / 2, scale = layer->scale;
    int filled = (layer->channels + GROUP - 1) / GROUP;
    Py_ssize_t top = out->top / scale, height = out->bottom / scale - top;
    Py_ssize_t left = out->left / scale, width = out->right / scale - left;
    int blocks = layer->sources * filled;
    int channels = (layer->channels + STEP - 1) / STEP * STEP; /* of each source, padded */
    int last = channels - (filled - 1) * GROUP;                /* of its last block */
    Py_ssize_t block = n * n * POINT, point_size = (Py_ssize_t)layer->sources * channels * GROUP;
    Py_ssize_t output_size = n * n * point_size, y = 0, x = 0;
    Tiles tiles;
    while (y < height) {
        for (tiles.count = 0; tiles.count < TILES && y < height;) {
            int side_by_side = (int)minimum(TILES - tiles.count, (width - x + 3) / 4);
            for (int k = 0; k < blocks; k++)
                NAMED(transform_input_row)(n, &layer->from[k / filled], top + y - radius,
                                           left + x - radius, side_by_side, k % filled,
                                           scratch + k * block + tiles.count * GROUP);
            for (int t = 0; t < side_by_side; t++, tiles.count++, x += 4) {
                tiles.ys[tiles.count] = y;
                tiles.xs[tiles.count] = x;
            }
            if (x >= width) {
                x = 0;
                y += 4;
            }
        }
        for (int output = 0, together; output < layer->outputs; output += together) {
            together = (int)minimum(TOGETHER, layer->outputs - output);
            /* Of the last ones, in place of the tiles, which nothing else reads. */
            int in_place = output + together == layer->outputs && together <= blocks;
            float *sums = in_place ? scratch : scratch + blocks * block;
            const float *weights = layer->weights + output * output_size;
            for (int point = 0; point < n * n; point++, weights += point_size)
                if (TOGETHER == 1 || together == TOGETHER)
                    NAMED(multiply)(TOGETHER, tiles.count, sums + point * POINT,
                                    scratch + point * POINT, weights, output_size, blocks, block,
                                    last, filled);
                else
                    NAMED(multiply)(1, tiles.count, sums + point * POINT, scratch + point * POINT,
                                    weights, output_size, blocks, block, last, filled);
            for (int k = 0; k < together; k++)
                NAMED(write_outputs)(n, layer, out, output + k, &tiles, sums + k * block);
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
    Py_ssize_t block = n * n * POINT, point_size = (Py_ssize_t)inputs * GROUP * GROUP;
    float *tiles = scratch, *gradients = scratch + inputs * block;
    for (int slice = 0; slice < outputs; slice += SLICE) {
        int groups = (int)minimum(SLICE, outputs - slice);
        Py_ssize_t y = by->top, x = by->left;
        while (y < by->bottom) {
            int count = 0;
            for (; count < TILES && y < by->bottom; count++) {
                for (int k = 0; k < inputs; k++)
                    NAMED(transform_input_row)(n, from, y - radius, x - radius, 1, k,
                                               tiles + k * block + count * GROUP);
                for (int k = 0; k < groups; k++)
                    NAMED(transform_gradient_tile)(n, by, y, x, slice + k,
                                                   gradients + k * block + count * GROUP);
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
                                            tiles + input * block + point * POINT,
                                            gradients + k * block + point * POINT);
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

#undef Tiles
#undef Vector
#undef Mask
#undef PARTS
#undef TOGETHER
#undef UNROLL_COLUMNS
#undef VECTOR
#undef LOAD

/* The kernels of _network.c for one kind of processor.

   Included once for each kind, with LANES (floats in a vector of that processor), TOGETHER (tiles
   whose sums are kept in registers at a time) and NAMED(x), which gives each copy its own names.

   Winograd's minimal filtering F(4x4, RxR): a tile of N x N inputs, N = 4 + R - 1, gives 4 x 4
   outputs. Tile and kernel are evaluated as polynomials at N points (one of them infinity), are
   multiplied there, and the product is brought back. N * N multiplications for each pair of
   channels take the place of 16 * R * R: a fourth for 3 x 3, less than a sixth for 5 x 5.

   The points of 3 x 3 are 0, +-1/sqrt(2), +-sqrt(2), those of 5 x 5 are 0, +-1, +-2, +-1/2: of all
   that were tried they lose the fewest digits (2 and 6 times the error of a plain sum in float32).

   `enter` is the paper's input transform, `leave` its output transform, and `spread`, for training,
   the transpose of the latter.

   Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015, section 4. */

typedef float NAMED(Vector) __attribute__((vector_size(4 * LANES), may_alias));
typedef int NAMED(Mask) __attribute__((vector_size(4 * LANES), may_alias));
#define Vector NAMED(Vector)
#define Mask NAMED(Mask)
#define PARTS (GROUP / LANES)
#define AT(pointer) (*(Vector *)(pointer))
#define IN(pointer) (*(const Vector *)(pointer))

/* One side of a tile of 6, from `s` floats apart to `r` floats apart. */
INLINE void NAMED(enter_6)(const float *from, Py_ssize_t s, float *to, Py_ssize_t r)
{
    const float a = 0.70710678118654752f, b = 1.41421356237309505f; /* their squares: 1/2 and 2 */
    Vector d1 = IN(from + s), d2 = IN(from + 2 * s), d3 = IN(from + 3 * s), d4 = IN(from + 4 * s);
    AT(to) = d4 - 2.5f * d2 + IN(from);
    AT(to + 5 * r) = IN(from + 5 * s) - 2.5f * d3 + d1;
    Vector even = d4 - 2 * d2, odd = d3 - 2 * d1;
    AT(to + r) = even + a * odd;
    AT(to + 2 * r) = even - a * odd;
    even = d4 - 0.5f * d2;
    odd = d3 - 0.5f * d1;
    AT(to + 3 * r) = even + b * odd;
    AT(to + 4 * r) = even - b * odd;
}

/* The same for a tile of 8. */
INLINE void NAMED(enter_8)(const float *from, Py_ssize_t s, float *to, Py_ssize_t r)
{
    const float a = 1, b = 4, c = 0.25f; /* squares of the points */
    Vector d1 = IN(from + s), d2 = IN(from + 2 * s), d3 = IN(from + 3 * s), d4 = IN(from + 4 * s);
    Vector d5 = IN(from + 5 * s), d6 = IN(from + 6 * s);
    AT(to) = d6 - (a + b + c) * d4 + (a * b + a * c + b * c) * d2 - (a * b * c) * IN(from);
    AT(to + 7 * r) =
        IN(from + 7 * s) - (a + b + c) * d5 + (a * b + a * c + b * c) * d3 - (a * b * c) * d1;
    Vector even = d6 - (b + c) * d4 + b * c * d2, odd = d5 - (b + c) * d3 + b * c * d1;
    AT(to + r) = even + odd;
    AT(to + 2 * r) = even - odd;
    even = d6 - (a + c) * d4 + a * c * d2;
    odd = d5 - (a + c) * d3 + a * c * d1;
    AT(to + 3 * r) = even + 2 * odd;
    AT(to + 4 * r) = even - 2 * odd;
    even = d6 - (a + b) * d4 + a * b * d2;
    odd = d5 - (a + b) * d3 + a * b * d1;
    AT(to + 5 * r) = even + 0.5f * odd;
    AT(to + 6 * r) = even - 0.5f * odd;
}

/* One side of 6 products back to 4 outputs. */
INLINE void NAMED(leave_6)(const float *from, Py_ssize_t s, float *to, Py_ssize_t r)
{
    const float a = 0.70710678118654752f, b = 1.41421356237309505f;
    Vector m1 = IN(from + s), m2 = IN(from + 2 * s), m3 = IN(from + 3 * s), m4 = IN(from + 4 * s);
    Vector sum_a = m1 + m2, difference_a = m1 - m2, sum_b = m3 + m4, difference_b = m3 - m4;
    AT(to) = IN(from) + sum_a + sum_b;
    AT(to + r) = a * difference_a + b * difference_b;
    AT(to + 2 * r) = 0.5f * sum_a + 2 * sum_b;
    AT(to + 3 * r) = IN(from + 5 * s) + (0.5f * a) * difference_a + (2 * b) * difference_b;
}

/* The same for 8 products. */
INLINE void NAMED(leave_8)(const float *from, Py_ssize_t s, float *to, Py_ssize_t r)
{
    Vector m1 = IN(from + s), m2 = IN(from + 2 * s), m3 = IN(from + 3 * s), m4 = IN(from + 4 * s);
    Vector m5 = IN(from + 5 * s), m6 = IN(from + 6 * s);
    Vector sum_a = m1 + m2, difference_a = m1 - m2, sum_b = m3 + m4, difference_b = m3 - m4;
    Vector sum_c = m5 + m6, difference_c = m5 - m6;
    AT(to) = IN(from) + sum_a + sum_b + sum_c;
    AT(to + r) = difference_a + 2 * difference_b + 0.5f * difference_c;
    AT(to + 2 * r) = sum_a + 4 * sum_b + 0.25f * sum_c;
    AT(to + 3 * r) = IN(from + 7 * s) + difference_a + 8 * difference_b + 0.125f * difference_c;
}

/* One side of 4 gradients of outputs to those of 6 products: the transpose of `leave_6`. */
INLINE void NAMED(spread_6)(const float *from, Py_ssize_t s, float *to, Py_ssize_t r)
{
    const float a = 0.70710678118654752f, b = 1.41421356237309505f;
    Vector y0 = IN(from), y1 = IN(from + s), y2 = IN(from + 2 * s), y3 = IN(from + 3 * s);
    AT(to) = y0;
    AT(to + 5 * r) = y3;
    Vector even = y0 + 0.5f * y2, odd = a * (y1 + 0.5f * y3);
    AT(to + r) = even + odd;
    AT(to + 2 * r) = even - odd;
    even = y0 + 2 * y2;
    odd = b * (y1 + 2 * y3);
    AT(to + 3 * r) = even + odd;
    AT(to + 4 * r) = even - odd;
}

/* The same for 8 products. */
INLINE void NAMED(spread_8)(const float *from, Py_ssize_t s, float *to, Py_ssize_t r)
{
    Vector y0 = IN(from), y1 = IN(from + s), y2 = IN(from + 2 * s), y3 = IN(from + 3 * s);
    AT(to) = y0;
    AT(to + 7 * r) = y3;
    Vector even = y0 + y2, odd = y1 + y3;
    AT(to + r) = even + odd;
    AT(to + 2 * r) = even - odd;
    even = y0 + 4 * y2;
    odd = 2 * y1 + 8 * y3;
    AT(to + 3 * r) = even + odd;
    AT(to + 4 * r) = even - odd;
    even = y0 + 0.25f * y2;
    odd = 0.5f * y1 + 0.125f * y3;
    AT(to + 5 * r) = even + odd;
    AT(to + 6 * r) = even - odd;
}

INLINE void NAMED(spread)(int n, const float *from, Py_ssize_t s, float *to, Py_ssize_t r)
{
    if (n == 6)
        NAMED(spread_6)(from, s, to, r);
    else
        NAMED(spread_8)(from, s, to, r);
}

INLINE void NAMED(enter)(int n, const float *from, Py_ssize_t s, float *to, Py_ssize_t r)
{
    if (n == 6)
        NAMED(enter_6)(from, s, to, r);
    else
        NAMED(enter_8)(from, s, to, r);
}

INLINE void NAMED(leave)(int n, const float *from, Py_ssize_t s, float *to, Py_ssize_t r)
{
    if (n == 6)
        NAMED(leave_6)(from, s, to, r);
    else
        NAMED(leave_8)(from, s, to, r);
}

/* `side` x `side` pixels of a map from (y, x) on, 16 channels: in the map, or in `bordered` with
   zeros for what lies outside of it. */
INLINE Place NAMED(tile_at)(int side, const Map *map, Py_ssize_t y, Py_ssize_t x, Py_ssize_t group,
                            float *bordered)
{
    Place inside = {pixel(map, y, x) + group * GROUP, map->row, map->pixel};
    if (y >= map->top && x >= map->left && y + side <= map->bottom && x + side <= map->right)
        return inside;
    memset(bordered, 0, (size_t)(side * side) * GROUP * sizeof(float));
    for (int i = 0; i < side; i++)
        for (int j = 0; j < side; j++)
            if (y + i >= map->top && y + i < map->bottom && x + j >= map->left &&
                x + j < map->right)
                memcpy(bordered + (i * side + j) * GROUP,
                       inside.base + i * inside.row + j * inside.pixel, GROUP * sizeof(float));
    return (Place){bordered, side * GROUP, GROUP};
}

/* A tile of n x n pixels from (y, x) on, 16 channels, to `to`: its points, `apart` floats apart. */
INLINE void NAMED(enter_tile)(int n, const Map *map, Py_ssize_t y, Py_ssize_t x, Py_ssize_t group,
                              float *to, Py_ssize_t apart)
{
    float half[8 * 8 * GROUP] __attribute__((aligned(64)));
    float bordered[8 * 8 * GROUP] __attribute__((aligned(64)));
    Place from = NAMED(tile_at)(n, map, y, x, group, bordered);
    for (int part = 0; part < PARTS; part++) {
        ROLLED
        for (int j = 0; j < n; j++)
            NAMED(enter)(n, from.base + j * from.pixel + part * LANES, from.row, half + j * LANES,
                         n * LANES);
        ROLLED
        for (int i = 0; i < n; i++)
            NAMED(enter)(n, half + i * n * LANES, LANES, to + i * n * apart + part * LANES, apart);
    }
}

/* The gradients of a tile's 4 x 4 outputs from (y, x) on, 16 channels, to those of its points. */
INLINE void NAMED(spread_tile)(int n, const Map *map, Py_ssize_t y, Py_ssize_t x, Py_ssize_t group,
                               float *to, Py_ssize_t apart)
{
    float half[8 * 4 * LANES] __attribute__((aligned(64)));
    float bordered[4 * 4 * GROUP] __attribute__((aligned(64)));
    Place from = NAMED(tile_at)(4, map, y, x, group, bordered);
    for (int part = 0; part < PARTS; part++) {
        ROLLED
        for (int j = 0; j < 4; j++)
            NAMED(spread)(n, from.base + j * from.pixel + part * LANES, from.row, half + j * LANES,
                          4 * LANES);
        ROLLED
        for (int i = 0; i < n; i++)
            NAMED(spread)(n, half + i * 4 * LANES, LANES, to + i * n * apart + part * LANES, apart);
    }
}

/* At one point: the sums over all input channels for `count` tiles, to 16 output channels. `blocks`
   of up to 16 input channels, `apart` floats apart, have all tiles side by side, so that every
   address is a constant distance from one pointer: with an index the processor takes two steps.

   TOGETHER divides TILES, so there is room to round `count` up. */
INLINE void NAMED(multiply)(int count, float *restrict sums, const float *restrict tiles,
                            const float *restrict weights, int blocks, Py_ssize_t apart,
                            int channels, int last)
{
    for (int first = 0; first < count; first += TOGETHER) {
        Vector sum[TOGETHER][PARTS];
        UNROLL
        for (int t = 0; t < TOGETHER; t++)
            UNROLL
            for (int part = 0; part < PARTS; part++)
                sum[t][part] = (Vector){0};
        const float *weight = weights;
        for (int k = 0; k < blocks; k++) {
            const float *value = tiles + first * GROUP + k * apart;
            const float *end = value + ((k + 1) % last ? GROUP : channels);
            for (; value < end; value += STEP, weight += STEP * GROUP)
                UNROLL
                for (int c = 0; c < STEP; c++)
                    UNROLL
                    for (int t = 0; t < TOGETHER; t++)
                        UNROLL
                        for (int part = 0; part < PARTS; part++)
                            sum[t][part] += IN(weight + c * GROUP + part * LANES) *
                                            value[t * GROUP + c];
        }
        UNROLL
        for (int t = 0; t < TOGETHER; t++)
            UNROLL
            for (int part = 0; part < PARTS; part++)
                AT(sums + (first + t) * GROUP + part * LANES) = sum[t][part];
    }
}

/* The outputs of one tile, 16 channels: biased, the skip connection added, rectified. */
INLINE void NAMED(leave_tile)(int n, int rectified, int skipped, const float *sums,
                              Py_ssize_t apart, const float *bias, const Place *out,
                              const Place *skip, float factor, int rows, int columns)
{
    float half[4 * 8 * LANES] __attribute__((aligned(64)));
    for (int part = 0; part < PARTS; part++) {
        Vector offset = IN(bias + part * LANES);
        ROLLED
        for (int j = 0; j < n; j++)
            NAMED(leave)(n, sums + j * apart + part * LANES, n * apart, half + j * LANES,
                         n * LANES);
        for (int i = 0; i < rows; i++) {
            float done[4 * LANES] __attribute__((aligned(64)));
            float *to = out->base + i * out->row + part * LANES;
            const float *from = skipped ? skip->base + i * skip->row + part * LANES : NULL;
            NAMED(leave)(n, half + i * n * LANES, LANES, done, LANES);
            UNROLL
            for (int j = 0; j < 4; j++) {
                Vector value = IN(done + j * LANES) + offset;
                if (j >= columns)
                    break;
                if (skipped)
                    value += factor * IN(from + j * skip->pixel);
                if (rectified)
                    value = (Vector)((Mask)value & ~(value <= 0)); /* what is no number stays so */
                AT(to + j * out->pixel) = value;
            }
        }
    }
}

/* All pixels of `out` (at input resolution: of `out` divided by the scale). */
INLINE void NAMED(convolve)(int n, const Convolution *to_do, const Map *out, float *scratch)
{
    int reach = (n - 4) / 2, scale = to_do->scale, groups = to_do->groups;
    int filled = (to_do->channels + GROUP - 1) / GROUP;
    Py_ssize_t top = out->top / scale, height = out->bottom / scale - top;
    Py_ssize_t left = out->left / scale, width = out->right / scale - left;
    int blocks = to_do->sources * filled;
    int channels = (to_do->channels + STEP - 1) / STEP * STEP; /* of each source, with zeros */
    /* 16 floats more: points a power of two apart would share few places in the cache. */
    Py_ssize_t block = TILES * GROUP, points = blocks * block + GROUP, products = block + GROUP;
    float *tiles = scratch, *sums = scratch + n * n * points;
    Py_ssize_t ys[TILES], xs[TILES], y = 0, x = 0; /* within the output */
    while (y < height) {
        int count = 0;
        for (; count < TILES && y < height; count++) {
            ys[count] = y;
            xs[count] = x;
            for (int k = 0; k < to_do->sources; k++)
                for (int group = 0; group < filled; group++)
                    NAMED(enter_tile)(n, &to_do->from[k], top + y - reach, left + x - reach, group,
                                      tiles + (k * filled + group) * block + count * GROUP, points);
            x += 4;
            if (x >= width) {
                x = 0;
                y += 4;
            }
        }
        const float *weights = to_do->weights;
        for (int output = 0; output < to_do->outputs; output++) {
            int phase = output / groups, group = output % groups;
            const float *bias = to_do->bias + output * GROUP;
            float *base = out->base + phase / scale * out->row + phase % scale * out->pixel +
                          group * GROUP;
            for (int point = 0; point < n * n; point++) {
                NAMED(multiply)(count, sums + point * products, tiles + point * points, weights,
                                blocks, block, channels - (filled - 1) * GROUP, filled);
                weights += (Py_ssize_t)to_do->sources * channels * GROUP;
            }
            for (int t = 0; t < count; t++) {
                int rows = (int)least(4, height - ys[t]), columns = (int)least(4, width - xs[t]);
                Place to = {base + ys[t] * scale * out->row + xs[t] * scale * out->pixel,
                            scale * out->row, scale * out->pixel};
                const float *sum = sums + t * GROUP;
                if (to_do->skip) {
                    const Map *skip = to_do->skip;
                    Place from = {pixel(skip, top + ys[t], left + xs[t]) + group * GROUP, skip->row,
                                  skip->pixel};
                    NAMED(leave_tile)(n, 0, 1, sum, products, bias, &to, &from, to_do->factor, rows,
                                      columns);
                } else if (to_do->rectified)
                    NAMED(leave_tile)(n, 1, 0, sum, products, bias, &to, NULL, 0, rows, columns);
                else
                    NAMED(leave_tile)(n, 0, 0, sum, products, bias, &to, NULL, 0, rows, columns);
            }
        }
    }
}

static void NAMED(convolve_3)(const Convolution *to_do, const Map *out, float *scratch)
{
    NAMED(convolve)(6, to_do, out, scratch);
}

static void NAMED(convolve_5)(const Convolution *to_do, const Map *out, float *scratch)
{
    NAMED(convolve)(8, to_do, out, scratch);
}

/* At one point: what `count` tiles add to the gradient of the weights from 16 channels to 16. */
INLINE void NAMED(add_products)(int count, float *restrict sums, const float *restrict inputs,
                                const float *restrict outputs)
{
    for (int first = 0; first < GROUP; first += TOGETHER) {
        Vector sum[TOGETHER][PARTS];
        UNROLL
        for (int c = 0; c < TOGETHER; c++)
            UNROLL
            for (int part = 0; part < PARTS; part++)
                sum[c][part] = IN(sums + (first + c) * GROUP + part * LANES);
        for (int t = 0; t < count; t++)
            UNROLL
            for (int c = 0; c < TOGETHER; c++)
                UNROLL
                for (int part = 0; part < PARTS; part++)
                    sum[c][part] += IN(outputs + t * GROUP + part * LANES) *
                                    inputs[t * GROUP + first + c];
        UNROLL
        for (int c = 0; c < TOGETHER; c++)
            UNROLL
            for (int part = 0; part < PARTS; part++)
                AT(sums + (first + c) * GROUP + part * LANES) = sum[c][part];
    }
}

/* Add the gradient of the weights, laid out as these are, that follows from that of the outputs in
   the rectangle of `by`. Few groups of outputs at a time, so that their sums stay in the cache. */
INLINE void NAMED(gradient)(int n, const Map *from, const Map *by, int inputs, int outputs,
                            float *sums, float *scratch)
{
    int reach = (n - 4) / 2;
    Py_ssize_t block = TILES * GROUP, of_point = (Py_ssize_t)inputs * GROUP * GROUP;
    Py_ssize_t entered = inputs * block + GROUP, spread = SLICE * block + GROUP;
    float *tiles = scratch, *gradients = scratch + n * n * entered;
    for (int slice = 0; slice < outputs; slice += SLICE) {
        int groups = (int)least(SLICE, outputs - slice);
        Py_ssize_t y = by->top, x = by->left;
        while (y < by->bottom) {
            int count = 0;
            for (; count < TILES && y < by->bottom; count++) {
                for (int k = 0; k < inputs; k++)
                    NAMED(enter_tile)(n, from, y - reach, x - reach, k,
                                      tiles + k * block + count * GROUP, entered);
                for (int k = 0; k < groups; k++)
                    NAMED(spread_tile)(n, by, y, x, slice + k,
                                       gradients + k * block + count * GROUP, spread);
                x += 4;
                if (x >= by->right) {
                    x = by->left;
                    y += 4;
                }
            }
            for (int k = 0; k < groups; k++)
                for (int point = 0; point < n * n; point++)
                    for (int input = 0; input < inputs; input++)
                        NAMED(add_products)(
                            count,
                            sums + ((slice + k) * n * n + point) * of_point + input * GROUP * GROUP,
                            tiles + point * entered + input * block,
                            gradients + point * spread + k * block);
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
#undef AT
#undef IN

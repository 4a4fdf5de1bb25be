/* Convolutions of one-bit activations with one-bit weights, in every detail of what comes after the sums.
 *
 * A stored activation x, uint8, is the bit x >= threshold[channel]. Bits stand for -1 and +1 (levels 2) or 0 and 1
 * (levels 1), and what lies outside a picture is a zero bit. With s the sum of products over a window,
 *
 *     q = clip(rint(float(s + bias) * (step_in * weight_step / step_out)), low - zero, high - zero)
 *
 * is the level that is stored as q + zero; step_in * weight_step and its quotient are rounded to float one after the
 * other, rint rounds half to even. With a residual, which has the same step and zero as the output,
 *
 *     t = clip(q + shortcut - zero)      v = t * step_out - shift_in
 *     q = clip(rint(((v > 0 ? v : v * slope) + shift_out) / step_out))
 *
 * Sums come from the number m of places where a window and a weight differ: s = K*K*C - 2m at two levels; at levels 0
 * and 1, 2s is that plus the sum of the weights. Pictures are NHWC: a window is K runs of bytes, read where they lie.
 */

#ifndef BITFLEET_BINARY_H
#define BITFLEET_BINARY_H

#include <stddef.h>
#include <stdint.h>

enum {
    BLOCK = 64,            /* outputs that are computed together */
    PIXELS = 4,            /* pixels that are computed together */
    VECTOR = 32,           /* channels that are compared together, at most */
    LARGEST_KERNEL = 7,    /* rows and columns of a window */
    LARGEST_WINDOW = 65535 /* bits: their number of differences is counted in 16 bits */
};

typedef struct {
    size_t channels, outputs, kernel, stride, padding;
    int levels, zero, low, high;
    float step_in, step_out;
    const int32_t *threshold;  /* channels */
    const uint8_t *weight;     /* bits, lowest first, [output][channel][row][column] without a gap; one is +1 */
    const float *weight_step;  /* outputs */
    const int32_t *bias;       /* outputs */
    const float *slope, *shift_in, *shift_out; /* outputs; NULL without a residual */
} Definition;

typedef struct Layer Layer;

/* One way to compute it; all give the same bytes. */
typedef struct {
    const char *name;
    int (*runs_here)(void);
    size_t (*pixel_bytes)(size_t channels);
    /* What `count` reads of the weights of one block; its size for any block comes first. */
    size_t (*block_bytes)(const Definition *definition);
    void (*pack)(const Definition *definition, size_t block, uint8_t *packed);
    /* Bits of `pixels` neighbours. */
    void (*binarize)(const Layer *layer, const uint8_t *x, size_t pixels, uint8_t *bits);
    /* Differences of four windows, each given by its first pixel, and the weights of the first outputs of a block. */
    void (*count)(const Layer *layer, const uint8_t *const *window, size_t row_bytes, const uint8_t *packed,
                  size_t outputs, uint16_t (*counts)[BLOCK]);
    /* From differences to what one pixel stores, `outputs` values from `first` on. */
    void (*finish)(const Layer *layer, size_t first, size_t outputs, const uint16_t *counts, const uint8_t *shortcut,
                   uint8_t *out);
} Path;

/* A definition made ready for one path. Arrays over outputs are filled up to whole blocks. */
struct Layer {
    const Path *path;
    size_t channels, outputs, blocks, kernel, stride, padding, pixel_bytes, block_bytes;
    int unit, has_residual;
    float zero, low, high, step_out; /* low and high as levels, without the zero */
    /* By channel, and on for VECTOR more as if channels came again: a byte x is a one if x >= least, and possible. */
    uint8_t *least, *possible;
    int32_t *offset; /* what a window without a difference adds up to, with the bias; `unit` less for each one */
    float *factor, *slope, *shift_in, *shift_out;
    uint8_t *packed;
};

/* Calls task(state, 0) to task(state, count - 1) in any order, at once if it likes. */
typedef void (*ParallelFor)(void *context, void (*task)(void *state, size_t number), size_t count, void *state);

/* The paths that were built, the fastest first, then NULL. */
extern const Path *const binary_paths[];

/* The first that this processor runs. */
const Path *binary_fastest(void);

/* NULL and *layer, or what is wrong with the definition. */
const char *binary_prepare(const Definition *definition, const Path *path, Layer **layer);

void binary_release(Layer *layer);

/* Edge of the output, 0 if not one window fits. */
size_t binary_edge(const Layer *layer, size_t edge);

/* y [N][H'][W'][outputs] from x [N][H][W][channels] and shortcut like y, if there is a residual; -1 without memory. */
int binary_run(const Layer *layer, const uint8_t *x, const uint8_t *shortcut, uint8_t *y, size_t pictures,
               size_t height, size_t width, ParallelFor parallel, void *context);

/* Whether the weight of an output at a place is +1. */
static inline unsigned binary_weight(const Definition *definition, size_t output, size_t channel, size_t place)
{
    size_t kernel = definition->kernel, bit = (output * definition->channels + channel) * kernel * kernel + place;
    return definition->weight[bit / 8] >> bit % 8 & 1u;
}

#endif
